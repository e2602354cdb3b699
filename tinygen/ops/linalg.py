"""Matrix products."""

from __future__ import annotations

import math

from tinygen import kernels
from tinygen.array import xp
from tinygen.ops._samples import normal, sample
from tinygen.ops.conv import conv2d_weight
from tinygen.ops.reduce import sum
from tinygen.ops.shape import reshape, transpose
from tinygen.tape import op


@op
def matmul(x, y):
    """x @ y for matrices, or stacks of them that broadcast. x: (..., M, K), y: (..., K, N) -> (..., M, N).

    A vector is taken as a row on the left, as a column on the right.

    Accuracy: 16 ulps of the largest element; long sums are added in blocks, so it hardly grows with their length.
    """
    if x.ndim == 0 or y.ndim == 0:
        raise ValueError("matmul of a 0-d array; use *")
    return xp(x).matmul(x, y)


@matmul.kernel
def _(x, y):
    return kernels.conv.matmul(x, y)


@matmul.vjp("x")
def _(gout, x_shape, y):
    if len(x_shape) == 1 and len(y.shape) == 1:
        return gout * y
    if len(y.shape) == 1:
        return reshape(gout, (*gout.shape, 1)) * y
    if len(x_shape) == 1:  # (K) @ (..., K, N) -> (..., N)
        return sum(reshape(gout, (*gout.shape[:-1], 1, gout.shape[-1])) * y, -1)
    return matmul(gout, transpose(y, -1, -2))  # not @, which on arrays is NumPy's


@matmul.vjp("y")
def _(gout, x, y_shape):
    if len(x.shape) == 1 and len(y_shape) == 1:
        return gout * x
    if len(x.shape) == 1:
        return reshape(x, (-1, 1)) * reshape(gout, (*gout.shape[:-1], 1, gout.shape[-1]))
    if len(y_shape) == 1:  # (..., M, K) @ (K) -> (..., M)
        return sum(reshape(gout, (*gout.shape, 1)) * x, -2)
    return matmul(transpose(x, -1, -2), gout)


def outer(x, y):
    """The products of each element of x with each of y: (M,), (N,) -> (M, N)."""
    if len(x.shape) != 1 or len(y.shape) != 1:
        raise ValueError(f"outer: both must be vectors, got shapes {x.shape} and {y.shape}")
    return reshape(x, (-1, 1)) * y


@op
def linear(input, weight, bias=None):
    """input @ weight.T + bias. input: (..., in), weight: (out, in), bias: (out,) or None -> (..., out).

    Accuracy: 16 ulps of the largest element; long sums are added in blocks, so it hardly grows with their length.
    """
    if weight.ndim != 2 or input.ndim == 0 or input.shape[-1] != weight.shape[1]:
        raise ValueError(f"weight must be (out, in) with in = input.shape[-1], got {weight.shape} for {input.shape}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must have shape {weight.shape[:1]}, got {bias.shape}")
    out = input @ weight.T
    return out if bias is None else out + bias


@linear.kernel
def _(input, weight, bias):
    return kernels.conv.linear(input, weight, bias)


@linear.vjp("input")
def _(gout, weight):
    rows = matmul(_rows(gout), weight)
    return rows if len(gout.shape) == 2 else reshape(rows, (*gout.shape[:-1], weight.shape[1]))


@linear.vjp("weight", "bias")
def _(gout, input):
    x, y = (a.reshape(*a.shape, 1, 1) for a in (_rows(input), _rows(gout)))  # images of one pixel
    weight, bias = conv2d_weight(x, y, (1, 1))  # in memory (in, out), like weights
    return weight.reshape(*weight.shape[:2]), bias  # the arrays' own reshape takes a tenth of the op's time


def _rows(x):
    """x as a matrix: its last axis, and all others as one. (-1 can't stand for that if there are no elements.)"""
    return x if len(x.shape) == 2 else reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))


@matmul.flops
def _(out_shape, x_shape):
    return 2 * math.prod(out_shape) * x_shape[-1]


@linear.flops
def _(out_shape, input_shape):
    return 2 * math.prod(out_shape) * input_shape[-1]


@matmul.samples
def _(rng):
    for a, b in (((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((2, 1, 2, 3), (5, 3, 2)), ((3,), (3,)), ((2, 3), (3,)),
                 ((3,), (3, 2)), ((3,), (2, 3, 2)), ((2, 2, 3), (3,))):  # fmt: skip
        yield sample(normal(rng, *a), normal(rng, *b))


@linear.samples
def _(rng):
    yield sample(normal(rng, 2, 3), normal(rng, 4, 3), normal(rng, 4))
    yield sample(normal(rng, 2, 5, 3), normal(rng, 1, 3))
    yield sample(normal(rng, 3), normal(rng, 4, 3), normal(rng, 4))
