"""Multi-scale PixelRNN: a small image first, then the large one of which it is a part (lecture slide 35).

    p(x) = p(small image) * product over the other pixels of p(x_i given the small image and the pixels before i)

The small image is every second pixel of every second row. A PixelRNN draws it; then another one, each of whose layers
is told of the small image by a map that a transposed convolution has enlarged, draws the pixels in between. As each
pixel is counted once, this is the chain rule in another order: the likelihood is exact.

Source: van den Oord, Kalchbrenner, Kavukcuoglu, Pixel Recurrent Neural Networks (2016), section 3.6.
"""

from __future__ import annotations

import numpy as np

from tinygen import Tensor, nn
from tinygen.models.autoregressive.base import Autoregressive
from tinygen.models.autoregressive.pixelrnn import PixelRNN
from tinygen.ops import index_add

SMALL = (..., slice(None, None, 2), slice(None, None, 2))  # the small image within the large one


class MultiScalePixelRNN(Autoregressive):
    """Two PixelRNNs, alike but for the map of the small image, which shifts the gates of the second one's layers.

    Args:
        image_shape: (C, H, W). The small image has half the rows and columns, rounded up.
        levels: values run from 0 to levels - 1; each has a probability of its own (2, 17, 256, ...).
        rnn: "row" or "diagonal", of both.
        hidden: h of both; the map has 2h channels. For color images a multiple of C.
        layers: how many LSTM layers both have.
        rng: draws the initial weights.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, rnn: str = "row", hidden: int = 24, layers: int = 2,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        super().__init__(image_shape, levels)
        channels, height, width = image_shape
        small = (channels, -(-height // 2), -(-width // 2))
        self.small = PixelRNN(small, levels, rnn=rnn, hidden=hidden, layers=layers, rng=rng)
        self.enlarge = nn.Sequential(
            nn.Conv2d(channels, 2 * hidden, 3, padding=1, rng=rng), nn.ReLU(),
            nn.ConvTranspose2d(2 * hidden, 2 * hidden, 4, stride=2, padding=1, rng=rng), nn.ReLU(),
        )  # fmt: skip
        self.large = PixelRNN(image_shape, levels, rnn=rnn, hidden=hidden, layers=layers, rng=rng)
        gates = 4 * hidden * (2 if rnn == "diagonal" else 1)
        self.given = nn.ModuleList(nn.Conv2d(2 * hidden, gates, 1, rng=rng) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """Scaled images (N, C, H, W) -> logits (N, levels, C, H, W), those of the small image from its own PixelRNN."""
        logits = self.large(x, self.shifts(x))
        between = np.ones(logits.shape[-2:], logits.dtype)
        between[SMALL] = 0
        return logits * logits.new_tensor(between) + index_add(self.small(x[SMALL]), SMALL, logits.shape)

    def shifts(self, x: Tensor) -> list[Tensor]:
        """From the small image in x: the shifts of the gates of each of the large one's layers, (N, 4h or 8h, H, W)."""
        enlarged = self.enlarge(x[SMALL])[:, :, : x.shape[2], : x.shape[3]]
        return [given(enlarged) for given in self.given]

    def order(self) -> np.ndarray:
        """The small image first, then the pixels in between."""
        channels, height, width = self.image_shape
        places = np.arange(self.dimensions).reshape(height, width, channels)
        small = np.zeros(places.shape, bool)
        small[::2, ::2] = True
        return np.concatenate([places[small], places[~small]])
