"""VAE whose q(z | x) is a mixture of Gaussians, which may have several modes (slide 98). The prior is N(0, I).

Expectations over the components are exact: z is drawn from every component, and its draw counts as much as the
component weighs. With pi_k and q_k the weights and components,

    KL(q, p) = sum over k of pi_k KL(q_k, p) - sum over k of pi_k E log q_k(z) / q(z),  z from q_k

of which the second sum, how much z tells of its component, is estimated from the draws.

Source: the stratified estimate of Roeder, Wu & Duvenaud, Sticking the landing (2017), section 4.
"""

from __future__ import annotations

import math

import numpy as np

from tinygen import Tensor, exp, logsumexp
from tinygen.models import likelihoods
from tinygen.models.networks import encoders
from tinygen.models.vae.base import Draws, LatentVariableModel
from tinygen.models.vae.normal import gaussian_kl, log_normal, log_prior
from tinygen.nn import functional as F


class MixtureVAE(LatentVariableModel):
    """A VAE with a mixture of Gaussians as posterior; with one component it is the plain VAE.

    The other arguments are those of all VAEs, see `LatentVariableModel`.

    Args:
        components: how many Gaussians the mixture has.

    Raises ValueError for fewer than one component, too.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, network: encoders.Kind = "mlp", latent: int = 20,
        hidden: int | None = None, likelihood: likelihoods.Kind = "logistic", sigma: float | None = None,
        components: int = 4, beta: float = 1.0, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        if components < 1:
            raise ValueError(f"components must be at least 1, got {components}")
        self.components = components
        super().__init__(image_shape, levels, network=network, latent=latent, hidden=hidden, likelihood=likelihood,
                         sigma=sigma, beta=beta, rng=rng)  # fmt: skip

    def sizes(self, latent: int) -> tuple[int, int]:
        return latent, self.components * (2 * latent + 1)

    def posterior(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """The components' means and log variances, both (components, N, latent)."""
        both = h[:, : -self.components].reshape(len(h), self.components, 2 * self.latent).transpose(0, 1)
        return both[..., : self.latent], both[..., self.latent :]

    def log_pi(self, h: Tensor) -> Tensor:
        """The logarithms of the components' weights, (components, N)."""
        return F.log_softmax(h[:, -self.components :], 1).transpose(0, 1)

    def log_q(self, h: Tensor, z: Tensor) -> Tensor:
        """log q(z | x) of codes (S, components, N, latent): (S, components, N)."""
        every = z.reshape(*z.shape[:2], 1, *z.shape[2:])
        return logsumexp(self.log_pi(h) + log_normal(every, *self.posterior(h)), 2)

    def reparameterized(self, h: Tensor, samples: int, rng: np.random.Generator) -> Tensor:
        """So many draws of z from each component: (samples, components, N, latent). Slides 86 to 88."""
        mean, log_var = self.posterior(h)
        return mean + exp(log_var / 2) * self.normal(rng, samples, *mean.shape)

    def divergence(self, h: Tensor, z: Tensor) -> Tensor:
        """KL(q, p), (N,), by draws z of `reparameterized`: the formula above."""
        log_ratio = (log_normal(z, *self.posterior(h)) - self.log_q(h, z)).mean(0)  # E log q_k / q
        return (exp(self.log_pi(h)) * (gaussian_kl(*self.posterior(h)).sum(-1) - log_ratio)).sum(0)

    def negative_elbo(self, x: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        h = self.encoded(x)
        z = self.reparameterized(h, 1, rng)
        log_p = self.log_likelihood(x, z[0])  # (components, N)
        return -(exp(self.log_pi(h)) * log_p).sum(0), self.divergence(h, z)

    def draw(self, x: np.ndarray, samples: int, rng: np.random.Generator) -> Draws:
        h = self.encoded(x)
        z = self.reparameterized(h, samples, rng)
        log_p, kl = self.log_likelihood(x, z), self.divergence(h, z)
        log_share = (self.log_pi(h) - math.log(samples)).expand(*log_p.shape)
        log_ratio = self.log_q(h, z) - log_prior(z)
        log_p, log_ratio, log_share = (v.reshape(-1, len(x)) for v in (log_p, log_ratio, log_share))
        return Draws(log_p, log_ratio, log_share, kl)

    def kl(self, h: Tensor) -> Tensor:
        """The weighted mean of the components' KL divergences, of each variable (N, latent)."""
        return (exp(self.log_pi(h)).reshape(self.components, len(h), 1) * gaussian_kl(*self.posterior(h))).sum(0)

    def middle(self, h: Tensor) -> Tensor:
        return (exp(self.log_pi(h)).reshape(self.components, len(h), 1) * self.posterior(h)[0]).sum(0)
