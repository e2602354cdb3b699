"""Mistakes with the upstream gradient: it is ignored, used twice, or only a part of it arrives."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tinygen.gradcheck.causes.guess import Guess, claimed_for, right_gradient, with_upstream
from tinygen.gradcheck.evidence import Evidence, Mismatch
from tinygen.gradcheck.shapes import axis_name, subsets

Array = Any


def upstream_ignored(e: Evidence, s: Mismatch) -> Iterator[Guess]:
    """The same answer whatever comes from above."""
    if e.subject.upstream and np.any(s.claimed):
        other = claimed_for(e, s, [-3 * u[..., ::-1] if u.ndim else -3 * u for u in e.upstream])
        if other is not None and np.allclose(other, s.claimed, rtol=1e-9):
            yield Guess(s.claimed, "it doesn't depend on the upstream gradient: multiply by it (chain rule)")


def not_linear(e: Evidence, s: Mismatch) -> Iterator[Guess]:
    """A gradient is linear in the upstream gradient: B(2u) = 2 B(u), B(-u) = -B(u)."""
    if not e.subject.upstream:
        return
    for k, words in ((2.0, ""), (-1.0, "the sign of ")):
        other = claimed_for(e, s, [k * u for u in e.upstream])
        if other is not None and not np.allclose(other, k * s.claimed, rtol=1e-6, atol=1e-9 * np.abs(s.claimed).max()):
            what = "it contains the upstream gradient more than once" if np.allclose(other, k * k * s.claimed) else (
                f"it depends on {words}the upstream gradient in another way than by a factor"
            )  # fmt: skip
            yield Guess(s.claimed, f"not linear in the upstream gradient: {what}; use it once, as a plain factor")


def missing_output(e: Evidence, s: Mismatch) -> Iterator[Guess]:
    """With several outputs: one of them was forgotten."""
    for k in range(len(e.upstream) if len(e.upstream) > 1 else 0):
        hint = f"the path through {e.subject.outputs[k]} is missing: its upstream gradient never arrives here"
        yield Guess(right_gradient(s, with_upstream(e, k, 0 * e.upstream[k])), hint)


def recurrence(e: Evidence, s: Mismatch) -> Iterator[Guess]:
    """Each step only hears its own upstream gradient."""
    if not s.full:
        return
    for k, u in enumerate(e.upstream):
        for out_axis, axis in itertools.product(range(1, u.ndim), range(1, len(s.shape))):
            steps = u.shape[out_axis]
            if steps < 2 or s.shape[axis] != steps:
                continue
            own = np.zeros(s.shape)
            for t in range(steps):
                only = np.zeros_like(u)
                at: list[Any] = [slice(None)] * u.ndim
                to: list[Any] = [slice(None)] * len(s.shape)
                at[out_axis] = to[axis] = t
                only[tuple(at)] = u[tuple(at)]
                rest = [only if j == k else 0 * v for j, v in enumerate(e.upstream)]
                own[tuple(to)] = right_gradient(s, rest).reshape(s.shape)[tuple(to)]
            told = axis_name(e, u.shape, out_axis)
            hint = f"no gradient flows back from step to step along {told}: add what the later step returns"
            yield Guess(own.ravel(), hint)


def _parts(u: Array, sizes: set[int]) -> Iterator[tuple[str, dict[int, slice], str]]:
    """Parts of an output: words, axes and slices, and the cause that they speak for."""
    axes = [a for a in range(u.ndim) if u.shape[a] > 1]
    for some in subsets(axes):
        yield "the first", {a: slice(0, 1) for a in some}, "only part"
        yield "the last", {a: slice(-1, None) for a in some}, "only part"
    for some in subsets(axes, 2):
        if all(u.shape[a] > 2 for a in some):
            yield "the inner part", {a: slice(1, -1) for a in some}, "border"
        yield "all but the first", {a: slice(1, None) for a in some}, "border"
        yield "all but the last", {a: slice(0, -1) for a in some}, "border"
    for a in axes:
        for n in sizes:
            if 1 < n < u.shape[a]:
                yield (
                    f"the first {n} (the size of another axis: rows and columns mixed up?)",
                    {a: slice(0, n)},
                    "non-square",
                )


def part_row(cause: str) -> Callable[[Evidence, Mismatch], Iterator[Guess]]:
    """The row for one cause: only a part of the upstream gradient is used."""

    def row(e: Evidence, s: Mismatch) -> Iterator[Guess]:
        for k, u in enumerate(e.upstream):
            for words, where, named in _parts(u, {*u.shape}):
                if named == cause:
                    part = np.zeros_like(u)
                    at = tuple(where.get(a, slice(None)) for a in range(u.ndim))
                    part[at] = u[at]
                    told = " and ".join(axis_name(e, u.shape, a) for a in where)
                    hint = (
                        f"only {words} of the upstream gradient along {told} is used: check the loop's range or the sum"
                    )
                    yield Guess(right_gradient(s, with_upstream(e, k, part)), hint)

    return row


def overwritten(e: Evidence, s: Mismatch) -> Iterator[Guess]:
    """Where several outputs contribute to an element only one is kept: `=` for `+=`."""
    parts = e.weights[:, None] * s.jacobian
    counts = np.abs(parts) > 1e-9 * np.abs(parts).max(axis=0)
    if (counts.sum(axis=0) > 1)[s.wrong].any():
        last = len(parts) - 1 - counts[::-1].argmax(axis=0)  # loops run forward: the last one stays
        kept = np.where(s.wrong, np.take_along_axis(parts, last[None], 0)[0], s.true)
        nothing: Array = s.wrong & (s.claimed == 0)  # the last contribution may be a zero of the padding
        if (s.wrong & ~nothing).any():
            kept = np.where(nothing, 0, kept)
        yield Guess(
            kept,
            "each element keeps the last of several contributions: `=` for `+=` (with repeated indices: np.add.at)",
        )
