"""DCGAN: a GAN whose players are convolutional networks, by five guidelines (lecture slide 127).

Source: Radford, Metz, Chintala, Unsupervised Representation Learning with Deep Convolutional GANs (2016), section 3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinygen import nn
from tinygen.models.gan.base import AdversarialModel
from tinygen.models.gan.objectives import Name
from tinygen.nn import init


@dataclass(frozen=True)
class Guidelines:
    """DCGAN's five guidelines, in the paper's order; without one, what it was set against takes its place."""

    strided: bool = True  # strided and fractionally-strided convolutions; else pooling and upsampling, and 3x3 kernels
    batch_norm: bool = True  # in both, but not at G's output and D's input
    convolutional: bool = True  # else one hidden layer of 512 fully connected units at G's input and at D's output
    relu: bool = True  # in G, with tanh at the output; else tanh throughout
    leaky: bool = True  # LeakyReLU(0.2) in D; else ReLU


def generator_net(
    shape: tuple[int, ...], inputs: int, width: int, rules: Guidelines, rng: np.random.Generator
) -> nn.Sequential:
    """G: (N, inputs, 1, 1) -> images (N, C, H, W) from -1 to 1. The layer before the last has `width` channels."""
    sides = halvings(shape)[::-1]
    channels = [*(width << i for i in reversed(range(len(sides) - 1))), shape[0]]
    hidden = nn.ReLU if rules.relu else nn.Tanh
    layers: list[nn.Module] = []
    if not rules.convolutional:  # on an image of one pixel, a convolution is fully connected
        layers += [nn.Conv2d(inputs, 512, 1, rng=rng), hidden()]
        inputs = 512
    for i, outputs in enumerate(channels):
        last = i == len(channels) - 1
        norm = rules.batch_norm and not last
        settings: dict[str, Any] = {"bias": not norm, "rng": rng}
        if i == 0:
            layers.append(nn.ConvTranspose2d(inputs, outputs, sides[0], **settings))
        elif rules.strided:
            layers.append(nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, **settings))
        else:
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(inputs, outputs, 3, 1, 1, **settings)]
        layers += [nn.BatchNorm2d(outputs)] if norm else []
        layers.append(nn.Tanh() if last else hidden())
        inputs = outputs
    return initialized(nn.Sequential(*layers), rng)


def discriminator_net(
    shape: tuple[int, ...], outputs: int, width: int, rules: Guidelines, rng: np.random.Generator
) -> nn.Sequential:
    """D: (N, C, H, W) -> (N, outputs, 1, 1). The first layer has `width` channels, each next one twice as many."""
    sides, inputs = halvings(shape), shape[0]
    hidden = (lambda: nn.LeakyReLU(0.2)) if rules.leaky else nn.ReLU
    layers: list[nn.Module] = []
    for i in range(len(sides) - 1):
        norm = rules.batch_norm and i > 0
        settings: dict[str, Any] = {"bias": not norm, "rng": rng}
        if rules.strided:
            layers.append(nn.Conv2d(inputs, width << i, 4, 2, 1, **settings))
        else:
            layers += [nn.Conv2d(inputs, width << i, 3, 1, 1, **settings), nn.AvgPool2d(2)]
        inputs = width << i
        layers += [nn.BatchNorm2d(inputs), hidden()] if norm else [hidden()]
    if rules.convolutional:
        layers.append(nn.Conv2d(inputs, outputs, sides[-1], rng=rng))
    else:
        layers += [nn.Conv2d(inputs, 512, sides[-1], rng=rng), hidden(),
                   nn.Conv2d(512, outputs, 1, rng=rng)]  # fmt: skip
    return initialized(nn.Sequential(*layers), rng)


def halvings(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """The image's sides, halved once and then while both are even and stay at least 4: 28x28, 14x14, 7x7.

    Raises ValueError for an image that can't be halved.
    """
    sides = [(shape[1], shape[2])]
    while not (sides[-1][0] % 2 or sides[-1][1] % 2) and (len(sides) == 1 or min(sides[-1]) >= 8):
        sides.append((sides[-1][0] // 2, sides[-1][1] // 2))
    if len(sides) == 1:
        raise ValueError(f"image_shape must have an even height and width, got {shape}")
    return sides


def initialized(net: nn.Sequential, rng: np.random.Generator) -> nn.Sequential:
    """Weights normal with standard deviation 0.02 about 0, in batch norm about 1; biases 0 (the paper's section 4)."""
    for name, p in net.named_parameters():
        if name.endswith("bias"):
            init.zeros_(p)
        else:
            init.normal_(p, 1.0 if p.ndim == 1 else 0.0, 0.02, generator=rng)
    return net


class DCGAN(AdversarialModel):
    """DCGAN: convolutional players by five guidelines, each with a switch, for any of seven objectives.

    Args:
        image_shape: height and width must be even. levels: see `Model`.
        objective: what the two players minimize.
        latent: how many normal random numbers an image is made from.
        width: the channels next to the image, doubled with each halving of its sides.
        critic_steps: steps of the discriminator for each of the generator; 0: as in the objective's paper.
        classes: how many classes both players are told (Mirza & Osindero 2014); 0: none.
        strided: strided and fractionally-strided convolutions; else pooling, upsampling and 3x3 kernels.
        batch_norm: batch norm in both players where the objective allows it, but not at G's output and D's input.
        convolutional: no fully connected hidden layer; else one of 512 units at G's input and at D's output.
        relu: ReLU in G, with tanh at its output; else tanh throughout.
        leaky: LeakyReLU(0.2) in D; else ReLU.
        rng: draws the initial weights.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, objective: Name = "non-saturating", latent: int = 64,
        width: int = 64, critic_steps: int = 0, classes: int = 0, strided: bool = True, batch_norm: bool = True,
        convolutional: bool = True, relu: bool = True, leaky: bool = True, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self.rules = Guidelines(strided, batch_norm, convolutional, relu, leaky)
        super().__init__(
            image_shape, levels, objective=objective, latent=latent, width=width, critic_steps=critic_steps,
            classes=classes, rng=rng,
        )  # fmt: skip

    def new_generator(self, inputs: int, width: int, batch_norm: bool, rng: np.random.Generator) -> nn.Module:
        rules = replace(self.rules, batch_norm=self.rules.batch_norm and batch_norm)
        return generator_net(self.image_shape, inputs, width, rules, rng)

    def new_discriminator(
        self, inputs: tuple[int, int, int], outputs: int, width: int, batch_norm: bool, rng: np.random.Generator
    ) -> nn.Module:
        rules = replace(self.rules, batch_norm=self.rules.batch_norm and batch_norm)
        return discriminator_net(inputs, outputs, width, rules, rng)
