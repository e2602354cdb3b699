"""The network of diffusion and its relatives: a U-Net that is told how noisy its image is, and on demand its class.

Time, a number from 0 to 1, becomes sines and cosines of many frequencies, then a vector by two layers; a class adds a
vector of its own. One more class stands for "none". Images of many pixels are seen in patches: 2x2 pixels are four
channels, so that the U-Net works on a quarter of the places.

Source: Ho, Jain & Abbeel (2020), appendix B; Vaswani et al., Attention is all you need (2017), section 3.5.
"""

from __future__ import annotations

import math

import numpy as np

from tinygen import Tensor, nn
from tinygen.models.networks.unet import UNet
from tinygen.nn import functional as F

PATCHED = 16  # from this height and width on, images are seen in patches


class TimeEmbedding(nn.Module):
    """Times (N,) from 0 to 1 -> (N, size)."""

    def __init__(self, size: int, *, rng: np.random.Generator) -> None:
        self.frequencies = 1000 * np.exp(-math.log(10_000) * np.arange(size // 2) / (size // 2))
        self.first = nn.Linear(2 * (size // 2), size, rng=rng)
        self.second = nn.Linear(size, size, rng=rng)

    def forward(self, times: np.ndarray) -> Tensor:
        angles = np.multiply.outer(times, self.frequencies)
        waves = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
        return self.second(F.silu(self.first(self.first.weight.new_tensor(waves))))


class Network(nn.Module):
    """Noisy images (N, C, H, W), times and classes -> what the model predicts, (N, C, H, W). It starts at 0.

    Args:
        image_shape: (C, H, W).
        width: channels of the first scale; the second has twice as many.
        classes: how many classes it may be told; 0: none.
        rng: draws the initial weights.

    Attributes:
        none: the class "none".
    """

    def __init__(self, image_shape: tuple[int, ...], width: int, classes: int, *, rng: np.random.Generator) -> None:
        channels, *sides = image_shape
        self.patch = 2 if min(sides) >= PATCHED and not any(side % 2 for side in sides) else 1
        halved = not any(side // self.patch % 2 for side in sides)
        inputs = channels * self.patch**2
        self.time = TimeEmbedding(4 * width, rng=rng)
        self.none, self.classes = classes, nn.Embedding(classes + 1, 4 * width, rng=rng) if classes else None
        self.unet = UNet(inputs, inputs, (width, 2 * width) if halved else (width,), 4 * width, rng=rng)

    def forward(self, x: Tensor, time: Tensor, labels: np.ndarray | None = None) -> Tensor:
        """x: (N, C, H, W). time: what `time` gives, (N, size), or (1, size) for all. labels: (N,), if there are any."""
        out = self.unet(self.patches(x), self.vector(time, labels))
        return out if self.patch == 1 else F.pixel_shuffle(out, self.patch)

    def middle(self, x: Tensor, time: Tensor, labels: np.ndarray | None = None) -> Tensor:
        """The U-Net's smallest scale, its mean over the places, (N, channels)."""
        return self.unet.middle(self.patches(x), self.vector(time, labels))[0].mean((2, 3))

    def patches(self, x: Tensor) -> Tensor:
        """Images as the U-Net sees them."""
        return x if self.patch == 1 else F.pixel_unshuffle(x, self.patch)

    def vector(self, time: Tensor, labels: np.ndarray | None) -> Tensor:
        """What the U-Net's blocks are told."""
        return F.silu(time if self.classes is None else time + self.classes(labels))
