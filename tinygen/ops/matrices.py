"""Square matrices (..., N, N): inverses, linear equations, determinants, Cholesky factors, by LAPACK.

What is singular, or not positive definite, raises on the CPU, but not on the GPU, where to ask would be to wait.
"""

from __future__ import annotations

import numpy as np

from tinygen.array import xp
from tinygen.ops._samples import normal, sample
from tinygen.ops.linalg import matmul
from tinygen.ops.reduce import sum
from tinygen.ops.shape import reshape, transpose, tril, triu
from tinygen.tape import op


@op
def inverse(x):
    """The inverses of matrices (..., N, N). Raises ValueError for a singular one."""
    return xp(x).linalg.inv(x)


@inverse.vjp("x")
def _(gout, out):
    turned = transpose(out, -1, -2)
    return -matmul(matmul(turned, gout), turned)


@op
def solve(A, B):
    """The X for which A @ X = B. A: (..., N, N), B: (..., N, K) -> (..., N, K). ValueError for a singular A."""
    lead = np.broadcast_shapes(A.shape[:-2], B.shape[:-2])  # CuPy's doesn't broadcast
    A, B = (xp(A).broadcast_to(x, (*lead, *x.shape[-2:])) for x in (A, B))
    return xp(A).linalg.solve(A, B)


@solve.vjp("A")
def _(gout, A, out):
    return -matmul(solve(transpose(A, -1, -2), gout), transpose(out, -1, -2))


@solve.vjp("B")
def _(gout, A):
    return solve(transpose(A, -1, -2), gout)


@op(outputs=("sign", "logabsdet"))
def slogdet(x):
    """The determinants' signs, and the logarithms of their absolute values: (..., N, N) -> two of shape (...)."""
    return tuple(map(xp(x).asarray, xp(x).linalg.slogdet(x)))


@slogdet.vjp("x")
def _(glogabsdet, x):
    if glogabsdet is None:
        return None
    return reshape(glogabsdet, (*glogabsdet.shape, 1, 1)) * transpose(inverse(x), -1, -2)


@op
def cholesky(x, upper: bool = False):
    """The lower triangular L for which L @ L.T = x, or with `upper` its transpose. x: (..., N, N), positive definite.

    x should be symmetric; of another its symmetric part (x + x.T) / 2 is taken. ValueError if it isn't positive.
    """
    factor = xp(x).linalg.cholesky((x + x.swapaxes(-1, -2)) * x.dtype.type(0.5))
    return factor.swapaxes(-1, -2).copy() if upper else factor


@cholesky.vjp("x")
def _(gout, out, upper):
    """L.T @ gout, its lower half made symmetric, between L's inverses."""
    factor, g = (transpose(out, -1, -2), transpose(gout, -1, -2)) if upper else (out, gout)
    half = tril(matmul(transpose(factor, -1, -2), g))
    both = (half + transpose(tril(half, -1), -1, -2)) * 0.5
    turned = transpose(factor, -1, -2)
    left = solve(turned, both)
    return transpose(solve(turned, transpose(left, -1, -2)), -1, -2)


@op
def plu_product(p, lower, upper, diagonal):
    """P L U of matrices (N, N) and a vector (N,): L has ones on its diagonal, what `lower` has below it; U `diagonal`
    on it, what `upper` has above it.

    Accuracy: 16 ulps of the largest of the sums' terms, added up without their signs.

    Source: Kingma & Dhariwal, Glow (2018), equation 10.
    """
    low, high = _triangles(lower, upper, diagonal)
    return p @ (low @ high)


@plu_product.vjp("p", "lower", "upper", "diagonal")
def _(gout, p, lower, upper, diagonal):
    low, high = _triangles(lower, upper, diagonal)
    g = matmul(transpose(p, 0, 1), gout)
    ghigh = matmul(transpose(low, 0, 1), g)
    gp = matmul(gout, transpose(matmul(low, high), 0, 1))
    return gp, tril(matmul(g, transpose(high, 0, 1)), -1), triu(ghigh, 1), sum(ghigh * _one(diagonal), 0)


def _triangles(lower, upper, diagonal):
    """L and U."""
    one = _one(diagonal)
    return tril(lower, -1) + one, triu(upper, 1) + one * diagonal


def _one(diagonal):
    """The unit matrix of its size, an array."""
    array = getattr(diagonal, "_array", diagonal)
    return xp(array).eye(len(array), dtype=array.dtype)


# ---------------------------------------------------------------------------------------------- what they are tested on


def _matrices(rng, *shape):
    """Near the unit matrix, so that they are far from singular."""
    return normal(rng, *shape) * 0.3 + 2 * np.eye(shape[-1])


@inverse.samples
@slogdet.samples
def _(rng):
    yield sample(_matrices(rng, 3, 3))
    yield sample(-_matrices(rng, 2, 1, 1))
    yield sample(_matrices(rng, 2, 2, 2))


@solve.samples
def _(rng):
    yield sample(_matrices(rng, 3, 3), normal(rng, 3, 2))
    yield sample(_matrices(rng, 2, 3, 3), normal(rng, 3, 1))
    yield sample(_matrices(rng, 2, 2), normal(rng, 3, 2, 2))


@cholesky.samples
def _(rng):
    for shape in ((3, 3), (2, 2, 2)):
        x = _matrices(rng, *shape)
        yield sample(x @ x.swapaxes(-1, -2))
        yield sample(x @ x.swapaxes(-1, -2), True)


@plu_product.samples
def _(rng):
    for n in (1, 3):
        yield sample(np.eye(n)[rng.permutation(n)], normal(rng, n, n), normal(rng, n, n), normal(rng, n))
