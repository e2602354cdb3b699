"""Translations: what D's patches see, what G's bottleneck holds, losses by identities, the pool, what is measured."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tinygen
from tinygen import grad, nn, optim
from tinygen.cli.main import main
from tinygen.data import Dataset, load, subset, tasks
from tinygen.metrics.metric import Metric
from tinygen.models.family import Batch
from tinygen.models.gan.objectives import LeastSquares
from tinygen.models.model import Translates
from tinygen.models.translation.base import LOSSES, Direction
from tinygen.models.translation.cyclegan import CycleGAN
from tinygen.models.translation.discogan import DiscoGAN
from tinygen.models.translation.family import diagnosis
from tinygen.models.translation.networks import Generator, ImagePool, PatchDiscriminator
from tinygen.models.translation.pix2pix import Pix2Pix
from tinygen.nn import functional as F
from tinygen.report.images import LABELED, draw_grid
from tinygen.training.config import Config
from tinygen.training.run import Run
from tinygen.training.trainer import Trainer


def rng(seed=0):
    return np.random.default_rng(seed)


def new(cls=CycleGAN, shape=(1, 8, 8), levels=17, seed=0, **options):
    return cls(shape, levels, **{"width": 4, **options}, rng=rng(seed))


def training(model, data=None, batch_size=16, lr=1e-3):
    return Trainer(Config("pix2pix", batch_size=batch_size, lr=lr, epochs=1.0), model, data or load("digits")[0], rng())


def randomized(net, seed=0):
    """The net with all parameters drawn anew: the U-Net's last convolutions start at zero, which hides mistakes."""
    draws = rng(seed)
    for p in net.parameters():
        p.write()[...] = draws.normal(0, 0.3, p.shape)
    return net


def scaled(model, n=6, seed=0):
    """(x, y): two domains' images, as the networks see them."""
    images = rng(seed).integers(0, 17, (2, n, *model.shapes[0])).astype(np.uint8)
    return model.scale(images[0]), model.scale(images[1])


# ------------------------------------------------------------------------------------------------------------- networks


@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 2), (6, 6)])
def test_a_patch_depends_on_its_18x18_pixels_alone(row, column):
    """The gradient is exactly 0 elsewhere, and at no pixel within."""
    d = randomized(PatchDiscriminator(2, (28, 28), 4, rng=rng()).to(np.float64))
    x = tinygen.tensor(rng(1).normal(size=(1, 2, 28, 28)), requires_grad=True)
    values, features = d(x)
    assert values.shape == (1, 1, 7, 7)
    assert [f.shape for f in features] == [(1, 4, 14, 14), (1, 8, 7, 7)]
    (g,) = grad(values[0, 0, row, column], x)
    seen = np.zeros((28, 28), bool)
    seen[max(0, 4 * row - 7) : 4 * row + 11, max(0, 4 * column - 7) : 4 * column + 11] = True
    assert ((g.numpy()[0] != 0).all(axis=0) == seen).all()
    assert ((g.numpy()[0] != 0).any(axis=0) == seen).all()


def test_without_the_bottleneck_the_skip_paths_alone_make_the_image():
    """By dropping all of it: then what lies beneath has no gradient, and the rest is written out."""
    g = randomized(Generator(1, 1, (16, 16), 4, dropout=1.0, rng=rng()).to(np.float64))
    net = g.unet
    x = tinygen.tensor(rng(1).normal(size=(2, 1, 16, 16)))
    out = g(x, rng(2))
    across = net.down[0](net.input(F.pixel_unshuffle(x, 2)))
    zeros = x.new_tensor(np.zeros((2, 8, 4, 4)))
    h = net.up[0](tinygen.cat(net.upsample[0](net.up[1](zeros)), across, dim=1))
    expected = F.pixel_shuffle(net.output(net.norm(h)), 2).tanh()
    np.testing.assert_array_equal(out.numpy(), expected.numpy())
    beneath = [*net.downsample.parameters(), *net.down[1].parameters()]
    assert all(not p.numpy().any() for p in grad(out.sum(), beneath))
    with_it = grad(g(x).sum(), beneath)
    assert all(p.numpy().any() for p in with_it)


def test_images_are_patches_where_their_sides_allow():
    for sides, patch in (((28, 28), 2), ((16, 20), 2), ((18, 16), 1), ((8, 8), 1)):
        g = Generator(3, 1, sides, 4, rng=rng())
        assert g.patch == patch
        assert g(tinygen.tensor(np.zeros((2, 3, *sides), np.float32))).shape == (2, 1, *sides)
    with pytest.raises(ValueError, match="image_shape must have an even height and width, got 7x8"):
        new(shape=(1, 7, 8))


# -------------------------------------------------------------------------------------------------------------- losses


def test_identity_maps_have_no_cycle_and_no_identity_loss():
    model = new()
    for way in model.directions():
        way.generator = nn.Identity()
    for side in model.sides(*scaled(model), rng()):
        found = model.losses(side)
        assert found["cycle"].item() == found["identity"].item() == 0.0
        assert found["adversarial"].item() > 0


@pytest.mark.parametrize("cls", [CycleGAN, DiscoGAN])
def test_swapping_the_domains_swaps_the_losses(cls):
    model = randomized(new(cls))
    other = copy.deepcopy(model)
    other.there, other.back = other.back, other.there
    x, y = scaled(model)
    ours, theirs = model.sides(x, y, rng()), other.sides(y, x, rng())
    found = [[{k: v.item() for k, v in m.losses(s).items()} for s in s2] for m, s2 in ((model, ours), (other, theirs))]
    assert found[0] == found[1][::-1]
    assert found[0][0] != found[0][1]
    d = [
        m.discriminator_loss(sides, [s.made.detach() for s in sides], [])["d_loss"].item()
        for m, sides in ((model, ours), (other, theirs))
    ]
    assert d[0] == pytest.approx(d[1], rel=1e-6)


def test_discogan_is_cyclegan_without_identity_with_features_that_are_matched():
    """With one distance and one objective for both."""

    class Disco(DiscoGAN):
        objective = LeastSquares()
        apart = CycleGAN.apart

    cycle, disco = randomized(new(identity=0.0)), randomized(new(Disco, adversarial=2.0))
    x, y = scaled(cycle)
    for one, other in zip(cycle.sides(x, y, rng()), disco.sides(x, y, rng()), strict=True):
        ours, theirs = (({k: v.item() for k, v in m.losses(s).items()}) for m, s in ((cycle, one), (disco, other)))
        features = theirs.pop("features")
        assert ours == theirs
        assert features > 0


def test_matched_features_by_hand():
    model = randomized(new(DiscoGAN))
    side = model.sides(*scaled(model), rng())[0]
    expected = 0.0
    for a, b in zip(*(side.there.discriminator(image)[1] for image in (side.y, side.made)), strict=True):
        expected += ((a.numpy().mean(axis=0) - b.numpy().mean(axis=0)) ** 2).mean()
    assert LOSSES["features"](model, side).item() == pytest.approx(expected, rel=1e-5)
    shuffled = side._replace(made=side.y[rng().permutation(len(side.y))])
    assert LOSSES["features"](model, shuffled).item() == pytest.approx(0, abs=1e-10)  # the means are those of y


def test_the_squared_distance_is_discogans():
    x, y = scaled(new(DiscoGAN))
    assert new(DiscoGAN).apart(x, y).item() == pytest.approx(float(((x.numpy() - y.numpy()) ** 2).mean()), rel=1e-6)
    assert new().apart(x, y).item() == pytest.approx(float(np.abs(x.numpy() - y.numpy()).mean()), rel=1e-6)


# ------------------------------------------------------------------------------------------------------------ training


def test_adversarial_weight_0_is_l1_regression_bit_for_bit():
    """A loop that knows nothing of D: the same parameters after five steps."""
    model = new(Pix2Pix, adversarial=0.0)
    plain, step = copy.deepcopy(model), training(model)
    draws, g = training(plain), plain.there.generator
    optimizer = optim.Adam(g.parameters(), 1e-3, (0.5, 0.999))
    before = [p.numpy().copy() for p in model.there.discriminator.parameters()]
    for _ in range(5):
        row = step.advance(0.0)
        batch = draws.batch()
        x, y = (plain.scale(images) for images in tasks.named("edges")(batch.images, batch.labels, 17, draws.rng))
        loss = 100.0 * (g(x, draws.rng) - y).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert row["l1"] == loss.item()
    for p, q in zip(model.there.generator.parameters(), g.parameters(), strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())
    for p, q in zip(model.there.discriminator.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.numpy(), q)
    assert not {"d_loss", "adversarial", "real", "fake", "d_grad"} & row.keys()


@pytest.mark.parametrize(("cls", "draws"), [(Pix2Pix, 1), (CycleGAN, 2), (DiscoGAN, 2)])
def test_domains_without_pairs_are_two_draws(cls, draws, monkeypatch):
    model, seen = new(cls), []
    step = training(model)
    batch = step.batch
    monkeypatch.setattr(step, "batch", lambda: seen.append(batch()) or seen[-1])
    sides = []
    original = model.sides
    monkeypatch.setattr(model, "sides", lambda x, y, rng: sides.append((x, y)) or original(x, y, rng))
    step.advance(0.0)
    assert len(seen) == draws
    x, y = (model.levels.round(domain.numpy()) for domain in sides[0])
    np.testing.assert_array_equal(x, tasks.outlines(seen[0].images, 17))
    np.testing.assert_array_equal(y, seen[-1].images)


@pytest.mark.parametrize("cls", [Pix2Pix, CycleGAN, DiscoGAN])
def test_each_player_has_its_own_parameters(cls):
    model = new(cls)
    found = {name: {id(p) for g in o.param_groups for p in g["params"]} for name, o in model.optimizers(1e-3).items()}
    named = dict(model.named_parameters())
    for name, own in found.items():
        assert own == {id(p) for key, p in named.items() if f".{name}." in key}
    assert sum(map(len, found.values())) == len(named)


def test_one_batch_is_learned_by_heart():
    digits = subset(load("digits")[0], slice(16))
    model = new(Pix2Pix, width=8, dropout=0.0)
    step = training(model, digits, lr=5e-3)
    first, *_, last = [step.advance(0.0)["error"] for _ in range(100)]
    assert last < 0.1 < 0.5 < first


# ---------------------------------------------------------------------------------------------------------------- pool


def test_a_full_pool_gives_older_images_half_of_the_time():
    pool, numbers = ImagePool((1, 1, 1), 50), np.arange(4050, dtype=np.float32).reshape(-1, 1, 1, 1)
    draws, given = rng(), []
    for batch in np.split(numbers, range(50, 4050, 40)):
        given.append(pool.exchange(tinygen.tensor(batch), draws).numpy())
    given = np.concatenate(given).ravel()
    np.testing.assert_array_equal(given[:50], np.arange(50))  # until it is full, as they are
    older = given[50:] != np.arange(50, 4050)
    assert abs(older.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(older))
    assert (given[50:][older] < np.arange(50, 4050)[older]).all()
    kept = pool.state_dict()["images"].ravel()
    assert sorted([*given[50:], *kept]) == sorted([*range(50), *range(50, 4050)])  # each is given or kept, once


def test_the_pool_is_deterministic_leaves_what_it_is_given_and_is_saved():
    images = rng(1).normal(size=(70, 1, 2, 2)).astype(np.float32)
    pools = [ImagePool((1, 2, 2)) for _ in range(2)]
    fresh = tinygen.tensor(images)
    one, other = (pool.exchange(fresh, rng(3)).numpy() for pool in pools)
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(fresh.numpy(), images)
    again = ImagePool((1, 2, 2))
    again.load_state_dict(pools[0].state_dict())
    np.testing.assert_array_equal(*(pool.exchange(fresh, rng(4)).numpy() for pool in (pools[0], again)))
    assert {"there.pool.images", "back.pool.filled"} <= new().state_dict().keys()


def test_the_discriminator_sees_what_the_pool_gives(monkeypatch):
    model = new()
    monkeypatch.setattr(ImagePool, "exchange", lambda self, fresh, rng: fresh.new_tensor(np.full(fresh.shape, 0.25)))
    seen = []
    original = Direction.judge
    monkeypatch.setattr(Direction, "judge", lambda self, x, image: seen.append(image) or original(self, x, image))
    training(model).advance(0.0)
    assert sum((image.numpy() == 0.25).all() for image in seen) == 2  # one for each of both discriminators


# ------------------------------------------------------------------------------------------- what is drawn and measured


def test_translations_are_images_and_noise_is_dropout():
    images = load("digits")[1].images[:20]
    for cls, noisy in ((Pix2Pix, True), (CycleGAN, False)):
        model = randomized(new(cls)).eval()
        assert isinstance(model, Translates)
        one, again, other = (model.translate(images, rng(seed)) for seed in (0, 0, 1))
        assert one.dtype == np.uint8
        assert one.shape == images.shape
        np.testing.assert_array_equal(one, again)
        assert (one != other).any() == noisy
    np.testing.assert_array_equal(*(new(Pix2Pix, dropout=0.0).translate(images, rng(seed)) for seed in (0, 1)))
    with pytest.raises(ValueError, match="Pix2Pix translates in one direction only"):
        new(Pix2Pix).translate_back(images, rng())
    with pytest.raises(ValueError, match=r"images must be \(N, 1, 8, 8\), got \(20, 1, 4, 8\)"):
        new().translate(images[:, :, :4], rng())


def test_channels_may_differ():
    model = new(CycleGAN, task="color")
    assert "identity" not in model.weights
    assert new(CycleGAN).weights["identity"] == 5.0
    training(model).advance(0.0)
    digits = load("digits")[1]
    made = model.translate(digits.images[:5], rng())
    assert made.shape == (5, 3, 8, 8)
    assert model.translate_back(made, rng()).shape == (5, 1, 8, 8)


class Perfect(Pix2Pix):
    """Knows the targets."""

    def translate(self, images, rng):
        return self.known


def test_metrics_of_targets_themselves():
    train, test = load("digits")
    model = new(Perfect)
    model.known = test.images
    found = {metric.name.partition(" (")[0]: metric for metric in model.family.metrics(model, train, test, rng())}
    assert found["distance from the target"].value == 0
    assert found["FD*"].value == pytest.approx(0, abs=1e-3)
    assert found["class kept"].value == found["class kept"].baselines["real images"] > 90
    assert found["class kept"].baselines["input"] < 60
    mean = np.abs(train.images.mean(axis=0) - test.images).mean() / 8
    assert found["distance from the target"].baselines["mean image"] == pytest.approx(mean)
    edges = np.abs(tasks.outlines(test.images, 17).astype(float) - test.images).mean() / 8
    assert found["distance from the target"].baselines["input"] == pytest.approx(edges)


def test_the_cycle_error_with_noise_on_the_way():
    """G = F = identity: 0 without noise; with it, what rounded noise adds."""
    train, test = load("digits")
    model = new(levels=256)
    for way in model.directions():
        way.generator = nn.Identity()
    data = [Dataset(d.images, 256) for d in (train, test)]
    metric = next(m for m in model.family.metrics(model, *data, rng()) if m.name == "cycle error")
    assert isinstance(metric, Metric)
    assert metric.value == 0
    added = 0.05 * np.sqrt(2 / np.pi) / 2  # all values are at the ends, 0 and 255, where half of the noise is cut off
    assert metric.baselines["with noise of 0.05"] == pytest.approx(added, rel=0.02)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"cls": CycleGAN, "task": "color", "identity": 1.0},
            "identity must be 0 for the task color, from 1 to 3 channels",
        ),
        ({"cls": Pix2Pix, "l1": -1.0}, "l1 must be a weight of 0 or more, got -1.0"),
        ({"cls": Pix2Pix, "l1": 0.0, "adversarial": 0.0}, "one of the weights adversarial, l1 must be above 0"),
        ({"cls": Pix2Pix, "dropout": 1.0}, "dropout must be from 0 to below 1, got 1.0"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"task": "paint"}, "task must be one of edges, color, half, got 'paint'"),
    ],
)
def test_wrong_options_are_named(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        new(**options)


# ------------------------------------------------------------------------------------------------------ what goes wrong


class Blind(Pix2Pix):
    """Its generator isn't given the input."""

    def made(self, way, x, rng):
        return super().made(way, 0.0 * x, rng)


class Shuffled(CycleGAN):
    """Makes images as varied as the targets, of the wrong inputs."""

    def made(self, way, x, rng):
        return super().made(way, x[np.roll(np.arange(len(x)), 1)], rng)


class SlowGenerator(Pix2Pix):
    """A generator that hardly learns: any discriminator wins."""

    def optimizers(self, lr):
        found = super().optimizers(lr)
        return found | {"generator": optim.Adam(self.there.generator.parameters(), lr * 1e-3)}


FAILURES = {
    "collapse: the outputs differ": lambda: (new(Blind, dropout=0.0), 20, 1e-3),
    "the input is ignored": lambda: (new(Shuffled, cycle=0.0), 40, 5e-3),
    "steganography: inputs come back": lambda: (new(adversarial=0.02, identity=0.0, width=8), 80, 5e-3),
    "the discriminator has won": lambda: (new(SlowGenerator, width=8), 60, 5e-3),
    "the discriminator is blind": lambda: (new(Pix2Pix), 5, 1e-8),
    "diverging: D's values have reached": lambda: (new(CycleGAN), 10, 100.0),
}


def diagnosed(model, steps, lr):
    """What the model says after so many steps, by the means over the last 20."""
    step, rows = training(model, batch_size=32, lr=lr), []
    with np.errstate(all="ignore"):
        for _ in range(steps):
            rows.append(step.advance(0.0))
    assert all(row.keys() == rows[0].keys() for row in rows)
    means = {name: float(np.mean([row[name] for row in rows[-20:]])) for name in rows[0]}
    return model.family.diagnostics(model, means)


@pytest.mark.parametrize("words", FAILURES)
def test_a_run_made_to_fail_says_how(words):
    found = diagnosed(*FAILURES[words]())
    assert any(text.startswith(words) for text in found), found


def test_a_cycle_holds_for_any_one_to_one_mapping():
    """The numbers of CycleGAN (`--width 16`) after 500 steps on the digits: good digits, of other classes."""
    parts = {"d_loss": 0.163, "real": 0.64, "fake": 0.37, "spread": 0.94, "error": 0.519, "strangers": 0.483}
    (found,) = diagnosis(parts | {"returned": 0.094}, 0.25)
    assert found.startswith("another mapping: inputs come back, but outputs are 0.52 of 2 from their own targets, 0.48")
    assert diagnosis(parts | {"returned": 0.3}, 0.25)[0].startswith("the input is ignored: outputs are 0.52")
    assert diagnosis(parts | {"returned": 0.094, "error": 0.2}, 0.25) == []


def test_a_run_that_goes_well_says_nothing():
    assert diagnosed(new(Pix2Pix, width=8), 100, 5e-3) == []


# -------------------------------------------------------------------------------------------------- as its user sees it


def test_a_run_is_shown_in_rows_and_sampled_by_class(tmp_path, monkeypatch, capsys):
    """`sample` takes test images; 11 of them are two blocks of eight columns, whose last places are white."""
    monkeypatch.chdir(tmp_path)
    assert main(["train", "pix2pix", "--width", "4", "--epochs", "0.1", "--out", "run"]) == 0
    said = capsys.readouterr().out
    assert "distance from the target: " in said
    assert "class kept: " in said
    assert Path("run/translate.png").exists()
    assert main(["sample", "run", "-n", "11", "--label", "3", "--seed", "2", "--out", "three.png"]) == 0
    picture = np.asarray(Image.open("three.png").convert("L"))
    _, model, _ = Run.existing(Path("run")).load()
    test, chooses = load("digits")[1], rng(2)
    chosen = chooses.permutation(np.flatnonzero(test.labels == 3))[:11]
    grid = model.family.snapshot(model, Batch(test.images[chosen], test.labels[chosen]), chooses)
    assert list(grid.rows) == ["input", "output", "target"] * 2
    np.testing.assert_array_equal(grid.images[16:24], test.images[chosen[:8]])
    np.testing.assert_array_equal(grid.images[24:27], tasks.outlines(test.images[chosen[8:]], 17))
    assert (grid.images[27:32] == 16).all()
    drawn = np.asarray(draw_grid(grid._replace(caption="Samples of class 3"), 17, LABELED).convert("L"))
    np.testing.assert_array_equal(picture, drawn)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--temperature", "0.5"], "--temperature: Pix2Pix translates test images, it has no temperature"),
        (["--label", "30"], "--label 30: digits has no test images of this class"),
    ],
)
def test_samples_that_there_are_not(flags, sentence, tmp_path, capsys):
    model = new(Pix2Pix)
    run = Run(tmp_path)
    run.save(run.checkpoint, Config("pix2pix", options={"width": 4}), model)
    assert main(["sample", str(tmp_path), *flags]) == 2
    assert capsys.readouterr().err == f"tinygen sample: {sentence}\n"


def test_a_column_for_each_class():
    train, test = load("digits")
    grid = new().family.plots["translate"](new(), train, test, rng())
    assert list(grid.rows) == ["input", "output", "target", "and back"]
    assert list(grid.across) == [str(i) for i in range(10)]
    np.testing.assert_array_equal(grid.images[20:30], [test.images[test.labels == i][0] for i in range(10)])
    data = [Dataset(d.images[:7], 17) for d in (train, test)]
    assert len(new().family.plots["translate"](new(), *data, rng()).images) == 28
