"""What autoencoders know, as pictures (lecture slides 46 and 92 to 97): each a command, `tinygen NAME RUN`.

They need of a model `encode` (images to codes), `means` (codes to images), and for those of latent variables
`kl_by_variable` and `posterior`.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np

from tinygen.data import Dataset
from tinygen.metrics.metric import Plot
from tinygen.models.vae.estimates import ACTIVE, activity, kl_by_variable

COLOURS = np.array([[230, 75, 65], [70, 140, 235], [245, 185, 45], [60, 175, 95], [165, 100, 220], [250, 135, 60],
                    [65, 200, 210], [235, 110, 175], [150, 110, 75], [150, 155, 165]], np.uint8)  # fmt: skip
PAPER = 250


def reconstructions(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """draw test images above their reconstructions"""
    images = test.images[:30]
    rows = [np.stack([model.levels.to_grey(images), _decoded(model, model.encode(images))])[:, i : i + 10]
            for i in range(0, len(images), 10)]  # fmt: skip
    return Plot(np.concatenate([r.reshape(-1, *r.shape[2:]) for r in rows]), min(10, len(images)),
                   "test images, and below each its reconstruction", 256)  # fmt: skip


def prior(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """draw what codes from the prior stand for: the decoder's means, without the noise of p(x given z)"""
    z = model.prior(64, rng)
    return Plot(_decoded(model, z), 8, "means of p(x given z) for z from the prior", 256)


def interpolations(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """draw the way from one test image's code to another's, in a straight line"""
    pairs = model.encode(test.images[:12])
    share = np.linspace(0, 1, 10)[:, None]
    z = [a + share * (b - a) for a, b in zip(pairs[::2], pairs[1::2], strict=False)]
    return Plot(_decoded(model, np.concatenate(z)), 10, "each row: from one test image to another", 256)


def manifold(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """draw the plane of the two most used latent variables: an image for each pair of quantiles (slide 94)"""
    used = _most_used(model, test)
    values = _values(model, np.array([NormalDist().inv_cdf((i + 0.5) / 20) for i in range(20)]))
    z = np.full((1, model.size), 0.0 if model.size == model.latent else model.latent / model.size)
    for variable in used[:2]:
        z = _set(model, z, variable, values)
    names = " and ".join(map(str, used[1::-1]))
    return Plot(_decoded(model, z), len(values), f"latent variables {names} down and across", 256)


def traversals(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """draw what one latent variable at a time does to a test image (slide 96)"""
    code, used = model.encode(test.images[:1]), _most_used(model, test)[:10]
    values = _values(model, np.linspace(-3, 3, 11))
    z = np.concatenate([_set(model, code, variable, values) for variable in used])
    caption = f"each row: one variable from end to end, the most used first: {', '.join(map(str, used))}"
    return Plot(_decoded(model, z), len(values), caption, 256)


def _values(model: Any, numbers: np.ndarray) -> np.ndarray:
    """What a latent variable can be set to: these numbers (n, 1), or each of its categories (n, n)."""
    return numbers[:, None] if model.size == model.latent else np.eye(model.size // model.latent)


def _set(model: Any, z: np.ndarray, variable: int, values: np.ndarray) -> np.ndarray:
    """Codes (N, size) with one variable set to each of the values in turn: (n * N, size), the values outermost."""
    z = np.tile(z, (len(values), 1, 1))
    width = model.size // model.latent
    z[:, :, variable * width : (variable + 1) * width] = values[:, None]
    return z.reshape(-1, model.size)


def scatter(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """draw where the test images' codes lie, coloured by class, along the codes' two main directions"""
    codes, labels = model.encode(test.images[:3000]), test.labels
    codes = codes - codes.mean(axis=0)
    _, _, directions = np.linalg.svd(codes, full_matrices=False)
    points = codes @ directions[:2].T if codes.shape[1] > 1 else np.column_stack([codes, codes * 0])
    labels = np.zeros(len(codes), int) if labels is None else labels[: len(codes)]
    return Plot(dots(points, labels)[None], 1, f"codes of {len(codes):,} test images, coloured by class", 256)


def variables(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """draw the KL divergence of each latent variable as a bar, those in use (active) in blue"""
    images = test.images[:1000]
    kl, active = kl_by_variable(model, images), activity(model, images) > ACTIVE
    order = kl.argsort()[::-1]
    caption = f"{active.sum()} of {len(kl)} variables active; the most used has {kl.max():.2f} nats"
    return Plot(bars(kl[order], np.where(active[order], 1, 9))[None], 1, caption, 256)


def _most_used(model: Any, test: Dataset) -> np.ndarray:
    return kl_by_variable(model, test.images[:1000]).argsort()[::-1]


def _decoded(model: Any, z: np.ndarray) -> np.ndarray:
    return model.levels.to_grey(model.decode(z))


# ------------------------------------------------------------------------------------------- drawings, (3, side, side)


def dots(points: np.ndarray, labels: np.ndarray, side: int = 512) -> np.ndarray:
    """Points (N, 2) as dots whose colour is their label's; the second axis points up."""
    picture = np.full((side, side, 3), PAPER, np.uint8)
    extent = np.abs(points).max() or 1.0
    at = np.round((points * [1, -1] / extent * 0.97 + 1) / 2 * (side - 4)).astype(int)
    for dy in range(3):
        for dx in range(3):
            picture[at[:, 1] + dy, at[:, 0] + dx] = COLOURS[labels % len(COLOURS)]
    return picture.transpose(2, 0, 1)


def bars(values: np.ndarray, colours: np.ndarray, side: int = 512) -> np.ndarray:
    """Values (N,), not negative, as bars from the bottom, the largest over the whole height."""
    picture = np.full((side, side, 3), PAPER, np.uint8)
    edges = np.linspace(8, side - 8, len(values) + 1).round().astype(int)
    heights = (values / (values.max() or 1.0) * (side - 16)).round().astype(int)
    for left, right, height, colour in zip(edges[:-1], edges[1:], heights, colours, strict=True):
        picture[side - 8 - height : side - 8, left : max(right - 2, left + 1)] = COLOURS[colour]
    return picture.transpose(2, 0, 1)


PLOTS = {
    "reconstruct": reconstructions, "prior": prior, "traverse": traversals, "interpolate": interpolations,
    "manifold": manifold, "scatter": scatter, "variables": variables,
}  # fmt: skip
