"""CycleGAN: two domains without pairs, translated there and back (lecture slide 135).

    L(G, F, D_X, D_Y) = L_GAN(G, D_Y) + L_GAN(F, D_X) + lambda (E |F(G(x)) - x| + E |G(F(y)) - y|)

The GANs' losses are LSGAN's; beside them there is a loss by which an image of the other domain stays as it is, with
half of lambda's weight. The discriminators are shown a pool of 50 images, half of them older ones.

Source: Zhu, Park, Isola & Efros, Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks
(2017), equations 1 to 3, sections 4 and 5.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from tinygen.data import tasks
from tinygen.models.gan.objectives import LeastSquares, Objective
from tinygen.models.translation.base import Direction, Translation
from tinygen.models.translation.networks import Generator, ImagePool, PatchDiscriminator


class TwoWays(Translation):
    """What CycleGAN and DiscoGAN share: a generator and a discriminator of each domain."""

    pooled: ClassVar[bool] = False

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, task: tasks.Name, weights: Mapping[str, float],
        width: int, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        super().__init__(image_shape, levels, task=task, weights=weights)
        (one, *sides), (other, *_) = self.shapes
        self.there = self._direction(one, other, (sides[0], sides[1]), width, rng)
        self.back = self._direction(other, one, (sides[0], sides[1]), width, rng)

    def _direction(
        self, one: int, other: int, sides: tuple[int, int], width: int, rng: np.random.Generator
    ) -> Direction:
        pool = ImagePool((other, *sides)) if self.pooled else None
        generator = Generator(one, other, sides, width, rng=rng)
        return Direction(generator, PatchDiscriminator(other, sides, width, rng=rng), pool=pool)

    def directions(self) -> Sequence[Direction]:
        return self.there, self.back


class CycleGAN(TwoWays):
    """CycleGAN: both ways between two domains, by images that aren't paired.

    Args:
        image_shape: height and width must be even. levels: see `Model`.
        task: what it translates: edges to images, gray images to colored ones, the upper half to the whole.
        adversarial: the weight of the loss by which D is to take G's images for real; the paper's loss is twice
            `LeastSquares`'s.
        cycle: the weight of the distance of an image from what comes back of it, lambda.
        identity: the weight of the distance of the other domain's images from what G makes of them; not given: 5, or 0
            where the domains have different numbers of channels, since there is no G(y) then.
        width: channels of the generators' first scale and of the discriminators' first layer.
        rng: draws the initial weights.
    """

    objective: ClassVar[Objective] = LeastSquares()
    pooled: ClassVar[bool] = True

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, task: tasks.Name = "edges", adversarial: float = 2.0,
        cycle: float = 10.0, identity: float | None = None, width: int = 32, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        if identity is None:
            one, other = tasks.shapes(task, image_shape)
            identity = 5.0 if one == other else 0.0
        weights = {"adversarial": adversarial, "cycle": cycle, "identity": identity}
        super().__init__(image_shape, levels, task=task, weights=weights, width=width, rng=rng)
