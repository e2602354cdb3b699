"""The base of all flows: a change of variables (lecture slides 17 to 21 and 36).

    z = f(x), one to one:    log p(x) = log p_Z(f(x)) + log |det df/dx|

    x --dequantized--> x + u --scaled--> y --f, layer by layer--> z, whose density p_Z is simple

and back the same way to draw. Nothing is approximate but that pixels are whole numbers and f is of continuous ones:
what is reported is a lower bound of the likelihood (pixels.py).

Source: Dinh, Krueger & Bengio, NICE (2014), section 2; Dinh, Sohl-Dickstein & Bengio, Density estimation using Real NVP
(2017), equations 2 and 3.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from tinygen import Tensor, nn, no_grad, parallel
from tinygen.console import progress
from tinygen.models.family import Batch
from tinygen.models.flow.family import FlowFamily
from tinygen.models.flow.layers import Layer
from tinygen.models.flow.pixels import Logit, dequantize
from tinygen.models.flow.priors import Prior
from tinygen.models.model import Evidence, Model
from tinygen.models.networks.encoders import in_batches

ROWS = 256  # images at once in evaluation


class ChangeOfVariables(nn.Module):
    """A density of numbers x, by what `layers` make of them: z = f(x), rows (N, D) of density `prior`."""

    def __init__(self, layers: Layer, prior: Prior) -> None:
        self.layers, self.prior = layers, prior

    def forward(self, x: Tensor, *more: Any) -> tuple[Tensor, Tensor]:
        """z = f(x), (N, D), and log p(x) in nats, (N,). more: what else the layers take."""
        z, log_det = self.layers(x, *more)
        return z, self.prior.log_prob(z) + log_det

    def inverse(self, z: Tensor) -> Tensor:
        """The x that f takes to z."""
        return self.layers.inverse(z)


class Flow(Model):
    """Images by a change of variables.

    Args:
        image_shape: (C, H, W).
        levels: values run from 0 to levels - 1.
        layers: f, from images (N, C, H, W) to rows (N, D) of as many numbers.
        scaling: what dequantized pixels are made to before the first layer.
        prior: p_Z.
    """

    lr: ClassVar[float] = 1e-3
    batch_size: ClassVar[int] = 64
    warmup: ClassVar[int] = 100  # most of what goes wrong with flows goes wrong in the first steps
    clip: ClassVar[float | None] = 1000.0
    family = FlowFamily()
    evidence: ClassVar[Evidence] = "bound"  # of whole numbers; of dequantized ones it is exact

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, layers: Layer, scaling: Logit, prior: Prior
    ) -> None:
        super().__init__(image_shape, levels)
        self.scaling, self.density = scaling, ChangeOfVariables(layers, prior)

    # -- the likelihood

    def forward(self, y: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """z = f(y), (N, D), and log p(y) in nats, (N,), of scaled images (N, C, H, W).

        rng: for layers that estimate their determinant by random numbers.
        """
        return self.density(y)

    def scaled(self, x: np.ndarray) -> tuple[Tensor, Tensor]:
        """y of dequantized images x (N, C, H, W), NHWC in memory, and log |det dy/dx|, (N,)."""
        y, log_det = self.scaling.forward(x)
        y = np.ascontiguousarray(y.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        return self.tensor(y), self.tensor(log_det)

    def nats(self, images: np.ndarray, rng: np.random.Generator) -> Tensor:
        """-log p(x + u) of each image, (N,), in nats, for one draw of the noise u: on average at least -log P(x)."""
        y, log_det = self.scaled(dequantize(self.check_images(images), rng))
        return -(self(y, rng)[1] + log_det)

    def loss(self, batch: Batch, rng: np.random.Generator) -> dict[str, Tensor]:
        """{"nats": the mean of -log p(x + u)}."""
        return {"nats": self.nats(batch.images, rng).mean()}

    def log_prob(self, images: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        """log p(x + u) of each image, in nats, (N,) float64: a lower bound of log P(x) on average over the noise u.

        The noise is always the same, drawn from seed 0. labels: None, there are no classes.
        """
        self.condition.check(labels, len(images), type(self).__name__)

        def log_prob(some: slice, rng: np.random.Generator) -> np.ndarray:
            progress(some.start / max(len(images), 1), f"likelihood of {len(images):,} images")
            return -self.nats(images[some], rng).numpy().astype(np.float64)

        with no_grad():
            return parallel.in_shares(log_prob, len(images), ROWS, np.random.default_rng(0))

    # -- from images to z and back

    def codes(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n draws of z from the prior, (n, D)."""
        return self.density.prior.sample((n, self.dimensions), rng)

    def encode(self, images: np.ndarray) -> np.ndarray:
        """z of the middles of the images' cells, (N, D)."""
        rng = np.random.default_rng(0)
        return in_batches(lambda x: self(self.scaled(self.check_images(x) + 0.5)[0], rng)[0], images, ROWS)

    def _pixels(self, z: np.ndarray) -> np.ndarray:
        """x + u of z, (N, C, H, W): 0 .. levels if it is an image's. FloatingPointError where it isn't finite."""
        y = in_batches(lambda z: self.density.inverse(self.tensor(z)), z, ROWS)
        if not np.isfinite(y).all():
            raise FloatingPointError(f"{type(self).__name__}: the inverse of {len(z)} codes is not finite: train anew "
                                     "with a lower --lr, or draw at a lower temperature")  # fmt: skip
        return self.scaling.inverse(y.astype(np.float64))

    def decode(self, z: np.ndarray) -> np.ndarray:
        """The images of z (N, D) before they are whole: (N, C, H, W) floats, 0 .. levels - 1."""
        return np.clip(self._pixels(z) - 0.5, 0, self.levels - 1)

    def inverse(self, z: np.ndarray) -> np.ndarray:
        """The images of z (N, D), (N, C, H, W) uint8: those in whose cells it comes to lie."""
        return np.clip(np.floor(self._pixels(z)), 0, self.levels - 1).astype(np.uint8)

    def sample(
        self, n: int, rng: np.random.Generator, temperature: float = 1.0, labels: np.ndarray | None = None
    ) -> np.ndarray:
        """n images drawn from the model, (n, C, H, W) uint8: of z from the prior, times temperature.

        Temperature: Kingma & Dhariwal, Glow (2018), section 6. labels: None, there are no classes.
        """
        self.condition.check(labels, n, type(self).__name__)
        if not temperature >= 0:
            raise ValueError(f"temperature must not be negative, got {temperature}")
        return self.inverse(temperature * self.codes(n, rng))
