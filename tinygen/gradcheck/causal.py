"""Which output sees which input: one backward run for each output gives the row d out_i / d in_j.

A model is autoregressive in raster order if out_i depends on in_j only for j < i: its dependency matrix is zero on and
above the diagonal. The rows, drawn as pictures, show the receptive field and its blind spot.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinygen import autograd, modes
from tinygen._tensor import Tensor, leaf

Array = Any


def dependencies(fn: Callable[[Tensor], Tensor], x: Array, channels: bool = False, draws: int = 2,
                 rng: np.random.Generator | None = None) -> np.ndarray:  # fmt: skip
    """How strongly each output pixel of a model depends on each input pixel.

    Args:
        fn: maps a Tensor (1, C, H, W) to a Tensor whose last axes are (..., H, W), or (..., C, H, W) with `channels`;
            what stands before them (logits of the levels) is summed with random weights.
        x: the image (C, H, W), or (1, C, H, W), at which to look. Further draws add noise of scale 1 to it, so that a
            ReLU which happens to be dead doesn't hide a path.
        channels: keep the channels apart; a row or column is then (h * W + w) * C + c: R, G, B of a pixel in turn.

    Returns: (P, P) array of max over the draws of |d out_i / d in_j|, summed over an input pixel's channels unless
        `channels`. Row: output; column: input, both in raster order. Zero exactly where nothing flows.
    """
    rng = rng or np.random.default_rng(0)
    x = np.asarray(x, np.float64).reshape(1, *np.shape(x)[-3:])
    total: Any = 0.0
    for draw in range(draws):
        image = leaf(x + (rng.standard_normal(x.shape) if draw else 0), True)
        with modes.enable_grad():
            out = fn(image)
        shape = out.shape[-3:] if channels else out.shape[-2:]
        if shape != (x.shape[1:] if channels else x.shape[2:]):
            raise ValueError(f"dependencies: the model's output {out.shape} doesn't end in the image's {x.shape[1:]}")
        total = np.maximum(total, np.abs(_rows(image, out, shape, channels, rng)))
    return total


def _rows(image: Tensor, out: Tensor, shape: tuple[int, ...], channels: bool, rng: np.random.Generator) -> Array:
    rows = []
    weights = rng.uniform(0.5, 1.5, out.shape).astype(out.dtype)
    order = [(slice(None), c) for c in range(shape[0])] if channels else [(slice(None),)]
    for h, w in np.ndindex(*shape[-2:]):
        for c in order:
            chosen = np.zeros_like(weights)
            at = (..., *c[1:], h, w)
            chosen[at] = weights[at]
            (g,) = autograd.grad(out, image, Tensor(chosen), retain_graph=True)
            row = np.moveaxis(g.numpy()[0], 0, -1)  # (H, W, C)
            rows.append((row if channels else np.abs(row).sum(axis=-1)).ravel())
    return np.array(rows)


def violations(matrix: np.ndarray) -> list[tuple[int, int]]:
    """(output, input) pairs that break the raster order: an output that sees itself or the future."""
    return [(int(i), int(j)) for i, j in np.argwhere(np.triu(matrix) != 0)]


def blind_spot(matrix: np.ndarray) -> list[tuple[int, int]]:
    """(output, input) pairs of the past that the output doesn't see."""
    return [(int(i), int(j)) for i, j in np.argwhere(matrix == 0) if j < i]


def picture(
    matrix: np.ndarray, height: int, width: int, pixel: tuple[int, int] | None = None, rank: np.ndarray | None = None
) -> str:
    """The receptive field of one output pixel as text, the middle one if left out.

    `#` it sees, `.` past that it doesn't see, `o` the pixel itself, ` ` the future, `!` itself or future that it sees.

    rank: (P,), the place of each pixel in the model's order; raster order if left out.
    """
    h, w = pixel or (height // 2, width // 2)
    i = h * width + w
    past = (np.arange(height * width) if rank is None else rank) < (i if rank is None else rank[i])
    marks = []
    for j, sees in enumerate(matrix[i] != 0):
        marks.append(("#" if sees else ".") if past[j] else "!" if sees else "o" if j == i else " ")
    return "\n".join("".join(marks[r * width : (r + 1) * width]).rstrip() for r in range(height))
