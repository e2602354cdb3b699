"""Affine maps in flows: the coupling, which is what stands around the convolutions of a training step, in one op; and a
scale and a shift of each channel."""

from __future__ import annotations

from math import prod

from tinygen import kernels
from tinygen.array import real, total, xp
from tinygen.ops._derive import derive_from
from tinygen.ops._samples import normal, sample
from tinygen.ops.activations import tanh
from tinygen.ops.elementwise import exp
from tinygen.ops.join import cat
from tinygen.ops.reduce import sum
from tinygen.ops.shape import reshape
from tinygen.tape import op


@op(outputs=("y", "log_det"))
def affine_coupling(x, both, start: int):
    """y = x, but x2 exp(s) + t in place of its channels x2 from `start` on; and the sum of s of each image.

    x: (N, C, ...), both: (N, 2 K, ...), numbers that make the s, then the t, of the K channels of x2; start: integer,
    start + K at most C -> y (N, C, ...), log det (N,). s = 2 tanh(. / 2) lies within +-2.

    Accuracy: 16 ulps of the largest element.

    Source: Dinh, Sohl-Dickstein & Bengio, Density estimation using Real NVP (2017), equations 4 to 8.
    """
    k, x, both = _check(x, both, start), real(x, both), real(both, x)
    s, t = _scale_and_shift(both, k)
    y = _like(x, x)
    _set(y, start, _rows(x, start, k) * xp(x).exp(s) + t)
    return y, s.reshape(k, len(x), prod(x.shape[2:])).sum((0, 2))


@op(outputs=("gx", "gboth"))
def affine_coupling_backward(gy, glog_det, x, both, start: int):
    """The gradients of `affine_coupling`, from those of its outputs, one of which may be None.

    Accuracy: 16 ulps of the largest element.
    """
    n, k = xp(x), _check(x, both, start)
    for g, shape in ((gy, x.shape), (glog_det, x.shape[:1])):
        if g is not None and g.shape != shape:
            raise ValueError(f"the gradients must have the shapes {x.shape} and {x.shape[:1]}, got {g.shape}")
    s, _ = _scale_and_shift(both, k)
    gx, gboth, scale = _like(x, 0 if gy is None else gy), n.empty_like(both), n.exp(s)
    gt = n.zeros_like(s) if gy is None else _rows(gy, start, k)
    gs = gt * _rows(x, start, k) * scale
    if glog_det is not None:
        gs += n.repeat(glog_det, prod(x.shape[2:]))
    _set(gx, start, gt * scale)
    _set(gboth, 0, gs * (1 - s * s / 4))  # s = 2 tanh(v / 2): ds/dv = 1 - tanh(v / 2)^2
    _set(gboth, k, gt)
    return gx, gboth


# Channels are last in memory, so few of them lie side by side, and NumPy takes such short pieces one by one: so what is
# computed on is copied to arrays (K, pixels) first.


def _scale_and_shift(both, k):
    """s and t, (K, pixels) each."""
    return 2 * xp(both).tanh(_rows(both, 0, k) / 2), _rows(both, k, k)


def _rows(x, start, k):
    """K channels of x as rows (K, pixels)."""
    return xp(x).ascontiguousarray(x.swapaxes(0, 1)[start : start + k]).reshape(k, len(x) * prod(x.shape[2:]))


def _set(x, start, rows):
    """Set channels of x, from `start` on, to rows (K, pixels)."""
    part = x.swapaxes(0, 1)[start : start + len(rows)]
    part[...] = rows.reshape(part.shape)


def _like(x, values):
    """A copy of the values in x's shape, as x lies in memory."""
    out = xp(x).empty_like(x)
    out[...] = values
    return out


@affine_coupling.vjp("x", "both")
def _(gy, glog_det, x, both, start):
    return affine_coupling_backward(gy, glog_det, x, both, start)


@affine_coupling_backward.vjp("gy", "glog_det", "x", "both")
def _(ggx, ggboth, gy, glog_det, x, both, start):
    first = derive_from(lambda x, both: _definition(x, both, start))
    second = derive_from(lambda gy, glog_det, x, both: first((x, both), (gy, glog_det)))
    return second((gy, glog_det, x, both), (ggx, ggboth))


def _definition(x, both, start):
    """`affine_coupling` in ops."""
    k = both.shape[1] // 2
    s, t = 2 * tanh(both[:, :k] / 2), both[:, k:]
    y2 = x[:, start : start + k] * exp(s) + t
    return cat(x[:, :start], y2, x[:, start + k :], dim=1), sum(s, tuple(range(1, len(s.shape))))


def _check(x, both, start):
    """K; ValueError unless the shapes fit."""
    k = both.shape[1] // 2 if len(both.shape) > 1 else 0
    if both.shape != (*x.shape[:1], 2 * k, *x.shape[2:]) or not 0 <= start <= x.shape[1] - k:
        raise ValueError("affine_coupling takes x (N, C, ...) and both (N, 2 K, ...), with start + K at most C, "
                         f"got {x.shape}, {both.shape} and start {start}")  # fmt: skip
    return k


@affine_coupling.kernel
def _(x, both, start):
    k = _check(x, both, start)
    return kernels.affine.affine_coupling(real(x, both), real(both, x), start, k)


@affine_coupling_backward.kernel
def _(gy, glog_det, x, both, start):
    k = _check(x, both, start)
    return kernels.affine.affine_coupling_backward(gy, glog_det, x, both, start, k)


@op
def channel_affine(x, weight, bias):
    """weight * x + bias, of each channel. x: (N, C, ...), weight and bias: (C,).

    Accuracy: 2 ulps of the larger of product and sum.
    """
    shape = _of_channels(x, weight, bias)
    return x * weight.reshape(shape) + bias.reshape(shape)


@op(outputs=("gx", "gweight", "gbias"))
def channel_affine_backward(gy, x, weight):
    """The gradients of `channel_affine`, from that of its output.

    Accuracy: 16 ulps of the largest of the sums' terms, added up without their signs.
    """
    axes = (0, *range(2, x.ndim))
    return gy * weight.reshape(_of_channels(x, weight)), total(gy * x, axes), total(gy, axes)


@channel_affine.vjp("x", "weight", "bias")
def _(gout, x, weight):
    return channel_affine_backward(gout, x, weight)


@channel_affine_backward.vjp("gy", "x", "weight")
def _(ggx, ggweight, ggbias, gy, x, weight):
    bias = weight * 0.0  # whatever it is: no gradient has it
    first = derive_from(_channel_affine)
    second = derive_from(lambda gy, x, weight: first((x, weight, bias), (gy,)))
    return second((gy, x, weight), (ggx, ggweight, ggbias))


@channel_affine.kernel
def _(x, weight, bias):
    return kernels.affine.channel_affine(real(x, weight), weight, bias)


@channel_affine_backward.kernel
def _(gy, x, weight):
    return kernels.affine.channel_affine_backward(gy, real(x, weight), weight)


def _channel_affine(x, weight, bias):
    """`channel_affine` in ops."""
    shape = _of_channels(x, weight, bias)
    return x * reshape(weight, shape) + reshape(bias, shape)


def _of_channels(x, *vectors):
    """The shape of a number for each channel beside x; ValueError unless the vectors have so many."""
    if len(x.shape) < 2 or any(v.shape != x.shape[1:2] for v in vectors):
        shapes = " and ".join(str(v.shape) for v in vectors)
        raise ValueError(f"channel_affine takes x (N, C, ...) and vectors (C,), got {x.shape}, {shapes}")
    return (1, -1, *[1] * (len(x.shape) - 2))


@affine_coupling.samples
def _(rng):
    for shape, k, start in (((2, 3, 2, 2), 1, 1), ((1, 4, 1, 3), 2, 0), ((3, 3), 2, 1), ((2, 1), 1, 0)):
        yield sample(normal(rng, *shape), normal(rng, shape[0], 2 * k, *shape[2:]), start)


@affine_coupling_backward.samples
def _(rng):
    for case in affine_coupling.op.make_samples(rng):
        x, both, start = case.args
        yield sample(normal(rng, *x.shape), normal(rng, len(x)), x, both, start)


@channel_affine.samples
def _(rng):
    for shape in ((2, 3, 2, 2), (3, 2), (2, 1, 5)):
        yield sample(normal(rng, *shape), normal(rng, shape[1]), normal(rng, shape[1]))


@channel_affine_backward.samples
def _(rng):
    for case in channel_affine.op.make_samples(rng):
        x, weight, _ = case.args
        yield sample(normal(rng, *x.shape), x, weight)
