"""CoGAN: two coupled GANs make pairs of images, and have never seen a pair (the GAN zoo, lecture slide 134).

Domain 1 has the images, domain 2 their outlines, of other images. G makes one of each from a code: its first layers are
shared, the last one is each domain's own; of D the first layer is, and the rest is shared. So what is common to both
domains, what is shown, has to be decided once.

Source: Liu & Tuzel, Coupled Generative Adversarial Networks (2016), section 3.
"""

from __future__ import annotations

import numpy as np

from tinygen import Tensor, cat, nn, parallel
from tinygen.data.tasks import outlines
from tinygen.models.gan.dcgan import DCGAN, discriminator_net, generator_net
from tinygen.models.gan.family import CoGANFamily
from tinygen.models.gan.objectives import Objective, Verdict
from tinygen.models.gan.pair import AdversarialPair

OWN = 2  # layers of each domain's own, with the activation: G's last ones, D's first ones


class CoupledGenerator(nn.Module):
    """G: noise -> an image of each domain, side by side as channels, (N, C + 1, H, W).

    Args:
        nets: one generator for each domain, of which the first's layers are shared but for the last.
    """

    def __init__(self, *nets: nn.Sequential) -> None:
        self.shared = nn.Sequential(*list(nets[0])[:-OWN])
        self.own = nn.ModuleList([nn.Sequential(*list(net)[-OWN:]) for net in nets])

    def forward(self, z: Tensor) -> Tensor:
        h = self.shared(z)
        return cat(*(net(h) for net in self.own), dim=1)


class CoupledDiscriminator(nn.Module):
    """D: images of both domains, side by side as channels -> a number for each, (2 N, 1), the first domain's first.

    Args:
        channels: of the first domain.
        nets: one discriminator for each domain, of which the first's layers are shared but for the first.
    """

    def __init__(self, channels: int, *nets: nn.Sequential) -> None:
        self.channels = channels
        self.own = nn.ModuleList([nn.Sequential(*list(net)[:OWN]) for net in nets])
        self.shared = nn.Sequential(*list(nets[0])[OWN:])

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.own
        first, second = x[:, : self.channels], x[:, self.channels :]
        return cat(*(self.shared(h).reshape(len(x), 1) for h in (one(first), other(second))))


class CoupledPair(AdversarialPair):
    """Two GANs with shared layers, whose losses are means over both domains."""

    def judge(self, x: Tensor, labels: np.ndarray | None = None, z: np.ndarray | None = None) -> Verdict:
        """D of both images in each x, (2 N,)."""
        return Verdict(self.discriminator(x).reshape(-1), None, labels, z)


class CoGAN(DCGAN):
    """CoGAN: a DCGAN of images and one of their outlines, coupled by shared layers.

    Args:
        image_shape: height and width must be even. levels: see `Model`.
        latent: how many normal random numbers a pair of images is made from.
        width: the channels next to the images, doubled with each halving of their sides.
        critic_steps: steps of the discriminator for each of the generator; 0: as many.
        rng: draws the initial weights.
    """

    family = CoGANFamily()
    game = CoupledPair

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, latent: int = 64, width: int = 64,
        critic_steps: int = 0, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        super().__init__(image_shape, levels, latent=latent, width=width, critic_steps=critic_steps, rng=rng)

    def new_players(self, rules: Objective, codes: int, width: int, rng: np.random.Generator) -> dict[str, nn.Module]:
        shapes = self.image_shape, (1, *self.image_shape[1:])
        return {
            "generator": CoupledGenerator(*(generator_net(shape, codes, width, self.rules, rng) for shape in shapes)),
            "discriminator": CoupledDiscriminator(
                shapes[0][0], *(discriminator_net(shape, 1, width, self.rules, rng) for shape in shapes)
            ),
        }

    def seen(self, images: np.ndarray) -> Tensor:
        """Images, and beside them as a channel the outlines of others: of the batch's, moved on by one."""
        drawn, own = parallel.all_gather(outlines(images, self.levels))
        return cat(self.scale(images), self.scale(np.roll(drawn, 1, axis=0)[own]), dim=1)

    def pairs(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The images of codes (N, latent) in both domains: (N, C, H, W) and (N, 1, H, W) uint8."""
        both = np.round(super().decode(z)).astype(np.uint8)
        return both[:, : self.image_shape[0]], both[:, self.image_shape[0] :]

    def decode(self, z: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        """The first domain's images of codes (N, latent): (N, C, H, W) floats, 0 .. levels - 1."""
        return super().decode(z, labels)[:, : self.image_shape[0]]
