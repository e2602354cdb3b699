"""Gradients of the wrong shape, and what would mend them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygen.gradcheck.evidence import Evidence, Mismatch
from tinygen.gradcheck.report import Problem
from tinygen.gradcheck.shapes import axis_name, subsets

Array = Any


def name_shape(e: Evidence, s: Mismatch) -> Problem:
    """The problem with a gradient of the wrong shape, and what would mend it."""
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
            return Problem(
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
                    return Problem("missing sum", name, f"{said}: sum it over {told}", where=where)
    return Problem(cause, name, hint, where=where)
