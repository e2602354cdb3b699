"""A GAN that tells classes by few labels: D has K logits, and generated images are a class of their own.

    p(y | x) = exp l_y(x) / (1 + Z(x)),   D(x) = 1 - p(generated | x) = Z(x) / (1 + Z(x)),   Z = sum of exp l_y

One of K + 1 logits may be held at 0: that of "generated". So D is the sigmoid of log Z, and its loss is the usual one;
of the labeled images there is a cross-entropy besides. G is to give features of D the same mean over its images as over
real ones: |E f(x) - E f(G(z))|^2. Where it matched the images themselves, D would learn nothing more of classes.

Source: Salimans, Goodfellow, Zaremba, Cheung, Radford & Chen, Improved techniques for training GANs (2016), sections
3.1 and 5. There D has weight normalization and noise; here it has no normalization.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinygen import Tensor, nn, ops
from tinygen.models.gan.dcgan import DCGAN
from tinygen.models.gan.family import SemiGANFamily
from tinygen.models.gan.objectives import NonSaturating, Objective, Verdict
from tinygen.models.gan.pair import AdversarialPair
from tinygen.models.model import Step
from tinygen.models.semisupervised import told
from tinygen.nn import functional as F


class ClassesOrGenerated(NonSaturating):
    """D(x) = Z(x) / (1 + Z(x)), and features that are to match."""

    by_image = True  # with batch norm, features of real and of generated images would have one mean anyway

    def value(self, output: Tensor, x: Tensor) -> Tensor:
        return output.logsumexp(1)

    def g_parts(self, fake: Verdict, real: Callable[[], Verdict]) -> dict[str, Tensor]:
        return {"g_features": ((ops.batch_mean(real().head) - ops.batch_mean(fake.head)) ** 2).sum()}


class ClassLogits(nn.Module):
    """D: images (N, C, H, W) -> logits of the classes (N, K), and the features beneath (N, F)."""

    def __init__(self, net: Any) -> None:
        self.body, self.last = net[:-1], net[-1]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(x)
        return self.last(features).reshape(len(x), -1), features.reshape(len(x), -1)


class FewLabels(AdversarialPair):
    """The game, in which D is asked for the classes of a step's labeled images, too: x (N, C, H, W) and labels."""

    few: tuple[Tensor, np.ndarray]

    def discriminator_loss(self, *args: Any) -> dict[str, Tensor]:
        x, labels = self.few
        return super().discriminator_loss(*args) | {"d_class": F.cross_entropy(self.discriminator(x)[0], labels)}


class SemiGAN(DCGAN):
    """A DCGAN whose discriminator tells classes, and is told only so many labels.

    Args:
        image_shape: height and width must be even. levels: see `Model`.
        latent: how many normal random numbers an image is made from.
        width: the channels next to the image, doubled with each halving of its sides.
        labels: how many training images' labels it is told.
        classes: how many classes there are.
        draw_of_labels: the seed by which the images are drawn whose labels are told.
        rng: draws the initial weights.

    Raises ValueError for less than two classes.
    """

    family = SemiGANFamily()
    game = FewLabels

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, latent: int = 64, width: int = 32, labels: int = 100,
        classes: int = 10, draw_of_labels: int = 0, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        if classes < 2:
            raise ValueError(f"classes must be at least 2, got {classes}")
        self.classes, self.labels, self.draw_of_labels = classes, labels, draw_of_labels
        super().__init__(image_shape, levels, latent=latent, width=width, rng=rng)
        self.width = width

    @property
    def told_classes(self) -> bool:
        return True

    def new_objective(self, name: str) -> ClassesOrGenerated:
        return ClassesOrGenerated()

    def new_players(self, rules: Objective, codes: int, width: int, rng: np.random.Generator) -> dict[str, nn.Module]:
        generator = self.new_generator(codes, width, True, rng)
        return {"generator": generator, "discriminator": ClassLogits(self.classifier(rng, width))}

    def classifier(self, rng: np.random.Generator, width: int = 0) -> nn.Module:
        """The network of D, anew."""
        channels, height, side = self.image_shape
        return self.new_discriminator((channels, height, side), self.classes, width or self.width, False, rng)

    def training_step(self, step: Step) -> dict[str, float]:
        few = told(step, self.labels, self.draw_of_labels)
        self.pair.few = self.seen(few.images), few.labels
        return super().training_step(step)

    def logits(self, images: np.ndarray) -> Tensor:
        """What says of images which class they have, (N, classes)."""
        return self.pair.discriminator(self.network_input(images))[0]

    def features(self, x: Tensor) -> Tensor:
        """The features of D that G matches, of scaled images (N, C, H, W), (N, F)."""
        return self.pair.discriminator(x)[1]
