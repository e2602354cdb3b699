"""Curves as SVG, in the colors of the page around them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

POINTS, FEW = 150, 30  # at most so many points make a curve; fewer than so many are marked
WIDTH, HEIGHT, LEFT, BELOW, ABOVE = 420, 240, 52, 40, 24  # of a drawing, in its own units
REACH = 3.0  # by how much baselines may stretch the range of values


class Curve(NamedTuple):
    """Values (N,) over steps (N,), and the CSS class that colors them."""

    steps: np.ndarray
    values: np.ndarray
    kind: str = ""


class Frame(NamedTuple):
    """The extent of a drawing, in steps and values."""

    first: float
    last: float
    bottom: float
    top: float

    def across(self, step: Any) -> Any:
        """Where a step is."""
        return LEFT + (step - self.first) / (self.last - self.first or 1) * (WIDTH - 8 - LEFT)

    def up(self, value: Any) -> Any:
        """Where a value is; on the edge if it is beyond."""
        share = (np.clip(value, self.bottom, self.top) - self.bottom) / (self.top - self.bottom)
        return HEIGHT - BELOW - share * (HEIGHT - BELOW - ABOVE)


def curves(
    drawn: Sequence[Curve], label: str, unit: str = "", baselines: Mapping[str, float] = MappingProxyType({})
) -> str:
    """Curves over each other: means over groups of steps as lines, the least and greatest of one curve as a band.

    label, unit: the name of the values, and the unit of the axis. baselines: dashed lines, by name; those far from the
    curves are only named at the edge.
    """
    series = [_grouped(curve) for curve in drawn]
    frame = _frame(series, drawn, baselines)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role=img aria-label="{escape(label)} by step">']
    for y in _ticks(frame.bottom, frame.top, 6):
        parts.append(f'<path class=rule d="M{LEFT} {frame.up(y):.1f}H{WIDTH - 8}"/>')
        parts.append(f"<text x={LEFT - 6} y={frame.up(y) + 4:.1f} text-anchor=end>{_tick(y)}</text>")
    for step in _ticks(frame.first, frame.last, 5):
        parts.append(
            f"<text x={frame.across(step):.1f} y={HEIGHT - BELOW + 16} text-anchor=middle>{_tick(step)}</text>"
        )
    parts.append(f"<text x={(LEFT + WIDTH - 8) // 2} y={HEIGHT - 6} text-anchor=middle>step</text>")
    parts.append(f"<text x=4 y=13>{escape(unit)}</text>")
    for curve, (x, mean, low, high) in zip(drawn, series, strict=True):
        xs, kind = frame.across(x), f'class="{curve.kind}" ' if curve.kind else ""
        if len(drawn) == 1:
            outline = _path(np.concatenate([xs, xs[::-1]]), np.concatenate([frame.up(high), frame.up(low)[::-1]]))
            parts.append(f'<polygon {kind}points="{outline}"/>')
        parts.append(f'<polyline {kind}points="{_path(xs, frame.up(mean))}"/>')
        if len(x) < FEW:
            at = zip(xs, frame.up(mean), strict=True)
            parts += [f'<circle {kind}cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in at]
    return "".join([*parts, *_dashed(frame, baselines), "</svg>"])


def _grouped(curve: Curve) -> tuple[np.ndarray, ...]:
    """Of groups of steps: the mean step; the mean, the least and the greatest value."""
    size = -(-len(curve.steps) // POINTS)
    groups = [slice(i, i + size) for i in range(0, len(curve.steps), size)]
    x = np.array([curve.steps[g].mean() for g in groups])
    return x, *(np.array([f(curve.values[g]) for g in groups]) for f in (np.mean, np.min, np.max))


def _frame(series: list[tuple[np.ndarray, ...]], drawn: Sequence[Curve], baselines: Mapping[str, float]) -> Frame:
    """The frame of all curves: without the first fall, which would squeeze what follows, and the worst outliers."""
    seen = [np.sort(c.values[len(c.values) // 20 :]) for c in drawn]
    least, most = min(s[len(s) // 100] for s in seen), max(s[-1 - len(s) // 100] for s in seen)
    extent = _extent(least, most)
    near = [b for b in baselines.values() if max(most, b) - min(least, b) <= REACH * extent]
    least, most = min([least, *near]), max([most, *near])
    margin = 0.08 * _extent(least, most)
    xs = [x for x, *_ in series]
    first, last = min(x[0] for x in xs), max(x[-1] for x in xs)
    return Frame(first, last, least - margin, most + margin)


def _extent(least: float, most: float) -> float:
    """How far it is from one to the other; of equal values, how large they are, which is more than 0."""
    return next(extent for extent in (most - least, abs(most), 1.0) if extent > 1e-300)


def _dashed(frame: Frame, baselines: Mapping[str, float]) -> list[str]:
    """Baselines as dashed lines with their names above; those beyond the frame as names at its edge."""
    parts = []
    for name, value in baselines.items():
        y, text = frame.up(value), f"{escape(name)} {value:.{3 if abs(value) < 10 else 2}f}"
        if frame.bottom <= value <= frame.top:
            parts.append(f'<path class=baseline d="M{LEFT} {y:.1f}H{WIDTH - 8}"/>')
        else:
            text += " (above)" if value > frame.top else " (below)"
        parts.append(f"<text x={WIDTH - 10} y={y - 5:.1f} text-anchor=end>{text}</text>")
    return parts


def _path(xs: np.ndarray, ys: np.ndarray) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(xs, ys, strict=True))


def _ticks(low: float, high: float, most: int) -> list[float]:
    """At most so many round numbers from low to high."""
    if not high > low:
        return [low]
    power = 10 ** math.floor(math.log10((high - low) / most))
    step = next(power * m for m in (1, 2, 5, 10, 20) if (high - low) / (power * m) <= most)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _tick(value: float) -> str:
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.6g}"
