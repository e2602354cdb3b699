"""Normalization whose scale and shift come from a vector: a time, a class, a text.

    y = norm(x) (1 + s(v)) + b(v),    s and b linear in v, one number for each channel

With batch norm and the vector of a class it is conditional batch norm; with group norm and the vector of a time it is
how a U-Net of a diffusion model is told the time.

Source: de Vries et al., Modulating early visual processing by language (2017), section 3.2; Perez et al., FiLM (2018);
Dhariwal & Nichol, Diffusion models beat GANs (2021), section 3, for group norm.
"""

from __future__ import annotations

import numpy as np

from tinygen import Tensor, nn
from tinygen.nn import init


class Modulated(nn.Module):
    """A normalization of (N, channels, H, W), scaled and shifted as a vector (N, size), or (1, size) for all, says.

    At first s = b = 0: then it is the normalization alone.

    Args:
        norm: a normalization without a scale and a shift of its own (affine=False).
        channels: of what is normalized.
        size: of the vector.
        rng: draws nothing yet; as other layers have it.
    """

    def __init__(self, norm: nn.Module, channels: int, size: int, *, rng: np.random.Generator) -> None:
        self.norm, self.channels = norm, channels
        self.affine = nn.Linear(size, 2 * channels, rng=rng)
        for p in self.affine.parameters():
            init.zeros_(p)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        """x: (N, channels, H, W). vector: (N, size) or (1, size)."""
        both = self.affine(vector).reshape(-1, 2, self.channels, 1, 1)
        return self.norm(x) * (1.0 + both[:, 0]) + both[:, 1]
