"""VAE: codes with a simple prior, images with a complex p(x given z), and a bound to train both (slides 50 to 98).

    log p(x) = log of the integral of p(z) p(x given z) over z                   intractable (slide 60)
            >= E log p(x given z) - KL(q(z given x), p(z)),  z from q            the bound, ELBO (slides 69 to 80)

The encoder gives q (posteriors.py), the decoder p(x given z) (likelihoods.py); z = mean + noise * deviation lets the
gradient through (slides 86 to 88). Everything is counted in nats an image, summed over pixels and latents, never
rescaled.

Source: Kingma & Welling, Auto-encoding variational Bayes (2014). Importance weighting: Burda, Grosse & Salakhutdinov,
Importance weighted autoencoders (2016). beta: Higgins et al., beta-VAE (2017).
"""

from __future__ import annotations

import math

import numpy as np

from tinygen import Tensor, exp, logsumexp, no_grad
from tinygen.console import progress
from tinygen.models import likelihoods
from tinygen.models.family import Batch
from tinygen.models.model import Model
from tinygen.models.networks import encoders
from tinygen.models.vae import posteriors
from tinygen.models.vae.family import VAEFamily

ROWS = 2048  # of codes that are decoded at once in evaluation


class VAE(Model):
    """A variational autoencoder: `sample` draws codes from the prior and decodes them.

    Args:
        image_shape: (C, H, W).
        levels: values run from 0 to levels - 1.
        network: of encoder and decoder, see encoders.py.
        latent: the number of latent variables.
        hidden: units of the hidden layer (None: 400), or channels of the first convolution (None: 32).
        likelihood: of a value given z: "logistic" (discretized, any levels), "bernoulli" (2 levels), "gaussian".
        sigma: the Gaussian likelihood's standard deviation, where -1 .. 1 are all levels; None: learned.
        posterior: "gaussian", a "mixture" of them, or "categorical" variables.
        components: of the mixture (None: 4), or categories of each variable (None: 10).
        beta: what the KL divergence counts in training; above 1 it disentangles.
        importance: K, how many draws the bound that is trained is weighted over: 1 is the ELBO, more is IWAE.
        rng: draws the initial weights.

    Raises ValueError for options that don't fit together, or a likelihood that doesn't fit the levels.
    """

    family = VAEFamily()
    evaluated = 1000, 500  # test images and draws of z for the importance-weighted bound

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, network: encoders.Kind = "mlp", latent: int = 20,
        hidden: int | None = None, likelihood: likelihoods.Kind = "logistic", sigma: float | None = None,
        posterior: posteriors.Kind = "gaussian", components: int | None = None, beta: float = 1.0, importance: int = 1,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        super().__init__(image_shape, levels)
        if not beta >= 0:
            raise ValueError(f"beta must not be negative, got {beta}")
        if importance < 1:
            raise ValueError(f"importance must be at least 1, got {importance}")
        if importance > 1 and (beta != 1 or posterior == "categorical"):
            raise ValueError("importance above 1 needs beta 1 and a posterior that isn't categorical")
        self.beta, self.importance = beta, importance
        self.posterior = posteriors.posterior(posterior, latent, components)
        self.likelihood = likelihoods.likelihood(likelihood, levels, sigma)
        self.encoder = encoders.encoder(network, image_shape, self.posterior.outputs, hidden, rng)
        channels, height, width = image_shape
        outputs = (channels * self.likelihood.outputs, height, width)
        self.decoder = encoders.decoder(network, outputs, self.posterior.size, hidden, rng)

    # -- the bound

    def decoder_output(self, z: Tensor) -> Tensor:
        """What the likelihood takes, (S, N, outputs * C, H, W), of codes (S, N, size)."""
        output = self.decoder(z.reshape(len(z) * z.shape[1], z.shape[2]))
        return output.reshape(*z.shape[:2], *output.shape[1:])

    def nats(self, z: Tensor, images: np.ndarray) -> Tensor:
        """-log p(x given z) of codes (S, N, size) and images (N, C, H, W): (S, N)."""
        return self.likelihood.nats(self.decoder_output(z), images).sum((-3, -2, -1))

    def parts(self, images: np.ndarray, noise: np.ndarray) -> dict[str, Tensor]:
        """The parts of the loss of each image in nats, (N,). noise: from `posterior.noise`.

        "reconstruction" and "kl" make up -ELBO. With importance weighting "tightening", negative, leads on to the
        tighter bound; with another beta than 1 "penalty" is (beta - 1) KL.
        """
        h = self.encoder(self.network_input(images))
        z = self.posterior.draw(h, noise)
        nats, log_weights = self.nats(z, images), self.posterior.log_weights(h, len(z))
        reconstruction, kl = (exp(log_weights) * nats).sum(0), self.posterior.kl(h, z)
        parts = {"reconstruction": reconstruction, "kl": kl}
        if self.importance > 1:
            bound = logsumexp(log_weights - nats - self.posterior.log_ratio(h, z), 0)
            parts["tightening"] = -bound - reconstruction - kl
        if self.beta != 1:
            parts["penalty"] = kl * (self.beta - 1)
        return parts

    def loss(self, batch: Batch, rng: np.random.Generator) -> dict[str, Tensor]:
        noise = self.posterior.noise(rng, self.importance, len(batch.images))
        return {name: part.mean() for name, part in self.parts(batch.images, noise).items()}

    # -- how good it is

    def elbo(self, images: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """-E log p(x given z), by one draw of z, and KL(q, p) of each image, in nats, both (N,). Sum: -ELBO."""
        parts = []
        with no_grad():
            for i in range(0, len(images), ROWS):
                batch = images[i : i + ROWS]
                h = self.encoder(self.network_input(batch))
                z = self.posterior.draw(h, self.posterior.noise(rng, 1, len(batch)))
                weights = exp(self.posterior.log_weights(h, len(z)))
                parts.append([(weights * self.nats(z, batch)).sum(0).numpy(), self.posterior.kl(h, z).numpy()])
        reconstruction, kl = np.concatenate(parts, axis=1).astype(np.float64)
        return reconstruction, kl

    def bound(self, images: np.ndarray, samples: int, rng: np.random.Generator) -> np.ndarray:
        """The importance-weighted bound of log p(x), in nats, (N,): log of the mean of p(x, z) / q(z given x).

        It rises with the number of samples, K, towards log p(x); for K = 1 its mean is the ELBO. Any K: it goes on in
        steps that bound the memory.
        """
        if samples < 1:
            raise ValueError(f"samples must be at least 1, got {samples}")
        bounds = np.full(len(images), -np.inf)
        together = max(1, ROWS // samples)
        with no_grad():
            for i in range(0, len(images), together):
                batch = slice(i, i + together)
                h = self.encoder(self.network_input(images[batch]))
                for j in range(0, samples, ROWS):
                    progress((i + j / samples * together) / len(images), f"importance-weighted bound, K = {samples:,}")
                    draws = min(ROWS, samples - j)
                    z = self.posterior.draw(h, self.posterior.noise(rng, draws, len(h)))
                    log_weights = self.posterior.log_weights(h, len(z)) + math.log(draws / samples)
                    terms = log_weights - self.nats(z, images[batch]) - self.posterior.log_ratio(h, z)
                    bounds[batch] = np.logaddexp(bounds[batch], logsumexp(terms, 0).numpy())
        return bounds

    def prior_estimate(self, images: np.ndarray, samples: int, rng: np.random.Generator) -> np.ndarray:
        """log of the mean of p(x given z) over z from the prior, in nats, (N,): slide 65, of too high variance."""
        estimates = np.full(len(images), -np.inf)
        step = max(1, ROWS // max(1, len(images)))
        with no_grad():
            for j in range(0, samples, step):
                z = self.tensor(self.posterior.prior(rng, min(step, samples - j))[:, None])  # for every image
                terms = -self.likelihood.nats(self.decoder_output(z), images).sum((-3, -2, -1))
                estimates = np.logaddexp(estimates, logsumexp(terms, 0).numpy() - math.log(samples))
        return estimates

    def activity(self, images: np.ndarray) -> np.ndarray:
        """How much the mean of each latent variable varies over images, (latent,): above 0.01 it is active.

        Burda et al. (2016), section 5.2. For categories: the sum of their probabilities' variances.
        """
        return self.encode(images).var(axis=0).reshape(self.posterior.latent, -1).sum(axis=1)

    def kl_by_variable(self, images: np.ndarray) -> np.ndarray:
        """KL(q, p) of each latent variable, in nats, the mean over images, (latent,)."""
        with no_grad():
            return self.posterior.kl_by_variable(self.encoder(self.network_input(images))).numpy().mean(axis=0)

    # -- codes and images

    def encode(self, images: np.ndarray) -> np.ndarray:
        """The middle of q(z given x) of each image: (N, size)."""
        return encoders.in_batches(lambda x: self.posterior.mean(self.encoder(self.network_input(x))), images)

    def outputs(self, z: np.ndarray) -> np.ndarray:
        """What the likelihood takes, of codes (N, size): (N, outputs * C, H, W)."""
        return encoders.in_batches(lambda z: self.decoder(self.tensor(z)), z)

    def decode(self, z: np.ndarray) -> np.ndarray:
        """The expected images of codes (N, size): (N, C, H, W) in levels, floats."""
        return self.likelihood.mean(self.outputs(z))

    def sample(
        self, n: int, rng: np.random.Generator, temperature: float = 1.0, labels: np.ndarray | None = None
    ) -> np.ndarray:
        """n images drawn from the model, (n, C, H, W) uint8: z from the prior, then x given z (slide 92).

        temperature: of x given z; at 0 the middle of it. labels: None, there are no classes.
        """
        self.condition.check(labels, n, type(self).__name__)
        if not temperature >= 0:
            raise ValueError(f"temperature must not be negative, got {temperature}")
        return self.likelihood.sample(self.outputs(self.posterior.prior(rng, n)), rng, temperature)
