"""Normalization over batches, images, groups of channels and last axes; `tinygen.nn.functional` has all of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygen import ops, parallel
from tinygen._tensor import Array, Tensor
from tinygen.ops.normalize import batch_norm as _batch_norm
from tinygen.ops.normalize import divide_by_rms, standardize
from tinygen.ops.normalize import group_norm as _group_norm


def batch_norm(
    input: Tensor, running_mean: Any, running_var: Any, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Each channel standardized, then scaled and shifted. input: (N, C, ...), all others: (C,).

    In training by the batch's own mean and variance, toward which running_mean and running_var (if given; tensors or
    arrays) move, in place, by the fraction momentum (the variance that is recorded is the unbiased one); otherwise by
    running_mean and running_var. The batch is that of all ranks (`tinygen.parallel`), as in PyTorch's SyncBatchNorm.

    Raises ValueError for shapes that don't fit, and in training for a single value per channel.
    """
    _check_channels("batch_norm", input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    shape = (1, -1, *[1] * (len(input.shape) - 2))
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError("batch_norm: running_mean and running_var are required in evaluation")
        std = ops.sqrt(running_var + eps)
        scale = 1 / std if weight is None else weight / std
        shift = -running_mean * scale if bias is None else bias - running_mean * scale
        return input * ops.reshape(scale, shape) + ops.reshape(shift, shape)
    alone = parallel.current().size == 1
    count = math.prod(input.shape) // max(input.shape[1], 1)
    count = count if alone else int(parallel.total(count))
    if count < 2:
        raise ValueError(f"batch_norm: training takes more than 1 value per channel, got input of shape {input.shape}")
    out, mean, var = (_batch_norm if alone else _synchronized)(input, weight, bias, eps)
    _move(running_mean, _raw(mean), momentum)
    _move(running_var, _raw(var), momentum, count / (count - 1))
    return out


def _synchronized(input: Tensor, weight: Any, bias: Any, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """The same of all ranks' inputs: each rank's sums are added up, on the way forward and, for gradients, back."""
    axes, shape = (0, *range(2, input.ndim)), (1, -1, *[1] * (input.ndim - 2))
    count = float(parallel.total(math.prod(input.shape) // max(input.shape[1], 1)))
    mean = ops.all_reduce(ops.sum(input, axes)) / count
    centered = input - ops.reshape(mean, shape)
    var = ops.all_reduce(ops.sum(ops.square(centered), axes)) / count
    scale = ops.rsqrt(var + eps) if weight is None else ops.rsqrt(var + eps) * weight
    out = centered * ops.reshape(scale, shape)
    return (out if bias is None else out + ops.reshape(bias, shape)), mean, var


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5,
    *, silu: bool = False, shift: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Each image's groups of channels standardized, then scaled and shifted. input: (N, C, ...), weight, bias: (C,).

    A group is C / num_groups channels in a row at all pixels. silu: silu of the result, x sigmoid(x). shift: (N, C), or
    (1, C) for all images, is added to each pixel of the input first. As functions of their own, both would read and
    write whole images once more.

    Raises ValueError for shapes that don't fit, and for a single value in a group, as PyTorch does.

    Source: Wu & He, Group Normalization (2018).
    """
    _check_channels("group_norm", input, weight=weight, bias=bias)
    n, c, *rest = input.shape
    if not isinstance(num_groups, int) or num_groups < 1 or c % num_groups:
        raise ValueError(f"group_norm: num_groups must be a divisor of the {c} channels, got {num_groups!r}")
    if math.prod(rest) * (c // num_groups) * n <= 1 and n:
        raise ValueError(f"group_norm: a group takes more than 1 value, got input of shape {input.shape}")
    if shift is not None:
        if shift.shape not in ((n, c), (1, c)):
            raise ValueError(f"group_norm: shift must have shape {(n, c)} or {(1, c)}, got {shift.shape}")
        shift = ops.broadcast_to(shift, (n, c))
    return _group_norm(input, weight, bias, num_groups, eps, silu, shift)[0]


def instance_norm(
    input: Tensor, running_mean: Any = None, running_var: Any = None, weight: Tensor | None = None,
    bias: Tensor | None = None, use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Each channel of each image standardized, then scaled and shifted. input: (N, C, ...), all others: (C,).

    By the image's own mean and variance, whose averages over the batch running_mean and running_var follow if they are
    given (see `batch_norm`); without use_input_stats by running_mean and running_var.

    Source: Ulyanov, Vedaldi, Lempitsky, Instance Normalization (2016).
    """
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    _check_channels(
        "instance_norm", input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias
    )
    pixels = math.prod(input.shape[2:])
    if pixels < 2:
        raise ValueError(f"instance_norm: a channel takes more than 1 pixel, got input of shape {input.shape}")
    out, mean, rstd = _group_norm(input, weight, bias, input.shape[1], eps)
    _move(running_mean, _raw(mean).mean(0), momentum)
    _move(running_var, (_raw(rstd) ** -2 - eps).mean(0), momentum, pixels / (pixels - 1))
    return out


def layer_norm(
    input: Tensor, normalized_shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """The last axes, of shape normalized_shape like weight and bias, standardized, scaled and shifted.

    Source: Ba, Kiros, Hinton, Layer Normalization (2016).
    """
    shape = _last_axes("layer_norm", input, normalized_shape, weight=weight, bias=bias)
    out = standardize(input, tuple(range(-len(shape), 0)), eps)[0]
    if weight is not None:
        out = out * ops.reshape(weight, shape)
    return out if bias is None else out + ops.reshape(bias, shape)


def rms_norm(input: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """input / sqrt(mean(input^2) + eps) * weight, the mean over the last axes, of shape normalized_shape.

    eps: None for the dtype's machine epsilon. Source: Zhang & Sennrich, Root Mean Square Layer Normalization (2019).
    """
    shape = _last_axes("rms_norm", input, normalized_shape, weight=weight)
    eps = float(np.finfo(input.dtype if input.dtype.kind == "f" else np.float32).eps) if eps is None else eps
    out = divide_by_rms(input, tuple(range(-len(shape), 0)), eps)[0]
    return out if weight is None else ops.mul(out, weight)


def _raw(x: Any) -> Array:
    return x._array if isinstance(x, Tensor) else x


def _move(running: Any, batch: Array, momentum: float, factor: float = 1.0) -> None:
    """Move a running average, a tensor or an array, toward factor times the batch's by the fraction momentum."""
    if running is not None:
        array = running.write() if isinstance(running, Tensor) else running
        array *= 1 - momentum
        array += momentum * factor * batch


def _last_axes(name: str, input: Any, normalized_shape: Any, **parameters: Any) -> tuple[int, ...]:
    """normalized_shape as a tuple; ValueError unless the input ends in it and the parameters have it."""
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or input.shape[-len(shape) :] != shape:
        raise ValueError(f"{name}: input of shape {input.shape} must end in normalized_shape {shape}")
    for argument, p in parameters.items():
        if p is not None and p.shape != shape:
            raise ValueError(f"{name}: {argument} must have shape {shape}, got {p.shape}")
    return shape


def _check_channels(name: str, input: Any, **vectors: Any) -> None:
    if len(input.shape) < 2:
        raise ValueError(f"{name}: input must be (N, C, ...), got shape {input.shape}")
    for argument, vector in vectors.items():
        if vector is not None and vector.shape != (input.shape[1],):
            raise ValueError(f"{name}: {argument} must have shape ({input.shape[1]},), got {vector.shape}")
