"""report.html: a run as one page that needs nothing but itself. Light or dark as the reader's system is."""

from __future__ import annotations

import base64
import contextlib
import csv
import html
import math
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tinygen.models.registry import MODELS, model_class
from tinygen.training.callbacks import Callback
from tinygen.training.cost import Cost
from tinygen.training.progress import Progress, duration
from tinygen.training.run import Run, write_text
from tinygen.training.trainer import Trainer

ASKED = 100  # steps between two questions for the model's health
POINTS, FEW = 150, 30  # at most so many points make a curve; fewer than so many are marked
WIDTH, HEIGHT, LEFT, BELOW, ABOVE = 420, 220, 52, 24, 10  # of a curve, in its own units


class Report(Callback):
    """Keeps results.json and the page while a run is trained: at its moments and when it stops.

    Other than metrics.csv, results.json holds what differs from machine to machine: seconds, and messages to people.
    """

    def __init__(self, training: Trainer, run: Run, cost: Cost, progress: Progress) -> None:
        self.training, self.run, self.progress = training, run, progress
        before = run.read_results()
        messages = [m for m in before.get("messages", []) if m["step"] <= training.step]
        self.results = before | {"parameters": cost.parameters, "flops": cost.flops / cost.images, "messages": messages}
        self.seconds, self.moment = before.get("seconds", 0.0), training.moment
        self.wrong: set[str] = set()
        self.start = time.monotonic()

    def say(self, text: str) -> None:
        """Tell people something about the training."""
        self.results["messages"].append({"step": self.training.step, "text": text})
        self.progress.clear()
        self.run.say(f"step {self.training.step:,}: {text}")

    def ask(self) -> None:
        """Say what is wrong now and wasn't when it was last asked for. It is known by what stands before the colon."""
        found = {text.partition(":")[0]: text for text in self.training.model.health(self.progress.parts)}
        for name in found.keys() - self.wrong:
            self.say(found[name])
        self.wrong = set(found)

    def write(self) -> None:
        """Write both files."""
        seconds = self.seconds + time.monotonic() - self.start
        self.results |= {"step": self.training.step, "images": self.training.images, "seconds": round(seconds, 3)}
        self.run.write_results(self.results)
        write(self.run)

    def __enter__(self) -> Any:
        self.start = time.monotonic()
        self.training.say = self.say
        return self

    def step(self, row: dict[str, Any]) -> None:
        if self.training.step % ASKED == 0 and self.progress.steps >= ASKED:
            self.ask()
        if self.moment != self.training.moment:
            self.moment = self.training.moment
            self.write()

    def __exit__(self, *error: Any) -> None:
        with contextlib.suppress(*([] if error[0] is None else [OSError])):  # which would hide the error
            self.write()


def write(run: Run) -> None:
    """The page, from what is in the run folder."""
    results = run.read_results()
    config, environment = (_read_toml(run.folder / name) for name in ("config.toml", "environment.toml"))
    title = f"{config.get('model', 'a run')} on {Path(str(config.get('data', '?'))).stem}"
    captions = results.get("captions", {})
    pictures = [run.samples, *sorted(p for p in run.folder.glob("*.png") if p != run.samples)]

    def caption(path: Path) -> str:
        return captions.get(path.stem) or path.stem

    parts = [
        f"<header><h1>{_text(title)}</h1><p>{_text(run.folder.name)}, {_progress(results)}</p></header>",
        _section("Test", _figures(results.get("figures", []))),
        _section("While it trained", _curves(run, str(config.get("model")))),
        _section("What it drew, by step", _images(sorted(run.snapshots.glob("step-*.png")), _step_of)),
        _section("At the end", _images([p for p in pictures if p.exists()], caption, "large")),
        _section("Messages", _messages(results.get("messages", []))),
        "<div class=tables>",
        _section("Cost", _table(_cost(results))),
        _section("Configuration", _table(config | config.pop("options", {}))),
        _section("Environment", _table(environment)),
        "</div>",
        _section("Log", _log(run)),
    ]
    page = _PAGE.replace("{title}", _text(title)).replace("{body}", "\n".join(filter(None, parts)))
    write_text(run.report, page)


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


def _figures(figures: list[dict[str, Any]]) -> str:
    """A line for each figure: its value, and what to compare it with."""
    lines = []
    for f in figures:
        digits = 3 if abs(f["value"]) < 10 else 2
        error = "" if f["error"] is None else f" <small>± {f['error']:.{digits}f}</small>"
        beside = ", ".join(f"{_text(name)} {value:.{digits}f}" for name, value in f["beside"].items())
        lines.append(f"<div class=figure><b>{f['value']:.{digits}f}</b>{error} {_text(f['unit'])}"
                     f"<p>{_text(f['name'])}{f'; {beside}' if beside else ''}</p></div>")  # fmt: skip
    return f"<div class=figures>{''.join(lines)}</div>" if lines else ""


def _messages(messages: list[dict[str, Any]]) -> str:
    lines = [f"<li>step {m['step']:,}: {_text(m['text'])}</li>" for m in messages]
    return f"<ul>{''.join(lines)}</ul>" if lines else ""


def _log(run: Run) -> str:
    if not run.log.exists():
        return ""
    text = run.log.read_text(encoding="utf-8", errors="replace")
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


# --------------------------------------------------------------------------------------------------------------- curves


def _curves(run: Run, model: str) -> str:
    """A drawing for each column of metrics.csv of a model of this name."""
    if not run.metrics.exists():
        return ""
    with run.metrics.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = list(csv.reader(file))
    unit = model_class(model).validation_unit if model in MODELS else ""
    names, lines = (rows[0], rows[1:]) if rows else ([], [])
    lines = [line for line in lines if len(line) == len(names)]
    drawings = []
    for i, name in list(enumerate(names))[1:]:
        points = np.array([(_number(line[0]), _number(line[i])) for line in lines]).reshape(-1, 2)
        points = points[np.isfinite(points).all(axis=1)]
        if len(points) > 1:
            label = _text(name.replace("_", " ") + (f" ({unit})" if name == "validation" and unit else ""))
            drawing = _curve(points[:, 0], points[:, 1], label)
            drawings.append(f"<figure><figcaption>{label}</figcaption>{drawing}</figure>")
    return f"<div class=curves>{''.join(drawings)}</div>" if drawings else ""


def _number(text: str) -> float:
    """What a field of metrics.csv says; nan if it is empty, or no number."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _curve(steps: np.ndarray, values: np.ndarray, label: str) -> str:
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
