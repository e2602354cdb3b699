"""How GANs are measured and shown: quality of samples beside real images, and how the game goes."""

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
from tinygen.models.gan.objectives import slopes

WARM = 100  # steps before anything is said of a game


class GANFamily(Family):
    """Of models with a `game` between a generator and a discriminator."""

    plots: ClassVar[Mapping[str, PlotOf]] = plots.PLOTS

    def progress(self, model: Any, parts: dict[str, float]) -> str:
        real, fake = parts["real"], parts["fake"]
        if model.game.variant.code:
            return f"L(x) {real:.3f}  L(G(z)) {fake:.3f}  k {parts['k']:.3f}"
        if model.game.variant.logits:
            return f"D(x) {real:.2f}  D(G(z)) {fake:.2f}"
        slope = f"  slope {parts['slope']:.2f}" if "slope" in parts else ""
        return f"D(x) - D(G(z)) {real - fake:.3f}{slope}"

    def diagnostics(self, model: Any, parts: dict[str, float]) -> list[str]:
        missing, classes = map(int, model.missing.numpy())
        return diagnosis(parts, model.game.variant, missing, classes) if model.played >= WARM else []

    def metrics(self, model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> list[Metric]:
        """`metrics.quality` of as many samples as test images; with classes, how often they are as asked for.

        Where the norm of the critic's gradient is drawn to 1: what it is between 500 test images and as many samples.
        """
        n = min(len(test), MOST)
        labels = rng.integers(0, model.game.classes, n) if model.game.classes else None
        images = model.sample(n, rng, labels=labels)
        metrics = quality(images, train, test)
        if labels is not None:
            _, found = feature_net(train).of(images)
            _, real = feature_net(train).of(test.images)
            known = {"real images": 100 * float((real == test.labels).mean())}
            metrics.append(Metric("classes as asked for", 100 * float((found == labels).mean()), "%", baselines=known))
        if model.game.variant.weight:
            metrics.append(self.slope(model, subset(test, slice(500)), rng))
        return metrics

    def slope(self, model: Any, test: Dataset, rng: np.random.Generator) -> Metric:
        """The mean norm of D's gradient at images on lines between those of the test set and as many samples."""
        n, labels = len(test), test.labels if model.game.classes else None
        fake = model.scale(model.sample(n, rng, labels=labels))
        found = slopes(lambda x: model.game.judge(x, labels), model.scale(test.images), fake, rng.random(n))
        return Metric("critic's slope", float(found.numpy().mean()), baselines={"asked for": 1.0})
