"""BiGAN, or ALI: an encoder plays along, so that images have codes, too (the GAN zoo, lecture slide 134).

D judges an image beside a code: (x, E(x)) from the data, or (G(z), z) from the prior. Where it can't tell them apart,
both are pairs of one distribution, and E inverts G. V(D, E, G) = E log D(x, E(x)) + E log(1 - D(G(z), z)): D maximizes
it; E and G minimize it, each its own part, with the roles of the two kinds of pairs swapped.

Source: Donahue, Krahenbuhl, Darrell, Adversarial Feature Learning (2017), section 3; Dumoulin et al., Adversarially
Learned Inference (2017). Our own: E's codes are normalized to the prior's mean and variance; else they shrink.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, ClassVar

import numpy as np

from tinygen import Tensor, cat, nn, parallel
from tinygen.models.gan.base import ROWS, evaluating
from tinygen.models.gan.dcgan import DCGAN
from tinygen.models.gan.family import BiGANFamily
from tinygen.models.gan.objectives import Objective, Verdict
from tinygen.models.gan.pair import AdversarialPair, Losses
from tinygen.models.networks.encoders import in_batches

HIDDEN = 256  # features of an image, and units where they meet the code


class JointDiscriminator(nn.Module):
    """D(x, z): features of the image, beside the code, through a hidden layer: (N, C, H, W) and (N, latent) -> (N, 1).

    Args:
        features: from images to (N, HIDDEN, 1, 1).
        latent: how many numbers z has.
        rng: draws the initial weights of the layers above.
    """

    def __init__(self, features: nn.Module, latent: int, rng: np.random.Generator) -> None:
        self.features = features
        self.joint = nn.Sequential(
            nn.LeakyReLU(0.2), nn.Linear(HIDDEN + latent, HIDDEN, rng=rng), nn.LeakyReLU(0.2),
            nn.Linear(HIDDEN, 1, rng=rng),
        )  # fmt: skip

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.joint(cat(self.features(x).reshape(len(x), HIDDEN), z, dim=1))


class JointPair(AdversarialPair):
    """G, E, and a D of images beside their codes."""

    encoder: nn.Module

    def encode(self, x: Tensor) -> Tensor:
        """E(x): codes (N, latent) of images. One alone is normalized by the running statistics."""
        with evaluating(self.encoder) if parallel.total(len(x)) == 1 else nullcontext():
            return self.encoder(x).reshape(len(x), -1)

    def judge(self, x: Tensor, labels: np.ndarray | None = None, z: np.ndarray | None = None) -> Verdict:
        """D(G(z), z) of images x = G(z); without z, D(x, E(x)). The head is the code."""
        code = self.encode(x) if z is None else x.new_tensor(z)
        return Verdict(self.objective.value(self.discriminator(x, code), x), code, labels, z)

    def turns(
        self, x: Tensor, made: Callable[[], Tensor], labels: np.ndarray | None, z: np.ndarray
    ) -> dict[str, Losses]:
        """The generator's, and the encoder's: -log(1 - D(x, E(x))), the generator's loss with the sign of D flipped."""

        def encoder() -> dict[str, Tensor]:
            return {"e_loss": self.objective.g_loss(-self.judge(x).value)}

        return {**super().turns(x, made, labels, z), "encoder": encoder}


class BiGAN(DCGAN):
    """BiGAN: a DCGAN with an encoder, against a discriminator of images beside their codes.

    Args:
        image_shape: height and width must be even. levels: see `Model`.
        latent: how many normal random numbers an image is made from, and encoded to.
        width: the channels next to the image, doubled with each halving of its sides.
        critic_steps: steps of the discriminator for each of the others; 0: as many.
        rng: draws the initial weights.
    """

    family = BiGANFamily()
    game = JointPair
    lr: ClassVar[float] = 1e-3

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, latent: int = 8, width: int = 64,
        critic_steps: int = 0, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        super().__init__(image_shape, levels, latent=latent, width=width, critic_steps=critic_steps, rng=rng)

    def new_players(self, rules: Objective, codes: int, width: int, rng: np.random.Generator) -> dict[str, nn.Module]:
        channels, height, side = self.image_shape
        shape = channels, height, side
        features = self.new_discriminator(shape, HIDDEN, width, True, rng)
        encoder: Any = self.new_discriminator(shape, codes, width, True, rng)
        encoder[-1].bias = None  # the norm of the codes would undo it
        return {
            "generator": self.new_generator(codes, width, True, rng),
            "discriminator": JointDiscriminator(features, codes, rng),
            "encoder": nn.Sequential(encoder, nn.BatchNorm2d(codes, affine=False)),
        }

    def features(self, x: Tensor) -> Tensor:
        """E(x) of scaled images (N, C, H, W), (N, latent)."""
        return self.pair.players["encoder"](x).reshape(len(x), -1)

    def encode(self, images: np.ndarray) -> np.ndarray:
        """E(x): the codes of images (N, C, H, W) uint8, (N, latent), by the running statistics of batch norm."""
        with evaluating(self.pair.players["encoder"]):
            return in_batches(lambda x: self.features(self.network_input(x)), images, ROWS)
