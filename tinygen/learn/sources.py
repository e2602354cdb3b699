"""The lines behind an op: its definition, its gradient rules, its kernel, the C and CUDA functions that it calls."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tinygen.tape import Op

CSRC = Path(__file__).parents[2] / "csrc"  # in a clone of the repository; an installed wheel has none
LONGEST = 60  # lines of an excerpt


class Excerpt(NamedTuple):
    """Some lines of a file."""

    title: str
    file: str
    first: int  # number of the first line
    text: str


def of_op(op: Op) -> list[Excerpt]:
    """Its definition, its rules, and the function that calls its kernel if it has one."""
    found = [_of_function("definition", op.body)]
    found += [_of_function(f"gradient by {', '.join(targets)}", rule) for targets, rule in op.rules]
    if op.run is not op.body:
        found.append(_of_function("kernel's call", inspect.unwrap(op.run)))
    return [excerpt for excerpt in found if excerpt]


@functools.cache
def of_code(code: Any) -> Excerpt | None:
    """Of a function by its code object."""
    return _of_function("", code)


def _of_function(title: str, function: Callable[..., Any] | Any) -> Excerpt | None:
    try:
        lines, first = inspect.getsourcelines(function)
    except (OSError, TypeError):  # typed at a prompt, or generated
        return None
    code: Any = getattr(function, "__code__", function)
    return Excerpt(title, short(code.co_filename), first, "".join(lines[:LONGEST]).rstrip())


def short(path: str) -> str:
    """A file's path from the repository's root, or as it is."""
    root = str(CSRC.parent)
    return path.removeprefix(f"{root}/")


@functools.cache
def of_kernel(name: str) -> tuple[Excerpt, ...]:
    """A kernel's declaration with the comment above it, and its C and CUDA functions; empty without csrc/."""
    header = CSRC / "tinygen.h"
    if not header.exists():
        return ()
    found = [_declaration(header, name)]
    for suffix, title in ((".c", "in C"), (".cu", "in CUDA")):
        found += [_definition(path, name, title) for path in sorted(CSRC.glob(f"*{suffix}"))]
    return tuple(excerpt for excerpt in found if excerpt)


def _declaration(header: Path, name: str) -> Excerpt | None:
    lines = header.read_text().splitlines()
    at = next((i for i, text in enumerate(lines) if re.search(rf"\b{name}\(", text)), None)
    if at is None:
        return None
    first = at
    while first and lines[first - 1].strip() and not lines[first - 1].rstrip().endswith(";"):
        first -= 1
    last = next(i for i in range(at, len(lines)) if lines[i].rstrip().endswith(";"))
    return Excerpt(f"{name}, declared", short(str(header)), first + 1, "\n".join(lines[first : last + 1]))


def _definition(path: Path, name: str, title: str) -> Excerpt | None:
    """The function at column 0 whose body follows, up to its closing brace at column 0."""
    lines = path.read_text().splitlines()
    for at in _starts(lines, name):
        last = next((i for i in range(at, len(lines)) if lines[i] == "}"), at)
        return Excerpt(f"{name}, {title}", short(str(path)), at + 1, "\n".join(lines[at : min(last + 1, at + LONGEST)]))
    return None


def _starts(lines: list[str], name: str) -> Iterator[int]:
    for i, text in enumerate(lines):
        if re.match(rf"\w[\w *\"]*\b{name}\(", text):
            head = " ".join(lines[i : i + 12])
            if re.match(rf"\w[\w *\"]*\b{name}\([^;{{}}]*\)\s*\{{", head):
                yield i
