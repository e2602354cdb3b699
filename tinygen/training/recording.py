"""A training step as a page: what `tinygen tape` writes."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tinygen import Tensor, grad, nn, tensor
from tinygen.data import Dataset
from tinygen.learn import Tape
from tinygen.learn.page import Check, Field
from tinygen.models.model import Causal, Model
from tinygen.models.registry import model_class
from tinygen.training.config import Config
from tinygen.training.environment import environment
from tinygen.training.loop import build
from tinygen.training.sets import check_labels
from tinygen.training.trainer import Trainer

CHECKED = 12  # parameters at most whose gradients are held against finite differences
STEP = 1e-6  # of the differences: so small that few kinks of a relu lie within it


def record(config: Config, out: Path) -> Tape:
    """Record the first training step of a model as configured, and write the page."""
    sets = config.sets()
    rng = np.random.default_rng(config.seed)
    model = build(config, sets[0], rng)
    check_labels(model, sets)
    trainer = Trainer(config, model, sets[0], rng)
    model.train()
    with Tape(model) as tape:
        parts = trainer.advance(0.0)
    said = ", ".join(f"{name} {value:.6g}" for name, value in parts.items())
    made = environment()
    about = f"The first step of {config.model}, {config.batch_size} images of {sets[0].name}, seed {config.seed}, "
    about += f"kernels {made['kernels']}, tinygen {made['tinygen']}: {said}"
    tape.write(out, f"{config.model}: one training step", about, checked(config, sets[0], tape),
               list(fields(config, sets[0])))  # fmt: skip
    return tape


def checked(config: Config, data: Dataset, tape: Tape) -> list[Check]:
    """One element of each of some parameters: its gradient in float64, and finite differences of the step's loss."""
    rng = np.random.default_rng(config.seed)
    model = build(config, data, rng)
    model.to(np.float64)
    trainer = _Checking(config, model, data, rng)
    trainer.wanted = list(tape.leaves)[:: -(-len(tape.leaves) // CHECKED) or 1]
    trainer.model.train()
    trainer.advance(0.0)
    return sorted(trainer.found, key=lambda c: list(tape.leaves).index(c.leaf))


class _Checking(Trainer):
    """A trainer that holds gradients against finite differences before it takes its step."""

    def __init__(self, config: Config, model: Model, data: Dataset, rng: np.random.Generator) -> None:
        super().__init__(config, model, data, rng)
        self.wanted: list[str] = []
        self.found: list[Check] = []

    def minimize(self, closure: Callable[[], dict[str, Tensor]], optimizer: str = "adam") -> dict[str, float]:
        done = {check.leaf for check in self.found}
        own = {n: p for n, p in self._parameters[optimizer].items() if n in self.wanted and n not in done}
        state = self.rng.bit_generator.state

        def loss() -> Tensor:
            self.rng.bit_generator.state = state  # the same noise each time
            return functools.reduce(operator.add, closure().values())

        if own:
            gradients = grad(loss(), list(own.values()))
            self.found += [
                _check(name, p, g.numpy(), loss) for (name, p), g in zip(own.items(), gradients, strict=True)
            ]
        self.rng.bit_generator.state = state
        return super().minimize(closure, optimizer)


def _check(name: str, p: Tensor, gradient: np.ndarray, loss: Callable[[], Tensor]) -> Check:
    """Of the largest element of the gradient: a difference over a step to both sides, and how far it may be off.

    That is what the slopes to both sides differ by, a kink's jump among it, and the loss's rounding.
    """
    place = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)
    value, h = float(p.numpy()[place]), STEP

    def at(change: float) -> float:
        p.write()[place] = value + change
        return loss().item()

    below, here, above = (at(s) for s in (-h, 0, h))
    p.write()[place] = value
    bound = abs(above - 2 * here + below) / h + 4e-15 * abs(here) / h
    return Check(name, tuple(int(i) for i in place), float(gradient[place]), (above - below) / (2 * h), bound)


def fields(config: Config, data: Dataset) -> Iterator[Field]:
    """What the middle pixel of each layer's output sees, of a model that gives each value those before it."""
    model: Any = build(config, data, np.random.default_rng(config.seed)).to(np.float64).eval()
    if not issubclass(model_class(config.model), Causal):
        return
    rng = np.random.default_rng(0)
    image = tensor(rng.standard_normal((1, *model.image_shape)), requires_grad=True)
    layers = getattr(model, "layers", None)
    if isinstance(layers, nn.Sequential):
        x = image
        for i, layer in enumerate(layers):
            x = layer(x)
            if x.ndim == 4 and x.shape[2:] == image.shape[2:]:
                yield _field(f"layers.{i}", x, image, rng)
    logits = model.logits(image, model.condition.in_turn(1))
    yield _field(f"{config.model}, whole", logits[:, :, 0], image, rng)


def _field(name: str, x: Tensor, image: Tensor, rng: np.random.Generator) -> Field:
    height, width = x.shape[2] // 2, x.shape[3] // 2
    weights = np.zeros(x.shape)
    weights[:, :, height, width] = rng.uniform(0.5, 1.5, x.shape[:2])
    (g,) = grad(x, image, weights, retain_graph=True)
    seen = np.abs(g.numpy()[0]).sum(axis=0)
    strength = np.where(seen > 0, np.maximum(seen / max(seen.max(), 1e-300), 1e-3), 0) ** 0.25
    return Field(name, strength.round(3).tolist(), (height, width))
