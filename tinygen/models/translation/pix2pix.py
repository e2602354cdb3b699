"""pix2pix: from an image to its target, by a conditional GAN with an L1 loss beside it (lecture slide 136).

    G* = arg min over G, max over D of  E log D(x, y) + E log(1 - D(x, G(x, z)))  +  lambda E |y - G(x, z)|

L1 gets the low frequencies right and D the high ones, so D judges patches only. The noise z is dropout, in testing as
in training, which G learns to be little moved by.

Source: Isola, Zhu, Zhou & Efros, Image-to-Image Translation with Conditional Adversarial Networks (2017), equations 1,
3 and 4, section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from tinygen import Tensor
from tinygen.data import tasks
from tinygen.models.translation.base import Direction, Translation
from tinygen.models.translation.networks import Generator, PatchDiscriminator


class Pix2Pix(Translation):
    """pix2pix: a U-Net that is told by pairs, and by a discriminator of patches, what to make of an image.

    Args:
        image_shape: height and width must be even. levels: see `Model`.
        task: what it translates: edges to images, gray images to colored ones, the upper half to the whole.
        adversarial: the weight of the loss by which D is to take G's images for real; 0: L1 regression.
        l1: the weight of the distance from the target, lambda.
        dropout: the probability that a value of the smallest scale is zeroed, also in testing; 0: no noise.
        width: channels of G's first scale and of D's first layer.
        rng: draws the initial weights.
    """

    paired: ClassVar[bool] = True

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, task: tasks.Name = "edges", adversarial: float = 1.0,
        l1: float = 100.0, dropout: float = 0.5, width: int = 32, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        super().__init__(image_shape, levels, task=task, weights={"adversarial": adversarial, "l1": l1})
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be from 0 to below 1, got {dropout}")
        one, other = (shape[0] for shape in self.shapes)
        generator = Generator(one, other, image_shape[1:], width, dropout, rng=rng)
        discriminator = PatchDiscriminator(one + other, image_shape[1:], width, rng=rng)
        self.there = Direction(generator, discriminator, conditional=True)

    def directions(self) -> Sequence[Direction]:
        return (self.there,)

    def made(self, way: Direction, x: Tensor, rng: np.random.Generator) -> Tensor:
        """G(x, z): rng draws z, what is dropped."""
        return way.generator(x, rng)
