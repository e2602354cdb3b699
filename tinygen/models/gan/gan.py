"""GAN: a generator against a discriminator, both multilayer perceptrons (lecture slides 105 to 123).

Source: Goodfellow et al., Generative Adversarial Nets (2014). Its algorithm 1 is `AdversarialPair.training_step`.
"""

from __future__ import annotations

import math

import numpy as np

from tinygen import nn
from tinygen.models.gan import objectives
from tinygen.models.gan.base import AdversarialModel
from tinygen.models.gan.players import perceptron
from tinygen.models.networks.encoders import ToImage


class GAN(AdversarialModel):
    """GAN: two multilayer perceptrons that learn from each other, by one of many objectives.

    Source: Goodfellow et al. (2014); the objectives' papers are named in `tinygen.models.gan.objectives`.

    Args:
        image_shape, levels: see `Model`. Images are real numbers from -1 to 1 to the players, rounded when sampled.
        objective: what the two players minimize.
        latent: how many normal random numbers an image is made from.
        width: units of G's first and D's second hidden layer; the other two have twice as many.
        critic_steps: steps of the discriminator for each of the generator; 0: as in the objective's paper.
        classes: how many classes both players are told (Mirza & Osindero 2014); 0: none.
        rng: draws the initial weights.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, objective: objectives.Name = "non-saturating",
        latent: int = 64, width: int = 256, critic_steps: int = 0, classes: int = 0, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        super().__init__(
            image_shape, levels, objective=objective, latent=latent, width=width, critic_steps=critic_steps,
            classes=classes, rng=rng,
        )  # fmt: skip

    def new_generator(self, inputs: int, width: int, batch_norm: bool, rng: np.random.Generator) -> nn.Module:
        """A network from noise (N, inputs, 1, 1) to images from -1 to 1. batch_norm: whether it may have some."""
        hidden = perceptron((inputs, width, 2 * width, self.dimensions), nn.ReLU, rng)
        return nn.Sequential(nn.Flatten(), *hidden, nn.Tanh(), ToImage(*self.image_shape))

    def new_discriminator(
        self, inputs: tuple[int, int, int], outputs: int, width: int, batch_norm: bool, rng: np.random.Generator
    ) -> nn.Module:
        """A network from images, with planes for the classes, of shape `inputs` to (N, outputs, 1, 1)."""
        hidden = perceptron((math.prod(inputs), 2 * width, width, outputs), lambda: nn.LeakyReLU(0.2), rng)
        return nn.Sequential(nn.Flatten(), *hidden, ToImage(outputs, 1, 1))
