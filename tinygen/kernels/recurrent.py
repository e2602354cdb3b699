"""The LSTM over rows, diagonals and sequences."""

from __future__ import annotations

import functools

from tinygen.kernels import layout, library
from tinygen.kernels.conv import product_shape
from tinygen.pool import new


def lstm(x, weight, h0, c0, w_ih, bias, keep, shape):
    """See `tinygen.ops.recurrent.lstm`; shape is (N, H, W, units, taps, diagonal). -> h, c, gates."""
    if not library.accepts(x, weight, h0, c0, w_ih, bias) or not x.size or not weight.size:
        return NotImplemented
    gates = new((*x.shape[:-1], 4 * shape[3]), x) if keep or w_ih is not None else None
    z = _lstm_input(x, w_ih, bias, gates)
    gates = gates if keep else None
    z, u, h0, c0 = _lstm_arrays(shape, z, weight, h0, c0)
    h, c = (new((*x.shape[:-1], shape[3]), x) for _ in range(2))
    library.call("tg_lstm", x, _lstm_shape(*shape), z, u, h0, c0, gates, c, h)
    return h, c, gates if keep else new((0,), x)


def lstm_backward(gh, gc, saved, x, weight, h0, c0, w_ih, bias, needs_x, shape):
    """See `tinygen.ops.recurrent.lstm_backward`. -> the gradients of x, weight, h0, c0, w_ih, bias; or None."""
    h, c, gates = saved
    if not library.accepts(gates, x, weight, h0, c0, w_ih, gh, gc, h, c) or not x.size or not weight.size:
        return NotImplemented
    _, height, width, units, taps, _ = shape
    gates, u, h0, c0, gh, gc, h, c = _lstm_arrays(shape, gates, weight, h0, c0, gh, gc, h, c)
    gz, gu = new(gates.shape, gates), new((taps, units, 4 * units), gates)
    before = (None, None) if h0 is None else (new(h0.shape, gates), new(c0.shape, gates))
    s = _lstm_shape(*shape)
    library.call("tg_lstm_backward", gates, s, u, c0, gates, c, gh, gc, gz, *before)
    if h0 is None or height > 1:
        library.call("tg_lstm_weight", gates, s, h, gz, gu)
    if h0 is not None:
        first = gu if height == 1 else new(gu.shape, gates)
        product = product_shape(width, units, 4 * units)  # with the first step's part of gz
        library.call("tg_conv2d_weight", gates, product, 0, h0, gz, first, None)
        if height > 1:
            gu += first
    gu = gu.reshape(*weight.shape[2:], units, 4 * units)
    gu = gu.T if weight.ndim == 2 else gu.transpose(3, 2, 0, 1)
    return _lstm_input_backward(x, w_ih, bias, gz, needs_x, (gu, *before))


def _lstm_input(x, w_ih, bias, gates):
    """z = x w_ih' + bias, made where the gates will be: the kernel goes from the one to the other in place."""
    if w_ih is None:
        return x
    x, w, outputs = layout.contiguous(x), layout.contiguous(w_ih.T), gates.shape[-1]
    if w.shape != (x.shape[-1], outputs):
        raise ValueError(f"w_ih must have shape {(outputs, x.shape[-1])}, got {w_ih.shape}")
    s = product_shape(x.size // len(w), *w.shape)
    library.call("tg_conv2d", x, s, 0, x, w, layout.vector("bias", bias, outputs), None, gates)
    return gates


def _lstm_input_backward(x, w_ih, bias, gz, needs_x, others):
    """All gradients, of x, (others), w_ih and bias, from those of z and the others."""
    if w_ih is None:
        return gz if needs_x else None, *others, None, None
    x, w = layout.contiguous(x), layout.contiguous(w_ih.T)
    if (*x.shape[:-1], *w.shape) != (*gz.shape[:-1], x.shape[-1], gz.shape[-1]):
        raise ValueError(f"w_ih must take x {x.shape} to z {gz.shape}, got {w_ih.shape}")
    gx, gw = new(x.shape, x) if needs_x else None, new(w.shape, x)
    gbias = None if bias is None else new(bias.shape, x)
    s = product_shape(x.size // len(w), *w.shape)
    if needs_x:
        library.call("tg_conv_transpose2d", x, s, gz, w, None, None, gx)
    library.call("tg_conv2d_weight", x, s, 0, x, gz, gw, gbias)
    return gx, *others, gw.T, gbias


@functools.lru_cache
def _lstm_shape(n, height, width, units, taps, diagonal):
    return library.ffi.new("tg_lstm_shape *", (n, height, width, units, taps, diagonal))


def _lstm_arrays(shape, gates, weight, h0, c0, *states):
    """The arrays as the kernels read them, after a last look at their sizes."""
    n, height, width, units, taps, _ = shape
    pixels = n * height * width
    sizes = [4 * units * pixels, 4 * units * units * taps, *[width * units] * 2, *[pixels * units] * len(states)]
    arrays = [gates, weight.T if weight.ndim == 2 else weight.transpose(2, 3, 1, 0), h0, c0, *states]
    for i, a in enumerate(arrays):
        if a is not None:
            if a.size != sizes[i]:
                raise ValueError(f"an array of {a.size} elements instead of {sizes[i]}")
            arrays[i] = layout.contiguous(a)
    return arrays
