"""Contract checks: backward may not change what it is given, must answer the same twice, and returns float arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinygen.gradcheck.evidence import Evidence
from tinygen.gradcheck.report import Problem

Array = Any


def broken_contracts(e: Evidence, again: Sequence[list[Any]]) -> list[Problem]:
    """Problems that show before any number is compared: arguments changed in place, answers that vary.

    again: the gradients of a second call with the same upstream gradient, and of a third with it in Fortran order.
    """
    found: list[Problem] = []
    subject = e.subject
    for who, what in sorted(subject.changed):
        if what == "the cache":
            continue
        cause = "changes upstream" if what in getattr(subject, "upstream_names", ()) else "changes input"
        hint = f"{who} changes the caller's {what} in place: work on a copy, or write into a new array"
        found.append(Problem(cause, who, hint, where=subject.culprit(who, what)))
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
            found.append(Problem(cause, ", ".join(differ), hint))
            break
        if differ:
            hint = "right for a C-contiguous upstream gradient, another answer for the same numbers in Fortran order"
            found.append(
                Problem("memory layout", ", ".join(differ), hint + ": don't rely on strides (ravel 'K', views)")
            )
    return found


def _close(a: Array, b: Array, scale: float) -> bool:
    """Equal up to the order of summation; `scale` is the upstream gradient's, for gradients that cancel to zero."""
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype.kind not in "fiub" or b.dtype.kind not in "fiub":
        return True  # no numbers: reported elsewhere
    slack = 1e-4 if a.dtype == np.float32 else 1e-10
    largest = max(float(np.max(np.abs(a), initial=0)), scale)
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=10 * slack, atol=slack * largest, equal_nan=True))


def unusable(e: Evidence, i: int, g: Any) -> Problem | None:
    """The reason why a gradient can't be compared; None if it is an array of finite floats, whatever its shape."""
    name, where = e.subject.grad_name(i), ""
    if g is None:
        alone = all(other is None for other in e.grads)
        hint = "backward returns no gradient for it"
        hint = e.subject.absent if alone else hint
        problem = Problem("no gradient", name, hint)
    elif not isinstance(g, np.ndarray) or g.dtype.kind not in "fiub":
        problem = Problem(
            "wrong dtype", name, f"{name} is {getattr(g, 'dtype', type(g).__name__)}, not an array of floats"
        )
    elif g.shape == e.subject.values[i].shape and not np.isfinite(g).all():
        index = tuple(int(k) for k in np.argwhere(~np.isfinite(g))[0])
        where = e.subject.source(i)
        hint = f"{name}{list(index)} is {g[index]}: a division by zero, or an overflow, in backward"
        problem = Problem("not finite", name, hint, index)
    elif g.shape == e.subject.values[i].shape and g.dtype.kind != "f":
        problem = Problem(
            "wrong dtype", name, f"{name} is an array of {g.dtype}: gradients cut off to integers; make it float"
        )
        where = e.subject.source(i)
    else:
        return None
    problem.where = where
    return problem
