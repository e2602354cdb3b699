"""PixelCNN++: a U-shaped network that sees far, and a mixture of logistics (lecture slide 35).

    u       sees the rows above                                     convolutions of 2 x 3 pixels
    ul      sees the pixels to the left in the row itself, and u    convolutions of 2 x 2 pixels

Both go down to smaller images and up again, with short-cuts from each layer on the way down to its like on the way up.
What comes out are, for every pixel, the parameters of a mixture of logistic distributions of its colors: the mean of G
moves with R, that of B with R and G. A level's probability is what falls into its interval.

Source: Salimans, Karpathy, Chen, Kingma, PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture
Likelihood and Other Modifications (2017), section 2, figure 2. Its weight normalization is left out.
"""

from __future__ import annotations

import numpy as np

from tinygen import Tensor, cat, cumsum, logsumexp, nn, stack, tanh
from tinygen.models.autoregressive.base import Autoregressive
from tinygen.models.model import Batch
from tinygen.nn import functional as F


class ShiftedConv2d(nn.Conv2d):
    """A convolution that sees its own row and those above; an odd kernel as far to both sides, an even one leftwards.

    With stride 2 the image is halved: a pixel takes the place of four, of which it sees the first and none after it.
    """

    def forward(self, input: Tensor) -> Tensor:
        height, width = self.kernel_size
        padded = F.pad(input, (width // 2, (width - 1) // 2, height - 1, 0))
        return F.conv2d(padded, self.weight, self.bias, self.settings["stride"])


class GatedBlock(nn.Module):
    """x + a * sigmoid(b), where a and b are convolutions of dropout(elu(conv(elu(x)) + conv1x1(elu(beside)))).

    Each elu is of the features and of their negatives, side by side. beside: what the layer is told besides, if any.
    """

    def __init__(
        self, hidden: int, beside: int, kernel_size: tuple[int, int], dropout: float, rng: np.random.Generator
    ) -> None:
        self.dropout = dropout
        self.first = ShiftedConv2d(2 * hidden, hidden, kernel_size, rng=rng)
        self.beside = nn.Conv2d(2 * beside, hidden, 1, rng=rng) if beside else None
        self.value, self.gate = (
            ShiftedConv2d(2 * hidden, hidden, kernel_size, rng=rng) for _ in range(2)
        )  # fmt: skip

    def forward(self, x: Tensor, beside: Tensor | None, rng: np.random.Generator | None) -> Tensor:
        y = self.first(both_signs(x))
        if beside is not None and self.beside is not None:
            y = y + self.beside(both_signs(beside))
        y = F.dropout(both_signs(y), self.dropout, rng is not None, rng=rng)
        return x + self.value(y) * F.sigmoid(self.gate(y))


def both_signs(x: Tensor) -> Tensor:
    """elu(x) and elu(-x): (N, C, H, W) -> (N, 2C, H, W)."""
    return F.elu(cat(x, -x, dim=1))


class Layer(nn.Module):
    """Both streams, u and ul, one block on; `short` are the two that a short-cut brings along, on the way up."""

    def __init__(self, hidden: int, short: bool, dropout: float, rng: np.random.Generator) -> None:
        self.u = GatedBlock(hidden, hidden * short, (2, 3), dropout, rng)
        self.ul = GatedBlock(hidden, hidden * (1 + short), (2, 2), dropout, rng)

    def forward(
        self, streams: tuple[Tensor, Tensor], short: tuple[Tensor, Tensor] | None, rng: np.random.Generator | None
    ) -> tuple[Tensor, Tensor]:
        u = self.u(streams[0], short and short[0], rng)
        return u, self.ul(streams[1], cat(u, short[1], dim=1) if short else u, rng)


class Resize(nn.Module):
    """Both streams at half the size, by a stride of 2, or at twice the size, by transposed convolutions."""

    def __init__(self, hidden: int, down: bool, rng: np.random.Generator) -> None:
        self.u: nn.Module
        self.ul: nn.Module
        if down:
            self.u = ShiftedConv2d(hidden, hidden, (2, 3), stride=2, rng=rng)
            self.ul = ShiftedConv2d(hidden, hidden, (2, 2), stride=2, rng=rng)
        else:
            self.u = nn.ConvTranspose2d(hidden, hidden, (2, 3), 2, (0, 1), (0, 1), rng=rng)
            self.ul = nn.ConvTranspose2d(hidden, hidden, (2, 2), 2, rng=rng)

    def forward(self, streams: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return self.u(streams[0]), self.ul(streams[1])


class PixelCNNpp(Autoregressive):
    """PixelCNN++, small unless told otherwise: the paper has hidden=160, blocks=5, mixtures=10, dropout=0.5.

    Images may be of any size: inside they are filled up, after their end, to a multiple of 2 ** (scales - 1).

    Args:
        image_shape: (C, H, W). Colors see each other in order: R, then G given R, then B given both.
        levels: values run from 0 to levels - 1, and are taken as numbers that are close if they differ little.
        hidden: the channels of either stream.
        blocks: how many layers before and after each change of size.
        scales: how many sizes; each is half of the one before.
        mixtures: how many logistic distributions are mixed.
        dropout: the probability with which a feature is left out in training.
        rng: draws the initial weights.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, hidden: int = 24, blocks: int = 1, scales: int = 3,
        mixtures: int = 5, dropout: float = 0.0, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        super().__init__(image_shape, levels)
        for name, value in (("hidden", hidden), ("blocks", blocks), ("scales", scales), ("mixtures", mixtures)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        most = max(3, 1 + (max(image_shape[1:]) - 1).bit_length())  # then the smallest image is a pixel
        if scales > most:
            raise ValueError(f"scales must be at most {most} for images of {image_shape[1:]} pixels, got {scales}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be from 0 to below 1, got {dropout}")
        self.blocks, self.mixtures, channels = blocks, mixtures, image_shape[0]
        self.multiple = 2 ** (scales - 1)
        sees = channels + 1  # the image, and ones that show where it ends
        self.above = ShiftedConv2d(sees, hidden, (2, 3), rng=rng)
        self.row_above = ShiftedConv2d(sees, hidden, (1, 3), rng=rng)
        self.left = ShiftedConv2d(sees, hidden, (2, 1), rng=rng)
        up = blocks + 1  # one more short-cut comes from the change of size, or from the first convolutions
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        for scale in range(scales):
            self.down.extend(Layer(hidden, False, dropout, rng) for _ in range(blocks))
            self.up.extend(Layer(hidden, True, dropout, rng) for _ in range(up if scale else blocks))
            if scale < scales - 1:
                self.down.append(Resize(hidden, True, rng))
                self.up.append(Resize(hidden, False, rng))
        parameters = mixtures * (1 + 2 * channels + channels * (channels - 1) // 2)
        self.head = nn.Conv2d(hidden, parameters, 1, rng=rng)

    def forward(self, x: Tensor, rng: np.random.Generator | None = None) -> Tensor:
        """Scaled images (N, C, H, W) -> the mixtures' parameters (N, K (1 + 2C + C (C - 1) / 2), H, W).

        rng: draws what is dropped; None where nothing is.
        """
        n, _, height, width = x.shape
        ones = x.new_tensor(np.ones((n, height, width, 1)).transpose(0, 3, 1, 2))
        x = F.pad(cat(x, ones, dim=1), (0, -width % self.multiple, 0, -height % self.multiple))
        above, left = F.pad(x, (0, 0, 1, 0))[:, :, :-1], F.pad(x, (1, 0))[..., :-1]
        streams = self.above(above), self.row_above(above) + self.left(left)
        seen = [streams]
        for layer in self.down:
            streams = layer(streams) if isinstance(layer, Resize) else layer(streams, None, rng)
            seen.append(streams)
        streams = seen.pop()
        for layer in self.up:
            streams = layer(streams) if isinstance(layer, Resize) else layer(streams, seen.pop(), rng)
        return self.head(F.elu(streams[1]))[:, :, :height, :width]

    def mixture(self, parameters: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The components' logits (N, K, H, W), means and log scales (N, K, C, H, W), given the colors before each."""
        n, _, height, width = parameters.shape
        c = self.image_shape[0]
        p = parameters.reshape(n, self.mixtures, parameters.shape[1] // self.mixtures, height, width)
        means, factors = [p[:, :, 1]], tanh(p[:, :, 1 + 2 * c :])
        for i in range(1, c):
            mean = p[:, :, 1 + i]
            for j in range(i):
                mean = mean + factors[:, :, i * (i - 1) // 2 + j] * x[:, None, j]
            means.append(mean)
        return p[:, :, 0], stack(*means, dim=2), p[:, :, 1 + c : 1 + 2 * c]

    def nats(
        self, images: np.ndarray, labels: np.ndarray | None = None, rng: np.random.Generator | None = None
    ) -> Tensor:
        """-log p(x) of each image, in nats, (N,); with an rng, which draws what is dropped, as in training."""
        self.check_labels(labels, len(images))
        x = self.network_input(images)
        components = self.mixture(self(x, rng), x)
        return F.logistic_mixture_nll(*components, np.asarray(images), self.levels, reduction="none").sum((1, 2))

    def loss(self, batch: Batch, rng: np.random.Generator) -> dict[str, Tensor]:
        return {"nats": self.nats(batch.images, rng=rng).mean()}

    def of_levels(self, output: Tensor, x: Tensor) -> Tensor:
        """Logits from the mixtures' parameters. A component counts as much as it explains the colors before."""
        logits, mean, log_scale = self.mixture(output, x)
        levels = np.arange(self.levels).reshape(-1, 1, 1, 1)
        its_own = self.levels.round(x.numpy()).astype(int)
        nats = F.discretized_logistic_nll(mean, log_scale, its_own[:, None], self.levels, reduction="none")
        before = F.pad(cumsum(nats, 2)[:, :, :-1], (0, 0, 0, 0, 1, 0))
        known = F.log_softmax(logits, 1)[:, :, None] - before
        mean, log_scale = mean[:, :, None], log_scale[:, :, None]
        each = F.discretized_logistic_nll(mean, log_scale, levels, self.levels, reduction="none")
        return logsumexp(known[:, :, None] - each, 1)
