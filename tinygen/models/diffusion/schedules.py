"""How an image turns into noise: how much of it is left at each time.

    q(x_t | x_0) = N(sqrt(abar_t) x_0, (1 - abar_t) I),    abar_t = (1 - beta_1) .. (1 - beta_t)           equation 4

Time 0 is the image, abar_0 = 1; at time T hardly anything is left of it.

Source: Ho, Jain & Abbeel, Denoising diffusion probabilistic models (2020), section 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

Name = Literal["linear", "cosine"]


class Schedule:
    """abar at the times 0 .. T.

    Attributes:
        abar: (T + 1,) float64, falling from 1.
        signal, noise: sqrt(abar) and sqrt(1 - abar): what image and noise are multiplied by, (T + 1,).
        betas: beta_1 .. beta_T at 1 .. T, (T + 1,); 0 at 0.
        times: what time of the whole process each of them is, from 0 to 1, (T + 1,).

    Raises ValueError for an abar that doesn't fall from 1, or that is below 0.
    """

    def __init__(self, abar: np.ndarray, times: np.ndarray | None = None) -> None:
        if len(abar) < 2 or abar[0] != 1 or abar[-1] < 0 or not (np.diff(abar) < 0).all():
            raise ValueError(f"abar must fall from 1 to not below 0 in at least one step, got {abar}")
        self.abar, self.signal, self.noise = abar, np.sqrt(abar), np.sqrt(1 - abar)
        self.betas = np.concatenate([[0.0], 1 - abar[1:] / abar[:-1]])
        self.times = np.linspace(0, 1, len(abar)) if times is None else times

    def __len__(self) -> int:
        """T, the number of steps."""
        return len(self.abar) - 1

    def subsequence(self, steps: int) -> Schedule:
        """So many of its times, evenly spaced from 0 to T: a process of fewer steps, with betas of its own.

        Betas follow from abar: those of the long process would leave noise in (Song, Meng & Ermon 2021, section 4.2).

        Raises ValueError for fewer than 1 and more than T.
        """
        if not 1 <= steps <= len(self):
            raise ValueError(f"steps must be from 1 to {len(self)}, got {steps}")
        chosen = np.round(np.linspace(0, len(self), steps + 1)).astype(int)
        return Schedule(self.abar[chosen], self.times[chosen])


def linear(times: int) -> Schedule:
    """Betas that grow in a straight line, from 1e-4 to .02 for 1,000 times (Ho et al. 2020, section 4)."""
    betas = np.linspace(1e-4, 0.02, times) * (1000 / times)
    return Schedule(np.concatenate([[1.0], np.cumprod(1 - np.minimum(betas, 0.999))]))


def cosine(times: int) -> Schedule:
    """abar_t = f(t) / f(0), f(t) = cos((t / T + s) / (1 + s) pi / 2)^2 with s = .008, betas at most .999.

    The image lasts longer than with `linear`. Source: Nichol & Dhariwal, Improved denoising diffusion probabilistic
    models (2021), equation 17.
    """
    f = np.cos((np.linspace(0, 1, times + 1) + 0.008) / 1.008 * math.pi / 2) ** 2
    return Schedule(np.concatenate([[1.0], np.cumprod(np.maximum(f[1:] / f[:-1], 0.001))]))


SCHEDULES: dict[Name, Callable[[int], Schedule]] = {"linear": linear, "cosine": cosine}
