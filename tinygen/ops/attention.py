"""Attention as one op: as ops of their own, its products and its softmax would each read and write all weights."""

from __future__ import annotations

from math import prod

from tinygen import kernels
from tinygen.array import real
from tinygen.ops._derive import derive_from
from tinygen.ops._samples import normal, sample
from tinygen.ops.linalg import matmul
from tinygen.ops.reduce import softmax
from tinygen.ops.shape import transpose
from tinygen.tape import op


@op(outputs=("out", "weights"))
def attention(query, key, value, scale):
    """weights = softmax(scale query key') by rows, out = weights value.

    query: (..., L, E), key: (..., S, E), value: (..., S, V) -> (..., L, V), (..., L, S). At least one key.

    Accuracy: 16 ulps of the largest element, and the rounding of what softmax is taken of where that is large.

    Source: Vaswani et al., Attention Is All You Need (2017), equation 1.
    """
    weights = softmax(matmul(query * scale, transpose(key, -1, -2)), -1)
    return matmul(weights, value), weights


@op(outputs=("gquery", "gkey", "gvalue"))
def attention_backward(gout, gweights, query, key, value, scale, weights=None):
    """The gradients of `attention`, from those of its outputs (None for zero).

    weights: its own, if known; they follow from the others, so they add nothing to the derivatives.

    Accuracy: 16 ulps of the largest element, as of `attention`.
    """
    model = gweights if gout is None else gout
    inputs = [real(a, model) for a in (query, key, value)]  # a gradient is no integer
    return tuple(_gradients(scale)(inputs, (gout, gweights)))


@attention.vjp("query", "key", "value")
def _(gout, gweights, query, key, value, scale, weights):
    return attention_backward(gout, gweights, query, key, value, scale, (weights,))


@attention_backward.vjp("gout", "gweights", "query", "key", "value")
def _(ggquery, ggkey, ggvalue, gout, gweights, query, key, value, scale):
    first = _gradients(scale)
    second = derive_from(lambda *args: first(args[2:], args[:2]))
    return second((gout, gweights, query, key, value), (ggquery, ggkey, ggvalue))


def _gradients(scale):
    """The gradients of the definition, which is written in ops, so that they can be derived again."""
    return derive_from(lambda query, key, value: attention.op.body(query, key, value, scale))


@attention.kernel
def _(query, key, value, scale):
    return kernels.attention.attention(query, key, value, scale)


@attention_backward.kernel
def _(gout, gweights, query, key, value, scale, weights):
    if gout is None or gweights is not None:
        return NotImplemented  # where the weights themselves are used
    known = weights or kernels.attention.attention(query, key, value, scale)
    if known is NotImplemented:
        return known
    return kernels.attention.attention_backward(gout, query, key, value, scale, known[-1])


@attention.flops
def _(query_shape, key_shape, value_shape):
    return 2 * prod(query_shape[:-1]) * key_shape[-2] * (query_shape[-1] + value_shape[-1])


@attention_backward.flops
def _(query_shape, key_shape, value_shape):
    return 2 * prod(query_shape[:-1]) * key_shape[-2] * (3 * query_shape[-1] + 2 * value_shape[-1])


@attention.samples
def _(rng):
    yield sample(normal(rng, 2, 3, 4), normal(rng, 2, 5, 4), normal(rng, 2, 5, 3), 0.5)
    yield sample(normal(rng, 3, 2), normal(rng, 1, 2), normal(rng, 1, 4), 2.0)
    yield sample(normal(rng, 2, 1, 3, 2), normal(rng, 3, 4, 2), normal(rng, 3, 4, 2), 1.0)


@attention_backward.samples
def _(rng):
    arrays = normal(rng, 2, 3, 4), normal(rng, 2, 5, 4), normal(rng, 2, 5, 3)
    yield sample(normal(rng, 2, 3, 3), None, *arrays, 0.5)
    yield sample(normal(rng, 2, 3, 3), normal(rng, 2, 3, 5), *arrays, 0.5)
