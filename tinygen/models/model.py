"""What the training loop, the run folder and the command line need of a model, whatever its family.

A family overrides `loss` and `sample` (or the whole of `training_step`, where one loss isn't enough), and says by
`evaluate`, `validation`, `progress` and `pictures` how good it is and how that is shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import numpy as np

from tinygen import Tensor, nn, optim
from tinygen.data import Dataset

if TYPE_CHECKING:
    from tinygen.training.trainer import Trainer


class Batch(NamedTuple):
    """Some images of a data set. images: (N, C, H, W) uint8, 0 .. levels - 1; labels: (N,) int64, or None."""

    images: np.ndarray
    labels: np.ndarray | None = None


class Metric(NamedTuple):
    """One measured number: `test: 1.828 +- 0.010 bits/dim (independent pixels 2.390)`.

    error: its standard error. beside: what to compare it with, in the same unit.
    """

    name: str
    value: float
    unit: str = ""
    error: float | None = None
    beside: Mapping[str, float] = MappingProxyType({})

    def __str__(self) -> str:
        digits = 3 if abs(self.value) < 10 else 2
        error = "" if self.error is None else f" +- {self.error:.{digits}f}"
        beside = ", ".join(f"{name} {value:.{digits}f}" for name, value in self.beside.items())
        return f"{self.name}: {self.value:.{digits}f}{error} {self.unit}".rstrip() + (f" ({beside})" if beside else "")


class Plot(NamedTuple):
    """Images (N, C, H, W) uint8 to be shown in so many columns, 0 .. levels - 1 (None: the model's levels)."""

    images: np.ndarray
    columns: int | None = None
    caption: str = ""
    levels: int | None = None


class Model(nn.Module):
    """A model of images of shape (C, H, W) with values 0 .. levels - 1.

    A class is built from `(image_shape, levels, *, its own options with defaults, rng)`; the options become flags
    of the command line. What changes from step to step and isn't a parameter is a buffer, so that checkpoints hold it.

    Raises ValueError for an image_shape that isn't three sizes of at least 1, and for levels outside 2 to 256.
    """

    lr: ClassVar[float] = 2e-3  # what training takes unless told otherwise
    batch_size: ClassVar[int] = 16
    schedule: ClassVar[Literal["cosine", "constant"]] = "cosine"  # of the learning rates, over the whole training
    validation_unit: ClassVar[str] = ""  # what `validation` is given in

    def __init__(self, image_shape: tuple[int, int, int], levels: int) -> None:
        super().__init__()
        if len(image_shape) != 3 or min(image_shape) < 1:
            raise ValueError(f"image_shape must be (channels, height, width), got {image_shape}")
        if not 2 <= levels <= 256:
            raise ValueError(f"levels must be from 2 to 256, got {levels}")
        self.image_shape = tuple(image_shape)
        self.levels = levels

    # -- training

    def optimizers(self, lr: float) -> dict[str, optim.Optimizer]:
        """The optimizers by name. `lr` is what the command line says; their rates then follow `schedule`."""
        return {"adam": optim.Adam(self.parameters(), lr)}

    def loss(self, batch: Batch, rng: np.random.Generator) -> dict[str, Tensor]:
        """The parts of the loss, 0-d, in nats an image, means over the batch. Their sum is made small."""
        raise NotImplementedError(f"{type(self).__name__} doesn't define loss()")

    def training_step(self, training: Trainer) -> dict[str, float]:
        """One step: the numbers that metrics.csv and the report show of it, by name, the same names in every step.

        `training.batch()` gives the next images, `training.minimize(closure, optimizer)` takes a step of an optimizer,
        `training.rng` is what every random number comes from. This one: one batch, one step of the loss.
        """
        batch = training.batch()
        return training.minimize(lambda: self.loss(batch, training.rng))

    def progress(self, parts: dict[str, float]) -> str:
        """What is shown while it trains, of a step's numbers averaged over the last steps."""
        return f"{sum(parts.values()):.2f} nats"

    def health(self, parts: dict[str, float]) -> list[str]:
        """What is wrong with the training, in words ("WHAT: why, and what to try"), of the numbers as for `progress`.

        Asked every now and then; what wasn't wrong before is said, logged and stands in the report.
        """
        return []

    def floors(self, train: Dataset, test: Dataset) -> dict[str, float]:
        """What trivial models reach on the test set, by name, in the unit of `progress` and `evaluate`."""
        return {}

    # -- how good it is

    def validation(self, batch: Batch, rng: np.random.Generator) -> float:
        """How good it is on images that it isn't trained on, lower is better: the `best` checkpoint has the least.

        Called in evaluation mode with all held-out images at once. A model that doesn't define it trains on all images.
        """
        raise NotImplementedError(f"{type(self).__name__} doesn't define validation()")

    def evaluate(self, train: Dataset, test: Dataset, rng: np.random.Generator) -> list[Metric]:
        """The test figures, after training and by `tinygen evaluate`. Called in evaluation mode."""
        return []

    def sample(
        self, n: int, rng: np.random.Generator, temperature: float = 1.0, labels: np.ndarray | None = None
    ) -> np.ndarray:
        """n images drawn from the model, (n, C, H, W) uint8. labels: (n,), for models of classes."""
        raise ValueError(f"{type(self).__name__} cannot be sampled from")

    def refuse_labels(self, labels: np.ndarray | None) -> None:
        """ValueError unless labels is None, for a model that knows no classes."""
        if labels is not None:
            raise ValueError(
                f"{type(self).__name__} knows no classes: labels must be None, got {np.size(labels)} of them"
            )

    def snapshot(self, batch: Batch, rng: np.random.Generator) -> Plot:
        """What is drawn while it trains: as many samples as the batch has images; or what it makes of those."""
        return Plot(self.sample(len(batch.images), rng))

    @classmethod
    def pictures(cls) -> dict[str, Callable[..., Plot]]:
        """Further pictures by name, each a command of its own: functions of (model, train, test, rng).

        The first line of a function's docstring is the command's help.
        """
        return {}

    def tell(self, done: float, text: str) -> None:
        """Called by what can take long: how much is done, of 1, and of what. Whoever shows it replaces this."""

    # -- images

    @property
    def dimensions(self) -> int:
        """The number of values in an image."""
        return math.prod(self.image_shape)

    def bits_per_dim(self, nats: float) -> float:
        """Nats per image as bits per dimension."""
        return nats / (self.dimensions * math.log(2))

    def scaled(self, images: np.ndarray) -> Tensor:
        """A network's input: integers 0 .. levels - 1 of shape (N, C, H, W) become numbers from -1 to 1.

        Raises ValueError for images of another shape, or with other values.
        """
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[1:] != self.image_shape:
            raise ValueError(f"images must be (N, {', '.join(map(str, self.image_shape))}), got {images.shape}")
        if images.dtype.kind not in "iu" or (images.size and (images.min() < 0 or images.max() >= self.levels)):
            found = f"{images.dtype} from {images.min()} to {images.max()}" if images.size else str(images.dtype)
            raise ValueError(f"images must be integers from 0 to {self.levels - 1}, got {found}")
        return self.scale(images)

    def scale(self, images: np.ndarray) -> Tensor:
        """`scaled` for integers that are known to be fine; also for parts of images."""
        pixels = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)  # NHWC in memory
        return self.tensor(pixels * (2 / (self.levels - 1)) - 1)

    def tensor(self, values: np.ndarray) -> Tensor:
        """Numbers as its networks take them: of the parameters' dtype, on their device."""
        return next(self.parameters()).new_tensor(values)
