"""Network functions under PyTorch's names, with its signatures and defaults.

What PyTorch's function takes and this one doesn't is not in its signature, or raises: no argument is ignored.
Images are (N, C, H, W) in shape; in memory they are best NHWC, and all functions here keep that order.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from tinygen import ops
from tinygen._tensor import Array, Tensor
from tinygen.array import xp
from tinygen.geometry import Geometry, pair
from tinygen.nn import attention, losses, norms
from tinygen.ops import loss as _loss
from tinygen.ops import recurrent as _recurrent
from tinygen.ops.pooling import max_pool2d as _max_pool2d
from tinygen.ops.pooling import window_spread, window_sum

# Network functions that are ops just as they are.
elu, gated_activation, leaky_relu, linear = ops.elu, _recurrent.gated_activation, ops.leaky_relu, ops.linear
log_softmax, logsumexp, relu, sigmoid = ops.log_softmax, ops.logsumexp, ops.relu, ops.sigmoid
silu, softmax, softplus, tanh = ops.silu, ops.softmax, ops.softplus, ops.tanh

# The losses, which losses.py explains.
cross_entropy, nll_loss, mse_loss, l1_loss = losses.cross_entropy, losses.nll_loss, losses.mse_loss, losses.l1_loss
binary_cross_entropy = losses.binary_cross_entropy
binary_cross_entropy_with_logits = losses.binary_cross_entropy_with_logits
gaussian_nll_loss, kl_div = losses.gaussian_nll_loss, losses.kl_div
huber_loss, smooth_l1_loss = losses.huber_loss, losses.smooth_l1_loss
discretized_logistic_nll, logistic_mixture_nll = losses.discretized_logistic_nll, losses.logistic_mixture_nll

# Normalization, which norms.py explains, and attention.
batch_norm, group_norm, instance_norm = norms.batch_norm, norms.group_norm, norms.instance_norm
layer_norm, rms_norm = norms.layer_norm, norms.rms_norm
scaled_dot_product_attention = attention.scaled_dot_product_attention


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x times the probability that a standard normal number is below x; with "tanh" by an approximation.

    0.5 x (1 + erf(x / sqrt 2)), or 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), which is much faster here and
    within 0.0005 of it. Source: Hendrycks & Gimpel, Gaussian Error Linear Units (2016), section 2.
    """
    if approximate == "none":
        return 0.5 * input * (1.0 + ops.erf(input * math.sqrt(0.5)))
    if approximate != "tanh":
        raise ValueError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")
    return 0.5 * input * (1.0 + ops.tanh(math.sqrt(2 / math.pi) * (input + 0.044715 * input * input * input)))


def mish(input: Tensor) -> Tensor:
    """x * tanh(softplus(x)). Source: Misra, Mish: A Self Regularized Non-Monotonic Activation Function (2019)."""
    return ops.mul(input, ops.tanh(ops.softplus(input)))


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input1' weight[o] input2 + bias[o] for each output o: (..., I) and (..., J) -> (..., O).

    weight: (O, I, J), bias: (O,).
    """
    o, i, j = weight.shape if len(weight.shape) == 3 else (0, 0, 0)
    if input1.shape[-1:] != (i,) or input2.shape[-1:] != (j,) or input1.shape[:-1] != input2.shape[:-1] or not o:
        shapes = f"{input1.shape}, {input2.shape} and {weight.shape}"
        raise ValueError(f"bilinear: inputs and weight must be (..., I), (..., J) and (O, I, J), got {shapes}")
    products = ops.linear(input1, ops.reshape(ops.transpose(weight, 1, 2), (o * j, i)))
    products = ops.reshape(products, (*input1.shape[:-1], o, j))
    out = ops.sum(ops.mul(products, ops.reshape(input2, (*input2.shape[:-1], 1, j))), -1)
    return out if bias is None else ops.add(out, bias)


def _raw(x: Any) -> Array:
    return x._array if isinstance(x, Tensor) else x


def _like(x: Any, array: Array) -> Any:
    """A new array as a Tensor, if x is one."""
    return Tensor(array) if isinstance(x, Tensor) else array


# ------------------------------------------------------------------------------------------------ convolution


def conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Convolution. input: (N, I, H, W), weight: (O, I, KH, KW), bias: (O,) -> (N, O, OH, OW).

    OH = (H + 2 padding - dilation (KH - 1) - 1) // stride + 1, and so OW. stride, padding and dilation are
    integers or pairs; padding may be "valid" (none) or "same" (the output is as big as the input).
    """
    named = isinstance(padding, str) and padding in ("same", "valid")
    geometry = Geometry.of("conv2d", stride, 0 if named else padding, dilation, groups)
    _check_conv("conv2d", input, weight, bias, 1, 0)
    if padding == "same":
        geometry = _same(geometry, weight.shape[2:])
    return ops.conv2d(input, weight, bias, geometry)


def conv_transpose2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    """Transposed convolution, the adjoint of `conv2d`: (N, I, H, W) -> (N, O, OH, OW).

    weight: (I, O, KH, KW), bias: (O,). OH = (H - 1) stride - 2 padding + dilation (KH - 1) + output_padding
    + 1, and so OW. Of several sizes that conv2d takes to the same one, output_padding (below the stride)
    picks one.
    """
    name = "conv_transpose2d"
    geometry = Geometry.of(name, stride, padding, dilation, groups)
    _check_conv(name, input, weight, bias, 0, 1)
    extra = pair(f"{name}: output_padding", output_padding, 0)
    if extra[0] >= geometry.stride[0] or extra[1] >= geometry.stride[1]:
        raise ValueError(f"{name}: output_padding {extra} must be smaller than stride {geometry.stride}")
    height, width = (
        (n - 1) * s - 2 * p + d * (k - 1) + e + 1
        for n, s, p, d, k, e in zip(
            input.shape[2:], geometry.stride, geometry.padding, geometry.dilation, weight.shape[2:], extra, strict=True
        )
    )
    if min(height, width) < 1:
        raise ValueError(f"{name}: {geometry} leaves an output of {(height, width)} from input {input.shape}")
    return ops.conv_transpose2d(input, weight, bias, (height, width), geometry)


def masked_conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, mask: str = "A", channels: int = 1,
    relu: bool = False, add: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """PixelCNN's convolution: (N, I, H, W) -> (N, O, H, W), where an output depends on earlier pixels only.

    Rows above count as earlier, and pixels to the left in the same row. The pixel itself is seen as far as
    the mask lets it: channels, of input and output alike, fall into `channels` groups of equal size (1 for
    grey images, 3 for RGB); mask "A" shows a group only the groups before it, mask "B" itself too. Weights of
    hidden taps aren't used, and get gradient 0. weight: (O, I, KH, KW), KH and KW odd; bias: (O,).

    relu: of relu(input) instead, and add, (N, O, H, W), to the result: the two other parts of a residual block, which
    as ops of their own would each read and write whole images.

    Source: van den Oord, Kalchbrenner, Kavukcuoglu, Pixel Recurrent Neural Networks (2016), section 3.4.
    """
    _check_conv("masked_conv2d", input, weight, bias, 1, 0)
    return ops.conv2d(input, weight, bias, Geometry.masked("masked_conv2d", weight.shape, mask, channels), relu, add)


def _same(geometry: Geometry, kernel: Any) -> Geometry:
    """With the padding by which the output is as big as the input."""
    spans = tuple(d * (k - 1) for d, k in zip(geometry.dilation, kernel, strict=True))
    if geometry.stride != (1, 1) or spans[0] % 2 or spans[1] % 2:
        stride = geometry.stride
        raise ValueError(
            f"conv2d: padding='same' needs stride 1 and an odd kernel, got stride {stride}, kernel {kernel}"
        )
    return replace(geometry, padding=(spans[0] // 2, spans[1] // 2))


def _check_conv(name: str, input: Any, weight: Any, bias: Any, i: int, o: int) -> None:
    """ValueError unless shapes fit. i, o: the axes of the weight that hold the input and output channels."""
    if len(input.shape) != 4 or len(weight.shape) != 4:
        raise ValueError(f"{name}: input and weight must have 4 axes, got shapes {input.shape} and {weight.shape}")
    if input.shape[1] != weight.shape[i]:
        raise ValueError(
            f"{name}: input must have {weight.shape[i]} channels for weight {weight.shape}, got {input.shape}"
        )
    if bias is not None and bias.shape != (weight.shape[o],):
        raise ValueError(f"{name}: bias must have shape ({weight.shape[o]},), got {bias.shape}")


# --------------------------------------------------------------------------------------- pooling and resizing


def max_pool2d(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0) -> Tensor:
    """The largest pixel of each window: (N, C, H, W) -> (N, C, OH, OW). Equals: the first gets the gradient.

    OH = (H + 2 padding - KH) // stride + 1, and so OW. stride: by default the kernel's size. Padding, at most
    half of the kernel, never wins.
    """
    return _max_pool2d(input, *_window("max_pool2d", input, kernel_size, stride, padding))[0]


def avg_pool2d(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0) -> Tensor:
    """The mean of each window, padding counted as zeros: (N, C, H, W) -> (N, C, OH, OW). See `max_pool2d`."""
    kernel, stride, padding = _window("avg_pool2d", input, kernel_size, stride, padding)
    return window_sum(input, None, kernel, stride, padding) / (kernel[0] * kernel[1])


def _window(name: str, input: Any, kernel_size: Any, stride: Any, padding: Any) -> Any:
    """(kernel, stride, padding) as pairs; ValueError if they don't fit the input."""
    _check_image(name, input)
    kernel = pair(f"{name}: kernel_size", kernel_size, 1)
    stride = kernel if stride is None else pair(f"{name}: stride", stride, 1)
    padding = pair(f"{name}: padding", padding, 0)
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        raise ValueError(f"{name}: padding {padding} must be at most half of kernel_size {kernel}")
    return kernel, stride, padding


def interpolate(input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest") -> Tensor:
    """Images enlarged by whole factors, each pixel repeated. (N, C, H, W) -> (N, C, OH, OW).

    Either the new size or the scale_factor is given, as an integer or a pair of them.
    """
    _check_image("interpolate", input)
    if mode != "nearest":
        raise ValueError(f"interpolate: mode must be 'nearest', got {mode!r}; others are not supported")
    if (size is None) == (scale_factor is None):
        raise ValueError("interpolate: give either size or scale_factor")
    h, w = input.shape[2:]
    if size is None:
        scale = pair("interpolate: scale_factor", _whole(scale_factor), 1)
        size = (h * scale[0], w * scale[1])
    else:
        size = pair("interpolate: size", size, 1)
        scale = (size[0] // max(h, 1), size[1] // max(w, 1))
    if min(scale) < 1 or (h * scale[0], w * scale[1]) != size:
        raise ValueError(f"interpolate: size {size} must be a whole multiple of input's {h} x {w}")
    return window_spread(input, None, size, scale, scale)


def _whole(value: Any) -> Any:
    """2.0 as 2, also within a pair: PyTorch's scale factors are floats."""
    if isinstance(value, (tuple, list)):
        return tuple(map(_whole, value))
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _check_image(name: str, input: Any) -> None:
    if len(input.shape) != 4:
        raise ValueError(f"{name}: input must be (N, C, H, W), got shape {input.shape}")


def pad(input: Tensor, pad: Any, mode: str = "constant", value: float = 0.0) -> Tensor:
    """A border of constant value. pad: (before, after) of the last axis, of the last but one, ..."""
    if mode != "constant":
        raise ValueError(f"pad: mode must be 'constant', got {mode!r}; others are not supported")
    if len(pad) % 2 or len(pad) > 2 * len(input.shape) or not all(isinstance(n, int) and n >= 0 for n in pad):
        raise ValueError(f"pad: pad must be pairs of non-negative integers, one for each axis, got {pad!r}")
    pairs = [(0, 0)] * (len(input.shape) - len(pad) // 2) + list(zip(pad[::2], pad[1::2], strict=True))[::-1]
    widths = tuple(pairs)
    padded = ops.pad(input, widths)
    if value == 0:
        return padded
    border = xp(_raw(padded)).full_like(_raw(padded), value)
    border[tuple(slice(b, b + n) for (b, _), n in zip(widths, input.shape, strict=True))] = 0
    return ops.add(padded, _like(input, border))


# ------------------------------------------------------------------------------------------------- recurrence


def lstm_cell(
    input: Tensor, hx: tuple[Tensor, Tensor], w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """One step of an LSTM: (h, c) -> (h, c), both (N, H).

    input: (N, I), w_ih: (4H, I), w_hh: (4H, H), b_ih and b_hh: (4H,) or None. The four blocks of
    weights belong to the input gate, the forget gate, the candidate and the output gate.
    """
    h, c = hx
    n, size = (len(input), h.shape[-1]) if input.shape and h.shape else (0, 0)
    features = w_ih.shape[-1]
    given, state, bias = (input, h, c, w_ih, w_hh, b_ih, b_hh), (n, size), (4 * size,)
    expected = ((n, features), state, state, (4 * size, features), (4 * size, size), bias, bias)
    for i, x in enumerate(given):
        if x is not None and x.shape != expected[i]:
            name = ("input", "h", "c", "w_ih", "w_hh", "b_ih", "b_hh")[i]
            raise ValueError(f"lstm_cell: {name} must have shape {expected[i]}, got {x.shape}")
    return _recurrent.lstm_cell(input, h, c, w_ih, w_hh, b_ih, b_hh)


def row_lstm(input: Tensor, weight: Tensor) -> Tensor:
    """Row LSTM: from above, each row of pixels from the states of the row before: (N, 4U, H, W) -> h (N, U, H, W).

        a = input + conv(h of the row before, weight),      i, f, g, o = sigmoid(a...), g = tanh(a...)
        c = f * c of the pixel above + i * g,               h = o * tanh(c)

    input is what the image contributes to the gates (in the order i, f, g, o, as in lstm_cell), by a masked
    convolution of size 1 x K with its bias. weight: (4U, U, 1, K), K odd. A pixel depends on a triangle
    above it: K // 2 pixels more to either side with each row. States outside the image are zero.

    Source: van den Oord, Kalchbrenner, Kavukcuoglu, Pixel Recurrent Neural Networks (2016), section 3.1.
    """
    return _image_lstm("row_lstm", input, weight, 0)


def diagonal_lstm(input: Tensor, weight: Tensor, reverse: bool = False) -> Tensor:
    """Half of a Diagonal BiLSTM: along the diagonals from the top left: (N, 4U, H, W) -> h (N, U, H, W).

        a = input + weight[..., 0, 0] h of the pixel above + weight[..., 1, 0] h of the pixel on the left
        i, f, g, o = sigmoid(a...), g = tanh(a...),     c = f * c of the pixel on the left + i * g,     h = o * tanh(c)

    input is what the image contributes to the gates (i, f, g, o), by a masked convolution of size 1 x 1 with
    its bias. weight: (4U, U, 2, 1), the paper's convolution along a column of the skewed image. A pixel depends on all
    that aren't below it or further right. States outside the image are zero.
    reverse: from the top right, with "right" in place of "left".

    Source: van den Oord, Kalchbrenner, Kavukcuoglu, Pixel Recurrent Neural Networks (2016), section 3.2.
    """
    return _image_lstm("diagonal_lstm", input, weight, -1 if reverse else 1)


def diagonal_bilstm(left: Tensor, right: Tensor, weight_left: Tensor, weight_right: Tensor) -> Tensor:
    """Diagonal BiLSTM: h (N, U, H, W) from two inputs (N, 4U, H, W), one for each direction.

    `diagonal_lstm` of left, plus that of right in reverse moved down by one row, or pixels would see what follows
    them in their own row. Together they see all pixels before them in raster order.

    Source: van den Oord, Kalchbrenner, Kavukcuoglu, Pixel Recurrent Neural Networks (2016), section 3.2.
    """
    if left.shape != right.shape:
        raise ValueError(f"diagonal_bilstm: right must have left's shape {left.shape}, got {right.shape}")
    h = diagonal_lstm(right, weight_right, reverse=True)
    return diagonal_lstm(left, weight_left) + pad(h, (0, 0, 1, 0))[:, :, : h.shape[2]]


def _image_lstm(name: str, input: Tensor, weight: Tensor, diagonal: int) -> Tensor:
    """`ops.recurrent.lstm` with axes in PyTorch's order; in memory the channels come last, so nothing is copied."""
    _check_image(name, input)
    units, kernel = input.shape[1] // 4, weight.shape[2:]
    fits = kernel == (2, 1) if diagonal else len(kernel) == 2 and kernel[0] == 1 and kernel[1] % 2 == 1
    if not fits or input.shape[1] != 4 * units or weight.shape[:2] != (4 * units, units):
        expected = "(4U, U, 2, 1)" if diagonal else "(4U, U, 1, K), K odd,"
        raise ValueError(
            f"{name}: weight must be {expected} for input (N, 4U, H, W), got {weight.shape} for {input.shape}"
        )
    h, _ = _recurrent.lstm_states(ops.permute(input, (0, 2, 3, 1)), weight, None, None, diagonal)
    return ops.permute(h, (0, 3, 1, 2))


# ---------------------------------------------------------------------------------------------------- dropout


def dropout(input: Tensor, p: float = 0.5, training: bool = True, *, rng: np.random.Generator | None = None) -> Tensor:
    """In training each element is zeroed with probability p, the others grow by 1 / (1 - p); otherwise input.

    rng, which draws, is required in training. Source: Srivastava et al., Dropout (2014).
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p must be between 0 and 1, got {p}")
    if not training or p == 0:
        return input
    if rng is None:
        raise TypeError("dropout: rng is required in training: a numpy.random.Generator that draws what is dropped")
    n, kept = xp(_raw(input)), xp(_raw(input)).empty_like(_raw(input))  # in input's order in memory
    kept[...] = n.asarray(rng.random(input.shape, dtype=np.float32) >= p)
    kept *= 1 / (1 - p) if p < 1 else 0
    return ops.mul(input, _like(input, kept))


def embedding(input: Any, weight: Tensor) -> Tensor:
    """Rows of a table. input: integers of any shape, weight: (rows, D) -> (*input.shape, D).

    Raises TypeError for an input that isn't integers, ValueError for one that isn't in 0..rows-1.
    """
    index = _raw(input)
    if len(weight.shape) != 2:
        raise ValueError(f"embedding: weight must be (rows, D), got shape {weight.shape}")
    _loss.check_labels("embedding: input", index, weight.shape[0])
    return ops.getitem(weight, index)
