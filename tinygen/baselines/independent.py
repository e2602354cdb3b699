"""Independent pixels: every position its own histogram. What a model has to beat to have learned anything."""

from __future__ import annotations

import numpy as np


def independent_nats(train: np.ndarray, test: np.ndarray, levels: int) -> np.ndarray:
    """-log p of each test image in nats, (N,), under histograms of the training images' positions.

    Each level of each position is counted once more than it occurs (Laplace), so that nothing has probability zero.

    Args:
        train, test: integers 0 .. levels - 1, (N, C, H, W).
    """
    counts = np.stack([(train == level).sum(axis=0) for level in range(levels)]) + 1.0
    nats = np.log(counts.sum(axis=0)) - np.log(counts)  # (levels, C, H, W)
    return np.take_along_axis(nats, test.astype(np.int64), axis=0).sum(axis=(1, 2, 3))
