"""Activations, elementwise, and their gradients as ops of their own, which have kernels.

At 0 relu and leaky_relu take the left slope, as in PyTorch.
"""

from __future__ import annotations

import numpy as np

from tinygen import kernels
from tinygen.array import real, xp
from tinygen.ops._samples import normal, sample, unary
from tinygen.ops.elementwise import exp, minimum, where
from tinygen.tape import op

# NumPy takes an array beside an array in half the time of a Python number.
_ARRAYS = {n: {np.dtype(dtype): np.array(n, dtype) for dtype in (np.float32, np.float64)} for n in (-1, 0, 1)}


def _constant(number, x):
    """-1, 0 or 1 beside x."""
    return _ARRAYS[number].get(x.dtype, number) if x.__class__ is np.ndarray else number


@op
def tanh(x):
    """Hyperbolic tangent.

    Its gradient, 1 - tanh(x)^2, follows from the output, so it is 0 where that rounds to 1: from 10 in float32, as in
    PyTorch.
    """
    return xp(x).tanh(real(x))


tanh.kernel(kernels.elementwise.of("tg_tanh"), least=kernels.library.SMALL)


@tanh.vjp("x")
def _(gout, out):
    return logistic_backward(gout, out, -1.0)


@op
def sigmoid(x):
    """1 / (1 + exp(-x)), without overflow: with e = exp(-|x|), 1 / (1 + e) where x >= 0, e / (1 + e) elsewhere.

    Its gradient, sigmoid(x) (1 - sigmoid(x)), follows from the output, so it is 0 where that rounds to 1: from 18 in
    float32, as in PyTorch.
    """
    n, x = xp(x), real(x)
    e = n.exp(n.copysign(x, _constant(-1, x)))
    return n.maximum(e, x >= 0) / (e + _constant(1, x))


sigmoid.kernel(kernels.elementwise.of_one("tg_sigmoid"))


@sigmoid.vjp("x")
def _(gout, out):
    return logistic_backward(gout, out, 0.0)


@op
def logistic_backward(g, y, low):
    """g (1 - y) (y - low): the gradient of `sigmoid` from its output y, with low = 0, and of `tanh`, with low = -1."""
    return g * (_constant(1, y) - y) * (y - _constant(low, y) if low else y)


logistic_backward.kernel(kernels.elementwise.of("tg_logistic_backward", arrays=2), least=kernels.library.SMALL)


@logistic_backward.vjp("g")
def _(gout, y, low):
    return logistic_backward(gout, y, low)


@logistic_backward.vjp("y")
def _(gout, g, y, low):
    return gout * g * (1.0 + low - y - y)


@op
def softplus(x):
    """log(1 + exp(x)), without overflow: max(x, 0) + log1p(exp(-|x|))."""
    n, x = xp(x), real(x)
    return n.maximum(x, 0) + n.log1p(n.exp(-n.abs(x)))


@softplus.vjp("x")
def _(gout, x):
    return gout * sigmoid(x)


@op
def relu(x):
    """max(x, 0)."""
    return xp(x).maximum(x, _constant(0, x))


relu.kernel(kernels.elementwise.of("tg_relu", 0.0), least=kernels.library.SMALL)


@relu.vjp("x")
def _(gout, out):
    return relu_backward(gout, out)


@op
def relu_backward(g, y, negative_slope=0.0):
    """g where y > 0, negative_slope * g elsewhere: the gradient of `relu` from its output y, of `leaky_relu` from x."""
    zero = _constant(0, y)
    return xp(y).where(y > zero, g, g * negative_slope if negative_slope else zero)


relu_backward.kernel(kernels.elementwise.of_two("tg_relu_backward"))


@relu_backward.vjp("g")
def _(gout, y, negative_slope):
    return relu_backward(gout, y, negative_slope)


@relu_backward.vjp("y")
def _(y):
    return y * 0.0  # constant on either side of the kink


@op
def leaky_relu(x, negative_slope: float = 0.01):
    """x where x > 0, negative_slope * x elsewhere."""
    x = real(x)
    return xp(x).where(x > 0, x, x * negative_slope)


leaky_relu.kernel(kernels.elementwise.of("tg_relu"), least=kernels.library.SMALL)


@leaky_relu.vjp("x")
def _(gout, x, negative_slope):
    return relu_backward(gout, x, negative_slope)


@op
def elu(x, alpha: float = 1.0):
    """x where x > 0, alpha * (exp(x) - 1) elsewhere."""
    n, x = xp(x), real(x)
    return n.where(x > 0, x, n.expm1(n.minimum(x, 0)) * alpha)


elu.kernel(kernels.elementwise.of("tg_elu"), least=kernels.library.SMALL)


@elu.vjp("x")
def _(gout, x, alpha):
    return elu_backward(gout, x, alpha)


@op
def elu_backward(g, x, alpha):
    """g where x > 0, g alpha exp(x) elsewhere."""
    n = xp(x)
    return g * n.where(x > 0, _constant(1, x), n.exp(n.minimum(x, 0)) * alpha)


elu_backward.kernel(kernels.elementwise.of("tg_elu_backward", arrays=2), least=kernels.library.SMALL)


@elu_backward.vjp("g")
def _(gout, x, alpha):
    return elu_backward(gout, x, alpha)


@elu_backward.vjp("x")
def _(gout, g, x, alpha):
    return where(x > 0, 0.0, gout * g * alpha * exp(minimum(x, 0.0)))


@op
def silu(x):
    """x * sigmoid(x), without overflow. Source: Elfwing, Uchibe, Doya, Sigmoid-Weighted Linear Units (2017), eq. 4."""
    n, x = xp(x), real(x)
    e = n.exp(-n.abs(x))
    return x * n.where(x > 0, _constant(1, x), e) / (e + _constant(1, x))


silu.kernel(kernels.elementwise.of("tg_silu"), least=kernels.library.SMALL)


@silu.vjp("x")
def _(gout, x):
    return silu_backward(gout, x)


@op
def silu_backward(g, x):
    """g s (1 + x (1 - s)) with s = sigmoid(x): the gradient of `silu`.

    Accuracy: 16 ulps of the largest element: it crosses 0 near -1.28.
    """
    s = sigmoid(x)
    return g * s * (x * (_constant(1, x) - s) + _constant(1, x))


silu_backward.kernel(kernels.elementwise.of("tg_silu_backward", arrays=2), least=kernels.library.SMALL)


@silu_backward.vjp("g")
def _(gout, x):
    return silu_backward(gout, x)


@silu_backward.vjp("x")
def _(gout, g, x):
    s = sigmoid(x)
    return gout * g * s * (1.0 - s) * (x * (1.0 - s - s) + 2.0)


# ---------------------------------------------------------------------------------------------- what they are tested on

for _op in (tanh, sigmoid, softplus, relu, leaky_relu, elu, silu):
    _op.samples(unary())


@relu_backward.samples
def _(rng):
    out = normal(rng, 3, 4)
    yield sample(normal(rng, 3, 4), out * (out > 0))


@elu_backward.samples
def _(rng):
    yield sample(normal(rng, 3, 4), normal(rng, 3, 4), 1.0)
    yield sample(normal(rng, 3, 4), normal(rng, 3, 4), 0.7)


@silu_backward.samples
def _(rng):
    yield sample(normal(rng, 3, 4), normal(rng, 3, 4))


@logistic_backward.samples
def _(rng):
    for low in (-1.0, 0.0):
        yield sample(normal(rng, 3, 4), rng.uniform(low, 1, (3, 4)), low)
