"""AC-GAN, InfoGAN and BiGAN in PyTorch, with the same weights, batches and noise: the same losses, step by step."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.parity.test_gan_parity import networks
from tinygen.data import load
from tinygen.models.family import Batch
from tinygen.models.gan.acgan import ACGAN
from tinygen.models.gan.bigan import HIDDEN, BiGAN
from tinygen.models.gan.infogan import InfoGAN
from tinygen.models.gan.toy import PlainStep

STEPS, WIDTH, LATENT, K, LR = 20, 6, 8, 4, 5e-4


def players(told: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    """G from noise and `told` numbers, D to so many outputs, for 16x16 images."""
    g, d = networks(WIDTH, LATENT + told, True)
    d[-1] = nn.Conv2d(2 * WIDTH, outputs, 4)
    return g.double(), d.double()


def real_or_fake(scores: torch.Tensor, answer: float) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, answer))


class TwinACGAN:
    """The box of Odena et al.: L_S and L_C."""

    def __init__(self) -> None:
        self.g, self.d = players(K, 1 + K)
        self.modules = {"generator": self.g, "discriminator.net": self.d}

    def code(self, n: int, labels: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        z = torch.tensor(rng.standard_normal((n, LATENT)))
        self.labels = torch.tensor(labels)
        return torch.cat([z, F.one_hot(self.labels, K)], 1)

    def judged(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out = self.d(x).flatten(1)
        return out[:, 0], F.cross_entropy(out[:, 1:], self.labels)

    def d_loss(self, x: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        (real, c), (made, c_made) = self.judged(x), self.judged(fake)
        return real_or_fake(real, 1) + real_or_fake(made, 0) + c + c_made

    def g_loss(self, fake: torch.Tensor) -> torch.Tensor:
        made, c = self.judged(fake)
        return real_or_fake(made, 1) + c

    def take(self, state: dict[str, np.ndarray]) -> None:
        """The model's weights; and new optimizers, one for D, one for all others."""
        for path, net in self.modules.items():
            own = {k.removeprefix(f"{path}."): torch.tensor(v) for k, v in state.items() if k.startswith(path)}
            net.load_state_dict(own)
        others = [p for path, net in self.modules.items() if not path.startswith("d") for p in net.parameters()]
        self.on_d, self.on_g = (torch.optim.Adam(p, LR, (0.5, 0.999)) for p in (self.d.parameters(), others))

    def step(self, batch: Batch, rng: np.random.Generator) -> list[float]:
        x = torch.tensor(batch.images * (2 / 255) - 1)
        fake = self.g(self.code(len(x), batch.labels, rng)[:, :, None, None].double())
        rng.random(len(x))  # epsilon, where there is a penalty
        d_loss = self.d_loss(x, fake.detach())
        self.on_d.zero_grad()
        d_loss.backward()
        self.on_d.step()
        g_loss = self.g_loss(fake)
        self.on_g.zero_grad()
        g_loss.backward()
        self.on_g.step()
        return [d_loss.item(), g_loss.item()]


class TwinInfoGAN(TwinACGAN):
    """Chen et al.: V - lambda L_I, with a category and two normal numbers."""

    def __init__(self) -> None:
        self.g, self.d = players(K, 1 + K + 4)
        self.modules = {"generator": self.g, "discriminator.net": self.d}

    def code(self, n: int, labels: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        self.z = torch.tensor(rng.standard_normal((n, LATENT + K)))[:, :LATENT]
        self.category = torch.tensor(rng.integers(0, K, n))
        return torch.cat([self.z, F.one_hot(self.category, K)], 1)

    def information(self, out: torch.Tensor) -> torch.Tensor:
        normal = torch.distributions.Normal(out[:, 1 + K : 3 + K], (out[:, 3 + K :] / 2).exp())
        numbers = normal.log_prob(self.z[:, :2]).sum(1).mean()
        return (
            torch.distributions.Categorical(logits=out[:, 1 : 1 + K]).log_prob(self.category).mean() * 0.3
            + 0.1 * numbers
        )

    def d_loss(self, x: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        real, made = self.d(x).flatten(1), self.d(fake).flatten(1)
        return real_or_fake(real[:, 0], 1) + real_or_fake(made[:, 0], 0) - self.information(made)

    def g_loss(self, fake: torch.Tensor) -> torch.Tensor:
        made = self.d(fake).flatten(1)
        return real_or_fake(made[:, 0], 1) - self.information(made)


class TwinBiGAN(TwinACGAN):
    """Donahue et al.: D of (x, E(x)) and (G(z), z); E and G in one step of a joint loss."""

    def __init__(self) -> None:
        self.g, self.features = players(0, HIDDEN)
        encoder = players(0, LATENT)[1]
        encoder[-1].bias = None  # as in `BiGAN`: the norm of the codes would undo it
        self.e = nn.Sequential(encoder, nn.BatchNorm2d(LATENT, affine=False).double())
        self.joint = nn.Sequential(
            nn.LeakyReLU(0.2), nn.Linear(HIDDEN + LATENT, HIDDEN), nn.LeakyReLU(0.2), nn.Linear(HIDDEN, 1)
        ).double()
        self.d = nn.ModuleList([self.features, self.joint])
        self.modules = {
            "generator": self.g, "discriminator.features": self.features, "discriminator.joint": self.joint,
            "encoder": self.e,
        }  # fmt: skip

    def code(self, n: int, labels: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        self.z = torch.tensor(rng.standard_normal((n, LATENT)))
        return self.z

    def judge(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return self.joint(torch.cat([self.features(x).flatten(1), z], 1))

    def d_loss(self, x: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        self.x = x
        real = self.judge(x, self.e(x).flatten(1).detach())
        return real_or_fake(real, 1) + real_or_fake(self.judge(fake, self.z), 0)

    def g_loss(self, fake: torch.Tensor) -> torch.Tensor:
        made = self.judge(fake, self.z)
        return real_or_fake(made, 1) + real_or_fake(self.judge(self.x, self.e(self.x).flatten(1)), 0)


CASES = {
    "acgan": (ACGAN, TwinACGAN, {"classes": K}, ("d_loss", "d_class"), ("g_loss", "g_class")),
    "infogan": (
        InfoGAN, TwinInfoGAN, {"categories": K, "numbers": 2}, ("d_loss", "d_category", "d_numbers"),
        ("g_loss", "g_category", "g_numbers"),
    ),
    "bigan": (BiGAN, TwinBiGAN, {}, ("d_loss",), ("g_loss", "e_loss")),
}  # fmt: skip


def assert_one_game(model, twin, of_d, of_g, told=lambda batch: None):
    """Both trained side by side on digits, 16x16, in float64: the same losses, step by step, and parameters.

    of_d, of_g: the names of the parts of D's loss, and of the others'. told: called with each batch before its step.
    """
    digits = load("digits")[0]
    images, labels = digits.images.repeat(2, axis=2).repeat(2, axis=3) * np.uint8(15), digits.labels % K
    optimizers = model.optimizers(LR)
    twin.take(model.pair.state_dict())
    order, mine, theirs = (np.random.default_rng(seed) for seed in (1, 2, 2))
    ours, torchs = [], []
    for _ in range(STEPS):
        chosen = order.integers(0, len(images), 12)
        batch = Batch(images[chosen], labels[chosen])
        told(batch)
        parts = model.pair.training_step(PlainStep(optimizers, lambda batch=batch: batch, mine), model.scale)
        ours.append([sum(parts[k] for k in names) for names in (of_d, of_g)])
        torchs.append(twin.step(batch, theirs))
    np.testing.assert_allclose(ours, torchs, rtol=1e-9)
    for path, net in twin.modules.items():
        for key, value in net.state_dict().items():
            own = model.pair.state_dict()[f"{path}.{key}"]
            np.testing.assert_allclose(own, value, rtol=1e-7, atol=1e-10, err_msg=f"{path}.{key}")
    assert math.dist(ours[0], ours[-1]) > 1e-3  # and they did move


@pytest.mark.parametrize("name", CASES)
def test_trained_side_by_side(name):
    cls, new_twin, options, of_d, of_g = CASES[name]
    model = cls((1, 16, 16), 256, latent=LATENT, width=WIDTH, **options, rng=np.random.default_rng(0)).to(np.float64)
    assert_one_game(model, new_twin(), of_d, of_g)
