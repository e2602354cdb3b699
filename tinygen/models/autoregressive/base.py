"""The base of all autoregressive models: the chain rule, likelihood, sampling, completion.

    log p(x) = sum over positions i of log p(x_i given x_1 .. x_(i-1))

(lecture slides 23 to 26), where the positions are the pixels in raster order, and within a pixel its colors in order.
A model is one network function from images to the logits of every position's levels; loss, likelihood and sampler all
use it.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from tinygen import Tensor, no_grad, parallel
from tinygen.console import progress
from tinygen.models.autoregressive.family import AutoregressiveFamily
from tinygen.models.family import Batch
from tinygen.models.model import Evidence, Model, Passes
from tinygen.nn import functional as F
from tinygen.sampling.sampler import Sampler, draw
from tinygen.sampling.trace import NotTraceable


class Autoregressive(Model):
    """A distribution over images of shape (C, H, W) with values 0 .. levels - 1.

    A subclass defines `forward(x)`: from images scaled by `scale` to logits (N, levels, C, H, W), those at a position
    depending on earlier positions only. If it sets `condition`, `forward(x, labels)`: then it is a distribution
    over images given their class, and everything takes labels (N,), integers 0 .. classes - 1.
    """

    family = AutoregressiveFamily()
    evidence: ClassVar[Evidence] = "exact"
    passes: ClassVar[Passes] = "one for each value"
    mixtures = 0  # of logistics whose parameters the network gives in place of logits, as csrc/tinygen.h has them

    def network(self, x: Tensor, labels: np.ndarray | None = None) -> Tensor:
        """The network's output, given the labels if it is one of classes."""
        return self(x, labels) if self.condition else self(x)

    def of_levels(self, output: Tensor, x: Tensor) -> Tensor:
        """Logits (N, levels, C, H, W) from the network's output, which may be the parameters of `mixtures` instead.

        What these say of a color depends on the pixel's colors before it, x (N, C, H, W).
        """
        return output

    def logits(self, x: Tensor, labels: np.ndarray | None = None) -> Tensor:
        """Of every level of every value, given those before it: (N, levels, C, H, W)."""
        return self.of_levels(self.network(x, labels), x)

    def nats(self, images: np.ndarray, labels: np.ndarray | None = None) -> Tensor:
        """-log p(x) of each image, in nats, (N,). What training makes small."""
        logits = self.logits(self.network_input(images), self.check_labels(labels, len(images)))
        return F.cross_entropy(logits, images, reduction="none").sum((1, 2, 3))

    def log_prob(self, images: np.ndarray, labels: np.ndarray | None = None, batch_size: int = 256) -> np.ndarray:
        """log p(x) of each image, in nats, (N,) float64. Divide by -`dimensions * log(2)` for bits/dim."""
        labels = self.check_labels(labels, len(images))

        def log_prob(some: slice, _: object) -> np.ndarray:
            progress(some.start / max(len(images), 1), f"likelihood of {len(images):,} images")
            return -self.nats(images[some], None if labels is None else labels[some]).numpy().astype(np.float64)

        with no_grad():
            return parallel.in_shares(log_prob, len(images), batch_size)

    def loss(self, batch: Batch, rng: np.random.Generator) -> dict[str, Tensor]:
        """{"nats": the mean of -log p(x)}."""
        return {"nats": self.nats(batch.images, self.condition.used(batch.labels)).mean()}

    def check_labels(self, labels: np.ndarray | None, n: int) -> np.ndarray | None:
        """The labels of n images; ValueError if they aren't classes of this model, or it has none."""
        return self.condition.check(labels, n, type(self).__name__)

    def check_hidden(self, hidden: int) -> None:
        """ValueError unless so many channels fall into the groups, one for each color, that masks order."""
        channels = self.image_shape[0]
        if hidden < 1 or hidden % channels:
            raise ValueError(f"hidden must be a positive multiple of the images' channels, {channels}, got {hidden}")

    def by_level(self, x: Tensor) -> Tensor:
        """Logits (N, levels, C, H, W) from (N, C * levels, H, W): the levels of R, then those of G, then those of B."""
        n, _, height, width = x.shape
        return x.reshape(n, self.image_shape[0], self.levels, height, width).transpose(1, 2)

    def in_order(self, x: Tensor) -> Tensor:
        """The values of images (N, C, H, W), or of their first rows, in the order of the chain rule: (N, D)."""
        return x.permute(0, 2, 3, 1).reshape(len(x), math.prod(x.shape[1:]))

    def from_free(self, x: Tensor) -> Tensor:
        """Logits (N, levels, C, H, W) from (N, D, levels - 1) in order: the first level's are 0."""
        channels, height, width = self.image_shape
        logits = x.reshape(len(x), height, width, channels, self.levels - 1)
        return F.pad(logits, (1, 0)).permute(0, 4, 3, 1, 2)

    def sample(
        self, n: int, rng: np.random.Generator, temperature: float = 1.0, labels: np.ndarray | None = None
    ) -> np.ndarray:
        """n images drawn from the model, (n, C, H, W) uint8.

        temperature: below 1 prefers likely values, at 0 always takes the likeliest. labels: (n,), for a model of
        classes; if left out, the classes in turn.
        """
        labels = self.condition.in_turn(n) if labels is None else labels
        return self.complete(np.zeros((n, *self.image_shape), np.uint8), 0, rng, temperature, labels)

    def complete(
        self, images: np.ndarray, known: int, rng: np.random.Generator, temperature: float = 1.0,
        labels: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        """The images with their first `known` rows kept and the rest drawn, (N, C, H, W) uint8: in-painting, slide 8.

        One uniform number per image and position, in order; so however the logits are computed, the same generator
        draws the same images.
        """
        channels, height, width = self.image_shape
        if not 0 <= known <= height:
            raise ValueError(f"known must be from 0 to {height} rows, got {known}")
        if not temperature >= 0:
            raise ValueError(f"temperature must not be negative, got {temperature}")
        self.check_images(images)  # also where there is nothing to draw
        x, labels = np.array(images, np.uint8), self.check_labels(labels, len(images))
        given = self.order() < known * width * channels

        def complete(some: slice, rng: np.random.Generator) -> np.ndarray:
            mine, its = x[some], None if labels is None else labels[some]
            uniform = parallel.along(1, rng).random((self.dimensions - given.sum(), len(mine)))
            try:
                return Sampler(self, its).complete(mine, given, uniform, temperature)
            except NotTraceable:
                return self.complete_naively(mine, given, uniform, temperature, its)

        with no_grad():
            return parallel.in_shares(complete, len(x), max(len(x), 1), rng)

    def complete_naively(
        self, x: np.ndarray, given: np.ndarray, uniform: np.ndarray, temperature: float,
        labels: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        """`complete` by its definition: the network for one value after the other.

        given: which values are known, in order. uniform: a number for each of the others, (values, N).
        """
        channels, height, width = self.image_shape
        x = x.copy()
        for place, numbers in zip(self.order()[~given].tolist(), uniform, strict=True):
            row, column, channel = place // (channels * width), place // channels % width, place % channels
            progress(place / self.dimensions, f"drawing {len(x):,} images {channels}x{height}x{width}")
            logits = self.logits(self.scale(x), labels).numpy()[:, :, channel, row, column]
            x[:, channel, row, column] = draw(logits, numbers, temperature, f" at row {row}, column {column}")
        return x

    def order(self) -> np.ndarray:
        """Where the values stand in an image (H, W, C), in the order in which they are drawn: (dimensions,)."""
        return np.arange(self.dimensions)
