"""Arrays of more than 2^31 elements, without the memory for them.

What is only read is a fresh mapping, whose untouched pages cost nothing. What is written is a window of a few
megabytes that is mapped again and again, one copy behind the other.
"""

from __future__ import annotations

import ctypes
import mmap
import os

import numpy as np

from tinygen import kernels

_WINDOW = 1 << 26
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_SHARED, _PRIVATE, _FIXED, _ANONYMOUS, _NORESERVE = 1, 2, 16, 32, 0x4000
_READ, _WRITE = mmap.PROT_READ, mmap.PROT_WRITE


class Sparse:
    """Zeros of that shape, in float32, of which only what is written takes memory."""

    def __init__(self, *shape: int):
        count = int(np.prod(shape, dtype=object))
        self.memory = mmap.mmap(-1, 4 * count, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE)
        self.array = np.frombuffer(self.memory, np.float32, count).reshape(shape)
        self.pointer = kernels.library.ffi.from_buffer(self.array)


class Repeated:
    """A float32 array of that many elements, all in the same window of memory."""

    def __init__(self, count: int, value: float):
        self.nbytes = -(-4 * count // _WINDOW) * _WINDOW
        self.start = _libc.mmap(None, self.nbytes, 0, _PRIVATE | _ANONYMOUS | _NORESERVE, -1, 0)
        file = os.memfd_create("window")
        os.ftruncate(file, _WINDOW)
        for offset in range(0, self.nbytes, _WINDOW):
            _libc.mmap(self.start + offset, _WINDOW, _READ | _WRITE, _SHARED | _FIXED, file, 0)
        os.close(file)
        self.window = np.frombuffer((ctypes.c_char * _WINDOW).from_address(self.start), np.float32)
        self.window[:] = value
        self.pointer = kernels.library.ffi.cast("void *", self.start)

    def close(self) -> None:
        _libc.munmap(self.start, self.nbytes)


def _call(kernel: str, *arguments) -> None:
    pointers = [kernels.library.ffi.from_buffer(a) if isinstance(a, np.ndarray) else a for a in arguments]
    assert getattr(kernels.library.lib, kernel)(0, *pointers, 2) == kernels.library.lib.TG_OK


ROWS, COLUMNS = (1 << 16) + 1, 1 << 15  # the last row starts at element 2^31


def _conv_shape(**fields):
    s = {
        "n": 1,
        "h": ROWS,
        "w": COLUMNS,
        "ci": 1,
        "oh": 3,
        "ow": COLUMNS,
        "co": 1,
        "kh": 1,
        "kw": 1,
        "groups": 1,
    }
    s |= {"stride_h": ROWS // 2, "stride_w": 1, "dil_h": 1, "dil_w": 1} | fields
    return kernels.library.ffi.new("tg_conv_shape *", s)


def conv2d() -> None:
    """Three rows of an image of more than 2^31 pixels, read in place and (with padding) copied."""
    null = kernels.library.ffi.NULL
    x, y, gw = Sparse(ROWS, COLUMNS), np.zeros((3, COLUMNS), np.float32), np.zeros(1, np.float32)
    rows = np.arange(3 * COLUMNS, dtype=np.float32).reshape(3, COLUMNS) % 3
    x.array[:: ROWS // 2] = rows
    _call("tg_conv2d", _conv_shape(), 0, x.pointer, np.full(1, 2, np.float32), null, null, y)
    assert (y == 2 * rows).all()
    shape = _conv_shape(kh=2, kw=2, pad_h=1, pad_w=1)
    _call("tg_conv2d", shape, 0, x.pointer, np.array([0, 0, 0, 3], np.float32), null, null, y)
    assert (y == 3 * rows).all()
    _call("tg_conv2d_weight", _conv_shape(), 0, x.pointer, rows, gw, null)
    assert gw == (rows * rows).sum()


def weight() -> None:
    """A weight of more than 2^31 elements, of which one column is used at a time."""
    co, ci = 1 << 16, (1 << 15) + 1
    w = Sparse(ci, co)
    w.array[ci - 1, co - 1], w.array[0, 0] = 5, 7
    x = np.ones(ci, np.float32)
    y = np.zeros(co, np.float32)
    shape = _conv_shape(h=1, w=1, oh=1, ow=1, ci=ci, co=co, stride_h=1)
    _call("tg_conv2d", shape, 0, x, w.pointer, kernels.library.ffi.NULL, kernels.library.ffi.NULL, y)
    assert y[0] == 7
    assert y[-1] == 5
    assert y.sum() == 12


def _repeated(kernel, inputs, arguments, value, answer):
    """A kernel over inputs that are one value everywhere: the output is one value everywhere."""

    def run() -> None:
        count = (1 << 31) + 5
        arrays = [Repeated(count, value) for _ in range(inputs)]
        out = Repeated(count, np.nan)
        try:
            _call(kernel, *arguments(count), *[a.pointer for a in arrays], out.pointer)
            assert np.allclose(out.window, answer)
        finally:
            for a in (*arrays, out):
                a.close()

    return run


def conv_transpose2d() -> None:
    """The large image is the output: the bias everywhere."""
    out = Repeated(ROWS * COLUMNS, np.nan)
    y, w, bias = np.ones((3, COLUMNS), np.float32), np.zeros(1, np.float32), np.full(1, 3, np.float32)
    try:
        _call("tg_conv_transpose2d", _conv_shape(), y, w, bias, kernels.library.ffi.NULL, out.pointer)
        assert (out.window == 3).all()
    finally:
        out.close()


def cross_entropy() -> None:
    """As many logits, all equal."""
    logits, labels = Sparse(ROWS, COLUMNS), np.arange(ROWS) % COLUMNS
    logits.array[-1, -1] = 20
    loss = np.zeros(ROWS, np.float32)
    _call(
        "tg_cross_entropy",
        ROWS,
        COLUMNS,
        logits.pointer,
        kernels.library.ffi.cast("int64_t *", labels.ctypes.data),
        loss,
    )
    assert np.allclose(loss[:-1], np.log(COLUMNS))
    assert np.isclose(loss[-1], 20 + np.log1p((COLUMNS - 1) * np.exp(-20)))


def batch_norm() -> None:
    """As many rows of two channels, all 0."""
    rows = (1 << 30) + 5
    x, y = Repeated(2 * rows, 0), Repeated(2 * rows, np.nan)
    mean, var, bias = np.ones(2, np.float32), np.ones(2, np.float32), np.full(2, 3, np.float32)
    try:
        _call("tg_batch_norm", rows, 2, x.pointer, kernels.library.ffi.NULL, bias, 1e-3, y.pointer, mean, var)
        assert (mean == 0).all()
        assert (var == 0).all()
        assert (y.window == 3).all()
    finally:
        x.close()
        y.close()


CHEAP = {"conv2d": conv2d}
ALL = CHEAP | {
    "weight": weight,
    "conv_transpose2d": conv_transpose2d,
    "relu": _repeated("tg_relu", 1, lambda n: (n, 0.0), 2, 2),
    "tanh": _repeated("tg_tanh", 1, lambda n: (n,), 0.5, np.tanh(0.5)),
    "add": _repeated("tg_add", 2, lambda n: (n,), 2, 4),
    "cross_entropy": cross_entropy,
    "batch_norm": batch_norm,
}
