"""The Laplacian pyramid of an image, and a game of its own for each of its levels.

    h_k = I_k - up(I_k+1),  I_k = up(I_k+1) + h_k,  I_k+1 = down(I_k)

down takes the mean of 2x2 pixels, up repeats each pixel; h_k is the detail of level k. Of whole numbers over a power of
two, means, differences and sums are exact in float32: then a pyramid gives its image back bit for bit.

Source: Burt & Adelson, The Laplacian Pyramid as a Compact Image Code (1983), with wider means; Denton et al., Deep
Generative Image Models using a Laplacian Pyramid of Adversarial Networks (2015), sections 2.2 and 2.3.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygen import Tensor, nn, no_grad, optim
from tinygen.models.condition import Condition
from tinygen.models.family import Batch
from tinygen.models.gan.pair import AdversarialPair
from tinygen.models.model import Step


def down(x: np.ndarray) -> np.ndarray:
    """The means of 2x2 pixels: (N, C, H, W) -> (N, C, H/2, W/2)."""
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).mean((3, 5))


def up(x: np.ndarray) -> np.ndarray:
    """Each pixel four times: (N, C, H, W) -> (N, C, 2H, 2W)."""
    return x.repeat(2, 2).repeat(2, 3)


def pyramid(x: np.ndarray, levels: int) -> list[np.ndarray]:
    """Images (N, C, H, W) as the smallest ones, and the details that each doubling of the sides adds."""
    details = list[np.ndarray]()
    for _ in range(levels - 1):
        details.append(x - up(down(x)))
        x = down(x)
    return [x, *details[::-1]]


def composed(parts: list[np.ndarray]) -> np.ndarray:
    """The images of a pyramid."""
    return functools.reduce(lambda x, h: up(x) + h, parts)


class Coarse(Condition):
    """What both players of a level are told: coarse images (N, C, H/2, W/2), in place of classes."""

    def __bool__(self) -> bool:
        return True

    def check(self, labels: Any, n: int, model: str = "the model") -> Any:
        return labels

    def planes(self, labels: np.ndarray, *sides: int) -> np.ndarray:
        """l_k = up(I_k+1), (N, C, H, W): it stands beside G's noise, and beside the detail that D sees."""
        return up(labels)


class LevelStep:
    """A step of training as one level sees it: details for images, coarse images for labels, its own optimizers."""

    def __init__(self, step: Step, name: str, batch: Callable[[], Batch]) -> None:
        self.outer, self.name, self.batch = step, name, batch
        self.step, self.progress, self.dataset, self.rng = step.step, step.progress, step.dataset, step.rng

    def minimize(self, closure: Callable[[], dict[str, Tensor]], optimizer: str = "adam") -> dict[str, float]:
        return self.outer.minimize(closure, f"{optimizer} {self.name}")


class Pyramid(AdversarialPair):
    """The pairs of all levels by name ("7x7", ...), the coarsest first, as one. They never learn from each other."""

    def __init__(self, pairs: dict[str, AdversarialPair]) -> None:
        self.pairs, (first, *_) = pairs, pairs.values()
        self.sizes = [math.prod(pair.noise) for pair in pairs.values()]  # of the levels' codes
        players = {name: nn.ModuleList(pair.players[name] for pair in pairs.values()) for name in first.players}
        super().__init__(players, first.objective, (sum(self.sizes),), first.steps)

    def optimizers(self, lr: float) -> dict[str, optim.Optimizer]:
        return {f"{player} {name}": o for name, p in self.pairs.items() for player, o in p.optimizers(lr).items()}

    def parts(self, z: np.ndarray) -> list[np.ndarray]:
        """The pyramid of codes (N, latent), which hold those of the levels side by side."""
        found = list[np.ndarray]()
        with no_grad():
            for pair, own in zip(self.pairs.values(), np.split(z, np.cumsum(self.sizes)[:-1], 1), strict=True):
                found.append(pair.generate(own, composed(found) if found else None).numpy())
        return found

    def generate(self, z: np.ndarray, labels: np.ndarray | None = None) -> Tensor:
        return next(self.parameters()).new_tensor(composed(self.parts(z)))

    def training_step(self, step: Step, scale: Callable[[np.ndarray], Tensor]) -> dict[str, float]:
        """A step of each level, all with the same images: the numbers of each, "NUMBER LEVEL"."""
        images = [pyramid(scale(step.batch().images).numpy(), len(self.pairs)) for _ in range(self.steps)]
        parts: dict[str, float] = {}
        for k, (name, pair) in enumerate(self.pairs.items()):
            batches = [Batch(details[k], composed(details[:k]) if k else None) for details in images]
            level = LevelStep(step, name, iter(batches).__next__)
            found = pair.training_step(level, next(self.parameters()).new_tensor)
            parts |= {f"{number} {name}": value for number, value in found.items()}
        return parts
