"""The training loop: one for all models."""

from __future__ import annotations

import itertools
import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from tinygen import optim
from tinygen.data import Dataset, Minibatches
from tinygen.models import model_class
from tinygen.models.independent import independent_nats
from tinygen.training.images import save_grid
from tinygen.training.progress import Progress, say
from tinygen.training.run import Config, Run

REPORT_SECONDS = 1.0  # between two lines of metrics.csv


def train(config: Config, out: Path | None = None) -> Run:
    """Train a model as configured, save it, and show how good it is. What is wrong shows before a folder is made.

    Everything random comes from generators seeded with `config.seed`: the same seed gives the same bytes on one
    machine, if the run is bounded by epochs rather than by minutes.
    """
    train_set, test_set = config.datasets()
    generator = np.random.default_rng(config.seed)
    shape, levels = train_set.images.shape[1:], train_set.levels
    model = model_class(config.model)(shape, levels, **config.options, generator=generator)
    floor = model.bits_per_dim(float(independent_nats(train_set.images, test_set.images, levels).mean()))
    run = Run.create(config.model, out)
    say(f"{config.model} on {train_set.name}: {len(train_set):,} images {'x'.join(map(str, shape))}, {levels} levels; "
        f"{sum(p.numel() for p in model.parameters()):,} parameters; into {run.folder}")  # fmt: skip
    fit(config, model, train_set, generator, run, floor)
    nats = -model.log_prob(test_set.images)
    error = model.bits_per_dim(float(nats.std() / math.sqrt(len(nats))))
    say(f"test: {model.bits_per_dim(float(nats.mean())):.3f} +- {error:.3f} bits/dim, {nats.mean():.2f} nats an image "
        f"({len(nats):,} images; independent pixels: {floor:.3f} bits/dim)")  # fmt: skip
    save_grid(run.samples, model.sample(64, np.random.default_rng(config.seed)), levels)  # as `tinygen sample` does
    say(f"samples: {run.samples}\nmore of them: tinygen sample {run.folder}")
    return run


def fit(config: Config, model: Any, data: Dataset, generator: np.random.Generator, run: Run, floor: float) -> None:
    """Adam on minibatches until the epochs or the minutes are over, then a checkpoint.

    The learning rate falls to zero along half a cosine over that time (Loshchilov & Hutter 2017, without restarts).

    Raises FloatingPointError when the loss is no longer finite.
    """
    batches = Minibatches(data.images, config.batch_size, generator)
    endless = itertools.chain.from_iterable(itertools.repeat(batches))
    optimizer = optim.Adam(model.parameters(), lr=config.lr)
    steps = math.inf if config.epochs is None else max(1, round(config.epochs * len(batches)))
    seconds = math.inf if config.minutes is None else config.minutes * 60
    step, start = 0, time.monotonic()
    recent: list[float] = []
    reported = start

    def report() -> None:
        run.log(step=step, seconds=time.monotonic() - start, bits_per_dim=float(np.mean(recent)))
        recent.clear()

    quiet = np.errstate(over="ignore", invalid="ignore")  # a loss that isn't finite is noticed anyway
    with Progress(steps, seconds, "bits/dim", floor) as progress, quiet:
        while (done := max(step / steps, (time.monotonic() - start) / seconds)) < 1:
            optimizer.param_groups[0]["lr"] = config.lr * 0.5 * (1 + math.cos(math.pi * done))
            loss = model.nats(next(endless)).mean()
            if not math.isfinite(loss.item()):
                raise FloatingPointError(f"the loss became {loss.item()} at step {step + 1}: try a lower --lr")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            recent.append(model.bits_per_dim(loss.item()))
            progress.update(step, recent[-1])
            if time.monotonic() - reported > REPORT_SECONDS:
                reported = time.monotonic()
                report()
    if recent:
        report()
    run.save(config, model, step=step, optimizer=optimizer.state_dict(), batches=batches.state_dict(),
             generator=generator.bit_generator.state)  # fmt: skip
