"""Elementwise kernels, on arrays in whatever order of memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinygen.array import inverse, memory_order
from tinygen.kernels import layout, library
from tinygen.pool import new


def run(kernel: str, *arrays: Any, numbers: Sequence[float] = ()) -> Any:
    """kernel(n, *numbers, *arrays, out) over arrays of one shape; the result is in memory like the last of them.

    NotImplemented for small arrays, for numbers, where shapes differ, and where the last one has gaps or repetitions.
    """
    last = arrays[-1]
    if getattr(last, "size", 0) < library.SMALL or not hasattr(arrays[0], "dtype") or not library.accepts(*arrays):
        return NotImplemented
    if any(a.shape != last.shape for a in arrays):
        return NotImplemented
    axes = memory_order(last)
    if not last.transpose(axes).flags.c_contiguous or not all(isinstance(number, (int, float)) for number in numbers):
        return NotImplemented
    inputs = [layout.contiguous(a.transpose(axes)) for a in arrays]
    out = new(inputs[0].shape, last)
    library.call(kernel, last, last.size, *numbers, *inputs, out)
    return out.transpose(inverse(axes))


def of_one(kernel: str, x: Any) -> Any:
    """`run` of one array, which for small ones in C order takes a shorter way: where NumPy needs several steps."""
    if x.__class__ is not np.ndarray or x.size >= library.SMALL or not x.ndim or not library.accepts(x):
        return run(kernel, x)
    if not (x.flags.c_contiguous and x.flags.aligned and x.size):
        return NotImplemented
    out = np.empty_like(x)
    library.call_small(kernel, x, out)
    return out
