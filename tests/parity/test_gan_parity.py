"""The same GANs in PyTorch, with the same weights, batches and noise: the same losses, step by step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tinygen
from tinygen.data import load
from tinygen.models.family import Batch
from tinygen.models.gan.dcgan import DCGAN, Guidelines, discriminator_net
from tinygen.models.gan.objectives import OBJECTIVES, gradient_norms
from tinygen.models.gan.toy import PlainStep

STEPS = 20


def networks(width: int, latent: int, batch_norm: bool) -> tuple[nn.Module, nn.Module]:
    """G and D for 16x16 images as Radford et al. (2016), figure 1, describe them."""

    def norm(channels: int) -> list[nn.Module]:
        return [nn.BatchNorm2d(channels)] if batch_norm else []

    rng = nn.Sequential(
        nn.ConvTranspose2d(latent, 2 * width, 4, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU(),
        nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.ConvTranspose2d(width, 1, 4, 2, 1), nn.Tanh(),
    )  # fmt: skip
    discriminator = nn.Sequential(
        nn.Conv2d(1, width, 4, 2, 1), nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 4, 2, 1, bias=not batch_norm), *norm(2 * width), nn.LeakyReLU(0.2),
        nn.Conv2d(2 * width, 1, 4),
    )  # fmt: skip
    return rng, discriminator


def loss_d(name: str, d: nn.Module, x: torch.Tensor, fake: torch.Tensor, mix: torch.Tensor) -> torch.Tensor:
    real_scores, fake_scores = d(x).flatten(), d(fake).flatten()
    if name == "non-saturating":
        ones, zeros = torch.ones_like(real_scores), torch.zeros_like(real_scores)
        bce = F.binary_cross_entropy_with_logits
        return bce(real_scores, ones) + bce(fake_scores, zeros)
    between = (mix[:, None, None, None] * x + (1 - mix[:, None, None, None]) * fake).requires_grad_()
    (g,) = torch.autograd.grad(d(between).sum(), between, create_graph=True)
    return fake_scores.mean() - real_scores.mean() + 10 * ((g.flatten(1).norm(dim=1) - 1) ** 2).mean()


def loss_g(name: str, scores: torch.Tensor) -> torch.Tensor:
    return -scores.mean() if name == "wgan-gp" else F.binary_cross_entropy_with_logits(scores, torch.ones_like(scores))


class Twin:
    """A training step in plain PyTorch, as its tutorials have it."""

    def __init__(self, name: str, model: DCGAN, width: int, latent: int, betas: tuple[float, float], lr: float) -> None:
        dtype = torch.float64 if next(model.parameters()).dtype == np.float64 else torch.float32
        self.name, self.critic_steps, self.latent = name, model.pair.steps, latent
        self.g, self.d = (net.to(dtype) for net in networks(width, latent, name != "wgan-gp"))
        for net, own in ((self.g, model.pair.generator), (self.d, model.pair.discriminator)):
            net.load_state_dict({k: torch.tensor(v) for k, v in own.state_dict().items()})
        self.optimizers = [torch.optim.Adam(net.parameters(), lr, betas) for net in (self.g, self.d)]

    def step(self, batches: list[np.ndarray], rng: np.random.Generator) -> tuple[float, float]:
        on_g, on_d = self.optimizers
        for images in batches:
            dtype = next(self.g.parameters()).dtype
            x = torch.tensor(images * (2 / 255) - 1, dtype=dtype)
            z = torch.tensor(rng.standard_normal((len(x), self.latent, 1, 1)), dtype=dtype)
            mix = torch.tensor(rng.random(len(x)), dtype=dtype)
            fake = self.g(z)
            loss = loss_d(self.name, self.d, x, fake.detach(), mix)
            on_d.zero_grad()
            loss.backward()
            on_d.step()
        deceived = loss_g(self.name, self.d(fake).flatten())
        on_g.zero_grad()
        deceived.backward()
        on_g.step()
        return loss.item(), deceived.item()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("name", "critic_steps"), [("non-saturating", 1), ("wgan-gp", 2)])
def test_trained_side_by_side(name, critic_steps, dtype):
    width, latent, lr = 6, 8, 5e-4
    digits = load("digits")[0].images.repeat(2, axis=2).repeat(2, axis=3) * np.uint8(15)
    model = DCGAN(
        (1, 16, 16), 256, objective=name, latent=latent, width=width, critic_steps=critic_steps,
        rng=np.random.default_rng(0),
    ).to(dtype)  # fmt: skip
    twin = Twin(name, model, width, latent, model.pair.objective.betas, lr)
    order, mine, theirs = (np.random.default_rng(seed) for seed in (1, 2, 2))
    optimizers, losses = model.optimizers(lr), []
    for _ in range(STEPS if dtype == np.float64 else 1):
        batches = [digits[order.integers(0, len(digits), 12)] for _ in range(critic_steps)]
        parts = model.pair.training_step(PlainStep(optimizers, map(Batch, batches).__next__, mine), model.scale)
        ours = parts["d_loss"] + parts.get("penalty", 0.0), parts["g_loss"]
        losses.append((ours, twin.step(batches, theirs)))
    ours, torchs = np.array(losses).transpose(1, 0, 2)
    np.testing.assert_allclose(ours, torchs, rtol=1e-9 if dtype == np.float64 else 1e-5)
    if dtype == np.float64:
        for own, other in ((model.pair.generator, twin.g), (model.pair.discriminator, twin.d)):
            for key, value in other.state_dict().items():
                np.testing.assert_allclose(own.state_dict()[key], value, rtol=1e-7, atol=1e-10, err_msg=key)
        assert np.abs(ours[-1] - ours[0]).max() > 1e-3  # and they did move


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 1e-5)])
def test_the_penaltys_second_order_gradients(dtype, tolerance):
    rng = np.random.default_rng(0)
    net = discriminator_net((1, 16, 16), 1, 6, Guidelines(batch_norm=False), rng).to(dtype)
    for p in net.parameters():
        p.write()[...] = rng.normal(0, 0.2, p.shape)
    _, other = networks(6, 8, False)
    other = other.to(torch.float64 if dtype == np.float64 else torch.float32)
    other.load_state_dict({k: torch.tensor(v) for k, v in net.state_dict().items()})
    real, fake = rng.normal(size=(2, 5, 1, 16, 16)).astype(dtype)
    mix = rng.random(5).astype(dtype)
    parameters = list(net.parameters())
    found = gradient_norms(lambda x: net(x).reshape(5), tinygen.tensor(real), tinygen.tensor(fake), mix)
    ours = tinygen.grad(OBJECTIVES["wgan-gp"]().penalty(found), parameters)
    between = torch.tensor(mix[:, None, None, None] * real + (1 - mix[:, None, None, None]) * fake, requires_grad=True)
    (g,) = torch.autograd.grad(other(between).sum(), between, create_graph=True)
    penalty = 10 * ((g.flatten(1).norm(dim=1) - 1) ** 2).mean()
    theirs = torch.autograd.grad(penalty, list(other.parameters()), allow_unused=True, materialize_grads=True)
    for own, expected in zip(ours, theirs, strict=True):
        scale = max(float(expected.abs().max()), 1e-3)
        np.testing.assert_allclose(own.numpy() / scale, expected.numpy() / scale, atol=tolerance)
