"""Rotation: by how much is an image turned? Who can tell knows what things look like upright (lecture slide 8).

    -1/K sum over y of log p(y | g(x, y)),    g(x, y): x turned by y quarter turns, K = 4                equation 3

Source: Gidaris, Singh & Komodakis, Unsupervised representation learning by predicting image rotations (2018).
"""

from __future__ import annotations

import math

import numpy as np

from tinygen import Tensor, nn
from tinygen.models.family import Batch
from tinygen.models.selfsupervised.base import SelfSupervised
from tinygen.nn import functional as F


class Rotation(SelfSupervised):
    """Features from which it can be told how an image is turned: by 0, 90, 180 or 270 degrees.

    Images that aren't square are turned by 0 and by 180 degrees only.

    Args:
        image_shape: (C, H, W). levels: see `Model`.
        latent: how many features an image has.
        hidden: channels of the encoder's first convolution.
        rng: draws the initial weights.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, latent: int = 64, hidden: int = 16,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        super().__init__(image_shape, levels, latent, hidden, rng)
        self.turns = (0, 1, 2, 3) if image_shape[1] == image_shape[2] else (0, 2)
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(latent, len(self.turns), rng=rng))

    def chance(self, n: int) -> float:
        return math.log(len(self.turns))

    def loss(self, batch: Batch, rng: np.random.Generator) -> dict[str, Tensor]:
        """{"turn": the cross-entropy of how far each image, turned in all ways, is turned}."""
        images = self.check_images(batch.images)
        turned = np.concatenate([np.rot90(images, k, axes=(2, 3)) for k in self.turns])
        asked = np.repeat(np.arange(len(self.turns)), len(images))
        return {"turn": F.cross_entropy(self.head(self.encoder(self.scale(turned))), asked)}
