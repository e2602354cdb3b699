"""Initial values of parameters: PyTorch's distributions under PyTorch's names.

Every function fills a leaf tensor in place and returns it. Numbers come from the generator that is passed in,
in the order of the tensor's shape, whatever its dtype and its order in memory.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygen._tensor import Tensor
from tinygen.array import xp


def _fill(tensor: Tensor, values: Any) -> Tensor:
    array = tensor.write()
    array[...] = xp(array).asarray(values)
    return tensor


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Every element is val."""
    return _fill(tensor, val)


def zeros_(tensor: Tensor) -> Tensor:
    """Every element is 0."""
    return _fill(tensor, 0)


def ones_(tensor: Tensor) -> Tensor:
    """Every element is 1."""
    return _fill(tensor, 1)


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, *, generator: np.random.Generator) -> Tensor:
    """Uniform on [a, b)."""
    return _fill(tensor, generator.uniform(a, b, tensor.shape))


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: np.random.Generator) -> Tensor:
    """Normal with mean and standard deviation."""
    return _fill(tensor, generator.normal(mean, std, tensor.shape))


def kaiming_uniform_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    *, generator: np.random.Generator,
) -> Tensor:  # fmt: skip
    """Uniform with standard deviation gain / sqrt(fan): variance survives rectifiers (He et al. 2015)."""
    bound = math.sqrt(3) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator=generator)


def kaiming_normal_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    *, generator: np.random.Generator,
) -> Tensor:  # fmt: skip
    """Normal with standard deviation gain / sqrt(fan) (He et al. 2015)."""
    return normal_(tensor, 0, _kaiming_std(tensor, a, mode, nonlinearity), generator=generator)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, *, generator: np.random.Generator) -> Tensor:
    """Uniform with standard deviation gain * sqrt(2 / (fan_in + fan_out)) (Glorot & Bengio 2010)."""
    bound = gain * math.sqrt(6 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound, generator=generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, *, generator: np.random.Generator) -> Tensor:
    """Normal with standard deviation gain * sqrt(2 / (fan_in + fan_out)) (Glorot & Bengio 2010)."""
    return normal_(tensor, 0, gain * math.sqrt(2 / sum(fans(tensor))), generator=generator)


def orthogonal_(tensor: Tensor, gain: float = 1, *, generator: np.random.Generator) -> Tensor:
    """A (semi-)orthogonal matrix times gain, the axes after the first flattened (Saxe et al. 2013)."""
    if tensor.ndim < 2:
        raise ValueError(f"orthogonal_: tensor must have at least 2 axes, got shape {tensor.shape}")
    rows = tensor.shape[0]
    columns = tensor.numel() // rows
    q, r = np.linalg.qr(generator.standard_normal((max(rows, columns), min(rows, columns))))
    q = q * np.sign(np.diag(r))  # makes the distribution uniform
    return _fill(tensor, gain * (q.T if rows < columns else q).reshape(tensor.shape))


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """By how much a layer before this nonlinearity should scale. param: leaky_relu's slope, 0.01 if None."""
    slope = 0.01 if param is None else param
    gains = {"relu": math.sqrt(2), "leaky_relu": math.sqrt(2 / (1 + slope**2)), "tanh": 5 / 3, "selu": 3 / 4}
    gains |= dict.fromkeys(("linear", "conv2d", "conv_transpose2d", "sigmoid"), 1.0)
    if nonlinearity not in gains:
        raise ValueError(f"calculate_gain: nonlinearity must be one of {', '.join(gains)}, got {nonlinearity!r}")
    return gains[nonlinearity]


def fans(tensor: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight of shape (out, in, *kernel)."""
    if tensor.ndim < 2:
        raise ValueError(f"fan_in and fan_out need a tensor of at least 2 axes, got shape {tensor.shape}")
    taps = math.prod(tensor.shape[2:])
    return tensor.shape[1] * taps, tensor.shape[0] * taps


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"kaiming: mode must be 'fan_in' or 'fan_out', got {mode!r}")
    return calculate_gain(nonlinearity, a) / math.sqrt(fans(tensor)[mode == "fan_out"])
