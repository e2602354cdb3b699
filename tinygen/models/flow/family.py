"""How flows are measured and shown: bounds of the likelihood, and how likely what they draw is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from tinygen.baselines.independent import independent_nats
from tinygen.data import Dataset
from tinygen.metrics.metric import Metric, mean_and_error
from tinygen.models.family import Batch, Family, PlotOf
from tinygen.models.flow import plots


class FlowFamily(Family):
    """Of the models of base.py."""

    validation_unit = "bits/dim"
    units: ClassVar[Mapping[str, str]] = {"nats": "nats an image"}
    plots: ClassVar[Mapping[str, PlotOf]] = plots.PLOTS

    def progress(self, model: Any, parts: dict[str, float]) -> str:
        norm = f"  gradient norm {parts['gradient_norm']:.1f}" if "gradient_norm" in parts else ""
        return f"{model.bits_per_dim(parts['nats']):.3f} bits/dim{norm}"

    def baselines(self, model: Any, train: Dataset, test: Dataset) -> dict[str, float]:
        """The bits/dim of independent pixels."""
        nats = independent_nats(train.images, test.images, model.levels)
        return {"independent pixels": model.bits_per_dim(float(nats.mean()))}

    def validation(self, model: Any, batch: Batch, rng: np.random.Generator) -> float:
        """Bits per dimension, at most: see `metrics`."""
        return model.bits_per_dim(-float(model.log_prob(batch.images).mean()))

    def likelihood(self, model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Metric:
        return FlowFamily.metrics(self, model, train, test, rng)[0]

    def metrics(self, model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> list[Metric]:
        """The test likelihood in bits/dim and in nats, with the standard error of the mean over images.

        It is a bound: what is needed with dequantization is at least what the pixels themselves would need.
        """
        mean, error = mean_and_error(-model.log_prob(test.images))
        baselines, scale = self.baselines(model, train, test), model.bits_per_dim(1.0)
        return [
            Metric("test, at most", mean * scale, "bits/dim", error * scale, baselines, True),
            Metric("test, at most", mean, "nats an image", error, {k: v / scale for k, v in baselines.items()}, True),
        ]
