"""Elementwise kernels, on arrays in whatever order of memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    axes, inputs = memory_order(last), []
    for a in arrays:
        if a.shape != last.shape:
            return NotImplemented
        inputs.append(a.transpose(axes))
    if not inputs[-1].flags.c_contiguous:
        return NotImplemented
    inputs = [layout.contiguous(a) for a in inputs]
    out = new(inputs[0].shape, last)
    library.call(kernel, last, last.size, *numbers, *inputs, out)
    return out.transpose(inverse(axes))


def of(kernel: str, *fixed: float, arrays: int = 1) -> Callable[..., Any]:
    """`run` of so many arrays and the numbers after them, unless these are fixed: by a shorter way for large arrays."""

    def longer(*args: Any) -> Any:
        numbers = fixed or args[arrays:]
        if not all(isinstance(number, (int, float)) for number in numbers):
            return NotImplemented
        return run(kernel, *args[:arrays], numbers=numbers)

    return library.direct(kernel, arrays, fixed, longer)


def of_one(kernel: str) -> Callable[[Any], Any]:
    """The same of one array, by a shorter way for small ones, too: where NumPy needs several steps."""
    return library.short(kernel, of(kernel))


def of_two(kernel: str) -> Callable[[Any, Any, Any], Any]:
    """The same of two arrays and a number."""
    return library.short_of_two(kernel, of(kernel, arrays=2))
