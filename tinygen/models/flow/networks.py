"""The networks inside couplings. Each ends in a layer of zeros, so that a coupling starts as the identity.

Source: Kingma & Dhariwal, Glow (2018), section 3.3.
"""

from __future__ import annotations

import itertools

import numpy as np

from tinygen import nn


def perceptron(sizes: tuple[int, ...], rng: np.random.Generator) -> nn.Sequential:
    """Rows (N, sizes[0]) -> (N, sizes[-1]): linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for i, o in itertools.pairwise(sizes):
        layers += [nn.Linear(i, o, rng=rng), nn.ReLU()]
    return nn.Sequential(*layers[:-2], zeros(layers[-2]))


def convolutions(inputs: int, hidden: int, outputs: int, rng: np.random.Generator) -> nn.Sequential:
    """Images (N, inputs, H, W) -> (N, outputs, H, W): convolutions 3x3, 1x1 and 3x3 with ReLU between them."""
    return nn.Sequential(
        nn.Conv2d(inputs, hidden, 3, padding=1, rng=rng), nn.ReLU(),
        nn.Conv2d(hidden, hidden, 1, rng=rng), nn.ReLU(),
        zeros(nn.Conv2d(hidden, outputs, 3, padding=1, rng=rng)),
    )  # fmt: skip


def zeros(layer: nn.Module) -> nn.Module:
    """The layer with weights and biases of 0."""
    for p in layer.parameters():
        nn.init.zeros_(p)
    return layer
