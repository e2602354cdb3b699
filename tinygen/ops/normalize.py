"""Standardization: what batch norm, group norm and layer norm are made of."""

from __future__ import annotations

import math
from typing import Any

from tinygen import kernels
from tinygen.array import average, real, xp
from tinygen.ops._derive import derive_from
from tinygen.ops._samples import normal, sample
from tinygen.ops.activations import silu as _silu
from tinygen.ops.elementwise import sqrt
from tinygen.ops.reduce import mean
from tinygen.ops.shape import broadcast_to, reshape
from tinygen.tape import op


@op(outputs=("out", "mean", "var"))
def standardize(x, dims, eps):
    """(x - mean) / sqrt(var + eps) over the axes dims; with it that mean and (biased) variance, axes kept.

    Batch norm: Ioffe & Szegedy (2015), algorithm 1. Layer norm: Ba, Kiros, Hinton (2016), equation 4.

    Accuracy: 16 ulps of the largest element, and the rounding of x itself where the mean is large.
    """
    x = real(x)
    mean = average(x, dims, True)
    out = x - mean
    var = average(out * out, dims, True)
    out /= xp(x).sqrt(var + eps)
    return out, mean, var


@standardize.vjp("x")
def _(gout, gmean, gvar, out, var, x_shape, dims, eps):
    std, count = sqrt(var + eps), math.prod(x_shape[d] for d in dims)
    g: Any = 0.0
    if gout is not None:
        g = (gout - mean(gout, dims, True) - out * mean(gout * out, dims, True)) / std
    if gmean is not None:
        g = g + broadcast_to(gmean / count, x_shape)
    if gvar is not None:
        g = g + out * (gvar * std * (2 / count))
    return g


@op(outputs=("out", "rms"))
def divide_by_rms(x, dims, eps):
    """x / rms with rms = sqrt(mean(x^2) + eps) over the axes dims; with it that rms, axes kept.

    Source: Zhang & Sennrich, Root Mean Square Layer Normalization (2019), equation 4. Accuracy: 16 ulps.
    """
    x = real(x)
    rms = xp(x).sqrt(average(x * x, dims, True) + eps)
    return x / rms, rms


@divide_by_rms.vjp("x")
def _(gout, grms, out, rms, x_shape, dims):
    g: Any = 0.0
    if gout is not None:
        g = (gout - out * mean(gout * out, dims, True)) / rms
    if grms is not None:
        g = g + out * (grms / math.prod(x_shape[d] for d in dims))
    return g


@op(outputs=("out", "mean", "var"))
def batch_norm(x, weight=None, bias=None, eps=1e-5):
    """weight * (x - mean) / sqrt(var + eps) + bias, by the batch's own mean and (biased) variance, and those two.

    x: (N, C, ...); weight and bias: (C,), or None for 1 and 0; mean and var: (C,). At least one value per channel.

    Accuracy: 16 ulps of the largest element, and the rounding of x itself where the mean is large.
    """
    shape = (1, -1, *[1] * (len(x.shape) - 2))
    out, mean, var = standardize(x, (0, *range(2, len(x.shape))), eps)
    if weight is not None:
        out = out * reshape(weight, shape)
    if bias is not None:
        out = out + reshape(bias, shape)
    return out, reshape(mean, (-1,)), reshape(var, (-1,))


@op(outputs=("gx", "gweight", "gbias"))
def batch_norm_backward(gout, gmean, gvar, x, weight=None, bias=None, eps=1e-5, moments=None):
    """The gradients of `batch_norm`, from those of its outputs (None for zero). (0,) for a weight or bias of None.

    moments: the batch's mean and variance, if known; they follow from x, so they add nothing to the derivatives.

    Accuracy: 16 ulps of the largest element, as of `batch_norm`.
    """
    none = xp(x).empty_like(x, shape=(0,))
    grads = _gradients(eps)((x, weight, bias), (gout, gmean, gvar))
    return tuple(none if g is None else g for g in grads)


@batch_norm.vjp("x", "weight", "bias")
def _(gout, gmean, gvar, x, weight, bias, eps, mean, var):
    return batch_norm_backward(gout, gmean, gvar, x, weight, bias, eps, (mean, var))


@batch_norm_backward.vjp("gout", "gmean", "gvar", "x", "weight", "bias")
def _(ggx, ggweight, ggbias, gout, gmean, gvar, x, weight, bias, eps):
    first = _gradients(eps)
    second = derive_from(lambda *args: first(args[3:], args[:3]))
    return second((gout, gmean, gvar, x, weight, bias), (ggx, ggweight, ggbias))


def _gradients(eps):
    """The gradients of the definition, which is written in ops, so that they can be derived again."""
    return derive_from(lambda x, weight, bias: batch_norm.op.body(x, weight, bias, eps))


@batch_norm.kernel
def _(x, weight, bias, eps):
    return kernels.rows.batch_norm(x, weight, bias, eps)


@batch_norm_backward.kernel
def _(gout, gmean, gvar, x, weight, bias, eps, moments):
    if gout is None or gmean is not None or gvar is not None:
        return NotImplemented  # only in derivatives of derivatives
    mean, var = moments or standardize.op.body(x, (0, *range(2, x.ndim)), eps)[1:]
    mean, var = mean.reshape(-1), var.reshape(-1)
    grads = kernels.rows.batch_norm_backward(gout, x, weight, mean, var, eps)
    if grads is NotImplemented:
        return grads
    gx, gweight, gbias = grads
    return gx, gweight[: 0 if weight is None else None], gbias[: 0 if bias is None else None]


@op(outputs=("out", "mean", "rstd"))
def group_norm(x, weight=None, bias=None, groups=1, eps=1e-5, silu=False, shift=None):
    """weight * (x - mean) * rstd + bias, and silu of that on demand; with it mean and rstd = 1 / sqrt(var + eps).

    The moments are those of an image's channels in one of the groups, each channels / groups in a row. x: (N, C, ...);
    weight and bias: (C,), or None for 1 and 0; mean and rstd: (N, groups). At least one value in a group.
    shift: (N, C), of x + shift in x's place, or None.

    Accuracy: 16 ulps of the largest element, as of `batch_norm`.

    Source: Wu & He, Group Normalization (2018), equations 1 to 4.
    """
    n, c, *rest = x.shape
    shape = (1, c, *[1] * len(rest))
    if shift is not None:
        x = x + reshape(shift, (n, *shape[1:]))
    out, mean, var = standardize(reshape(x, (n, groups, c // groups, *rest)), tuple(range(2, len(rest) + 3)), eps)
    out = reshape(out, x.shape)
    if weight is not None:
        out = out * reshape(weight, shape)
    if bias is not None:
        out = out + reshape(bias, shape)
    return _silu(out) if silu else out, reshape(mean, (n, groups)), 1.0 / sqrt(reshape(var, (n, groups)) + eps)


@op(outputs=("gx", "gweight", "gbias", "gshift"))
def group_norm_backward(
    gout, gmean, grstd, x, weight=None, bias=None, groups=1, eps=1e-5, silu=False, shift=None, moments=None
):
    """The gradients of `group_norm`, from those of its outputs (None for zero). (0,) for one of an input of None.

    moments: mean and rstd, if known; they follow from x, so they add nothing to the derivatives.

    Accuracy: 16 ulps of the largest of the terms that it is a difference of.
    """
    none = xp(x).empty_like(x, shape=(0,))
    grads = _group_gradients(groups, eps, silu)((x, weight, bias, shift), (gout, gmean, grstd))
    return tuple(none if g is None else g for g in grads)


@group_norm.vjp("x", "weight", "bias", "shift")
def _(gout, gmean, grstd, x, weight, bias, groups, eps, silu, shift, mean, rstd):
    return group_norm_backward(gout, gmean, grstd, x, weight, bias, groups, eps, silu, shift, (mean, rstd))


@group_norm_backward.vjp("gout", "gmean", "grstd", "x", "weight", "bias", "shift")
def _(ggx, ggweight, ggbias, ggshift, gout, gmean, grstd, x, weight, bias, groups, eps, silu, shift):
    first = _group_gradients(groups, eps, silu)
    second = derive_from(lambda *args: first(args[3:], args[:3]))
    return second((gout, gmean, grstd, x, weight, bias, shift), (ggx, ggweight, ggbias, ggshift))


def _group_gradients(groups, eps, silu):
    """The gradients of the definition, which is written in ops, so that they can be derived again."""
    return derive_from(lambda x, weight, bias, shift: group_norm.op.body(x, weight, bias, groups, eps, silu, shift))


@group_norm.kernel
def _(x, weight, bias, groups, eps, silu, shift):
    return kernels.rows.group_norm(x, weight, bias, groups, eps, silu, shift)


@group_norm_backward.kernel
def _(gout, gmean, grstd, x, weight, bias, groups, eps, silu, shift, moments):
    if gout is None or gmean is not None or grstd is not None:
        return NotImplemented  # only in derivatives of derivatives
    known = moments or kernels.rows.group_norm(x, weight, bias, groups, eps, silu, shift)
    if known is NotImplemented:
        return known
    mean, rstd = known[-2:]
    grads = kernels.rows.group_norm_backward(gout, x, weight, bias, mean, rstd, groups, silu, shift)
    if grads is NotImplemented:
        return grads
    gx, gweight, gbias, gshift = grads
    given = ((weight, gweight), (bias, gbias), (shift, gshift))
    return gx, *(gweight[:0] if a is None else g for a, g in given)


@standardize.samples
def _(rng):
    yield sample(normal(rng, 3, 2, 2, 2), (0, 2, 3), 1e-5)
    yield sample(normal(rng, 4, 3), (0,), 1e-3)
    yield sample(normal(rng, 2, 3, 4), (-2, -1), 1e-5)


@divide_by_rms.samples
def _(rng):
    yield sample(normal(rng, 4, 3), (0,), 1e-3)
    yield sample(normal(rng, 2, 3, 4), (-2, -1), 1e-5)


def _batches(rng):
    yield normal(rng, 4, 3), normal(rng, 3), normal(rng, 3), 1e-5
    yield normal(rng, 3, 2, 2, 3), normal(rng, 2), normal(rng, 2), 1e-3
    yield normal(rng, 3, 2, 2), None, None, 1e-5


@batch_norm.samples
def _(rng):
    for case in _batches(rng):
        yield sample(*case)


@batch_norm_backward.samples
def _(rng):
    for x, *rest in _batches(rng):
        yield sample(normal(rng, *x.shape), None, None, x, *rest)
    yield sample(normal(rng, *x.shape), normal(rng, 2), normal(rng, 2), x, normal(rng, 2))


def _groups(rng):
    yield normal(rng, 2, 4, 3), normal(rng, 4), normal(rng, 4), 2, 1e-5, True, normal(rng, 2, 4)
    yield normal(rng, 2, 2, 2, 3), normal(rng, 2), None, 1, 1e-3, False
    yield normal(rng, 3, 2, 3), None, normal(rng, 2), 2, 1e-3, True
    yield normal(rng, 3, 4, 2), None, None, 2, 1e-5, True


@group_norm.samples
def _(rng):
    for case in _groups(rng):
        yield sample(*case)


@group_norm_backward.samples
def _(rng):
    for x, *rest in _groups(rng):
        yield sample(normal(rng, *x.shape), None, None, x, *rest)
    yield sample(normal(rng, *x.shape), normal(rng, 3, 2), normal(rng, 3, 2), x, *rest)
