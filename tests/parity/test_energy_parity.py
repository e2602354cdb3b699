"""The RBM once more in PyTorch, with the same weights, batches and draws: the same losses, parameters and chains.

Written as the papers have it: the gradient as the difference of two correlations, by hand, not by autograd.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from tinygen.data import load, threshold
from tinygen.models.energy.rbm import RBM
from tinygen.models.family import Batch

STEPS, BATCH, LR = 50, 32, 0.1


class Twin:
    """W, b, c, the offsets and the chains, and one step of centered CD or PCD on them."""

    def __init__(self, model, chains):
        self.w, self.b, self.c = (torch.tensor(p.numpy()) for p in model.parameters())
        learned = model.weights.network
        self.mu, self.nu = (torch.tensor(p.numpy()) for p in (learned.visible_offset, learned.hidden_offset))
        self.chains, self.gaussian = torch.tensor(model.chains.numpy()) if chains else (), model.levels > 2
        self.lr = LR / 10 if self.gaussian else LR

    def hidden(self, v):
        return self.c + (v - self.mu) @ self.w

    def visible(self, h, rng):
        a = self.b + (h - self.nu) @ self.w.T
        if self.gaussian:
            return a + torch.tensor(rng.standard_normal(a.shape, np.float32))
        return (torch.tensor(rng.random(a.shape, np.float32)) < torch.sigmoid(a)).double()

    def free_energy(self, v):
        own = (v * v).sum(1) / 2 if self.gaussian else 0
        bias = self.b - self.w @ self.nu
        return (own - v @ bias - torch.nn.functional.softplus(self.hidden(v)).sum(1)).mean()

    def step(self, v, k, rng):
        """The parts of the loss, and the parameters changed."""
        model = self.chains if len(self.chains) else v
        for _ in range(k):
            p = torch.sigmoid(self.hidden(model))
            model = self.visible((torch.tensor(rng.random(p.shape, np.float32)) < p).double(), rng)
        parts = self.free_energy(v).item(), -self.free_energy(model).item()
        h, h_model = (torch.sigmoid(self.hidden(x)) for x in (v, model))
        of_data, of_model = ((x - self.mu).T @ (y - self.nu) / len(x) for x, y in ((v, h), (model, h_model)))
        self.w = self.w + self.lr * (of_data - of_model)
        self.b = self.b + self.lr * (v.mean(0) - model.mean(0))
        self.c = self.c + self.lr * (h.mean(0) - h_model.mean(0))
        self.chains = model if len(self.chains) else self.chains
        return parts


class OneStep:
    """What a model sees of a step of training."""

    def __init__(self, number, dataset, images, rng, optimizer):
        self.step, self.dataset, self.images, self.rng, self.optimizer = number, dataset, images, rng, optimizer

    def batch(self):
        return Batch(self.images)

    def minimize(self, closure, optimizer):
        parts = closure()
        self.optimizer.zero_grad()
        sum(parts.values()).backward()
        self.optimizer.step()
        return {name: part.item() for name, part in parts.items()}


@pytest.mark.parametrize("levels", [2, 17], ids=["Bernoulli", "Gaussian"])
@pytest.mark.parametrize(("chains", "k"), [(20, 1), (0, 2)], ids=["PCD-1", "CD-2"])
def test_trained_side_by_side_in_float64(levels, chains, k):
    data, rng = load("digits")[0], np.random.default_rng(1)
    data = threshold(data) if levels == 2 else data
    model = RBM((1, 8, 8), levels, hidden=16, chains=chains, steps=k, rng=np.random.default_rng(0)).to(np.float64)
    model.begin(data, rng)
    before = model.weight.write()
    before *= 20
    before = before.copy()
    optimizer, twin, losses = model.optimizers(LR)["sgd"], Twin(model, chains), []
    for step in range(STEPS):
        images = data.images[rng.integers(0, len(data), BATCH)]
        again = copy.deepcopy(rng)
        parts = model.training_step(OneStep(step, data, images, rng, optimizer))
        losses.append((list(parts.values()), twin.step(torch.tensor(model.rows(images)).double(), k, again)))
    np.testing.assert_allclose(*zip(*losses, strict=True), rtol=1e-9)
    for ours, theirs in zip(model.parameters(), (twin.w, twin.b, twin.c), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-9, atol=1e-12)
    if chains:
        np.testing.assert_allclose(model.chains.numpy(), twin.chains, rtol=1e-9, atol=1e-12)
    assert abs(model.weight.numpy() - before).max() > 0.1  # it did learn
