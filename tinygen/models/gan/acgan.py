"""AC-GAN: the generator is told the class, the discriminator has to find it (the GAN zoo, lecture slide 134).

D says two things of an image: how likely it is real, L_S, and of which class it is, L_C. Both players want the classes
to be found: D maximizes L_S + L_C, G maximizes L_C - L_S.

Source: Odena, Olah, Shlens, Conditional Image Synthesis with Auxiliary Classifier GANs (2017), section 3.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinygen import Tensor
from tinygen.models.gan.dcgan import DCGAN
from tinygen.models.gan.objectives import NonSaturating, Verdict
from tinygen.nn import functional as F


class AuxiliaryClassifier(NonSaturating):
    """The non-saturating game, and a cross-entropy of D's head that both players minimize.

    Args:
        classes: how many there are.
    """

    told = False

    def __init__(self, classes: int) -> None:
        self.heads = classes

    def d_parts(self, real: Verdict, fake: Verdict) -> dict[str, Tensor]:
        return super().d_parts(real, fake) | {"d_class": class_loss(real) + class_loss(fake)}  # -L_S - L_C

    def g_parts(self, fake: Verdict, real: Callable[[], Verdict]) -> dict[str, Tensor]:
        return super().g_parts(fake, real) | {"g_class": class_loss(fake)}


def class_loss(said: Verdict) -> Tensor:
    """The cross-entropy of D's head, (N, classes), against the images' classes, 0-d, in nats."""
    return F.cross_entropy(said.head, said.labels)


class ACGAN(DCGAN):
    """AC-GAN: a DCGAN that is told the class, against a discriminator that has to find it.

    Args:
        image_shape: height and width must be even. levels: see `Model`.
        latent: how many normal random numbers an image is made from, besides its class.
        width: the channels next to the image, doubled with each halving of its sides.
        critic_steps: steps of the discriminator for each of the generator; 0: as many.
        classes: how many classes there are.
        rng: draws the initial weights.

    Raises ValueError for less than two classes.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, latent: int = 64, width: int = 64,
        critic_steps: int = 0, classes: int = 10, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        if classes < 2:
            raise ValueError(f"classes must be at least 2 for an AC-GAN, got {classes}")
        super().__init__(
            image_shape, levels, latent=latent, width=width, critic_steps=critic_steps, classes=classes, rng=rng
        )

    def new_objective(self, name: str) -> AuxiliaryClassifier:
        return AuxiliaryClassifier(self.condition.classes)
