"""Ordinary differential equations, solved: dy/dt = rate(t, y), where y is a tuple of tensors.

Two methods of Runge and Kutta: `rk4` with steps of one length, whose error falls with the fourth power of it, and
`dopri5`, which chooses its steps. Both are written in ops, so gradients flow through them.

Source: Hairer, Norsett & Wanner, Solving ordinary differential equations I (1993), sections II.1, II.4 and II.5.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tinygen import Tensor

State = tuple[Tensor, ...]
Rate = Callable[[float, State], State]
MOST = 10_000  # steps of dopri5

# Dormand & Prince (1980): at which times, by which sums of the rates so far, and the weights of order 5. The last row
# is those weights: the rate at the end of a step is that at the start of the next.
C = 0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0
A = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
B4 = 5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40  # the weights of order 4
ERROR = tuple(b5 - b4 for b5, b4 in zip((*A[-1], 0.0), B4, strict=True))


def rk4(rate: Rate, y: State, start: float, end: float, steps: int) -> State:
    """y at the time `end`, by so many equal steps of the classical method of order 4; four evaluations each."""
    h = (end - start) / steps
    for i in range(steps):
        t = start + i * h
        k1 = rate(t, y)
        k2 = rate(t + h / 2, moved(y, (k1,), (h / 2,)))
        k3 = rate(t + h / 2, moved(y, (k2,), (h / 2,)))
        k4 = rate(t + h, moved(y, (k3,), (h,)))
        y = moved(y, (k1, k2, k3, k4), (h / 6, h / 3, h / 3, h / 6))
    return y


def dopri5(rate: Rate, y: State, start: float, end: float, tolerance: float) -> State:
    """y at the time `end`, by Dormand and Prince's method of order 5, whose steps are as long as the tolerance lets.

    tolerance: of a step's error, which is estimated by a method of order 4, absolute and relative to y: the root of the
    mean of its squares is no more. Raises FloatingPointError where no step is short enough.
    """
    t, h, k1 = start, (end - start) / 10, rate(start, y)
    for _ in range(MOST):
        last = abs(h) >= abs(end - t)
        h = end - t if last else h
        k: tuple[State, ...] = (k1,)
        for c, row in zip(C[1:], A[1:], strict=True):
            new = moved(y, k, tuple(h * a for a in row))
            k = (*k, rate(t + c * h, new))
        error = excess(moved(tuple(part * 0 for part in y), k, tuple(h * e for e in ERROR)), y, new, tolerance)
        if error <= 1:
            if last:
                return new
            t, y, k1 = t + h, new, k[-1]
        h *= min(5.0, max(0.2, 0.9 * max(error, 1e-10) ** -0.2)) if math.isfinite(error) else 0.2
        if abs(h) < 1e-10 * abs(end - start):
            break
    raise FloatingPointError(f"dopri5: at time {t:.3g} no step is short enough for a tolerance of {tolerance:g}: the "
                             "solution changes too fast; train with a lower --lr")  # fmt: skip


def moved(y: State, rates: tuple[State, ...], by: tuple[float, ...]) -> State:
    """y + the sum of by[i] rates[i]."""
    for factor, k in zip(by, rates, strict=True):
        y = tuple(part + rate * factor for part, rate in zip(y, k, strict=True)) if factor else y
    return y


def excess(error: State, y: State, new: State, tolerance: float) -> float:
    """A step's error over what is tolerated: equation 4.11 of section II.4."""
    squares, n = 0.0, 0
    for e, before, after in zip(error, y, new, strict=True):
        scale = tolerance * (1 + np.maximum(np.abs(before.numpy()), np.abs(after.numpy())))
        squares += float(((e.numpy() / scale) ** 2).sum())
        n += e.numel()
    return math.sqrt(squares / max(n, 1))
