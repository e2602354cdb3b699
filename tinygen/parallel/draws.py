"""Random numbers of several ranks that are those of one process.

Each rank draws the numbers of the whole minibatch, by the same generator, and keeps those of its share. So noise
doesn't depend on how many ranks there are; and after each draw the generators are at the same place again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinygen.parallel.ranks import Ranks, share

SIZE = {  # which argument of a generator's method is the size of what it draws
    "choice": 1, "exponential": 1, "gumbel": 2, "integers": 2, "logistic": 2, "normal": 2, "random": 0,
    "standard_normal": 0, "uniform": 2,
}  # fmt: skip


class SharedDraws(np.random.Generator):
    """A generator that draws for this rank's images what one process would draw for them.

    A draw of (n, ...), where n are this rank's images of the last minibatch, is its share of a draw for all images of
    that minibatch. Any other draw is the same on all ranks. Where another axis is that of the images: `along`.

    bit_generator: in the same state on all ranks. axis: that of the images.
    """

    def __init__(self, bit_generator: np.random.BitGenerator, ranks: Ranks, axis: int = 0) -> None:
        super().__init__(bit_generator)
        self.ranks, self.axis, self.images, self.own = ranks, axis, 0, slice(0, 0)

    def share(self, images: int) -> slice:
        """Begin a minibatch of so many images: which of them are this rank's."""
        self.images, self.own = images, share(images, self.ranks)
        return self.own

    @property
    def weight(self) -> float:
        """How much of the minibatch is this rank's, from 0 to 1."""
        return (self.own.stop - self.own.start) / self.images if self.images else 1 / self.ranks.size

    def drawn(self, draw: Callable[[Any], Any], size: Any) -> Any:
        """draw(size), or the share of what is drawn for all images."""
        shape = [] if size is None else np.atleast_1d(size).tolist()
        if not -len(shape) <= self.axis < len(shape) or shape[self.axis] != self.own.stop - self.own.start:
            return draw(size)
        shape[self.axis] = self.images
        return np.moveaxis(np.moveaxis(draw(tuple(shape)), self.axis, 0)[self.own], 0, self.axis)


def _sharing(name: str, place: int) -> Callable[..., Any]:
    method = getattr(np.random.Generator, name)

    def draw(self: SharedDraws, *args: Any, **kwargs: Any) -> Any:
        before, after, size = args[:place], args[place + 1 :], kwargs.pop("size", None)
        if len(args) > place:
            size = args[place]
        if after:  # what follows the size by its place
            return self.drawn(lambda size: method(self, *before, size, *after, **kwargs), size)
        return self.drawn(lambda size: method(self, *before, size=size, **kwargs), size)

    return draw


for _name, _place in SIZE.items():
    setattr(SharedDraws, _name, _sharing(_name, _place))


def whole(rng: np.random.Generator) -> np.random.Generator:
    """The same generator, for draws that are no images': alike on all ranks, whatever their sizes."""
    return np.random.Generator(rng.bit_generator) if isinstance(rng, SharedDraws) else rng


def along(axis: int, rng: np.random.Generator) -> np.random.Generator:
    """The same generator, for draws in which this axis is that of the images."""
    if not isinstance(rng, SharedDraws):
        return rng
    other = SharedDraws(rng.bit_generator, rng.ranks, axis)
    other.images, other.own = rng.images, rng.own
    return other


def positions(n: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Where n images of a rank's share stand among those of the minibatch, (n,), and how many those are."""
    if isinstance(rng, SharedDraws) and n == rng.own.stop - rng.own.start:
        return np.arange(rng.own.start, rng.own.stop), rng.images
    return np.arange(n), n
