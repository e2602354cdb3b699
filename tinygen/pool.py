"""Memory for arrays: large blocks are used again, because fresh memory costs a page fault every 4 kB."""

from __future__ import annotations

import math
import os
import threading
from collections import defaultdict
from typing import Any

import numpy as np

from tinygen.array import inverse, memory_order, xp

try:
    from tinygen._native import ffi
except ImportError:
    ffi = None

_BYTE = np.dtype(np.uint8)
LARGE = 1 << 18  # bytes from which arrays are recycled
_LINE = 64  # bytes of a cache line, at which such an array begins: NumPy's own begin 16 bytes after one
_PAGE = 1 << 21  # bytes of a huge page, at which arrays begin that are as large: each saves 511 look-ups of an address
_LIMIT = 1 << 30  # bytes kept for reuse at most
_free: dict[int, list[_Block]] = defaultdict(list)
_free_bytes = 0
_lock = threading.RLock()  # a destructor may run at any moment, also inside `empty`


def _new_lock() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):  # another thread may hold the lock in the moment of a fork
    os.register_at_fork(after_in_child=_new_lock)


class _Block:
    """Memory of so many bytes, which comes back by `recycle`."""

    def __init__(self, size: int) -> None:
        start = _PAGE if size >= _PAGE else _LINE
        array = np.empty(size + start, np.uint8)  # NumPy asks the system for huge pages from 4 MB on
        self.size, self.memory = size, ffi.from_buffer("char[]", array[-array.ctypes.data % start :][:size])

    def recycle(self, _: Any) -> None:
        global _free_bytes
        with _lock:
            if _free_bytes + self.size <= _LIMIT:
                _free[self.size].append(self)
                _free_bytes += self.size


def empty(shape: tuple[int, ...], dtype: Any, strides: Any = None) -> np.ndarray:
    """An uninitialized array in C order. Large ones reuse the memory of earlier ones whose last view has died.

    Of a large one the strides may be given, those of an array without gaps.
    """
    dtype = np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < LARGE or ffi is None:
        return np.empty(shape, dtype)
    size = 1 << (nbytes - 1).bit_length() - 3
    size *= -(-nbytes // size)  # rounded up by less than a quarter, so that blocks fit again
    global _free_bytes
    with _lock:
        block = _free[size].pop() if _free[size] else None
        if block is not None:
            _free_bytes -= size
    if block is None:
        block = _Block(size)
    # NumPy keeps `owner` alive as long as any view of the array, and no longer: the block is free exactly then.
    owner = ffi.gc(block.memory, block.recycle)
    return np.ndarray(shape, dtype, ffi.buffer(owner, nbytes), 0, strides)


def new(shape: tuple[int, ...], model: Any) -> Any:
    """An uninitialized array in C order, of the dtype and on the device of another; recycled like those of `empty`."""
    return empty(shape, model.dtype) if isinstance(model, np.ndarray) else xp(model).empty(shape, model.dtype)


def empty_like(a: Any) -> Any:
    """An uninitialized array of the shape, dtype and order in memory of another, recycled like those of `empty`."""
    if isinstance(a, np.ndarray) and a.nbytes >= LARGE:
        axes = memory_order(a)
        if a.transpose(axes).flags.c_contiguous:
            return empty(a.transpose(axes).shape, a.dtype).transpose(inverse(axes))
    return xp(a).empty_like(a)


def copied(data: Any, dtype: Any = None) -> Any:
    """A copy of an array, in the same order in memory, or of numbers as an array; recycled like those of `empty`.

    Always an array in the machine's own bytes: subclasses have operators of their own, other bytes have no kernels.
    """
    if not getattr(data, "dtype", _BYTE).isnative:
        data = data.astype(data.dtype.newbyteorder("="))
    if data.__class__ is np.ndarray and data.dtype.kind in "fiub" and dtype in (None, data.dtype):
        out = empty_like(data)
        out[...] = data
        return out
    return (xp(data) if hasattr(data, "get") else np).array(data, dtype=dtype, order="K")
