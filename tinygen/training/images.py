"""Pictures of images: grids as PNG files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np


def save_grid(path: Path, images: np.ndarray, levels: int, columns: int | None = None, side: int = 640) -> None:
    """Write images (N, C, H, W), integers 0 .. levels - 1, as one grid, about `side` pixels wide.

    Grey images (C = 1) and colour images (C = 3) keep what they are; needs Pillow.
    """
    from PIL import Image

    n, channels, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    grid = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, channels), 127, np.uint8)  # grey lines between
    values = np.round(images * (255 / (levels - 1))).astype(np.uint8).transpose(0, 2, 3, 1)
    for i, image in enumerate(values):
        top, left = (i // columns) * (height + 1) + 1, (i % columns) * (width + 1) + 1
        grid[top : top + height, left : left + width] = image
    scale = max(1, side // grid.shape[1])
    large = grid.repeat(scale, axis=0).repeat(scale, axis=1)
    Image.fromarray(large[:, :, 0] if channels == 1 else large).save(path)
