"""The training of a GAN in the plane as one HTML page: recorded moments, to play, to stop, and to step through."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinygen.learn import details
from tinygen.learn.details import number, text

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


def write(path: Path, title: str, real: np.ndarray, moments: Sequence[Moment]) -> None:
    """Write the page. real: points of the data, (N, 2), the same at every moment."""
    names = list(moments[0].parts)
    low, high = (float(np.percentile([m.field for m in moments], q)) for q in (2, 98))
    data = {
        "names": names, "real": _placed(real), "side": len(moments[0].field), "low": low, "high": high,
        "moments": [_packed(m, low, high) for m in moments],
    }  # fmt: skip
    files = resources.files("tinygen.learn")
    rows = "".join(
        f"<tr><td>{m.step}{''.join(f'<td>{number(m.parts[name])}' for name in names)}"
        for m in moments[:: len(moments) // 20 or 1]
    )
    head = f"<tr><th>step{''.join(f'<th>{text(name)}' for name in names)}"
    Path(path).write_text(
        f"{details.head(title)}<h1>{text(title)}</h1>{files.joinpath('moments.html').read_text()}"
        f"<section><h2>The numbers</h2><table class=numbers>{head}{rows}</table></section>"
        f"<script type=application/json id=data>{json.dumps(data).replace('<', chr(92) + 'u003c')}</script>"
        f"<script>{files.joinpath('moments.js').read_text()}</script></html>\n",
        encoding="utf-8",
    )


def _packed(m: Moment, low: float, high: float) -> dict[str, Any]:
    share = np.clip((m.field - low) / max(high - low, 1e-12), 0, 1)
    lengths = np.linalg.norm(m.pushes, axis=1, keepdims=True)
    unit = m.pushes / np.maximum(lengths, 1e-30)
    return {
        "step": m.step, "field": _bytes(np.rint(255 * share).astype(np.uint8)), "points": _placed(m.points),
        "pushes": _bytes(np.rint(127 * unit).astype(np.int8)), "parts": [float(f"{v:.4g}") for v in m.parts.values()],
        "push": float(f"{lengths.mean():.3g}"),
    }  # fmt: skip


def _placed(points: np.ndarray) -> str:
    """Points as pairs of bytes: 0 .. 255 over the square's sides."""
    return _bytes(np.rint(np.clip((points / REACH + 1) / 2, 0, 1) * 255).astype(np.uint8))


def _bytes(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
