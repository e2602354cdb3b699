"""Curves as SVG, in the colours of the page around them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

POINTS, FEW = 150, 30  # at most so many points make a curve; fewer than so many are marked
WIDTH, HEIGHT, LEFT, BELOW, ABOVE = 420, 220, 52, 24, 10  # of a curve, in its own units


def curve(steps: np.ndarray, values: np.ndarray, label: str) -> str:
    """Values over steps as SVG: means over groups of steps as a line, their least and greatest as a band."""
    size = -(-len(steps) // POINTS)
    groups = [slice(i, i + size) for i in range(0, len(steps), size)]
    x = np.array([steps[g].mean() for g in groups])
    mean, low, high = (np.array([f(values[g]) for g in groups]) for f in (np.mean, np.min, np.max))
    seen = np.sort(values[len(values) // 20 :])  # without the first fall, which would squeeze all that follows,
    least, most = seen[len(seen) // 100], seen[-1 - len(seen) // 100]  # and the worst outliers
    margin = 0.08 * next(extent for extent in (most - least, abs(most), 1.0) if extent > 1e-300)  # so are its parts
    bottom, top, right, floor = least - margin, most + margin, WIDTH - 8, HEIGHT - BELOW

    def across(step: Any) -> Any:
        return LEFT + (step - x[0]) / (x[-1] - x[0] or 1) * (right - LEFT)

    def up(value: Any) -> Any:
        return floor - (np.clip(value, bottom, top) - bottom) / (top - bottom) * (floor - ABOVE)

    def path(xs: Any, ys: Any) -> str:
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(xs, ys, strict=True))

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role=img aria-label="{label} by step">']
    for y in _ticks(bottom, top, 6):
        parts.append(f'<path class=rule d="M{LEFT} {up(y):.1f}H{right}"/>')
        parts.append(f"<text x={LEFT - 6} y={up(y) + 4:.1f} text-anchor=end>{_tick(y)}</text>")
    for step in _ticks(x[0], x[-1], 5):
        parts.append(f"<text x={across(step):.1f} y={HEIGHT - 6} text-anchor=middle>{_tick(step)}</text>")
    outline = np.concatenate([across(x), across(x)[::-1]]), np.concatenate([up(high), up(low)[::-1]])
    parts.append(f'<polygon points="{path(*outline)}"/><polyline points="{path(across(x), up(mean))}"/>')
    if len(x) < FEW:
        parts += [f'<circle cx="{across(a):.1f}" cy="{up(b):.1f}" r="3"/>' for a, b in zip(x, mean, strict=True)]
    return "".join(parts) + "</svg>"


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
