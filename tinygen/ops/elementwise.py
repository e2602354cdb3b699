"""Elementwise ops: arithmetic, exponentials, activations, comparisons.

Arguments are arrays of shapes that broadcast, or Python numbers; the result has the float dtype of the inputs. At kinks
the gradient is PyTorch's: relu and leaky_relu take the left slope at 0, abs gives 0 at 0, maximum and minimum share
it in halves at ties, clamp passes it on at the bounds.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np

from tinygen import kernels
from tinygen.array import on_device_of, xp
from tinygen.ops._samples import binary, normal, positive, sample, unary
from tinygen.tape import op


@cache
def _array(number, dtype):
    return np.array(number, dtype)


def _constant(number, x):
    """The number beside x: as an array, which NumPy takes in half the time of a Python number."""
    return _array(number, x.dtype) if x.__class__ is np.ndarray and x.dtype.kind == "f" else number


def _with_number(kernel):
    """An elementwise kernel of arrays and, as the op's last argument, a number."""
    return lambda *args: kernels.elementwise.run(kernel, *args[:-1], numbers=args[-1:])


# ------------------------------------------------------------------------------------------------------- arithmetic


@op
def add(x, y):
    """x + y."""
    return x + y


add.kernel(partial(kernels.elementwise.run, "tg_add"), least=1 << 18)  # below, NumPy's is faster


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
def pow(x, exponent: float):
    """x ** exponent; the exponent is a Python number. For a variable one write exp(y * log(x))."""
    if not isinstance(exponent, (int, float)):
        raise TypeError(f"exponent must be a number, not {type(exponent).__name__}")
    return x**exponent


@pow.vjp("x")
def _(gout, x, exponent):
    if exponent == 0:
        return gout * 0.0
    return gout * (exponent * x ** (exponent - 1))


# ----------------------------------------------------------------------------------------- exponentials and the like


@op
def exp(x):
    """e to the x."""
    return xp(x).exp(x)


@exp.vjp("x")
def _(gout, out):
    return gout * out


@op
def expm1(x):
    """exp(x) - 1, accurate near 0."""
    return xp(x).expm1(x)


@expm1.vjp("x")
def _(gout, out):
    return gout * (out + 1)


@op
def log(x):
    """Natural logarithm."""
    return xp(x).log(x)


@log.vjp("x")
def _(gout, x):
    return gout / x


@op
def log1p(x):
    """log(1 + x), accurate near 0."""
    return xp(x).log1p(x)


@log1p.vjp("x")
def _(gout, x):
    return gout / (x + 1)


@op
def sqrt(x):
    """Square root. Its gradient at 0 is infinite, as in PyTorch: add a small number under the root."""
    return xp(x).sqrt(x)


@sqrt.vjp("x")
def _(gout, out):
    return gout * 0.5 / out


@op
def sin(x):
    """Sine."""
    return xp(x).sin(x)


@sin.vjp("x")
def _(gout, x):
    return gout * cos(x)


@op
def cos(x):
    """Cosine."""
    return xp(x).cos(x)


@cos.vjp("x")
def _(gout, x):
    return -gout * sin(x)


# ------------------------------------------------------------------------------------------------------ activations


@op
def tanh(x):
    """Hyperbolic tangent."""
    return xp(x).tanh(x)


tanh.kernel(partial(kernels.elementwise.run, "tg_tanh"), least=kernels.library.SMALL)


@tanh.vjp("x")
def _(gout, out):
    return logistic_backward(gout, out, -1.0)


@op
def sigmoid(x):
    """1 / (1 + exp(-x)), without overflow: (1 + tanh(x / 2)) / 2."""
    half = _constant(0.5, x)
    return xp(x).tanh(x * half) * half + half


sigmoid.kernel(partial(kernels.elementwise.run, "tg_sigmoid"), least=kernels.library.SMALL)


@sigmoid.vjp("x")
def _(gout, out):
    return logistic_backward(gout, out, 0.0)


@op
def logistic_backward(g, y, low):
    """g (1 - y) (y - low): the gradient of `sigmoid` from its output y, with low = 0, and of `tanh`, with low = -1."""
    return g * (_constant(1, y) - y) * (y - _constant(low, y) if low else y)


logistic_backward.kernel(_with_number("tg_logistic_backward"), least=kernels.library.SMALL)


@logistic_backward.vjp("g")
def _(gout, y, low):
    return logistic_backward(gout, y, low)


@logistic_backward.vjp("y")
def _(gout, g, y, low):
    return gout * g * (1.0 + low - y - y)


@op
def softplus(x):
    """log(1 + exp(x)), without overflow: max(x, 0) + log1p(exp(-|x|))."""
    n = xp(x)
    return n.maximum(x, 0) + n.log1p(n.exp(-n.abs(x)))


@softplus.vjp("x")
def _(gout, x):
    return gout * sigmoid(x)


@op
def relu(x):
    """max(x, 0)."""
    return xp(x).maximum(x, _constant(0, x))


relu.kernel(partial(kernels.elementwise.run, "tg_relu", numbers=(0.0,)), least=kernels.library.SMALL)


@relu.vjp("x")
def _(gout, out):
    return relu_backward(gout, out)


@op
def relu_backward(g, y, negative_slope=0.0):
    """g where y > 0, negative_slope * g elsewhere: the gradient of `relu` from its output y, of `leaky_relu` from x."""
    zero = _constant(0, y)
    return xp(y).where(y > zero, g, g * negative_slope if negative_slope else zero)


relu_backward.kernel(_with_number("tg_relu_backward"), least=kernels.library.SMALL)


@relu_backward.vjp("g")
def _(gout, y, negative_slope):
    return relu_backward(gout, y, negative_slope)


@relu_backward.vjp("y")
def _(y):
    return y * 0.0  # constant on either side of the kink


@op
def leaky_relu(x, negative_slope: float = 0.01):
    """x where x > 0, negative_slope * x elsewhere."""
    return xp(x).where(x > 0, x, x * negative_slope)


leaky_relu.kernel(_with_number("tg_relu"), least=kernels.library.SMALL)


@leaky_relu.vjp("x")
def _(gout, x, negative_slope):
    return relu_backward(gout, x, negative_slope)


@op
def elu(x, alpha: float = 1.0):
    """x where x > 0, alpha * (exp(x) - 1) elsewhere."""
    n = xp(x)
    return n.where(x > 0, x, n.expm1(n.minimum(x, 0)) * alpha)


elu.kernel(_with_number("tg_elu"), least=kernels.library.SMALL)


@elu.vjp("x")
def _(gout, x, alpha):
    return elu_backward(gout, x, alpha)


@op
def elu_backward(g, x, alpha):
    """g where x > 0, g alpha exp(x) elsewhere."""
    n = xp(x)
    return g * n.where(x > 0, _constant(1, x), n.exp(n.minimum(x, 0)) * alpha)


elu_backward.kernel(_with_number("tg_elu_backward"), least=kernels.library.SMALL)


@elu_backward.vjp("g")
def _(gout, x, alpha):
    return elu_backward(gout, x, alpha)


@elu_backward.vjp("x")
def _(gout, g, x, alpha):
    return where(x > 0, 0.0, gout * g * alpha * exp(minimum(x, 0.0)))


# --------------------------------------------------------------------------------------------- choices and comparisons


@op
def abs(x):
    """Absolute value."""
    return xp(x).abs(x)


@abs.vjp("x")
def _(gout, x):
    return gout * sign(x)


@op
def maximum(x, y):
    """The larger of x and y."""
    return xp(x if hasattr(x, "dtype") else y).maximum(x, y)


@maximum.vjp("x")
def _(gout, x, y):
    return gout * (x > y) + gout * 0.5 * (x == y)


@maximum.vjp("y")
def _(gout, x, y):
    return gout * (y > x) + gout * 0.5 * (x == y)


@op
def minimum(x, y):
    """The smaller of x and y."""
    return xp(x if hasattr(x, "dtype") else y).minimum(x, y)


@minimum.vjp("x")
def _(gout, x, y):
    return gout * (x < y) + gout * 0.5 * (x == y)


@minimum.vjp("y")
def _(gout, x, y):
    return gout * (y < x) + gout * 0.5 * (x == y)


@op
def clamp(x, min: float | None = None, max: float | None = None):
    """x limited to [min, max]; the bounds are Python numbers or None."""
    return xp(x).clip(x, min, max)


@clamp.vjp("x")
def _(gout, x, min, max):
    if min is not None:
        gout = gout * (x >= min)
    return gout if max is None else gout * (x <= max)


@op
def where(condition, x, y):
    """x where the (boolean) condition holds, y elsewhere. A condition on the CPU is taken to where x and y are."""
    model = next((v for v in (x, y) if hasattr(v, "dtype")), condition)
    return xp(model).where(on_device_of(model, condition), x, y)


@where.kernel
def _(condition, x, y):
    """x's bits times 0 or 1: NumPy's where takes a branch for each element, which costs 10 times as much."""
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
for _op in (neg, exp, expm1, sin, cos, tanh, sigmoid, softplus, relu, leaky_relu, elu, abs, sign):
    _op.samples(unary())
for _op in (log, log1p, sqrt):
    _op.samples(unary(positive))
for _op in (add, sub, mul, maximum, minimum, gt, ge, lt, le, eq, ne):
    _op.samples(binary())
div.samples(binary(normal, positive))


@relu_backward.samples
def _(rng):
    out = normal(rng, 3, 4)
    yield sample(normal(rng, 3, 4), out * (out > 0))


@elu_backward.samples
def _(rng):
    yield sample(normal(rng, 3, 4), normal(rng, 3, 4), 1.0)
    yield sample(normal(rng, 3, 4), normal(rng, 3, 4), 0.7)


@logistic_backward.samples
def _(rng):
    for low in (-1.0, 0.0):
        yield sample(normal(rng, 3, 4), rng.uniform(low, 1, (3, 4)), low)


@pow.samples
def _(rng):
    for exponent in (0, 1, 2, 3, 0.5, -1):
        yield sample(positive(rng, 2, 3), exponent)
    yield sample(normal(rng, 3), 2)


@clamp.samples
def _(rng):
    yield sample(normal(rng, 4, 5), -0.5, 0.5)
    yield sample(normal(rng, 4), None, 0.3)
    yield sample(normal(rng, 4), min=-0.3)


@where.samples
def _(rng):
    yield sample(normal(rng, 3, 4) > 0, normal(rng, 3, 4), normal(rng, 4))
    yield sample(normal(rng, 3) > 0, normal(rng, 2, 1), 0.0)
