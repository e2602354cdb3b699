"""Softmax regression: classes from a linear function of features, which shows what the features tell of them."""

from __future__ import annotations

import numpy as np

from tinygen.baselines.pca import rows

STEPS, SMALL = 5000, 1e-5  # at most so many; the gradient's largest entry at which the minimum is reached


class SoftmaxRegression:
    """p(class | x) = softmax(W x + b), where the mean cross-entropy + l2 / 2 (|W|^2 + |b|^2) is at its minimum.

    There is only one minimum, so nothing is drawn and nothing is left to a learning rate. It is found by Nesterov's
    accelerated descent, whose rates follow from the largest and the least curvature (Nesterov, Introductory lectures
    on convex optimization, 2004, section 2.2).

    Args:
        x: features (N, F), or images.
        labels: (N,) integers below `classes`.
        l2: how much large weights cost, above 0.

    Attributes:
        weight: (F + 1, classes) float64; the last row is b.

    Raises ValueError for lengths that differ or are 0, and an l2 of 0 or less.
    """

    def __init__(self, x: np.ndarray, labels: np.ndarray, classes: int, l2: float) -> None:
        if len(x) != len(labels) or not len(x) or not l2 > 0:
            raise ValueError("SoftmaxRegression: x and labels must be of one length of at least 1, and l2 above 0, got "
                             f"{len(x)}, {len(labels)} and {l2}")  # fmt: skip
        x, wanted = with_one(x), np.eye(classes)[labels]
        most = float(np.linalg.norm(x, 2)) ** 2 / len(x) / 2 + l2  # of the curvature; softmax's is 1/2 at most
        momentum = (np.sqrt(most) - np.sqrt(l2)) / (np.sqrt(most) + np.sqrt(l2))
        self.weight = ahead = np.zeros((x.shape[1], classes))
        for _ in range(STEPS):
            slope = x.T @ (softmax(x @ ahead) - wanted) / len(x) + l2 * ahead
            before, self.weight = self.weight, ahead - slope / most
            if np.abs(slope).max() < SMALL:
                break
            ahead = self.weight + momentum * (self.weight - before)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The probabilities of the classes, (N, classes) float64."""
        return softmax(with_one(x) @ self.weight)


def with_one(x: np.ndarray) -> np.ndarray:
    """Rows (N, F) float64 with a 1 behind each."""
    x = rows(x).astype(np.float64)
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)
