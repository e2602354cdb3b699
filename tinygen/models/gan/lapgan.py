"""LAPGAN: a small image made of noise, then detail upon detail, each by a GAN of its own (lecture slide 134).

    h_k = I_k - up(I_k+1)                           the detail that level k adds to a coarse image (equation 2)
    I_k = l_k + G_k(z_k, l_k), l_k = up(I_k+1)      how an image is drawn (equation 5)

Source: Denton, Chintala, Szlam, Fergus, Deep Generative Image Models using a Laplacian Pyramid of Adversarial Networks
(2015), sections 2.2 and 2.3.
"""

from __future__ import annotations

import math

import numpy as np

from tinygen import Tensor, cat, nn
from tinygen.models.gan import objectives
from tinygen.models.gan.base import AdversarialModel
from tinygen.models.gan.dcgan import halvings
from tinygen.models.gan.large import PyramidFamily
from tinygen.models.gan.pair import AdversarialPair
from tinygen.models.gan.players import perceptron
from tinygen.models.gan.pyramid import Coarse, Pyramid
from tinygen.models.networks.encoders import FromImage, ToImage


class AddCoarse(nn.Module):
    """D's first layer: of h_k and l_k, side by side, the image h_k + l_k, and l_k."""

    def forward(self, x: Tensor) -> Tensor:
        h, coarse = x.chunk(2, 1)
        return cat(h + coarse, coarse, dim=1)


def first_pair(
    shape: tuple[int, int, int],
    rules: objectives.Objective,
    steps: int,
    latent: int,
    width: int,
    rng: np.random.Generator,
) -> AdversarialPair:
    """The GAN of the smallest images, of shape (C, H, W): perceptrons."""
    size, units = math.prod(shape), 16 * width
    generator = perceptron((latent, units, units, size), nn.ReLU, rng)
    discriminator = perceptron((size, units, units, 1), lambda: nn.LeakyReLU(0.2), rng)
    players = {
        "generator": nn.Sequential(nn.Flatten(), *generator, nn.Tanh(), ToImage(*shape)),
        "discriminator": nn.Sequential(FromImage(), *discriminator),
    }
    return AdversarialPair(players, rules, (latent, 1, 1), steps)


def detail_pair(
    shape: tuple[int, int, int], rules: objectives.Objective, steps: int, width: int, rng: np.random.Generator
) -> AdversarialPair:
    """The GAN of the details of images of shape (C, H, W): convolutions; G has a plane of noise beside l_k."""
    c, h, w = shape
    generator = nn.Sequential(
        nn.Conv2d(1 + c, width, 3, padding=1, bias=False, rng=rng), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1, bias=False, rng=rng), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, c, 3, padding=1, rng=rng),
    )  # fmt: skip
    discriminator = nn.Sequential(
        AddCoarse(), nn.Conv2d(2 * c, width, 3, padding=1, rng=rng), nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 4, 2, 1, rng=rng), nn.LeakyReLU(0.2),
        nn.Conv2d(2 * width, 1, (h // 2, w // 2), rng=rng),
    )  # fmt: skip
    players = {"generator": generator, "discriminator": discriminator}
    return AdversarialPair(players, rules, (1, h, w), steps, Coarse())


class LAPGAN(AdversarialModel):
    """LAPGAN: a GAN of small images, and for each doubling of their sides one of the details that this adds.

    In minutes WGAN-GP comes further than the paper's plain GAN, for which there is --objective non-saturating.

    Args:
        image_shape: height and width must be even; they are halved while both are even and at least 8.
        levels: see `Model`.
        objective: what the two players of each level minimize; not "began" or "ebgan".
        latent: how many normal random numbers the small image is made from; each pixel of the others adds one.
        width: the channels of convolutions; the perceptrons of the small image have 16 times as many units.
        critic_steps: steps of the discriminators for each of the generators; 0: as in the objective's paper.
        rng: draws the initial weights.
    """

    family = PyramidFamily()
    lr = 3e-3

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, objective: objectives.Name = "wgan-gp",
        latent: int = 64, width: int = 16, critic_steps: int = 2, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        super().__init__(
            image_shape, levels, objective=objective, latent=latent, width=width, critic_steps=critic_steps, rng=rng
        )

    def new_objective(self, name: str) -> objectives.Objective:
        if (rules := super().new_objective(name)).code:
            raise ValueError(f"objective must be one whose discriminator is no autoencoder, got {name!r}")
        return rules

    def new_pair(
        self, rules: objectives.Objective, codes: int, width: int, critic_steps: int, rng: np.random.Generator
    ) -> Pyramid:
        (c, *_), (first, *others) = self.image_shape, halvings(self.image_shape)[::-1]
        pairs = [first_pair((c, *first), rules, critic_steps, codes, width, rng)]
        pairs += [detail_pair((c, *side), rules, critic_steps, width, rng) for side in others]
        game = Pyramid({f"{h}x{w}": pair for (h, w), pair in zip([first, *others], pairs, strict=True)})
        (self.latent,) = game.noise
        return game

    def scale(self, images: np.ndarray) -> Tensor:
        """Images (N, C, H, W) as whole numbers over a power of two, from -1 to 1 or a little less: exact in float32."""
        return self.tensor(images * (2 / self.whole) - 1)

    def unscale(self, x: np.ndarray) -> np.ndarray:
        """Such numbers as values between 0 and levels - 1, not rounded."""
        return np.clip((x + 1) * (self.whole / 2), 0, self.levels - 1)

    @property
    def whole(self) -> int:
        """The least power of two that is levels - 1 or more."""
        return 2 ** (self.levels - 2).bit_length()
