"""python -m benchmarks.models.games: the zoo of GANs, on Fashion-MNIST, after equal minutes of one core each.

What a step of each costs is measured first, in CPU time and in turns; then each takes as many steps as its minutes are
worth, whatever else the machine does meanwhile. results.json is written after each, so that the same command goes on
where it was stopped; games.md is the table, NAME.png a grid of samples, NAME-PLOT.png what only some games can show.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy's own threads would get in the way of tinygen's

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.models.autoencoders import table
from benchmarks.models.likelihoods import DATA, SEED, Entry, trained, training
from benchmarks.timing import alternate
from tinygen import kernels
from tinygen.cli.parser import Parser, number
from tinygen.data import Dataset, subset
from tinygen.metrics.features import class_names
from tinygen.metrics.metric import Metric
from tinygen.metrics.quality import calibration
from tinygen.models.gan.objectives import OBJECTIVES
from tinygen.report.images import save_grid, save_plot
from tinygen.training.config import Config

OWN: dict[str, tuple[dict[str, Any], float]] = {  # options and learning rates, where others are better
    "wgan-gp": ({}, 4e-4), "began": ({"width": 32}, 1e-3), "ebgan": ({"width": 32}, 1e-3),
    "bigan": ({}, 1e-3),
}  # fmt: skip
MODELS = {  # games that are models of their own, with the plots that only they have
    "acgan": (), "infogan": ("categories", "numbers"), "bigan": ("reconstruct",), "cogan": ("pairs",),
}  # fmt: skip
ANOMALIES = "anogan"  # a DCGAN of tops, which has to tell shoes from them
TOPS, SHOES = (0, 2, 4, 6), (5, 7, 9)  # classes of Fashion-MNIST
NAMES = (*OBJECTIVES, *MODELS, ANOMALIES)
TIMED = 3.0  # seconds of each entry's steps that are timed
HEAD = "game | steps of G | images | CPU s | FD* | over PCA-Gaussian's | precision | recall | missing | rarest class"


def main(argv: list[str] | None = None) -> int:
    """Train all games, or those named, that aren't in results.json yet, and write the table."""
    p = Parser(prog="python -m benchmarks.models.games", description=__doc__.splitlines()[0])
    p.add_argument("games", nargs="*", metavar="GAME", choices=NAMES, help="of %(choices)s (default: all)")
    p.add_argument("--minutes", type=number, default=4.0, help="of one core, for each (default %(default)s)")
    p.add_argument("--data", default=DATA, help="as of `tinygen train` (default %(default)s)")
    p.add_argument("--out", type=Path, default=Path("benchmarks/results/games"), help="folder (default %(default)s)")
    args = p.parse_args(argv)
    kernels.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    results, file = {}, args.out / "results.json"
    if file.exists():
        results = json.loads(file.read_text())
    train, test = Config("dcgan", args.data).datasets()
    entries = [entry(name) for name in args.games or NAMES if results.get(name, {}).get("minutes") != args.minutes]
    cost = costs(entries, train)
    for one in entries:
        steps = max(1, round(60 * args.minutes / cost[one.name]))
        row = {"minutes": args.minutes, "steps": steps, "CPU s": round(steps * cost[one.name])}
        results[one.name] = row | played(one, steps, train, test, args.out)
        new = file.with_suffix(".new")
        new.write_text(json.dumps(results, indent=1))
        new.replace(file)
    (args.out / "games.md").write_text(games_table(results, train, test) + "\n")
    print((args.out / "games.md").read_text(), end="")
    return 0


def entry(name: str) -> Entry:
    """A model with the options and the learning rate that a game takes."""
    options, lr = OWN.get(name, ({}, 2e-4))
    if name in MODELS:
        return Entry(name, name, options, 256, lr)
    objective = {} if name == ANOMALIES else {"objective": name}
    return Entry(name, "dcgan", {**objective, **options}, 256, lr)


def played(one: Entry, steps: int, train: Dataset, test: Dataset, out: Path) -> dict[str, Any]:
    """What is known of a game after so many steps, with its pictures in a folder."""
    if one.name == ANOMALIES:
        train = subset(train, np.isin(train.labels, TOPS))
        test = subset(test, np.isin(test.labels, (*TOPS, *SHOES)))
    row, model = trained(one, train, test, steps, math.inf)
    save_grid(out / f"{one.name}.png", model.sample(60, np.random.default_rng(SEED)), train.levels, columns=10)
    for name in ("anomalies",) if one.name == ANOMALIES else MODELS.get(one.name, ()):
        plot = model.family.plots[name](model, train, test, np.random.default_rng(SEED))
        save_plot(out / f"{one.name}-{name}.png", plot, train.levels)
    return row


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
         f"{known.precision[name]:.2f}", f"{known.recall[name]:.2f}", "", "", "", ""]
        for name in ("real images", one)
    ]  # fmt: skip


def games_table(results: dict[str, Any], train: Dataset, test: Dataset) -> str:
    """The table of all games that are known, the best first; beneath it what AnoGAN reached, if that is known."""
    found = {name: [Metric(**m) for m in row["metrics"]] for name, row in results.items()}
    anomalies = "".join(f"\n\n{ANOMALIES}: {m}" for m in found.pop(ANOMALIES, [])[-1:])
    rows = baselines(train, test)
    for name in sorted(found, key=lambda name: found[name][0].value):
        row = results[name]
        about = [name, row["steps"], f"{row['images']:,}", row["CPU s"]]
        rows.append([*about, *shown(found[name], class_names(train))])
    return table(f"{HEAD} | memorization | its own", rows) + anomalies


def shown(metrics: list[Metric], classes: list[str]) -> list[str]:
    """What the table says of `metrics.quality`, and of the first metric that only this game has."""
    distance, precision, recall, rarest, memorization, *own = metrics
    least = rarest.name.partition(", ")[2]
    shares = [rarest.value, *(rarest.baselines[name] for name in classes if name != least)]
    return [
        f"{distance.value:.1f}", f"{distance.value / distance.baselines['PCA-Gaussian']:.2f}", f"{precision.value:.2f}",
        f"{recall.value:.2f}", str(sum(share < 10 / len(classes) for share in shares)), f"{least} {rarest.value:.1f} %",
        f"{memorization.value:.2f}", f"{own[0].name} {own[0].value:.2f} {own[0].unit}".strip() if own else "",
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
