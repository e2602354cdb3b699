"""The base of GANs: a model whose images come from the generator of a game, and what is asked of it.

They differ in their players' networks, in what those minimize, and in what they are told.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np

from tinygen import Tensor, nn, optim, tensor
from tinygen.metrics.features import has_features
from tinygen.models.condition import Condition
from tinygen.models.gan import objectives
from tinygen.models.gan.diagnostics import LOOK, rare_classes
from tinygen.models.gan.family import GANFamily
from tinygen.models.gan.pair import AdversarialPair
from tinygen.models.gan.players import Autoencoder, Headed
from tinygen.models.model import Model, Step
from tinygen.models.networks.encoders import in_batches

ROWS = 500  # images that are generated at once


class AdversarialModel(Model):
    """Images from a generator that learns in a game. Those that derive from it define the players' networks.

    Its arguments are those of `GAN`.
    """

    family = GANFamily()
    lr: ClassVar[float] = 2e-4
    batch_size: ClassVar[int] = 64
    schedule: ClassVar[Literal["cosine", "constant"]] = "constant"
    game: ClassVar[type[AdversarialPair]] = AdversarialPair
    missing: Tensor  # classes that didn't occur at the last look at the samples, and of how many

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, objective: objectives.Name = "non-saturating",
        latent: int = 64, width: int = 64, critic_steps: int = 0, classes: int = 0, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        super().__init__(image_shape, levels)
        for name, value, least in (("latent", latent, 1), ("width", width, 1), ("critic_steps", critic_steps, 0)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        self.condition = self.new_condition(classes)
        rules = self.new_objective(objective)
        self.latent = latent
        self.pair = self.new_pair(rules, latent + rules.categories, width, critic_steps, rng)
        self.register_buffer("missing", tensor(np.zeros(2, np.int64)))

    def new_condition(self, classes: int) -> Condition:
        """What both players are told."""
        return Condition(classes)

    def new_objective(self, name: str) -> objectives.Objective:
        """What the players minimize, by its name."""
        return objectives.named(name)

    def new_pair(
        self, rules: objectives.Objective, codes: int, width: int, critic_steps: int, rng: np.random.Generator
    ) -> AdversarialPair:
        """The game. codes: how many numbers z has."""
        players = self.new_players(rules, codes, width, rng)
        return self.game(players, rules, (codes, 1, 1), critic_steps, self.condition)

    def new_players(
        self, rules: objectives.Objective, codes: int, width: int, rng: np.random.Generator
    ) -> dict[str, nn.Module]:
        """The networks of the game, by name. codes: how many numbers z has."""
        classes, (channels, height, side) = self.condition.classes, self.image_shape
        inputs, outputs = (channels + classes * rules.told, height, side), rules.code or 1 + rules.heads
        discriminator = self.new_discriminator(inputs, outputs, width, not rules.by_image, rng)
        if rules.code:  # an autoencoder, whose decoder is built like the generator
            discriminator = Autoencoder([discriminator, self.new_generator(rules.code, width, False, rng)])
        elif rules.heads:
            discriminator = Headed(discriminator)
        generator = self.new_generator(codes + classes, width, not rules.bare, rng)
        return {"generator": generator, "discriminator": discriminator}

    def new_generator(self, inputs: int, width: int, batch_norm: bool, rng: np.random.Generator) -> nn.Module:
        """A network from noise (N, inputs, 1, 1) to images from -1 to 1. batch_norm: whether it may have some."""
        raise NotImplementedError

    def new_discriminator(
        self, inputs: tuple[int, int, int], outputs: int, width: int, batch_norm: bool, rng: np.random.Generator
    ) -> nn.Module:
        """A network from images, with planes for the classes, of shape `inputs` to (N, outputs, 1, 1)."""
        raise NotImplementedError

    # -- training

    def optimizers(self, lr: float) -> dict[str, optim.Optimizer]:
        return self.pair.optimizers(lr)

    def training_step(self, step: Step) -> dict[str, float]:
        parts = self.pair.training_step(step, self.seen)
        if not has_features(step.dataset):
            return parts
        if (step.step + 1) % LOOK == 0:
            self.missing.write()[:] = rare_classes(self, step.dataset, seed=step.step + 1)
        return parts | {"missing": float(self.missing.numpy()[0])}

    def seen(self, images: np.ndarray) -> Tensor:
        """What the players see of the data's images (N, C, H, W)."""
        return self.scale(images)

    # -- samples

    def decode(self, z: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        """G(z) of codes (N, latent): (N, C, H, W) floats, 0 .. levels - 1, by the running statistics of batch norm."""
        labels = self.condition.check(labels, len(z), type(self).__name__)
        generate = self.pair.generate
        with evaluating(self.pair.generator):
            x = in_batches(lambda i: generate(z[i], None if labels is None else labels[i]), np.arange(len(z)), ROWS)
            return self.unscale(x)

    def images(self, z: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        """`decode`, rounded: (N, C, H, W) uint8."""
        return np.round(self.decode(z, labels)).astype(np.uint8)

    def unscale(self, x: np.ndarray) -> np.ndarray:
        """What the players see as values between 0 and levels - 1, not rounded: the inverse of `scale`."""
        return self.levels.unscale(x)

    def codes(self, n: int, rng: np.random.Generator, truncation: float = math.inf) -> np.ndarray:
        """n codes z from the prior, (n, latent) unless z has more; normal numbers beyond +-truncation are drawn again.

        Source of truncation: Brock et al., Large Scale GAN Training (2019), section 3.1.

        Raises ValueError for a truncation of 0 or less.
        """
        if not truncation > 0:
            raise ValueError(f"truncation must be above 0, got {truncation}")
        z = self.pair.codes(n, rng)
        normal = z[:, : self.latent]
        while (beyond := np.abs(normal) > truncation).any():
            normal[beyond] = rng.standard_normal(beyond.sum())
        return z

    def sample(
        self, n: int, rng: np.random.Generator, temperature: float = 1.0, labels: np.ndarray | None = None
    ) -> np.ndarray:
        """n images, (n, C, H, W) uint8, from codes of standard deviation `temperature`. labels: drawn if not given."""
        if not temperature >= 0:
            raise ValueError(f"temperature must not be negative, got {temperature}")
        if labels is not None:
            self.condition.check(labels, n, type(self).__name__)
        z = self.codes(n, rng)
        z[:, : self.latent] *= temperature
        return self.images(z, self.condition.draw(n, rng) if labels is None else labels)


@contextlib.contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Within it a network is in evaluation mode."""
    training = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(training)
