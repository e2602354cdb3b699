"""Elementwise kernels, on arrays in whatever order of memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

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


def of_one(kernel: str) -> Callable[[Any], Any]:
    """`run` of one array, by a shorter way for small ones: where NumPy needs several steps."""
    return library.short(kernel, partial(run, kernel))


def with_number(kernel: str) -> Callable[..., Any]:
    """`run` of arrays and, as the last argument, a number."""
    return lambda *args: run(kernel, *args[:-1], numbers=args[-1:])


def of_two(kernel: str) -> Callable[[Any, Any, Any], Any]:
    """The same of two arrays and a number, by a shorter way for small ones."""
    return library.short_of_two(kernel, with_number(kernel))
