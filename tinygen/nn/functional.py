"""Network functions under PyTorch's names, with its signatures and defaults.

What PyTorch's function takes and this one doesn't is not in its signature, or raises: no argument is ignored.
Images are (N, C, H, W) in shape; in memory they are best NHWC, and all functions here keep that order.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np

from tinygen import errors, ops
from tinygen._tensor import Tensor
from tinygen.array import on_device_of, xp
from tinygen.nn import attention, convolution, losses, norms, resizing, windows
from tinygen.nn._arrays import like as _like
from tinygen.nn._arrays import raw as _raw
from tinygen.ops import loss as _loss
from tinygen.ops import recurrent as _recurrent
from tinygen.ops.norms import vector_norm

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

# Convolutions, windows, sizes: convolution.py, windows.py and resizing.py explain them.
conv1d, conv_transpose1d = convolution.conv1d, convolution.conv_transpose1d
conv2d, conv_transpose2d, masked_conv2d = convolution.conv2d, convolution.conv_transpose2d, convolution.masked_conv2d
avg_pool2d, max_pool2d, pad, unfold = windows.avg_pool2d, windows.max_pool2d, windows.pad, windows.unfold
interpolate, pixel_shuffle, pixel_unshuffle = resizing.interpolate, resizing.pixel_shuffle, resizing.pixel_unshuffle


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


def normalize(input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12) -> Tensor:
    """input divided by its `vector_norm` of order p along dim, which counts as eps where it is less."""
    return ops.div(input, ops.clamp(vector_norm(input, p, dim, True), eps))


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
    if len(input.shape) != 4:
        raise ValueError(f"{name}: input must be (N, C, H, W), got shape {input.shape}")
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
    input = input if input.dtype.kind == "f" else ops.to(input, np.float32)
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


def one_hot(tensor: Any, num_classes: int = -1) -> Any:
    """Integers of any shape -> (..., num_classes) integers, 1 at each one's place and 0 elsewhere.

    num_classes: -1 stands for the largest integer + 1. Raises TypeError for what isn't integers, ValueError for one
    that isn't in 0..num_classes-1.
    """
    index = _raw(tensor)
    if num_classes == -1 and not index.size:
        raise ValueError("one_hot: num_classes must be given for no integers at all")
    count = int(index.max()) + 1 if num_classes == -1 else num_classes
    _loss.check_labels("one_hot: tensor", index, count)
    return _like(tensor, (index[..., None] == on_device_of(index, np.arange(count))).astype(int))


for _name, _function in list(globals().items()):  # each says which argument is no tensor
    if inspect.isfunction(_function) and _function.__module__.startswith("tinygen.nn") and _name[0] != "_":
        globals()[_name] = errors.naming(_function)
