"""Distances between two sets of feature vectors: Frechet, precision and recall; and how near images are to others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

ROWS = 500  # of a table of distances at once


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The Frechet distance of the Gaussians with the means and covariances of a (N, F) and b (M, F), squared.

        |mean_a - mean_b|^2 + tr(A) + tr(B) - 2 tr((A B)^(1/2))

    AB has the eigenvalues of A^(1/2) B A^(1/2), which is symmetric. Source: Dowson & Landau (1982); for images
    Heusel et al. (2017), equation 6.

    Raises ValueError for fewer than 2 vectors.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"frechet_distance: takes at least 2 vectors of each, got {len(a)} and {len(b)}")
    difference = a.mean(0, np.float64) - b.mean(0, np.float64)
    cov_a, cov_b = (np.atleast_2d(np.cov(x.T)) for x in (a, b))
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_b @ root), 0)).sum()
    return float(difference @ difference + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def precision_recall(real: np.ndarray, fake: np.ndarray, k: int = 3) -> tuple[float, float]:
    """(precision, recall) of fake (M, F) against real (N, F), both from 0 to 1.

    A set's manifold is all that is no farther from one of its members than the member's k-th neighbor. Precision: the
    share of fake on real's manifold; recall: the share of real on fake's. Source: Kynkaanniemi et al. (2019).

    Raises ValueError for sets of fewer than k + 1 vectors.
    """
    if min(len(real), len(fake)) <= k:
        raise ValueError(f"precision_recall: takes more than {k} vectors of each, got {len(real)} and {len(fake)}")
    return _covered(real, fake, k), _covered(fake, real, k)


def _covered(members: np.ndarray, points: np.ndarray, k: int) -> float:
    """The share of points within some member's distance to its k-th neighbor (itself not counted)."""
    radii = np.concatenate([np.partition(d, k, axis=1)[:, k] for d in _tables(members, members)])
    return float(np.mean(np.concatenate([(d <= radii).any(axis=1) for d in _tables(points, members)])))


def auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    """The area under the ROC curve of scores (N,) and (M,): how often a positive's is higher; equal ones count half.

    Source: Mann & Whitney (1947).
    """
    order = np.sort(negative)
    lower, equal = np.searchsorted(order, positive, "left"), np.searchsorted(order, positive, "right")
    return float((lower + equal).mean() / (2 * len(negative)))


def nearest(points: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of points (N, F) the nearest of among (M, F): its index (N,), and the distance (N,)."""
    index = np.concatenate([d.argmin(axis=1) for d in _tables(points, among)])
    return index, np.linalg.norm(points - among[index].astype(np.float64), axis=1)


def _tables(a: np.ndarray, b: np.ndarray) -> Iterator[np.ndarray]:
    """Squared distances of a's rows to all of b's, some rows at a time, float32."""
    center = b.mean(axis=0)  # about which they are measured, so that little is lost in the difference below
    a, b = (np.asarray(x - center, np.float32) for x in (a, b))
    squares = (b**2).sum(axis=1)
    for i in range(0, len(a), ROWS):
        rows = a[i : i + ROWS]
        yield np.maximum((rows**2).sum(axis=1)[:, None] + squares - 2 * (rows @ b.T), 0)
