"""How variational autoencoders are measured and shown: bounds of the likelihood, and what the codes mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from tinygen.baselines.independent import independent_nats
from tinygen.data import Dataset
from tinygen.metrics.metric import Metric, mean_and_error
from tinygen.models.family import Batch, Family, PlotOf
from tinygen.models.semisupervised import accuracy
from tinygen.models.vae import plots
from tinygen.models.vae.estimates import ACTIVE, activity, elbo, importance_bound, prior_estimate

EVALUATED = 1000  # test images, for the importance-weighted bound
PARTS = "reconstruction", "kl", "tightening", "penalty"  # of the loss; the last two where a model has them


class VAEFamily(Family):
    """Of the models of base.py."""

    draws: ClassVar[int] = 500  # of z for each, for the importance-weighted bound
    validation_unit = "nats an image"
    units: ClassVar[Mapping[str, str]] = dict.fromkeys(PARTS, "nats an image")
    plots: ClassVar[Mapping[str, PlotOf]] = plots.PLOTS

    def progress(self, model: Any, parts: dict[str, float]) -> str:
        nats = {name: parts[name] for name in PARTS if name in parts}
        shown = " ".join(f"{'+' if value >= 0 else '-'} {name} {abs(value):.2f}" for name, value in nats.items())
        return f"{sum(nats.values()):.2f} nats = {shown.removeprefix('+ ')}"

    def baselines(self, model: Any, train: Dataset, test: Dataset) -> dict[str, float]:
        return {"independent pixels": float(independent_nats(train.images, test.images, model.levels).mean())}

    def validation(self, model: Any, batch: Batch, rng: np.random.Generator) -> float:
        """-ELBO in nats an image."""
        reconstruction, kl = elbo(model, batch.images, rng)
        return float((reconstruction + kl).mean())

    def likelihood(self, model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> Metric:
        """-ELBO."""
        mean, error = mean_and_error(sum(elbo(model, test.images, rng), np.zeros(len(test))))
        scale, baselines = model.bits_per_dim(1.0), self.baselines(model, train, test)
        known = {name: value * scale for name, value in baselines.items()}
        return Metric("-ELBO", mean * scale, "bits/dim", error * scale, known, True)

    def metrics(self, model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> list[Metric]:
        """-ELBO of all test images and its parts; tighter bounds of the first ones; how many variables are used."""
        reconstruction, kl = elbo(model, test.images, rng)
        images, draws = test.images[:EVALUATED], self.draws
        bound = -importance_bound(model, images, draws, rng)
        prior = -prior_estimate(model, images, draws, rng)
        unit, baselines = "nats an image", self.baselines(model, train, test)
        scale = model.bits_per_dim(1.0)
        mean, error = mean_and_error(reconstruction + kl)

        def in_nats(name: str, nats: np.ndarray, **baselines: float) -> Metric:
            mean, error = mean_and_error(nats)
            return Metric(name, mean, unit, error, baselines)

        tighter = {
            f"-ELBO of these {len(images):,} images": float((reconstruction + kl)[: len(images)].mean()),
            "from the prior": float(prior.mean()),
        }
        return [
            Metric("-ELBO", mean, unit, error, baselines, True),
            Metric(
                "-ELBO", mean * scale, "bits/dim", error * scale, {k: v * scale for k, v in baselines.items()}, True
            ),
            in_nats("reconstruction", reconstruction),
            in_nats("KL", kl),
            in_nats(f"importance-weighted bound, K = {draws}", bound, **tighter)._replace(lower_is_better=True),
            *self.of_codes(model, train, test),
        ]

    def of_codes(self, model: Any, train: Dataset, test: Dataset) -> list[Metric]:
        """What is measured of codes alone: how many variables are used."""
        return [Metric("active variables", float((activity(model, test.images) > ACTIVE).sum()), f"of {model.latent}")]


class M2Family(VAEFamily):
    """Of a VAE with classes that it is told for few images: whether it can tell them for others."""

    draws = 50  # of each class
    units: ClassVar[Mapping[str, str]] = dict.fromkeys((*PARTS, "labeled", "class"), "nats an image")
    plots: ClassVar[Mapping[str, PlotOf]] = {
        name: plots.PLOTS[name] for name in ("reconstruct", "prior", "interpolate", "scatter")
    } | {"analogies": plots.analogies}

    def of_codes(self, model: Any, train: Dataset, test: Dataset) -> list[Metric]:
        return [accuracy(model, train, test)] if test.labels is not None else []
