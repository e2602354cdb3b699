"""Images as rows of their channels: gated activation, batch norm, group norm, softmax cross entropy."""

from __future__ import annotations

import numpy as np

from tinygen.array import inverse, memory_order, on_device_of
from tinygen.kernels import layout, library
from tinygen.pool import new


def gated_activation(x):
    """See `tinygen.ops.recurrent.gated_activation`. x: (N, 2C, ...)."""
    if not library.accepts(x) or x.ndim < 2 or x.shape[1] % 2:
        return NotImplemented
    rows = layout.contiguous(layout.channels_last(x))
    y = new((*rows.shape[:-1], x.shape[1] // 2), x)
    library.call("tg_gated", x, y.size // max(y.shape[-1], 1), y.shape[-1], rows, y)
    return layout.channels_second(y)


def gated_activation_backward(g, x):
    """See `tinygen.ops.recurrent.gated_activation_backward`."""
    if not library.accepts(g, x):
        return NotImplemented
    if x.ndim < 2 or (x.shape[0], x.shape[1], *x.shape[2:]) != (g.shape[0], 2 * g.shape[1], *g.shape[2:]):
        raise ValueError(f"x must have twice the channels of g, got {x.shape} and {g.shape}")
    rows, grows = layout.contiguous(layout.channels_last(x)), layout.contiguous(layout.channels_last(g))
    gx = new(rows.shape, x)
    library.call("tg_gated_backward", x, g.size // max(g.shape[1], 1), g.shape[1], rows, grows, gx)
    return layout.channels_second(gx)


def batch_norm(x, weight, bias, eps):
    """See `tinygen.ops.normalize.batch_norm`. x: (N, C, ...)."""
    if not library.accepts(x, weight, bias) or not x.size:
        return NotImplemented
    n = x.shape[1]
    rows = layout.contiguous(layout.channels_last(x))
    y, mean, var = new(rows.shape, x), new((n,), x), new((n,), x)
    vectors = [layout.vector("weight", weight, n), layout.vector("bias", bias, n)]
    library.call("tg_batch_norm", x, x.size // n, n, rows, *vectors, float(eps), y, mean, var)
    return layout.channels_second(y), mean, var


def batch_norm_backward(gout, x, weight, mean, var, eps):
    """See `tinygen.ops.normalize.batch_norm_backward`: the gradients of x, weight and bias."""
    if not library.accepts(gout, x, weight, mean, var) or not x.size:
        return NotImplemented
    if gout.shape != x.shape:
        raise ValueError(f"gout must have x's shape {x.shape}, got {gout.shape}")
    n = x.shape[1]
    rows, grows = layout.contiguous(layout.channels_last(x)), layout.contiguous(layout.channels_last(gout))
    vectors = [layout.vector(name, a, n) for name, a in (("weight", weight), ("mean", mean), ("var", var))]
    gx, gweight, gbias = new(rows.shape, x), new((n,), x), new((n,), x)
    library.call("tg_batch_norm_backward", x, x.size // n, n, rows, *vectors, float(eps), grows, gx, gweight, gbias)
    return layout.channels_second(gx), gweight, gbias


def group_norm(x, weight, bias, groups, eps, silu, shift=None):
    """See `tinygen.ops.normalize.group_norm`. x: (N, C, ...)."""
    if not library.accepts(x, weight, bias, shift) or not x.size:
        return NotImplemented
    sizes, rows, y = _grouped(x, groups)
    mean, rstd = new((x.shape[0], groups), x), new((x.shape[0], groups), x)
    vectors = [layout.vector("weight", weight, x.shape[1]), layout.vector("bias", bias, x.shape[1])]
    inputs = rows, _like("shift", shift, x.shape[:2]), *vectors
    library.call("tg_group_norm", x, *sizes, int(silu), *inputs, float(eps), y, mean, rstd)
    return layout.channels_second(y), mean, rstd


def group_norm_backward(gout, x, weight, bias, mean, rstd, groups, silu, shift=None):
    """See `tinygen.ops.normalize.group_norm_backward`: the gradients of x, weight, bias and shift."""
    if not library.accepts(gout, x, weight, bias, mean, rstd, shift) or not x.size:
        return NotImplemented
    sizes, rows, gx = _grouped(x, groups)
    n, of_groups = x.shape[1], (x.shape[0], groups)
    vectors = [layout.vector("weight", weight, n), layout.vector("bias", bias, n)]
    moments = [_like("mean", mean, of_groups), _like("rstd", rstd, of_groups)]
    gweight, gbias, gshift = new((n,), x), new((n,), x), None if shift is None else new(x.shape[:2], x)
    inputs = rows, _like("shift", shift, x.shape[:2]), *vectors, *moments, _like("gout", gout, x.shape)
    library.call("tg_group_norm_backward", x, *sizes, int(silu), *inputs, gx, gshift, gweight, gbias)
    return layout.channels_second(gx), gweight, gbias, gshift


def _like(name, a, shape):
    """An array (N, C, ...) of this shape for a kernel, its channels last; None stays None."""
    if a is not None and a.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {a.shape}")
    return None if a is None else layout.contiguous(layout.channels_last(a))


def _grouped(x, groups):
    """(N, pixels, C, groups), x with its channels last, and an array like that."""
    if x.ndim < 2 or groups < 1 or x.shape[1] % groups:
        raise ValueError(f"x must be (N, C, ...) with C a multiple of groups {groups}, got shape {x.shape}")
    rows = layout.contiguous(layout.channels_last(x))
    n, c = x.shape[:2]
    return (n, x.size // (n * c), c, groups), rows, new(rows.shape, x)


def cross_entropy(input, target):
    """See `tinygen.ops.loss.cross_entropy`."""
    if not library.accepts(input):
        return NotImplemented
    logits, labels, back = _rows_of_classes(input, target)
    loss = new(labels.shape, input)
    library.call("tg_cross_entropy", input, labels.size, logits.shape[-1], logits, _labels(labels), loss)
    return loss.transpose(back)


def cross_entropy_backward(input, target, gloss):
    """See `tinygen.ops.loss.cross_entropy_backward`; in memory as the input."""
    if not library.accepts(input, gloss):
        return NotImplemented
    logits, labels, back = _rows_of_classes(input, target, gloss=gloss)
    rows = layout.packed(gloss.transpose(inverse(back)))  # from a sum, it's a broadcast number
    out = new(logits.shape, input)
    library.call("tg_cross_entropy_backward", input, labels.size, logits.shape[-1], logits, _labels(labels), rows, out)
    return layout.channels_second(out.transpose(*back, out.ndim - 1))


def _rows_of_classes(input, target, **others):
    """Logits (N, C, ...) with the classes last, the rest in memory's order; the labels in that order; the way back."""
    last = layout.channels_last(input)
    for name, a in {"target": target, **others}.items():
        if a.shape != last.shape[:-1]:
            raise ValueError(f"{name} must have input's shape without axis 1, got {a.shape} for {input.shape}")
    order = memory_order(last[..., 0])
    logits = layout.contiguous(last.transpose(*order, last.ndim - 1))
    labels = layout.packed(on_device_of(input, target).transpose(order).astype(np.int64, copy=False))
    return logits, labels, inverse(order)


def _labels(labels):
    return library.ffi.from_buffer("int64_t[]", labels) if isinstance(labels, np.ndarray) else labels
