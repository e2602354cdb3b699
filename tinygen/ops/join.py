"""Tensors joined: along an axis that they have, or along a new one."""

from __future__ import annotations

import numpy as np

from tinygen import kernels
from tinygen._tensor import Tensor
from tinygen.array import inverse, memory_order, xp
from tinygen.ops._samples import normal, sample
from tinygen.ops.shape import getitem, pad
from tinygen.tape import op


@op
def cat(*tensors, dim: int = 0):
    """The tensors joined along the axis dim, which exists already."""
    return xp(tensors[0]).concatenate(tensors, axis=dim)


cat.kernel(kernels.cat.cat, least=kernels.cat.LEAST)


@cat.vjp("tensors")
def _(gout, tensors_shape, dim):
    if len(tensors_shape) == 2:
        return cat_backward(gout, tensors_shape[0][dim], dim)
    ends = np.cumsum([shape[dim] for shape in tensors_shape])
    before = (slice(None),) * (dim % len(gout.shape))
    return [
        _dense(getitem(gout, (*before, slice(int(end) - shape[dim], int(end)))))
        for end, shape in zip(ends, tensors_shape, strict=True)
    ]


@op(outputs=("x", "y"))
def cat_backward(gout, at, dim):
    """The gradients of two tensors that `cat` joins along the axis dim: gout up to `at` there, and from there on."""
    if not 0 <= at <= gout.shape[dim]:
        raise ValueError(f"at must be from 0 to the {gout.shape[dim]} of axis {dim}, got {at}")
    before = (slice(None),) * (dim % gout.ndim)
    return gout[(*before, slice(at))].copy("K"), gout[(*before, slice(at, None))].copy("K")


cat_backward.kernel(kernels.cat.cat_backward, least=kernels.cat.LEAST)


@cat_backward.vjp("gout")
def _(gx, gy, gout_shape, at, dim):
    if gx is not None and gy is not None:
        return cat(gx, gy, dim=dim)
    axis, g = dim % len(gout_shape), gy if gx is None else gx
    zeros = (at, 0) if gx is None else (0, gout_shape[dim] - at)
    return pad(g, tuple(zeros if i == axis else (0, 0) for i in range(len(gout_shape))))


def _dense(x):
    """A gradient without gaps in memory: otherwise each kernel that reads it would close them for itself."""
    axes = () if isinstance(x, Tensor) else memory_order(x)
    return xp(x).ascontiguousarray(x.transpose(axes)).transpose(inverse(axes)) if axes else x


@op
def stack(*tensors, dim: int = 0):
    """The tensors, all of one shape, joined along a new axis dim."""
    return xp(tensors[0]).stack(tensors, axis=dim)


@stack.vjp("tensors")
def _(gout, tensors_shape, dim):
    before = (slice(None),) * (dim % len(gout.shape))
    return [getitem(gout, (*before, i)) for i in range(len(tensors_shape))]


# ---------------------------------------------------------------------------------------------- what they are tested on


@cat.samples
def _(rng):
    yield sample(normal(rng, 2, 3), normal(rng, 2, 1), normal(rng, 2, 2), dim=1)
    yield sample(normal(rng, 2), dim=0)
    yield sample(normal(rng, 2, 2), normal(rng, 1, 2), dim=-2)


@cat_backward.samples
def _(rng):
    yield sample(normal(rng, 2, 3), 1, 1)
    yield sample(normal(rng, 3, 2), 2, -2)
    yield sample(normal(rng, 3), 0, 0)


@stack.samples
def _(rng):
    yield sample(normal(rng, 2, 3), normal(rng, 2, 3), dim=1)
    yield sample(normal(rng, 3), normal(rng, 3), dim=-1)
