"""Callbacks around the steps of a training: they keep its numbers, checkpoints, snapshots and its report.

A callback is a context manager around the whole training, whose `step` is called after each step. What one callback
adds to the step's row the later ones see.

Of several ranks the first has all of them; those that say so are on the other ranks, too, and do their part there.
"""

from __future__ import annotations

import bisect
import contextlib
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from tinygen import parallel
from tinygen.models.family import Batch, Family
from tinygen.models.model import Samples
from tinygen.report import page
from tinygen.report.images import save_plot
from tinygen.training.cost import Cost
from tinygen.training.progress import Progress
from tinygen.training.run import Run
from tinygen.training.trainer import Trainer

REPORT_SECONDS = 1.0  # between two times that lines are added to metrics.csv
SAVE_SECONDS = 30.0  # between two checkpoints: what kill -9 costs at most
LOOK_SECONDS, SLOW = 5.0, 1.2  # between two looks for slow ranks; how much longer than others a slow one takes
ASKED = 100  # steps between two questions for the training's diagnostics
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
    nothing. On all ranks, which share what it takes; without a run on all but the first. held: images that the model
    isn't trained on, for the validation; None: there is none. shown: the images for models that draw what they make of
    some. say: called where there is nothing to draw, with the reason.
    """

    def __init__(
        self, trainer: Trainer, run: Run | None, held: Batch | None, shown: Batch, say: Callable[[str], None]
    ) -> None:
        self.trainer, self.run, self.held, self.shown, self.say = trainer, run, held, shown, say
        model = trainer.model
        self.draws = isinstance(model, Samples) or type(model.family).snapshot is not Family.snapshot

    def __enter__(self) -> Any:
        if not self.draws:
            self.say(f"no pictures while it trains: {type(self.trainer.model).__name__} doesn't define sample()")
        return self

    def step(self, row: dict[str, Any]) -> None:
        reached = bisect.bisect_right(MOMENTS, self.trainer.done)
        if reached > self.trainer.moment:
            self.trainer.moment = reached
            self.trainer.model.eval()
            with parallel.sharing(self.trainer.ranks):
                if self.draws:
                    self.draw()
                if self.held is not None:
                    row["validation"] = self.validate(self.held)
            self.trainer.model.train()

    def draw(self) -> None:
        """Write the picture; where none can be drawn say why: it's for the training to stop, if it has to."""
        step, model = self.trainer.step, self.trainer.model
        try:
            plot = model.family.snapshot(model, self.shown, np.random.default_rng((self.trainer.config.seed, step)))
        except FloatingPointError as e:
            self.say(f"no picture: {e}")
            return
        if self.run is not None:
            self.run.snapshots.mkdir(exist_ok=True)
            save_plot(self.run.snapshots / f"step-{step:06}.png", plot, model.levels)

    def validate(self, held: Batch) -> float:
        """The validation, always with the same random numbers; the model is kept if it is the best so far."""
        model = self.trainer.model
        value = model.family.validation(model, held, np.random.default_rng(self.trainer.config.seed))
        if value < (math.inf if self.trainer.best is None else self.trainer.best):
            self.trainer.save_best(self.run, value)
        return value


class MetricsFile(Callback):
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
    """last.safetensors: at the start, at intervals, and at the end unless an error ended the training.

    On all ranks, each of which may have a part of it; without run and metrics on all but the first.
    """

    def __init__(self, trainer: Trainer, run: Run | None = None, metrics: MetricsFile | None = None) -> None:
        self.trainer, self.run, self.metrics = trainer, run, metrics
        self.saved = 0.0

    def save(self) -> None:
        if self.run is not None and self.metrics is not None:
            self.metrics.write()  # first, so that metrics.csv is never behind a checkpoint
            self.run.sync_metrics()
        self.trainer.save(self.run)

    def __enter__(self) -> Any:
        self.save()
        if self.run is not None:
            self.run.say(f"to go on if it is interrupted: tinygen train --resume {self.run.quoted}")
        return self

    def step(self, row: dict[str, Any]) -> None:
        if self.trainer.elapsed - self.saved > SAVE_SECONDS:  # on all ranks at the same step
            self.save()
            self.saved = self.trainer.elapsed

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            self.save()


class Stragglers(Callback):
    """Names a rank that is slower than the others, once. On all ranks.

    It is slow if in two looks, one after the other, its share of the steps took more than a fifth longer than those of
    the others in the median, for each of its images, too. What a rank waits for others doesn't count.
    """

    def __init__(self, trainer: Trainer, say: Callable[[str], None] = lambda text: None) -> None:
        self.trainer, self.say = trainer, say
        self.before = self.now()
        self.suspected: set[int] = set()
        self.named: set[int] = set()

    def now(self) -> np.ndarray:
        """Seconds so far, those in which this rank was busy, its images."""
        return np.array([self.trainer.elapsed, self.trainer.busy, self.trainer.own_images], np.float64)

    def step(self, row: dict[str, Any]) -> None:
        ranks, now = self.trainer.ranks, self.now()
        seconds, *own = now - self.before
        if ranks.size == 1 or seconds < LOOK_SECONDS:
            return
        self.before, found = now, np.zeros((2, ranks.size))
        found[:, ranks.rank] = own
        ranks.start_sum(found).wait()
        busy, images = found
        longer = np.minimum(_over_others(busy), _over_others(busy / np.maximum(images, 1)))
        slow = set(np.flatnonzero(longer > SLOW).tolist())
        for rank in sorted((slow & self.suspected) - self.named):
            self.named.add(rank)
            cost = (busy[rank] - np.delete(busy, rank).max()) / seconds
            self.say(f"{ranks.names[rank]} is slower than the others: its share of a step takes {longer[rank] - 1:.0%} "
                     f"longer, for which all wait, {max(cost, 0):.0%} of the time")  # fmt: skip
        self.suspected = slow


def _over_others(values: np.ndarray) -> np.ndarray:
    """Each value over the median of the others."""
    return np.array([value / max(np.median(np.delete(values, i)), 1e-9) for i, value in enumerate(values)])


class ReportPage(Callback):
    """Keeps results.json and the page while a run is trained: at its moments and when it stops.

    Other than metrics.csv, results.json holds what differs from machine to machine: seconds, and messages to people.
    """

    def __init__(
        self, trainer: Trainer, run: Run, cost: Cost, progress: Progress, baselines: Mapping[str, float]
    ) -> None:
        self.trainer, self.run, self.progress = trainer, run, progress
        before = run.read_results()
        messages = [m for m in before.get("messages", []) if m["step"] <= trainer.step]
        self.results = before | {
            "parameters": cost.parameters, "flops": cost.flops / cost.images, "baselines": dict(baselines),
            "messages": messages,
        }  # fmt: skip
        self.seconds, self.moment = before.get("seconds", 0.0), trainer.moment
        self.wrong: set[str] = set()
        self.start = time.monotonic()

    def say(self, text: str) -> None:
        """Tell people something about the training."""
        self.results["messages"].append({"step": self.trainer.step, "text": text})
        self.progress.clear()
        self.run.say(f"step {self.trainer.step:,}: {text}")

    def ask(self) -> None:
        """Say what is wrong now and wasn't when it was last asked for. It is known by what stands before the colon."""
        model = self.trainer.model
        found = {text.partition(":")[0]: text for text in model.family.diagnostics(model, self.progress.parts)}
        for name in found.keys() - self.wrong:
            self.say(found[name])
        self.wrong = set(found)

    def write(self) -> None:
        """Write both files."""
        seconds = self.seconds + time.monotonic() - self.start
        self.results |= {"step": self.trainer.step, "images": self.trainer.images, "seconds": round(seconds, 3)}
        self.run.write_results(self.results)
        page.write(self.run.folder, self.results)

    def __enter__(self) -> Any:
        self.start = time.monotonic()
        return self

    def step(self, row: dict[str, Any]) -> None:
        if self.trainer.step % ASKED == 0 and self.progress.steps >= ASKED:
            self.ask()
        if self.moment != self.trainer.moment:
            self.moment = self.trainer.moment
            self.write()

    def __exit__(self, *error: Any) -> None:
        with contextlib.suppress(*([] if error[0] is None else [OSError])):  # which would hide the error
            self.write()
