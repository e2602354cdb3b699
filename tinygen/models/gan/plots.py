"""Plots of a GAN's samples and codes: are they copies, what does truncation do, can codes be added?

Lecture slides 125 and 126 (nearest training images), 129 to 133 (interpolation, arithmetic).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygen.data import Dataset
from tinygen.metrics.distance import nearest
from tinygen.metrics.features import class_names, feature_net, has_features
from tinygen.metrics.metric import ImageGrid, Plot
from tinygen.metrics.quality import NEIGHBORS, memorization
from tinygen.models.gan.anogan import anomalies_plot
from tinygen.models.interpolation import interpolation

ROWS, STEPS = 8, 10  # of a grid of images
NOISES = 6  # rows of an InfoGAN's images, each with noise of its own
AVERAGED, BESIDE = 30, 3  # codes (3 in Radford et al.'s figure 7), and how many of their images are shown


def truncation(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """Codes cut off at 0.25, 0.5, 1 and 2 deviations, a pair of rows each: fewer kinds of images, and better ones."""
    limits = 0.25, 0.5, 1, 2
    z = np.concatenate([model.codes(2 * STEPS, rng, limit) for limit in limits])
    labels = model.condition.draw(len(z), rng)
    names = [name for limit in limits for name in (f"up to {limit}", "")]
    caption = "Codes whose numbers are cut off: the closer to 0, the fewer kinds of images, and the better ones"
    return ImageGrid(model.images(z, labels), STEPS, caption, None, names, (), ("standard deviations", ""))


def neighbors(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """Samples, each beside the nearest training image, pixel by pixel: are they copies?"""
    samples = model.sample(NEIGHBORS, rng)
    index, _ = nearest(samples[: 4 * ROWS].reshape(4 * ROWS, -1), train.images.reshape(len(train), -1))
    pairs = np.stack([samples[: 4 * ROWS], train.images[index]], axis=1)
    ratio = memorization(samples, train, test)
    caption = f"Samples and the nearest training image of each; memorization ratio {ratio:.2f} (0 copies, 1 new)"
    return ImageGrid(pairs.reshape(-1, *model.image_shape), 8, caption, across=["sample", "nearest"] * 4)


def arithmetic(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """Bright A - dark A + dark B = bright B, on averages of 30 codes: slides 130 to 133 with garments for faces.

    Each row: three images of bright A, their average, and so on for dark A and dark B; then what comes out. A and B
    are classes that the feature network sees; where there is none, images brighter on the left and on the right.
    """
    z = model.codes(2000, rng)
    labels = np.zeros(len(z), np.int64) if model.condition else None  # with classes all of one: codes hold the rest
    kinds, names, light = described(model.images(z, labels), train if labels is None else None)
    counts = np.bincount(kinds, minlength=len(names))
    likely = [i for i in np.argsort(-counts, kind="stable") if counts[i] >= BESIDE]
    rows, captions = [], list[str]()
    for a, b in list(zip(likely[:6:2], likely[1:6:2], strict=False)) or [(likely[0], likely[0])]:
        parts = [z[extremes(kinds == kind, light)[bright]] for kind, bright in ((a, 1), (a, 0), (b, 0))]
        means = [part.mean(axis=0, keepdims=True) for part in parts]
        rows += [np.concatenate([part[:BESIDE], mean]) for part, mean in zip(parts, means, strict=True)]
        rows.append(means[0] - means[1] + means[2])
        captions.append(f"A: {names[a]}\nB: {names[b]}")
    codes = np.concatenate(rows)
    images = model.images(codes, None if labels is None else labels[: len(codes)])
    across = [name for term in ("bright A", "- dark A", "+ dark B") for name in (term, *[""] * (BESIDE - 1), "mean")]
    caption = "Arithmetic with codes: bright A - dark A + dark B = bright B"
    return ImageGrid(images, 3 * (BESIDE + 1) + 1, caption, None, captions, [*across, "="])


def described(images: np.ndarray, train: Dataset | None) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Of images (N, C, H, W) their kinds (N,), the kinds' names, and their brightness (N,).

    train: what the kinds' classes come from; without features, or for None, the brighter half is the kind.
    """
    light = images.mean(axis=(1, 2, 3))
    if train is not None and has_features(train):
        return feature_net(train).of(images)[1], class_names(train), light
    half = images.shape[3] // 2
    right = images[..., half:].mean(axis=(1, 2, 3)) > images[..., :half].mean(axis=(1, 2, 3))
    return right.astype(np.int64), ["left", "right"], light


def extremes(chosen: np.ndarray, light: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The indices of the 30 darkest and of the 30 brightest of the chosen (N,) bool; of all if there are fewer."""
    own = np.flatnonzero(chosen)
    order = own[np.argsort(light[own], kind="stable")]
    return order[:AVERAGED], order[-AVERAGED:][::-1]


def categories(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """What each category stands for: in a row all categories, with the same noise."""
    k, z = model.categories, model.codes(NOISES, rng)
    rows = np.concatenate([np.repeat(z[:, None, :-k], k, 1), np.tile(np.eye(k), (NOISES, 1, 1))], axis=2)
    names = [str(i + 1) for i in range(k)]
    caption = "All categories of the code with the same noise, in a row"
    return ImageGrid(model.images(rows.reshape(-1, z.shape[1])), k, caption, None, (), names, ("noise", "category"))


def numbers(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """What each number of the code stands for: in a row it goes from -2 to 2, and all else stays."""
    values = np.linspace(-2, 2, STEPS)
    z = np.repeat(model.codes(NOISES, rng)[None, :, None], model.numbers, 0).repeat(
        STEPS, 2
    )  # (numbers, noises, steps)
    for i in range(model.numbers):
        z[i, :, :, i] = values
    rows = [name for i in range(model.numbers) for name in (f"number {i + 1}", *[""] * (NOISES - 1))]
    caption = "A number of the code from -2 to 2 in a row, and all else the same"
    images = model.images(z.reshape(-1, z.shape[-1]))
    return ImageGrid(images, STEPS, caption, None, rows, [f"{v:.1f}" for v in values], ("", "the number"))


def pairs(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """A CoGAN's pairs: images, and below each the outline that is made from the same code."""
    columns, both = 10, model.pairs(model.codes(40, rng))
    rows = np.stack([np.broadcast_to(x, both[0].shape) for x in both])  # an outline has one channel
    rows = rows.reshape(2, -1, columns, *model.image_shape).swapaxes(0, 1)
    caption = "Pairs that are made from one code each; no pair was ever seen"
    names = ["image", "outline"] * len(rows)
    return ImageGrid(rows.reshape(-1, *model.image_shape), columns, caption, None, names)


PLOTS = {
    "neighbors": neighbors, "interpolate": interpolation, "arithmetic": arithmetic, "truncate": truncation,
}  # fmt: skip
OF_A_PAIR = {**PLOTS, "anomalies": anomalies_plot}  # of which G gives whole images by one pass
INFO_PLOTS = {**OF_A_PAIR, "categories": categories, "numbers": numbers}
