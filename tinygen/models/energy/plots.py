"""Plots of models with a chain: what hidden units see, how chains go, and how soon they forget.

`tinygen plot RUN NAME`. `filters` is of Boltzmann machines, the others are of every `MarkovChain`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygen.data import Dataset
from tinygen.metrics.metric import Chart, ImageGrid, Plot
from tinygen.models.completion import completions

FILTERS = 64
SHOWN = 0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000  # transitions
TRACKED, LAGS = 200, 300  # chains and transitions of the plot of mixing
TICKS = 0, 1, 3, 10, 30, 100, 300


def filters(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """The weights of the hidden units with the largest ones: bright where a pixel speaks for the unit."""
    weight = model.weight.numpy()[: model.dimensions].T
    used = weight[np.argsort(-(weight * weight).sum(axis=1), kind="stable")[:FILTERS]]
    scale = np.quantile(np.abs(used), 0.995) + 1e-12  # a few weights are far larger than all others
    gray = np.round(np.clip(used / scale, -1, 1) * 127.5 + 127.5).astype(np.uint8)
    caption = f"Weights of {len(used)} of {len(weight)} hidden units, from {-scale:.2g} (black) to {scale:.2g} (white)"
    return ImageGrid(gray.reshape(-1, *model.image_shape), None, caption, 256)


def chains(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """Chains over time: five that start at test images, and five at independent pixels."""
    n = min(5, len(test))
    rows = []
    for state in (model.state(test.images[:n]), model.start(n, rng)):
        seen = enumerate(model.chain(state, SHOWN[-1], rng))
        rows.append(np.stack([model.images(state) for i, state in seen if i in SHOWN], axis=1))
    images = np.concatenate(rows).reshape(-1, *model.image_shape)
    names = ["from a test\nimage", *[""] * (n - 1), "from inde-\npendent\npixels", *[""] * (n - 1)]
    caption = "Chains, and after how many transitions they are shown"
    return ImageGrid(images, len(SHOWN), caption, None, names, [str(i) for i in SHOWN], ("", "transitions"))


def mixing(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """How soon a chain forgets: the correlation of its image with the one that it had so many transitions before."""
    correlation = autocorrelation(model, train.images[:TRACKED], LAGS, rng)

    def draw(axes: Any) -> None:
        axes.plot(range(LAGS + 1), correlation, color="C0")
        axes.axhline(0, color="C7", linewidth=0.8)
        axes.set(xlabel="transitions", ylabel="correlation with the image before them", ylim=(-0.1, 1.02))
        axes.set_xscale("symlog")
        axes.set_xlim(0, LAGS)
        axes.set_xticks(TICKS, [str(lag) for lag in TICKS])

    below = np.flatnonzero(correlation < 0.5)
    half = f"below 1/2 from transition {below[0]} on" if len(below) else f"above 1/2 for {LAGS} transitions"
    return Chart(draw, f"The correlation of a chain's images is {half}")


def autocorrelation(model: Any, images: np.ndarray, lags: int, rng: np.random.Generator) -> np.ndarray:
    """The correlation of the images of chains with those 0, 1, .. lags transitions later, (lags + 1,).

    The chains start at the images and run as many transitions again before that. Over all chains and pixels, each
    pixel about its own mean.
    """
    seen = []
    for i, state in enumerate(model.chain(model.state(images), 2 * lags, rng)):
        if i >= lags:
            seen.append(model.images(state).reshape(len(images), -1))
    x = np.stack(seen).astype(np.float32)  # (lags + 1, chains, values)
    x -= x.mean(axis=(0, 1), dtype=np.float64)
    products = np.einsum("tnd,nd->t", x, x[0])
    norms = np.sqrt(np.einsum("tnd,tnd->t", x, x) * products[0])
    return products / np.maximum(norms, 1e-12)


CHAIN_PLOTS = {"chains": chains, "complete": completions, "mixing": mixing}
PLOTS = {"filters": filters, **CHAIN_PLOTS}
