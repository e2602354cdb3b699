"""The rows of a page: ops within scopes, and what is repeated folded into one row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinygen.learn.record import Event, Recording, Scope

LONGEST = 12  # rows that are looked at as one repetition


@dataclass
class Row:
    """A row: an op (of an event), a scope with rows within, or a repetition with one row for each time."""

    kind: str  # "op", "scope" or "repeat"
    event: int = -1
    scope: int = -1
    rows: list[Row] = field(default_factory=list)
    exact: Any = None  # equal for rows that do the same with arrays of the same shapes

    def events(self) -> Iterator[int]:
        """The numbers of all its ops' events."""
        if self.kind == "op":
            yield self.event
        for row in self.rows:
            yield from row.events()


def rows(tape: Recording) -> list[Row]:
    """The forward events of a recording in order, as rows within rows."""
    forward = [(i, e) for i, e in enumerate(tape.events) if e.phase == "forward"]
    paths = [_path(tape.scopes, e.scope) for _, e in forward]
    return _fold(_nested(tape, [i for i, _ in forward], paths, 0))


def _path(scopes: Sequence[Scope], scope: int) -> list[int]:
    """The numbers of the scopes around one, from the outermost to itself."""
    path = []
    while scope >= 0:
        path.append(scope)
        scope = scopes[scope].parent
    return path[::-1]


def _nested(tape: Recording, events: list[int], paths: list[list[int]], depth: int) -> list[Row]:
    found: list[Row] = []
    i = 0
    while i < len(events):
        if len(paths[i]) <= depth:
            found.append(Row("op", event=events[i], exact=_signature(tape.events[events[i]])))
            i += 1
            continue
        j = i
        while j < len(events) and paths[j][depth : depth + 1] == paths[i][depth : depth + 1]:
            j += 1
        within = _fold(_nested(tape, events[i:j], paths[i:j], depth + 1))
        found.append(_scope(tape, paths[i][depth], within))
        i = j
    return found


def _scope(tape: Recording, scope: int, within: list[Row]) -> Row:
    """A row of a scope. One that holds a single scope stands for both, under the outer name; a single op is it."""
    own = tape.scopes[scope]
    kind = own.about.partition(",")[0] if own.kind == "module" else own.name
    if len(within) == 1 and within[0].kind == "op":
        return Row("op", within[0].event, scope, exact=within[0].exact)
    if len(within) == 1 and within[0].kind == "scope":
        within = within[0].rows
    return Row("scope", scope=scope, rows=within, exact=(kind, *(row.exact for row in within)))


def _signature(event: Event) -> Any:
    return event.op, tuple(event.attributes.items()), tuple(s.shape for s in event.out)


def _fold(rows: list[Row]) -> list[Row]:
    """The rows, with neighbors that do the same put into one repetition: the longest one first."""
    found: list[Row] = []
    i = 0
    while i < len(rows):
        period, times = _repetition(rows, i)
        if times > 1:
            each = [_one(rows[i + k * period : i + (k + 1) * period]) for k in range(times)]
            found.append(Row("repeat", rows=each, exact=(times, each[0].exact)))
        else:
            found.append(rows[i])
        i += period * times
    return found


def _one(rows: list[Row]) -> Row:
    return rows[0] if len(rows) == 1 else Row("group", rows=rows, exact=tuple(row.exact for row in rows))


def _repetition(rows: list[Row], i: int) -> tuple[int, int]:
    """The period and the number of times that cover most rows from i on; (1, 1) for none."""
    best = 1, 1
    for period in range(1, min(LONGEST, (len(rows) - i) // 2) + 1):
        times = 1
        while _alike(rows, i, i + times * period, period):
            times += 1
        if times > 1 and period * times > best[0] * best[1]:
            best = period, times
    return best


def _alike(rows: list[Row], first: int, other: int, period: int) -> bool:
    return other + period <= len(rows) and all(rows[first + k].exact == rows[other + k].exact for k in range(period))
