"""Progressive GAN: small images first, then layers for larger ones, which fade in (lecture slide 135).

    G(z) = (1 - alpha) up(image_l-1(h)) + alpha image_l(block_l(h))       h: what the levels below l make of z
    D(x) = f((1 - alpha) from_l-1(down(x)) + alpha block_l(from_l(x)))    f: what the levels below l make of that

block_l doubles the sides in G and halves them in D, by a strided convolution (the paper has two more after it). alpha
goes from 0, where level l does what level l - 1 did, to 1. Images of all levels are as large as the data: G's are
enlarged, and D makes them small first. So nothing jumps when a level comes in, nor does the norm of D's gradient.

Source: Karras, Aila, Laine, Lehtinen, Progressive Growing of GANs for Improved Quality, Stability, and Variation
(2018).
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from tinygen import Tensor, nn, tensor
from tinygen.models.averages import Averaged
from tinygen.models.gan.base import AdversarialModel
from tinygen.models.gan.dcgan import halvings
from tinygen.models.gan.large import GrowingFamily
from tinygen.models.gan.layers import EqualizedConv2d, EqualizedConvTranspose2d, MinibatchStdDev, PixelNorm
from tinygen.models.gan.objectives import Objective, WassersteinGP
from tinygen.models.model import Step
from tinygen.models.networks.encoders import ToImage
from tinygen.nn import functional as F


def down(x: Tensor, times: int = 1) -> Tensor:
    """The means of 2x2 pixels, so many times."""
    for _ in range(times):
        x = F.avg_pool2d(x, 2)
    return x


def up(x: Tensor, times: int = 1) -> Tensor:
    """Each pixel four times, so many times."""
    return F.interpolate(x, scale_factor=2**times) if times else x


class Drifting(WassersteinGP):
    """WGAN-GP, with a term that keeps D's values from drifting away from 0 (appendix A.1)."""

    steps, betas, drift = 1, (0.0, 0.99), 1e-3

    def d_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return super().d_loss(real, fake) + self.drift * (real**2).mean()


class Growth(nn.Module):
    """Which level the players have come to, and how far it has faded in: buffers that both of them look at."""

    level: Tensor
    alpha: Tensor
    spread: Tensor  # of samples over that of the data, before the level came in: a moving average

    def __init__(self, levels: int, fade: float) -> None:
        self.levels, self.fade = levels, fade
        self.register_buffer("level", tensor(np.zeros((), np.int64)))
        self.register_buffer("alpha", tensor(np.ones((), np.float32)))
        self.register_buffer("spread", tensor(np.zeros((), np.float32)))

    @property
    def now(self) -> tuple[int, float]:
        """level, alpha."""
        return int(self.level.item()), self.alpha.item()

    def set(self, level: int, alpha: float) -> None:
        """Come to there."""
        self.level.write()[...], self.alpha.write()[...] = level, alpha

    def move(self, done: float) -> None:
        """To where it is when `done` of the training is over: each level has twice the time of the one before."""
        place = 1 + done * (2**self.levels - 1)  # level l from 2^l to 2^(l+1)
        level = min(int(math.log2(place)), self.levels - 1)
        self.set(level, min((place / 2**level - 1) / self.fade, 1.0) if level else 1.0)


class Generator(nn.Module):
    """G: noise (N, inputs, 1, 1) -> images (N, outputs, H, W) of the largest sides.

    side: of the smallest images. channels: of each level, the smallest images' first.
    """

    def __init__(
        self, growth: Growth, side: tuple[int, int], channels: list[int], inputs: int, outputs: int,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self.growth, (height, width), c = growth, side, channels[0]
        spread = [
            PixelNorm(),
            EqualizedConv2d(inputs, c * height * width, 1, rng=rng),
            ToImage(c, height, width),
            *after(),
        ]
        self.blocks = nn.ModuleList([nn.Sequential(*spread, EqualizedConv2d(c, c, 3, 1, 1, rng=rng), *after())])
        for i, o in itertools.pairwise(channels):
            self.blocks.append(nn.Sequential(EqualizedConvTranspose2d(i, o, 4, 2, 1, rng=rng), *after()))
        self.images = nn.ModuleList(EqualizedConv2d(c, outputs, 1, gain=1, rng=rng) for c in channels)

    def forward(self, z: Tensor) -> Tensor:
        level, alpha = self.growth.now
        h = before = self.blocks[0](z)
        for block in self.blocks[1 : level + 1]:
            before, h = h, block(h)
        x = self.images[level](h)
        if alpha < 1:
            x = (1 - alpha) * up(self.images[level - 1](before)) + alpha * x
        return up(x, self.growth.levels - 1 - level)


class Discriminator(nn.Module):
    """D: images (N, inputs, H, W) of the largest sides -> (N, 1, 1, 1). side, channels: as of `Generator`."""

    def __init__(
        self, growth: Growth, side: tuple[int, int], channels: list[int], inputs: int, rng: np.random.Generator
    ) -> None:
        self.growth, c = growth, channels[0]
        self.blocks = nn.ModuleList([nn.Sequential(
            MinibatchStdDev(), EqualizedConv2d(c + 1, c, 3, 1, 1, rng=rng), nn.LeakyReLU(0.2),
            EqualizedConv2d(c, c, side, rng=rng), nn.LeakyReLU(0.2), EqualizedConv2d(c, 1, 1, gain=1, rng=rng),
        )])  # fmt: skip
        for o, i in itertools.pairwise(channels):
            self.blocks.append(nn.Sequential(EqualizedConv2d(i, o, 4, 2, 1, rng=rng), nn.LeakyReLU(0.2)))
        self.images = nn.ModuleList(
            nn.Sequential(EqualizedConv2d(inputs, c, 1, rng=rng), nn.LeakyReLU(0.2)) for c in channels
        )

    def forward(self, x: Tensor) -> Tensor:
        level, alpha = self.growth.now
        x = down(x, self.growth.levels - 1 - level)
        h = self.images[level](x)
        for i in range(level, -1, -1):
            h = self.blocks[i](h)
            if i == level and alpha < 1:
                h = (1 - alpha) * self.images[level - 1](down(x)) + alpha * h
        return h


def after() -> list[nn.Module]:
    """What follows each of G's convolutions."""
    return [nn.LeakyReLU(0.2), PixelNorm()]


class ProgressiveGAN(AdversarialModel):
    """Progressive GAN: both players begin with small images and grow, by WGAN-GP; samples are by G's average weights.

    Args:
        image_shape: height and width must be even; they are halved while both are even and at least 8.
        levels: see `Model`.
        latent: how many normal random numbers an image is made from.
        width: channels at the largest sides, twice as many with each halving.
        fade: the share of a level's time over which it fades in.
        rng: draws the initial weights.
    """

    family = GrowingFamily()
    lr = 3e-3

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, latent: int = 64, width: int = 16, fade: float = 0.5,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        if not 0 < fade <= 1:
            raise ValueError(f"fade must be above 0 and at most 1, got {fade}")
        self.fade = fade
        super().__init__(image_shape, levels, latent=latent, width=width, rng=rng)

    def new_objective(self, name: str) -> Objective:
        return Drifting()

    def new_players(self, rules: Objective, codes: int, width: int, rng: np.random.Generator) -> dict[str, nn.Module]:
        self.sides, outputs = halvings(self.image_shape)[::-1], self.image_shape[0]
        channels = [width << i for i in reversed(range(len(self.sides)))]
        self.growth = Growth(len(self.sides), self.fade)
        generator = Averaged(Generator(self.growth, self.sides[0], channels, codes, outputs, rng))
        generator.average.growth = self.growth  # one for all three
        discriminator = Discriminator(self.growth, self.sides[0], channels, outputs, rng)
        return {"generator": generator, "discriminator": discriminator}

    def scale(self, images: np.ndarray) -> Tensor:
        """Images (N, C, H, W) from -1 to 1; while a level fades in, with as little of its detail as G's have."""
        x, (level, alpha) = super().scale(images), self.growth.now
        if alpha < 1:
            times = self.growth.levels - level
            x = (1 - alpha) * up(down(x, times), times) + alpha * x
        return x

    @property
    def side(self) -> str:
        """The sides of the images that the players have come to: "14x14"."""
        return "{}x{}".format(*self.sides[self.growth.now[0]])

    def training_step(self, step: Step) -> dict[str, float]:
        self.growth.move(step.progress)
        level, alpha = self.growth.now
        parts = super().training_step(step)
        assert isinstance(self.pair.generator, Averaged)
        self.pair.generator.update()
        if alpha == 1:
            self.growth.spread.write()[...] += 0.1 * (parts["spread"] - self.growth.spread.item())
        return parts | {"level": level, "alpha": alpha}
