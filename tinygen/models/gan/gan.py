"""GANs: a generator against a discriminator, and the training step that all variants share (lecture slides 105 to 123).

Source: Goodfellow et al., Generative Adversarial Nets (2014), algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import partial
from typing import ClassVar, Literal

import numpy as np

from tinygen import Tensor, cat, nn, no_grad, optim, tensor
from tinygen.data import Dataset
from tinygen.metrics.features import class_names, feature_net, has_features
from tinygen.models.gan.family import GANFamily
from tinygen.models.gan.objectives import VARIANTS, slopes
from tinygen.models.model import Model, Step
from tinygen.models.networks.encoders import ToImage

LOOK = 500  # steps between two looks at the samples' classes

Name = Literal["non-saturating", "minimax", "lsgan", "hinge", "wgan", "wgan-gp", "began"]
Minimize = Callable[[Callable[[], dict[str, Tensor]], str], dict[str, float]]


class Game(nn.Module):
    """Two players and the rules: G makes images from noise, D judges images, the variant says who wants what.

    Args:
        G: noise (N, *noise), with the labels one-hot behind its first axis -> images.
        D: images, with one plane a class behind their channels -> N values; for BEGAN images again.
        variant: a name of VARIANTS.
        noise: the shape of an image's noise.
        steps: the discriminator's for each of the generator; 0: as many as the variant's paper takes.
        classes: of labels that both players see; 0: none.
    """

    def __init__(
        self, G: nn.Module, D: nn.Module, variant: Name, noise: tuple[int, ...], steps: int = 0, classes: int = 0
    ) -> None:
        self.G, self.D, self.variant = G, D, VARIANTS[variant]()
        self.shape, self.steps, self.classes = noise, steps or self.variant.steps, classes

    def optimizers(self, lr: float) -> dict[str, optim.Optimizer]:
        """One for each player, by its name."""
        players = {"discriminator": self.D, "generator": self.G}
        return {name: optim.Adam(player.parameters(), lr, self.variant.betas) for name, player in players.items()}

    def codes(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n codes z, normal, (n, latent), where latent is how many numbers an image's noise has."""
        return rng.standard_normal((n, math.prod(self.shape)))

    def fake(self, z: np.ndarray, labels: np.ndarray | None = None) -> Tensor:
        """G(z) of codes (N, latent), with labels where there are classes."""
        noise = next(self.parameters()).new_tensor(z.reshape(len(z), *self.shape))
        return self.G(self._with(noise, labels))

    def judge(self, x: Tensor, labels: np.ndarray | None = None) -> Tensor:
        """D(x), (N,). For BEGAN the autoencoder's mean absolute error, its equation 1 with eta = 1."""
        out = self.D(self._with(x, labels))
        return (out - x).abs().mean(tuple(range(1, x.ndim))) if self.variant.code else out.reshape(len(x))

    def _with(self, x: Tensor, labels: np.ndarray | None) -> Tensor:
        """x (N, C, ...) with a plane for each class behind its channels, 1 for the image's own, 0 for the others."""
        if not self.classes:
            return x
        if labels is None or len(labels) != len(x) or not set(np.unique(labels)) <= set(range(self.classes)):
            got = "none" if labels is None else f"{len(labels)} from {labels.min()} to {labels.max()}"
            raise ValueError(f"labels must be {len(x)} of 0 to {self.classes - 1}, got {got}")
        planes = np.zeros((len(x), *x.shape[2:], self.classes), x.dtype)
        planes[np.arange(len(x)), ..., labels] = 1
        return cat(x, x.new_tensor(np.moveaxis(planes, -1, 1)), dim=1)

    def step(
        self, real: Callable[[], tuple[Tensor, np.ndarray | None]], minimize: Minimize, rng: np.random.Generator
    ) -> dict[str, float]:
        """Algorithm 1: `steps` steps of D, each on new images and new noise, then one of G. The last ones' numbers.

        real: gives images and their labels. minimize: takes a step of the "discriminator" or the "generator" on the sum
        of the losses that a function gives.
        """
        for i in range(self.steps):
            x, labels = real()
            z, mix = self.codes(len(x), rng), rng.random(len(x))
            with nullcontext() if i == self.steps - 1 else no_grad():
                fake = self.fake(z, labels)
            values: dict[str, Tensor] = {}
            parts = minimize(partial(self._judged, x, fake.detach(), labels, mix, values), "discriminator")
            means = {name: float(value.numpy().mean()) for name, value in values.items()}
            self.variant.settle(self.D, means["real"], means["fake"])
        made = [fake]  # from D's last step on, which saves a pass; a second call, after a NaN, makes them again

        def deceive() -> dict[str, Tensor]:
            return {"g_loss": self.variant.g_loss(self.judge(made.pop() if made else self.fake(z, labels), labels))}

        parts |= minimize(deceive, "generator")
        if self.variant.logits:  # as probabilities
            means |= {name: float(values[name].sigmoid().numpy().mean()) for name in ("real", "fake")}
        if self.variant.code:
            means["k"] = self.variant.k.item()
        means |= {"d_grad": norm(self.D.parameters()), "g_grad": norm(self.G.parameters())}
        return parts | means | {"spread": math.sqrt(variance(fake) / max(variance(x), 1e-12))}

    def _judged(
        self, x: Tensor, fake: Tensor, labels: np.ndarray | None, mix: np.ndarray, values: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """The parts of the discriminator's loss; D's values, and slopes where there is a penalty, go into `values`.

        Batch norm sees real and generated images in batches of their own: mixed, it would hide them from each other.
        """
        values["real"], values["fake"] = self.judge(x, labels), self.judge(fake, labels)
        parts = {"d_loss": self.variant.d_loss(values["real"], values["fake"])}
        if self.variant.weight:
            values["slope"] = slopes(lambda x: self.judge(x, labels), x, fake, mix)
            parts["penalty"] = self.variant.penalty(values["slope"])
        return parts


def norm(parameters: Iterable[Tensor]) -> float:
    """The norm of all gradients together."""
    grads = (p.grad.numpy() for p in parameters if p.grad is not None)
    return math.sqrt(sum(float(np.square(g, dtype=np.float64).sum()) for g in grads))


def variance(x: Tensor) -> float:
    """The mean over the values of an image of their variance over the batch (N, ...)."""
    return float(x.numpy().var(axis=0, dtype=np.float64).mean())


class GAN(Model):
    """GAN: two multilayer perceptrons that play against each other, in any of seven variants.

    Source: Goodfellow et al. (2014); the variants' papers are named in `tinygen.models.gan.objectives`.

    Args:
        image_shape, levels: see `Model`. Images are real numbers from -1 to 1 to the players, rounded when sampled.
        variant: what the players minimize.
        latent: how many numbers an image is made from, normal ones.
        width: of the hidden layers.
        critic_steps: the discriminator's steps for each of the generator; 0: as in the variant's paper.
        classes: how many labels both players see (Mirza & Osindero 2014); 0: none.
        rng: draws the initial weights.
    """

    family = GANFamily()
    lr: ClassVar[float] = 2e-4
    batch_size: ClassVar[int] = 64
    schedule: ClassVar[Literal["cosine", "constant"]] = "constant"
    missing: Tensor  # classes that didn't occur at the last look at the samples, and of how many

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, variant: Name = "non-saturating", latent: int = 64,
        width: int = 256, critic_steps: int = 0, classes: int = 0, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        super().__init__(image_shape, levels)
        sizes = {"latent": latent, "width": width, "critic_steps": critic_steps, "classes": classes}
        for name, value in sizes.items():
            if value < (name in ("latent", "width")):
                raise ValueError(f"{name} must be at least {int(name in ('latent', 'width'))}, got {value}")
        rules, inputs = VARIANTS[variant], (image_shape[0] + classes, *image_shape[1:])
        discriminator = self.discriminator(inputs, rules.code or 1, width, not rules.by_image, rng)
        if rules.code:  # an autoencoder, whose decoder is built like the generator
            discriminator = nn.Sequential(discriminator, self.generator(rules.code, width, False, rng))
        self.game = Game(
            self.generator(latent + classes, width, not rules.code, rng), discriminator, variant, (latent, 1, 1),
            critic_steps, classes,
        )  # fmt: skip
        self.register_buffer("missing", tensor(np.zeros(2, np.int64)))
        self.played = 0

    def generator(self, inputs: int, width: int, batch_norm: bool, rng: np.random.Generator) -> nn.Module:
        """A new network from noise (N, inputs, 1, 1) to images from -1 to 1. batch_norm: whether it may have some."""
        layers = [
            nn.Flatten(), nn.Linear(inputs, width, rng=rng), nn.ReLU(),
            nn.Linear(width, 2 * width, rng=rng), nn.ReLU(),
            nn.Linear(2 * width, self.dimensions, rng=rng), nn.Tanh(), ToImage(*self.image_shape),
        ]  # fmt: skip
        return nn.Sequential(*layers)

    def discriminator(
        self, inputs: tuple[int, int, int], outputs: int, width: int, batch_norm: bool, rng: np.random.Generator
    ) -> nn.Module:
        """A new network from images, with planes for the classes, of shape `inputs` to (N, outputs, 1, 1)."""
        layers = [
            nn.Flatten(), nn.Linear(math.prod(inputs), 2 * width, rng=rng), nn.LeakyReLU(0.2),
            nn.Linear(2 * width, width, rng=rng), nn.LeakyReLU(0.2),
            nn.Linear(width, outputs, rng=rng), ToImage(outputs, 1, 1),
        ]  # fmt: skip
        return nn.Sequential(*layers)

    # -- training

    def optimizers(self, lr: float) -> dict[str, optim.Optimizer]:
        return self.game.optimizers(lr)

    def training_step(self, step: Step) -> dict[str, float]:
        def real() -> tuple[Tensor, np.ndarray | None]:
            batch = step.batch()
            return self.scale(batch.images), batch.labels

        parts = self.game.step(real, step.minimize, step.rng)
        self.played = step.step + 1
        if not has_features(step.dataset):
            return parts
        if self.played % LOOK == 0:
            self.look(step.dataset, self.played)
        return parts | {"missing": float(self.missing.numpy()[0])}

    def look(self, train: Dataset, seed: int) -> None:
        """Take down in `missing` how many classes are rare (below a tenth of an equal share) among 500 new samples."""
        classes = len(class_names(train))
        _, found = feature_net(train).of(self.sample(500, np.random.default_rng(seed)))
        self.missing.write()[:] = (np.bincount(found, minlength=classes) < 50 / classes).sum(), classes

    # -- samples

    def images(self, z: np.ndarray, labels: np.ndarray | None = None, batch: int = 500) -> np.ndarray:
        """G's images of codes z (N, latent), (N, C, H, W) uint8, by the running statistics of batch norm."""
        training = self.game.G.training
        self.game.G.eval()
        try:
            with no_grad():
                parts = [
                    self.game.fake(z[i : i + batch], None if labels is None else labels[i : i + batch]).numpy()
                    for i in range(0, len(z), batch)
                ]
        finally:
            self.game.G.train(training)
        return self.levels.round(np.concatenate([np.zeros((0, *self.image_shape), np.float32), *parts]))

    def codes(self, n: int, rng: np.random.Generator, truncation: float = math.inf) -> np.ndarray:
        """n codes (n, latent) from N(0, I); numbers beyond +-truncation are drawn again.

        Source of truncation: Brock et al., Large Scale GAN Training (2019), section 3.1.

        Raises ValueError for a truncation of 0 or less.
        """
        if not truncation > 0:
            raise ValueError(f"truncation must be above 0, got {truncation}")
        z = self.game.codes(n, rng)
        while (beyond := np.abs(z) > truncation).any():
            z[beyond] = rng.standard_normal(beyond.sum())
        return z

    def sample(
        self, n: int, rng: np.random.Generator, temperature: float = 1.0, labels: np.ndarray | None = None
    ) -> np.ndarray:
        """n images, (n, C, H, W) uint8, from codes of standard deviation `temperature`. labels: drawn if not given."""
        if not temperature >= 0:
            raise ValueError(f"temperature must not be negative, got {temperature}")
        if labels is not None and not self.game.classes:
            raise ValueError("labels given to a model without classes; it takes --classes when it is trained")
        z = self.codes(n, rng) * temperature
        if self.game.classes and labels is None:
            labels = rng.integers(0, self.game.classes, n)
        return self.images(z, labels)
