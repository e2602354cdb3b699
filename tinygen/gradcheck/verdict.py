"""The verdict: are the gradients of a subject right?

Cheap first: one random upstream gradient, one backward run, one random direction for each argument. Only a mismatch
brings out the elementwise derivatives, the ladder of steps, and the search for the cause, which the caller passes in.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygen.gradcheck.compare import SAMPLE, compare
from tinygen.gradcheck.contract import broken_contracts, unusable
from tinygen.gradcheck.evidence import Evidence, Mismatch, plain_problem
from tinygen.gradcheck.numeric import Differences
from tinygen.gradcheck.report import GradcheckReport, Problem
from tinygen.gradcheck.sandbox import Trouble
from tinygen.gradcheck.source import unwritten
from tinygen.gradcheck.subject import Subject
from tinygen.gradcheck.values import same

Array = Any
Explain = Callable[[Evidence], list[Problem]]

MANY = 1500  # at most so many elements of an argument are looked at one by one
MEMORY = 4e6  # numbers in a Jacobian; what doesn't fit is sampled


def report_on(subject: Subject, rng: np.random.Generator | None = None, explain: Explain | None = None,
              budget: float = 20.0, thorough: bool = True) -> GradcheckReport:  # fmt: skip
    """Check a subject's gradients.

    Args:
        rng: draws the upstream gradient and the directions; default_rng(0) if left out.
        explain: finds out why gradients are wrong: tinygen.gradcheck.causes.table.diagnose. If left out, the report
            holds only the verdict and the worst elements.
        budget: seconds for the elementwise derivatives; what doesn't fit is sampled.
        thorough: also call backward twice and with a non-contiguous upstream gradient.
    """
    start = time.perf_counter()
    report = GradcheckReport(subject.name, shapes=subject.describe())
    with subject.box():
        try:
            subject.settle()
            report.shapes = subject.describe()
            _check(subject, report, rng or np.random.default_rng(0), explain, budget, thorough)
        except Trouble as e:
            blameless = e.stage in ("forward", "inputs") or (
                not subject.upstream and e.problem.cause in ("raises", "hangs")
            )
            report.verdict = "not run" if blameless else "wrong"
            report.problems.append(e.problem)
            if isinstance(e.__cause__, NotImplementedError):
                report.verdict, e.problem.cause = "not written", "not written"
    if not report and (stub := next((f for f in subject.functions() if unwritten(f)), None)):
        report.verdict = "not written"
        report.problems = [Problem("not written", stub.__name__, "its body is still to be written")]
    printed = subject.box.printed.getvalue()
    if printed:
        report.notes.append(f"it printed {len(printed)} characters: {printed.strip()[:40]!r}")
    report.seconds = time.perf_counter() - start
    return report


def _check(subject: Subject, report: GradcheckReport, rng: np.random.Generator, explain: Explain | None,
           budget: float, thorough: bool) -> None:  # fmt: skip
    began = time.thread_time()  # not the wall clock: what is looked at shouldn't depend on other programs
    outputs = subject.forward(subject.values)
    took = max(time.thread_time() - began, 1e-6)
    if thorough and not all(map(same, outputs, subject.forward(subject.values))):
        raise Trouble("forward", "not repeatable", "forward gives another answer each time: fix its random numbers")
    if not all(np.isfinite(o).all() for o in outputs):
        raise Trouble("forward", "not finite", "forward gives inf or nan here: no derivative to compare with")
    if not any(o.size for o in outputs):
        raise Trouble("forward", "empty", "forward returns no numbers here: nothing has a derivative")
    e, again = _gradients(subject, outputs, rng, thorough)
    report.problems += broken_contracts(e, again)
    many = budget / (4 * took * max(len(subject.wrt), 1)) if explain else SAMPLE / 2
    noise: list[Any] = []
    for i, g in zip(subject.wrt, e.grads, strict=True):
        if problem := unusable(e, i, g):
            report.problems.append(problem)
        elif g.shape != subject.values[i].shape:
            e.misshapen.append(_misshapen(e, i, g))
        else:
            compare(e, i, g, rng, int(min(MANY, many, MEMORY / e.weights.size)), noise)
    report.right = [subject.grad_name(i) for i in e.right if e.compared[i]]
    report.compared = {subject.grad_name(i): (n, subject.values[i].size) for i, n in e.compared.items()}
    report.zero = not any(np.any(g) for i, g in zip(subject.wrt, e.grads, strict=True) if i in e.right)
    report.notes += [*e.kinks[:2], *e.unsure[:2], *subject.alias[:2], *subject.remarks]
    if report.problems or e.mismatches or e.misshapen:
        report.verdict = "wrong"
    elif not sum(e.compared.values()):
        raise Trouble("inputs", "nothing to compare", subject.unchecked())
    if explain and (e.mismatches or e.misshapen):
        report.problems += explain(e)
    else:
        report.problems += [plain_problem(e, s) for s in e.mismatches]


def _gradients(
    subject: Subject, outputs: list[Array], rng: np.random.Generator, thorough: bool
) -> tuple[Evidence, Any]:
    """The gradients for one random upstream gradient; those of a second call, and for it in Fortran order."""
    upstream = [np.asarray(rng.standard_normal(o.shape)) if subject.upstream else np.ones(o.shape) for o in outputs]
    calls = [upstream]
    if thorough:
        calls += [upstream, [np.array(u, order="F") for u in upstream]]
    grads, *again = subject.pull(subject.values, *calls)
    weights = np.concatenate([u.ravel() for u in upstream]) if len(upstream) > 1 else upstream[0].ravel()
    differences = Differences(subject.flat, subject.values, weights)
    return Evidence(subject, upstream, weights, outputs, differences, grads), again


def _misshapen(e: Evidence, i: int, g: Array) -> Mismatch:
    x = e.subject.values[i]
    which = np.arange(min(x.size, MANY))
    columns = e.differences.columns(i, which)
    true = e.weights @ columns.jacobian
    return Mismatch(i, g, true, columns.bound, np.ones(len(true), bool), which, columns.jacobian, x.shape)
