"""The order in memory that kernels take: images (N, C, H, W) are NHWC in memory, weights (O, I, KH, KW) HWIO.

An array in another order is copied first, and counted in `conversions`; between tinygen's own layers there is none.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from tinygen.array import long_parts, memory_order, xp
from tinygen.kernels import library
from tinygen.pool import new

_conversions = 0


def conversions() -> int:
    """How many arrays had to be copied into a kernel's layout so far."""
    return _conversions


def nhwc(x: Any) -> Any:
    """An image (N, C, H, W) as a kernel reads it."""
    return contiguous(x.transpose(0, 2, 3, 1))


def hwio(weight: Any) -> Any:
    """A weight (O, I, KH, KW) as a kernel reads it."""
    return contiguous(weight.transpose(2, 3, 1, 0))


def channels_last(x: Any) -> Any:
    """An array (N, C, ...) as (N, ..., C); np.moveaxis takes five times as long."""
    return x.transpose(0, *range(2, x.ndim), 1)


def channels_second(rows: Any) -> Any:
    """(N, ..., C) as (N, C, ...), in memory as it is."""
    return rows.transpose(0, rows.ndim - 1, *range(1, rows.ndim - 1))


def vector(name: str, a: Any, n: int) -> Any:
    """An array (n,) for a kernel; None stays None."""
    if a is not None and a.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), got {a.shape}")
    return None if a is None else contiguous(a)


def contiguous(a: Any) -> Any:
    """The array in C order and aligned, itself if it is so already."""
    global _conversions
    if a.flags.c_contiguous and aligned(a):
        return a
    _conversions += 1
    return packed(a)


def packed(a: Any) -> Any:
    """`contiguous`, not counted."""
    if a.flags.c_contiguous and aligned(a):
        return a
    memory = a.transpose(memory_order(a))
    dense = memory.flags.c_contiguous and aligned(a) and a.size >= library.SMALL
    matrices = _matrices(a.shape, a.strides) if dense and library.accepts(a) else None
    if matrices is None and not (a.ndim > 1 and a.shape[-1] <= 8 and library.accepts(a)):
        return np.require(a, requirements=["C", "A"]) if isinstance(a, np.ndarray) else xp(a).ascontiguousarray(a)
    out = new(a.shape, a)
    if matrices is None:
        for values, part in long_parts(a, out):
            part[...] = values
        return out
    library.call("tg_transpose", a, *matrices, memory, out)
    return out


@functools.lru_cache
def _matrices(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...] | None:
    """(n, rows, columns) if such an array is n matrices in memory, and in C order once they are transposed."""
    axes = [i for i in sorted(range(len(shape)), key=lambda i: -strides[i]) if shape[i] > 1]
    in_order = sorted(axes)
    same = next((i for i, (a, b) in enumerate(zip(axes, in_order, strict=True)) if a != b), len(axes))
    cut = axes.index(in_order[same]) if same < len(axes) else same
    if axes[:same] + axes[cut:] + axes[same:cut] != in_order or cut == same:
        return None
    return tuple(math.prod(shape[i] for i in part) for part in (axes[:same], axes[same:cut], axes[cut:]))


def aligned(a: Any) -> bool:
    """Whether the elements stand at addresses that are multiples of their size."""
    return a.flags.aligned if isinstance(a, np.ndarray) else True


def reshape(x: Any, shape: tuple[int, ...]) -> Any:
    """See `tinygen.ops.shape.reshape`; an image, NHWC in memory, to rows: (N, C, H, W) -> (N, C * H * W)."""
    if x.ndim != 4 or len(shape) != 2 or x.flags.c_contiguous or not x.transpose(0, 2, 3, 1).flags.c_contiguous:
        return NotImplemented
    return packed(x).reshape(shape)
