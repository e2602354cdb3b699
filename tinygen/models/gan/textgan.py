"""Text to image: a GAN that draws what a caption says (lecture slide 136).

D sees an image with a caption, phi(t) being the caption's vector, and learns to refuse real images with wrong captions,
too (GAN-CLS); G learns from texts between two captions, too (GAN-INT):

    D:  -log D(x, t) - (log(1 - D(x, wrong)) + log(1 - D(G(z, t), t))) / 2
    G:  -log D(G(z, t), t) - log D(G(z, t'), t'),    phi(t') = (phi(t1) + phi(t2)) / 2

Source: Reed et al., Generative Adversarial Text to Image Synthesis (2016), algorithm 1 and equation 5. There phi is
learned before, and D's last layers see it beside the image's features; here it learns with D, G takes it as it is; D
multiplies it with the features (Miyato & Koyama, cGANs with Projection Discriminator, 2018, equation 4): so D reads the
captions after some hundred steps. G's losses are the non-saturating ones.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from tinygen import nn
from tinygen.data.captions import Captions
from tinygen.models.condition import Condition, Text
from tinygen.models.gan.dcgan import DCGAN
from tinygen.models.gan.objectives import Objective
from tinygen.models.gan.textfamily import TextFamily
from tinygen.models.gan.textpair import Reader, TextPair
from tinygen.models.networks.text import TextEncoder


class TextGAN(DCGAN):
    """TextGAN: a DCGAN whose players are told a caption; what it says can be measured on the image.

    Args:
        image_shape: height and width must be even. levels: see `Model`.
        nouns: what the captions call the classes; none: an image, whatever its class.
        encoder: a caption's vector is the mean of its words' vectors, or the last state of an LSTM that reads them.
        embedding: how many numbers a caption's vector has.
        interpolate: whether G learns from texts between two captions, too (GAN-INT).
        latent: how many normal random numbers an image is made from.
        width: the channels next to the image, doubled with each halving of its sides.
        rng: draws the initial weights.
    """

    unshared: ClassVar[str] = "which images it takes, and beside which texts, depends on the whole minibatch"
    family = TextFamily()
    game = TextPair
    condition: Text

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *,
        nouns: Literal["none", "digits", "fashion-mnist"] = "none", encoder: Literal["mean", "lstm"] = "mean",
        embedding: int = 64, interpolate: bool = True, latent: int = 64, width: int = 64, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        if embedding < 1:
            raise ValueError(f"embedding must be at least 1, got {embedding}")
        self.text = Captions(nouns), encoder, embedding
        super().__init__(image_shape, levels, latent=latent, width=width, rng=rng)
        self.pair.interpolate = interpolate

    def new_condition(self, classes: int) -> Condition:
        return Text(self.text[0])

    def new_players(self, rules: Objective, codes: int, width: int, rng: np.random.Generator) -> dict[str, nn.Module]:
        captions, encoder, size = self.text
        channels, height, side = self.image_shape
        net = self.new_discriminator((channels, height, side), 2 * width, width, True, rng)
        reader = Reader(TextEncoder(len(captions.words), size, encoder, rng=rng), net, 2 * width, size, rng)
        return {"generator": self.new_generator(codes + size, width, True, rng), "discriminator": reader}
