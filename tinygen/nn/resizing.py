"""Images and lines made larger or smaller.

Every way but nearest is linear and goes axis by axis, so it is a matrix for each axis: an output pixel's row holds the
weights of the input pixels. Sizes and weights are PyTorch's, so that images line up to the last digit.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from tinygen import ops
from tinygen._tensor import Tensor
from tinygen.nn._arrays import constant
from tinygen.ops.pooling import window_spread

_AXES = {"linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}  # how many axes a mode is for; others: any number
_REACH = {"linear": 1.0, "bicubic": 2.0}  # of the weights, in pixels


def interpolate(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None, recompute_scale_factor: bool | None = None, antialias: bool = False,
) -> Tensor:  # fmt: skip
    """Images of another size: (N, C, H, W) -> (N, C, OH, OW), and so lines (N, C, L), volumes (N, C, D, H, W).

    Args:
        size, scale_factor: one of them, a number for all axes or one for each. OH = floor(H scale_factor).
        mode: "nearest" (the pixel at floor(i H / OH)), "nearest-exact" (at floor((i + 1/2) H / OH)), "linear" for
            lines, "bilinear" and "bicubic" (a = -3/4) for images, "trilinear" for volumes, or "area": the mean of all
            pixels that an output pixel touches.
        align_corners: of (bi-, tri-) linear and bicubic: whether the centers of the outermost pixels stay in place.
        recompute_scale_factor: the scale is the ratio of the sizes, not the scale_factor that they were rounded from.
        antialias: of bilinear and bicubic: reducing averages over as wide a neighborhood as an output pixel covers.
    """
    axes = len(input.shape) - 2
    _check(input, axes, mode, align_corners, antialias)
    if (size is None) == (scale_factor is None):
        raise ValueError("interpolate: give either size or scale_factor")
    sizes, scales = _sizes(input.shape[2:], size, scale_factor)
    if recompute_scale_factor:
        if scale_factor is None:
            raise ValueError("interpolate: recompute_scale_factor needs a scale_factor")
        scales = [None] * axes
    if mode == "nearest" and axes == 2 and all(n % max(o, 1) == 0 for n, o in zip(sizes, input.shape[2:], strict=True)):
        whole = tuple(n // max(o, 1) for n, o in zip(sizes, input.shape[2:], strict=True))
        if min(whole) >= 1 and scales in ([None, None], list(map(float, whole))):
            return window_spread(input, None, tuple(sizes), whole, whole)
    if mode.startswith("nearest"):
        for axis, (n, scale) in enumerate(zip(sizes, scales, strict=True), 2):
            if axes == 2 and mode == "nearest" and n in (input.shape[axis], 2 * input.shape[axis]):
                scale = None  # as in PyTorch, where these are quicker
            input = ops.index_select(input, axis, nearest(input.shape[axis], n, scale, mode == "nearest-exact"))
        return input
    if input.dtype.kind != "f":  # whose weights would be integers, too
        input = ops.to(input, np.float32)
    # Channels last, as images are in memory: then a product along an axis needs no copy.
    x, kind = ops.permute(input, (0, *range(2, axes + 2), 1)), "linear" if mode.endswith("linear") else mode
    for axis, (n, scale) in enumerate(zip(sizes, scales, strict=True), 1):
        if antialias and n == x.shape[axis]:
            continue  # whatever the scale, as in PyTorch
        x = _product(weights(x.shape[axis], n, scale, kind, bool(align_corners), antialias), x, axis)
    return ops.permute(x, (0, axes + 1, *range(1, axes + 1)))


def _check(input: Any, axes: int, mode: str, align_corners: bool | None, antialias: bool) -> None:
    modes = (*_AXES, "area", "nearest", "nearest-exact")
    if mode not in modes:
        raise ValueError(f"interpolate: mode must be one of {', '.join(modes)}, got {mode!r}")
    if not 1 <= axes <= 3:
        raise ValueError(f"interpolate: input must be (N, C, H, W), (N, C, L) or (N, C, D, H, W), got {input.shape}")
    if _AXES.get(mode, axes) != axes:
        raise ValueError(f"interpolate: mode {mode!r} is for inputs of {_AXES[mode] + 2} axes, got shape {input.shape}")
    if align_corners is not None and mode not in _AXES:
        raise ValueError(f"interpolate: align_corners is for linear and cubic modes, got mode {mode!r}")
    if antialias and mode not in ("bilinear", "bicubic"):
        raise ValueError(f"interpolate: antialias is for bilinear and bicubic, got mode {mode!r}")
    if not all(input.shape[1:]):
        raise ValueError(f"interpolate: input has no pixels, got shape {input.shape}")


def _sizes(old: Any, size: Any, scale_factor: Any) -> tuple[list[int], list[float | None]]:
    """(new sizes, scales or None) of all axes."""
    name, given = ("size", size) if scale_factor is None else ("scale_factor", scale_factor)
    each = list(given) if isinstance(given, (tuple, list)) else [given] * len(old)
    numbers = (int, np.integer) if scale_factor is None else (int, float, np.integer, np.floating)
    if len(each) != len(old) or not all(isinstance(n, numbers) and n > 0 for n in each):
        kind = "an integer" if scale_factor is None else "a number"
        raise ValueError(
            f"interpolate: {name} must be {kind} above 0, or one for each of {len(old)} axes, got {given!r}"
        )
    if scale_factor is None:
        return [int(n) for n in each], [None] * len(old)
    sizes = [math.floor(n * s) for n, s in zip(old, each, strict=True)]
    if min(sizes) < 1:
        raise ValueError(f"interpolate: scale_factor {scale_factor} leaves nothing of {tuple(old)}")
    return sizes, [float(s) for s in each]


def nearest(n: int, size: int, scale: float | None, exact: bool) -> np.ndarray:
    """Which of n pixels each of `size` pixels is, reckoned in float32 as in PyTorch."""
    ratio = np.float32(1 / scale if scale else np.float32(n) / np.float32(size))
    places = np.arange(size, dtype=np.float32) + np.float32(0.5 if exact else 0)
    return np.minimum(np.floor(places * ratio).astype(int), n - 1)


@functools.lru_cache(256)
def weights(n: int, size: int, scale: float | None, kind: str, align_corners: bool, antialias: bool) -> np.ndarray:
    """The matrix (size, n) by which n pixels become `size`. kind: "linear", "bicubic" or "area"."""
    i = np.arange(size)[:, None]
    if kind == "area":
        begin, end = i * n // size, -((i + 1) * n // -size)
        return ((np.arange(n) >= begin) & (np.arange(n) < end)) / (end - begin)
    ratio = (n - 1) / max(size - 1, 1) * (size > 1) if align_corners else 1 / scale if scale else n / size
    if antialias:
        return _wide(n, i, ratio, kind)
    place = ratio * i if align_corners else ratio * (i + 0.5) - 0.5
    place = np.maximum(place, 0) if kind == "linear" else place
    first = np.floor(place).astype(int)
    out = np.zeros((size, n))
    for step in range(1 - int(_REACH[kind]), 1 + int(_REACH[kind])):  # pixels beyond the edge are those at the edge
        np.add.at(out, (i, np.clip(first + step, 0, n - 1)), _falloff(first + step - place, kind, -0.75))
    return out


def _wide(n: int, i: np.ndarray, ratio: float, kind: str) -> np.ndarray:
    """Weights that reach as far as an output pixel is wide; pixels beyond the edge count for nothing."""
    width = max(ratio, 1.0)
    reach, center = _REACH[kind] * width, ratio * (i + 0.5)
    begin = np.maximum((center - reach + 0.5).astype(int), 0)
    end = np.minimum((center + reach + 0.5).astype(int), n)
    pixels = np.arange(n)
    out = _falloff((pixels - center + 0.5) / width, kind, -0.5) * ((pixels >= begin) & (pixels < end))
    return out / out.sum(axis=1, keepdims=True)


def _falloff(distance: np.ndarray, kind: str, a: float) -> np.ndarray:
    """A pixel's weight at a distance: a triangle, or Keys's cubic with the parameter a."""
    d = np.abs(distance)
    if kind == "linear":
        return np.maximum(1 - d, 0)
    near, far = ((a + 2) * d - (a + 3)) * d * d + 1, ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def _product(matrix: np.ndarray, x: Any, axis: int) -> Any:
    """matrix @ x along an axis."""
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    rows = ops.reshape(x, (math.prod(before), x.shape[axis], math.prod(after)))
    return ops.reshape(ops.matmul(constant(x, matrix), rows), (*before, len(matrix), *after))


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """Channels become pixels: (..., C r r, H, W) -> (..., C, H r, W r), r being the upscale_factor.

    Source: Shi et al., Real-Time Single Image and Video Super-Resolution (2016).
    """
    r = _factor("pixel_shuffle: upscale_factor", upscale_factor, input)
    *lead, channels, h, w = input.shape
    if channels % (r * r):
        raise ValueError(f"pixel_shuffle: input's channels must be a multiple of {r * r}, got shape {input.shape}")
    n, c = len(lead), channels // (r * r)
    x = ops.reshape(input, (*lead, c, r, r, h, w))
    return ops.reshape(ops.permute(x, (*range(n), n, n + 3, n + 1, n + 4, n + 2)), (*lead, c, h * r, w * r))


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """The inverse of `pixel_shuffle`: (..., C, H r, W r) -> (..., C r r, H, W), r being the downscale_factor."""
    r = _factor("pixel_unshuffle: downscale_factor", downscale_factor, input)
    *lead, c, h, w = input.shape
    if h % r or w % r:
        raise ValueError(f"pixel_unshuffle: input's height and width must be multiples of {r}, got {input.shape}")
    n = len(lead)
    x = ops.reshape(input, (*lead, c, h // r, r, w // r, r))
    return ops.reshape(ops.permute(x, (*range(n), n, n + 2, n + 4, n + 1, n + 3)), (*lead, c * r * r, h // r, w // r))


def _factor(name: str, factor: Any, input: Any) -> int:
    if not isinstance(factor, (int, np.integer)) or factor < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {factor!r}")
    if len(input.shape) < 3:
        raise ValueError(f"{name.partition(':')[0]}: input must be (..., C, H, W), got shape {input.shape}")
    return int(factor)
