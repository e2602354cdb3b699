"""What happens around the steps of a training: its numbers, checkpoints, snapshots and its report are kept.

A hook is a context manager around the whole training, whose `step` is called after each step. What one hook adds to the
step's row the later ones see.
"""

from __future__ import annotations

import bisect
import math
import time
from typing import Any, Protocol

import numpy as np

from tinygen.models.model import Batch
from tinygen.report.images import save_picture
from tinygen.training.run import Run
from tinygen.training.trainer import Trainer

REPORT_SECONDS = 1.0  # between two times that lines are added to metrics.csv
SAVE_SECONDS = 30.0  # between two checkpoints: what kill -9 costs at most
MOMENTS = (0.01, 0.03, *(i / 10 for i in range(1, 11)))  # of the training, at which it is looked at


class Callback(Protocol):
    """Something around the training that is told of every step. `row`: its number and the numbers that it gave."""

    def __enter__(self) -> Any:
        return self

    def step(self, row: dict[str, Any]) -> None:
        """Called after each step."""

    def __exit__(self, *error: Any) -> None:
        """Called at the end; `error` tells, as ever, whether an exception is it."""
        return


class Snapshots(Callback):
    """At the moments: a picture of what the model does, and its validation, of which the best is kept.

    The random numbers come from generators of their own, seeded by the run's seed and the step; so looking changes
    nothing. held: images that the model isn't trained on, for the validation; None: there is none. shown: the images
    for models that draw what they make of some.
    """

    def __init__(self, training: Trainer, run: Run, held: Batch | None, shown: Batch) -> None:
        self.training, self.run, self.held, self.shown = training, run, held, shown

    def step(self, row: dict[str, Any]) -> None:
        reached = bisect.bisect_right(MOMENTS, self.training.done)
        if reached > self.training.moment:
            self.training.moment = reached
            self.training.model.eval()
            self.draw()
            if self.held is not None:
                row["validation"] = self.validate(self.held)
            self.training.model.train()

    def draw(self) -> None:
        """Write the picture; where none can be drawn say why: it's for the training to stop, if it has to."""
        step, model = self.training.step, self.training.model
        self.run.snapshots.mkdir(exist_ok=True)
        try:
            picture = model.snapshot(self.shown, np.random.default_rng((self.training.config.seed, step)))
        except FloatingPointError as e:
            self.training.say(f"no picture: {e}")
        else:
            save_picture(self.run.snapshots / f"step-{step:06}.png", picture, model.levels)

    def validate(self, held: Batch) -> float:
        """The validation, always with the same random numbers; the model is kept if it is the best so far."""
        value = self.training.model.validation(held, np.random.default_rng(self.training.config.seed))
        if value < (math.inf if self.training.best is None else self.training.best):
            self.training.save_best(self.run, value)
        return value


class Metrics(Callback):
    """metrics.csv: the numbers of every step, soon after it."""

    def __init__(self, run: Run, validated: bool) -> None:
        self.run, self.validated = run, validated
        self.rows: list[dict[str, Any]] = []
        self.written = time.monotonic()

    def step(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        if (now := time.monotonic()) - self.written > REPORT_SECONDS:
            self.written = now
            self.write()

    def write(self) -> None:
        """Write what is waiting."""
        if self.rows:
            columns = [name for name in self.rows[0] if name != "validation"] + ["validation"] * self.validated
            self.run.add_rows(self.rows, columns)
            self.rows.clear()

    def __exit__(self, *error: Any) -> None:
        self.write()


class Checkpoints(Callback):
    """last.safetensors: at the start, at intervals, and at the end unless an error ended the training."""

    def __init__(self, training: Trainer, run: Run, metrics: Metrics) -> None:
        self.training, self.run, self.metrics = training, run, metrics
        self.saved = time.monotonic()

    def save(self) -> None:
        self.metrics.write()  # first, so that metrics.csv is never behind a checkpoint
        self.run.sync_metrics()
        self.training.save(self.run)

    def __enter__(self) -> Any:
        self.save()
        self.run.say(f"to go on if it is interrupted: tinygen train --resume {self.run.quoted}")
        return self

    def step(self, row: dict[str, Any]) -> None:
        if time.monotonic() - self.saved > SAVE_SECONDS:
            self.save()
            self.saved = time.monotonic()

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            self.save()
