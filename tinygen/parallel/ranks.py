"""The seam: what training needs of several processes, and how one process alone gives it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any, Protocol

import numpy as np

Array = Any  # a numpy.ndarray, or a cupy.ndarray on a GPU


class Pending(Protocol):
    """A sum that has been started."""

    def done(self) -> bool:
        """Whether the sum is there. Asking also moves it on."""

    def wait(self) -> None:
        """Return when the sum is there."""


class Ranks(Protocol):
    """The processes of a job, seen from one of them. All call the same methods in the same order, or wait forever.

    Attributes:
        rank: the number of this one, from 0. Rank 0 is the one that writes and speaks.
        size: how many there are.
        sharded: whether each of them has gradients and optimizer state of its part of the parameters alone.
        waited: seconds for which this one has waited for sums and copies so far.
        names: how messages call the ranks.
    """

    rank: int
    size: int
    names: Sequence[str]
    sharded: bool
    waited: float

    def start_sum(self, array: Array, root: int | None = None) -> Pending:
        """Begin to put the sum of all ranks' arrays, of one shape and dtype, in this array's place: C-contiguous.

        root: the one rank that needs it; what the others' arrays hold then is undefined. None: all of them.
        """

    def start_copy(self, array: Array, root: int) -> Pending:
        """Begin to put a rank's array in the place of all ranks' arrays, which are like it: C-contiguous."""

    def broadcast(self, value: Any, root: int = 0) -> Any:
        """The value of one of the ranks, on all of them. value: anything that can be pickled."""


class Alone:
    """A process by itself: sums are what they are of."""

    rank, size, sharded, waited = 0, 1, False, 0.0
    names: Sequence[str] = ("rank 0",)

    def start_sum(self, array: Array, root: int | None = None) -> Pending:
        return self

    def start_copy(self, array: Array, root: int) -> Pending:
        return self

    def broadcast(self, value: Any, root: int = 0) -> Any:
        return value

    def done(self) -> bool:
        return True

    def wait(self) -> None:
        return


ALONE = Alone()
_current: ContextVar[Ranks] = ContextVar("the ranks that train together", default=ALONE)


def current() -> Ranks:
    """The ranks of this job. `Alone` unless there is a block of `using`."""
    return _current.get()


@contextlib.contextmanager
def using(ranks: Ranks) -> Iterator[Ranks]:
    """Within it these are the ranks. `using(Alone())`: for what one rank does by itself."""
    token = _current.set(ranks)
    try:
        yield ranks
    finally:
        _current.reset(token)


def share(n: int, ranks: Ranks) -> slice:
    """Which of n things are this rank's: of all ranks' shares, in their order, none differs by more than one."""
    return slice(n * ranks.rank // ranks.size, n * (ranks.rank + 1) // ranks.size)


def total(values: Any) -> np.ndarray:
    """The sum of all ranks' values, which are numbers or an array: a new float64 array."""
    array = np.array(values, np.float64)
    current().start_sum(array).wait()
    return array


def from_owners(values: Sequence[float]) -> list[float]:
    """Numbers, one for each parameter: where the parameters are sharded, those of the others are theirs; else as is.

    values: 0 for parameters that aren't this rank's.
    """
    return total(values).tolist() if current().sharded else list(values)


def first_said(text: str) -> str:
    """The text of the first rank that has one that isn't empty, on all ranks; "" if none has."""
    ranks = current()
    found = np.zeros(ranks.size)
    found[ranks.rank] = bool(text)
    found = total(found)
    return ranks.broadcast(text, int(found.argmax())) if found.any() else ""


def moments(x: Any, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance over axes, the first among them, of all ranks' x, side by side along that axis: float64."""
    count = float(total(math.prod(x.shape[axis] for axis in axes)))
    mean = total(x.sum(axes, dtype=np.float64, keepdims=True)) / count
    return mean.squeeze(axes), total(np.square(x - mean).sum(axes)) / count


def all_gather(rows: np.ndarray) -> tuple[np.ndarray, slice]:
    """All ranks' rows (n, ...), one below the other in the ranks' order, (N, ...), and where this rank's are."""
    ranks, rows = current(), np.asarray(rows)
    if ranks.size == 1:
        return rows, slice(len(rows))
    lengths = np.zeros(ranks.size)
    lengths[ranks.rank] = len(rows)
    ends = np.cumsum(total(lengths)).astype(int)
    own = slice(int(ends[ranks.rank]) - len(rows), int(ends[ranks.rank]))
    found = np.zeros((int(ends[-1]), *rows.shape[1:]), rows.dtype)
    found[own] = rows
    ranks.start_sum(found).wait()
    return found, own
