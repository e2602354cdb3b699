"""NADE's recurrence: a hidden layer for every value of a vector, each one addition away from the one before."""

from __future__ import annotations

from math import prod

from tinygen.array import total, xp
from tinygen.ops._derive import derive_from
from tinygen.ops._samples import normal, sample
from tinygen.ops.activations import sigmoid
from tinygen.ops.reduce import cumsum
from tinygen.ops.shape import reshape
from tinygen.tape import op


@op
def nade(x, weight, bias, output):
    """From the values before each value: x (N, D) -> (N, D, K).

        h_d = sigmoid(bias + sum over e < d of x_e weight_e),       out_d = output_d h_d

    weight: (D, H), bias: (H,), output: (D, K, H). As the sums follow from each other this takes O(N D H K) time, and
    O(N H) memory besides what it returns.

    Accuracy: 16 ulps of the largest element.

    Source: Larochelle & Murray, The Neural Autoregressive Distribution Estimator (2011), section 3, algorithm 1.
    """
    _check(x, weight, bias, output)
    n = xp(x)
    out = n.empty((*x.shape, output.shape[1]), x.dtype)
    a = n.zeros((len(x), len(bias)), x.dtype) + bias
    for d in range(len(weight)):
        out[:, d] = sigmoid(a) @ output[d].T
        a += x[:, d, None] * weight[d]
    return out


@op(outputs=("gx", "gweight", "gbias", "goutput"))
def nade_backward(g, x, weight, bias, output):
    """The gradients of `nade`, from that of its output: back through the values, taking off what was added.

    Accuracy: 16 ulps of the largest element.
    """
    _check(x, weight, bias, output)
    if g.shape != (*x.shape, output.shape[1]):
        raise ValueError(f"g must have the output's shape {(*x.shape, output.shape[1])}, got {g.shape}")
    n = xp(x)
    gx, gweight, goutput = n.empty_like(x), n.empty_like(weight), n.empty_like(output)
    a = x @ weight + bias
    ga = n.zeros_like(a)  # what the hidden layers after d send back
    for d in reversed(range(len(weight))):
        gx[:, d], gweight[d] = ga @ weight[d], x[:, d] @ ga
        a -= x[:, d, None] * weight[d]
        h = sigmoid(a)
        goutput[d] = g[:, d].T @ h
        ga += (g[:, d] @ output[d]) * h * (1 - h)
    return gx, gweight, total(ga, 0), goutput


@nade.vjp("x", "weight", "bias", "output")
def _(gout, x, weight, bias, output):
    return nade_backward(gout, x, weight, bias, output)


@nade_backward.vjp("g", "x", "weight", "bias", "output")
def _(ggx, ggweight, ggbias, ggoutput, g, x, weight, bias, output):
    first = derive_from(_definition)
    second = derive_from(lambda *args: first(args[1:], args[:1]))
    return second((g, x, weight, bias, output), (ggx, ggweight, ggbias, ggoutput))


def _definition(x, weight, bias, output):
    """`nade` all at once, in O(N D H) memory."""
    terms = reshape(x, (*x.shape, 1)) * weight
    hidden = sigmoid(bias + (cumsum(terms, 1) - terms))
    out = output @ reshape(hidden, (*hidden.shape, 1))
    return reshape(out, out.shape[:-1])


def _check(x, weight, bias, output):
    """ValueError unless the shapes fit."""
    d, h, k = (*weight.shape, *output.shape[1:2]) if len(weight.shape) == 2 and len(output.shape) == 3 else (0, 0, 0)
    if not d or x.shape[1:] != (d,) or bias.shape != (h,) or output.shape != (d, k, h):
        given = ", ".join(str(a.shape) for a in (x, weight, bias, output))
        raise ValueError(f"nade takes (N, D), (D, H), (H,) and (D, K, H), D of at least 1, got {given}")


@nade.flops
def _(x_shape, weight_shape, output_shape):
    return 2 * x_shape[0] * (prod(weight_shape) + prod(output_shape))


@nade.samples
def _(rng):
    for n, d, h, k in ((2, 4, 3, 2), (3, 1, 2, 1), (1, 3, 1, 3)):
        shapes = (n, d), (d, h), (h,), (d, k, h)
        yield sample(*(normal(rng, *shape) for shape in shapes))


@nade_backward.samples
def _(rng):
    for case in nade.op.make_samples(rng):
        x, _, _, output = case.args
        yield sample(normal(rng, len(x), *output.shape[:2]), *case.args)
