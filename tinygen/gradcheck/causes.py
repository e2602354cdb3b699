"""Why a gradient is wrong: a table of the ways in which people get it wrong.

Each row makes the mistake itself, on the right gradient, and asks whether that reproduces the wrong numbers. The right
Jacobian J is known by finite differences, so a mistake on the way in ("only the last time step's upstream gradient
arrives", "the factor 1 - y^2 is missing") is J^T of a changed upstream gradient, and a mistake on the way out (a
factor, a transpose, a flip) is a change of the right gradient. The first row that reproduces the numbers names the
cause; rows that guess less stand earlier. Rows further down only describe which elements are wrong.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinygen.gradcheck.examine import Evidence, Suspect, plain_finding
from tinygen.gradcheck.numeric import Differences
from tinygen.gradcheck.report import Finding
from tinygen.gradcheck.shapes import axis_name, factor_name, right_at_size_one, scalars, smallest, subsets
from tinygen.gradcheck.subject import is_float_array

Array = Any


class Guess(NamedTuple):
    """A mistake, made on purpose: the wrong gradient (flat) that it gives, and what to tell who made it."""

    gradient: Array
    hint: str
    factor: float | None = None
    mask: Array | None = None  # which elements it speaks about; all if None


Row = tuple[str, Callable[[Evidence, Suspect], Iterator[Guess]]]


def diagnose(e: Evidence) -> list[Finding]:
    """One finding for each cause, the best explained first."""
    ranked: list[tuple[int, Finding]] = [_name_shape(e, s) for s in e.odd]
    for s in e.suspects:
        ranked.append(_name(e, s))
    ranked.sort(key=lambda pair: pair[0])
    merged: dict[tuple[str, str], Finding] = {}
    for _, f in ranked:
        first = merged.setdefault((f.cause, f.hint), f)
        if first is not f:
            first.argument += f", {f.argument}"
    findings = list(merged.values())
    for f in findings[1:]:
        if f.cause == "unexplained":
            f.hint = "wrong too, perhaps for the same reason"
    if findings and findings[0].cause not in ("wrong shape", "missing sum"):
        findings[0].evidence |= smallest(e)
    return findings


def _name(e: Evidence, s: Suspect) -> tuple[int, Finding]:
    for rank, (cause, row) in enumerate(TABLE):
        try:
            guess = next((g for g in row(e, s) if _reproduces(s, g)), None)
        except Exception:  # the function under test may refuse a probe
            continue
        if guess is not None:
            finding = plain_finding(e, s, cause, guess.hint)
            finding.factor = guess.factor
            if row in DESCRIPTIONS:
                finding.evidence["vague"] = True
            return rank, finding
    return len(TABLE), plain_finding(e, s)


def _reproduces(s: Suspect, guess: Guess) -> bool:
    """Whether a guess explains the error, to one part in 10,000, at every element it speaks about."""
    off, error = np.abs(s.claimed - guess.gradient), np.abs(s.claimed - s.true)
    if guess.mask is not None:
        off, error = off[guess.mask], error[guess.mask]
        bar = s.bar[guess.mask]
    else:
        bar = s.bar
    return bool(off.size and error.max() > 0 and np.all(off <= 1e-4 * error.max() + 8 * bar))


# ----------------------------------------------------------------------------------------------------------- helpers


def _true(s: Suspect) -> Array:
    return s.true.reshape(s.shape)


def _pull(e: Evidence, s: Suspect, upstream: Sequence[Array]) -> Array:
    """The right gradient for another upstream gradient."""
    return np.concatenate([u.ravel() for u in upstream]) @ s.jacobian


def _with(e: Evidence, k: int, u: Array) -> list[Array]:
    return [u if j == k else old for j, old in enumerate(e.upstream)]


# -------------------------------------------------------------------------------------------------------- wrong shape


def _name_shape(e: Evidence, s: Suspect) -> tuple[int, Finding]:
    """A gradient of the wrong shape: what would mend it?"""
    g, name = s.claimed, e.subject.grad_name(s.i)
    said = f"{name} has shape {g.shape}, {e.subject.names[s.i]} has {s.shape}"
    where = e.subject.source(s.i)
    full = s.full
    true: Any = s.true.reshape(s.shape) if full else None

    def fits(mended: Array) -> bool:
        return full and mended.shape == s.shape and bool(np.allclose(mended, true, rtol=1e-5, atol=1e-6))

    cause, hint = "wrong shape", f"{said}"
    for i in (j for j in e.subject.wrt if j != s.i and e.subject.values[j].shape == g.shape):
        columns = e.differences.columns(i, np.arange(g.size)) if g.size <= 2000 else None
        if columns is not None and np.allclose(e.weights @ columns.jacobian, g.ravel(), rtol=1e-5, atol=1e-6):
            return 0, Finding(
                "swapped",
                name,
                f"what is returned here is {e.subject.grad_name(i)}: check the order of return",
                where=where,
            )
    if g.size == 0 and s.true.size:
        hint = f"{said}: an empty slice; [p:-p] is empty for p = 0, write [p:p + n]"
    elif fits(g.T):
        cause, hint = "transposed", f"{said}: it is the transpose of the right one"
    elif g.size == s.true.size and fits(g.reshape(s.shape)):
        hint = f"{said}: the numbers are right, reshape it to {e.subject.names[s.i]}.shape"
    else:
        for axes in subsets(range(g.ndim)):
            for keep in (False, True):
                total = g.sum(axis=axes, keepdims=keep)
                if fits(total) or (total.size == s.true.size and fits(total.reshape(s.shape))):
                    told = ", ".join(axis_name(e, g.shape, a) for a in axes)
                    return 0, Finding("missing sum", name, f"{said}: sum it over {told}", where=where)
    return 0, Finding(cause, name, hint, where=where)


# ----------------------------------------------------------------------------------------------- the upstream gradient


def _again(e: Evidence, s: Suspect, upstream: list[Array]) -> Array | None:
    """What backward claims for another upstream gradient."""
    g = e.subject.pull(e.subject.values, upstream)[0][e.subject.wrt.index(s.i)]
    return None if g is None or np.shape(g) != s.shape else np.asarray(g, float).ravel()[s.which]


def upstream_ignored(e: Evidence, s: Suspect) -> Iterator[Guess]:
    """The same answer whatever comes from above."""
    if e.subject.upstream and np.any(s.claimed):
        other = _again(e, s, [-3 * u[..., ::-1] if u.ndim else -3 * u for u in e.upstream])
        if other is not None and np.allclose(other, s.claimed, rtol=1e-9):
            yield Guess(s.claimed, "it doesn't depend on the upstream gradient: multiply by it (chain rule)")


def not_linear(e: Evidence, s: Suspect) -> Iterator[Guess]:
    """A gradient is linear in the upstream gradient: B(2u) = 2 B(u), B(-u) = -B(u)."""
    if not e.subject.upstream:
        return
    for k, words in ((2.0, ""), (-1.0, "the sign of ")):
        other = _again(e, s, [k * u for u in e.upstream])
        if other is not None and not np.allclose(other, k * s.claimed, rtol=1e-6, atol=1e-9 * np.abs(s.claimed).max()):
            what = "it contains the upstream gradient more than once" if np.allclose(other, k * k * s.claimed) else (
                f"it depends on {words}the upstream gradient in another way than by a factor"
            )  # fmt: skip
            yield Guess(s.claimed, f"not linear in the upstream gradient: {what}; use it once, as a plain factor")


# ----------------------------------------------------------------------------------------------- the whole gradient


def zero(e: Evidence, s: Suspect) -> Iterator[Guess]:
    """No gradient at all."""
    if not np.any(s.claimed):
        yield Guess(0 * s.true, "it is zero everywhere: nothing is ever written into it", 0.0)


def factor(e: Evidence, s: Suspect) -> Iterator[Guess]:
    """One number everywhere, named by the size that it equals."""
    square = float(s.true @ s.true)
    f = float(s.claimed @ s.true) / square if square else 0.0
    if f:
        words = factor_name(e, f)
        if np.isclose(f, -1):
            hint = "the sign is wrong: yours is -1 times the right one"
        elif words.startswith("1/"):
            hint = f"yours is {words} times the right one: divided (averaged) once too often"
        else:
            hint = f"yours is {words or f'{f:.6g}'} times the right one" + (": divide by it" if words else "")
        yield Guess(f * s.true, hint, f)


def missing_output(e: Evidence, s: Suspect) -> Iterator[Guess]:
    """With several outputs: one of them was forgotten."""
    for k in range(len(e.upstream) if len(e.upstream) > 1 else 0):
        hint = f"the path through {e.subject.outputs[k]} is missing: its upstream gradient never arrives here"
        yield Guess(_pull(e, s, _with(e, k, 0 * e.upstream[k])), hint)


def swapped(e: Evidence, s: Suspect) -> Iterator[Guess]:
    """The gradient of another argument."""
    for other in e.suspects:
        if other.i != s.i and other.shape == s.shape and other.full and s.full:
            yield Guess(
                other.true, f"what is returned here is {e.subject.grad_name(other.i)}: check the order of return"
            )


def transposed(e: Evidence, s: Suspect) -> Iterator[Guess]:
    """Axes exchanged, or a reshape where a transpose belongs."""
    true = _true(s) if s.full else None
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


def flipped(e: Evidence, s: Suspect) -> Iterator[Guess]:
    """Turned round along some axes."""
    if s.full:
        true = _true(s)
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
                yield Guess(_pull(e, s, _with(e, k, np.flip(u, axis))), hint)


def shifted(e: Evidence, s: Suspect) -> Iterator[Guess]:
    """Moved along some axes: compared where both overlap."""
    for k, u in enumerate(e.upstream):
        for axis, by in itertools.product(range(u.ndim), (1, -1)):
            if u.shape[axis] > 1:
                rolled = np.roll(u, by, axis)
                told = axis_name(e, u.shape, axis)
                hint = f"the upstream gradient is read one step off ({-by:+d}, wrapping round) along {told}"
                yield Guess(_pull(e, s, _with(e, k, rolled)), hint)
                edge = [slice(None)] * u.ndim
                edge[axis] = slice(0, 1) if by > 0 else slice(-1, None)
                rolled = rolled.copy()
                rolled[tuple(edge)] = 0
                yield Guess(_pull(e, s, _with(e, k, rolled)), hint)
    if not s.full:
        return
    true = _true(s)
    for axes in subsets([a for a in range(true.ndim) if true.shape[a] > 2], 2):
        for by in (1, -1, 2, -2):
            moved, seen = np.roll(true, [by] * len(axes), axes), np.ones(s.shape, bool)
            for a in axes:
                at = np.arange(s.shape[a]).reshape([-1 if b == a else 1 for b in range(true.ndim)])
                seen &= (at >= by) & (at < s.shape[a] + by)
            if seen.sum() >= max(4, 0.25 * seen.size) and np.abs(moved[seen]).max() > 0:
                hint = f"it is the right one moved by {by:+d} along axes {axes}: is an offset (padding) left out?"
                yield Guess(moved.ravel(), hint, mask=seen.ravel())


def permuted(e: Evidence, s: Suspect) -> Iterator[Guess]:
    """Blocks (the gates of an LSTM) in another order than forward's."""
    if not s.full:
        return
    true = _true(s)
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


# ------------------------------------------------------------------------------------------ a part of the upstream


def recurrence(e: Evidence, s: Suspect) -> Iterator[Guess]:
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
                own[tuple(to)] = _pull(e, s, rest).reshape(s.shape)[tuple(to)]
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


def _part_row(cause: str) -> Callable[[Evidence, Suspect], Iterator[Guess]]:
    def row(e: Evidence, s: Suspect) -> Iterator[Guess]:
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
                    yield Guess(_pull(e, s, _with(e, k, part)), hint)

    return row


def overwritten(e: Evidence, s: Suspect) -> Iterator[Guess]:
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


# ----------------------------------------------------------------------------------------------------- local factors


def mask(e: Evidence, s: Suspect) -> Iterator[Guess]:
    """Elements whose gradient should be zero."""
    off = np.abs(s.true) <= 4 * s.bar + 1e-12
    leaks = off & (np.abs(s.claimed) > 8 * s.bar)
    if not leaks.any() or off.all():
        return
    if not np.any(s.claimed[~off]):
        yield Guess(s.claimed, "it is zero exactly where it should not be: the mask is the wrong way round")
        return
    live = s.true[~off]
    f = float(s.claimed[~off] @ live) / float(live @ live)
    also = "" if np.isclose(f, 1) else f", and {factor_name(e, f) or f'{f:.4g}'} times too large elsewhere"
    hint = f"{int(leaks.sum())} elements should get no gradient (a mask of forward is not applied){also}"
    yield Guess(np.where(off, s.claimed, f * s.true), hint, None if np.isclose(f, 1) else f)


def _local(e: Evidence) -> Iterator[tuple[str, Array]]:
    """Local derivatives that get forgotten, by name, in terms of outputs and arguments."""
    for name, y in zip(e.subject.outputs, e.outputs, strict=False):
        yield f"1 - {name}**2 (tanh)", 1 - y * y
        yield f"{name} * (1 - {name}) (sigmoid)", y * (1 - y)
        yield f"1 - tanh({name})**2", 1 - np.tanh(y) ** 2
        yield f"1 - {name}", 1 - y
        yield f"1 + {name}", 1 + y
        yield name, y
        yield f"({name} > 0)", (y > 0).astype(float)
    for name, v in zip(e.subject.names, e.subject.values, strict=True):
        if is_float_array(v):
            yield name, v
            yield f"({name} > 0)", (v > 0).astype(float)


def _both_ways(e: Evidence, shape: tuple[int, ...]) -> Iterator[tuple[str, Array]]:
    for name, w in _local(e):
        try:
            w = np.broadcast_to(w, shape)
        except ValueError:
            continue
        if np.ptp(w) == 0:
            continue
        if np.abs(w).min() > 1e-9:
            yield f"the factor {name} is missing", 1 / w
        yield f"the factor {name} is applied once too often", w


def local_factor(e: Evidence, s: Suspect) -> Iterator[Guess]:
    """A forgotten or doubled local derivative, named if it is a usual one."""
    for k, u in enumerate(e.upstream):
        for hint, w in _both_ways(e, u.shape):
            yield Guess(_pull(e, s, _with(e, k, u * w)), hint)
    if not s.full:
        return
    true = _true(s)
    for hint, w in _both_ways(e, s.shape):
        yield Guess((true * w).ravel(), hint)
    for hint, w in _deviations(e.subject.values[s.i]):
        yield Guess((true * w).ravel(), hint)


def _deviations(x: Array) -> Iterator[tuple[str, Array]]:
    """Standard deviations over some axes, with the usual epsilons."""
    groups = [x] if x.ndim < 2 else [x, x.reshape(x.shape[0], -1)] if x.ndim > 2 else [x]
    for view in groups:
        for axes in subsets(range(view.ndim), 3):
            for eps in (1e-5, 0.0, 1e-8, 1e-3):
                sigma = np.sqrt(view.var(axis=axes, keepdims=True) + eps)
                if np.all(sigma > 0):
                    full = np.broadcast_to(sigma, view.shape).reshape(x.shape)
                    for power, words in ((1, "1/sigma"), (2, "1/sigma**2")):
                        yield f"the factor {words} over axes {axes} is missing", full**power
                        yield f"the factor {words} over axes {axes} is applied once too often", 1 / full**power
                    if eps != 0:
                        plain = np.broadcast_to(np.sqrt(view.var(axis=axes, keepdims=True)), view.shape).reshape(
                            x.shape
                        )
                        with np.errstate(all="ignore"):
                            yield f"sigma is taken without epsilon ({eps:g}), unlike in forward", full / plain


def elementwise_factor(e: Evidence, s: Suspect) -> Iterator[Guess]:
    """A factor that differs from element to element but not from one upstream gradient to another."""
    if not e.subject.upstream or not s.wrong.any():
        return
    other = [np.random.default_rng(7).standard_normal(u.shape) for u in e.upstream]
    claimed, true = _again(e, s, other), _pull(e, s, other)
    small = (np.abs(s.true) < 1e3 * s.bar + 1e-9) | (np.abs(true) < 1e3 * s.bar + 1e-9)
    if claimed is None or (~small).sum() < 3 or 2 * s.wrong.sum() < (~small).sum():
        return
    with np.errstate(all="ignore"):
        ratio = np.where(small, 1, claimed / true)
    if np.ptp(ratio[~small]) > 1e-9:
        k = s.worst()
        f = s.claimed[k] / s.true[k]
        hint = f"each element is off by a factor of its own (here {f:.4g}), the same for any upstream gradient"
        yield Guess(ratio * s.true, hint, mask=~small)


# ------------------------------------------------------------------------------------------------- terms and variables


def statistics(e: Evidence, s: Suspect) -> Iterator[Guess]:
    """The paths through a mean and a variance: their error is constant along an axis, or follows x - mean."""
    x = e.subject.values[s.i]
    if not s.full or not e.subject.upstream:
        return
    views = [(s.shape, axes) for axes in subsets(range(x.ndim), 3) if len(axes) < max(2, x.ndim)][::-1]
    if x.ndim > 2:
        views.append(((x.shape[0], x.size // x.shape[0]), (1,)))
    for shape, axes in views:
        view, rest = x.reshape(shape), (s.claimed - s.true).reshape(shape)
        count = int(np.prod([shape[a] for a in axes]))
        centred = view - view.mean(axis=axes, keepdims=True)
        square = (centred**2).sum(axis=axes, keepdims=True)
        if count < 3 or np.any(square == 0):
            continue
        mean = np.broadcast_to(rest.mean(axis=axes, keepdims=True), shape)
        slope = centred * ((rest * centred).sum(axis=axes, keepdims=True) / square)
        told = ", ".join(axis_name(e, shape, a) for a in axes)
        for part, words in ((mean, "the mean"), (slope, "the variance"), (mean + slope, "the mean and the variance")):
            if words == "the mean and the variance" and count < 4 and rest.size // count < 2:
                continue
            hint = f"the path through {words} over {told} is missing or wrong: those numbers depend on x too"
            yield Guess(s.true + part.ravel(), hint)


def missing_term(e: Evidence, s: Suspect) -> Iterator[Guess]:
    """A term of its own: the regularization, the correct class."""
    rest = s.claimed - s.true
    own = e.subject.values[s.i].ravel()[s.which]
    if np.any(own):
        c = float(rest @ own) / float(own @ own)
        known = [(f"{k:g} * {n}" if k != 1 else n, k * v) for n, v in scalars(e).items() for k in (1, 2, 0.5)]
        named = next((w for w, v in known if v and np.isclose(abs(c), v, rtol=1e-4)), f"{abs(c):.4g}")
        verb = "missing" if c < 0 else "too much"
        name = e.subject.names[s.i]
        yield Guess(s.true + c * own, f"the term {named} * {name} is {verb} (the regularization's gradient)")
    for labels in (v for v in e.subject.values if isinstance(v, np.ndarray) and v.dtype.kind in "iu"):
        if len(s.shape) == 2 and labels.shape == s.shape[:1] and s.full and labels.max(initial=0) < s.shape[1]:
            at = np.zeros(s.shape, bool)
            at[np.arange(len(labels)), labels] = True
            hint = "only the entries of the correct classes (y) are wrong: their own term is missing or wrong"
            yield Guess(np.where(at.ravel(), s.claimed, s.true), hint)
        yield from _class_terms(e, s, labels)


def _class_terms(e: Evidence, s: Suspect, labels: Array) -> Iterator[Guess]:
    """For weights (D, C) of scores X @ W: is each wrong column made of the examples of that class?"""
    rest = (s.claimed - s.true).reshape(s.shape) if s.full else None
    for X in e.subject.values:
        if rest is None or rest.ndim != 2 or not is_float_array(X) or X.shape != (len(labels), s.shape[0]):
            continue
        fitted = np.zeros_like(rest)
        for c in range(s.shape[1]):
            mine = X[labels == c]
            if len(mine) >= s.shape[0]:
                return
            if len(mine):
                fitted[:, c] = mine.T @ np.linalg.lstsq(mine.T, rest[:, c], rcond=None)[0]
        yield Guess(
            s.true + fitted.ravel(),
            "each column misses a multiple of the examples of its own class: the correct class's term is missing",
        )


def wrong_variable(e: Evidence, s: Suspect) -> Iterator[Guess]:
    """The right formula with another array in it."""
    arrays = [(n, v) for n, v in zip(e.subject.names, e.subject.values, strict=True) if is_float_array(v)]
    arrays += list(zip(e.subject.outputs, e.outputs, strict=False))
    for (name, v), u in itertools.product(arrays, e.upstream):  # a sum of upstream times something
        if v.shape == u.shape and len(s.which) == int(np.prod(s.shape)):
            for axes in subsets(range(u.ndim), 3):
                total = (u * v).sum(axis=axes)
                if total.size == s.true.size:
                    yield Guess(
                        total.ravel(),
                        f"it is sum(upstream * {name}): forward multiplies by something else than {name} here",
                    )
    for name, v, product in _products(e, s):
        for other, w in arrays:
            if other != name and w.shape == v.shape:
                yield Guess(product(w).ravel(), f"{other} stands where {name} belongs")


def _products(e: Evidence, s: Suspect) -> Iterator[tuple[str, Array, Callable[[Array], Array]]]:
    """Arguments v such that the gradient is v.T @ G or G @ v.T; the function puts another array in v's place."""
    if not s.full or len(s.shape) != 2:
        return
    true = _true(s)
    for name, v in zip(e.subject.names, e.subject.values, strict=True):
        if not is_float_array(v) or v.ndim != 2 or name == e.subject.names[s.i]:
            continue
        left, right = np.linalg.pinv(v.T) @ true if v.shape[1] == true.shape[0] else None, None
        if v.shape[0] == true.shape[1]:
            right = true @ np.linalg.pinv(v.T)
        if left is not None and v.shape[0] <= v.shape[1] and np.allclose(v.T @ left, true, rtol=1e-5, atol=1e-7):
            yield name, v, _times(left, before=True)
        if right is not None and v.shape[1] <= v.shape[0] and np.allclose(right @ v.T, true, rtol=1e-5, atol=1e-7):
            yield name, v, _times(right, before=False)


def _times(middle: Array, before: bool) -> Callable[[Array], Array]:
    return lambda w: w.T @ middle if before else middle @ w.T


def transposed_factor(e: Evidence, s: Suspect) -> Iterator[Guess]:
    """A matrix product with a transpose too many or too few."""
    for name, v, product in _products(e, s):
        if v.shape[0] == v.shape[1]:
            yield Guess(product(v.T).ravel(), f"{name} stands where {name}.T belongs, or the other way round")


def _variants(e: Evidence, s: Suspect) -> Iterator[tuple[str, str, int, Array]]:
    """Arguments changed as if by mistake: cause, hint, which, new value."""
    names = e.subject.names
    for j, v in enumerate(e.subject.values):
        if j == s.i or not is_float_array(v):
            continue
        if v.ndim >= 2:
            if v.shape[-1] == v.shape[-2]:
                yield (
                    "transposed",
                    f"it is right for {names[j]} transposed: a transpose of {names[j]} too many or too few",
                    j,
                    v.swapaxes(-1, -2),
                )
            yield (
                "flipped",
                f"it is right for {names[j]} turned by 180 degrees: {names[j]} is flipped once too often or too rarely",
                j,
                v[..., ::-1, ::-1],
            )
            if v.shape[0] > 1:
                yield (
                    "wrong variable",
                    f"it is right if all of {names[j]} were {names[j]}[0]: an index is fixed at 0",
                    j,
                    np.broadcast_to(v[:1], v.shape).copy(),
                )
        for k, w in enumerate(e.subject.values):
            if k != j and is_float_array(w) and w.shape == v.shape:
                yield "wrong variable", f"{names[k]} stands where {names[j]} belongs", j, w


def _variant_row(cause: str) -> Callable[[Evidence, Suspect], Iterator[Guess]]:
    def row(e: Evidence, s: Suspect) -> Iterator[Guess]:
        chosen = np.argsort(-np.abs(s.claimed - s.true))[:8]
        seen = np.zeros(len(s.which), bool)
        seen[chosen] = True
        for named, hint, j, value in _variants(e, s):
            if named != cause:
                continue
            values = list(e.subject.values)
            values[j] = value
            there = Differences(e.subject.flat, values, e.weights)
            if there.base.shape != e.weights.shape:
                continue
            gradient = s.true.copy()
            gradient[chosen] = e.weights @ there.columns(s.i, s.which[chosen]).jacobian
            yield Guess(gradient, hint, mask=seen)

    return row


# -------------------------------------------------------------------------------------------------- which elements


def _wrong_along(s: Suspect) -> list[Array]:
    """For each axis, the indices at which anything is wrong."""
    wrong = np.zeros(s.shape, bool)
    wrong.ravel()[s.which[s.wrong]] = True
    return [np.flatnonzero(wrong.any(axis=tuple(b for b in range(wrong.ndim) if b != a))) for a in range(wrong.ndim)]


def time_step(e: Evidence, s: Suspect) -> Iterator[Guess]:
    """Wrong at some steps of a sequence."""
    if s.full and len(s.shape) == 3:
        at, last = _wrong_along(s)[1], s.shape[1] - 1
        if len(at) == 1 and last:
            hint = f"wrong only at step {at[0]} of axis 1"
            hint += ": index t - 1 at t = 0 is -1, the last step; use the initial state" if at[0] == 0 else ""
            yield Guess(s.claimed, hint)


def later_steps(e: Evidence, s: Suspect) -> Iterator[Guess]:
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


def gate(e: Evidence, s: Suspect) -> Iterator[Guess]:
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
                c, t = s.claimed.reshape(s.shape)[part].ravel(), _true(s)[part].ravel()
                f = float(c @ t) / float(t @ t) if np.any(t) else 1.0
                if np.allclose(c, f * t, rtol=1e-5):
                    hint += f"; it is {factor_name(e, f) or f'{f:.4g}'} times the right one"
                yield Guess(s.claimed, hint)


def channel(e: Evidence, s: Suspect) -> Iterator[Guess]:
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


def border(e: Evidence, s: Suspect) -> Iterator[Guess]:
    """Wrong only near the edges of an image."""
    if s.full and len(s.shape) == 4:
        wrong = s.wrong.reshape(s.shape)
        for width in (1, 2):
            if min(s.shape[2:]) > 2 * width and not wrong[:, :, width:-width, width:-width].any():
                yield Guess(
                    s.claimed, f"wrong only within {width} of the border: check the padding and the loops' ranges"
                )


def some_slice(e: Evidence, s: Suspect) -> Iterator[Guess]:
    """Wrong at some indices of an axis and right at the others."""
    if s.full or s.wrong.sum() >= 3:
        for axis, at in enumerate(_wrong_along(s)):
            if 0 < len(at) <= (s.shape[axis] // 2 if s.full else 1):
                yield Guess(s.claimed, f"wrong only at {list(map(int, at))[:6]} of {axis_name(e, s.shape, axis)}")


def not_added_up(e: Evidence, s: Suspect) -> Iterator[Guess]:
    """A parameter's gradient that is right for one step (example) and wrong for several, while dx is right."""
    right = [e.subject.values[i] for i in e.right]
    for size in sorted({n for v in right for n in v.shape[:2] if n > 1 and v.ndim > 1} - {*s.shape}):
        if right_at_size_one(e, size, s.i):
            yield Guess(
                s.claimed,
                f"right if the axis of size {size} has length 1: it isn't added up over that axis (`=` for `+=`)",
            )


TABLE: list[Row] = [
    ("upstream ignored", upstream_ignored),
    ("not linear", not_linear),
    ("zero", zero),
    ("factor", factor),
    ("missing path", missing_output),
    ("swapped", swapped),
    ("flipped", flipped),
    ("transposed", transposed),
    ("permuted", permuted),
    ("recurrence", recurrence),
    ("mask", mask),
    ("overwritten", overwritten),
    ("shifted", shifted),
    ("only part", _part_row("only part")),
    ("border", _part_row("border")),
    ("non-square", _part_row("non-square")),
    ("local factor", local_factor),
    ("missing term", missing_term),
    ("wrong variable", wrong_variable),
    ("missing path", statistics),
    ("transposed", transposed_factor),
    ("flipped", _variant_row("flipped")),
    ("transposed", _variant_row("transposed")),
    ("wrong variable", _variant_row("wrong variable")),
    # From here on: which elements are wrong, rather than why.
    ("channel", channel),
    ("time step", time_step),
    ("recurrence", later_steps),
    ("gate", gate),
    ("border", border),
    ("overwritten", not_added_up),
    ("local factor", elementwise_factor),
    ("slice", some_slice),
]
DESCRIPTIONS = {channel, time_step, later_steps, gate, border, not_added_up, elementwise_factor, some_slice}
