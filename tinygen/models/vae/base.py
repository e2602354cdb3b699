"""The base of VAEs: codes z with a simple prior p(z), and p(x | z), a likelihood of what a decoder gives (slide 57).

They differ in q(z | x), what an encoder says of an image's code, and in the bound of log p(x) that they are trained by.
"""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import numpy as np

from tinygen import Tensor, exp, logsumexp, parallel
from tinygen.models import likelihoods
from tinygen.models.family import Batch
from tinygen.models.model import Evidence, Model
from tinygen.models.networks import encoders
from tinygen.models.vae.family import VAEFamily


class Draws(NamedTuple):
    """S draws of z from q(z | x) for each of N images, in nats.

    log_p: log p(x | z), (S, N). log_ratio: log q(z | x) - log p(z), (S, N). log_share: how much each draw counts, as a
    logarithm; over S the shares sum to 1. kl: KL(q, p), (N,), by the same draws as far as it has no closed form.
    """

    log_p: Tensor
    log_ratio: Tensor
    log_share: Tensor
    kl: Tensor

    def reconstruction(self) -> Tensor:
        """-E log p(x | z), (N,)."""
        return -(exp(self.log_share) * self.log_p).sum(0)

    def bound(self) -> Tensor:
        """The importance-weighted bound of log p(x), (N,): log of the mean of w = p(x | z) p(z) / q(z | x).

        Source: Burda, Grosse & Salakhutdinov, Importance weighted autoencoders (2016), equation 8.
        """
        return logsumexp(self.log_share + self.log_p - self.log_ratio, 0)


class LatentVariableModel(Model):
    """Images from codes. Those that derive from it define `sizes`, `negative_elbo`, `draw`, `kl` and `middle`.

    Args:
        image_shape: (C, H, W).
        levels: values run from 0 to levels - 1.
        network: of encoder and decoder: "mlp" with one hidden layer, or "conv" with four layers.
        latent: the number of latent variables.
        hidden: units of the hidden layer (None: 400), or channels of the first convolution (None: 32).
        likelihood: p(x | z) of a value: "logistic" (discretized, any levels), "bernoulli" (2 levels) or "gaussian".
        sigma: the Gaussian likelihood's standard deviation, where -1 .. 1 are all levels (None: learned).
        beta: how much the KL divergence counts in training; above 1 it disentangles.
        rng: draws the initial weights.

    Raises ValueError for options that don't fit together, or a likelihood that doesn't fit the levels.
    """

    family = VAEFamily()
    evidence: ClassVar[Evidence] = "bound"
    clip: ClassVar[float | None] = 10_000.0  # ten times the usual: for an odd image whose log variance is large

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, network: encoders.Kind = "mlp", latent: int = 20,
        hidden: int | None = None, likelihood: likelihoods.Kind = "logistic", sigma: float | None = None,
        beta: float = 1.0, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        super().__init__(image_shape, levels)
        if latent < 1:
            raise ValueError(f"latent must be at least 1, got {latent}")
        if not beta >= 0:
            raise ValueError(f"beta must not be negative, got {beta}")
        self.latent, self.beta = latent, beta
        self.size, outputs = self.sizes(latent)
        self.likelihood = likelihoods.likelihood(likelihood, levels, sigma)
        self.encoder = encoders.encoder(network, image_shape, outputs, hidden, rng)
        channels, height, width = image_shape
        shape = channels * self.likelihood.outputs, height, width
        self.decoder = encoders.decoder(network, shape, self.size, hidden, rng)

    # -- q(z | x) and p(z): what each defines. x: images (N, C, H, W). h: what the encoder gives of them, (N, outputs)

    def sizes(self, latent: int) -> tuple[int, int]:
        """How many numbers a code has, as it is decoded, and how many the encoder gives of an image."""
        raise NotImplementedError

    def negative_elbo(self, x: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """-E log p(x | z), by one draw of z, and KL(q(z | x), p(z)) of each image, in nats, both (N,). Sum: -ELBO."""
        raise NotImplementedError

    def draw(self, x: np.ndarray, samples: int, rng: np.random.Generator) -> Draws:
        """So many draws of z for each image, to weight."""
        raise NotImplementedError

    def kl(self, h: Tensor) -> Tensor:
        """KL(q(z | x), p(z)) of each latent variable, in nats, (N, latent)."""
        raise NotImplementedError

    def middle(self, h: Tensor) -> Tensor:
        """The middle of q(z | x), (N, size)."""
        raise NotImplementedError

    def codes(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n codes drawn from p(z), (n, size): of N(0, I) unless it is overridden."""
        return rng.standard_normal((n, self.size))

    def given(self, z: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        """Codes (N, size) with the classes `labels`, for models that have some. ValueError for labels of others."""
        self.condition.check(labels, len(z), type(self).__name__)
        return z

    # -- p(x | z), and what follows

    def loss(self, batch: Batch, rng: np.random.Generator) -> dict[str, Tensor]:
        """-ELBO's parts; with another beta than 1 "penalty", too: (beta - 1) KL.

        Source: Higgins et al., beta-VAE (2017), equation 4.
        """
        reconstruction, kl = self.negative_elbo(batch.images, rng)
        parts = {"reconstruction": reconstruction.mean(), "kl": kl.mean()}
        return parts if self.beta == 1 else parts | {"penalty": (kl * (self.beta - 1)).mean()}

    def encoded(self, x: np.ndarray) -> Tensor:
        """The output of the encoder for images, from which q(z | x) is read: h (N, outputs)."""
        return self.encoder(self.network_input(x))

    def normal(self, rng: np.random.Generator, *shape: int) -> Tensor:
        """Standard normal noise (..., N, latent)."""
        return self.tensor(parallel.along(-2, rng).standard_normal(shape))

    def equal_shares(self, samples: int, n: int) -> Tensor:
        """The logarithm of one of so many equal shares, (samples, n)."""
        return self.tensor(np.full((samples, n), -math.log(samples)))

    def log_likelihood(self, x: np.ndarray, z: Tensor) -> Tensor:
        """log p(x | z) of codes (..., N, size), in nats, summed over an image's values: (..., N)."""
        output = self.decoder(z.reshape(-1, self.size))
        return -self.likelihood.nats(output.reshape(*z.shape[:-1], *output.shape[1:]), x).sum((-3, -2, -1))

    def features(self, x: Tensor) -> Tensor:
        """The middle of q(z | x) of scaled images (N, C, H, W), (N, size)."""
        return self.middle(self.encoder(x))

    def encode(self, images: np.ndarray) -> np.ndarray:
        """The middle of q(z | x) of each image, (N, size)."""
        return encoders.in_batches(lambda x: self.middle(self.encoded(x)), images)

    def decode(self, z: np.ndarray) -> np.ndarray:
        """The means of p(x | z) of codes (N, size): (N, C, H, W) floats, 0 .. levels - 1."""
        return self.likelihood.mean(self._outputs(z))

    def _outputs(self, z: np.ndarray) -> np.ndarray:
        return encoders.in_batches(lambda z: self.decoder(self.tensor(z)), z)

    def sample(
        self, n: int, rng: np.random.Generator, temperature: float = 1.0, labels: np.ndarray | None = None
    ) -> np.ndarray:
        """n images drawn from the model, (n, C, H, W) uint8: z from the prior, then x from p(x | z) (slide 92).

        temperature: of p(x | z); at 0 its middle. labels: None, there are no classes.
        """
        z = self.given(self.codes(n, rng), labels)
        if not temperature >= 0:
            raise ValueError(f"temperature must not be negative, got {temperature}")
        return self.likelihood.sample(self._outputs(z), rng, temperature)
