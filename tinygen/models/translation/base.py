"""Translation: images of one domain made into those of another, by generators that are given the input.

Lecture slides 135 and 136.

    sum of weight * loss, of G: x -> y, F: y -> x, D tells real y from G(x)
    adversarial   D takes G(x) for real                 l1         |G(x) - y|, of pairs
    cycle         |F(G(x)) - x|                         identity   |G(y) - y|
    features      D's hidden layers have the same means for y and for G(x)

A model is a dict of these weights: pix2pix is {adversarial, l1}, CycleGAN {adversarial, cycle, identity} in both
directions at once, DiscoGAN {adversarial, cycle, features}. What makes pairs of images is a task of
`tinygen.data.tasks`; domains without pairs are two independent draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, NamedTuple

import numpy as np

from tinygen import Tensor, cat, nn, no_grad, ops, optim, parallel
from tinygen.data import tasks
from tinygen.models.family import Batch
from tinygen.models.gan.diagnostics import gradient_norm, spread
from tinygen.models.gan.objectives import NonSaturating, Objective
from tinygen.models.gan.pair import first_then
from tinygen.models.model import Model, Step
from tinygen.models.translation.family import TranslationFamily, errors
from tinygen.models.translation.networks import ImagePool
from tinygen.nn import functional as F

ROWS = 500  # images that are translated at once


class Direction(nn.Module):
    """From one domain to the other: G makes an image of the other domain of x, and D judges it.

    Args:
        generator: G, images from -1 to 1 -> images from -1 to 1.
        discriminator: D, a `PatchDiscriminator` or its like.
        conditional: whether D is shown x beside what it judges.
        pool: what D is shown in place of G's latest images; None: those.
    """

    def __init__(
        self, generator: nn.Module, discriminator: nn.Module, conditional: bool = False, pool: ImagePool | None = None
    ) -> None:
        self.generator, self.discriminator, self.conditional, self.pool = generator, discriminator, conditional, pool

    def judge(self, x: Tensor, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """D's values of the patches of an image that is said to be made of x, and its hidden layers' outputs."""
        return self.discriminator(cat(x, image, dim=1) if self.conditional else image)


class Side(NamedTuple):
    """A step's images as one direction has them: inputs x, real images y of the other domain, and `made`, G(x)."""

    there: Direction
    back: Direction | None
    x: Tensor
    y: Tensor
    made: Tensor


def adversarial(model: Translation, side: Side) -> Tensor:
    """How far D is from taking G(x) for real."""
    return model.objective.g_loss(side.there.judge(side.x, side.made)[0])


def l1(model: Translation, side: Side) -> Tensor:
    """|G(x) - y|."""
    return F.l1_loss(side.made, side.y)


def cycle(model: Translation, side: Side) -> Tensor:
    """|F(G(x)) - x|."""
    assert side.back is not None
    return model.apart(side.back.generator(side.made), side.x)


def identity(model: Translation, side: Side) -> Tensor:
    """|G(y) - y|: an image of the other domain stays as it is."""
    return F.l1_loss(side.there.generator(side.y), side.y)


def features(model: Translation, side: Side) -> Tensor:
    """The squared difference of the means over the batch of D's hidden layers, summed over them."""
    real, made = (side.there.judge(side.x, image)[1] for image in (side.y, side.made))
    return sum(((ops.batch_mean(a) - ops.batch_mean(b)) ** 2).mean() for a, b in zip(real, made, strict=True))  # type: ignore[return-value]


LOSSES: dict[str, Callable[[Translation, Side], Tensor]] = {
    "adversarial": adversarial, "l1": l1, "cycle": cycle, "identity": identity, "features": features,
}  # fmt: skip


class Translation(Model):
    """What translations share: the draw of two domains, and a step of D and of G on a dict of weighted losses.

    Attributes:
        objective: what D and G minimize of D's values.
        paired: whether x and y are made of the same images.
        weights: of the losses by name (`LOSSES`); what isn't there or is 0 isn't computed.
        shapes: of the inputs' and of the targets' images, (C, H, W) each.
    """

    family = TranslationFamily()
    lr: ClassVar[float] = 1e-3
    batch_size: ClassVar[int] = 32
    objective: ClassVar[Objective] = NonSaturating()
    paired: ClassVar[bool] = False
    weights: dict[str, float]

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, task: tasks.Name, weights: Mapping[str, float]
    ) -> None:
        super().__init__(image_shape, levels)
        for name, weight in weights.items():
            if not weight >= 0:
                raise ValueError(f"{name} must be a weight of 0 or more, got {weight}")
        if not any(weights.values()):
            raise ValueError(f"one of the weights {', '.join(weights)} must be above 0")
        self.task, self.weights = task, {name: weight for name, weight in weights.items() if weight}
        self.shapes = tasks.shapes(task, image_shape)
        if "identity" in self.weights and self.shapes[0] != self.shapes[1]:
            one, other = (shape[0] for shape in self.shapes)
            raise ValueError(
                f"identity must be 0 for the task {task}, from {one} to {other} channels: there is no G(y)"
            )

    def directions(self) -> Sequence[Direction]:
        """The direction from inputs to targets, and the one back if there is one."""
        raise NotImplementedError(f"{type(self).__name__} doesn't define directions()")

    # -- training

    def optimizers(self, lr: float) -> dict[str, optim.Optimizer]:
        """Adam for all discriminators together, and for all generators."""
        players = {
            name: nn.ModuleList(getattr(way, name) for way in self.directions())
            for name in ("discriminator", "generator")
        }
        return {name: optim.Adam(player.parameters(), lr, self.objective.betas) for name, player in players.items()}

    def apart(self, x: Tensor, other: Tensor) -> Tensor:
        """The cycle's distance between images, 0-d: L1, the mean over all values."""
        return F.l1_loss(x, other)

    def pair(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """A batch of inputs, with their targets."""
        inputs, target = tasks.named(self.task)(batch.images, batch.labels, self.levels, rng)
        return Batch(inputs, batch.labels, target)

    def sides(self, x: Tensor, y: Tensor, rng: np.random.Generator) -> list[Side]:
        """Both domains' images as each direction has them."""
        there, *rest = self.directions()
        back = rest[0] if rest else None
        found = [Side(there, back, x, y, self.made(there, x, rng))]
        return found if back is None else [*found, Side(back, there, y, x, self.made(back, y, rng))]

    def made(self, way: Direction, x: Tensor, rng: np.random.Generator) -> Tensor:
        """G(x). rng: of its noise, where it has some."""
        return way.generator(x)

    def training_step(self, step: Step) -> dict[str, float]:
        """A step of D, if it is looked at, then one of G: their numbers, and what `_shown` adds."""
        batch = self.pair(step.batch(), step.rng)
        target = batch.target if self.paired else self.pair(step.batch(), step.rng).target
        x, y = self.scale(batch.images), self.scale(np.asarray(target))
        first, parts, values = self.sides(x, y, step.rng), dict[str, float](), list[tuple[Tensor, Tensor]]()
        if {"adversarial", "features"} & self.weights.keys():
            shown = [s.made.detach() if (p := s.there.pool) is None else p.exchange(s.made, step.rng) for s in first]
            parts |= step.minimize(lambda: self.discriminator_loss(first, shown, values), "discriminator")
        sides = first_then(first, lambda: self.sides(x, y, step.rng))
        parts |= step.minimize(lambda: self.generator_loss(sides()), "generator")
        return parts | self._shown(parts, first[0], self.scale(np.asarray(batch.target)), values)

    def discriminator_loss(
        self, sides: Sequence[Side], shown: Sequence[Tensor], values: list[tuple[Tensor, Tensor]]
    ) -> dict[str, Tensor]:
        """D's loss, the mean over the directions, of the made images `shown`; D's values are added to `values`."""
        values[:] = [
            (s.there.judge(s.x, s.y)[0], s.there.judge(s.x, made)[0]) for s, made in zip(sides, shown, strict=True)
        ]
        losses = [self.objective.d_loss(real, fake) for real, fake in values]
        return {"d_loss": sum(losses[1:], losses[0]) / len(losses)}

    def losses(self, side: Side) -> dict[str, Tensor]:
        """The parts of G's loss of one direction, 0-d, each times its weight."""
        return {name: weight * LOSSES[name](self, side) for name, weight in self.weights.items()}

    def generator_loss(self, sides: Sequence[Side]) -> dict[str, Tensor]:
        """The parts of G's loss, summed over the directions."""
        first, *others = [self.losses(side) for side in sides]
        return {name: sum((other[name] for other in others), part) for name, part in first.items()}

    def _shown(
        self, parts: Mapping[str, float], side: Side, known: Tensor, values: Sequence[tuple[Tensor, Tensor]]
    ) -> dict[str, float]:
        """The numbers of a step that are shown besides its losses, `parts`.

        spread: how much the outputs differ, over how much the targets do. error: the distance, of 2, of the outputs
        from the known targets of their inputs, `known`, also where nothing is trained on it; strangers: the same from
        targets of other inputs. returned: the cycle's distance over that of inputs from other inputs. D's values, and
        the norms of the gradients.
        """
        shown = {"spread": spread(side.made, side.y), **errors(side.made.numpy(), known.numpy())}
        if "cycle" in parts:
            apart = self.apart(side.x.new_tensor(np.roll(side.x.numpy(), 1, axis=0)), side.x).item()
            shown["returned"] = parts["cycle"] / self.weights["cycle"] / len(self.directions()) / max(apart, 1e-12)
        networks = {"g_grad": [way.generator for way in self.directions()]}
        if values:
            of = [self.objective.shown(real, fake) for real, fake in values]
            shown |= {name: sum(one[name] for one in of) / len(of) for name in of[0]}
            networks["d_grad"] = [way.discriminator for way in self.directions()]
        return shown | {name: gradient_norm(nn.ModuleList(found)) for name, found in networks.items()}

    # -- images

    def translate(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """What the model takes for the targets of inputs (N, C, H, W), 0 .. levels - 1: (N, C', H, W) uint8."""
        return self._translated(self.directions()[0], self.check_images(images, self.shapes[0]), rng)

    def translate_back(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Inputs made of targets. Raises ValueError for a model of one direction."""
        if len(self.directions()) < 2:
            raise ValueError(f"{type(self).__name__} translates in one direction only")
        return self._translated(self.directions()[1], self.check_images(images, self.shapes[1]), rng)

    def _translated(self, way: Direction, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        with no_grad():
            made = lambda some, rng: self.made(way, self.scale(images[some]), rng).numpy()  # noqa: E731
            return self.levels.round(parallel.in_shares(made, len(images), ROWS, rng))
