"""Wrong factors: one number everywhere, a mask that is missing, a local derivative that is missing or applied twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tinygen.gradcheck.causes.guess import Guess, claimed_for, right_gradient, true_gradient, with_upstream
from tinygen.gradcheck.evidence import Evidence, Mismatch
from tinygen.gradcheck.shapes import factor_name, subsets
from tinygen.gradcheck.values import is_float_array

Array = Any


def zero(e: Evidence, s: Mismatch) -> Iterator[Guess]:
    """No gradient at all."""
    if not np.any(s.claimed):
        yield Guess(0 * s.true, "it is zero everywhere: nothing is ever written into it", 0.0)


def factor(e: Evidence, s: Mismatch) -> Iterator[Guess]:
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


def mask(e: Evidence, s: Mismatch) -> Iterator[Guess]:
    """Elements whose gradient should be zero."""
    off = np.abs(s.true) <= 4 * s.bound + 1e-12
    leaks = off & (np.abs(s.claimed) > 8 * s.bound)
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


def local_factor(e: Evidence, s: Mismatch) -> Iterator[Guess]:
    """A forgotten or doubled local derivative, named if it is a usual one."""
    for k, u in enumerate(e.upstream):
        for hint, w in _both_ways(e, u.shape):
            yield Guess(right_gradient(s, with_upstream(e, k, u * w)), hint)
    if not s.full:
        return
    true = true_gradient(s)
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


def elementwise_factor(e: Evidence, s: Mismatch) -> Iterator[Guess]:
    """A factor that differs from element to element but not from one upstream gradient to another."""
    if not e.subject.upstream or not s.wrong.any():
        return
    other = [np.random.default_rng(7).standard_normal(u.shape) for u in e.upstream]
    claimed, true = claimed_for(e, s, other), right_gradient(s, other)
    small = (np.abs(s.true) < 1e3 * s.bound + 1e-9) | (np.abs(true) < 1e3 * s.bound + 1e-9)
    if claimed is None or (~small).sum() < 3 or 2 * s.wrong.sum() < (~small).sum():
        return
    with np.errstate(all="ignore"):
        ratio = np.where(small, 1, claimed / true)
    if np.ptp(ratio[~small]) > 1e-9:
        k = s.worst()
        f = s.claimed[k] / s.true[k]
        hint = f"each element is off by a factor of its own (here {f:.4g}), the same for any upstream gradient"
        yield Guess(ratio * s.true, hint, mask=~small)
