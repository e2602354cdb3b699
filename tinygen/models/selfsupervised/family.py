"""How self-supervision is measured and shown: its own task beside trivial models, and what its features tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from tinygen import no_grad
from tinygen.baselines.softmax import softmax
from tinygen.data import Dataset, tasks
from tinygen.metrics.distance import nearest
from tinygen.metrics.features import class_names, feature_net, has_features
from tinygen.metrics.metric import ImageGrid, Metric, Plot, mean_and_error
from tinygen.models.family import Batch, Family, PlotOf
from tinygen.models.networks.encoders import in_batches
from tinygen.models.probing import DRAWS, LABELS, linear_probe, probe
from tinygen.models.translation.family import COLUMNS, in_rows
from tinygen.models.vae.plots import scatter
from tinygen.nn import functional as F

ROWS = 128  # images at once, on which the loss of a contrast depends
MOST = 1000  # test images whose nearest training images are looked for


class SelfSupervisedFamily(Family):
    """Of models that have features."""

    plots: ClassVar[Mapping[str, PlotOf]] = {"scatter": scatter}

    def progress(self, model: Any, parts: dict[str, float]) -> str:
        return f"{sum(parts.values()):.3f} nats"

    def baselines(self, model: Any, train: Dataset, test: Dataset) -> dict[str, float]:
        return {"chance": model.chance(min(ROWS, len(test)))}

    def metrics(self, model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> list[Metric]:
        """How well it does its task on test images; how many classes its features tell by 100 labels."""
        return [self.task(model, train, test, rng), *probed(model, train, test)]

    def task(self, model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Metric:
        """The loss on the test images, 128 at a time, in nats."""
        step, losses = min(ROWS, len(test)), []
        with no_grad():
            for i in range(0, len(test) - step + 1, step):
                labels = None if test.labels is None else test.labels[i : i + step]
                parts = model.loss(Batch(test.images[i : i + step], labels), rng)
                losses.append(sum(part.item() for part in parts.values()))
        mean, error = mean_and_error(np.array(losses))
        return Metric("loss of its task", mean, "nats", error, self.baselines(model, train, test), True)


def probed(model: Any, train: Dataset, test: Dataset) -> list[Metric]:
    """The linear probe, in percent, mean over draws of the labels; beside other weights and beside raw pixels."""
    if not has_features(train) or len(train) < LABELS:
        return []
    chance = [model.untrained(np.random.default_rng(seed)) for seed in DRAWS]
    untrained = [probe(one, train, test, LABELS, range(i, i + 1)).item() for i, one in enumerate(chance)]
    found = linear_probe(model, train, test)
    known = {"untrained": 100 * float(np.mean(untrained)), **found.baselines}
    return [found._replace(name=f"linear probe, {LABELS} labels", baselines=known)]


# ---------------------------------------------------------------------------------------------------------- in-painting


HALVES = "Test images, and their lower halves told from the upper ones"  # such a picture's caption


def guesses(train: Dataset, images: np.ndarray) -> dict[str, np.ndarray]:
    """Images with their lower halves as two trivial models tell them: by the mean training image (a float of 0 ..
    levels - 1), and by the training image whose upper half is nearest.
    """
    lower = tasks.hole(*images.shape[2:])
    known, among = (x[:, :, ~lower].reshape(len(x), -1) for x in (images, train.images))
    found = {"mean image": train.images.mean(axis=0)[None], "nearest neighbor": train.images[nearest(known, among)[0]]}
    return {name: np.where(lower, x, images) for name, x in found.items()}


def squared_errors(made: np.ndarray, images: np.ndarray, levels: int) -> np.ndarray:
    """The mean squared error of each image's lower half, times 1,000, where 0 .. 1 are all levels: (N,)."""
    lower = tasks.hole(*images.shape[2:])
    squares: np.ndarray = ((made / 1.0 - images) / (levels - 1))[:, :, lower] ** 2
    return 1000 * squares.mean(axis=(1, 2))


def inpaintings(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """test images, their upper halves, and lower halves told from those: by the model and by trivial ones (slide 8)"""
    images = test.images[:COLUMNS]
    known, _ = tasks.half(images, None, model.levels, rng)
    filled = model.translate(images, rng)
    rows = {"test image": images, "known half": known, "in-painted": filled, **guesses(train, images)}
    whole = np.round(np.concatenate([*rows.values()])).astype(np.uint8)
    return ImageGrid(whole, len(images), HALVES, None, [*rows])


class InpaintingFamily(SelfSupervisedFamily):
    """Of models that fill in what is left out."""

    plots: ClassVar[Mapping[str, PlotOf]] = {"inpaint": inpaintings, "scatter": scatter}

    def progress(self, model: Any, parts: dict[str, float]) -> str:
        return f"mean squared error {parts['squared_error']:.5f} in the hole"

    def baselines(self, model: Any, train: Dataset, test: Dataset) -> dict[str, float]:
        errors = ((test.images - train.images.mean(axis=0)) / (model.levels - 1)) ** 2
        return {"mean image": float(errors[:, :, tasks.hole(*test.images.shape[2:])].mean())}

    def task(self, model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Metric:
        """The mean squared error of the lower halves of the first test images, times 1,000: 0 .. 1 are all levels."""
        images = test.images[:MOST]
        mean, error = mean_and_error(squared_errors(model.translate(images, rng), images, model.levels))
        known = {name: float(squared_errors(guess, images, model.levels).mean())
                 for name, guess in guesses(train, images).items()}  # fmt: skip
        return Metric("mean squared error in the hole", mean, "/ 1,000", error, known, True)

    def snapshot(self, model: Any, batch: Batch, rng: np.random.Generator) -> Plot:
        """Rows of inputs, outputs and targets."""
        known, whole = tasks.half(batch.images, None, model.levels, rng)
        return in_rows({"input": known, "output": model.translate(whole, rng), "target": whole}, model.levels)


# --------------------------------------------------------------------------------------------------------- colorization


def color_nats(model: Any, test: Dataset, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Of each image -log p(color | gray image), in nats, the mean over the pixels that aren't dark; and its last color.

    An image that is dark all over has the color `tasks.NONE`.
    """
    nats, last = [], []
    with no_grad():
        for i in range(0, len(test), ROWS):
            labels = None if test.labels is None else test.labels[i : i + ROWS]
            gray, colored = tasks.color(test.images[i : i + ROWS], labels, model.levels, rng)
            asked = tasks.colors(gray, colored, model.levels)
            found = F.cross_entropy(model(gray), asked, ignore_index=tasks.NONE, reduction="none").numpy()
            nats.append(found.sum(axis=(1, 2)) / np.maximum((asked != tasks.NONE).sum(axis=(1, 2)), 1))
            last.append(asked.max(axis=(1, 2)))
    return np.concatenate(nats), np.concatenate(last)


def colorings(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """gray test images, the likeliest color of each of their pixels, and the colors that there were (slide 8)"""
    labels = None if test.labels is None else test.labels[:COLUMNS]
    grid = model.family.snapshot(model, Batch(test.images[:COLUMNS], labels), rng)
    return grid._replace(caption="Test images colored, by the likeliest color of each pixel")


class ColorizationFamily(SelfSupervisedFamily):
    """Of models that color gray images."""

    plots: ClassVar[Mapping[str, PlotOf]] = {"translate": colorings, "scatter": scatter}

    def task(self, model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Metric:
        """-log p(color | gray image), in nats, the mean over images; of gray data beside what is known of their hues.

        "given the class": the entropy of the draw, than which nothing is better. "by a classifier": a network that is
        trained on the labels tells the class, and the draw's probabilities the hue.
        """
        nats, hue = color_nats(model, test, rng)
        lit, known = hue != tasks.NONE, {"chance": model.chance(1)}
        if test.images.shape[1] == 1 and has_features(train):
            table = tasks.hues(len(class_names(train)))
            told = softmax(in_batches(lambda x: feature_net(train)(x)[1], test.images).astype(np.float64)) @ table
            for name, p in {"given the class": table[test.labels], "by a classifier": told}.items():
                known[name] = float(-np.log(p[lit, hue[lit]]).mean())
        mean, error = mean_and_error(nats[lit])
        return Metric("color of a pixel", mean, "nats", error, known, True)

    def snapshot(self, model: Any, batch: Batch, rng: np.random.Generator) -> Plot:
        """Rows of inputs, outputs and targets."""
        gray, colored = tasks.color(batch.images, batch.labels, model.levels, rng)
        return in_rows({"input": gray, "output": model.translate(gray, rng), "target": colored}, model.levels)
