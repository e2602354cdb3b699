"""BigGAN, at the size of small images: classes into every norm of G, and into D by a projection (lecture slide 137).

    G: h <- up(h) + conv(relu(norm(conv(up(relu(norm(h, v)))), v)))    v = (embedding of the class, z)
    D: D(x, y) = psi' phi(x) + V_y' phi(x)                             phi(x): sums over pixels, of blocks like G's
    W <- W / sigma(W) for the weights of both                          spectral norm
    minimize the hinge loss, and for G beta sum over i != j of (W W')_ij^2 (equation 3)

norm(h, v) is conditional batch norm: v gives its scale and shift.
Samples are drawn by the moving average of G's weights, from codes whose numbers beyond +-tau are drawn again: the
smaller tau, the better single images are, and the fewer kinds of them there are (section 3.1).

Source: Brock, Donahue, Simonyan, Large Scale GAN Training for High Fidelity Natural Image Synthesis (2019); Miyato &
Koyama, cGANs with Projection Discriminator (2018), equation 3, for D.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from tinygen import Tensor, cat, nn, tensor
from tinygen.metrics.features import feature_net, has_features
from tinygen.models.averages import Averaged
from tinygen.models.gan import objectives
from tinygen.models.gan.base import AdversarialModel
from tinygen.models.gan.dcgan import halvings
from tinygen.models.gan.diagnostics import LOOK
from tinygen.models.gan.large import LargeFamily
from tinygen.models.gan.layers import conv_of_enlarged, mean_of_conv
from tinygen.models.gan.pair import AdversarialPair, Losses
from tinygen.models.model import Step
from tinygen.models.networks.encoders import ToImage
from tinygen.models.networks.modulation import Modulated
from tinygen.nn import functional as F
from tinygen.nn import init
from tinygen.nn.utils.parametrizations import spectral_norm

EMBEDDING = 32  # numbers that stand for a class
BETA = 1e-4  # of the orthogonal regularization
L = TypeVar("L", nn.Linear, nn.Conv2d)


class BigHinge(objectives.Hinge):
    """The hinge loss, with two steps of D for each of G (the paper's appendix C)."""

    steps, betas = 2, (0.0, 0.999)


def spectral(layer: L, rng: np.random.Generator) -> L:
    """A layer whose weight, orthogonal at first, is divided by its largest singular value."""
    init.orthogonal_(layer.weight, generator=rng)
    return spectral_norm(layer, rng=rng)


def orthogonality(weight: Tensor) -> Tensor:
    """The sum over i != j of (W W')_ij^2, 0-d, of a weight as a matrix with a row for each output: equation 3.

    It is 0 where the rows are orthogonal, however long; of a matrix with more rows than columns, the columns.
    """
    w = weight.reshape(len(weight), -1)
    w = w if w.shape[0] <= w.shape[1] else w.transpose(0, 1)
    products = w @ w.transpose(0, 1)
    return (products * products * w.new_tensor(1 - np.eye(len(w)))).sum()


class UpBlock(nn.Module):
    """G's block: (N, inputs, H, W), vectors (N, size) -> (N, outputs, 2H, 2W). Norms that follow would undo biases."""

    def __init__(self, inputs: int, outputs: int, size: int, rng: np.random.Generator) -> None:
        self.norm1 = Modulated(nn.BatchNorm2d(inputs, affine=False), inputs, size, rng=rng)
        self.conv1 = spectral(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False, rng=rng), rng)
        self.norm2 = Modulated(nn.BatchNorm2d(outputs, affine=False), outputs, size, rng=rng)
        self.conv2 = spectral(nn.Conv2d(outputs, outputs, 3, padding=1, bias=False, rng=rng), rng)
        self.shortcut = spectral(nn.Conv2d(inputs, outputs, 1, bias=False, rng=rng), rng)

    def forward(self, x: Tensor, v: Tensor) -> Tensor:
        h = conv_of_enlarged(self.conv1, F.relu(self.norm1(x, v)))
        h = self.conv2(F.relu(self.norm2(h, v)))
        return h + F.interpolate(self.shortcut(x), scale_factor=2)


class DownBlock(nn.Module):
    """D's block: (N, inputs, H, W) -> (N, outputs, H/2, W/2). first: it sees the image. last: it keeps the sides."""

    def __init__(self, inputs: int, outputs: int, first: bool, last: bool, rng: np.random.Generator) -> None:
        self.conv1 = spectral(nn.Conv2d(inputs, outputs, 3, padding=1, rng=rng), rng)
        self.conv2 = spectral(nn.Conv2d(outputs, outputs, 3, padding=1, rng=rng), rng)
        self.shortcut = spectral(nn.Conv2d(inputs, outputs, 1, rng=rng), rng)
        self.first, self.last = first, last

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.conv1(x if self.first else F.relu(x)))
        if self.last:
            return self.conv2(h) + self.shortcut(x)
        return mean_of_conv(self.conv2, h) + self.shortcut(F.avg_pool2d(x, 2))


class Generator(nn.Module):
    """G: codes (N, latent) and one-hot classes (N, classes) -> images (N, outputs, H, W) from -1 to 1.

    side: of the smallest map. channels: of each map, the smallest one's first.
    """

    def __init__(
        self, side: tuple[int, int], channels: list[int], latent: int, classes: int, outputs: int,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        first, *_, last = channels
        self.embedding = nn.Linear(classes, EMBEDDING, bias=False, rng=rng)
        self.start = spectral(nn.Linear(latent, first * side[0] * side[1], rng=rng), rng)
        self.map = ToImage(first, *side)
        self.blocks = nn.ModuleList(UpBlock(i, o, EMBEDDING + latent, rng) for i, o in itertools.pairwise(channels))
        self.norm = nn.BatchNorm2d(last)
        self.image = spectral(nn.Conv2d(last, outputs, 3, padding=1, rng=rng), rng)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        v = cat(self.embedding(y), z, dim=1)
        h = self.map(self.start(z))
        for block in self.blocks:
            h = block(h, v)
        return self.image(F.relu(self.norm(h))).tanh()


class Discriminator(nn.Module):
    """D: images (N, inputs, H, W) and one-hot classes (N, classes) -> (N,). channels: of its blocks."""

    def __init__(self, channels: list[int], classes: int, inputs: int, rng: np.random.Generator) -> None:
        sizes, last = itertools.pairwise([inputs, *channels]), len(channels) - 1
        self.blocks = nn.ModuleList(DownBlock(i, o, k == 0, k == last, rng) for k, (i, o) in enumerate(sizes))
        self.psi = spectral(nn.Linear(channels[-1], 1, rng=rng), rng)
        self.v = spectral(nn.Linear(classes, channels[-1], bias=False, rng=rng), rng)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        phi = F.relu(x).sum((2, 3))
        return self.psi(phi)[:, 0] + (self.v(y) * phi).sum(1)


class BigPair(AdversarialPair):
    """Players that are told the class as a vector; and G's orthogonal regularization."""

    def generate(self, z: np.ndarray, labels: np.ndarray | None = None) -> Tensor:
        return self.generator(next(self.parameters()).new_tensor(z), self._classes(labels, len(z)))

    def judge(self, x: Tensor, labels: np.ndarray | None = None, z: np.ndarray | None = None) -> objectives.Verdict:
        return objectives.Verdict(self.discriminator(x, self._classes(labels, len(x))), None, labels, z)

    def _classes(self, labels: np.ndarray | None, n: int) -> Tensor:
        labels = self.condition.check(labels, n, "BigGAN")
        assert labels is not None  # as there are classes
        return next(self.parameters()).new_tensor(self.condition.one_hot(labels))

    def turns(
        self, x: Tensor, made: Callable[[], Tensor], labels: np.ndarray | None, z: np.ndarray
    ) -> dict[str, Losses]:
        hinge = super().turns(x, made, labels, z)["generator"]
        weights = [p for name, p in self.generator.named_parameters() if name.endswith("weight.original")]

        def generator() -> dict[str, Tensor]:
            return hinge() | {"orthogonality": BETA * functools.reduce(operator.add, map(orthogonality, weights))}

        return {"generator": generator}


class BigGAN(AdversarialModel):
    """BigGAN of few channels: conditional batch norm, a projection, spectral norm, the hinge loss, averaged weights.

    Args:
        image_shape: height and width must be even; they are halved while both are even and at least 8.
        levels: see `Model`.
        latent: how many normal random numbers an image is made from.
        width: G's channels at the largest sides, twice as many with each halving.
        critic_steps: steps of the discriminator for each of the generator; 0: two.
        classes: how many classes there are; at least 1.
        rng: draws the initial weights.

    Raises ValueError without classes.
    """

    family = LargeFamily()
    lr = 1e-3
    game = BigPair
    asked: Tensor  # how many samples were of the class asked for at the last look, as a share; -1 before the first

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, latent: int = 64, width: int = 16,
        critic_steps: int = 0, classes: int = 10, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        if classes < 1:
            raise ValueError(f"classes must be at least 1, since BigGAN is told the class; got {classes}")
        super().__init__(
            image_shape, levels, latent=latent, width=width, critic_steps=critic_steps, classes=classes, rng=rng
        )
        self.register_buffer("asked", tensor(np.array(-1, np.float32)))

    def new_objective(self, name: str) -> objectives.Objective:
        return BigHinge()

    def new_players(
        self, rules: objectives.Objective, codes: int, width: int, rng: np.random.Generator
    ) -> dict[str, nn.Module]:
        sides, classes, outputs = halvings(self.image_shape), self.condition.classes, self.image_shape[0]
        channels = [width << i for i in range(len(sides))]
        generator = Generator(sides[-1], channels[::-1], codes, classes, outputs, rng)
        discriminator = Discriminator(channels, classes, outputs, rng)
        return {"generator": Averaged(generator), "discriminator": discriminator}

    def training_step(self, step: Step) -> dict[str, float]:
        parts = super().training_step(step)
        assert isinstance(self.pair.generator, Averaged)
        self.pair.generator.update()
        if (step.step + 1) % LOOK == 0 and has_features(step.dataset):
            rng = np.random.default_rng(step.step)
            labels = self.condition.draw(LOOK, rng)
            _, found = feature_net(step.dataset).of(self.sample(LOOK, rng, labels=labels))
            self.asked.write()[...] = (found == labels).mean()
        return parts
