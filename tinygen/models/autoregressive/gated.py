"""Gated PixelCNN: two stacks of convolutions that together have no blind spot, and gates (lecture slide 35).

    vertical stack      sees the rows above, as wide as its kernels reach: no masks within a row are needed
    horizontal stack    sees the pixels to the left in the row itself, and the vertical stack at its own pixel

    a = conv(v) + Vv' c                  v = gate(a)
    b = conv(h) + conv1x1(a) + Vh' c     h = h + conv1x1(gate(b))    gate(x) = tanh(half of x) * sigmoid(the other half)

where c is the image's class as a one-hot vector, if there are classes: the same at every pixel.

Source: van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves, Kavukcuoglu, Conditional Image Generation with
PixelCNN Decoders (2016), sections 2.1 to 2.3, equations 2 and 4, figures 1 and 2.
"""

from __future__ import annotations

import numpy as np

from tinygen import Tensor, nn
from tinygen.models.autoregressive.base import Autoregressive
from tinygen.models.condition import Condition
from tinygen.nn import functional as F


class GatedLayer(nn.Module):
    """Both stacks, v and h, (N, C, H, W) each, one layer on.

    In the first layer (mask A) they are the image: v sees rows above the pixel's own, h pixels to the left of it. In
    the others (mask B) their own row and pixel too, which know no more than that by then; and h is added to. If
    there are classes, c, (N, classes), shifts both.
    """

    def __init__(
        self, inputs: int, hidden: int, kernel_size: int, mask: str, channels: int, classes: int,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self.channels, self.residual, reach = channels, mask == "B", kernel_size // 2
        rows = reach + (mask == "B")  # y - reach .. y - 1, or .. y
        self.vertical = nn.Conv2d(inputs, 2 * hidden, (rows, kernel_size), padding=reach, rng=rng)
        self.link = nn.Conv2d(2 * hidden, 2 * hidden, 1, rng=rng)
        self.horizontal = nn.MaskedConv2d(inputs, 2 * hidden, (1, kernel_size), mask, channels, rng=rng)
        self.output = nn.MaskedConv2d(hidden, hidden, 1, "B", channels, rng=rng)
        if classes:
            self.given_vertical, self.given_horizontal = (
                nn.Linear(classes, 2 * hidden, bias=False, rng=rng) for _ in range(2)
            )

    def forward(self, v: Tensor, h: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        a = self.vertical(v)[:, :, : v.shape[2]]  # padded below too: more rows come out than the image has
        if c is not None:
            a = a + self.given_vertical(c)[:, :, None, None]
        b = self.horizontal(h) + self.link(a)
        if c is not None:
            b = b + self.given_horizontal(c)[:, :, None, None]
        out = self.output(gate(b, self.channels))
        return gate(a, 1), h + out if self.residual else out


def gate(x: Tensor, channels: int) -> Tensor:
    """The gated activation in each color group by itself: (N, 2C, H, W) -> (N, C, H, W)."""
    n, features, height, width = x.shape
    y = F.gated_activation(x.reshape(n * channels, features // channels, height, width))
    return y.reshape(n, features // 2, height, width)


class GatedPixelCNN(Autoregressive):
    """Gated layers, the first 7x7 with mask A, then 3x3 with mask B, and a softmax over the levels of each value.

    Args:
        image_shape: (C, H, W). Colors see each other in order: R, then G given R, then B given both.
        levels: values run from 0 to levels - 1; each has a probability of its own (2, 17, 256, ...).
        hidden: the channels of either stack. For color images a multiple of C.
        layers: how many gated layers. Pixels up to layers + 2 rows above and as many columns away are seen.
        classes: how many classes of images there are to be given; 0 for a model that isn't told the class.
        rng: draws the initial weights.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, hidden: int = 24, layers: int = 5,
        classes: int = 0, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        super().__init__(image_shape, levels)
        channels = image_shape[0]
        self.check_hidden(hidden)
        if layers < 1:
            raise ValueError(f"layers must be at least 1, got {layers}")
        self.condition = Condition(classes)

        def conv(inputs: int, outputs: int) -> nn.Module:
            return nn.MaskedConv2d(inputs, outputs, 1, "B", channels, relu=True, rng=rng)

        self.layers = nn.ModuleList([GatedLayer(channels, hidden, 7, "A", channels, classes, rng)])
        self.layers.extend(GatedLayer(hidden, hidden, 3, "B", channels, classes, rng) for _ in range(layers - 1))
        self.head = nn.Sequential(conv(hidden, hidden), conv(hidden, channels * levels))

    def forward(self, x: Tensor, labels: np.ndarray | None = None) -> Tensor:
        """Scaled images (N, C, H, W), labels (N,) if there are classes -> logits (N, levels, C, H, W)."""
        c = None if labels is None else x.new_tensor(self.condition.one_hot(labels))
        v = h = x
        for layer in self.layers:
            v, h = layer(v, h, c)
        return self.by_level(self.head(h))
