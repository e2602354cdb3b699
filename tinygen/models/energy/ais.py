"""Annealed importance sampling: log Z of a machine, from chains that go step by step from a machine whose Z is known.

    p*_k(v) = exp(-F_k(v)),   F_k: of the machine with  beta_k W,  beta_k c,  (1 - beta_k) b_A + beta_k b,   beta 0 -> 1

At beta 0 the visible units are independent, with biases b_A (those of the data's marginals), and
log Z_A = H log 2 + A(b_A). A chain starts there, weighs p*_k(v) / p*_(k-1)(v) as beta goes on, and then takes a step of
Gibbs sampling that leaves p_k as it is. The weights' mean is Z / Z_A, without bias; hence log Z comes out too *low* on
average, and likelihoods too good, the more so the fewer the temperatures. Two things tell: how many of the chains count
(the effective sample size), and chains in reverse, from samples of the machine, which err to the other side.

Source: Neal, Annealed importance sampling (2001); Salakhutdinov & Murray, On the quantitative analysis of deep belief
networks (2008), section 4; in reverse: Burda, Grosse & Salakhutdinov, Accurate and conservative estimates of MRF
log-likelihood using reverse annealing (2015).
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np

from tinygen import Tensor, no_grad
from tinygen.console import progress
from tinygen.models.energy.machine import Machine


class LogPartition(NamedTuple):
    """log Z as estimated, in nats.

    error: its standard error, as far as the chains' own weights tell. effective: how many chains count:
    (sum of w)^2 / sum of w^2.
    """

    value: float
    error: float
    effective: float


def log_partition(
    machine: Machine, base: Tensor, temperatures: int, chains: int, rng: np.random.Generator
) -> LogPartition:  # fmt: skip
    """log Z from so many chains along so many temperatures. base: b_A, (visible,).

    Raises ValueError for fewer than 1 temperature or 2 chains.
    """
    if temperatures < 1 or chains < 2:
        raise ValueError(f"AIS takes 1 temperature and 2 chains or more, got {temperatures} and {chains}")
    with no_grad():
        v = machine.visible.sample(base.expand(chains, *base.shape), rng)
        log_w = anneal(machine, base, v, np.linspace(0, 1, temperatures + 1), rng)
        mean, error, effective = _mean_weight(log_w)
        return LogPartition(_log_base(machine, base) + mean, error, effective)


def reverse_log_partition(
    machine: Machine, base: Tensor, temperatures: int, v: Tensor, rng: np.random.Generator
) -> LogPartition:  # fmt: skip
    """log Z from chains that go back from v (chains, visible), samples of the machine: too *high* on average.

    Only if v are such samples indeed. Raises ValueError as `log_partition` does.
    """
    if temperatures < 1 or len(v) < 2:
        raise ValueError(f"AIS takes 1 temperature and 2 chains or more, got {temperatures} and {len(v)}")
    with no_grad():
        mean, error, effective = _mean_weight(anneal(machine, base, v, np.linspace(1, 0, temperatures + 1), rng))
        return LogPartition(_log_base(machine, base) - mean, error, effective)


def anneal(machine: Machine, base: Tensor, v: Tensor, betas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The logarithms of the chains' weights, (chains,) float64, from v (chains, visible) at betas[0] to betas[-1]."""
    log_w = np.zeros(len(v))
    a, change = machine.hidden_input(v), machine.visible_bias - base
    for i, (before, beta) in enumerate(itertools.pairwise(betas.tolist())):
        progress(i / (len(betas) - 1), f"annealing {len(v)} chains")
        ratio = machine.hidden.log_partition(a * beta) - machine.hidden.log_partition(a * before)
        log_w += (ratio + (v @ change) * (beta - before)).numpy()  # F_(k-1)(v) - F_k(v)
        h = machine.hidden.sample(a * beta, rng)
        v = machine.visible.sample(base + (machine.visible_input(h) - base) * beta, rng)
        a = machine.hidden_input(v)
    return log_w


def _log_base(machine: Machine, base: Tensor) -> float:
    """log Z_A."""
    zero = machine.hidden_bias * 0
    return machine.hidden.log_partition(zero).item() + machine.visible.log_partition(base).item()


def _mean_weight(log_w: np.ndarray) -> tuple[float, float, float]:
    """The logarithm of the mean weight, its standard error, and the effective sample size."""
    w = np.exp(log_w - log_w.max())
    mean = float(w.mean())
    error = float(w.std(ddof=1)) / (mean * math.sqrt(len(w)))
    return math.log(mean) + float(log_w.max()), error, float(w.sum() ** 2 / (w * w).sum())
