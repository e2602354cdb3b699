"""The networks inside couplings. Each ends in a layer of zeros, so that a coupling starts as the identity.

Source: Kingma & Dhariwal, Glow (2018), section 3.3.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from tinygen import Tensor, nn, ops
from tinygen.geometry import Geometry


def perceptron(sizes: tuple[int, ...], rng: np.random.Generator) -> nn.Sequential:
    """Rows (N, sizes[0]) -> (N, sizes[-1]): linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for i, o in itertools.pairwise(sizes):
        layers += [nn.Linear(i, o, rng=rng), nn.ReLU()]
    return nn.Sequential(*layers[:-2], zeros(layers[-2]))


class Convolutions(nn.Sequential):
    """Convolutions, one after the other, with ReLU between them.

    Each one but the first takes the ReLU of its input itself: as an op of its own it would read and write an image of
    all hidden channels, which takes as long as a 1x1 convolution.
    """

    def forward(self, input: Tensor) -> Tensor:
        first, *others = list[Any](self)[::2]
        x = first(input)
        for conv in others:
            x = ops.conv2d(x, conv.weight, conv.bias, Geometry.of("conv2d", **conv.settings), relu=True)
        return x


def convolutions(inputs: int, hidden: int, outputs: int, rng: np.random.Generator) -> Convolutions:
    """Images (N, inputs, H, W) -> (N, outputs, H, W): convolutions 3x3, 1x1 and 3x3 with ReLU between them."""
    return Convolutions(
        nn.Conv2d(inputs, hidden, 3, padding=1, rng=rng), nn.ReLU(),
        nn.Conv2d(hidden, hidden, 1, rng=rng), nn.ReLU(),
        zeros(nn.Conv2d(hidden, outputs, 3, padding=1, rng=rng)),
    )  # fmt: skip


def zeros(layer: nn.Module) -> nn.Module:
    """The layer with weights and biases of 0."""
    for p in layer.parameters():
        nn.init.zeros_(p)
    return layer
