"""Two players, and the algorithm by which each learns from the other (lecture slides 105 to 123).

Source: Goodfellow et al., Generative Adversarial Nets (2014), algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import numpy as np

from tinygen import Tensor, cat, nn, no_grad, optim
from tinygen.models.condition import Condition
from tinygen.models.gan.diagnostics import gradient_norm, spread
from tinygen.models.gan.objectives import Objective, gradient_norms, mean
from tinygen.models.model import Step


class AdversarialPair(nn.Module):
    """A generator G makes images from noise, and a discriminator D tells them from real ones.

    Args:
        generator: G, from noise (N, *noise) to images; with classes, from noise and `Condition.planes` side by side.
        discriminator: D, from images, with such planes behind their channels, to what `objective.value` reads.
        objective: what the players minimize.
        noise: the shape of an image's noise z.
        steps: k, the discriminator's steps for each of the generator; 0: as many as the objective's paper takes.
        condition: the classes that both players are told.
    """

    def __init__(
        self, generator: nn.Module, discriminator: nn.Module, objective: Objective, noise: tuple[int, ...],
        steps: int = 0, condition: Condition | None = None,
    ) -> None:  # fmt: skip
        self.generator, self.discriminator, self.objective = generator, discriminator, objective
        self.noise, self.steps, self.condition = noise, steps or objective.steps, condition or Condition()

    @property
    def players(self) -> dict[str, nn.Module]:
        """The networks that learn, by the names of their optimizers."""
        return {"discriminator": self.discriminator, "generator": self.generator}

    def optimizers(self, lr: float) -> dict[str, optim.Optimizer]:
        """Adam for each player, by its name."""
        betas = self.objective.betas
        return {name: optim.Adam(player.parameters(), lr, betas) for name, player in self.players.items()}

    def codes(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n codes z from p(z) = N(0, I), (n, latent), where latent is how many numbers an image's noise has."""
        return rng.standard_normal((n, math.prod(self.noise)))

    def generate(self, z: np.ndarray, labels: np.ndarray | None = None) -> Tensor:
        """G(z): the images of codes (N, latent), of classes `labels` if there are any."""
        noise = next(self.parameters()).new_tensor(z.reshape(len(z), *self.noise))
        return self.generator(self._with_classes(noise, labels))

    def discriminate(self, x: Tensor, labels: np.ndarray | None = None) -> Tensor:
        """D(x): a number for each image, (N,)."""
        return self.objective.value(self.discriminator(self._with_classes(x, labels)), x)

    def _with_classes(self, x: Tensor, labels: np.ndarray | None) -> Tensor:
        """x (N, C, ...), with the planes of its classes behind its channels if there are any."""
        labels = self.condition.check(labels, len(x), "a GAN")
        return x if labels is None else cat(x, x.new_tensor(self.condition.planes(labels, *x.shape[2:])), dim=1)

    # -- training

    def training_step(self, step: Step, scale: Callable[[np.ndarray], Tensor]) -> dict[str, float]:
        """Algorithm 1, once through its outer loop: the numbers of D's last step and of G's.

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
            values: dict[str, Tensor] = {}
            d_loss = partial(self.discriminator_loss, x, fake.detach(), labels, mix, values)
            parts = step.minimize(d_loss, "discriminator")  # ascend the gradient of log D(x) + log(1 - D(G(z)))
            self.objective.after_step(self.discriminator, mean(values["real"]), mean(values["fake"]))
        made = first_then(fake, lambda: self.generate(z, labels))
        parts |= step.minimize(lambda: self.generator_loss(made(), labels), "generator")  # descend log(1 - D(G(z)))
        return parts | self._shown(values) | {"spread": spread(fake, x)}

    def discriminator_loss(
        self, x: Tensor, fake: Tensor, labels: np.ndarray | None, mix: np.ndarray, values: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """The parts of D's loss; D's values, and its gradient's norms where there is a penalty, go into `values`.

        Batch norm sees real and generated images in batches of their own: mixed, it would hide them from each other.
        """
        values["real"], values["fake"] = self.discriminate(x, labels), self.discriminate(fake, labels)
        parts = {"d_loss": self.objective.d_loss(values["real"], values["fake"])}
        if self.objective.weight:
            norms = gradient_norms(lambda x: self.discriminate(x, labels), x, fake, mix)
            values["gradient_norm"], parts["penalty"] = norms, self.objective.penalty(norms)
        return parts

    def generator_loss(self, fake: Tensor, labels: np.ndarray | None) -> dict[str, Tensor]:
        """G's loss, of the images G(z)."""
        return {"g_loss": self.objective.g_loss(self.discriminate(fake, labels))}

    def _shown(self, values: dict[str, Tensor]) -> dict[str, float]:
        """The numbers of a step that are shown besides its losses: D's values, and the norms of gradients."""
        shown = self.objective.shown(values["real"], values["fake"])
        if "gradient_norm" in values:
            shown["gradient_norm"] = mean(values["gradient_norm"])
        return shown | {"d_grad": gradient_norm(self.discriminator), "g_grad": gradient_norm(self.generator)}


def first_then(first: Tensor, again: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """`first` when it is called for the first time, again() from then on.

    A backward pass uses up the graph of `first`; what comes after one, the search for a NaN's origin, needs a new one.
    """
    waiting = [first]
    return lambda: waiting.pop() if waiting else again()
