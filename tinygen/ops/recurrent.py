"""Gates: the LSTM cell, and the gated activation of convolutional networks."""

from __future__ import annotations

from tinygen.autograd import op, xp
from tinygen.ops._samples import normal, sample
from tinygen.ops.elementwise import sigmoid, tanh
from tinygen.ops.linalg import linear
from tinygen.ops.shape import cat


def lstm_cell(input, h, c, w_ih, w_hh, b_ih=None, b_hh=None):
    """One step of an LSTM: -> (h_next, c_next), both (N, H).

    input: (N, I), h and c: (N, H), w_ih: (4H, I), w_hh: (4H, H), b_ih and b_hh: (4H,). The four blocks are
    those of the input gate i, the forget gate f, the cell's candidate g and the output gate o. Source:
    Hochreiter & Schmidhuber, Long Short-Term Memory (1997), with the forget gate of Gers et al. (2000).
    """
    gates = linear(input, w_ih, b_ih) + linear(h, w_hh, b_hh)
    size = h.shape[-1]
    i, f, g, o = (gates[..., k * size : (k + 1) * size] for k in range(4))
    c_next = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c_next), c_next


@op
def gated_activation(x):
    """tanh(a) * sigmoid(b) of the halves a and b of the channels: (N, 2C, ...) -> (N, C, ...).

    Source: van den Oord et al., Conditional Image Generation with PixelCNN Decoders (2016), equation 2.
    """
    if x.ndim < 2 or x.shape[1] % 2:
        raise ValueError(f"x must have an even number of channels on axis 1, got shape {x.shape}")
    a, b = _halves(x)
    return xp(x).tanh(a) * sigmoid(b)


@gated_activation.vjp("x")
def _(gout, x):
    a, b = _halves(x)
    t, s = tanh(a), sigmoid(b)
    return cat(gout * s * (1 - t * t), gout * t * (s * (1 - s)), dim=1)


def _halves(x):
    half = x.shape[1] // 2
    return x[:, :half], x[:, half:]


@gated_activation.samples
def _(generator):
    yield sample(normal(generator, 3, 4))
    yield sample(normal(generator, 2, 6, 2, 3))
