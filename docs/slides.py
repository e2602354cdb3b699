"""python docs/slides.py: writes docs/slides.md, the lecture slide by slide, from slides.toml."""

from __future__ import annotations

import importlib
import inspect
import tomllib
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
ROOT = DOCS.parent

HEAD = """# The lecture, slide by slide

What {lecture} says, the command that shows
it, where it is computed, the test that proves it, and the page with its figures. `python docs/slides.py` makes this
page of slides.toml; a test holds each command, name, test and picture against the code.

| slides | what they say | see it | where it is computed | proved by | figures |
| --- | --- | --- | --- | --- | --- |
"""


def rows() -> list[dict[str, Any]]:
    """The table's rows in the order of the slides."""
    return sorted(tomllib.loads((DOCS / "slides.toml").read_text())["rows"], key=lambda row: row["slides"])


def page() -> str:
    """The page."""
    lecture = tomllib.loads((DOCS / "slides.toml").read_text())["lecture"]
    shown = [row for row in rows() if "command" in row]
    lines = [HEAD.format(lecture=lecture), *(_line(row) for row in shown)]
    left = [f"{_numbers(row)}: {row['because']}" for row in rows() if "because" in row]
    return "".join(lines) + f"\nNot in the table: {'; '.join(left)}.\n" + "".join(_picture(row) for row in shown)


def _numbers(row: dict[str, Any]) -> str:
    first, last = row["slides"]
    return str(first) if first == last else f"{first} to {last}"


def _line(row: dict[str, Any]) -> str:
    path, _, name = row["proof"].partition("::")
    test = f"[{name.removeprefix('test_').replace('_', ' ')}](../{path})"
    file = inspect.getsourcefile(importlib.import_module(row["source"].partition(":")[0]))
    source = f"[{row['source'].partition(':')[2] or Path(str(file)).stem}](../{Path(str(file)).relative_to(ROOT)})"
    page = f"[{row['page'].partition('.')[0]}]({row['page']})"
    return f"| {_numbers(row)} | {row['says']} | `{row['command']}` | {source} | {test} | {page} |\n"


def _picture(row: dict[str, Any]) -> str:
    return f"\n![Slides {_numbers(row)}: {row['says']}]({row['picture']})\n" if "picture" in row else ""


if __name__ == "__main__":
    (DOCS / "slides.md").write_text(page())
