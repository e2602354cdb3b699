"""Arrays, whichever module they are of: NumPy's on the CPU, CuPy's on a GPU. The array's type is the device."""

from __future__ import annotations

import functools
import math
import sys
from typing import Any

import numpy as np

_ON_HOST = frozenset([np.ndarray, float, int, bool, list, tuple])


def xp(array: Any) -> Any:
    """The array module of an array: numpy, or cupy. Raises TypeError for what is no array of either."""
    if array.__class__ in _ON_HOST or isinstance(array, (np.ndarray, np.generic)):
        return np
    if not hasattr(array, "get") or "cupy" not in sys.modules:
        kind = type(array)
        hint = "; write .numpy()" if hasattr(array, "numpy") else ""
        raise TypeError(f"an array of NumPy or CuPy is needed, got {kind.__module__}.{kind.__qualname__}{hint}")
    return sys.modules["cupy"]


def moved(values: Any, module: Any) -> Any:
    """The values, an array or lists of numbers, as an array of this module, numpy or cupy; in their order in memory."""
    if xp(values) is module:
        return module.asarray(values)
    values = np.asarray(values) if xp(values) is np else values
    axes = memory_order(values)
    ordered = values.transpose(axes)  # CuPy copies in C order
    return (ordered.get() if module is np else module.asarray(ordered)).transpose(inverse(axes))


def on_device_of(model: Any, values: Any) -> Any:
    """The values, an array or lists of numbers, on the device of the model, an array."""
    return moved(values, xp(model))


def real(x: Any, model: Any = None) -> Any:
    """An array of integers, booleans or float16 as one of the model's dtype, or float32; anything else as it is.

    NumPy's functions of uint8 arrays overflow, or give float16, in whose sums few numbers have room.
    """
    return x if getattr(x, "dtype", _FLOAT).char in WIDE else x.astype(_FLOAT if model is None else model.dtype)


def check_index(index: Any) -> None:
    """TypeError unless it is an array of integers: as such NumPy takes booleans for 0 and 1, or for a mask."""
    if index.dtype.kind not in "iu":
        raise TypeError(f"index must be an array of integers, got {index.dtype}")


_FLOAT = np.dtype(np.float32)
WIDE = "fdg"  # the dtypes in which is reckoned, by their letters: floats of 32 bits and more


def memory_order(a: np.ndarray) -> tuple[int, ...]:
    """The axes of an array from the slowest to the fastest in memory."""
    return _by_stride(a.strides)


@functools.lru_cache
def _by_stride(strides: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(range(len(strides)), key=lambda i: -strides[i]))


@functools.lru_cache
def inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    """The axes by which `a.transpose(axes)` becomes a again."""
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))


def long_parts(a: Any, b: Any) -> Any:
    """Pairs of parts of two arrays of one shape, which together are a and b, so that NumPy goes along long axes.

    Of a few channels of images, NHWC in memory, NumPy would take those of one pixel after those of the other: five
    times as slow as channel by channel.
    """
    axis = min(range(a.ndim), key=lambda i: (a.shape[i] < 2, a.strides[i]))
    if a.size < 1 << 10 or not 1 < a.shape[axis] <= 8 or a.flags.c_contiguous:
        return [(a, b)]
    order = (axis, *(i for i in range(a.ndim) if i != axis))
    return zip(a.transpose(order), b.transpose(order), strict=True)


# ----------------------------------------------------------------------------------------------------------- sums

_FEW = 128  # numbers that are added one after the other, without a loss to speak of
_RUN = 32  # of more than that
_WIDE = 1 << 11  # numbers that NumPy adds at a time, about, where rows are shorter


def total(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """x.sum(axis, keepdims), whose rounding errors grow with the logarithm of the count, over any axes.

    NumPy adds in pairs along the axis that is the fastest in memory, but one row after the other along others: a
    million times 0.1 is 100,958 in float32. Here such rows are added in blocks, and their sums in blocks again.

    float16 is added up in float32, unsigned integers as int64, as in PyTorch.
    """
    if x.dtype.char not in WIDE:
        if x.dtype.char == "e":
            return total(x.astype(_FLOAT), axis, keepdims).astype(x.dtype)
        return x.sum(axis=axis, keepdims=keepdims, dtype=np.int64 if x.dtype.kind == "u" else None)
    if x.__class__ is not np.ndarray or x.size <= _FEW:
        return x.sum(axis=axis, keepdims=keepdims)
    axis = tuple(axis) if isinstance(axis, list) else axis
    plan = _plan(x.shape, x.strides, axis)
    if plan is None:
        return x.sum(axis=axis, keepdims=keepdims)
    order, shape, summed, back, kept, without = plan
    x = x.transpose(order).reshape(shape)
    for i in summed:
        x = _rows_added(x, i)
    return np.asarray(x).transpose(back).reshape(kept if keepdims else without)


def average(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """x.mean(axis, keepdims), by `total`."""
    if x.dtype.char == "e":
        return average(x.astype(_FLOAT), axis, keepdims).astype(x.dtype)
    if x.dtype.kind != "f" or not x.size:
        return x.mean(axis=axis, keepdims=keepdims)
    sums = total(x, axis, keepdims)
    return sums / (x.size // max(1, sums.size))


def _rows_added(x: np.ndarray, axis: int) -> np.ndarray:
    """The sum over one axis: unless it is the last, along which NumPy adds in pairs, in blocks of rows."""
    n, before, after = x.shape[axis], x.shape[:axis], x.shape[axis + 1 :]
    if not after or n <= _FEW:
        return np.add.reduce(x, axis)
    side = max(1, min(_WIDE // max(1, math.prod(after)), n // _RUN)) if x.flags.c_contiguous else 1  # rows made one
    blocks = n // (_RUN * side)
    head, tail = np.split(x, [blocks * _RUN * side], axis)
    shape = after if side == 1 else (side * math.prod(after),)
    sums = np.add.reduce(head.reshape(*before, blocks, _RUN, *shape), axis + 1).reshape(*before, blocks * side, *after)
    if tail.shape[axis]:
        sums = np.concatenate([sums, np.expand_dims(_rows_added(tail, axis), axis)], axis)
    return _rows_added(sums, axis)


@functools.lru_cache(1 << 12)
def _plan(shape: tuple[int, ...], strides: tuple[int, ...], axis: Any) -> Any:
    """How `total` sums such an array; None: as NumPy does, which is exact enough.

    (the axes in their order in memory, the shape then with neighbors that are summed made one, which axes of that to
    sum, the order of those that are left, the result's shape with the summed axes kept and without)
    """
    everything = range(len(shape))
    summed = set(np.lib.array_utils.normalize_axis_tuple(everything if axis is None else axis, len(shape)))
    order = sorted(everything, key=lambda i: (shape[i] > 1, -abs(strides[i])))  # from the slowest to the fastest
    groups: list[list[int]] = []
    for i in (i for i in order if shape[i] > 1):
        last = groups[-1][-1] if groups else i
        if last != i and {i, last} <= summed and strides[last] == strides[i] * shape[i]:
            groups[-1].append(i)
        else:
            groups.append([i])
    counts = tuple(math.prod(shape[i] for i in group) for group in groups)
    which = tuple(k for k, group in enumerate(groups) if group[0] in summed)
    if math.prod(counts[k] for k in which) <= _FEW or which == (len(groups) - 1,):
        return None
    left = [group[0] for group in groups if group[0] not in summed]
    kept = tuple(1 if i in summed else n for i, n in enumerate(shape))
    without = tuple(n for i, n in enumerate(shape) if i not in summed)
    return tuple(order), counts, which[::-1], tuple(map(left.index, sorted(left))), kept, without
