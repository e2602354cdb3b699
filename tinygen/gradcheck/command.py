"""`tinygen gradcheck FILE[::NAME]`: every gradient in a Python file.

It pairs functions by their names (X_forward with X_backward), takes functions with "loss" in their name that return a
loss and a gradient, classes with `params` and `loss(X, y)`, and classes with forward and backward; it makes the inputs
itself (tinygen.gradcheck.recipes), or takes them from a function X_inputs() that returns a tuple of arguments.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import inspect
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from tinygen.gradcheck import recipes
from tinygen.gradcheck.causes.table import diagnose
from tinygen.gradcheck.plain import LossSubject, ModelSubject, PairSubject
from tinygen.gradcheck.report import GradcheckReport, Problem
from tinygen.gradcheck.source import required_parameters
from tinygen.gradcheck.subject import Subject
from tinygen.gradcheck.verdict import report_on

RIGHT, WRONG, NOT_RUN = 0, 1, 2


class Target(NamedTuple):
    """Something in a file that has a gradient: its name, and the subjects to check, the plainest first."""

    name: str
    subjects: Callable[[float], Iterator[Subject]]


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 0 if all gradients are right, 1 if one is wrong, 2 if something could not be run."""
    parser = argparse.ArgumentParser(
        prog="tinygen gradcheck", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", metavar="FILE[::NAME]", help="a Python file, or one function in it")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--limit", type=float, default=10.0, metavar="SECONDS", help="for one call (default 10)")
    options = parser.parse_args(argv)
    path, _, name = options.file.partition("::")
    try:
        reports = list(check_file(path, name or None, options.limit))
    except (OSError, ValueError) as e:
        print(f"tinygen gradcheck: {e}", file=sys.stderr)
        return NOT_RUN
    for report in reports:
        print(report.json() if options.json else report)
    if not options.json:
        counts = {v: sum(r.verdict == v for r in reports) for v in ("right", "wrong", "not run")}
        print(", ".join(f"{n} {verdict}" for verdict, n in counts.items() if n or verdict == "right"))
    verdicts = {r.verdict for r in reports}
    return WRONG if "wrong" in verdicts else NOT_RUN if "not run" in verdicts else RIGHT


def check_file(path: str | Path, name: str | None = None, limit: float = 10.0) -> Iterator[GradcheckReport]:
    """A report for each gradient found in a file.

    Args:
        name: only this function, pair, or class: "conv_backward_naive", or any part of it that is unique.
        limit: seconds that one call may take.

    Raises: OSError, ValueError: no such file, it can't be imported, nothing in it has a gradient (of that name).
    """
    module = load(Path(path))
    found = list(targets(module))
    if name is not None:
        chosen = [t for t in found if t.name == name] or [t for t in found if name in t.name]
        if not chosen:
            known = ", ".join(t.name for t in found) or "nothing"
            raise ValueError(f"{path} has no gradient named {name}; found {known}")
        found = chosen
    if not found:
        raise ValueError(f"{path} has no X_forward with an X_backward, no loss that returns a gradient, and no model")
    for target in found:
        yield check_target(target, limit)


def check_target(target: Target, limit: float = 10.0) -> GradcheckReport:
    """One report of all cases: the failing case that is explained best, and what sets the failing cases apart."""
    results: list[tuple[Subject, GradcheckReport]] = []
    for subject in target.subjects(limit):
        explained = any(not r and r.cause != "unexplained" for _, r in results)
        report = report_on(subject, explain=None if explained else diagnose, budget=8.0)
        results.append((subject, report))
        if report.cause == "hangs":
            break
    ran = [(s, r) for s, r in results if r.verdict != "not run"]
    failed = [(s, r) for s, r in results if r.verdict == "wrong"]
    if not results:
        maker = f"{recipes.layer_name(target.name)}_inputs()"
        hint = f"its inputs can't be guessed: add a function {maker} that returns the arguments"
        return GradcheckReport(target.name, "not run", [Problem("raises", "forward", hint)])
    if not ran:
        results[0][1].name = target.name
        return results[0][1]
    best = min((r for _, r in failed), key=lambda r: r.cause == "unexplained", default=ran[0][1])
    best.name = target.name
    if failed:
        _compare_cases(best, [(facts(s), r.verdict == "right") for s, r in ran])
    else:
        best.seconds = sum(r.seconds for _, r in results)
        best.shapes = f"on {len(ran)} sets of shapes, such as {best.shapes}" if len(ran) > 1 else best.shapes
        best.notes += [f"not run on {r.shapes}: {r.problems[0].hint}" for _, r in results if r.verdict == "not run"]
    return best


# ----------------------------------------------------------------------------------------------- cases against cases


def facts(subject: Subject) -> dict[str, float]:
    """Numbers by which cases differ: stride, pad, N, T, H, W ..."""
    f: dict[str, float] = {}
    for name, v in zip(subject.names, subject.values, strict=True):
        for key, n in v.items() if isinstance(v, dict) else [(name, v)]:
            if isinstance(n, (int, float)) and not isinstance(n, bool):
                f[key] = float(n)
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
    ("only for sequences of more than one step", "", lambda f: f.get("T", 0) > 1),
    ("only with N = 1", "", lambda f: f.get("N") == 1),
    ("only with N > 1", "", lambda f: f.get("N", 1) > 1),
    ("only with regularization", "", lambda f: f.get("reg", 0) > 0),
]  # fmt: skip


def _compare_cases(report: GradcheckReport, outcomes: list[tuple[dict[str, float], bool]]) -> None:
    for words, cause, holds in CONDITIONS:
        if all(holds(f) != right for f, right in outcomes) and any(right for _, right in outcomes):
            report.when = words
            first = report.problems[0]
            if cause and (first.cause in ("unexplained", "raises", "wrong shape") or first.evidence.get("vague")):
                first.cause, first.hint = cause, words
            return


# ---------------------------------------------------------------------------------------------------- what is in a file


def load(path: Path) -> ModuleType:
    """Import a file, as part of its package where it has one."""
    path = path.resolve()
    if not path.is_file():
        raise OSError(f"no such file: {path}")
    parts, root = [path.stem], path.parent
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    sys.path.insert(0, str(root))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            if len(parts) > 1:
                return importlib.import_module(".".join(parts))
            spec = importlib.util.spec_from_file_location(path.stem, path)
            if spec is None or spec.loader is None:
                raise ValueError(f"{path} is not a Python file")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    except (Exception, SystemExit) as e:
        raise ValueError(f"{path} can't be imported: {type(e).__name__}: {e}") from e
    finally:
        sys.path.remove(str(root))


def targets(module: ModuleType) -> Iterator[Target]:
    """Everything in a module that has a gradient, in the order of the file."""
    own = {n: v for n, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__}
    functions = {n: v for n, v in own.items() if inspect.isfunction(v)}
    for name, value in own.items():
        if name in functions:
            if "backward" in name and (partner := _forward_of(name, functions)):
                yield Target(name, _pair_cases(functions[partner], value, partner, functions))
            elif "loss" in name and name[0] != "_" and "backward" not in name and len(_required(value)) >= 2:
                yield Target(name, _loss_cases(value, name, functions))
        elif inspect.isclass(value) and callable(getattr(value, "loss", None)):
            yield Target(name, _model_cases(value))
        elif (
            inspect.isclass(value)
            and callable(getattr(value, "forward", None))
            and callable(getattr(value, "backward", None))
        ):
            yield Target(name, _layer_cases(value, name, functions))


def _required(fn: Callable[..., Any]) -> list[str]:
    try:
        return required_parameters(fn)
    except (TypeError, ValueError):
        return []


def _forward_of(backward: str, functions: dict[str, Any]) -> str | None:
    """`batchnorm_backward_alt` -> `batchnorm_forward`."""
    name = backward.replace("backward", "forward")
    while "forward" in name:
        for candidate in (name, f"{name}_naive"):
            if candidate in functions:
                return candidate
        shorter = name.rpartition("_")[0]
        if shorter == name or not shorter:
            break
        name = shorter
    return None


def _arguments(name: str, names: Sequence[str], functions: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    given = functions.get(f"{recipes.layer_name(name)}_inputs") or functions.get(f"{name}_inputs")
    if given is None:
        yield from recipes.cases(name, names)
    else:
        made = given()
        yield from made if isinstance(made, list) else [made if isinstance(made, tuple) else (made,)]


def _pair_cases(
    forward: Any, backward: Any, name: str, functions: dict[str, Any]
) -> Callable[[float], Iterator[Subject]]:
    def subjects(limit: float) -> Iterator[Subject]:
        for args in _arguments(name, _required(forward), functions):
            yield PairSubject(forward, backward, args, limit=limit)

    return subjects


def _loss_cases(fn: Any, name: str, functions: dict[str, Any]) -> Callable[[float], Iterator[Subject]]:
    def subjects(limit: float) -> Iterator[Subject]:
        for args in _arguments(name, _required(fn), functions):
            yield LossSubject(fn, args, limit=limit)

    return subjects


SMALL = {
    "hidden_dim": 7, "hidden_size": 7, "num_classes": 3, "output_size": 3, "hidden_dims": [7, 5], "num_filters": 3,
    "filter_size": 3, "weight_scale": 0.5, "reg": 0.1, "dtype": np.float64,
}  # fmt: skip


def _model_cases(cls: type) -> Callable[[float], Iterator[Subject]]:
    def subjects(limit: float) -> Iterator[Subject]:
        r = np.random.default_rng(0)
        parameters = inspect.signature(cls).parameters
        dim = parameters.get("input_dim") or parameters.get("input_size")
        if dim is None:
            return
        shape = (2, 6, 8) if isinstance(dim.default, tuple) else (6,)
        given = {dim.name: shape if len(shape) > 1 else 6} | {k: v for k, v in SMALL.items() if k in parameters}
        for reg in (0.0, 0.1) if "reg" in parameters else (0.1,):
            model = cls(**(given | ({"reg": reg} if "reg" in parameters else {})))
            for key, value in model.params.items():  # biases start at zero: give every term something to show
                model.params[key] = value + 0.1 * r.standard_normal(value.shape)
            yield ModelSubject(model, (r.standard_normal((5, *shape)), r.integers(0, 3, 5)), limit=limit)

    return subjects


def _layer_cases(cls: type, name: str, functions: dict[str, Any]) -> Callable[[float], Iterator[Subject]]:
    def subjects(limit: float) -> Iterator[Subject]:
        try:
            layer: Any = cls()
        except TypeError:
            return
        for args in _arguments(name.lower(), _required(layer.forward), functions):
            yield PairSubject(layer.forward, layer.backward, args, name=name, limit=limit)

    return subjects


if __name__ == "__main__":
    sys.exit(main())
