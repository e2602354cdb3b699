"""A model of images: what the training loop and the command line need of it, whatever its family.

A model defines `sample` and `loss`; or `optimizers` and `training_step`, where one loss isn't enough. Its family says
how it is measured and shown (`tinygen.models.family`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np

from tinygen import Tensor, nn, optim
from tinygen.data import Dataset, Levels
from tinygen.models.condition import Condition
from tinygen.models.family import Batch, Family

Evidence = Literal["exact", "bound", "estimate", "estimated bound", "none"]
Passes = Literal["one", "one for each value", "a chain", "many steps"]
SIGNS: dict[Evidence, str] = {"exact": "", "bound": "<= ", "estimate": "~ ", "estimated bound": "~<= "}  # before -log p


class Step(Protocol):
    """One step of training, as a model sees it. `tinygen.training.Trainer` is the one that trains.

    Attributes:
        step: how many steps were done before.
        progress: how much of the training is over, from 0 to 1.
        dataset: what is trained on.
        rng: every random number of the step comes from it.
    """

    step: int
    progress: float
    dataset: Dataset
    rng: np.random.Generator

    def batch(self) -> Batch:
        """The next images."""

    def minimize(self, closure: Callable[[], dict[str, Tensor]], optimizer: str = "adam") -> dict[str, float]:
        """One step of an optimizer on the sum of the 0-d parts that closure() gives: the parts, as numbers.

        Raises FloatingPointError, before anything has changed, if a part or a gradient isn't finite.
        """


class Model(nn.Module):
    """A model of images of shape (C, H, W) with values 0 .. levels - 1.

    A class is built from `(image_shape, levels, *, its own options with defaults, rng)`; the options become flags of
    the command line, explained by the docstring's Args. What changes from step to step and isn't a parameter is a
    buffer, so that checkpoints hold it.

    Attributes:
        lr, batch_size: what training takes unless told otherwise.
        schedule: of the learning rates, over the whole training.
        warmup: over how many steps at the start they rise from zero; 0: they start in full.
        clip: the norm that the gradient of a step is scaled down to where it is larger; None: it isn't looked at.
        condition: the classes of images that the model is told; none unless a model sets it.
        evidence: what it says of log p(x): exactly that; a bound; an estimate, as log Z of an energy is, which errs to
            the good side; or nothing. `Family.likelihood` measures it.
        passes: of the network, one after the other, that a sample takes.
        unshared: why several ranks can't train it; empty if they can.
        drawing: names of attributes that say how it draws, which may be changed when it is trained (`draw_with`).

    Raises ValueError for an image_shape that isn't three sizes of at least 1, and for levels outside 2 to 256.
    """

    lr: ClassVar[float] = 2e-3
    batch_size: ClassVar[int] = 16
    schedule: ClassVar[Literal["cosine", "constant"]] = "cosine"
    warmup: ClassVar[int] = 0
    clip: ClassVar[float | None] = None
    unshared: ClassVar[str] = ""
    family: Family = Family()
    condition: Condition = Condition()
    evidence: ClassVar[Evidence] = "none"
    passes: ClassVar[Passes] = "one"
    drawing: ClassVar[tuple[str, ...]] = ()

    def __init__(self, image_shape: tuple[int, int, int], levels: int) -> None:
        super().__init__()
        if len(image_shape) != 3 or min(image_shape) < 1:
            raise ValueError(f"image_shape must be (channels, height, width), got {image_shape}")
        self.image_shape = tuple(image_shape)
        self.levels = Levels(levels)

    def optimizers(self, lr: float) -> dict[str, optim.Optimizer]:
        """The optimizers by name. `lr` is what the command line says; their rates then follow `schedule`."""
        return {"adam": optim.Adam(self.parameters(), lr)}

    def loss(self, batch: Batch, rng: np.random.Generator) -> dict[str, Tensor]:
        """The parts of the loss, 0-d, in nats an image, means over the batch. Training minimizes their sum."""
        raise NotImplementedError(f"{type(self).__name__} doesn't define loss()")

    def training_step(self, step: Step) -> dict[str, float]:
        """One step: the numbers that metrics.csv and the report show of it, by name, the same names in every step.

        This one: one batch, one step of the loss.
        """
        batch = step.batch()
        return step.minimize(lambda: self.loss(batch, step.rng))

    @property
    def told_classes(self) -> bool:
        """Whether it is trained with classes of images, of which its features may then know."""
        return bool(self.condition)

    def draw_with(self, **settings: Any) -> None:
        """Draw images in another way from now on: set attributes named in `drawing`. ValueError for others."""
        for name, value in settings.items():
            if name not in self.drawing:
                known = f"it takes {', '.join(self.drawing)}" if self.drawing else "it takes no such setting"
                raise ValueError(f"{type(self).__name__} draws without {name}; {known}")
            setattr(self, name, value)

    if not TYPE_CHECKING:  # or any name would do

        def __getattr__(self, name: str) -> Any:
            """What isn't there: AttributeError. Asked what it can't answer, a model says what it can (`QUESTIONS`)."""
            raise AttributeError(refusal(type(self), name), name=name, obj=self)

    # -- images

    @property
    def dimensions(self) -> int:
        """The number of values in an image."""
        return math.prod(self.image_shape)

    def bits_per_dim(self, nats: float) -> float:
        """Nats per image as bits per dimension."""
        return nats / (self.dimensions * math.log(2))

    def check_images(self, images: np.ndarray, shape: tuple[int, int, int] | None = None) -> np.ndarray:
        """The images; ValueError unless they are integers 0 .. levels - 1 of a shape (N, C, H, W), its own if None."""
        images, expected = np.asarray(images), shape or self.image_shape
        if images.ndim != 4 or images.shape[1:] != expected:
            raise ValueError(f"images must be (N, {', '.join(map(str, expected))}), got {images.shape}")
        if images.dtype.kind not in "iu" or (images.size and (images.min() < 0 or images.max() >= self.levels)):
            found = f"{images.dtype} from {images.min()} to {images.max()}" if images.size else str(images.dtype)
            raise ValueError(f"images must be integers from 0 to {self.levels - 1}, got {found}")
        return images

    def scale(self, images: np.ndarray) -> Tensor:
        """A network's input: integers 0 .. levels - 1, (N, C, H, W), as numbers from -1 to 1, NHWC in memory."""
        pixels = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        return self.tensor(self.levels.scale(pixels))

    def network_input(self, images: np.ndarray) -> Tensor:
        """`scale` of images that are checked before, as `check_images` does."""
        return self.scale(self.check_images(images))

    def tensor(self, values: np.ndarray) -> Tensor:
        """Numbers as its networks take them: of the parameters' dtype, on their device. ValueError if it has none."""
        if (like := next(self.parameters(), None)) is None:
            raise ValueError(f"{type(self).__name__} has no parameters: give self layers, or nn.Parameter(...)")
        return like.new_tensor(values)


# --------------------------------------------------- what only some models can do: commands and metrics ask for these


@runtime_checkable
class Samples(Protocol):
    """A model that images can be drawn from."""

    def sample(
        self, n: int, rng: np.random.Generator, temperature: float = 1.0, labels: np.ndarray | None = None
    ) -> np.ndarray:
        """n images drawn from the model, (n, C, H, W) uint8. labels: (n,), for a model that is told the class."""


@runtime_checkable
class HasLogProb(Protocol):
    """A model with a likelihood that can be computed."""

    def log_prob(self, images: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        """log p(x) of images (N, C, H, W), in nats, (N,) float64."""


@runtime_checkable
class Completes(Protocol):
    """A model that draws the rest of an image of which a part is known."""

    def complete(
        self, images: np.ndarray, known: int, rng: np.random.Generator, temperature: float = 1.0,
        labels: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        """The images with their first `known` rows kept and the rest drawn, (N, C, H, W) uint8."""


@runtime_checkable
class Causal(Protocol):
    """A model that gives each value given those before it: the chain rule."""

    def logits(self, x: Tensor, labels: np.ndarray | None = None) -> Tensor:
        """Logits (N, levels, C, H, W) of scaled images (N, C, H, W)."""

    def order(self) -> np.ndarray:
        """Where the values stand in an image (H, W, C), in the order in which they are drawn: (dimensions,)."""


@runtime_checkable
class Decodes(Protocol):
    """A model whose images come from codes."""

    def codes(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n codes drawn from the prior, (n, latent)."""

    def decode(self, z: np.ndarray) -> np.ndarray:
        """The expected images of codes (N, latent): (N, C, H, W) floats, 0 .. levels - 1."""


@runtime_checkable
class Encodes(Decodes, Protocol):
    """A model that has a code for every image, too."""

    def encode(self, images: np.ndarray) -> np.ndarray:
        """The code of each image (N, C, H, W): (N, latent)."""


@runtime_checkable
class Translates(Protocol):
    """A model from images to images of another domain."""

    def translate(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Images of the other domain, (N, C, H, W) uint8."""


@runtime_checkable
class HasFeatures(Protocol):
    """A model with features of images, that other tasks can go on from: see `tinygen.models.probing`."""

    def features(self, x: Tensor) -> Tensor:
        """The features of scaled images (N, C, H, W), (N, F)."""


# ------------------------------------------------------------------------------------------- what models may be asked

QUESTIONS: dict[str, tuple[str, Any]] = {  # by the method that answers: in words, and the protocol that has it
    "log_prob": ("p(x)", HasLogProb),
    "encode": ("p(z given x)", Encodes),
    "complete": ("x given a part of x", Completes),
    "decode": ("images between images", Decodes),
    "sample": ("samples", Samples),
    "translate": ("images of another domain", Translates),
    "features": ("features", HasFeatures),
}
OFFERED: dict[Evidence, str] = {
    "exact": "p(x)", "bound": "a bound of p(x)", "estimate": "an estimate of p(x)",
    "estimated bound": "an estimated bound of p(x)",
}  # fmt: skip


def offers(model: Any) -> list[str]:
    """What models of a class answer, in words."""
    known = OFFERED.get(model.evidence)
    others = [
        words for words, protocol in QUESTIONS.values() if protocol is not HasLogProb and issubclass(model, protocol)
    ]
    return [known, *others] if known else others


def refusal(model: type, name: str) -> str:
    """Why a model of a class has no such attribute: one sentence."""
    if name not in QUESTIONS:
        return f"{model.__name__!r} object has no attribute {name!r}"
    return f"{model.__name__} can't give {QUESTIONS[name][0]}: it has no {name}(); it offers {', '.join(offers(model))}"
