"""Arrays, whichever module they are of: NumPy's on the CPU, CuPy's on a GPU. The array's type is the device."""

from __future__ import annotations

import functools
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
