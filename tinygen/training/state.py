"""One step of training, and all that changes from step to step."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import math
import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tinygen import Tensor
from tinygen.data import Dataset, Minibatches
from tinygen.hooks import detect_nan
from tinygen.models.model import Batch, Model
from tinygen.optim import Optimizer
from tinygen.training.checkpoint import CheckpointError
from tinygen.training.run import Config, Run


class Training:
    """A model with its optimizers and its place in the data: all that changes from step to step, hence all that a
    checkpoint holds.

    data: what is trained on. generator: of all random numbers of the training; it draws the order of the images too.
    """

    def __init__(self, config: Config, model: Model, data: Dataset, generator: np.random.Generator) -> None:
        self.config, self.model, self.dataset, self.generator = config, model, data, generator
        self.batches = Minibatches(data, config.batch_size, generator)
        self.optimizers = model.optimizers(config.lr)
        self.step, self.seconds = 0, 0.0
        digest = hashlib.sha256(np.ascontiguousarray(data.images).data).hexdigest()
        self.data = {"images": list(data.images.shape), "levels": data.levels, "sha256": digest}
        self._images = itertools.chain.from_iterable(itertools.repeat(self.batches))  # epoch after epoch
        self._parameters = {name: _named(o, model) for name, o in self.optimizers.items()}
        self._groups = [(g, g["lr"]) for o in self.optimizers.values() for g in o.param_groups]

    def batch(self) -> Batch:
        """The next images."""
        return Batch(*next(self._images))

    def advance(self, done: float) -> dict[str, float]:
        """One step of the model, `done` (from 0 to 1) of the training being over: its numbers.

        With the schedule "cosine" the learning rates fall to zero along half a cosine (Loshchilov & Hutter 2017,
        without restarts).
        """
        factor = 0.5 * (1 + math.cos(math.pi * done)) if self.model.schedule == "cosine" else 1.0
        for group, lr in self._groups:
            group["lr"] = lr * factor
        parts = self.model.training_step(self)
        self.step += 1
        return parts

    def minimise(self, closure: Callable[[], dict[str, Tensor]], optimizer: str = "adam") -> dict[str, float]:
        """One step of an optimizer on the sum of the 0-d parts that closure() gives: the parts, as numbers.

        The parameters that are not this optimizer's are frozen meanwhile: neither they nor their gradients change.

        Raises FloatingPointError, before anything has changed, if a part or a gradient isn't finite: it names the step,
        the tensor and the op that spoilt it.
        """
        chosen, random = self.optimizers[optimizer], self.generator.bit_generator.state
        with self._frozen(optimizer):
            chosen.zero_grad()
            parts = closure()
            values = {name: part.item() for name, part in parts.items()}
            what = next((f"the loss {k!r} became {v}" for k, v in values.items() if not math.isfinite(v)), "")
            if not what:
                functools.reduce(operator.add, parts.values()).backward()
                spoilt = _not_finite({k: p.grad for k, p in self._parameters[optimizer].items() if p.grad is not None})
                what = f"the gradient of {spoilt}" if spoilt else ""
            if what:
                self.generator.bit_generator.state = random
                raise FloatingPointError(f"{what} at step {self.step + 1}: try a lower --lr ({self._origin(closure)})")
        chosen.step()
        return values

    @contextlib.contextmanager
    def _frozen(self, optimizer: str) -> Iterator[None]:
        """Within it the parameters that are not this optimizer's don't require gradients."""
        own = self._parameters[optimizer]
        others = [] if len(self._parameters) == 1 else list(self.model.named_parameters())
        thawed = [p for name, p in others if name not in own and p.requires_grad]
        try:
            for p in thawed:
                p.requires_grad = False
            yield
        finally:
            for p in thawed:
                p.requires_grad = True

    def _origin(self, closure: Callable[[], dict[str, Tensor]]) -> str:
        """Which parameter, or else which op, brought something that isn't finite into this step."""
        if spoilt := _not_finite(dict(self.model.named_parameters())):
            return f"parameter {spoilt}"
        try:
            with detect_nan():
                functools.reduce(operator.add, closure().values()).backward()
        except FloatingPointError as e:
            return str(e)
        return "no op gave it: values too large were added up"

    def save(self, run: Run) -> None:
        """Write the checkpoint, unless a parameter isn't finite: then FloatingPointError."""
        if spoilt := _not_finite(dict(self.model.named_parameters())):
            raise FloatingPointError(f"parameter {spoilt} at step {self.step}: try a lower --lr")
        run.save(
            self.config, self.model, step=self.step, seconds=self.seconds, data=self.data,
            optimizers={name: o.state_dict() for name, o in self.optimizers.items()}, batches=self.batches.state_dict(),
            generator=self.generator.bit_generator.state,
        )  # fmt: skip

    def restore(self, run: Run, state: dict[str, Any]) -> None:
        """Take up what `save` wrote, and cut metrics.csv there. Raises CheckpointError if it doesn't fit."""
        try:
            then = state["data"]
            other = [f"{k} were {then.get(k)}, are now {v}" for k, v in self.data.items() if then.get(k) != v]
            if other:
                raise ValueError(f"the data set {self.config.data!r} has changed: {'; '.join(other)}")
            for name, optimizer in self.optimizers.items():
                optimizer.load_state_dict(state["optimizers"][name])
            self.batches.load_state_dict(state["batches"])
            self.generator.bit_generator.state = state["generator"]
            self.step, self.seconds = int(state["step"]), float(state["seconds"])
        except (AttributeError, KeyError, TypeError, ValueError) as e:
            what = f"it has no {e}" if isinstance(e, KeyError) else e
            raise CheckpointError(f"{run.checkpoint}: can't go on from it: {what}") from e
        run.rewind(self.step)


def _named(optimizer: Optimizer, model: Model) -> dict[str, Tensor]:
    """An optimizer's parameters by their names in the model."""
    own = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return {name: p for name, p in model.named_parameters() if id(p) in own}


def _not_finite(tensors: dict[str, Any]) -> str:
    """ "NAME is nan" or "NAME is inf" of the first that isn't finite everywhere, or nothing."""
    for name, value in tensors.items():
        array = value.numpy()
        if not np.isfinite(array).all():
            return f"{name} is {'nan' if np.isnan(array).any() else 'inf'}"
    return ""
