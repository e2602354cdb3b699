"""An array in a few numbers: what a page shows of it, taken at once, since its memory is soon used again."""

from __future__ import annotations

import base64
import math
from typing import Any, NamedTuple

import numpy as np

from tinygen.array import moved

BINS, HEAD, SIDE, CHANNELS = 24, 6, 14, 4  # of histogram, first values and thumbnail


class Thumb(NamedTuple):
    """A small picture of an array: int8 values, in base64, of which +-127 is `most`."""

    height: int
    width: int
    panels: int  # channels side by side
    most: float
    values: str


class Summary(NamedTuple):
    """What is kept of an array. The numbers are computed in float64, of its finite values."""

    shape: tuple[int, ...]
    dtype: str
    order: str  # of the axes in memory, the last one lies close together
    bytes: int
    least: float
    most: float
    mean: float
    rms: float
    zeros: int
    not_finite: int
    histogram: list[int]  # counts from least to most, the highest being 99
    head: list[float]
    thumb: Thumb | None


def summary(value: Any) -> Summary:
    """Of an array, NumPy's or CuPy's."""
    array = np.asarray(moved(value, np))
    flat = array.astype(np.float64).ravel()  # in C order, whatever the memory's
    finite = flat[np.isfinite(flat)]
    least, most = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    counts = np.histogram(finite, BINS, (least, most if most > least else least + 1))[0]
    highest = max(1, counts.max())
    return Summary(
        array.shape, str(array.dtype), _order(array), array.nbytes, least, most,
        float(finite.mean()) if finite.size else 0.0, math.sqrt(float((finite**2).mean())) if finite.size else 0.0,
        int((finite == 0).sum()), flat.size - finite.size, [int(99 * c / highest) for c in counts],
        [float(v) for v in flat[:HEAD]], _thumb(array),
    )  # fmt: skip


def _order(array: np.ndarray) -> str:
    """ "NHWC" and the like for images, else the axes' numbers; nothing for one axis or where none is longer than 1."""
    names = "NCHW" if array.ndim == 4 else "0123456789"
    if array.ndim < 2 or array.size < 2:
        return ""
    by_stride = sorted(range(array.ndim), key=lambda i: (-abs(array.strides[i]), i))
    return "".join(names[i] for i in by_stride)


def _thumb(array: np.ndarray) -> Thumb | None:
    """The first image, up to four channels of it; of a matrix the upper left corner, of a vector the beginning."""
    if array.dtype.kind not in "fiub" or array.ndim == 0 or array.size < 2:
        return None
    if array.ndim == 4 and array.shape[2:] == (1, 1):  # the weight of a 1x1 convolution is a matrix
        array = array[:, :, 0, 0]
    if array.ndim >= 3:
        planes = array.reshape(-1, *array.shape[-3:])[0][:CHANNELS]
        step = max(1, -(-max(planes.shape[1:]) // SIDE))
        planes = planes[:, ::step, ::step][:, :SIDE, :SIDE]
    else:
        planes = np.atleast_2d(array)[None, :SIDE, : 2 * SIDE]
    planes = np.nan_to_num(planes.astype(np.float64), posinf=0, neginf=0)
    most = float(np.abs(planes).max()) or 1.0
    small = np.rint(planes * (127 / most)).astype(np.int8)
    panels, height, width = small.shape
    return Thumb(height, width, panels, most, base64.b64encode(small.tobytes()).decode())
