"""The restricted Boltzmann machine itself: two layers of units, and a weight between any two of different layers.

    E(v, h) = R(v) - b'v - c'h - v'Wh,       p(v, h) = exp(-E(v, h)) / Z,       Z: the sum of exp(-E) over all v and h

Given one layer, the units of the other are independent, each with its own input a: c + W'v and b + Wh. So both are
drawn at once, in turn (block Gibbs sampling), and one of them can be summed out: exp(-F(v)) is the sum over h.

    p(x | a) = exp(a x - R(x) - A(a))       Bernoulli:  x in {0, 1},  R = 0,         A = softplus(a),  mean sigmoid(a)
                                            Gaussian:   x real,       R = x^2 / 2,   A = a^2 / 2 + log(2 pi) / 2, mean a

Source: Smolensky, Harmony theory (1986); Hinton, Training products of experts (2002); units of any exponential family:
Welling, Rosen-Zvi & Hinton, Exponential family harmoniums (2005).
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import numpy as np

from tinygen import Tensor, cat
from tinygen.nn import functional as F


class Units(Protocol):
    """A layer's units, by their inputs a (N, units) and states x (N, units)."""

    def energy(self, x: Tensor) -> Tensor | float:
        """R(x), summed over the units: (N,)."""

    def log_partition(self, a: Tensor) -> Tensor:
        """A(a), summed over the units: (N,), or 0-d for inputs (units,)."""

    def mean(self, a: Tensor) -> Tensor:
        """The units' means, dA / da: (N, units)."""

    def sample(self, a: Tensor, rng: np.random.Generator, temperature: float = 1.0) -> Tensor:
        """States drawn from p(x | a), the energy divided by temperature; at 0 the likeliest states."""


class Bernoulli:
    """Units that are 0 or 1."""

    def energy(self, x: Tensor) -> Tensor | float:
        return 0.0

    def log_partition(self, a: Tensor) -> Tensor:
        return F.softplus(a).sum(-1)

    def mean(self, a: Tensor) -> Tensor:
        return F.sigmoid(a)

    def sample(self, a: Tensor, rng: np.random.Generator, temperature: float = 1.0) -> Tensor:
        p = F.sigmoid(a / temperature) if temperature else (a > 0).to(a.dtype)
        uniform = a.new_tensor(rng.random(a.shape, np.float32))  # float64 would cost as much as the product with W
        return (uniform < p).to(a.dtype)


class Gaussian:
    """Units that are real numbers, of variance 1."""

    def energy(self, x: Tensor) -> Tensor | float:
        return (x * x).sum(-1) * 0.5

    def log_partition(self, a: Tensor) -> Tensor:
        return (a * a).sum(-1) * 0.5 + 0.5 * math.log(2 * math.pi) * a.shape[-1]

    def mean(self, a: Tensor) -> Tensor:
        return a

    def sample(self, a: Tensor, rng: np.random.Generator, temperature: float = 1.0) -> Tensor:
        return a + math.sqrt(temperature) * a.new_tensor(rng.standard_normal(a.shape, np.float32))


class SideBySide(NamedTuple):
    """A layer of which the first n units are of one kind, and the others of another."""

    n: int
    first: Units
    others: Units

    def energy(self, x: Tensor) -> Tensor | float:
        return self.first.energy(x[..., : self.n]) + self.others.energy(x[..., self.n :])

    def log_partition(self, a: Tensor) -> Tensor:
        return self.first.log_partition(a[..., : self.n]) + self.others.log_partition(a[..., self.n :])

    def mean(self, a: Tensor) -> Tensor:
        return cat(self.first.mean(a[..., : self.n]), self.others.mean(a[..., self.n :]), dim=-1)

    def sample(self, a: Tensor, rng: np.random.Generator, temperature: float = 1.0) -> Tensor:
        first = self.first.sample(a[..., : self.n], rng, temperature)
        return cat(first, self.others.sample(a[..., self.n :], rng, temperature), dim=-1)


class Machine(NamedTuple):
    """W (visible, hidden), b (visible,), c (hidden,), and the kinds of the units."""

    weight: Tensor
    visible_bias: Tensor
    hidden_bias: Tensor
    visible: Units
    hidden: Units = Bernoulli()

    def hidden_input(self, v: Tensor) -> Tensor:
        """c + W'v of states v (N, visible): (N, hidden)."""
        return F.linear(v, self.weight.transpose(0, 1), self.hidden_bias)

    def visible_input(self, h: Tensor) -> Tensor:
        """b + Wh of states h (N, hidden): (N, visible)."""
        return F.linear(h, self.weight, self.visible_bias)

    def free_energy(self, v: Tensor) -> Tensor:
        """F(v) = R(v) - b'v - sum over j of softplus(c_j + (W'v)_j), in nats, (N,): p(v) = exp(-F(v)) / Z."""
        return self.visible.energy(v) - v @ self.visible_bias - self.hidden.log_partition(self.hidden_input(v))

    def gibbs(self, v: Tensor, rng: np.random.Generator, temperature: float = 1.0) -> Tensor:
        """The next states of chains: h from p(h | v), then v from p(v | h)."""
        h = self.hidden.sample(self.hidden_input(v), rng, temperature)
        return self.visible.sample(self.visible_input(h), rng, temperature)
