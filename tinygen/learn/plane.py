"""The training of a GAN in the plane as a page of recorded moments: `tinygen toy --page`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinygen.learn import moments
from tinygen.learn.details import number
from tinygen.learn.moments import packed, shares

REACH = 3.0  # half the width of the square that is shown
SIDE, POINTS, ARROWS = 32, 250, 60  # of D's field; generated points; arrows on some of them


class Moment(NamedTuple):
    """What is seen at one step.

    field: D's values over the square, (side, side), the largest y first. points: generated ones, (N, 2). pushes: of the
    first points, the direction in which the generator's loss falls, (M, 2). parts: the step's numbers.
    """

    step: int
    field: np.ndarray
    points: np.ndarray
    pushes: np.ndarray
    parts: dict[str, float]


def write(path: Path, title: str, real: np.ndarray, found: Sequence[Moment]) -> None:
    """Write the page. real: points of the data, (N, 2), the same at every moment."""
    names = list(found[0].parts)
    low, high = (float(np.percentile([m.field for m in found], q)) for q in (2, 98))
    content = {
        "names": names, "real": _placed(real), "side": len(found[0].field), "low": low, "high": high,
        "moments": [_content(m, low, high) for m in found],
    }  # fmt: skip
    rows = [(m.step, *(number(m.parts[name]) for name in names)) for m in found]
    moments.write(path, "plane", title, content, ["step", *names], rows)


def _content(m: Moment, low: float, high: float) -> dict[str, Any]:
    lengths = np.linalg.norm(m.pushes, axis=1, keepdims=True)
    unit = m.pushes / np.maximum(lengths, 1e-30)
    return {
        "step": m.step, "field": shares(m.field, low, high), "points": _placed(m.points),
        "pushes": packed(np.rint(127 * unit).astype(np.int8)), "parts": [float(f"{v:.4g}") for v in m.parts.values()],
        "push": float(f"{lengths.mean():.3g}"),
    }  # fmt: skip


def _placed(points: np.ndarray) -> str:
    """Points as pairs of bytes: 0 .. 255 over the square's sides."""
    return shares(points, -REACH, REACH)
