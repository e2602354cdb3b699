"""PixelCNN: each pixel from those above and to the left, by masked convolutions (lecture slides 32 and 33).

Source: van den Oord, Kalchbrenner, Kavukcuoglu, Pixel Recurrent Neural Networks (2016), sections 3.3 to 3.5, figure 5
left, table 1.
"""

from __future__ import annotations

import numpy as np

from tinygen import Tensor, nn
from tinygen.models.autoregressive.base import Autoregressive


class ResidualBlock(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(conv1x1(relu(x))))), halving the 2h channels in between. All masks are B."""

    def __init__(self, hidden: int, channels: int, rng: np.random.Generator) -> None:
        super().__init__()

        def conv(inputs: int, outputs: int, kernel_size: int) -> nn.Module:
            return nn.MaskedConv2d(inputs, outputs, kernel_size, "B", channels, relu=True, rng=rng)

        self.layers = nn.Sequential(conv(2 * hidden, hidden, 1), conv(hidden, hidden, 3), conv(hidden, 2 * hidden, 1))

    def forward(self, x: Tensor) -> Tensor:
        first, second, last = self.layers
        return last(second(first(x)), add=x)


class PixelCNN(Autoregressive):
    """A 7x7 convolution with mask A, residual blocks with mask B, and a softmax over the levels of each value.

    Args:
        image_shape: (C, H, W). Colors see each other in order: R, then G given R, then B given both.
        levels: values run from 0 to levels - 1; each has a probability of its own (2, 17, 256, ...).
        hidden: h; the residual stream has 2h channels. For color images a multiple of C.
        blocks: how many residual blocks.
        residual: False for the lecture's plain stack: 3x3 convolutions of 2h channels in place of residual blocks.
        rng: draws the initial weights.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, hidden: int = 48, blocks: int = 4,
        residual: bool = True, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        super().__init__(image_shape, levels)
        channels = image_shape[0]
        self.check_hidden(hidden)
        if blocks < 0:
            raise ValueError(f"blocks must not be negative, got {blocks}")

        def conv(inputs: int, outputs: int, kernel_size: int, mask: str = "B", relu: bool = True) -> nn.Module:
            return nn.MaskedConv2d(inputs, outputs, kernel_size, mask, channels, relu=relu, rng=rng)

        def block() -> nn.Module:
            return ResidualBlock(hidden, channels, rng) if residual else conv(2 * hidden, 2 * hidden, 3)

        self.layers = nn.Sequential(
            conv(channels, 2 * hidden, 7, "A", relu=False), *(block() for _ in range(blocks)),
            conv(2 * hidden, 2 * hidden, 1), conv(2 * hidden, channels * levels, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Scaled images (N, C, H, W) -> logits (N, levels, C, H, W)."""
        return self.by_level(self.layers(x))

    def features(self, x: Tensor) -> Tensor:
        """The last hidden layer of scaled images (N, C, H, W), its mean over the pixels, (N, 2 hidden)."""
        return self.layers[:-1](x).mean((2, 3))
