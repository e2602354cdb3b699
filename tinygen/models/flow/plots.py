"""Plots of flows, `tinygen plot RUN NAME`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygen.data import Dataset
from tinygen.metrics.metric import ImageGrid, Plot
from tinygen.models.interpolation import interpolation

TEMPERATURES = 1.0, 0.85, 0.7, 0.5


def temperatures(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """Samples at falling temperatures, of the same draws of z: likelier, and more alike."""
    z = model.codes(10, rng)
    images = model.inverse(np.concatenate([t * z for t in TEMPERATURES]))
    rows = [f"{t:g}" for t in TEMPERATURES]
    return ImageGrid(images, len(z), "Samples, z from the prior times the temperature", None, rows,
                     axes=("temperature", ""))  # fmt: skip


PLOTS = {"temperatures": temperatures, "interpolate": interpolation}
