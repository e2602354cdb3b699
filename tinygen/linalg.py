"""Linear algebra under torch.linalg's names. All can be differentiated, any number of times."""

from __future__ import annotations

from typing import Any, NamedTuple

from tinygen import ops
from tinygen.ops import matrices
from tinygen.ops.norms import linalg_norm as norm
from tinygen.ops.norms import matrix_norm, vector_norm

__all__ = ["Determinant", "cholesky", "det", "inv", "matrix_norm", "norm", "slogdet", "solve", "vector_norm"]

inv, cholesky = matrices.inverse, matrices.cholesky


class Determinant(NamedTuple):
    """Of matrices (..., N, N): the sign, and the logarithm of the absolute value, both (...)."""

    sign: Any
    logabsdet: Any


def slogdet(A: Any) -> Determinant:
    """Sign and logarithm of the absolute value of determinants: (..., N, N) -> (sign, logabsdet), both (...)."""
    return Determinant(*matrices.slogdet(A))


def det(A: Any) -> Any:
    """Determinants: (..., N, N) -> (...). Its gradient needs an inverse: ValueError for a singular matrix."""
    sign, logabsdet = matrices.slogdet(A)
    return ops.mul(sign, ops.exp(logabsdet))


def solve(A: Any, B: Any, *, left: bool = True) -> Any:
    """The X for which A @ X = B, or with left=False X @ A = B.

    A: (..., N, N). B: (..., N, K), with left=False (..., K, N); or vectors, (N,) or of A's shape without the last axis.
    Raises ValueError for a singular A.
    """
    if len(A.shape) < 2 or A.shape[-1] != A.shape[-2]:
        raise ValueError(f"solve: A must be square matrices (..., N, N), got shape {A.shape}")
    if len(B.shape) == 1 or B.shape == A.shape[:-1]:
        shape = (*B.shape, 1) if left else (*B.shape[:-1], 1, B.shape[-1])
        x = solve(A, ops.reshape(B, shape), left=left)
        return ops.reshape(x, (*x.shape[:-2], A.shape[-1]))
    if left:
        return matrices.solve(A, B)
    return ops.transpose(matrices.solve(ops.transpose(A, -1, -2), ops.transpose(B, -1, -2)), -1, -2)
