"""Names of sizes for a hint, and the smallest shapes that still fail."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tinygen.gradcheck.evidence import Evidence
from tinygen.gradcheck.report import GradcheckReport
from tinygen.gradcheck.subject import Subject
from tinygen.gradcheck.verdict import report_on


def subsets(axes: Sequence[int], most: int = 4) -> Iterator[tuple[int, ...]]:
    """All nonempty subsets of some axes, small ones first."""
    for n in range(1, min(len(axes), most) + 1):
        yield from itertools.combinations(axes, n)


LETTERS = {4: "NCHW", 3: "NTD", 2: "ND", 1: "N"}


def axis_name(e: Evidence, shape: tuple[int, ...], axis: int) -> str:
    """The name of an axis: its usual letter if the array is a batch, its number otherwise."""
    letters = LETTERS.get(len(shape), "")
    labels = [v for v in e.subject.values if isinstance(v, np.ndarray) and v.dtype.kind in "iu"]
    batch = next((v.shape[0] for v in (*e.outputs, *labels) if v.ndim), None)
    if shape[0] == batch and axis < len(letters):
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
                    return f"{f:.4g}" if text.isdigit() else f"{minus}{text} = {f:.4g}"
        for (a, x), (b, y) in itertools.product([*plain[1:], *simple, ("4", 4.0)], plain[1:] + simple):
            if np.isclose(f, sign * x / y, rtol=1e-5):
                return f"{minus}{a} / {b if ' ' not in b else f'({b})'} = {f:.4g}"
    return ""


def _cut(subject: Subject, size: int, to: int) -> Subject | None:
    """The same functions with every axis of one size cut to another; None if there is no such axis."""
    arrays = [v for v in subject.values if isinstance(v, np.ndarray)]
    if not any(size in v.shape for v in arrays):
        return None
    return subject.at([
        v[tuple(slice(0, to) if n == size else slice(None) for n in v.shape)] if isinstance(v, np.ndarray) else v
        for v in subject.values
    ])  # fmt: skip


def _outcome(subject: Subject | None) -> GradcheckReport | None:
    """A quick check; None if the function refuses such shapes."""
    if subject is None:
        return None
    report = report_on(subject, thorough=False)
    refused = report.verdict == "not run" or any(f.cause in ("raises", "hangs") for f in report.problems)
    return None if refused else report


def right_at_size_one(e: Evidence, size: int, i: int | None = None) -> bool:
    """True if the gradient of argument i (if left out, all) is right once every axis of that size has length 1."""
    if size not in e.cut:
        e.cut[size] = _outcome(_cut(e.subject, size, 1))
    report = e.cut[size]
    return report is not None and (bool(report) if i is None else e.subject.grad_name(i) in report.right)


def smallest(e: Evidence) -> dict[str, Any]:
    """The smallest shapes that still fail, each size cut to 1 or 2 in turn."""
    now = e.subject
    sizes = {n for v in now.values if isinstance(v, np.ndarray) for n in v.shape if n > 2}
    for size, to in itertools.product(sorted(sizes, reverse=True), (1, 2)):
        smaller = _cut(now, size, to)  # None the second time, if the first worked
        report = _outcome(smaller)
        if smaller is not None and report is not None and not report:
            now = smaller
    return {"smallest": now.describe()} if now is not e.subject else {}
