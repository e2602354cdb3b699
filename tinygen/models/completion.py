"""Images completed from their upper halves (lecture slide 8): for every model that completes."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygen.data import Dataset
from tinygen.metrics.metric import ImageGrid, Plot

UNKNOWN = 96  # the gray of pixels that are to be drawn


def completions(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """draw test images, their upper halves, and below them four ways in which the model goes on (lecture slide 8)"""
    n, ways, known = min(8, len(test)), 4, model.image_shape[1] // 2
    images, labels = test.images[:n], model.condition.used(None if test.labels is None else test.labels[:n])
    upper = np.tile(images, (ways, 1, 1, 1))
    completed = model.complete(upper, known, rng, labels=None if labels is None else np.tile(labels, ways))
    gray = model.levels.to_gray(np.concatenate([images, images, completed]))
    gray[n : 2 * n, :, known:] = UNKNOWN
    names = ["test image", "known half", *(f"completion {i + 1}" for i in range(ways))]
    return ImageGrid(gray, n, "Test images, and four completions of their upper halves", 256, names)
