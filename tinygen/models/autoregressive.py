"""What all autoregressive models share: the chain rule, likelihood, sampling, completion.

    log p(x) = sum over positions i of log p(x_i given x_1 .. x_(i-1))

(lecture slides 23 to 26), where the positions are the pixels in raster order, and within a pixel its colours in order.
A model is one network function from images to the logits of every position's levels; loss, likelihood and sampler all
use it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tinygen import Tensor, no_grad
from tinygen.data import Dataset
from tinygen.models.independent import independent_nats
from tinygen.models.model import Batch, Figure, Model
from tinygen.nn import functional as F


class Autoregressive(Model):
    """A distribution over images of shape (C, H, W) with values 0 .. levels - 1.

    A subclass defines `forward(x)`: from images scaled by `scaled` to logits (N, levels, C, H, W), those at a position
    depending on earlier positions only.
    """

    def nats(self, images: np.ndarray) -> Tensor:
        """-log p(x) of each image, in nats, (N,). What training makes small."""
        logits = self(self.scaled(images))
        return F.cross_entropy(logits, images, reduction="none").sum((1, 2, 3))

    def log_prob(self, images: np.ndarray, batch_size: int = 256) -> np.ndarray:
        """log p(x) of each image, in nats, (N,) float64. Divide by -`dimensions * log(2)` for bits/dim."""
        parts = [np.zeros(0)]
        with no_grad():
            for i in range(0, len(images), batch_size):
                self.tell(i / len(images), f"likelihood of {len(images):,} images")
                parts.append(-self.nats(images[i : i + batch_size]).numpy())
        return np.concatenate(parts)

    def loss(self, batch: Batch, generator: np.random.Generator) -> dict[str, Tensor]:
        """{"nats": the mean of -log p(x)}."""
        return {"nats": self.nats(batch.images).mean()}

    def progress(self, parts: dict[str, float]) -> str:
        return f"{self.bits_per_dim(parts['nats']):.3f} bits/dim"

    def floors(self, train: Dataset, test: Dataset) -> dict[str, float]:
        """The bits/dim of independent pixels."""
        nats = independent_nats(train.images, test.images, self.levels)
        return {"independent pixels": self.bits_per_dim(float(nats.mean()))}

    def validation(self, batch: Batch, generator: np.random.Generator) -> float:
        """Bits per dimension."""
        return self.bits_per_dim(-float(self.log_prob(batch.images).mean()))

    def evaluate(self, train: Dataset, test: Dataset, generator: np.random.Generator) -> list[Figure]:
        """The test likelihood in bits/dim and in nats, with the standard error of the mean over images."""
        nats = -self.log_prob(test.images)
        mean, error = float(nats.mean()), float(nats.std() / math.sqrt(len(nats)))
        floors = self.floors(train, test)
        scale = self.bits_per_dim(1.0)
        return [
            Figure("test", mean * scale, "bits/dim", error * scale, floors),
            Figure("test", mean, "nats an image", error, {name: value / scale for name, value in floors.items()}),
        ]

    def check_hidden(self, hidden: int) -> None:
        """ValueError unless so many channels fall into the groups, one for each colour, that masks order."""
        channels = self.image_shape[0]
        if hidden < 1 or hidden % channels:
            raise ValueError(f"hidden must be a positive multiple of the {channels} image channels, got {hidden}")

    def by_level(self, x: Tensor) -> Tensor:
        """Logits (N, levels, C, H, W) from (N, C * levels, H, W): the levels of R, then those of G, then those of B."""
        n, _, height, width = x.shape
        return x.reshape(n, self.image_shape[0], self.levels, height, width).transpose(1, 2)

    def sample(
        self, n: int, generator: np.random.Generator, temperature: float = 1.0, labels: np.ndarray | None = None
    ) -> np.ndarray:
        """n images drawn from the model, (n, C, H, W) uint8.

        temperature: below 1 prefers likely values, at 0 always takes the likeliest. labels: None, there are no classes.
        """
        if labels is not None:
            raise ValueError(f"{type(self).__name__} knows no classes: labels must be None, got {labels!r:.40}")
        return self.complete(np.zeros((n, *self.image_shape), np.uint8), 0, generator, temperature)

    def complete(
        self, images: np.ndarray, known: int, generator: np.random.Generator, temperature: float = 1.0
    ) -> np.ndarray:
        """The images with their first `known` rows kept and the rest drawn, (N, C, H, W) uint8: in-painting, slide 8.

        One uniform number per image and position, in order; so however the logits are computed, the same generator
        draws the same images.
        """
        channels, height, width = self.image_shape
        if not 0 <= known <= height:
            raise ValueError(f"known must be from 0 to {height} rows, got {known}")
        if not temperature >= 0:
            raise ValueError(f"temperature must not be negative, got {temperature}")
        self.scaled(images)  # refuses images that don't fit, also where there is nothing to draw
        x = np.array(images, np.uint8)
        with no_grad():
            conditional = self.conditional(x, known)
            for row in range(known, height):
                for column in range(width):
                    for channel in range(channels):
                        logits = conditional(channel, row, column)
                        x[:, channel, row, column] = draw(logits, generator.random(len(x)), temperature)
        return x

    def conditional(self, x: np.ndarray, known: int) -> Callable[[int, int, int], np.ndarray]:
        """A function of channel, row and column: the logits (N, levels) of this value, given those of x before it.

        It is called in order, from the first value after the `known` rows on, while x fills up. This one runs the
        whole network every time (slide 33: that is what makes these models slow); a model may know better.
        """
        return lambda channel, row, column: self(self.scale(x)).numpy()[:, :, channel, row, column]


def draw(logits: np.ndarray, uniform: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """For each row of logits (N, levels), the level at which the cumulative probability passes uniform (N,)."""
    if temperature == 0:
        return logits.argmax(axis=1)
    below = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    with np.errstate(over="ignore"):  # a tiny temperature gives -inf, hence probability 0
        cumulative = np.exp(below / temperature).cumsum(axis=1)
    return (cumulative <= uniform[:, None] * cumulative[:, -1:]).sum(axis=1)
