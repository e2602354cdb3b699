"""Affine maps of images' channels: a flow's coupling, and a scale and a shift of each channel."""

from __future__ import annotations

import math

from tinygen.kernels import layout, library
from tinygen.pool import new


def affine_coupling(x, both, start, k):
    """See `tinygen.ops.coupling.affine_coupling`. x: (N, C, ...), both: (N, 2 k, ...)."""
    if not library.accepts(x, both):
        return NotImplemented
    sizes, rows = _sizes(x, start, k, both=both), layout.contiguous(layout.channels_last(x))
    y, log_det = new(rows.shape, x), new((len(x),), x)
    library.call("tg_affine_coupling", x, *sizes, rows, layout.contiguous(layout.channels_last(both)), y, log_det)
    return layout.channels_second(y), log_det


def affine_coupling_backward(gy, glog_det, x, both, start, k):
    """See `tinygen.ops.coupling.affine_coupling_backward`."""
    if not library.accepts(x, both, gy, glog_det):
        return NotImplemented
    sizes, rows, changed = (
        _sizes(x, start, k, both=both, gy=gy),
        layout.contiguous(layout.channels_last(x)),
        layout.contiguous(layout.channels_last(both)),
    )
    gx, gboth = new(rows.shape, x), new(changed.shape, x)
    grads = (
        None if gy is None else layout.contiguous(layout.channels_last(gy)),
        layout.vector("glog_det", glog_det, len(x)),
    )
    library.call("tg_affine_coupling_backward", x, *sizes, rows, changed, *grads, gx, gboth)
    return layout.channels_second(gx), layout.channels_second(gboth)


def channel_affine(x, weight, bias):
    """See `tinygen.ops.coupling.channel_affine`. x: (N, C, ...)."""
    if not library.accepts(x, weight, bias) or x.size < library.SMALL:
        return NotImplemented
    rows, c = layout.contiguous(layout.channels_last(x)), x.shape[1]
    y = new(rows.shape, x)
    vectors = layout.vector("weight", weight, c), layout.vector("bias", bias, c)
    library.call("tg_channel_affine", x, x.size // max(c, 1), c, rows, *vectors, y)
    return layout.channels_second(y)


def channel_affine_backward(gy, x, weight):
    """See `tinygen.ops.coupling.channel_affine_backward`."""
    if not library.accepts(x, weight, gy) or x.size < library.SMALL:
        return NotImplemented
    if gy.shape != x.shape:
        raise ValueError(f"gy must have x's shape {x.shape}, got {gy.shape}")
    rows, c = layout.contiguous(layout.channels_last(x)), x.shape[1]
    gx, gweight, gbias = new(rows.shape, x), new((c,), x), new((c,), x)
    arrays = rows, layout.vector("weight", weight, c), layout.contiguous(layout.channels_last(gy)), gx, gweight, gbias
    library.call("tg_channel_affine_backward", x, x.size // max(c, 1), c, *arrays)
    return layout.channels_second(gx), gweight, gbias


def _sizes(x, start, k, both, gy=None):
    """N, pixels, C, k and start; ValueError if an array is smaller or larger than they say."""
    if both.shape != (len(x), 2 * k, *x.shape[2:]) or (gy is not None and gy.shape != x.shape):
        came = f"{both.shape}" + ("" if gy is None else f" and {gy.shape}")
        raise ValueError(f"both and gy must fit x {x.shape} and k {k}, got {came}")
    return len(x), math.prod(x.shape[2:]), x.shape[1], k, start
