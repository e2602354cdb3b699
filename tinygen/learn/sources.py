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
_RAN = "as it ran", "tile.inc", "sum[m][v] += x * wide[v];"
PRODUCTS = {  # where sums of products come about: in words, the file, and the line
    "tg_conv2d": (("as its formula says it", "plain.h", "*y += x["), _RAN),
    "tg_conv_transpose2d": (_RAN,),
    "tg_conv2d_weight": (("as it ran", "tile.inc", "sum[m][v] += s * wide[v];"),),
}


class Excerpt(NamedTuple):
    """Some lines of a file."""

    title: str
    file: str
    first: int  # number of the first line
    text: str
    line: int = 0  # number of the one that multiplies and adds, if that is told


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
    """A kernel's declaration with the comment above it, its C and CUDA functions, and its loop; empty without csrc/."""
    header = CSRC / "tinygen.h"
    if not header.exists():
        return ()
    found = [_declaration(header, name)]
    for suffix, title in ((".c", "in C"), (".cu", "in CUDA")):
        found += [_definition(path, name, title) for path in sorted(CSRC.glob(f"*{suffix}"))]
    found += _loops(name)
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


def _loops(name: str) -> list[Excerpt]:
    """The functions in which a kernel's numbers come about; of sums of products also the line that adds them up."""
    item = f"{name.removeprefix('tg_')}_item"
    wanted = PRODUCTS.get(name, [("its loop", path.name, item) for path in sorted(CSRC.glob("*.inc"))])
    found = []
    for words, file, text in wanted:
        lines = (CSRC / file).read_text().splitlines()
        at = next((i for i, line in enumerate(lines) if re.search(rf"(?<!\w){re.escape(text)}", line)), None)
        if at is not None:
            first = next(i for i in range(at, -1, -1) if re.match(r"\w", lines[i]))
            whole = not lines[at].startswith("EACH(")  # a macro that makes the loop of one line
            last = next(i for i in range(at, len(lines)) if lines[i] == "}") if whole else at
            excerpt, line = "\n".join(lines[first : last + 1][:LONGEST]), at + 1 if name in PRODUCTS else 0
            found.append(Excerpt(f"{name}, {words}", short(str(CSRC / file)), first + 1, excerpt, line))
    return found


@functools.cache
def adds(kernel: str) -> str:
    """The line at which a kernel multiplies and adds: "csrc/tile.inc:46"; empty for one without sums of products."""
    return next((f"{x.file}:{x.line}" for x in reversed(of_kernel(kernel)) if x.line), "")


def _starts(lines: list[str], name: str) -> Iterator[int]:
    for i, text in enumerate(lines):
        if re.match(rf"\w[\w *\"]*\b{name}\(", text):
            head = " ".join(lines[i : i + 12])
            if re.match(rf"\w[\w *\"]*\b{name}\([^;{{}}]*\)\s*\{{", head):
                yield i
