"""Attention with several heads."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygen import ops
from tinygen._tensor import Tensor
from tinygen.array import on_device_of
from tinygen.nn import init
from tinygen.nn.attention import attend
from tinygen.nn.layers import Linear
from tinygen.nn.module import Module, Parameter


class MultiheadAttention(Module):
    """Attention by several heads, each on its own projection to embed_dim / num_heads numbers.

    Parameters are named as PyTorch's: in_proj_weight (3 E, E) and in_proj_bias (3 E,), of query, key and value in that
    order, or q_proj_weight (E, E), k_proj_weight (E, kdim) and v_proj_weight (E, vdim) where kdim or vdim aren't E; and
    out_proj. Source: Vaswani et al., Attention Is All You Need (2017), section 3.2.2.
    """

    def __init__(
        self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True, *, kdim: int | None = None,
        vdim: int | None = None, batch_first: bool = False, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        if embed_dim < 1 or num_heads < 1 or embed_dim % num_heads:
            raise ValueError(f"MultiheadAttention: num_heads must divide embed_dim {embed_dim}, got {num_heads}")
        self.embed_dim, self.num_heads, self.dropout, self.batch_first = embed_dim, num_heads, dropout, batch_first
        self.rng = rng
        inputs = (embed_dim, embed_dim if kdim is None else kdim, embed_dim if vdim is None else vdim)
        self.together = inputs == (embed_dim,) * 3

        def weight(rows: int, columns: int) -> Tensor:
            p = Parameter(np.zeros((columns, rows), np.float32).T)
            return init.xavier_uniform_(p, generator=rng)

        if self.together:
            self.in_proj_weight = weight(3 * embed_dim, embed_dim)
        else:
            self.q_proj_weight, self.k_proj_weight, self.v_proj_weight = (weight(embed_dim, n) for n in inputs)
        self.in_proj_bias = Parameter(np.zeros(3 * embed_dim, np.float32)) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias, rng=rng)
        if self.out_proj.bias is not None:
            init.zeros_(self.out_proj.bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Any = None, need_weights: bool = True,
        attn_mask: Any = None, average_attn_weights: bool = True, is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """query (L, N, E), key (S, N, kdim), value (S, N, vdim) -> the result (L, N, E), and the weights (N, L, S).

        With batch_first N comes first; without N (two axes) the result has none either. Masks are PyTorch's: booleans
        True where *not* to look (the other way round than in `scaled_dot_product_attention`), or numbers to add;
        key_padding_mask: (N, S), attn_mask: (L, S) or (N heads, L, S); is_causal is a hint that needs attn_mask.
        need_weights: or None in place of the weights; with average_attn_weights they are the heads' mean, otherwise
        (N, heads, L, S).
        """
        if is_causal and attn_mask is None:
            raise ValueError("MultiheadAttention: is_causal needs attn_mask")
        batched = query.ndim == 3
        if not batched:
            query, key, value = (ops.reshape(x, (1, *x.shape)) for x in (query, key, value))
            if key_padding_mask is not None:
                key_padding_mask = _raw(key_padding_mask)[None]
        elif not self.batch_first:
            query, key, value = (ops.transpose(x, 0, 1) for x in (query, key, value))
        q, k, v = (self._heads(x) for x in self._projected(query, key, value))
        mask = self._mask(attn_mask, key_padding_mask, q, k)
        dropout = self.dropout if self.training else 0.0
        out, weights = attend(q, k, v, mask, dropout, False, None, self.rng)
        n, _, length, _ = out.shape
        out = self.out_proj(ops.reshape(ops.transpose(out, 1, 2), (n, length, self.embed_dim)))
        weights = ops.mean(weights, 1) if average_attn_weights else weights
        if not batched:
            return out[0], weights[0] if need_weights else None
        return out if self.batch_first else ops.transpose(out, 0, 1), weights if need_weights else None

    def _projected(self, *inputs: Tensor) -> list[Tensor]:
        if self.together:
            e = self.embed_dim
            weights: Any = [self.in_proj_weight[i * e : (i + 1) * e] for i in range(3)]
        else:
            weights = [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
        b, e = self.in_proj_bias, self.embed_dim
        biases = [None if b is None else b[i * e : (i + 1) * e] for i in range(3)]
        return [ops.linear(x, w, b) for x, w, b in zip(inputs, weights, biases, strict=True)]

    def _heads(self, x: Tensor) -> Tensor:
        """(N, L, E) -> (N, heads, L, E / heads)."""
        n, length, e = x.shape
        return ops.transpose(ops.reshape(x, (n, length, self.num_heads, e // self.num_heads)), 1, 2)

    def _mask(self, attn_mask: Any, padding: Any, q: Tensor, k: Tensor) -> Any:
        """Both masks as one of (N or 1, heads or 1, L, S), added to the products: -inf where not to look."""
        (n, heads, length, _), size = q.shape, k.shape[2]
        masks: list[Any] = []
        for name, mask, shapes, shape in (
            ("attn_mask", attn_mask, [(length, size), (n * heads, length, size)], (-1, 1, length, size)),
            ("key_padding_mask", padding, [(n, size)], (n, 1, 1, size)),
        ):
            if mask is None:
                continue
            mask = _raw(mask)
            if mask.shape not in shapes:
                raise ValueError(f"MultiheadAttention: {name} must have shape {shapes[0]}, got {mask.shape}")
            mask = mask.reshape((n, heads, length, size) if mask.ndim == 3 else shape)
            masks.append(np.where(mask, -np.inf, 0.0) if mask.dtype == bool else mask)
        if not masks:
            return None
        total = masks[0] if len(masks) == 1 else masks[0] + masks[1]
        return on_device_of(_raw(q), total.astype(q.dtype))

    def extra_repr(self) -> str:
        return f"{self.embed_dim}, {self.num_heads}{', batch_first=True' if self.batch_first else ''}"


def _raw(x: Any) -> Any:
    return x._array if isinstance(x, Tensor) else x
