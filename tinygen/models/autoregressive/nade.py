"""NADE: a hidden layer for every value, of those before it, all with the same weights (lecture slides 17 to 26).

    h_d = sigmoid(c + sum over e < d of x_e W_e),       logits of value d = b_d + V_d h_d

As h_d follows from h_(d-1) by one addition, D values take O(D H) time, in the likelihood as in sampling. The order is
the raster order. With 2 levels the values are Bernoulli, as in the paper.

Source: Larochelle & Murray, The Neural Autoregressive Distribution Estimator (2011), section 3, algorithm 1.
"""

from __future__ import annotations

import math

import numpy as np

from tinygen import Tensor, nn, ops
from tinygen.models.autoregressive.base import Autoregressive
from tinygen.nn import init


class NADE(Autoregressive):
    """NADE with a softmax over the levels of each value, of which the first one's logit is 0: only differences count.

    Args:
        image_shape: (C, H, W). Values follow each other in raster order, within a pixel R, G, B.
        levels: values run from 0 to levels - 1. D values take about D * hidden * levels weights.
        hidden: how many hidden units.
        rng: draws the initial weights.
    """

    lr = 1e-2

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, hidden: int = 200, rng: np.random.Generator
    ) -> None:
        super().__init__(image_shape, levels)
        if hidden < 1:
            raise ValueError(f"hidden must be at least 1, got {hidden}")
        free = levels - 1
        self.weight, self.output = (  # W, V
            init.uniform_(nn.Parameter(np.zeros(shape, np.float32)), -bound, bound, generator=rng)
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
