"""The base of diffusion and its relatives: a network learns to take noise out of images, and draws from noise.

A model says what its network is shown and should say (`lesson`), and how noise becomes an image (`states`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np

from tinygen import Tensor, no_grad, parallel
from tinygen.console import progress
from tinygen.models.averages import Averaged
from tinygen.models.condition import Condition
from tinygen.models.diffusion.family import DenoiserFamily
from tinygen.models.diffusion.network import Network
from tinygen.models.family import Batch
from tinygen.models.model import Model, Passes, Step
from tinygen.nn import functional as F

ROWS = 128  # images at once in evaluation
DROPPED = 0.1  # the probability with which training replaces a label by "none"


class Lesson(NamedTuple):
    """What the network is shown, and what it should say: x and target (N, C, H, W), times (N,) from 0 to 1."""

    x: np.ndarray
    times: np.ndarray
    target: np.ndarray


class Denoiser(Model):
    """Images from noise, by a network that is trained on noisy images. Its weights' moving average draws.

    Args:
        image_shape: (C, H, W).
        levels: values run from 0 to levels - 1.
        width: channels of the U-Net's first scale.
        steps: in how many steps noise becomes an image, unless `sample` is told otherwise.
        guidance: by how much what a class adds is overdone when images are drawn: 0: as it was learned.
        classes: how many classes the model may be told; 0: none.
        rng: draws the initial weights.

    Raises ValueError for numbers out of range.
    """

    lr: ClassVar[float] = 2e-3
    batch_size: ClassVar[int] = 64
    warmup: ClassVar[int] = 100
    clip: ClassVar[float | None] = 1.0
    family = DenoiserFamily()
    passes: ClassVar[Passes] = "many steps"
    drawing: ClassVar[tuple[str, ...]] = ("steps", "guidance")

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, width: int, steps: int, guidance: float, classes: int,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        super().__init__(image_shape, levels)
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        self.condition = Condition(classes)
        self.network = Averaged(Network(self.image_shape, width, classes, rng=rng))
        self.steps, self.guidance = steps, guidance
        self.check_drawing()

    def draw_with(self, **settings: Any) -> None:
        super().draw_with(**settings)
        self.check_drawing()

    def check_drawing(self) -> None:
        """ValueError for settings of drawing that can't be."""
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        if not self.guidance >= 0:
            raise ValueError(f"guidance must not be negative, got {self.guidance}")
        if self.guidance and not self.condition:
            raise ValueError(f"guidance needs classes: it must be 0 without, got {self.guidance}")

    # -- training

    def lesson(self, image: np.ndarray, rng: np.random.Generator) -> Lesson:
        """A lesson from images (N, C, H, W) of -1 to 1."""
        raise NotImplementedError

    def loss(self, batch: Batch, rng: np.random.Generator) -> dict[str, Tensor]:
        """{"mse": the mean squared error of what the network says}. A label is "none" with a probability of .1."""
        labels = self.condition.check(self.condition.used(batch.labels), len(batch.images), type(self).__name__)
        x, times, target = self.lesson(self.network_input(batch.images).numpy(), rng)
        if labels is not None:
            labels = np.where(rng.random(len(labels)) < DROPPED, self.condition.classes, labels)
        time = self.network.current.time(times)
        return {"mse": F.mse_loss(self.network(self.tensor(x), time, labels), self.tensor(target))}

    def training_step(self, step: Step) -> dict[str, float]:
        """A step of the loss, after which the average takes in the weights."""
        parts = super().training_step(step)
        self.network.update()
        return parts

    # -- drawing

    def said(self, x: np.ndarray, time: Tensor, labels: np.ndarray | None, guidance: float = 0.0) -> np.ndarray:
        """What the network says of noisy images, as arrays of their dtype, without a tape.

        time: (1, size), as `network.current.time` gives it, for all images. guidance: w, in (1 + w) times what it says
        given the class, minus w times what it says given none. Source: Ho & Salimans, Classifier-free diffusion
        guidance (2022), equation 6.
        """
        with no_grad():
            images = self.tensor(x)
            out = self.network(images, time, labels).numpy()
            if guidance and labels is not None:
                out = (1 + guidance) * out - guidance * self.network(images, time, self.none(len(x))).numpy()
        return out.astype(x.dtype, copy=False)

    def none(self, n: int) -> np.ndarray | None:
        """n labels "none"; None if there are no classes."""
        return np.full(n, self.condition.classes) if self.condition else None

    def states(
        self, x: np.ndarray, labels: np.ndarray | None, rng: np.random.Generator, temperature: float = 1.0
    ) -> Iterator[np.ndarray]:
        """From noise to images: x itself, (N, C, H, W) standard normal numbers, and what becomes of it, step by step.

        labels: of the images, possibly "none"; None without classes. temperature: of all noise that is added.
        """
        raise NotImplementedError

    def sample(
        self, n: int, rng: np.random.Generator, temperature: float = 1.0, labels: np.ndarray | None = None
    ) -> np.ndarray:
        """n images drawn from the model, (n, C, H, W) uint8. temperature: what all noise is multiplied by.

        labels: drawn if not given, all classes alike.
        """
        if not temperature >= 0:
            raise ValueError(f"temperature must not be negative, got {temperature}")
        if labels is None:
            labels = self.condition.draw(n, rng)
        labels = self.condition.check(labels, n, type(self).__name__)
        noise = self.noise(n, rng)

        def drawn(some: slice, rng: np.random.Generator) -> np.ndarray:
            x, its = temperature * noise[some], None if labels is None else labels[some]
            states = self.states(x, its, rng, temperature)
            done, share = some.start / max(n, 1), len(x) / max(n, 1)
            return self.levels.round(self.last(states, f"drawing {n:,} images", done, share))

        return parallel.in_shares(drawn, n, ROWS, rng)

    def last(self, states: Iterator[np.ndarray], doing: str, done: float = 0.0, share: float = 1.0) -> np.ndarray:
        """The last of states. doing, done, share: in words what is done; how much was done before; how much this is."""
        for k, state in enumerate(states):
            progress(done + share * k / (self.steps + 1), doing)
            last = state
        return last

    def noise(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n images of standard normal numbers, (n, C, H, W) float32, NHWC in memory."""
        channels, *sides = self.image_shape
        return rng.standard_normal((n, *sides, channels), np.float32).transpose(0, 3, 1, 2)


def spread(n: int, rng: np.random.Generator) -> np.ndarray:
    """n numbers from 0 to below 1, evenly spread around the circle from one that is drawn, (n,).

    So a batch sees all times, and its loss varies less. Source: Kingma et al., Variational diffusion models (2021),
    appendix I.1.
    """
    places, all_of_them = parallel.positions(n, rng)
    return (places / max(all_of_them, 1) + rng.random()) % 1


def in_chunks(f: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
    """f(x), so many images at a time, which bounds the memory."""
    return np.concatenate([f(x[i : i + ROWS]) for i in range(0, max(len(x), 1), ROWS)])
