"""Windows over images: pooling and upsampling. Images are (N, C, H, W), and keep their order in memory.

As in convolution, two linear ops are each other's adjoints: `window_sum` sums the pixels in each window,
`window_spread` adds a value to all pixels of its window. With `which` given, an integer for each window, both
mean only the pixel with that number, counted in raster order from 0. So:

    max_pool2d   finds the largest pixel of each window, and its number; its gradient is window_spread there
    avg_pool2d   is window_sum over the number of pixels
    upsampling   by whole factors is window_spread with windows side by side
"""

from __future__ import annotations

import numpy as np

from tinygen.array import real, xp
from tinygen.geometry import out_size
from tinygen.ops._samples import normal, sample
from tinygen.tape import op


@op(outputs=("out", "which"))
def max_pool2d(x, kernel, stride, padding=(0, 0), dilation=(1, 1)):
    """The largest pixel of each window, its number: (N, C, H, W) -> (N, C, OH, OW).

    Of equals the first, of NaNs the last, as in PyTorch.
    """
    n, x = xp(x), real(x)
    padded = _padded(x, padding, -np.inf)
    size = out_size(x.shape[2:], kernel, stride, padding, dilation)
    out = n.full_like(x, -np.inf, shape=(*x.shape[:2], *size))
    which = n.zeros_like(out, dtype=np.int32)
    if padding != (0, 0):  # a window of -inf is its first pixel in the image, not one of the padding
        places = zip(padding, size, stride, dilation, strict=True)
        rows, columns = (n.maximum(-((n.arange(m) * s - p) // d), 0) for p, m, s, d in places)
        which += (rows[:, None] * kernel[1] + columns).astype(np.int32)
    for t, window in _windows(kernel, size, stride, dilation):
        pixel = padded[window]
        best = (pixel > out) | (pixel != pixel)
        n.maximum(which, best * np.int32(t), out=which)  # t grows; masked copies are slower
        n.maximum(out, pixel, out=out)  # NaN passes through, as in PyTorch
    return out, which


@max_pool2d.vjp("x")
def _(gout, which, x_shape, kernel, stride, padding, dilation):
    return window_spread(gout, which, x_shape[2:], kernel, stride, padding, dilation)


@op
def window_sum(x, which, kernel, stride, padding=(0, 0), dilation=(1, 1)):
    """The sum of the pixels in each window, or of pixel number `which` alone; padding counts as 0.

    x: (N, C, H, W), which: integers (N, C, OH, OW) or None -> (N, C, OH, OW).

    Accuracy: 16 ulps of the largest element.
    """
    n, x = xp(x), real(x)
    padded = _padded(x, padding, 0)
    size = out_size(x.shape[2:], kernel, stride, padding, dilation)
    out = n.zeros_like(x, shape=(*x.shape[:2], *size))
    for t, window in _windows(kernel, size, stride, dilation):
        out += padded[window] if which is None else padded[window] * (which == t)
    return out


@window_sum.vjp("x")
def _(gout, x_shape, which, kernel, stride, padding, dilation):
    return window_spread(gout, which, x_shape[2:], kernel, stride, padding, dilation)


@op
def window_spread(y, which, size, kernel, stride, padding=(0, 0), dilation=(1, 1)):
    """The adjoint of `window_sum`: y: (N, C, OH, OW) -> (N, C, *size)."""
    n, (ph, pw), (h, w) = xp(y), padding, size
    if out_size(size, kernel, stride, padding, dilation) != y.shape[2:]:
        raise ValueError(f"windows of {kernel} and stride {stride} on {size} don't give {y.shape[2:]}")
    x = n.zeros_like(y, shape=(*y.shape[:2], h + 2 * ph, w + 2 * pw))
    for t, window in _windows(kernel, y.shape[2:], stride, dilation):
        x[window] += y if which is None else y * (which == t)
    return x[:, :, ph : ph + h, pw : pw + w]


@window_spread.vjp("y")
def _(gout, which, kernel, stride, padding, dilation):
    return window_sum(gout, which, kernel, stride, padding, dilation)


def _windows(kernel, size, stride, dilation):
    """For each pixel number, where these pixels of all windows are in the padded image."""
    for t in range(kernel[0] * kernel[1]):
        starts = (tap * d for tap, d in zip(divmod(t, kernel[1]), dilation, strict=True))
        yield (
            t,
            (..., *(slice(a, a + s * (n - 1) + 1, s) for a, n, s in zip(starts, size, stride, strict=True))),
        )


def _padded(x, padding, value):
    ph, pw = padding
    if not ph and not pw:
        return x
    n, c, h, w = x.shape
    padded = xp(x).full_like(x, value, shape=(n, c, h + 2 * ph, w + 2 * pw))
    padded[:, :, ph : ph + h, pw : pw + w] = x
    return padded


# ------------------------------------------------------------------------------------ what they are tested on

_GEOMETRIES = (  # image, kernel, stride, padding, dilation
    ((4, 6), (2, 2), (2, 2), (0, 0)),
    ((5, 4), (3, 2), (2, 1), (1, 1)),
    ((5, 7), (2, 3), (3, 2), (0, 1)),
    ((3, 3), (3, 3), (1, 1), (1, 1)),
    ((6, 5), (2, 3), (2, 1), (1, 1), (3, 2)),
)


@max_pool2d.samples
def _(rng):
    for image, *rest in _GEOMETRIES:
        yield sample(normal(rng, 2, 3, *image), *rest)


def _picks(rng, image, *rest):
    """For each window the number of a pixel within the image."""
    return max_pool2d(normal(rng, 2, 3, *image), *rest)[1]


@window_sum.samples
def _(rng):
    for image, *rest in _GEOMETRIES:
        yield sample(normal(rng, 2, 3, *image), None, *rest)
        yield sample(normal(rng, 2, 3, *image), _picks(rng, image, *rest), *rest)


@window_spread.samples
def _(rng):
    for image, *rest in _GEOMETRIES:
        size = out_size(image, *rest)
        yield sample(normal(rng, 2, 3, *size), None, image, *rest)
        yield sample(normal(rng, 2, 3, *size), _picks(rng, image, *rest), image, *rest)
