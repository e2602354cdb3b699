"""`tinygen gradcheck FILE[::NAME]`: every gradient in a Python file.

It pairs functions by their names (X_forward with X_backward), takes functions with "loss" in their name that return a
loss and a gradient, classes with `params` and `loss(X, y)`, classes with forward and backward (whose parameters and
their gradients are attributes), and tinygen's ops. It makes the inputs itself, or takes them from a function
X_inputs() that returns the arguments. Exit status: 0 all right, 1 something wrong, 2 something not run or not written.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from tinygen.gradcheck import recipes
from tinygen.gradcheck.causes.table import diagnose
from tinygen.gradcheck.report import GradcheckError, GradcheckReport, Problem
from tinygen.gradcheck.sandbox import Trouble
from tinygen.gradcheck.subject import Subject
from tinygen.gradcheck.targets import Target, Trial, load, targets
from tinygen.gradcheck.verdict import report_on

RIGHT, WRONG, NOT_RUN, INTERRUPTED = 0, 1, 2, 130
VERDICTS = ("right", "wrong", "not run", "not written")
CONTRACT = ("changes upstream", "changes input", "changes cache", "not repeatable", "memory layout")
CAUSES = 4  # so many kinds of arguments are explained where all are wrong
VAGUE = ("unexplained", "wrong shape", "raises", "slice")  # causes beside which another kind may explain more
NO_READING = ("raises", "hangs", "no gradient", "not finite")  # causes that don't suggest that other shapes are meant
IMPORT = 3  # an import may take so many times the limit of a call

Result = tuple[Subject, GradcheckReport]


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns its exit status: 0 right, 1 wrong, 2 not run or not written, 130 interrupted."""
    parser = argparse.ArgumentParser(
        prog="tinygen gradcheck", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", metavar="FILE[::NAME]", help="a Python file, or one function in it")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "--limit", type=float, default=10.0, metavar="SECONDS",
        help=f"for one call (default 10); importing the file may take {IMPORT} times as long",
    )  # fmt: skip
    options = parser.parse_args(argv)
    path, _, name = options.file.partition("::")
    verdicts: list[str] = []
    try:
        for report in check_file(path, name or None, options.limit):
            verdicts.append(report.verdict)
            _say(report.json() if options.json else str(report))
        if not options.json:
            counts = {v: verdicts.count(v) for v in VERDICTS}
            _say(", ".join(f"{n} {verdict}" for verdict, n in counts.items() if n or verdict == "right"))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except (OSError, ValueError) as e:
        print(f"tinygen gradcheck: {e}", file=sys.stderr)
        return NOT_RUN
    return WRONG if "wrong" in verdicts else NOT_RUN if {*verdicts} - {"right"} else RIGHT


def _say(text: str) -> None:
    """Print, also where nobody reads any more (`| head`): the exit status still counts."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def check_file(path: str | Path, name: str | None = None, limit: float = 10.0) -> Iterator[GradcheckReport]:
    """A report for each gradient found in a file.

    Args:
        name: only this function, pair, or class: "conv_backward_naive", or any part of it that is unique.
        limit: seconds that one call may take; the import of the file may take three times as long.

    Raises: OSError, ValueError: no such file, it can't be imported, nothing in it has a gradient (of that name).
    """
    try:
        module = load(Path(path), IMPORT * limit)
    except GradcheckError as e:  # of a check that the file makes itself
        yield e.report
        return
    found = list(targets(module))
    if name is not None:
        chosen = [t for t in found if t.name == name] or [t for t in found if name in t.name]
        if not chosen:
            known = ", ".join(t.name for t in found) or "nothing"
            raise ValueError(f"{path} has no gradient named {name}; found {known}")
        found = chosen
    if not found:
        raise ValueError(
            f"{path} has no X_forward with an X_backward, no loss that returns a gradient, no layer, no model and no op"
        )
    for target in found:
        yield check_target(target, limit)


def check_target(target: Target, limit: float = 10.0) -> GradcheckReport:
    """One report of all cases: the failing case that is explained best, and how the failing cases differ from others.

    Where the arguments are guessed, a gradient that is right on all cases of one kind is right.
    """
    try:
        trials = list(target.trials(limit))
    except Trouble as e:
        return GradcheckReport(target.name, "not run", [e.problem])
    if not trials:
        maker = f"{recipes.layer_name(target.name).lower()}_inputs()"
        hint = f"its inputs can't be guessed: add a function {maker} that returns the arguments"
        return GradcheckReport(target.name, "not run", [Problem("raises", "forward", hint)])
    results, others = _chosen(trials)
    ran = [(s, r) for s, r in results if r.verdict in ("right", "wrong")]
    failed = [(s, r) for s, r in results if r.verdict == "wrong"]
    if not ran:
        report = results[-1][1] if results[-1][1].verdict == "not written" else results[0][1]
        report.name = target.name
        return report
    best = min((r for _, r in failed), key=lambda r: r.cause == "unexplained", default=ran[0][1])
    best.name = target.name
    if failed:
        _compare_cases(best, [(facts(s), r.verdict == "right") for s, r in ran])
    else:
        _add_up(best, results)
        maker = f"{recipes.layer_name(target.name).lower()}_inputs()"
        best.notes += [f"not right for {r.shapes}: a function {maker} tells which are meant" for _, r in others[:1]]
    return best


def _chosen(trials: list[Trial]) -> tuple[list[Result], list[Result]]:
    """The results of the trial that counts, with causes, and the failures of likelier ones if it is right."""
    wrong: list[tuple[Trial, list[Result]]] = []
    first: list[Result] = []
    some: list[Result] = []
    for trial in trials:
        if trial.last and wrong:
            break
        alone = len(trials) == 1 or trial.certain
        results = _results(trial, explained=not alone, whole=alone)
        first = first or results
        if results[-1][1].cause in ("not written", "hangs"):
            return results, []
        ran = [r for _, r in results if r.verdict in ("right", "wrong")]
        plainest = results[0][1].verdict in ("right", "wrong")
        shown = not (wrong and all(r.zero for r in ran))
        if ran and (len(trials) == 1 or (plainest and (trial.certain or (all(ran) and shown)))):
            return results, [rs[-1] for _, rs in wrong if rs[-1][1].cause not in NO_READING]
        if not all(ran):
            wrong.append((trial, results))
            if _contract(results):
                break  # that is wrong for whatever arguments
        elif ran and not some:
            some = results  # right where it ran, but not on the plainest case
    if not wrong:
        return some or first, []
    best: list[Result] = []
    for trial, _ in wrong[-1:] if _contract(wrong[-1][1]) else wrong[:CAUSES]:
        results = _results(trial, explained=False, whole=True)
        failed = [r for _, r in results if r.verdict == "wrong"]
        if not best or (failed and any(r.cause not in VAGUE for r in failed)):
            best = results
            if any(r.cause not in VAGUE for r in failed):
                break
    return best, []


def _contract(results: list[Result]) -> bool:
    return any(p.cause in CONTRACT for _, r in results for p in r.problems)


def _results(trial: Trial, explained: bool, whole: bool) -> list[Result]:
    """A report for each case. explained: no cause is looked for; whole: also behind a case that is wrong."""
    results: list[Result] = []
    for subject in trial.subjects:
        found = explained or any(r.verdict == "wrong" and r.cause != "unexplained" for _, r in results)
        report = report_on(subject, explain=None if found else diagnose, budget=8.0)
        results.append((subject, report))
        if report.cause == "hangs" or report.verdict == "not written" or (report.verdict == "wrong" and not whole):
            break
    return results


def _add_up(report: GradcheckReport, results: list[Result]) -> None:
    """Make a case's report that of all cases that ran: they are right."""
    ran = [r for _, r in results if r.verdict == "right"]
    report.seconds = sum(r.seconds for _, r in results)
    report.shapes = f"on {len(ran)} sets of shapes, such as {report.shapes}" if len(ran) > 1 else report.shapes
    for other in ran:
        if other is not report:
            for name, (seen, total) in other.compared.items():
                before = report.compared.get(name, (0, 0))
                report.compared[name] = before[0] + seen, before[1] + total
            report.right += [name for name in other.right if name not in report.right]
    report.notes += [f"not run on {r.shapes}: {r.problems[0].hint}" for _, r in results if r.verdict == "not run"]


# ----------------------------------------------------------------------------------------------- cases against cases


def facts(subject: Subject) -> dict[str, float]:
    """Numbers by which cases differ: stride, pad, N, T, H, W ..."""
    f: dict[str, float] = {}
    for name, v in zip(subject.names, subject.values, strict=True):
        for key, n in v.items() if isinstance(v, dict) else [(name, v)]:
            if isinstance(n, (int, float)) and not isinstance(n, bool):
                f[key] = float(n)
            elif key == "mode":
                f["training"] = float(n == "train")
    first = next((v for v in subject.values if isinstance(v, np.ndarray) and v.ndim), np.empty(0))
    f |= dict(zip({4: "NCHW", 3: "NTD", 2: "ND"}.get(first.ndim, "N"), first.shape, strict=False))
    return f


# Ways in which failing cases may differ from the others: words, the cause that they speak for, and the test.
CONDITIONS: list[tuple[str, str, Callable[[dict[str, float]], bool]]] = [
    ("only with pad = 0", "", lambda f: f.get("pad") == 0),
    ("only with pad > 0", "", lambda f: f.get("pad", 0) > 0),
    ("only with a stride above 1: it is left out somewhere", "stride", lambda f: "pad" in f and f.get("stride", 1) > 1),
    ("only with a stride above 2", "stride", lambda f: f.get("stride", 1) > 2),
    ("only with a stride other than the window: one stands for the other", "stride",
     lambda f: "pool_height" in f and not f["stride"] == f["pool_height"] == f["pool_width"]),
    ("only where windows overlap", "overwritten",
     lambda f: f.get("stride", 9) < max(f.get("pool_height", 0), f.get("pool_width", 0))),
    ("only for images that aren't square: H and W are mixed up", "non-square", lambda f: f.get("H") != f.get("W")),
    ("only where W > H: H and W are mixed up", "non-square", lambda f: f.get("W", 0) > f.get("H", 0)),
    ("only where H > W: H and W are mixed up", "non-square", lambda f: f.get("H", 0) > f.get("W", 0)),
    ("only in test mode", "", lambda f: f.get("training") == 0),
    ("only in training mode", "", lambda f: f.get("training") == 1),
    ("only for sequences of more than one step", "", lambda f: f.get("T", 0) > 1),
    ("only with N = 1", "", lambda f: f.get("N") == 1),
    ("only with N > 1", "", lambda f: f.get("N", 1) > 1),
    ("only with regularization", "", lambda f: f.get("reg", 0) > 0),
]  # fmt: skip


def _compare_cases(report: GradcheckReport, outcomes: list[tuple[dict[str, float], bool]]) -> None:
    for words, cause, holds in CONDITIONS:
        if "sequences" in words and not all("T" in f for f, _ in outcomes):
            continue
        if all(holds(f) != right for f, right in outcomes) and any(right for _, right in outcomes):
            report.when = words
            first = report.problems[0]
            if cause and (first.cause in ("unexplained", "raises", "wrong shape") or first.evidence.get("vague")):
                first.cause, first.hint = cause, words
            return


if __name__ == "__main__":
    sys.exit(main())
