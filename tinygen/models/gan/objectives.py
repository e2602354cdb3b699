"""Objectives, which the players of a GAN minimize: one small class an objective, each like the box of its paper.

D gives a number for every image, real = D(x) and fake = D(G(z)), (N,) each: for the minimax game the logit of "x is
real", for LSGAN a guess of 1 or 0, for Wasserstein GANs the critic's value, for BEGAN the energy, which is how badly an
autoencoder reproduces the image. Some objectives see more of D than that number: `d_parts` and `g_parts`. Losses are
means over the batch; those of the minimax game are in nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from tinygen import Tensor, cat, grad, nn, ops, parallel, tensor
from tinygen.nn import functional as F

Name = Literal[
    "non-saturating", "minimax", "lsgan", "hinge", "wgan", "wgan-gp", "began", "ebgan", "softmax",
    "fgan-kl", "fgan-reverse-kl", "fgan-pearson", "fgan-hellinger", "fgan-js",
]  # fmt: skip


class Verdict(NamedTuple):
    """What D says of a batch of images, and what objectives may know of those.

    value: D(x), (N,). head: what D gives besides, (N, K), or None: guesses of the class or the code, or the code of the
    autoencoder that D is. labels: the images' classes, or None. z: the codes they were made from, (N, latent), or None.
    """

    value: Tensor
    head: Any = None
    labels: np.ndarray | None = None
    z: Any = None


class Objective(nn.Module):
    """`d_loss` is what the discriminator minimizes, `g_loss` what the generator does; and there are rules around them.

    Attributes:
        steps: the discriminator's for each of the generator: k of algorithm 1.
        betas: Adam's.
        by_image: whether D must see each image by itself: no batch norm in it.
        bare: whether G must do without batch norm, too.
        code: how many numbers the code has of the autoencoder that D is; 0: D isn't one.
        categories: how many there are that a generated image is told one of, in its code z.
        heads: how many numbers D's head has.
        told: whether D is told the classes that G is.
        logits: whether sigmoid(D(x)) is the probability that x is real.
        chance: d_loss of a discriminator that can't tell real from fake, where there is such a number.
        best: d_loss of one that is never wrong.
        weight: of the gradient penalty, 0 for none.
    """

    steps = 1
    betas = (0.5, 0.999)  # Radford et al. 2016, section 4
    told, by_image, bare, logits = True, False, False, False
    code = categories = heads = 0
    chance: float | None = None
    best = 0.0
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

    def d_parts(self, real: Verdict, fake: Verdict) -> dict[str, Tensor]:
        """The parts of the discriminator's loss by name, for objectives that see more of D than its values."""
        return {"d_loss": self.d_loss(real.value, fake.value)}

    def g_parts(self, fake: Verdict, real: Callable[[], Verdict]) -> dict[str, Tensor]:
        """The parts of the generator's loss. real: asks D of the real images, too, where the objective wants that."""
        return {"g_loss": self.g_loss(fake.value)}

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


class Energy(Objective):
    """D is an autoencoder, whose decoder is built like G; D(x) is the image's energy, how badly it is reproduced."""

    by_image, code = True, 16

    def value(self, output: Tensor, x: Tensor) -> Tensor:
        return (output - x).abs().mean(tuple(range(1, x.ndim)))  # L(x), equation 1 of Berthelot et al. with eta = 1

    def g_loss(self, fake: Tensor) -> Tensor:
        return fake.mean()


class BEGAN(Energy):
    """BEGAN: D is an autoencoder, which k keeps from winning: E L(G(z)) is to be gamma times E L(x).

    Source: Berthelot, Schumm, Metz (2017), section 3.4. Neither player has batch norm, and D's decoder is like G. The
    paper trains for 200,000 steps, with k moving at a rate of 0.001, gamma 0.3 to 0.7, codes of 64 numbers. What stands
    here is for thousands of steps: with the paper's numbers k stays so near 0 that D never learns to reproduce G's
    images badly, and G falls for what D learns first.
    """

    bare, betas = True, (0.0, 0.9)  # G follows a D that changes as fast as k does
    gamma, rate = 1.0, 0.1
    k: Tensor

    def __init__(self) -> None:
        self.register_buffer("k", tensor(np.zeros((), np.float32)))

    def d_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return real.mean() - self.k.item() * fake.mean()

    def after_step(self, d: nn.Module, real: float, fake: float) -> None:
        k = self.k.write()
        k[...] = min(max(k.item() + self.rate * (self.gamma * real - fake), 0.0), 1.0)

    def shown(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        return super().shown(real, fake) | {"k": self.k.item()}


class EBGAN(Energy):
    """EBGAN: generated images are to have an energy of m or more; beyond that margin D learns nothing from them.

    G's pulling-away term keeps the codes that D has for its images apart. Source: Zhao, Mathieu, LeCun, Energy-based
    Generative Adversarial Network (2017), sections 2.1 and 2.4; there the energy is the squared error.
    """

    margin, pulling = 0.4, 0.1
    chance = margin

    def d_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return real.mean() + F.relu(self.margin - fake).mean()

    def g_parts(self, fake: Verdict, real: Callable[[], Verdict]) -> dict[str, Tensor]:
        return super().g_parts(fake, real) | {"pulling_away": self.pulling * alikeness(fake.head)}

    def shown(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        return super().shown(real, fake) | {"beyond": float((fake.numpy() >= self.margin).mean())}


def alikeness(codes: Tensor) -> Tensor:
    """The mean squared cosine between two of the codes (N, K), 0-d: from 0, at right angles, to 1."""
    n, unit = float(parallel.total(len(codes))), codes / ((codes**2).sum(1, keepdim=True) + 1e-12).sqrt()
    products = ops.all_reduce(unit.permute(1, 0) @ unit)  # whose squares add up to those of all cosines
    return ((products**2).sum() - ops.all_reduce(((unit**2).sum(1) ** 2).sum())) / max(n * (n - 1), 1)


class Softmax(Objective):
    """Softmax GAN: a softmax over all images of a step; D wants its mass on the real ones, G as much on each.

    Source: Lin, Softmax GAN (2017). Both losses are cross-entropies, in nats: log(2 N) where D is blind.
    """

    def d_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return ops.batch_logsumexp(cat(real, fake)) - real.mean()

    def g_parts(self, fake: Verdict, real: Callable[[], Verdict]) -> dict[str, Tensor]:
        values = cat(real().value, fake.value)
        return {"g_loss": ops.batch_logsumexp(values) - values.mean()}

    def shown(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        r, f = (float(ops.batch_logsumexp(x).item()) for x in (real, fake))
        return super().shown(real, fake) | {"mass": 1 / (1 + math.exp(min(f - r, 700)))}  # of the softmax, on real ones


class FGAN(Objective):
    """f-GAN: D maximizes a lower bound on an f-divergence of data from samples, E T(x) - E f*(T(G(z))), T = g_f(D).

    Source: Nowozin, Cseke, Tomioka, f-GAN: Training Generative Neural Samplers using Variational Divergence
    Minimization (2016), section 2; the generator maximizes E T(G(z)), as section 3.2 has it.
    """

    chance = 0.0

    def __init__(self, divergence: str) -> None:
        self.activation, self.conjugate, most = DIVERGENCES[divergence]
        self.best = -most

    def d_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return self.conjugate(fake).mean() - self.activation(real).mean()

    def g_loss(self, fake: Tensor) -> Tensor:
        return -self.activation(fake).mean()


Function = Callable[[Tensor], Tensor]
DIVERGENCES: dict[str, tuple[Function, Function, float]] = {  # of v = D(x): g_f(v), f*(g_f(v)), and the largest value;
    "kl": (lambda v: v, lambda v: (v - 1).exp(), 5.0),  # where there is none, what only a D without error comes to
    "reverse-kl": (lambda v: -(-v).exp(), lambda v: v - 1, 5.0),
    "pearson": (lambda v: v, lambda v: v**2 / 4 + v, 5.0),
    "hellinger": (lambda v: 1 - (-v).exp(), lambda v: v.exp() - 1, 2.0),  # squared
    "js": (lambda v: math.log(2) - F.softplus(-v), lambda v: F.softplus(v) - math.log(2), 2 * math.log(2)),
}


def mean(values: Tensor) -> float:
    """The mean, as a number; over all ranks."""
    return float(ops.batch_mean(values.detach()).mean().item())


def gradient_norms(d: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mix: np.ndarray) -> Tensor:
    """|dD/dx| at x = mix real + (1 - mix) fake, for each image, (N,); differentiable in D's parameters.

    mix: (N,), from 0 to 1; epsilon in the box of Gulrajani et al. (2017).
    """
    a = real.new_tensor(mix.reshape(-1, *[1] * (real.ndim - 1)))
    x = real.new_tensor(a * real.detach() + (1 - a) * fake.detach(), requires_grad=True)
    (g,) = grad(d(x).sum(), x, create_graph=True)
    return ((g**2).sum(tuple(range(1, x.ndim))) + 1e-30).sqrt()  # where the gradient is 0, that of its norm is 0 too


OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "non-saturating": NonSaturating,
    "minimax": Minimax,
    "lsgan": LeastSquares,
    "hinge": Hinge,
    "wgan": Wasserstein,
    "wgan-gp": WassersteinGP,
    "began": BEGAN,
    "ebgan": EBGAN,
    "softmax": Softmax,
    **{f"fgan-{name}": partial(FGAN, name) for name in DIVERGENCES},
}


def named(name: str) -> Objective:
    """A new objective by its name. Raises ValueError for a name that none has."""
    if name not in OBJECTIVES:
        raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got {name!r}")
    return OBJECTIVES[name]()
