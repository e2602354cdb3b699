"""Weights that are computed from others at every use: `torch.nn.utils.parametrizations`, with its names in state dicts.

A parametrized module's weight is computed whenever it is looked up. What is learned and kept hangs below the module:

    parametrizations.weight.original                           of spectral_norm, with the buffers ...weight.0._u, ..._v
    parametrizations.weight.original0, ...original1            of weight_norm: lengths and directions
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from tinygen import ops
from tinygen._tensor import Tensor, leaf, tensor
from tinygen.array import on_device_of, xp
from tinygen.nn.conv_layers import ConvTranspose2d
from tinygen.nn.module import Module

M = TypeVar("M", bound=Module)


def spectral_norm(
    module: M, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None,
    *, rng: np.random.Generator,
) -> M:  # fmt: skip
    """Divide a module's weight by its largest singular value, as a matrix whose rows are axis dim. Returns the module.

    The value is u' W v with singular vectors that n_power_iterations go on improving at each use in training; they
    begin as random ones, which rng draws, after 15 iterations. dim: 1 for transposed convolutions, otherwise 0.

    Source: Miyato, Kataoka, Koyama, Yoshida, Spectral Normalization for GANs (2018), algorithm 1.
    """
    if n_power_iterations < 1:
        raise ValueError(f"spectral_norm: n_power_iterations must be at least 1, got {n_power_iterations}")
    weight = _weight("spectral_norm", module, name)
    dim = (1 if isinstance(module, ConvTranspose2d) else 0) if dim is None else dim
    return _parametrize(module, name, _Spectral(weight, n_power_iterations, eps, dim, rng), {"original": weight})


def weight_norm(module: M, name: str = "weight", dim: int | None = 0) -> M:
    """Learn a module's weight as length times direction, v / |v|. Returns the module.

    There is a length for each index of axis dim; one for all with None. Source: Salimans & Kingma, Weight
    Normalization (2016), equation 2.
    """
    weight = _weight("weight_norm", module, name)
    law = _Lengths(weight.ndim, dim)
    length = tensor(law.norm(weight.numpy()), requires_grad=True)
    return _parametrize(module, name, law, {"original0": length, "original1": weight})


def _weight(function: str, module: Module, name: str) -> Tensor:
    weight = vars(module).get(name)
    if not isinstance(weight, Tensor) or module._roles.get(name) != "parameter":
        raise ValueError(f"{function}: {type(module).__name__} has no parameter {name}")
    return weight


def _parametrize(module: M, name: str, law: _Law, originals: dict[str, Tensor]) -> M:
    """Give the module a class of its own, in which its weight is a property."""
    delattr(module, name)
    held, all_held = Module(), vars(module).get("parametrizations")
    if all_held is None:
        all_held, kind = Module(), type(module)
        module.parametrizations = all_held
        module.__class__ = type(kind.__name__, (kind,), {})
    setattr(all_held, name, held)
    for key, value in originals.items():
        setattr(held, key, value)
    setattr(held, "0", law)

    def weight(self: Any) -> Tensor:
        held = getattr(self.parametrizations, name)
        return getattr(held, "0")(*[getattr(held, key) for key in originals])

    setattr(type(module), name, property(weight))
    return module


class _Law(Module):
    """Computes a weight from what it is made of."""


class _Spectral(_Law):
    """See `spectral_norm`. Buffers: _u and _v, none for a weight of one axis."""

    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor, iterations: int, eps: float, dim: int, rng: np.random.Generator) -> None:
        self.iterations, self.eps, self.ndim = iterations, eps, weight.ndim
        self.dim = dim % weight.ndim
        if self.ndim > 1:
            matrix = self.matrix(weight._array)
            for name, size in zip(("_u", "_v"), matrix.shape, strict=True):
                vector = on_device_of(matrix, rng.standard_normal(size).astype(matrix.dtype))
                self.register_buffer(name, leaf(self.unit(vector)))
            self.improve(matrix, 15)

    def matrix(self, weight: Any) -> Any:
        """The weight as a matrix whose rows are axis dim."""
        rest = [i for i in range(self.ndim) if i != self.dim]
        return ops.reshape(ops.permute(weight, (self.dim, *rest)), (weight.shape[self.dim], -1))

    def unit(self, vector: Any) -> Any:
        """The vector, of length 1."""
        return vector / max(float(xp(vector).sqrt((vector * vector).sum())), self.eps)

    def improve(self, matrix: Any, iterations: int) -> None:
        """Power iterations: the singular vectors, in place, nearer to those of the largest singular value."""
        u, v = self._u.write(), self._v.write()
        for _ in range(iterations):
            u[...] = self.unit(matrix @ v)
            v[...] = self.unit(matrix.T @ u)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight divided by its largest singular value."""
        if self.ndim == 1:
            return weight / ops.maximum(ops.sqrt(ops.sum(weight * weight)), self.eps)
        matrix = self.matrix(weight)
        if self.training:
            self.improve(matrix._array, self.iterations)
        u, v = (
            self._u._array,
            self._v._array,
        )  # ops keep copies of arrays: later iterations don't change what they saved
        return weight / ops.sum(ops.reshape(u, (-1, 1)) * (matrix * ops.reshape(v, (1, -1))))


class _Lengths(_Law):
    """See `weight_norm`."""

    def __init__(self, ndim: int, dim: int | None) -> None:
        kept = None if dim in (None, -1) else dim % ndim
        self.axes = tuple(i for i in range(ndim) if i != kept)
        self.keep = kept is not None

    def norm(self, weight: Any) -> Any:
        """The lengths, of the weight's number of axes; 0-d if there is only one."""
        return ops.sqrt(ops.sum(ops.mul(weight, weight), self.axes, self.keep))

    def forward(self, length: Tensor, direction: Tensor) -> Tensor:
        """length * direction / |direction|."""
        return direction * (length / self.norm(direction))
