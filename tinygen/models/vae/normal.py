"""Normal distributions: log densities in nats, and their divergence from the prior N(0, I)."""

from __future__ import annotations

import math

from tinygen import Tensor, exp


def gaussian_kl(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, exp(log_var)), N(0, 1)) in nats, elementwise: slides 82 to 85; Kingma & Welling (2014), appendix B."""
    return (exp(log_var) + mean * mean - 1 - log_var) * 0.5


def log_normal(z: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """log N(z; mean, exp(log_var)) in nats, summed over the last axis."""
    d = z - mean
    return (d * d * exp(-log_var) + log_var + math.log(2 * math.pi)).sum(-1) * -0.5


def log_prior(z: Tensor) -> Tensor:
    """log N(z; 0, I) in nats, summed over the last axis."""
    return (z * z + math.log(2 * math.pi)).sum(-1) * -0.5
