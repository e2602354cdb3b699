"""Order of values: largest, smallest, sorted. The picked values get the gradient, all else 0."""

from __future__ import annotations

from typing import Any, NamedTuple

from tinygen.array import xp
from tinygen.ops._samples import normal, sample
from tinygen.ops.elementwise import maximum, minimum
from tinygen.ops.reduce import amax, amin, argmax, argmin, left_shape
from tinygen.ops.shape import gather, getitem, reshape
from tinygen.tape import op


class Picked(NamedTuple):
    """Values, and where along the axis they stood."""

    values: Any
    indices: Any


@op
def argsort(x, dim: int = -1, descending: bool = False, stable: bool = False):
    """The indices that sort x along dim; equals stay in their order, stable or not. NaN counts as the largest."""
    n = xp(x)
    if not x.ndim:
        return n.zeros((), int)
    if not descending:
        return x.argsort(axis=dim, kind="stable")
    order = n.flip(x, dim).argsort(axis=dim, kind="stable")
    return x.shape[dim] - 1 - n.flip(order, dim)


def sort(x, dim: int = -1, descending: bool = False, stable: bool = False):
    """(values, indices) in ascending order along dim, both of x's shape. See `argsort`."""
    order = argsort(x, dim, descending, stable)
    return Picked(gather(x, dim, order), order)


def topk(x, k: int, dim: int = -1, largest: bool = True, sorted: bool = True):
    """(values, indices) of the k largest (or smallest) along dim, sorted either way."""
    length = x.shape[dim] if x.shape else 1
    if not 0 <= k <= length:
        raise ValueError(f"topk: k must be in 0..{length}, the length of dim {dim}, got {k}")
    order = argsort(x, dim, largest)
    if x.shape:
        order = getitem(order, (*(slice(None),) * (dim % len(x.shape)), slice(k)))
    return Picked(gather(x, dim, order), order)


def max(x, dim: Any = None, keepdim: bool = False):
    """The largest element (ties share the gradient evenly); with dim (values, indices) along it, of equals the first.

    dim may also be a second array: then the larger of each two, `maximum`.
    """
    return _extreme(x, dim, keepdim, amax, maximum, argmax)


def min(x, dim: Any = None, keepdim: bool = False):
    """The smallest element, with dim (values, indices); or the smaller of each two. See `max`."""
    return _extreme(x, dim, keepdim, amin, minimum, argmin)


def _extreme(x, dim, keepdim, whole, between, where):
    if dim is None:
        return whole(x)
    if hasattr(dim, "shape"):
        return between(x, dim)
    index = where(x, dim, True)
    values = gather(x, dim, index)
    left = index.shape if keepdim else left_shape(x.shape, dim)
    return Picked(reshape(values, left), reshape(index, left))


@argsort.samples
def _(rng):
    for descending in (False, True):
        yield sample(normal(rng, 3, 4), 0, descending)
        yield sample(normal(rng), -1, descending)
