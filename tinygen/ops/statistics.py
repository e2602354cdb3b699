"""Products, variances and their roots over axes: written in other ops, so their gradients are too."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from tinygen.array import WIDE
from tinygen.errors import naming
from tinygen.ops.elementwise import mul, pow, square, sub, where
from tinygen.ops.join import cat
from tinygen.ops.reduce import kept_shape, mean, sum
from tinygen.ops.shape import getitem, reshape, to


def reckoned_wide(function):
    """The function, which takes integers as float32, and reckons with float16 in float32, as PyTorch does."""

    @functools.wraps(function)
    def call(x, *args, **kwargs):
        if x.dtype.char in WIDE:
            return function(x, *args, **kwargs)
        out = function(to(x, np.float32), *args, **kwargs)
        return to(out, x.dtype) if x.dtype.kind == "f" else out

    return naming(call)


def prod(x, dim: int | None = None, keepdim: bool = False):
    """The product along dim, or of all elements; of none it is 1. By halves, without a division: zeros are fine.

    That of integers is int64, as in PyTorch.
    """
    if x.dtype.kind in "iub":
        x = to(x, np.int64)
    if dim is None:
        x, dim = reshape(x, (-1,)), 0
    if not x.shape:
        return x
    before = (slice(None),) * (dim % len(x.shape))
    while (n := x.shape[dim]) > 1:
        half = n // 2
        pairs = mul(getitem(x, (*before, slice(half))), getitem(x, (*before, slice(half, 2 * half))))
        x = cat([pairs, getitem(x, (*before, slice(2 * half, None)))], dim) if n % 2 else pairs
    x = x if n else sum(x, dim, True) + 1
    return x if keepdim else getitem(x, (*before, 0))


@reckoned_wide
def var(
    x, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: float | None = None
):  # fmt: skip
    """Variance over the axes dim (all for None): the squared distances from the mean, over their number - correction.

    correction: 1 unless given (Bessel's). unbiased=False is an older word for correction=0, also in dim's place.
    """
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if unbiased is not None and correction is not None:
        raise ValueError("var: give either unbiased or correction")
    correction = (0 if unbiased is False else 1) if correction is None else correction
    pairs = zip(x.shape, kept_shape(x.shape, dim), strict=True)
    freedom = math.prod(n for n, kept in pairs if kept != n) - correction
    return sum(square(sub(x, mean(x, dim, True))), dim, keepdim) / max(freedom, 0)


@reckoned_wide
def std(
    x, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: float | None = None
):  # fmt: skip
    """Standard deviation over the axes dim: the root of `var`, with the slope 0 where that is 0."""
    return root(var(x, dim, unbiased, keepdim, correction=correction))


def root(total, order: float = 2):
    """total ** (1 / order), of numbers that aren't negative, with the slope 0 where it is 0, as in PyTorch."""
    usual = total > 0 if order > 0 else total < math.inf
    flat = total if order > 0 else where(total == math.inf, 0.0, total)  # NaN stays NaN
    return where(usual, pow(where(usual, total, 1.0), 1 / order), flat)
