"""The training loop: one for all models."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from tinygen.data import Dataset
from tinygen.models import model_class
from tinygen.models.model import Model
from tinygen.training.evaluate import figures, samples
from tinygen.training.images import save_grid
from tinygen.training.interrupt import interruptions
from tinygen.training.progress import Progress, say
from tinygen.training.run import Config, Run
from tinygen.training.state import Training

REPORT_SECONDS = 1.0  # between two times that lines are added to metrics.csv
SAVE_SECONDS = 30.0  # between two checkpoints: what kill -9 costs at most


def train(config: Config, out: Path | None = None) -> Run:
    """Train a model as configured, save it, and show how good it is. What is wrong shows before a folder is made.

    Everything random comes from generators seeded with `config.seed`: the same seed gives the same bytes on one
    machine, if the run is bounded by epochs rather than by minutes.
    """
    data = config.datasets()
    generator = np.random.default_rng(config.seed)
    model = model_class(config.model)(
        data[0].images.shape[1:], data[0].levels, **config.options, generator=generator
    )  # fmt: skip
    run = Run.create(config.model, out)
    with run.held():
        _run(run, config, model, data, generator, None)
    return run


def resume(folder: Path) -> Run:
    """Go on with a run at the step of its last checkpoint, as if it had never stopped: the same losses, the same bytes.

    folder: a run folder, or "last" for the one of runs/ that was saved last.

    Raises FileNotFoundError where there is no run, CheckpointError if its checkpoint is damaged or doesn't fit (it says
    what differs), FileExistsError while another process trains it.
    """
    run = Run.existing(folder)
    with run.held():
        config, model, state = run.load()
        data = config.datasets()
        _run(run, config, model, data, np.random.default_rng(config.seed), state)
    return run


def _run(run: Run, config: Config, model: Model, data: tuple[Dataset, Dataset], generator: np.random.Generator,
         state: dict[str, Any] | None) -> None:  # fmt: skip
    """Train, from the start or from a checkpoint's state; then likelihood and samples."""
    train_set, test_set = data
    shape, levels = train_set.images.shape[1:], train_set.levels
    training = Training(config, model, train_set, generator)
    if state is not None:
        training.restore(run, state)
    floors = "".join(f" ({name} {value:.3f})" for name, value in model.floors(train_set, test_set).items())
    say(f"{config.model} on {train_set.name}: {len(train_set):,} images {'x'.join(map(str, shape))}, {levels} levels; "
        f"{sum(p.numel() for p in model.parameters()):,} parameters; "
        + (f"into {run.folder}" if state is None else f"{run.folder} goes on at step {training.step}"))  # fmt: skip
    fit(training, run, floors)
    for figure in figures(model, train_set, test_set, config.seed):
        say(str(figure))
    save_grid(run.samples, samples(model, 64, config.seed), levels)  # as `tinygen sample` does
    say(f"samples: {run.samples}\nmore of them: tinygen sample {run.quoted}")


def fit(training: Training, run: Run, floors: str = "") -> None:
    """Take steps until the epochs or the minutes are over; a checkpoint at once, at intervals and at the end.

    Ctrl-C and SIGTERM let the step finish and save too, and then raise KeyboardInterrupt.

    Raises FloatingPointError when the loss or a gradient is no longer finite; the last checkpoint stays.
    """
    config, start, before = training.config, time.monotonic(), training.seconds
    steps = math.inf
    if config.epochs is not None:
        steps = max(1, round(config.epochs * len(training.batches) / training.model.takes_batches))
    seconds = math.inf if config.minutes is None else config.minutes * 60
    rows: list[dict[str, Any]] = []
    reported = saved = start

    def report() -> None:
        run.log(rows)
        rows.clear()

    def save() -> None:
        report()  # first, so that metrics.csv is never behind a checkpoint
        training.seconds = 0.0 if config.minutes is None else before + time.monotonic() - start
        training.save(run)

    training.model.train()
    progress = Progress(
        steps, seconds, lambda parts: training.model.progress(parts) + floors, training.step, before
    )  # fmt: skip
    with progress, np.errstate(all="ignore"), interruptions() as came:  # what isn't finite is noticed anyway
        save()
        say(f"to go on if it is interrupted: tinygen train --resume {run.quoted}")
        try:
            while (done := progress.fraction(time.monotonic() - start)) < 1 and not came:
                parts = training.advance(done)
                rows.append({"step": training.step, **parts})
                progress.update(training.step, parts)
                now = time.monotonic()
                if now - saved > SAVE_SECONDS:
                    save()
                    saved = now
                if now - reported > REPORT_SECONDS:
                    report()
                    reported = now
        finally:
            report()
        save()
    training.model.eval()
    if came:
        raise KeyboardInterrupt(f"saved at step {training.step}; to go on: tinygen train --resume {run.quoted}")
