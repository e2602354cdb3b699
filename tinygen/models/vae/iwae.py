"""IWAE: trained by the tighter of two bounds, the log of a mean in place of the mean of a log (slide 98).

    log p(x) >= E log 1/K sum over k of p(x, z_k) / q(z_k | x),  z_1 ... z_K from q(z | x)      (equation 8)

For K = 1 it is the ELBO, and with K it rises toward log p(x).

Source: Burda, Grosse & Salakhutdinov, Importance weighted autoencoders (2016).
"""

from __future__ import annotations

import numpy as np

from tinygen import Tensor
from tinygen.models import likelihoods
from tinygen.models.family import Batch
from tinygen.models.networks import encoders
from tinygen.models.vae.base import Draws
from tinygen.models.vae.mixture import MixtureVAE
from tinygen.models.vae.vae import VAE


def tightened(draws: Draws) -> dict[str, Tensor]:
    """-ELBO's parts, and what leads on from there to the tighter bound: "tightening", negative."""
    reconstruction, kl = draws.reconstruction(), draws.kl
    parts = {"reconstruction": reconstruction, "kl": kl, "tightening": -draws.bound() - reconstruction - kl}
    return {name: part.mean() for name, part in parts.items()}


class IWAE(VAE):
    """A VAE trained by the importance-weighted bound.

    The other arguments are those of all VAEs, see `LatentVariableModel`.

    Args:
        draws: K, how many codes are drawn for each image.

    Raises ValueError for fewer than one draw, too.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, network: encoders.Kind = "mlp", latent: int = 20,
        hidden: int | None = None, likelihood: likelihoods.Kind = "logistic", sigma: float | None = None,
        draws: int = 5, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        super().__init__(image_shape, levels, network=network, latent=latent, hidden=hidden, likelihood=likelihood,
                         sigma=sigma, rng=rng)  # fmt: skip
        self.draws = _checked(draws)

    def loss(self, batch: Batch, rng: np.random.Generator) -> dict[str, Tensor]:
        return tightened(self.draw(batch.images, self.draws, rng))


class MixtureIWAE(MixtureVAE):
    """A VAE with a mixture as posterior, trained by the importance-weighted bound.

    The other arguments are those of all VAEs, see `LatentVariableModel`.

    Args:
        components: how many Gaussians the mixture has.
        draws: K, how many codes are drawn from each component for each image.

    Raises ValueError for fewer than one draw, too.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, network: encoders.Kind = "mlp", latent: int = 20,
        hidden: int | None = None, likelihood: likelihoods.Kind = "logistic", sigma: float | None = None,
        components: int = 4, draws: int = 5, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        super().__init__(image_shape, levels, network=network, latent=latent, hidden=hidden, likelihood=likelihood,
                         sigma=sigma, components=components, rng=rng)  # fmt: skip
        self.draws = _checked(draws)

    def loss(self, batch: Batch, rng: np.random.Generator) -> dict[str, Tensor]:
        return tightened(self.draw(batch.images, self.draws, rng))


def _checked(draws: int) -> int:
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    return draws
