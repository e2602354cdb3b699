"""Convolution, and matrix products, which are convolutions of images of one pixel."""

from __future__ import annotations

import functools
import math

from tinygen.array import xp
from tinygen.geometry import UNIT
from tinygen.kernels import layout, library
from tinygen.pool import new


def conv2d(x, weight, bias, geometry, relu=False, add=None):
    """See `tinygen.ops.conv2d`."""
    if not library.accepts(x, weight, bias, add):
        return NotImplemented
    if geometry.groups > 1:
        one = geometry.of_group()
        geometry.check_groups(x.shape[1], len(weight), weight.shape[1])
        _check_channels(len(weight), bias, add)
        return _joined(
            conv2d(x[:, i], weight[o], None if bias is None else bias[o], one, relu, None if add is None else add[:, o])
            for i, o in _groups(geometry, x.shape[1], len(weight))
        )
    n, o = len(x), len(weight)
    if x.shape[1] != weight.shape[1]:
        raise ValueError(f"weight is for {weight.shape[1]} input channels, x has {x.shape[1]}")
    shape, size = conv_shape(geometry, n, x.shape[2:], x.shape[1], o, weight.shape[2:])
    if add is not None and add.shape != (n, o, *size):
        raise ValueError(f"add must have the output's shape {(n, o, *size)}, got {add.shape}")
    y = new((n, *size, o), x)
    options = layout.vector("bias", bias, o), None if add is None else layout.nhwc(add)
    library.call("tg_conv2d", x, shape, int(relu), layout.nhwc(x), layout.hwio(weight), *options, y)
    return y.transpose(0, 3, 1, 2)


def conv_transpose2d(y, weight, bias, size, geometry, positive=None):
    """See `tinygen.ops.conv_transpose2d`."""
    if not library.accepts(y, weight, bias, positive):
        return NotImplemented
    if y.shape[1] != len(weight):
        raise ValueError(f"weight is for {len(weight)} channels, y has {y.shape[1]}")
    if geometry.groups > 1:
        one, inputs = geometry.of_group(), geometry.groups * weight.shape[1]
        geometry.check_groups(inputs, y.shape[1], weight.shape[1])
        _check_channels(inputs, bias, positive)
        return _joined(
            conv_transpose2d(y[:, o], weight[o], None if bias is None else bias[i], size, one,
                             None if positive is None else positive[:, i])
            for i, o in _groups(geometry, inputs, len(weight))
        )  # fmt: skip
    n, (o, i) = len(y), weight.shape[:2]
    shape = _shape_between(geometry, n, size, y.shape[2:], i, o, weight.shape[2:])
    if positive is not None and (positive.shape != (n, i, *size) or bias is not None):
        raise ValueError(f"positive must have the output's shape {(n, i, *size)}, without a bias, got {positive.shape}")
    x = new((n, *size, i), y)
    options = layout.vector("bias", bias, i), None if positive is None else layout.nhwc(positive)
    library.call("tg_conv_transpose2d", y, shape, layout.nhwc(y), layout.hwio(weight), *options, x)
    return x.transpose(0, 3, 1, 2)


def conv2d_weight(x, y, kernel_size, geometry, relu=False):
    """See `tinygen.ops.conv2d_weight`."""
    if not library.accepts(x, y):
        return NotImplemented
    if geometry.groups > 1:
        one = geometry.of_group()
        geometry.check_groups(x.shape[1], y.shape[1])
        groups = _groups(geometry, x.shape[1], y.shape[1])
        weights, biases = zip(
            *(conv2d_weight(x[:, i], y[:, o], kernel_size, one, relu) for i, o in groups), strict=True
        )
        return xp(x).concatenate(weights), xp(x).concatenate(biases)
    n, i, o = len(x), x.shape[1], y.shape[1]
    if len(y) != n:
        raise ValueError(f"x has {n} images, y has {len(y)}")
    shape = _shape_between(geometry, n, x.shape[2:], y.shape[2:], i, o, kernel_size)
    weight, bias = new((*kernel_size, i, o), x), new((o,), x)
    library.call("tg_conv2d_weight", x, shape, int(relu), layout.nhwc(x), layout.nhwc(y), weight, bias)
    return weight.transpose(3, 2, 0, 1), bias


def _check_channels(count, vector, images):
    """ValueError unless they, if given, have so many channels: a slice of a group's could be right by chance."""
    for name, array, axis in (("bias", vector, 0), ("add or positive", images, 1)):
        if array is not None and array.shape[axis] != count:
            raise ValueError(f"{name} must have {count} channels, got shape {array.shape}")


def _groups(geometry, inputs, outputs):
    """(input channels, output channels) of each group, as slices."""
    i, o = inputs // geometry.groups, outputs // geometry.groups
    return [(slice(g * i, (g + 1) * i), slice(g * o, (g + 1) * o)) for g in range(geometry.groups)]


def _joined(images):
    """Images (N, C, H, W) of several groups as one of all their channels, NHWC in memory."""
    rows = [image.transpose(0, 2, 3, 1) for image in images]
    return xp(rows[0]).concatenate(rows, axis=3).transpose(0, 3, 1, 2)


@functools.lru_cache(1 << 12)
def conv_shape(geometry, images, image, inputs, outputs, kernel):
    """The description of its arrays that a kernel takes, a `tg_conv_shape`, and the output's (height, width).

    A kernel's memory is bounded by these sizes: ValueError if they don't fit each other.
    """
    if min(geometry.stride + geometry.dilation) < 1:
        raise ValueError(f"stride and dilation must be at least 1, got {geometry}")
    if geometry.mask and (geometry.channels < 1 or inputs % geometry.channels or outputs % geometry.channels):
        both = f"{inputs} and {outputs}"
        raise ValueError(f"channels={geometry.channels} must divide the channels of both sides, got {both}")
    size = geometry.out_size(image, kernel)
    s = library.ffi.new("tg_conv_shape *")
    s.n, (s.h, s.w), s.ci, (s.oh, s.ow), s.co, (s.kh, s.kw) = images, image, inputs, size, outputs, kernel
    (s.stride_h, s.stride_w), (s.pad_h, s.pad_w), (s.dil_h, s.dil_w) = (
        geometry.stride,
        geometry.padding,
        geometry.dilation,
    )
    s.mask, s.groups = {None: 0, "A": 1, "B": 2}[geometry.mask], geometry.channels
    return s, size


def _shape_between(geometry, images, image, size, inputs, outputs, kernel):
    """`conv_shape` for images of this size that become outputs of that one."""
    shape, expected = conv_shape(geometry, images, tuple(image), inputs, outputs, tuple(kernel))
    if size != expected:
        raise ValueError(f"{image} doesn't become {size} with kernel {kernel}, {geometry}")
    return shape


@functools.lru_cache(1 << 12)
def product_shape(rows, inputs, outputs):
    """Of the product of a matrix (rows, inputs) with one (inputs, outputs), as a convolution of images of one pixel."""
    return conv_shape(UNIT, rows, (1, 1), inputs, outputs, (1, 1))[0]


def matmul(x, y):
    """x @ y of two matrices: depending on their order in memory, one of the three above, on single pixels."""
    if not library.accepts(x, y) or x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[0]:
        return NotImplemented
    (rows, inner), columns = x.shape, y.shape[1]
    if x.size * columns < library.SMALL_PRODUCT:
        return NotImplemented
    x_turned, y_turned = (not a.flags.c_contiguous and a.flags.f_contiguous for a in (x, y))
    if x_turned and y_turned:
        return matmul(y.T, x.T).T
    if not x_turned and not y_turned:
        return _product(x, y, None)
    out = new((rows, columns), x)
    if y_turned:
        shape = product_shape(rows, columns, inner)
        library.call("tg_conv_transpose2d", x, shape, layout.contiguous(x), layout.contiguous(y.T), None, None, out)
    else:
        shape = product_shape(inner, rows, columns)
        library.call("tg_conv2d_weight", x, shape, 0, layout.contiguous(x.T), layout.contiguous(y), out, None)
    return out


def linear(input, weight, bias):
    """See `tinygen.ops.linear`: a convolution of single pixels."""
    if weight.ndim != 2 or input.ndim == 0 or input.shape[-1] != weight.shape[1]:
        return NotImplemented  # the definition says what is wrong
    if input.size * len(weight) < library.SMALL_PRODUCT or not library.accepts(input, weight, bias):
        return NotImplemented
    if input.ndim == 2:
        return _product(input, weight.T, bias)
    return _product(input.reshape(-1, input.shape[-1]), weight.T, bias).reshape(*input.shape[:-1], len(weight))


def _product(x, w, bias):
    """x (N, I) @ w (I, O) + bias (O,) or None."""
    y = new((len(x), w.shape[1]), x)
    bias = layout.vector("bias", bias, w.shape[1])
    shape = product_shape(len(x), *w.shape)
    library.call("tg_conv2d", x, shape, 0, layout.contiguous(x), layout.contiguous(w), bias, None, y)
    return y


def channel_sums(x):
    """The sum of an image (N, C, H, W) over all but its channels: a product with a row of ones."""
    rows = x.transpose(0, 2, 3, 1)
    if not rows.flags.c_contiguous or x.size < library.SMALL:
        return NotImplemented
    pixels, channels = x.size // x.shape[1], x.shape[1]
    side_by_side = math.gcd(pixels, max(1 << (64 // channels).bit_length() >> 1, 1))  # or most of a vector idles
    sums = matmul(xp(x).ones((1, pixels // side_by_side), x.dtype), rows.reshape(-1, side_by_side * channels))
    return sums if sums is NotImplemented else sums.reshape(side_by_side, channels).sum(axis=0)
