"""The condition of a model, which it is told besides the pixels: the image's class, a caption, or nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygen.data.captions import LONGEST, Captions


class Condition:
    """The classes 0 .. classes - 1 of a model's images. None of them (0): the model is told nothing.

    Raises ValueError for a negative number.
    """

    def __init__(self, classes: int = 0) -> None:
        if classes < 0:
            raise ValueError(f"classes must not be negative, got {classes}")
        self.classes = classes

    def __bool__(self) -> bool:
        return self.classes > 0

    @property
    def of_data(self) -> Condition:
        """What the labels of a data set must be that such a model is trained on."""
        return self

    def used(self, labels: np.ndarray | None) -> np.ndarray | None:
        """A data set's labels, if the model is told the class."""
        return labels if self else None

    def in_turn(self, n: int) -> np.ndarray | None:
        """Labels of n images, one class after the other; None if there are no classes."""
        return np.arange(n) % self.classes if self else None

    def draw(self, n: int, rng: np.random.Generator) -> np.ndarray | None:
        """n labels at random, all classes alike; None if there are no classes."""
        return rng.integers(0, self.classes, n) if self else None

    def one_hot(self, labels: np.ndarray) -> np.ndarray:
        """Labels (N,) as rows (N, classes), 1 at an image's own class and 0 elsewhere."""
        return np.eye(self.classes)[labels]

    def planes(self, labels: np.ndarray, *sides: int) -> np.ndarray:
        """Labels (N,) as channels (N, classes, *sides): 1 all over the plane of an image's own class, 0 elsewhere.

        The channels are last in memory, as those of images.
        """
        planes = np.zeros((len(labels), *sides, self.classes))
        planes[np.arange(len(labels)), ..., labels] = 1
        return np.moveaxis(planes, -1, 1)

    def check(self, labels: Any, n: int, model: str = "the model") -> np.ndarray | None:
        """The labels of n images; None for a model that is told nothing.

        Raises ValueError, which names the model, for labels that aren't n of its classes, or where there are none.
        """
        if not self:
            if labels is not None:
                raise ValueError(f"{model} knows no classes: labels must be None, got {np.size(labels)} of them")
            return None
        if labels is None:
            raise ValueError(f"{model} of {self.classes} classes must be told the labels, got None; has the data none?")
        found = np.asarray(labels)
        if found.shape != (n,) or found.dtype.kind not in "iu":
            raise ValueError(f"labels must be {n} integers, one for each image, got {found.dtype} {found.shape}")
        if n and not 0 <= found.min() <= found.max() < self.classes:
            allowed = f"labels must be from 0 to {self.classes - 1} for {model} of {self.classes} classes"
            raise ValueError(f"{allowed}, got {found.min()} to {found.max()}")
        return found


class Text(Condition):
    """Captions, as rows of their words' numbers (N, LONGEST): see `tinygen.data.captions`.

    A data set has none: they are written for its images, of their classes where the captions have a noun for each.
    """

    def __init__(self, captions: Captions) -> None:
        super().__init__()
        self.captions = captions

    def __bool__(self) -> bool:
        return True

    @property
    def of_data(self) -> Condition:
        nouns = self.captions.sizes[0]
        return Condition(nouns if nouns > 1 else 0)

    def used(self, labels: np.ndarray | None) -> np.ndarray | None:
        """None: a data set's labels are no captions."""
        return None

    def in_turn(self, n: int) -> np.ndarray:
        """Captions of n images, one noun after the other; always the same."""
        rng = np.random.default_rng(0)
        drawn = self.captions.draw(max(n, 1) * self.captions.sizes[0] * 6, rng)
        found = [drawn[drawn[:, 0] == i % self.captions.sizes[0]][i] for i in range(n)]
        return self.captions.numbers(self.captions.write(np.reshape(found, (n, 3)), rng))

    def draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n captions at random, of all combinations but those held out."""
        return self.captions.numbers(self.captions.write(self.captions.draw(n, rng), rng))

    def check(self, labels: Any, n: int, model: str = "the model") -> np.ndarray:
        """The captions of n images. Raises ValueError for what isn't (n, LONGEST) numbers of words."""
        found, words = np.asarray(labels), len(self.captions.words)
        if found.shape != (n, LONGEST) or found.dtype.kind not in "iu" or not ((found >= 0) & (found < words)).all():
            raise ValueError(
                f"labels must be the captions of {model}, ({n}, {LONGEST}) numbers of words below {words}, got "
                f"{found.dtype} {found.shape}; `Captions.numbers` makes them of text"
            )
        return found
