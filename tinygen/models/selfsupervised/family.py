"""How self-supervision is measured and shown: its own task beside chance, and what its features tell of the classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from tinygen import no_grad
from tinygen.data import Dataset
from tinygen.metrics.features import has_features
from tinygen.metrics.metric import Metric, mean_and_error
from tinygen.models.family import Batch, Family, PlotOf
from tinygen.models.probing import probe
from tinygen.models.vae.plots import scatter

LABELS, SEEDS = 100, range(5)  # of the linear probe
ROWS = 128  # images at once, on which the loss of a contrast depends


class SelfSupervisedFamily(Family):
    """Of models that have features."""

    plots: ClassVar[Mapping[str, PlotOf]] = {"scatter": scatter}

    def progress(self, model: Any, parts: dict[str, float]) -> str:
        return f"{sum(parts.values()):.3f} nats"

    def baselines(self, model: Any, train: Dataset, test: Dataset) -> dict[str, float]:
        return {"chance": model.chance(min(ROWS, len(test)))}

    def metrics(self, model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> list[Metric]:
        """The loss of the task on test images; how many classes its features tell by 100 labels."""
        batches = [test.images[i : i + ROWS] for i in range(0, len(test) - min(ROWS, len(test)) + 1, ROWS)]
        with no_grad():
            losses = [sum(part.item() for part in model.loss(Batch(x), rng).values()) for x in batches]
        mean, error = mean_and_error(np.array(losses))
        loss = Metric("loss of its task", mean, "nats", error, self.baselines(model, train, test), True)
        return [loss, *probed(model, train, test)]


def probed(model: Any, train: Dataset, test: Dataset) -> list[Metric]:
    """The linear probe, in percent, mean over draws of the labels; beside other weights and beside raw pixels."""
    if not has_features(train) or len(train) < LABELS:
        return []
    mean, error = mean_and_error(100 * probe(model, train, test, LABELS, SEEDS))
    chance = [model.untrained(np.random.default_rng(seed)) for seed in SEEDS]
    untrained = [probe(one, train, test, LABELS, range(i, i + 1)).item() for i, one in enumerate(chance)]
    known = {
        "untrained": 100 * float(np.mean(untrained)),
        "raw pixels": 100 * float(probe(None, train, test, LABELS, SEEDS).mean()),
    }
    return [Metric(f"linear probe, {LABELS} labels", mean, "%", error, known, False)]
