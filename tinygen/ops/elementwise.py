"""Elementwise ops: arithmetic, exponentials, choices, comparisons. (Activations: activations.py.)

Arguments are arrays of shapes that broadcast, or Python numbers; the result has the float dtype of the inputs. At kinks
the gradient is PyTorch's: abs gives 0 at 0, maximum and minimum share it in halves at ties, clamp passes it on at the
bounds. Of integers arithmetic gives integers, which wrap around as NumPy's and PyTorch's do; functions whose results
aren't integers take them as float32.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygen import kernels
from tinygen.array import on_device_of, real, xp
from tinygen.ops._samples import binary, normal, positive, sample, unary
from tinygen.tape import op

# ------------------------------------------------------------------------------------------------------- arithmetic


@op
def add(x, y):
    """x + y."""
    return x + y


add.kernel(kernels.elementwise.of("tg_add", arrays=2), least=3 << 16)  # below, NumPy's is faster


@add.vjp("x")
def _(gout):
    return gout


@add.vjp("y")
def _(gout):
    return gout


@op
def sub(x, y):
    """x - y."""
    return x - y


@sub.vjp("x")
def _(gout):
    return gout


@sub.vjp("y")
def _(gout):
    return -gout


@op
def mul(x, y):
    """x * y."""
    return x * y


mul.kernel(kernels.elementwise.of("tg_mul", arrays=2), least=1 << 18)


@mul.vjp("x")
def _(gout, y):
    return gout * y


@mul.vjp("y")
def _(gout, x):
    return gout * x


@op
def div(x, y):
    """x / y."""
    return x / y


@div.vjp("x")
def _(gout, y):
    return gout / y


@div.vjp("y")
def _(gout, out, y):
    return -gout * out / y


@op
def neg(x):
    """-x."""
    return -x


@neg.vjp("x")
def _(gout):
    return -gout


@op
def pow(x, exponent):
    """x ** exponent. Of a negative x and an exponent that isn't whole it is NaN."""
    return x**exponent


@pow.vjp("x")
def _(gout, x, exponent):
    if isinstance(exponent, (int, float)):
        return gout * 0.0 if exponent == 0 else gout * (exponent * x ** (exponent - 1))
    return gout * (exponent * where((x == 0) * (exponent == 0), 1.0, x) ** (exponent - 1))


@pow.vjp("exponent")
def _(gout, out, x, exponent):
    if isinstance(x, (int, float)) and x:
        return gout * out * (math.log(x) if x > 0 else math.nan)
    zero = (x == 0) * (exponent >= 0)  # there it is flat, but for a jump at the exponent 0
    return gout * where(zero, 0.0, out * (log(where(zero, 1.0, x)) if hasattr(x, "dtype") else -math.inf))


@op
def square(x):
    """x * x."""
    return x * x


@square.vjp("x")
def _(gout, x):
    return gout * (x + x)


# ----------------------------------------------------------------------------------------- exponentials and the like


@op
def exp(x):
    """e to the x."""
    return xp(x).exp(real(x))


exp.kernel(kernels.elementwise.of("tg_exp"), least=kernels.library.SMALL)


@exp.vjp("x")
def _(gout, out):
    return mul(gout, out)  # not *, which on arrays is NumPy's


@op
def expm1(x):
    """exp(x) - 1, accurate near 0."""
    return xp(x).expm1(real(x))


@expm1.vjp("x")
def _(gout, out):
    return gout * (out + 1)


@op
def log(x):
    """Natural logarithm."""
    return xp(x).log(real(x))


log.kernel(kernels.elementwise.of("tg_log"), least=kernels.library.SMALL)


@log.vjp("x")
def _(gout, x):
    return gout / x


@op
def log1p(x):
    """log(1 + x), accurate near 0."""
    return xp(x).log1p(real(x))


@log1p.vjp("x")
def _(gout, x):
    return gout / (x + 1)


@op
def sqrt(x):
    """Square root. Its gradient at 0 is infinite, as in PyTorch: add a small number under the root."""
    return xp(x).sqrt(real(x))


sqrt.kernel(kernels.elementwise.of("tg_sqrt"), least=kernels.library.SMALL)


@sqrt.vjp("x")
def _(gout, out):
    return gout * 0.5 / out


@op
def rsqrt(x):
    """1 / sqrt(x)."""
    return 1 / xp(x).sqrt(real(x))


@rsqrt.vjp("x")
def _(gout, out):
    return gout * -0.5 * out * out * out


@op
def sin(x):
    """Sine."""
    return xp(x).sin(real(x))


@sin.vjp("x")
def _(gout, x):
    return gout * cos(x)


@op
def cos(x):
    """Cosine."""
    return xp(x).cos(real(x))


@cos.vjp("x")
def _(gout, x):
    return -gout * sin(x)


# --------------------------------------------------------------------------------------------- choices and comparisons


@op
def abs(x):
    """Absolute value."""
    return xp(x).abs(x)


@abs.vjp("x")
def _(gout, x):
    return gout * sign(x)


def _shared(gout, lost, tie):
    """The gradient of what may have lost to the other one, or tied with it; NaN does neither, as in PyTorch."""
    return where(lost, 0.0, where(tie, gout * 0.5, gout))


@op
def maximum(x, y):
    """The larger of x and y."""
    return xp(x if hasattr(x, "dtype") else y).maximum(x, y)


@maximum.vjp("x")
def _(gout, x, y):
    return _shared(gout, x < y, x == y)


@maximum.vjp("y")
def _(gout, x, y):
    return _shared(gout, y < x, x == y)


@op
def minimum(x, y):
    """The smaller of x and y."""
    return xp(x if hasattr(x, "dtype") else y).minimum(x, y)


@minimum.vjp("x")
def _(gout, x, y):
    return _shared(gout, x > y, x == y)


@minimum.vjp("y")
def _(gout, x, y):
    return _shared(gout, y > x, x == y)


@op
def clamp(x, min: Any = None, max: Any = None):
    """x limited to [min, max]; the bounds are numbers, arrays or None. Where min is above max it is max."""
    if min is None and max is None:
        raise ValueError("min or max must be given")
    return xp(x).clip(x, min, max)


@clamp.vjp("x")
def _(gout, x, min, max):
    if min is not None:
        gout = where(x >= min, gout, 0.0)
    return gout if max is None else where(x <= max, gout, 0.0)


@clamp.vjp("min")
def _(gout, x, min, max):
    return where((x < min) * (min < max) if max is not None else x < min, gout, 0.0)  # of booleans * is "and"


@clamp.vjp("max")
def _(gout, x, min, max):
    return where((x > max) + (min > max) if min is not None else x > max, gout, 0.0)  # and + is "or"


@op
def where(condition, x, y):
    """x where the (boolean) condition holds, y elsewhere. A condition on the CPU is taken to where x and y are."""
    model = next((v for v in (x, y) if hasattr(v, "dtype")), condition)
    return xp(model).where(on_device_of(model, condition), x, y)


@where.kernel
def _(condition, x, y):
    """x's bits times 0 or 1: NumPy's where takes a branch for each element, which costs 10 times as much."""
    if x.__class__ is float and x == 0 and y.__class__ is np.ndarray and condition.__class__ is np.ndarray:
        condition, x, y = ~condition, y, x
    is_mask = isinstance(condition, np.ndarray) and condition.dtype == bool and isinstance(x, np.ndarray)
    if not is_mask or y.__class__ is not float or y != 0 or x.dtype not in (np.float32, np.float64):
        return NotImplemented
    return (x.view(f"i{x.itemsize}") * condition).view(x.dtype)


@where.vjp("x")
def _(gout, condition):
    return where(condition, gout, 0.0)


@where.vjp("y")
def _(gout, condition):
    return where(condition, 0.0, gout)


@op
def sign(x):
    """-1, 0 or 1. Its gradient is 0: nothing is recorded."""
    return xp(x).sign(x)


@op
def gt(x, y):
    """x > y, as booleans."""
    return x > y


@op
def ge(x, y):
    """x >= y, as booleans."""
    return x >= y


@op
def lt(x, y):
    """x < y, as booleans."""
    return x < y


@op
def le(x, y):
    """x <= y, as booleans."""
    return x <= y


@op
def eq(x, y):
    """x == y, as booleans."""
    return x == y


@op
def ne(x, y):
    """x != y, as booleans."""
    return x != y


# ---------------------------------------------------------------------------------------------- what they are tested on

_op: Any
for _op in (neg, square, exp, expm1, sin, cos, abs, sign):
    _op.samples(unary())
for _op in (log, log1p, sqrt, rsqrt):
    _op.samples(unary(positive))
for _op in (add, sub, mul, maximum, minimum, gt, ge, lt, le, eq, ne):
    _op.samples(binary())
div.samples(binary(normal, positive))


@pow.samples
def _(rng):
    for exponent in (0, 1, 2, 3, 0.5, -1):
        yield sample(positive(rng, 2, 3), exponent)
    yield sample(normal(rng, 3), 2)
    yield sample(positive(rng, 2, 3), normal(rng, 3))
    yield sample(2.5, normal(rng, 2, 3))
    yield sample(positive(rng, 3), np.array([2.0, 0.0, -3.0]))


@clamp.samples
def _(rng):
    yield sample(normal(rng, 4, 5), -0.5, 0.5)
    yield sample(normal(rng, 4), None, 0.3)
    yield sample(normal(rng, 4), min=-0.3)
    yield sample(normal(rng, 4, 5), normal(rng, 5), normal(rng, 4, 1))
    yield sample(normal(rng, 4), max=normal(rng, 4))
    yield sample(normal(rng, 4), normal(rng, 4))


@where.samples
def _(rng):
    yield sample(normal(rng, 3, 4) > 0, normal(rng, 3, 4), normal(rng, 4))
    yield sample(normal(rng, 3) > 0, normal(rng, 2, 1), 0.0)
