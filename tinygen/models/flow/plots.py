"""Plots of flows, `tinygen plot RUN NAME`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygen.data import Dataset
from tinygen.metrics.metric import Chart, ImageGrid, Plot
from tinygen.models.interpolation import interpolation

TEMPERATURES = 1.0, 0.85, 0.7, 0.5
COMPARED = 500  # images of each kind in the histogram


def temperatures(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """Samples at falling temperatures, of the same draws of z: likelier, and more alike."""
    z = model.codes(10, rng)
    images = model.inverse(np.concatenate([t * z for t in TEMPERATURES]))
    rows = [f"{t:g}" for t in TEMPERATURES]
    return ImageGrid(images, len(z), "Samples, z from the prior times the temperature", None, rows,
                     axes=("temperature", ""))  # fmt: skip


def typicality(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """The likelihoods of training images, test images and samples as histograms.

    What a model draws is as likely as what it was trained on if it has learned its density; that an image is likely
    doesn't make it typical (Nalisnick et al., Detecting out-of-distribution inputs using typicality, 2019).
    """
    n = min(COMPARED, len(test), len(train))
    kinds = {"training images": train.images[:n], "test images": test.images[:n], "samples": model.sample(n, rng)}
    found = {name: model.bits_per_dim(1.0) * -model.log_prob(images) for name, images in kinds.items()}
    low, high = np.percentile(np.concatenate(list(found.values())), [0.5, 99.5])
    bins = np.linspace(low, high, 40)

    def draw(axes: Any) -> None:
        for i, (name, bits) in enumerate(found.items()):
            axes.hist(np.clip(bits, bins[0], bins[-1]), bins, histtype="step", linewidth=2, color=f"C{i}",
                      label=f"{name} (mean {bits.mean():.3f})")  # fmt: skip
        axes.set(xlabel="-log p(x), bits/dim", ylabel="images")
        axes.legend()

    return Chart(draw, f"How likely {n:,} training images, test images and samples are")


PLOTS = {"temperatures": temperatures, "interpolate": interpolation, "typicality": typicality}
