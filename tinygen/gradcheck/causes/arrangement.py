"""Right numbers in the wrong place: of another argument, transposed, flipped, shifted, blocks in another order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from tinygen.gradcheck.causes.guess import Guess, right_gradient, true_gradient, with_upstream
from tinygen.gradcheck.evidence import Evidence, Mismatch
from tinygen.gradcheck.shapes import axis_name, subsets

Array = Any


def swapped(e: Evidence, s: Mismatch) -> Iterator[Guess]:
    """The gradient of another argument."""
    for other in e.mismatches:
        if other.i != s.i and other.shape == s.shape and other.full and s.full:
            yield Guess(
                other.true, f"what is returned here is {e.subject.grad_name(other.i)}: check the order of return"
            )


def transposed(e: Evidence, s: Mismatch) -> Iterator[Guess]:
    """Axes exchanged, or a reshape where a transpose belongs."""
    true = true_gradient(s) if s.full else None
    if true is None or true.ndim < 2:
        return
    for axes in list(itertools.permutations(range(true.ndim)))[1:]:
        turned = true.transpose(axes)
        if turned.shape == true.shape:
            yield Guess(turned.ravel(), f"it is the right one transposed: axes {axes}")
        yield Guess(
            turned.ravel(),
            f"its numbers are right but in the order of axes {axes}: reshape doesn't move axes, transpose does",
        )


def flipped(e: Evidence, s: Mismatch) -> Iterator[Guess]:
    """Turned round along some axes."""
    if s.full:
        true = true_gradient(s)
        for axes in subsets([a for a in range(true.ndim) if true.shape[a] > 1]):
            turn = " (turned by 180 degrees)" if len(axes) == 2 else ""
            yield Guess(
                np.flip(true, axes).ravel(),
                f"it is the right one reversed along axes {axes}{turn}: drop the flip, or add the missing one",
            )
    for k, u in enumerate(e.upstream):
        for axis in range(u.ndim):
            if u.shape[axis] > 1:
                hint = f"the upstream gradient is read in reverse along {axis_name(e, u.shape, axis)}"
                yield Guess(right_gradient(s, with_upstream(e, k, np.flip(u, axis))), hint)


def shifted(e: Evidence, s: Mismatch) -> Iterator[Guess]:
    """Moved along some axes: compared where both overlap."""
    for k, u in enumerate(e.upstream):
        for axis, by in itertools.product(range(u.ndim), (1, -1)):
            if u.shape[axis] > 1:
                rolled = np.roll(u, by, axis)
                told = axis_name(e, u.shape, axis)
                hint = f"the upstream gradient is read one step off ({-by:+d}, wrapping round) along {told}"
                yield Guess(right_gradient(s, with_upstream(e, k, rolled)), hint)
                edge = [slice(None)] * u.ndim
                edge[axis] = slice(0, 1) if by > 0 else slice(-1, None)
                rolled = rolled.copy()
                rolled[tuple(edge)] = 0
                yield Guess(right_gradient(s, with_upstream(e, k, rolled)), hint)
    if not s.full:
        return
    true = true_gradient(s)
    for axes in subsets([a for a in range(true.ndim) if true.shape[a] > 2], 2):
        for by in (1, -1, 2, -2):
            moved, seen = np.roll(true, [by] * len(axes), axes), np.ones(s.shape, bool)
            for a in axes:
                at = np.arange(s.shape[a]).reshape([-1 if b == a else 1 for b in range(true.ndim)])
                seen &= (at >= by) & (at < s.shape[a] + by)
            if seen.sum() >= max(4, 0.25 * seen.size) and np.abs(moved[seen]).max() > 0:
                hint = f"it is the right one moved by {by:+d} along axes {axes}: is an offset (padding) left out?"
                yield Guess(moved.ravel(), hint, mask=seen.ravel())


def permuted(e: Evidence, s: Mismatch) -> Iterator[Guess]:
    """Blocks (the gates of an LSTM) in another order than forward's."""
    if not s.full:
        return
    true = true_gradient(s)
    for axis, blocks in itertools.product(reversed(range(true.ndim)), (4, 3, 2)):
        if true.shape[axis] % blocks or true.shape[axis] <= blocks:
            continue
        parts = np.split(true, blocks, axis)
        for order in list(itertools.permutations(range(blocks)))[1:]:
            mixed = np.concatenate([parts[b] for b in order], axis)
            yield Guess(
                mixed.ravel(),
                f"the {blocks} blocks (gates?) of axis {axis} stand in another order than in forward: {order}",
            )
