"""q(z given x): what an encoder's output says of the code, and the prior p(z) (lecture slides 68 and 82 to 88).

The encoder gives `outputs` numbers for an image, h (N, outputs); the decoder takes `size` numbers, z. In between:

    draw        z (S, N, size) from h and noise that was drawn before: the reparameterization, slides 86 to 88
    kl          KL(q, p) of each image (N,), in nats, in closed form as far as there is one
    log_ratio   log q(z given x) - log p(z) of each draw (S, N), for importance weighting
    log_weights how much each draw counts (S, N), as a logarithm; they sum to 1 over S
    prior       z (n, size) from p(z)
    mean        z (N, size), the middle of q
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np

from tinygen import Tensor, exp, logsumexp, nn
from tinygen.nn import functional as F

Kind = Literal["gaussian", "mixture", "categorical"]


def posterior(name: Kind, latent: int, components: int | None) -> Gaussian | Categorical:
    """One by its name. components: of the mixture (4 if None), or categories of each variable (10 if None)."""
    if name not in get_args(Kind):
        raise ValueError(f"posterior must be one of {', '.join(get_args(Kind))}, got {name!r}")
    if latent < 1:
        raise ValueError(f"latent must be at least 1, got {latent}")
    if name == "gaussian":
        if components is not None:
            raise ValueError(f"components are a mixture's or a categorical posterior's: must be None, got {components}")
        return Gaussian(latent)
    return Mixture(latent, components or 4) if name == "mixture" else Categorical(latent, components or 10)


def gaussian_kl(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, exp(log_var)), N(0, 1)) in nats, elementwise: slides 82 to 85; Kingma & Welling (2014), appendix B."""
    return (exp(log_var) + mean * mean - 1 - log_var) * 0.5


def log_normal(z: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """log N(z; mean, exp(log_var)) in nats, summed over the last axis."""
    d = z - mean
    return (d * d * exp(-log_var) + log_var + math.log(2 * math.pi)).sum(-1) * -0.5


def log_prior(z: Tensor) -> Tensor:
    """log N(z; 0, I) in nats, summed over the last axis."""
    return (z * z + math.log(2 * math.pi)).sum(-1) * -0.5


class Gaussian(nn.Module):
    """Independent normal variables, whose means and log variances the encoder gives; the prior is N(0, I)."""

    def __init__(self, latent: int) -> None:
        self.latent = self.size = latent
        self.outputs = 2 * latent

    def noise(self, rng: np.random.Generator, samples: int, n: int) -> np.ndarray:
        """What `draw` needs for so many draws of n images."""
        return rng.standard_normal((samples, n, self.latent))

    def split(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the log variance (N, latent)."""
        return h[:, : self.latent], h[:, self.latent :]

    def draw(self, h: Tensor, noise: np.ndarray) -> Tensor:
        mean, log_var = self.split(h)
        return mean + exp(log_var * 0.5) * h.new_tensor(noise)

    def kl(self, h: Tensor, z: Tensor) -> Tensor:
        return self.kl_by_variable(h).sum(-1)

    def kl_by_variable(self, h: Tensor) -> Tensor:
        """The KL divergence of each variable (N, latent)."""
        return gaussian_kl(*self.split(h))

    def log_ratio(self, h: Tensor, z: Tensor) -> Tensor:
        return log_normal(z, *self.split(h)) - log_prior(z)

    def log_weights(self, h: Tensor, draws: int) -> Tensor:
        return h.new_tensor(np.full((draws, len(h)), -math.log(draws)))

    def prior(self, rng: np.random.Generator, n: int) -> np.ndarray:
        return rng.standard_normal((n, self.latent))

    def mean(self, h: Tensor) -> Tensor:
        return self.split(h)[0]


class Mixture(Gaussian):
    """A mixture of Gaussians; the prior is N(0, I). One component is `Gaussian`.

    Expectations over the components are exact: every component is drawn from, and its draw counts as much as the
    component weighs. With pi, q_k the weights and components,

        KL(q, p) = sum over k of pi_k KL(q_k, p) - sum over k of pi_k E log q_k(z) / q(z)

    of which the second sum, how much z tells of its component, is estimated from the draws.

    Source: the stratified estimate of Roeder, Wu & Duvenaud, Sticking the landing (2017), section 4.
    """

    def __init__(self, latent: int, components: int) -> None:
        super().__init__(latent)
        if components < 1:
            raise ValueError(f"components must be at least 1, got {components}")
        self.components = components
        self.outputs = components * (2 * latent + 1)

    def noise(self, rng: np.random.Generator, samples: int, n: int) -> np.ndarray:
        return rng.standard_normal((samples * self.components, n, self.latent))

    def split(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """The components' means and log variances (K, N, latent)."""
        both = h[:, : -self.components].reshape(len(h), self.components, 2 * self.latent).transpose(0, 1)
        return both[..., : self.latent], both[..., self.latent :]

    def log_share(self, h: Tensor) -> Tensor:
        """log pi (K, N)."""
        return F.log_softmax(h[:, -self.components :], 1).transpose(0, 1)

    def _by_component(self, x: Tensor) -> Tensor:
        """(S, N, ...) as (S / K, K, N, ...): the component that each was drawn from on an axis of its own."""
        return x.reshape(len(x) // self.components, self.components, *x.shape[1:])

    def draw(self, h: Tensor, noise: np.ndarray) -> Tensor:
        mean, log_var = self.split(h)
        z = mean + exp(log_var * 0.5) * self._by_component(h.new_tensor(noise))
        return z.reshape(noise.shape)

    def kl(self, h: Tensor, z: Tensor) -> Tensor:
        drawn_from = log_normal(self._by_component(z), *self.split(h))
        closer = drawn_from - self._by_component(self.log_q(h, z))
        return (exp(self.log_share(h)) * (gaussian_kl(*self.split(h)).sum(-1) - closer.mean(0))).sum(0)

    def kl_by_variable(self, h: Tensor) -> Tensor:
        """The weighted mean of the components' KL divergences, each variable's (N, latent)."""
        return (exp(self.log_share(h)).reshape(self.components, len(h), 1) * gaussian_kl(*self.split(h))).sum(0)

    def log_q(self, h: Tensor, z: Tensor) -> Tensor:
        """log q(z given x) of each draw (S, N)."""
        return logsumexp(self.log_share(h) + log_normal(z.reshape(len(z), 1, *z.shape[1:]), *self.split(h)), 1)

    def log_ratio(self, h: Tensor, z: Tensor) -> Tensor:
        return self.log_q(h, z) - log_prior(z)

    def log_weights(self, h: Tensor, draws: int) -> Tensor:
        times = draws // self.components
        one = self.log_share(h) - math.log(times)
        return one.reshape(1, *one.shape).expand(times, *one.shape).reshape(draws, len(h))

    def mean(self, h: Tensor) -> Tensor:
        return (exp(self.log_share(h)).reshape(self.components, len(h), 1) * self.split(h)[0]).sum(0)


class Categorical(nn.Module):
    """`latent` variables of so many categories each, z their one-hot vectors side by side; the prior is uniform.

    In training a draw is relaxed to a point inside the simplex, softmax((logits + Gumbel noise) / temperature), through
    which gradients flow; in evaluation it is the category itself, so that bounds are bounds.

    Source: Jang, Gu & Poole, Categorical reparameterization with Gumbel-softmax (2017); Maddison, Mnih & Teh (2017),
    whose temperature of 2/3 this is.
    """

    temperature = 2 / 3

    def __init__(self, latent: int, categories: int) -> None:
        if categories < 2:
            raise ValueError(f"components, the categories of each variable, must be at least 2, got {categories}")
        self.latent, self.categories = latent, categories
        self.size = self.outputs = latent * categories

    def noise(self, rng: np.random.Generator, samples: int, n: int) -> np.ndarray:
        """What `draw` needs for so many draws of n images."""
        return rng.gumbel(size=(samples, n, self.latent, self.categories))

    def split(self, h: Tensor) -> Tensor:
        """The log-probabilities (N, latent, categories)."""
        return F.log_softmax(h.reshape(len(h), self.latent, self.categories), 2)

    def draw(self, h: Tensor, noise: np.ndarray) -> Tensor:
        scores = self.split(h) + h.new_tensor(noise)
        if self.training:
            z = F.softmax(scores * (1 / self.temperature), 3)
        else:
            z = h.new_tensor(scores.numpy().argmax(axis=3)[..., None] == np.arange(self.categories))
        return z.reshape(*noise.shape[:2], self.size)

    def kl(self, h: Tensor, z: Tensor) -> Tensor:
        return self.kl_by_variable(h).sum(-1)

    def kl_by_variable(self, h: Tensor) -> Tensor:
        """The KL divergence of each variable (N, latent)."""
        log_p = self.split(h)
        return (exp(log_p) * (log_p + math.log(self.categories))).sum(2)

    def log_ratio(self, h: Tensor, z: Tensor) -> Tensor:
        """For categories, not for relaxed draws, whose density is another."""
        log_p = self.split(h).reshape(len(h), self.size)
        return (z * log_p).sum(-1) + self.latent * math.log(self.categories)

    def log_weights(self, h: Tensor, draws: int) -> Tensor:
        return h.new_tensor(np.full((draws, len(h)), -math.log(draws)))

    def prior(self, rng: np.random.Generator, n: int) -> np.ndarray:
        chosen = rng.integers(0, self.categories, (n, self.latent, 1))
        return (chosen == np.arange(self.categories)).reshape(n, self.size).astype(np.float64)

    def mean(self, h: Tensor) -> Tensor:
        return exp(self.split(h)).reshape(len(h), self.size)
