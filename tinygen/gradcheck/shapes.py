"""What sizes are called in a hint, and which smaller shapes still fail."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tinygen.gradcheck.examine import Evidence, examine


def subsets(axes: Sequence[int], most: int = 4) -> Iterator[tuple[int, ...]]:
    """All nonempty subsets of some axes, small ones first."""
    for n in range(1, min(len(axes), most) + 1):
        yield from itertools.combinations(axes, n)


LETTERS = {4: "NCHW", 3: "NTD", 2: "ND", 1: "N"}


def axis_name(e: Evidence, shape: tuple[int, ...], axis: int) -> str:
    """What an axis is called: its usual letter if the array is a batch, its number otherwise."""
    batch = next((v.shape[0] for v in e.subject.values if isinstance(v, np.ndarray) and v.ndim), None)
    letters = LETTERS.get(len(shape), "")
    if shape and shape[0] == batch and axis < len(letters):
        return f"{letters[axis]} (axis {axis}, size {shape[axis]})"
    return f"axis {axis} (size {shape[axis]})"


def scalars(e: Evidence) -> dict[str, float]:
    """Plain numbers among the arguments, one level deep: stride, pad, reg, p ..."""
    found: dict[str, float] = {}
    for name, v in zip(e.subject.names, e.subject.values, strict=True):
        items = v.items() if isinstance(v, dict) else [(name, v)]
        found |= {k: float(n) for k, n in items if isinstance(n, (int, float)) and not isinstance(n, bool)}
    return found


def factor_name(e: Evidence, f: float) -> str:
    """A factor in words: "1/N, N = 3 (axis 0 of x)"; empty if it is no combination of sizes."""
    sizes: dict[str, float] = {}
    arrays = [(n, v.shape) for n, v in zip(e.subject.names, e.subject.values, strict=True) if isinstance(v, np.ndarray)]
    arrays += [(n, o.shape) for n, o in zip(e.subject.outputs, e.outputs, strict=False)]
    for name, shape in arrays:
        for axes in subsets(range(len(shape)), 3):
            words = " * ".join(f"{name}.shape[{a}]" for a in axes)
            sizes.setdefault(words, float(np.prod([shape[a] for a in axes])))
    numbers = scalars(e)
    sizes |= numbers
    sizes |= {f"{a} * {b}": numbers[a] * numbers[b] for a, b in itertools.combinations(numbers, 2)}
    plain = [("1", 1.0), ("2", 2.0)]
    simple = [(w, v) for w, v in sizes.items() if v not in (0.0, 1.0)]
    for sign, minus in ((1, ""), (-1, "-")):
        options = [*plain, *simple, ("4", 4.0), ("3", 3.0)]
        for words, value in options:
            for text, candidate in ((words, value), (f"1/({words})" if " " in words else f"1/{words}", 1 / value)):
                if np.isclose(f, sign * candidate, rtol=1e-5):
                    return f"{minus}{text} = {f:.4g}"
        for (a, x), (b, y) in itertools.product([*plain[1:], *simple, ("4", 4.0)], plain[1:] + simple):
            if np.isclose(f, sign * x / y, rtol=1e-5):
                return f"{minus}{a} / {b if ' ' not in b else f'({b})'} = {f:.4g}"
    return ""


def _shrunk(e: Evidence, size: int, to: int) -> list[Any] | None:
    """The arguments with every axis of a size cut to another."""
    values = [
        v[tuple(slice(0, to) if n == size else slice(None) for n in v.shape)] if isinstance(v, np.ndarray) else v
        for v in e.subject.values
    ]
    return values if any(isinstance(v, np.ndarray) and size in v.shape for v in e.subject.values) else None


def _fails(e: Evidence, values: list[Any], i: int | None = None) -> bool | None:
    """Whether the check fails on other values; None if they don't fit."""
    smaller = e.subject.at(values)
    if any(np.prod(values[j].shape) == 0 for j in smaller.wrt):
        return None
    report = examine(smaller, thorough=False, diagnose=False, budget=1.0)
    if report.verdict == "not run" or any(f.cause in ("raises", "hangs") for f in report.findings):
        return None
    return not report if i is None else e.subject.grad_name(i) not in report.right


def right_at_size_one(e: Evidence, size: int, i: int | None = None) -> bool:
    values = _shrunk(e, size, 1)
    return values is not None and _fails(e, values, i) is False


def smallest(e: Evidence) -> dict[str, Any]:
    """The smallest shapes that still fail, each size cut to 1 or 2 in turn."""
    now = e
    cut = False
    for size in sorted(
        {n for v in e.subject.values if isinstance(v, np.ndarray) for n in v.shape if n > 2}, reverse=True
    ):
        for to in (1, 2):
            values = _shrunk(now, size, to)
            if values is not None and _fails(now, values):
                now = _At(now, values)
                cut = True
                break
    return {"smallest": now.subject.describe()} if cut else {}


class _At(Evidence):
    """The same subject on other values."""

    def __init__(self, e: Evidence, values: list[Any]) -> None:
        self.__dict__.update(e.__dict__)
        self.subject = e.subject.at(values)
