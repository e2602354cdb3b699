"""How GANs are measured and shown: quality of samples beside real images, and how the training goes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from tinygen.baselines.kmeans import purity
from tinygen.data import Dataset, subset
from tinygen.data.tasks import outlines
from tinygen.metrics.features import feature_net, has_features
from tinygen.metrics.metric import Metric
from tinygen.metrics.quality import MOST, quality
from tinygen.models.family import Family, PlotOf
from tinygen.models.gan import plots
from tinygen.models.gan.anogan import detection
from tinygen.models.gan.diagnostics import LOOK, diagnosis
from tinygen.models.gan.objectives import gradient_norms
from tinygen.models.semisupervised import accuracy
from tinygen.models.vae.plots import reconstructions

READ = 2000  # images whose codes are read
APART = 0.1  # a correlation, beyond that of others, below which an image and an outline, two codes, are no pair
UNREAD = 0.1  # of the categories' entropy: a bound on their information below which nothing can be read


class GANFamily(Family):
    """Of models with an adversarial `pair`."""

    plots: ClassVar[Mapping[str, PlotOf]] = plots.OF_A_PAIR

    def progress(self, model: Any, parts: dict[str, float]) -> str:
        real, fake = parts["real"], parts["fake"]
        if "k" in parts:
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
        Where the test set has classes that aren't trained on: how well they are told from the others (`anogan`).
        """
        n = min(len(test), MOST)
        labels = model.condition.draw(n, rng)
        images = model.sample(n, rng, labels=labels)
        metrics = quality(images, train, test)
        if labels is not None and has_features(train):
            _, found = feature_net(train).of(images)
            _, real = feature_net(train).of(test.images)
            known = {"real images": 100 * float((real == test.labels).mean())}
            metrics.append(Metric("classes as asked for", 100 * float((found == labels).mean()), "%", baselines=known))
        if model.pair.objective.weight:
            metrics.append(critic_gradient_norm(model, subset(test, slice(500)), rng))
        return metrics + (detection(model, train, test, rng) if "anomalies" in self.plots else [])


def critic_gradient_norm(model: Any, test: Dataset, rng: np.random.Generator) -> Metric:
    """The mean norm of D's gradient at images on lines between those of the test set and as many samples."""
    n, labels = len(test), model.condition.used(test.labels)
    fake = model.scale(model.sample(n, rng, labels=labels))
    norms = gradient_norms(lambda x: model.pair.discriminate(x, labels), model.scale(test.images), fake, rng.random(n))
    return Metric("critic's gradient norm", float(norms.numpy().mean()), baselines={"asked for": 1.0})


class InfoGANFamily(GANFamily):
    """Of GANs with a code: how much of it can be read, and what the categories stand for."""

    plots: ClassVar[Mapping[str, PlotOf]] = plots.INFO_PLOTS

    def diagnostics(self, model: Any, parts: dict[str, float]) -> list[str]:
        found, entropy = super().diagnostics(model, parts), math.log(model.categories)
        bound = entropy - parts["g_category"] / model.pair.objective.shares[0]
        if bound < UNREAD * entropy:
            found.append(f"the images don't show the code: of {entropy:.2f} nats {bound:.2f} can be read; lower --lr")
        return found

    def metrics(self, model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> list[Metric]:
        """A GAN's, and the bound L_I on what an image says of its category, in nats: E log Q(c | x) + H(c).

        With labeled data, too, how pure the categories are: how many images are of their category's commonest class.
        """
        found, z = super().metrics(model, train, test, rng), model.codes(READ, rng)
        images, k = model.images(z), model.categories
        category, entropy = z[:, -k:].argmax(1), math.log(k)
        bound = entropy + float(model.log_q(images)[np.arange(READ), category].mean())
        known = {"nothing": 0.0, "all": entropy}
        found.append(Metric("information of the category", bound, "nats", baselines=known, lower_is_better=False))
        if has_features(train):
            share = 100 * purity(category, feature_net(train).of(images)[1])
            found.append(Metric("purity of the categories", share, "%", lower_is_better=False))
        return found


class BiGANFamily(GANFamily):
    """Of GANs with an encoder: whether an image is still what it was after coding and decoding."""

    plots: ClassVar[Mapping[str, PlotOf]] = plots.OF_A_PAIR | {"reconstruct": reconstructions}

    def diagnostics(self, model: Any, parts: dict[str, float]) -> list[str]:
        found = super().diagnostics(model, parts)
        if (fit := inversion(model, LOOK, np.random.default_rng(0))) < APART:
            found.append(f"the encoder doesn't invert the generator: z and E(G(z)) correlate by {fit:.2f}; more steps")
        return found

    def metrics(self, model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> list[Metric]:
        """A GAN's; with labeled data, how many test images keep their class when G makes them from their codes.

        And the mean correlation of the numbers in codes z and in E(G(z)).
        """
        found = super().metrics(model, train, test, rng)
        if has_features(train):
            images, labels = test.images[:READ], np.asarray(test.labels)[:READ]
            net = feature_net(train)
            kept, real = (
                100 * float((net.of(x)[1] == labels).mean()) for x in (model.images(model.encode(images)), images)
            )
            known = {"real images": real, "chance": 100 * float(np.square(np.bincount(labels) / len(labels)).sum())}
            found.append(Metric("classes kept by G(E(x))", kept, "%", baselines=known, lower_is_better=False))
        fit = inversion(model, READ, rng)
        return [*found, Metric("correlation of z and E(G(z))", fit, baselines={"inverse": 1.0}, lower_is_better=False)]


def inversion(model: Any, n: int, rng: np.random.Generator) -> float:
    """The mean correlation of each number of n codes z with that of E(G(z))."""
    z = model.codes(n, rng)
    found = model.encode(model.images(z)).astype(np.float64)
    z, found = ((x - x.mean(0)) / np.maximum(x.std(0), 1e-9) for x in (z, found))
    return float((z * found).mean())


class SemiGANFamily(GANFamily):
    """Of GANs that tell classes by few labels: how many they tell rightly."""

    def metrics(self, model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> list[Metric]:
        """A GAN's; and how many test images are told rightly, beside the same network on the labels alone."""
        found = super().metrics(model, train, test, rng)
        return found if test.labels is None else [*found, accuracy(model, train, test)]


class CoGANFamily(GANFamily):
    """Of two coupled GANs: whether what they make from one code belongs together."""

    plots: ClassVar[Mapping[str, PlotOf]] = plots.OF_A_PAIR | {"pairs": plots.pairs}

    def diagnostics(self, model: Any, parts: dict[str, float]) -> list[str]:
        found = super().diagnostics(model, parts)
        own, other = agreement(model, LOOK, np.random.default_rng(0))
        if own - other < APART:
            found.append(f"the domains have come apart: outlines fit their images to {own:.2f}, others to {other:.2f}")
        return found

    def metrics(self, model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> list[Metric]:
        """A GAN's, of the images; and how well the outlines fit them: the mean correlation, real pairs having 1."""
        own, other = agreement(model, READ, rng)
        known = {"other images": other, "real pairs": 1.0}
        fit = Metric("outlines fit their images", own, baselines=known, lower_is_better=False)
        return [*super().metrics(model, train, test, rng), fit]


def agreement(model: Any, n: int, rng: np.random.Generator) -> tuple[float, float]:
    """The mean correlation of n generated outlines with the real ones of their own images, and of the next images."""
    images, made = model.pairs(model.codes(n, rng))
    real, made = (x.reshape(n, -1).astype(np.float64) for x in (outlines(images, model.levels), made))
    real, made = ((x - x.mean(1, keepdims=True)) / np.maximum(x.std(1, keepdims=True), 1e-9) for x in (real, made))
    return float((real * made).mean()), float((np.roll(real, 1, axis=0) * made).mean())
