"""MADE: an autoencoder whose masks make it autoregressive: a fully visible belief net (lecture slides 17 to 26).

    h = relu(b + (W * M) x),    logits = c + (A * L) x + (V * N) h

Every hidden unit has a degree m and sees the values 1 .. m; the logits of value d see the units of degrees below
d, and directly the values before d: M = [m >= d], N = [d > m], L = [d > d']. So they depend on all values before d,
and on no other. The order is the raster order, fixed. Without hidden units this is the fully visible (sigmoid) belief
net, FVSBN: every value a logistic regression on those before it.

Source: Germain, Gregor, Murray, Larochelle, MADE: Masked Autoencoder for Distribution Estimation (2015), sections 3
and 4; with its direct connections, and without its changing orders and masks.
"""

from __future__ import annotations

import numpy as np

from tinygen import Tensor, nn, where
from tinygen.models.autoregressive.base import Autoregressive
from tinygen.nn import functional as F

MOST = 1 << 30  # direct weights: 4 GiB, and with their gradient and Adam's moments 16 GiB


class MaskedLinear(nn.Linear):
    """A linear layer in which an output sees an input exactly if seen[output, input]. Other weights aren't used."""

    def __init__(self, seen: np.ndarray, bias: bool = True, *, rng: np.random.Generator) -> None:
        super().__init__(seen.shape[1], seen.shape[0], bias, rng=rng)
        self.seen = np.asfortranarray(seen)  # in memory as the weight

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, where(self.seen, self.weight, 0.0), self.bias)


class MADE(Autoregressive):
    """MADE: one hidden layer with masks, direct connections, and a softmax over the levels of each value.

    The first level's logit is 0, as only differences count: 2 levels are a Bernoulli with one logit.

    Args:
        image_shape: (C, H, W). Values follow each other in raster order, within a pixel R, G, B.
        levels: values run from 0 to levels - 1. D values take D * (hidden * levels + D * (levels - 1)) weights.
        hidden: how many hidden units; their degrees are spread evenly over 1 .. D - 1. 0 for an FVSBN.
        rng: draws the initial weights.

    Raises ValueError for more direct weights than `MOST`, which photographs of 256 levels would take.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, hidden: int = 500, rng: np.random.Generator
    ) -> None:
        super().__init__(image_shape, levels)
        if hidden < 0:
            raise ValueError(f"hidden must not be negative, got {hidden}")
        if (weights := self.dimensions**2 * (levels - 1)) > MOST:
            raise ValueError(
                f"MADE joins every value with every other: images {'x'.join(map(str, image_shape))} of {levels} levels "
                f"take {weights:,} weights, more than {MOST:,}; take fewer levels (--levels 2) or smaller images"
            )
        value = np.arange(1, self.dimensions + 1)  # d, the place of a value in the order
        output = value.repeat(levels - 1)[:, None]
        self.direct = MaskedLinear(output > value, rng=rng)
        self.hidden = hidden
        if hidden:
            degree = 1 + np.arange(hidden) * (self.dimensions - 1) // hidden  # m
            self.first = MaskedLinear(degree[:, None] >= value, rng=rng)
            self.last = MaskedLinear(output > degree, bias=False, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        """Scaled images (N, C, H, W) -> logits (N, levels, C, H, W)."""
        values = self.in_order(x)
        logits = self.direct(values)
        if self.hidden:
            logits = logits + self.last(F.relu(self.first(values)))
        return self.from_free(logits)
