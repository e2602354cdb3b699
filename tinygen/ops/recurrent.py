"""Recurrence: the LSTM over sequences, over rows and diagonals of images; and the gated activation.

A PixelRNN (van den Oord et al., Pixel Recurrent Neural Networks, 2016, sections 3.1 and 3.2) runs an LSTM over the rows
of an image (Row LSTM), or over its diagonals (Diagonal BiLSTM). These and the LSTM over a sequence are one recurrence,
`lstm`, over the *steps* of an image, whose pixels don't see each other: they see *taps*, pixels of the step before.
"""

from __future__ import annotations

from math import prod

import numpy as np

from tinygen import kernels
from tinygen.array import xp
from tinygen.modes import is_grad_enabled
from tinygen.ops._derive import derive_from
from tinygen.ops._samples import normal, sample
from tinygen.ops.activations import sigmoid, tanh
from tinygen.ops.join import cat
from tinygen.ops.linalg import linear
from tinygen.ops.shape import flip, pad, reshape
from tinygen.tape import op

# ------------------------------------------------------------------------------------------------------------ the LSTM


@op(outputs=("h", "c", "gates"))
def lstm(x, weight, h0=None, c0=None, diagonal=0, w_ih=None, bias=None, keep=True):
    """An LSTM: -> h and c (..., U), and the gates (..., 4U), empty unless they are to be kept for the gradients.

        z = x w_ih' + bias, or x itself without w_ih
        a = z + sum over taps of weight[tap] h[tap],        i, f, o = sigmoid(a...), g = tanh(a...)
        c = f * c[before] + i * g,                          h = o * tanh(c)

    z: (B, 4U) for one step, (T, B, 4U) for a sequence, or images (N, H, W, 4U). Quarters of the last axis belong to
    the input gate i, the forget gate f, the candidate g and the output gate o, as in PyTorch. x: z, or (..., I).
    w_ih: (4U, I), bias: (4U,). weight: (4U, U), or for images a convolution's, (4U, U, KH, KW). In memory weights are
    best transposed, (I, 4U), (U, 4U) and HWIO, which is what the kernels read. Along

        diagonal = 0    a step is a row, and the taps (1, K), K odd, are the pixels around x in the row before.
        diagonal = 1    a step is a diagonal x + y, and the taps (2, 1) are the pixel above and the one on the left,
                        whose c is c[before]. -1: the same from right to left.

    h0, c0: (B, U), h and c before the first step, except for images; zeros if None. Outside of images they are zero.

    Accuracy: 16 ulps of the largest element.

    Source: Hochreiter & Schmidhuber, Long Short-Term Memory (1997), with the forget gate of Gers et al. (2000).
    """
    shape = n, height, width, units, taps, _ = _shape(x, weight, h0, c0, diagonal, w_ih, bias)
    z = x if w_ih is None else linear(x, w_ih, bias)
    flat = reshape(flip(z, (2,)) if diagonal < 0 else z, (n, height * width, 4 * units))
    weights = [weight] if len(weight.shape) == 2 else [weight[:, :, i, j] for i, j in np.ndindex(weight.shape[2:])]
    side = taps // 2  # zeros beside the states of a step; tap t sees t further than the first of them
    h, c = (None if first is None else reshape(first, (1, width, units)) for first in (h0, c0))
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
    h, c, gates = (_in_order(p, shape, x.shape) for p in zip(*parts, strict=True))
    return h, c, gates if keep else reshape(z[..., :0], (0,))


def _steps(height, width, diagonal):
    """For each step its pixels, a slice of the image as one row, and their positions start..stop in 0..length."""
    if not diagonal:
        for y in range(height):
            yield slice(y * width, (y + 1) * width), 0, width, width
        return
    for d in range(height + width - 1):  # the pixel in row y is at x = d - y
        start, stop = max(0, d - width + 1), min(height, d + 1)
        first, last = (y * (width - 1) + d for y in (start, stop - 1))
        yield slice(first, last + 1, max(width - 1, 1)), start, stop, height


def _in_order(parts, shape, x_shape):
    """The outputs of the steps, (N, pixels of the step, channels) each, as an image."""
    _, height, width, _, _, diagonal = shape
    whole, channels = cat(*parts, dim=1), parts[0].shape[-1]
    if diagonal:
        pixels = [np.arange(height * width)[p] for p, *_ in _steps(height, width, diagonal)]
        whole = whole[:, np.argsort(np.concatenate([[], *pixels])).tolist()]
    whole = reshape(whole, (*x_shape[:-1], channels))
    return flip(whole, (2,)) if diagonal < 0 else whole


def _shape(x, weight, h0, c0, diagonal, w_ih, bias):
    """(N, H, W, units, taps, diagonal): every case as one of images. ValueError for shapes that don't fit."""
    if not 2 <= len(x.shape) <= 4 or len(weight.shape) != (4 if len(x.shape) == 4 else 2):
        raise ValueError(
            "x and weight must be (B, ...) or (T, B, ...) and (4U, U), or (N, H, W, ...) and (4U, U, KH, KW), got "
            f"{x.shape} and {weight.shape}"
        )
    units, kernel, features = weight.shape[1], weight.shape[2:] or (1, 1), x.shape[-1]
    n, height, width = (1, 1, 1, *x.shape[:-1])[-3:]
    if weight.shape[0] != 4 * units or (w_ih is None and features != 4 * units):
        raise ValueError(f"weight must be (4U, U, ...), with 4U = x.shape[-1], got {weight.shape} for {x.shape}")
    if w_ih is not None and w_ih.shape != (4 * units, features):
        raise ValueError(f"w_ih must have shape {(4 * units, features)}, got {w_ih.shape}")
    if bias is not None and (w_ih is None or bias.shape != (4 * units,)):
        raise ValueError(f"bias must have shape {(4 * units,)}, and come with w_ih, got {bias.shape}")
    if diagonal not in (-1, 0, 1):
        raise ValueError(f"diagonal must be 0, 1 or -1, got {diagonal!r}")
    if (kernel != (2, 1)) if diagonal else (kernel[0] != 1 or kernel[1] % 2 == 0):
        expected = "(2, 1)" if diagonal else "(1, K) with K odd"
        raise ValueError(f"weight's kernel must be {expected} for diagonal={diagonal}, got {kernel}")
    if (h0 is None) != (c0 is None) or (h0 is not None and len(x.shape) == 4):
        raise ValueError("h0 and c0 must be given together, and not for images")
    for name, state in (("h0", h0), ("c0", c0)):
        if state is not None and state.shape != (width, units):
            raise ValueError(f"{name} must have shape {(width, units)}, got {state.shape}")
    return n, height, width, units, kernel[0] * kernel[1], diagonal


# ------------------------------------------------------------------------------------------- its gradients, any order


@op(outputs=("gx", "gweight", "gh0", "gc0", "gw_ih", "gbias"))
def lstm_backward(
    gh, gc, ggates, x, weight, h0=None, c0=None, diagonal=0, w_ih=None, bias=None, needs_x=True, saved=None
):
    """The gradients of `lstm`, from those of h, c and the gates (None for zero).

    For inputs that were left out, and for x if not needs_x, they are empty. saved: h, c and the gates, if they are
    known; as they follow from the rest, they add nothing to the derivatives.

    Accuracy: 16 ulps of the largest element: 0 where tanh or sigmoid round to 1.
    """
    _check_gradients(gh, gc, ggates, x, _shape(x, weight, h0, c0, diagonal, w_ih, bias))
    gx, *others = _gradients(diagonal)((x, weight, h0, c0, w_ih, bias), (gh, gc, ggates))
    return _filled((gx if needs_x else None, *others), x)


@lstm.vjp("x", "weight", "h0", "c0", "w_ih", "bias")
def _(gh, gc, ggates, x, weight, h0, c0, diagonal, w_ih, bias, keep, h, c, gates, needs):
    ggates, saved = (ggates, (h, c, gates)) if keep else (None, None)
    return lstm_backward(gh, gc, ggates, x, weight, h0, c0, diagonal, w_ih, bias, needs[0], saved)


@lstm_backward.vjp("gh", "gc", "ggates", "x", "weight", "h0", "c0", "w_ih", "bias")
def _(
    ggx, ggweight, ggh0, ggc0, ggw_ih, ggbias, gh, gc, ggates, x, weight, h0, c0, diagonal, w_ih, bias
):  # fmt: skip
    first = _gradients(diagonal)
    second = derive_from(lambda *args: first(args[3:], args[:3]))
    return second((gh, gc, ggates, x, weight, h0, c0, w_ih, bias), (ggx, ggweight, ggh0, ggc0, ggw_ih, ggbias))


def _gradients(diagonal):
    """The gradients of the definition, which is written in ops, so that they can be derived again."""
    return derive_from(lambda x, weight, h0, c0, *rest: lstm.op.body(x, weight, h0, c0, diagonal, *rest))


def _check_gradients(gh, gc, ggates, x, shape):
    states, gates = ((*x.shape[:-1], n * shape[3]) for n in (1, 4))
    for name, g, expected in (("gh", gh, states), ("gc", gc, states), ("ggates", ggates, gates)):
        if g is not None and g.shape != expected:
            raise ValueError(f"{name} must have shape {expected}, got {g.shape}")


def _filled(grads, x):
    """An op's outputs are arrays: empty ones for None."""
    return tuple(xp(x).empty((0,), x.dtype) if g is None else g for g in grads)


# ------------------------------------------------------------------------------------------------------------ kernels


@lstm.kernel
def _(x, weight, h0, c0, diagonal, w_ih, bias, keep):
    return kernels.recurrent.lstm(x, weight, h0, c0, w_ih, bias, keep, _shape(x, weight, h0, c0, diagonal, w_ih, bias))


@lstm_backward.kernel
def _(gh, gc, ggates, x, weight, h0, c0, diagonal, w_ih, bias, needs_x, saved):
    if ggates is not None or (gh is None and gc is None):
        return NotImplemented  # only in derivatives of derivatives
    shape = _shape(x, weight, h0, c0, diagonal, w_ih, bias)
    _check_gradients(gh, gc, None, x, shape)
    saved = saved or kernels.recurrent.lstm(x, weight, h0, c0, w_ih, bias, True, shape)
    if saved is NotImplemented:
        return saved
    grads = kernels.recurrent.lstm_backward(gh, gc, saved, x, weight, h0, c0, w_ih, bias, needs_x, shape)
    return grads if grads is NotImplemented else _filled(grads, x)


def lstm_states(*args):
    """h and c of `lstm`, whose gates are kept only if a tape runs."""
    return lstm(*args, keep=is_grad_enabled())[:2]


def lstm_cell(input, h, c, w_ih, w_hh, b_ih=None, b_hh=None):
    """One step of an LSTM: -> (h_next, c_next), both (N, H).

    input: (N, I), h and c: (N, H), w_ih: (4H, I), w_hh: (4H, H), b_ih and b_hh: (4H,). The four blocks are
    those of the input gate i, the forget gate f, the cell's candidate g and the output gate o. See `lstm`.
    """
    return lstm_states(input, w_hh, h, c, 0, w_ih, b_hh if b_ih is None else b_ih if b_hh is None else b_ih + b_hh)


@op
def gated_activation(x):
    """tanh(a) * sigmoid(b) of the halves a and b of the channels: (N, 2C, ...) -> (N, C, ...).

    Accuracy: 8 ulps.

    Source: van den Oord et al., Conditional Image Generation with PixelCNN Decoders (2016), equation 2.
    """
    if x.ndim < 2 or x.shape[1] % 2:
        raise ValueError(f"x must have an even number of channels on axis 1, got shape {x.shape}")
    a, b = _halves(x)
    return tanh(a) * sigmoid(b)


@op
def gated_activation_backward(g, x):
    """The gradient of `gated_activation` for g, that of its output.

    Accuracy: 16 ulps of the largest element: it is 0 where tanh or sigmoid round to 1.
    """
    a, b = _halves(x)
    t, s = tanh(a), sigmoid(b)
    return cat(g * s * (1 - t * t), g * t * (s * (1 - s)), dim=1)


@gated_activation.vjp("x")
def _(gout, x):
    return gated_activation_backward(gout, x)


@gated_activation_backward.vjp("g", "x")
def _(gout, g, x):
    return derive_from(gated_activation_backward.op.body)((g, x), (gout,))


gated_activation.kernel(kernels.rows.gated_activation)
gated_activation_backward.kernel(kernels.rows.gated_activation_backward)


def _halves(x):
    half = x.shape[1] // 2
    return x[:, :half], x[:, half:]


@gated_activation.samples
def _(rng):
    yield sample(normal(rng, 3, 4))
    yield sample(normal(rng, 2, 6, 2, 3))


@gated_activation_backward.samples
def _(rng):
    yield sample(normal(rng, 3, 2), normal(rng, 3, 4))
    yield sample(normal(rng, 2, 3, 2, 3), normal(rng, 2, 6, 2, 3))


def _cases(rng):
    """x, weight, h0, c0, diagonal, w_ih, bias."""
    for shape, weight, states, diagonal, more in (
        ((3, 8), (8, 2), ((3, 2),) * 2, 0, ()),
        ((3, 2, 12), (12, 3), (), 0, ()),
        ((3, 2, 5), (8, 2), ((2, 2),) * 2, 0, ((8, 5), (8,))),
        ((2, 5), (8, 2), (), 0, ((8, 5),)),
        ((1, 3, 3, 8), (8, 2, 1, 3), (), 0, ()),
        ((2, 3, 2, 3), (4, 1, 2, 1), (), 1, ((4, 3), (4,))),
        ((2, 2, 3, 4), (4, 1, 2, 1), (), -1, ()),
    ):
        x, w, *before = (normal(rng, *s) for s in (shape, weight, *states))
        yield x, w, *(before or (None, None)), diagonal, *(normal(rng, *s) for s in more)


@lstm.flops
def _(h_shape, weight_shape, w_ih_shape):
    return 2 * prod(h_shape) // weight_shape[1] * (prod(weight_shape) + prod(w_ih_shape or (0,)))


@lstm.samples
def _(rng):
    for case in _cases(rng):
        yield sample(*case)
        yield sample(*case, keep=False)


@lstm_backward.samples
def _(rng):
    for x, weight, *rest in _cases(rng):
        gh, gc = (normal(rng, *x.shape[:-1], weight.shape[1]) for _ in range(2))
        yield sample(gh, gc, None, x, weight, *rest)
    yield sample(gh, None, normal(rng, *x.shape), x, weight, *rest)
    yield sample(None, normal(rng, 0, 3, 2), None, normal(rng, 0, 3, 8), normal(rng, 8, 2))
