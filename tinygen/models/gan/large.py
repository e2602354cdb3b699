"""How GANs for larger images are measured and shown: pyramids, images that grow, what truncation does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from tinygen.data import Dataset
from tinygen.metrics.distance import precision_recall
from tinygen.metrics.features import feature_net, has_features
from tinygen.metrics.metric import Chart, ImageGrid, Metric, Plot
from tinygen.metrics.quality import MOST, quality
from tinygen.models.family import PlotOf
from tinygen.models.gan.diagnostics import diagnosis
from tinygen.models.gan.family import GANFamily
from tinygen.models.gan.plots import PLOTS
from tinygen.models.gan.pyramid import pyramid, up

REAL, SAMPLES, ROWS = 3, 5, 8  # rows of pictures
COMPARED = 2000  # samples whose precision and recall are measured for each truncation
HEARD = 0.1  # how much more than by chance samples have to be of the class that is asked for, as a share
COLLAPSED = 0.5  # how much less samples differ than before, where a level that fades in has made them alike


def of_level(parts: dict[str, float], name: str) -> dict[str, float]:
    """The numbers of one level of a pyramid by their plain names."""
    return {key.removesuffix(f" {name}"): value for key, value in parts.items() if key.endswith(f" {name}")}


def levels(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """The pyramids of test images and of samples, level by level: what is enlarged, the detail, and their sum."""
    pair, (_, height, width) = model.pair, model.image_shape
    real = pyramid(model.scale(test.images[:REAL]).numpy(), len(pair.pairs))
    made = pair.parts(model.codes(SAMPLES, rng))
    (small, *details), (first, *names) = [np.concatenate(both) for both in zip(real, made, strict=True)], pair.pairs
    columns, across = [small], [first]
    for h, name in zip(details, names, strict=True):
        coarse = up(columns[-1])
        columns += [coarse, h, coarse + h]
        across += ["enlarged", "detail", name]
    whole = [x.repeat(height // x.shape[2], 2).repeat(width // x.shape[3], 3) for x in columns]
    images = np.stack([model.levels.to_gray(model.unscale(x)) for x in whole], axis=1)
    rows = ["test images", *[""] * (len(real[0]) - 1), "samples", *[""] * (SAMPLES - 1)]
    return ImageGrid(
        images.reshape(-1, *model.image_shape), len(columns), "A pyramid, level by level; no detail is gray", 256, rows,
        across,
    )  # fmt: skip


def fade(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """The same codes as images of each level, and as each fades in: by the networks as they are now."""
    growth, codes = model.growth, model.codes(ROWS, rng)
    now, columns, across = growth.now, list[np.ndarray](), list[str]()
    try:
        for level in range(now[0] + 1):
            for alpha in (0.25, 0.5, 0.75, 1.0) if level else (1.0,):
                growth.set(level, alpha)
                columns.append(model.images(codes))
                across.append(f"{alpha:.0%}" if alpha < 1 else model.side)
    finally:
        growth.set(*now)
    images = np.stack(columns, axis=1).reshape(-1, *model.image_shape)
    return ImageGrid(images, len(columns), "The same codes while each level fades in", None, (), across)


def tradeoff(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """Precision against recall of samples whose codes are cut off ever closer to 0, classes alike."""
    taus = (0.25, 0.5, 1.0, 2.0, math.inf)
    found = [truncated(model, train, test, tau, rng) for tau in taus]

    def draw(axes: Any) -> None:
        axes.plot([recall for _, recall in found], [precision for precision, _ in found], marker="o")
        for tau, (precision, recall) in zip(taus, found, strict=True):
            name = "whole codes" if tau == math.inf else f"{tau:g}"
            axes.annotate(name, (recall, precision), (6, 4), textcoords="offset points")
        axes.margins(0.15)
        axes.set(xlabel="recall", ylabel="precision")

    return Chart(draw, "Codes cut off closer to 0: better images, and fewer kinds of them")


def truncated(model: Any, train: Dataset, test: Dataset, tau: float, rng: np.random.Generator) -> tuple[float, float]:
    """Precision and recall of as many samples as test images (2,000 at most), of codes without numbers beyond +-tau.

    Both need four images; fewer test images are repeated.
    """
    n, seen = min(max(len(test), 4), COMPARED), _features(train)
    known = np.resize(test.images, (n, *test.images.shape[1:]))
    images = model.images(model.codes(n, rng, tau), model.condition.draw(n, rng))
    return precision_recall(seen(known), seen(images))


def _features(train: Dataset) -> Callable[[np.ndarray], np.ndarray]:
    """What images are compared by: features of the network, or where there is none, their pixels."""
    if has_features(train):
        return lambda images: feature_net(train).of(images)[0]
    return lambda images: images.reshape(len(images), -1).astype(np.float64)


class LargeFamily(GANFamily):
    """Of BigGANs: what truncation does."""

    plots: ClassVar[Mapping[str, PlotOf]] = {**PLOTS, "tradeoff": tradeoff}

    def diagnostics(self, model: Any, parts: dict[str, float]) -> list[str]:
        found, share = super().diagnostics(model, parts), model.asked.item()
        if 0 <= share < 1 / model.condition.classes + HEARD:
            found.append(f"the class is ignored: {share:.0%} of the samples are of the one asked for; lower --lr")
        return found

    def metrics(self, model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> list[Metric]:
        """A GAN's; then precision and recall where codes are cut off at 0.5, beside those of whole codes."""
        found = super().metrics(model, train, test, rng)
        if has_features(train):
            cut, whole = (truncated(model, train, test, tau, rng) for tau in (0.5, math.inf))
            for name, value, baseline in zip(("precision", "recall"), cut, whole, strict=True):
                found.append(Metric(f"{name} of codes up to 0.5", value, baselines={"whole codes": baseline}))
        return found


class PyramidFamily(GANFamily):
    """Of LAPGANs, whose levels are pairs of players, each with numbers of its own."""

    plots: ClassVar[Mapping[str, PlotOf]] = {"levels": levels, **PLOTS}

    def progress(self, model: Any, parts: dict[str, float]) -> str:
        shown = {name: of_level(parts, name) for name in model.pair.pairs}
        values = "  ".join(f"{name} {own['real']:.2f}, {own['fake']:.2f}" for name, own in shown.items())
        return f"D(x), D(G(z)): {values}"

    def metrics(self, model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> list[Metric]:
        """`metrics.quality`. How steep the critics are, one a level, is shown while they train."""
        return quality(model.sample(min(len(test), MOST), rng), train, test)

    def diagnostics(self, model: Any, parts: dict[str, float]) -> list[str]:
        missing, classes = map(int, model.missing.numpy())
        found = [f"mode collapse: {missing} of {classes} classes missing"] if missing else []
        for name, pair in model.pair.pairs.items():
            found += [f"level {name}: {text}" for text in diagnosis(of_level(parts, name), pair.objective)]
        return found


class GrowingFamily(GANFamily):
    """Of progressive GANs."""

    plots: ClassVar[Mapping[str, PlotOf]] = {"fade": fade, **PLOTS}

    def progress(self, model: Any, parts: dict[str, float]) -> str:
        _, alpha = model.growth.now
        fading = f", {alpha:.0%} faded in" if alpha < 1 else ""
        return f"{model.side}{fading}  {super().progress(model, parts)}"

    def diagnostics(self, model: Any, parts: dict[str, float]) -> list[str]:
        found, before = super().diagnostics(model, parts), model.growth.spread.item()
        if model.growth.now[1] < 1 and parts["spread"] < COLLAPSED * before:
            less = f"the samples differ {parts['spread']:.0%} as much as the data, {before:.0%} before"
            found.append(f"collapse at the fade-in of {model.side}: {less}; try a longer --fade, or a lower --lr")
        return found
