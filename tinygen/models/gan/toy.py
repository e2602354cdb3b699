"""GANs in the plane, where everything can be seen: points of a density, generated points, and what D thinks in between.

Also the generator's two losses, as the lecture's slides 119 to 121 plot them.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tinygen import Tensor, grad, nn, no_grad, optim, tensor
from tinygen.console import progress
from tinygen.data.plane import DENSITIES
from tinygen.metrics.metric import Chart
from tinygen.models.family import Batch
from tinygen.models.gan import objectives
from tinygen.models.gan.objectives import Minimax, NonSaturating
from tinygen.models.gan.pair import AdversarialPair
from tinygen.models.gan.players import Autoencoder, perceptron

REACH, FIELD = 3.0, 120  # half the width of what is drawn, and at how many points across D is looked at


class PlainStep:
    """A `tinygen.models.model.Step` in a few lines: without the checks, the learning rates and the checkpoints of one.

    Args:
        optimizers: by name.
        batch: gives what is trained on, the next at every call.
        rng: of all random numbers of the steps.
    """

    step, progress = 0, 0.0
    dataset: Any = None  # which no adversarial pair looks at

    def __init__(
        self, optimizers: Mapping[str, optim.Optimizer], batch: Callable[[], Batch], rng: np.random.Generator
    ) -> None:
        self.optimizers, self.batch, self.rng = optimizers, batch, rng

    def minimize(self, closure: Callable[[], dict[str, Tensor]], optimizer: str = "adam") -> dict[str, float]:
        """One step of an optimizer on the sum of the 0-d parts that closure() gives: the parts, as numbers."""
        parts, chosen = closure(), self.optimizers[optimizer]
        own = [p for group in chosen.param_groups for p in group["params"]]
        for p, g in zip(own, grad(functools.reduce(operator.add, parts.values()), own), strict=True):
            p.grad = g
        chosen.step()
        return {name: part.item() for name, part in parts.items()}


class Toy:
    """An adversarial pair in the plane: perceptrons with three hidden layers.

    Args:
        objective: what the two minimize, a name of OBJECTIVES.
        density: what the points are drawn from, a name of DENSITIES.
        noise: how many normal random numbers a point is made from.
        width: units of each hidden layer.
        batch_size: points a step.
        lr: learning rate at the start.
        critic_steps: steps of the discriminator for each of the generator; 0: as in the objective's paper.
        rng: draws weights, points and noise.
    """

    def __init__(
        self, objective: str, density: str = "eight-gaussians", *, noise: int = 16, width: int = 128,
        batch_size: int = 256, lr: float = 1e-3, critic_steps: int = 0, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self.name, self.density, self.lr = f"{objective} on {density}", DENSITIES[density], lr
        rules = objectives.named(objective)
        if rules.weight:
            rules.weight = 0.1  # as in the code of Gulrajani et al. (2017) for points
        hidden = width, width, width
        generator = nn.Sequential(*perceptron((noise, *hidden, 2), nn.ReLU, rng))
        layers = perceptron((2, *hidden, 2 if rules.code else 1), nn.LeakyReLU, rng)
        discriminator: nn.Module = nn.Sequential(*layers)
        if rules.code:  # halfway, its hidden layer is the code
            discriminator = Autoencoder([nn.Sequential(*layers[:3]), nn.Sequential(*layers[3:])])
        players = {"generator": generator, "discriminator": discriminator}
        self.pair = AdversarialPair(players, rules, (noise,), critic_steps)
        self.step = PlainStep(self.pair.optimizers(lr), lambda: Batch(self.density(batch_size, rng)), rng)

    def train(self, steps: int, seen: Callable[[int, dict[str, float]], None] | None = None) -> dict[str, float]:
        """So many steps, over which the learning rates fall to zero in a straight line; the last one's numbers.

        seen: called after each step with how many were done, and its numbers.
        """
        parts: dict[str, float] = {}
        for step in range(steps):
            progress(step / steps, self.name)
            for optimizer in self.step.optimizers.values():
                optimizer.param_groups[0]["lr"] = self.lr * (1 - step / steps)
            parts = self.pair.training_step(self.step, tensor)
            if seen:
                seen(step + 1, parts)
        return parts

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n generated points, (n, 2)."""
        with no_grad():
            return self.pair.generate(self.pair.codes(n, rng)).numpy()

    def field(self, side: int) -> np.ndarray:
        """D at the points of a grid over the square of +-3, (side, side), the largest y first."""
        axis = np.linspace(-REACH, REACH, side, dtype=np.float32)
        x, y = np.meshgrid(axis, axis[::-1])
        with no_grad():
            return self.pair.discriminate(tensor(np.stack([x.ravel(), y.ravel()], axis=1))).numpy().reshape(side, side)

    def pushes(self, points: np.ndarray) -> np.ndarray:
        """Where the generator's loss wants each of these generated points (N, 2) to go: minus its gradient, (N, 2)."""
        x = tensor(points.astype(np.float32), requires_grad=True)
        real = tensor(self.density(len(points), np.random.default_rng(0)))  # for losses that look at them, too
        losses = self.pair.objective.g_parts(self.pair.judge(x), lambda: self.pair.judge(real)).values()
        (g,) = grad(functools.reduce(operator.add, losses), x)
        return -len(points) * g.numpy()

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


def generator_losses(d: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of D(G(z)) = d: the generator's loss of both GANs and its derivative by D's logit, by name (slides 119 to 121).

    log(1 - d) has derivative -d, nothing to learn from where D is sure that an image is generated; -log d has d - 1.
    """
    found = {}
    for name, objective in (("minimax", Minimax()), ("non-saturating", NonSaturating())):
        logit = tensor(np.log(d) - np.log1p(-d), requires_grad=True)
        losses = [objective.g_loss(logit[i : i + 1]) for i in range(len(d))]
        (derivative,) = grad(functools.reduce(operator.add, losses), logit)
        found[name] = np.array([loss.item() for loss in losses]), derivative.numpy()
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
