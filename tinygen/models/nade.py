"""NADE: a hidden layer for every value, of those before it, all with the same weights (lecture slides 17 to 26).

    h_d = sigmoid(c + sum over e < d of x_e W_e),       logits of value d = b_d + V_d h_d

As h_d follows from h_(d-1) by one addition, D values take O(D H) time, in the likelihood as in sampling. The order is
the raster order. With 2 levels the values are Bernoulli, as in the paper.

Source: Larochelle & Murray, The Neural Autoregressive Distribution Estimator (2011), section 3, algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tinygen import Tensor, nn, ops
from tinygen.models.autoregressive import Autoregressive
from tinygen.nn import init


class NADE(Autoregressive):
    """NADE with a softmax over the levels of each value, of which the first one's logit is 0: only differences count.

    Args:
        image_shape: (C, H, W). Values follow each other in raster order, within a pixel R, G, B.
        levels: values run from 0 to levels - 1. D values take about D * hidden * levels weights.
        hidden: how many hidden units.
        generator: draws the initial weights.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, hidden: int = 200, generator: np.random.Generator
    ) -> None:
        super().__init__(image_shape, levels)
        if hidden < 1:
            raise ValueError(f"hidden must be at least 1, got {hidden}")
        free = levels - 1
        self.weight, self.output = (  # W, V
            init.uniform_(nn.Parameter(np.zeros(shape, np.float32)), -bound, bound, generator=generator)
            for shape, bound in (
                ((self.dimensions, hidden), 1 / math.sqrt(self.dimensions)),
                ((self.dimensions, free, hidden), 1 / math.sqrt(hidden)),
            )
        )
        self.bias = nn.Parameter(np.zeros(hidden, np.float32))  # c
        self.output_bias = nn.Parameter(np.zeros((self.dimensions, free), np.float32))  # b

    def forward(self, x: Tensor) -> Tensor:
        """Scaled images (N, C, H, W) -> logits (N, levels, C, H, W)."""
        free = ops.nade(self.in_order(x), self.weight, self.bias, self.output)
        return self.from_free(free + self.output_bias)

    def conditional(
        self, x: np.ndarray, known: int, labels: np.ndarray | None = None
    ) -> Callable[[int, int, int], np.ndarray]:
        """As its base class says; h's sum is kept, so that all of an image takes no longer than its likelihood."""
        channels, _, width = self.image_shape
        weight, output, output_bias = (p.numpy() for p in (self.weight, self.output, self.output_bias))
        values = self.in_order(self.scale(x[:, :, :known])).numpy()
        total = self.bias.numpy() + values @ weight[: values.shape[1]]
        before: tuple[slice, ...] = ()  # where the value stands that isn't in the sum yet

        def logits(channel: int, row: int, column: int) -> np.ndarray:
            nonlocal total, before
            place = (row * width + column) * channels + channel
            if before:
                total = total + self.scale(x[before]).numpy()[:, :, 0, 0] * weight[place - 1]
            before = slice(None), *(slice(i, i + 1) for i in (channel, row, column))
            free = ops.sigmoid(total) @ output[place].T + output_bias[place]
            return np.pad(free, ((0, 0), (1, 0)))

        return logits
