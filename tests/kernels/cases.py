"""Random calls of every kernel, each with its answer and how far from it rounding may lead.

`KERNELS` maps a kernel's name to a function (rng, **wanted) -> Case. Inputs are numbers that float32 holds
exactly, so one answer, in float64, serves both types. The bound of an output is eps * scale, elementwise: scale is the
sum of the absolute values of what is added up, times its number of terms; where it is 0 the answer is exact.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from tests.kernels import definitions
from tests.kernels.memory import Place, anywhere
from tinygen.kernels import library

DTYPES = (np.float32, np.float64)


class In(NamedTuple):
    array: np.ndarray


class Out(NamedTuple):
    shape: tuple[int, ...]


class InOut(NamedTuple):
    array: np.ndarray


class Struct(NamedTuple):
    type: str
    fields: SimpleNamespace


@dataclass
class Case:
    kernel: str
    arguments: list[Any]  # as in the prototype, without dtype and threads
    answers: list[tuple[np.ndarray, np.ndarray | float]]  # (answer, scale) of each Out and InOut

    def call(
        self, dtype: type, threads: int = 1, place: Place = anywhere, on: Any = library
    ) -> tuple[int, list[np.ndarray]]:
        """The kernel's code and what it writes. Outputs hold NaN before; inputs are seen to be the same after.

        on: what has the library that is called, as `lib`, and its `ffi`.
        """
        kept, outputs = [], []

        def passed(slot: int, a: Any) -> Any:
            if isinstance(a, list):  # of arrays, or of sizes
                values = [passed(100 * (slot + 1) + i, part) for i, part in enumerate(a)]
                return on.ffi.new("int64_t[]" if isinstance(a[0], int) else "void *[]", values)
            if isinstance(a, Struct):
                return on.ffi.new(a.type, vars(a.fields))
            if not isinstance(a, (In, Out, InOut)):
                return on.ffi.NULL if a is None else a
            array = np.full(a.shape, np.nan) if isinstance(a, Out) else a.array
            array = array.astype(dtype) if array.dtype.kind == "f" else array
            placed = place(slot, array, not isinstance(a, In))
            if isinstance(a, In):
                kept.append((placed, array))
            else:
                outputs.append(placed)
            return on.ffi.cast("void *", placed.ctypes.data)

        arguments = [passed(slot, a) for slot, a in enumerate(self.arguments)]
        code = getattr(on.lib, self.kernel)(DTYPES.index(dtype), *arguments, threads)
        for placed, before in kept:
            assert placed.tobytes() == before.tobytes(), f"{self}: an input has changed"
        return code, [np.array(a) for a in outputs]

    def run(self, dtype: type, threads: int = 1, place: Place = anywhere, on: Any = library) -> list[np.ndarray]:
        """What the kernel writes."""
        code, outputs = self.call(dtype, threads, place, on)
        assert code == 0, f"{self}: error {code}"
        return outputs

    def check(self, outputs: list[np.ndarray]) -> None:
        for number, (got, (answer, scale)) in enumerate(zip(outputs, self.answers, strict=True)):
            error, bound = np.abs(got - answer), (np.finfo(got.dtype).eps if got.dtype.kind == "f" else 0) * scale
            assert (error <= bound).all(), (
                f"{self}, output {number}: {np.sum(~(error <= bound))} of {got.size} wrong, "
                f"error {error.max()}, first at {np.argwhere(~(error <= bound))[0]}"
            )

    def __str__(self) -> str:
        def show(a):
            if isinstance(a, (In, InOut)):
                return f"{type(a).__name__}{a.array.shape}"
            return str(vars(a.fields)) if isinstance(a, Struct) else str(a)

        return f"{self.kernel}({', '.join(map(show, self.arguments))})"


def normal(rng, *shape, spread=1.0):
    return (spread * rng.standard_normal(shape)).astype(np.float32).astype(np.float64)


def maybe(rng, value, chance=0.7):
    return value if rng.random() < chance else None


# --------------------------------------------------------------------------------------------------------- convolution

_CHANNELS = (1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33, 48, 64, 65, 70)
_WORK = 1 << 23  # multiply-adds of a case at most


def conv_shape(rng, **wanted) -> SimpleNamespace:
    """Any sizes that the header allows, of moderate work: also crops, gaps, outputs that only see padding, no image."""
    for _ in range(1000):
        kind = rng.choice([_masked, _dense, _small, _plain, _narrow], p=[0.25, 0.2, 0.15, 0.35, 0.05])
        s, most = kind(rng), _WORK * (4 if kind is _dense else 1)
        vars(s).update(wanted)
        if s.n * s.oh * s.ow * s.kh * s.kw * s.ci * s.co <= most and s.n * s.h * s.w * s.ci < 1 << 19:
            return s
    raise ValueError(f"no shape with {wanted} is small enough")


def _plain(rng):
    pick, kind = (
        rng.integers,
        rng.choice(["small", "wide", "large", "few", "odd"], p=[0.4, 0.2, 0.2, 0.1, 0.1]),
    )
    image, channels = (45, _CHANNELS[:12]) if kind in ("large", "few") else (12, _CHANNELS)
    s = SimpleNamespace(n=int(pick(1, 3) if kind == "large" else pick(0, 6)), mask=0, groups=1)
    if kind == "wide":
        image, channels = 4, (96, 128, 130, 192, 256, 300, 520, 700, 1, 4, 16)
    s.ci, s.co = int(rng.choice(channels)), int(pick(1, 5) if kind == "few" else rng.choice(channels))
    for axis in "hw":
        size, k, stride = int(pick(1, image + 1)), int(pick(1, 5)), int(pick(1, 5) if kind != "few" else 1)
        dilation, padding = int(pick(1, 4)), int(pick(0, 4))
        extent = size + 2 * padding - dilation * (k - 1) - 1
        out = extent // stride + 1 if extent >= 0 else int(pick(1, 3))
        if kind == "odd":  # nothing fits: the formula holds all the same
            size, out, padding = int(pick(0, 9)), int(pick(0, 9)), int(pick(-4, 9))
        vars(s).update(
            zip(
                (axis, "o" + axis, "k" + axis, f"stride_{axis}", f"pad_{axis}", f"dil_{axis}"),
                (size, out, k, stride, padding, dilation),
                strict=True,
            )
        )
    return s


def _dense(rng):
    """3 x 3 taps, with mask B or none, or 4 x 4 with a stride of 2, of many channels: there are algorithms for them."""
    pick = rng.choice
    stride, mask, channels, tiles = ((1, 0, 32, 56), (1, 2, 64, 28), (2, 0, 32, 168))[rng.integers(3)]
    oh, ow = (int(pick((4, 5, 6, 7, 8))) for _ in range(2))
    n = -(-tiles // (((oh + 1) // 2) * ((ow + 1) // 2))) + int(pick(2))
    ci, co = (channels + int(c) for c in pick(((0, 0), (0, 16), (16, 0), (0, 48), (48, 0), (32, 0), (0, 32))))
    pad_h, pad_w = (int(pick((1, 1, 1, 1, 0))) if not mask else 1 for _ in range(2))
    return SimpleNamespace(
        n=n, h=oh * stride, w=ow * stride, ci=ci, oh=oh, ow=ow, co=co, kh=2 + stride, kw=2 + stride, stride_h=stride,
        stride_w=stride, pad_h=pad_h, pad_w=pad_w, dil_h=1, dil_w=1, mask=mask, groups=1,
    )  # fmt: skip


def _narrow(rng):
    """1 x 1 kernels between as many channels, a few, for which there is another."""
    n, h, w, c = (int(rng.integers(*between)) for between in ((1, 5), (6, 30), (6, 30), (2, 13)))
    ones = dict.fromkeys(("kh", "kw", "stride_h", "stride_w", "dil_h", "dil_w", "groups"), 1)
    return SimpleNamespace(n=n, h=h, w=w, ci=c, oh=h, ow=w, co=c, pad_h=0, pad_w=0, mask=0, **ones)


def _small(rng):
    """Small images between many channels, whose taps lie outside of the image often: another such algorithm."""
    pick = rng.integers
    s = SimpleNamespace(ci=int(rng.choice((64, 65, 72, 80))), co=int(rng.choice((64, 66, 72, 80))), mask=0, groups=1)
    deep = rng.random() < 0.4  # a tap that is cut
    if deep:
        s.ci, s.co = (int(c) for c in rng.permutation((300, 64)))
    for axis in "hw":
        k, stride, dilation, out = int(pick(1, 4)), int(pick(1, 4)), int(pick(1, 3)), int(pick(1, 5))
        k = k if not deep else 1 if axis == "h" else 2
        padding = int(pick(0, 3))
        size = max(1, (out - 1) * stride + dilation * (k - 1) + 1 - 2 * padding + int(pick(0, stride)))
        names = (axis, "o" + axis, "k" + axis, f"stride_{axis}", f"pad_{axis}", f"dil_{axis}")
        vars(s).update(zip(names, (size, out, k, stride, padding, dilation), strict=True))
    s.n = -(-128 // (s.oh * s.ow)) + int(pick(3))
    return s


def _masked(rng):
    pick = rng.integers
    groups, kh, kw = int(pick(1, 4)), *(int(rng.choice((1, 3, 5, 7))) for _ in range(2))
    h, w = int(pick(1, 11)), int(pick(1, 11))
    return SimpleNamespace(
        n=int(pick(1, 4)), h=h, w=w, ci=groups * int(pick(1, 12)), oh=h, ow=w, co=groups * int(pick(1, 24)), kh=kh,
        kw=kw, stride_h=1, stride_w=1, pad_h=kh // 2, pad_w=kw // 2, dil_h=1, dil_w=1,
        mask=int(pick(1, 3)), groups=groups,
    )  # fmt: skip


def _images(rng, s):
    return normal(rng, s.n, s.h, s.w, s.ci), normal(rng, s.n, s.oh, s.ow, s.co)


def _weight(rng, s):
    """NaN stands where the mask forbids to look."""
    return np.where(definitions.all_keeps(s), normal(rng, s.kh, s.kw, s.ci, s.co), np.nan)


def conv2d(rng, **wanted):
    s = conv_shape(rng, **wanted)
    (x, y), w, bias = _images(rng, s), _weight(rng, s), maybe(rng, normal(rng, s.co))
    relu, add = int(rng.integers(2)), maybe(rng, y, 0.5)
    seen = np.maximum(x, 0) if relu else x
    answer = definitions.conv2d(s, seen, w, bias)
    scale = definitions.conv2d(s, abs(seen), abs(w), None if bias is None else abs(bias))
    if add is not None:
        answer, scale = answer + add, scale + abs(add)
    arguments = [Struct("tg_conv_shape *", s), relu, In(x), In(w), _given(bias), _given(add), Out(answer.shape)]
    return Case("tg_conv2d", arguments, [(answer, scale * (s.kh * s.kw * s.ci + 2 + (add is not None)))])


def conv_transpose2d(rng, **wanted):
    s = conv_shape(rng, **wanted)
    (x, y), w, bias = _images(rng, s), _weight(rng, s), maybe(rng, normal(rng, s.ci))
    x[rng.random(x.shape) < 0.1] = 0
    positive = maybe(rng, x, 0.5)
    answer = definitions.conv_transpose2d(s, y, w, bias)
    scale = definitions.conv_transpose2d(s, abs(y), abs(w), None if bias is None else abs(bias))
    if positive is not None:
        answer, scale = np.where(positive > 0, answer, 0), scale * (positive > 0)
    arguments = [Struct("tg_conv_shape *", s), In(y), In(w), _given(bias), _given(positive), Out(answer.shape)]
    return Case("tg_conv_transpose2d", arguments, [(answer, scale * (s.kh * s.kw * s.co + 2))])


def conv2d_weight(rng, **wanted):
    s = conv_shape(rng, **wanted)
    (x, gy), relu = _images(rng, s), int(rng.integers(2))
    seen = np.maximum(x, 0) if relu else x
    sums = (definitions.conv2d_weight(s, *arrays) for arrays in ((seen, gy), (abs(seen), abs(gy))))
    answers = list(zip(*sums, strict=True))
    answers = [(answer, scale * (s.n * s.oh * s.ow + 2)) for answer, scale in answers]
    outputs = [Out(answer.shape) for answer, _ in answers]
    if rng.random() < 0.3:
        outputs[1], answers = None, answers[:1]
    return Case("tg_conv2d_weight", [Struct("tg_conv_shape *", s), relu, In(x), In(gy), *outputs], answers)


def _given(array):
    return array if array is None else In(array)


# ---------------------------------------------------------------------------------------------------------- recurrence


def lstm_shape(rng, **wanted) -> SimpleNamespace:
    pick = rng.integers
    diagonal = int(pick(-1, 2))
    s = SimpleNamespace(n=int(pick(0, 4)), h=int(pick(0, 6)), w=int(pick(0, 7)), diagonal=diagonal)
    s.taps = 2 if diagonal else int(rng.choice((1, 3, 5)))
    s.units = int(rng.choice((1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 20, 32, 33)))
    if s.taps == 1 and rng.random() < 0.7:  # a sequence, with a batch that is worth several threads
        s.n, s.w = 1, int(pick(0, 70))
    vars(s).update(wanted)
    return s


def _lstm_arrays(rng, s):
    """z, u and (h0, c0) or (None, None)."""
    u = normal(rng, s.taps, s.units, 4, s.units, spread=0.5 / np.sqrt(s.units * s.taps))
    initial = s.n == 1 and not s.diagonal and rng.random() < 0.7
    states = [normal(rng, s.w, s.units) if initial else None for _ in range(2)]
    return normal(rng, s.n, s.h, s.w, 4, s.units), u, states


def _maybe_in(array):
    return None if array is None else In(array)


def _float32(*arrays):
    return [a.astype(np.float32).astype(np.float64) for a in arrays]


def _lstm_scale(s, answer):
    """Errors grow from step to step, but U's norm is below 1."""
    return (abs(answer) + 1) * 32 * (s.taps * s.units + s.h + s.w)


def lstm(rng, keep=None, **wanted):
    s = lstm_shape(rng, **wanted)
    keep = rng.random() < 0.7 if keep is None else keep
    z, u, states = _lstm_arrays(rng, s)
    answers = definitions.lstm(s, z, u, *states)
    inputs = [In(z), In(u), *map(_maybe_in, states)]
    outputs = [Out(a.shape) for a in answers]
    if not keep:
        outputs[0], answers = None, answers[1:]
    arguments = [Struct("tg_lstm_shape *", s), *inputs, *outputs]
    return Case("tg_lstm", arguments, [(a, _lstm_scale(s, a)) for a in answers])


def lstm_backward(rng, **wanted):
    s = lstm_shape(rng, **wanted)
    z, u, (h0, c0) = _lstm_arrays(rng, s)
    gates, c, _ = _float32(*definitions.lstm(s, z, u, h0, c0))
    gh, gc = (maybe(rng, normal(rng, *c.shape)) for _ in range(2))
    answers = definitions.lstm_backward(s, u, c0, gates, c, gh, gc)
    answers = answers[:1] if h0 is None or rng.random() < 0.2 else answers
    outputs = [Out(a.shape) for a in answers] + [None] * (3 - len(answers))
    inputs = [In(u), _maybe_in(c0), In(gates), In(c), _maybe_in(gh), _maybe_in(gc)]
    arguments = [Struct("tg_lstm_shape *", s), *inputs, *outputs]
    return Case("tg_lstm_backward", arguments, [(a, 8 * _lstm_scale(s, a)) for a in answers])


def lstm_weight(rng, **wanted):
    s = lstm_shape(rng, **wanted)
    h, gz = normal(rng, s.n, s.h, s.w, s.units), normal(rng, s.n, s.h, s.w, 4, s.units)
    answer, scale = definitions.lstm_weight(s, h, gz), definitions.lstm_weight(s, abs(h), abs(gz))
    arguments = [Struct("tg_lstm_shape *", s), In(h), In(gz), Out(answer.shape)]
    return Case("tg_lstm_weight", arguments, [(answer, scale * (s.n * s.h * s.w + 2))])


# --------------------------------------------------------------------------------------------------------- elementwise

_LENGTHS = (
    0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 65, 100, 1000, 16383, 16384, 16385, 33000, 70001,
)  # fmt: skip


def _length(rng, n=None):
    return int(rng.choice(_LENGTHS, p=_falling(len(_LENGTHS)))) if n is None else n


def _falling(count):
    """Probabilities that fall, so that long arrays are rarer."""
    p = np.arange(count, 0, -1.0)
    return p / p.sum()


def _elementwise(name, definition, inputs, roundings, choices=()):
    """choices: for each number that comes before the arrays, those it is one of."""

    def make(rng, **wanted):
        n = _length(rng, **wanted)
        numbers = [float(rng.choice(c)) for c in choices]
        arrays = [normal(rng, n, spread=rng.choice((0.1, 1, 5))) for _ in range(inputs)]
        arrays = [np.where(rng.random(n) < 0.05, 0, a) for a in arrays]
        answer = definition(*numbers, *arrays)
        return Case(name, [n, *numbers, *map(In, arrays), Out((n,))], [(answer, abs(answer) * roundings)])

    return make


def positive(name, definition):
    """Of numbers above 0, tiny and huge ones among them."""

    def make(rng, **wanted):
        n = _length(rng, **wanted)
        (x,) = _float32(np.clip(np.exp(rng.choice((0.1, 3, 40)) * rng.standard_normal(n)), 1e-37, 1e38))
        answer = definition(x)
        return Case(name, [n, In(x), Out((n,))], [(answer, 4 * abs(answer))])

    return make


def silu_backward(rng, **wanted):
    n = _length(rng, **wanted)
    gy, x = normal(rng, n), normal(rng, n, spread=rng.choice((0.1, 1, 5)))
    answer, scale = gy * definitions.silu_slope(x), 8 * abs(gy) * (1 + abs(x))  # 1 + x (1 - s) cancels
    return Case("tg_silu_backward", [n, In(gy), In(x), Out((n,))], [(answer, scale)])


_SLOPES = (0, 0.01, 0.2, -1.5)


def transpose(rng, **wanted):
    n, rows, columns = (int(s) for s in rng.integers(0, 40, 3))
    wide = rng.integers(3)  # one side so long that it is cut into several items
    rows, columns = (rows * 60 if wide == 1 else rows), (columns * 60 if wide == 2 else columns)
    x = normal(rng, min(n, 3) if wide else n, rows, columns)
    answer = x.transpose(0, 2, 1)
    return Case("tg_transpose", [*x.shape, In(x), Out(answer.shape)], [(answer, 0)])


def _joined(rng, *, rows=None, columns=None):
    """Rows of one array, and as many of another."""
    if rows is None:
        rows, columns = int(rng.choice((0, 1, 3, 40, 5000))), rng.choice((0, 1, 3, 4, 16, 33, 70), 2)
    return [normal(rng, rows, int(n)) for n in columns]


def cat(rng, **wanted):
    x, y = _joined(rng, **wanted)
    answer = np.concatenate([x, y], 1)
    return Case("tg_cat", [len(x), x.shape[1], y.shape[1], In(x), In(y), Out(answer.shape)], [(answer, 0)])


def cat_backward(rng, **wanted):
    gx, gy = _joined(rng, **wanted)
    gout = np.concatenate([gx, gy], 1)
    arguments = [len(gx), gx.shape[1], gy.shape[1], In(gout), Out(gx.shape), Out(gy.shape)]
    return Case("tg_cat_backward", arguments, [(gx, 0), (gy, 0)])


_ROWS = ((0, 3), (3, 0), (1, 1), (2, 3), (5, 8), (4, 9), (3, 16), (7, 17), (6, 31), (2, 33), (500, 20), (3000, 9))


def _rows(rng, rows=None, channels=None):
    some = _ROWS[rng.choice(len(_ROWS), p=_falling(len(_ROWS)))]
    return (some[0] if rows is None else rows), (some[1] if channels is None else channels)


def gated(rng, **wanted):
    rows, channels = _rows(rng, **wanted)
    x = normal(rng, rows, 2, channels, spread=2)
    answer = definitions.gated(x)
    return Case("tg_gated", [rows, channels, In(x), Out(answer.shape)], [(answer, 16 * abs(answer))])


def gated_backward(rng, **wanted):
    rows, channels = _rows(rng, **wanted)
    x, gy = normal(rng, rows, 2, channels, spread=2), normal(rng, rows, channels)
    answer = definitions.gated_backward(x, gy)
    scale = 16 * np.broadcast_to(abs(gy)[:, None], x.shape)  # 1 - t * t and 1 - s cancel
    return Case("tg_gated_backward", [rows, channels, In(x), In(gy), Out(x.shape)], [(answer, scale)])


# ---------------------------------------------------------------------------------------------------------- affine maps


def _coupling_arrays(rng, n=None, pixels=None, channels=None, k=None):
    n = int(rng.choice((0, 1, 2, 5, 9))) if n is None else n
    pixels = int(rng.choice((0, 1, 3, 9, 49, 130, 300))) if pixels is None else pixels
    channels = int(rng.choice((1, 2, 3, 4, 5, 8, 12, 17))) if channels is None else channels
    if k is None and rng.random() < 0.1:  # so many channels that a block doesn't hold a pixel's
        n, pixels, channels = min(n, 2), min(pixels, 3), 1100
    k = int(rng.integers(0, channels + 1)) if k is None else k
    x, both = normal(rng, n, pixels, channels), normal(rng, n, pixels, 2, k, spread=rng.choice((0.3, 3)))
    return x, both, int(rng.integers(0, channels - k + 1))


def affine_coupling(rng, **wanted):
    x, both, start = _coupling_arrays(rng, **wanted)
    y, log_det = definitions.affine_coupling(x, both, start)
    k = both.shape[3]
    scale = np.zeros(x.shape)  # what isn't changed is the same
    scale[:, :, start : start + k] = 32 * abs(x[:, :, start : start + k]) * 8 + 2 * abs(both[:, :, 1])
    sums = (8 + x.shape[1] * k / 4) * (2 * np.ones(both[:, :, 0].shape)).sum((1, 2))
    arguments = [*x.shape, k, start, In(x), In(both), Out(x.shape), Out(log_det.shape)]
    return Case("tg_affine_coupling", arguments, [(y, scale), (log_det, sums)])


def affine_coupling_backward(rng, **wanted):
    x, both, start = _coupling_arrays(rng, **wanted)
    given = (True, True) if wanted else [(True, True), (True, False), (False, True)][rng.integers(3)]
    gy, glog_det = (maybe(rng, a, g) for a, g in zip((normal(rng, *x.shape), normal(rng, len(x))), given, strict=True))
    zeros = np.zeros(x.shape) if gy is None else gy, np.zeros(len(x)) if glog_det is None else glog_det
    gx, gboth = definitions.affine_coupling_backward(x, both, start, *zeros)
    k = both.shape[3]
    changed = slice(start, start + k)
    size = abs(zeros[0][:, :, changed]) * 8
    of_x, of_both = np.zeros(x.shape), np.zeros(both.shape)
    of_x[:, :, changed] = 32 * size
    of_both[:, :, 0] = 64 * (size * abs(x[:, :, changed]) + abs(zeros[1])[:, None, None])  # 1 - s s / 4 cancels
    arguments = [*x.shape, k, start, In(x), In(both), _maybe_in(gy), _maybe_in(glog_det), Out(x.shape), Out(both.shape)]
    return Case("tg_affine_coupling_backward", arguments, [(gx, of_x), (gboth, of_both)])


def channel_affine(rng, **wanted):
    rows, channels = _rows(rng, **wanted)
    x, weight, bias = normal(rng, rows, channels), normal(rng, channels), normal(rng, channels)
    answers = [(x * weight + bias, 2 * (abs(x * weight) + abs(bias)))]
    return Case("tg_channel_affine", [rows, channels, In(x), In(weight), In(bias), Out(x.shape)], answers)


def channel_affine_backward(rng, **wanted):
    rows, channels = _rows(rng, **wanted)
    x, weight, gy = normal(rng, rows, channels), normal(rng, channels), normal(rng, rows, channels)
    answers, terms = definitions.channel_affine_backward(x, weight, gy), min(rows, 256) + 8
    scales = 2 * abs(answers[0]), terms * abs(gy * x).sum(0), terms * abs(gy).sum(0)
    outputs = [Out(a.shape) for a in answers]
    arguments = [rows, channels, In(x), In(weight), In(gy), *outputs]
    return Case("tg_channel_affine_backward", arguments, list(zip(answers, scales, strict=True)))


# ----------------------------------------------------------------------------------------------------------- over rows


def _norm_arrays(rng, rows=None, channels=None):
    rows = int(rng.choice((1, 2, 3, 5, 10, 255, 256, 257, 300, 700, 1024))) if rows is None else rows
    channels = int(rng.choice((0, 1, 2, 3, 4, 7, 8, 16, 17, 33))) if channels is None else channels
    x = normal(rng, rows, channels, spread=rng.choice((0.5, 3))) + np.round(4 * rng.standard_normal())
    (x,) = _float32(x)
    weight, bias = (maybe(rng, normal(rng, channels)) for _ in range(2))
    return x, weight, bias, float(rng.choice((1e-5, 1e-3, 0.1)))


def _size(x):
    """The largest number of each channel, times the additions that a chunk's mean takes."""
    return (min(len(x), 256) + 32) * (abs(x).max(0, initial=0) + 1e-30)


def batch_norm(rng, **wanted):
    x, weight, bias, eps = _norm_arrays(rng, **wanted)
    y, mean, var = definitions.batch_norm(x, weight, bias, eps)
    size, factor = _size(x), (1 if weight is None else abs(weight)) / np.sqrt(var + eps)
    of_var = 4 * size * (abs(x - mean).max(0, initial=0) + abs(x).max(0, initial=0) * 1e-2)
    scale = 4 * size * factor * (1 + of_var / (var + eps) / size * abs(x - mean)) + (0 if bias is None else abs(bias))
    arguments = [*x.shape, In(x), _maybe_in(weight), _maybe_in(bias), eps, Out(x.shape), *[Out(mean.shape)] * 2]
    return Case("tg_batch_norm", arguments, [(y, scale), (mean, size), (var, of_var)])


def batch_norm_backward(rng, **wanted):
    x, weight, _, eps = _norm_arrays(rng, **wanted)
    gy = normal(rng, *x.shape)
    mean, var = _float32(x.mean(0), x.var(0))
    centered, power = abs(x) + abs(mean), var + eps
    terms = min(len(x), 256) + 64
    dot = (abs(gy) * centered).sum(0)
    factor = (1 if weight is None else abs(weight)) / np.sqrt(power)
    scales = [
        terms * factor * (abs(gy) + abs(gy).mean(0) + centered * dot / len(x) / power),
        terms * dot / np.sqrt(power),
        terms * abs(gy).sum(0),
    ]
    answers = definitions.batch_norm_backward(x, weight, mean, var, eps, gy)
    outputs = [Out(x.shape), *[Out(mean.shape)] * 2]
    arguments = [*x.shape, In(x), _maybe_in(weight), In(mean), In(var), eps, In(gy), *outputs]
    return Case("tg_batch_norm_backward", arguments, list(zip(answers, scales, strict=True)))


def _group_arrays(rng, n=None, pixels=None, channels=None):
    """x, shift, weight, bias, the number of groups, and whether silu comes after."""
    n = int(rng.integers(0, 5)) if n is None else n
    pixels = int(rng.choice((1, 2, 3, 9, 49, 255, 256, 257, 600))) if pixels is None else pixels
    channels = int(rng.choice((1, 2, 3, 4, 6, 7, 8, 12, 16, 17, 32, 33))) if channels is None else channels
    groups = int(rng.choice([g for g in range(1, channels + 1) if channels % g == 0]))
    x = normal(rng, n, pixels, channels, spread=rng.choice((0.5, 3))) + np.round(2 * rng.standard_normal())
    (x,) = _float32(x)
    weight, bias = (maybe(rng, normal(rng, channels)) for _ in range(2))
    return x, maybe(rng, 2 * normal(rng, n, channels), 0.5), weight, bias, groups, int(rng.integers(2))


def _over_groups(x, groups, f):
    """f of each image's groups, and that for each channel: (n, groups) and (n, 1, channels)."""
    found = f(x.reshape(*x.shape[:2], groups, x.shape[2] // groups))
    return found, np.repeat(found, x.shape[2] // groups, 1)[:, None]


def _most(x, shift):
    """How large the numbers may be that x + shift is made of."""
    return abs(x) + (0 if shift is None else abs(shift)[:, None])


def group_norm(rng, **wanted):
    x, shift, weight, bias, groups, silu = _group_arrays(rng, **wanted)
    eps = float(rng.choice((1e-5, 1e-3, 0.1)))
    y, mean, rstd = definitions.group_norm(x, shift, weight, bias, groups, eps, silu)
    terms, large = min(x.shape[1], 256) + 32, _most(x, shift)
    most, of_each = _over_groups(large, groups, lambda a: a.max((1, 3), initial=1e-30))
    off = terms * 4 * rstd * (most + rstd * most**2)  # by how much rounding may move a standardized number
    moved = np.repeat(off, x.shape[2] // groups, 1)[:, None]
    scale = moved * (1 + large * np.repeat(rstd, x.shape[2] // groups, 1)[:, None])
    scale = scale * (1 if weight is None else abs(weight)) + (0 if bias is None else 16 * abs(bias)) + of_each * 1e-3
    inputs = [In(x), *map(_maybe_in, (shift, weight, bias))]
    arguments = [*x.shape, groups, silu, *inputs, eps, Out(x.shape), *[Out(mean.shape)] * 2]
    answers = [(y, 2 * scale), (mean, terms * most), (rstd, off * rstd * (1 + rstd * most))]
    return Case("tg_group_norm", arguments, answers)


def group_norm_backward(rng, **wanted):
    x, shift, weight, bias, groups, silu = _group_arrays(rng, **wanted)
    gy, width = normal(rng, *x.shape), x.shape[2] // groups
    mean, rstd = _float32(*definitions.group_norm(x, shift, weight, bias, groups, 1e-3, 0)[1:])
    answers = definitions.group_norm_backward(x, shift, weight, bias, mean, rstd, gy, silu)
    of_mean, of_rstd = (np.repeat(a, width, 1)[:, None] for a in (abs(mean), rstd))
    factor = 1 if weight is None else abs(weight)
    out = (_most(x, shift) + of_mean) * of_rstd  # standardized; 1 + it times the weight bounds what silu's slope adds
    terms = min(x.shape[1], 256) + 64
    size = 4 * abs(gy) * (1 + out * factor + (0 if bias is None else abs(bias)))
    total = _over_groups(size * factor, groups, lambda a: a.mean((1, 3)))[1]
    along = _over_groups(size * factor * out, groups, lambda a: a.mean((1, 3)))[1]
    of_gx = terms * of_rstd * (size * factor + total + out * along)
    scales = [
        of_gx, of_gx.sum(1), terms * (size * out).sum((0, 1)),
        terms * size.sum((0, 1)),
    ]  # fmt: skip
    inputs = [In(x), *map(_maybe_in, (shift, weight, bias)), In(mean), In(rstd), In(gy)]
    outputs, found = [Out(a.shape) for a in answers], list(zip(answers, scales, strict=True))
    if shift is None:
        outputs[1] = None
        del found[1]
    return Case("tg_group_norm_backward", [*x.shape, groups, silu, *inputs, *outputs], found)


def _attention_arrays(rng, n=None, queries=None, keys=None, size=None, width=None):
    n = int(rng.integers(0, 4)) if n is None else n
    sizes = (int(rng.choice((1, 2, 3, 5, 8, 15, 16, 17, 33, 49, 70))) for _ in range(4))
    queries, keys, size, width = (
        b if a is None else a for a, b in zip((queries, keys, size, width), sizes, strict=True)
    )
    return normal(rng, n, queries, size), normal(rng, n, keys, size), normal(rng, n, keys, width)


def _attention_sizes(q, k, v):
    return [*q.shape[:2], k.shape[1], q.shape[2], v.shape[2]]


def attention(rng, **wanted):
    (q, k, v), scale = _attention_arrays(rng, **wanted), float(rng.choice((0.125, 0.5, 1)))
    p, y = definitions.attention(q, k, v, scale)
    terms = q.shape[2] + k.shape[1] + 8
    off = terms * (1 + scale * (abs(q) @ abs(k).transpose(0, 2, 1)).max(2, keepdims=True, initial=0))  # of p, relative
    scales = off * (p + 1e-30), (off * p) @ abs(v) + terms * (p @ abs(v))
    arguments = [*_attention_sizes(q, k, v), scale, In(q), In(k), In(v), Out(p.shape), Out(y.shape)]
    return Case("tg_attention", arguments, list(zip((p, y), scales, strict=True)))


def attention_backward(rng, **wanted):
    (q, k, v), scale = _attention_arrays(rng, **wanted), float(rng.choice((0.125, 0.5, 1)))
    (p,) = _float32(definitions.attention(q, k, v, scale)[0])
    gy = normal(rng, *q.shape[:2], v.shape[2])
    answers = definitions.attention_backward(q, k, v, p, scale, gy)
    terms, gp = sum(_attention_sizes(q, k, v)[1:]) + 8, abs(gy) @ abs(v).transpose(0, 2, 1)
    gs = scale * p * (gp + (p * gp).sum(2, keepdims=True))
    scales = gs @ abs(k), gs.transpose(0, 2, 1) @ abs(q), p.transpose(0, 2, 1) @ abs(gy)
    inputs = [In(q), In(k), In(v), In(p), In(gy)]
    arguments = [*_attention_sizes(q, k, v), scale, *inputs, *(Out(a.shape) for a in answers)]
    return Case("tg_attention_backward", arguments, [(a, terms * s) for a, s in zip(answers, scales, strict=True)])


def _logits(rng, rows=None, classes=None):
    sizes = [
        (0, 3), (1, 1), (4, 1), (3, 2), (5, 10), (7, 16), (4, 17), (6, 31), (3, 64), (5, 100), (9, 256), (300, 70),
        (57, 2),
    ]  # fmt: skip
    some = sizes[rng.integers(len(sizes))]
    rows, classes = (some[0] if rows is None else rows), (some[1] if classes is None else classes)
    logits = normal(rng, rows, classes, spread=rng.choice((0.5, 4, 40)))
    return logits, rng.integers(0, classes, rows)


def cross_entropy(rng, **wanted):
    logits, labels = _logits(rng, **wanted)
    rows, classes = logits.shape
    answer = definitions.cross_entropy(logits, labels)
    scale = 8 * abs(logits).max(1, initial=0) + classes + 16
    return Case("tg_cross_entropy", [rows, classes, In(logits), In(labels), Out((rows,))], [(answer, scale)])


def cross_entropy_backward(rng, **wanted):
    logits, labels = _logits(rng, **wanted)
    (rows, classes), gloss = logits.shape, normal(rng, len(logits))
    answer = definitions.cross_entropy_backward(logits, labels, gloss)
    p = np.where(np.arange(classes) == labels[:, None], 1, abs(answer / gloss[:, None]))
    size = 8 * abs(logits).max(1, initial=0)[:, None] + classes + 16  # exp's relative error is its argument's absolute
    arguments = [rows, classes, In(logits), In(labels), In(gloss), Out(logits.shape)]
    return Case("tg_cross_entropy_backward", arguments, [(answer, abs(gloss[:, None]) * (p * size + 1e-30))])


# ----------------------------------------------------------------------------------------------------------- optimizer


def adam(rng, several=False, **wanted):
    """One array, or several: many short ones, or a few of any length."""
    short = several and rng.random() < 0.5
    count = int(rng.integers(1, 40 if short else 4)) if several else 1
    lengths = [int(rng.integers(0, 50)) if short else _length(rng, **wanted) for _ in range(count)]
    step, lr = int(rng.integers(1, 1000)), float(rng.choice((1e-3, 0.1)))
    beta1, beta2 = float(rng.choice((0.5, 0.9))), float(rng.choice((0.9, 0.999)))
    settings = [step, lr, beta1, beta2, 1e-8, float(rng.choice((0, 0.01)))]
    arrays, answers = [], []
    for n in lengths:
        g, p, m = (normal(rng, n) for _ in range(3))
        (v,) = _float32(rng.uniform(0.01, 1, n))
        answer = definitions.adam(g, p, m, v, *settings)
        size = abs(m) + abs(g) + abs(p)
        moved = lr * size / (1 - beta1**step) / np.sqrt(answer[2] / (1 - beta2**step)) * (1 + size * size / v)
        scales = [8 * abs(p) + 32 * moved, 8 * size, 8 * (v + size * size)]
        arrays.append([In(g), InOut(p), InOut(m), InOut(v)])
        answers.append(list(zip(answer, scales, strict=True)))
    if not several:
        return Case("tg_adam", [*lengths, *arrays[0], *settings], answers[0])
    columns = [[row[i] for row in arrays] for i in range(4)]
    return Case("tg_adam_list", [count, lengths, *columns, *settings], [row[i] for i in range(3) for row in answers])


# ------------------------------------------------------------------------------------------------------------ sampling

_ROW = 16  # numbers to which rows of weights are padded


def _sampler_layers(rng, size):
    """Layers of every kind, their runs and weights; no layer makes numbers much larger."""
    layers, runs, weights = [], [], [np.zeros(0)]
    for _ in range(rng.integers(1, 12)):
        kind, n = int(rng.integers(0, 11)), int(rng.choice((1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 48, 65, 70)))
        if kind > 1:
            layers.append((kind, n, 0, 0, 0, n, 0, 0))
            continue
        count, ld, at = int(rng.integers(0, 4)), -(-n // _ROW) * _ROW + _ROW * int(rng.integers(0, 2)), 0
        own = [(int(rng.integers(-size // 4, size // 4)), int(rng.integers(0, size // 4)))
               for _ in range(count)]  # fmt: skip
        low, high = min([0, *(a for a, _ in own)]), max([0, *(a + length for a, length in own)])
        depth, at = sum(length for _, length in own), sum(map(len, weights))
        layers.append((kind, n, len(runs), count, low, high, ld, at))
        runs += own
        weights.append(normal(rng, (1 + depth) * ld, spread=0.5 / np.sqrt(1 + depth)))
    return layers, runs, np.concatenate(weights)


def _sampler_steps(rng, layers, size, values):
    """A few steps for each value, within the state, and where they begin."""
    steps, starts = [], [0]
    for _ in range(values):
        for _ in range(rng.integers(0, 5)):
            number = int(rng.integers(len(layers)))
            kind, n, _, _, low, high, *_ = layers[number]
            out, y = (int(rng.integers(0, size - n + 1)) for _ in range(2))
            x = int(rng.integers(-low, size - high + 1))
            if rng.random() < 0.3:  # in place
                x, y = (x, out) if kind < 2 else (out, out)
            apart = [at + high <= out or out + n <= at + low for at, low, high in ((x, low, high), (y, 0, n))]
            if (apart[0] or (x == out and kind > 1)) and (apart[1] or y == out):
                steps.append((number, out, x, y))
        starts.append(len(steps))
    return steps, starts


def _sampler_draw(rng, shares):
    """A likely level of each image, and the number amid its share: rounding doesn't lead to another one."""
    p = np.diff(shares, axis=1, prepend=0)
    level = (p * (0.5 + rng.random(p.shape))).argmax(1)
    return level, (shares - p / 2)[np.arange(len(p)), level]


def sample(rng, n=None, values=None):
    size, images = int(rng.integers(80, 300)), int(rng.choice((0, 1, 2, 5, 9, 33)) if n is None else n)
    values = int(rng.integers(1, 6)) if values is None else values
    mixtures, colors = int(rng.choice((0, 0, 1, 3))), int(rng.integers(1, 4))
    levels = int(rng.choice((2 if mixtures else 1, 2, 3, 17, 256)))
    numbers = mixtures * (1 + 2 * colors + colors * (colors - 1) // 2) or levels
    layers, runs, weights = _sampler_layers(rng, size)
    steps, starts = _sampler_steps(rng, layers, size, values)
    places, logits = rng.integers(0, size, values), rng.integers(0, size, (values, numbers))
    scaled, state = normal(rng, levels), normal(rng, images, size)
    x = rng.integers(0, levels, (images, values))
    first, last = sorted(rng.integers(0, values + 1, 2).tolist())
    known, temperature = int(rng.integers(0, values + 1)), float(rng.choice((0.5, 1, 2)))
    uniform, before = np.zeros((values, images)), (state.copy(), x.astype(np.uint8))
    for value in range(first, last):
        if value:
            state[:, places[value - 1]] = scaled[x[:, value - 1]]
        for step in steps[starts[value] : starts[value + 1]]:
            definitions.sampler_step(state, layers, runs, weights, step)
        if value >= known:
            found = state[:, logits[value]]
            if mixtures:
                found = found.reshape(images, mixtures, numbers // mixtures)
                found = definitions.sampler_mixture(found, x[:, value - value % colors : value], colors, levels)
            shares = definitions.sampler_cumulative(found, temperature)
            x[:, value], uniform[value] = _sampler_draw(rng, shares)
    sizes = SimpleNamespace(
        n=images, values=values, levels=levels, size=size, layers=len(layers), runs=len(runs), steps=len(steps),
        weights=len(weights), mixtures=mixtures, colors=colors, first=first, last=last, known=known,
        temperature=temperature,
    )  # fmt: skip
    arguments = [
        Struct("tg_sampler *", sizes), In(np.array(layers, np.int64)), In(np.array(runs, np.int64).reshape(-1, 2)),
        In(weights), In(np.array(steps, np.int32).reshape(-1, 4)), In(np.array(starts, np.int64)),
        In(places.astype(np.int32)), In(scaled), In(logits.astype(np.int32)), In(uniform.view(np.int64)),
        *map(InOut, before),
    ]  # fmt: skip
    return Case("tg_sample", arguments, [(state, 4000 * (1 + abs(state).max(initial=0))), (x, 0)])


KERNELS = {
    "tg_conv2d": conv2d,
    "tg_conv_transpose2d": conv_transpose2d,
    "tg_conv2d_weight": conv2d_weight,
    "tg_lstm": lstm,
    "tg_lstm_backward": lstm_backward,
    "tg_lstm_weight": lstm_weight,
    "tg_add": _elementwise("tg_add", np.add, 2, 1),
    "tg_mul": _elementwise("tg_mul", np.multiply, 2, 1),
    "tg_exp": _elementwise("tg_exp", np.exp, 1, 4),
    "tg_log": positive("tg_log", np.log),
    "tg_sqrt": positive("tg_sqrt", np.sqrt),
    "tg_relu": _elementwise("tg_relu", definitions.relu, 1, 2, [_SLOPES]),
    "tg_relu_backward": _elementwise("tg_relu_backward", definitions.relu_backward, 2, 2, [_SLOPES]),
    "tg_elu": _elementwise("tg_elu", definitions.elu, 1, 4, [_SLOPES]),
    "tg_elu_backward": _elementwise("tg_elu_backward", definitions.elu_backward, 2, 6, [_SLOPES]),
    "tg_transpose": transpose,
    "tg_cat": cat,
    "tg_cat_backward": cat_backward,
    "tg_tanh": _elementwise("tg_tanh", np.tanh, 1, 4),
    "tg_sigmoid": _elementwise("tg_sigmoid", definitions._sigmoid, 1, 8),
    "tg_silu": _elementwise("tg_silu", definitions.silu, 1, 8),
    "tg_silu_backward": silu_backward,
    "tg_logistic_backward": _elementwise("tg_logistic_backward", definitions.logistic_backward, 2, 4, [(0, -1)]),
    "tg_gated": gated,
    "tg_gated_backward": gated_backward,
    "tg_affine_coupling": affine_coupling,
    "tg_affine_coupling_backward": affine_coupling_backward,
    "tg_channel_affine": channel_affine,
    "tg_channel_affine_backward": channel_affine_backward,
    "tg_batch_norm": batch_norm,
    "tg_batch_norm_backward": batch_norm_backward,
    "tg_attention": attention,
    "tg_attention_backward": attention_backward,
    "tg_group_norm": group_norm,
    "tg_group_norm_backward": group_norm_backward,
    "tg_cross_entropy": cross_entropy,
    "tg_cross_entropy_backward": cross_entropy_backward,
    "tg_adam": adam,
    "tg_adam_list": partial(adam, several=True),
    "tg_sample": sample,
}


def case(kernel: str, seed: int, **wanted) -> Case:
    """The kernel's case of this number; `wanted` fixes sizes of it."""
    return KERNELS[kernel](np.random.default_rng((zlib.crc32(kernel.encode()), seed)), **wanted)
