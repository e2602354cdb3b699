"""Before the deep models: clusters, principal components and one-dimensional densities (lecture slides 9 to 12).

Small, in NumPy alone. They are what the learned models are held against: k-means finds classes without labels, PCA is
the best linear autoencoder, and a density of one variable is what a generative model is for many.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

# ------------------------------------------------------------------------------------------------- clusters, slide 10


class Clusters(NamedTuple):
    """What `kmeans` found: centres (k, D), the cluster of each row (N,), and the sum of squared distances."""

    centres: np.ndarray
    labels: np.ndarray
    inertia: float


def kmeans(x: np.ndarray, k: int, rng: np.random.Generator, iterations: int = 300) -> Clusters:
    """k clusters of the rows of x (N, D): each row belongs to the nearest centre, each centre is its rows' mean.

    Alternates the two until no row moves (Lloyd 1982), from centres that are drawn apart (k-means++, Arthur &
    Vassilvitskii 2007). An empty cluster keeps its centre. Raises ValueError unless 1 <= k <= N.
    """
    x = _rows(x)
    if not 1 <= k <= len(x):
        raise ValueError(f"kmeans: k must be from 1 to the {len(x)} rows of x, got {k}")
    squares = (x * x).sum(axis=1)
    centres = _spread(x, squares, k, rng)
    labels = np.full(len(x), -1)
    for _ in range(iterations):
        before, labels = labels, _distances(x, squares, centres).argmin(axis=1)
        if np.array_equal(labels, before):
            break
        members = labels == np.arange(k)[:, None]
        sizes = members.sum(axis=1, keepdims=True)
        centres = np.where(sizes > 0, members.astype(x.dtype) @ x / np.maximum(sizes, 1), centres)
    nearest = _distances(x, squares, centres)
    labels = nearest.argmin(axis=1)
    return Clusters(centres, labels, float(nearest.min(axis=1).sum()))


def _spread(x: np.ndarray, squares: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """k rows of x: the first at random, each other one in proportion to its squared distance from those before."""
    chosen = [int(rng.integers(len(x)))]
    nearest = np.full(len(x), np.inf)
    for _ in range(k - 1):
        nearest = np.minimum(nearest, _distances(x, squares, x[chosen[-1:]])[:, 0])
        total = nearest.cumsum(dtype=np.float64)
        chosen.append(min(int(np.searchsorted(total, rng.random() * total[-1], "right")), len(x) - 1))
    return x[chosen]


def _distances(x: np.ndarray, squares: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Squared distances (N, k)."""
    return np.maximum(squares[:, None] - 2 * x @ centres.T + (centres * centres).sum(axis=1), 0)


def purity(clusters: np.ndarray, classes: np.ndarray) -> float:
    """The share of items whose class is the commonest one of their cluster. Both: integers from 0, (N,)."""
    return float(_contingency(clusters, classes).max(axis=1).sum() / len(classes))


def mutual_information(clusters: np.ndarray, classes: np.ndarray) -> float:
    """Normalized mutual information: I(clusters, classes) over the mean of their entropies; 1 if they are the same."""
    joint = _contingency(clusters, classes) / len(classes)
    entropies = _entropy(joint.sum(axis=0)) + _entropy(joint.sum(axis=1))
    return float(2 * (entropies - _entropy(joint)) / entropies) if entropies else 1.0


def _contingency(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if len(a) != len(b) or not len(a):
        raise ValueError(f"clusters and classes must be of one length, at least 1, got {len(a)} and {len(b)}")
    counts = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(counts, (a, b), 1)
    return counts


def _entropy(p: np.ndarray) -> float:
    return float(-(p[p > 0] * np.log(p[p > 0])).sum())


# ------------------------------------------------------------------------------------- principal components, slide 11


class PCA:
    """The directions of the largest variance of the rows of x (N, D).

    Attributes:
        mean (D,); components (k, D), orthonormal, the largest first; variance (k,) along them;
        explained (k,): the share of all variance along the first 1, 2, ... k of them.

    Raises ValueError unless 1 <= components <= D and there are two rows.
    """

    def __init__(self, x: np.ndarray, components: int) -> None:
        x = _rows(x).astype(np.float64)
        if len(x) < 2 or not 1 <= components <= x.shape[1]:
            raise ValueError(f"PCA: components must be from 1 to {x.shape[1]} and x have 2 rows or more, "
                             f"got {components} of {x.shape}")  # fmt: skip
        self.mean = x.mean(axis=0)
        x = x - self.mean
        values, vectors = np.linalg.eigh(x.T @ x / (len(x) - 1))
        self.variance = np.maximum(values[::-1][:components], 0)
        self.components = vectors.T[::-1][:components]
        total = values.sum()
        self.explained = self.variance.cumsum() / total if total > 0 else np.ones(components)

    def encode(self, x: np.ndarray) -> np.ndarray:
        """Rows (N, D) as codes (N, k)."""
        return (_rows(x) - self.mean) @ self.components.T

    def decode(self, z: np.ndarray) -> np.ndarray:
        """Codes (N, k) as rows (N, D): the nearest ones, of all linear maps from k numbers, to what was encoded."""
        return z @ self.components + self.mean

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n rows drawn from the Gaussian of the codes, decoded: the generative model that is a PCA."""
        return self.decode(rng.standard_normal((n, len(self.components))) * np.sqrt(self.variance))


def _rows(x: np.ndarray) -> np.ndarray:
    """Images or rows as rows of floats."""
    x = np.asarray(x)
    x = x.reshape(len(x), -1)
    return x if x.dtype.kind == "f" else x.astype(np.float32)


# -------------------------------------------------------------------------------- densities of one variable, slide 12


class Histogram:
    """Equal bins over the data's range; the density is constant in each, and 0 outside. x: (N,)."""

    def __init__(self, x: np.ndarray, bins: int = 20) -> None:
        _check_values("Histogram", x, bins=bins)
        counts, self.edges = np.histogram(x, bins)
        self.heights = counts / (len(x) * np.diff(self.edges))

    def density(self, at: np.ndarray) -> np.ndarray:
        """p(x) at these places."""
        index = np.searchsorted(self.edges, at, "right") - 1
        index = np.where(at == self.edges[-1], len(self.heights) - 1, index)  # the last bin holds its right edge
        inside = (index >= 0) & (index < len(self.heights))
        return np.where(inside, self.heights[np.where(inside, index, 0)], 0.0)


class KernelDensity:
    """The mean of Gaussians around the data, x (N,). width: their deviation; None: Silverman's rule (1986)."""

    def __init__(self, x: np.ndarray, width: float | None = None) -> None:
        _check_values("KernelDensity", x)
        self.x = np.asarray(x, np.float64)
        if width is None:
            quartiles = np.subtract(*np.percentile(x, [75, 25])) / 1.349
            spread = min(s for s in (float(np.std(x)), quartiles, math.inf) if s > 0)
            width = 0.9 * spread * len(x) ** -0.2 if spread < math.inf else 1.0
        if not width > 0:
            raise ValueError(f"KernelDensity: width must be above 0, got {width}")
        self.width = width

    def density(self, at: np.ndarray) -> np.ndarray:
        """p(x) at these places."""
        return _normal(np.asarray(at, np.float64)[..., None], self.x, self.width).mean(axis=-1)


class GaussianMixture:
    """Several Gaussians, fitted by expectation maximization (Dempster, Laird & Rubin 1977). x: (N,).

    Attributes:
        weights, means, deviations: (components,). A deviation stays above a thousandth of the data's own, lest a
            component shrinks onto a single value, where the likelihood has no bound.
        log_likelihoods: the mean log p(x) before each step; it never falls.
    """

    def __init__(self, x: np.ndarray, components: int = 2, iterations: int = 200) -> None:
        _check_values("GaussianMixture", x, components=components, iterations=iterations)
        x = np.asarray(x, np.float64)
        least = max(float(x.std()) / 1000, 1e-12)
        self.means = np.quantile(x, (np.arange(components) + 0.5) / components)
        self.deviations = np.full(components, max(float(x.std()), least))
        self.weights = np.full(components, 1 / components)
        self.log_likelihoods: list[float] = []
        for _ in range(iterations):
            log_joint = self._log_joint(x)
            log_p = np.logaddexp.reduce(log_joint, axis=1, keepdims=True)
            share = np.exp(log_joint - log_p)  # E: how much each component is responsible for each value
            self.log_likelihoods.append(float(log_p.mean()))
            total = np.maximum(share.sum(axis=0), 1e-300)  # M: the components' own means and deviations
            self.weights = total / len(x)
            self.means = share.T @ x / total
            variances = (share * (x[:, None] - self.means) ** 2).sum(axis=0) / total
            self.deviations = np.maximum(np.sqrt(variances), least)

    def _log_joint(self, at: np.ndarray) -> np.ndarray:
        z = (np.asarray(at, np.float64)[..., None] - self.means) / self.deviations
        return np.log(self.weights) - np.log(self.deviations) - z * z / 2 - 0.5 * math.log(2 * math.pi)

    def density(self, at: np.ndarray) -> np.ndarray:
        """p(x) at these places."""
        return np.exp(np.logaddexp.reduce(self._log_joint(at), axis=-1))


def _normal(at: np.ndarray, mean: np.ndarray, deviation: float) -> np.ndarray:
    return np.exp(-(((at - mean) / deviation) ** 2) / 2) / (deviation * math.sqrt(2 * math.pi))


def _check_values(name: str, x: np.ndarray, **counts: int) -> None:
    if np.ndim(x) != 1 or not len(x) or not np.isfinite(x).all():
        raise ValueError(f"{name}: x must be (N,), finite, with N of at least 1, got shape {np.shape(x)}")
    for argument, count in counts.items():
        if count < 1:
            raise ValueError(f"{name}: {argument} must be at least 1, got {count}")
