"""How Boltzmann machines are measured and shown: likelihoods by annealed importance sampling, filters, chains."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from tinygen import no_grad, parallel
from tinygen.baselines.independent import independent_nats
from tinygen.data import Dataset
from tinygen.metrics.metric import Metric, mean_and_error
from tinygen.models.energy import plots
from tinygen.models.energy.ais import LogPartition, log_partition, reverse_log_partition
from tinygen.models.family import Batch, Family, PlotOf

CHAINS, TEMPERATURES = 100, 10_000  # of the test likelihood
QUICK = 500  # temperatures of the validation
ROWS = 2000  # images at once


def forward_log_z(model: Any, images: np.ndarray, temperatures: int, rng: np.random.Generator) -> LogPartition:
    """log Z by AIS from units with the marginals of these images: too low on average, so likelihoods are optimistic."""
    return log_partition(model.machine(), model.marginal_biases(images), temperatures, CHAINS, rng)


def reverse_log_z(model: Any, images: np.ndarray, temperatures: int, rng: np.random.Generator) -> LogPartition:
    """log Z by chains in reverse, from samples: of chains that start at these images and run `burn_in` transitions."""
    chosen = images[rng.integers(0, len(images), CHAINS)]
    for state in model.chain(model.state(chosen), model.burn_in, rng):
        last = state
    return reverse_log_partition(model.machine(), model.marginal_biases(images), temperatures, last, rng)


def log_unnormalized(model: Any, images: np.ndarray) -> np.ndarray:
    """log p(x) + log Z, or a bound of it, of each image, in nats, (N,) float64."""
    with no_grad():
        log_p = lambda some, _: model.log_unnormalized(images[some]).numpy().astype(np.float64)  # noqa: E731
        return parallel.in_shares(log_p, len(images), ROWS)


class EnergyFamily(Family):
    """Of the RBM and of what derives from it.

    Attributes:
        what: of log p(x) is estimated: itself, or a bound.
    """

    validation_unit = f"nats an image, by AIS of {QUICK} temperatures"
    units: ClassVar[Mapping[str, str]] = {"images": "nats", "chains": "nats"}
    plots: ClassVar[Mapping[str, PlotOf]] = plots.PLOTS

    def __init__(self, what: str = "log p") -> None:
        self.what = what

    def progress(self, model: Any, parts: dict[str, float]) -> str:
        return f"free energy {parts['images']:.1f} of images, {-parts['chains']:.1f} of chains; in nats: validation"

    def baselines(self, model: Any, train: Dataset, test: Dataset) -> dict[str, float]:
        return {"independent pixels": float(independent_nats(train.images, test.images, model.levels).mean())}

    def validation(self, model: Any, batch: Batch, rng: np.random.Generator) -> float:
        """-log p in nats an image, or the bound's: a quick estimate, and an optimistic one."""
        log_z = forward_log_z(model, batch.images, QUICK, rng).value
        return log_z - float(log_unnormalized(model, batch.images).mean())

    def likelihood(self, model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Metric:
        """The forward estimate alone."""
        mean, spread = mean_and_error(-log_unnormalized(model, test.images))
        log_z = forward_log_z(model, train.images, TEMPERATURES, rng)
        bits = model.bits_per_dim(1.0)
        known = {name: value * bits for name, value in self.baselines(model, train, test).items()}
        error = math.hypot(spread, log_z.error) * bits
        return Metric(self.name, (mean + log_z.value) * bits, "bits/dim", error, known, True)

    @property
    def name(self) -> str:
        """What is estimated, and how."""
        return f"-{self.what} by AIS, {TEMPERATURES:,} temperatures"

    def metrics(self, model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> list[Metric]:
        """-log p, or the bound's, by AIS in both directions; log Z, and how many of the chains count for it."""
        forward = forward_log_z(model, train.images, TEMPERATURES, rng)
        reverse = reverse_log_z(model, train.images, TEMPERATURES, rng)
        mean, spread = mean_and_error(-log_unnormalized(model, test.images))
        baselines = self.baselines(model, train, test)

        def likelihood(name: str, log_z: LogPartition, unit: str, scale: float = 1.0) -> Metric:
            error = math.hypot(spread, log_z.error)
            known = {k: v * scale for k, v in baselines.items()}
            return Metric(name, (mean + log_z.value) * scale, unit, error * scale, known, True)

        name, bits = self.name, model.bits_per_dim(1.0)
        return [
            likelihood(name, forward, "nats an image"),
            likelihood(name, forward, "bits/dim", bits),
            likelihood(f"{name}, in reverse", reverse, "nats an image"),
            Metric("log Z", forward.value, "nats", forward.error, {"in reverse": reverse.value}),
            Metric("chains that count", forward.effective, f"of {CHAINS}", None, {"in reverse": reverse.effective}),
        ]
