"""Pixel values: whole numbers 0 .. levels - 1, which networks see as numbers from -1 to 1."""

from __future__ import annotations

from typing import Any, Self

import numpy as np


class Levels(int):
    """How many values a pixel can take, 2 to 256, and the way between those values and numbers from -1 to 1.

    Raises ValueError for fewer than 2 or more than 256.
    """

    def __new__(cls, count: int) -> Self:
        if not 2 <= count <= 256:
            raise ValueError(f"levels must be from 2 to 256, got {count}")
        return super().__new__(cls, count)

    def scale(self, values: Any) -> Any:
        """Values 0 .. levels - 1, of any shape, as numbers from -1 to 1, float64."""
        return values * (2 / (self - 1)) - 1

    def unscale(self, x: np.ndarray) -> np.ndarray:
        """Numbers as values between 0 and levels - 1, not rounded; what lies beyond -1 and 1 goes to the ends."""
        return np.clip((x + 1) / 2, 0, 1) * (self - 1)

    def round(self, x: np.ndarray) -> np.ndarray:
        """Numbers as the nearest values 0 .. levels - 1, uint8."""
        return np.clip(np.round((x + 1) / 2 * (self - 1)), 0, self - 1).astype(np.uint8)

    def to_gray(self, values: Any) -> np.ndarray:
        """Values 0 .. levels - 1, also such between them, as gray values 0 .. 255, uint8."""
        return np.round(np.asarray(values, np.float64) * (255 / (self - 1))).astype(np.uint8)
