"""A guess: a mistake made on purpose, and the wrong gradient that it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinygen.gradcheck.evidence import Evidence, Mismatch

Array = Any


class Guess(NamedTuple):
    """A mistake, made on purpose: the wrong gradient (flat) that it gives, and what to tell who made it."""

    gradient: Array
    hint: str
    factor: float | None = None
    mask: Array | None = None  # which elements it speaks about; all if None


Row = tuple[str, Callable[[Evidence, Mismatch], Iterator[Guess]]]


def reproduces(s: Mismatch, guess: Guess) -> bool:
    """True if a guess explains the error, to one part in 10,000, at every element it speaks about."""
    off, error = np.abs(s.claimed - guess.gradient), np.abs(s.claimed - s.true)
    if guess.mask is not None:
        off, error = off[guess.mask], error[guess.mask]
        bound = s.bound[guess.mask]
    else:
        bound = s.bound
    return bool(off.size and error.max() > 0 and np.all(off <= 1e-4 * error.max() + 8 * bound))


def true_gradient(s: Mismatch) -> Array:
    """The right gradient in its own shape."""
    return s.true.reshape(s.shape)


def right_gradient(s: Mismatch, upstream: Sequence[Array]) -> Array:
    """The right gradient for another upstream gradient."""
    return np.concatenate([u.ravel() for u in upstream]) @ s.jacobian


def with_upstream(e: Evidence, k: int, u: Array) -> list[Array]:
    """The upstream gradients with that of output k replaced."""
    return [u if j == k else old for j, old in enumerate(e.upstream)]


def claimed_for(e: Evidence, s: Mismatch, upstream: list[Array]) -> Array | None:
    """The gradient (flat) that backward claims for another upstream gradient; None if it has none of that shape."""
    g = e.probe.pull(e.probe.values, upstream)[0][e.subject.wrt.index(s.i)]
    return None if g is None or np.shape(g) != s.shape else np.asarray(g, float).ravel()[s.which]
