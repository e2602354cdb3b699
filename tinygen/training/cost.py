"""The cost of a training, before it starts: parameters, operations, time."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinygen import Tensor
from tinygen.console import duration
from tinygen.modes import hook
from tinygen.tape import Call, Op
from tinygen.training.trainer import Trainer

MOMENTS, LONGEST = (1 / 6, 1 / 2, 5 / 6), 2.0  # parts of the training done when steps are timed; none after so many s


class Cost(NamedTuple):
    """Of a model: parameters. Of a step: flops and seconds; batches and images that it takes."""

    parameters: int
    flops: float
    seconds: float
    batches: int
    images: int

    def __str__(self) -> str:
        return (f"{self.parameters:,} parameters; {_prefixed(self.flops / self.images)}FLOP and "
                f"{_prefixed(self.seconds / self.images)}s an image")  # fmt: skip

    def estimate(self, trainer: Trainer) -> str:
        """How long the rest will take, for people."""
        epochs, minutes = trainer.config.epochs, trainer.config.minutes
        left = 1 - trainer.done
        if minutes is not None:
            steps = left * 60 * minutes / self.seconds
            passes = steps * self.images / trainer.batches.size
            return f"about {steps:,.0f} steps ({passes:.3g} epochs) in {duration(left * 60 * minutes)}"
        steps = math.ceil(left * max(1, round((epochs or 0) * len(trainer.batches))) / self.batches)
        return f"about {duration(steps * self.seconds)} for {steps:,} steps of {self.images} images"


def measure(trainer: Trainer) -> Cost:
    """Take a few steps of a copy of the model, with learning rates of 0: the training itself isn't touched.

    They are of the beginning, the middle and the end of the training, since there are models that grow. A multiply-add
    counts as two operations, the backward pass as twice the forward one; elementwise work isn't counted.
    """
    config, model = dataclasses.replace(trainer.config, lr=0.0), copy.deepcopy(trainer.model)
    model.train()
    flops = 0.0

    def count(call: Call, run: Callable[[], Any]) -> Any:
        nonlocal flops
        out = run()
        if call.phase == "forward" and call.op.count_flops is not None:
            tracked = any(isinstance(x, Tensor) and x.requires_grad for x in call.inputs)
            flops += (3 if tracked else 1) * _operations(call.op.count_flops, call.op, call.inputs, out)
        return out

    times: list[float] = []
    with np.errstate(all="ignore"):
        for done in MOMENTS:
            trial = Trainer(config, model, trainer.dataset, np.random.default_rng(config.seed))
            with hook(count):
                trial.advance(done)
            images, batches = trial.images, trial.drawn
            start = time.perf_counter()
            trial.advance(done)
            times.append(time.perf_counter() - start)
            if trial.ranks.broadcast(sum(times)) > LONGEST:
                break
    parameters = sum(p.numel() for p in model.parameters())
    return Cost(parameters, flops / len(times), sum(times) / len(times), batches, images)


def _operations(count: Callable[..., float], op: Op, inputs: Sequence[Any], out: Any) -> float:
    """How many a call took, as its op declares it with `@flops`."""
    outs = out if isinstance(out, tuple) else (out,)
    known = dict(zip(op.names, inputs, strict=True))
    for name, value in (*known.items(), *zip(op.outputs, outs, strict=True)):
        known[f"{name}_shape"] = getattr(value, "shape", None)
    return count(**{name: known[name] for name in inspect.signature(count).parameters})


def _prefixed(value: float) -> str:
    """A number with a prefix: 12.3 M, 450 u."""
    for power, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""), (1e-3, "m")):
        if value >= power:
            return f"{value / power:.3g} {prefix}"
    return f"{value * 1e6:.3g} u"
