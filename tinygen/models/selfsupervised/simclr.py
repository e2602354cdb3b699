"""SimCLR: two views of an image are to be alike, and unlike those of all other images (lecture slide 8).

    l(i, j) = -log( exp(sim(z_i, z_j) / tau) / sum over k != i of exp(sim(z_i, z_k) / tau) )          equation 1

    x -> two views -> h = f(view), the features -> z = g(h), what is compared;  sim(u, v) = u . v / (|u| |v|)

The loss, NT-Xent, is a cross-entropy: of the 2N - 1 other views of a batch, which one is of the same image? Where all
z are the same it is log(2N - 1).

Source: Chen, Kornblith, Norouzi & Hinton, A simple framework for contrastive learning of visual representations (2020).
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from tinygen import Tensor, nn, where
from tinygen.data.augment import view
from tinygen.models.family import Batch
from tinygen.models.selfsupervised.base import SelfSupervised
from tinygen.nn import functional as F


def nt_xent(z: Tensor, temperature: float) -> Tensor:
    """The mean of l(i, j) over all 2N views, 0-d, in nats. z: (2N, D); rows k and N + k are of one image."""
    views, unit = len(z), F.normalize(z, dim=1)
    similarity = unit @ unit.permute(1, 0) / temperature
    others = where(np.eye(views, dtype=bool), similarity.new_tensor(-math.inf), similarity)  # k != i
    return F.cross_entropy(others, (np.arange(views) + views // 2) % views)


class SimCLR(SelfSupervised):
    """SimCLR: features that tell images apart, whatever part of them is seen.

    Args:
        image_shape: (C, H, W). levels: see `Model`.
        latent: how many features an image has.
        hidden: channels of the encoder's first convolution.
        temperature: tau, by which similarities are divided: the smaller, the more the nearest others count.
        rng: draws the initial weights.

    Raises ValueError for a temperature of 0 or less.
    """

    unshared: ClassVar[str] = "its loss compares all images of a minibatch with each other"

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, latent: int = 64, hidden: int = 16,
        temperature: float = 0.2, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        super().__init__(image_shape, levels, latent, hidden, rng)
        self.temperature = temperature
        self.projection = nn.Sequential(  # g
            nn.ReLU(), nn.Linear(latent, latent, rng=rng), nn.ReLU(), nn.Linear(latent, latent, rng=rng)
        )

    def chance(self, n: int) -> float:
        return math.log(2 * n - 1)

    def loss(self, batch: Batch, rng: np.random.Generator) -> dict[str, Tensor]:
        """{"contrast": NT-Xent of two views of each image}."""
        images = self.check_images(batch.images)
        views = np.concatenate([view(images, rng), view(images, rng)])
        return {"contrast": nt_xent(self.projection(self.encoder(self.scale(views))), self.temperature)}
