"""What every model can be asked, as a table made of what the classes say: `tinygen models` (lecture slides 99 and 139).

p(x): `Model.evidence`. samples: in how many passes of the network, `Model.passes`. The rest: whether the class has what
a protocol of `tinygen.models.model` asks for.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, NamedTuple

from tinygen.models.model import OFFERED, QUESTIONS, HasFeatures, Samples, Translates, refusal
from tinygen.models.registry import MODELS, model_class

NO = "-"
COLUMNS = ("model", "p(x)", "p(z given x)", "x given a part", "between images", "samples")
ASKED = ("encode", "complete", "decode")  # answered by a method or not at all


class Answers(NamedTuple):
    """A line of the table, in the order of `COLUMNS`."""

    model: str
    evidence: str
    codes: str
    completes: str
    between: str
    samples: str


def answers(name: str) -> Answers:
    """What a model of the registry answers."""
    model = model_class(name)
    codes, completes, between = ("yes" if issubclass(model, QUESTIONS[method][1]) else NO for method in ASKED)
    evidence = NO if model.evidence == "none" else model.evidence
    return Answers(name, evidence, codes, completes, between, drawn(model))


def drawn(model: Any) -> str:
    """How images come from a model of a class."""
    if issubclass(model, Samples):
        return f"{model.passes} pass" if model.passes == "one" else model.passes
    if issubclass(model, Translates):
        return "of an image"
    return "features only" if issubclass(model, HasFeatures) else NO


def table(names: Iterable[str] = MODELS) -> list[Answers]:
    """The table of models, by default of all."""
    return [answers(name) for name in names]


def markdown() -> str:
    """The table for docs/families.md."""
    rows = [COLUMNS, ("---",) * len(COLUMNS), *((f"`{row.model}`", *row[1:]) for row in table())]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def said(name: str) -> list[str]:
    """What a model answers, a line each: of what it has, the first sentence of its method; else why it doesn't."""
    model, lines = model_class(name), [f"{name}: {MODELS[name].about}"]
    lines.append(f"  {'p(x)':<22}{OFFERED.get(model.evidence, 'none')}")
    for method, (words, protocol) in QUESTIONS.items():
        if issubclass(model, protocol):
            about = (inspect.getdoc(getattr(model, method)) or "").split("\n\n")[0].replace("\n", " ")
            lines.append(f"  {words if method != 'log_prob' else '':<22}{method}(): {about}")
        elif method in ASKED:
            lines.append(f"  {words:<22}{refusal(model, method)}")
    return lines
