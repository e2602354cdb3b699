"""The U-Net: from images to images of the same size, down to few pixels and up again, with ways across.

    x --conv--> [block] --------------------------------------- cat -- [block] --norm, silu, conv--> y
                   | halved                                      | doubled
                [block] ----------------------- cat ---------- [block]
                   | halved                      | doubled
                   [block] -- [attention] -- [block]

A block is x + conv(silu(norm(conv(silu(norm(x)))))). If there is a vector, such as a time, a linear function of it is
added to the channels before the second norm. The last layer of each block, of attention, and of all starts at zero: so
every block starts as the identity, and the whole net gives 0.

Source: Ronneberger, Fischer & Brox, U-Net (2015); Ho, Jain & Abbeel, Denoising diffusion probabilistic models (2020),
appendix B.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from tinygen import Tensor, cat, nn
from tinygen.nn import functional as F
from tinygen.nn import init

Layer = TypeVar("Layer", bound=nn.Module)
GROUPS = 8  # of the channels of a norm, at most


def norm(channels: int, silu: bool = True) -> nn.GroupNorm:
    """Group norm; a group has at least four channels, or all there are."""
    return nn.GroupNorm(math.gcd(GROUPS, max(channels // 4, 1), channels), channels, silu=silu)


def zero(layer: Layer) -> Layer:
    """The layer, whose weights are set to zero."""
    for p in layer.parameters():
        init.zeros_(p)
    return layer


class Block(nn.Module):
    """A residual block (N, inputs, H, W) -> (N, outputs, H, W). size: of the vector that it is told; 0: none."""

    def __init__(self, inputs: int, outputs: int, size: int, *, rng: np.random.Generator) -> None:
        self.norm1 = norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, rng=rng)
        self.told = nn.Linear(size, outputs, rng=rng) if size else None
        self.norm2 = norm(outputs)
        self.conv2 = zero(nn.Conv2d(outputs, outputs, 3, padding=1, rng=rng))
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, rng=rng)

    def forward(self, x: Tensor, vector: Tensor | None = None) -> Tensor:
        shift = self.told(vector) if self.told is not None and vector is not None else None
        h = self.norm2(self.conv1(self.norm1(x)), shift)
        return F.conv2d(h, self.conv2.weight, self.conv2.bias, padding=1, add=self.skip(x))


class Attention(nn.Module):
    """x + what each pixel gathers from all others, by one head. (N, channels, H, W) -> the same."""

    def __init__(self, channels: int, *, rng: np.random.Generator) -> None:
        self.norm = norm(channels, silu=False)
        self.query, self.value = (nn.Linear(channels, channels, rng=rng) for _ in range(2))
        self.key = nn.Linear(channels, channels, bias=False, rng=rng)  # softmax wouldn't see one
        self.output = zero(nn.Linear(channels, channels, rng=rng))

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        rows = self.norm(x).permute(0, 2, 3, 1).reshape(n, h * w, c)
        out = self.output(F.scaled_dot_product_attention(self.query(rows), self.key(rows), self.value(rows)))
        return x + out.reshape(n, h, w, c).permute(0, 3, 1, 2)


class UNet(nn.Module):
    """A U-Net (N, inputs, H, W) -> (N, outputs, H, W), H and W multiples of 2^(len(channels) - 1).

    Args:
        inputs, outputs: channels of the images.
        channels: of each scale, from the image's own size downwards.
        size: of the vector that it is told, such as a time; 0: it is told none.
        attention: whether there is attention at the smallest scale.
        rng: draws the initial weights.

    Raises ValueError where the images can't be halved so often, and for a vector that is missing or not expected.
    """

    def __init__(
        self, inputs: int, outputs: int, channels: Sequence[int] = (32, 64), size: int = 0, attention: bool = True, *,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        first, last, pairs = channels[0], channels[-1], list(itertools.pairwise(channels))
        self.size, self.scales = size, len(channels)
        self.input = nn.Conv2d(inputs, first, 3, padding=1, rng=rng)
        self.down = nn.ModuleList(Block(c, c, size, rng=rng) for c in channels)
        self.downsample = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1, rng=rng) for a, b in pairs)
        self.attention = Attention(last, rng=rng) if attention else nn.Identity()
        self.upsample = nn.ModuleList(nn.ConvTranspose2d(b, a, 4, 2, 1, rng=rng) for a, b in pairs)
        ups = [Block(2 * c, c, size, rng=rng) for c in channels[:-1]]
        self.up = nn.ModuleList([*ups, Block(last, last, size, rng=rng)])
        self.norm = norm(first)
        self.output = zero(nn.Conv2d(first, outputs, 3, padding=1, rng=rng))

    def forward(self, x: Tensor, vector: Tensor | None = None) -> Tensor:
        """x: (N, inputs, H, W). vector: (N, size), or (1, size) for all images."""
        if x.shape[2] % (1 << self.scales - 1) or x.shape[3] % (1 << self.scales - 1):
            sides = f"height and width must be multiples of {1 << self.scales - 1}"
            raise ValueError(f"UNet of {self.scales} scales: {sides}, got {x.shape}")
        if (vector is None) != (self.size == 0):
            expected = f"a vector of {self.size} numbers" if self.size else "no vector"
            raise ValueError(f"UNet: it takes {expected}, got {'none' if vector is None else vector.shape}")
        x, across = self.middle(x, vector)
        x = self.up[-1](x, vector)
        for i in reversed(range(self.scales - 1)):
            x = self.up[i](cat(self.upsample[i](x), across[i], dim=1), vector)
        return self.output(self.norm(x))

    def middle(self, x: Tensor, vector: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """What comes down to the smallest scale, (N, channels[-1], H', W'), and what goes across at the others."""
        x, across = self.input(x), list[Tensor]()
        for i, block in enumerate(self.down):
            x = block(x, vector)
            if i < self.scales - 1:
                across.append(x)
                x = self.downsample[i](x)
        return self.attention(x), across
