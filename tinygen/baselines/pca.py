"""Principal components: the best linear autoencoder (lecture slide 11)."""

from __future__ import annotations

import numpy as np


def rows(x: np.ndarray) -> np.ndarray:
    """Images or rows as rows of floats."""
    x = np.asarray(x)
    x = x.reshape(len(x), -1)
    return x if x.dtype.kind == "f" else x.astype(np.float32)


class PCA:
    """The directions of the largest variance of the rows of x (N, D).

    Attributes:
        mean (D,); components (k, D), orthonormal, the largest first; variance (k,) along them;
        explained (k,): the share of all variance along the first 1, 2, ... k of them.

    Raises ValueError unless 1 <= components <= D and there are two rows.
    """

    def __init__(self, x: np.ndarray, components: int) -> None:
        x = rows(x).astype(np.float64)
        if len(x) < 2 or not 1 <= components <= x.shape[1]:
            raise ValueError(f"PCA: components must be from 1 to {x.shape[1]} and x have 2 rows or more, "
                             f"got {components} of {x.shape}")  # fmt: skip
        self.mean = x.mean(axis=0)
        x -= self.mean  # in place: x is a copy
        if components <= len(x) < x.shape[1]:  # no matrix of D x D
            _, lengths, vectors = np.linalg.svd(x, full_matrices=False)
            values = lengths**2 / (len(x) - 1)
        else:
            values, vectors = np.linalg.eigh(x.T @ x / (len(x) - 1))
            values, vectors = np.maximum(values[::-1], 0), vectors.T[::-1]
        self.variance, self.components, total = values[:components], vectors[:components], values.sum()
        self.explained = self.variance.cumsum() / total if total > 0 else np.ones(components)

    def encode(self, x: np.ndarray) -> np.ndarray:
        """Rows (N, D) as codes (N, k)."""
        return (rows(x) - self.mean) @ self.components.T

    def decode(self, z: np.ndarray) -> np.ndarray:
        """Codes (N, k) as rows (N, D): the nearest ones, of all linear maps from k numbers, to what was encoded."""
        return z @ self.components + self.mean

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n rows drawn from the Gaussian of the codes, decoded: the generative model that is a PCA."""
        return self.decode(rng.standard_normal((n, len(self.components))) * np.sqrt(self.variance))
