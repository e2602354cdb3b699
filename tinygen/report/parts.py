"""The parts of pages. A page needs nothing but itself, and is light or dark as the reader's system is."""

from __future__ import annotations

import base64
import csv
import math
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinygen.markup import head, text
from tinygen.models.registry import MODELS, model_class
from tinygen.report.style import COLORS, INK, QUIET, RULE

# --------------------------------------------------------------------------------------------- what a run's folder has


def read_toml(path: Path) -> dict[str, Any]:
    """The values of a TOML file; none if it can't be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def read_columns(path: Path) -> dict[str, np.ndarray]:
    """metrics.csv's columns by name, each as points (N, 2): step and value, where both are finite numbers.

    Nothing if there is no such file, or it isn't CSV.
    """
    if not path.exists():
        return {}
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            rows = list(csv.reader(file))
    except csv.Error:
        return {}
    names, lines = (rows[0], rows[1:]) if rows else ([], [])
    lines = [line for line in lines if len(line) == len(names)]
    found = {}
    for i, name in list(enumerate(names))[1:]:
        points = np.array([(_number(line[0]), _number(line[i])) for line in lines]).reshape(-1, 2)
        found[name] = points[np.isfinite(points).all(axis=1)]
    return found


def _number(text: str) -> float:
    """The number in a field of metrics.csv; nan if it is empty, or no number."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def units(model: str) -> Mapping[str, str]:
    """The units of metrics.csv's columns for a model of this name."""
    if model not in MODELS:
        return {}
    family = model_class(model).family
    return {**family.units, "validation": family.validation_unit}


# -------------------------------------------------------------------------------------------------- HTML of its parts


def section(title: str, body: str) -> str:
    """A part of the page with a heading; nothing if it is empty."""
    return f"<section><h2>{title}</h2>{body}</section>" if body else ""


def table(rows: Mapping[str, Any]) -> str:
    """Names and values."""
    lines = [f"<tr><th>{text(name.replace('_', ' '))}</th><td>{text(v)}</td></tr>" for name, v in rows.items()]
    return f"<table>{''.join(lines)}</table>" if lines else ""


def digits(value: float) -> int:
    """How many digits after the point a metric of this value is shown with, and so are its error and its baselines."""
    return 3 if abs(value) < 10 else 2


def cost(results: dict[str, Any]) -> dict[str, str]:
    """The cost of a run, by name; nothing if it hasn't trained."""
    if not (results.keys() >= {"parameters", "flops", "seconds"} and results.get("images")):
        return {}
    return {
        "parameters": f"{results['parameters']:,}",
        "MFLOP a training image": f"{results['flops'] / 1e6:,.1f}",
        "ms a training image": f"{results['seconds'] / results['images'] * 1e3:.3g}, snapshots included",
    }


def image(path: Path, name: str, about: str = "") -> str:
    """A PNG with its name below, and for those who don't see it what it is about."""
    data, name = base64.b64encode(path.read_bytes()).decode(), text(name)
    shown = f'<img alt="{text(about) or name}" src="data:image/png;base64,{data}">'
    return f"<figure>{shown}<figcaption>{name}</figcaption></figure>"


def images(figures: Iterable[str], kind: str = "") -> str:
    """Images beside each other: small ones, or of the kinds "side" (twice as large) and "large" (as they are)."""
    parts = "".join(figures)
    return f'<div class="images {kind}">{parts}</div>' if parts else ""


def page(title: str, body: Iterable[str]) -> str:
    """The whole page, of the parts that aren't empty."""
    inner = "\n".join(filter(None, body))
    return f"{head(title, _STYLE)}<body>\n{inner}\n</body>\n</html>\n"


_RUNS = "\n".join(f".run{i} {{ --line: {color}; }}" for i, color in enumerate(COLORS))
_DARK = "\n".join(f"  .run{i} {{ --line: color-mix(in oklab, {c} 75%, white); }}" for i, c in enumerate(COLORS))
_STYLE = (
    """:root { color-scheme: light dark; --page: #fff; --line: #1769c5; """
    f"--ink: {INK}; --quiet: {QUIET}; --rule: {RULE}; }}\n{_RUNS}\n@media (prefers-color-scheme: dark) {{\n"
    "  :root { --page: #16181b; --ink: #e6e7e9; --quiet: #9aa0a8; --rule: #32363c; --line: #6fb1ff; }\n"
    f"{_DARK}\n}}"
    """
body { margin: 0 auto; max-width: 62rem; padding: 1rem; background: var(--page); color: var(--ink);
       font: 1rem/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.6rem; }
h2 { margin: 2rem 0 .6rem; font-size: 1.1rem; }
header p, .figure p, figcaption, small, summary { color: var(--quiet); margin: 0; }
.figures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr)); }
.figure b { font-size: 1.7rem; font-variant-numeric: tabular-nums; }
.tables { display: grid; column-gap: 2rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr)); }
.curves { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); }
.images { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); }
.images.side { grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); }
.images.large { display: flex; flex-wrap: wrap; }
figure { margin: 0; }
figcaption { font-size: .85rem; }
img { display: block; width: 100%; image-rendering: pixelated; border-radius: 4px; }
.large img { width: auto; max-width: 100%; image-rendering: auto; }
svg { display: block; width: 100%; }
svg text { fill: var(--quiet); font-size: 12px; font-variant-numeric: tabular-nums; }
svg .rule { stroke: var(--rule); }
svg .baseline { stroke: var(--quiet); stroke-dasharray: 5 4; }
svg polyline { fill: none; stroke: var(--line); stroke-width: 2; stroke-linejoin: round; }
svg polygon { fill: var(--line); opacity: .18; }
svg circle { fill: var(--line); }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .15rem 1.2rem .15rem 0; text-align: left; vertical-align: top; overflow-wrap: anywhere; }
th { color: var(--quiet); font-weight: normal; white-space: nowrap; }
.wide { overflow-x: auto; }
.wide td { font-variant-numeric: tabular-nums; white-space: nowrap; }
.wide th { white-space: normal; min-width: 7rem; }
.tight th { min-width: 0; } .tight th, .tight td { padding-right: .8rem; overflow-wrap: normal; }
.key { display: inline-block; width: .8em; height: .8em; border-radius: 2px; background: var(--line); }
pre { overflow-x: auto; font-size: .8rem; }
ul { margin: 0; padding-left: 1.2rem; }
"""
)
