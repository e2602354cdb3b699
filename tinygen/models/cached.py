"""Cached sampling: drawing images with a schedule, by which each of the network's numbers is computed once.

So an image takes about as long as one forward pass, where a plain loop takes one for each of its values (lecture slide
33). `tinygen.models.schedule` says how a network becomes a schedule; here it runs. `Sampler.run` is the definition,
csrc/sample.c the kernel.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygen import native
from tinygen.autograd import is_reference
from tinygen.models.schedule import Schedule, Trace, schedule

if TYPE_CHECKING:
    from tinygen.models.autoregressive import Autoregressive

_CHUNK = 1 << 31  # multiplications in a call of the kernel at most, some 0.1 s; between calls Ctrl-C is heard
_FUNCTIONS: dict[str, Any] = {
    "copy": lambda x, y: x,
    "relu": lambda x, y: np.maximum(x, 0),
    "elu": lambda x, y: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "tanh": lambda x, y: np.tanh(x),
    "sigmoid": lambda x, y: 1 / (1 + np.exp(-x)),
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "gated": lambda x, y: np.tanh(x) / (1 + np.exp(-y)),
}


class Sampler:
    """Draws images from a model with its weights as they are now. Raises NotSchedulable.

    Args:
        labels: of the images that will be drawn, (N,), for a model of classes.
    """

    def __init__(self, model: Autoregressive, labels: np.ndarray | None = None) -> None:
        kinds, self.which = np.unique([] if labels is None else labels, return_inverse=True)
        plans = [_plan(model, label) for label in kinds.tolist() or [None]]
        self.schedule, self.constants = plans[0][0], [constants for _, constants in plans]
        levels = np.arange(model.levels)[:, None, None, None]
        self.scaled = np.ascontiguousarray(model.scale(levels).numpy().ravel())
        self.layers, self.runs = self.schedule.layers.tolist(), self.schedule.runs.tolist()

    def complete(self, images: np.ndarray, known: int, uniform: np.ndarray, temperature: float) -> np.ndarray:
        """Images (N, C, H, W) uint8 whose first `known` values are kept, the others drawn.

        uniform: numbers from 0 to 1 (values - known, N).
        """
        n, channels, height, width = images.shape
        values = channels * height * width
        x = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).reshape(n, values)
        numbers = np.concatenate([np.zeros((known, n)), uniform])
        state, chunk = self.state(n), max(1, _CHUNK // max(1, n * self.schedule.weights.size))
        for first in range(0, values, chunk):
            self.run(state, x, first, min(values, first + chunk), known, numbers, temperature)
        return x.reshape(n, height, width, channels).transpose(0, 3, 1, 2)

    def state(self, n: int) -> np.ndarray:
        """Memory for the numbers of n images, with all that is constant."""
        state = native.empty((n, self.schedule.size), self.schedule.weights.dtype)
        state.fill(0)
        for place, *constants in zip(self.schedule.constants, *self.constants, strict=True):
            state[:, place] = constants[0] if len(constants) == 1 else np.stack(constants)[self.which]
        return state

    def run(
        self, state: np.ndarray, x: np.ndarray, first: int, last: int, known: int, uniform: np.ndarray,
        temperature: float,
    ) -> None:  # fmt: skip
        """Values first to last of x (N, values), in which those before `known` are given. See csrc/tinygen.h."""
        s = self.schedule
        if not is_reference():
            done = native.sample(s, self.scaled, uniform, state, x, first, last, known, temperature)
            if done is not NotImplemented:
                return
        for value in range(first, last):
            if value:
                state[:, s.places[value - 1]] = self.scaled[x[:, value - 1]]
            for step in s.steps[s.starts[value] : s.starts[value + 1]].tolist():
                self._step(state, *step)
            if value >= known:
                x[:, value] = draw(state[:, s.results[value]], uniform[value], temperature)

    def _step(self, state: np.ndarray, layer: int, out: int, x: int, y: int) -> None:
        number, n, run, runs, _, _, ld, at = self.layers[layer]
        kind, result, other = native.SAMPLER_LAYERS[number], state[:, out : out + n], state[:, y : y + n]
        if kind in _FUNCTIONS:
            result[...] = _FUNCTIONS[kind](state[:, x : x + n], other)
            return
        seen = [state[:, x + a : x + a + length] for a, length in self.runs[run : run + runs]]
        v = np.concatenate([state[:, :0], *seen], axis=1)
        weight = self.schedule.weights[at : at + (1 + v.shape[1]) * ld].reshape(-1, ld)[:, :n]
        result[...] = (weight[0] if kind == "linear" else other) + v @ weight[1:]


def draw(logits: np.ndarray, uniform: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """For each row of logits (N, levels), the level at which the cumulative probability passes uniform (N,)."""
    if temperature == 0:
        return logits.argmax(axis=1)
    below = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    with np.errstate(over="ignore"):  # a tiny temperature gives -inf, hence probability 0
        cumulative = np.exp(below / temperature).cumsum(axis=1)
    return (cumulative <= uniform[:, None] * cumulative[:, -1:]).sum(axis=1)


# ------------------------------------------------------------------------- plans, kept until the model's weights change

_plans: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()  # model -> its weights, {label: plan}


def _plan(model: Autoregressive, label: int | None) -> tuple[Schedule, list[np.ndarray]]:
    """A model's schedule, and its constants for this label."""
    tensors = [*model.parameters(), *(b for _, b in model.named_buffers())]
    weights = [(t._array, None if t._version is None else t._version[0]) for t in tensors]
    kept, plans = _plans.get(model, ([], {}))
    if [(id(a), v) for a, v in kept] != [(id(a), v) for a, v in weights]:
        plans = {}
        _plans[model] = weights, plans
    if label not in plans:
        trace = Trace(model, label)
        constants = [b.values for b in trace.buffers if b.values is not None]
        plans[label] = next(iter(plans.values()))[0] if plans else schedule(trace), constants
    return plans[label]
