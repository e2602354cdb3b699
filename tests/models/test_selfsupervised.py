"""Self-supervision: what each task's loss is by its definition, what it must not see, and what it must learn."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tinygen
from tests.models.small import new
from tinygen import grad, optim
from tinygen.cli.main import main
from tinygen.data import load
from tinygen.models.family import Batch
from tinygen.models.selfsupervised.simclr import SimCLR, nt_xent


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


def test_what_does_not_fit_is_refused(tmp_path, monkeypatch, capsys):
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        SimCLR((1, 8, 8), 17, temperature=0.0, rng=rng())
    with pytest.raises(ValueError, match="latent must be at least 1, got 0"):
        SimCLR((1, 8, 8), 17, latent=0, rng=rng())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tinygen.training.commands.finish", lambda *_: None)
    assert main(["train", "simclr", "--epochs", ".1", "--latent", "4", "--hidden", "4", "--out", "run"]) == 0
    capsys.readouterr()
    for command in (["sample", "run"], ["hype", "run"]):
        assert main(command) == 2
        assert capsys.readouterr().err.startswith(f"tinygen {command[0]}: simclr cannot be sampled from")
