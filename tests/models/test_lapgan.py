"""LAPGAN: its pyramid is exact, its levels learn by themselves, each is told the coarse image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygen
from tests.models.test_gan import training
from tinygen import optim
from tinygen.data import load
from tinygen.models.gan.lapgan import LAPGAN, AddCoarse
from tinygen.models.gan.large import levels
from tinygen.models.gan.pyramid import composed, down, pyramid, up


def new(shape=(1, 8, 8), levels=256, **options):
    return LAPGAN(
        shape,
        levels,
        **{"objective": "non-saturating", "latent": 6, "width": 4, "critic_steps": 1} | options,
        rng=np.random.default_rng(0),
    )


def images(n=5, shape=(1, 8, 8), levels=256):
    return np.random.default_rng(1).integers(0, levels, (n, *shape)).astype(np.uint8)


@settings(max_examples=20)
@given(st.integers(2, 256), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_a_pyramid_gives_its_image_back_bit_for_bit(levels, depth, seed):
    x = np.random.default_rng(seed).integers(0, levels, (2, 3, 16, 24)).astype(np.uint8)
    model = new((3, 16, 24), levels)
    scaled = model.scale(x).numpy()
    assert scaled.dtype == np.float32
    parts = pyramid(scaled, depth)
    assert [part.shape[2:] for part in parts] == [(16 >> i, 24 >> i) for i in reversed(range(depth))]
    np.testing.assert_array_equal(composed(parts), scaled)
    np.testing.assert_array_equal(model.unscale(scaled), x)
    assert -1 <= scaled.min() <= scaled.max() <= 1


def test_details_have_mean_zero_in_each_square_of_pixels():
    _, h = pyramid(new().scale(images()).numpy(), 2)
    np.testing.assert_array_equal(down(h), 0)


def test_without_detail_a_level_gives_the_enlarged_image():
    model = new()
    for generator in list(model.pair.generator)[1:]:
        for p in list(generator)[-1].parameters():
            p.write()[...] = 0
    model.eval()
    z = model.codes(4, np.random.default_rng(0))
    first, *details = model.pair.parts(z)
    assert not any(h.any() for h in details)
    np.testing.assert_array_equal(model.decode(z), model.unscale(first.repeat(2, 2).repeat(2, 3)))


def test_the_players_of_a_level_see_the_coarse_image():
    model = new()
    pair = model.pair.pairs["8x8"].eval()
    rng = np.random.default_rng(0)
    z, coarse = rng.standard_normal((2, 64)), rng.uniform(-1, 1, (2, 1, 4, 4))
    h = tinygen.tensor(rng.uniform(-1, 1, (2, 1, 8, 8)).astype(np.float32))
    with tinygen.no_grad():
        for see in (lambda given: pair.generate(z, given), lambda given: pair.discriminate(h, given)):
            assert (see(coarse).numpy() != see(-coarse).numpy()).any()
    both = tinygen.tensor(np.concatenate([h.numpy(), up(coarse)], axis=1))
    added, beside = np.split(AddCoarse()(both).numpy(), 2, axis=1)
    np.testing.assert_allclose(added, h.numpy() + up(coarse), rtol=1e-6)
    np.testing.assert_array_equal(beside, both.numpy()[:, 1:])


def test_a_level_is_trained_on_details_and_their_coarse_images():
    model = new()
    seen = {}
    for name, pair in model.pair.pairs.items():
        inner = pair.discriminator_loss
        pair.discriminator_loss = lambda x, fake, labels, *rest, name=name, inner=inner: (
            seen.update({name: (x.numpy(), labels)}) or inner(x, fake, labels, *rest)
        )
    x = images(16)
    run = training(model, tinygen.data.Dataset(x, 256), batch_size=16)
    run.advance(0.0)
    assert run.drawn == 1
    small, nothing = seen["4x4"]
    assert nothing is None
    assert small.shape == (16, 1, 4, 4)
    h, coarse = seen["8x8"]
    found = {image.tobytes() for image in model.scale(x).numpy()}
    assert {image.tobytes() for image in up(coarse) + h} == found


def test_levels_learn_independently():
    """A step of level 1 leaves the parameters and running statistics of level 0 as they were; and the reverse."""
    model = new(shape=(1, 8, 8), levels=17)
    run = training(model)
    run.advance(0.0)
    minimize, moved = run.minimize, []

    def watched(closure, optimizer):
        before = {name: whole(pair) for name, pair in model.pair.pairs.items()}
        parts = minimize(closure, optimizer)
        moved.append((optimizer, [name for name, pair in model.pair.pairs.items() if whole(pair) != before[name]]))
        return parts

    run.minimize = watched
    run.advance(0.0)
    assert moved == [
        ("discriminator 4x4", ["4x4"]), ("generator 4x4", ["4x4"]),
        ("discriminator 8x8", ["8x8"]), ("generator 8x8", ["8x8"]),
    ]  # fmt: skip


def whole(pair):
    return {name: value.tobytes() for name, value in pair.state_dict().items()}


class OneSlowGenerator(LAPGAN):
    """The generator of the last level hardly learns: its discriminator wins."""

    def optimizers(self, lr):
        generator = self.pair.pairs["8x8"].generator
        return super().optimizers(lr) | {"generator 8x8": optim.Adam(generator.parameters(), lr * 1e-3)}


def test_the_level_whose_discriminator_has_won_is_named():
    options = {"objective": "non-saturating", "critic_steps": 1, "width": 16}
    model = OneSlowGenerator((1, 8, 8), 17, **options, rng=np.random.default_rng(0))
    run = training(model, batch_size=32, lr=3e-3)
    rows = [run.advance(0.0) for _ in range(120)]
    means = {name: float(np.mean([row[name] for row in rows[-20:]])) for name in rows[0]}
    found = model.family.diagnostics(model, means)
    assert any(text.startswith("level 8x8: the discriminator has won") for text in found), found
    assert not any("4x4: the discriminator has won" in text for text in found), found
    assert model.family.progress(model, means).startswith("D(x), D(G(z)): 4x4 0.")


def test_missing_classes_are_those_of_the_whole_image():
    model = new(shape=(1, 8, 8), levels=17)
    parts = training(model).advance(0.0)
    model.missing.write()[:] = 3, 10
    assert model.family.diagnostics(model, parts)[0] == "mode collapse: 3 of 10 classes missing"


def test_the_picture_shows_exact_sums():
    model = new(shape=(1, 8, 8), levels=17).eval()
    train, test = load("digits")
    grid = levels(model, train, test, np.random.default_rng(0))
    assert list(grid.across) == ["4x4", "enlarged", "detail", "8x8"]
    assert len(grid.rows) * grid.columns == len(grid.images) == 32
    for row in range(3):
        np.testing.assert_array_equal(grid.images[4 * row + 3], model.levels.to_gray(test.images[row]))
        np.testing.assert_array_equal(grid.images[4 * row], grid.images[4 * row + 1])


def test_one_with_penalties_is_evaluated():
    model, (train, test) = new(shape=(1, 8, 8), levels=17, objective="wgan-gp").eval(), load("digits")
    names = [metric.name for metric in model.family.metrics(model, train, test, np.random.default_rng(0))]
    assert [name.split()[0] for name in names] == ["FD*", "precision", "recall", "rarest", "memorization"]


def test_bad_input_is_one_sentence():
    with pytest.raises(ValueError, match="objective must be one whose discriminator is no autoencoder, got 'began'"):
        new(objective="began")
    with pytest.raises(ValueError, match=r"image_shape must have an even height and width, got \(1, 7, 8\)"):
        new(shape=(1, 7, 8))
    with pytest.raises(ValueError, match="LAPGAN knows no classes"):
        new().sample(1, np.random.default_rng(0), labels=np.zeros(1, int))
