"""How translations are measured and shown: beside the known targets, by the classes that they keep, there and back."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from tinygen.data import Dataset, subset, tasks
from tinygen.metrics.features import class_names, feature_net, has_features
from tinygen.metrics.metric import ImageGrid, Metric, Plot, mean_and_error
from tinygen.metrics.quality import MOST, quality
from tinygen.models.family import Batch, Family, PlotOf
from tinygen.models.gan.diagnostics import ALIKE, BLIND, FAR, WON

COLUMNS, MOST_COLUMNS = 8, 10  # of a grid; of one with a column for each class
ROWS = 1000  # images whose way there and back is measured
NOISE = 0.05  # deviation, of images from -1 to 1, of what is added on that way
STRANGE = 0.9  # of the distance from other inputs' targets: from where an output has nothing to do with its own
RETURNED = 0.25  # of the distance between two inputs: what comes back nearer than that is the same
TOLD = 0.5  # of d_loss at chance: below it D tells most patches apart


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The mean of |a - b| over each image's values, (N,) float64; a or b may be one image for all."""
    difference = np.abs(np.subtract(a, b, dtype=np.float64))
    return difference.reshape(len(difference), -1).mean(axis=1)


def errors(made: np.ndarray, known: np.ndarray) -> dict[str, float]:
    """How far images (N, C, H, W), from -1 to 1, are from their known targets, and from those of the images before."""
    strangers = np.roll(known, 1, axis=0)
    return {"error": float(distances(made, known).mean()), "strangers": float(distances(made, strangers).mean())}


def diagnosis(parts: Mapping[str, float], chance: float) -> list[str]:
    """The faults of a translation's training, the worst first; empty if nothing is.

    Args:
        parts: the numbers of a step (`Translation.training_step`), best averaged over some.
        chance: d_loss of a discriminator that can't tell real from made.
    """
    found, d_loss = [], parts.get("d_loss", 0.7 * chance)
    if (most := max(abs(parts.get(name, 0.0)) for name in ("real", "fake"))) > FAR:
        found.append(f"diverging: D's values have reached {most:.0e}; lower --lr")
    if parts["spread"] < ALIKE:
        found.append(f"collapse: the outputs differ {parts['spread']:.0%} as much as the targets, whatever the input")
    elif d_loss < TOLD * chance and parts.get("returned", 1.0) < RETURNED:
        found.append(
            f"steganography: inputs come back, {parts['returned']:.0%} as far from what they were as from others, but "
            "out of images that D tells from those of the other domain; a lower --cycle, or train longer"
        )
    elif parts["error"] > STRANGE * parts["strangers"]:
        own, others = (f"{parts[name]:.2f}" for name in ("error", "strangers"))
        far = f"outputs are {own} of 2 from their own targets, {others} from those of others"
        if parts.get("returned", 1.0) < RETURNED:
            found.append(f"another mapping: inputs come back, but {far}; any one-to-one mapping has a small cycle loss")
        else:
            found.append(f"the input is ignored: {far}; train longer, or with a larger --l1 or --identity")
    if d_loss < WON * chance:
        found.append("the discriminator has won: it tells nearly all patches apart; raise --adversarial or lower --lr")
    if d_loss > BLIND * chance:
        found.append("the discriminator is blind: it does no better than chance; try a larger --width")
    return found


def translations(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """Inputs, what the model makes of them, and their targets: a test image of each class, up to ten."""
    chosen, names = np.arange(min(MOST_COLUMNS, len(test))), list[str]()
    if test.labels is not None:
        classes, chosen = (found[:MOST_COLUMNS] for found in np.unique(test.labels, return_index=True))
        wrapped = functools.partial(textwrap.fill, width=9, break_long_words=False, break_on_hyphens=False)
        names = [wrapped(name) for name in np.take(class_names(train), classes)]
    batch = Batch(test.images[chosen], None if test.labels is None else test.labels[chosen])
    grid = rows(model, model.pair(batch, rng), rng, MOST_COLUMNS)
    return grid._replace(across=names, caption=f"{type(model).__name__}: test images, the first of each class")


class TranslationFamily(Family):
    """Of models from images to images."""

    plots: ClassVar[Mapping[str, PlotOf]] = {"translate": translations}
    units: ClassVar[Mapping[str, str]] = dict.fromkeys(("error", "strangers"), "of 2")

    def progress(self, model: Any, parts: dict[str, float]) -> str:
        values = f"  D(y) {parts['real']:.2f}  D(G(x)) {parts['fake']:.2f}" if "real" in parts else ""
        return f"{parts['error']:.3f} of 2 from the targets{values}"

    def diagnostics(self, model: Any, parts: dict[str, float]) -> list[str]:
        return diagnosis(parts, model.objective.chance)

    def metrics(self, model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> list[Metric]:
        """How far outputs are from the targets, `metrics.quality` of them, how many keep the class; the way back."""
        test = subset(test, slice(MOST))
        batch = model.pair(Batch(test.images, test.labels), rng)
        wanted, real = tasks.targets(model.task, train), Dataset(batch.target, test.levels, test.labels, test.name)
        made, unit = model.translate(batch.images, rng), 2 / (test.levels - 1)
        mean, error = mean_and_error(distances(made, batch.target) * unit)
        known = {"mean image": float(distances(wanted.images.mean(0)[None], batch.target).mean()) * unit}
        if made.shape == batch.images.shape:
            known["input"] = float(distances(batch.images, batch.target).mean()) * unit
        metrics = [Metric("distance from the target", mean, "of 2", error, known, True), *quality(made, wanted, real)]
        if has_features(wanted):
            metrics.append(class_kept(made, batch, wanted))
        if len(model.directions()) > 1:
            metrics.append(cycle_error(model, batch.images[:ROWS], rng))
        return metrics

    def snapshot(self, model: Any, batch: Batch, rng: np.random.Generator) -> Plot:
        """Rows of inputs, what the model makes of them, and their targets."""
        return rows(model, model.pair(batch, rng), rng)


def class_kept(made: np.ndarray, batch: Batch, wanted: Dataset) -> Metric:
    """How many outputs a network that is trained on targets takes for images of their class, in percent."""
    known = {"real images": np.asarray(batch.target)}
    if made.shape == batch.images.shape:
        known["input"] = batch.images
    kept = {
        name: 100 * float((feature_net(wanted).of(images)[1] == batch.labels).mean())
        for name, images in {"made": made, **known}.items()
    }
    return Metric("class kept", kept.pop("made"), "%", None, kept, False)


def cycle_error(model: Any, images: np.ndarray, rng: np.random.Generator) -> Metric:
    """How far inputs are from what comes back of them; and with noise on the way, which hidden messages don't stand."""
    unit, made = 2 / (model.levels - 1), model.translate(images, rng)
    noisy = model.levels.round(model.levels.scale(made) + NOISE * rng.standard_normal(made.shape))
    back, with_noise = (distances(model.translate_back(way, rng), images) * unit for way in (made, noisy))
    mean, error = mean_and_error(back)
    return Metric("cycle error", mean, "of 2", error, {f"with noise of {NOISE}": float(with_noise.mean())}, True)


def rows(model: Any, batch: Batch, rng: np.random.Generator, most: int = COLUMNS) -> ImageGrid:
    """A grid of inputs, outputs, targets, and what comes back where a model goes back, `most` images at a time."""
    made = model.translate(batch.images, rng)
    lines = {"input": batch.images, "output": made, "target": np.asarray(batch.target)}
    if len(model.directions()) > 1:
        lines["and back"] = model.translate_back(made, rng)
    return in_rows(lines, model.levels, most)


def in_rows(lines: Mapping[str, np.ndarray], levels: int, most: int = COLUMNS) -> ImageGrid:
    """A grid of rows by name, images (N, C, H, W) each, of which all have the same N; `most` at a time."""
    n, channels = len(next(iter(lines.values()))), max(images.shape[1] for images in lines.values())
    columns = min(most, n)
    missing = -n % columns  # of the last row: white
    full = [np.pad(np.broadcast_to(x, (n, channels, *x.shape[2:])), ((0, missing), *[(0, 0)] * 3),
                   constant_values=levels - 1) for x in lines.values()]  # fmt: skip
    blocks = np.stack([x.reshape(-1, columns, *x.shape[1:]) for x in full], axis=1)
    return ImageGrid(blocks.reshape(-1, *blocks.shape[3:]), columns, rows=[*lines] * len(blocks))
