"""Self-supervision: what each task's loss is by its definition, what it must not see, and what it must learn."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tinygen
from tests.models.small import new
from tinygen import grad, optim
from tinygen.cli.main import main
from tinygen.data import load, tasks
from tinygen.models.family import Batch
from tinygen.models.selfsupervised.colorization import Colorization
from tinygen.models.selfsupervised.family import ColorizationFamily
from tinygen.models.selfsupervised.rotation import Rotation
from tinygen.models.selfsupervised.simclr import SimCLR, nt_xent
from tinygen.nn import functional as F


def rng(seed=0):
    return np.random.default_rng(seed)


def embeddings(n=6, d=5, seed=0):
    return tinygen.tensor(rng(seed).normal(size=(2 * n, d)), requires_grad=True)


# -------------------------------------------------------------------------------------------------------------- SimCLR


@pytest.mark.parametrize("n", [1, 2, 8])
def test_collapsed_embeddings_have_the_loss_of_a_guess(n):
    z = tinygen.tensor(np.ones((2 * n, 3)) * [1.0, -2.0, 3.0])
    assert nt_xent(z, 0.2).item() == pytest.approx(math.log(2 * n - 1), abs=1e-12)
    assert SimCLR.chance(None, n) == pytest.approx(math.log(2 * n - 1))


def test_the_loss_is_equation_1():
    z, tau, n = embeddings().numpy(), 0.3, 6
    sim = np.array([[u @ v / np.linalg.norm(u) / np.linalg.norm(v) for v in z] for u in z]) / tau
    pairs = [(i, (i + n) % (2 * n)) for i in range(2 * n)]
    of = [-sim[i, j] + np.log(sum(np.exp(sim[i, k]) for k in range(2 * n) if k != i)) for i, j in pairs]
    assert nt_xent(tinygen.tensor(z), tau).item() == pytest.approx(np.mean(of), abs=1e-12)


def test_neither_the_scale_of_embeddings_counts_nor_their_order():
    z = embeddings()
    expected, draws = nt_xent(z, 0.2).item(), rng(1)
    scaled = tinygen.tensor(z.numpy() * draws.uniform(0.1, 9, (12, 1)))
    assert nt_xent(scaled, 0.2).item() == pytest.approx(expected, abs=1e-12)
    order = draws.permutation(6)
    shuffled = tinygen.tensor(z.numpy()[np.concatenate([order, order + 6])])
    assert nt_xent(shuffled, 0.2).item() == pytest.approx(expected, abs=1e-12)
    swapped = tinygen.tensor(np.roll(z.numpy(), 6, axis=0))  # the first views for the second
    assert nt_xent(swapped, 0.2).item() == pytest.approx(expected, abs=1e-12)
    (slope,) = grad(nt_xent(z, 0.2), z)
    assert np.abs((slope.numpy() * z.numpy()).sum(1)).max() < 1e-12  # along an embedding nothing changes


def test_a_views_likeness_to_itself_has_no_gradient(monkeypatch):
    """It is no logit: its gradient is exactly 0, where a large number subtracted would leave something."""
    seen = []
    original = tinygen.where
    monkeypatch.setattr(
        "tinygen.models.selfsupervised.simclr.where", lambda c, x, y: seen.append(y) or original(c, x, y)
    )
    loss = nt_xent(embeddings(), 0.2)
    (similarity,) = seen
    (slope,) = grad(loss, similarity)
    assert (np.diag(slope.numpy()) == 0).all()
    assert (slope.numpy() != 0).sum() == 12 * 11


def test_both_views_are_seen_and_they_differ(monkeypatch):
    """A loss of one view shown twice would be small for any encoder."""
    model = new("simclr", (1, 8, 8), 17)
    images, seen = load("digits")[0].images[:5], []
    monkeypatch.setattr(model, "scale", lambda x: seen.append(x) or SimCLR.scale(model, x))
    model.loss(Batch(images), rng())
    (views,) = seen
    assert views.shape == (10, 1, 8, 8)
    assert all((a != b).any() for a, b in zip(views[:5], views[5:], strict=True))


def trained(model, steps, lr=3e-3, n=64):
    train, _ = load("digits")
    draws, optimizer, losses = rng(1), optim.Adam(model.parameters(), lr), []
    for _ in range(steps):
        index = draws.integers(0, len(train), n)
        optimizer.zero_grad()
        loss = sum(model.loss(Batch(train.images[index], train.labels[index]), draws).values())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_simclr_learns_to_tell_images_apart():
    model = SimCLR((1, 8, 8), 17, latent=16, hidden=8, rng=rng())
    losses = trained(model, 150)
    assert np.mean(losses[-10:]) < model.chance(64) - 0.2


# ------------------------------------------------------------------------------------------------------------ rotation


@pytest.mark.parametrize(("shape", "turns"), [((1, 8, 8), [0, 1, 2, 3]), ((2, 6, 4), [0, 2])])
def test_each_image_is_turned_in_all_ways_and_asked_for(shape, turns, monkeypatch):
    model = new("rotation", shape, 17)
    images, seen, asked = rng().integers(0, 17, (3, *shape)).astype(np.uint8), [], []
    monkeypatch.setattr(model, "scale", lambda x: seen.append(x) or Rotation.scale(model, x))
    original = F.cross_entropy
    monkeypatch.setattr(F, "cross_entropy", lambda x, y: asked.append(y) or original(x, y))
    model.loss(Batch(images), rng())
    for turned, k, image in zip(seen[0], asked[0], np.tile(images, (len(turns), 1, 1, 1)), strict=True):
        for _ in range(turns[k]):
            image = image.swapaxes(1, 2)[:, ::-1]  # a quarter turn
        assert np.array_equal(turned, image)
    assert np.bincount(asked[0]).tolist() == [3] * len(turns)
    for p in model.head.parameters():
        p.write()[...] = 0
    assert model.loss(Batch(images), rng())["turn"].item() == pytest.approx(model.chance(3), rel=1e-6)


def test_rotation_is_learned():
    model = Rotation((1, 8, 8), 17, latent=16, hidden=8, rng=rng())
    assert np.mean(trained(model, 100)[-10:]) < math.log(4) - 0.4


# --------------------------------------------------------------------------------------------------------- in-painting


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 4)])
def test_the_loss_sees_the_hole_alone(shape, monkeypatch):
    """Its gradient by what is restored is exactly 0 elsewhere, and it is the mean square in the hole."""
    model = new("inpainting", shape, 17).to(np.float64)
    images = rng().integers(0, 17, (4, *shape)).astype(np.uint8)
    made = tinygen.tensor(rng(1).normal(size=images.shape), requires_grad=True)
    holes = []
    monkeypatch.setattr(model, "restore", lambda _, where: holes.append(where) or made)
    loss = model.loss(Batch(images), rng(2))["squared_error"]
    (slope,) = grad(loss, made)
    hole = np.broadcast_to(holes[0], images.shape)
    assert np.array_equal(slope.numpy() != 0, hole)
    squares = ((made.numpy() + 1) / 2 - images / 16)[hole] ** 2
    assert loss.item() == pytest.approx(squares.mean(), rel=1e-12)


def test_what_is_in_the_hole_is_not_seen():
    model = new("inpainting", (1, 8, 8), 17)
    images, other = rng().integers(0, 17, (2, 4, 1, 8, 8)).astype(np.uint8)
    for hole in model.holes:
        assert hole.sum() == 32
        changed = np.where(hole, other, images)
        found = [model.restore(x, hole).numpy() for x in (images, changed, other)]
        assert np.array_equal(found[0], found[1])
        assert not np.array_equal(found[0], found[2])
    assert (model.holes.sum(axis=0) == 2).all()  # every pixel is left out, and seen
    assert np.array_equal(model.holes[0, 0], tasks.hole(8, 8))  # the one in testing


def test_what_is_known_stays_and_the_rest_is_restored():
    model, (_, test) = new("inpainting", (1, 8, 8), 17).eval(), load("digits")
    images = test.images[:20]
    whole = model.translate(images, rng())
    assert np.array_equal(whole[:, :, :4], images[:, :, :4])
    restored = model.levels.round(model.restore(images, model.holes[0]).numpy())
    assert np.array_equal(whole[:, :, 4:], restored[:, :, 4:])


def test_the_error_of_the_mean_image_is_that_of_a_model_that_gives_it(monkeypatch):
    model, (train, test) = new("inpainting", (1, 8, 8), 17).eval(), load("digits")
    mean = train.images.mean(axis=0)[None]
    monkeypatch.setattr(model, "translate", lambda x, rng: np.where(model.holes[0], mean, x))
    found = model.family.task(model, train, test, rng())
    assert found.value == pytest.approx(found.baselines["mean image"], rel=1e-9)
    assert found.value == pytest.approx(1000 * model.family.baselines(model, train, test)["mean image"], rel=1e-9)
    known, among = (x.images[:, :, :4].reshape(len(x), -1) / 16 for x in (test, train))
    index = ((known[:, None] - among) ** 2).sum(axis=2).argmin(axis=1)
    error = (((train.images[index] - test.images.astype(float)) / 16)[:, :, 4:] ** 2).mean()
    assert found.baselines["nearest neighbor"] == pytest.approx(1000 * error, rel=1e-3)  # ties


# -------------------------------------------------------------------------------------------------------- colorization


class Oracle:
    """Says p(hue given class) of each pixel."""

    levels, image_shape = 17, (1, 8, 8)
    chance = Colorization.chance

    def __init__(self, labels, log_p):
        self.said = iter(np.array_split(log_p[labels], range(128, len(labels), 128)))

    def __call__(self, gray):
        logits = np.full((len(gray), len(tasks.PALETTE), 8, 8), -50.0)
        logits[:, :6] = next(self.said)[:, :, None, None]
        return tinygen.tensor(logits)


def test_the_best_possible_loss_is_that_of_the_hues_drawn():
    """Who says their probabilities has the loss "given the class", near their entropy; who says others, a larger."""
    train, test = load("digits")
    table = tasks.hues(10)
    with np.errstate(divide="ignore"):
        log_p = np.maximum(np.log(table), -50)
    entropy = -(table * log_p).sum(axis=1)
    np.testing.assert_allclose(entropy, 0.8018, atol=1e-4)
    best = ColorizationFamily().task(Oracle(test.labels, log_p), train, test, rng(1))
    assert best.value == pytest.approx(best.baselines["given the class"], abs=1e-9)
    assert best.value == pytest.approx(entropy[0], abs=4 * best.error)
    assert best.value < best.baselines["by a classifier"] < best.baselines["chance"]
    flatter = ColorizationFamily().task(Oracle(test.labels, np.log(0.8 * table + 0.2 / 6)), train, test, rng(1))
    assert flatter.value > best.value + 0.02


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_colors_are_those_that_were_drawn(levels):
    gray = np.arange(levels, dtype=np.uint8).reshape(1, 1, 1, levels).repeat(len(tasks.PALETTE), axis=0)
    colored = np.round(gray * tasks.PALETTE[:, :, None, None]).astype(np.uint8)
    found = tasks.colors(gray, colored, levels)[:, 0]
    lit = np.arange(levels) >= max(1, levels // 8)
    assert (found[:, ~lit] == tasks.NONE).all()
    assert (found[:, lit] == np.arange(len(tasks.PALETTE))[:, None]).all()


def test_dark_pixels_have_no_gradient(monkeypatch):
    model, (train, _) = new("colorization", (1, 8, 8), 17), load("digits")
    said = tinygen.tensor(rng().normal(size=(6, 7, 8, 8)), requires_grad=True)
    monkeypatch.setattr(Colorization, "forward", lambda self, gray: said)
    (slope,) = grad(model.loss(Batch(train.images[:6], train.labels[:6]), rng())["color"], said)
    assert np.array_equal((slope.numpy() != 0).all(axis=1), train.images[:6, 0] >= 2)
    assert np.array_equal((slope.numpy() != 0).any(axis=1), train.images[:6, 0] >= 2)


def test_a_colored_image_is_as_bright_as_the_gray_one():
    model = new("colorization", (3, 8, 8), 17).eval()
    gray = load("digits")[1].images[:9]
    colored = model.translate(gray, rng())
    assert colored.shape == (9, 3, 8, 8)
    assert np.array_equal(colored.max(axis=1, keepdims=True), gray)
    x = model.network_input(colored)
    np.testing.assert_array_equal(model.features(x).numpy(), model.encoder(model.scale(gray)).numpy())


def test_colorization_learns_the_hues():
    """Of two classes, of which one is black above, the other below: nothing else is to be learned."""
    labels = rng().integers(0, 2, 64)
    images = np.full((64, 1, 8, 8), 12, np.uint8)
    images[labels == 0, :, :4] = 0
    images[labels == 1, :, 4:] = 0
    model = Colorization((1, 8, 8), 17, latent=8, hidden=4, rng=rng())
    draws, optimizer, losses = rng(1), optim.Adam(model.parameters(), 1e-2), []
    for _ in range(150):
        optimizer.zero_grad()
        loss = model.loss(Batch(images, labels), draws)["color"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert 0.7 < np.mean(losses[-50:]) < 0.9  # 0.802 at best


# ------------------------------------------------------------------------------------------------------ what is refused


def test_what_does_not_fit_is_refused(tmp_path, monkeypatch, capsys):
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        SimCLR((1, 8, 8), 17, temperature=0.0, rng=rng())
    with pytest.raises(ValueError, match="latent must be at least 1, got 0"):
        SimCLR((1, 8, 8), 17, latent=0, rng=rng())
    with pytest.raises(ValueError, match="image_shape must have one channel or three for colorization"):
        Colorization((2, 8, 8), 17, rng=rng())
    with pytest.raises(ValueError, match="the images have no labels"):
        new("colorization", (1, 8, 8), 17).loss(Batch(np.zeros((2, 1, 8, 8), np.uint8)), rng())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tinygen.training.commands.finish", lambda *_: None)
    assert main(["train", "simclr", "--epochs", ".1", "--latent", "4", "--hidden", "4", "--out", "run"]) == 0
    capsys.readouterr()
    for command in (["sample", "run"], ["hype", "run"]):
        assert main(command) == 2
        assert capsys.readouterr().err.startswith(f"tinygen {command[0]}: simclr cannot be sampled from")
