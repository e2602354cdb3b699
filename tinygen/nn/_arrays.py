"""Between Tensors and arrays: network functions take both."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygen._tensor import Array, Tensor
from tinygen.array import on_device_of


def raw(x: Any) -> Array:
    """The array of a Tensor; an array as it is."""
    return x._array if isinstance(x, Tensor) else x


def like(x: Any, array: Array) -> Any:
    """A new array as a Tensor, if x is one."""
    return Tensor(array) if isinstance(x, Tensor) else array


def constant(x: Any, values: Any) -> Any:
    """Numbers without a gradient, of x's dtype, on x's device, a Tensor if x is one."""
    return like(x, on_device_of(raw(x), np.asarray(values, raw(x).dtype)))
