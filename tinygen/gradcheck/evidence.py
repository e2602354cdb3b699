"""All that is known of a gradient that was compared with finite differences."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinygen.gradcheck.numeric import Differences
from tinygen.gradcheck.report import GradcheckReport, Problem
from tinygen.gradcheck.subject import Subject

Array = Any


@dataclass
class Mismatch:
    """An argument whose gradient doesn't agree with finite differences."""

    i: int  # its position among the arguments
    claimed: Array  # flat; the looked-at elements only
    true: Array
    bound: Array
    wrong: Array  # bools
    which: Array  # flat indices of the looked-at elements
    jacobian: Array  # (outputs, looked-at elements)
    shape: tuple[int, ...]
    undecided: int = 0  # so many elements lie within an error bound too wide to tell

    @property
    def full(self) -> bool:
        """True if every element was looked at."""
        return len(self.which) == int(np.prod(self.shape))

    def worst(self) -> int:
        """The position of the largest error, measured by its bound and the size of the gradient."""
        return int(np.argmax(np.where(self.wrong, np.abs(self.claimed - self.true), -1)))


@dataclass
class Evidence:
    """All that the diagnosis may look at, and `probe`, by which it may call the functions again."""

    subject: Subject
    upstream: list[Array]
    weights: Array  # upstream, flattened
    outputs: list[Array]
    differences: Differences
    grads: list[Any]  # as returned
    mismatches: list[Mismatch] = field(default_factory=list)
    misshapen: list[Mismatch] = field(default_factory=list)  # gradients of the wrong shape; claimed is the array itself
    right: list[int] = field(default_factory=list)
    compared: dict[int, int] = field(default_factory=dict)  # for each argument, so many elements
    kinks: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)
    cut: dict[int, GradcheckReport | None] = field(default_factory=dict)  # reports with all axes of a size cut to 1

    def __post_init__(self) -> None:
        self.probe = self.subject.at()


def plain_problem(e: Evidence, s: Mismatch, cause: str = "unexplained", hint: str = "") -> Problem:
    """The problem with its worst element; without a cause it only says where."""
    k = s.worst()
    name = e.subject.grad_name(s.i)
    index = tuple(int(j) for j in np.unravel_index(s.which[k], s.shape))
    facts = {
        "yours": float(s.claimed[k]), "right": float(s.true[k]), "bound": float(s.bound[k]),
        "wrong": int(s.wrong.sum()), "of": len(s.which),
    }  # fmt: skip
    return Problem(
        cause, name, hint or "no known pattern; see the worst element", index, None, facts, e.subject.source(s.i)
    )
