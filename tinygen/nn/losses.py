"""Losses, in nats, under PyTorch's names; `tinygen.nn.functional` has them all.

reduction: "mean" over all predictions or elements, "sum", or "none": each by itself.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygen import ops
from tinygen._tensor import Tensor
from tinygen.array import on_device_of
from tinygen.ops import loss as _loss


def cross_entropy(
    input: Tensor, target: Any, weight: Any = None, *, ignore_index: int = -100, reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """-log softmax(input)[target], in nats. input: (N, C, ...) logits, or (C,) of one prediction.

    target: (N, ...) integers in 0..C-1, or of input's shape and dtype the probabilities p of all classes, for
    -sum over c of p[c] log softmax(input)[c]. weight: (C,), of the classes. Targets that are ignore_index count as 0,
    and not in the mean. label_smoothing e: the target is mixed with e / C for every class (Szegedy et al. 2016, 7).

    reduction: "mean" over all predictions, weighted by the target's class for integers, "sum", or "none": (N, ...).
    """
    name = "cross_entropy"
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"{name}: label_smoothing must be from 0 to 1, got {label_smoothing}")
    if len(input.shape) == 1 and np.shape(target) in ((), input.shape):
        target = target if isinstance(target, Tensor) else np.asarray(target)
        batch = ops.reshape(input, (1, -1)), ops.reshape(target, (1, *target.shape))
        options: Any = {"ignore_index": ignore_index, "label_smoothing": label_smoothing, "reduction": reduction}
        losses = cross_entropy(*batch, weight, **options)
        return ops.reshape(losses, ())
    if getattr(target, "dtype", None) is not None and target.dtype.kind == "f":
        return _soft_cross_entropy(input, target, weight, reduction, label_smoothing)
    hard = _loss.cross_entropy if weight is None and not label_smoothing else _nll_of_logits
    return _over_labels(name, hard, input, target, weight, ignore_index, reduction, label_smoothing)


def _nll_of_logits(input: Tensor, target: Any) -> Tensor:
    return _loss.nll(ops.log_softmax(input, 1), target)


def _soft_cross_entropy(input: Tensor, target: Any, weight: Any, reduction: str, smoothing: float) -> Tensor:
    if input.shape != target.shape:
        wanted = f"an array of integers, or probabilities of input's shape {input.shape}"
        raise TypeError(f"cross_entropy: target must be {wanted}, got {target.dtype} of shape {target.shape}")
    classes = input.shape[1]
    if smoothing:
        target = ops.add(ops.mul(target, 1 - smoothing), smoothing / classes)
    products = ops.mul(target, ops.log_softmax(input, 1))
    if weight is not None:
        products = ops.mul(products, _by_class("cross_entropy", weight, input))
    return _reduced("cross_entropy", ops.neg(ops.sum(products, 1)), reduction)


def nll_loss(
    input: Tensor, target: Any, weight: Any = None, *, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """-input[target], in nats. input: (N, C, ...) log-probabilities, target: (N, ...) integers in 0..C-1.

    weight: (C,), of the classes. Targets that are ignore_index count as 0. "mean" is weighted by the target's class.
    """
    return _over_labels("nll_loss", _loss.nll, input, target, weight, ignore_index, reduction)


def _over_labels(
    name: str, loss: Any, input: Tensor, target: Any, weight: Any, ignored: int, reduction: str, smoothing: float = 0.0
) -> Tensor:
    """The losses of integer targets, weighted by their classes; 0, and not in the mean, where they are ignored."""
    labels, kept, counts = (target._array if isinstance(target, Tensor) else target), None, None
    if getattr(labels, "dtype", None) is not None and labels.dtype.kind in "iu" and (labels == ignored).any():
        kept = labels != ignored
        labels, counts = labels * kept, kept.astype(input.dtype)
    losses = loss(input, labels)
    if weight is not None:
        of_class = _by_class(name, weight, input)
        of_target = ops.getitem(ops.reshape(of_class, (-1,)), labels)
        losses, counts = ops.mul(losses, of_target), of_target if kept is None else ops.mul(of_target, kept)
    if smoothing:
        log_p = ops.log_softmax(input, 1)
        every = ops.neg(ops.sum(log_p if weight is None else ops.mul(log_p, of_class), 1)) / input.shape[1]
        losses = ops.add(ops.mul(losses, 1 - smoothing), ops.mul(every, smoothing))
    losses = losses if kept is None else ops.where(kept, losses, 0.0)
    if counts is None or reduction != "mean":
        return _reduced(name, losses, reduction)
    total = ops.sum(counts)
    if not _number(total):
        raise ValueError(f"{name}: there is no mean: all targets are ignored, or of weight 0")
    return ops.div(ops.sum(losses), total)


def _number(x: Any) -> float:
    return float(x._array if isinstance(x, Tensor) else x)


def _by_class(name: str, weight: Any, input: Tensor) -> Any:
    """Weights of classes, beside input (N, C, ...)."""
    if weight.shape != (input.shape[1],):
        raise ValueError(f"{name}: weight must have shape ({input.shape[1]},), got {weight.shape}")
    return ops.reshape(weight, (1, -1, *[1] * (len(input.shape) - 2)))


def binary_cross_entropy_with_logits(
    input: Tensor, target: Any, weight: Any = None, *, reduction: str = "mean", pos_weight: Any = None
) -> Tensor:
    """-log Bernoulli(target; sigmoid(input)), in nats, elementwise. target: of input's shape and dtype.

    weight: of the elements, broadcast to them. pos_weight: what -target log sigmoid(input) is multiplied by, too.
    """
    name = "binary_cross_entropy_with_logits"
    if pos_weight is None:
        losses = _loss.binary_cross_entropy_with_logits(input, target)
    else:
        _check_same(name, input, target)
        factor = ops.add(ops.mul(ops.sub(pos_weight, 1.0), target), 1.0)
        losses = ops.add(ops.mul(ops.sub(1.0, target), input), ops.mul(factor, ops.softplus(ops.neg(input))))
    return _reduced(name, losses if weight is None else ops.mul(losses, weight), reduction)


def binary_cross_entropy(input: Tensor, target: Any, weight: Any = None, *, reduction: str = "mean") -> Tensor:
    """-log Bernoulli(target; input), in nats, elementwise, with logarithms of at least -100. weight: of the elements.

    input: probabilities; target: of input's shape and dtype. From logits by `binary_cross_entropy_with_logits`.
    """
    losses = _loss.binary_cross_entropy(input, target)
    return _reduced("binary_cross_entropy", losses if weight is None else ops.mul(losses, weight), reduction)


def kl_div(input: Tensor, target: Any, *, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """target (log target - input), elementwise, in nats. input: log-probabilities, target: probabilities alike.

    log_target: target holds logarithms, too. reduction: "batchmean", the sum over a divergence's own terms averaged
    over the first axis, is the divergence; "mean" divides by all elements, as in PyTorch.
    """
    _check_same("kl_div", input, target)
    if log_target:
        losses = ops.mul(ops.exp(target), ops.sub(target, input))
    else:
        positive = (target._array if isinstance(target, Tensor) else target) != 0
        own = ops.where(positive, ops.mul(target, ops.log(ops.where(positive, target, 1.0))), 0.0)
        losses = ops.sub(own, ops.mul(target, input))
    if reduction == "batchmean":
        return ops.div(ops.sum(losses), max(input.shape[0] if input.shape else 1, 1))
    return _reduced("kl_div", losses, reduction)


def gaussian_nll_loss(
    input: Tensor, target: Any, var: Any, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> Tensor:
    """-log of a normal density, (log var + (input - target)^2 / var) / 2, in nats, elementwise; full: + log(2 pi) / 2.

    input: the means; target: of their shape; var: of their shape, or without the last axis, or with 1 for it. A
    variance counts as at least eps, without a change of its gradient, as in PyTorch.
    """
    name = "gaussian_nll_loss"
    _check_same(name, input, target)
    if var.shape == input.shape[:-1] and var.shape != input.shape:
        var = ops.reshape(var, (*var.shape, 1))
    if var.shape != input.shape and var.shape != (*input.shape[:-1], 1):
        raise ValueError(f"{name}: var must have input's shape {input.shape}, or 1 for its last axis, got {var.shape}")
    raw = var._array if isinstance(var, Tensor) else var
    if (raw < 0).any():
        raise ValueError(f"{name}: var must not be negative, got {raw.min()}")
    var = ops.add(var, raw.clip(eps, None) - raw)
    distance = _difference(name, input, target)
    losses = ops.mul(ops.add(ops.log(var), ops.div(ops.mul(distance, distance), var)), 0.5)
    return _reduced(name, ops.add(losses, 0.5 * math.log(2 * math.pi)) if full else losses, reduction)


def huber_loss(
    input: Tensor, target: Any, reduction: str = "mean", delta: float = 1.0, weight: Any = None
) -> Tensor:  # fmt: skip
    """d^2 / 2 of d = |input - target| up to delta, delta (d - delta / 2) beyond, elementwise (Huber 1964).

    weight: of input's shape, times which each element counts; the mean is over their number, as in PyTorch.
    """
    if not delta > 0:
        raise ValueError(f"huber_loss: delta must be above 0, got {delta}")
    losses = _huber("huber_loss", input, target, delta)
    return _reduced("huber_loss", losses if weight is None else _times("huber_loss", losses, weight), reduction)


def smooth_l1_loss(input: Tensor, target: Any, *, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """d^2 / (2 beta) of d = |input - target| below beta, d - beta / 2 from there on, elementwise (Girshick 2015)."""
    if not beta >= 0:
        raise ValueError(f"smooth_l1_loss: beta must not be negative, got {beta}")
    if beta == 0:
        return l1_loss(input, target, reduction=reduction)
    return _reduced("smooth_l1_loss", ops.div(_huber("smooth_l1_loss", input, target, beta), beta), reduction)


def _huber(name: str, input: Tensor, target: Any, delta: float) -> Tensor:
    d = _difference(name, input, target)
    near = abs(d._array if isinstance(d, Tensor) else d) <= delta
    return ops.where(near, ops.mul(ops.mul(d, d), 0.5), ops.mul(ops.sub(ops.abs(d), 0.5 * delta), delta))


def mse_loss(input: Tensor, target: Any, *, reduction: str = "mean", weight: Any = None) -> Tensor:
    """(input - target) ** 2, elementwise. target: of input's shape. Integers count as float32.

    weight: of input's shape, times which each element counts; the mean is then the weighted one.
    """
    return _weighted("mse_loss", ops.pow(_difference("mse_loss", input, target), 2), weight, reduction)


def l1_loss(input: Tensor, target: Any, *, reduction: str = "mean", weight: Any = None) -> Tensor:
    """|input - target|, elementwise. target: of input's shape. Integers count as float32. weight: as of `mse_loss`."""
    return _weighted("l1_loss", ops.abs(_difference("l1_loss", input, target)), weight, reduction)


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

    The colors of a pixel share the component that is drawn. logits of the K components: (N, K, H, W); mean and
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
    colors = discretized_logistic_nll(mean, log_scale, target[:, None], levels, reduction="none")
    losses = -ops.logsumexp(ops.log_softmax(logits, 1) - ops.sum(colors, 2), 1)
    return _reduced("logistic_mixture_nll", losses, reduction)


def _check_same(name: str, input: Any, target: Any) -> None:
    if input.shape != target.shape:
        raise ValueError(f"{name}: target must have input's shape, got {target.shape} for {input.shape}")


def _difference(name: str, input: Any, target: Any) -> Any:
    _check_same(name, input, target)
    if input.dtype.kind != "f" and target.dtype.kind != "f":  # uint8 images: 0 - 200 would be 56
        input, target = ops.to(input, np.float32), ops.to(target, np.float32)
    return ops.sub(input, target)


def _times(name: str, losses: Tensor, weight: Any) -> Tensor:
    if tuple(weight.shape) != tuple(losses.shape):
        raise ValueError(f"{name}: weight must have input's shape {losses.shape}, got {weight.shape}")
    return ops.mul(losses, weight)


def _weighted(name: str, losses: Tensor, weight: Any, reduction: str) -> Tensor:
    """`_reduced`, with the mean over the weights' sum."""
    if weight is None:
        return _reduced(name, losses, reduction)
    found = _reduced(name, _times(name, losses, weight), reduction)
    return ops.div(found, ops.mean(weight)) if reduction == "mean" else found


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
