"""Plots of autoencoders (lecture slides 46 and 92 to 97), `tinygen plot RUN NAME`.

`reconstructions` and `scatter` need a model that `Encodes`, `prior` one that `Decodes`, the others latent variables.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np

from tinygen.data import Dataset
from tinygen.metrics.features import class_names
from tinygen.metrics.metric import Chart, ImageGrid, Plot
from tinygen.models.interpolation import interpolation
from tinygen.models.vae.estimates import ACTIVE, activity, kl_by_variable

MARKERS = "o^sDvP*X"  # of classes: each for ten of them, in the ten colors


def reconstructions(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """Test images, and below each its reconstruction."""
    columns = min(10, len(test))
    images = test.images[: min(30, len(test)) // columns * columns]
    pairs = np.stack([model.levels.to_gray(images), _decoded(model, model.encode(images))])
    rows = pairs.reshape(2, -1, columns, *images.shape[1:]).swapaxes(0, 1)  # one of each in turn
    names = ["test image", "reconstruction"] * rows.shape[0]
    return ImageGrid(rows.reshape(-1, *images.shape[1:]), columns, "Test images and their reconstructions", 256, names)


def prior(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """Decoded codes from the prior: the means of p(x | z), without its noise."""
    z = model.codes(64, rng)
    return ImageGrid(_decoded(model, z), 8, "Means of p(x | z) for z from the prior", 256)


def manifold(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """The plane of the two most used latent variables: an image for each pair of quantiles (slide 94)."""
    used = _most_used(model, test)
    values = _values(model, np.array([NormalDist().inv_cdf((i + 0.5) / 20) for i in range(20)]))
    z = np.full((1, model.size), 0.0 if model.size == model.latent else model.latent / model.size)
    for variable in used[:2]:
        z = _set(model, z, variable, values)
    others = ", the others at the prior's mean" if model.latent > 2 else ""
    variables = [f"latent variable {v}" for v in used[1::-1]]
    return ImageGrid(
        _decoded(model, z), len(values), f"Decoded codes, the two most used latent variables varied{others}", 256,
        _names(values) if len(variables) > 1 else (), _names(values), (" ".join(variables[:-1]), variables[-1]),
    )  # fmt: skip


def traversals(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """Changes of a test image by one latent variable at a time (slide 96)."""
    code, used = model.encode(test.images[:1]), _most_used(model, test)[:10]
    values = _values(model, np.linspace(-3, 3, 11))
    z = np.concatenate([_set(model, code, variable, values) for variable in used])
    names, kind = [f"variable {v}" for v in used], "value" if model.size == model.latent else "category"
    return ImageGrid(
        _decoded(model, z), len(values), "A test image, one latent variable varied at a time, the most used first", 256,
        names, _names(values), ("", f"its {kind}"),
    )  # fmt: skip


def _values(model: Any, numbers: np.ndarray) -> np.ndarray:
    """The values that a latent variable can be set to: these numbers (n, 1), or each of its categories (n, n)."""
    return numbers[:, None] if model.size == model.latent else np.eye(model.size // model.latent)


def _names(values: np.ndarray) -> list[str]:
    """The names of `_values`: the numbers, or the categories' numbers."""
    return [f"{v[0]:.1f}" for v in values] if values.shape[1] == 1 else [str(i) for i in range(len(values))]


def _set(model: Any, z: np.ndarray, variable: int, values: np.ndarray) -> np.ndarray:
    """Codes (N, size) with one variable set to each of the values in turn: (n * N, size), the values outermost."""
    z = np.tile(z, (len(values), 1, 1))
    width = model.size // model.latent
    z[:, :, variable * width : (variable + 1) * width] = values[:, None]
    return z.reshape(-1, model.size)


def scatter(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """Where the test images' codes lie, colored by class, along the codes' two main directions."""
    codes = model.encode(test.images[:3000])
    codes = codes - codes.mean(axis=0)
    _, extents, directions = np.linalg.svd(codes, full_matrices=False)
    points = codes @ directions[:2].T if min(codes.shape) > 1 else np.pad(codes[:, :1], ((0, 0), (0, 1)))
    labels = None if test.labels is None else test.labels[: len(codes)]
    shares = [*(100 * extents**2 / max((extents**2).sum(), 1e-30)), 0.0]

    def draw(axes: Any) -> None:
        for i, name in enumerate([""] if labels is None else class_names(test)):
            own = points if labels is None else points[labels == i]
            label = name.lstrip("_") or str(i)  # matplotlib leaves out what begins with _
            axes.scatter(*own.T, s=9, color=f"C{i % 10}", marker=MARKERS[i // 10 % len(MARKERS)], alpha=0.8,
                         linewidths=0, label=label)  # fmt: skip
        if labels is not None:
            axes.figure.legend(loc="outside right center", markerscale=2.5, frameon=False)
        axes.set_xlabel(f"first principal component of the codes ({shares[0]:.0f} % of their variance)")
        axes.set_ylabel(f"second principal component ({shares[1]:.0f} %)")
        axes.set_aspect("equal", "datalim")

    return Chart(draw, f"Codes of {len(codes):,} test images{'' if labels is None else ', by class'}")


def variables(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """The KL divergence of each latent variable as a bar, those in use (active) in another color."""
    images = test.images[:1000]
    kl, active = kl_by_variable(model, images), activity(model, images) > ACTIVE
    order = kl.argsort()[::-1]

    def draw(axes: Any) -> None:
        for of, color, name in ((active, "C0", "active"), (~active, "C3", "not active")):
            chosen = np.flatnonzero(of[order])
            if len(chosen):
                axes.bar(chosen, kl[order][chosen], color=color, label=f"{name} ({len(chosen)})")
        if len(kl) <= 32:
            axes.set_xticks(range(len(kl)), [str(v) for v in order])
        axes.set(xlabel="latent variable, the most used first", ylabel="KL divergence from the prior, nats")
        axes.legend()

    caption = f"{active.sum()} of {len(kl)} latent variables are active; the most used has {kl.max():.2f} nats"
    return Chart(draw, caption)


def analogies(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """test images, and below each its z with every class y in turn"""
    columns = min(10, len(test))
    images, names = test.images[:columns], class_names(train)
    z = model.given(np.tile(model.encode(images), (model.classes, 1)), np.repeat(np.arange(model.classes), columns))
    shown = np.concatenate([model.levels.to_gray(images), _decoded(model, z)])
    caption = "Test images, and what has their z and another class"
    return ImageGrid(shown, columns, caption, 256, ["test image", *names[: model.classes]])


def _most_used(model: Any, test: Dataset) -> np.ndarray:
    return kl_by_variable(model, test.images[:1000]).argsort()[::-1]


def _decoded(model: Any, z: np.ndarray) -> np.ndarray:
    return model.levels.to_gray(model.decode(z))


PLOTS = {
    "reconstruct": reconstructions, "prior": prior, "traverse": traversals, "interpolate": interpolation,
    "manifold": manifold, "scatter": scatter, "variables": variables,
}  # fmt: skip
