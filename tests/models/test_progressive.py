"""Progressive GANs: a new level changes nothing at first, is alone at last, and its layers are what their names say."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

import tinygen
from tests.models.test_gan import training
from tinygen import nn, optim
from tinygen.data import Dataset, load
from tinygen.models.gan.large import fade
from tinygen.models.gan.layers import EPS, EqualizedConv2d, EqualizedConvTranspose2d, MinibatchStdDev, PixelNorm
from tinygen.models.gan.objectives import WassersteinGP
from tinygen.models.gan.progressive import Drifting, Growth, ProgressiveGAN, down, up


def new(shape=(1, 16, 16), levels=256, dtype=np.float32, **options):
    model = ProgressiveGAN(shape, levels, **{"latent": 6, "width": 2} | options, rng=np.random.default_rng(0)).to(dtype)
    rng = np.random.default_rng(2)
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            p.write()[...] = rng.normal(0, 0.3, p.shape)  # not 0, or they couldn't be missed
    learned = dict(model.pair.generator.network.named_parameters())
    for name, average in model.pair.generator.average.named_buffers():
        average.write()[...] = learned.get(name, average).numpy()
    return model


def at(model, level, alpha):
    model.growth.set(level, alpha)
    return model.pair


def noise(model, n=3):
    return model.codes(n, np.random.default_rng(1))


def images(n=3, side=16, dtype=np.float32):
    return tinygen.tensor(np.random.default_rng(3).uniform(-1, 1, (n, 1, side, side)).astype(dtype))


# ------------------------------------------------------------------------------------------------------------- the fade


@pytest.mark.parametrize("level", [1, 2])
def test_a_new_level_changes_nothing_at_first(level):
    """At alpha 0, bit for bit, G's images are the smaller ones, enlarged; D sees the means of pixels."""
    model, x = new(), images()
    z = noise(model)
    small = at(model, level - 1, 1.0)
    before, judged = small.generate(z).numpy(), small.discriminate(x).numpy()
    pooled = small.discriminate(up(down(x, 3 - level), 3 - level)).numpy()
    grown = at(model, level, 0.0)
    np.testing.assert_array_equal(grown.generate(z).numpy(), before)
    np.testing.assert_array_equal(grown.discriminate(x).numpy(), judged)
    np.testing.assert_array_equal(judged, pooled)
    block = 2 ** (3 - level)  # before it, pixels are squares as large as this
    np.testing.assert_array_equal(before, before[:, :, ::block, ::block].repeat(block, 2).repeat(block, 3))
    assert (at(model, level, 0.5).generate(z).numpy() != before).any()
    assert (at(model, level, 0.5).discriminate(x).numpy() != judged).any()


@pytest.mark.parametrize("level", [1, 2])
def test_a_level_is_alone_at_last(level):
    """At alpha 1, neither player's output depends on what made images of the level before."""
    model, x = new(), images()
    pair, z = at(model, level, 1.0), noise(model)
    before = pair.generate(z).numpy(), pair.discriminate(x).numpy()
    for images_of in (pair.generator.network.images, pair.discriminator.images):
        for p in images_of[level - 1].parameters():
            p.write()[...] = np.nan
    np.testing.assert_array_equal(pair.generate(z).numpy(), before[0])
    np.testing.assert_array_equal(pair.discriminate(x).numpy(), before[1])


def test_images_are_affine_in_alpha():
    model = new(dtype=np.float64)
    z = noise(model)
    none, half, all_ = (at(model, 2, alpha).generate(z).numpy() for alpha in (0.0, 0.25, 1.0))
    np.testing.assert_allclose(half, 0.75 * none + 0.25 * all_, rtol=1e-12)
    assert np.abs(none - all_).max() > 0.1


def test_real_images_have_as_little_of_the_new_detail():
    model = new()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 1, 16, 16)).astype(np.uint8)
    at(model, 2, 1.0)
    whole = model.scale(pixels)
    for alpha in (0.0, 0.25):
        at(model, 2, alpha)
        expected = (1 - alpha) * up(down(whole)).numpy() + alpha * whole.numpy()
        np.testing.assert_allclose(model.scale(pixels).numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("done", "level", "alpha"),
    [(0, 0, 1), (0.9, 0, 1), (1, 1, 0), (1.5, 1, 0.5), (2, 1, 1), (2.9, 1, 1), (3, 2, 0), (3.5, 2, 0.25), (7, 2, 1)],
)
def test_levels_fade_in_first_and_then_settle(done, level, alpha):
    growth = Growth(3, fade=0.5)
    growth.move(done / 7)  # the three levels take 1, 2 and 4 sevenths
    assert growth.now == (level, pytest.approx(alpha, abs=1e-6))


def test_the_schedule_follows_the_training():
    """By what is over of it, not by steps; where it has come to is in the state."""
    model = new(shape=(1, 8, 8), levels=17)
    run = training(model, Dataset(np.zeros((16, 1, 8, 8), np.uint8), 17))
    rows = [run.advance(done) for done in (0.0, 1 / 3 + 1 / 15, 0.5, 0.9)]
    assert [(row["level"], round(row["alpha"], 3)) for row in rows] == [(0, 1), (1, 0.2), (1, 0.5), (1, 1)]
    state = model.state_dict()
    assert (state["growth.level"], state["growth.alpha"]) == (1, 1)


def test_samples_are_those_of_the_average_of_the_weights():
    model = new(shape=(1, 8, 8), levels=17)
    run = training(model, lr=1e-2)
    for _ in range(5):
        run.advance(0.9)
    generator, z = model.pair.generator, noise(model)
    noisy = tinygen.tensor(z.reshape(-1, 6, 1, 1).astype(np.float32))
    with tinygen.no_grad():
        learned, averaged = (net(noisy).numpy() for net in (generator.network, generator.average))
    np.testing.assert_array_equal(model.decode(z), model.levels.unscale(averaged))
    assert (learned != averaged).any()
    assert generator.updates.item() == 5


def test_only_the_levels_so_far_are_trained():
    model = new(shape=(1, 8, 8), levels=17)
    run = training(model)
    before = model.state_dict()
    run.advance(0.0)
    moved = {name for name, value in model.state_dict().items() if (value != before[name]).any()}
    assert not [name for name in moved if ".blocks.1." in name or ".images.1." in name]
    assert {"pair.generator.network.images.0.weight", "pair.discriminator.images.0.0.weight"} <= moved
    run.advance(0.6)
    after = model.state_dict()
    assert (
        after["pair.generator.network.blocks.1.0.weight"] != before["pair.generator.network.blocks.1.0.weight"]
    ).any()


# ------------------------------------------------------------------------------------------------- layers and objective


def test_pixel_norm_gives_each_pixel_a_mean_square_of_1():
    x = np.random.default_rng(0).normal(2, 5, (2, 7, 3, 4))
    y = PixelNorm()(tinygen.tensor(x)).numpy()
    np.testing.assert_allclose((y**2).mean(axis=1), 1, rtol=1e-8)
    np.testing.assert_allclose(y * np.sqrt((x**2).mean(axis=1, keepdims=True) + EPS), x)


def test_the_deviation_of_a_batch_is_one_channel_more():
    x = np.random.default_rng(0).normal(size=(5, 3, 2, 4))
    y = MinibatchStdDev()(tinygen.tensor(x)).numpy()
    np.testing.assert_array_equal(y[:, :3], x)
    np.testing.assert_allclose(y[:, 3], x.std(axis=0).mean(), rtol=1e-6)


def test_equal_images_deviate_by_nothing_and_have_finite_gradients_of_both_orders():
    x = tinygen.tensor(np.ones((4, 3, 2, 2), np.float32), requires_grad=True)
    deviation = MinibatchStdDev()(x)[:, 3]
    np.testing.assert_allclose(deviation.numpy(), 0, atol=1.01 * math.sqrt(EPS))
    (g,) = tinygen.grad(deviation.sum(), x, create_graph=True)
    np.testing.assert_array_equal(g.numpy(), 0)
    (gg,) = tinygen.grad((g**2).sum() + g.sum(), x)
    assert np.isfinite(gg.numpy()).all()


def equalized(rng):
    return [
        EqualizedConv2d(3, 5, 1, rng=rng), EqualizedConv2d(40, 7, 3, 1, 1, rng=rng),
        EqualizedConv2d(8, 40, 4, 2, 1, gain=1, rng=rng), EqualizedConvTranspose2d(40, 6, 4, 2, 1, rng=rng),
    ]  # fmt: skip


def test_adams_first_step_is_as_large_in_all_equalized_layers():
    """Relative to the weights' deviation: in other layers, it is larger where more inputs come together."""

    def steps(layers):
        for layer in layers:
            x = tinygen.tensor(np.random.default_rng(0).normal(size=(2, layer.in_channels, 8, 8)).astype(np.float32))
            before = layer.weight.numpy().copy() * getattr(layer, "c", 1)
            optimizer = optim.Adam(layer.parameters(), lr=0.01)
            (layer(x) ** 2).sum().backward()
            optimizer.step()
            after = layer.weight.numpy() * getattr(layer, "c", 1)
            yield np.abs(after - before).max() / he(layer)

    def he(layer):
        taps = math.prod(layer.kernel_size) / layer.settings["stride"] ** (2 * isinstance(layer, nn.ConvTranspose2d))
        return 1 / math.sqrt(layer.in_channels * taps)

    rng = np.random.default_rng(0)
    gains = [math.sqrt(2), math.sqrt(2), 1, math.sqrt(2)]
    np.testing.assert_allclose(list(steps(equalized(rng))), 0.01 * np.array(gains), rtol=1e-3)
    plain = list(steps([nn.Conv2d(3, 5, 1, rng=rng), nn.Conv2d(40, 7, 3, 1, 1, rng=rng)]))
    assert plain[1] > 5 * plain[0]


def test_equalized_layers_keep_the_size_of_what_goes_through():
    """Those with gain sqrt(2) give outputs of variance 2, of which leaky ReLU leaves about 1."""
    rng = np.random.default_rng(0)
    for layer in (EqualizedConv2d(64, 64, 4, 2, rng=rng), EqualizedConvTranspose2d(64, 64, 4, 2, 1, rng=rng)):
        y = layer(tinygen.tensor(rng.normal(size=(4, 64, 16, 16)).astype(np.float32))).numpy()[:, :, 2:-2, 2:-2]
        assert y.var() == pytest.approx(2, rel=0.1)


def test_the_drift_draws_values_to_0():
    real, fake = (tinygen.tensor(np.array(x)) for x in ([1.0, 3.0], [0.0, 2.0]))
    assert Drifting().d_loss(real, fake).item() == pytest.approx(WassersteinGP().d_loss(real, fake).item() + 5e-3)


def test_a_collapse_at_a_fade_in_is_told_from_one_that_goes_well():
    """The same model fades in a level by a learning rate that suits it, and by one that is far too high."""
    model = ProgressiveGAN((1, 8, 8), 17, latent=16, width=8, rng=np.random.default_rng(0))
    run = training(model, batch_size=32, lr=1e-3)
    for _ in range(100):
        run.advance(0.0)
    assert model.growth.spread.item() > 0.5
    before, found = model.state_dict(), []
    for lr in (1e-3, 0.2):
        model.load_state_dict(before)
        run = training(model, batch_size=32, lr=lr)
        rows = [run.advance((1 + 0.78 * i / 39) / 3) for i in range(40)]
        means = {name: float(np.mean([row[name] for row in rows[-20:]])) for name in rows[0]}
        found.append([text for text in model.family.diagnostics(model, means) if "collapse" in text])
        assert model.family.progress(model, means).startswith("8x8, 78% faded in  D(x) - D(G(z)) ")
    assert found[0] == []
    assert re.match("collapse at the fade-in of 8x8: the samples differ .* the data, [0-9]+% before", found[1][0])


def test_the_picture_shows_the_same_codes_at_every_level():
    model = new(shape=(1, 8, 8), levels=17).eval()
    at(model, 1, 0.5)
    grid = fade(model, *load("digits"), np.random.default_rng(0))
    assert list(grid.across) == ["4x4", "25%", "50%", "75%", "8x8"]
    assert model.growth.now == (1, 0.5)
    small = grid.images[::5]
    np.testing.assert_array_equal(small, small[:, :, ::2, ::2].repeat(2, 2).repeat(2, 3))
    at(model, 1, 1.0)
    np.testing.assert_array_equal(grid.images[4::5], model.images(model.codes(len(small), np.random.default_rng(0))))


def test_bad_input_is_one_sentence():
    for share in (0.0, 1.5, math.nan):
        with pytest.raises(ValueError, match=f"fade must be above 0 and at most 1, got {share}"):
            new(fade=share)
