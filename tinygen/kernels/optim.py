"""The optimizers' steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinygen.array import memory_order
from tinygen.kernels import layout, library


def adam(rows, step, lr, beta1, beta2, eps, weight_decay):
    """See `tinygen.optim.Adam`; rows: (grad, p, m, v) of each parameter, of which the last three change in place.

    False, and nothing is changed, if there is no kernel for one of them, or if two arrays of one overlap.
    """
    settings, found = (step, lr, beta1, beta2, eps, weight_decay), []
    for row in rows:
        inputs = _side_by_side(row) if library.accepts(*row) and row[0].dtype is rows[0][0].dtype else None
        if inputs is None or not all(map(_writeable, row[1:])):
            return False
        found.append(inputs)
    ffi, on_cpu = library.ffi, isinstance(rows[0][0], np.ndarray)
    pointers = [[ffi.from_buffer(a) if on_cpu else ffi.cast("void *", a.data.ptr) for a in row] for row in found]
    columns = [ffi.new("void *[]", column) for column in zip(*pointers, strict=True)]
    sizes = ffi.new("int64_t[]", [inputs[0].size for inputs in found])
    try:
        library.call("tg_adam_list", rows[0][0], len(found), sizes, *columns, *settings)
    except ValueError:  # it found arrays that overlap
        return False
    return True


def _writeable(a: Any) -> bool:
    return a.flags.writeable if isinstance(a, np.ndarray) else True


def _side_by_side(arrays: Sequence[Any]) -> Sequence[Any] | None:
    """Arrays of one shape and one order in memory, without gaps, as contiguous ones; None if they aren't."""
    shape, strides = arrays[0].shape, arrays[0].strides
    for a in arrays:
        if a.shape != shape or not layout.aligned(a):
            return None
        if a.strides != strides and any(s != t and n > 1 for s, t, n in zip(a.strides, strides, shape, strict=True)):
            return None
    if len(shape) > 1 and not arrays[0].flags.c_contiguous:
        axes = memory_order(arrays[0])
        arrays = [a.transpose(axes) for a in arrays]
    return arrays if arrays[0].flags.c_contiguous else None
