"""Layers: modules with PyTorch's names and initial distributions.

A layer that draws initial values takes the `generator` (a numpy.random.Generator) that draws them as a required keyword:
there is no global random state, and no default that would give two layers the same numbers. Parameters are float32;
`Module.to(np.float64)` converts. Names of parameters are PyTorch's, so state dicts go back and forth.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygen._tensor import Tensor
from tinygen.nn import functional as F
from tinygen.nn import init
from tinygen.nn.module import Module, Parameter


def _weights(shape: tuple[int, ...], bias: int | None, generator: np.random.Generator) -> tuple[Tensor, Tensor | None]:
    """(weight, bias or None) uniform within 1 / sqrt(fan_in), as in PyTorch. Kernels are HWIO in memory."""
    if min(shape) < 1:
        raise ValueError(f"every side of a weight must be at least 1, got {shape}")
    if len(shape) == 4:
        weight = Parameter(np.zeros((*shape[2:], shape[1], shape[0]), np.float32).transpose(3, 2, 0, 1))
    else:
        weight = Parameter(np.zeros(shape, np.float32))
    init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
    if bias is None:
        return weight, None
    bound = 1 / math.sqrt(init.fans(weight)[0])
    return weight, init.uniform_(Parameter(np.zeros(bias, np.float32)), -bound, bound, generator=generator)


class Linear(Module):
    """input @ weight.T + bias: (..., in_features) -> (..., out_features)."""

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, generator: np.random.Generator
    ) -> None:
        self.in_features, self.out_features = in_features, out_features
        self.weight, self.bias = _weights((out_features, in_features), out_features if bias else None, generator)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}{'' if self.bias is not None else ', bias=False'}"


class _Conv(Module):
    """What convolutions share: channels, kernel, weight and bias. `kind` names the axes of the weight's channels."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, bias: bool, generator: np.random.Generator,
        transposed: bool = False, **settings: Any,
    ) -> None:  # fmt: skip
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = F._pair(f"{type(self).__name__}: kernel_size", kernel_size, 1)
        self.settings = settings  # the other arguments of the function
        channels = (in_channels, out_channels) if transposed else (out_channels, in_channels)
        self.weight, self.bias = _weights((*channels, *self.kernel_size), out_channels if bias else None, generator)

    def extra_repr(self) -> str:
        settings = "".join(f", {name}={value!r}" for name, value in self.settings.items())
        bias = "" if self.bias is not None else ", bias=False"
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}{settings}{bias}"


class Conv2d(_Conv):
    """Convolution: (N, in_channels, H, W) -> (N, out_channels, OH, OW). See `functional.conv2d`."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, groups: int = 1, bias: bool = True, *, generator: np.random.Generator,
    ) -> None:  # fmt: skip
        if groups != 1:
            raise ValueError(f"Conv2d: groups must be 1, got {groups}; grouped convolution is not supported")
        settings = {"stride": stride, "padding": padding, "dilation": dilation}
        super().__init__(in_channels, out_channels, kernel_size, bias, generator, **settings)

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.weight, self.bias, **self.settings)


class MaskedConv2d(_Conv):
    """PixelCNN's convolution with mask "A" or "B": (N, in_channels, H, W) -> (N, out_channels, H, W).

    channels: the colour groups that the mask orders. See `functional.masked_conv2d`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, mask: str, channels: int = 1, bias: bool = True,
        *, generator: np.random.Generator,
    ) -> None:  # fmt: skip
        super().__init__(in_channels, out_channels, kernel_size, bias, generator, mask=mask, channels=channels)
        F._check_mask(self.weight.shape, mask, channels)

    def forward(self, input: Tensor) -> Tensor:
        return F.masked_conv2d(input, self.weight, self.bias, **self.settings)


class ConvTranspose2d(_Conv):
    """Transposed convolution: (N, in_channels, H, W) -> (N, out_channels, OH, OW). See `functional.conv_transpose2d`.

    Its weight is (in_channels, out_channels, KH, KW).
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
        output_padding: Any = 0, groups: int = 1, bias: bool = True, dilation: Any = 1,
        *, generator: np.random.Generator,
    ) -> None:  # fmt: skip
        if groups != 1:
            raise ValueError(f"ConvTranspose2d: groups must be 1, got {groups}; grouped convolution is not supported")
        settings = {"stride": stride, "padding": padding, "output_padding": output_padding, "dilation": dilation}
        super().__init__(in_channels, out_channels, kernel_size, bias, generator, True, **settings)

    def forward(self, input: Tensor) -> Tensor:
        return F.conv_transpose2d(input, self.weight, self.bias, **self.settings)


class Embedding(Module):
    """A table of num_embeddings learnt vectors: integers of any shape -> (..., embedding_dim)."""

    def __init__(self, num_embeddings: int, embedding_dim: int, *, generator: np.random.Generator) -> None:
        self.weight = Parameter(np.zeros((num_embeddings, embedding_dim), np.float32))
        init.normal_(self.weight, generator=generator)

    def forward(self, input: Any) -> Tensor:
        return F.embedding(input, self.weight)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, {self.weight.shape[1]}"


class Dropout(Module):
    """In training, zeroes each element with probability p, drawn by the generator. See `functional.dropout`."""

    def __init__(self, p: float = 0.5, *, generator: np.random.Generator) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout: p must be between 0 and 1, got {p}")
        self.p, self.generator = p, generator

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout(input, self.p, self.training, generator=self.generator)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class _Function(Module):
    """A layer without parameters: a network function, and the settings that it is called with."""

    function: Any
    settings: dict[str, Any]

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def forward(self, input: Tensor) -> Tensor:
        return type(self).function(input, **self.settings)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.settings.items())


class ReLU(_Function):
    """max(x, 0)."""

    function = F.relu

    def __init__(self) -> None:
        super().__init__()


class LeakyReLU(_Function):
    """x where x > 0, negative_slope * x elsewhere."""

    function = F.leaky_relu

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__(negative_slope=negative_slope)


class ELU(_Function):
    """x where x > 0, alpha * (exp(x) - 1) elsewhere."""

    function = F.elu

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__(alpha=alpha)


class Sigmoid(_Function):
    """1 / (1 + exp(-x))."""

    function = F.sigmoid

    def __init__(self) -> None:
        super().__init__()


class Tanh(_Function):
    """Hyperbolic tangent."""

    function = F.tanh

    def __init__(self) -> None:
        super().__init__()


class Softplus(_Function):
    """log(1 + exp(x))."""

    function = F.softplus

    def __init__(self) -> None:
        super().__init__()


class Softmax(_Function):
    """Probabilities from logits along dim."""

    function = F.softmax

    def __init__(self, dim: int) -> None:
        super().__init__(dim=dim)


class LogSoftmax(_Function):
    """Log-probabilities from logits along dim."""

    function = F.log_softmax

    def __init__(self, dim: int) -> None:
        super().__init__(dim=dim)


class Flatten(Module):
    """(N, ...) -> (N, the rest as one axis). Images become vectors in the order C, H, W."""

    def forward(self, input: Tensor) -> Tensor:
        return input.reshape((len(input), int(np.prod(input.shape[1:]))))


class Identity(Module):
    """What comes in."""

    def forward(self, input: Any) -> Any:
        return input
