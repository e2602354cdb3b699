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


def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0,
    *, generator: np.random.Generator,
) -> Tensor:  # fmt: skip
    """Normal with mean and standard deviation, of which only numbers from a to b are taken: others are drawn again."""
    share = (math.erf((b - mean) / std / math.sqrt(2)) - math.erf((a - mean) / std / math.sqrt(2))) / 2
    if not a < b or not share > 1e-3:
        raise ValueError(f"trunc_normal_: from {a} to {b} there must be some of a normal with {mean} and {std}")
    values = generator.normal(mean, std, tensor.shape)
    while (outside := (values < a) | (values > b)).any():
        values[outside] = generator.normal(mean, std, int(outside.sum()))
    return _fill(tensor, values)


def eye_(tensor: Tensor) -> Tensor:
    """The identity: 1 on the diagonal of a matrix, 0 elsewhere."""
    if tensor.ndim != 2:
        raise ValueError(f"eye_: tensor must have 2 axes, got shape {tensor.shape}")
    return _fill(tensor, np.eye(*tensor.shape))


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """A convolution's weight (out, in, *kernel) that hands its input through: 1 at each kernel's center, as in `eye_`.

    groups: as many such weights one after the other along the outputs.
    """
    if tensor.ndim not in (3, 4, 5) or groups < 1 or tensor.shape[0] % groups:
        raise ValueError(
            f"dirac_: tensor must have 3 to 5 axes, the first a multiple of groups {groups}, got shape {tensor.shape}"
        )
    values, outputs = np.zeros(tensor.shape), tensor.shape[0] // groups
    center = tuple(n // 2 for n in tensor.shape[2:])
    for o in range(tensor.shape[0]):
        if o % outputs < tensor.shape[1]:
            values[(o, o % outputs, *center)] = 1
    return _fill(tensor, values)


def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, *, generator: np.random.Generator) -> Tensor:
    """Normal with standard deviation std; in each column of the matrix the share sparsity, at random, is 0."""
    if tensor.ndim != 2 or not 0 <= sparsity <= 1:
        raise ValueError(
            f"sparse_: tensor must have 2 axes and sparsity be from 0 to 1, got shape {tensor.shape} and {sparsity}"
        )
    values, rows = generator.normal(0, std, tensor.shape), tensor.shape[0]
    zeros = np.argsort(generator.random(tensor.shape), axis=0)[: math.ceil(sparsity * rows)]
    np.put_along_axis(values, zeros, 0, axis=0)
    return _fill(tensor, values)


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
