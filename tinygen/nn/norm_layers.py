"""Layers that normalize, with PyTorch's names, buffers and state dicts."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygen._tensor import Tensor, tensor
from tinygen.nn import functional as F
from tinygen.nn.module import Module, Parameter


class _BatchNorm(Module):
    """Standardizes channels over the batch. See `functional.batch_norm`.

    Buffers: running_mean, running_var, and num_batches_tracked, the number of batches that they have seen.
    With momentum=None they are the plain averages over all of them.
    """

    axes: tuple[int, ...]  # numbers of axes that an input may have
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True) -> None:
        self.num_features, self.eps, self.momentum, self.affine = num_features, eps, momentum, affine
        self.weight = Parameter(np.ones(num_features, np.float32)) if affine else None
        self.bias = Parameter(np.zeros(num_features, np.float32)) if affine else None
        self.register_buffer("running_mean", tensor(np.zeros(num_features, np.float32)))
        self.register_buffer("running_var", tensor(np.ones(num_features, np.float32)))
        self.register_buffer("num_batches_tracked", tensor(np.zeros((), np.int64)))

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim not in self.axes or input.shape[1] != self.num_features:
            expected = f"{' or '.join(map(str, self.axes))} axes and {self.num_features} channels"
            raise ValueError(f"{type(self).__name__}: input must have {expected}, got shape {input.shape}")
        buffers, momentum = (self.running_mean, self.running_var), self.momentum
        if momentum is None:
            momentum = 1 / (self.num_batches_tracked.item() + 1)
        out = F.batch_norm(input, *buffers, self.weight, self.bias, self.training, momentum, self.eps)
        if self.training:
            count = self.num_batches_tracked.write()
            count += 1
        return out

    def extra_repr(self) -> str:
        affine = "" if self.affine else ", affine=False"
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}{affine}"


class BatchNorm1d(_BatchNorm):
    """Standardizes the channels of (N, C) or (N, C, L) over the batch. See `functional.batch_norm`."""

    axes = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Standardizes the channels of (N, C, H, W) over the batch. See `functional.batch_norm`."""

    axes = (4,)


class _InstanceNorm(Module):
    """Standardizes the channels of each image. See `functional.instance_norm`.

    With affine it learns a weight and a bias; with track_running_stats it keeps running_mean and running_var as
    buffers, and standardizes by them in evaluation. num_batches_tracked stays 0, as in PyTorch.
    """

    axes: tuple[int, ...]  # numbers of axes that an input may have
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = False,
        track_running_stats: bool = False,
    ) -> None:  # fmt: skip
        self.num_features, self.eps, self.momentum, self.affine = num_features, eps, momentum, affine
        self.track_running_stats = track_running_stats
        self.weight = Parameter(np.ones(num_features, np.float32)) if affine else None
        self.bias = Parameter(np.zeros(num_features, np.float32)) if affine else None
        self.running_mean = self.running_var = None
        if track_running_stats:
            self.register_buffer("running_mean", tensor(np.zeros(num_features, np.float32)))
            self.register_buffer("running_var", tensor(np.ones(num_features, np.float32)))
            self.register_buffer("num_batches_tracked", tensor(np.zeros((), np.int64)))

    def forward(self, input: Tensor) -> Tensor:
        """input: (N, C, ...), or (C, ...) of one image."""
        if input.ndim + 1 in self.axes and input.shape[:1] == (self.num_features,):
            return self.forward(input.reshape((1, *input.shape)))[0]
        if input.ndim not in self.axes or input.shape[1] != self.num_features:
            expected = f"{' or '.join(map(str, self.axes))} axes and {self.num_features} channels"
            raise ValueError(f"{type(self).__name__}: input must have {expected}, got shape {input.shape}")
        own = self.training or not self.track_running_stats
        buffers = (self.running_mean, self.running_var)
        return F.instance_norm(input, *buffers, self.weight, self.bias, own, self.momentum, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}{', affine=True' if self.affine else ''}"


class InstanceNorm1d(_InstanceNorm):
    """Standardizes the channels of each (N, C, L) or (C, L). See `functional.instance_norm`."""

    axes = (3,)


class InstanceNorm2d(_InstanceNorm):
    """Standardizes the channels of each image of (N, C, H, W) or (C, H, W). See `functional.instance_norm`."""

    axes = (4,)


class GroupNorm(Module):
    """Standardizes each image's groups of channels; silu: silu of that. See `functional.group_norm`."""

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, *, silu: bool = False
    ) -> None:
        if num_groups < 1 or num_channels % num_groups:
            raise ValueError(f"GroupNorm: num_groups must divide the {num_channels} channels, got {num_groups}")
        self.num_groups, self.num_channels, self.eps, self.silu = num_groups, num_channels, eps, silu
        self.weight = Parameter(np.ones(num_channels, np.float32)) if affine else None
        self.bias = Parameter(np.zeros(num_channels, np.float32)) if affine else None

    def forward(self, input: Tensor, shift: Tensor | None = None) -> Tensor:
        """input: (N, num_channels, ...). shift: (N, num_channels), added to each pixel first."""
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps, silu=self.silu, shift=shift)

    def extra_repr(self) -> str:
        affine = "" if self.weight is not None else ", affine=False"
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}{affine}{', silu=True' if self.silu else ''}"


class LayerNorm(Module):
    """Standardizes the last axes of every input. See `functional.layer_norm`."""

    def __init__(
        self, normalized_shape: Any, eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True
    ) -> None:
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.normalized_shape, self.eps = shape, eps
        self.weight = Parameter(np.ones(shape, np.float32)) if elementwise_affine else None
        self.bias = Parameter(np.zeros(shape, np.float32)) if elementwise_affine and bias else None

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        affine = "" if self.weight is not None else ", elementwise_affine=False"
        return f"{self.normalized_shape}, eps={self.eps}{affine}"


class RMSNorm(Module):
    """Divides the last axes of every input by the root of their mean square. See `functional.rms_norm`."""

    def __init__(self, normalized_shape: Any, eps: float | None = None, elementwise_affine: bool = True) -> None:
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.normalized_shape, self.eps = shape, eps
        self.weight = Parameter(np.ones(shape, np.float32)) if elementwise_affine else None

    def forward(self, input: Tensor) -> Tensor:
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        affine = "" if self.weight is not None else ", elementwise_affine=False"
        return f"{self.normalized_shape}, eps={self.eps}{affine}"
