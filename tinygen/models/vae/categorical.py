"""VAE of categorical variables: z are their one-hot vectors side by side, the prior is uniform (slide 98).

In training a draw is relaxed to a point inside the simplex, through which gradients flow:

    softmax((log p + g) / temperature),  g Gumbel noise      (Jang, Gu & Poole, equation 2)

In evaluation it is the category itself, argmax(log p + g), equation 1: so bounds are bounds.

Source: Jang, Gu & Poole, Categorical reparameterization with Gumbel-softmax (2017); Maddison, Mnih & Teh, The concrete
distribution (2017), whose temperature of 2/3 this is.
"""

from __future__ import annotations

import math

import numpy as np

from tinygen import Tensor, exp, parallel
from tinygen.models import likelihoods
from tinygen.models.networks import encoders
from tinygen.models.vae.base import Draws, LatentVariableModel
from tinygen.nn import functional as F

TEMPERATURE = 2 / 3


class CategoricalVAE(LatentVariableModel):
    """A VAE with categorical latent variables in place of Gaussian ones.

    The other arguments are those of all VAEs, see `LatentVariableModel`.

    Args:
        categories: how many each latent variable can take.

    Raises ValueError for fewer than two categories, too.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, network: encoders.Kind = "mlp", latent: int = 20,
        hidden: int | None = None, likelihood: likelihoods.Kind = "logistic", sigma: float | None = None,
        categories: int = 10, beta: float = 1.0, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        if categories < 2:
            raise ValueError(f"categories must be at least 2, got {categories}")
        self.categories = categories
        super().__init__(image_shape, levels, network=network, latent=latent, hidden=hidden, likelihood=likelihood,
                         sigma=sigma, beta=beta, rng=rng)  # fmt: skip

    def sizes(self, latent: int) -> tuple[int, int]:
        return latent * self.categories, latent * self.categories

    def posterior(self, h: Tensor) -> Tensor:
        """The log-probabilities of all categories under q(z | x), (N, latent, categories)."""
        return F.log_softmax(h.reshape(len(h), self.latent, self.categories), 2)

    def negative_elbo(self, x: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        h = self.encoded(x)
        log_p = self.posterior(h)  # q(z | x)
        z = self.relaxed(log_p, self.gumbel(rng, *log_p.shape))
        return -self.log_likelihood(x, z), self.kl(h).sum(1)

    def draw(self, x: np.ndarray, samples: int, rng: np.random.Generator) -> Draws:
        """In evaluation mode: the ratio is that of categories, not of relaxed draws, whose density is another."""
        h = self.encoded(x)
        log_p = self.posterior(h)
        z = self.relaxed(log_p, self.gumbel(rng, samples, *log_p.shape))  # (samples, N, size)
        log_ratio = (z * log_p.reshape(len(x), self.size)).sum(-1) + self.latent * math.log(self.categories)
        return Draws(self.log_likelihood(x, z), log_ratio, self.equal_shares(samples, len(x)), self.kl(h).sum(1))

    def gumbel(self, rng: np.random.Generator, *shape: int) -> Tensor:
        """Standard Gumbel noise (..., N, latent, categories)."""
        return self.tensor(parallel.along(-3, rng).gumbel(size=shape))

    def relaxed(self, log_p: Tensor, noise: Tensor) -> Tensor:
        """Draws (..., N, size) by Gumbel noise (..., N, latent, categories): relaxed in training, else one-hot."""
        scores = log_p + noise
        if self.training:
            z = F.softmax(scores * (1 / TEMPERATURE), -1)
        else:
            z = self.tensor(scores.numpy().argmax(axis=-1)[..., None] == np.arange(self.categories))
        return z.reshape(*scores.shape[:-2], self.size)

    def codes(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n codes of categories drawn with equal probability, (n, size)."""
        chosen = rng.integers(0, self.categories, (n, self.latent, 1))
        return (chosen == np.arange(self.categories)).reshape(n, self.size).astype(np.float64)

    def kl(self, h: Tensor) -> Tensor:
        log_p = self.posterior(h)
        return (exp(log_p) * (log_p + math.log(self.categories))).sum(2)

    def middle(self, h: Tensor) -> Tensor:
        return exp(self.posterior(h)).reshape(len(h), self.size)
