"""One step of training, and all that changes from step to step."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import math
import operator
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tinygen import Tensor, parallel, tensor
from tinygen.data import Dataset, Minibatches, in_memory
from tinygen.debug import detect_nan, not_finite
from tinygen.errors import describe
from tinygen.models.family import Batch
from tinygen.models.model import Model
from tinygen.optim import Optimizer, clip_grads_with_norm_, get_total_norm
from tinygen.training.buckets import Buckets
from tinygen.training.checkpoint import CheckpointError
from tinygen.training.config import Config
from tinygen.training.run import Run

_COUNTS = {"step": int, "drawn": int, "seconds": float, "moment": int, "best": float}


class Trainer:
    """A model with its optimizers and its place in the data: all that changes from step to step, hence all that a
    checkpoint holds.

    data: what is trained on. rng: of all random numbers of the training; it draws the order of the images too. held:
    what its validation is taken of; here only in order that a run isn't resumed with other images or labels.

    Attributes:
        dataset: what is trained on, or a part of it that fits into memory.
        step, drawn: how many steps were done, how many minibatches given.
        progress: how much of the training was over when the current step began, from 0 to 1.
        seconds: how long it took, where `config.minutes` bounds it (else 0.0, lest checkpoints differ).
        elapsed: seconds since the loop began, by the clock of rank 0.
        busy: seconds that this rank has worked in steps: without those in which it waited for others.
        own_images: how many images this rank has taken since then.
        moment: how many of the moments (`hooks.MOMENTS`) have passed.
        best: the least validation so far.
    """

    def __init__(
        self, config: Config, model: Model, data: Dataset, rng: np.random.Generator, held: Dataset | None = None
    ) -> None:
        self.ranks = parallel.current()
        if self.ranks.size > 1 and model.unshared:
            raise ValueError(f"{config.model} can't be trained by {self.ranks.size} ranks: {model.unshared}")
        self.draws = None if self.ranks.size == 1 else parallel.SharedDraws(rng.bit_generator, self.ranks)
        self.config, self.model, self.dataset, self.rng = config, model, in_memory(data), self.draws or rng
        self.batches = Minibatches(data, config.batch_size, rng, share=self._share if self.draws else None)
        self.optimizers = model.optimizers(config.lr)
        self.step, self.drawn, self.seconds, self.moment, self.progress = 0, 0, 0.0, 0, 0.0
        self.elapsed, self.busy, self.own_images = 0.0, 0.0, 0
        self.best: float | None = None
        self._read = data, held
        self._images = itertools.chain.from_iterable(itertools.repeat(self.batches))  # epoch after epoch
        self._taken: set[int] = set()  # sizes of the minibatches since the last step of an optimizer
        self._averaged: dict[str, float] | None = None  # what an optimizer's last step gave: means over the ranks
        self._parameters = {name: _named(o, model) for name, o in self.optimizers.items()}
        self._buckets: dict[str, Buckets] = {}
        self._groups = [(g, g["lr"]) for o in self.optimizers.values() for g in o.param_groups]

    @functools.cached_property
    def data(self) -> dict[str, Any]:
        """A description by which the images and labels of this training are told from others."""
        train, held = self._read
        read = [data.digests for data in (train, held) if data is not None]
        about = {"images": list(train.images.shape), "levels": train.levels}
        for name, what in (("sha256", "images"), ("labels", "labels")):
            about[name] = hashlib.sha256("".join(digests[what] for digests in read).encode()).hexdigest()
        return about

    @property
    def done(self) -> float:
        """How much of the training is over, from 0 to 1."""
        epochs, minutes = self.config.epochs, self.config.minutes
        by_images = 0.0 if epochs is None else self.drawn / max(1, round(epochs * len(self.batches)))
        return min(1.0, max(by_images, 0.0 if minutes is None else self.seconds / (60 * minutes)))

    @property
    def images(self) -> int:
        """How many images were given so far."""
        epochs, rest = divmod(self.drawn, len(self.batches))
        return epochs * self.batches.size + rest * self.batches.batch_size

    def batch(self) -> Batch:
        """The next images; of several ranks this one's share of them."""
        self.drawn += 1
        return Batch(*next(self._images))

    def _share(self, images: int) -> slice:
        """Which of a minibatch's images are this rank's. ValueError if not every rank gets one."""
        assert self.draws is not None
        self._taken.add(images)
        if images < self.ranks.size or len(self._taken) > 1:
            why = f"{type(self.model).__name__} takes several a step, which can't be shared if they differ"
            if images < self.ranks.size:
                why = f"it has fewer than there are ranks, {self.ranks.size}"
            raise ValueError(f"a minibatch of {images} images, the last of an epoch, can't be shared: {why}; "
                             f"choose a --batch-size that divides the {self.batches.size:,} images")  # fmt: skip
        own = self.draws.share(images)
        self.own_images += own.stop - own.start
        return own

    def advance(self, done: float) -> dict[str, float]:
        """One step of the model, `done` (from 0 to 1) of the training being over: its numbers.

        With the schedule "cosine" the learning rates fall to zero along half a cosine (Loshchilov & Hutter 2017,
        without restarts). Over the model's `warmup` they rise to that in a straight line (Goyal et al. 2017, 2.2).
        """
        factor = 0.5 * (1 + math.cos(math.pi * done)) if self.model.schedule == "cosine" else 1.0
        factor *= min(1.0, (self.step + 1) / max(1, self.model.warmup))
        for group, lr in self._groups:
            group["lr"] = lr * factor
        self.progress = done
        start = time.perf_counter() - self.ranks.waited
        parts = self.model.training_step(self)
        self.busy += time.perf_counter() - self.ranks.waited - start
        if not isinstance(parts, dict):
            kind = type(self.model).__name__
            raise ValueError(f"{kind}.training_step must return a dict of numbers by name, got {describe([parts])}")
        self.step += 1
        return parts if parts is self._averaged else self._start_means(parts)()

    def _start_means(self, numbers: dict[str, float]) -> Callable[[], dict[str, float]]:
        """Begin to take the means over the ranks, each with the weight of its share of the minibatch: call for them."""
        if self.draws is None:
            return lambda: numbers
        sums = np.array([value * self.draws.weight for value in numbers.values()], np.float64)
        pending = self.ranks.start_sum(sums)

        def means() -> dict[str, float]:
            pending.wait()
            return dict(zip(numbers, sums.tolist(), strict=True))

        return means

    def minimize(self, closure: Callable[[], dict[str, Tensor]], optimizer: str = "adam") -> dict[str, float]:
        """One step of an optimizer on the sum of the 0-d parts that closure() gives: the parts, as numbers.

        If the model has a `clip`, the gradient is scaled down to that norm, and "gradient_norm" is the norm before.
        The parameters that are not this optimizer's are frozen meanwhile: neither they nor their gradients change.

        Raises FloatingPointError, before anything has changed, if a part or a gradient isn't finite: it names the step,
        the tensor and the op that spoiled it. Raises ValueError for parts that aren't a dict of 0-d tensors.
        """
        chosen, random = self.optimizers[optimizer], self.rng.bit_generator.state
        with self._frozen(optimizer):
            chosen.zero_grad()
            parts = _checked(closure(), self.model)
            means = self._start_means({name: part.item() for name, part in parts.items()})
            self._backward(functools.reduce(operator.add, parts.values()), optimizer)
            values = means()  # not before: other ranks may not be that far
            what = next((f"the loss {k!r} became {v}" for k, v in values.items() if not math.isfinite(v)), "")
            if not what:
                spoiled = _first_not_finite({name: p.grad for name, p in self._parameters[optimizer].items()})
                spoiled = parallel.first_said(spoiled) if self.ranks.sharded else spoiled
                what = f"the gradient of {spoiled}" if spoiled else ""
            if what:
                self.rng.bit_generator.state = random
                raise FloatingPointError(f"{what} at step {self.step + 1}: try a lower --lr ({self._origin(closure)})")
        if self.model.clip is not None:
            values["gradient_norm"] = _clip(list(self._parameters[optimizer].values()), self.model.clip)
        chosen.step()
        if self.draws is not None:
            self._summed(optimizer).share_out()
        self._taken.clear()
        self._averaged = values
        return values

    def _backward(self, loss: Tensor, optimizer: str) -> None:
        """The gradients of the loss; of several ranks those of the whole minibatch's."""
        if self.draws is None:
            loss.backward()
            return
        self._summed(optimizer).backward(loss * self.draws.weight)

    def _summed(self, optimizer: str) -> Buckets:
        """An optimizer's gradients, of several ranks."""
        if optimizer not in self._buckets:
            self._buckets[optimizer] = Buckets(self._parameters[optimizer].values(), self.ranks)
        return self._buckets[optimizer]

    def _owners(self, name: str) -> list[int | None]:
        """The rank that each of an optimizer's parameters belongs to, if they are sharded."""
        groups = self.optimizers[name].param_groups
        return [self._summed(name).owner(p) for group in groups for p in group["params"]]

    def _whole(self, name: str) -> dict[str, Any]:
        """An optimizer's state; where each rank has a part of it, all parts, for which all ranks have to ask."""
        optimizer, own = self.optimizers[name], self.optimizers[name].state
        if self.ranks.sharded:
            states = zip(own, self._owners(name), strict=True)
            optimizer.state = [self.ranks.broadcast(state, rank or 0) for state, rank in states]
        try:
            return optimizer.state_dict() if not self.ranks.rank else {}
        finally:
            optimizer.state = own

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
        if spoiled := _first_not_finite(dict(self.model.named_parameters())):
            return f"parameter {spoiled}"
        found = ""
        try:
            with detect_nan(), parallel.using(parallel.Alone()):
                functools.reduce(operator.add, closure().values()).backward()
        except FloatingPointError as e:
            found = str(e)
        # it may be in the share of one alone
        return parallel.first_said(found) or "no op gave it: values too large were added up"

    def save(self, run: Run | None) -> None:
        """Write the checkpoint, unless a parameter isn't finite: then FloatingPointError.

        run: None on all ranks but the first. They have to call it, too, for each may have a part of what is written.
        """
        self._check_parameters()
        optimizers = {name: self._whole(name) for name in self.optimizers}
        if run is not None:
            run.save(
                run.checkpoint, self.config, self.model, data=self.data, batches=self.batches.state_dict(),
                optimizers=optimizers, generator=self.rng.bit_generator.state,
                **{name: getattr(self, name) for name in _COUNTS},
            )  # fmt: skip

    def save_best(self, run: Run | None, validation: float) -> None:
        """Write the model alone, as the best so far, unless a parameter isn't finite: then FloatingPointError."""
        self._check_parameters()
        self.best = validation
        if run is not None:
            run.save(run.best, self.config, self.model, step=self.step, best=validation)

    def _check_parameters(self) -> None:
        if spoiled := _first_not_finite(dict(self.model.named_parameters())):
            raise FloatingPointError(f"parameter {spoiled} at step {self.step}: try a lower --lr")

    def restore(self, run: Run, state: dict[str, Any]) -> None:
        """Take up what `save` wrote, and cut metrics.csv there. Raises CheckpointError if it doesn't fit."""
        try:
            then, now = (
                state["data"],
                self.ranks.broadcast(None if self.ranks.rank else self.data),
            )  # one reads them all
            other = [f"{k} were {then.get(k)}, are now {v}" for k, v in now.items() if then.get(k) != v]
            if other:
                raise ValueError(f"the data set {self.config.data!r} has changed: {'; '.join(other)}")
            for name, optimizer in self.optimizers.items():
                optimizer.load_state_dict(state["optimizers"][name])
                if self.ranks.sharded:
                    owned = zip(optimizer.state, self._owners(name), strict=True)
                    optimizer.state = [one if rank == self.ranks.rank else {} for one, rank in owned]
            self.batches.load_state_dict(state["batches"])
            self.rng.bit_generator.state = state["generator"]
            for name, kind in _COUNTS.items():
                setattr(self, name, None if state[name] is None and name == "best" else kind(state[name]))
        except (AttributeError, KeyError, TypeError, ValueError) as e:
            what = f"it has no {e}" if isinstance(e, KeyError) else e
            raise CheckpointError(f"{run.checkpoint}: can't go on from it: {what}") from e
        if not self.ranks.rank:
            run.rewind(self.step)


def _checked(parts: Any, model: Model) -> dict[str, Tensor]:
    """The parts of a model's loss, if they are 0-d tensors by name; else ValueError."""
    wanted = f"the loss of {type(model).__name__} must be a dict of 0-d tensors by name, such as {{'nll': nll.mean()}}"
    if not isinstance(parts, dict) or not parts:
        raise ValueError(f"{wanted}; it is {describe([parts])}")
    for name, part in parts.items():
        if not isinstance(part, Tensor) or part.ndim:
            raise ValueError(f"{wanted}; {name!r} is {describe([part])}")
    return parts


def _named(optimizer: Optimizer, model: Model) -> dict[str, Tensor]:
    """An optimizer's parameters by their names in the model."""
    own = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return {name: p for name, p in model.named_parameters() if id(p) in own}


def _clip(parameters: list[Tensor], most: float) -> float:
    """`clip_grad_norm_`, where each rank may have some of the gradients."""
    norms = [0.0 if p.grad is None else get_total_norm([p.grad]) for p in parameters]
    total = get_total_norm([tensor(np.array(parallel.from_owners(norms)))])
    clip_grads_with_norm_(parameters, most, total)
    return total


def _first_not_finite(tensors: dict[str, Any]) -> str:
    """ "NAME is nan" or "NAME is inf" of the first that isn't finite everywhere, or ""."""
    return next((f"{name} is {word}" for name, value in tensors.items() if (word := not_finite(value))), "")
