"""Images with their labels, as one small type, and the transformations that make a new one of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and their labels, never changed: the arrays are read-only, transformations return a new one.

    images: (N, C, H, W), uint8, C-contiguous (made so), at least one image, every value below `levels`.
    levels: how many values a pixel can take, 2 to 256.
    labels: (N,), made int64, or None; where there are `classes`, indices into them.
    classes: the names of the labels, empty where nobody gave any.

    Raises TypeError for another dtype and ValueError for shapes and values that don't fit.
    """

    images: np.ndarray = field(repr=False)
    levels: int = 256
    labels: np.ndarray | None = field(default=None, repr=False)
    name: str = ""
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        images, title = np.ascontiguousarray(self.images), self._title
        if images.dtype != np.uint8:
            raise TypeError(f"{title}: images must be uint8, got {images.dtype}")
        if images.ndim != 4 or images.size == 0:
            raise ValueError(f"{title}: images must be (N, C, H, W) with no size 0, got {images.shape}")
        if not 2 <= self.levels <= 256:
            raise ValueError(f"{title}: levels must be 2 to 256, got {self.levels}")
        if self.levels < 256 and (most := images.max()) >= self.levels:
            raise ValueError(f"{title}: pixels must be below its {self.levels} levels, got {most}")
        object.__setattr__(self, "images", _read_only(images))
        if self.labels is not None:
            object.__setattr__(self, "labels", _read_only(self._checked(np.asarray(self.labels))))

    def _checked(self, labels: np.ndarray) -> np.ndarray:
        if labels.dtype.kind not in "iu":
            raise TypeError(f"{self._title}: labels must be integers, got {labels.dtype}")
        if labels.shape != (len(self),):
            raise ValueError(f"{self._title}: {len(self)} images, but labels of shape {labels.shape}")
        labels = labels.astype(np.int64)
        low, high = labels.min(), labels.max()
        if low < 0 or (self.classes and high >= len(self.classes)):
            limit = f"to {len(self.classes) - 1}" if self.classes else "or more"
            raise ValueError(f"{self._title}: labels must be 0 {limit}, got {low} to {high}")
        return labels

    @property
    def _title(self) -> str:
        return f"data set {self.name!r}" if self.name else "data set"

    def __len__(self) -> int:
        return len(self.images)


def quantize(dataset: Dataset, levels: int) -> Dataset:
    """The data set with fewer levels, all of one width: x becomes floor(x * levels / dataset.levels).

    Raises ValueError unless 2 <= levels <= dataset.levels.
    """
    if not 2 <= levels <= dataset.levels:
        raise ValueError(f"quantize: levels must be 2 to the data set's {dataset.levels}, got {levels}")
    coarse = dataset.images * np.uint16(levels) // np.uint16(dataset.levels)
    return replace(dataset, images=coarse.astype(np.uint8), levels=levels)


def threshold(dataset: Dataset) -> Dataset:
    """The data set with 2 levels: 1 where x >= levels / 2 (of 256: x >= 128, of 17: x >= 9)."""
    return quantize(dataset, 2)


def subset(dataset: Dataset, index: slice | np.ndarray) -> Dataset:
    """The images that `index` names along N: a slice, an array of indices or a mask.

    Raises ValueError if none is left.
    """
    labels = None if dataset.labels is None else dataset.labels[index]
    return replace(dataset, images=dataset.images[index], labels=labels)


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view
