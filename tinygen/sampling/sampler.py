"""Cached sampling: drawing images with a program, by which each of the network's numbers is computed once.

So an image takes about as long as one forward pass, where a plain loop takes one for each of its values (lecture slide
33). `tinygen.sampling.trace` notes what a network computes, and when it can; `tinygen.sampling.program` makes steps of
that; here they run. `Sampler.run` is the definition, csrc/sample.c the kernel.
"""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np

from tinygen import Tensor, kernels, ops
from tinygen.array import moved
from tinygen.console import progress
from tinygen.debug import not_finite
from tinygen.modes import is_reference
from tinygen.pool import empty
from tinygen.sampling.program import Program, program
from tinygen.sampling.trace import Trace

_CHUNK = 1 << 31  # multiplications in a call of the kernel at most, some 0.1 s; between calls Ctrl-C is heard
_FUNCTIONS: dict[str, Any] = {
    "copy": lambda x, y: x,
    "relu": lambda x, y: ops.relu(x),
    "elu": lambda x, y: ops.elu(x),
    "tanh": lambda x, y: ops.tanh(x),
    "sigmoid": lambda x, y: ops.sigmoid(x),
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "gated": lambda x, y: ops.tanh(x) * ops.sigmoid(y),
}


class Sampler:
    """Draws images from a model with its weights as they are now. Raises NotTraceable.

    Args:
        model: an autoregressive one (`tinygen.models.autoregressive.base`).
        labels: of the images that will be drawn, (N,), for a model of classes.
    """

    def __init__(self, model: Any, labels: np.ndarray | None = None) -> None:
        kinds, self.which = np.unique([] if labels is None else labels, return_inverse=True)
        plans = [_plan(model, label) for label in kinds.tolist() or [0 if model.condition else None]]
        self.model, self.program = model, plans[0][0]
        self.constants = [constants for _, constants in plans]
        levels = np.arange(model.levels)[:, None, None, None]
        self.scaled = np.ascontiguousarray(model.scale(levels).numpy().ravel())

    def complete(self, images: np.ndarray, given: np.ndarray, uniform: np.ndarray, temperature: float) -> np.ndarray:
        """Images (N, C, H, W) uint8 with the values that aren't given drawn.

        given: which are, in the model's order. uniform: a number from 0 to 1 for each of the others, (values, N).
        Raises FloatingPointError for logits that aren't finite.
        """
        n, channels, height, width = images.shape
        flat, order = images.transpose(0, 2, 3, 1).reshape(n, channels * height * width).copy(), self.model.order()
        x, numbers, state = np.ascontiguousarray(flat[:, order]), np.zeros((len(order), n)), self.state(n)
        numbers[~given] = uniform
        for first, last in self.stretches(given, n):
            progress(first / len(order), f"drawing {n:,} images {channels}x{height}x{width}")
            self.run(state, x, first, last, last if given[first] else first, numbers, temperature)
        flat[:, order] = x
        return flat.reshape(n, height, width, channels).transpose(0, 3, 1, 2)

    def stretches(self, given: np.ndarray, n: int) -> Iterator[tuple[int, int]]:
        """The values in calls of `run`: of given ones, or such that are to be drawn, and of bounded work."""
        chunk = max(1, _CHUNK // max(1, n * self.program.weights.size))
        ends = [0, *(np.flatnonzero(np.diff(given)) + 1).tolist(), len(given)]
        for begin, end in itertools.pairwise(ends):
            yield from ((first, min(end, first + chunk)) for first in range(begin, end, chunk))

    def state(self, n: int) -> np.ndarray:
        """Memory for the numbers of n images, with all that is constant."""
        state = empty((n, self.program.size), self.program.weights.dtype)
        state.fill(0)
        for place, *constants in zip(self.program.constants, *self.constants, strict=True):
            state[:, place] = constants[0] if len(constants) == 1 else np.stack(constants)[self.which]
        return state

    def place(self, value: int) -> str:
        """` at row 3, column 4`."""
        channels, _, width = self.model.image_shape
        row, column = divmod(int(self.model.order()[value]) // channels, width)
        return f" at row {row}, column {column}"

    def logits(self, state: np.ndarray, x: np.ndarray, value: int) -> np.ndarray:
        """Of a value's levels (N, levels), by what the network gives at its pixel and the colors drawn before."""
        output, channels = state[:, self.program.results[value]], self.model.image_shape[0]
        if not self.program.mixtures:
            return output
        colors = self.scaled[x[:, value // channels * channels :][:, :channels, None, None]]
        logits = self.model.of_levels(Tensor(output[:, :, None, None]), Tensor(colors))
        return logits.numpy()[:, :, value % channels, 0, 0]

    def run(
        self, state: np.ndarray, x: np.ndarray, first: int, last: int, known: int, uniform: np.ndarray,
        temperature: float,
    ) -> None:  # fmt: skip
        """Values first to last of x (N, values), in which those before `known` are given. See csrc/tinygen.h."""
        s = self.program
        if not is_reference():
            failed = kernels.sample.sample(s, self.scaled, uniform, state, x, first, last, known, temperature)
            if failed is not NotImplemented:
                if failed >= 0:
                    raise _spoiled(self.logits(state, x, failed), self.place(failed))
                return
        layers, runs = s.layers.tolist(), s.runs.tolist()
        for value in range(first, last):
            if value:
                state[:, s.places[value - 1]] = self.scaled[x[:, value - 1]]
            for layer, *places in s.steps[s.starts[value] : s.starts[value + 1]].tolist():
                _step(state, s.weights, layers[layer], runs, *places)
            if value >= known:
                x[:, value] = draw(self.logits(state, x, value), uniform[value], temperature, self.place(value))


def _step(
    state: np.ndarray, weights: np.ndarray, layer: list[int], runs: list[list[int]], out: int, x: int, y: int
) -> None:
    number, n, run, count, _, _, ld, at = layer
    kind, result, other = kernels.sample.SAMPLER_LAYERS[number], state[:, out : out + n], state[:, y : y + n]
    if kind in _FUNCTIONS:
        result[...] = _FUNCTIONS[kind](state[:, x : x + n], other)
        return
    v = np.concatenate([state[:, :0], *(state[:, x + a : x + a + k] for a, k in runs[run : run + count])], axis=1)
    rows = weights[at : at + (1 + v.shape[1]) * ld].reshape(-1, ld)[:, :n]
    result[...] = (rows[0] if kind == "linear" else other) + v @ rows[1:]


def draw(logits: np.ndarray, uniform: np.ndarray, temperature: float = 1.0, place: str = "") -> np.ndarray:
    """For each row of logits (N, levels), the level at which the cumulative probability passes uniform (N,).

    Raises FloatingPointError, which names the place, if a logit is NaN, or none of a row's is finite.
    """
    top = logits.max(axis=1, keepdims=True)
    if not np.isfinite(top).all():
        raise _spoiled(logits, place)
    if temperature == 0:
        return logits.argmax(axis=1)
    below = logits.astype(np.float64) - top
    with np.errstate(over="ignore"):  # a tiny temperature gives -inf, hence probability 0
        cumulative = np.exp(below / temperature).cumsum(axis=1)
    return (cumulative <= uniform[:, None] * cumulative[:, -1:]).sum(axis=1)


def _spoiled(logits: np.ndarray, place: str) -> FloatingPointError:
    return FloatingPointError(f"a logit is {not_finite(logits)}{place}")


# ------------------------------------------------------------------------- plans, kept until the model's weights change

_plans: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()  # model -> its weights, {label: plan}


@contextlib.contextmanager
def _on_cpu(tensors: list[Tensor]) -> Iterator[None]:
    """Within it a model's tensors are on the CPU: one value after the other is no work for a GPU."""
    arrays = [t._array for t in tensors]
    try:
        for t in tensors:
            t._array = moved(t._array, np)
        yield
    finally:
        for t, array in zip(tensors, arrays, strict=True):
            t._array = array


def _tensors(model: Any) -> list[Tensor]:
    """All parameters and buffers; without the names that Module's own methods make, in a quarter of their time."""
    found: list[Tensor] = []
    modules = [model]
    for module in modules:
        for name, role in module._roles.items():
            (modules if role == "module" else found).append(getattr(module, name))
    return found


def _plan(model: Any, label: Any) -> tuple[Program, list[np.ndarray]]:
    """A model's program, and its constants for this label."""
    tensors = _tensors(model)
    weights = [(t._array, None if t._version is None else t._version[0]) for t in tensors]
    kept, plans = _plans.get(model, ([], {}))
    if [(id(a), v) for a, v in kept] != [(id(a), v) for a, v in weights]:
        plans = {}
        _plans[model] = weights, plans
    if label not in plans:
        with _on_cpu(tensors):
            trace = Trace(model, label)
        constants = [b.values for b in trace.buffers if b.values is not None]
        plans[label] = next(iter(plans.values()))[0] if plans else program(trace), constants
    return plans[label]
