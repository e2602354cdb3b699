"""Tasks: what a model from images to images is given, and what it is to make of it.

A task makes a pair (input, target) of every image, so that data sets stay images and labels. Two domains without pairs
are two independent draws: the inputs of one batch, the targets of another.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np

from tinygen.data.dataset import Dataset

Name = Literal["edges", "color", "half"]
Task = Callable[[np.ndarray, np.ndarray | None, int, np.random.Generator], tuple[np.ndarray, np.ndarray]]

EDGE = 0.2  # how steep an edge is at least: a part of all levels from one pixel to the next
TINTS = np.array([[1, p, q] for p, q in ((0.2, 0.2), (0.6, 0.2))])  # red and orange; the others have the channels moved
TINTS = np.concatenate([np.roll(TINTS, shift, axis=1) for shift in range(3)])  # (hues, 3), the largest of each is 1
PALETTE = np.concatenate([TINTS, np.ones((1, 3))])  # the six tints, and gray
DARK = 8  # a pixel below one of so many parts of the greatest value has no color that one could tell
NONE = -100  # the color of such pixels, which the loss leaves out
LIKELY = 0.7, 0.2, 0.1  # the probabilities of a class's three hues


def edges(
    images: np.ndarray, labels: np.ndarray | None, levels: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Lines where the brightness changes -> the images."""
    return outlines(images, levels), images


def color(
    images: np.ndarray, labels: np.ndarray | None, levels: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Gray images -> colored ones: of color images, the largest of their three values -> themselves.

    Gray images are colored: each is multiplied by one of six colors of `TINTS`, drawn with the probabilities of its
    class, `hues`. So it is known how well the colors can be told.

    Raises ValueError for gray images without labels.
    """
    if images.shape[1] == 1:
        if labels is None:
            raise ValueError("task color: draws a gray image's hue given its class, but the images have no labels")
        chance = hues(int(labels.max(initial=0)) + 1).cumsum(axis=1)
        hue = (rng.random(len(images))[:, None] < chance[labels]).argmax(axis=1)
        images = np.round(images * TINTS[hue][:, :, None, None]).astype(np.uint8)
    return images.max(axis=1, keepdims=True), images


def half(
    images: np.ndarray, labels: np.ndarray | None, levels: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The upper half, with the middle level in the `hole` beneath -> the whole."""
    return np.where(hole(*images.shape[2:]), np.uint8(levels // 2), images), images


TASKS: dict[str, Task] = {"edges": edges, "color": color, "half": half}


def named(name: str) -> Task:
    """A task by its name: a function of images (N, C, H, W) uint8, labels (N,) or None, levels and rng.

    It gives inputs and targets, uint8 of the same levels and sides. Raises ValueError for a name that none has.
    """
    if name not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {name!r}")
    return TASKS[name]


def shapes(name: str, image_shape: tuple[int, ...]) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """The shapes (C, H, W) of a task's inputs and targets, of images of a shape."""
    pair = named(name)(np.zeros((1, *image_shape), np.uint8), np.zeros(1, np.int64), 2, np.random.default_rng(0))
    one, other = (images.shape[1:] for images in pair)
    return one, other


@functools.lru_cache(maxsize=4)  # a Dataset never changes, and is known by its identity: so are its targets
def targets(name: str, dataset: Dataset) -> Dataset:
    """The data set of a task's targets, always the same: itself, if its images are the targets."""
    _, images = named(name)(dataset.images, dataset.labels, dataset.levels, np.random.default_rng(0))
    return dataset if images is dataset.images else replace(dataset, images=images)


# ------------------------------------------------------------------------------------------ what the tasks are made of


def outlines(images: np.ndarray, levels: int) -> np.ndarray:
    """Edges of images (N, C, H, W), as (N, 1, H, W) uint8: levels - 1 on an edge, 0 elsewhere.

    The channels' mean, 0 to 1, is filtered by Sobel's two kernels, divided by 8 so that they give the slope from pixel
    to pixel, with the border repeated. An edge is where the gradient's norm is `EDGE` or more.

    Source: Sobel & Feldman, A 3x3 isotropic gradient operator for image processing (1968).
    """
    gray = images.mean(axis=1, dtype=np.float32) * np.float32(1 / (levels - 1))
    x = np.pad(gray, ((0, 0), (1, 1), (1, 1)), mode="edge")
    across, down = x[:, :, 2:] - x[:, :, :-2], x[:, 2:] - x[:, :-2]  # each of two pixels, and 1 + 2 + 1 of them below
    dx = (across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]) / 8
    dy = (down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]) / 8
    return ((dx * dx + dy * dy >= EDGE * EDGE)[:, None] * (levels - 1)).astype(np.uint8)


def hues(classes: int) -> np.ndarray:
    """p(hue given class), (classes, hues) float64: class c has the hues c, c + 2 and c + 3, with .7, .2 and .1.

    The entropy of a row, .802 nats, is what no model of the hue given the class can get below.
    """
    table = np.zeros((classes, len(TINTS)))
    for step, p in zip((0, 2, 3), LIKELY, strict=True):
        table[np.arange(classes), (np.arange(classes) + step) % len(TINTS)] = p
    return table


def colors(gray: np.ndarray, colored: np.ndarray, levels: int) -> np.ndarray:
    """The color of the palette nearest to that of each pixel, (N, H, W), `NONE` where it is dark.

    gray: (N, 1, H, W) the largest of a pixel's values, colored: (N, 3, H, W).
    """
    dots = np.einsum("nchw,qc->nqhw", colored.astype(np.float32), PALETTE.astype(np.float32))
    squares = (PALETTE**2).sum(axis=1).astype(np.float32)[:, None, None]
    nearest = (squares * gray - 2 * dots).argmin(axis=1)  # |x - g p|^2 less |x|^2, over g
    return np.where(gray[:, 0] >= max(1, levels // DARK), nearest, NONE)


def hole(height: int, width: int) -> np.ndarray:
    """What `half` hides of an image, (H, W) bool: the lower half, of an odd height the larger part."""
    return np.broadcast_to(np.arange(height)[:, None] >= height // 2, (height, width))
