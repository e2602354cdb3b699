"""Windows over images: pooling, unfolding; and the borders that images get before."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygen import ops
from tinygen._tensor import Tensor
from tinygen.array import on_device_of, xp
from tinygen.geometry import Pair, out_size, pair
from tinygen.nn._arrays import constant, like, raw
from tinygen.ops.pooling import max_pool2d as _max_pool2d
from tinygen.ops.pooling import window_sum


def max_pool2d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """The largest pixel of each window: (N, C, H, W) -> (N, C, OH, OW), or without a batch.

    OH = (H + 2 padding - dilation (KH - 1) - 1) // stride + 1, and so OW. Of equals the first gets the gradient.
    stride: by default the kernel's size. Padding, at most half of the kernel, never wins. ceil_mode: sizes are rounded
    up instead, as long as a window begins within the image or the padding before it. return_indices: also where each
    pixel stood, row * W + column.
    """
    if len(input.shape) == 3:
        found = max_pool2d(input[None], kernel_size, stride, padding, dilation, ceil_mode, return_indices)
        return (found[0][0], found[1][0]) if return_indices else found[0]
    kernel, stride, padding, dilation = _window("max_pool2d", input, kernel_size, stride, padding, dilation)
    rest = _rest(input.shape[2:], kernel, stride, padding, dilation) if ceil_mode else (0, 0)
    padded = pad(input, (0, rest[1], 0, rest[0]), value=-math.inf) if any(rest) else input
    out, which = _max_pool2d(padded, kernel, stride, padding, dilation)
    if not return_indices:
        return out
    which, (rows, columns) = raw(which), out.shape[2:]
    row = np.arange(rows)[:, None] * stride[0] - padding[0]
    column = np.arange(columns) * stride[1] - padding[1]
    row, column = on_device_of(which, row), on_device_of(which, column)
    indices = (row + which // kernel[1] * dilation[0]) * input.shape[3] + column + which % kernel[1] * dilation[1]
    return out, like(out, indices)


def avg_pool2d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """The mean of each window: (N, C, H, W) -> (N, C, OH, OW), or without a batch. Sizes as in `max_pool2d`.

    count_include_pad: whether padding counts, as zeros. divisor_override: what the sums are divided by instead.
    """
    if len(input.shape) == 3:
        options = padding, ceil_mode, count_include_pad, divisor_override
        return avg_pool2d(input[None], kernel_size, stride, *options)[0]
    kernel, stride, padding, dilation = _window("avg_pool2d", input, kernel_size, stride, padding, 1)
    if divisor_override == 0:
        raise ValueError("avg_pool2d: divisor_override must not be 0")
    rest = _rest(input.shape[2:], kernel, stride, padding, dilation) if ceil_mode else (0, 0)
    padded = pad(input, (0, rest[1], 0, rest[0])) if any(rest) else input
    sums = window_sum(padded, None, kernel, stride, padding)
    if divisor_override is not None:
        return sums / divisor_override
    if count_include_pad and not any(rest):
        return sums / (kernel[0] * kernel[1])
    down, across = (
        _counts(n, size, k, s, p, count_include_pad)
        for n, size, k, s, p in zip(input.shape[2:], sums.shape[2:], kernel, stride, padding, strict=True)
    )
    return sums / constant(sums, down[:, None] * across)


def _counts(n: int, windows: int, kernel: int, stride: int, padding: int, with_padding: bool) -> np.ndarray:
    """How many pixels each window has along an axis of n pixels: of the image, or also of the padding."""
    first, last = (-padding, n + padding) if with_padding else (0, n)
    begin = np.arange(windows) * stride - padding
    return np.minimum(begin + kernel, last) - np.maximum(begin, first)


def _rest(image: Any, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> list[int]:
    """How many pixels are missing at the end, (vertical, horizontal), for sizes rounded up."""
    found = []
    for n, k, s, p, d in zip(image, kernel, stride, padding, dilation, strict=True):
        windows = -((d * (k - 1) + 1 - n - 2 * p) // s) + 1
        windows -= (windows - 1) * s >= n + p
        found.append(max((windows - 1) * s + d * (k - 1) + 1 - n - 2 * p, 0))
    return found


def _window(name: str, input: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any) -> Any:
    """(kernel, stride, padding, dilation) as pairs; ValueError if they don't fit the input."""
    if len(input.shape) != 4:
        raise ValueError(f"{name}: input must be (N, C, H, W) or (C, H, W), got shape {input.shape}")
    kernel = pair(f"{name}: kernel_size", kernel_size, 1)
    stride = kernel if stride is None or stride == () or stride == [] else pair(f"{name}: stride", stride, 1)
    padding, dilation = pair(f"{name}: padding", padding, 0), pair(f"{name}: dilation", dilation, 1)
    if any(2 * p > d * (k - 1) + 1 for p, k, d in zip(padding, kernel, dilation, strict=True)):
        raise ValueError(f"{name}: padding {padding} must be at most half of kernel_size {kernel}")
    return kernel, stride, padding, dilation


def unfold(input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Tensor:
    """The pixels of each window as a column: (N, C, H, W) -> (N, C KH KW, OH OW), or without a batch.

    OH = (H + 2 padding - dilation (KH - 1) - 1) // stride + 1, and so OW. A convolution is a product with it.
    """
    if len(input.shape) == 3:
        return unfold(input[None], kernel_size, dilation, padding, stride)[0]
    if len(input.shape) != 4:
        raise ValueError(f"unfold: input must be (N, C, H, W) or (C, H, W), got shape {input.shape}")
    kernel, stride = pair("unfold: kernel_size", kernel_size, 1), pair("unfold: stride", stride, 1)
    padding, dilation = pair("unfold: padding", padding, 0), pair("unfold: dilation", dilation, 1)
    rows, columns = out_size(input.shape[2:], kernel, stride, padding, dilation)
    padded = pad(input, (padding[1], padding[1], padding[0], padding[0]))
    taps = []
    for r in range(0, kernel[0] * dilation[0], dilation[0]):
        for c in range(0, kernel[1] * dilation[1], dilation[1]):
            down = slice(r, r + stride[0] * (rows - 1) + 1, stride[0])
            across = slice(c, c + stride[1] * (columns - 1) + 1, stride[1])
            taps.append(ops.getitem(padded, (slice(None), slice(None), down, across)))
    n, channels = input.shape[:2]
    return ops.reshape(ops.stack(taps, 2), (n, channels * kernel[0] * kernel[1], rows * columns))


# ----------------------------------------------------------------------------------------------------------- borders


def pad(input: Tensor, pad: Any, mode: str = "constant", value: float | None = None) -> Tensor:
    """A border around the last axes. pad: (before, after) of the last axis, of the last but one, ...

    mode: "constant": of this value, 0 by default; "reflect": mirrored at the outermost pixel, which isn't repeated;
    "replicate": the outermost pixel; "circular": from the other end. A negative width cuts off instead.
    """
    if len(pad) % 2 or len(pad) > 2 * len(input.shape) or not all(isinstance(n, (int, np.integer)) for n in pad):
        raise ValueError(f"pad: pad must be pairs of integers, one for each axis from the last, got {pad!r}")
    if mode not in ("constant", *_BORDERS):
        raise ValueError(f"pad: mode must be 'constant', 'reflect', 'replicate' or 'circular', got {mode!r}")
    if mode != "constant" and value:
        raise ValueError(f"pad: mode {mode!r} takes no value, got {value}")
    pairs = [(0, 0)] * (len(input.shape) - len(pad) // 2) + list(zip(pad[::2], pad[1::2], strict=True))[::-1]
    if any(b + n + a < 0 for (b, a), n in zip(pairs, input.shape, strict=True)):
        raise ValueError(f"pad: pad {pad!r} cuts off more than there is of input {input.shape}")
    widths = tuple((max(int(b), 0), max(int(a), 0)) for b, a in pairs)
    if mode == "circular":  # what is cut off is gone before the ends meet
        input = _cropped(input, pairs)
    if mode == "constant":
        input = _constant_border(input, widths, value or 0)
    else:
        for axis, (before, after) in enumerate(widths):
            if before or after:
                input = _bordered(input, axis, before, after, mode)
    return input if mode == "circular" else _cropped(input, pairs)


def _cropped(x: Any, pairs: Any) -> Any:
    """x without what negative widths cut off."""
    if all(b >= 0 and a >= 0 for b, a in pairs):
        return x
    return ops.getitem(x, tuple(slice(max(-b, 0), n - max(-a, 0)) for (b, a), n in zip(pairs, x.shape, strict=True)))


def _constant_border(input: Any, widths: Any, value: float) -> Any:
    padded = ops.pad(input, widths)
    if value == 0:
        return padded
    border = xp(raw(padded)).full_like(raw(padded), value)
    border[tuple(slice(b, b + n) for (b, _), n in zip(widths, input.shape, strict=True))] = 0
    return ops.add(padded, like(input, border))


# How far a border can reach on an axis of n pixels, and which pixel continues it at each place.
_BORDERS: dict[str, tuple[Any, Any]] = {
    "reflect": (lambda n: n - 1, lambda places, n: n - 1 - np.abs(n - 1 - np.abs(places))),
    "replicate": (lambda n: math.inf if n else 0, lambda places, n: np.clip(places, 0, n - 1)),
    "circular": (lambda n: n, lambda places, n: places % n),
}


def _bordered(x: Any, axis: int, before: int, after: int, mode: str) -> Any:
    """x between what it is continued by along an axis."""
    n, (reach, continued) = x.shape[axis], _BORDERS[mode]
    if max(before, after) > reach(n):
        raise ValueError(f"pad: mode {mode!r} can't make a border of {max(before, after)} from {n} pixels")
    return ops.index_select(x, axis, continued(np.arange(-before, n + after), n))
