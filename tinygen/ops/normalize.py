"""Standardization: what batch norm and layer norm are made of."""

from __future__ import annotations

import math

from tinygen.autograd import op, xp
from tinygen.ops._samples import normal, sample
from tinygen.ops.elementwise import sqrt
from tinygen.ops.reduce import mean
from tinygen.ops.shape import broadcast_to


@op(outputs=("out", "mean", "var"))
def standardize(x, dims, eps=1e-5):
    """(x - mean) / sqrt(var + eps) over the axes dims; with it that mean and (biased) variance, axes kept.

    Batch norm: Ioffe & Szegedy (2015), algorithm 1. Layer norm: Ba, Kiros, Hinton (2016), equation 4.
    """
    mean = x.mean(axis=dims, keepdims=True)
    out = x - mean
    var = (out * out).mean(axis=dims, keepdims=True)
    out /= xp(x).sqrt(var + eps)
    return out, mean, var


@standardize.vjp("x")
def _(gout, gmean, gvar, out, var, x_shape, dims, eps):
    std, count, g = sqrt(var + eps), math.prod(x_shape[d] for d in dims), 0.0
    if gout is not None:
        g = (gout - mean(gout, dims, True) - out * mean(gout * out, dims, True)) / std
    if gmean is not None:
        g = g + broadcast_to(gmean / count, x_shape)
    if gvar is not None:
        g = g + out * (gvar * std * (2 / count))
    return g


@standardize.samples
def _(generator):
    yield sample(normal(generator, 3, 2, 2, 2), (0, 2, 3))
    yield sample(normal(generator, 4, 3), (0,), 1e-3)
    yield sample(normal(generator, 2, 3, 4), (-2, -1))
