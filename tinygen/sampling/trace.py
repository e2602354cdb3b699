"""Traces of what an autoregressive network does with an image, op by op, and when each of its numbers can be known.

Drawing an image value by value, a plain loop runs the whole network for every value (lecture slide 33). But each of the
network's numbers, of each layer at each pixel, can be computed once and for all as soon as the last value that it
depends on is drawn. So an image takes the work of one forward pass. Of three pixels in a row, of which h sees those
before its own, and of which y is a function pixel by pixel:

    time 0, none is drawn       h0, y0: the logits of x0
    time 1, x0 is drawn         h1, y1
    time 2, x1 is drawn         h2, y2

`Trace` runs the model's own `forward` on an image whose numbers are placeholders: every op is noted, and for every
number that it gives the *time* at which it can be known, that is, how many values have been drawn by then. Ops that
only move numbers need no rule: they move the placeholders. `tinygen.sampling.program` makes steps of the notes.

Source: for stacks of convolutions the idea is that of Ramachandran et al., Fast Generation for Convolutional
Autoregressive Models (2017).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from tinygen import Tensor, hook, no_grad
from tinygen.geometry import Geometry
from tinygen.kernels.sample import SAMPLER_LAYERS
from tinygen.ops.shape import is_basic
from tinygen.tape import Call

WIDE = 16  # numbers to which rows of weights are padded, and places rounded: the widest vector register


class NotTraceable(NotImplementedError):
    """The network computes something from its image for which there is no rule here."""


@dataclass(eq=False)
class Buffer:
    """Numbers first, first + 1, ... of an image (H, W, C), in this order."""

    first: int
    shape: tuple[int, int, int]
    values: np.ndarray | None = None  # of constants
    border: list[int] = field(default_factory=lambda: [0] * 4)  # zeros that are read above, below, left, right
    whole: bool = False  # whether its pixels need places of their own, or each can take that of the one before
    place: int = 0

    @property
    def numbers(self) -> np.ndarray:
        return self.first + np.arange(int(np.prod(self.shape))).reshape(self.shape)

    @property
    def size(self) -> int:
        height, width, channels = self.shape
        above, below, left, right = self.border
        return (above + height + below) * (left + width + right) * channels if self.whole else channels

    def at(self, row: Any, column: Any) -> Any:
        """The place of a pixel, which may lie in the border."""
        above, _, left, right = self.border
        pixel = (row + above) * (left + self.shape[1] + right) + column + left
        return self.place + pixel * self.shape[2] * self.whole


class Elementwise(NamedTuple):
    """out = kind(x, y), numbers (pixels, channels) each; rank (pixels,): the order of steps whose time is the same."""

    kind: str
    out: np.ndarray
    x: np.ndarray
    y: np.ndarray
    time: np.ndarray
    rank: np.ndarray


class Tap(NamedTuple):
    """A product's view of a pixel so far from its own, of the channels from one on: weight (channels, columns)."""

    row: int
    column: int
    channel: int
    weight: np.ndarray


class Product(NamedTuple):
    """out = (y, or bias) + sum over taps, at pixels row, column of the source; out and y: the first column's number."""

    source: Buffer
    row: np.ndarray
    column: np.ndarray
    taps: list[Tap]
    bias: np.ndarray
    out: np.ndarray
    y: np.ndarray | None
    time: np.ndarray
    rank: np.ndarray


class _Unreadable(Tensor):
    """Has no values yet."""

    def numpy(self) -> np.ndarray:
        raise NotTraceable("what isn't an op of the image")

    item = __bool__ = __float__ = __int__ = numpy  # type: ignore[assignment]


class Trace:
    """The ops of a model's network on one image, and when they can run. Raises NotTraceable.

    Attributes:
        image: the numbers of the image. order: the model's. result: the numbers that the network gives.
        time: of every number, how many values have been drawn when it can be known. Number 0 is the constant 0.
    """

    def __init__(self, model: Any, label: int | None = None) -> None:
        channels, height, width = model.image_shape
        self.dtype, self.mixtures = next(model.parameters()).dtype, model.mixtures
        self.buffers: list[Buffer] = []
        self.notes: list[Elementwise | Product] = []
        self._count, self.time = 1, np.zeros(1 << 16, np.int32)
        self._placeholders: dict[int, np.ndarray] = {}
        self._op = 0  # steps of the same time run in the order of the ops
        self.image, self.order = self.new(height, width, channels), model.order()
        drawn = 1 + np.argsort(self.order).astype(np.int32)
        self.time[self.image.numbers.ravel()] = drawn
        self.turn = np.concatenate([[0], np.maximum.accumulate(drawn)])  # of each place: all before it are drawn
        x = self.placeholders(self.image.numbers.transpose(2, 0, 1)[None])
        with no_grad(), hook(self):
            result = model.network(_Unreadable(x), None if label is None else np.array([label]))
            self.result = self.numbers(result._array)
        if self.result.ndim != (4 if self.mixtures else 5):
            raise NotTraceable("logits made of something else than a mixture")

    # -- numbers. In arrays of the network's type they stand as bits: what moves numbers moves them.

    def new(self, height: int, width: int, channels: int, values: np.ndarray | None = None) -> Buffer:
        buffer = Buffer(self._count, (height, width, channels), values)
        self._count += height * width * channels
        if self._count >= 1 << 31:
            raise NotTraceable("more numbers than can be counted")
        if self._count > len(self.time):
            self.time = np.concatenate([self.time, np.zeros(self._count, np.int32)])
        self.buffers.append(buffer)
        return buffer

    def placeholders(self, numbers: np.ndarray) -> np.ndarray:
        return self._remember(numbers.astype(f"i{self.dtype.itemsize}").view(self.dtype))

    def _remember(self, array: np.ndarray) -> np.ndarray:
        self._placeholders[id(array)] = array
        return array

    def numbers(self, value: Any, shape: tuple[int, ...] = ()) -> np.ndarray:
        """The numbers behind an array; constants get numbers, along all channels of the shape that they go with."""
        array = np.asarray(value)
        if id(value) in self._placeholders:
            return np.ascontiguousarray(array).view(f"i{self.dtype.itemsize}")
        axis = 1 if len(shape) in (4, 5) else len(shape) - 1
        lengths = [1] * (len(shape) - array.ndim) + list(array.shape)
        lengths[axis] = shape[axis]
        rows = np.moveaxis(np.broadcast_to(array, lengths), axis, -1).astype(self.dtype)
        buffer = self.new(1, rows.size // rows.shape[-1], rows.shape[-1], rows.ravel())
        return np.moveaxis(buffer.numbers.reshape(rows.shape), -1, axis)

    # -- ops

    def __call__(self, call: Call, run: Callable[[], Any]) -> Any:
        """The engine's hook, in place of an op."""
        inputs = [v._array if isinstance(v, Tensor) else v for v in call.inputs]
        name = call.op.name
        if not any(id(v) in self._placeholders for v in inputs):
            return run()
        if call.op.view or name == "pad" or (name == "index_add" and is_basic(inputs[1])):
            return self._remember(run())  # which moves the placeholders
        if name in ("cat", "stack"):
            parts = [self.placeholders(self.numbers(v, v.shape)) for v in inputs[:-1]]
            return self._remember(call.op.body(*parts, inputs[-1]))
        self._op += 1
        rule = getattr(self, f"_{name}", None)
        if rule is None and name in SAMPLER_LAYERS:
            rule = functools.partial(self.elementwise, name)
        if rule is None:
            raise NotTraceable(f"{name} of the image")
        return rule(*inputs)

    def elementwise(self, kind: str, x: Any, y: Any = None) -> np.ndarray:
        """An op of one array, or of two with broadcasting."""
        shape = np.broadcast_shapes(np.shape(x), () if y is None else np.shape(y))
        mask, image = (x, y) if id(y) in self._placeholders else (y, x)
        if kind == "mul" and id(mask) not in self._placeholders and np.isin(mask, (0, 1)).all():
            return self.placeholders(np.where(mask, self.numbers(image), 0))
        a = np.broadcast_to(self.numbers(x, shape), shape)
        return self._combine(kind, a, a if y is None else np.broadcast_to(self.numbers(y, shape), shape))

    def _combine(self, kind: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Elementwise on numbers of one shape; in memory the channels come last."""
        order = {4: (2, 3, 0, 1), 5: (3, 4, 0, 2, 1)}.get(x.ndim, tuple(range(x.ndim)))
        rows, others = x.transpose(order), y.transpose(order)
        height, width = rows.shape[:2] if x.ndim in (4, 5) else (1, x.size // x.shape[-1])
        out = self.new(height, width, x.size // (height * width))
        self.note(kind, out.numbers, rows.reshape(out.shape), others.reshape(out.shape))
        return self.placeholders(out.numbers.reshape(rows.shape).transpose(np.argsort(order)))

    def note(self, kind: str, out: np.ndarray, x: np.ndarray, y: np.ndarray, rank: np.ndarray | None = None) -> None:
        """An elementwise step of numbers (..., C), and when they are known."""
        out, x, y = (v.reshape(-1, out.shape[-1]) for v in (out, x, y))
        time = self.time[out] = np.maximum(self.time[x], self.time[y])
        self.notes.append(Elementwise(kind, out, x, y, time, self._rank(len(out), rank)))

    def _rank(self, n: int, rank: np.ndarray | None) -> np.ndarray:
        return (self._op << 32) + (np.zeros(n, np.int64) if rank is None else rank)

    def _elu(self, x: Any, alpha: float) -> np.ndarray:
        if alpha != 1.0:
            raise NotTraceable("elu of the image with another alpha")
        return self.elementwise("elu", x)

    def _neg(self, x: Any) -> np.ndarray:
        return self.elementwise("sub", 0.0, x)

    def _gated_activation(self, x: Any) -> np.ndarray:
        numbers, half = self.numbers(x), x.shape[1] // 2
        return self._combine("gated", numbers[:, :half], numbers[:, half:])

    # -- products

    def source(self, numbers: np.ndarray) -> Buffer:
        """The buffer that has just these numbers (H, W, C); if there is none, one to which they are copied."""
        for buffer in self.buffers:
            if buffer.first == numbers[0, 0, 0] and np.array_equal(buffer.numbers, numbers):
                return buffer
        copy = self.new(*numbers.shape)
        self.note("copy", copy.numbers, numbers, numbers)
        return copy

    def latest(self, source: Buffer, taps: list[Tap], row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """When all that the taps see is known."""
        height, width, _ = source.shape
        time, known = np.zeros(len(row), np.int32), self.time[source.numbers]
        for tap in taps:
            r, c = row + tap.row, column + tap.column
            inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
            seen = known[..., tap.channel : tap.channel + len(tap.weight)].max(-1)
            time[inside] = np.maximum(time[inside], seen[r[inside], c[inside]])
        return time

    def product(
        self, source: Buffer, taps: list[Tap], row: np.ndarray, column: np.ndarray, bias: np.ndarray, out: np.ndarray,
        y: np.ndarray | None = None, time: np.ndarray | None = None, rank: np.ndarray | None = None,
        earliest: Any = 0,
    ) -> None:  # fmt: skip
        """A product at these pixels of the source; time: by default as soon as its taps are known, and not earlier."""
        height, width, _ = source.shape
        for tap in taps:
            r, c = row + tap.row, column + tap.column
            needed = -r.min(), r.max() - height + 1, -c.min(), c.max() - width + 1
            source.border = [max(old, int(new)) for old, new in zip(source.border, needed, strict=True)]
            source.whole |= (tap.row, tap.column) != (0, 0)
        if time is None:
            time = np.maximum(self.latest(source, taps, row, column), earliest)
            self.time[out[:, None] + np.arange(len(bias))] = time[:, None]
        self.notes.append(Product(source, row, column, taps, bias, out, y, time, self._rank(len(row), rank)))

    def _conv2d(self, x: Any, weight: Any, bias: Any, geometry: Geometry, relu: bool, add: Any) -> np.ndarray:
        if relu:
            x = self.elementwise("relu", x)
            self._op += 1
        if add is not None:
            product = self._conv2d(x, weight, bias, geometry, False, None)
            self._op += 1
            return self.elementwise("add", product, add)
        if geometry.groups > 1:
            raise NotTraceable("a convolution in groups")
        source = self.source(self.numbers(x)[0].transpose(1, 2, 0))
        size = geometry.out_size(x.shape[2:], weight.shape[2:])
        out = self.new(size[0], size[1], len(weight))
        row, column = (a.ravel() * s for a, s in zip(np.indices(size), geometry.stride, strict=True))
        turn: Any = 0
        height, width, colors = self.image.shape
        if geometry.mask and source.shape[0] == height and source.shape[1] >= width:  # not before the pixel's turn
            turn = self.turn[(row * width + np.minimum(column, width)) * colors]
        for group in np.split(np.arange(len(weight)), geometry.channels):
            taps = []
            for (i, j), _, keep in geometry.taps(weight.shape, size):
                n = weight.shape[1] if keep is None else int(keep[group[0]].sum())  # channels in order: the first n
                if n:
                    down, across = (
                        t * d - p for t, d, p in zip((i, j), geometry.dilation, geometry.padding, strict=True)
                    )
                    taps.append(Tap(down, across, 0, weight[group, :n, i, j].T))
            first = out.numbers[:, :, group[0]].ravel()
            shift = _bias(bias, len(weight), weight.dtype)[group]
            self.product(source, taps, row, column, shift, first, earliest=turn)
        return self.placeholders(out.numbers.transpose(2, 0, 1)[None])

    def _conv_transpose2d(
        self, y: Any, weight: Any, bias: Any, size: Any, geometry: Geometry, positive: Any
    ) -> np.ndarray:  # fmt: skip
        stride, padding, dilation = geometry.stride, geometry.padding, geometry.dilation
        if geometry.mask or geometry.groups > 1 or positive is not None:
            raise NotTraceable("a transposed convolution with a mask or in groups")
        source = self.source(self.numbers(y)[0].transpose(1, 2, 0))
        out = self.new(size[0], size[1], weight.shape[1])
        for phase in itertools.product(*map(range, stride)):  # pixels of one phase see the same taps
            every = (slice(None), *(slice(p, None, s) for p, s in zip(phase, stride, strict=True)))
            row, column = np.indices(size)[every].reshape(2, -1)
            taps = []
            for tap in np.ndindex(weight.shape[2:]):
                far = [p + pad - t * d for p, pad, t, d in zip(phase, padding, tap, dilation, strict=True)]
                if all(f % s == 0 for f, s in zip(far, stride, strict=True)):
                    taps.append(Tap(far[0] // stride[0], far[1] // stride[1], 0, weight[:, :, *tap]))
            taps.sort(key=lambda tap: tap[:2])
            first, shift = out.numbers[row, column, 0], _bias(bias, weight.shape[1], weight.dtype)
            self.product(source, taps, row // stride[0], column // stride[1], shift, first)
        return self.placeholders(out.numbers.transpose(2, 0, 1)[None])

    def _linear(self, x: Any, weight: Any, bias: Any) -> np.ndarray:
        """Pixel by pixel. Of one pixel with masks (MADE): a value is added to all that sees it once it is known."""
        numbers, shift = self.numbers(x), _bias(bias, len(weight), weight.dtype)
        source = self.source(numbers[0] if x.ndim == 4 else numbers.reshape(1, -1, x.shape[-1]))
        height, width, _ = source.shape
        out = self.new(height, width, len(weight))
        row, column = (a.ravel() for a in np.indices((height, width)))
        result = self.placeholders(out.numbers.reshape(*x.shape[:-1], len(weight)))
        seen = weight.T != 0
        if height * width > 1 or seen.all():
            self.product(source, [Tap(0, 0, 0, weight.T)], row, column, shift, out.numbers[:, :, 0].ravel())
            return result
        known = self.time[source.numbers[0, 0]]
        self.time[out.numbers[0, 0]] = np.where(seen, known[:, None], 0).max(0)
        self.product(source, [], row, column, shift, out.numbers[0, :, 0], time=np.zeros(1, np.int32))
        for rows in np.split(np.arange(len(seen)), np.flatnonzero(np.diff(known)) + 1):
            columns = np.flatnonzero(seen[rows].any(0))
            if len(columns):
                begin, end = columns[0] // WIDE * WIDE, columns[-1] + 1
                tap, first = Tap(0, 0, rows[0], weight.T[rows, begin:end]), out.numbers[0, :, begin]
                self.product(source, [tap], row, column, shift[begin:end], first, first, known[rows[:1]])
        return result

    def _nade(self, x: Any, weight: Any, bias: Any, output: Any) -> np.ndarray:
        """The sum before the sigmoid is one buffer, to which values are added in order."""
        source = self.source(self.numbers(x).reshape(1, 1, -1))
        known = self.time[source.numbers[0, 0]]
        if (np.diff(known) < 0).any():
            raise NotTraceable("nade of values in another order")
        total, hidden = self.new(1, 1, len(bias)), self.new(1, 1, len(bias))  # for one value after the other
        out, here = self.new(1, *output.shape[:2]), np.zeros(1, np.int64)
        first, shift = total.numbers[0, :, 0], np.zeros(output.shape[1], output.dtype)
        results = out.numbers[0]  # made once: what is noted are views of it
        for d, time in enumerate(np.concatenate([[0], known[:-1]])[:, None]):
            taps = [Tap(0, 0, d - 1, weight[d - 1 : d])] if d else []
            self.product(source, taps, here, here, bias, first, first if d else None, time, here + 3 * d)
            self.time[total.numbers] = time
            self.note("sigmoid", hidden.numbers, total.numbers, total.numbers, here + 3 * d + 1)
            self.time[results[d]] = time
            tap = Tap(0, 0, 0, output[d].T)
            self.product(hidden, [tap], here, here, shift, results[d, :1], None, time, here + 3 * d + 2)
        return self.placeholders(out.numbers)

    # -- recurrence

    def _lstm(
        self, x: Any, weight: Any, h0: Any, c0: Any, diagonal: int, w_ih: Any, bias: Any, keep: bool
    ) -> tuple[np.ndarray, ...]:
        """Over an image: the gates as a product with h beside what x gives them, then c and h elementwise."""
        if x.ndim != 4 or w_ih is not None:
            raise NotTraceable("an LSTM that isn't over an image")
        z, units = self.numbers(x)[0], weight.shape[1]
        height, width, _ = z.shape
        gates, h, c, new, old = (self.new(height, width, n * units) for n in (4, 1, 1, 1, 1))
        side = weight.shape[3] // 2
        seen = [(-1, 0), (0, -diagonal)] if diagonal else [(-1, j - side) for j in range(2 * side + 1)]
        row, column = (a.ravel() for a in np.indices((height, width)))
        rank = 8 * (row * width + (width - 1 - column if diagonal < 0 else column))
        before = _time_before(self.time[z].max(-1), seen, diagonal)
        self.time[gates.numbers] = np.maximum(self.time[z], before[..., None])
        parts = (np.diff(z, axis=2) != 1) | (np.diff(self.time[z], axis=2) != 0)  # known, and in memory, together
        for part in np.split(np.arange(4 * units), np.flatnonzero(parts.any((0, 1))) + 1):
            kernel = zip(seen, np.ndindex(weight.shape[2:]), strict=True)
            taps = [Tap(*far, 0, weight[part, :, *k].T) for far, k in kernel]
            first, given = (a[:, :, part[0]].ravel() for a in (gates.numbers, z))
            self.product(h, taps, row, column, _bias(None, len(part), self.dtype), first, given, self.time[first], rank)
        i, f, g, o = (gates.numbers[:, :, k * units : (k + 1) * units] for k in range(4))
        last = _moved(c.numbers, *seen[len(seen) // 2])  # the pixel above; along diagonals the one beside
        self.note("gated", new.numbers, g, i, rank + 1)
        self.note("sigmoid", old.numbers, f, f, rank + 2)
        self.note("mul", old.numbers, old.numbers, last, rank + 3)
        self.note("add", c.numbers, new.numbers, old.numbers, rank + 4)
        self.note("gated", h.numbers, c.numbers, o, rank + 5)
        return tuple(self.placeholders(b.numbers[None]) for b in (h, c, gates))


def _bias(bias: Any, n: int, dtype: Any) -> np.ndarray:
    return np.zeros(n, dtype) if bias is None else bias


def _moved(numbers: np.ndarray, row: int, column: int) -> np.ndarray:
    """At each pixel the numbers of the one so far from it, number 0 outside."""
    height, width, _ = numbers.shape
    wide = np.pad(numbers, ((1, 1), (1, 1), (0, 0)))
    return wide[1 + row : 1 + row + height, 1 + column : 1 + column + width]


def _time_before(known: np.ndarray, seen: list[tuple[int, int]], diagonal: int) -> np.ndarray:
    """When all states that a pixel's LSTM sees are known, (H, W), if what the image gives it is known at `known`."""
    height, width = known.shape
    before, latest = np.zeros_like(known), known.copy()
    for y in range(height):
        for x in range(width)[:: -1 if diagonal < 0 else 1]:
            for row, column in seen:
                if y + row >= 0 and 0 <= x + column < width:
                    before[y, x] = max(before[y, x], latest[y + row, x + column])
            latest[y, x] = max(known[y, x], before[y, x])
    return before
