"""Layers of GANs for larger images: pixel norm, deviations over the batch, equalized weights, resizing convolutions.

Source: Karras, Aila, Laine, Lehtinen, Progressive Growing of GANs (2018), sections 3 and 4.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygen import Tensor, cat, nn, ops
from tinygen.nn import functional as F
from tinygen.nn import init
from tinygen.ops.normalize import divide_by_rms

EPS = 1e-8  # under roots


class PixelNorm(nn.Module):
    """Each pixel's channels over their root mean square: (N, C, H, W), section 4.2."""

    def forward(self, x: Tensor) -> Tensor:
        return divide_by_rms(x, (1,), EPS)[0]


class MinibatchStdDev(nn.Module):
    """One more channel, alike everywhere: how much the images of the batch differ. (N, C, H, W) -> (N, C + 1, H, W).

    It is the standard deviation over the batch, averaged over all channels and pixels (section 3).
    """

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        variance = ops.batch_mean((x - ops.batch_mean(x, keepdim=True)) ** 2)
        deviation = (variance + EPS).sqrt().mean()  # of equal images sqrt(EPS), where the gradient is finite
        return cat(x, deviation * x.new_tensor(np.ones((n, 1, h, w))), dim=1)


class EqualizedConv2d(nn.Conv2d):
    """A convolution by c w, with w normal of deviation 1 at first: so Adam changes the weights of all layers equally.

    c = gain / sqrt(fan_in) is He's constant (section 4.1). Biases are 0 at first.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: int = 1, padding: int = 0,
        gain: float = math.sqrt(2), *, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, rng=rng)
        self.c = gain / math.sqrt(equalize(self, rng)[0])

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.weight * self.c, self.bias, **self.settings)


class EqualizedConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution by c w, as `EqualizedConv2d`: a pixel sees every stride-th tap along each axis."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0,
        gain: float = math.sqrt(2), *, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, rng=rng)
        self.c = gain * stride / math.sqrt(equalize(self, rng)[1])

    def forward(self, input: Tensor) -> Tensor:
        return F.conv_transpose2d(input, self.weight * self.c, self.bias, **self.settings)


def equalize(layer: Any, rng: np.random.Generator) -> tuple[int, int]:
    """Draw a layer's weight anew, of deviation 1, with biases of 0. Gives its `init.fans`."""
    init.normal_(layer.weight, generator=rng)
    init.zeros_(layer.bias)
    return init.fans(layer.weight)


def conv_of_enlarged(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A 3x3 convolution (padding 1) of x with each pixel four times: (N, C, H, W) -> (N, O, 2H, 2W).

    It is one transposed convolution, which takes 4 products a pixel in place of 9.
    """
    weight = four_wide(conv.weight).flip((2, 3)).transpose(0, 1)
    return F.conv_transpose2d(x, weight, conv.bias, stride=2, padding=1)


def mean_of_conv(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """The means of 2x2 pixels of a 3x3 convolution (padding 1) of x: (N, C, H, W) -> (N, O, H/2, W/2).

    It is one convolution with stride 2, which takes 4 products a pixel of x in place of 9.
    """
    return F.conv2d(x, four_wide(conv.weight) / 4, conv.bias, stride=2, padding=1)


def four_wide(weight: Tensor) -> Tensor:
    """The sum of a 3x3 weight at the four places of a 4x4 one: (O, I, 4, 4)."""
    rows = F.pad(weight, (0, 0, 0, 1)) + F.pad(weight, (0, 0, 1, 0))
    return F.pad(rows, (0, 1)) + F.pad(rows, (1, 0))
