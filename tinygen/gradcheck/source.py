"""Names and lines, read off the source code of a function."""

from __future__ import annotations

import inspect
import linecache
import traceback
from collections.abc import Callable
from typing import Any


def argument_names(fn: Callable[..., Any], n: int) -> list[str]:
    """The names of the first n parameters; arg0, arg1, ... where they can't be known."""
    try:
        names = [
            p.name
            for p in inspect.signature(fn).parameters.values()
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
    except (TypeError, ValueError):
        names = []
    return (names + [f"arg{i}" for i in range(len(names), n)])[:n]


def required_parameters(fn: Callable[..., Any]) -> list[str]:
    """The names of the positional parameters without a default."""
    return [
        p.name
        for p in inspect.signature(fn).parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]


def _tree(fn: Callable[..., Any]) -> tuple[Any, str, int]:
    import ast  # only needed once something is wrong
    import textwrap

    fn = inspect.unwrap(fn)
    lines, first = inspect.getsourcelines(fn)
    file = inspect.getsourcefile(fn) or "?"
    return ast.parse(textwrap.dedent("".join(lines))), file.rsplit("/", 1)[-1], first


def returned_names(fn: Callable[..., Any]) -> list[str]:
    """The plain names in the last return statement: ["dx", "dw", "db"]."""
    import ast

    try:
        tree, _, _ = _tree(fn)
    except (OSError, TypeError, SyntaxError):
        return []
    returns = [n.value for n in ast.walk(tree) if isinstance(n, ast.Return) and n.value is not None]
    if not returns:
        return []
    parts = returns[-1].elts if isinstance(returns[-1], (ast.Tuple, ast.List)) else [returns[-1]]
    return [p.id if isinstance(p, ast.Name) else "" for p in parts]


def last_assignment(fn: Callable[..., Any], name: str) -> str:
    """`file:line: text` of the last statement in fn that sets `name` or a part of it."""
    import ast

    try:
        tree, file, first = _tree(fn)
    except (OSError, TypeError, SyntaxError):
        return ""
    found = None
    for node in ast.walk(tree):
        targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
        for target in targets:
            for part in getattr(target, "elts", [target]):
                while isinstance(part, (ast.Subscript, ast.Attribute)):
                    part = part.value
                if isinstance(part, ast.Name) and part.id == name and isinstance(node, (ast.Assign, ast.AugAssign)):
                    found = node if found is None or node.lineno >= found.lineno else found
    return "" if found is None else f"{file}:{first + found.lineno - 1}: {ast.unparse(found)}"


def innermost_line(error: BaseException, fn: Callable[..., Any]) -> str:
    """`file:line: text` of the innermost frame in the file that fn comes from."""
    file = getattr(getattr(inspect.unwrap(fn), "__code__", None), "co_filename", "")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename == file:
            line = linecache.getline(file, frame.lineno or 0).strip()
            return f"{file.rsplit('/', 1)[-1]}:{frame.lineno}: {line}"
    return ""
