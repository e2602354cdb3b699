"""Inputs that the ops are tested on: what the declarations of many ops have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np


class Sample(NamedTuple):
    """Arguments that an op is tested on."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def sample(*args: Any, **kwargs: Any) -> Sample:
    """One set of arguments to test an op on."""
    return Sample(args, kwargs)


def normal(rng: np.random.Generator, *shape: int) -> Any:
    """Standard normal numbers, float64."""
    return rng.standard_normal(shape)


def positive(rng: np.random.Generator, *shape: int) -> Any:
    """Numbers between 0.5 and 2, away from the poles of log, sqrt and division."""
    return rng.uniform(0.5, 2.0, shape)


def unary(draw: Callable[..., Any] = normal) -> Callable[[np.random.Generator], Iterator[Sample]]:
    """Samples of an elementwise function of one array."""

    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        yield sample(draw(rng, 2, 3))
        yield sample(draw(rng))

    return samples


def binary(
    draw: Callable[..., Any] = normal, second: Callable[..., Any] | None = None
) -> Callable[[np.random.Generator], Iterator[Sample]]:
    """Samples of an elementwise function of two arrays, with broadcasting both ways and a Python number."""

    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        other = second or draw
        yield sample(draw(rng, 2, 3), other(rng, 2, 3))
        yield sample(draw(rng, 2, 1), other(rng, 4, 1, 3))
        yield sample(draw(rng), other(rng, 3))
        yield sample(draw(rng, 3), 1.5)

    return samples
