"""How likely a model says that images are: for every model whose likelihood can be computed (`HasLogProb`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygen.data import Dataset
from tinygen.metrics.metric import Chart, Plot

COMPARED = 500  # images of each kind
INVERTED = "inverted test images"


def typicality(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """The likelihoods of training images, test images, inverted ones and samples, as histograms.

    A model that has learned the density of the images draws some that are as likely as they are. That an image is
    likely doesn't make it typical: inverted images, of a kind that it never saw, may be likelier still (Nalisnick et
    al., Detecting out-of-distribution inputs to deep generative models using typicality, 2019).
    """
    found = {name: -model.bits_per_dim(1.0) * log_p for name, log_p in log_probs(model, train, test, rng).items()}
    low, high = np.percentile(np.concatenate([found[kind] for kind in found if kind != INVERTED]), [0.5, 99.5])
    margin = (high - low) / 2  # inverted images can lie very far out
    bins = np.linspace(low - margin, high + margin, 60)

    def draw(axes: Any) -> None:
        for i, (name, bits) in enumerate(found.items()):
            beyond = int(((bits < bins[0]) | (bits > bins[-1])).sum())
            outside = f", {beyond} beyond" if beyond else ""
            axes.hist(bits, bins, histtype="step", linewidth=2, color=f"C{i}",
                      label=f"{name} (mean {bits.mean():.3f}{outside})")  # fmt: skip
        axes.set(xlabel="-log p(x), bits/dim", ylabel="images", ylim=(0, 1.4 * axes.get_ylim()[1]))  # the legend's
        axes.legend()

    return Chart(draw, f"How likely {len(found['samples']):,} images of each kind are")


def log_probs(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """log p of as many images of each kind, by the kind's name, in nats, (N,) each."""
    n = min(COMPARED, len(train), len(test))
    known, new = (model.condition.used(None if d.labels is None else d.labels[:n]) for d in (train, test))
    drawn = model.condition.in_turn(n)
    return {
        "training images": model.log_prob(train.images[:n], known),
        "test images": model.log_prob(test.images[:n], new),
        INVERTED: model.log_prob(model.levels - 1 - test.images[:n], new),
        "samples": model.log_prob(model.sample(n, rng, labels=drawn), drawn),
    }
