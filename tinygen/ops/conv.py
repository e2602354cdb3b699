"""The convolution family: three ops that are each other's gradients.

Convolution is linear in the image x and in the weight w. Paired with an output-shaped y it is one number,

    T(x, w, y) = sum over taps (i, j), positions p:  y[p] . w[i, j] . x[stride * p + dilation * (i, j) - padding],

and its three faces are T's derivatives: `conv2d` gives y from x and w, `conv_transpose2d` gives x from y and w,
`conv2d_weight` gives w from x and y. So the gradients of each are the other two, to any order.

Shapes are PyTorch's: images (N, C, H, W), weights (O, I, KH, KW). In memory images are NHWC and weights HWIO, so that
`x.transpose(0, 2, 3, 1)` is contiguous and a kernel's innermost loop runs over channels; elementwise ops keep that
order by themselves.

A PixelCNN mask (van den Oord et al. 2016, section 3.4; lecture slide 32) lets an output see only pixels before its own
in raster order: the taps of the rows above, those to the left, and of the centre tap what `mask` and `channels`
say. Masked taps are left out, not multiplied by zero.
"""

from __future__ import annotations

import numpy as np

from tinygen import native
from tinygen.native import xp
from tinygen.ops._samples import normal, sample
from tinygen.ops.elementwise import relu_backward
from tinygen.ops.reduce import sum
from tinygen.ops.shape import broadcast_to, reshape
from tinygen.tape import op


@op
def conv2d(
    x, weight, bias=None, stride=(1, 1), padding=(0, 0), dilation=(1, 1), mask=None, channels=1, relu=False, add=None
):
    """y = conv(x, weight) + bias + add. x: (N, I, H, W), weight: (O, I, KH, KW), bias: (O,) or None.

    -> (N, O, OH, OW), and so add, or None. OH = (H + 2 padding - dilation (KH - 1) - 1) // stride + 1, and so OW.
    relu: of max(x, 0) in x's place.
    """
    size = _out_size(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    x = xp(x).maximum(x, 0) if relu else x
    y = xp(x).zeros((len(x), *size, len(weight)), x.dtype)
    padded = _padded(x, padding)
    for tap, window, keep in _taps(weight.shape, size, stride, dilation, mask, channels):
        y += padded[window] @ _kept(weight[:, :, *tap], keep).T
    y = _nchw(_biased(y, bias))
    return y if add is None else y + add


@op
def conv_transpose2d(
    y, weight, bias=None, size=(1, 1), stride=(1, 1), padding=(0, 0), dilation=(1, 1), mask=None, channels=1,
    positive=None,
):  # fmt: skip
    """The adjoint of `conv2d` in x, plus bias (I,). y: (N, O, OH, OW), weight: (O, I, KH, KW) -> (N, I, *size).

    positive: for the adjoint of a convolution of max(x, 0), that x: without a bias, and 0 where x isn't above 0.
    """
    _check_size(size, weight.shape[2:], y.shape[2:], stride, padding, dilation)
    (ph, pw), (h, w) = padding, size
    x = xp(y).zeros((len(y), h + 2 * ph, w + 2 * pw, weight.shape[1]), y.dtype)
    rows = y.transpose(0, 2, 3, 1)
    for tap, window, keep in _taps(weight.shape, y.shape[2:], stride, dilation, mask, channels):
        x[window] += rows @ _kept(weight[:, :, *tap], keep)
    x = _nchw(_biased(x[:, ph : ph + h, pw : pw + w], bias))
    return x if positive is None else relu_backward(x, positive)


@op(outputs=("weight", "bias"))
def conv2d_weight(x, y, kernel_size, stride=(1, 1), padding=(0, 0), dilation=(1, 1), mask=None, channels=1, relu=False):
    """The adjoint of `conv2d` in (weight, bias). x: (N, I, H, W), y: (N, O, OH, OW) -> (O, I, KH, KW), (O,)."""
    _check_size(x.shape[2:], kernel_size, y.shape[2:], stride, padding, dilation)
    x = xp(x).maximum(x, 0) if relu else x
    weight = xp(x).zeros((*kernel_size, x.shape[1], y.shape[1]), x.dtype).transpose(3, 2, 0, 1)
    padded = _padded(x, padding)
    rows = y.transpose(0, 2, 3, 1).reshape(-1, y.shape[1])
    for tap, window, keep in _taps(weight.shape, y.shape[2:], stride, dilation, mask, channels):
        weight[:, :, *tap] = _kept(rows.T @ padded[window].reshape(-1, x.shape[1]), keep)
    return weight, y.sum(axis=(0, 2, 3))


# --------------------------------------------------------------------------------------- gradients: the other two faces


@conv2d.vjp("x")
def _(gout, x, weight, stride, padding, dilation, mask, channels, relu):
    return _to_image(gout, weight, x, stride, padding, dilation, mask, channels, relu)


@conv2d.vjp("weight", "bias")
def _(gout, x, weight_shape, stride, padding, dilation, mask, channels, relu):
    return conv2d_weight(x, gout, weight_shape[2:], stride, padding, dilation, mask, channels, relu)


@conv2d.vjp("add")
def _(gout):
    return gout


@conv_transpose2d.vjp("y")
def _(gout, weight, stride, padding, dilation, mask, channels, positive):
    return conv2d(_where(gout, positive), weight, None, stride, padding, dilation, mask, channels)


@conv_transpose2d.vjp("weight")
def _(gout, y, weight_shape, stride, padding, dilation, mask, channels, positive):
    return conv2d_weight(_where(gout, positive), y, weight_shape[2:], stride, padding, dilation, mask, channels)[0]


@conv_transpose2d.vjp("bias")
def _(gout):
    return sum(gout, (0, 2, 3))


@conv_transpose2d.vjp("positive")
def _(positive):
    return positive * 0.0  # constant on either side of the kink


@conv2d_weight.vjp("x")
def _(gweight, x, y, stride, padding, dilation, mask, channels, relu):
    return None if gweight is None else _to_image(y, gweight, x, stride, padding, dilation, mask, channels, relu)


@conv2d_weight.vjp("y")
def _(gweight, gbias, x, y_shape, stride, padding, dilation, mask, channels, relu):
    if gweight is None:
        return broadcast_to(reshape(gbias, (-1, 1, 1)), y_shape)
    return conv2d(x, gweight, gbias, stride, padding, dilation, mask, channels, relu)


def _to_image(y, weight, x, stride, padding, dilation, mask, channels, relu):
    """The adjoint in x, of max(x, 0) if relu."""
    image, positive = x.shape[2:], x if relu else None
    return conv_transpose2d(y, weight, None, image, stride, padding, dilation, mask, channels, positive)


def _where(gout, positive):
    return gout if positive is None else relu_backward(gout, positive)


# -------------------------------------------------------------------------------------------------------------- kernels


@conv2d.kernel
def _(x, weight, bias, stride, padding, dilation, mask, channels, relu, add):
    size = _out_size(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    return native.conv2d(x, weight, bias, size, stride, padding, dilation, mask, channels, relu, add)


@conv_transpose2d.kernel
def _(y, weight, bias, size, stride, padding, dilation, mask, channels, positive):
    _check_size(size, weight.shape[2:], y.shape[2:], stride, padding, dilation)
    return native.conv_transpose2d(y, weight, bias, size, stride, padding, dilation, mask, channels, positive)


@conv2d_weight.kernel
def _(x, y, kernel_size, stride, padding, dilation, mask, channels, relu):
    _check_size(x.shape[2:], kernel_size, y.shape[2:], stride, padding, dilation)
    return native.conv2d_weight(x, y, kernel_size, stride, padding, dilation, mask, channels, relu)


# ------------------------------------------------------------------------------------------- what the definitions share


def _out_size(image, kernel, stride, padding, dilation):
    """The output's (height, width); ValueError if the kernel doesn't fit into the padded image."""
    if len(image) != 2 or len(kernel) != 2:
        raise ValueError(f"images and weights must have 4 axes, got {len(image) + 2} and {len(kernel) + 2}")
    size = tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(image, kernel, stride, padding, dilation, strict=True)
    )
    if min(size) < 1:
        raise ValueError(f"a kernel of {kernel} with dilation {dilation} doesn't fit into {image} padded by {padding}")
    return size


def _check_size(image, kernel, out, stride, padding, dilation):
    if _out_size(image, kernel, stride, padding, dilation) != tuple(out):
        raise ValueError(f"{image} doesn't become {out} with kernel {kernel}, stride {stride}, padding {padding}")


def _padded(x, padding):
    """x as NHWC, zeros around each image."""
    (ph, pw), x = padding, x.transpose(0, 2, 3, 1)
    return xp(x).pad(x, ((0, 0), (ph, ph), (pw, pw), (0, 0))) if ph or pw else x


def _biased(x, bias):
    """x (N, H, W, C) plus the bias (C,), if there is one."""
    if bias is not None and bias.shape != x.shape[-1:]:
        raise ValueError(f"bias must have shape {x.shape[-1:]}, got {bias.shape}")
    return x if bias is None else x + bias


def _nchw(x):
    return x.transpose(0, 3, 1, 2)


def _taps(weight_shape, size, stride, dilation, mask, channels):
    """For each kept tap: its place in the kernel, the pixels of the padded image that it meets, its channel mask."""
    o, i, kh, kw = weight_shape
    for r in range(kh):
        for c in range(kw):
            place = (r - kh // 2, c - kw // 2)
            if mask and place > (0, 0):  # tuples compare in raster order
                return
            window = tuple(
                slice(t * d, t * d + s * (n - 1) + 1, s)
                for t, d, s, n in zip((r, c), dilation, stride, size, strict=True)
            )
            keep = channel_mask(o, i, mask, channels) if mask and place == (0, 0) else None
            yield (r, c), (slice(None), *window), keep


def _kept(weight, keep):
    """The entries that the mask keeps, exact zeros elsewhere, whatever stands there."""
    return weight if keep is None else xp(weight).where(xp(weight).asarray(keep), weight, 0)


def channel_mask(outputs, inputs, mask, channels):
    """What the centre tap lets through: (O, I) of booleans.

    Channels fall into `channels` equal groups, in order (3: R, then G given R, then B given both). Mask "A" lets a
    group see earlier groups, "B" also itself.
    """
    out_group = np.arange(outputs)[:, None] * channels // outputs
    in_group = np.arange(inputs)[None, :] * channels // inputs
    return in_group < out_group if mask == "A" else in_group <= out_group


# ---------------------------------------------------------------------------------------------- what they are tested on

_GEOMETRIES = (  # image, kernel, stride, padding, dilation
    ((4, 5), (3, 2), (1, 1), (0, 0), (1, 1)),
    ((5, 4), (3, 3), (2, 1), (1, 2), (1, 1)),
    ((6, 5), (2, 2), (3, 2), (1, 0), (2, 3)),
    ((2, 2), (4, 3), (2, 2), (1, 1), (1, 1)),  # the kernel is larger than the image
    ((3, 2), (1, 1), (1, 1), (0, 0), (1, 1)),
)
_MASKS = (((4, 3), 3, "A", 1), ((3, 4), 3, "B", 1), ((3, 3), 5, "A", 3), ((2, 3), 3, "B", 3))


def _cases(rng):
    for image, kernel, stride, padding, dilation in _GEOMETRIES:
        yield 2, 3, image, kernel, (stride, padding, dilation, None, 1)
    for image, k, mask, channels in _MASKS:
        yield channels, 2 * channels, image, (k, k), ((1, 1), (k // 2, k // 2), (1, 1), mask, channels)


@conv2d.samples
def _(rng):
    for i, o, image, kernel, rest in _cases(rng):
        yield sample(normal(rng, 2, i, *image), normal(rng, o, i, *kernel), normal(rng, o), *rest)
        size = _out_size(image, kernel, *rest[:3])
        x, add = normal(rng, 2, i, *image), normal(rng, 2, o, *size)
        yield sample(x, normal(rng, o, i, *kernel), None, *rest, True, add)
    yield sample(normal(rng, 1, 1, 3, 3), normal(rng, 2, 1, 2, 2), add=normal(rng, 1, 2, 2, 2))


@conv_transpose2d.samples
def _(rng):
    for i, o, image, kernel, rest in _cases(rng):
        size = _out_size(image, kernel, *rest[:3])
        y, weight, bias = normal(rng, 2, o, *size), normal(rng, o, i, *kernel), normal(rng, i)
        yield sample(y, weight, bias, image, *rest)
        yield sample(y, weight, None, image, *rest, normal(rng, 2, i, *image))


@conv2d_weight.samples
def _(rng):
    for i, o, image, kernel, rest in _cases(rng):
        size = _out_size(image, kernel, *rest[:3])
        yield sample(normal(rng, 2, i, *image), normal(rng, 2, o, *size), kernel, *rest)
        yield sample(normal(rng, 2, i, *image), normal(rng, 2, o, *size), kernel, *rest, True)
