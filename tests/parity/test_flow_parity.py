"""The flows once more in PyTorch, with the same weights, batches and noise: the same losses.

Written from the papers' equations in PyTorch's own words: masks as numbers, squeezing by pixel_unshuffle, the
determinant of W by slogdet, the logistic prior by a transformed uniform distribution, FFJORD's trace by autograd.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch.distributions import Normal, SigmoidTransform, TransformedDistribution, Uniform
from torch.nn.functional import conv2d, linear, pixel_unshuffle, relu

from tests.models.small import new
from tests.parity.side_by_side import STEPS, assert_one_gradient, assert_one_training, train
from tinygen.data import load
from tinygen.models.family import Batch

BATCH, LEVELS = 16, 17
OPTIONS = {"nice": {"hidden": 12}, "realnvp": {}, "glow": {}, "ffjord": {"hidden": 12, "steps": 2}}


class Twin:
    """A flow from a model's own weights by name."""

    alpha = 0.05  # of the logit

    def __init__(self, model):
        learned = {name for name, _ in model.named_parameters()}
        tensors = {n: torch.from_numpy(v) for n, v in model.state_dict().items()}
        self.parameters = {n: t.requires_grad_() for n, t in tensors.items() if n in learned}
        self.tensors, self.dtype = tensors, next(iter(self.parameters.values())).dtype

    def of(self, name):
        return self.tensors[f"density.layers.{name}.weight"], self.tensors[f"density.layers.{name}.bias"]

    def loss(self, images, noise):
        """-log p(x + u), the mean over images."""
        x = torch.from_numpy(images + noise["u"])
        y, log_det = self.scaled(x)
        z, more = self.f(y.to(self.dtype), noise)
        return -(self.prior(z).sum(1) + more + log_det.flatten(1).sum(1).to(self.dtype)).mean()

    def scaled(self, x):  # section 4.1, with the derivative from autograd
        x = x.clone().requires_grad_()
        y = torch.logit(self.alpha + (1 - 2 * self.alpha) * x / LEVELS)
        (slope,) = torch.autograd.grad(y.sum(), x)
        return y.detach(), slope.log()

    def prior(self, z):
        return Normal(torch.zeros((), dtype=z.dtype), 1.0).log_prob(z)

    # -- layers, from x to (y, log determinant)

    def network(self, x, name):
        h = relu(conv2d(x, *self.of(f"{name}.network.0"), padding=1))
        h = relu(conv2d(h, *self.of(f"{name}.network.2")))
        return conv2d(h, *self.of(f"{name}.network.4"), padding=1)

    def actnorm(self, x, name):
        log_s, b = (self.tensors[f"density.layers.{name}.{n}"] for n in ("log_s", "b"))
        pixels = x[0, 0].numel()
        return x * log_s.exp().view(1, -1, *[1] * (x.ndim - 2)) + b.view(
            1, -1, *[1] * (x.ndim - 2)
        ), pixels * log_s.sum()

    def checkerboard(self, x, name, odd):
        rows, columns = torch.meshgrid(torch.arange(x.shape[2]), torch.arange(x.shape[3]), indexing="ij")
        b = ((rows + columns) % 2 == odd).to(x.dtype)
        s, t = self.network(b * x, name).chunk(2, 1)
        s = 2 * torch.tanh(s / 2)
        return b * x + (1 - b) * (x * s.exp() + t), ((1 - b) * s).sum((1, 2, 3))  # equation 9

    def halves(self, x, name, exchanged=False):
        x1, x2 = x.chunk(2, 1)
        if exchanged:
            x1, x2 = x2, x1
        s, t = self.network(x1, name).chunk(2, 1)
        s = 2 * torch.tanh(s / 2)
        y2 = x2 * s.exp() + t
        return torch.cat([y2, x1] if exchanged else [x1, y2], 1), s.sum((1, 2, 3))

    def mix(self, x, name):
        p, sign, log_s, lower, upper = (
            self.tensors[f"density.layers.{name}.{n}"] for n in ("p", "sign_s", "log_s", "lower", "upper")
        )
        w = p @ (lower.tril(-1) + torch.eye(len(p), dtype=x.dtype)) @ (upper.triu(1) + torch.diag(sign * log_s.exp()))
        return torch.einsum("oi,nihw->nohw", w, x), x[0, 0].numel() * torch.linalg.slogdet(w)[1]


def squeezed(x):
    """pixel_unshuffle keeps the squares of a channel together, Squeeze the channels of a place in the squares."""
    n, c, h, w = x.shape
    return pixel_unshuffle(x, 2).view(n, c, 4, h // 2, w // 2).transpose(1, 2).reshape(n, 4 * c, h // 2, w // 2)


def rows(x):
    return x.permute(0, 2, 3, 1).flatten(1)


class NICE(Twin):
    alpha = 1e-5

    def prior(self, z):
        uniform = Uniform(torch.zeros((), dtype=z.dtype), torch.ones((), dtype=z.dtype))
        return TransformedDistribution(uniform, SigmoidTransform().inv).log_prob(z)

    def f(self, x, noise):
        x = rows(x)
        even, odd = x[:, 0::2], x[:, 1::2]
        for i in range(2, 6):
            m = even if i % 2 == 0 else odd
            for layer in (0, 2, 4):
                m = relu(linear(m, *self.of(f"{i}.m.{layer}")))
            m = linear(m, *self.of(f"{i}.m.6"))
            even, odd = (even, odd + m) if i % 2 == 0 else (even + m, odd)
        return self.actnorm(torch.cat([even, odd], 1), "6")


class RealNVP(Twin):
    def f(self, x, noise, prefix="", scales=2):
        if scales == 0:
            x, total = self.couplings(x, prefix, 0, 4, self.checkerboard)
            return rows(x), total
        black, white = ([x[:, :, i::2, abs(i - odd) :: 2] for i in range(2)] for odd in range(2))
        x, a = self.couplings(torch.cat([*black, *white], 1), prefix, 2, 3, self.halves)
        first, last, *white = x.chunk(4, 1)
        x, b = self.couplings(torch.cat([first, *white, last], 1), prefix, 9, 3, self.halves)
        done, x = x.chunk(2, 1)
        z, c = self.f(x, noise, f"{prefix}15.rest.", scales - 1)
        return torch.cat([rows(done), z], 1), a + b + c

    def couplings(self, x, prefix, start, n, coupling):
        total = 0
        for i in range(n):
            x, a = self.actnorm(x, f"{prefix}{start + 2 * i}")
            x, b = coupling(x, f"{prefix}{start + 2 * i + 1}", i % 2)
            total = total + a + b
        return x, total


class Glow(Twin):
    def f(self, x, noise, prefix="", scales=2):
        x, total = squeezed(x), 0
        for i in range(2):
            for layer, step in enumerate((self.actnorm, self.mix, self.halves)):
                x, log_det = step(x, f"{prefix}{1 + 3 * i + layer}")
                total = total + log_det
        if scales == 1:
            return rows(x), total
        done, x = x.chunk(2, 1)
        z, more = self.f(x, noise, f"{prefix}7.rest.", 1)
        return torch.cat([rows(done), z], 1), total + more


class FFJORD(Twin):
    def f(self, x, noise):
        e = torch.from_numpy(noise["e"]).to(self.dtype)

        def rate(t, z):
            z = z if z.requires_grad else z.requires_grad_()
            told = torch.cat([z, torch.full((len(z), 1), t, dtype=z.dtype)], 1)
            h = torch.tanh(linear(told, *self.of("velocity.input")))
            f = linear(torch.tanh(linear(h, *self.of("velocity.middle"))), *self.of("velocity.output"))
            (vjp,) = torch.autograd.grad(f, z, e, create_graph=True)
            return f, (vjp * e).sum(1)

        z, log_det, h = rows(x), 0, 1 / 2
        for i in range(2):
            t = i * h
            k1 = rate(t, z)
            k2 = rate(t + h / 2, z + h / 2 * k1[0])
            k3 = rate(t + h / 2, z + h / 2 * k2[0])
            k4 = rate(t + h, z + h * k3[0])
            z, log_det = (
                v + h / 6 * (a + 2 * b + 2 * c + d) for v, a, b, c, d in zip((z, log_det), k1, k2, k3, k4, strict=True)
            )
        return z, log_det


TWINS = {"nice": NICE, "realnvp": RealNVP, "glow": Glow, "ffjord": FFJORD}


def pair(name, dtype):
    """Both, after their first batch, with all weights away from zero."""
    images, numbers = load("digits")[0].images, np.random.default_rng(3)
    model = new(name, (1, 8, 8), LEVELS, **OPTIONS[name])
    for p in model.parameters():
        p.write()[...] += 0.02 * numbers.standard_normal(p.shape)
    model.loss(Batch(images[:100]), numbers)
    return model.to(dtype), TWINS[name](model.to(dtype)), images


def losses(model, twin, images, rng):
    """Both losses of one batch, with the same noise."""
    again = copy.deepcopy(rng)
    noise = {"u": again.random(images.shape), "e": again.choice((-1.0, 1.0), (len(images), 64))}
    (ours,) = model.loss(Batch(images), rng).values()
    return ours, twin.loss(images, noise)


def steps(model, twin, images, rng):
    for _ in range(STEPS):
        yield losses(model, twin, images[rng.integers(0, len(images), BATCH)], rng)


@pytest.mark.parametrize("name", TWINS)
def test_trained_side_by_side_in_float64(name):
    model, twin, images = pair(name, np.float64)
    before = losses(model, twin, images, np.random.default_rng(2))[0].item()
    ours, torchs = train(model, twin, 3e-3, steps(model, twin, images, np.random.default_rng(1)))
    assert_one_training(model, twin, ours, torchs)
    assert losses(model, twin, images, np.random.default_rng(2))[0].item() < before  # and it did learn


@pytest.mark.parametrize("name", TWINS)
def test_the_same_loss_and_gradients_in_float32(name):
    model, twin, images = pair(name, np.float32)
    assert_one_gradient(model, twin, *losses(model, twin, images[:64], np.random.default_rng(1)))
