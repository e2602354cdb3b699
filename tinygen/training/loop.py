"""The training loop: one for all models. What happens around its steps is in hooks.py."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tinygen.data import Dataset, subset
from tinygen.models.model import Batch, Model
from tinygen.models.registry import model_class
from tinygen.report.page import Report
from tinygen.training import commands, weights
from tinygen.training.callbacks import Callback, Checkpoints, Metrics, Snapshots
from tinygen.training.config import Config, Sets
from tinygen.training.cost import Cost, measure
from tinygen.training.interrupt import interruptions
from tinygen.training.progress import Progress, say
from tinygen.training.run import Run
from tinygen.training.trainer import Trainer

SHOWN = 16  # images of a snapshot


def train(config: Config, out: Path | None = None, dry: bool = False, device: str = "cpu") -> Run | None:
    """Train a model as configured, save it, and show how good it is. What is wrong shows before a folder is made.

    Everything random comes from generators seeded with `config.seed`: the same seed gives the same bytes on one
    machine, if the run is bounded by epochs rather than by minutes.

    dry: only say what it would cost. device: "cpu" or "cuda".
    """
    sets = config.sets()
    rng = np.random.default_rng(config.seed)
    training = Trainer(config, build(config, sets[0], rng, device), sets[0], rng)
    cost = measure(training)
    if dry:
        say(f"{_about(training, sets)}\n{cost}; {cost.estimate(training)}")
        return None
    run = Run.create(config.model, out)
    run.device = device
    with run.held():
        run.begin(config)
        _go(run, training, sets, cost, f"into {run.folder}")
    return run


def resume(path: Path, device: str = "cpu") -> Run:
    """Go on with a run at the step of its last checkpoint, as if it had never stopped: the same losses, the same bytes.

    path: a run folder, or "last" for the one of runs/ that was saved last.

    Raises FileNotFoundError where there is no run, CheckpointError if its checkpoint is damaged or doesn't fit (it says
    what differs), FileExistsError while another process trains it.
    """
    run = Run.existing(path)
    run.device = device
    with run.held():
        config, model, state = run.load(run.checkpoint)
        sets = config.sets()
        training = Trainer(config, model, sets[0], np.random.default_rng(config.seed))
        training.restore(run, state)
        _go(run, training, sets, measure(training), f"{run.folder} goes on at step {training.step}")
    return run


def build(config: Config, data: Dataset, rng: np.random.Generator, device: str = "cpu") -> Model:
    """The model before its first step."""
    model = model_class(config.model)(data.images.shape[1:], data.levels, **config.options, rng=rng)
    if config.weights is not None:
        weights.take(model, Path(config.weights))
    return model.to(device)


def fit(training: Trainer, hooks: Sequence[Callback]) -> bool:
    """Take steps until the epochs or the minutes are over: whether they are, or Ctrl-C or SIGTERM ended it before.

    Those let the step finish. Raises FloatingPointError when the loss or a gradient is no longer finite.
    """
    start, before = time.monotonic(), training.seconds
    training.model.train()
    # what isn't finite is noticed anyway
    with np.errstate(all="ignore"), interruptions() as came, contextlib.ExitStack() as stack:
        for hook in hooks:
            stack.enter_context(hook)
        while training.done < 1 and not came:
            row = {"step": training.step + 1, **training.advance(training.done)}
            if training.config.minutes is not None:
                training.seconds = before + time.monotonic() - start
            for hook in hooks:
                hook.step(row)
    training.model.eval()
    return not came


def _about(training: Trainer, sets: Sets) -> str:
    train, held, test = sets
    size = f"{len(train):,} images {'x'.join(map(str, train.images.shape[1:]))}, {train.levels} levels"
    others = ("" if held is None else f"{len(held):,} to validate, ") + f"{len(test):,} to test"
    return f"{training.config.model} on {train.name}: {size} ({others})"


def _go(run: Run, training: Trainer, sets: Sets, cost: Cost, where: str) -> None:
    """Train, then say how good the result is and draw it."""
    train, _, test = sets
    run.say(f"{_about(training, sets)}; {where}\n{cost}; {cost.estimate(training)}")
    try:
        if not fit(training, _hooks(run, training, sets, cost)):
            raise KeyboardInterrupt(f"saved at step {training.step}; to go on: tinygen train --resume {run.quoted}")
        try:
            commands.finish(run, train, test)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"it is trained; its test figures: tinygen evaluate {run.quoted}") from None
    except (KeyboardInterrupt, ArithmeticError, OSError) as e:
        run.note(f"stopped: {e}")
        raise


def _hooks(run: Run, training: Trainer, sets: Sets, cost: Cost) -> list[Callback]:
    train, held, test = sets
    model = training.model
    floors = "".join(f" ({name} {value:.3f})" for name, value in model.floors(train, test).items())
    progress = Progress(training, lambda parts: model.progress(parts) + floors)
    metrics = Metrics(run, held is not None)
    shown = subset(held or train, slice(SHOWN))
    validated = None if held is None else Batch(held.images, held.labels)
    return [
        Snapshots(training, run, validated, Batch(shown.images, shown.labels)),
        metrics, Checkpoints(training, run, metrics), progress, Report(training, run, cost, progress),
    ]  # fmt: skip
