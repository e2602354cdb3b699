"""Which elements are wrong, where it is not known why: a gate, a time step, a channel, the border."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tinygen.gradcheck.causes.guess import Guess, true_gradient
from tinygen.gradcheck.evidence import Evidence, Mismatch
from tinygen.gradcheck.shapes import axis_name, factor_name, right_at_size_one

Array = Any


def _wrong_along(s: Mismatch) -> list[Array]:
    """For each axis, the indices at which anything is wrong."""
    wrong = np.zeros(s.shape, bool)
    wrong.ravel()[s.which[s.wrong]] = True
    return [np.flatnonzero(wrong.any(axis=tuple(b for b in range(wrong.ndim) if b != a))) for a in range(wrong.ndim)]


def time_step(e: Evidence, s: Mismatch) -> Iterator[Guess]:
    """Wrong at some steps of a sequence."""
    if s.full and len(s.shape) == 3:
        at, last = _wrong_along(s)[1], s.shape[1] - 1
        if len(at) == 1 and last:
            hint = f"wrong only at step {at[0]} of axis 1"
            hint += ": index t - 1 at t = 0 is -1, the last step; use the initial state" if at[0] == 0 else ""
            yield Guess(s.claimed, hint)


def later_steps(e: Evidence, s: Mismatch) -> Iterator[Guess]:
    """Right at the last step of a sequence, wrong at all before."""
    if s.full and len(s.shape) == 3:
        at, last = _wrong_along(s)[1], s.shape[1] - 1
        if last and (list(at) == list(range(last)) or (len(at) == last + 1 and right_at_size_one(e, s.shape[1]))):
            hint = (
                "right at the last step, wrong before" if len(at) == last else "right for one step, wrong for several"
            )
            yield Guess(
                s.claimed, f"{hint}: what a step hands back to the one before is lost or comes in the wrong order"
            )


def gate(e: Evidence, s: Mismatch) -> Iterator[Guess]:
    """Wrong in one of four (or three) blocks of columns."""
    if s.full and len(s.shape) <= 2:
        at, n = _wrong_along(s)[-1], s.shape[-1]
        for blocks in (4, 3):
            width = n // blocks
            known = {d for v in e.subject.values if isinstance(v, np.ndarray) for d in v.shape}
            if n % blocks == 0 and width in known and len({k // width for k in at}) == 1:
                b = int(at[0] // width)
                hint = f"wrong only in columns {b * width}:{b * width + width} (block {b} of {blocks}), one gate"
                part = (slice(None),) * (len(s.shape) - 1) + (slice(b * width, (b + 1) * width),)
                c, t = s.claimed.reshape(s.shape)[part].ravel(), true_gradient(s)[part].ravel()
                f = float(c @ t) / float(t @ t) if np.any(t) else 1.0
                if np.allclose(c, f * t, rtol=1e-5):
                    hint += f"; it is {factor_name(e, f) or f'{f:.4g}'} times the right one"
                yield Guess(s.claimed, hint)


def channel(e: Evidence, s: Mismatch) -> Iterator[Guess]:
    """Wrong in some channels or filters."""
    if s.full and len(s.shape) == 4:
        for axis in (1, 0):
            at = _wrong_along(s)[axis]
            if 0 < len(at) < s.shape[axis]:
                yield Guess(
                    s.claimed, f"wrong only at {list(map(int, at))} of {axis_name(e, s.shape, axis)}: check that index"
                )
        claimed = s.claimed.reshape(s.shape)
        silent = [c for c in range(s.shape[1]) if not np.any(claimed[:, c])]
        if silent:
            yield Guess(s.claimed, f"channels {silent} get no gradient: check the channel index")


def border(e: Evidence, s: Mismatch) -> Iterator[Guess]:
    """Wrong only near the edges of an image."""
    if s.full and len(s.shape) == 4:
        wrong = s.wrong.reshape(s.shape)
        for width in (1, 2):
            if min(s.shape[2:]) > 2 * width and not wrong[:, :, width:-width, width:-width].any():
                yield Guess(
                    s.claimed, f"wrong only within {width} of the border: check the padding and the loops' ranges"
                )


def some_slice(e: Evidence, s: Mismatch) -> Iterator[Guess]:
    """Wrong at some indices of an axis and right at the others."""
    if s.full or s.wrong.sum() >= 3:
        for axis, at in enumerate(_wrong_along(s)):
            if 0 < len(at) <= (s.shape[axis] // 2 if s.full else 1):
                yield Guess(s.claimed, f"wrong only at {list(map(int, at))[:6]} of {axis_name(e, s.shape, axis)}")


def not_added_up(e: Evidence, s: Mismatch) -> Iterator[Guess]:
    """A parameter's gradient that is right for one step (example) and wrong for several, while dx is right."""
    right = [e.subject.values[i] for i in e.right]
    for size in sorted({n for v in right for n in v.shape[:2] if n > 1 and v.ndim > 1} - {*s.shape}):
        if right_at_size_one(e, size, s.i):
            yield Guess(
                s.claimed,
                f"right if the axis of size {size} has length 1: it isn't added up over that axis (`=` for `+=`)",
            )
