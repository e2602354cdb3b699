"""Attention: of queries to keys. The module with several heads is in multihead.py."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygen import ops
from tinygen._tensor import Tensor
from tinygen.array import on_device_of, xp
from tinygen.ops.attention import attention as _attention


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False,
    *, scale: float | None = None, rng: np.random.Generator | None = None,
) -> Tensor:  # fmt: skip
    """softmax(query key' scale + mask) value: (..., L, E), (..., S, E), (..., S, V) -> (..., L, V).

    attn_mask: booleans, True where a query may look, or numbers that are added to the products; broadcast to
    (..., L, S). is_causal: query i looks at keys 0 to i. scale: 1 / sqrt(E) if None. dropout_p: the probability with
    which a weight is zeroed, also in evaluation, as in PyTorch; then rng, which draws, is required. A query that may
    look nowhere, since all of its mask is False or -inf, gets 0.

    Source: Vaswani et al., Attention Is All You Need (2017), equation 1.
    """
    out, _ = attend(query, key, value, attn_mask, dropout_p, is_causal, scale, rng)
    return out


def attend(
    query: Any, key: Any, value: Any, mask: Any, dropout_p: float, is_causal: bool, scale: float | None,
    rng: np.random.Generator | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`scaled_dot_product_attention`, and its weights (..., L, S)."""
    name = "scaled_dot_product_attention"
    if min(len(x.shape) for x in (query, key, value)) < 2 or query.shape[-1] != key.shape[-1]:
        raise ValueError(f"{name}: query and key must be (..., L, E) and (..., S, E), got {query.shape}, {key.shape}")
    if key.shape[-2] != value.shape[-2]:
        raise ValueError(f"{name}: value must have as many rows as key, got {value.shape} for {key.shape}")
    if is_causal and mask is not None:
        raise ValueError(f"{name}: give either attn_mask or is_causal")
    if is_causal:
        mask = np.tril(np.ones((query.shape[-2], key.shape[-2]), bool))
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    if mask is None and not dropout_p:
        return _attention(query, key, value, scale)
    scores = ops.matmul(ops.mul(query, scale), ops.transpose(key, -1, -2))
    weights = ops.softmax(scores, -1) if mask is None else _masked_softmax(scores, mask)
    if dropout_p:
        if rng is None:
            raise TypeError(f"{name}: rng is required for dropout: a numpy.random.Generator that draws what is dropped")
        kept = (rng.random(weights.shape, dtype=np.float32) >= dropout_p) / (1 - dropout_p if dropout_p < 1 else 1)
        weights = ops.mul(weights, on_device_of(_raw(weights), kept.astype(weights.dtype)))
    return ops.matmul(weights, value), weights


def _raw(x: Any) -> Any:
    return x._array if isinstance(x, Tensor) else x


def _masked_softmax(scores: Tensor, mask: Any) -> Tensor:
    """Softmax over the last axis, with a mask of booleans or of numbers to add. Where all are ruled out: zeros."""
    raw = on_device_of(_raw(scores), _raw(mask))
    n = xp(raw)
    if raw.dtype == bool:
        raw = mask = n.where(raw, 0.0, -math.inf).astype(scores.dtype)
    nothing = (raw == -math.inf).all(axis=-1, keepdims=True)
    if not nothing.any():
        return ops.softmax(ops.add(scores, mask), -1)
    return ops.where(nothing, 0.0, ops.softmax(ops.add(scores, ops.where(nothing, 0.0, mask)), -1))
