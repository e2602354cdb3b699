"""DBM: two layers of hidden units, the second one seen by the first alone (lecture slides 17 to 21).

    E(v, h1, h2) = R(v) - b'v - c'h1 - d'h2 - v'W1 h1 - h1'W2 h2

Given h1, both v and h2 are independent units: so this is an RBM whose visible layer is (v, h2), with W = (W1; W2') and
biases (b, d), of whose visible units no image shows the last ones. Gibbs sampling takes the odd layer and the even ones
in turn, as in the paper; AIS gives the same Z. What is new is that h2 isn't known for an image: mean field fills it in,

    m1 = sigmoid(c + W1'v + W2 m2),      m2 = sigmoid(d + W2'm1),      until they don't change (equations 5 and 6)

and q(h) with these means gives the bound  log p(v) >= -E_q E(v, h) + H(q) - log Z  (equations 3 and 4). With m1 at its
fixed point that is  -F(v, m2) + H(m2) - log Z,  F being the RBM's free energy: so the gradient of F(v, m2), with m2 as
a constant, is that of algorithm 1, and the rest is the RBM's PCD, centered. Without a second layer it is the RBM.

This is a bound for any m2. So training takes only a few updates of the mean field, which cost as much as all the rest
of a step, and raises the bound that those give; what is measured has them all.

Source: Salakhutdinov & Hinton, Deep Boltzmann machines (2009), sections 2 and 3, algorithm 1; without its pretraining,
which centering makes unnecessary: Montavon & Mueller, Deep Boltzmann machines and the centering trick (2012); few
updates: Neal & Hinton, A view of the EM algorithm that justifies incremental, sparse, and other variants (1998).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tinygen import Tensor, cat, no_grad
from tinygen.models.energy.family import EnergyFamily
from tinygen.models.energy.machine import Bernoulli, SideBySide, Units
from tinygen.models.energy.rbm import RBM
from tinygen.models.model import Evidence
from tinygen.nn import functional as F

MOST, TOLERANCE = 50, 1e-4  # updates of the mean field when it is measured, and how little the last one changes a mean


class DBM(RBM):
    """A deep Boltzmann machine of two hidden layers.

    Args:
        image_shape, levels: see `RBM`.
        hidden: units of the first hidden layer.
        top: units of the second; 0: there is none, it is an RBM.
        chains: how many persistent chains; 0: they restart at the images of every batch.
        steps: how many steps of Gibbs sampling the chains take before each step of training.
        updates: of the mean field, in a step of training.
        sigma: standard deviation of the Gaussian units, where -1 .. 1 are all levels.
        rng: draws the initial weights.
    """

    family = EnergyFamily("bound of log p")
    evidence: ClassVar[Evidence] = "estimated bound"

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, hidden: int = 256, top: int = 128, chains: int = 100,
        steps: int = 1, updates: int = 3, sigma: float = 0.3, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        if top < 0:
            raise ValueError(f"top must not be negative, got {top}")
        if updates < 1:
            raise ValueError(f"updates must be at least 1, got {updates}")
        self.top, self.updates = top, updates
        super().__init__(image_shape, levels, hidden=hidden, chains=chains, steps=steps, sigma=sigma, rng=rng)

    @property
    def visible(self) -> int:
        return self.dimensions + self.top

    @property
    def units(self) -> Units:
        return SideBySide(self.dimensions, super().units, Bernoulli())

    def top_inputs(self, v: Tensor, updates: int = MOST) -> Tensor:
        """d + W2'm1 of images' units v (N, dimensions), where the mean field doesn't change: (N, top).

        Or after so many updates, which also give a bound.
        """
        machine = self.machine()
        first, second = machine.weight[: self.dimensions], machine.weight[self.dimensions :]  # W1, W2'
        seen = F.linear(v, first.transpose(0, 1), machine.hidden_bias)  # c + W1'v
        bias = machine.visible_bias[self.dimensions :]  # d
        a = bias.expand(len(v), self.top)
        for _ in range(updates):
            m2 = F.sigmoid(a)
            m1 = F.sigmoid(seen + m2 @ second)
            a = F.linear(m1, second, bias)
            if np.abs(F.sigmoid(a).numpy() - m2.numpy()).max(initial=0) < TOLERANCE:
                break
        return a

    def state(self, images: np.ndarray) -> Tensor:
        """(v, m2) of images, (N, visible); in training after `updates` of the mean field."""
        with no_grad():
            v = super().state(images)
            a = self.top_inputs(v, self.updates if self.training else MOST)
            return cat(v, F.sigmoid(a), dim=1)

    def marginal_biases(self, images: np.ndarray) -> Tensor:
        """b_A: of the pixels their marginals', of the second layer 0."""
        pixels = super().marginal_biases(images)
        return cat(pixels, pixels.new_tensor(np.zeros(self.top)))

    def log_unnormalized(self, images: np.ndarray) -> Tensor:
        """The bound of log p(x), plus log Z: -F(v, m2) + H(m2) of each image, in nats, (N,)."""
        v = super().state(images)
        a = self.top_inputs(v)
        m2 = F.sigmoid(a)
        entropy = F.softplus(a).sum(1) - (a * m2).sum(1)
        return entropy - self.machine().free_energy(cat(v, m2, dim=1)) + self._log_cell
