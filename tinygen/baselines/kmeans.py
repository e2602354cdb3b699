"""k-means: classes found without labels (lecture slide 10), and how well they agree with the labels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tinygen.baselines.pca import rows


class Clusters(NamedTuple):
    """The result of `kmeans`: centers (k, D), the cluster of each row (N,), and the sum of squared distances."""

    centers: np.ndarray
    labels: np.ndarray
    inertia: float


def kmeans(x: np.ndarray, k: int, rng: np.random.Generator, iterations: int = 300) -> Clusters:
    """k clusters of the rows of x (N, D): each row belongs to the nearest center, each center is its rows' mean.

    Alternates the two until no row moves (Lloyd 1982), from centers that are drawn apart (k-means++, Arthur &
    Vassilvitskii 2007). An empty cluster keeps its center. Raises ValueError unless 1 <= k <= N.
    """
    x = rows(x)
    if not 1 <= k <= len(x):
        raise ValueError(f"kmeans: k must be from 1 to the {len(x)} rows of x, got {k}")
    squares = (x * x).sum(axis=1)
    centers = _spread(x, squares, k, rng)
    labels = np.full(len(x), -1)
    for _ in range(iterations):
        before, labels = labels, _distances(x, squares, centers).argmin(axis=1)
        if np.array_equal(labels, before):
            break
        members = labels == np.arange(k)[:, None]
        sizes = members.sum(axis=1, keepdims=True)
        centers = np.where(sizes > 0, members.astype(x.dtype) @ x / np.maximum(sizes, 1), centers)
    nearest = _distances(x, squares, centers)
    labels = nearest.argmin(axis=1)
    return Clusters(centers, labels, float(nearest.min(axis=1).sum()))


def _spread(x: np.ndarray, squares: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """k rows of x: the first at random, each other one in proportion to its squared distance from those before."""
    chosen = [int(rng.integers(len(x)))]
    nearest = np.full(len(x), np.inf)
    for _ in range(k - 1):
        nearest = np.minimum(nearest, _distances(x, squares, x[chosen[-1:]])[:, 0])
        total = nearest.cumsum(dtype=np.float64)
        chosen.append(min(int(np.searchsorted(total, rng.random() * total[-1], "right")), len(x) - 1))
    return x[chosen]


def _distances(x: np.ndarray, squares: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Squared distances (N, k)."""
    return np.maximum(squares[:, None] - 2 * x @ centers.T + (centers * centers).sum(axis=1), 0)


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
