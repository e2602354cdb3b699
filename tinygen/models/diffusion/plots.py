"""Plots of diffusion and its relatives, `tinygen plot RUN NAME`: from noise to images, and where the loss is."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygen import no_grad
from tinygen.data import Dataset
from tinygen.metrics.metric import Chart, ImageGrid, Plot
from tinygen.models.completion import completions
from tinygen.models.interpolation import STEPS, slerp

SHOWN, STATES = 8, 12  # images of a strip, and how many of their states
BINS, IMAGES = 20, 200  # of time, and images for each, in the plot of the loss
PAIRS = 6


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


PLOTS = {"denoising": denoising, "losses": loss_by_time}
DIFFUSION = {"complete": completions, "interpolate": interpolation, "steps": steps}
