"""NICE: additive couplings, a scaling at the end, and a logistic prior (lecture slides 17 to 21 and 36).

    y1 = x1                    x1, x2: the even and the odd numbers of an image, the first time;
    y2 = x2 + m(x1)            in the couplings after, whichever was kept is changed

Each coupling has determinant 1, so what stretches space is the diagonal scaling alone: log det = the sum of log s.

Source: Dinh, Krueger & Bengio, NICE: Non-linear independent components estimation (2014), sections 3.2 to 3.4 and 5.1.
"""

from __future__ import annotations

import math

import numpy as np

from tinygen.models.flow.base import Flow
from tinygen.models.flow.layers import ActNorm, AdditiveCoupling, Chain, Flatten, Halves, Permute
from tinygen.models.flow.networks import perceptron
from tinygen.models.flow.pixels import Logit
from tinygen.models.flow.priors import StandardLogistic

ALPHA = 1e-5  # the logits of black's noise run from -12 to -6, those of white's from 6 on


class NICE(Flow):
    """Four or more couplings by perceptrons.

    The scaling is an `ActNorm` of each number: started from the first batch, as the paper's exp(s) that starts at 1 is
    too far from where it has to go; its shift is one more than the paper has. Pixels go through a logit first, which
    the paper's don't: a pixel that is dark in nearly all images would have a scale by which a bright one is hundreds
    of deviations away.

    Args:
        image_shape: (C, H, W), of at least two values.
        levels: values run from 0 to levels - 1.
        hidden: units of each of the three hidden layers of a coupling's network m.
        couplings: how many; from three on, every number can depend on every other.
        rng: draws the initial weights.

    Raises ValueError for images of a single value, which can't be split in two, and for numbers below 1.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, hidden: int = 600, couplings: int = 4,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        d = math.prod(image_shape)
        if d < 2:
            raise ValueError(f"NICE splits an image in two: image_shape must have 2 or more values, got {image_shape}")
        if min(hidden, couplings) < 1:
            raise ValueError(f"hidden and couplings must be at least 1, got {hidden} and {couplings}")
        even, odd = (d + 1) // 2, d // 2
        networks = []
        for i in range(couplings):
            kept, changed = (odd, even) if i % 2 else (even, odd)
            networks.append(perceptron((kept, hidden, hidden, hidden, changed), rng))
        layers = Chain([
            Flatten(image_shape),
            Permute(np.concatenate([np.arange(0, d, 2), np.arange(1, d, 2)])),  # I1 even, I2 odd, section 5.1
            *(AdditiveCoupling(Halves(exchanged=bool(i % 2)), m) for i, m in enumerate(networks)),
            ActNorm(d),  # section 3.3
        ])  # fmt: skip
        super().__init__(image_shape, levels, layers, Logit(levels, ALPHA), StandardLogistic())
