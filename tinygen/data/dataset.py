"""Images with their labels, as one small type, and the transformations that make a new one of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from tinygen.data import mapped
from tinygen.data.mapped import MappedImages
from tinygen.data.split import held_out


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and their labels, never changed: the arrays are read-only, transformations return a new one.

    images: (N, C, H, W), uint8, C-contiguous (made so), at least one image, every value below `levels`. Where they need
        more memory than a machine may have, a `MappedImages`, which gives such arrays when it is indexed; `in_memory`
        makes a data set of arrays of it.
    levels: how many values a pixel can take, 2 to 256.
    labels: (N,), integers or bool, made int64, or None; where there are `classes`, indices into them.
    classes: the names of the labels, empty where nobody gave any.
    notes: what was left out when it was read, and what became of the images: sentences for people.

    Raises TypeError for another dtype and ValueError for shapes and values that don't fit.
    """

    images: np.ndarray = field(repr=False)
    levels: int = 256
    labels: np.ndarray | None = field(default=None, repr=False)
    name: str = ""
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        is_mapped = isinstance(self.images, MappedImages)  # whose values are known to fit
        images: Any = self.images if is_mapped else np.ascontiguousarray(self.images)
        if images.dtype != np.uint8:
            raise TypeError(f"{self._title}: images must be uint8, got {images.dtype}")
        if images.ndim != 4 or 0 in images.shape:
            raise ValueError(f"{self._title}: images must be (N, C, H, W) with no size 0, got {images.shape}")
        if not 2 <= self.levels <= 256:
            raise ValueError(f"{self._title}: levels must be 2 to 256, got {self.levels}")
        if not is_mapped:
            if self.levels < 256 and (most := images.max()) >= self.levels:
                raise ValueError(f"{self._title}: pixels must be below its {self.levels} levels, got {most}")
            object.__setattr__(self, "images", _read_only(images))
        if self.labels is not None:
            object.__setattr__(self, "labels", _read_only(self._checked(np.asarray(self.labels))))

    def _checked(self, labels: np.ndarray) -> np.ndarray:
        if labels.dtype.kind not in "biu":
            raise TypeError(f"{self._title}: labels must be integers or bool, got {labels.dtype}")
        if labels.shape != (len(self),):
            raise ValueError(f"{self._title}: {len(self)} images, but labels of shape {labels.shape}")
        low, high = int(labels.min()), int(labels.max())
        if high > np.iinfo(np.int64).max:
            raise ValueError(f"{self._title}: labels must be below 2^63, got {high}")
        labels = labels.astype(np.int64)
        if low < 0 or (self.classes and high >= len(self.classes)):
            limit = f"to {len(self.classes) - 1}" if self.classes else "or more"
            raise ValueError(f"{self._title}: labels must be 0 {limit}, got {low} to {high}")
        return labels

    @property
    def _title(self) -> str:
        return f"data set {self.name!r}" if self.name else "data set"

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def digests(self) -> dict[str, str]:
        """The SHA-256 of the images and of the labels (int64), "none" where there are none."""
        images: Any = self.images
        images = images.digest() if isinstance(images, MappedImages) else hashlib.sha256(images.data).hexdigest()
        labels = "none" if self.labels is None else hashlib.sha256(self.labels.tobytes()).hexdigest()
        return {"images": images, "labels": labels}


def quantize(dataset: Dataset, levels: int) -> Dataset:
    """The data set with fewer levels, all of one width: x becomes floor(x * levels / dataset.levels).

    Raises ValueError unless 2 <= levels <= dataset.levels.
    """
    if not 2 <= levels <= dataset.levels:
        raise ValueError(f"quantize: levels must be 2 to the data set's {dataset.levels}, got {levels}")
    if levels == dataset.levels:
        return dataset
    values = np.minimum(np.arange(256) * levels // dataset.levels, levels - 1).astype(np.uint8)
    images = dataset.images
    coarse: Any = images.with_values(values) if isinstance(images, MappedImages) else values[images]
    return replace(dataset, images=coarse, levels=levels)


def threshold(dataset: Dataset) -> Dataset:
    """The data set with 2 levels: 1 where x >= levels / 2 (of 256: x >= 128, of 17: x >= 9)."""
    return quantize(dataset, 2)


def subset(dataset: Dataset, index: slice | np.ndarray) -> Dataset:
    """The images that `index` names along N: a slice, an array of indices or a mask.

    Raises ValueError if none is left.
    """
    labels = None if dataset.labels is None else dataset.labels[index]
    images = dataset.images
    chosen: Any = images.subset(index) if isinstance(images, MappedImages) else images[index]
    return replace(dataset, images=chosen, labels=labels)


def in_memory(dataset: Dataset) -> Dataset:
    """The data set as arrays: itself, unless its images are mapped; of more than 16 MiB of these a part.

    The part is drawn as `held_out` draws, always the same. For what looks at all images at once, such as trivial
    models; training itself takes minibatches of any data set.
    """
    return _part(dataset) if isinstance(dataset.images, MappedImages) else dataset


@lru_cache(maxsize=4)  # a Dataset never changes, and is known by its identity: so is its part
def _part(dataset: Dataset) -> Dataset:
    count = max(1, mapped.PART // (dataset.images.nbytes // len(dataset)))
    if count < len(dataset):
        dataset = subset(dataset, held_out(count, len(dataset), dataset.labels))
    return replace(dataset, images=dataset.images[:])


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view
