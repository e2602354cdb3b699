"""DiscoGAN: CycleGAN's two ways with another distance, no identity loss, and features that are matched (slide 134).

    L = L_GAN(G, D_Y) + L_GAN(F, D_X) + |F(G(x)) - x|^2 + |G(F(y)) - y|^2 + the features' distance

Source: Kim, Cha, Kim, Lee & Kim, Learning to Discover Cross-Domain Relations with Generative Adversarial Networks
(2017). Feature matching and the weights are those of the authors' program (SKTBrain/DiscoGAN, image_translation.py),
here over the adversarial one: (.1 adversarial + .9 features) / 2 + cycle / 2.
"""

from __future__ import annotations

import numpy as np

from tinygen import Tensor
from tinygen.data import tasks
from tinygen.models.translation.cyclegan import TwoWays
from tinygen.nn import functional as F


class DiscoGAN(TwoWays):
    """DiscoGAN: both ways between two domains, by images that aren't paired, and by the discriminators' features.

    Args:
        image_shape: height and width must be even. levels: see `Model`.
        task: what it translates: edges to images, gray images to colored ones, the upper half to the whole.
        adversarial: the weight of the loss by which D is to take G's images for real.
        cycle: the weight of the squared distance of an image from what comes back of it.
        features: the weight of the distance between D's hidden layers' means over real and over made images.
        width: channels of the generators' first scale and of the discriminators' first layer.
        rng: draws the initial weights.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, task: tasks.Name = "edges", adversarial: float = 1.0,
        cycle: float = 10.0, features: float = 9.0, width: int = 32, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        weights = {"adversarial": adversarial, "cycle": cycle, "features": features}
        super().__init__(image_shape, levels, task=task, weights=weights, width=width, rng=rng)

    def apart(self, x: Tensor, other: Tensor) -> Tensor:
        """The squared distance, the mean over all values."""
        return F.mse_loss(x, other)
