"""compare.html: runs beside each other on one page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinygen.console import duration
from tinygen.markup import text
from tinygen.report.curves import Curve, curves
from tinygen.report.files import write_text
from tinygen.report.parts import cost, digits, image, images, page, read_columns, read_toml, section, units
from tinygen.report.style import COLORS


class Entry(NamedTuple):
    """A run that is compared: its name on the page, its configuration, its results, its numbers by step."""

    name: str
    kind: str  # the CSS class of its color
    folder: Path
    config: dict[str, Any]
    results: dict[str, Any]
    columns: dict[str, np.ndarray]


def write(path: Path, runs: Sequence[tuple[Path, dict[str, Any]]]) -> None:
    """Write a page about runs, each a folder and its results.

    Raises ValueError for fewer than two, for one that is named twice, and for a metrics.csv that isn't a run's.
    """
    if len(runs) < 2:
        raise ValueError(f"runs to compare must be two or more, got {len(runs)}")
    folders = [folder.resolve() for folder, _ in runs]
    if twice := [runs[i][0] for i, folder in enumerate(folders) if folder in folders[:i]]:
        raise ValueError(f"runs to compare must differ, got {twice[0]} twice")
    names = [folder.name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder, _ in runs]
    entries = [
        Entry(name, f"run{i % len(COLORS)}", folder, read_toml(folder / "config.toml"), results, _columns(folder))
        for i, (name, (folder, results)) in enumerate(zip(names, runs, strict=True))
    ]
    reason = _why_not(entries)
    samples = [image(e.folder / "samples.png", e.name) for e in entries if (e.folder / "samples.png").exists()]
    title = f"{len(entries)} runs compared"
    body = [
        f"<header><h1>{title}</h1>{_runs(entries)}<p>{text(reason)}</p></header>",
        section("Test", _metrics(entries, best=not reason)),
        section("While they trained", _drawings(entries)),
        section("Samples", images(samples, "side")),
        section("Cost", _cost(entries)),
    ]
    write_text(path, page(title, body))


def _columns(folder: Path) -> dict[str, np.ndarray]:
    path = folder / "metrics.csv"
    columns = read_columns(path)
    if path.exists() and path.stat().st_size and not columns:
        raise ValueError(f"{path}: not the numbers of a run: it must be lines of a step and its numbers")
    return columns


def _about(entry: Entry) -> str:
    levels = entry.config.get("levels")
    return f"{Path(str(entry.config.get('data', '?'))).stem}{f', {levels} levels' if levels else ''}"


def _why_not(entries: list[Entry]) -> str:
    """Why the runs' metrics can't be compared, or nothing."""
    data = [(e.config.get("data"), e.config.get("levels")) for e in entries]
    if all(one == data[0] for one in data):
        return ""
    found = "; ".join(dict.fromkeys(map(_about, entries)))
    return f"The runs are of different data ({found}): their metrics and losses can't be compared."


def _key(entry: Entry) -> str:
    return f'<span class="key {entry.kind}"></span> {text(entry.name)}'


def _runs(entries: list[Entry]) -> str:
    lines = []
    for e in entries:
        options = ", ".join(f"{name} {value}" for name, value in e.config.get("options", {}).items())
        about = f"{e.config.get('model', '?')} on {_about(e)}{f' ({options})' if options else ''}"
        lines.append(f"<div>{_key(e)} <small>{text(about)}</small></div>")
    return "".join(lines)


def _grid(entries: list[Entry], rows: list[tuple[str, list[str]]]) -> str:
    """A table: a row is a name and what each run has, as HTML."""
    if not rows:
        return ""
    head = "".join(f"<th>{_key(e)}</th>" for e in entries)
    lines = [f"<tr><th>{text(name)}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>" for name, cells in rows]
    return f"<div class=wide><table><tr><th></th>{head}</tr>{''.join(lines)}</table></div>"


def _metrics(entries: list[Entry], best: bool) -> str:
    """A row for each metric. best: whether its best value is bold, if one is better than another."""
    values = [{(m["name"], m["unit"]): m for m in e.results.get("metrics", [])} for e in entries]
    rows = []
    for name, unit in dict.fromkeys(key for own in values for key in own):
        measured = [own.get((name, unit)) for own in values]
        found = [m["value"] for m in measured if m and math.isfinite(m["value"])]
        lower = next((m.get("lower_is_better") for m in measured if m), None)
        known = best and isinstance(lower, bool) and len(found) > 1
        first = (min(found) if lower else max(found)) if known else None
        rows.append((f"{name}, {unit}" if unit else name, [_cell(m, first) for m in measured]))
    return _grid(entries, rows)


def _cell(metric: dict[str, Any] | None, best: float | None) -> str:
    if metric is None:
        return "-"
    n = digits(metric["value"])
    shown = f"<b>{metric['value']:.{n}f}</b>" if metric["value"] == best else f"{metric['value']:.{n}f}"
    return shown + ("" if metric["error"] is None else f" <small>± {metric['error']:.{n}f}</small>")


def _drawings(entries: list[Entry]) -> str:
    """A drawing for each column that metrics.csv of any run has, all runs over each other."""
    found: dict[tuple[str, str], list[Curve]] = {}
    for e in entries:
        unit_of = units(str(e.config.get("model")))
        for name, points in e.columns.items():
            if len(points) > 1:
                found.setdefault((name, unit_of.get(name, "")), []).append(Curve(points[:, 0], points[:, 1], e.kind))
    parts = []
    for (name, unit), drawn in found.items():
        label = name.replace("_", " ")
        parts.append(f"<figure><figcaption>{text(label)}</figcaption>{curves(drawn, label, unit)}</figure>")
    return f"<div class=curves>{''.join(parts)}</div>" if parts else ""


def _cost(entries: list[Entry]) -> str:
    costs = []
    for e in entries:
        own = cost(e.results)
        if own:
            own |= {"training images": f"{e.results['images']:,}", "training time": duration(e.results["seconds"])}
        costs.append(own)
    names = dict.fromkeys(name for own in costs for name in own)
    return _grid(entries, [(name, [text(own.get(name, "-")) for own in costs]) for name in names])
