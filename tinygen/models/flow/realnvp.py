"""RealNVP: affine couplings of whole images, at several scales (lecture slides 17 to 21 and 36).

    y1 = x1,    y2 = x2 exp(s(x1)) + t(x1),    log det = the sum of s(x1)                         equations 4 to 8

A scale: a squeeze (1 x s x s -> 4 x s/2 x s/2), three couplings by checkerboards, three by halves of the channels; then
half of the numbers are done, and the others go on at the next scale. The last scale is four couplings by checkerboards.

A checkerboard's black squares are, after a squeeze, two of the four pixels that have become channels. So the paper's
couplings before the squeeze stand behind it here: the same numbers are kept and changed, but a network sees those that
are kept without the holes between them, at a quarter of the places.

Between couplings stands Glow's ActNorm, in place of the paper's batch norm, by whose running statistics the likelihood
of test images can explode while that of training images looks well. Networks are Glow's, in place of residual ones.

Source: Dinh, Sohl-Dickstein & Bengio, Density estimation using Real NVP (2017), sections 3 and 4.1.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from tinygen.models.flow.base import Flow
from tinygen.models.flow.layers import (
    ActNorm,
    AffineCoupling,
    Chain,
    Checkerboard,
    Flatten,
    Halves,
    Layer,
    Permute,
    Split,
    Squeeze,
)
from tinygen.models.flow.networks import convolutions
from tinygen.models.flow.pixels import Logit
from tinygen.models.flow.priors import StandardNormal

Shape = tuple[int, int, int]


class RealNVP(Flow):
    """Affine couplings by checkerboards and by channels, at several scales.

    Args:
        image_shape: (C, H, W), of at least two values. A side that is odd ends the scales: 28 -> 14 -> 7.
        levels: values run from 0 to levels - 1.
        hidden: channels of the networks s and t, which are one.
        scales: how often the images are squeezed, at most.
        rng: draws the initial weights.

    Raises ValueError for images of a single value, and for numbers out of range.
    """

    lr: ClassVar[float] = 3e-3

    def __init__(
        self, image_shape: Shape, levels: int, *, hidden: int = 64, scales: int = 2, rng: np.random.Generator
    ) -> None:
        if math.prod(image_shape) < 2:
            raise ValueError(f"RealNVP splits images in two: image_shape must have 2 or more values, got {image_shape}")
        if hidden < 1 or scales < 0:
            raise ValueError(f"hidden must be at least 1 and scales at least 0, got {hidden} and {scales}")
        layers = scale(image_shape, hidden, scales, rng)
        super().__init__(image_shape, levels, layers, Logit(levels), StandardNormal())


def scale(shape: Shape, hidden: int, scales: int, rng: np.random.Generator) -> Chain:
    """f of one scale and of all that come after it, for images of this shape: section 3.6."""
    channels, height, width = shape
    if scales == 0 or height % 2 or width % 2:  # the last one
        return Chain([*checkerboards(4, shape, hidden, rng), Flatten(shape)])
    squeezed = 4 * channels, height // 2, width // 2
    left = 2 * channels, height // 2, width // 2
    black_first = np.arange(4 * channels).reshape(4, channels)[[0, 3, 1, 2]].ravel()
    return Chain([
        Squeeze(),
        Permute(black_first), *halves(3, squeezed[0], hidden, rng), Permute(np.argsort(black_first)),
        *halves(3, squeezed[0], hidden, rng),
        Split(squeezed, scale(left, hidden, scales - 1, rng)),  # equations 13 to 16
    ])  # fmt: skip


def checkerboards(n: int, shape: Shape, hidden: int, rng: np.random.Generator) -> list[Layer]:
    """So many couplings that change the black and the white squares in turn; for a single pixel, its channels."""
    channels, height, width = shape
    if height * width == 1:
        return halves(n, channels, hidden, rng)
    layers: list[Layer] = []
    for i in range(n):
        network = convolutions(channels, hidden, 2 * channels, rng)
        layers += [ActNorm(channels), AffineCoupling(Checkerboard(height, width, exchanged=bool(i % 2)), network)]
    return layers


def halves(n: int, channels: int, hidden: int, rng: np.random.Generator) -> list[Layer]:
    """So many couplings that change one half of the channels and the other in turn."""
    layers: list[Layer] = []
    for i in range(n):
        kept, changed = (channels + 1) // 2, channels // 2
        if i % 2:
            kept, changed = changed, kept
        network = convolutions(kept, hidden, 2 * changed, rng)
        layers += [ActNorm(channels), AffineCoupling(Halves(exchanged=bool(i % 2)), network)]
    return layers
