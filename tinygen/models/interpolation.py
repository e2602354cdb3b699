"""Interpolation between two codes (lecture slides 92 to 97, and 129 to 133 for GANs): for every model that decodes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygen.data import Dataset
from tinygen.metrics.metric import ImageGrid, Plot
from tinygen.models.model import Encodes

STEPS = 10  # of a path
IMAGE_PAIRS, CODE_PAIRS = 6, 4


def lerp(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    """The points a + t (b - a) of the line from a to b (latent,), for t (T,): (T, latent)."""
    return a + t[:, None] * (b - a)


def slerp(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    """As `lerp`, along the arc on which the length changes evenly, too: halfway, normal codes stay as long as they are.

    Source: White, Sampling Generative Networks (2016), section 2.1.
    """
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    angle = math.acos(min(max(float(a @ b) / lengths, -1), 1)) if lengths else 0.0
    if math.sin(angle) < 1e-6:  # one direction, opposite ones, or none: there is no arc between them
        return lerp(a, b, t)
    return (np.sin((1 - t) * angle)[:, None] * a + np.sin(t * angle)[:, None] * b) / math.sin(angle)


def interpolation(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """Decoded codes on the way from one test image to another; without an encoder, from one random code to another."""
    return between_images(model, test.images) if isinstance(model, Encodes) else between_codes(model, rng)


def between_images(model: Any, images: np.ndarray) -> ImageGrid:
    """Pairs of images, each with the decoded line between the images' codes."""
    images = images[np.arange(2 * IMAGE_PAIRS) % len(images)]
    t, z = np.linspace(0, 1, STEPS), model.encode(images)
    lines = np.concatenate([lerp(a, b, t) for a, b in zip(z[::2], z[1::2], strict=True)])
    between = model.levels.to_gray(model.decode(lines)).reshape(IMAGE_PAIRS, STEPS, *images.shape[1:])
    ends = model.levels.to_gray(images).reshape(IMAGE_PAIRS, 2, *images.shape[1:])
    rows = np.concatenate([ends[:, :1], between, ends[:, 1:]], axis=1)
    return ImageGrid(
        rows.reshape(-1, *images.shape[1:]), STEPS + 2, "Decoded codes between those of two test images", 256, (),
        ["test\nimage", *(f"{share:.2f}" for share in t), "test\nimage"],
        ("", "share of the way from the left one's code to the right one's"),
    )  # fmt: skip


def between_codes(model: Any, rng: np.random.Generator) -> ImageGrid:
    """Pairs of codes from the prior, of one class if there are classes: the decoded line, then the arc."""
    t, z = np.linspace(0, 1, STEPS), model.codes(2 * CODE_PAIRS, rng)
    paths = [path(a, b, t) for a, b in zip(z[::2], z[1::2], strict=True) for path in (lerp, slerp)]
    labels = model.condition.draw(CODE_PAIRS, rng)
    told = () if labels is None else (np.repeat(labels, 2 * STEPS, axis=0),)
    return ImageGrid(
        model.levels.to_gray(model.decode(np.concatenate(paths), *told)), STEPS, "From code to code, four pairs", 256,
        ["line", "arc"] * CODE_PAIRS, [f"{share:.2f}" for share in t], ("", "share of the way"),
    )  # fmt: skip
