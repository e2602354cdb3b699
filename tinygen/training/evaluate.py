"""What can take long once a model is trained, shown while it runs: its figures, its samples and other pictures."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from tinygen.data import Dataset
from tinygen.models.model import Metric, Model, Plot
from tinygen.training.progress import Bar


def figures(model: Model, train: Dataset, test: Dataset, seed: int) -> list[Metric]:
    """The model's test figures."""
    with _shown(model):
        return model.evaluate(train, test, np.random.default_rng(seed))


def picture(model: Model, name: str, train: Dataset, test: Dataset, seed: int) -> Plot:
    """One of the model's further pictures."""
    with _shown(model):
        return model.pictures()[name](model, train, test, np.random.default_rng(seed))


def samples(model: Model, n: int, seed: int, temperature: float = 1.0, label: int | None = None) -> np.ndarray:
    """n images drawn from the model, (n, C, H, W) uint8: what `model.sample` gives for a generator of this seed."""
    labels = None if label is None else np.full(n, label, np.int64)
    with _shown(model):
        return model.sample(n, np.random.default_rng(seed), temperature, labels)


@contextlib.contextmanager
def _shown(model: Model) -> Iterator[None]:
    """What the model tells is shown by a bar."""
    with Bar() as bar:
        vars(model)["tell"] = bar.show
        try:
            yield
        finally:
            del vars(model)["tell"]
