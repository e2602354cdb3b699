"""Layers: modules with PyTorch's names and initial distributions.

A layer that draws initial values takes the `rng` (a numpy.random.Generator) that draws them as a
required keyword: there is no global random state, and no default that would give two layers the same numbers.
Parameters are float32; `Module.to(np.float64)` converts. Names are PyTorch's, and so are state dicts.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygen import ops
from tinygen._tensor import Tensor
from tinygen.array import xp
from tinygen.nn import functional as F
from tinygen.nn import init
from tinygen.nn.module import Module, Parameter
from tinygen.ops.recurrent import lstm_states
from tinygen.ops.views import flatten


def _weights(shape: tuple[int, ...], bias: int | None, rng: np.random.Generator) -> tuple[Tensor, Tensor | None]:
    """(weight, bias or None) uniform within 1 / sqrt(fan_in), as in PyTorch. In memory (in, out), and HWIO."""
    if min(shape) < 1:
        raise ValueError(f"every side of a weight must be at least 1, got {shape}")
    if len(shape) == 4:
        weight = Parameter(np.zeros((*shape[2:], shape[1], shape[0]), np.float32).transpose(3, 2, 0, 1))
    else:
        weight = Parameter(np.zeros(shape[::-1], np.float32).T)
    init.kaiming_uniform_(weight, a=math.sqrt(5), generator=rng)
    if bias is None:
        return weight, None
    bound = 1 / math.sqrt(init.fans(weight)[0])
    return weight, init.uniform_(Parameter(np.zeros(bias, np.float32)), -bound, bound, generator=rng)


class Linear(Module):
    """input @ weight.T + bias: (..., in_features) -> (..., out_features)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, rng: np.random.Generator) -> None:
        self.in_features, self.out_features = in_features, out_features
        self.weight, self.bias = _weights((out_features, in_features), out_features if bias else None, rng)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}{'' if self.bias is not None else ', bias=False'}"


class Bilinear(Module):
    """x1' W x2 + b for each output: (..., in1_features) and (..., in2_features) -> (..., out_features)."""

    def __init__(
        self, in1_features: int, in2_features: int, out_features: int, bias: bool = True, *, rng: np.random.Generator
    ) -> None:
        self.in1_features, self.in2_features, self.out_features = in1_features, in2_features, out_features
        if min(in1_features, in2_features, out_features) < 1:
            raise ValueError("Bilinear: in1_features, in2_features and out_features must be at least 1")
        bound, shape = 1 / math.sqrt(in1_features), (out_features, in1_features, in2_features)
        self.weight = init.uniform_(Parameter(np.zeros(shape, np.float32)), -bound, bound, generator=rng)
        zeros = Parameter(np.zeros(out_features, np.float32))
        self.bias = init.uniform_(zeros, -bound, bound, generator=rng) if bias else None

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        return F.bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self) -> str:
        sizes = f"{self.in1_features}, {self.in2_features}, {self.out_features}"
        return f"{sizes}{'' if self.bias is not None else ', bias=False'}"


class LSTMCell(Module):
    """One step of an LSTM. See `functional.lstm_cell`."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, *, rng: np.random.Generator) -> None:
        self.input_size, self.hidden_size = input_size, hidden_size
        self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh = _gates(input_size, hidden_size, bias, rng)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """input: (N, input_size), hx: h and c, (N, hidden_size) each, zeros if None -> the next h and c."""
        if hx is None:
            zeros = Tensor(xp(input._array).zeros((len(input), self.hidden_size), input.dtype))
            hx = (zeros, zeros)
        return F.lstm_cell(input, hx, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}{'' if self.bias_ih is not None else ', bias=False'}"


class LSTM(Module):
    """An LSTM over a sequence, in one layer. Parameters are named as PyTorch's: weight_ih_l0, ..."""

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
        batch_first: bool = False, *, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        if num_layers != 1:
            raise ValueError(f"LSTM: num_layers must be 1, got {num_layers}; stack several LSTMs instead")
        self.input_size, self.hidden_size, self.batch_first = input_size, hidden_size, batch_first
        parameters = _gates(input_size, hidden_size, bias, rng)
        self.weight_ih_l0, self.weight_hh_l0, self.bias_ih_l0, self.bias_hh_l0 = parameters

    def forward(self, input: Tensor, hx: Any = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """input: (T, N, input_size), or (N, T, input_size) with batch_first -> (output, (h, c)).

        output: h after every step, (T, N, hidden_size), or (N, T, hidden_size). h and c, in hx before the
        first step (zeros if None), in the result after the last one: (1, N, hidden_size). Steps come first in
        memory: with batch_first the input is copied into that order, and the output is a view.
        """
        if input.ndim != 3:
            raise ValueError(f"LSTM: input must have 3 axes (steps, batch, features), got shape {input.shape}")
        if self.batch_first:
            input = ops.transpose(input, 0, 1)
        steps, n, _ = input.shape
        if not steps:
            raise ValueError(f"LSTM: input must have at least one step, got shape {input.shape}")
        size = (1, n, self.hidden_size)
        if hx is not None and any(state.shape != size for state in hx):
            raise ValueError(f"LSTM: h and c must have shape {size}, got {hx[0].shape} and {hx[1].shape}")
        first = (None, None) if hx is None else (hx[0][0], hx[1][0])
        bias = None if self.bias_ih_l0 is None else self.bias_ih_l0 + self.bias_hh_l0
        h, c = lstm_states(input, self.weight_hh_l0, *first, 0, self.weight_ih_l0, bias)
        return h.transpose(0, 1) if self.batch_first else h, (h[-1:], c[-1:])

    def extra_repr(self) -> str:
        bias = "" if self.bias_ih_l0 is not None else ", bias=False"
        return f"{self.input_size}, {self.hidden_size}{bias}{', batch_first=True' if self.batch_first else ''}"


def _gates(inputs: int, hidden: int, bias: bool, rng: np.random.Generator) -> list[Any]:
    """An LSTM's w_ih, w_hh, b_ih, b_hh, uniform within 1 / sqrt(hidden) as in PyTorch. Transposed in memory."""
    if min(inputs, hidden) < 1:
        raise ValueError(f"LSTM: input_size and hidden_size must be at least 1, got {inputs} and {hidden}")
    shapes = [(4 * hidden, inputs), (4 * hidden, hidden), *([(4 * hidden,)] * 2 if bias else [])]
    bound = 1 / math.sqrt(hidden)
    weights = [init.uniform_(Parameter(np.zeros(s[::-1], np.float32).T), -bound, bound, generator=rng) for s in shapes]
    return [*weights, *([] if bias else [None, None])]


class Embedding(Module):
    """A table of num_embeddings learned vectors: integers of any shape -> (..., embedding_dim)."""

    def __init__(self, num_embeddings: int, embedding_dim: int, *, rng: np.random.Generator) -> None:
        self.weight = Parameter(np.zeros((num_embeddings, embedding_dim), np.float32))
        init.normal_(self.weight, generator=rng)

    def forward(self, input: Any) -> Tensor:
        return F.embedding(input, self.weight)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, {self.weight.shape[1]}"


class Dropout(Module):
    """In training zeroes each element with probability p; the generator draws. See `functional.dropout`."""

    def __init__(self, p: float = 0.5, *, rng: np.random.Generator) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout: p must be between 0 and 1, got {p}")
        self.p, self.rng = p, rng

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout(input, self.p, self.training, rng=self.rng)

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


class SiLU(_Function):
    """x * sigmoid(x)."""

    function = F.silu

    def __init__(self) -> None:
        super().__init__()


class GELU(_Function):
    """x times a normal number's probability to be below x. See `functional.gelu`."""

    function = F.gelu

    def __init__(self, approximate: str = "none") -> None:
        super().__init__(approximate=approximate)


class Mish(_Function):
    """x * tanh(softplus(x))."""

    function = F.mish

    def __init__(self) -> None:
        super().__init__()


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


class GatedActivation(_Function):
    """tanh(a) * sigmoid(b) of the two halves of the channels: (N, 2C, ...) -> (N, C, ...)."""

    function = F.gated_activation

    def __init__(self) -> None:
        super().__init__()


class Flatten(Module):
    """Axes start_dim to end_dim as one: (N, ...) -> (N, the rest). Images become vectors in the order C, H, W."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:
        return flatten(input, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Identity(Module):
    """Returns its input."""

    def forward(self, input: Any) -> Any:
        return input
