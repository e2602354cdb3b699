"""Attention, of many small matrices."""

from __future__ import annotations

import math

from tinygen.kernels import layout, library
from tinygen.pool import new

LARGE = 1 << 18  # weights of one query matrix from which NumPy's products, on all threads, are as fast


def attention(query, key, value, scale):
    """See `tinygen.ops.attention`: the output and the weights."""
    if not library.accepts(query, key, value) or not _fits(query, key, value):
        return NotImplemented
    p, y = new((*query.shape[:-1], key.shape[-2]), query), new((*query.shape[:-1], value.shape[-1]), query)
    inputs = map(layout.contiguous, (query, key, value))
    library.call("tg_attention", query, *_sizes(query, key, value), float(scale), *inputs, p, y)
    return y, p


def attention_backward(gout, query, key, value, scale, weights):
    """See `tinygen.ops.attention_backward`."""
    if not library.accepts(gout, query, key, value, weights) or not _fits(query, key, value):
        return NotImplemented
    for name, a, shape in (("gout", gout, (*query.shape[:-1], value.shape[-1])),
                           ("weights", weights, (*query.shape[:-1], key.shape[-2]))):  # fmt: skip
        if a.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, got {a.shape}")
    grads = [new(a.shape, a) for a in (query, key, value)]
    inputs = map(layout.contiguous, (query, key, value, weights, gout))
    library.call("tg_attention_backward", query, *_sizes(query, key, value), float(scale), *inputs, *grads)
    return tuple(grads)


def _sizes(query, key, value):
    """n, queries, keys, size, width."""
    return math.prod(query.shape[:-2]), *query.shape[-2:-1], *key.shape[-2:], value.shape[-1]


def _fits(query, key, value):
    """Whether the kernel takes such arrays: stacks of as many matrices, which fit each other, not empty, not large."""
    if min(query.ndim, key.ndim, value.ndim) < 2 or not query.size or not key.size or not value.size:
        return False
    stacks = query.shape[:-2] == key.shape[:-2] == value.shape[:-2]
    fit = query.shape[-1] == key.shape[-1] and key.shape[-2] == value.shape[-2]
    return stacks and fit and query.shape[-2] * key.shape[-2] < LARGE
