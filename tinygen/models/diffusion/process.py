"""From images to noise and back: DDPM and DDIM as one step, its inverse, and the score.

Everything here is of arrays, and of a function `predict(x, t)`: the image x_0 that one expects behind x at time t of a
schedule. Noise follows from it, e = (x - sqrt(abar_t) x_0) / sqrt(1 - abar_t), so a clipped x_0 has its own.

    x_(t-1) = sqrt(abar_(t-1)) x_0 + sqrt(1 - abar_(t-1) - sigma^2) e + sigma z                       DDIM, equation 12
    sigma   = eta sqrt((1 - abar_(t-1)) / (1 - abar_t)) sqrt(1 - abar_t / abar_(t-1))                 DDIM, equation 16

eta = 1 is DDPM with the variance of q(x_(t-1) | x_t, x_0) (Ho et al. 2020, equations 6 and 7); eta = 0 has no noise, so
the image follows from the first x.

Source: Ho, Jain & Abbeel, Denoising diffusion probabilistic models (2020), algorithm 2; Song, Meng & Ermon, Denoising
diffusion implicit models (2021).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from tinygen.models.diffusion.schedules import Schedule

Predict = Callable[[np.ndarray, int], np.ndarray]


class Step(NamedTuple):
    """x_(t-1) = image * x_0 + x * x_t + sigma * z."""

    image: float
    x: float
    sigma: float


def step(schedule: Schedule, t: int, eta: float) -> Step:
    """What makes x_(t-1) of x_t, for t of 1 .. T. sigma is 0 at t = 1: there x_0 is what comes out."""
    before, now = float(schedule.abar[t - 1]), float(schedule.abar[t])
    sigma = eta * math.sqrt((1 - before) / (1 - now)) * math.sqrt(1 - now / before)
    of_noise = math.sqrt(max(1 - before - sigma * sigma, 0.0)) / math.sqrt(1 - now)
    return Step(math.sqrt(before) - of_noise * math.sqrt(now), of_noise, sigma)


def reverse(
    predict: Predict, schedule: Schedule, x: np.ndarray, eta: float, rng: np.random.Generator, temperature: float = 1.0,
    known: Callable[[np.ndarray, int], np.ndarray] | None = None,
) -> Iterator[np.ndarray]:  # fmt: skip
    """x_T, which is x, then x_(T-1) .. x_0, in x's dtype.

    temperature: what the noise z is multiplied by. known: puts what is known into an x at a time t.
    """
    for t in range(len(schedule), -1, -1):
        if t < len(schedule):
            of_image, of_x, sigma = step(schedule, t + 1, eta)
            x = of_image * predict(x, t + 1) + of_x * x
            if sigma > 0:
                x += (temperature * sigma) * rng.standard_normal(x.shape, x.dtype)
        if known is not None:
            x = known(x, t)
        yield x


def encode(predict: Predict, schedule: Schedule, x: np.ndarray, iterations: int = 1) -> np.ndarray:
    """x_T of an image x, from which the steps with eta = 0 lead back to it.

    The step from x_(t-1) to x_t needs the noise at x_t, which isn't known yet. At first it is taken at x_(t-1), an
    error of first order in the steps; each further iteration takes it at the x_t found before (a fixed point).
    """
    a, s = schedule.signal, schedule.noise
    for t in range(1, len(schedule) + 1):
        before = found = x
        for _ in range(iterations):
            noise = (found - a[t] * predict(found, t)) / s[t]
            found = a[t] / a[t - 1] * (before - s[t - 1] * noise) + s[t] * noise
        x = found.astype(before.dtype, copy=False)
    return x


def score(predict: Predict, schedule: Schedule, x: np.ndarray, t: int) -> np.ndarray:
    """The gradient of log q(x_t) at x: -e / sqrt(1 - abar_t) (Vincent 2011; Song & Ermon 2019)."""
    return (schedule.signal[t] * predict(x, t) - x) / schedule.noise[t] ** 2
