"""report.html: a run as one page that needs nothing but itself. Light or dark as the reader's system is."""

from __future__ import annotations

import base64
import csv
import html
import math
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tinygen.console import duration
from tinygen.models.registry import MODELS, model_class
from tinygen.report.curves import curve
from tinygen.report.files import write_text


def write(folder: Path, results: dict[str, Any]) -> None:
    """Write report.html of a run's folder, from what is in it and from its results."""
    config, environment = (_read_toml(folder / name) for name in ("config.toml", "environment.toml"))
    title = f"{config.get('model', 'a run')} on {Path(str(config.get('data', '?'))).stem}"
    captions = results.get("captions", {})
    samples = folder / "samples.png"
    pictures = [samples, *sorted(p for p in folder.glob("*.png") if p != samples)]

    def caption(path: Path) -> str:
        return captions.get(path.stem) or path.stem

    parts = [
        f"<header><h1>{_text(title)}</h1><p>{_text(folder.name)}, {_progress(results)}</p></header>",
        _section("Test", _metrics(results.get("metrics", []))),
        _section("While it trained", _curves(folder / "metrics.csv", str(config.get("model")))),
        _section("What it drew, by step", _images(sorted((folder / "samples").glob("step-*.png")), _step_of)),
        _section("At the end", _images([p for p in pictures if p.exists()], caption, "large")),
        _section("Messages", _messages(results.get("messages", []))),
        "<div class=tables>",
        _section("Cost", _table(_cost(results))),
        _section("Configuration", _table(config | config.pop("options", {}))),
        _section("Environment", _table(environment)),
        "</div>",
        _section("Log", _log(folder / "log.txt")),
    ]
    page = _PAGE.replace("{title}", _text(title)).replace("{body}", "\n".join(filter(None, parts)))
    write_text(folder / "report.html", page)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


# ------------------------------------------------------------------------------------------------------------ its parts


def _text(value: Any) -> str:
    return html.escape(str(value).encode("utf-8", "backslashreplace").decode())


def _section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>{body}</section>" if body else ""


def _table(rows: dict[str, Any]) -> str:
    lines = [f"<tr><th>{_text(name.replace('_', ' '))}</th><td>{_text(v)}</td></tr>" for name, v in rows.items()]
    return f"<table>{''.join(lines)}</table>" if lines else ""


def _progress(results: dict[str, Any]) -> str:
    if not results.keys() >= {"step", "images", "seconds"}:
        return "nothing trained yet"
    return f"{results['step']:,} steps, {results['images']:,} images, {duration(results['seconds'])}"


def _cost(results: dict[str, Any]) -> dict[str, str]:
    if not (results.keys() >= {"parameters", "flops", "seconds"} and results.get("images")):
        return {}
    return {
        "parameters": f"{results['parameters']:,}",
        "operations": f"{results['flops'] / 1e6:,.1f} MFLOP a training image",
        "time": f"{results['seconds'] / results['images'] * 1e3:.3g} ms a training image, snapshots included",
    }


def _metrics(metrics: list[dict[str, Any]]) -> str:
    """A line for each metric: its value, and what trivial models reach."""
    lines = []
    for m in metrics:
        digits = 3 if abs(m["value"]) < 10 else 2
        error = "" if m["error"] is None else f" <small>± {m['error']:.{digits}f}</small>"
        baselines = ", ".join(f"{_text(name)} {value:.{digits}f}" for name, value in m["baselines"].items())
        lines.append(f"<div class=figure><b>{m['value']:.{digits}f}</b>{error} {_text(m['unit'])}"
                     f"<p>{_text(m['name'])}{f'; {baselines}' if baselines else ''}</p></div>")  # fmt: skip
    return f"<div class=figures>{''.join(lines)}</div>" if lines else ""


def _messages(messages: list[dict[str, Any]]) -> str:
    lines = [f"<li>step {m['step']:,}: {_text(m['text'])}</li>" for m in messages]
    return f"<ul>{''.join(lines)}</ul>" if lines else ""


def _log(path: Path) -> str:
    if not path.exists():
        return ""
    text = path.read_text(encoding="utf-8", errors="replace")
    return f"<details><summary>what was said</summary><pre>{_text(text)}</pre></details>"


def _step_of(path: Path) -> str:
    number = path.stem.rpartition("-")[2]
    return f"{int(number):,}" if number.isdigit() else number


def _images(paths: list[Path], caption: Callable[[Path], str], kind: str = "") -> str:
    parts = []
    for path in paths:
        data, name = base64.b64encode(path.read_bytes()).decode(), _text(caption(path))
        image = f'<img alt="{name}" src="data:image/png;base64,{data}">'
        parts.append(f"<figure>{image}<figcaption>{name}</figcaption></figure>")
    return f'<div class="images {kind}">{"".join(parts)}</div>' if parts else ""


def _curves(path: Path, model: str) -> str:
    """A drawing for each column of metrics.csv of a model of this name."""
    if not path.exists():
        return ""
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = list(csv.reader(file))
    unit = model_class(model).family.validation_unit if model in MODELS else ""
    names, lines = (rows[0], rows[1:]) if rows else ([], [])
    lines = [line for line in lines if len(line) == len(names)]
    drawings = []
    for i, name in list(enumerate(names))[1:]:
        points = np.array([(_number(line[0]), _number(line[i])) for line in lines]).reshape(-1, 2)
        points = points[np.isfinite(points).all(axis=1)]
        if len(points) > 1:
            label = _text(name.replace("_", " ") + (f" ({unit})" if name == "validation" and unit else ""))
            drawing = curve(points[:, 0], points[:, 1], label)
            drawings.append(f"<figure><figcaption>{label}</figcaption>{drawing}</figure>")
    return f"<div class=curves>{''.join(drawings)}</div>" if drawings else ""


def _number(text: str) -> float:
    """What a field of metrics.csv says; nan if it is empty, or no number."""
    try:
        return float(text)
    except ValueError:
        return math.nan


_PAGE = """<!doctype html>
<html lang=en>
<meta charset=utf-8>
<meta name=viewport content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root { color-scheme: light dark; --page: #fff; --ink: #1c1e21; --quiet: #62676e; --rule: #dfe2e6; --line: #1769c5; }
@media (prefers-color-scheme: dark) {
  :root { --page: #16181b; --ink: #e6e7e9; --quiet: #9aa0a8; --rule: #32363c; --line: #6fb1ff; }
}
body { margin: 0 auto; max-width: 62rem; padding: 1rem; background: var(--page); color: var(--ink);
       font: 1rem/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.6rem; }
h2 { margin: 2rem 0 .6rem; font-size: 1.1rem; }
header p, .figure p, figcaption, small, summary { color: var(--quiet); margin: 0; }
.figures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr)); }
.figure b { font-size: 1.7rem; font-variant-numeric: tabular-nums; }
.tables { display: grid; column-gap: 2rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr)); }
.curves { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); }
.images { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); }
.images.large { grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
figure { margin: 0; }
figcaption { font-size: .85rem; }
img { display: block; width: 100%; image-rendering: pixelated; border-radius: 4px; }
svg { display: block; width: 100%; }
svg text { fill: var(--quiet); font-size: 12px; font-variant-numeric: tabular-nums; }
svg .rule { stroke: var(--rule); }
svg polyline { fill: none; stroke: var(--line); stroke-width: 2; stroke-linejoin: round; }
svg polygon { fill: var(--line); opacity: .18; }
svg circle { fill: var(--line); }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .15rem 1.2rem .15rem 0; text-align: left; vertical-align: top; overflow-wrap: anywhere; }
th { color: var(--quiet); font-weight: normal; white-space: nowrap; }
pre { overflow-x: auto; font-size: .8rem; }
ul { margin: 0; padding-left: 1.2rem; }
</style>
<body>
{body}
</body>
</html>
"""
