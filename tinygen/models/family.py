"""How the members of a family are measured and shown.

A model computes; its family says what its numbers mean: what is shown while it trains, which trivial models it is held
against, its test metrics, its plots. `Model.family` names it; the training loop, the run folder and the command line
ask it. What only some models can do, whatever their family, is a protocol of `tinygen.models.model`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import numpy as np

from tinygen.data import Dataset
from tinygen.metrics.metric import ImageGrid, Metric, Plot


class Batch(NamedTuple):
    """Some images of a data set.

    images: (N, C, H, W) uint8, 0 .. levels - 1. labels: what the model is told of them: classes (N,) int64, or vectors
    (N, K), or None. target: what a model from images to images is to make of them, or None.
    """

    images: np.ndarray
    labels: np.ndarray | None = None
    target: np.ndarray | None = None


PlotOf = Callable[[Any, Dataset, Dataset, np.random.Generator], Plot]  # of (model, train, test, rng)


class Family:
    """A family of which nothing is known but the loss. Others derive from it and override what they know better.

    Attributes:
        validation_unit: the unit of `validation`; empty for a family that isn't validated: it trains on all images.
        units: of the numbers that its models give in training, by name, where they have one.
        plots: functions of (model, train, test, rng) by name, for `tinygen plot RUN NAME`. The first line of a
            function's docstring is its help.
    """

    validation_unit = ""
    units: ClassVar[Mapping[str, str]] = MappingProxyType({})
    plots: ClassVar[Mapping[str, PlotOf]] = MappingProxyType({})

    def progress(self, model: Any, parts: dict[str, float]) -> str:
        """The text shown while a model trains, of a step's numbers averaged over the last steps."""
        return f"{sum(parts.values()):.2f} nats"

    def diagnostics(self, model: Any, parts: dict[str, float]) -> list[str]:
        """The faults of the training, in words ("WHAT: why, and what to try"), of the numbers as for `progress`.

        Asked every now and then; what wasn't wrong before is printed, logged and stands in the report.
        """
        return []

    def baselines(self, model: Any, train: Dataset, test: Dataset) -> dict[str, float]:
        """The numbers that trivial models reach on the test set, by name, in the unit of `progress` and `metrics`."""
        return {}

    def validation(self, model: Any, batch: Batch, rng: np.random.Generator) -> float:
        """How good a model is on images that it isn't trained on; lower is better. The best checkpoint has the least.

        Called in evaluation mode with all held-out images at once, if the family has a `validation_unit`.
        """
        raise NotImplementedError(f"{type(self).__name__} doesn't define validation()")

    def metrics(self, model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> list[Metric]:
        """The test metrics, after training and by `tinygen evaluate`. Called in evaluation mode."""
        return []

    def likelihood(self, model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Metric | None:
        """-log p of the test set in bits/dim, as exact as the model's `evidence` says; None where it says "none"."""
        return None

    def snapshot(self, model: Any, batch: Batch, rng: np.random.Generator) -> Plot:
        """A plot drawn while it trains: as many samples as the batch has images, or what the model makes of those."""
        return ImageGrid(model.sample(len(batch.images), rng))
