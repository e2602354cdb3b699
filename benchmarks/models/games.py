"""python -m benchmarks.models.games: a DCGAN by each objective, on Fashion-MNIST, after equal minutes of one core each.

What a step of each costs is measured first, in CPU time and in turns; then each takes as many steps as its minutes are
worth, whatever else the machine does meanwhile. games.md is the table, OBJECTIVE.png a grid of samples.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy's own threads would get in the way of tinygen's

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.models.autoencoders import data, table
from benchmarks.models.likelihoods import SEED, Entry, trained, training
from benchmarks.timing import alternate
from tinygen import kernels
from tinygen.cli.parser import Parser, number
from tinygen.data import Dataset
from tinygen.metrics.metric import Metric
from tinygen.metrics.quality import calibration
from tinygen.models.gan.objectives import OBJECTIVES
from tinygen.report.images import save_grid

OWN: dict[str, tuple[dict[str, Any], float]] = {  # options and learning rates, where others are better
    "wgan-gp": ({}, 4e-4), "began": ({"width": 32}, 1e-3),
}  # fmt: skip
TIMED = 3.0  # seconds of each entry's steps that are timed
HEAD = "objective | steps of G | images | CPU s | FD* | over the PCA-Gaussian's | precision | recall | rarest class"


def main(argv: list[str] | None = None) -> int:
    """Train by all objectives, or those named, and write the table."""
    p = Parser(prog="python -m benchmarks.models.games", description=__doc__.splitlines()[0])
    p.add_argument(
        "objectives", nargs="*", metavar="OBJECTIVE", choices=OBJECTIVES, help="of %(choices)s (default: all)"
    )
    p.add_argument("--minutes", type=number, default=4.0, help="of one core, for each (default %(default)s)")
    p.add_argument("--out", type=Path, default=Path("benchmarks/results/games"), help="folder (default %(default)s)")
    args = p.parse_args(argv)
    kernels.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    train, test = data(256)
    entries = [entry(objective) for objective in args.objectives or OBJECTIVES]
    cost, rows = costs(entries, train), baselines(train, test)
    for one in entries:
        steps = max(1, round(60 * args.minutes / cost[one.name]))
        row, model = trained(one, train, test, steps, math.inf)
        save_grid(args.out / f"{one.name}.png", model.sample(60, np.random.default_rng(SEED)), 256, columns=10)
        metrics = [Metric(**m) for m in row["metrics"]]
        rows.append([one.name, steps, f"{row['images']:,}", round(steps * cost[one.name]), *shown(metrics)])
        (args.out / "games.md").write_text(table(f"{HEAD} | memorization", rows) + "\n")
    print((args.out / "games.md").read_text(), end="")
    return 0


def entry(objective: str) -> Entry:
    """A DCGAN with the options and the learning rate that an objective takes."""
    options, lr = OWN.get(objective, ({}, 2e-4))
    return Entry(objective, "dcgan", {"objective": objective, **options}, 256, lr)


def costs(entries: list[Entry], train: Dataset) -> dict[str, float]:
    """CPU seconds that a step of each takes: the generator's, with the discriminator's that go with it."""
    states = {entry.name: training(entry, train) for entry in entries}
    for state in states.values():
        state.advance(0.0)
    timings = alternate({name: partial(state.advance, 0.0) for name, state in states.items()}, TIMED)
    return {name: timing.summary()["cpu"] for name, timing in timings.items()}


def baselines(train: Dataset, test: Dataset) -> list[list[object]]:
    """The rows of real images and of the linear model."""
    known, one = calibration(train, test), "PCA-Gaussian"
    return [
        [name, "", "", "", f"{known.distance[name]:.1f}", f"{known.distance[name] / known.distance[one]:.2f}",
         f"{known.precision[name]:.2f}", f"{known.recall[name]:.2f}", "", ""]
        for name in ("real images", one)
    ]  # fmt: skip


def shown(metrics: list[Metric]) -> list[str]:
    """What the table says of `metrics.quality`."""
    distance, precision, recall, rarest, memorization, *_ = metrics
    return [
        f"{distance.value:.1f}", f"{distance.value / distance.baselines['PCA-Gaussian']:.2f}", f"{precision.value:.2f}",
        f"{recall.value:.2f}", f"{rarest.name.partition(', ')[2]} {rarest.value:.1f} %", f"{memorization.value:.2f}",
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
