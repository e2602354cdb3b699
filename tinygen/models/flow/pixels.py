"""From pixels to continuous numbers and back: what comes before the first layer of a flow of images.

A density of whole numbers would grow without bound: all of it would gather at them. So each pixel x = 0 .. levels - 1
is given noise u, as wide as a level (uniform in [0, 1)), and (x + u) / levels lies in 0 .. 1. Then

    E log p(x + u) <= log of the integral of p over the pixel's cell = log P(x)

the likelihood that a flow has is a lower bound of one of whole pixels (Theis, van den Oord & Bethge, A note on the
evaluation of generative models, 2016, section 3.1). p is a density by levels: that the numbers are divided by `levels`
counts, -log levels a value, and it counts here, once.
"""

from __future__ import annotations

import math

import numpy as np


def dequantize(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """x + u: whole numbers with noise as wide as a level, float64."""
    return images + rng.random(images.shape)


class Logit:
    """y = logit(p), p = alpha + (1 - 2 alpha) x / levels: on the whole line, for dequantized pixels x in 0 .. levels.

    alpha keeps p off 0 and 1, where the logit is infinite; the paper's (1 - alpha) would not at the bright end, its
    code has (1 - 2 alpha). The logit's derivative counts: log dy/dx = log((1 - 2 alpha) / levels) - log p - log(1 - p).

    Source: Dinh, Sohl-Dickstein & Bengio (2017), section 4.1.
    """

    def __init__(self, levels: int, alpha: float = 0.05) -> None:
        self.levels, self.alpha = levels, alpha

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """y, and log |det dy/dx| of each image, (N,), both float64."""
        width = (1 - 2 * self.alpha) / self.levels
        p = self.alpha + width * x
        log_p, log_q = np.log(p), np.log1p(-p)
        return log_p - log_q, (math.log(width) - log_p - log_q).sum((1, 2, 3))

    def inverse(self, y: np.ndarray) -> np.ndarray:
        """x, beyond 0 .. levels where y is beyond what a pixel can have."""
        return (np.tanh(y / 2) / 2 + 0.5 - self.alpha) * (self.levels / (1 - 2 * self.alpha))
