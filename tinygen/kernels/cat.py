"""Arrays beside each other in one, and apart again."""

from __future__ import annotations

import math

from tinygen.array import inverse, memory_order
from tinygen.kernels import layout, library
from tinygen.pool import new

LEAST = 1 << 15  # numbers of an array from which a kernel copies faster than NumPy


def cat(*tensors, dim):
    """See `tinygen.ops.cat`: of two arrays, which have the same order in memory, and no gaps."""
    if len(tensors) != 2 or not library.accepts(*tensors):
        return NotImplemented
    x, y = tensors
    if x.ndim != y.ndim or not -x.ndim <= dim < x.ndim:
        return NotImplemented
    dim, axes = dim % x.ndim, memory_order(x)
    if x.shape[:dim] != y.shape[:dim] or x.shape[dim + 1 :] != y.shape[dim + 1 :]:
        return NotImplemented  # the definition says what is wrong
    ordered, others, at = x.transpose(axes), y.transpose(axes), axes.index(dim)
    if not (_whole(ordered) and _whole(others)):
        return NotImplemented
    shape = (*ordered.shape[:at], x.shape[dim] + y.shape[dim], *ordered.shape[at + 1 :])
    rows, out = math.prod(shape[:at]), new(shape, x)
    if rows:
        library.call("tg_cat", x, rows, x.size // rows, y.size // rows, ordered, others, out)
    return out.transpose(inverse(axes))


def cat_backward(gout, at, dim):
    """See `tinygen.ops.join.cat_backward`, of an array without gaps in memory."""
    if not library.accepts(gout) or not -gout.ndim <= dim < gout.ndim or not 0 <= at <= gout.shape[dim]:
        return NotImplemented
    axes = memory_order(gout)
    ordered, place = gout.transpose(axes), axes.index(dim % gout.ndim)
    if not _whole(ordered):
        return NotImplemented
    before, length, after = ordered.shape[:place], ordered.shape[place], ordered.shape[place + 1 :]
    parts = [new((*before, n, *after), gout) for n in (at, length - at)]
    if rows := math.prod(before):
        library.call("tg_cat_backward", gout, rows, *(part.size // rows for part in parts), ordered, *parts)
    return tuple(part.transpose(inverse(axes)) for part in parts)


def _whole(a):
    return a.flags.c_contiguous and layout.aligned(a)
