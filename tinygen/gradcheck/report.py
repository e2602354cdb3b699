"""The outcome of a check, as text of at most a dozen lines and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

LINES = 12  # the longest report
SHOWN = 8  # so many gradients are named one by one
WIDTH = 110


@dataclass
class Problem:
    """One thing that is wrong with the gradients of one or several arguments, and why."""

    cause: str  # a name from the table in tinygen.gradcheck.causes, or "unexplained"
    argument: str  # "dw", or "dx, dw" where one cause explains several
    hint: str  # what happened and what to change, one line
    index: tuple[int, ...] | None = None  # the worst element
    factor: float | None = None  # yours / right, where that is one number
    evidence: dict[str, Any] = field(default_factory=dict)  # yours, right, bound, wrong (how many of how many) ...
    where: str = ""  # "layers.py:214: dw[f] += ..." where the source is known


@dataclass
class GradcheckReport:
    """The outcome of a check. True if the gradients are right.

    Attributes:
        verdict: "right", "wrong", "not written" (a stub: `pass`, NotImplementedError, `dx = None`), or "not run" (it
            could not be called, or has nothing that can be compared; the problems say why).
        problems: what is wrong, the best explained first. Empty if right.
        notes: what doesn't make a gradient wrong but is worth knowing (kinks, shared memory, printing).
        right: the gradients that are right.
        compared: for each gradient how many of its elements were compared with finite differences, and of how many.
        zero: all right gradients are zero here, so that little is shown.
        shapes: of the arguments, in words.
        when: "only with stride > 1": what sets the failing cases apart from the passing ones.
    """

    name: str
    verdict: str = "right"
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    right: list[str] = field(default_factory=list)
    compared: dict[str, tuple[int, int]] = field(default_factory=dict)
    zero: bool = False
    shapes: str = ""
    when: str = ""
    seconds: float = 0.0

    def __bool__(self) -> bool:
        return self.verdict == "right"

    @property
    def cause(self) -> str:
        """The first problem's cause; empty if the gradients are right."""
        return self.problems[0].cause if self.problems else ""

    def json(self) -> str:
        """The same facts as one JSON object."""
        return json.dumps(asdict(self), default=_plain)

    def raise_if_wrong(self) -> GradcheckReport:
        """Raise GradcheckError unless the gradients are right."""
        __tracebackhide__ = True  # pytest shows the test's line
        if not self:
            raise GradcheckError(self)
        return self

    def _counts(self) -> str:
        """`90 of 90 elements of dw, 5 of 5 of db`: what was compared, of the gradients that are right."""
        known = {name: self.compared[name] for name in self.right if name in self.compared}
        if len(known) > SHOWN:
            seen, total = map(sum, zip(*known.values(), strict=True))
            return f"{seen:,} of {total:,} elements of {len(known)} gradients"
        words = [f"{seen:,} of {total:,} of {name}" for name, (seen, total) in known.items()]
        return ", ".join(words).replace(" of ", " elements of ", 2).replace(" elements of ", " of ", 1)

    def __str__(self) -> str:
        counts = self._counts() if self else ""
        lines = [f"{self.name}: {self.verdict}{counts and ': '}{counts}" + (f"   {self.shapes}" if self.shapes else "")]
        body: list[str] = []
        for problem in self.problems[:3]:
            body += _lines_of(problem, detailed=problem is self.problems[0])
        if self.when and self.problems:
            body.append(f"  when   {self.when}")
        if self.right and self.problems:
            body.append(f"  right  {self._counts()}")
        body += [f"  note   {note}" for note in self.notes]
        return "\n".join(_clip(line) for line in [*lines, *body][:LINES])


def _lines_of(problem: Problem, detailed: bool) -> list[str]:
    lines = [f"  {problem.argument}: {problem.cause}: {problem.hint}"]
    if problem.where:
        lines.append(f"  line   {problem.where}")
    e = problem.evidence
    if detailed and "yours" in e and problem.index is not None:
        place = f"[{', '.join(map(str, problem.index))}]" if problem.index else ""
        first = problem.argument.split(",")[0]
        lines.append(f"  worst  {first}{place} is {e['yours']:.6g}, should be {e['right']:.6g} (+- {e['bound']:.0e})")
        lines.append(f"  wrong  {e['wrong']} of {e['of']} elements of {first}{e.get('slice', '')}")
    if detailed and "smallest" in e:
        lines.append(f"  fails  already with {e['smallest']}")
    return lines


def _clip(line: str) -> str:
    line = " ".join(line.splitlines())
    return line if len(line) <= 2 * WIDTH else line[: 2 * WIDTH - 3] + "..."


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


class GradcheckError(AssertionError):
    """A gradient is wrong, or was not checked. Its text is the report; `report` holds the facts."""

    def __init__(self, report: GradcheckReport) -> None:
        super().__init__(str(report))
        self.report = report
