"""In-painting: half of an image is left out, and has to be told from the other half (lecture slide 8).

    L_rec(x) = | M * (x - F((1 - M) * x)) |^2,    M: 1 in the hole, 0 elsewhere                          equation 1

F is an encoder and a decoder, a context encoder. The loss sees the hole alone, F all but the hole. The hole is the
lower, upper, right or left half, so that the encoder knows all parts of images; in testing it is the lower one.

Source: Pathak, Krahenbuhl, Donahue, Darrell & Efros, Context encoders: feature learning by inpainting (2016). There a
discriminator adds to the loss, as it does in `pix2pix --task half`.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tinygen import Tensor
from tinygen.data.tasks import Name, hole
from tinygen.models.family import Batch
from tinygen.models.networks import encoders
from tinygen.models.selfsupervised.base import SelfSupervised
from tinygen.models.selfsupervised.family import InpaintingFamily


class ContextEncoder(SelfSupervised):
    """A context encoder: an autoencoder of which the code knows half of the image, and the output is the other half.

    Args:
        image_shape: (C, H, W). levels: see `Model`.
        latent: how many features an image has.
        hidden: channels of the encoder's first convolution.
        rng: draws the initial weights.
    """

    family = InpaintingFamily()
    task: ClassVar[Name] = "half"

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, latent: int = 64, hidden: int = 16,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        super().__init__(image_shape, levels, latent, hidden, rng)
        self.decoder = encoders.decoder("conv", image_shape, latent, hidden, rng)
        lower, right = hole(*image_shape[1:]), hole(image_shape[2], image_shape[1]).T
        self.holes = np.stack([lower, lower[::-1], right, right[:, ::-1]])[:, None]

    def restore(self, images: np.ndarray, holes: np.ndarray) -> Tensor:
        """F of images (N, C, H, W) without what is in the holes, (..., 1, H, W) bool: scaled images, whole ones."""
        seen = np.where(holes, np.uint8(self.levels // 2), images)
        return self.decoder(self.encoder(self.scale(seen)))

    def loss(self, batch: Batch, rng: np.random.Generator) -> dict[str, Tensor]:
        """{"squared_error": the mean over all values in the holes, where 0 .. 1 are all levels}."""
        images = self.check_images(batch.images)
        holes = self.holes[rng.integers(0, len(self.holes), len(images))]
        squares = (self.restore(images, holes) - self.scale(images)) ** 2 * self.tensor(holes)
        return {"squared_error": squares.sum() * (0.25 / (holes.sum() * images.shape[1]))}  # -1 .. 1 are all levels

    def translate(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The images (N, C, H, W) with their lower halves as told from the upper ones, uint8. rng: draws nothing."""
        images, lower = self.check_images(images), self.holes[0]
        made = encoders.in_batches(lambda x: self.restore(x, lower), images)
        return np.where(lower, self.levels.round(made), images).astype(np.uint8)
