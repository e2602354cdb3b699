"""GSN: a chain of corruption and denoising, whose late states are the samples (lecture slide 36).

    x~ from C(x~ | x),    x from P(x | x~),    and again

If P(x | x~) is the true posterior of x given x~, the chain's stationary distribution is that of the data (theorem 1).
Here C replaces each value, with a probability, by one of all levels at random (salt-and-pepper noise), and P is a
network: all values of x independent, given x~. So a little corruption leaves a posterior that P can nearly say, and a
chain that hardly moves; much of it, a chain that mixes in a few steps about a blurred distribution. Walkback trains on
what the chain itself makes of an image in a few transitions, so that it finds back from where it strays:

    x~1 from C(x~ | x),    x1 from P(x | x~1),    x~2 from C(x~ | x1),   ..      loss: the mean of -log P(x | x~i)

Source: Bengio, Yao, Alain & Vincent, Generalized denoising auto-encoders as generative models (2013), theorem 1 and
algorithm 1 (walkback, here with a fixed number of steps); Bengio, Laufer, Alain & Yosinski, Deep generative stochastic
networks trainable by backprop (2014).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from tinygen import Tensor, nn, no_grad, parallel
from tinygen.baselines.independent import independent_nats
from tinygen.data import Dataset
from tinygen.metrics.metric import Metric, mean_and_error
from tinygen.metrics.quality import MOST, quality
from tinygen.models import likelihoods
from tinygen.models.energy.chain import MarkovChain
from tinygen.models.energy.plots import CHAIN_PLOTS
from tinygen.models.family import Batch, Family, PlotOf
from tinygen.models.networks.encoders import FromImage, ToImage

ROWS = 1000  # images at once in evaluation


class GSNFamily(Family):
    """Of models that denoise: by -log P(x | x~), which is no likelihood of x, and the quality of samples."""

    validation_unit = "nats an image, denoised"
    units: ClassVar[Mapping[str, str]] = {"nats": "nats an image, denoised"}
    plots: ClassVar[Mapping[str, PlotOf]] = CHAIN_PLOTS

    def progress(self, model: Any, parts: dict[str, float]) -> str:
        return f"{parts['nats']:.2f} nats to denoise"

    def baselines(self, model: Any, train: Dataset, test: Dataset) -> dict[str, float]:
        """The output that denoises without a look at the corrupted image."""
        return {"independent pixels": float(independent_nats(train.images, test.images, model.levels).mean())}

    def validation(self, model: Any, batch: Batch, rng: np.random.Generator) -> float:
        """The mean of -log P(x | x~), x~ corrupted once."""
        return float(denoising_nats(model, batch.images, rng).mean())

    def metrics(self, model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> list[Metric]:
        """How well it denoises test images, and the quality of as many samples, each from a chain of its own."""
        mean, error = mean_and_error(denoising_nats(model, test.images, rng))
        images = model.sample(min(len(test), MOST), rng)
        return [
            Metric("-log P(x given x~)", mean, "nats an image", error, self.baselines(model, train, test), True),
            *quality(images, train, test),
        ]


def denoising_nats(model: Any, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """-log P(x | x~) of each image, corrupted once, in nats, (N,) float64."""

    def nats(some: slice, rng: np.random.Generator) -> np.ndarray:
        x = images[some]
        return model.nats(x, model.denoise(model.corrupt(x, rng))).numpy().astype(np.float64)

    with no_grad():
        return parallel.in_shares(nats, len(images), ROWS, rng)


class GSN(MarkovChain):
    """A generative stochastic network. A state of its chain is the image.

    Args:
        image_shape: (C, H, W).
        levels: values run from 0 to levels - 1.
        corruption: the probability that a value is replaced by one of all levels, each as likely.
        walkback: how many transitions of the chain are learned from an image.
        hidden: units of each of the denoiser's two hidden layers.
        likelihood: P(x | x~) of a value: "logistic" (discretized, any levels), "bernoulli" (2 levels) or "gaussian".
        rng: draws the initial weights.
    """

    family = GSNFamily()
    lr: ClassVar[float] = 1e-3
    batch_size: ClassVar[int] = 64
    burn_in: ClassVar[int] = 100

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, corruption: float = 0.4, walkback: int = 3,
        hidden: int = 500, likelihood: likelihoods.Kind = "logistic", rng: np.random.Generator,
    ) -> None:  # fmt: skip
        super().__init__(image_shape, levels)
        if not 0 < corruption <= 1:
            raise ValueError(f"corruption must be above 0 and at most 1, got {corruption}")
        for name, value in (("walkback", walkback), ("hidden", hidden)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.corruption, self.walkback = corruption, walkback
        self.likelihood = likelihoods.likelihood(likelihood, levels, None)
        channels, height, width = image_shape
        outputs = self.likelihood.outputs
        self.denoiser = nn.Sequential(
            FromImage(), nn.Linear(self.dimensions, hidden, rng=rng), nn.ReLU(),
            nn.Linear(hidden, hidden, rng=rng), nn.ReLU(),
            nn.Linear(hidden, outputs * self.dimensions, rng=rng), ToImage(outputs * channels, height, width),
        )  # fmt: skip

    def corrupt(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """x~ from C(x~ | x), (N, C, H, W) uint8."""
        noise = rng.integers(0, self.levels, x.shape, np.uint8)
        return np.where(rng.random(x.shape, np.float32) < self.corruption, noise, x)

    def denoise(self, x: np.ndarray) -> Tensor:
        """The parameters of P(x | x~), of corrupted images x~."""
        return self.denoiser(self.network_input(x))

    def nats(self, x: np.ndarray, output: Tensor) -> Tensor:
        """-log P(x | x~) of each image, by what `denoise` gave of x~, in nats, (N,)."""
        return self.likelihood.nats(output, x).sum((1, 2, 3))

    def loss(self, batch: Batch, rng: np.random.Generator) -> dict[str, Tensor]:
        """{"nats": the mean of -log P(x | x~) over images and the steps of walkback}."""
        x, total = batch.images, self.tensor(np.zeros(()))
        for _ in range(self.walkback):
            output = self.denoise(self.corrupt(x, rng))
            total = total + self.nats(batch.images, output).mean()
            x = self.likelihood.sample(output.numpy(), rng)
        return {"nats": total / self.walkback}

    # -- the chain

    def start(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return rng.integers(0, self.levels, (n, *self.image_shape), np.uint8)

    def transition(self, state: np.ndarray, rng: np.random.Generator, temperature: float = 1.0) -> np.ndarray:
        """x~ from C(x~ | x), then x from P(x | x~), whose temperature it is."""
        return self.likelihood.sample(self.denoise(self.corrupt(state, rng)).numpy(), rng, temperature)

    def state(self, images: np.ndarray) -> np.ndarray:
        return self.check_images(images)

    def images(self, state: np.ndarray) -> np.ndarray:
        return state

    def clamped(self, state: np.ndarray, given: np.ndarray, known: np.ndarray) -> np.ndarray:
        return np.where(known, given, state)
