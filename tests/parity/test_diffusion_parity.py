"""Diffusion and its siblings once more in PyTorch, with the same weights, batches, times and noise: the same losses.

The network is written in PyTorch's own words: group norm, attention by its own function, pixel_unshuffle.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.models.small import CLASSES, new
from tests.parity.side_by_side import assert_one_gradient, assert_one_training, train
from tinygen.data import load
from tinygen.models.family import Batch

STEPS, BATCH, LEVELS, WIDTH = 50, 16, 17, 8
NAMES = ["diffusion", "diffusion, classes", "diffusion, velocity, cosine", "score", "flow-matching"]


class Twin:
    """A model from its own weights by name."""

    def __init__(self, model):
        self.prefix = "network.network."
        tensors = {n: torch.from_numpy(v) for n, v in model.state_dict().items()}
        learned = {name for name, _ in model.named_parameters()}
        self.parameters = {n: t.requires_grad_() for n, t in tensors.items() if n in learned}
        self.dtype = next(iter(self.parameters.values())).dtype

    def of(self, name):
        return self.parameters[f"{self.prefix}{name}.weight"], self.parameters.get(f"{self.prefix}{name}.bias")

    def norm(self, x, name, silu=True):
        groups = math.gcd(8, max(x.shape[1] // 4, 1), x.shape[1])
        x = F.group_norm(x, groups, *self.of(name))
        return F.silu(x) if silu else x

    def block(self, x, vector, name):
        h = F.conv2d(self.norm(x, f"{name}.norm1"), *self.of(f"{name}.conv1"), padding=1)
        h = h + F.linear(vector, *self.of(f"{name}.told"))[:, :, None, None]
        h = F.conv2d(self.norm(h, f"{name}.norm2"), *self.of(f"{name}.conv2"), padding=1)
        has = f"{self.prefix}{name}.skip.weight" in self.parameters
        return h + (F.conv2d(x, *self.of(f"{name}.skip")) if has else x)

    def attention(self, x, name):
        n, c, height, width = x.shape
        rows = self.norm(x, f"{name}.norm", False).flatten(2).transpose(1, 2)
        q, k, v = (F.linear(rows, *self.of(f"{name}.{part}")) for part in ("query", "key", "value"))
        out = F.linear(F.scaled_dot_product_attention(q, k, v), *self.of(f"{name}.output"))
        return x + out.transpose(1, 2).reshape(n, c, height, width)

    def network(self, x, times, labels):
        size = 4 * WIDTH
        frequencies = 1000 * torch.exp(-math.log(10_000) * torch.arange(size // 2, dtype=torch.float64) / (size // 2))
        angles = torch.from_numpy(times)[:, None] * frequencies
        waves = torch.cat([angles.cos(), angles.sin()], 1).to(self.dtype)
        vector = F.linear(F.silu(F.linear(waves, *self.of("time.first"))), *self.of("time.second"))
        if labels is not None:
            vector = vector + self.parameters[f"{self.prefix}classes.weight"][torch.from_numpy(labels)]
        return self.unet(x, F.silu(vector))

    def unet(self, x, vector):
        x = F.conv2d(x, *self.of("unet.input"), padding=1)
        across = self.block(x, vector, "unet.down.0")
        x = F.conv2d(across, *self.of("unet.downsample.0"), stride=2, padding=1)
        x = self.attention(self.block(x, vector, "unet.down.1"), "unet.attention")
        x = self.block(x, vector, "unet.up.1")
        x = F.conv_transpose2d(x, *self.of("unet.upsample.0"), stride=2, padding=1)
        x = self.block(torch.cat([x, across], 1), vector, "unet.up.0")
        return F.conv2d(self.norm(x, "unet.norm"), *self.of("unet.output"), padding=1)

    def loss(self, name, image, labels, rng):
        n = len(image)
        spread = (np.arange(n) / n + rng.random()) % 1
        if name == "score":
            sigma = np.geomspace(10.0, 0.02, 5)[(spread * 5).astype(int)]
            noise, places = self.noise(rng, image), (spread * 5).astype(int)
            s = torch.from_numpy(sigma).to(self.dtype).view(-1, 1, 1, 1)
            return F.mse_loss(self.network((image + s * noise) / (1 + s * s).sqrt(), 1 - places / 4, labels), noise)
        noise = self.noise(rng, image)
        if name == "flow-matching":
            u = torch.from_numpy(spread).to(self.dtype).view(-1, 1, 1, 1)
            return F.mse_loss(self.network(torch.lerp(image, noise, u), spread, labels), noise - image)
        t, abar = 1 + (spread * 20).astype(int), ABAR[name]
        a, s = (torch.from_numpy(x[t]).to(self.dtype).view(-1, 1, 1, 1) for x in (np.sqrt(abar), np.sqrt(1 - abar)))
        target = a * noise - s * image if "velocity" in name else noise
        if labels is not None:
            labels = np.where(rng.random(n) < 0.1, CLASSES, labels)
        return F.mse_loss(self.network(a * image + s * noise, t / 20, labels), target)

    def noise(self, rng, image):
        return torch.from_numpy(rng.standard_normal(tuple(image.shape), np.float32)).to(self.dtype)


LINEAR = np.cumprod([1.0, *(1 - np.minimum(np.linspace(1e-4, 0.02, 20) * 50, 0.999))])
F_OF_T = np.cos((np.linspace(0, 1, 21) + 0.008) / 1.008 * math.pi / 2) ** 2
COSINE = np.cumprod([1.0, *(1 - np.minimum(1 - F_OF_T[1:] / F_OF_T[:-1], 0.999))])
ABAR = {"diffusion": LINEAR, "diffusion, classes": LINEAR, "diffusion, velocity, cosine": COSINE}


def pair(name, dtype):
    """Both, with all weights away from zero."""
    numbers, options = np.random.default_rng(3), {}
    if "diffusion" in name and "velocity" not in name:
        options = {"predicts": "noise", "betas": "linear"}  # not the defaults
    model = new(name.removesuffix(", velocity, cosine"), (1, 8, 8), LEVELS, width=WIDTH, **options)
    for p in model.parameters():
        p.write()[...] += 0.1 * numbers.standard_normal(p.shape)
    model = model.to(dtype)
    return model, Twin(model)


def losses(name, model, twin, images, rng):
    """Both losses of one batch, with the same times and noise."""
    again, labels = copy.deepcopy(rng), np.arange(len(images)) % CLASSES if "classes" in name else None
    (ours,) = model.loss(Batch(images, labels), rng).values()
    image = torch.from_numpy(images * (2 / (LEVELS - 1)) - 1).to(twin.dtype)
    return ours, twin.loss(name, image, labels, again)


def steps(name, model, twin, rng):
    images = load("digits")[0].images
    for _ in range(STEPS):
        yield losses(name, model, twin, images[rng.integers(0, len(images), BATCH)], rng)


@pytest.mark.parametrize("name", NAMES)
def test_trained_side_by_side_in_float64(name):
    model, twin = pair(name, np.float64)
    ours, torchs = train(model, twin, 1e-3, steps(name, model, twin, np.random.default_rng(1)))
    assert_one_training(model, twin, ours, torchs)
    assert ours[-10:].mean() < ours[:10].mean()  # and it did learn


@pytest.mark.parametrize("name", NAMES)
def test_the_same_loss_and_gradients_in_float32(name):
    model, twin = pair(name, np.float32)
    images = load("digits")[0].images[:64]
    assert_one_gradient(model, twin, *losses(name, model, twin, images, np.random.default_rng(1)))
