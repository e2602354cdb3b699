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

from tinygen import Tensor, nn, no_grad, tensor
from tinygen.nn import functional as F


class Autoregressive(nn.Module):
    """A distribution over images of shape (C, H, W) with values 0 .. levels - 1.

    A subclass defines `forward(x)`: from images scaled by `scaled` to logits (N, levels, C, H, W), those at a position
    depending on earlier positions only.
    """

    def __init__(self, image_shape: tuple[int, int, int], levels: int) -> None:
        super().__init__()
        if len(image_shape) != 3 or min(image_shape) < 1:
            raise ValueError(f"image_shape must be (channels, height, width), got {image_shape}")
        if not 2 <= levels <= 256:
            raise ValueError(f"levels must be from 2 to 256, got {levels}")
        self.image_shape = tuple(image_shape)
        self.levels = levels

    def scaled(self, images: np.ndarray) -> Tensor:
        """The network's input: integers 0 .. levels - 1 of shape (N, C, H, W) become numbers from -1 to 1.

        Raises ValueError for images of another shape, or with other values.
        """
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[1:] != self.image_shape:
            raise ValueError(f"images must be (N, {', '.join(map(str, self.image_shape))}), got {images.shape}")
        if images.dtype.kind not in "iu" or (images.size and (images.min() < 0 or images.max() >= self.levels)):
            found = f"{images.dtype} from {images.min()} to {images.max()}" if images.size else str(images.dtype)
            raise ValueError(f"images must be integers from 0 to {self.levels - 1}, got {found}")
        return self.scale(images)

    def scale(self, images: np.ndarray) -> Tensor:
        """`scaled` for integers that are known to be fine; also for parts of images."""
        pixels = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)  # NHWC in memory
        return tensor((pixels * (2 / (self.levels - 1)) - 1).astype(next(self.parameters()).dtype))

    def nats(self, images: np.ndarray) -> Tensor:
        """-log p(x) of each image, in nats, (N,). What training makes small."""
        logits = self(self.scaled(images))
        return F.cross_entropy(logits, images, reduction="none").sum((1, 2, 3))

    def log_prob(self, images: np.ndarray, batch_size: int = 256) -> np.ndarray:
        """log p(x) of each image, in nats, (N,) float64. Divide by -`dimensions * log(2)` for bits/dim."""
        with no_grad():
            parts = [-self.nats(images[i : i + batch_size]).numpy() for i in range(0, len(images), batch_size)]
        return np.concatenate([np.zeros(0), *parts])

    def check_hidden(self, hidden: int) -> None:
        """ValueError unless so many channels fall into the groups, one for each colour, that masks order."""
        channels = self.image_shape[0]
        if hidden < 1 or hidden % channels:
            raise ValueError(f"hidden must be a positive multiple of the {channels} image channels, got {hidden}")

    def by_level(self, x: Tensor) -> Tensor:
        """Logits (N, levels, C, H, W) from (N, C * levels, H, W): the levels of R, then those of G, then those of B."""
        n, _, height, width = x.shape
        return x.reshape(n, self.image_shape[0], self.levels, height, width).transpose(1, 2)

    @property
    def dimensions(self) -> int:
        """The number of values in an image."""
        return math.prod(self.image_shape)

    def bits_per_dim(self, nats: float) -> float:
        """Nats per image as bits per dimension."""
        return nats / (self.dimensions * math.log(2))

    def sample(self, n: int, generator: np.random.Generator, temperature: float = 1.0) -> np.ndarray:
        """n images drawn from the model, (n, C, H, W) uint8.

        temperature: below 1 prefers likely values, at 0 always takes the likeliest.
        """
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
