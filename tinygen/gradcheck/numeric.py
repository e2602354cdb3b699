"""Derivatives by finite differences, each with an error bound.

    central      D(h) = (f(h) - f(-h)) / 2h               error O(h^2) + noise / h
    Richardson   R(h) = (4 D(h/2) - D(h)) / 3             error O(h^4) + noise / h
    one-sided    (4 f(h/2) - f(h) - 3 f(0)) / h           its left and right values differ at a kink
    complex      Im f(ih) / h                             no cancellation; only where f is analytic

A gradient is called wrong only when it lies outside the bound. The step that suits float64 code of scale 1 fails for
code that computes in float32, cancels, or has a kink nearby, so a mismatch is decided by a ladder of steps: the rung
with the smallest bound counts, and a rung's bound takes in the noise that the finer rungs show.

Source: Ridders, Adv. Eng. Software 4 (1982); Moré & Wild, ACM TOMS 38 (2012); Squire & Trapp, SIAM Rev. 40 (1998).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

EPS = float(np.finfo(np.float64).eps)
STEP = EPS ** (1 / 3)  # about 6e-6, times the scale of the argument
LADDER = 4.0 ** -np.arange(2.0, 16.0)  # 0.06 down to 1e-9
FINER = 4  # the last rungs only show the noise

Array = Any
Function = Callable[[list[Any]], Array]  # all arguments -> all outputs, flattened to one vector


class Slope(NamedTuple):
    """A derivative, its error bound, and the step that gave it."""

    value: float
    bound: float
    step: float


class Columns(NamedTuple):
    """Derivatives of all outputs by some elements of one argument."""

    jacobian: Array  # (outputs, elements)
    bound: Array  # (elements,): of the weighted sum over outputs
    low: Array  # (elements,): the smallest and the largest weighted sum that one-sided slopes allow:
    high: Array  # a gradient between them is a fair choice at a kink


def scale_of(x: Array) -> Array:
    """The length by which to measure steps, for each element of x."""
    size = np.abs(x)
    finite = size[np.isfinite(size)]
    rms = float(np.sqrt(np.mean(np.square(finite / m)))) * m if finite.size and (m := finite.max()) > 0 else 1.0
    return np.maximum(size, rms)


class Differences:
    """Finite differences of a function around one point, weighted by an upstream gradient.

    Args:
        function: all arguments -> all outputs in one vector.
        values: the arguments; float arrays are moved, anything else is passed on.
        weights: the upstream gradient, one number for each output.
    """

    def __init__(self, function: Function, values: Sequence[Any], weights: Array) -> None:
        self.function, self.values, self.weights = function, list(values), weights
        self.base = function(self.values)

    def moved(self, i: int, change: Array) -> Array:
        """The outputs with argument i changed by `change`."""
        values = list(self.values)
        values[i] = self.values[i] + change
        return self.function(values)

    def _element(self, i: int, index: tuple[int, ...], t: float) -> tuple[Array, float]:
        """The outputs with one element moved by t, and how far it moved in floating point."""
        values = list(self.values)
        x = np.array(self.values[i], order="K")
        old = x[index]
        x[index] = old + t
        values[i] = x
        return self.function(values), x[index] - old

    def quick(self, i: int, direction: Array) -> Slope:
        """The weighted derivative along a direction: four evaluations."""
        h = STEP
        wide = np.dot(self.weights, self.moved(i, h * direction) - self.moved(i, -h * direction)) / (2 * h)
        near = np.dot(self.weights, self.moved(i, h / 2 * direction) - self.moved(i, -h / 2 * direction)) / h
        noise = 4 * EPS * float(np.linalg.norm(self.weights * self.base)) / h
        return Slope((4 * near - wide) / 3, abs(near - wide) + noise, h)

    def along(self, i: int, direction: Array) -> Slope:
        """The weighted derivative along a direction from the ladder of steps: 28 evaluations."""
        return self._ladder(lambda t: self.moved(i, t * direction) - self.moved(i, -t * direction))

    def at(self, i: int, index: tuple[int, ...]) -> Slope:
        """The weighted derivative by one element from the ladder of steps: 28 evaluations."""
        scale = float(scale_of(self.values[i])[index])

        def difference(t: float) -> Array:
            (up, plus), (down, minus) = self._element(i, index, t * scale), self._element(i, index, -t * scale)
            return (up - down) * (2 * t / (plus - minus)) if plus != minus else np.full_like(up, np.nan)

        return self._ladder(difference)

    def _ladder(self, difference: Callable[[float], Array]) -> Slope:
        with np.errstate(all="ignore"):
            d = np.array([np.dot(self.weights, difference(h)) / (2 * h) for h in LADDER])
            refined = (16 * d[1:] - d[:-1]) / 15  # steps shrink by 4
            best = Slope(float("nan"), float("inf"), 0.0)
            floor = 4 * EPS * float(np.linalg.norm(self.weights * self.base))
            moving = bool(np.any(d))
            for k in range(1, len(refined) - FINER):
                if moving and d[k + 1] == 0:  # rounded away: f takes steps as wide as h
                    continue
                finer = np.abs(d[k + 1 :] - refined[k]) * LADDER[k + 1 :]
                noise = max(float(np.max(np.where(np.isfinite(finer), finer, 0))), floor)
                bound = abs(refined[k] - refined[k - 1]) + noise / LADDER[k + 1]
                if bound < best.bound:
                    best = Slope(float(refined[k]), float(bound), float(LADDER[k + 1]))
        return best

    def columns(self, i: int, which: Array, step: float = STEP) -> Columns:
        """Derivatives by the elements `which` (flat indices) of argument i: four evaluations each."""
        x, w, f0 = self.values[i], self.weights, self.base
        scales = scale_of(x)
        jacobian = np.empty((len(f0), len(which)))
        bound, low, high = (np.empty(len(which)) for _ in range(3))
        for k, flat in enumerate(which):
            index = np.unravel_index(flat, x.shape)
            h = step * float(scales[index])
            (f2, h2), (f1, h1), (b1, g1), (b2, g2) = (self._element(i, index, t) for t in (h, h / 2, -h / 2, -h))
            wide, near = (f2 - b2) / (h2 - g2), (f1 - b1) / (h1 - g1)
            jacobian[:, k] = (4 * near - wide) / 3
            right, left = 2 * (f1 - f0) / h1 - (f2 - f0) / h2, 2 * (b1 - f0) / g1 - (b2 - f0) / g2
            noise = 4 * EPS * float(np.linalg.norm(w * f0)) / h
            bound[k] = np.dot(np.abs(w), np.abs(near - wide)) + noise
            low[k] = np.minimum(w * right, w * left).sum() - noise
            high[k] = np.maximum(w * right, w * left).sum() + noise
        return Columns(jacobian, bound, low, high)

    def complex_at(self, i: int, index: tuple[int, ...]) -> float | None:
        """The weighted derivative by the complex step, or None where the function doesn't carry complex numbers."""
        h = 1e-100 * float(scale_of(self.values[i])[index])
        x = np.array(self.values[i], dtype=complex)
        x[index] += 1j * h
        values = list(self.values)
        values[i] = x
        try:
            out = self.function(values)
        except Exception:
            return None
        return float(np.dot(self.weights, out.imag)) / h if np.iscomplexobj(out) else None
