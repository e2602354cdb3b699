"""Recurrence: the LSTM over sequences, over rows and diagonals of images; and the gated activation.

A PixelRNN (van den Oord et al., Pixel Recurrent Neural Networks, 2016, sections 3.1 and 3.2) runs an LSTM over the rows
of an image (Row LSTM), or over its diagonals (Diagonal BiLSTM). These and the LSTM over a sequence are one recurrence,
`lstm`, over the *steps* of an image, whose pixels don't see each other: they see *taps*, pixels of the step before.
"""

from __future__ import annotations

import numpy as np

from tinygen import native
from tinygen.autograd import op, xp
from tinygen.ops._derive import derive_from
from tinygen.ops._samples import normal, sample
from tinygen.ops.elementwise import sigmoid, tanh
from tinygen.ops.linalg import linear
from tinygen.ops.shape import cat, flip, pad, reshape

# ------------------------------------------------------------------------------------------------------------ the LSTM


@op(outputs=("h", "c", "gates"))
def lstm(z, weight, h0=None, c0=None, diagonal=0):
    """An LSTM, given what its inputs contribute: -> h and c (..., U), and the gates (..., 4U).

        a = z + sum over taps of weight[tap] h[tap],        i, f, o = sigmoid(a...), g = tanh(a...)
        c = f * c[before] + i * g,                          h = o * tanh(c)

    z: (B, 4U) for one step, (T, B, 4U) for a sequence, or images (N, H, W, 4U). Quarters of the last axis belong to
    the input gate i, the forget gate f, the candidate g and the output gate o, as in PyTorch.
    weight: (4U, U), or for images a convolution's, (4U, U, KH, KW). In memory it is best transposed, (U, 4U) and HWIO,
    which is what the kernel reads. Along

        diagonal = 0    a step is a row, and the taps (1, K), K odd, are the pixels around x in the row before.
        diagonal = 1    a step is a diagonal x + y, and the taps (2, 1) are the pixel above and the one on the left,
                        whose c is c[before]. -1: the same from right to left.

    h0, c0: (B, U), h and c before the first step, except for images; zeros if None. Outside of images they are zero.

    Source: Hochreiter & Schmidhuber, Long Short-Term Memory (1997), with the forget gate of Gers et al. (2000).
    """
    shape = n, height, width, units, taps, _ = _shape(z, weight, h0, c0, diagonal)
    flat = reshape(flip(z, (2,)) if diagonal < 0 else z, (n, height * width, 4 * units))
    weights = [weight] if len(weight.shape) == 2 else [weight[:, :, i, j] for i, j in np.ndindex(weight.shape[2:])]
    side = taps // 2  # zeros beside the states of a step; tap t sees t further than the first of them
    h, c = (x if x is None else reshape(x, (1, width, units)) for x in (h0, c0))
    parts = [(flat[:, :0, :units], flat[:, :0, :units], flat[:, :0])]  # there may be no steps
    for pixels, start, stop, length in _steps(height, width, diagonal):
        a = flat[:, pixels]
        if h is not None:
            for t, tap in enumerate(weights):
                a = a + linear(h[:, start + t : stop + t], tap)
        i, f, g, o = (a[..., k * units : (k + 1) * units] for k in range(4))
        i, f, g, o = sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)
        new = i * g if c is None else f * c[:, start + side : stop + side] + i * g
        out = o * tanh(new)
        parts.append((out, new, cat(i, f, g, o, dim=-1)))
        around = ((0, 0), (start + side, length - stop + side), (0, 0))
        h, c = pad(out, around), pad(new, around)
    return tuple(_in_order(p, shape, z.shape) for p in zip(*parts, strict=True))


def _steps(height, width, diagonal):
    """For each step its pixels, a slice of the image as one row, and their positions start..stop in 0..length."""
    if not height * width:
        return
    if not diagonal:
        for y in range(height):
            yield slice(y * width, (y + 1) * width), 0, width, width
        return
    for d in range(height + width - 1):  # the pixel in row y is at x = d - y
        start, stop = max(0, d - width + 1), min(height, d + 1)
        first, last = (y * (width - 1) + d for y in (start, stop - 1))
        yield slice(first, last + 1, max(width - 1, 1)), start, stop, height


def _in_order(parts, shape, z_shape):
    """What the steps gave, (N, pixels of the step, channels) each, as an image."""
    _, height, width, _, _, diagonal = shape
    whole, channels = cat(*parts, dim=1), parts[0].shape[-1]
    if diagonal:
        pixels = [np.arange(height * width)[p] for p, *_ in _steps(height, width, diagonal)]
        whole = whole[:, np.argsort(np.concatenate([[], *pixels])).tolist()]
    whole = reshape(whole, (*z_shape[:-1], channels))
    return flip(whole, (2,)) if diagonal < 0 else whole


def _shape(z, weight, h0, c0, diagonal):
    """(N, H, W, units, taps, diagonal): every case as one of images. ValueError for shapes that don't fit."""
    if not 2 <= len(z.shape) <= 4 or len(weight.shape) != (4 if len(z.shape) == 4 else 2):
        raise ValueError(
            "z and weight must be (B, 4U) or (T, B, 4U) and (4U, U), or (N, H, W, 4U) and (4U, U, KH, KW), got "
            f"{z.shape} and {weight.shape}"
        )
    units, kernel = weight.shape[1], weight.shape[2:] or (1, 1)
    n, height, width = (1, 1, 1, *z.shape[:-1])[-3:]
    if weight.shape[0] != 4 * units or z.shape[-1] != 4 * units:
        raise ValueError(f"weight must be (4U, U, ...) with 4U = z.shape[-1], got {weight.shape} for {z.shape}")
    if diagonal not in (-1, 0, 1):
        raise ValueError(f"diagonal must be 0, 1 or -1, got {diagonal!r}")
    if (kernel != (2, 1)) if diagonal else (kernel[0] != 1 or kernel[1] % 2 == 0):
        expected = "(2, 1)" if diagonal else "(1, K) with K odd"
        raise ValueError(f"weight's kernel must be {expected} for diagonal={diagonal}, got {kernel}")
    if (h0 is None) != (c0 is None) or (h0 is not None and len(z.shape) == 4):
        raise ValueError("h0 and c0 must be given together, and not for images")
    for name, x in (("h0", h0), ("c0", c0)):
        if x is not None and x.shape != (width, units):
            raise ValueError(f"{name} must have shape {(width, units)}, got {x.shape}")
    return n, height, width, units, kernel[0] * kernel[1], diagonal


# ------------------------------------------------------------------------------------------- its gradients, any order


@op(outputs=("gz", "gweight", "gh0", "gc0"))
def lstm_backward(gh, gc, ggates, z, weight, h0=None, c0=None, diagonal=0, saved=None):
    """The gradients of `lstm`, from those of h, c and the gates (None for zero). gh0 and gc0 have no rows without h0.

    saved: h, c and the gates, if they are known; as they follow from the rest, they add nothing to the derivatives.
    """
    _check_gradients(gh, gc, ggates, _shape(z, weight, h0, c0, diagonal), z)
    none = xp(z).empty_like(z, shape=(0, weight.shape[1]))
    grads = _gradients(diagonal)((z, weight, h0, c0), (gh, gc, ggates))
    return tuple(none if g is None else g for g in grads)


@lstm.vjp("z", "weight", "h0", "c0")
def _(gh, gc, ggates, z, weight, h0, c0, diagonal, h, c, gates):
    return lstm_backward(gh, gc, ggates, z, weight, h0, c0, diagonal, (h, c, gates))


@lstm_backward.vjp("gh", "gc", "ggates", "z", "weight", "h0", "c0")
def _(ggz, ggweight, ggh0, ggc0, gh, gc, ggates, z, weight, h0, c0, diagonal):
    first = _gradients(diagonal)
    second = derive_from(lambda *args: first(args[3:], args[:3]))
    return second((gh, gc, ggates, z, weight, h0, c0), (ggz, ggweight, ggh0, ggc0))


def _gradients(diagonal):
    """The gradients of the definition, which is written in ops, so that they can be derived again."""
    return derive_from(lambda z, weight, h0, c0: lstm.op.body(z, weight, h0, c0, diagonal))


def _check_gradients(gh, gc, ggates, shape, z):
    states = (*z.shape[:-1], shape[3])
    for name, g, expected in (("gh", gh, states), ("gc", gc, states), ("ggates", ggates, z.shape)):
        if g is not None and g.shape != expected:
            raise ValueError(f"{name} must have shape {expected}, got {g.shape}")


# ------------------------------------------------------------------------------------------------------------ kernels


@lstm.kernel
def _(z, weight, h0, c0, diagonal):
    return native.lstm(z, weight, h0, c0, _shape(z, weight, h0, c0, diagonal))


@lstm_backward.kernel
def _(gh, gc, ggates, z, weight, h0, c0, diagonal, saved):
    if ggates is not None or (gh is None and gc is None):
        return NotImplemented  # only in derivatives of derivatives
    shape = _shape(z, weight, h0, c0, diagonal)
    _check_gradients(gh, gc, None, shape, z)
    saved = saved or native.lstm(z, weight, h0, c0, shape)
    return saved if saved is NotImplemented else native.lstm_backward(gh, gc, saved, weight, h0, c0, shape)


def lstm_cell(input, h, c, w_ih, w_hh, b_ih=None, b_hh=None):
    """One step of an LSTM: -> (h_next, c_next), both (N, H).

    input: (N, I), h and c: (N, H), w_ih: (4H, I), w_hh: (4H, H), b_ih and b_hh: (4H,). The four blocks are
    those of the input gate i, the forget gate f, the cell's candidate g and the output gate o. See `lstm`.
    """
    bias = b_hh if b_ih is None else b_ih if b_hh is None else b_ih + b_hh
    return lstm(linear(input, w_ih, bias), w_hh, h, c)[:2]


@op
def gated_activation(x):
    """tanh(a) * sigmoid(b) of the halves a and b of the channels: (N, 2C, ...) -> (N, C, ...).

    Source: van den Oord et al., Conditional Image Generation with PixelCNN Decoders (2016), equation 2.
    """
    if x.ndim < 2 or x.shape[1] % 2:
        raise ValueError(f"x must have an even number of channels on axis 1, got shape {x.shape}")
    a, b = _halves(x)
    return tanh(a) * sigmoid(b)


@op
def gated_activation_backward(g, x):
    """The gradient of `gated_activation` for g, that of its output."""
    a, b = _halves(x)
    t, s = tanh(a), sigmoid(b)
    return cat(g * s * (1 - t * t), g * t * (s * (1 - s)), dim=1)


@gated_activation.vjp("x")
def _(gout, x):
    return gated_activation_backward(gout, x)


@gated_activation_backward.vjp("g", "x")
def _(gout, g, x):
    return derive_from(gated_activation_backward.op.body)((g, x), (gout,))


@gated_activation.kernel
def _(x):
    return native.gated_activation(x) if x.ndim > 1 and x.shape[1] % 2 == 0 else NotImplemented


@gated_activation_backward.kernel
def _(g, x):
    return native.gated_activation_backward(g, x)


def _halves(x):
    half = x.shape[1] // 2
    return x[:, :half], x[:, half:]


@gated_activation.samples
def _(generator):
    yield sample(normal(generator, 3, 4))
    yield sample(normal(generator, 2, 6, 2, 3))


@gated_activation_backward.samples
def _(generator):
    yield sample(normal(generator, 3, 2), normal(generator, 3, 4))
    yield sample(normal(generator, 2, 3, 2, 3), normal(generator, 2, 6, 2, 3))


def _cases(generator):
    """z, weight, h0, c0, diagonal."""
    yield normal(generator, 3, 8), normal(generator, 8, 2), normal(generator, 3, 2), normal(generator, 3, 2), 0
    yield normal(generator, 4, 2, 12), normal(generator, 12, 3), None, None, 0
    yield normal(generator, 3, 2, 8), normal(generator, 8, 2), normal(generator, 2, 2), normal(generator, 2, 2), 0
    yield normal(generator, 2, 3, 4, 8), normal(generator, 8, 2, 1, 3), None, None, 0
    yield normal(generator, 2, 3, 2, 4), normal(generator, 4, 1, 2, 1), None, None, 1
    yield normal(generator, 2, 2, 4, 8), normal(generator, 8, 2, 2, 1), None, None, -1


@lstm.samples
def _(generator):
    for case in _cases(generator):
        yield sample(*case)


@lstm_backward.samples
def _(generator):
    for z, weight, *rest in _cases(generator):
        gh, gc = (normal(generator, *z.shape[:-1], weight.shape[1]) for _ in range(2))
        yield sample(gh, gc, None, z, weight, *rest)
    yield sample(gh, None, normal(generator, *z.shape), z, weight, *rest)
    yield sample(None, normal(generator, 0, 3, 2), None, normal(generator, 0, 3, 8), normal(generator, 8, 2))
