"""What can take long once a model is trained, shown while it runs: its likelihood of a test set, and its samples."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tinygen.data import Dataset
from tinygen.models.model import Figure, Model
from tinygen.training.progress import Bar


def figures(model: Model, train: Dataset, test: Dataset, seed: int) -> list[Figure]:
    """The model's test figures."""
    with Bar() as bar, _telling(model, bar):
        return model.evaluate(train, test, np.random.default_rng(seed))


@contextlib.contextmanager
def _telling(model: Model, bar: Bar) -> Iterator[None]:
    vars(model)["tell"] = bar.show
    try:
        yield
    finally:
        del vars(model)["tell"]


def samples(model: Model, n: int, seed: int, temperature: float = 1.0) -> np.ndarray:
    """n images drawn from the model, (n, C, H, W) uint8: what `model.sample` gives for a generator of this seed."""
    with Bar() as bar:
        text = f"drawing {n:,} images {'x'.join(map(str, model.image_shape))}"
        generator = _Watched(np.random.PCG64(seed), n * model.dimensions, lambda done: bar.show(done, text))
        return model.sample(n, generator, temperature)


class _Watched(np.random.Generator):
    """A generator that tells which part of its uniform numbers is drawn: samplers use one for every value."""

    def __init__(self, bit_generator: np.random.BitGenerator, total: int, tell: Callable[[float], None]) -> None:
        super().__init__(bit_generator)
        self.drawn, self.total, self.tell = 0, total, tell

    def random(self, *args: Any, **kwargs: Any) -> Any:
        self.tell(self.drawn / self.total)
        values = super().random(*args, **kwargs)
        self.drawn += np.size(values)
        return values
