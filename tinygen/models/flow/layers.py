"""The layers of flows: one-to-one maps of images, or of rows of numbers, that know by how much they stretch space.

A layer has two methods: forward(x) gives y and log |det dy/dx|, (N,), or one number if it is the same for all N; and
inverse(y) gives x back. x is (N, C, H, W) or (N, D); where channels are meant, D are the channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np

from tinygen import Tensor, cat, exp, index_select, nn, ops, parallel, tanh, tensor, where
from tinygen.models.networks.encoders import FromImage, ToImage
from tinygen.nn import functional as F
from tinygen.ops.matrices import plu_product

LogDet = Tensor | float
LEAST = 1e-6  # a standard deviation below which numbers are all the same


class Layer(nn.Module):
    """The two methods of a layer of a flow."""

    def forward(self, x: Tensor) -> tuple[Tensor, LogDet]:
        """y = f(x), and log |det dy/dx|."""
        raise NotImplementedError(f"{type(self).__name__} doesn't define forward()")

    def inverse(self, y: Tensor) -> Tensor:
        """x = the inverse of f at y."""
        raise NotImplementedError(f"{type(self).__name__} doesn't define inverse()")


class Chain(nn.ModuleList, Layer):
    """Layers one after the other: their log determinants add up (the chain rule)."""

    def __init__(self, layers: Iterable[Layer]) -> None:
        super().__init__(layers)

    def forward(self, x: Tensor) -> tuple[Tensor, LogDet]:
        of_all: LogDet = 0.0
        of_each: LogDet = 0.0  # added up apart, for a sum of both kinds makes N numbers
        for layer in self:
            x, log_det = layer(x)
            if isinstance(log_det, Tensor) and log_det.shape:
                of_each = of_each + log_det
            else:
                of_all = of_all + log_det
        return x, of_each + of_all

    def inverse(self, y: Tensor) -> Tensor:
        for layer in list[Any](self)[::-1]:
            y = layer.inverse(y)
        return y


# ----------------------------------------------------------------------------------------------------------- couplings


class Partition(Protocol):
    """Which numbers a coupling keeps, x1, and which it changes, x2."""

    def part(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x1 and x2."""

    def join(self, x1: Tensor, x2: Tensor) -> Tensor:
        """x again."""

    def changed(self, values: Tensor) -> Tensor:
        """A network's outputs for each number of x2."""


class Halves:
    """The first half of the channels, the larger of an odd number, and the second. exchanged: the latter is kept."""

    def __init__(self, exchanged: bool = False) -> None:
        self.exchanged = exchanged

    def part(self, x: Tensor) -> tuple[Tensor, Tensor]:
        half = (x.shape[1] + 1) // 2
        parts = x[:, :half], x[:, half:]
        return parts[::-1] if self.exchanged else parts

    def join(self, x1: Tensor, x2: Tensor) -> Tensor:
        return cat(x2, x1, dim=1) if self.exchanged else cat(x1, x2, dim=1)

    def changed(self, values: Tensor) -> Tensor:
        return values


class Checkerboard:
    """The pixels whose row and column add up to an even number, and the others; exchanged: the other way round.

    Both parts are whole images, with 0 at the pixels of the other part: b x and (1 - b) x with a mask b of 0 and 1.

    Source: Dinh, Sohl-Dickstein & Bengio (2017), figure 3.
    """

    def __init__(self, height: int, width: int, exchanged: bool = False) -> None:
        self.b = (np.add.outer(np.arange(height), np.arange(width)) % 2 == exchanged)[None, None]

    def part(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return where(self.b, x, 0.0), self.changed(x)

    def join(self, x1: Tensor, x2: Tensor) -> Tensor:
        return x1 + x2

    def changed(self, values: Tensor) -> Tensor:
        return where(~self.b, values, 0.0)


class AdditiveCoupling(Layer):
    """y1 = x1, y2 = x2 + m(x1): the determinant is 1.

    m: a network from x1 to numbers of x2's shape.

    Source: Dinh, Krueger & Bengio, NICE (2014), section 3.2, equations 5 and 6.
    """

    def __init__(self, partition: Partition, m: nn.Module) -> None:
        self.partition, self.m = partition, m

    def forward(self, x: Tensor) -> tuple[Tensor, LogDet]:
        x1, x2 = self.partition.part(x)
        return self.partition.join(x1, x2 + self.partition.changed(self.m(x1))), 0.0

    def inverse(self, y: Tensor) -> Tensor:
        y1, y2 = self.partition.part(y)
        return self.partition.join(y1, y2 - self.partition.changed(self.m(y1)))


class AffineCoupling(Layer):
    """y1 = x1, y2 = x2 exp(s(x1)) + t(x1): the log determinant is the sum of s(x1).

    The numbers s are kept within +-2, lest the inverse divides by next to nothing: s = 2 tanh(. / 2) of what the
    network says. (RealNVP's code has a tanh there too; Glow's a sigmoid, which bounds s from above only.)

    network: from x1 to the numbers for s, then those for t, each of x2's shape, along the channels.

    Source: Dinh, Sohl-Dickstein & Bengio (2017), equations 4 to 9.
    """

    def __init__(self, partition: Partition, network: nn.Module) -> None:
        self.partition, self.network = partition, network

    def s_and_t(self, both: Tensor) -> tuple[Tensor, Tensor]:
        """log scale and shift of x2, of what the network says of x1."""
        half = both.shape[1] // 2
        s, t = 2 * tanh(both[:, :half] / 2), both[:, half:]
        return self.partition.changed(s), self.partition.changed(t)

    def forward(self, x: Tensor) -> tuple[Tensor, LogDet]:
        x1, x2 = self.partition.part(x)
        both = self.network(x1)
        if isinstance(self.partition, Halves):  # the same in one op: else it takes a fifth of a training step
            return ops.affine_coupling(x, both, 0 if self.partition.exchanged else x1.shape[1])
        s, t = self.s_and_t(both)
        return self.partition.join(x1, x2 * exp(s) + t), per_row(s)  # equation 8: log det = sum of s

    def inverse(self, y: Tensor) -> Tensor:
        y1, y2 = self.partition.part(y)
        s, t = self.s_and_t(self.network(y1))
        return self.partition.join(y1, (y2 - t) * exp(-s))


def per_row(x: Tensor) -> Tensor:
    """The sum over all axes but the first, (N,)."""
    return x.sum(tuple(range(1, x.ndim)))


# --------------------------------------------------------------------------------------------------- linear per channel


class ActNorm(Layer):
    """y = s x + b with an s and a b of each channel; the log determinant is H W times the sum of log |s|.

    The first batch in training sets them so that each channel of y has mean 0 and variance 1; from then on they are
    learned. `started` is a buffer: a run that is resumed doesn't start them again.

    Source: Kingma & Dhariwal, Glow (2018), section 3.1.
    """

    started: Tensor

    def __init__(self, channels: int) -> None:
        self.log_s = nn.Parameter(np.zeros(channels, np.float32))
        self.b = nn.Parameter(np.zeros(channels, np.float32))
        self.register_buffer("started", tensor(np.zeros((), np.int64)))

    def start(self, x: np.ndarray) -> None:
        """Set s and b from a batch. A channel that is the same all over keeps its scale."""
        axes = (0, *range(2, x.ndim))
        mean, variance = parallel.moments(x, axes)
        std = np.sqrt(variance)
        log_s = -np.log(np.where(std > LEAST, std, 1.0))
        values = {"log_s": log_s, "b": -mean * np.exp(log_s), "started": np.ones((), np.int64)}
        self.load_state_dict(values)

    def forward(self, x: Tensor) -> tuple[Tensor, LogDet]:
        if self.training and not self.started.item():
            self.start(x.numpy())
        return ops.channel_affine(x, exp(self.log_s), self.b), self.log_s.sum() * math.prod(x.shape[2:])

    def inverse(self, y: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (y.ndim - 2))
        return (y - self.b.reshape(*shape)) * exp(-self.log_s).reshape(*shape)


class Invertible1x1(Layer):
    """y = W x at each pixel: the channels mixed. W = P L (U + diag(s)), log det = H W times the sum of log |s|.

    P is a fixed permutation, L lower triangular with ones on its diagonal, U strictly upper triangular; the signs of s
    are fixed, too. At first W is a random rotation.

    Source: Kingma & Dhariwal, Glow (2018), section 3.2, equations 10 and 11.
    """

    p: Tensor
    sign_s: Tensor

    def __init__(self, channels: int, rng: np.random.Generator) -> None:
        rotation, _ = np.linalg.qr(rng.standard_normal((channels, channels)))
        p, lower, upper = lu(rotation)
        s = np.diag(upper)
        self.register_buffer("p", tensor(p.astype(np.float32)))
        self.register_buffer("sign_s", tensor(np.sign(s).astype(np.float32)))
        self.log_s = nn.Parameter(np.log(np.abs(s)).astype(np.float32))
        self.lower, self.upper = (nn.Parameter(m.astype(np.float32)) for m in (lower, upper))

    def weight(self) -> Tensor:
        """W, (C, C)."""
        return plu_product(self.p, self.lower, self.upper, self.sign_s * exp(self.log_s))  # equation 10

    def mixed(self, x: Tensor, weight: Tensor) -> Tensor:
        """weight times the channels, which are last in memory, at each pixel: a 1x1 convolution."""
        last = x.ndim - 1
        rows = F.linear(x.permute(0, *range(2, x.ndim), 1), weight)
        return rows.permute(0, last, *range(1, last))

    def forward(self, x: Tensor) -> tuple[Tensor, LogDet]:
        return self.mixed(x, self.weight()), self.log_s.sum() * math.prod(x.shape[2:])  # equation 11

    def inverse(self, y: Tensor) -> Tensor:
        return self.mixed(y, y.new_tensor(np.linalg.inv(self.weight().numpy().astype(np.float64))))


def lu(a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """P, L, U of a square matrix A = P L U, by elimination with pivots (Golub & Van Loan, algorithm 3.4.1)."""
    n = len(a)
    order, lower, upper = np.arange(n), np.zeros((n, n)), np.array(a, np.float64)
    for k in range(n):
        pivot = k + np.abs(upper[k:, k]).argmax()
        exchanged = np.arange(n)
        exchanged[k], exchanged[pivot] = pivot, k
        order, lower, upper = order[exchanged], lower[exchanged], upper[exchanged]
        lower[k + 1 :, k] = upper[k + 1 :, k] / upper[k, k]
        upper[k + 1 :] -= np.outer(lower[k + 1 :, k], upper[k])
    return np.eye(n)[order].T, lower + np.eye(n), np.triu(upper)


# ------------------------------------------------------------------------------------------------ only places: det is 1


class Permute(Layer):
    """Numbers (N, D), or channels (N, C, H, W), in another order: y[:, i] = x[:, order[i]]."""

    def __init__(self, order: np.ndarray) -> None:
        self.order, self.back = order, np.argsort(order)

    def forward(self, x: Tensor) -> tuple[Tensor, LogDet]:
        return index_select(x, 1, self.order), 0.0

    def inverse(self, y: Tensor) -> Tensor:
        return index_select(y, 1, self.back)


class Flatten(Layer):
    """Images of shape (C, H, W) as rows of D = H W C numbers, the channels of a pixel side by side."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.to_rows, self.to_images = FromImage(), ToImage(*shape)

    def forward(self, x: Tensor) -> tuple[Tensor, LogDet]:
        return self.to_rows(x), 0.0

    def inverse(self, y: Tensor) -> Tensor:
        return self.to_images(y)


class Squeeze(Layer):
    """Squares of 2 x 2 pixels become channels: (N, C, H, W) -> (N, 4 C, H / 2, W / 2).

    Source: Dinh, Sohl-Dickstein & Bengio (2017), section 3.6.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, LogDet]:
        n, c, h, w = x.shape
        y = x.permute(0, 2, 3, 1).reshape(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5)
        return y.reshape(n, h // 2, w // 2, 4 * c).permute(0, 3, 1, 2), 0.0

    def inverse(self, y: Tensor) -> Tensor:
        n, c, h, w = y.shape
        x = y.permute(0, 2, 3, 1).reshape(n, h, w, 2, 2, c // 4).permute(0, 1, 3, 2, 4, 5)
        return x.reshape(n, 2 * h, 2 * w, c // 4).permute(0, 3, 1, 2)


class Split(Layer):
    """Half of the channels of images (C, H, W) are done, `rest` goes on with the others: rows (N, D) of both.

    That makes a flow multi-scale: the numbers that are done at a fine scale aren't carried through the coarser ones.

    rest: a layer from (N, C - C // 2, H, W) to rows.

    Source: Dinh, Sohl-Dickstein & Bengio (2017), section 3.6, equations 13 to 16.
    """

    def __init__(self, shape: tuple[int, int, int], rest: Layer) -> None:
        channels, height, width = shape
        self.done = Flatten((channels // 2, height, width))
        self.rest, self.channels, self.numbers = rest, channels // 2, channels // 2 * height * width

    def forward(self, x: Tensor) -> tuple[Tensor, LogDet]:
        done, _ = self.done(x[:, : self.channels])
        rest, log_det = self.rest(x[:, self.channels :])
        return cat(done, rest, dim=1), log_det

    def inverse(self, y: Tensor) -> Tensor:
        return cat(self.done.inverse(y[:, : self.numbers]), self.rest.inverse(y[:, self.numbers :]), dim=1)
