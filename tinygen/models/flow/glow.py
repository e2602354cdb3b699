"""Glow: steps of ActNorm, an invertible 1x1 convolution and a coupling, at several scales (slides 17 to 21 and 36).

    squeeze -> K steps -> half of the numbers are done -> squeeze -> K steps -> ...                        figure 2

    step: actnorm      y = s x + b                                  log det = h w sum log |s|               table 1
          1x1          y = W x,  W = P L (U + diag(s))              log det = h w sum log |s|               equation 11
          coupling     y1 = x1,  y2 = x2 exp(s(x1)) + t(x1)         log det = sum s(x1)

Source: Kingma & Dhariwal, Glow: Generative flow with invertible 1x1 convolutions (2018), section 3.
"""

from __future__ import annotations

import numpy as np

from tinygen.models.flow.base import Flow
from tinygen.models.flow.layers import (
    ActNorm,
    AffineCoupling,
    Chain,
    Flatten,
    Halves,
    Invertible1x1,
    Layer,
    Split,
    Squeeze,
)
from tinygen.models.flow.networks import convolutions
from tinygen.models.flow.pixels import Logit
from tinygen.models.flow.priors import StandardNormal

Shape = tuple[int, int, int]


class Glow(Flow):
    """Steps of flow at several scales.

    Args:
        image_shape: (C, H, W). A side that is odd ends the scales: 28 -> 14 -> 7.
        levels: values run from 0 to levels - 1.
        steps: K, the steps of flow of each scale.
        hidden: channels of the couplings' networks.
        scales: L, how often the images are squeezed, at most.
        rng: draws the initial weights.

    Raises ValueError for images of one channel that can't be squeezed, for a side of them is odd, and for numbers
    below 1.
    """

    def __init__(
        self, image_shape: Shape, levels: int, *, steps: int = 8, hidden: int = 64, scales: int = 2,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        channels, height, width = image_shape
        if min(steps, hidden, scales) < 1:
            raise ValueError(f"steps, hidden and scales must be at least 1, got {steps}, {hidden} and {scales}")
        if channels == 1 and (height % 2 or width % 2):
            raise ValueError(f"Glow mixes channels: an image_shape of one must have even sides, got {image_shape}")
        super().__init__(image_shape, levels, scale(image_shape, steps, hidden, scales, rng), Logit(levels),
                         StandardNormal())  # fmt: skip


def scale(shape: Shape, steps: int, hidden: int, scales: int, rng: np.random.Generator) -> Chain:
    """f of one scale and of all that come after it, for images of this shape: figure 2b."""
    channels, height, width = shape
    squeezed = not (height % 2 or width % 2)
    if squeezed:
        channels, height, width = shape = 4 * channels, height // 2, width // 2
    flow: list[Layer] = [Squeeze()] if squeezed else []
    flow += [layer for _ in range(steps) for layer in step(channels, hidden, rng)]
    if scales == 1 or height % 2 or width % 2:
        return Chain([*flow, Flatten(shape)])
    rest = channels - channels // 2, height, width
    return Chain([*flow, Split(shape, scale(rest, steps, hidden, scales - 1, rng))])


def step(channels: int, hidden: int, rng: np.random.Generator) -> list[Layer]:
    """A step of flow, figure 2a."""
    kept, changed = (channels + 1) // 2, channels // 2
    network = convolutions(kept, hidden, 2 * changed, rng)
    return [ActNorm(channels), Invertible1x1(channels, rng), AffineCoupling(Halves(), network)]
