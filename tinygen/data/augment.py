"""Augmentation: images changed by chance, such that what they show stays the same."""

from __future__ import annotations

import numpy as np

LEAST = 0.5  # of a height and a width that a crop keeps
DARKEST = 0.4  # what the values are multiplied by, at least


def view(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random view of each image (N, C, H, W) uint8, of the same shape, NHWC in memory.

    A part is cut out, each side from half of the image's to all of it, and stretched to the image's size; half of the
    views are mirrored; the values of each channel are multiplied by a number from .4 to 1 of its own.

    Source: Chen et al., A simple framework for contrastive learning of visual representations (2020), appendix A; that
    blurs, too, and distorts colors more.
    """
    n, channels, height, width = images.shape
    part = rng.uniform(LEAST, 1, (2, n, 1))
    start = rng.uniform(0, 1 - part)
    rows, columns = (((s + p * (np.arange(k) + 0.5) / k) * k).astype(int)  # the nearest pixels
                     for s, p, k in zip(start, part, (height, width), strict=True))  # fmt: skip
    mirrored = rng.random((n, 1)) < 0.5
    columns = np.where(mirrored, columns[:, ::-1], columns)
    chosen = images[np.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]]  # (N, H, W, C)
    chosen = np.round(chosen * rng.uniform(DARKEST, 1, (n, 1, 1, channels)).astype(np.float32))
    return chosen.astype(np.uint8).transpose(0, 3, 1, 2)
