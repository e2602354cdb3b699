"""The base of self-supervision: an encoder that learns from a pretext task, which labels itself (lecture slide 8).

The task is of no use by itself: what the encoder has learned for it serves others (slides 16, 47 and 48). The encoder
is the autoencoder's, so that what they learned can be compared.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from tinygen import Tensor
from tinygen.models.model import Model
from tinygen.models.networks import encoders
from tinygen.models.selfsupervised.family import SelfSupervisedFamily


class SelfSupervised(Model):
    """An encoder, and a pretext task that each model defines by its `loss`.

    Args:
        image_shape: (C, H, W).
        levels: values run from 0 to levels - 1.
        latent: how many features an image has.
        hidden: channels of the encoder's first convolution.
        rng: draws the initial weights.
    """

    family = SelfSupervisedFamily()
    lr: ClassVar[float] = 2e-3
    batch_size: ClassVar[int] = 128

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, latent: int, hidden: int, rng: np.random.Generator
    ) -> None:
        super().__init__(image_shape, levels)
        if latent < 1:
            raise ValueError(f"latent must be at least 1, got {latent}")
        self.latent, self.hidden = latent, hidden
        self.encoder = encoders.encoder("conv", image_shape, latent, hidden, rng)

    def untrained(self, rng: np.random.Generator) -> SelfSupervised:
        """The same with other weights, which have learned nothing."""
        cls: Any = type(self)
        return cls(self.image_shape, self.levels, latent=self.latent, hidden=self.hidden, rng=rng)

    def chance(self, n: int) -> float:
        """The loss of one that has learned nothing, of batches of n images, in nats an image."""
        raise NotImplementedError(f"{type(self).__name__} doesn't define chance()")

    def features(self, x: Tensor) -> Tensor:
        """The encoder's output for scaled images (N, C, H, W), (N, latent)."""
        return self.encoder(x)

    def encode(self, images: np.ndarray) -> np.ndarray:
        """The features of each image (N, C, H, W) uint8, (N, latent)."""
        return encoders.in_batches(lambda x: self.features(self.network_input(x)), images)
