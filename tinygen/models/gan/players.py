"""Pieces of which players are made: perceptrons, and discriminators that say more than a number."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from tinygen import Tensor, nn


def perceptron(sizes: Sequence[int], activation: Callable[[], nn.Module], rng: np.random.Generator) -> list[nn.Module]:
    """The layers of a multilayer perceptron: linear ones from size to size, with activations between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs, rng=rng), activation()]
    return layers[:-1]


class Autoencoder(nn.ModuleList):
    """A discriminator of an encoder and a decoder: x to its reconstruction, and to its code (N, K) as the head."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        encoder, decoder = self
        code = encoder(x)
        return decoder(code), code.reshape(len(x), -1)


class Headed(nn.Module):
    """A discriminator whose network gives more than one number for an image: D(x), and a head (N, K) of all others."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        rows = self.net(x).reshape(len(x), -1)
        return rows[:, :1], rows[:, 1:]
