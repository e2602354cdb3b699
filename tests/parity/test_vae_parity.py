"""VAE and autoencoder once more in PyTorch, with the same weights, batches and noise: the same losses.

Written from the paper's equations in PyTorch's own words; the discretized logistic as the difference of two sigmoids.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence
from torch.nn.functional import conv2d, conv_transpose2d, linear, mse_loss, relu

from tests.parity.side_by_side import STEPS, assert_one_gradient, assert_one_training, train
from tinygen.data import load, threshold
from tinygen.models.family import Batch
from tinygen.models.vae.autoencoder import Autoencoder
from tinygen.models.vae.iwae import IWAE
from tinygen.models.vae.vae import VAE

BATCH, LR = 16, 2e-3 if STEPS == 100 else 5e-3  # few steps are longer ones


class Twin:
    """The networks, from a model's own parameters by name."""

    def __init__(self, model, conv):
        self.parameters = {n: torch.from_numpy(v).requires_grad_() for n, v in model.state_dict().items()}
        self.dtype, self.conv, self.levels = next(iter(self.parameters.values())).dtype, conv, model.levels

    def of(self, name):
        return self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"]

    def scaled(self, images):
        return (torch.tensor(images, dtype=torch.float64) * 2 / (self.levels - 1) - 1).to(self.dtype)

    def encode(self, x):
        if not self.conv:  # pixels in the order H, W, C: the same for one channel
            return linear(relu(linear(x.flatten(1), *self.of("encoder.1"))), *self.of("encoder.3"))
        for layer in (0, 2, 4):
            x = relu(conv2d(x, *self.of(f"encoder.{layer}"), stride=2, padding=1))
        return conv2d(x, *self.of("encoder.6")).flatten(1)

    def decode(self, z, side):
        if not self.conv:
            rows = linear(relu(linear(z, *self.of("decoder.0"))), *self.of("decoder.2"))
            return rows.view(len(z), side, side, -1).permute(0, 3, 1, 2)
        x = conv_transpose2d(z[:, :, None, None], *self.of("decoder.1"))
        for layer in (3, 5, 7):
            x = conv_transpose2d(relu(x), *self.of(f"decoder.{layer}"), stride=2, padding=1)
        return x


class TwinVAE(Twin):
    def loss(self, images, noise, beta, draws):
        x, side = self.scaled(images), images.shape[-1]
        mean, log_var = self.encode(x).chunk(2, 1)
        q = Independent(Normal(mean, (log_var / 2).exp()), 1)
        p = Independent(Normal(torch.zeros_like(mean), torch.ones_like(mean)), 1)
        log_ws, nats = [], []
        for eps in torch.from_numpy(noise).to(self.dtype):
            z = mean + eps * torch.exp(log_var).sqrt()
            nats.append(self.nats(self.decode(z, side), images).sum((1, 2, 3)))
            log_ws.append(p.log_prob(z) - q.log_prob(z) - nats[-1])
        if draws > 1:
            return -(torch.stack(log_ws).logsumexp(0) - math.log(draws)).mean()
        return (nats[0] + beta * kl_divergence(q, p)).mean()

    def nats(self, output, images):
        target = torch.tensor(images, dtype=self.dtype)
        if self.levels == 2:
            return -Bernoulli(logits=output).log_prob(target)
        output = output.double()  # in single precision this difference vanishes
        mean, scale = output[:, :1], output[:, 1:].exp()
        x, half = self.scaled(images).double(), 1 / (self.levels - 1)
        upper = torch.where(target == self.levels - 1, 1.0, torch.sigmoid((x + half - mean) / scale))
        lower = torch.where(target == 0, 0.0, torch.sigmoid((x - half - mean) / scale))
        return -torch.log(upper - lower).to(self.dtype)


class TwinAutoencoder(Twin):
    def loss(self, images, noise):
        x = self.scaled(images)
        return mse_loss(self.decode(self.encode(x), 8) / 2, x / 2, reduction="sum") / len(x)


CASES = {
    "mlp, Bernoulli": (2, {"network": "mlp", "likelihood": "bernoulli", "latent": 5, "hidden": 40}),
    "mlp, logistic, beta 3": (17, {"network": "mlp", "latent": 5, "hidden": 40, "beta": 3.0}),
    "conv, logistic": (17, {"network": "conv", "latent": 5, "hidden": 6}),
    "conv, Bernoulli, IWAE": (
        2, {"network": "conv", "likelihood": "bernoulli", "latent": 5, "hidden": 6, "draws": 4},
    ),
    "autoencoder": (17, {"network": "conv", "latent": 5, "hidden": 6}),
}  # fmt: skip


def pair(name, dtype):
    levels, options = CASES[name]
    train, _ = load("digits")
    images = (threshold(train) if levels == 2 else train).images
    kind = Autoencoder if name == "autoencoder" else IWAE if "IWAE" in name else VAE
    twin = TwinAutoencoder if kind is Autoencoder else TwinVAE
    model = kind((1, 8, 8), levels, **options, rng=np.random.default_rng(0)).to(dtype)
    return model, twin(model, options["network"] == "conv"), images


def losses(model, twin, images, rng):
    """Both losses of one batch, tinygen's a Tensor, with the same noise."""
    if isinstance(model, Autoencoder):
        return model.loss(Batch(images), rng)["squared_error"], twin.loss(images, None)
    draws, again = getattr(model, "draws", 1), copy.deepcopy(rng)
    parts = list(model.loss(Batch(images), rng).values())
    noise = again.standard_normal((draws, len(images), model.latent))
    return sum(parts[1:], parts[0]), twin.loss(images, noise, model.beta, draws)


def steps(model, twin, images, rng):
    for _ in range(STEPS):
        yield losses(model, twin, images[rng.integers(0, len(images), BATCH)], rng)


@pytest.mark.parametrize("name", CASES)
def test_trained_side_by_side_in_float64(name):
    model, twin, images = pair(name, np.float64)
    ours, torchs = train(model, twin, LR, steps(model, twin, images, np.random.default_rng(1)))
    assert_one_training(model, twin, ours, torchs)
    assert ours[-10:].mean() < 0.98 * ours[0]  # and it did learn


@pytest.mark.parametrize("name", CASES)
def test_the_same_loss_and_gradients_in_float32_and_the_same_in_the_end(name):
    model, twin, images = pair(name, np.float32)
    assert_one_gradient(model, twin, *losses(model, twin, images[:BATCH], np.random.default_rng(1)))
    train(model, twin, LR, steps(model, twin, images, np.random.default_rng(2)))
    loss, expected = losses(model, twin, images, np.random.default_rng(3))
    assert abs(loss.item() - expected.item()) < 1.5  # nats: roundings grow in training
