"""One gradient against finite differences: along a random direction first, element by element where that disagrees."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygen.gradcheck.evidence import Evidence, Mismatch
from tinygen.gradcheck.numeric import EPS, scale_of
from tinygen.gradcheck.values import same

Array = Any

RTOL = 1e-6  # a relative difference below this is never called wrong
ALONG = 1e-8  # along a direction: tighter, since one wrong element is diluted there; beyond it the elements decide
SAMPLE = 100  # so many elements of a large argument at random, and those that halving finds
CONFIRM = 24  # so many mismatches are put on the ladder of steps before the verdict


def compare(e: Evidence, i: int, g: Array, rng: np.random.Generator, many: int, noise: list[Any]) -> None:
    """Sort argument i into e.right or e.mismatches.

    Args:
        g: its gradient; many: so many of its elements may be looked at one by one.
        noise: the rounding errors of all gradients, filled in by the first argument that needs them.
    """
    x = e.subject.values[i]
    claimed = g.astype(np.float64, copy=False)
    direction = rng.standard_normal(x.shape) * scale_of(x)
    slope = e.differences.quick(i, direction)
    along = float(np.vdot(claimed, direction))
    size = abs(along) + abs(slope.value)
    off = abs(along - slope.value)
    tiny = 1e-9 * float(np.linalg.norm(e.weights * e.differences.base))  # for gradients that cancel to zero
    if (off <= ALONG * size and slope.bound <= 1e-3 * size) or off <= slope.bound <= tiny:
        e.right.append(i)
        e.compared[i] = x.size
        return
    if not noise:
        noise += _rounding(e)
    own = noise[e.subject.wrt.index(i)]
    best = e.differences.along(i, direction)
    slack = float(np.abs(own * direction).sum())
    close = abs(along - best.value) <= 4 * best.bound + ALONG * size + slack
    if close and best.bound <= max(1e-3 * size, tiny) + slack:
        e.right.append(i)
        e.compared[i] = x.size
        return
    which = np.arange(x.size)
    many = max(many, SAMPLE // 2)
    if x.size > many:
        found = _locate(e, i, claimed, direction)
        some = rng.choice(x.size, min(SAMPLE, many), replace=False)
        which = np.union1d(some, np.arange(found, min(found + 8, x.size)))
    mismatch = _elementwise(e, i, claimed, own, which, best.step)
    e.compared[i] = len(which) - mismatch.undecided
    if mismatch.wrong.any():
        e.mismatches.append(mismatch)
    else:
        e.right.append(i)


def _rounding(e: Evidence) -> list[Array]:
    """How far each gradient moves when its inputs do by a rounding error: what backward's own arithmetic may cost."""
    rng = np.random.default_rng(1)
    shaken = []
    short = all(same(o, o.astype(np.float32).astype(np.float64)) for o in e.outputs)
    round_numbers = all(same(o * 1024, np.round(o * 1024)) for o in e.outputs)
    low = any(getattr(g, "dtype", None) == np.float32 for g in e.grads) or (short and not round_numbers)
    eps = 1.2e-7 if low else EPS
    for _ in range(3):
        values = list(e.subject.values)
        for i in e.subject.wrt:
            values[i] = values[i] * (1 + eps * rng.uniform(-2, 2, values[i].shape))
        upstream = [u * (1 + eps * rng.uniform(-2, 2, u.shape)) if e.subject.upstream else u for u in e.upstream]
        shaken.append(e.subject.pull(values, upstream)[0])
    result: list[Any] = []
    for k, g in enumerate(e.grads):
        moved = [s[k] for s in shaken]
        if g is None or any(m is None or np.shape(m) != np.shape(g) for m in moved):
            result.append(0.0)
            continue
        spread = np.max([np.abs(np.asarray(m, float) - np.asarray(g, float)) for m in moved], axis=0)
        # an element may be lucky: take the typical spread into account too; a jump (a kink) isn't noise
        size = float(np.max(np.abs(np.asarray(g, float)), initial=0))
        calm = np.where(spread < 1e-2 * size + 1e3 * eps, spread, 0)
        result.append(4 * (calm + float(np.mean(calm))) + 4 * eps * size * (1 if low else 0))
    return result


def _locate(e: Evidence, i: int, claimed: Array, direction: Array) -> int:
    """An element (or the first of eight) that is wrong, by halving a direction that disagrees."""
    low, high = 0, direction.size
    while high - low > 8:
        middle = (low + high) // 2
        left = np.zeros_like(direction)  # by index: reshape of a non-contiguous array would be a copy
        left[np.unravel_index(np.arange(low, middle), left.shape)] = direction[
            np.unravel_index(np.arange(low, middle), left.shape)
        ]
        right = np.zeros_like(direction)
        right[np.unravel_index(np.arange(middle, high), left.shape)] = direction[
            np.unravel_index(np.arange(middle, high), left.shape)
        ]
        errors: list[float] = []
        for half in (left, right):
            slope = e.differences.quick(i, half)
            errors.append(
                abs(slope.value - float(np.vdot(claimed, half))) / (slope.bound + RTOL * abs(slope.value) + 1e-300)
            )
        low, high = (low, middle) if errors[0] >= errors[1] else (middle, high)
    return low


def _elementwise(e: Evidence, i: int, claimed: Array, own: Any, which: Array, step: float) -> Mismatch:
    """Compare element by element; mismatches are put on the ladder before they count as wrong."""
    x = e.subject.values[i]
    step = min(max(step, 1e-6), 1e-2) if step else 1e-5
    columns = e.differences.columns(i, which, step)
    true = e.weights @ columns.jacobian
    flat = claimed.ravel()[which]
    own = np.broadcast_to(own, x.shape).ravel()[which]
    bound = columns.bound + own
    tolerance = 4 * bound + RTOL * (np.abs(flat) + np.abs(true)) + 1e-9 * float(np.max(np.abs(true), initial=0))
    beyond = np.abs(flat - true) > tolerance
    kink = (
        beyond & (flat >= columns.low - own - RTOL * np.abs(flat)) & (flat <= columns.high + own + RTOL * np.abs(flat))
    )
    wrong = (beyond & ~kink) | ~np.isfinite(true)
    if kink.any():
        k = int(np.argmax(kink))
        index = np.unravel_index(which[k], x.shape)
        place = f"{e.subject.names[i]}[{', '.join(map(str, index))}]"
        e.kinks.append(
            f"kink at {place} = {x[index]:.4g}: slopes {columns.low[k]:.4g} and {columns.high[k]:.4g}, yours "
            f"{flat[k]:.4g} is between them: fine" + (f" ({int(kink.sum())} such)" if kink.sum() > 1 else "")
        )
    mismatch = Mismatch(i, flat, true, bound, wrong, which, columns.jacobian, x.shape)
    large = np.abs(flat - true) > 1e-3 * max(np.max(np.abs(true), initial=0), np.max(np.abs(flat), initial=0))
    mismatch.undecided = int(np.count_nonzero(large & ~beyond))
    _confirm(e, mismatch, own)
    return mismatch


def _confirm(e: Evidence, s: Mismatch, own: Array) -> None:
    """Put the worst mismatches on the ladder until one is certainly wrong; clear those that aren't."""
    order = np.argsort(-np.where(s.wrong, np.abs(s.claimed - s.true) / (s.bound + 1e-300), -1))
    for count, k in enumerate(order[: int(s.wrong.sum())]):
        index = tuple(int(j) for j in np.unravel_index(s.which[k], s.shape))
        slope = e.differences.at(s.i, index)
        size = abs(s.claimed[k]) + abs(slope.value)
        bound = slope.bound + own[k]
        exact = e.differences.complex_at(s.i, index) if bound > 1e-4 * size else None
        if exact and abs(exact - slope.value) <= 2 * slope.bound:
            bound, slope = own[k] + 1e-12 * abs(exact), slope._replace(value=exact)
        off = abs(s.claimed[k] - slope.value)
        below = 1e-10 if slope.value == 0 else 100 * EPS
        if abs(s.claimed[k]) + abs(slope.value) < below * np.abs(e.weights).max(initial=0):
            off = 0.0  # a saturated function, whose true slope is lost in rounding
        if off > 4 * bound + RTOL * size and not _kink_nearby(e, s, int(k), own):
            s.true[k], s.bound[k] = slope.value, bound
            return  # one is certain: the others stand
        s.wrong[k] = False
        undecided = bound > 1e-2 * size and off > 1e-3 * size
        s.undecided += undecided
        if undecided and not e.unsure:
            place = f"{e.subject.grad_name(s.i)}[{', '.join(map(str, index))}]"
            e.unsure.append(
                f"{place} can't be decided: yours {s.claimed[k]:.4g}, "
                f"finite differences {slope.value:.4g} +- {bound:.1g}"
            )
        if count >= 4 * CONFIRM:
            s.undecided += int(s.wrong.sum())
            s.wrong[:] = False
            return


def _kink_nearby(e: Evidence, s: Mismatch, k: int, own: Array) -> bool:
    """True if one-sided slopes at other step widths enclose the claimed gradient."""
    for step in (1e-4, 1e-6, 1e-8):
        c = e.differences.columns(s.i, s.which[k : k + 1], step)
        slack = own[k] + RTOL * abs(s.claimed[k])
        gap = c.high[0] - c.low[0]
        if c.low[0] - slack <= s.claimed[k] <= c.high[0] + slack and gap > 1e-4 * (abs(c.low[0]) + abs(c.high[0])):
            return True
    return False
