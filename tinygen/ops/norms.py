"""Norms of vectors and matrices: written in other ops, so their gradients are too."""

from __future__ import annotations

import math
from typing import Any

from tinygen.ops.elementwise import abs, pow, sign, square, where
from tinygen.ops.reduce import amax, amin, sum
from tinygen.ops.shape import reshape
from tinygen.ops.statistics import reckoned_wide, root


@reckoned_wide
def vector_norm(x, ord: float = 2, dim: Any = None, keepdim: bool = False):
    """(sum |x|^ord)^(1 / ord) over the axes dim, all for None. Its slope at 0 is 0.

    ord: any number; infinity: the largest |x|; minus infinity: the smallest; 0: how many aren't 0.
    """
    if not isinstance(ord, (int, float)):
        raise ValueError(f"vector_norm: ord must be a number, got {ord!r}")
    dim = tuple(dim) if isinstance(dim, list) else dim
    dim = None if dim == () else dim
    if ord == 2:
        return root(sum(square(x), dim, keepdim))
    size = abs(x)
    if ord == math.inf:
        return amax(size, dim, keepdim)
    if ord == -math.inf:
        return amin(size, dim, keepdim)
    if ord == 0:
        return sum(sign(size), dim, keepdim)
    if ord == 1:
        return sum(size, dim, keepdim)
    powers = where(size != 0, pow(where(size != 0, size, 1.0), ord), size if ord > 0 else math.inf)
    return root(sum(powers, dim, keepdim), ord)


@reckoned_wide
def matrix_norm(x, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False):
    """A norm of the matrices in the two axes dim.

    ord: "fro": the root of all squares; 1 or infinity: the largest sum of |x| over a column, or over a row; -1 or
    minus infinity: the smallest. Those of singular values, "nuc", 2 and -2, raise ValueError.
    """
    if ord == "fro":
        return vector_norm(x, 2, tuple(dim), keepdim)
    if ord not in (1, -1, math.inf, -math.inf):
        raise ValueError(f"matrix_norm: ord must be 'fro', 1, -1, inf or -inf, got {ord!r}; others are not supported")
    over, then = (d % len(x.shape) for d in (dim if ord in (1, -1) else tuple(dim)[::-1]))
    sums = sum(abs(x), over, True)
    found = amax(sums, then, True) if ord > 0 else amin(sums, then, True)
    left = [n for i, n in enumerate(x.shape) if i not in (over, then)]
    return found if keepdim else reshape(found, tuple(left))


def norm(x, p: Any = "fro", dim: Any = None, keepdim: bool = False):
    """(sum |x|^p)^(1 / p) over the axes dim, all for None. "fro" is 2. See `vector_norm`."""
    if p == "nuc":
        raise ValueError("norm: p must be a number or 'fro', got 'nuc', which is not supported")
    return vector_norm(x, 2 if p == "fro" or p is None else p, dim, keepdim)


def linalg_norm(x, ord: Any = None, dim: Any = None, keepdim: bool = False):
    """`vector_norm` over one axis, `matrix_norm` over two; for dim None, over as many as x has; ord None: of all."""
    if ord is None:
        return vector_norm(x, 2, dim, keepdim)
    axes = tuple(range(len(x.shape))) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    if len(axes) not in (1, 2):
        raise ValueError(f"norm: with ord there must be one axis or two, got dim {dim} for shape {x.shape}")
    return (vector_norm if len(axes) == 1 else matrix_norm)(x, ord, axes, keepdim)
