"""M2 and SemiGAN once more in PyTorch, with the same weights, batches and noise: the same losses, step by step.

M2 there takes one class after the other; SemiGAN's discriminator has K + 1 logits, as in its paper.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.distributions import Categorical, Normal, kl_divergence
from torch.nn.functional import cross_entropy, log_softmax, pad

from tests.parity import test_gan_zoo_parity as zoo
from tests.parity.side_by_side import STEPS, assert_one_training, train
from tests.parity.test_gan_parity import networks
from tests.parity.test_vae_parity import TwinVAE
from tinygen.data import load, threshold
from tinygen.models.family import Batch
from tinygen.models.gan.semigan import SemiGAN
from tinygen.models.vae.m2 import M2

N, FEW, K, LATENT, ALPHA = 12, 8, 10, 3, 5.0


class TwinM2(TwinVAE):
    def bound(self, images, h, y, eps):
        """L(x, y) of images whose classes are y (N,)."""
        mean, log_var = (h[:, K:] + self.parameters["table.weight"].T[y]).chunk(2, 1)
        z = mean + torch.from_numpy(eps) * torch.exp(log_var).sqrt()
        code = torch.cat([z, torch.eye(K, dtype=z.dtype)[y]], 1)
        kl = kl_divergence(Normal(mean, (log_var / 2).exp()), Normal(0.0, 1.0)).sum(1)
        return self.nats(self.decode(code, 8), images).sum((1, 2, 3)) + kl + math.log(K)

    def loss(self, images, few, labels, rng):
        h, noise = self.encode(self.scaled(images)), rng.standard_normal((K, N, LATENT))
        q = Categorical(logits=h[:, :K])
        terms = [q.probs[:, y] * self.bound(images, h, torch.full((N,), y), noise[y]) for y in range(K)]
        unlabeled = (sum(terms) - q.entropy()).mean()
        h, y = self.encode(self.scaled(few)), torch.from_numpy(labels)
        labeled = self.bound(few, h, y, rng.standard_normal((1, FEW, LATENT))[0]).mean()
        return unlabeled + labeled + ALPHA * cross_entropy(h[:, :K], y)


def test_m2_trained_side_by_side():
    data = threshold(load("digits")[0])
    options = {"likelihood": "bernoulli", "latent": LATENT, "hidden": 20, "alpha": ALPHA}
    model = M2((1, 8, 8), 2, **options, rng=np.random.default_rng(0)).to(np.float64)
    twin = TwinM2(model, False)
    order, mine, theirs = (np.random.default_rng(seed) for seed in (1, 2, 2))

    def both():
        index = order.integers(0, len(data), N + FEW)
        images, labels = data.images[index], data.labels[index]
        few = Batch(images[N:], labels[N:])
        parts = model.loss(Batch(images[:N]), mine) | model.labeled_loss(few, mine)
        return sum(parts.values()), twin.loss(images[:N], few.images, few.labels, theirs)

    ours, torchs = train(model, twin, 5e-3, (both() for _ in range(STEPS)))
    assert_one_training(model, twin, ours, torchs)
    assert ours[-1] < ours[0] - 1


class TwinSemiGAN(zoo.TwinACGAN):
    """Salimans et al.: a classifier of K + 1 classes, the last of which is "generated" and has the logit 0."""

    def __init__(self) -> None:
        g, d = networks(zoo.WIDTH, zoo.LATENT, True)[0], networks(zoo.WIDTH, 1, False)[1]  # D has no batch norm
        d[-1] = torch.nn.Conv2d(2 * zoo.WIDTH, zoo.K, 4)
        self.g, self.d = g.double(), d.double()
        self.modules = {"generator": self.g, "discriminator.body": self.d[:-1], "discriminator.last": self.d[-1]}

    def tell(self, images, labels) -> None:
        """The labeled images of the next step."""
        self.few = torch.tensor(images * (2 / 255) - 1), torch.tensor(labels)

    def code(self, n, labels, rng):
        return torch.tensor(rng.standard_normal((n, zoo.LATENT)))

    def log_p(self, x):
        """log p of the K classes and of "generated", (N, K + 1)."""
        return log_softmax(pad(self.d(x).flatten(1), (0, 1)), 1)

    def d_loss(self, x, fake):
        self.x, (few, labels) = x, self.few
        of_real = -torch.log(-torch.expm1(self.log_p(x)[:, zoo.K])).mean()  # -log p(not generated)
        return of_real - self.log_p(fake)[:, zoo.K].mean() + cross_entropy(self.d(few).flatten(1), labels)

    def g_loss(self, fake):
        means = [self.d[:-1](x).mean(0) for x in (self.x, fake)]
        return torch.sum((means[0] - means[1]) ** 2)


def test_semigan_trained_side_by_side():
    model = SemiGAN((1, 16, 16), 256, latent=zoo.LATENT, width=zoo.WIDTH, classes=zoo.K, rng=np.random.default_rng(0))
    model, twin = model.to(np.float64), TwinSemiGAN()

    def told(batch):
        few, labels = batch.images[:5], batch.labels[:5]
        model.pair.few = model.scale(few), labels
        twin.tell(few, labels)

    zoo.assert_one_game(model, twin, ("d_loss", "d_class"), ("g_features",), told)
