"""What all pages share: how they begin, and values as HTML and as JSON."""

from __future__ import annotations

import html
import json
from typing import Any

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"


def text(value: Any) -> str:
    """A value as text, whatever is in it."""
    return html.escape(str(value).encode("utf-8", "backslashreplace").decode())


def head(title: str, style: str) -> str:
    """How a page begins. Its policy lets it load nothing: that it needs nothing else is the browser's to see to."""
    return (
        "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n"
        '<meta name=viewport content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv=Content-Security-Policy content="{POLICY}">\n<title>{text(title)}</title>\n'
        f"<style>\n{style}</style>\n"
    )


def data(value: Any) -> str:
    """What a page's script reads, in an element of the id "data": it can't end that element, whatever is in it."""
    written = json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
    return f"<script type=application/json id=data>{written}</script>\n"
