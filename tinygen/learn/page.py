"""A recording as one HTML page, which needs nothing else: complete as text, and with keys to step through it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from tinygen.learn import details, fold
from tinygen.learn.details import size
from tinygen.learn.fold import Row
from tinygen.learn.record import Event, Recording
from tinygen.learn.sources import Excerpt, of_code, of_kernel, of_op, short
from tinygen.markup import data, text
from tinygen.tape import REGISTRY

ROWS = 40  # at most, of the first view


class Check(NamedTuple):
    """A gradient beside finite differences."""

    leaf: str
    element: tuple[int, ...]
    gradient: float
    difference: float
    bound: float  # of the difference's error


class Field(NamedTuple):
    """How much the middle pixel of a layer's output depends on each pixel of the image, as gradients say."""

    layer: str
    values: list[list[float]]  # from 0 to 1
    middle: tuple[int, int]


class Tape(Recording):
    """A recording that can be written as a page.

    with Tape(model) as tape:
        loss(x).backward()
    tape.write("tape.html")
    """

    def write(
        self, path: Any, title: str = "A recording", about: str = "", checks: Sequence[Check] = (),
        fields: Sequence[Field] = (),
    ) -> None:  # fmt: skip
        """Write the page, one file of HTML.

        Args:
            about: a line on what was recorded. checks: gradients that finite differences confirm.
            fields: what the middle pixel sees, layer by layer.
        """
        Path(path).write_text("".join(_page(self, title, about, checks, fields)), encoding="utf-8")


def _page(tape: Recording, title: str, about: str, checks: Sequence[Check], fields: Sequence[Field]) -> Iterator[str]:
    files = resources.files("tinygen.learn")
    counts = {p: sum(e.phase == p for e in tape.events) for p in ("forward", "backward", "accumulate")}
    peak = max((e.held for e in tape.events), default=0)
    yield details.head(title)
    yield f"<header><h1>{text(title)}</h1><p>{text(about)}</p>"
    yield f"<p>{counts['forward']} ops ran forward. Backward, the same list was read upward: {counts['backward']} "
    yield f"gradient rules ran, and {counts['accumulate']} times a gradient was added to another one, or summed to its "
    yield f"shape{details.meetings(tape)}. At most {size(peak)} were saved for the rules at one time.</p></header>"
    yield "<nav id=bar hidden></nav><p id=says role=status aria-live=polite></p><main><section id=rows aria-label=Ops>"
    yield "<h2>The tape</h2>"
    rows = fold.rows(tape)
    yield _list(tape, rows, _opened(rows))
    yield "</section><aside id=panel aria-label=Details></aside></main>"
    yield _memory(tape.events, peak)
    yield details.leaves(tape.leaves.values())
    yield details.checks(checks)
    yield details.fields(fields)
    yield _sources(tape)
    yield data(_stepping(tape))
    yield f"<script>{files.joinpath('tape.js').read_text()}</script></html>\n"


def _opened(rows: list[Row]) -> set[int]:
    """The rows, by id, that are open at first: level by level, as long as no more than ROWS can be seen."""
    opened: set[int] = set()
    seen, level = len(rows), rows
    while level:
        inner = []
        for row in level:
            shown = row.rows[:1] if row.kind == "repeat" else row.rows
            if shown and seen + len(shown) <= ROWS:
                opened.add(id(row))
                seen += len(shown)
                inner += shown
        level = inner
    return opened


def _list(tape: Recording, rows: Iterable[Row], opened: set[int], prefix: str = "") -> str:
    return f"<ol>{''.join(_row(tape, row, opened, prefix) for row in rows)}</ol>"


def _row(tape: Recording, row: Row, opened: set[int], prefix: str) -> str:
    if row.kind == "op":
        name = tape.scopes[row.scope].name.removeprefix(prefix).lstrip(".") if row.scope >= 0 else ""
        event = tape.events[row.event]
        shape = ", ".join("x".join(map(str, s.shape)) or "a number" for s in event.out)
        return (
            f"<li class=op id=e{row.event}><details><summary><i>{row.event}</i> <b>{text(event.op)}</b> "
            f"<span class=name>{text(name if name != event.op else '')}</span> <span class=shape>{shape}</span>"
            f"{'<u>kernel</u>' if event.kernels else ''}</summary>{details.op(tape, row.event)}</details></li>"
        )
    within = list(row.events())
    count = f"<span class=shape>{len(within)} ops</span>"
    if row.kind == "repeat":
        first, rest = row.rows[0], row.rows[1:]
        summary = f"<b>{len(row.rows)} times</b> the same {count}"
        others = "".join(_closed(tape, r, prefix, f"{i} of {len(row.rows)}") for i, r in enumerate(rest, 2))
        inner = f"<ol>{_row(tape, first, opened, prefix)}{others}</ol>"
    elif row.kind == "group":
        summary, inner = f"one time {count}", _list(tape, row.rows, opened, prefix)
    else:
        scope = tape.scopes[row.scope]
        about = scope.about.partition(",")[0] if scope.kind == "module" else ""
        name = text(scope.name.removeprefix(prefix).lstrip("."))
        anchor = f"<a class=source href='#{_anchor(scope.code)}' aria-label='source of {name}'>source</a>"
        summary = f"<b>{name}</b> <span class=name>{text(about)}</span> {count}"
        inner = _list(tape, row.rows, opened, scope.name if scope.kind == "module" else prefix)
        inner = f"{anchor if of_code(scope.code) else ''}{inner}"
    flag = " open" if id(row) in opened else ""
    return (
        f"<li class={row.kind} data-to={within[-1]}><details{flag}><summary>{summary}</summary>{inner}</details></li>"
    )


def _closed(tape: Recording, row: Row, prefix: str, title: str) -> str:
    """A later time of a repetition, closed."""
    inner = f"<ol>{_row(tape, row, set(), prefix)}</ol>"
    return f"<li class=time data-to={list(row.events())[-1]}><details><summary>{title}</summary>{inner}</details></li>"


def _memory(events: Sequence[Event], peak: int) -> str:
    """The saved bytes over the events, as a strip."""
    if not events or not peak:
        return ""
    width = 800 / len(events)
    points = " ".join(f"{i * width:.1f},{80 - 76 * e.held / peak:.1f}" for i, e in enumerate(events))
    at = next(i for i, e in enumerate(events) if e.held == peak)
    return (
        "<section><h2>What is saved for the gradient rules</h2>"
        f"<svg id=memory viewBox='0 0 800 84' preserveAspectRatio=none role=img "
        f"aria-label='Saved bytes by event; most of them, {size(peak)}, after event {at}'>"
        f"<polyline points='0,80 {points} 800,80'/><line id=when x1=0 x2=0 y1=0 y2=84 /></svg>"
        f"<p>Most at one time: {size(peak)}, after event {at} ({text(events[at].op)}, {events[at].phase}). Each rule "
        "lets go of what it needed once it has run.</p></section>"
    )


def _sources(tape: Recording) -> str:
    """The functions within which ops ran, and definition, rules and kernels of each op that ran: each once."""
    found = []
    for code in dict.fromkeys(scope.code for scope in tape.scopes):
        if excerpt := of_code(code):
            found.append(f"<details id='{_anchor(code)}'><summary><b>{text(code.co_qualname)}</b></summary>")
            found.append(f"{_excerpt(excerpt)}</details>")
    found.append("<h2>The source of the ops</h2>")
    for name in sorted({e.op for e in tape.events}):
        op = REGISTRY[name]
        kernels = sorted({k for e in tape.events if e.op == name for k in e.kernels})
        excerpts = [*of_op(op), *(x for k in kernels for x in of_kernel(k))]
        said = f"<pre class=doc tabindex=0>{text((op.body.__doc__ or '').strip())}</pre>"
        lines = said + "".join(_excerpt(x) for x in excerpts)
        found.append(f"<details id='op-{name}'><summary><b>{name}</b></summary>{lines}</details>")
    return f"<section id=sources><h2>The source of the model</h2>{''.join(found)}</section>"


def _anchor(code: Any) -> str:
    """Where a function's source stands in the page."""
    return text(f"fn-{short(code.co_filename)}:{code.co_firstlineno}").replace(" ", "_")


def _excerpt(excerpt: Excerpt) -> str:
    where = f"{text(excerpt.file)}:{excerpt.first}"
    where += f"; line {excerpt.line} multiplies and adds" if excerpt.line else ""
    return f"<h4>{text(excerpt.title)} <span class=name>{where}</span></h4><pre tabindex=0>{text(excerpt.text)}</pre>"


def _stepping(tape: Recording) -> dict[str, Any]:
    """What stepping needs: for each event its phase, its row, the sentence that is said, and the saved bytes."""
    events = [
        [e.phase[0], details.row_of(tape, i), details.sentence(tape, i), e.held] for i, e in enumerate(tape.events)
    ]
    peak = max((e.held for e in tape.events), default=0)
    return {"events": events, "peak": peak}
