"""The training loop: one for all models. What happens around its steps is in callbacks.py."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tinygen import parallel
from tinygen.console import say
from tinygen.data import Dataset, subset
from tinygen.models.family import Batch
from tinygen.models.model import Model
from tinygen.models.registry import model_class
from tinygen.training import commands, weights
from tinygen.training.callbacks import Callback, Checkpoints, MetricsFile, ReportPage, Snapshots, Stragglers
from tinygen.training.config import Config, Sets
from tinygen.training.cost import Cost, measure
from tinygen.training.interrupt import interruptions
from tinygen.training.progress import Progress
from tinygen.training.run import Run
from tinygen.training.sets import about, check_labels, notes
from tinygen.training.trainer import Trainer

SHOWN = 16  # images of a snapshot


def train(config: Config, out: Path | None = None, dry: bool = False, device: str = "cpu") -> Run | None:
    """Train a model as configured, save it, and show how good it is. What is wrong shows before a folder is made.

    Everything random comes from generators seeded with `config.seed`: the same seed gives the same bytes on one
    machine, if the run is bounded by epochs rather than by minutes.

    On several ranks (`tinygen.parallel`) rank 0 does all but the steps, and it alone has the run.

    dry: only say what it would cost. device: "cpu" or "cuda".
    """
    sets = config.sets()
    rng = np.random.default_rng(config.seed)
    model = build(config, sets[0], rng, device)
    check_labels(model, sets)
    trainer = Trainer(config, model, sets[0], rng, sets[1])
    cost = measure(trainer)
    if trainer.ranks.rank:
        if not dry:
            _assist(trainer, sets)
        return None
    if dry:
        say(f"{about(config.model, sets)}\n{notes(sets[0])}{cost}; {cost.estimate(trainer)}")
        return None
    run = Run.create(config.model, out)
    run.device = device
    with run.held():
        run.begin(config)
        _go(run, trainer, sets, cost, f"into {run.folder}")
    return run


def resume(path: Path, device: str = "cpu") -> Run | None:
    """Go on with a run at the step of its last checkpoint, as if it had never stopped: the same losses, the same bytes.

    path: a run folder, or "last" for the one of runs/ that was saved last.

    Raises FileNotFoundError where there is no run, CheckpointError if its checkpoint is damaged or doesn't fit (it says
    what differs), FileExistsError while another process trains it.
    """
    ranks = parallel.current()
    run = ranks.broadcast(None if ranks.rank else Run.existing(path))
    run.device = device
    with contextlib.nullcontext() if ranks.rank else run.held():
        config, model, state = run.load(run.checkpoint)
        sets = config.sets()
        trainer = Trainer(config, model, sets[0], np.random.default_rng(config.seed), sets[1])
        trainer.restore(run, state)
        cost = measure(trainer)
        if ranks.rank:
            _assist(trainer, sets)
            return None
        _go(run, trainer, sets, cost, f"{run.folder} goes on at step {trainer.step}")
    return run


def build(config: Config, data: Dataset, rng: np.random.Generator, device: str = "cpu") -> Model:
    """The model before its first step."""
    model = model_class(config.model)(data.images.shape[1:], data.levels, **config.options, rng=rng)
    if config.weights is not None:
        weights.take(model, Path(config.weights))
    return model.to(device)


def fit(trainer: Trainer, callbacks: Sequence[Callback], clock: Callable[[], float] | None = None) -> bool:
    """Take steps until the epochs or the minutes are over: whether they are, or Ctrl-C or SIGTERM ended it before.

    Those let the step finish; a signal to one of several ranks stops all of them. callbacks: this rank's.
    Raises FloatingPointError when the loss or a gradient is no longer finite.

    clock: by which the minutes pass, in seconds; None: time.monotonic.
    """
    clock = clock or time.monotonic
    start, before = clock(), trainer.seconds
    trainer.model.train()
    # what isn't finite is noticed anyway
    with np.errstate(all="ignore"), interruptions() as came, contextlib.ExitStack() as stack:
        with parallel.using(parallel.Alone()):
            for callback in callbacks:
                stack.enter_context(callback)
        stopped = False
        while trainer.done < 1 and not stopped:
            row = {"step": trainer.step + 1, **trainer.advance(trainer.done)}
            seconds = 0.0 if trainer.ranks.rank else clock() - start
            # so that all ranks stop, and save, at the same step
            signals, trainer.elapsed = parallel.total([len(came), seconds]).tolist()
            stopped = signals > 0
            if trainer.config.minutes is not None:
                trainer.seconds = before + trainer.elapsed
            with parallel.using(parallel.Alone()):
                for callback in callbacks:
                    callback.step(row)
    trainer.model.eval()
    return not stopped


def _go(run: Run, trainer: Trainer, sets: Sets, cost: Cost, where: str) -> None:
    """Train, then say how good the result is and draw it."""
    train, test = trainer.dataset, sets[2]
    where += f", on {trainer.ranks.size} ranks" if trainer.ranks.size > 1 else ""
    run.say(f"{about(trainer.config.model, sets)}; {where}\n{notes(sets[0])}{cost}; {cost.estimate(trainer)}")
    try:
        with parallel.using(parallel.Alone()):
            callbacks = _callbacks(run, trainer, sets, cost)
        if not fit(trainer, callbacks):
            raise KeyboardInterrupt(f"saved at step {trainer.step}; to go on: tinygen train --resume {run.quoted}")
        try:
            commands.finish(run, train, test)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"it is trained; its test figures: tinygen evaluate {run.quoted}") from None
    except (KeyboardInterrupt, ArithmeticError, OSError) as e:
        run.note(f"stopped: {e}")
        raise


def _assist(trainer: Trainer, sets: Sets) -> None:
    """What the other ranks do while the first one has the run."""
    if fit(trainer, [_snapshots(trainer, None, sets, lambda reason: None), Checkpoints(trainer), Stragglers(trainer)]):
        commands.assist(trainer.model, trainer.dataset, sets[2], trainer.config.seed)


def _callbacks(run: Run, trainer: Trainer, sets: Sets, cost: Cost) -> list[Callback]:
    held, model = sets[1], trainer.model
    baselines = model.family.baselines(model, trainer.dataset, sets[2])
    reached = "".join(f" ({name} {value:.3f})" for name, value in baselines.items())
    progress = Progress(trainer, lambda parts: model.family.progress(model, parts) + reached)
    metrics = MetricsFile(run, held is not None)
    report = ReportPage(trainer, run, cost, progress, baselines)
    snapshots = _snapshots(trainer, run, sets, report.say)
    return [snapshots, metrics, Checkpoints(trainer, run, metrics), Stragglers(trainer, report.say), progress, report]


def _snapshots(trainer: Trainer, run: Run | None, sets: Sets, say: Callable[[str], None]) -> Snapshots:
    held = sets[1]
    shown = subset(held or trainer.dataset, slice(SHOWN))
    validated = None if held is None else Batch(held.images, held.labels)
    return Snapshots(trainer, run, validated, Batch(shown.images, shown.labels), say)
