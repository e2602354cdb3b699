"""Autoencoder: images squeezed through a code and restored, learned without labels (lecture slides 41 to 49).

    encoder: 4 convolutions -> code -> decoder: 4 transposed convolutions,        loss: squared error (L2)

What it learns serves a classifier with few labels (`models/probing.py`, slides 47 and 48). It can't generate, since
nobody knows which codes mean something (slide 49): its samples show that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from tinygen import Tensor
from tinygen.baselines.pca import PCA
from tinygen.data import Dataset
from tinygen.metrics.metric import ImageGrid, Metric, Plot
from tinygen.models.family import Batch, Family, PlotOf
from tinygen.models.interpolation import interpolation
from tinygen.models.model import Model
from tinygen.models.networks import encoders
from tinygen.models.vae.plots import reconstructions, scatter
from tinygen.nn import functional as F


def generated(model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Plot:
    """Why it can't generate: codes from N(0, I), and below them from a Gaussian fitted to real codes (slide 49)."""
    codes = model.encode(train.images[:5000]).astype(np.float64)
    fitted = PCA(codes, model.latent).sample(32, rng)
    z = np.concatenate([model.codes(32, rng), fitted])
    return ImageGrid(
        model.levels.to_gray(model.decode(z)), 8, "Decoded codes that no image has", 256,
        ["codes from\nN(0, I)", "", "", "", "codes from a\nGaussian fitted\nto real codes", "", "", ""],
    )  # fmt: skip


class AutoencoderFamily(Family):
    """Of models that restore images from codes, and are judged by their squared error."""

    validation_unit = "mean squared error"
    plots: ClassVar[Mapping[str, PlotOf]] = {
        "reconstruct": reconstructions, "interpolate": interpolation, "scatter": scatter, "generate": generated,
    }  # fmt: skip

    def progress(self, model: Any, parts: dict[str, float]) -> str:
        return f"mean squared error {parts['squared_error'] / model.dimensions:.5f}"

    def baselines(self, model: Any, train: Dataset, test: Dataset) -> dict[str, float]:
        """The squared error of the best linear code of this size: PCA (slide 11)."""
        pca = PCA(train.images, min(model.latent, model.dimensions))
        total = 0.0
        for i in range(0, len(test), 1000):  # a part at a time: in float64 they take eight times their bytes
            x = test.images[i : i + 1000].reshape(-1, model.dimensions)
            total += float(np.sum(((pca.decode(pca.encode(x)) - x) / (model.levels - 1)) ** 2))
        return {f"PCA-{model.latent}": total / test.images.size}

    def validation(self, model: Any, batch: Batch, rng: np.random.Generator) -> float:
        """The mean squared error."""
        return model.squared_error(batch.images)

    def metrics(self, model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> list[Metric]:
        """The mean squared error of the test images beside PCA's, times 1,000: 0 .. 1 are all levels."""
        baselines = {name: 1000 * value for name, value in self.baselines(model, train, test).items()}
        return [Metric("mean squared error", 1000 * model.squared_error(test.images), "/ 1,000", None, baselines, True)]


class Autoencoder(Model):
    """An autoencoder. `sample` decodes standard normal codes, though nothing in its training makes codes like that.

    Args:
        image_shape: (C, H, W).
        levels: values run from 0 to levels - 1.
        network: of encoder and decoder: "conv" with four layers, or "mlp" with one hidden layer.
        latent: how many numbers a code has.
        hidden: channels of the first convolution (None: 32), or units of the hidden layer (None: 400).
        rng: draws the initial weights.
    """

    family = AutoencoderFamily()

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, network: encoders.Kind = "conv", latent: int = 8,
        hidden: int | None = None, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        super().__init__(image_shape, levels)
        if latent < 1:
            raise ValueError(f"latent must be at least 1, got {latent}")
        self.latent = latent
        self.encoder = encoders.encoder(network, image_shape, latent, hidden, rng)
        self.decoder = encoders.decoder(network, image_shape, latent, hidden, rng)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W), scaled to -1 .. 1, restored from their codes, slides 42 to 46."""
        return self.decoder(self.encoder(x))

    def loss(self, batch: Batch, rng: np.random.Generator) -> dict[str, Tensor]:
        """{"squared_error": summed over an image's values, where 0 .. 1 are all levels; the mean over images}."""
        x = self.network_input(batch.images)
        squares = F.mse_loss(self(x), x, reduction="sum")  # L2; -1 .. 1 are all levels here: four times it
        return {"squared_error": squares * (0.25 / len(x))}

    def squared_error(self, images: np.ndarray) -> float:
        """The mean squared error of the images' values as restored, where 0 .. 1 are all levels."""
        restored = self.decode(self.encode(images))
        return float(np.mean(((restored - images) / (self.levels - 1)) ** 2))

    def features(self, x: Tensor) -> Tensor:
        """The codes of scaled images (N, C, H, W), (N, latent): a start for a classifier (slides 47 and 48)."""
        return self.encoder(x)

    def encode(self, images: np.ndarray) -> np.ndarray:
        """The code of each image, (N, latent)."""
        return encoders.in_batches(lambda x: self.encoder(self.network_input(x)), images)

    def decode(self, z: np.ndarray) -> np.ndarray:
        """The images of codes (N, latent): (N, C, H, W) floats, 0 .. levels - 1."""
        return self.levels.unscale(self._outputs(z))

    def _outputs(self, z: np.ndarray) -> np.ndarray:
        return encoders.in_batches(lambda z: self.decoder(self.tensor(z)), z)

    def codes(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n standard normal codes, (n, latent)."""
        return rng.standard_normal((n, self.latent))

    def sample(
        self, n: int, rng: np.random.Generator, temperature: float = 1.0, labels: np.ndarray | None = None
    ) -> np.ndarray:
        """n standard normal codes, times temperature, decoded: (n, C, H, W) uint8. labels: None, there are none."""
        self.condition.check(labels, n, type(self).__name__)
        return self.levels.round(self._outputs(temperature * self.codes(n, rng)))
