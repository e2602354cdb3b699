"""Colorization: a gray image's colors, told from what it shows (lecture slide 8).

    L = -1/(hw) sum over pixels of log p(color of the pixel | the gray image),    colors of a small palette

A cross-entropy, and no squared error: what may be red or blue would become their gray mean. Source: Zhang, Isola &
Efros, Colorful image colorization (2016), equation 2; there the palette has 313 colors, and rare ones count more.

Gray data are colored by the task `color` of `tinygen.data.tasks`, by probabilities given an image's class. So the least
possible loss is known: what the classes leave open, p(hue | class), and what the gray image leaves open of the class.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from tinygen import Tensor
from tinygen.data.tasks import NONE, PALETTE, color, colors
from tinygen.models.family import Batch
from tinygen.models.networks import encoders
from tinygen.models.selfsupervised.base import SelfSupervised
from tinygen.models.selfsupervised.family import ColorizationFamily
from tinygen.nn import functional as F


class Colorization(SelfSupervised):
    """Colors of gray images. Those of gray data sets are drawn by class, which features of theirs then know of.

    Args:
        image_shape: (C, H, W), of one channel or three. levels: see `Model`.
        latent: how many features an image has.
        hidden: channels of the encoder's first convolution.
        rng: draws the initial weights.

    Raises ValueError for another number of channels.
    """

    unshared: ClassVar[str] = "its loss is a mean over pixels that aren't dark, of which shares have different numbers"
    family = ColorizationFamily()

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, latent: int = 64, hidden: int = 16,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        if image_shape[0] not in (1, 3):
            raise ValueError(f"image_shape must have one channel or three for colorization, got {image_shape}")
        super().__init__(image_shape, levels, latent, hidden, rng)
        sides = image_shape[1], image_shape[2]
        self.encoder = encoders.encoder("conv", (1, *sides), latent, hidden, rng)
        self.decoder = encoders.decoder("conv", (len(PALETTE), *sides), latent, hidden, rng)

    @property
    def told_classes(self) -> bool:
        return self.image_shape[0] == 1  # by which the colors of gray images are drawn

    def chance(self, n: int) -> float:
        return math.log(len(PALETTE))

    def features(self, x: Tensor) -> Tensor:
        return self.encoder(x if x.shape[1] == 1 else x.max(1, keepdim=True)[0])

    def forward(self, gray: np.ndarray) -> Tensor:
        """Logits (N, colors, H, W) of the pixels of gray images (N, 1, H, W)."""
        return self.decoder(self.encoder(self.scale(gray)))

    def loss(self, batch: Batch, rng: np.random.Generator) -> dict[str, Tensor]:
        """{"color": the cross-entropy of the pixels' colors, the mean over those that aren't dark}."""
        gray, colored = color(self.check_images(batch.images), batch.labels, self.levels, rng)
        return {"color": F.cross_entropy(self(gray), colors(gray, colored, self.levels), ignore_index=NONE)}

    def translate(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Gray images (N, 1, H, W) with the likeliest color of each pixel, (N, 3, H, W) uint8. rng: draws nothing."""
        gray = self.check_images(images, (1, self.image_shape[1], self.image_shape[2]))
        likeliest = encoders.in_batches(self, gray).argmax(axis=1)
        return np.round(gray * PALETTE[likeliest].transpose(0, 3, 1, 2)).astype(np.uint8)
