"""Devices: "cpu" (NumPy arrays) and "cuda" (CuPy arrays, on the GPU that is CuPy's current one)."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygen._tensor import Tensor, leaf
from tinygen.array import moved, on_device_of, xp
from tinygen.cuda import array_module
from tinygen.ops import shape
from tinygen.ops._samples import normal, sample
from tinygen.tape import op


@op
def transfer(x, source, target):
    """x, which is on the device source, copied to the device target; in the same order in memory."""
    return x.copy(order="K") if source == target else moved(x, array_module(target))


@transfer.vjp("x")
def _(gout, source, target):
    return transfer(gout, target, source)


def to(x: Tensor, target: Any) -> Tensor:
    """x on another device, "cpu" or "cuda", or of another dtype; x itself if it is there already.

    The gradient comes back on x's own device, in x's own dtype.

    Raises:
        tinygen.cuda.CudaError: there is no CUDA here; why, and what to do.
    """
    if not is_device(target):
        return shape.to(x, target)
    array_module(target)
    return x if device(x) == target else transfer(x, device(x), target)


def device(x: Tensor) -> str:
    """Where the tensor is: "cpu" or "cuda"."""
    return "cpu" if isinstance(x._array, np.ndarray) else "cuda"


def new_tensor(x: Tensor, data: Any, requires_grad: bool = False) -> Tensor:
    """A leaf tensor of these values, copied: numbers, an array or a tensor; of x's dtype, on x's device."""
    data = data._array if isinstance(data, Tensor) else data
    values = on_device_of(x._array, np.asarray(data, x.dtype) if xp(data) is np else data)
    return leaf(xp(values).array(values, x.dtype, order="K"), requires_grad)


def is_device(target: Any) -> bool:
    """Whether it names a device rather than a dtype. Raises ValueError for one that there isn't."""
    if isinstance(target, str) and target.startswith(("cuda:", "gpu", "mps")):
        raise ValueError(f"to: a device is 'cpu' or 'cuda', got {target!r}")
    return target in ("cpu", "cuda") if isinstance(target, str) else False


@transfer.samples
def _(rng):
    yield sample(normal(rng, 2, 3), "cpu", "cpu")
