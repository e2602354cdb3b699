"""Arguments, outputs and gradients as values: copied, compared, described."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinygen.gradcheck.sandbox import Trouble

Array = Any


def is_float_array(value: Any) -> bool:
    """True for a nonempty array of floats: a gradient by it makes sense."""
    return isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size > 0


def float64(value: Any) -> Any:
    """A float array as float64 in its own memory order; anything else as it is."""
    return value.astype(np.float64, copy=False) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value


def as_floats(value: Any) -> Array | None:
    """Numbers in another form (integers, objects, a list, a float) as a float64 array; None if they are no numbers."""
    if isinstance(value, (np.ndarray, list, float, np.number)):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            array = np.asarray(value)
            if array.size and array.dtype.kind in "iufO":
                return array.astype(np.float64)
    return None


def kind(value: Any) -> str:
    """A value's type in words: "an array of int64", "a list"."""
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}" if value.size else "an empty array"
    return f"a{'n' if type(value).__name__[0] in 'aeiou' else ''} {type(value).__name__}"


def fresh(value: Any) -> Any:
    """A copy that foreign code may change."""
    if isinstance(value, np.ndarray):
        return value.copy(order="K")
    return copy.deepcopy(value) if isinstance(value, (dict, list)) else value


def same(a: Array, b: Array) -> bool:
    """Equal, NaN counting as itself."""
    return a.shape == b.shape and bool(np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"))


def describe(names: Sequence[str], values: Sequence[Any]) -> str:
    """`x (3, 4), w (4, 5), stride 2`."""
    words = []
    for name, v in zip(names, values, strict=True):
        if isinstance(v, np.ndarray):
            words.append(f"{name} {v.shape}" if v.ndim != 1 else f"{name} ({len(v)},)")
        elif isinstance(v, dict):
            words += [f"{k} {w:.4g}" for k, w in v.items() if isinstance(w, (int, float))]
        elif isinstance(v, (int, float)):
            words.append(f"{name} {v:.4g}")
    return ", ".join(words)


def output_array(value: Any) -> Array:
    try:
        array = np.asarray(value)
        return array if array.dtype.kind == "c" else array.astype(np.float64)
    except (TypeError, ValueError):
        kind = type(value).__name__
        raise Trouble("forward", "raises", f"an output is {kind}, which is not an array of numbers") from None


def snapshot(cache: Any) -> Any:
    try:
        return copy.deepcopy(cache)
    except Exception:  # a cache may hold anything
        return None


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and same(a, b)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    return True


def shared_memory(grads: list[Any], names: list[str], others: list[str], arrays: list[Any]) -> list[str]:
    notes = []
    for name, g in zip(names, grads, strict=True):
        for other, a in zip(others, arrays, strict=False):
            if isinstance(g, np.ndarray) and isinstance(a, np.ndarray) and np.may_share_memory(g, a):
                notes.append(f"d{name} shares its memory with {other}: changing one in place changes the other")
                break
    return notes
