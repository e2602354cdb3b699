"""The training loop: one for all models. What happens around its steps is in callbacks.py."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tinygen.console import say
from tinygen.data import Dataset, MappedImages, in_memory, subset
from tinygen.models.family import Batch
from tinygen.models.model import Model
from tinygen.models.registry import model_class
from tinygen.training import commands, weights
from tinygen.training.callbacks import Callback, Checkpoints, MetricsFile, ReportPage, Snapshots
from tinygen.training.config import Config, Sets
from tinygen.training.cost import Cost, measure
from tinygen.training.interrupt import interruptions
from tinygen.training.progress import Progress
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
    model = build(config, sets[0], rng, device)
    check_labels(model, sets)
    trainer = Trainer(config, model, sets[0], rng, sets[1])
    cost = measure(trainer)
    if dry:
        say(f"{_about(trainer, sets)}\n{_notes(sets[0])}{cost}; {cost.estimate(trainer)}")
        return None
    run = Run.create(config.model, out)
    run.device = device
    with run.held():
        run.begin(config)
        _go(run, trainer, sets, cost, f"into {run.folder}")
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
        trainer = Trainer(config, model, sets[0], np.random.default_rng(config.seed), sets[1])
        trainer.restore(run, state)
        _go(run, trainer, sets, measure(trainer), f"{run.folder} goes on at step {trainer.step}")
    return run


def build(config: Config, data: Dataset, rng: np.random.Generator, device: str = "cpu") -> Model:
    """The model before its first step."""
    model = model_class(config.model)(data.images.shape[1:], data.levels, **config.options, rng=rng)
    if config.weights is not None:
        weights.take(model, Path(config.weights))
    return model.to(device)


def check_labels(model: Model, sets: Sets) -> None:
    """ValueError, which names the set, unless all labels are classes of a model that is told the class."""
    train, held, test = sets
    for name, data in {"training": train, "validation": held, "test": test}.items():
        if data is None or not model.condition:
            continue
        kind = type(model).__name__
        if data.labels is None:
            raise ValueError(f"the {name} set of {data.name} has no labels, which {kind} of {model.condition.classes} "
                             "classes has to be told: leave --classes out, or add them")  # fmt: skip
        try:
            model.condition.check(data.labels, len(data), kind)
        except ValueError as e:
            most = max(int(d.labels.max()) for d in sets if d is not None and d.labels is not None)
            raise ValueError(f"the {name} set of {data.name}: {e}: write --classes {most + 1}") from e


def fit(trainer: Trainer, callbacks: Sequence[Callback]) -> bool:
    """Take steps until the epochs or the minutes are over: whether they are, or Ctrl-C or SIGTERM ended it before.

    Those let the step finish. Raises FloatingPointError when the loss or a gradient is no longer finite.
    """
    start, before = time.monotonic(), trainer.seconds
    trainer.model.train()
    # what isn't finite is noticed anyway
    with np.errstate(all="ignore"), interruptions() as came, contextlib.ExitStack() as stack:
        for callback in callbacks:
            stack.enter_context(callback)
        while trainer.done < 1 and not came:
            row = {"step": trainer.step + 1, **trainer.advance(trainer.done)}
            if trainer.config.minutes is not None:
                trainer.seconds = before + time.monotonic() - start
            for callback in callbacks:
                callback.step(row)
    trainer.model.eval()
    return not came


def _about(trainer: Trainer, sets: Sets) -> str:
    train, held, test = sets
    size = f"{len(train):,} images {'x'.join(map(str, train.images.shape[1:]))}, {train.levels} levels"
    others = ("" if held is None else f"{len(held):,} to validate, ") + f"{len(test):,} to test"
    return f"{trainer.config.model} on {train.name}: {size} ({others}){_classes(train, test)}"


def _classes(train: Dataset, test: Dataset) -> str:
    """How many classes there are, and which of them are missing in one of the sets."""
    labels = [data.labels for data in (train, test) if data.labels is not None]
    if len(labels) < 2:
        return ""
    found = [set(np.unique(some).tolist()) for some in labels]
    names = dict(enumerate(train.classes))
    parts = []
    for name, missing in (("to train on", found[1] - found[0]), ("to test on", found[0] - found[1])):
        if missing:
            some = ", ".join(names.get(i, str(i)) for i in sorted(missing)[:SHOWN])
            parts.append(f"none {name} of {some}{', ...' if len(missing) > SHOWN else ''}")
    both = len(found[0] | found[1])
    return f", {both} {'class' if both == 1 else 'classes'}" + (f": {'; '.join(parts)}" if parts else ", all in both")


def _notes(train: Dataset) -> str:
    """Lines of what was left out when the data were read, and what is done about their size."""
    mapped = isinstance(train.images, MappedImages)
    part = f"read from the file as needed; trivial models see {len(in_memory(train)):,} of them" if mapped else ""
    return "".join(f"{note}\n" for note in (*train.notes, part) if note)


def _go(run: Run, trainer: Trainer, sets: Sets, cost: Cost, where: str) -> None:
    """Train, then say how good the result is and draw it."""
    train, test = trainer.dataset, sets[2]
    run.say(f"{_about(trainer, sets)}; {where}\n{_notes(sets[0])}{cost}; {cost.estimate(trainer)}")
    try:
        if not fit(trainer, _callbacks(run, trainer, sets, cost)):
            raise KeyboardInterrupt(f"saved at step {trainer.step}; to go on: tinygen train --resume {run.quoted}")
        try:
            commands.finish(run, train, test)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"it is trained; its test figures: tinygen evaluate {run.quoted}") from None
    except (KeyboardInterrupt, ArithmeticError, OSError) as e:
        run.note(f"stopped: {e}")
        raise


def _callbacks(run: Run, trainer: Trainer, sets: Sets, cost: Cost) -> list[Callback]:
    train, held, test = trainer.dataset, *sets[1:]
    model = trainer.model
    baselines = model.family.baselines(model, train, test)
    reached = "".join(f" ({name} {value:.3f})" for name, value in baselines.items())
    progress = Progress(trainer, lambda parts: model.family.progress(model, parts) + reached)
    metrics = MetricsFile(run, held is not None)
    report = ReportPage(trainer, run, cost, progress, baselines)
    shown = subset(held or train, slice(SHOWN))
    validated = None if held is None else Batch(held.images, held.labels)
    snapshots = Snapshots(trainer, run, validated, Batch(shown.images, shown.labels), report.say)
    return [snapshots, metrics, Checkpoints(trainer, run, metrics), progress, report]
