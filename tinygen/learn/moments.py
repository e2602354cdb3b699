"""Recorded moments as one HTML page, to play, to stop, and to step through.

What is seen is a page's own: NAME.html has what stands around it, NAME.js draws a moment into it. The controls, in
moments.html and moments.js, are the same for all.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from tinygen.learn import details
from tinygen.markup import data, text

ROWS = 64  # of the table, about


def write(
    path: Path, name: str, title: str, content: dict[str, Any], columns: Sequence[str], rows: Sequence[Iterable[Any]],
    about: str = "",
) -> None:  # fmt: skip
    """Write a page.

    Args:
        name: of the files that show it. content: what its script reads; "moments" is a list.
        columns, rows: the numbers as a table, a row for each moment; of many, every so many are shown.
        about: a line on what was recorded.
    """
    files = resources.files("tinygen.learn")
    view, controls, player, script = (files.joinpath(f"{part}").read_text(encoding="utf-8")
        for part in (f"{name}.html", "moments.html", "moments.js", f"{name}.js"))  # fmt: skip
    head = "".join(f"<th scope=col>{text(column)}" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{text(v)}' for v in row)}" for row in rows[:: -(-len(rows) // ROWS) or 1])
    Path(path).write_text(
        f"{details.head(title)}<main class=moments><h1>{text(title)}</h1>{f'<p>{text(about)}</p>' if about else ''}"
        f"{view}{controls}<h2>The numbers</h2><table class=numbers><tr>{head}{body}</table></main>\n"
        f"{data(content)}<script>\n{player}{script}</script></html>\n",
        encoding="utf-8",
    )


def packed(array: np.ndarray) -> str:
    """An array of bytes as text."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def shares(values: np.ndarray, low: float = 0.0, high: float = 1.0) -> str:
    """Numbers, packed: 0 to 255 between two bounds."""
    return packed(np.rint(255 * np.clip((values - low) / max(high - low, 1e-12), 0, 1)).astype(np.uint8))
