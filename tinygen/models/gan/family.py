"""How GANs are measured and shown: quality of samples beside real images, and how the training goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from tinygen.data import Dataset, subset
from tinygen.metrics.features import feature_net
from tinygen.metrics.metric import Metric
from tinygen.metrics.quality import MOST, quality
from tinygen.models.family import Family, PlotOf
from tinygen.models.gan import plots
from tinygen.models.gan.diagnostics import diagnosis
from tinygen.models.gan.objectives import gradient_norms


class GANFamily(Family):
    """Of models with an adversarial `pair`."""

    plots: ClassVar[Mapping[str, PlotOf]] = plots.PLOTS

    def progress(self, model: Any, parts: dict[str, float]) -> str:
        real, fake = parts["real"], parts["fake"]
        if model.pair.objective.code:
            return f"L(x) {real:.3f}  L(G(z)) {fake:.3f}  k {parts['k']:.3f}"
        if model.pair.objective.logits:
            return f"D(x) {real:.2f}  D(G(z)) {fake:.2f}"
        norm = f"  gradient norm {parts['gradient_norm']:.2f}" if "gradient_norm" in parts else ""
        return f"D(x) - D(G(z)) {real - fake:.3f}{norm}"

    def diagnostics(self, model: Any, parts: dict[str, float]) -> list[str]:
        missing, classes = map(int, model.missing.numpy())
        return diagnosis(parts, model.pair.objective, missing, classes)

    def metrics(self, model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> list[Metric]:
        """`metrics.quality` of as many samples as test images; with classes, how often they are as asked for.

        Where the norm of the critic's gradient is drawn to 1: what it is between 500 test images and as many samples.
        """
        n = min(len(test), MOST)
        labels = model.condition.draw(n, rng)
        images = model.sample(n, rng, labels=labels)
        metrics = quality(images, train, test)
        if labels is not None:
            _, found = feature_net(train).of(images)
            _, real = feature_net(train).of(test.images)
            known = {"real images": 100 * float((real == test.labels).mean())}
            metrics.append(Metric("classes as asked for", 100 * float((found == labels).mean()), "%", baselines=known))
        if model.pair.objective.weight:
            metrics.append(critic_gradient_norm(model, subset(test, slice(500)), rng))
        return metrics


def critic_gradient_norm(model: Any, test: Dataset, rng: np.random.Generator) -> Metric:
    """The mean norm of D's gradient at images on lines between those of the test set and as many samples."""
    n, labels = len(test), model.condition.used(test.labels)
    fake = model.scale(model.sample(n, rng, labels=labels))
    norms = gradient_norms(lambda x: model.pair.discriminate(x, labels), model.scale(test.images), fake, rng.random(n))
    return Metric("critic's gradient norm", float(norms.numpy().mean()), baselines={"asked for": 1.0})
