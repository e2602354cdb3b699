"""The convolution family: three ops that are each other's gradients.

Convolution is linear in the image x and in the weight w. Paired with an output-shaped y it is one number,

    T(x, w, y) = sum over taps (i, j), positions p:  y[p] . w[i, j] . x[stride * p + dilation * (i, j) - padding],

and its three faces are T's derivatives: `conv2d` gives y from x and w, `conv_transpose2d` gives x from y and w,
`conv2d_weight` gives w from x and y. So the gradients of each are the other two, to any order.

Shapes are PyTorch's: images (N, C, H, W), weights (O, I, KH, KW). In memory images are NHWC and weights HWIO, so that
`x.transpose(0, 2, 3, 1)` is contiguous and a kernel's innermost loop runs over channels; elementwise ops keep that
order by themselves.

A PixelCNN mask (van den Oord et al. 2016, section 3.4; lecture slide 32) lets an output see only pixels before its own
in raster order: the taps of the rows above, those to the left, and of the center tap what `mask` and `channels`
say. Masked taps are left out, not multiplied by zero.

With `groups` the channels of both sides fall into so many groups, and each output sees its own group's inputs: the
weight is (O, I / groups, KH, KW). With as many groups as inputs it is a depthwise convolution.
"""

from __future__ import annotations

from math import prod

from tinygen import kernels
from tinygen.array import real, total, xp
from tinygen.geometry import UNIT, Geometry
from tinygen.ops._samples import normal, sample
from tinygen.ops.activations import relu_backward
from tinygen.ops.reduce import sum
from tinygen.ops.shape import broadcast_to, reshape
from tinygen.tape import op


@op
def conv2d(x, weight, bias=None, geometry=UNIT, relu=False, add=None):
    """y = conv(x, weight) + bias + add. x: (N, I, H, W), weight: (O, I, KH, KW), bias: (O,) or None.

    -> (N, O, OH, OW), and so add, or None. OH = (H + 2 padding - dilation (KH - 1) - 1) // stride + 1, and so OW.
    relu: of max(x, 0) in x's place. An x of integers counts as one of weight's dtype.

    Accuracy: 16 ulps of the largest element; long sums are added in blocks, so it hardly grows with their length. What
    a mask in `geometry` leaves out is left out exactly; what weights of 0 leave out, up to rounding (csrc/winograd.c).
    """
    size, x = geometry.out_size(x.shape[2:], weight.shape[2:]), real(x, weight)
    geometry.check_groups(x.shape[1], len(weight), weight.shape[1])
    x = xp(x).maximum(x, 0) if relu else x
    y = xp(x).zeros((len(x), *size, len(weight)), x.dtype)
    padded = _padded(x, geometry.padding)
    for tap, window, keep in geometry.taps(weight.shape, size):
        y += _product(padded[window], _kept(weight[:, :, *tap], keep).T, geometry.groups)
    y = _nchw(_biased(y, bias))
    return y if add is None else y + add


@op
def conv_transpose2d(y, weight, bias=None, size=(1, 1), geometry=UNIT, positive=None):
    """The adjoint of `conv2d` in x, plus bias (I,). y: (N, O, OH, OW), weight: (O, I, KH, KW) -> (N, I, *size).

    positive: for the adjoint of a convolution of max(x, 0), that x: without a bias, and 0 where x isn't above 0.

    Accuracy: 16 ulps of the largest element, as of `conv2d`.
    """
    geometry.check(size, weight.shape[2:], y.shape[2:])
    geometry.check_groups(weight.shape[1] * geometry.groups, y.shape[1])
    (ph, pw), (h, w), y = geometry.padding, size, real(y, weight)
    x = xp(y).zeros((len(y), h + 2 * ph, w + 2 * pw, weight.shape[1] * geometry.groups), y.dtype)
    rows = y.transpose(0, 2, 3, 1)
    for tap, window, keep in geometry.taps(weight.shape, y.shape[2:]):
        x[window] += _adjoint_product(rows, _kept(weight[:, :, *tap], keep), geometry.groups)
    x = _nchw(_biased(x[:, ph : ph + h, pw : pw + w], bias))
    return x if positive is None else relu_backward(x, positive)


@op(outputs=("weight", "bias"))
def conv2d_weight(x, y, kernel_size, geometry=UNIT, relu=False):
    """The adjoint of `conv2d` in (weight, bias). x: (N, I, H, W), y: (N, O, OH, OW) -> (O, I, KH, KW), (O,).

    Accuracy: 16 ulps of the largest element, as of `conv2d`.
    """
    geometry.check(x.shape[2:], kernel_size, y.shape[2:])
    geometry.check_groups(x.shape[1], y.shape[1])
    x, y = real(x, y), real(y, x)
    x = xp(x).maximum(x, 0) if relu else x
    inputs = x.shape[1] // geometry.groups
    weight = xp(x).zeros((*kernel_size, inputs, y.shape[1]), x.dtype).transpose(3, 2, 0, 1)
    padded = _padded(x, geometry.padding)
    rows = y.transpose(0, 2, 3, 1).reshape(y.size // max(y.shape[1], 1), y.shape[1])
    for tap, window, keep in geometry.taps(weight.shape, y.shape[2:]):
        pixels = padded[window].reshape(len(rows), x.shape[1])
        weight[:, :, *tap] = _kept(_weight_product(rows, pixels, geometry.groups), keep)
    return weight, total(y, (0, 2, 3))


# --------------------------------------------------------------------------------------- gradients: the other two faces


@conv2d.vjp("x")
def _(gout, x, weight, geometry, relu):
    return _to_image(gout, weight, x, geometry, relu)


@conv2d.vjp("weight", "bias")
def _(gout, x, weight_shape, geometry, relu):
    return conv2d_weight(x, gout, weight_shape[2:], geometry, relu)


@conv2d.vjp("add")
def _(gout):
    return gout


@conv_transpose2d.vjp("y")
def _(gout, weight, geometry, positive):
    return conv2d(_where(gout, positive), weight, None, geometry)


@conv_transpose2d.vjp("weight")
def _(gout, y, weight_shape, geometry, positive):
    return conv2d_weight(_where(gout, positive), y, weight_shape[2:], geometry)[0]


@conv_transpose2d.vjp("bias")
def _(gout):
    return sum(gout, (0, 2, 3))


@conv_transpose2d.vjp("positive")
def _(positive):
    return positive * 0.0  # constant on either side of the kink


@conv2d_weight.vjp("x")
def _(gweight, x, y, geometry, relu):
    return None if gweight is None else _to_image(y, gweight, x, geometry, relu)


@conv2d_weight.vjp("y")
def _(gweight, gbias, x, y_shape, geometry, relu):
    if gweight is None:
        return broadcast_to(reshape(gbias, (-1, 1, 1)), y_shape)
    return conv2d(x, gweight, gbias, geometry, relu)


def _to_image(y, weight, x, geometry, relu):
    """The adjoint in x, of max(x, 0) if relu."""
    image, positive = x.shape[2:], x if relu else None
    return conv_transpose2d(y, weight, None, image, geometry, positive)


def _where(gout, positive):
    return gout if positive is None else relu_backward(gout, positive)


# -------------------------------------------------------------------------------------------------------------- kernels


@conv2d.kernel
def _(x, weight, bias, geometry, relu, add):
    return kernels.conv.conv2d(real(x, weight), weight, bias, geometry, relu, add)


@conv_transpose2d.kernel
def _(y, weight, bias, size, geometry, positive):
    return kernels.conv.conv_transpose2d(real(y, weight), weight, bias, size, geometry, positive)


@conv2d_weight.kernel
def _(x, y, kernel_size, geometry, relu):
    return kernels.conv.conv2d_weight(real(x, y), real(y, x), kernel_size, geometry, relu)


# ----------------------------------------------------------------------------------------------------------- operations


@conv2d.flops
def _(out_shape, weight_shape, geometry):
    return 2 * prod(out_shape) * geometry.terms(weight_shape)


@conv_transpose2d.flops
def _(y_shape, weight_shape, geometry):
    return 2 * prod(y_shape) * geometry.terms(weight_shape)


@conv2d_weight.flops
def _(y_shape, weight_shape, geometry):
    return 2 * prod(y_shape) * geometry.terms(weight_shape)


# ------------------------------------------------------------------------------------------- what the definitions share


def _product(x, weight, groups):
    """x (..., I) @ weight (I / groups, O), group by group -> (..., O)."""
    if groups == 1:
        return x @ weight
    by_group = weight.reshape(len(weight), groups, weight.shape[1] // groups).transpose(1, 0, 2)
    return _joined(_split(x, groups) @ by_group, x.shape[:-1])


def _adjoint_product(y, weight, groups):
    """y (..., O) @ weight (O, I / groups), group by group -> (..., I)."""
    if groups == 1:
        return y @ weight
    by_group = weight.reshape(groups, len(weight) // groups, weight.shape[1])
    return _joined(_split(y, groups) @ by_group, y.shape[:-1])


def _weight_product(y, x, groups):
    """y (P, O) transposed @ x (P, I), group by group -> (O, I / groups)."""
    if groups == 1:
        return y.T @ x
    return (_split(y, groups).transpose(0, 2, 1) @ _split(x, groups)).reshape(y.shape[1], x.shape[1] // groups)


def _split(x, groups):
    """(..., C) as (groups, P, C / groups), a view where x is contiguous."""
    return x.reshape(prod(x.shape[:-1]), groups, x.shape[-1] // groups).transpose(1, 0, 2)


def _joined(y, lead):
    """(groups, P, C / groups) as (..., C)."""
    return y.transpose(1, 0, 2).reshape(*lead, y.shape[0] * y.shape[2])


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


def _kept(weight, keep):
    """The entries that the mask keeps, exact zeros elsewhere, whatever stands there."""
    return weight if keep is None else xp(weight).where(xp(weight).asarray(keep), weight, 0)


# ---------------------------------------------------------------------------------------------- what they are tested on

_CASES = (  # image, kernel, geometry
    ((4, 5), (3, 2), Geometry()),
    ((5, 4), (3, 3), Geometry((2, 1), (1, 2))),
    ((6, 5), (2, 2), Geometry((3, 2), (1, 0), (2, 3))),
    ((2, 2), (4, 3), Geometry((2, 2), (1, 1))),  # the kernel is larger than the image
    ((3, 2), (1, 1), Geometry()),
)
_MASKS = (((4, 3), 3, "A", 1), ((3, 4), 3, "B", 1), ((3, 3), 5, "A", 3), ((2, 3), 3, "B", 3))


def _cases(rng):
    """Inputs of a group, outputs, image, kernel, geometry."""
    for image, kernel, geometry in _CASES:
        yield 2, 3, image, kernel, geometry
    yield 2, 6, (4, 5), (3, 2), Geometry((2, 1), (1, 0), groups=2)
    yield 1, 3, (4, 3), (3, 3), Geometry((1, 1), (1, 1), groups=3)
    yield 1, 4, (3, 3), (2, 2), Geometry(dilation=(1, 2), groups=2)
    for image, k, mask, channels in _MASKS:
        yield channels, 2 * channels, image, (k, k), Geometry((1, 1), (k // 2, k // 2), (1, 1), mask, channels)


@conv2d.samples
def _(rng):
    for i, o, image, kernel, geometry in _cases(rng):
        yield sample(normal(rng, 2, i * geometry.groups, *image), normal(rng, o, i, *kernel), normal(rng, o), geometry)
        size = geometry.out_size(image, kernel)
        x, add = normal(rng, 2, i * geometry.groups, *image), normal(rng, 2, o, *size)
        yield sample(x, normal(rng, o, i, *kernel), None, geometry, True, add)
    yield sample(normal(rng, 1, 1, 3, 3), normal(rng, 2, 1, 2, 2), add=normal(rng, 1, 2, 2, 2))


@conv_transpose2d.samples
def _(rng):
    for i, o, image, kernel, geometry in _cases(rng):
        size = geometry.out_size(image, kernel)
        inputs = i * geometry.groups
        y, weight, bias = normal(rng, 2, o, *size), normal(rng, o, i, *kernel), normal(rng, inputs)
        yield sample(y, weight, bias, image, geometry)
        yield sample(y, weight, None, image, geometry, normal(rng, 2, inputs, *image))


@conv2d_weight.samples
def _(rng):
    for i, o, image, kernel, geometry in _cases(rng):
        size = geometry.out_size(image, kernel)
        inputs = i * geometry.groups
        yield sample(normal(rng, 2, inputs, *image), normal(rng, 2, o, *size), kernel, geometry)
        yield sample(normal(rng, 2, inputs, *image), normal(rng, 2, o, *size), kernel, geometry, True)
