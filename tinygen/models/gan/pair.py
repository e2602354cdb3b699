"""The players of a game, and the algorithm by which they learn from each other (lecture slides 105 to 123).

Source: Goodfellow et al., Generative Adversarial Nets (2014), algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import TypeVar

import numpy as np

from tinygen import Tensor, cat, nn, no_grad, optim
from tinygen.models.condition import Condition
from tinygen.models.gan.diagnostics import gradient_norm, spread
from tinygen.models.gan.objectives import Objective, Verdict, gradient_norms, mean
from tinygen.models.model import Step

Losses = Callable[[], dict[str, Tensor]]  # the parts of a player's loss, by name
T = TypeVar("T")


class AdversarialPair(nn.Module):
    """A generator G makes images from noise, and a discriminator D tells them from real ones.

    Args:
        players: the networks that learn, by name, each with an optimizer of its own. "generator": G, from noise
            (N, *noise) to images; with classes, from noise and `Condition.planes` side by side. "discriminator": D,
            from images, with such planes behind their channels, to what `objective.value` reads; or to that and a head,
            (N, K), for objectives that see more of D than a number. A game with more players says in `turns` what those
            minimize.
        objective: what the players minimize.
        noise: the shape of an image's noise z.
        steps: k, the discriminator's steps for each of the generator; 0: as many as the objective's paper takes.
        condition: the classes that G is told, and D, unless the objective keeps them from it.
    """

    generator: nn.Module
    discriminator: nn.Module

    def __init__(
        self, players: Mapping[str, nn.Module], objective: Objective, noise: tuple[int, ...], steps: int = 0,
        condition: Condition | None = None,
    ) -> None:  # fmt: skip
        self.names = tuple(players)
        for name, player in players.items():
            setattr(self, name, player)
        self.objective, self.noise = objective, noise
        self.steps, self.condition = steps or objective.steps, condition or Condition()

    @property
    def players(self) -> dict[str, nn.Module]:
        """The networks that learn, by the names of their optimizers."""
        return {name: getattr(self, name) for name in self.names}

    def optimizers(self, lr: float) -> dict[str, optim.Optimizer]:
        """Adam for each player, by its name."""
        betas = self.objective.betas
        return {name: optim.Adam(player.parameters(), lr, betas) for name, player in self.players.items()}

    def codes(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n codes z from p(z), (n, latent), where latent is how many numbers an image's noise has.

        p(z) is N(0, I); where the objective has categories, the last so many numbers are 1 for one of them, else 0.
        """
        z, k = rng.standard_normal((n, math.prod(self.noise))), self.objective.categories
        if k:
            z[:, -k:] = np.eye(k)[rng.integers(0, k, n)]
        return z

    def generate(self, z: np.ndarray, labels: np.ndarray | None = None) -> Tensor:
        """G(z): the images of codes (N, latent), of classes `labels` if there are any."""
        noise = next(self.parameters()).new_tensor(z.reshape(len(z), *self.noise))
        return self.generator(self.with_classes(noise, labels))

    def judge(self, x: Tensor, labels: np.ndarray | None = None, z: np.ndarray | None = None) -> Verdict:
        """What D says of images x: D(x), a number for each, (N,), and its head. z: the codes they were made from."""
        output = self.discriminator(self.with_classes(x, labels) if self.objective.told else x)
        output, head = output if isinstance(output, tuple) else (output, None)
        return Verdict(self.objective.value(output, x), head, labels, z)

    def discriminate(self, x: Tensor, labels: np.ndarray | None = None) -> Tensor:
        """D(x): a number for each image, (N,)."""
        return self.judge(x, labels).value

    def with_classes(self, x: Tensor, labels: np.ndarray | None) -> Tensor:
        """x (N, C, ...), with the planes of its classes behind its channels if there are any."""
        labels = self.condition.check(labels, len(x), "a GAN")
        return x if labels is None else cat(x, x.new_tensor(self.condition.planes(labels, *x.shape[2:])), dim=1)

    # -- training

    def training_step(self, step: Step, scale: Callable[[np.ndarray], Tensor]) -> dict[str, float]:
        """Algorithm 1, once through its outer loop: the numbers of D's last step and of the other players'.

        G's step takes the noise of D's last one, where the box draws some anew: so one pass of G serves both.

        Args:
            scale: makes what the players see of a batch's images.
        """
        for i in range(self.steps):  # "for k steps do"
            batch = step.batch()
            x, labels = scale(batch.images), self.condition.used(batch.labels)  # m examples x from the data
            z = self.codes(len(x), step.rng)  # m noise samples z from p(z)
            mix = step.rng.random(len(x))  # and epsilon, in the box of WGAN-GP
            with nullcontext() if i == self.steps - 1 else no_grad():  # no_grad: G doesn't learn from these
                fake = self.generate(z, labels)
            said: dict[str, Verdict] = {}
            d_loss = partial(self.discriminator_loss, x, fake.detach(), labels, z, mix, said)
            parts = step.minimize(d_loss, "discriminator")  # ascend the gradient of log D(x) + log(1 - D(G(z)))
            self.objective.after_step(self.discriminator, mean(said["real"].value), mean(said["fake"].value))
        made = first_then(fake, lambda: self.generate(z, labels))
        for name, loss in self.turns(x, made, labels, z).items():
            parts |= step.minimize(loss, name)  # the generator: descend the gradient of log(1 - D(G(z)))
        return parts | self.shown(said) | {"spread": spread(fake, x)}

    def discriminator_loss(
        self, x: Tensor, fake: Tensor, labels: np.ndarray | None, z: np.ndarray, mix: np.ndarray,
        said: dict[str, Verdict],
    ) -> dict[str, Tensor]:  # fmt: skip
        """The parts of D's loss; what D says, and its gradient's norms where there is a penalty, go into `said`.

        Batch norm sees real and generated images in batches of their own: mixed, it would hide them from each other.
        """
        said["real"], said["fake"] = self.judge(x, labels), self.judge(fake, labels, z)
        parts = self.objective.d_parts(said["real"], said["fake"])
        if self.objective.weight:
            norms = gradient_norms(lambda x: self.discriminate(x, labels), x, fake, mix)
            said["gradient_norm"], parts["penalty"] = Verdict(norms), self.objective.penalty(norms)
        return parts

    def turns(
        self, x: Tensor, made: Callable[[], Tensor], labels: np.ndarray | None, z: np.ndarray
    ) -> dict[str, Losses]:
        """What the players other than D minimize, by name, in the order of their steps.

        Args:
            x: real images. made: gives G(z).
        """

        def generator() -> dict[str, Tensor]:
            return self.objective.g_parts(self.judge(made(), labels, z), lambda: self.judge(x, labels))

        return {"generator": generator}

    def shown(self, said: dict[str, Verdict]) -> dict[str, float]:
        """The numbers of a step that are shown besides its losses: D's values, and the norms of gradients."""
        shown = self.objective.shown(said["real"].value, said["fake"].value)
        if "gradient_norm" in said:
            shown["gradient_norm"] = mean(said["gradient_norm"].value)
        return shown | {f"{name[0]}_grad": gradient_norm(player) for name, player in self.players.items()}


def first_then(first: T, again: Callable[[], T]) -> Callable[[], T]:
    """`first` when it is called for the first time, again() from then on.

    A backward pass uses up the graph of `first`; what comes after one, the search for a NaN's origin, needs a new one.
    """
    waiting = [first]
    return lambda: waiting.pop() if waiting else again()
