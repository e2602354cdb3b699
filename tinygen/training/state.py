"""One step of training, and all that changes from step to step."""

from __future__ import annotations

import hashlib
import itertools
import math
from typing import Any

import numpy as np

from tinygen import optim
from tinygen.data import Dataset, Minibatches
from tinygen.hooks import detect_nan
from tinygen.training.checkpoint import CheckpointError
from tinygen.training.run import Config, Run


class Training:
    """Adam on minibatches: all that changes from step to step, hence all that a checkpoint holds.

    The learning rate falls to zero along half a cosine (Loshchilov & Hutter 2017, without restarts).
    """

    def __init__(self, config: Config, model: Any, data: Dataset, generator: np.random.Generator) -> None:
        self.config, self.model, self.generator = config, model, generator
        self.batches = Minibatches(data.images, config.batch_size, generator)
        self.optimizer = optim.Adam(model.parameters(), lr=config.lr)
        self.step, self.seconds = 0, 0.0
        digest = hashlib.sha256(np.ascontiguousarray(data.images).data).hexdigest()
        self.data = {"images": list(data.images.shape), "levels": data.levels, "sha256": digest}
        self._images = itertools.chain.from_iterable(itertools.repeat(self.batches))  # epoch after epoch

    def advance(self, done: float) -> float:
        """One step, `done` (from 0 to 1) of the training being over: its loss in bits/dim."""
        self.optimizer.param_groups[0]["lr"] = self.config.lr * 0.5 * (1 + math.cos(math.pi * done))
        images, random = next(self._images), self.generator.bit_generator.state
        self.optimizer.zero_grad()
        loss = self.model.nats(images).mean()
        what = "" if math.isfinite(loss.item()) else f"the loss became {loss.item()}"
        if not what:
            loss.backward()
            spoilt = _not_finite({name: p.grad for name, p in self.model.named_parameters() if p.grad is not None})
            what = f"the gradient of {spoilt}" if spoilt else ""
        if what:
            self.generator.bit_generator.state = random
            raise FloatingPointError(f"{what} at step {self.step + 1}: try a lower --lr ({self._origin(images)})")
        self.optimizer.step()
        self.step += 1
        return self.model.bits_per_dim(loss.item())

    def _origin(self, images: np.ndarray) -> str:
        """Which parameter, or else which op, brought something that isn't finite into this step."""
        if spoilt := _not_finite(dict(self.model.named_parameters())):
            return f"parameter {spoilt}"
        try:
            with detect_nan():
                self.model.nats(images).mean().backward()
        except FloatingPointError as e:
            return str(e)
        return "no op gave it: values too large were added up"

    def save(self, run: Run) -> None:
        """Write the checkpoint, unless a parameter isn't finite: then FloatingPointError."""
        if spoilt := _not_finite(dict(self.model.named_parameters())):
            raise FloatingPointError(f"parameter {spoilt} at step {self.step}: try a lower --lr")
        run.save(
            self.config, self.model, step=self.step, seconds=self.seconds, data=self.data,
            optimizer=self.optimizer.state_dict(), batches=self.batches.state_dict(),
            generator=self.generator.bit_generator.state,
        )  # fmt: skip

    def restore(self, run: Run, state: dict[str, Any]) -> None:
        """Take up what `save` wrote, and cut metrics.csv there. Raises CheckpointError if it doesn't fit."""
        try:
            then = state["data"]
            other = [f"{k} were {then.get(k)}, are now {v}" for k, v in self.data.items() if then.get(k) != v]
            if other:
                raise ValueError(f"the data set {self.config.data!r} has changed: {'; '.join(other)}")
            self.optimizer.load_state_dict(state["optimizer"])
            self.batches.load_state_dict(state["batches"])
            self.generator.bit_generator.state = state["generator"]
            self.step, self.seconds = int(state["step"]), float(state["seconds"])
        except (AttributeError, KeyError, TypeError, ValueError) as e:
            what = f"it has no {e}" if isinstance(e, KeyError) else e
            raise CheckpointError(f"{run.checkpoint}: can't go on from it: {what}") from e
        run.rewind(self.step)


def _not_finite(tensors: dict[str, Any]) -> str:
    """ "NAME is nan" or "NAME is inf" of the first that isn't finite everywhere, or nothing."""
    for name, value in tensors.items():
        array = value.numpy()
        if not np.isfinite(array).all():
            return f"{name} is {'nan' if np.isnan(array).any() else 'inf'}"
    return ""
