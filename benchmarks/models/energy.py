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
from tinygen.metrics.metric import ImageGrid
from tinygen.models.registry import model_class
from tinygen.report.images import save_plot

data = functools.cache(likelihoods.data)  # the features and the calibration go with a data set's identity
OPTIONS: dict[str, dict[str, Any]] = {"rbm": {}, "dbm": {}, "gsn": {"likelihood": "bernoulli"}}
BATCHES = {"rbm": 100, "dbm": 100, "gsn": 64}


def measured(name: str, seconds: float, out: Path) -> str:
    """What a model reaches in so many CPU seconds."""
    train, test = data(2)
    state = likelihoods.training(Entry(name, name, OPTIONS[name], 2, model_class(name).lr), train, BATCHES[name])
    model, start = state.model.train(), time.process_time()
    while (spent := time.process_time() - start) < seconds:
        state.advance(spent / seconds)
    model.eval()
    start, rng = time.process_time(), np.random.default_rng(SEED)
    metrics = model.family.metrics(model, train, test, rng)
    lines = [
        f"{state.step:,} steps, {state.images / len(train):.1f} epochs; measured in {time.process_time() - start:.0f} s"
    ]
    for plot, draw in model.family.plots.items():
        save_plot(out / f"{name}-{plot}.png", draw(model, train, test, rng), 2)
    save_plot(out / f"{name}-samples.png", ImageGrid(model.sample(64, rng)), 2)
    return "\n".join([*lines, *map(str, metrics)])


def main(argv: list[str] | None = None) -> int:
    """Train and measure the models that are named, or all."""
    p = Parser(prog="python -m benchmarks.models.energy", description=__doc__.splitlines()[0])
    p.add_argument("models", nargs="*", metavar="MODEL", choices=OPTIONS, help="of %(choices)s (default: all)")
    p.add_argument("--seconds", type=number, default=100.0, help="of one thread's training (default %(default)s)")
    p.add_argument("--out", type=Path, default=Path("benchmarks/results/energy"), help="(default %(default)s)")
    args = p.parse_args(argv)
    kernels.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.models or OPTIONS:
        text = measured(name, args.seconds, args.out)
        (args.out / f"{name}.txt").write_text(text + "\n")
        print(f"{name}: {text}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
