"""report.html: a run as one page."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from tinygen.console import duration
from tinygen.markup import text
from tinygen.report.curves import Curve, curves
from tinygen.report.files import write_text
from tinygen.report.parts import (
    cost,
    digits,
    image,
    images,
    page,
    read_columns,
    read_toml,
    section,
    table,
    units,
)  # fmt: skip


def write(folder: Path, results: dict[str, Any]) -> None:
    """Write report.html of a run's folder, from what is in it and from its results."""
    config, environment = (read_toml(folder / name) for name in ("config.toml", "environment.toml"))
    title = f"{config.get('model', 'a run')} on {Path(str(config.get('data', '?'))).stem}"
    captions, samples = results.get("captions", {}), folder / "samples.png"
    snapshots = sorted((folder / "samples").glob("step-*.png"), key=_in_order)
    pictures = [p for p in (samples, *sorted(p for p in folder.glob("*.png") if p != samples)) if p.exists()]
    drawings = _drawings(folder / "metrics.csv", str(config.get("model")), results.get("baselines", {}))
    body = [
        f"<header><h1>{text(title)}</h1><p>{text(folder.name)}, {_progress(results)}</p></header>",
        section("Test", _metrics(results.get("metrics", []))),
        section("While it trained", drawings),
        section("What it drew, by step", images(image(path, _step_of(path)) for path in snapshots)),
        section("At the end", images((image(p, p.stem, captions.get(p.stem, "")) for p in pictures), "large")),
        section("Messages", _messages(results.get("messages", []))),
        "<div class=tables>",
        section("Cost", table(cost(results))),
        section("Configuration", table(config | config.pop("options", {}))),
        section("Environment", table(environment)),
        "</div>",
        section("Log", _log(folder / "log.txt")),
    ]
    write_text(folder / "report.html", page(title, body))


def _progress(results: dict[str, Any]) -> str:
    if not results.keys() >= {"step", "images", "seconds"}:
        return "nothing trained yet"
    return f"{results['step']:,} steps, {results['images']:,} images, {duration(results['seconds'])}"


def _metrics(metrics: list[dict[str, Any]]) -> str:
    """A line for each metric: its value, and what trivial models reach."""
    lines = []
    for m in metrics:
        n = digits(m["value"])
        error = "" if m["error"] is None else f" <small>± {m['error']:.{n}f}</small>"
        baselines = ", ".join(f"{text(name)} {value:.{n}f}" for name, value in m["baselines"].items())
        lines.append(f"<div class=figure><b>{m['value']:.{n}f}</b>{error} {text(m['unit'])}"
                     f"<p>{text(m['name'])}{f'; {baselines}' if baselines else ''}</p></div>")  # fmt: skip
    return f"<div class=figures>{''.join(lines)}</div>" if lines else ""


def _messages(messages: list[dict[str, Any]]) -> str:
    lines = [f"<li>step {m['step']:,}: {text(m['text'])}</li>" for m in messages]
    return f"<ul>{''.join(lines)}</ul>" if lines else ""


def _log(path: Path) -> str:
    if not path.exists():
        return ""
    log = path.read_text(encoding="utf-8", errors="replace")
    return f"<details><summary>what was said</summary><pre tabindex=0>{text(log)}</pre></details>"


def _in_order(path: Path) -> tuple[int, str]:
    """A key for sorting: step 300,000 comes before step 1,000,000, whose name is longer."""
    return len(path.name), path.name


def _step_of(path: Path) -> str:
    number = path.stem.rpartition("-")[2]
    return f"{int(number):,}" if number.isdigit() else number


def _drawings(path: Path, model: str, baselines: dict[str, float]) -> str:
    """A drawing for each column of metrics.csv of a model of this name; the validation's beside the baselines."""
    drawings, unit_of = [], units(model)
    reached = {name: value for name, value in baselines.items() if math.isfinite(value)}
    for name, points in read_columns(path).items():
        if len(points) > 1:
            label, beside = name.replace("_", " "), reached if name == "validation" else {}
            drawing = curves([Curve(points[:, 0], points[:, 1])], label, unit_of.get(name, ""), beside)
            drawings.append(f"<figure><figcaption>{text(label)}</figcaption>{drawing}</figure>")
    return f"<div class=curves>{''.join(drawings)}</div>" if drawings else ""
