"""Which images are held out: drawn from a fixed seed, in proportion to the classes."""

from __future__ import annotations

import numpy as np

SEED = 0  # the same images are held out whatever the seed of a training


def held_out(count: int, total: int, labels: np.ndarray | None = None, seed: int = SEED) -> np.ndarray:
    """Which `count` of `total` images are held out: a mask (total,), always the same one for a seed.

    labels: integers (total,): each class gives in proportion to its size, rounded up or down. Every class keeps an
    image at least, and gives one at least if it has two and `count` suffices. So fewer than `count` are held out where
    there are too many classes of one image; where all images are such, the labels are left aside.
    """
    rng = np.random.default_rng(seed)
    labels = np.zeros(total, np.int8) if labels is None else labels
    sizes = np.unique(labels, return_counts=True)[1]
    if len(sizes) == total:
        labels, sizes = np.zeros(total, np.int8), np.array([total])
    by_class = np.argsort(labels, kind="stable")
    mask, start = np.zeros(total, bool), 0
    for size, taken in zip(sizes, _shares(min(count, total - len(sizes)), sizes, rng), strict=True):
        mask[by_class[start + rng.choice(size, taken, replace=False)]] = True
        start += size
    return mask


def _shares(count: int, sizes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How many of each class are held out, `count` in all: at most all but one, and the shares as alike as can be."""

    def taken(share: float) -> np.ndarray:
        return np.minimum(np.ceil(share * sizes).astype(int), sizes - 1)

    low, high = 0.0, 1.0  # the largest share for which no more than `count` are taken
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if taken(middle).sum() <= count else (low, middle)
    counts = taken(low)
    order = rng.permutation(len(sizes))  # where all can't get one more, chance decides among those of the least share
    least = np.where(counts < sizes - 1, counts / sizes, np.inf)[order]
    counts[order[np.argsort(least, kind="stable")[: count - counts.sum()]]] += 1
    return counts
