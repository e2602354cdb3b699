"""GANs in the plane, where everything can be seen: points of a density, generated points, and what D thinks in between.

Eight Gaussians on a circle, on which GANs lose modes (Metz et al., Unrolled GANs, 2017, section 3.1), and the swiss
roll, as in Gulrajani et al. (2017), figure 1b. Also the generator's two losses, as the lecture's slides 119 to 121 plot
them.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygen import Tensor, grad, nn, no_grad, tensor
from tinygen.metrics.metric import Chart
from tinygen.models.gan.gan import Game, Name
from tinygen.models.gan.objectives import VARIANTS, Minimax, NonSaturating

RADIUS, DEVIATION = 2.0, 0.1  # of the circle, and of each Gaussian
REACH, FIELD = 3.0, 120  # half the width of what is drawn, and at how many points across D is looked at


def centres() -> np.ndarray:
    """The eight modes, (8, 2)."""
    angles = np.arange(8) * math.pi / 4
    return RADIUS * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def eight_gaussians(n: int, rng: np.random.Generator) -> np.ndarray:
    """n points, (n, 2) float32, of eight Gaussians of deviation 0.1 on a circle of radius 2."""
    points = centres()[rng.integers(0, 8, n)] + DEVIATION * rng.standard_normal((n, 2))
    return points.astype(np.float32)


def swiss_roll(n: int, rng: np.random.Generator) -> np.ndarray:
    """n points, (n, 2) float32, along a spiral of one and a half turns that ends at a distance of 2."""
    t = 1.5 * math.pi * (1 + 2 * rng.random(n))
    points = 2 * t[:, None] / (4.5 * math.pi) * np.stack([np.cos(t), np.sin(t)], axis=1)
    return (points + 0.05 * rng.standard_normal((n, 2))).astype(np.float32)


DENSITIES: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "eight-gaussians": eight_gaussians, "swiss-roll": swiss_roll,
}  # fmt: skip


class Toy:
    """A game in the plane: perceptrons with three hidden layers for players.

    density: a name of DENSITIES. rng: draws weights, points and noise.
    """

    def __init__(
        self, variant: Name, density: str = "eight-gaussians", *, noise: int = 16, width: int = 128,
        batch_size: int = 256, lr: float = 1e-3, critic_steps: int = 0, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self.density, self.rng = DENSITIES[density], rng
        self.batch_size, self.lr = batch_size, lr
        make = functools.partial(_perceptron, width=width, rng=rng)
        outputs = 2 if VARIANTS[variant].code else 1
        players = make(noise, 2, nn.ReLU), make(2, outputs, nn.LeakyReLU)
        self.game = Game(*players, variant, (noise,), critic_steps)
        if self.game.variant.weight:
            self.game.variant.weight = 0.1  # as in the code of Gulrajani et al. (2017) for points
        self.optimizers = self.game.optimizers(lr)

    def train(self, steps: int, tell: Callable[[float], None] = lambda done: None) -> dict[str, float]:
        """So many steps, over which the learning rates fall to zero in a straight line; the last one's numbers.

        tell: is told how much is done, of 1.
        """
        parts: dict[str, float] = {}
        for step in range(steps):
            tell(step / steps)
            for optimizer in self.optimizers.values():
                optimizer.param_groups[0]["lr"] = self.lr * (1 - step / steps)
            parts = self.game.step(self._real, self._minimize, self.rng)
        return parts

    def _real(self) -> tuple[Tensor, None]:
        return tensor(self.density(self.batch_size, self.rng)), None

    def _minimize(self, closure: Callable[[], dict[str, Tensor]], optimizer: str) -> dict[str, float]:
        parts = closure()
        (own,) = self.optimizers[optimizer].param_groups
        for p, g in zip(
            own["params"], grad(functools.reduce(operator.add, parts.values()), own["params"]), strict=True
        ):
            p.grad = g
        self.optimizers[optimizer].step()
        return {name: part.item() for name, part in parts.items()}

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n generated points, (n, 2)."""
        with no_grad():
            return self.game.fake(self.game.codes(n, rng)).numpy()

    def field(self, side: int) -> np.ndarray:
        """D at the points of a grid over the square of +-3, (side, side), the largest y first."""
        axis = np.linspace(-REACH, REACH, side, dtype=np.float32)
        x, y = np.meshgrid(axis, axis[::-1])
        with no_grad():
            return self.game.judge(tensor(np.stack([x.ravel(), y.ravel()], axis=1))).numpy().reshape(side, side)

    def picture(self, rng: np.random.Generator) -> Chart:
        """D's field, points of the density, and generated ones."""
        field, real, generated = self.field(FIELD), self.density(2000, rng), self.sample(2000, rng)
        low, middle, high = np.percentile(field, [2, 50, 98])
        reach = max(high - middle, middle - low, 1e-9)

        def draw(axes: Any) -> None:
            square = (-REACH, REACH, -REACH, REACH)
            shown = axes.imshow(field, "RdBu_r", vmin=middle - reach, vmax=middle + reach, extent=square, alpha=0.7)
            axes.figure.colorbar(shown, ax=axes, label="output of the discriminator", extend="both")
            for points, color, name in ((real, "#50555c", "real points"), (generated, "#ffd500", "generated points")):
                axes.scatter(*points.T, s=5, color=color, linewidths=0, label=name)
            axes.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH))
            axes.legend(loc="upper right", markerscale=3)

        return Chart(draw, "What the discriminator thinks of every point")


def modes_and_good(points: np.ndarray, least: float = 0.01) -> tuple[int, float]:
    """Of points (N, 2): how many of the eight modes have at least 1 % of them, and the share that is good.

    Good: within 3 standard deviations of a mode, as 98.9 % of the density's own points are.
    """
    distances = np.linalg.norm(points[:, None] - centres(), axis=2)
    good = distances.min(axis=1) < 3 * DEVIATION
    counts = np.bincount(distances.argmin(axis=1)[good], minlength=8)
    return int((counts >= least * len(points)).sum()), float(good.mean())


def generator_losses(d: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of D(G(z)) = d: the generator's loss of both GANs and its slope by D's logit, by name (slides 119 to 121).

    log(1 - d) has slope -d, nothing to learn from where D is sure that an image is generated; -log d has slope d - 1.
    """
    found = {}
    for name, variant in (("minimax", Minimax()), ("non-saturating", NonSaturating())):
        logit = tensor(np.log(d) - np.log1p(-d), requires_grad=True)
        losses = [variant.g_loss(logit[i : i + 1]) for i in range(len(d))]
        (slope,) = grad(functools.reduce(operator.add, losses), logit)
        found[name] = np.array([loss.item() for loss in losses]), slope.numpy()
    return found


def loss_picture() -> Chart:
    """Both losses of the generator over D(G(z)) from 0 to 1."""
    d = np.linspace(0.001, 0.999, 500)
    names = {"minimax": "minimax: log(1 - D(G(z)))", "non-saturating": "non-saturating: -log D(G(z))"}

    def draw(axes: Any) -> None:
        axes.axhline(0, color="0.8", linewidth=1)
        for (name, (losses, _)), color in zip(generator_losses(d).items(), ("C2", "C0"), strict=True):
            axes.plot(d, losses, color=color, linewidth=2, label=names[name])
        axes.set(xlabel="D(G(z))", ylabel="loss of the generator", xlim=(0, 1), ylim=(-4, 4))
        axes.legend()

    return Chart(draw, "Where D is sure that an image is generated, minimax has hardly a gradient")


def _perceptron(
    inputs: int, outputs: int, activation: type[nn.Module], *, width: int, rng: np.random.Generator
) -> nn.Sequential:
    sizes, layers = [inputs, width, width, width], list[nn.Module]()
    for i, o in itertools.pairwise(sizes):
        layers += [nn.Linear(i, o, rng=rng), activation()]
    return nn.Sequential(*layers, nn.Linear(width, outputs, rng=rng))
