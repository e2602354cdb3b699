"""python -m benchmarks.models.energy: Boltzmann machines and a generative stochastic network (slides 17 to 21, 36).

Each is trained on thresholded Fashion-MNIST for so many CPU seconds of one thread. Its test metrics are printed, its
plots and samples written into --out.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy's own threads would get in the way of tinygen's

import functools
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.models import likelihoods
from benchmarks.models.likelihoods import SEED, Entry
from tinygen import kernels
from tinygen.cli.parser import Parser, number
from tinygen.data import Dataset, subset
from tinygen.metrics.metric import ImageGrid
from tinygen.models.family import Batch
from tinygen.models.registry import model_class
from tinygen.report.images import save_plot
from tinygen.training.trainer import Trainer

data = functools.cache(likelihoods.data)  # the features and the calibration go with a data set's identity
OPTIONS: dict[str, dict[str, Any]] = {"rbm": {}, "dbm": {}, "gsn": {"likelihood": "bernoulli"}}
BATCHES = {"rbm": 100, "dbm": 100, "gsn": 64}
HELD = 10_000  # images for choosing rates


def trained(name: str, train: Dataset, seconds: float, lr: float | None) -> Trainer:
    """A model after so many CPU seconds. lr: None: its own."""
    entry = Entry(name, name, OPTIONS[name], 2, lr or model_class(name).lr)
    state = likelihoods.training(entry, train, BATCHES[name])
    model, start = state.model.train(), time.process_time()
    while (spent := time.process_time() - start) < seconds:
        state.advance(spent / seconds)
    model.eval()
    return state


def measured(name: str, seconds: float, lr: float | None, out: Path) -> str:
    """What a model reaches on the test set in so many CPU seconds."""
    train, test = data(2)
    state = trained(name, train, seconds, lr)
    start, rng, model = time.process_time(), np.random.default_rng(SEED), state.model
    metrics = model.family.metrics(model, train, test, rng)
    lines = [
        f"{state.step:,} steps, {state.images / len(train):.1f} epochs; measured in {time.process_time() - start:.0f} s"
    ]
    for plot, draw in model.family.plots.items():
        save_plot(out / f"{name}-{plot}.png", draw(model, train, test, rng), 2)
    save_plot(out / f"{name}-samples.png", ImageGrid(model.sample(64, rng)), 2)
    return "\n".join([*lines, *map(str, metrics)])


def validated(name: str, seconds: float, lr: float | None) -> str:
    """What it reaches on training images that it isn't trained on: what rates are chosen by."""
    train, _ = data(2)
    rest, held = (subset(train, part) for part in (slice(-HELD), slice(-HELD, None)))
    state, rng = trained(name, rest, seconds, lr), np.random.default_rng(SEED)
    value, family = state.model.family.validation(state.model, Batch(held.images), rng), state.model.family
    return f"rate {state.config.lr:g}, {state.step:,} steps: validation {value:.1f} {family.validation_unit}"


def main(argv: list[str] | None = None) -> int:
    """Train and measure the models that are named, or all."""
    p = Parser(prog="python -m benchmarks.models.energy", description=__doc__.splitlines()[0])
    p.add_argument("models", nargs="*", metavar="MODEL", choices=OPTIONS, help="of %(choices)s (default: all)")
    p.add_argument("--seconds", type=number, default=100.0, help="of one thread's training (default %(default)s)")
    p.add_argument("--lr", type=number, help="learning rate at the start (default: the model's own)")
    p.add_argument("--validate", action="store_true", help=f"hold {HELD:,} training images out, and measure on those")
    p.add_argument("--out", type=Path, default=Path("benchmarks/results/energy"), help="(default %(default)s)")
    args = p.parse_args(argv)
    kernels.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.models or OPTIONS:
        if args.validate:
            print(f"{name}: {validated(name, args.seconds, args.lr)}", flush=True)
            continue
        text = measured(name, args.seconds, args.lr, args.out)
        (args.out / f"{name}.txt").write_text(text + "\n")
        print(f"{name}: {text}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
