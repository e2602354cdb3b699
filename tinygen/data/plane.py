"""Densities in the plane, where everything can be seen: points of them, for models of points.

Eight Gaussians on a circle, on which GANs lose modes (Metz et al., Unrolled GANs, 2017, section 3.1), and the swiss
roll, as in Gulrajani et al. (2017), figure 1b.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

RADIUS, DEVIATION = 2.0, 0.1  # of the circle, and of each Gaussian


def centers() -> np.ndarray:
    """The eight modes, (8, 2)."""
    angles = np.arange(8) * math.pi / 4
    return RADIUS * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def eight_gaussians(n: int, rng: np.random.Generator) -> np.ndarray:
    """n points, (n, 2) float32, of eight Gaussians of deviation 0.1 on a circle of radius 2."""
    points = centers()[rng.integers(0, 8, n)] + DEVIATION * rng.standard_normal((n, 2))
    return points.astype(np.float32)


def eight_gaussians_nats(points: np.ndarray) -> np.ndarray:
    """-log of the density of the eight Gaussians at points (N, 2), in nats, (N,). On average over its own: 0.312."""
    squares = ((points[:, None] - centers()) ** 2).sum(2) / (2 * DEVIATION**2)
    return math.log(8 * 2 * math.pi * DEVIATION**2) - np.logaddexp.reduce(-squares, axis=1)


def swiss_roll(n: int, rng: np.random.Generator) -> np.ndarray:
    """n points, (n, 2) float32, along a spiral of one and a half turns that ends at a distance of 2."""
    t = 1.5 * math.pi * (1 + 2 * rng.random(n))
    points = 2 * t[:, None] / (4.5 * math.pi) * np.stack([np.cos(t), np.sin(t)], axis=1)
    return (points + 0.05 * rng.standard_normal((n, 2))).astype(np.float32)


DENSITIES: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "eight-gaussians": eight_gaussians, "swiss-roll": swiss_roll,
}  # fmt: skip


def modes_and_good(points: np.ndarray, least: float = 0.01) -> tuple[int, float]:
    """Of points (N, 2): how many of the eight modes have at least 1 % of them, and the share that is good.

    Good: within 3 standard deviations of a mode, as 98.9 % of the density's own points are.
    """
    distances = np.linalg.norm(points[:, None] - centers(), axis=2)
    good = distances.min(axis=1) < 3 * DEVIATION
    counts = np.bincount(distances.argmin(axis=1)[good], minlength=8)
    return int((counts >= least * len(points)).sum()), float(good.mean())
