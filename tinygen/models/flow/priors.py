"""p_Z(z), the simple densities that flows start from: of rows z (N, D) whose numbers are independent."""

from __future__ import annotations

import math

import numpy as np

from tinygen import Tensor
from tinygen.nn import functional as F


class StandardNormal:
    """N(0, I)."""

    def log_prob(self, z: Tensor) -> Tensor:
        """log p_Z(z) in nats, (N,)."""
        return (z * z + math.log(2 * math.pi)).sum(1) * -0.5

    def sample(self, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """Rows drawn from it, float64."""
        return rng.standard_normal(shape)


class StandardLogistic:
    """Independent standard logistic numbers: p(z) = 1 / ((1 + exp(z)) (1 + exp(-z))).

    Source: Dinh, Krueger & Bengio, NICE (2014), section 3.4.
    """

    def log_prob(self, z: Tensor) -> Tensor:
        """log p_Z(z) in nats, (N,)."""
        return -(F.softplus(z) + F.softplus(-z)).sum(1)

    def sample(self, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """Rows drawn from it, float64: log(u / (1 - u)), where u is never 0."""
        return rng.logistic(size=shape)


Prior = StandardNormal | StandardLogistic
