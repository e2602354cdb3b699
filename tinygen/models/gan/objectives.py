"""Objectives, which the two players of a GAN minimize: one small class an objective, each like the box of its paper.

D gives a number for every image, real = D(x) and fake = D(G(z)), (N,) each: for the minimax game the logit of "x is
real", for LSGAN a guess of 1 or 0, for Wasserstein GANs the critic's value, for BEGAN the energy, which is how badly an
autoencoder reproduces the image. Losses are means over the batch; those of the minimax game are in nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from tinygen import Tensor, grad, nn, tensor
from tinygen.nn import functional as F

Name = Literal["non-saturating", "minimax", "lsgan", "hinge", "wgan", "wgan-gp", "began"]


class Objective(nn.Module):
    """`d_loss` is what the discriminator minimizes, `g_loss` what the generator does; and there are rules around them.

    Attributes:
        steps: the discriminator's for each of the generator: k of algorithm 1.
        betas: Adam's.
        by_image: whether D must see each image by itself: no batch norm in it.
        code: how many numbers the code has of the autoencoder that D is; 0: D isn't one.
        logits: whether sigmoid(D(x)) is the probability that x is real.
        chance: d_loss of a discriminator that can't tell real from fake, where there is such a number.
        weight: of the gradient penalty, 0 for none.
    """

    steps = 1
    betas = (0.5, 0.999)  # Radford et al. 2016, section 4
    by_image = logits = False
    code = 0
    chance: float | None = None
    weight = 0.0

    def value(self, output: Tensor, x: Tensor) -> Tensor:
        """D(x), a number for each image, (N,), of what D's network gives for images x (N, ...)."""
        return output.reshape(len(x))

    def d_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """The discriminator's loss, 0-d, from D's values."""
        raise NotImplementedError

    def g_loss(self, fake: Tensor) -> Tensor:
        """The generator's loss, 0-d."""
        raise NotImplementedError

    def penalty(self, norms: Tensor) -> Tensor:
        """The term added to the discriminator's loss, from the norms of D's gradient by the image, (N,)."""
        raise NotImplementedError

    def after_step(self, d: nn.Module, real: float, fake: float) -> None:
        """Called after each of the discriminator's steps, in which the means of D(x) and D(G(z)) were real and fake."""

    def shown(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """The numbers that people see of D's values: their means."""
        return {"real": mean(real), "fake": mean(fake)}


class NonSaturating(Objective):
    """The GAN as it is trained: the generator maximizes log D(G(z)) (Goodfellow et al. 2014, section 3; slide 121)."""

    logits, chance = True, math.log(4)

    def d_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.softplus(-real).mean() + F.softplus(fake).mean()  # -log D(x) - log(1 - D(G(z)))

    def g_loss(self, fake: Tensor) -> Tensor:
        return F.softplus(-fake).mean()  # -log D(G(z))

    def shown(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        return super().shown(real.sigmoid(), fake.sigmoid())  # as probabilities


class Minimax(NonSaturating):
    """The GAN as it is defined: the generator minimizes log(1 - D(G(z))), which is flat where D(G(z)) is near 0.

    Source: Goodfellow et al. (2014), equation 1 and algorithm 1; lecture slides 115 to 120.
    """

    def g_loss(self, fake: Tensor) -> Tensor:
        return -F.softplus(fake).mean()  # log(1 - D(G(z)))


class LeastSquares(Objective):
    """LSGAN: 1 for real, 0 for fake, by squared error (Mao et al. 2017, equation 9)."""

    chance = 0.25

    def d_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return ((real - 1) ** 2).mean() / 2 + (fake**2).mean() / 2

    def g_loss(self, fake: Tensor) -> Tensor:
        return ((fake - 1) ** 2).mean() / 2


class Hinge(Objective):
    """The hinge loss: D is content with values beyond +-1 (Lim & Ye 2017; Miyato et al. 2018, equations 16 and 17)."""

    chance = 2.0

    def d_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()

    def g_loss(self, fake: Tensor) -> Tensor:
        return -fake.mean()


class Wasserstein(Objective):
    """WGAN: the critic's mean difference is the distance of two distributions, if clipping keeps it from being steep.

    Source: Arjovsky, Chintala, Bottou (2017), algorithm 1. Adam without momentum stands for its RMSProp.
    """

    steps, betas, clip = 5, (0.0, 0.99), 0.01

    def d_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake.mean() - real.mean()

    def g_loss(self, fake: Tensor) -> Tensor:
        return -fake.mean()

    def after_step(self, d: nn.Module, real: float, fake: float) -> None:
        for p in d.parameters():
            np.clip(p.write(), -self.clip, self.clip, out=p.write())


class WassersteinGP(Wasserstein):
    """WGAN-GP: the critic's gradient is drawn to norm 1 on lines between real and fake images.

    Source: Gulrajani et al., Improved Training of Wasserstein GANs (2017), algorithm 1.
    """

    betas, by_image, weight = (0.0, 0.9), True, 10.0

    def penalty(self, norms: Tensor) -> Tensor:
        return self.weight * ((norms - 1) ** 2).mean()

    def after_step(self, d: nn.Module, real: float, fake: float) -> None:
        pass


class BEGAN(Objective):
    """BEGAN: D is an autoencoder, which k keeps from winning: E L(G(z)) is to be gamma times E L(x).

    Source: Berthelot, Schumm, Metz (2017), section 3.4. Neither player has batch norm, and D's decoder is like G. The
    paper trains for 200,000 steps, with k moving at a rate of 0.001, gamma 0.3 to 0.7, codes of 64 numbers. What stands
    here is for thousands of steps: with the paper's numbers k stays so near 0 that D never learns to reproduce G's
    images badly, and G falls for what D learns first.
    """

    by_image, code = True, 16
    betas = (0.0, 0.9)  # G follows a D that changes as fast as k does
    gamma, rate = 1.0, 0.1
    k: Tensor

    def __init__(self) -> None:
        self.register_buffer("k", tensor(np.zeros((), np.float32)))

    def value(self, output: Tensor, x: Tensor) -> Tensor:
        return (output - x).abs().mean(tuple(range(1, x.ndim)))  # L(x), equation 1 with eta = 1

    def d_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return real.mean() - self.k.item() * fake.mean()

    def g_loss(self, fake: Tensor) -> Tensor:
        return fake.mean()

    def after_step(self, d: nn.Module, real: float, fake: float) -> None:
        k = self.k.write()
        k[...] = min(max(k.item() + self.rate * (self.gamma * real - fake), 0.0), 1.0)

    def shown(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        return super().shown(real, fake) | {"k": self.k.item()}


def mean(values: Tensor) -> float:
    """The mean, as a number."""
    return float(values.numpy().mean())


def gradient_norms(d: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mix: np.ndarray) -> Tensor:
    """|dD/dx| at x = mix real + (1 - mix) fake, for each image, (N,); differentiable in D's parameters.

    mix: (N,), from 0 to 1; epsilon in the box of Gulrajani et al. (2017).
    """
    a = real.new_tensor(mix.reshape(-1, *[1] * (real.ndim - 1)))
    x = real.new_tensor(a * real.detach() + (1 - a) * fake.detach(), requires_grad=True)
    (g,) = grad(d(x).sum(), x, create_graph=True)
    return ((g**2).sum(tuple(range(1, x.ndim))) + 1e-30).sqrt()  # where the gradient is 0, that of its norm is 0 too


OBJECTIVES: dict[str, type[Objective]] = {
    "non-saturating": NonSaturating,
    "minimax": Minimax,
    "lsgan": LeastSquares,
    "hinge": Hinge,
    "wgan": Wasserstein,
    "wgan-gp": WassersteinGP,
    "began": BEGAN,
}


def named(name: str) -> Objective:
    """A new objective by its name. Raises ValueError for a name that none has."""
    if name not in OBJECTIVES:
        raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got {name!r}")
    return OBJECTIVES[name]()
