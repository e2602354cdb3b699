"""VAE: codes with a simple prior, images with a complex p(x | z), and a bound to train both (slides 50 to 98).

    log p(x) = log of the integral of p(z) p(x | z) over z                   intractable (slide 60)
            >= E log p(x | z) - KL(q(z | x), p(z)),  z from q(z | x)         the bound, ELBO (slides 69 to 80)

Everything is in nats an image, summed over pixels and latent variables, never rescaled.

Source: Kingma & Welling, Auto-encoding variational Bayes (2014). beta: Higgins et al., beta-VAE (2017).
"""

from __future__ import annotations

import numpy as np

from tinygen import Tensor, exp
from tinygen.models.vae.base import Draws, LatentVariableModel
from tinygen.models.vae.normal import gaussian_kl, log_normal, log_prior


class VAE(LatentVariableModel):
    """A variational autoencoder with a Gaussian posterior; `sample` draws a code from N(0, I) and decodes it.

    Its arguments are those of all VAEs, see `LatentVariableModel`.
    """

    def sizes(self, latent: int) -> tuple[int, int]:
        return latent, 2 * latent  # a mean and a log variance of each

    def posterior(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the log variance of each latent variable under q(z | x), both (N, latent)."""
        return h[:, : self.latent], h[:, self.latent :]

    def negative_elbo(self, x: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        mean, log_var = self.posterior(self.encoded(x))  # q(z | x), slide 68
        z = mean + exp(log_var / 2) * self.normal(rng, *mean.shape)  # lets the gradient through, slides 86 to 88
        return -self.log_likelihood(x, z), gaussian_kl(mean, log_var).sum(1)  # equation 10, slide 80

    def draw(self, x: np.ndarray, samples: int, rng: np.random.Generator) -> Draws:
        h = self.encoded(x)
        mean, log_var = self.posterior(h)
        z = mean + exp(log_var / 2) * self.normal(rng, samples, *mean.shape)  # (samples, N, latent)
        log_p, kl = self.log_likelihood(x, z), self.kl(h).sum(1)
        log_ratio = log_normal(z, *self.posterior(h)) - log_prior(z)
        return Draws(log_p, log_ratio, self.equal_shares(samples, len(x)), kl)

    def kl(self, h: Tensor) -> Tensor:
        return gaussian_kl(*self.posterior(h))

    def middle(self, h: Tensor) -> Tensor:
        return self.posterior(h)[0]
