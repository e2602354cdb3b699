"""Layers: modules with PyTorch's names and initial distributions.

A layer that draws initial values takes the `rng` (a numpy.random.Generator) that draws them as a
required keyword: there is no global random state, and no default that would give two layers the same numbers.
Parameters are float32; `Module.to(np.float64)` converts. Names are PyTorch's, and so are state dicts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    """LSTMs over a sequence, each layer on the outputs of the one before. Parameters are named as PyTorch's.

    That is weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, and so for l1, ..; bidirectional: a second LSTM in each
    layer goes from the last step to the first, its parameters end in _reverse, and a layer's outputs are those of both
    side by side. dropout: the probability with which, in training, an output that goes into another layer is zeroed;
    `rng` draws.
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, *, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        if not isinstance(num_layers, int) or num_layers < 1:
            raise ValueError(f"LSTM: num_layers must be an integer of at least 1, got {num_layers!r}")
        self.input_size, self.hidden_size, self.batch_first = input_size, hidden_size, batch_first
        self.num_layers, self.bidirectional, self.bias = num_layers, bidirectional, bias
        if not 0 <= dropout <= 1:
            raise ValueError(f"LSTM: dropout must be between 0 and 1, got {dropout}")
        self.dropout, self.rng = dropout, rng
        for layer, end in self._runs():
            inputs = hidden_size * (1 + bidirectional) if layer else input_size
            for name, parameter in zip(_NAMES, _gates(inputs, hidden_size, bias, rng), strict=True):
                setattr(self, f"{name}_l{layer}{end}", parameter)

    def _runs(self) -> list[tuple[int, str]]:
        """Of each layer and direction: the layer's number, and how the names of its parameters end."""
        return [(layer, end) for layer in range(self.num_layers) for end in ("", "_reverse")[: 1 + self.bidirectional]]

    def forward(self, input: Tensor, hx: Any = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """input: (T, N, input_size), or (N, T, input_size) with batch_first -> (output, (h, c)).

        output: the last layer's h after every step, (T, N, D hidden_size), or (N, T, D hidden_size), with D = 2 if
        bidirectional, else 1. h and c, in hx before the first step (zeros if None), in the result after the last one:
        (D num_layers, N, hidden_size). Steps come first in memory: with batch_first the input is copied into that
        order, and the output is a view.
        """
        if input.ndim != 3:
            raise ValueError(f"LSTM: input must have 3 axes (steps, batch, features), got shape {input.shape}")
        x = ops.transpose(input, 0, 1) if self.batch_first else input
        if not len(x):
            raise ValueError(f"LSTM: input must have at least one step, got shape {input.shape}")
        runs, last = self._runs(), []
        outputs: list[Tensor] = []
        size = (len(runs), x.shape[1], self.hidden_size)
        if hx is not None and any(state.shape != size for state in hx):
            raise ValueError(f"LSTM: h and c must have shape {size}, got {hx[0].shape} and {hx[1].shape}")
        for i, (layer, end) in enumerate(runs):
            back = end != ""
            if layer and not back:
                x = F.dropout(_beside(outputs), self.dropout, self.training, rng=self.rng)
                outputs = []
            w_ih, w_hh, b_ih, b_hh = (getattr(self, f"{name}_l{layer}{end}") for name in _NAMES)
            states = (None, None) if hx is None else (hx[0][i], hx[1][i])
            h, c = lstm_states(
                ops.flip(x, 0) if back else x, w_hh, *states, 0, w_ih, b_ih + b_hh if self.bias else None
            )
            last.append((h[-1:], c[-1:]))
            outputs.append(ops.flip(h, 0) if back else h)
        output, (h, c) = _beside(outputs), (_beside(parts, 0) for parts in zip(*last, strict=True))
        return output.transpose(0, 1) if self.batch_first else output, (h, c)

    def extra_repr(self) -> str:
        usual = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False}
        more = "".join(f", {name}={getattr(self, name)}" for name in usual if getattr(self, name) != usual[name])
        return f"{self.input_size}, {self.hidden_size}{more}"


def _beside(parts: Sequence[Tensor], dim: int = 2) -> Tensor:
    return ops.cat(*parts, dim=dim) if len(parts) > 1 else parts[0]


_NAMES = "weight_ih", "weight_hh", "bias_ih", "bias_hh"  # an LSTM's parameters


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
