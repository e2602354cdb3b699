"""Independent pixels: every position its own histogram. What a model has to beat to have learned anything."""

from __future__ import annotations

import numpy as np

CHUNK = 1000  # images that are looked at together


def independent_nats(train: np.ndarray, test: np.ndarray, levels: int) -> np.ndarray:
    """-log p of each test image in nats, (N,), under histograms of the training images' positions.

    Each level of each position is counted once more than it occurs (Laplace), so that nothing has probability zero.

    Args:
        train, test: integers 0 .. levels - 1, (N, C, H, W).
    """
    counts = np.stack([(train == level).sum(axis=0) for level in range(levels)]) + 1.0
    nats = np.log(counts.sum(axis=0)) - np.log(counts)  # (levels, C, H, W)
    chunks = (test[i : i + CHUNK].astype(np.int64) for i in range(0, len(test), CHUNK))
    return np.concatenate([np.take_along_axis(nats, chunk, axis=0).sum(axis=(1, 2, 3)) for chunk in chunks])
