"""Plots of diffusion and its relatives, `tinygen plot RUN NAME`: from noise to images, and where the loss is."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygen import no_grad
from tinygen.data import Dataset
from tinygen.metrics.distance import precision_recall
from tinygen.metrics.features import class_names, feature_net, has_features
from tinygen.metrics.metric import Chart, ImageGrid, Plot
from tinygen.models.completion import completions
from tinygen.models.interpolation import STEPS, slerp

SHOWN, STATES = 8, 12  # images of a strip, and how many of their states
BINS, IMAGES = 20, 200  # of time, and images for each, in the plot of the loss
PAIRS = 6
GUIDANCES, GUIDED, LEAST = (0, 1, 3), 400, 20  # how much guidance; samples of each, and how many are too few


def denoising(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """From noise to images, step by step."""
    labels = model.condition.in_turn(SHOWN)
    states = list(model.states(model.noise(SHOWN, rng), labels, rng))
    shown = np.round(np.linspace(0, len(states) - 1, min(STATES, len(states)))).astype(int)
    images = np.stack([model.levels.round(states[i]) for i in shown], axis=1)
    caption = f"From noise to images in {len(states) - 1} steps"
    return ImageGrid(
        images.reshape(-1, *model.image_shape), len(shown), caption, None, (), [str(i) for i in shown],
        ("", "steps taken"),
    )  # fmt: skip


def loss_by_time(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """The loss on test images by the time: how well is it seen what is noise, where there is little of it, or much?"""
    rows = rng.integers(0, len(test), IMAGES)
    images = model.network_input(test.images[rows]).numpy()
    labels = model.condition.used(test.labels)
    labels = None if labels is None else labels[rows]
    times, errors = [], []
    with no_grad():
        for _ in range(BINS):
            x, t, target = model.lesson(images, rng)
            said = model.network(model.tensor(x), model.network.current.time(t), labels).numpy()
            times.append(t)
            errors.append(((said - target) ** 2).mean((1, 2, 3)))
    time, error = np.concatenate(times), np.concatenate(errors)
    bins = np.minimum((time * BINS).astype(int), BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    mean = np.bincount(bins, error, BINS) / np.maximum(count, 1)

    def draw(axes: Any) -> None:
        axes.stairs(mean, np.linspace(0, 1, BINS + 1), color="C0", linewidth=2)
        axes.axhline(error.mean(), color="C7", linewidth=0.8, label=f"mean {error.mean():.4f}")
        axes.set(
            xlabel="time, from the image (0) to noise (1)", ylabel="mean squared error", xlim=(0, 1), ylim=(0, None)
        )
        axes.legend()

    return Chart(draw, "The loss on test images, by the time")


def interpolation(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """Images on the way from one test image to another, by way of the noise that they come from."""
    images, share = test.images[np.arange(2 * PAIRS) % len(test)], np.linspace(0, 1, STEPS)
    z = model.encode(images)
    arcs = np.concatenate([slerp(a, b, share) for a, b in zip(z[::2], z[1::2], strict=True)])
    between = model.levels.to_gray(model.decode(arcs)).reshape(PAIRS, STEPS, *model.image_shape)
    ends = model.levels.to_gray(images).reshape(PAIRS, 2, *model.image_shape)
    rows = np.concatenate([ends[:, :1], between, ends[:, 1:]], axis=1)
    return ImageGrid(
        rows.reshape(-1, *model.image_shape), STEPS + 2, "From test image to test image, by way of their noise", 256,
        (), ["test\nimage", *(f"{s:.2f}" for s in share), "test\nimage"], ("", "share of the arc from noise to noise"),
    )  # fmt: skip


def steps(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """The same noise in few steps and in many, none of which adds any: what do more steps bring?"""
    noise, labels, kept = model.noise(SHOWN, rng), model.condition.in_turn(SHOWN), (model.steps, model.eta)
    counts, rows = sorted({min(count, len(model.noising)) for count in (2, 5, 10, 20, 50, 250)}), []
    try:
        for count in counts:
            model.steps, model.eta = count, 0.0
            *_, images = model.states(noise, labels, rng)
            rows.append(model.levels.round(images))
    finally:
        model.steps, model.eta = kept
    caption = "The same noise in more and more steps, without noise on the way"
    return ImageGrid(np.concatenate(rows), SHOWN, caption, None, [str(c) for c in counts], (), ("steps", ""))


def guidance(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """The same noise and classes, with more and more guidance."""
    labels = model.condition.in_turn(min(model.condition.classes, SHOWN + 2))
    noise, kept, rows = model.noise(len(labels), rng), model.guidance, []
    names = [class_names(train)[i] for i in labels]
    try:
        for model.guidance in GUIDANCES:
            rows.append(
                model.levels.round(model.last(model.states(noise, labels, np.random.default_rng(0)), "drawing"))
            )
    finally:
        model.guidance = kept
    return ImageGrid(
        np.concatenate(rows), len(labels), "The same noise, with more and more guidance", None,
        [f"{w:g}" for w in GUIDANCES], names, ("guidance", "class"),
    )  # fmt: skip


def tradeoff(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """How often classes are as asked for, precision and recall, by the guidance: images alone, if there are few."""
    n, kept, found = min(GUIDED, len(test), len(train)), model.guidance, []
    if not has_features(train) or n < LEAST:
        return guidance(model, train, test, rng)
    net, labels = feature_net(train), model.condition.draw(n, rng)
    real = net.of(test.images[:n])[0]
    try:
        for model.guidance in GUIDANCES:
            features, classes = net.of(model.sample(n, np.random.default_rng(0), labels=labels))
            found.append([(classes == labels).mean(), *precision_recall(real, features)])
    finally:
        model.guidance = kept

    def draw(axes: Any) -> None:
        for i, name in enumerate(("classes as asked for", "precision", "recall")):
            axes.plot(GUIDANCES, [row[i] for row in found], "o-", color=f"C{i}", label=name)
        axes.set(xlabel="guidance", ylabel=f"share, of {n} samples", ylim=(0, 1.02), xticks=GUIDANCES)
        axes.legend()

    return Chart(draw, "What guidance does: " + "; ".join(
        f"{w:g}: {100 * a:.1f} % as asked for, precision {p:.2f}, recall {r:.2f}"
        for w, (a, p, r) in zip(GUIDANCES, found, strict=True)
    ))  # fmt: skip


PLOTS = {"denoising": denoising, "losses": loss_by_time}
DIFFUSION = {"complete": completions, "interpolate": interpolation, "steps": steps}
GUIDED_PLOTS = {"guidance": guidance, "tradeoff": tradeoff}
