"""BigGAN in PyTorch, with the same weights, batches, classes and noise: the same losses and weights, step by step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.kernels.torch_biggan import Discriminator, Generator, game
from tinygen.data import load
from tinygen.models.family import Batch
from tinygen.models.gan.biggan import BigGAN
from tinygen.models.gan.toy import PlainStep

N, LATENT, STEPS = 12, 8, 20


class Twin:
    """A step in plain PyTorch: two of D, then one of G, on the last images that D saw of it."""

    def __init__(self, model: BigGAN, lr: float) -> None:
        pair, self.dtype = model.pair, torch.float64 if model.dtype == np.float64 else torch.float32
        self.g, self.d = (
            net.to(self.dtype) for net in (Generator(pair.generator.network), Discriminator(pair.discriminator))
        )
        self.of_d, self.of_g = game(self.g, self.d)
        self.optimizers = [torch.optim.Adam(net.parameters(), lr, pair.objective.betas) for net in (self.g, self.d)]

    def step(self, batches: list[Batch], rng: np.random.Generator) -> tuple[float, float]:
        on_g, on_d = self.optimizers
        for batch in batches:
            x = torch.tensor(batch.images * (2 / 16) - 1, dtype=self.dtype)
            y = torch.tensor(np.eye(10)[batch.labels], dtype=self.dtype)
            z = torch.tensor(rng.standard_normal((N, LATENT)), dtype=self.dtype)
            rng.random(N)  # which a penalty would take
            fake = self.g(z, y)
            loss = self.of_d(x, fake.detach(), y)
            on_d.zero_grad()
            loss.backward()
            on_d.step()
        deceived = self.of_g(fake, y)
        on_g.zero_grad()
        deceived.backward()
        on_g.step()
        return loss.item(), deceived.item()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_trained_side_by_side(dtype):
    digits, lr = load("digits")[0], 1e-3
    model = BigGAN((1, 8, 8), 17, latent=LATENT, width=4, rng=np.random.default_rng(0)).to(dtype)
    model.dtype = dtype
    twin, optimizers, losses = Twin(model, lr), model.optimizers(lr), []
    order, mine, theirs = (np.random.default_rng(seed) for seed in (1, 2, 2))
    for _ in range(STEPS if dtype == np.float64 else 1):
        chosen = [order.integers(0, len(digits.images), N) for _ in range(2)]
        batches = [Batch(digits.images[i], digits.labels[i]) for i in chosen]
        parts = model.pair.training_step(PlainStep(optimizers, iter(batches).__next__, mine), model.scale)
        losses.append(((parts["d_loss"], parts["g_loss"] + parts["orthogonality"]), twin.step(batches, theirs)))
    ours, torchs = np.array(losses).transpose(1, 0, 2)
    tolerance = 1e-9 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(ours, torchs, rtol=tolerance, atol=tolerance)  # G's loss, of order 1, passes through 0
    if dtype == np.float64:
        for own, other in ((model.pair.generator.network, twin.g), (model.pair.discriminator, twin.d)):
            for key, value in other.state_dict().items():
                np.testing.assert_allclose(own.state_dict()[key], value, rtol=1e-6, atol=1e-8, err_msg=key)
        assert np.abs(ours[-1] - ours[0]).max() > 1e-3  # and they did move
