"""Where windows lie on images: what convolutions and their kernels need to know besides the arrays.

A `Geometry` is built and checked once, by the function that a user calls (`Geometry.of` there); the ops and the kernels
below it trust its meaning. That no kernel leaves its arrays is checked again, by sizes, where it is called.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True, repr=False)
class Geometry:
    """How a convolution goes over its image.

    Attributes:
        stride: pixels from one window to the next, (vertical, horizontal), as are all pairs.
        padding: zeros around the image.
        dilation: pixels from one tap of the kernel to the next.
        mask: None, or PixelCNN's "A" or "B": which taps are left out; see `tinygen.ops.conv`.
        channels: into how many groups (R, G, B) the mask divides the channels.
        groups: into how many groups the channels of both sides fall, of which each sees only its own.
    """

    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    mask: str | None = None
    channels: int = 1
    groups: int = 1

    @staticmethod
    def of(name: str, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: Any = 1) -> Geometry:
        """From integers or pairs. ValueError, which begins with the caller's name, for anything else."""
        if not isinstance(groups, int) or groups < 1:
            raise ValueError(f"{name}: groups must be an integer of at least 1, got {groups!r}")
        stride, dilation = pair(f"{name}: stride", stride, 1), pair(f"{name}: dilation", dilation, 1)
        return _kept(stride, pair(f"{name}: padding", padding, 0), dilation, groups=groups)

    @staticmethod
    def masked(name: str, weight_shape: tuple[int, ...], mask: str, channels: int) -> Geometry:
        """PixelCNN's, whose output is as big as its input. ValueError for a mask that doesn't fit the weight."""
        o, i, kh, kw = weight_shape
        if mask not in ("A", "B"):
            raise ValueError(f"{name}: mask must be 'A' or 'B', got {mask!r}")
        if kh % 2 == 0 or kw % 2 == 0:
            raise ValueError(f"{name}: the kernel's sides must be odd, got {kh} x {kw}")
        if not isinstance(channels, int) or channels < 1 or i % channels or o % channels:
            raise ValueError(f"{name}: channels must divide the {i} input and {o} output channels, got {channels}")
        return _kept((1, 1), (kh // 2, kw // 2), (1, 1), mask, channels)

    def check_groups(self, inputs: int, outputs: int, of_one: int | None = None) -> None:
        """ValueError unless the channels of both sides divide into the groups, `of_one` inputs in each."""
        if inputs % self.groups or outputs % self.groups or of_one not in (None, inputs // self.groups):
            each = "" if of_one is None else f" of {of_one} inputs each"
            raise ValueError(f"{inputs} input and {outputs} output channels don't fall into {self.groups} groups{each}")

    def of_group(self) -> Geometry:
        """That of one group alone."""
        return _kept(self.stride, self.padding, self.dilation)

    def __repr__(self) -> str:
        changed = (f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if getattr(self, f.name) != f.default)
        return f"Geometry({', '.join(changed)})"

    def out_size(self, image: tuple[int, ...], kernel: tuple[int, ...]) -> Pair:
        """(height, width) of the output for an image (height, width). ValueError if the kernel doesn't fit."""
        return out_size(image, kernel, self.stride, self.padding, self.dilation)

    def check(self, image: tuple[int, ...], kernel: tuple[int, ...], out: tuple[int, ...]) -> None:
        """ValueError unless images of this size become those."""
        if self.out_size(image, kernel) != tuple(out):
            raise ValueError(f"{image} doesn't become {out} with kernel {kernel}, {self}")

    def taps(self, weight_shape: tuple[int, ...], size: Pair) -> Iterator[tuple[Pair, tuple[slice, ...], Any]]:
        """For each kept tap: its place in the kernel, the pixels of the padded image (N, H, W, C) that it meets, and
        which pairs of channels it keeps, (O, I) of booleans, None for all. size: the output's."""
        o, i, kh, kw = weight_shape
        for r in range(kh):
            for c in range(kw):
                place = (r - kh // 2, c - kw // 2)
                if self.mask and place > (0, 0):  # tuples compare in raster order
                    return
                window = tuple(
                    slice(t * d, t * d + s * (n - 1) + 1, s)
                    for t, d, s, n in zip((r, c), self.dilation, self.stride, size, strict=True)
                )
                center = self.mask is not None and place == (0, 0)
                yield (r, c), (slice(None), *window), channel_mask(o, i, self.mask, self.channels) if center else None

    def terms(self, weight_shape: tuple[int, ...]) -> float:
        """How many of its weights (O, I, KH, KW) a number of the output is a sum over, on average."""
        _, inputs, *kernel = weight_shape
        if self.mask is None:
            return inputs * math.prod(kernel)
        at_center = (self.channels + (1 if self.mask == "B" else -1)) / (2 * self.channels)  # of the pairs of channels
        return inputs * (math.prod(kernel) // 2 + at_center)


UNIT = Geometry()  # stride 1, no padding, no mask
_kept = functools.lru_cache(1024)(Geometry)  # equal ones are one object, which compares fast


def pair(name: str, value: Any, least: int) -> Pair:
    """An integer or a pair of them as a pair; ValueError, which begins with the name, below `least` and otherwise."""
    if value.__class__ is int and value >= least:
        return value, value
    found = value if isinstance(value, (tuple, list)) else (value,)
    found = (*found, *found) if len(found) == 1 else found
    if len(found) != 2 or not all(isinstance(v, (int, np.integer)) and v >= least for v in found):
        raise ValueError(f"{name} must be an integer of at least {least}, or a pair of them, got {value!r}")
    return int(found[0]), int(found[1])


def out_size(
    image: tuple[int, ...], kernel: tuple[int, ...], stride: Pair, padding: Pair, dilation: Pair = (1, 1)
) -> Pair:
    """How many windows there are, (vertical, horizontal). ValueError if the kernel is larger than the padded image."""
    if len(image) != 2 or len(kernel) != 2:
        raise ValueError(f"images and weights must have 4 axes, got {len(image) + 2} and {len(kernel) + 2}")
    height, width = (
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(image, kernel, stride, padding, dilation, strict=True)
    )
    if min(height, width) < 1:
        raise ValueError(f"a kernel of {kernel} with dilation {dilation} doesn't fit into {image} padded by {padding}")
    return height, width


def channel_mask(outputs: int, inputs: int, mask: str | None, channels: int) -> np.ndarray:
    """The pairs of channels that the center tap lets through: (O, I) of booleans.

    Channels fall into `channels` equal groups, in order (3: R, then G given R, then B given both). Mask "A" lets a
    group see earlier groups, "B" also itself.
    """
    out_group = np.arange(outputs)[:, None] * channels // outputs
    in_group = np.arange(inputs)[None, :] * channels // inputs
    return in_group < out_group if mask == "A" else in_group <= out_group
