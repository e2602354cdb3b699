"""Ops over axes: sums, means, maxima, softmax and its relatives.

`dim` is an axis, several, or None or () for all; `keepdim` keeps the axes with length 1. As in PyTorch, except that no
op has a second result. float16 is added up in float32, and sums of integers are int64, also those of unsigned ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygen import kernels
from tinygen.array import average, real, total, xp
from tinygen.ops._samples import normal, sample
from tinygen.ops.elementwise import exp
from tinygen.ops.shape import broadcast_to, flip, reshape
from tinygen.tape import op

Dims = int | tuple[int, ...] | None


def axes(dim):
    """dim as NumPy takes it: an axis, a tuple of several, or None for all."""
    return (tuple(dim) or None) if isinstance(dim, (tuple, list)) else dim


def kept_shape(shape, dim):
    """The shape of a reduction over dim with keepdim."""
    dim = axes(dim)
    named = range(len(shape)) if dim is None else dim if isinstance(dim, tuple) else (dim,)
    dims = {d % len(shape) for d in named} if shape else set()
    return tuple(1 if i in dims else n for i, n in enumerate(shape))


def left_shape(shape, dim):
    """The shape of a reduction over one axis, or over all for None."""
    return () if dim is None or not shape else (*shape[: dim % len(shape)], *shape[dim % len(shape) + 1 :])


@op
def sum(x, dim: Dims = None, keepdim: bool = False):
    """Sum over the axes dim, as exact as pairwise summation whatever the axes and the order in memory."""
    return total(x, dim if dim is None else axes(dim), keepdim)


@sum.kernel
def _(x, dim, keepdim):
    if x.ndim != 4 or dim != (0, 2, 3) or keepdim:
        return NotImplemented  # the gradient of a bias is the one that pays
    return kernels.conv.channel_sums(x)


@sum.vjp("x")
def _(gout, x_shape, dim):
    return broadcast_to(reshape(gout, kept_shape(x_shape, dim)), x_shape)


@op
def mean(x, dim: Dims = None, keepdim: bool = False):
    """Mean over the axes dim, as exact as `sum`."""
    return average(x, axes(dim) if x.ndim else None, keepdim)


@mean.vjp("x")
def _(gout, x_shape, dim):
    kept = kept_shape(x_shape, dim)
    count = 1
    for n, k in zip(x_shape, kept, strict=True):
        count *= n if k == 1 else 1
    return broadcast_to(reshape(gout, kept) / count, x_shape)


@op
def amax(x, dim: Dims = None, keepdim: bool = False):
    """Largest value over the axes dim, NaN where there is one. Ties share the gradient evenly, NaN has NaN."""
    return x.max(axis=axes(dim), keepdims=keepdim)


@op
def amin(x, dim: Dims = None, keepdim: bool = False):
    """Smallest value over the axes dim, NaN where there is one. Ties share the gradient evenly, NaN has NaN."""
    return x.min(axis=axes(dim), keepdims=keepdim)


@amin.vjp("x")
@amax.vjp("x")
def _(gout, x, out, dim):
    kept = kept_shape(x.shape, dim)
    hit = x == reshape(out, kept)  # nowhere, where it is NaN: then so is the gradient
    return reshape(gout, kept) * hit / sum(hit, dim, True)


@op
def argmax(x, dim: int | None = None, keepdim: bool = False):
    """Index of the largest value along dim (of the flattened array for None), of equals the first."""
    return x.argmax(axis=dim).reshape(kept_shape(x.shape, dim) if keepdim else left_shape(x.shape, dim))


@op
def argmin(x, dim: int | None = None, keepdim: bool = False):
    """Index of the smallest value along dim (of the flattened array for None), of equals the first."""
    return x.argmin(axis=dim).reshape(kept_shape(x.shape, dim) if keepdim else left_shape(x.shape, dim))


@op
def logsumexp(x, dim: Dims, keepdim: bool = False):
    """log(sum(exp(x))) over the axes dim, without overflow; x may be -inf. Of no numbers it is -inf.

    Accuracy: 4 ulps of the larger of the result and 1.
    """
    n, x, dim = xp(x), real(x), axes(dim) if x.ndim else None
    top = x.max(axis=dim, keepdims=True) if x.size else n.zeros(kept_shape(x.shape, dim), x.dtype)
    top = n.where(n.isfinite(top), top, 0)  # all -inf: the result is -inf, not nan
    with_axes = total(n.exp(x - top), dim, True)
    nothing = with_axes == 0
    out = n.where(nothing, -n.inf, n.log(n.where(nothing, 1, with_axes))) + top
    return (out if keepdim else out.squeeze(dim)).astype(x.dtype)


@logsumexp.vjp("x")
def _(gout, x, out, dim):
    kept = kept_shape(x.shape, dim)
    return reshape(gout, kept) * exp(x - reshape(out, kept))


@op
def softmax(x, dim: int):
    """exp(x) / sum(exp(x)) along dim.

    Accuracy: 4 ulps, and one more for each unit that x is below the largest: that difference is rounded.
    """
    x = real(x)
    if not x.size:
        return x.copy()
    e = xp(x).exp(x - x.max(axis=dim, keepdims=True))
    return e / total(e, dim, True)


@softmax.vjp("x")
def _(gout, out, dim):
    return out * (gout - sum(gout * out, dim, True))


@op
def log_softmax(x, dim: int):
    """x - logsumexp(x) along dim: the logarithm of softmax, exact also where that underflows.

    Accuracy: 4 ulps of the larger of the result and 1: of a probability near 1 the logarithm has few digits.
    """
    n, x = xp(x), real(x)
    if not x.size:
        return x.copy()
    shifted = x - x.max(axis=dim, keepdims=True)
    return shifted - n.log(total(n.exp(shifted), dim, True))


@log_softmax.vjp("x")
def _(gout, out, dim):
    return gout - exp(out) * sum(gout, dim, True)


@op
def cumsum(x, dim: int):
    """Running sum along the axis dim; float16 and float32 are added up in float64, unsigned integers as int64.

    Accuracy in float64: an ulp of the largest partial sum for each element before.
    """
    if x.dtype.char in "ef":
        return x.cumsum(axis=dim, dtype=np.float64).astype(x.dtype).reshape(x.shape)
    return x.cumsum(axis=dim, dtype=np.int64 if x.dtype.kind == "u" else None).reshape(x.shape)


@cumsum.vjp("x")
def _(gout, dim):
    return flip(cumsum(flip(gout, dim), dim), dim) if gout.shape else gout * 1.0


# ---------------------------------------------------------------------------------------------- what they are tested on


def _reductions(rng):
    x = normal(rng, 2, 3, 4)
    yield sample(x)
    for dim in (0, -1, (0, 2)):
        yield sample(x, dim)
    yield sample(x, (1, -1), keepdim=True)
    yield sample(normal(rng, 3), 0)
    yield sample(normal(rng, 2, 2, 2, 3).transpose(0, 3, 1, 2), (0, 2, 3))  # an image, NHWC in memory


def _along(rng):
    for dim in (0, 1, -1):
        yield sample(normal(rng, 2, 3, 4), dim)
    yield sample(normal(rng, 3), 0)


_op: Any
for _op in (sum, mean, amax, amin):
    _op.samples(_reductions)
for _op in (softmax, log_softmax, logsumexp, cumsum, argmax, argmin):
    _op.samples(_along)
