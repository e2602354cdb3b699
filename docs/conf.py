"""Sphinx: `sphinx-build -W -n docs build/docs` makes a site of these pages and the docstrings; it opens from disk.

The blocks of Python in a page run when it is built, one after the other, and what they print stands below them.
"""

from __future__ import annotations

from typing import Any

project = "tinygen"
extensions = ["myst_nb", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = "tinygen"
html_static_path = html_css_files = ["site.css"]
highlight_language = "none"
exclude_patterns = ["course/*/exercise.py", "course/solutions", "images"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120  # seconds, of a page
nb_execution_in_temp = True
nb_merge_streams = True
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "none"  # they are in the signatures
autodoc_preserve_defaults = True


def literal(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """A docstring as it is written: formulas and tables in it are laid out by hand."""
    lines[:] = ["::", "", *(f"   {line}" for line in lines), ""] if any(lines) else []


NOTEBOOK = "---\nfile_format: mystnb\nkernelspec: {name: python3}\n---\n"  # how MyST-NB knows a page that runs


def notebook(app: Any, name: str, source: list[str]) -> None:
    """A page with blocks of Python is a notebook; only here, so that elsewhere it is plain Markdown."""
    if "```python\n" in source[0]:
        source[0] = NOTEBOOK + source[0].replace("```python\n", "```{code-cell}\n")


def setup(app: Any) -> None:
    """Sphinx calls it."""
    app.connect("source-read", notebook)
    app.connect("autodoc-process-docstring", literal)
