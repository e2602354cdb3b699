"""How diffusion and its relatives are measured and shown: the quality of samples, and the bound where there is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from tinygen import no_grad, parallel
from tinygen.baselines.independent import independent_nats
from tinygen.console import progress
from tinygen.data import Dataset
from tinygen.metrics.features import feature_net, has_features
from tinygen.metrics.metric import Metric, mean_and_error
from tinygen.metrics.quality import quality
from tinygen.models.diffusion import plots
from tinygen.models.diffusion.bound import TERMS, VARIANCES, estimate, level_nats
from tinygen.models.family import Batch, Family, PlotOf

DRAWN = 2000  # samples that are measured: each takes as many passes of the network as there are steps
HELD = 1000  # images of the validation
BOUNDED, TOGETHER, STRATA = 1000, 20, 20  # images of the bound; of them with times in common; times of an image


class DenoiserFamily(Family):
    """Of the models of base.py."""

    validation_unit = "mean squared error"
    units: ClassVar[Mapping[str, str]] = {"mse": "mean squared error"}
    plots: ClassVar[Mapping[str, PlotOf]] = plots.PLOTS

    def progress(self, model: Any, parts: dict[str, float]) -> str:
        return f"loss {parts['mse']:.4f}  gradient norm {parts['gradient_norm']:.2f}"

    def validation(self, model: Any, batch: Batch, rng: np.random.Generator) -> float:
        """The loss on at most 1,000 images, always with the same noise."""
        labels = model.condition.used(batch.labels)

        def loss(rows: slice, rng: np.random.Generator) -> np.ndarray:
            some = Batch(batch.images[rows], None if labels is None else labels[rows])
            return np.full(len(some.images), model.loss(some, rng)["mse"].item())  # the mean counts for each of them

        with no_grad():
            return float(parallel.in_shares(loss, min(len(batch.images), HELD), TOGETHER * 5, rng).mean())

    def metrics(self, model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> list[Metric]:
        """`metrics.quality` of 2,000 samples; with classes, how often they are as asked for."""
        n = min(len(test), DRAWN)
        labels = model.condition.draw(n, rng)
        images = model.sample(n, rng, labels=labels)
        metrics = quality(images, train, test)
        if labels is not None and has_features(train):
            net = feature_net(train)
            known = {"real images": 100 * float((net.of(test.images)[1] == test.labels).mean())}
            as_asked = 100 * float((net.of(images)[1] == labels).mean())
            metrics.append(Metric("classes as asked for", as_asked, "%", baselines=known, lower_is_better=False))
        return metrics


class DiffusionFamily(DenoiserFamily):
    """Of diffusion itself, which has a bound."""

    plots: ClassVar[Mapping[str, PlotOf]] = plots.PLOTS | plots.DIFFUSION

    def likelihood(self, model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Metric:
        """The better of the bounds with both variances."""
        return min(bounds(model, train, test, rng)[: len(VARIANCES)], key=lambda metric: metric.value)

    def metrics(self, model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> list[Metric]:
        return [*bounds(model, train, test, rng), *super().metrics(model, train, test, rng)]


class GuidedFamily(DiffusionFamily):
    """Of diffusion that is told classes."""

    plots: ClassVar[Mapping[str, PlotOf]] = {**DiffusionFamily.plots, **plots.GUIDED_PLOTS}


def bounds(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> list[Metric]:
    """The bound of -log p on test images in bits/dim, with both variances, and the terms that it is the sum of.

    Of 1,000 test images, 20 at a time, which have their 20 times in common: its standard error is that of the mean over
    those twenties. A model of classes is told none.
    """
    images = test.images[:BOUNDED]

    def terms(rows: slice, rng: np.random.Generator) -> np.ndarray:
        progress(rows.start / max(len(images), 1), "bounding the likelihood")
        some = model.network_input(images[rows]).numpy()
        predict = model.predict(model.noising, model.none(len(some)))
        found = estimate(predict, model.noising, some, level_nats(model.levels), STRATA, rng)
        return np.full((len(some), len(VARIANCES) * len(TERMS)), [found[v][term] for v in VARIANCES for term in TERMS])

    each = parallel.in_shares(terms, len(images), TOGETHER, rng)  # the means of those together, of each of them
    twenties = [each[i : i + TOGETHER].mean(0).reshape(len(VARIANCES), -1) for i in range(0, len(images), TOGETHER)]
    draws = [{v: dict(zip(TERMS, row, strict=True)) for v, row in zip(VARIANCES, one, strict=True)} for one in twenties]
    nats = independent_nats(train.images, images, model.levels).mean()
    known, scale, metrics = {"independent pixels": model.bits_per_dim(float(nats))}, model.bits_per_dim(1.0), []
    bits = {v: {term: scale * np.array([draw[v][term] for draw in draws]) for term in TERMS} for v in VARIANCES}
    for variance in VARIANCES:
        mean, error = mean_and_error(np.sum([*bits[variance].values()], axis=0))
        metrics.append(Metric(f"test, at most, variance {variance}", mean, "bits/dim", error, known, True))
    for term in TERMS:
        beta, posterior = (float(bits[variance][term].mean()) for variance in VARIANCES)
        metrics.append(
            Metric(f"of it {term}, variance beta", beta, "bits/dim", None, {"variance posterior": posterior})
        )
    return metrics
