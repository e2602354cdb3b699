"""Missing terms and wrong variables: the regularization, the path through a mean, one array in place of another."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tinygen.gradcheck.causes.guess import Guess, true_gradient
from tinygen.gradcheck.evidence import Evidence, Mismatch
from tinygen.gradcheck.numeric import Differences
from tinygen.gradcheck.shapes import axis_name, scalars, subsets
from tinygen.gradcheck.values import is_float_array

Array = Any


def statistics(e: Evidence, s: Mismatch) -> Iterator[Guess]:
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
        centered = view - view.mean(axis=axes, keepdims=True)
        square = (centered**2).sum(axis=axes, keepdims=True)
        if count < 3 or np.any(square == 0):
            continue
        mean = np.broadcast_to(rest.mean(axis=axes, keepdims=True), shape)
        slope = centered * ((rest * centered).sum(axis=axes, keepdims=True) / square)
        told = ", ".join(axis_name(e, shape, a) for a in axes)
        for part, words in ((mean, "the mean"), (slope, "the variance"), (mean + slope, "the mean and the variance")):
            if words == "the mean and the variance" and count < 4 and rest.size // count < 2:
                continue
            hint = f"the path through {words} over {told} is missing or wrong: those numbers depend on x too"
            yield Guess(s.true + part.ravel(), hint)


def missing_term(e: Evidence, s: Mismatch) -> Iterator[Guess]:
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
    for labels in (v for v in e.subject.values if isinstance(v, np.ndarray) and v.dtype.kind in "iu" and v.ndim == 1):
        if len(s.shape) == 2 and labels.shape == s.shape[:1] and s.full and labels.max(initial=0) < s.shape[1]:
            at = np.zeros(s.shape, bool)
            at[np.arange(len(labels)), labels] = True
            hint = "only the entries of the correct classes (y) are wrong: their own term is missing or wrong"
            yield Guess(np.where(at.ravel(), s.claimed, s.true), hint)
        yield from _class_terms(e, s, labels)


def _class_terms(e: Evidence, s: Mismatch, labels: Array) -> Iterator[Guess]:
    """For weights (D, C) of scores X @ W: is each wrong column made of the examples of that class?"""
    rest = (s.claimed - s.true).reshape(s.shape) if s.full and np.isfinite(s.true).all() else None
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


def wrong_variable(e: Evidence, s: Mismatch) -> Iterator[Guess]:
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


def _products(e: Evidence, s: Mismatch) -> Iterator[tuple[str, Array, Callable[[Array], Array]]]:
    """Arguments v such that the gradient is v.T @ G or G @ v.T; the function puts another array in v's place."""
    if not s.full or len(s.shape) != 2 or not np.isfinite(s.true).all():
        return
    true = true_gradient(s)
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


def transposed_factor(e: Evidence, s: Mismatch) -> Iterator[Guess]:
    """A matrix product with a transpose too many or too few."""
    for name, v, product in _products(e, s):
        if v.shape[0] == v.shape[1]:
            yield Guess(product(v.T).ravel(), f"{name} stands where {name}.T belongs, or the other way round")


def _variants(e: Evidence, s: Mismatch) -> Iterator[tuple[str, str, int, Array]]:
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


def variant_row(cause: str) -> Callable[[Evidence, Mismatch], Iterator[Guess]]:
    """The row for one cause: is the gradient right for other values of an argument?"""

    def row(e: Evidence, s: Mismatch) -> Iterator[Guess]:
        chosen = np.argsort(-np.abs(s.claimed - s.true))[:8]
        seen = np.zeros(len(s.which), bool)
        seen[chosen] = True
        for named, hint, j, value in _variants(e, s):
            if named != cause:
                continue
            values = list(e.subject.values)
            values[j] = value
            there = Differences(e.probe.flat, values, e.weights)
            if there.base.shape != e.weights.shape:
                continue
            gradient = s.true.copy()
            gradient[chosen] = e.weights @ there.columns(s.i, s.which[chosen]).jacobian
            yield Guess(gradient, hint, mask=seen)

    return row
