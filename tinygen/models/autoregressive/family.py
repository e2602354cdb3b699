"""How autoregressive models are measured and shown: exact likelihoods, and completions of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from tinygen.baselines.independent import independent_nats
from tinygen.data import Dataset
from tinygen.metrics.metric import Metric, mean_and_error
from tinygen.models.completion import completions
from tinygen.models.family import Batch, Family, PlotOf


class AutoregressiveFamily(Family):
    """Of models with `log_prob` and `complete`."""

    validation_unit = "bits/dim"
    units: ClassVar[Mapping[str, str]] = {"nats": "nats an image"}
    plots: ClassVar[Mapping[str, PlotOf]] = {"complete": completions}

    def progress(self, model: Any, parts: dict[str, float]) -> str:
        return f"{model.bits_per_dim(parts['nats']):.3f} bits/dim"

    def baselines(self, model: Any, train: Dataset, test: Dataset) -> dict[str, float]:
        """The bits/dim of independent pixels."""
        nats = independent_nats(train.images, test.images, model.levels)
        return {"independent pixels": model.bits_per_dim(float(nats.mean()))}

    def validation(self, model: Any, batch: Batch, rng: np.random.Generator) -> float:
        """Bits per dimension."""
        return model.bits_per_dim(-float(model.log_prob(batch.images, model.condition.used(batch.labels)).mean()))

    def likelihood(self, model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Metric:
        return self.metrics(model, train, test, rng)[0]

    def metrics(self, model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> list[Metric]:
        """The test likelihood in bits/dim and in nats, with the standard error of the mean over images."""
        mean, error = mean_and_error(-model.log_prob(test.images, model.condition.used(test.labels)))
        baselines = self.baselines(model, train, test)
        scale = model.bits_per_dim(1.0)
        return [
            Metric("test", mean * scale, "bits/dim", error * scale, baselines, True),
            Metric("test", mean, "nats an image", error, {k: v / scale for k, v in baselines.items()}, True),
        ]
