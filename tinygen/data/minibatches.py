"""Minibatches: data in a random order, epoch after epoch, that can be left and taken up anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tinygen.data.dataset import Dataset


class Minibatches:
    """Shuffled minibatches of a data set or of arrays; one iteration is one epoch.

    data: a Dataset, whose batches are pairs (images (B, C, H, W) uint8, labels (B,) int64 or None); an array,
        whose batches are arrays; or a tuple of arrays of one length, whose batches are tuples. Always copies.
    batch_size: B; the last batch of an epoch is smaller if B doesn't divide N, left out with `drop_last`.
    rng: draws one permutation at the start of each epoch, and nothing else.
    share: of the images of each minibatch, as a slice, those that are to be read; None: all of them.

    An iteration that was left early is taken up where it stood: the next `for` gives the rest of that epoch.
    `state_dict()` holds that place. The generator is shared with the rest of the training, so whoever saves
    the state saves the generator's (`generator.bit_generator.state`) too, at the same moment.

    Raises ValueError for lengths that differ or are 0, and for a batch_size that leaves no batch.
    """

    def __init__(
        self,
        data: Dataset | np.ndarray | tuple[np.ndarray, ...],
        batch_size: int,
        rng: np.random.Generator,
        drop_last: bool = False,
        share: Callable[[int], slice] | None = None,
    ) -> None:
        self._arrays = (data.images, data.labels) if isinstance(data, Dataset) else data
        arrays = self._arrays if isinstance(self._arrays, tuple) else (self._arrays,)
        lengths = {len(array) for array in arrays if array is not None}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(f"Minibatches: data must be arrays of one length >= 1, got {sorted(lengths)}")
        if not isinstance(rng, np.random.Generator):
            got = type(rng).__name__
            raise TypeError(f"Minibatches: rng must be a numpy.random.Generator, got {got}")
        self.size = lengths.pop()
        if batch_size < 1 or (drop_last and batch_size > self.size):
            most = f" to the {self.size} of the data" if drop_last else " or more"
            raise ValueError(f"Minibatches: batch_size must be 1{most}, got {batch_size}")
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.rng, self.share = rng, share
        self._permutation = np.arange(self.size, dtype=np.int64)
        self._position = self.size

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        return self.size // self.batch_size if self.drop_last else -(-self.size // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        if not self._batch_left():
            self._permutation = self.rng.permutation(self.size).astype(np.int64)
            self._position = 0
        while self._batch_left():
            index = self._permutation[self._position : self._position + self.batch_size]
            # before the yield, so that a state saved in the loop's body is past this batch
            self._position += len(index)
            if self.share is not None:
                index = index[self.share(len(index))]
            if isinstance(self._arrays, tuple):
                yield tuple(None if array is None else array[index] for array in self._arrays)
            else:
                yield self._arrays[index]

    def _batch_left(self) -> bool:
        return self._position + (self.batch_size if self.drop_last else 1) <= self.size

    def state_dict(self) -> dict[str, np.ndarray | int]:
        """`permutation` (N,) int64, this epoch's order, and `position`, how much of it has been given out."""
        return {"permutation": self._permutation.copy(), "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up the place of `state_dict()`.

        Raises ValueError, and changes nothing, if the state is not one of data of this length.
        """
        if set(state) != {"permutation", "position"}:
            raise ValueError(f"Minibatches: state must hold permutation and position, got {sorted(state)}")
        permutation, position = np.asarray(state["permutation"]), int(state["position"])
        if permutation.shape != (self.size,):
            raise ValueError(f"Minibatches: the state is of {permutation.size} images, the data has {self.size}")
        if not np.array_equal(np.sort(permutation), np.arange(self.size)):
            raise ValueError(f"Minibatches: the state's permutation is not one of 0 to {self.size - 1}")
        if not 0 <= position <= self.size:
            raise ValueError(f"Minibatches: the state's position must be 0 to {self.size}, got {position}")
        self._permutation, self._position = permutation.astype(np.int64), position
