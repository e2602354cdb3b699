"""Losses, in nats, under PyTorch's names; `tinygen.nn.functional` has them all.

reduction: "mean" over all predictions or elements, "sum", or "none": each by itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygen import ops
from tinygen._tensor import Tensor
from tinygen.array import on_device_of
from tinygen.ops import loss as _loss


def cross_entropy(input: Tensor, target: Any, *, reduction: str = "mean") -> Tensor:
    """-log softmax(input)[target], in nats. input: (N, C, ...) logits, target: (N, ...) integers in 0..C-1.

    reduction: "mean" over all predictions, "sum", or "none": of target's shape.
    """
    return _reduced("cross_entropy", _loss.cross_entropy(input, target), reduction)


def nll_loss(input: Tensor, target: Any, *, reduction: str = "mean") -> Tensor:
    """-input[target], in nats. input: (N, C, ...) log-probabilities, target: (N, ...) integers in 0..C-1."""
    return _reduced("nll_loss", _loss.nll(input, target), reduction)


def binary_cross_entropy_with_logits(input: Tensor, target: Any, *, reduction: str = "mean") -> Tensor:
    """-log Bernoulli(target; sigmoid(input)), in nats, elementwise. target: of input's shape and dtype."""
    return _reduced(
        "binary_cross_entropy_with_logits", _loss.binary_cross_entropy_with_logits(input, target), reduction
    )


def mse_loss(input: Tensor, target: Any, *, reduction: str = "mean") -> Tensor:
    """(input - target) ** 2, elementwise. target: of input's shape. Integers count as float32."""
    return _reduced("mse_loss", ops.pow(_difference("mse_loss", input, target), 2), reduction)


def l1_loss(input: Tensor, target: Any, *, reduction: str = "mean") -> Tensor:
    """|input - target|, elementwise. target: of input's shape. Integers count as float32."""
    return _reduced("l1_loss", ops.abs(_difference("l1_loss", input, target)), reduction)


def discretized_logistic_nll(
    mean: Tensor, log_scale: Tensor, target: Any, levels: int, *, reduction: str = "mean"
) -> Tensor:
    """-log of the probability that a logistic distribution gives to a level, in nats, elementwise.

    Level t of 0 .. levels - 1 is the interval of width 2 / (levels - 1) around 2 t / (levels - 1) - 1; the first and
    the last one reach to infinity, so that the levels' probabilities sum to 1. target: such integers; its shape,
    mean's and log_scale's broadcast. log_scale is taken as within -7 .. 7 (the authors' code has the same lower bound).

    sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)), whose logarithm is exact wherever the level is.

    Source: Salimans, Karpathy, Chen, Kingma, PixelCNN++ (2017), section 2.1.
    """
    if not isinstance(levels, int) or levels < 2:
        raise ValueError(f"discretized_logistic_nll: levels must be an integer of at least 2, got {levels!r}")
    _loss.check_labels("discretized_logistic_nll: target", target, levels)
    model = mean._array if isinstance(mean, Tensor) else mean
    target, dtype, half = on_device_of(model, target), mean.dtype, 1 / (levels - 1)
    distance = (target * (2 * half) - 1).astype(dtype) - mean
    inverse = ops.exp(-ops.clamp(log_scale, -7.0, 7.0))
    first, last = (target == 0).astype(dtype), (target == levels - 1).astype(dtype)
    losses = (1 - last) * ops.softplus((distance + half) * -inverse)  # -log sigmoid(b)
    losses = losses + (1 - first) * ops.softplus((distance - half) * inverse)  # -log sigmoid(-a)
    losses = losses - (1 - first) * (1 - last) * ops.log(-ops.expm1(inverse * (-2 * half)))
    return _reduced("discretized_logistic_nll", losses, reduction)


def logistic_mixture_nll(
    logits: Tensor, mean: Tensor, log_scale: Tensor, target: Any, levels: int, *, reduction: str = "mean"
) -> Tensor:
    """-log of the probability of a pixel's levels under a mixture of discretized logistics, in nats: (N, H, W).

    The colours of a pixel share the component that is drawn. logits of the K components: (N, K, H, W); mean and
    log_scale: (N, K, C, H, W); target: integers 0 .. levels - 1, (N, C, H, W). See `discretized_logistic_nll`.

    Source: Salimans, Karpathy, Chen, Kingma, PixelCNN++ (2017), sections 2.1 and 2.2.
    """
    n, k, *rest = logits.shape
    c = mean.shape[2] if len(mean.shape) == 5 else 0
    expected = ((n, k, c, *rest), (n, k, c, *rest), (n, c, *rest))
    for name, x, shape in zip(("mean", "log_scale", "target"), (mean, log_scale, target), expected, strict=True):
        if x.shape != shape or not c:
            fits = f"logits {logits.shape} and mean {mean.shape}"
            raise ValueError(f"logistic_mixture_nll: {name} must have shape (N, K, C, H, W), of target (N, C, H, W), "
                             f"to fit {fits}, got {x.shape}")  # fmt: skip
    colours = discretized_logistic_nll(mean, log_scale, target[:, None], levels, reduction="none")
    losses = -ops.logsumexp(ops.log_softmax(logits, 1) - ops.sum(colours, 2), 1)
    return _reduced("logistic_mixture_nll", losses, reduction)


def _difference(name: str, input: Any, target: Any) -> Any:
    if input.shape != target.shape:
        raise ValueError(f"{name}: target must have input's shape, got {target.shape} for {input.shape}")
    if input.dtype.kind != "f" and target.dtype.kind != "f":  # uint8 images: 0 - 200 would be 56
        input, target = ops.to(input, np.float32), ops.to(target, np.float32)
    return ops.sub(input, target)


def _reduced(name: str, losses: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return losses
    if reduction == "sum":
        return ops.sum(losses)
    if reduction != "mean":
        raise ValueError(f"{name}: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    if 0 in losses.shape:
        raise ValueError(f"{name}: there is no mean of no elements (shape {losses.shape})")
    return ops.mean(losses)
