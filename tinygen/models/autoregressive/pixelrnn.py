"""PixelRNN: each pixel from those before it, by LSTMs that run over the image (lecture slides 27 to 31).

    Row LSTM            from above, row by row: a pixel depends on a triangle above it.
    Diagonal BiLSTM     along the diagonals, from the top left and from the top right: on all pixels before it.

Each gate is the sum of what the image contributes (input-to-state, a masked convolution of the whole image at once)
and of what the LSTM remembers (state-to-state, a convolution of the states of the row or diagonal before).

Source: van den Oord, Kalchbrenner, Kavukcuoglu, Pixel Recurrent Neural Networks (2016), sections 3.1 to 3.3,
figures 4 and 5 right, table 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from tinygen import Tensor, nn
from tinygen.models.autoregressive.base import Autoregressive
from tinygen.nn import functional as F


class RowState(nn.Conv2d):
    """A Row LSTM's memory: what the image contributes to its gates (N, 4U, H, W) -> h (N, U, H, W)."""

    def __init__(self, hidden: int, rng: np.random.Generator) -> None:
        super().__init__(hidden, 4 * hidden, (1, 3), bias=False, rng=rng)

    def forward(self, input: Tensor) -> Tensor:
        return F.row_lstm(input, self.weight)


class RowLSTM(nn.Module):
    """x + conv1x1(Row LSTM of x): 2h channels, h in the LSTM; kernels of 3 pixels in a row.

    given: (N, 4h, H, W), is added to what x contributes to the gates.
    """

    def __init__(self, hidden: int, channels: int, rng: np.random.Generator) -> None:
        self.channels = channels
        self.input = nn.MaskedConv2d(2 * hidden, 4 * hidden, (1, 3), "B", channels, rng=rng)
        self.state = RowState(hidden, rng)
        self.output = nn.MaskedConv2d(hidden, 2 * hidden, 1, "B", channels, rng=rng)

    def forward(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        z = self.input(x) if given is None else self.input(x) + given
        return x + self.output(self.state(gates(z, self.channels)))


class DiagonalBiLSTM(nn.Module):
    """x + conv1x1(Diagonal BiLSTM of x): 2h channels, h in each of its two LSTMs. given: (N, 8h, H, W), 4h for each."""

    def __init__(self, hidden: int, channels: int, rng: np.random.Generator) -> None:
        self.channels = channels
        self.left, self.right = (nn.MaskedConv2d(2 * hidden, 4 * hidden, 1, "B", channels, rng=rng) for _ in range(2))
        self.state_left, self.state_right = (
            nn.Conv2d(hidden, 4 * hidden, (2, 1), bias=False, rng=rng) for _ in range(2)
        )
        self.output = nn.MaskedConv2d(hidden, 2 * hidden, 1, "B", channels, rng=rng)

    def forward(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        left, right = self.left(x), self.right(x)
        if given is not None:
            half = given.shape[1] // 2
            left, right = left + given[:, :half], right + given[:, half:]
        left, right = (gates(z, self.channels) for z in (left, right))
        return x + self.output(F.diagonal_bilstm(left, right, self.state_left.weight, self.state_right.weight))


def gates(x: Tensor, channels: int) -> Tensor:
    """From a masked convolution's order (of each color the gates) to the LSTM's (of each gate the colors)."""
    n, features, height, width = x.shape
    grouped = x.reshape(n, channels, 4, features // channels // 4, height, width)
    return grouped.transpose(1, 2).reshape(x.shape)


LAYERS = {"row": RowLSTM, "diagonal": DiagonalBiLSTM}


class PixelRNN(Autoregressive):
    """A 7x7 convolution with mask A, LSTM layers (Row LSTM or Diagonal BiLSTM), and a softmax over the levels.

    By mask A the features at a pixel know what is before it, not the pixel itself. So the last pixel of a row would
    not reach the start of the next row: the Diagonal BiLSTM is given the image with one empty column more on the
    right, and sees 100 % of the pixels before.

    Args:
        image_shape: (C, H, W). Colors see each other in order: R, then G given R, then B given both.
        levels: values run from 0 to levels - 1; each has a probability of its own (2, 17, 256, ...).
        rnn: "row" or "diagonal".
        hidden: h; an LSTM has h units, the residual stream 2h channels. For color images a multiple of C.
        layers: how many LSTM layers.
        rng: draws the initial weights.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, rnn: str = "row", hidden: int = 24, layers: int = 2,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        super().__init__(image_shape, levels)
        channels = image_shape[0]
        if rnn not in LAYERS:
            raise ValueError(f"rnn must be one of {', '.join(LAYERS)}, got {rnn!r}")
        self.check_hidden(hidden)
        if layers < 0:
            raise ValueError(f"layers must not be negative, got {layers}")

        def conv(outputs: int) -> nn.Module:
            return nn.MaskedConv2d(2 * hidden, outputs, 1, "B", channels, relu=True, rng=rng)

        self.border = int(rnn == "diagonal")
        self.input = nn.MaskedConv2d(channels, 2 * hidden, 7, "A", channels, rng=rng)
        self.layers = nn.ModuleList(LAYERS[rnn](hidden, channels, rng) for _ in range(layers))
        self.head = nn.Sequential(conv(2 * hidden), conv(channels * levels))

    def forward(self, x: Tensor, given: Sequence[Tensor] = ()) -> Tensor:
        """Scaled images (N, C, H, W) -> logits (N, levels, C, H, W). given: what each layer is told of every pixel."""
        border = (0, self.border)
        features = self.input(F.pad(x, border))
        for layer, told in itertools.zip_longest(self.layers, given):
            features = layer(features, None if told is None else F.pad(told, border))
        return self.by_level(self.head(features[..., : x.shape[3]]))
