"""Files that are written whole or not at all."""

from __future__ import annotations

import secrets
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a file aside and rename it: readers find the old one or the new one, whole."""
    aside = path.with_name(f".tinygen-{secrets.token_hex(8)}.tmp")
    try:
        aside.write_text(text, encoding="utf-8", errors="backslashreplace")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
