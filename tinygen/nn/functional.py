"""Network functions under PyTorch's names, with its signatures and defaults.

What PyTorch's function takes and this one doesn't is not in its signature, or raises: no argument is ignored. Images are
(N, C, H, W) in shape; in memory they are best NHWC, and all functions here keep that order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygen import ops
from tinygen._tensor import Tensor
from tinygen.autograd import xp
from tinygen.ops import (
    elu, leaky_relu, linear, log_softmax, logsumexp, relu, sigmoid, softmax, softplus, tanh,
)  # fmt: skip
from tinygen.ops import loss as _loss

# ---------------------------------------------------------------------------------------------------------- convolution


def conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> Tensor:  # fmt: skip
    """Convolution. input: (N, I, H, W), weight: (O, I, KH, KW), bias: (O,) -> (N, O, OH, OW).

    OH = (H + 2 padding - dilation (KH - 1) - 1) // stride + 1, and so OW. stride, padding and dilation are numbers or
    pairs; padding may be "valid" (none) or "same" (as big as the input).
    """
    _check_conv("conv2d", input, weight, bias, groups, 1, 0)
    stride, dilation = _pair("conv2d: stride", stride, 1), _pair("conv2d: dilation", dilation, 1)
    padding = _padding(padding, weight.shape[2:], stride, dilation)
    return ops.conv2d(input, weight, bias, stride, padding, dilation)


def conv_transpose2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    """Transposed convolution, the adjoint of `conv2d`. input: (N, I, H, W), weight: (I, O, KH, KW), bias: (O,).

    -> (N, O, OH, OW) with OH = (H - 1) stride - 2 padding + dilation (KH - 1) + output_padding + 1, and so OW. Of several
    sizes that conv2d takes to the same one, output_padding (below stride or dilation) picks one.
    """
    name = "conv_transpose2d"
    _check_conv(name, input, weight, bias, groups, 0, 1)
    stride, dilation = _pair(f"{name}: stride", stride, 1), _pair(f"{name}: dilation", dilation, 1)
    padding, extra = _pair(f"{name}: padding", padding, 0), _pair(f"{name}: output_padding", output_padding, 0)
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise ValueError(f"{name}: output_padding {extra} must be smaller than stride {stride} or dilation {dilation}")
    size = tuple(
        (n - 1) * s - 2 * p + d * (k - 1) + e + 1
        for n, s, p, d, k, e in zip(input.shape[2:], stride, padding, dilation, weight.shape[2:], extra, strict=True)
    )
    if min(size) < 1:
        raise ValueError(f"{name}: padding {padding} leaves an output of {size} from input {input.shape}")
    return ops.conv_transpose2d(input, weight, bias, size, stride, padding, dilation)


def masked_conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, mask: str = "A", channels: int = 1
) -> Tensor:
    """PixelCNN's convolution: (N, I, H, W) -> (N, O, H, W), where an output depends on earlier pixels only.

    Rows above count as earlier, and pixels to the left in the same row. The pixel itself is seen as far as the mask
    lets it: channels, of input and output alike, fall into `channels` groups of equal size (1 for grey images, 3 for
    RGB); mask "A" shows a group only the groups before it, mask "B" itself too. Weights of hidden taps aren't used, and
    get gradient 0. weight: (O, I, KH, KW), KH and KW odd.

    Source: van den Oord, Kalchbrenner, Kavukcuoglu, Pixel Recurrent Neural Networks (2016), section 3.4.
    """
    _check_conv("masked_conv2d", input, weight, bias, 1, 1, 0)
    _check_mask(weight.shape, mask, channels)
    kh, kw = weight.shape[2:]
    return ops.conv2d(input, weight, bias, (1, 1), (kh // 2, kw // 2), (1, 1), mask, channels)


def _check_mask(weight_shape: Any, mask: str, channels: int) -> None:
    o, i, kh, kw = weight_shape
    if mask not in ("A", "B"):
        raise ValueError(f"masked_conv2d: mask must be 'A' or 'B', got {mask!r}")
    if kh % 2 == 0 or kw % 2 == 0:
        raise ValueError(f"masked_conv2d: the kernel's sides must be odd, got {kh} x {kw}")
    if not isinstance(channels, int) or channels < 1 or i % channels or o % channels:
        raise ValueError(f"masked_conv2d: channels must divide the {i} input and {o} output channels, got {channels}")


def _check_conv(name: str, input: Any, weight: Any, bias: Any, groups: int, i: int, o: int) -> None:
    """ValueError unless shapes fit. i, o: the axes of the weight that hold the input and output channels."""
    if groups != 1:
        raise ValueError(f"{name}: groups must be 1, got {groups}; grouped convolution is not supported")
    if len(input.shape) != 4 or len(weight.shape) != 4:
        raise ValueError(f"{name}: input and weight must have 4 axes, got shapes {input.shape} and {weight.shape}")
    if input.shape[1] != weight.shape[i]:
        raise ValueError(f"{name}: input of shape {input.shape} must have {weight.shape[i]} channels for weight {weight.shape}")
    if bias is not None and bias.shape != (weight.shape[o],):
        raise ValueError(f"{name}: bias must have shape ({weight.shape[o]},), got {bias.shape}")


def _pair(name: str, value: Any, least: int) -> tuple[int, int]:
    """An integer or a pair of them as a pair; ValueError for anything else, and below the least."""
    pair = value if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or not all(isinstance(v, (int, np.integer)) and v >= least for v in pair):
        raise ValueError(f"{name} must be an integer of at least {least}, or a pair of them, got {value!r}")
    return int(pair[0]), int(pair[1])


def _padding(padding: Any, kernel: Any, stride: Any, dilation: Any) -> tuple[int, int]:
    if padding == "valid":
        return 0, 0
    if padding != "same":
        return _pair("conv2d: padding", padding, 0)
    spans = tuple(d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
    if stride != (1, 1) or spans[0] % 2 or spans[1] % 2:
        raise ValueError(f"conv2d: padding='same' needs stride 1 and an odd kernel, got stride {stride}, kernel {kernel}")
    return spans[0] // 2, spans[1] // 2


# ------------------------------------------------------------------------------------------------------------- dropout


def dropout(
    input: Tensor, p: float = 0.5, training: bool = True, *, generator: np.random.Generator | None = None
) -> Tensor:
    """Each element is zeroed with probability p, the others grow by 1 / (1 - p), in training; otherwise input.

    The generator that decides is required in training. Source: Srivastava et al., Dropout (2014).
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p must be between 0 and 1, got {p}")
    if not training or p == 0:
        return input
    if generator is None:
        raise TypeError("dropout: generator is required in training: a numpy.random.Generator that draws what is dropped")
    array = input._array if isinstance(input, Tensor) else input
    kept = xp(array).empty_like(array)  # in input's order in memory
    kept[...] = xp(array).asarray(generator.random(array.shape, dtype=np.float32) >= p)
    kept *= 1 / (1 - p) if p < 1 else 0
    return ops.mul(input, Tensor(kept))


def embedding(input: Any, weight: Tensor) -> Tensor:
    """Rows of a table. input: integers of any shape, weight: (rows, D) -> (*input.shape, D).

    Raises TypeError for an input that isn't integers, ValueError for one out of range (there are no negative indices).
    """
    index = input._array if isinstance(input, Tensor) else input
    if len(weight.shape) != 2:
        raise ValueError(f"embedding: weight must be (rows, D), got shape {weight.shape}")
    _loss.check_labels("embedding: input", index, weight.shape[0])
    return ops.getitem(weight, index)


# -------------------------------------------------------------------------------------------------------------- losses


def cross_entropy(input: Tensor, target: Any, *, reduction: str = "mean") -> Tensor:
    """-log softmax(input)[target], in nats. input: (N, C, ...) logits, target: (N, ...) integers in 0..C-1.

    reduction: "mean" over all predictions, "sum", or "none": of target's shape.
    """
    return _reduced("cross_entropy", _loss.cross_entropy(input, target), reduction)


def nll_loss(input: Tensor, target: Any, *, reduction: str = "mean") -> Tensor:
    """-input[target], in nats. input: (N, C, ...) log-probabilities, target: (N, ...) integers in 0..C-1."""
    return _reduced("nll_loss", _loss.nll(input, target), reduction)


def binary_cross_entropy_with_logits(input: Tensor, target: Any, *, reduction: str = "mean") -> Tensor:
    """-log Bernoulli(target; sigmoid(input)), in nats, elementwise. input: logits; target: of its shape and dtype."""
    return _reduced("binary_cross_entropy_with_logits", _loss.binary_cross_entropy_with_logits(input, target), reduction)


def mse_loss(input: Tensor, target: Any, *, reduction: str = "mean") -> Tensor:
    """(input - target) ** 2, elementwise. target: of input's shape."""
    _check_same("mse_loss", input, target)
    return _reduced("mse_loss", ops.pow(ops.sub(input, target), 2), reduction)


def l1_loss(input: Tensor, target: Any, *, reduction: str = "mean") -> Tensor:
    """|input - target|, elementwise. target: of input's shape."""
    _check_same("l1_loss", input, target)
    return _reduced("l1_loss", ops.abs(ops.sub(input, target)), reduction)


def _check_same(name: str, input: Any, target: Any) -> None:
    if input.shape != target.shape:
        raise ValueError(f"{name}: target must have input's shape, got {target.shape} for {input.shape}")


def _reduced(name: str, losses: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return losses
    if reduction == "sum":
        return ops.sum(losses)
    if reduction != "mean":
        raise ValueError(f"{name}: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    if 0 in losses.shape:
        raise ValueError(f"{name}: there is no mean of no elements (shape {losses.shape})")
    return ops.mean(losses)
