"""The C library (`tinygen._native`, built from csrc/): whether it is there, its settings, and how a kernel is called.

CuPy arrays go to the CUDA library (`tinygen.cuda`), which has the same kernels under the same names.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tinygen import cuda, pool
from tinygen.array import memory_order, xp

try:
    from tinygen._native import ffi, lib
except ImportError:
    ffi = lib = None

ISAS = ("baseline", "avx2", "avx512")
SMALL = 1 << 12  # elements below which NumPy is as fast as the way to a kernel
SMALL_PRODUCT = 1 << 15  # multiplications below which it is
_DTYPES = {np.dtype(np.float32): 0, np.dtype(np.float64): 1}
_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_warned = False
_calls: list[str] | None = None  # the names of the kernels that were called, while someone asks


def available() -> bool:
    """Whether the C library was built."""
    return lib is not None


def set_num_threads(n: int) -> None:
    """Let a kernel use at most n threads. At the start: one for each core that the process may use."""
    global _threads
    if n < 1:
        raise ValueError(f"set_num_threads: n must be at least 1, got {n}")
    _threads = n


def get_num_threads() -> int:
    """The most threads that a kernel uses."""
    return _threads


@contextlib.contextmanager
def instruction_set(name: str) -> Iterator[str]:
    """Within it, kernels use at most this one of `ISAS`, in all threads; gives the one that is really in force."""
    if name not in ISAS:
        raise ValueError(f"instruction_set: name must be one of {', '.join(ISAS)}, got {name!r}")
    before = lib.tg_isa() if lib else 0
    try:
        yield ISAS[lib.tg_set_isa(ISAS.index(name))] if lib else "none"
    finally:
        if lib:
            lib.tg_set_isa(before)


def isa() -> str:
    """The instruction set in force, one of `ISAS`; "none" without the library."""
    return ISAS[lib.tg_isa()] if lib else "none"


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """Gives a list to which the name of each kernel is added that is called within it."""
    global _calls
    before, _calls = _calls, []
    try:
        yield _calls
    finally:
        _calls = before


@contextlib.contextmanager
def every_size() -> Iterator[list[str]]:
    """Within it kernels run however small the arrays are; gives the list of those that have run. For tests."""
    global SMALL, SMALL_PRODUCT
    before = SMALL, SMALL_PRODUCT
    SMALL = SMALL_PRODUCT = 0
    try:
        with watched() as calls:
            yield calls
    finally:
        SMALL, SMALL_PRODUCT = before


def accepts(*arrays: Any) -> bool:
    """Whether a kernel can take these arrays (None stands for one that was left out)."""
    if lib is None:
        _warn_once()
        return False
    kind, dtype = arrays[0].__class__, arrays[0].dtype
    if kind is not np.ndarray:
        if xp(arrays[0]) is np:
            kind = np.ndarray
        elif not cuda.has_kernels():
            return False
    alike = dtype in _DTYPES
    for a in arrays:  # all() of a generator takes twice as long
        alike = alike and (a is None or (isinstance(a, kind) and a.dtype == dtype))
    return alike


def _warn_once() -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            "tinygen: the C kernels were not built, so the NumPy definitions run, which are slower; install a C "
            "compiler and Python's headers, then tinygen again",
            RuntimeWarning,
            stacklevel=6,
        )


def _needs(kernel: str) -> tuple[Any, dict[Any, int], Any]:
    """A kernel, its dtypes and how to find an array's memory: of no dtype without the library."""
    return (getattr(lib, kernel), _DTYPES, ffi.from_buffer) if lib else (None, {}, None)


def short(kernel: str, longer: Callable[..., Any]) -> Callable[[Any], Any]:
    """A kernel (dtype, n, x, out, threads) that refuses nothing, on small arrays in C order: in half of the time.

    `longer` is called with all others. It runs on one thread and writes over a copy, which costs less than to find a
    second array's memory.
    """
    function, dtypes, memory_of = _needs(kernel)
    ndarray = np.ndarray

    def run(x: Any) -> Any:
        if x.__class__ is not ndarray or (dtype := dtypes.get(x.dtype)) is None:
            return longer(x)
        n = x.size
        if n >= SMALL or not x.flags.carray:
            return longer(x)
        if _calls is not None:
            _calls.append(kernel)
        out = x.copy()
        memory = memory_of(out)
        function(dtype, n, memory, memory, 1)
        return out

    return run


def short_of_two(kernel: str, longer: Callable[..., Any]) -> Callable[[Any, Any, Any], Any]:
    """`short` of a kernel (dtype, n, number, x, y, out, threads), for arrays of one shape and dtype and a float."""
    function, dtypes, memory_of = _needs(kernel)
    ndarray = np.ndarray

    def run(x: Any, y: Any, number: Any) -> Any:
        if x.__class__ is not ndarray or y.__class__ is not ndarray or number.__class__ is not float:
            return longer(x, y, number)
        n, kind = x.size, x.dtype
        dtype = dtypes.get(kind)
        if n >= SMALL or dtype is None or y.dtype is not kind or y.shape != x.shape:
            return longer(x, y, number)
        if not (x.flags.carray and y.flags.carray):
            return longer(x, y, number)
        if _calls is not None:
            _calls.append(kernel)
        out = x.copy()
        memory = memory_of(out)
        function(dtype, n, number, memory, memory_of(y), memory, 1)
        return out

    return run


def direct(kernel: str, n: int, fixed: tuple[float, ...], longer: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel (dtype, n, *numbers, *arrays, out, threads) that refuses nothing, on large arrays alike in memory.

    It takes n arrays, then the numbers, unless those are fixed; `longer` is called with all others. After a large
    kernel the caches hold nothing of what Python looks at, so each step costs a microsecond.
    """
    function, dtypes, memory_of = _needs(kernel)
    ndarray = np.ndarray

    def run(*args: Any) -> Any:
        x, numbers = args[0], fixed or args[n:]
        if x.__class__ is not ndarray or x.nbytes < pool.LARGE or (dtype := dtypes.get(x.dtype)) is None:
            return longer(*args)
        shape, kind, axes, values = x.shape, x.dtype, memory_order(x), []
        for number in numbers:
            if number.__class__ is not float:
                return longer(*args)
        for a in args[:n]:
            if a.__class__ is not ndarray or a.dtype is not kind or a.shape != shape:
                return longer(*args)
            flat = a.transpose(axes)
            if not flat.flags.carray:
                return longer(*args)
            values.append(memory_of(flat))
        if _calls is not None:
            _calls.append(kernel)
        out = pool.empty(shape, kind, x.strides)
        function(dtype, x.size, *numbers, *values, memory_of(out.base), _threads)
        return out

    return run


def call(kernel: str, model: Any, *arguments: Any) -> int:
    """Run a kernel of the model's dtype on the arrays' memory (arrays, None, structs, numbers): its answer."""
    dtype = _DTYPES[model.dtype]
    if _calls is not None:
        _calls.append(kernel)
    if not isinstance(model, np.ndarray):
        code = cuda.call(kernel, dtype, arguments)
    else:
        values = [ffi.from_buffer(a) if isinstance(a, np.ndarray) else ffi.NULL if a is None else a for a in arguments]
        code = getattr(lib, kernel)(dtype, *values, _threads)
    if code == lib.TG_NO_MEMORY:
        raise MemoryError(f"{kernel}: no memory for its scratch space")
    if code > 0:
        raise ValueError(f"{kernel}: sizes that no array can have")
    return code
