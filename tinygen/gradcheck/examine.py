"""The examination: is a gradient right? If not, tinygen.gradcheck.causes says why.

Cheap first: one random upstream gradient, one backward run, one random direction for each argument. Only a mismatch
brings out the elementwise derivatives, the ladder of steps, and the diagnosis.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinygen.gradcheck.numeric import EPS, Differences, scale_of
from tinygen.gradcheck.report import Finding, Report
from tinygen.gradcheck.subject import Subject, Trouble, same

Array = Any

RTOL = 1e-6  # a relative difference below this is never called wrong
ALONG = 1e-8  # along a direction: tighter, since one wrong element is diluted there; beyond it the elements decide
MANY = 1500  # at most so many elements of an argument are looked at one by one; of a larger one:
SAMPLE = 100  # so many at random, and what halving finds
MEMORY = 4e6  # numbers in a Jacobian; what doesn't fit is sampled
CONFIRM = 24  # so many suspects are put on the ladder of steps before the verdict


@dataclass
class Suspect:
    """An argument whose gradient doesn't agree with finite differences."""

    i: int  # its position among the arguments
    claimed: Array  # flat; the looked-at elements only
    true: Array
    bar: Array
    wrong: Array  # bools
    which: Array  # flat indices of the looked-at elements
    jacobian: Array  # (outputs, looked-at elements)
    shape: tuple[int, ...]

    @property
    def full(self) -> bool:
        """Whether every element was looked at."""
        return len(self.which) == int(np.prod(self.shape))

    def worst(self) -> int:
        """The position of the largest error, measured by its bar and the size of the gradient."""
        return int(np.argmax(np.where(self.wrong, np.abs(self.claimed - self.true), -1)))


@dataclass
class Evidence:
    """All that the diagnosis may look at."""

    subject: Subject
    upstream: list[Array]
    weights: Array  # upstream, flattened
    outputs: list[Array]
    differences: Differences
    grads: list[Any]  # as returned
    suspects: list[Suspect] = field(default_factory=list)
    odd: list[Suspect] = field(default_factory=list)  # gradients of the wrong shape; claimed is the array itself
    right: list[int] = field(default_factory=list)
    kinks: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)
    probes: dict[int, Report | None] = field(default_factory=dict)  # reports with all axes of a size cut to 1


def examine(subject: Subject, generator: np.random.Generator | None = None, budget: float = 20.0,
            thorough: bool = True, diagnose: bool = True) -> Report:  # fmt: skip
    """Check a subject's gradients and, if they are wrong, find out why.

    Args:
        generator: draws the upstream gradient and the directions; default_rng(0) if left out.
        budget: seconds for the elementwise derivatives; what doesn't fit is sampled.
        thorough: also call backward twice and with a non-contiguous upstream gradient.
        diagnose: look for the cause. Otherwise only the verdict and the worst elements.
    """
    start = time.perf_counter()
    report = Report(subject.name, shapes=subject.describe())
    with subject.box():
        try:
            _examine(subject, report, generator or np.random.default_rng(0), budget, thorough, diagnose)
        except Trouble as e:
            blameless = e.stage == "forward" or (not subject.upstream and e.finding.cause in ("raises", "hangs"))
            report.verdict = "not run" if blameless else "wrong"
            report.findings.append(e.finding)
    printed = subject.box.printed.getvalue()
    if printed:
        report.notes.append(f"it printed {len(printed)} characters: {printed.strip()[:40]!r}")
    report.seconds = time.perf_counter() - start
    return report


def _examine(subject: Subject, report: Report, generator: np.random.Generator, budget: float,
             thorough: bool, diagnose: bool) -> None:  # fmt: skip
    began = time.thread_time()  # not the wall clock: what is looked at shouldn't depend on other programs
    outputs = subject.forward(subject.values)
    took = max(time.thread_time() - began, 1e-6)
    if thorough and not all(map(same, outputs, subject.forward(subject.values))):
        raise Trouble("forward", "not repeatable", "forward gives another answer each time: fix its random numbers")
    if not all(np.isfinite(o).all() for o in outputs):
        raise Trouble("forward", "not finite", "forward gives inf or nan here: no derivative to compare with")
    upstream = [
        np.asarray(generator.standard_normal(o.shape)) if subject.upstream else np.ones(o.shape) for o in outputs
    ]
    calls = [upstream]
    if thorough:
        calls += [upstream, [np.array(u, order="F") for u in upstream]]
    grads, *again = subject.pull(subject.values, *calls)
    weights = np.concatenate([u.ravel() for u in upstream]) if len(upstream) > 1 else upstream[0].ravel()
    differences = Differences(subject.flat, subject.values, weights)
    e = Evidence(subject, upstream, weights, outputs, differences, grads)
    _hygiene(e, report, again)
    noise: list[Any] = []
    for i, g in zip(subject.wrt, grads, strict=True):
        if not _usable(e, report, i, g):
            continue
        many = budget / (4 * took * len(subject.wrt)) if diagnose else SAMPLE / 2
        _compare(e, i, g, generator, int(min(MANY, many, MEMORY / weights.size)), noise)
    report.right = [subject.grad_name(i) for i in e.right]
    report.notes += [*e.kinks[:2], *e.unsure[:2], *subject.alias[:2]]
    if e.suspects or e.odd:
        report.verdict = "wrong"
        if diagnose:
            from tinygen.gradcheck.causes import diagnose as find_causes

            report.findings += find_causes(e)
        else:
            report.findings += [plain_finding(e, s) for s in e.suspects]


# ---------------------------------------------------------------------------------------------------------- hygiene


def _hygiene(e: Evidence, report: Report, again: Sequence[list[Any]]) -> None:
    """What is wrong before any number is compared."""
    found = report.findings
    subject = e.subject
    for who, what in sorted(subject.changed):
        if what == "the cache":
            continue
        cause = "changes upstream" if what in getattr(subject, "upstream_names", ()) else "changes input"
        hint = f"{who} changes the caller's {what} in place: work on a copy, or write into a new array"
        found.append(Finding(cause, who, hint, where=subject.culprit(who, what)))
    scale = float(np.linalg.norm(e.weights))
    for k, grads in enumerate(again):
        differ = [
            subject.grad_name(i)
            for i, a, b in zip(subject.wrt, e.grads, grads, strict=True)
            if a is not None and b is not None and not _close(a, b, scale)
        ]
        if differ and k == 0:
            touched = ("backward", "the cache") in subject.changed
            cause = "changes cache" if touched else "not repeatable"
            hint = "called twice with the same cache, backward gives another answer"
            hint += ": it changes the cache in place" if touched else ": it keeps state between calls"
            found.append(Finding(cause, ", ".join(differ), hint))
            break
        if differ:
            hint = "right for a C-contiguous upstream gradient, another answer for the same numbers in Fortran order"
            found.append(
                Finding("memory layout", ", ".join(differ), hint + ": don't rely on strides (ravel 'K', views)")
            )
    if found:
        report.verdict = "wrong"


def _close(a: Array, b: Array, scale: float) -> bool:
    """Equal up to the order of summation; `scale` is the upstream gradient's, for gradients that cancel to zero."""
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype.kind not in "fiub" or b.dtype.kind not in "fiub":
        return True  # no numbers: reported elsewhere
    slack = 1e-4 if a.dtype == np.float32 else 1e-10
    largest = max(float(np.max(np.abs(a), initial=0)), scale)
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=10 * slack, atol=slack * largest, equal_nan=True))


def _usable(e: Evidence, report: Report, i: int, g: Any) -> bool:
    """Whether a gradient can be compared: an array of finite floats of the argument's shape."""
    name, x = e.subject.grad_name(i), e.subject.values[i]
    where = ""
    if g is None:
        alone = all(other is None for other in e.grads)
        hint = (
            "backward returns None: is the return statement missing?"
            if alone
            else "backward returns no gradient for it"
        )
        problem = Finding("no gradient", name, hint)
    elif not isinstance(g, np.ndarray) or g.dtype.kind not in "fiub":
        problem = Finding(
            "wrong dtype", name, f"{name} is {getattr(g, 'dtype', type(g).__name__)}, not an array of floats"
        )
    elif g.shape != x.shape:
        which = np.arange(min(x.size, MANY))
        columns = e.differences.columns(i, which)
        true = e.weights @ columns.jacobian
        e.odd.append(Suspect(i, g, true, columns.bar, np.ones(len(true), bool), which, columns.jacobian, x.shape))
        return False
    elif not np.isfinite(g).all():
        index = tuple(int(k) for k in np.argwhere(~np.isfinite(g))[0])
        where = e.subject.source(i)
        hint = f"{name}{list(index)} is {g[index]}: a division by zero, or an overflow, in backward"
        problem = Finding("not finite", name, hint, index)
    elif g.dtype.kind != "f":
        problem = Finding(
            "wrong dtype", name, f"{name} is an array of {g.dtype}: gradients cut off to integers; make it float"
        )
        where = e.subject.source(i)
    else:
        return True
    problem.where = where
    report.findings.append(problem)
    report.verdict = "wrong"
    return False


# ---------------------------------------------------------------------------------------------------------- verdict


def _compare(e: Evidence, i: int, g: Array, generator: np.random.Generator, many: int, noise: list[Any]) -> None:
    """Sort argument i into right or suspect."""
    x = e.subject.values[i]
    claimed = g.astype(np.float64, copy=False)
    direction = generator.standard_normal(x.shape) * scale_of(x)
    slope = e.differences.quick(i, direction)
    along = float(np.vdot(claimed, direction))
    size = abs(along) + abs(slope.value)
    off = abs(along - slope.value)
    tiny = 1e-9 * float(np.linalg.norm(e.weights * e.differences.base))  # for gradients that cancel to zero
    if (off <= ALONG * size and slope.bar <= 1e-3 * size) or off <= slope.bar <= tiny:
        e.right.append(i)
        return
    if not noise:
        noise += _rounding(e)
    own = noise[e.subject.wrt.index(i)]
    best = e.differences.along(i, direction)
    slack = float(np.abs(own * direction).sum())
    close = abs(along - best.value) <= 4 * best.bar + ALONG * size + slack
    if close and best.bar <= max(1e-3 * size, tiny) + slack:
        e.right.append(i)
        return
    which = np.arange(x.size)
    many = max(many, SAMPLE // 2)
    if x.size > many:
        found = _locate(e, i, claimed, direction)
        some = generator.choice(x.size, min(SAMPLE, many), replace=False)
        which = np.union1d(some, np.arange(found, min(found + 8, x.size)))
    suspect = _elementwise(e, i, claimed, own, which, best.step)
    if suspect.wrong.any():
        e.suspects.append(suspect)
    else:
        e.right.append(i)


def _rounding(e: Evidence) -> list[Array]:
    """How far each gradient moves when its inputs do by a rounding error: what backward's own arithmetic may cost."""
    generator = np.random.default_rng(1)
    shaken = []
    short = all(same(o, o.astype(np.float32).astype(np.float64)) for o in e.outputs)
    round_numbers = all(same(o * 1024, np.round(o * 1024)) for o in e.outputs)
    low = any(getattr(g, "dtype", None) == np.float32 for g in e.grads) or (short and not round_numbers)
    eps = 1.2e-7 if low else EPS
    for _ in range(3):
        values = list(e.subject.values)
        for i in e.subject.wrt:
            values[i] = values[i] * (1 + eps * generator.uniform(-2, 2, values[i].shape))
        upstream = [u * (1 + eps * generator.uniform(-2, 2, u.shape)) if e.subject.upstream else u for u in e.upstream]
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
                abs(slope.value - float(np.vdot(claimed, half))) / (slope.bar + RTOL * abs(slope.value) + 1e-300)
            )
        low, high = (low, middle) if errors[0] >= errors[1] else (middle, high)
    return low


def _elementwise(e: Evidence, i: int, claimed: Array, own: Any, which: Array, step: float) -> Suspect:
    """Compare element by element; suspects are put on the ladder before they count as wrong."""
    x = e.subject.values[i]
    step = min(max(step, 1e-6), 1e-2) if step else 1e-5
    columns = e.differences.columns(i, which, step)
    true = e.weights @ columns.jacobian
    flat = claimed.ravel()[which]
    own = np.broadcast_to(own, x.shape).ravel()[which]
    bar = columns.bar + own
    tolerance = 4 * bar + RTOL * (np.abs(flat) + np.abs(true)) + 1e-9 * float(np.max(np.abs(true), initial=0))
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
    suspect = Suspect(i, flat, true, bar, wrong, which, columns.jacobian, x.shape)
    _confirm(e, suspect, own)
    return suspect


def _confirm(e: Evidence, s: Suspect, own: Array) -> None:
    """Put the worst suspects on the ladder until one is certainly wrong; clear those that aren't."""
    order = np.argsort(-np.where(s.wrong, np.abs(s.claimed - s.true) / (s.bar + 1e-300), -1))
    for count, k in enumerate(order[: int(s.wrong.sum())]):
        index = tuple(int(j) for j in np.unravel_index(s.which[k], s.shape))
        slope = e.differences.at(s.i, index)
        size = abs(s.claimed[k]) + abs(slope.value)
        bar = slope.bar + own[k]
        exact = e.differences.complex_at(s.i, index) if bar > 1e-4 * size else None
        if exact and abs(exact - slope.value) <= 2 * slope.bar:
            bar, slope = own[k] + 1e-12 * abs(exact), slope._replace(value=exact)
        off = abs(s.claimed[k] - slope.value)
        below = 1e-10 if slope.value == 0 else 100 * EPS
        if abs(s.claimed[k]) + abs(slope.value) < below * np.abs(e.weights).max(initial=0):
            off = 0.0  # a saturated function, whose true slope is lost in rounding
        if off > 4 * bar + RTOL * size and not _kink_nearby(e, s, int(k), own):
            s.true[k], s.bar[k] = slope.value, bar
            return  # one is certain: the others stand
        s.wrong[k] = False
        if bar > 1e-2 * size and off > 1e-3 * size and not e.unsure:
            place = f"{e.subject.grad_name(s.i)}[{', '.join(map(str, index))}]"
            e.unsure.append(
                f"{place} can't be decided: yours {s.claimed[k]:.4g}, finite differences {slope.value:.4g} +- {bar:.1g}"
            )
        if count >= 4 * CONFIRM:
            s.wrong[:] = False
            return


def _kink_nearby(e: Evidence, s: Suspect, k: int, own: Array) -> bool:
    """Whether one-sided slopes at other step widths enclose the claimed gradient."""
    for step in (1e-4, 1e-6, 1e-8):
        c = e.differences.columns(s.i, s.which[k : k + 1], step)
        slack = own[k] + RTOL * abs(s.claimed[k])
        gap = c.high[0] - c.low[0]
        if c.low[0] - slack <= s.claimed[k] <= c.high[0] + slack and gap > 1e-4 * (abs(c.low[0]) + abs(c.high[0])):
            return True
    return False


def plain_finding(e: Evidence, s: Suspect, cause: str = "unexplained", hint: str = "") -> Finding:
    """A finding that only says where."""
    k = s.worst()
    name = e.subject.grad_name(s.i)
    index = tuple(int(j) for j in np.unravel_index(s.which[k], s.shape))
    facts = {
        "yours": float(s.claimed[k]), "right": float(s.true[k]), "bar": float(s.bar[k]),
        "wrong": int(s.wrong.sum()), "of": len(s.which),
    }  # fmt: skip
    return Finding(
        cause, name, hint or "no known pattern; see the worst element", index, None, facts, e.subject.source(s.i)
    )
