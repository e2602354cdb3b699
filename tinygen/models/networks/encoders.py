"""The networks of autoencoders: from images to codes, and back (lecture slides 42 to 46).

"conv": four convolutions, and four transposed ones back. Three of them halve (double) the sides, rounding up, and the
fourth sees all that is left, so that images of any size fit. "mlp": one hidden layer, as in Kingma & Welling (2014).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np

from tinygen import Tensor, nn, no_grad, parallel

Kind = Literal["mlp", "conv"]
ROWS = 1024  # images or codes at once in evaluation
HIDDEN = {"mlp": 400, "conv": 32}  # units of the hidden layer; channels of the first convolution


def in_batches(f: Callable[[Any], Tensor], x: Any, rows: int = ROWS) -> np.ndarray:
    """f(x) without a tape, so many rows of x at a time, which bounds the memory. f has to treat each row on its own."""
    with no_grad():
        return parallel.in_shares(lambda some, _: f(x[some]).numpy(), len(x), rows)


class FromImage(nn.Module):
    """Images (N, C, H, W) as rows (N, H * W * C), in their order in memory."""

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.permute(0, 2, 3, 1).reshape(n, h * w * c)


class ToImage(nn.Module):
    """Rows (N, H * W * C) as images (N, C, H, W)."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        self.size = height, width, channels

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), *self.size).permute(0, 3, 1, 2)


def encoder(network: Kind, image_shape: tuple[int, int, int], outputs: int, hidden: int | None,
            rng: np.random.Generator) -> nn.Sequential:  # fmt: skip
    """A network from images (N, C, H, W) to (N, outputs). hidden: None: `HIDDEN`'s."""
    channels, height, width = image_shape
    hidden = _checked(network, hidden)
    if network == "mlp":
        return nn.Sequential(
            FromImage(), nn.Linear(channels * height * width, hidden, rng=rng), nn.ReLU(),
            nn.Linear(hidden, outputs, rng=rng),
        )  # fmt: skip
    sizes = _halved(height, width)
    layers: list[nn.Module] = []
    for i, o, size in zip((channels, hidden, 2 * hidden), (hidden, 2 * hidden, 4 * hidden), sizes, strict=False):
        layers += [nn.Conv2d(i, o, _kernel(size), stride=2, padding=1, rng=rng), nn.ReLU()]
    last = nn.Conv2d(4 * hidden, outputs, sizes[-1], rng=rng)
    return nn.Sequential(*layers, last, FromImage())


def decoder(network: Kind, image_shape: tuple[int, int, int], inputs: int, hidden: int | None,
            rng: np.random.Generator) -> nn.Sequential:  # fmt: skip
    """A network from (N, inputs) to images (N, C, H, W), the mirror image of the encoder."""
    channels, height, width = image_shape
    hidden = _checked(network, hidden)
    if network == "mlp":
        return nn.Sequential(
            nn.Linear(inputs, hidden, rng=rng), nn.ReLU(),
            nn.Linear(hidden, height * width * channels, rng=rng), ToImage(channels, height, width),
        )  # fmt: skip
    sizes = _halved(height, width)
    layers = [ToImage(inputs, 1, 1), nn.ConvTranspose2d(inputs, 4 * hidden, sizes[-1], rng=rng)]
    for i, o, size in zip((4 * hidden, 2 * hidden, hidden), (2 * hidden, hidden, channels), sizes[-2::-1], strict=True):
        layers += [nn.ReLU(), nn.ConvTranspose2d(i, o, _kernel(size), stride=2, padding=1, rng=rng)]
    return nn.Sequential(*layers)


def _checked(network: Kind, hidden: int | None) -> int:
    if network not in get_args(Kind):
        raise ValueError(f"network must be one of {', '.join(get_args(Kind))}, got {network!r}")
    hidden = HIDDEN[network] if hidden is None else hidden
    if hidden < 1:
        raise ValueError(f"hidden must be at least 1, got {hidden}")
    return hidden


def _halved(height: int, width: int) -> list[tuple[int, int]]:
    """The image's sides and what three convolutions leave of them: 28 -> 14 -> 7 -> 4."""
    sizes = [(height, width)]
    for _ in range(3):
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes


def _kernel(size: tuple[int, int]) -> tuple[int, int]:
    """With stride 2 and padding 1, kernel 4 makes n of 2n and 2n of n, kernel 3 n of 2n - 1 and 2n - 1 of n."""
    return 4 - size[0] % 2, 4 - size[1] % 2
