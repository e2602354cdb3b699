"""Flows in the plane, where everything can be seen: the density, points drawn from it, and what becomes of a grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinygen import no_grad, optim, tensor
from tinygen.console import progress
from tinygen.data.plane import DENSITIES
from tinygen.metrics.metric import Chart
from tinygen.models.flow.base import ChangeOfVariables
from tinygen.models.flow.ffjord import Ode, Velocity
from tinygen.models.flow.layers import ActNorm, AdditiveCoupling, AffineCoupling, Chain, Halves, Invertible1x1, Layer
from tinygen.models.flow.networks import perceptron
from tinygen.models.flow.priors import StandardNormal
from tinygen.optim import clip_grad_norm_

REACH, FIELD = 3.0, 121  # half the width of what is drawn, and at how many points across the density is looked at
WHOLE, FINE = 4.0, 201  # the same for its integral
TESTED = 10_000  # points
COUPLINGS, STEPS = 8, 8  # of the flows by couplings; of RK4


def nice(width: int, rng: np.random.Generator) -> Layer:
    """Additive couplings that change one coordinate and the other in turn, with a scaling before and after."""
    couplings = (
        AdditiveCoupling(Halves(exchanged=bool(i % 2)), perceptron((1, width, width, 1), rng)) for i in range(COUPLINGS)
    )
    return Chain([ActNorm(2), *couplings, ActNorm(2)])


def realnvp(width: int, rng: np.random.Generator) -> Layer:
    """Affine couplings that change one coordinate and the other in turn."""
    layers: list[Layer] = []
    for i in range(COUPLINGS):
        network = perceptron((1, width, width, 2), rng)
        layers += [ActNorm(2), AffineCoupling(Halves(exchanged=bool(i % 2)), network)]
    return Chain(layers)


def glow(width: int, rng: np.random.Generator) -> Layer:
    """Affine couplings with a matrix before each."""
    return Chain(
        layer
        for _ in range(COUPLINGS)
        for layer in (
            ActNorm(2),
            Invertible1x1(2, rng),
            AffineCoupling(Halves(), perceptron((1, width, width, 2), rng)),
        )
    )


def ffjord(width: int, rng: np.random.Generator) -> Layer:
    """In continuous time; the trace by two gradients."""
    return Ode(Velocity(2, width, rng), STEPS, tolerance=1e-5)


FLOWS: dict[str, Callable[[int, np.random.Generator], Layer]] = {
    "nice": nice, "realnvp": realnvp, "glow": glow, "ffjord": ffjord,
}  # fmt: skip


class PlaneFlow:
    """A flow of points (N, 2).

    Args:
        flow: a name of FLOWS.
        density: what the points are drawn from, a name of DENSITIES.
        width: units of each hidden layer.
        batch_size: points a step.
        lr: learning rate at the start.
        rng: draws weights and points.
    """

    def __init__(
        self, flow: str, density: str = "eight-gaussians", *, width: int = 64, batch_size: int = 256,
        lr: float = 1e-2, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self.name, self.points, self.batch_size = f"{flow} on {density}", DENSITIES[density], batch_size
        self.model = ChangeOfVariables(FLOWS[flow](width, rng), StandardNormal())
        self.optimizer, self.lr, self.rng = optim.Adam(self.model.parameters(), lr), lr, rng

    def train(self, steps: int) -> None:
        """So many steps, over which the learning rate falls to zero in a straight line."""
        self.model.train()
        for step in range(steps):
            progress(step / steps, self.name)
            self.optimizer.param_groups[0]["lr"] = self.lr * (1 - step / steps)
            self.optimizer.zero_grad()
            (-self.model(tensor(self.points(self.batch_size, self.rng)))[1].mean()).backward()
            clip_grad_norm_(self.model.parameters(), 10.0)
            self.optimizer.step()
        self.model.eval()

    def nats(self, points: np.ndarray) -> np.ndarray:
        """-log p of points (N, 2), in nats, (N,)."""
        with no_grad():
            return -self.model(tensor(points.astype(np.float32)))[1].numpy()

    def from_codes(self, z: np.ndarray) -> np.ndarray:
        """The points of z, (N, 2)."""
        with no_grad():
            return self.model.inverse(tensor(z.astype(np.float32))).numpy()

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n points drawn from the flow, (n, 2)."""
        return self.from_codes(self.model.prior.sample((n, 2), rng))

    def field(self, reach: float, side: int) -> np.ndarray:
        """p at the points of a grid over the square of +-reach, (side, side), the largest y first."""
        axis = np.linspace(-reach, reach, side)
        x, y = np.meshgrid(axis, axis[::-1])
        return np.exp(-self.nats(np.stack([x.ravel(), y.ravel()], axis=1)).astype(np.float64)).reshape(side, side)

    def integral(self) -> float:
        """Of the density over the square of +-4, by a grid: 1, but for what lies outside."""
        return float(self.field(WHOLE, FINE).sum() * (2 * WHOLE / (FINE - 1)) ** 2)

    def evaluations(self) -> str:
        """For people: how often the last solve of a differential equation asked for its right-hand side."""
        layers = self.model.layers
        return f"; {layers.evaluations} evaluations of f a solve" if isinstance(layers, Ode) else ""

    def picture(self, rng: np.random.Generator) -> Chart:
        """The density, and points drawn from it."""
        field, points = self.field(REACH, FIELD), self.sample(1000, rng)

        def draw(axes: Any) -> None:
            square = (-REACH, REACH, -REACH, REACH)
            shown = axes.imshow(field, "viridis", vmin=0, vmax=np.percentile(field, 99.5), extent=square)
            axes.figure.colorbar(shown, ax=axes, label="density", extend="max")
            axes.scatter(*points.T, s=3, color="w", linewidths=0, label="points drawn")
            axes.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH))
            axes.legend(loc="upper right", markerscale=3)

        return Chart(draw, f"The density of {self.name}, and points drawn from it")

    def grid(self) -> Chart:
        """The image of a straight grid over the square of +-2.5 of z: where it is narrow, p is high."""
        line, lines = np.linspace(-2.5, 2.5, 400), np.linspace(-2.5, 2.5, 21)
        kinds = {"z1 fixed": [(value, line) for value in lines], "z2 fixed": [(line, value) for value in lines]}
        curves = {
            kind: [self.from_codes(np.stack(np.broadcast_arrays(*pair), axis=1)) for pair in pairs]
            for kind, pairs in kinds.items()
        }

        def draw(axes: Any) -> None:
            for i, (kind, found) in enumerate(curves.items()):
                for j, curve in enumerate(found):
                    axes.plot(*curve.T, color=f"C{i}", linewidth=0.8, label=kind if j == 0 else None)
            axes.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal")
            axes.legend(loc="upper right")

        return Chart(draw, f"What {self.name} makes of a straight grid of z")
