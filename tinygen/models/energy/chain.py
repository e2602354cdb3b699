"""The base of models that are sampled by a Markov chain: samples, completions, and the chain itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from tinygen import no_grad, parallel
from tinygen.console import progress
from tinygen.models.model import Model, Passes

ROWS = 1000  # chains that run at once


class MarkovChain(Model):
    """A model whose samples are the late states of a chain. A state is of the model's own kind, for N images at once.

    Attributes:
        burn_in: how many transitions lie between the start and a sample.
    """

    burn_in: ClassVar[int] = 1000
    passes: ClassVar[Passes] = "a chain"

    def start(self, n: int, rng: np.random.Generator) -> Any:
        """The states of n chains before their first transition: all pixels are independent."""
        raise NotImplementedError

    def warm_start(self, n: int, rng: np.random.Generator) -> Any:
        """The states that samples start from: those of `start`, unless a model knows some that are nearer."""
        return self.start(n, rng)

    def transition(self, state: Any, rng: np.random.Generator, temperature: float = 1.0) -> Any:
        """The chains' next states."""
        raise NotImplementedError

    def state(self, images: np.ndarray) -> Any:
        """The states of chains that show these images."""
        raise NotImplementedError

    def images(self, state: Any) -> np.ndarray:
        """The images of states: (N, C, H, W) uint8."""
        raise NotImplementedError

    def clamped(self, state: Any, given: Any, known: np.ndarray) -> Any:
        """The states, with the values of `given`, states too, where an image (C, H, W) is known."""
        raise NotImplementedError

    def chain(self, state: Any, steps: int, rng: np.random.Generator, temperature: float = 1.0) -> Iterator[Any]:
        """The states themselves, and those after 1, 2, .. steps transitions."""
        with no_grad():
            yield state
            for i in range(steps):
                progress(i / steps, f"running {len(state):,} chains")
                state = self.transition(state, rng, temperature)
                yield state

    def sample(
        self, n: int, rng: np.random.Generator, temperature: float = 1.0, labels: np.ndarray | None = None
    ) -> np.ndarray:
        """n images, each the last of a chain of its own, (n, C, H, W) uint8.

        temperature: the energy is divided by it; at 0 every transition goes to the likeliest state. labels: None,
        there are no classes.
        """
        self._check(labels, n, temperature)

        def ends(some: slice, rng: np.random.Generator) -> np.ndarray:
            for state in self.chain(self.warm_start(some.stop - some.start, rng), self.burn_in, rng, temperature):
                last = state
            return self.images(last)

        return parallel.in_shares(ends, n, ROWS, rng)

    def complete(
        self, images: np.ndarray, known: int, rng: np.random.Generator, temperature: float = 1.0,
        labels: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        """The images with their first `known` rows kept and the rest drawn, (N, C, H, W) uint8 (lecture slide 8).

        By chains in which what is known is set again after every transition (clamping): so what they tend to is the
        distribution of the rest, given the known.
        """
        self._check(labels, len(images), temperature)
        if not 0 <= known <= self.image_shape[1]:
            raise ValueError(f"known must be from 0 to {self.image_shape[1]} rows, got {known}")
        where = np.zeros(self.image_shape, bool)
        where[:, :known] = True
        with no_grad():
            given = self.state(self.check_images(images))
            state = self.clamped(self.start(len(images), rng), given, where)
            for i in range(self.burn_in):
                progress(i / self.burn_in, f"completing {len(images):,} images")
                state = self.clamped(self.transition(state, rng, temperature), given, where)
            return self.images(state)

    def _check(self, labels: np.ndarray | None, n: int, temperature: float) -> None:
        self.condition.check(labels, n, type(self).__name__)
        if not temperature >= 0:
            raise ValueError(f"temperature must not be negative, got {temperature}")
