"""InfoGAN: codes that say something of the image, found without labels (the GAN zoo, lecture slide 134).

G is told noise z and a code c, and is to keep c readable in its image: the information I(c; G(z, c)) is bounded from
below by L_I = E log Q(c | G(z, c)) + H(c), where Q is a head of D. D and Q maximize V + lambda L_I, G maximizes
lambda L_I - V. c is a category out of K, all alike, and some normal numbers, the first ones of z (the paper's are
uniform). What each category stands for comes out by itself.

Source: Chen et al., InfoGAN: Interpretable Representation Learning by Information Maximizing GANs (2016), sections 4
to 6; Q's density of a number is a normal one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tinygen import Tensor
from tinygen.models.gan.base import ROWS, evaluating
from tinygen.models.gan.dcgan import DCGAN
from tinygen.models.gan.family import InfoGANFamily
from tinygen.models.gan.objectives import NonSaturating, Verdict
from tinygen.models.networks.encoders import in_batches
from tinygen.nn import functional as F


class Information(NonSaturating):
    """The non-saturating game, and what D's head, Q, says of the code, which both players maximize.

    Args:
        categories: K, how many there are. numbers: how many normal numbers the code has besides.
    """

    shares = 0.3, 0.1  # lambda of the category and of the numbers; with 1 all images of a category come out alike

    def __init__(self, categories: int, numbers: int) -> None:
        self.categories, self.numbers, self.heads = categories, numbers, categories + 2 * numbers

    def code_losses(self, fake: Verdict) -> tuple[Tensor, Tensor]:
        """-lambda E log Q of the category, and of all the normal numbers together, 0-d."""
        k, m = self.categories, self.categories + self.numbers
        mean, log_variance = fake.head[:, k:m], fake.head[:, m:]
        errors = (fake.head.new_tensor(fake.z[:, : self.numbers]) - mean) ** 2 * (-log_variance).exp()
        nats = ((errors + log_variance + math.log(2 * math.pi)) / 2).sum() / len(fake.z)
        return self.shares[0] * F.cross_entropy(fake.head[:, :k], fake.z[:, -k:].argmax(1)), self.shares[1] * nats

    def d_parts(self, real: Verdict, fake: Verdict) -> dict[str, Tensor]:
        category, numbers = self.code_losses(fake)
        return super().d_parts(real, fake) | {"d_category": category, "d_numbers": numbers}

    def g_parts(self, fake: Verdict, real: Callable[[], Verdict]) -> dict[str, Tensor]:
        category, numbers = self.code_losses(fake)
        return super().g_parts(fake, real) | {"g_category": category, "g_numbers": numbers}


class InfoGAN(DCGAN):
    """InfoGAN: a DCGAN with a code of categories and numbers, which can be read in its images.

    Args:
        image_shape: height and width must be even. levels: see `Model`.
        latent: how many normal random numbers an image is made from, besides its category.
        numbers: how many of those are to be read in the image.
        categories: how many there are, all alike; what each stands for comes out by itself.
        width: the channels next to the image, doubled with each halving of its sides.
        critic_steps: steps of the discriminator for each of the generator; 0: as many.
        rng: draws the initial weights.

    Raises ValueError for less than two categories, and unless there are from 1 to `latent` numbers.
    """

    family = InfoGANFamily()

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, latent: int = 64, numbers: int = 2,
        categories: int = 10, width: int = 64, critic_steps: int = 0, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        if categories < 2:
            raise ValueError(f"categories must be at least 2, got {categories}")
        if not 1 <= numbers <= latent:
            raise ValueError(f"numbers must be from 1 to latent, {latent}, got {numbers}")
        self.categories, self.numbers = categories, numbers
        super().__init__(image_shape, levels, latent=latent, width=width, critic_steps=critic_steps, rng=rng)

    def new_objective(self, name: str) -> Information:
        return Information(self.categories, self.numbers)

    def log_q(self, images: np.ndarray) -> np.ndarray:
        """log Q(c | x) of images (N, C, H, W) uint8, (N, K), for each category c; batch norm as in evaluation."""
        k, judge = self.categories, self.pair.judge
        with evaluating(self.pair.discriminator):
            return in_batches(lambda x: F.log_softmax(judge(self.scale(x)).head[:, :k], 1), images, ROWS)
