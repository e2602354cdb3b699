"""Chapter 4: convolutions that don't see the future. Fill the holes, then run `tinygen gradcheck exercise.py`."""

import numpy as np


def conv_forward(x, w, b, conv_param):
    """x: (N, C, H, W), w: (F, C, KH, KW), b: (F,); conv_param: {"stride", "pad"}. -> (N, F, OH, OW)."""
    stride, pad = conv_param["stride"], conv_param["pad"]
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    n, f, kh, kw = len(x), *w.shape[:1], *w.shape[2:]
    oh, ow = (padded.shape[2] - kh) // stride + 1, (padded.shape[3] - kw) // stride + 1
    y = np.zeros((n, f, oh, ow))
    for i in range(kh):
        for j in range(kw):  # a tap: one weight matrix, and the pixels that it meets
            window = padded[:, :, i : i + stride * oh : stride, j : j + stride * ow : stride]
            y += np.einsum("ncij,fc->nfij", window, w[:, :, i, j])
    return y + b[:, None, None], (x, w, conv_param)


def conv_backward(dout, cache):
    """Exercise 4.1: the gradients by x, w and b. Over the same taps: what was read is added to, by the same weights."""
    raise NotImplementedError("exercise 4.1")


def mask_of(kind, height, width):
    """Exercise 4.2: (height, width) of 1 where a PixelCNN's kernel may look, and 0 elsewhere.

    It may look at the rows above the middle one, and to the left of the middle. The middle itself: only kind "B".
    """
    raise NotImplementedError("exercise 4.2")


def masked_forward(x, w):
    """A convolution with mask A that keeps the image's size. x: (N, C, H, W), w: (F, C, 3, 3)."""
    y, cache = conv_forward(x, w * mask_of("A", 3, 3), np.zeros(len(w)), {"stride": 1, "pad": 1})
    return y, cache


def masked_backward(dout, cache):
    """Exercise 4.3: the gradients by x and by w. A weight that was masked has gradient 0."""
    raise NotImplementedError("exercise 4.3")


def masked_inputs():
    """The arguments that gradcheck takes."""
    r = np.random.default_rng(0)
    return r.standard_normal((2, 2, 5, 4)), r.standard_normal((3, 2, 3, 3))
