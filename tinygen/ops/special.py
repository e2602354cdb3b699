"""The error function."""

from __future__ import annotations

import math

from tinygen.array import real, xp
from tinygen.ops._samples import sample, unary
from tinygen.ops.elementwise import exp
from tinygen.tape import op

_STEP = 0.5  # of the trapezoids
_SERIES = [2 / math.sqrt(math.pi) * (-1) ** n / (math.factorial(n) * (2 * n + 1)) for n in range(20)]


@op
def erf(x):
    """The error function, 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x.

    Up to 1 its Taylor series; beyond, 1 - erfc(x), with the integral

        erfc(x) = 2 x / pi exp(-x^2) integral from 0 to infinity of exp(-t^2) / (t^2 + x^2)

    by trapezoids of width h, plus 2 / (1 - exp(2 pi x / h)), their error to 16 digits.

    Source: Chiarella and Reichel, On the evaluation of integrals related to the error function (1968).
    """
    n, x = xp(x), real(x)
    small, size = n.clip(x, -1, 1), n.clip(n.abs(x), 1, 6)
    near, square = 0.0, small * small
    for coefficient in reversed(_SERIES):
        near = near * square + coefficient
    square = size * size
    terms = 0.5 / square
    for k in range(1, 14):
        terms = terms + math.exp(-((_STEP * k) ** 2)) / ((_STEP * k) ** 2 + square)
    tail = 2 * _STEP / math.pi * size * n.exp(-square) * terms + 2 / (1 - n.exp(size * (2 * math.pi / _STEP)))
    return n.where(n.abs(x) < 1, near * small, n.copysign(1 - tail, x))


@erf.vjp("x")
def _(gout, x):
    return gout * (2 / math.sqrt(math.pi) * exp(-x * x))


@erf.samples
def _(rng):
    yield from unary()(rng)
    yield sample(rng.uniform(-3, 3, 12))
