"""Sphinx: `sphinx-build -W -n docs build/docs` makes a site of these pages and the docstrings; it opens from disk."""

from __future__ import annotations

from typing import Any

project = "tinygen"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = "tinygen"
html_static_path = html_css_files = ["site.css"]
highlight_language = "none"
exclude_patterns = ["course/*/exercise.py", "course/solutions", "images"]
myst_heading_anchors = 3
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "none"  # they are in the signatures
autodoc_preserve_defaults = True


def literal(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """A docstring as it is written: formulas and tables in it are laid out by hand."""
    lines[:] = ["::", "", *(f"   {line}" for line in lines), ""] if any(lines) else []


def setup(app: Any) -> None:
    """Sphinx calls it."""
    app.connect("autodoc-process-docstring", literal)
