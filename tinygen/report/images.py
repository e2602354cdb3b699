"""Pictures of images: grids as PNG files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from tinygen.metrics.metric import Plot

GAP, BACKGROUND = 6, 48  # pixels between images, and their grey: dark, but not the images' own black


def save_plot(path: Path, plot: Plot, levels: int) -> None:
    """Write a model's plot; `levels` are the model's."""
    save_grid(path, plot.images, plot.levels or levels, plot.columns)


def save_grid(path: Path, images: np.ndarray, levels: int, columns: int | None = None, side: int = 512) -> None:
    """Write images (N, C, H, W), integers 0 .. levels - 1, as one grid in a PNG about `side` pixels wide.

    Each pixel of an image becomes a square of whole pixels, so that nothing is smoothed. C is 1 (grey) or 3 (RGB).
    Needs Pillow. Raises ValueError for images that can't be shown.
    """
    from PIL import Image

    if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.size:
        raise ValueError(f"images must be (N, 1 or 3, H, W) with no size 0 to be shown, got {images.shape}")
    n, channels, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    scale = max(1, round((side / columns - GAP) / width))
    high, wide = height * scale + GAP, width * scale + GAP
    grid = np.full((math.ceil(n / columns) * high + GAP, columns * wide + GAP, channels), BACKGROUND, np.uint8)
    values = np.round(images * (255 / (levels - 1))).astype(np.uint8).transpose(0, 2, 3, 1)
    for i, image in enumerate(values.repeat(scale, axis=1).repeat(scale, axis=2)):
        top, left = i // columns * high + GAP, i % columns * wide + GAP
        grid[top : top + high - GAP, left : left + wide - GAP] = image
    Image.fromarray(grid[:, :, 0] if channels == 1 else grid).save(path, format="PNG")
