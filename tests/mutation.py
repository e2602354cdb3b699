"""How many small errors in engine, ops, nn and optim the tests notice: `python -m tests.mutation [-n 60] [FILE ...]`.

Each mutant is one change at one place: another operator or comparison, a constant off by one, a condition turned round,
a statement left out, an argument dropped. It is written into a copy of the package, and the file's tests run on it
until one fails: it is killed. Those that reach its function come first (of more than a few mutants it pays to trace the
tests once for that), and those with its name. As many are drawn of each file, as far as it has so many places; those
that live are printed with their line, to be read: a test is missing, or the change makes no difference (it counts
against the score too). With `--kept FILE` what was found of a mutant stands in that file, and isn't worked out again.
Exit code 0 if 19 of 20 were killed.
"""

from __future__ import annotations

import argparse
import ast
import functools
import hashlib
import importlib.util
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coverage

ROOT = Path(__file__).parent.parent
ENGINE = ["tests/autograd", "tests/test_debug.py"]
OPS = ["tests/ops", "tests/nn", "tests/kernels/test_calls.py", "tests/parallel/test_ranks.py"]
PARITY = ["tests/parity/test_ops_parity.py", "tests/parity/test_functions_parity.py"]
FILES = ["_tensor.py", "modes.py", "tape.py", "autograd.py"]
ROOMS = ["ops", "nn", "optim"]
TESTS = {  # the tests of a file or of its room, the likeliest to notice first
    **{file: [*ENGINE, *OPS] for file in FILES},
    "ops": [*OPS, *PARITY],
    "ops/loss.py": [*OPS, *PARITY, "tests/models/test_autoregressive.py"],
    "nn": [
        *OPS[1:],
        "tests/ops/test_recurrent.py",
        "tests/ops/test_logistic.py",
        *PARITY[1:],
        "tests/parity/test_nn_parity.py",
        "tests/parity/test_norms_parity.py",
        "tests/parity/test_recurrent_parity.py",
    ],
    "optim": ["tests/test_optim.py", "tests/parity/test_optim_parity.py"],
}
SECONDS = 200  # of processor time; tests that take longer with a mutant, but not without it, have noticed it
FEW = 20  # mutants, for which the tests aren't traced
QUIETLY = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-p", "tests.mutation"]
LATE = -signal.SIGXCPU  # the exit code of what took longer
OPERATORS = {
    ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "*", ast.Mod: "*", ast.Pow: "*",
    ast.MatMult: "*", ast.BitAnd: "|", ast.BitOr: "&",
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==", ast.Is: "is not",
    ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in", ast.And: "or", ast.Or: "and",
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """`new` in the place of a file's characters from `start` to `end`."""

    file: Path
    start: int
    end: int
    new: str

    def applied(self) -> str:
        text = self.file.read_text()
        return text[: self.start] + self.new + text[self.end :]

    def around(self) -> list[ast.ClassDef | ast.FunctionDef]:
        """The classes and functions that it is in, from the outermost."""
        text = self.file.read_text()
        line = text.count("\n", 0, self.start) + 1
        named = [node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
        return sorted((node for node in named if node.lineno <= line <= node.end_lineno), key=lambda node: node.lineno)

    def names(self) -> list[str]:
        """Of what is around it; a rule has the names of its ops: `def _` below `@exp.vjp("x")`."""
        rules = [ast.unparse(d).partition(".vjp") for node in self.around() for d in node.decorator_list]
        return [node.name for node in self.around() if node.name != "_"] + [op for op, vjp, _ in rules if vjp]

    def __str__(self) -> str:
        text = self.file.read_text()
        line = text.count("\n", 0, self.start) + 1
        return f"{self.file.relative_to(ROOT)}:{line}: {text[self.start : self.end]!r} -> {self.new!r}"


def mutants(file: Path) -> Iterator[Mutant]:
    """All that can be changed in a file but docstrings, annotations, errors' texts and what `_code` leaves out."""
    text = file.read_text()
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line.encode()))
    raw = text.encode()

    def at(line: int, column: int) -> int:  # ast counts bytes, the text characters
        return len(raw[: starts[line - 1] + column].decode())

    def span(node: ast.AST) -> tuple[int, int]:
        return at(node.lineno, node.col_offset), at(node.end_lineno, node.end_col_offset)

    def between(left: ast.AST, right: ast.AST, new: str) -> Iterator[Mutant]:
        start, end = span(left)[1], span(right)[0]
        gap = text[start:end]
        if "(" not in gap and ")" not in gap and "#" not in gap:
            yield Mutant(file, start, end, f" {new} ")

    tested_on, _, _ = text.partition("what they are tested on")
    for node in _code(ast.parse(text)):
        if getattr(node, "lineno", 0) > tested_on.count("\n") + 1:
            continue
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            yield from between(node.left, node.right, OPERATORS[type(node.op)])
        elif isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in OPERATORS:
            yield from between(node.left, node.comparators[0], OPERATORS[type(node.ops[0])])
        elif isinstance(node, ast.BoolOp):
            yield from between(*node.values[:2], OPERATORS[type(node.op)])
        elif isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
            yield Mutant(file, *span(node), str(not node.value if isinstance(node.value, bool) else node.value + 1))
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not)):
            yield Mutant(file, *span(node), f"({ast.unparse(node.operand)})")
        elif isinstance(node, (ast.If, ast.IfExp, ast.While)):
            yield Mutant(file, *span(node.test), f"(not ({ast.unparse(node.test)}))")
        elif isinstance(node, (ast.AugAssign, ast.Delete)) or (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        ):
            yield Mutant(file, *span(node), "pass")
        elif isinstance(node, ast.Return) and node.value is not None:
            yield Mutant(file, *span(node.value), "None")
        elif isinstance(node, ast.keyword) and node.arg is not None:
            start, end = span(node)
            if text[end] == ",":
                yield Mutant(file, start, end + 1, "")


def _code(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that say what is computed."""
    for name, child in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for part in child if isinstance(child, list) else [child]:
            if isinstance(part, (ast.Raise, ast.Import, ast.ImportFrom)) or not isinstance(part, ast.AST):
                continue
            if isinstance(part, ast.If) and ast.unparse(part.test) == "TYPE_CHECKING":
                continue
            if isinstance(part, ast.FunctionDef) and ast.unparse(part.args) == "rng":
                continue  # the tests' own inputs
            if isinstance(part, ast.keyword) and part.arg in ("least", "strict"):
                continue  # the size from which a kernel is faster; a check of our own code
            if hasattr(part, "lineno") or isinstance(part, (ast.arguments, ast.comprehension)):
                yield part
                yield from _code(part)


def sample(files: list[Path], n: int, seed: int) -> tuple[list[Mutant], int]:
    """n mutants, of one file after the other while it has some; and how many there are in all."""
    of_file = [list(mutants(file)) for file in files]
    for some in of_file:
        random.Random(seed).shuffle(some)
    in_turn = [mutant for turn in itertools.zip_longest(*of_file) for mutant in turn if mutant is not None]
    return in_turn[:n], len(in_turn)


def tests_of(file: Path) -> list[str]:
    """The tests of a file of the package; those of its own first, then those of its room."""
    name = file.relative_to(ROOT / "tinygen")
    tests = TESTS.get(name.as_posix()) or TESTS.get(name.parts[0], TESTS["ops"])
    return [test for test in tests if "parity" not in test or importlib.util.find_spec("torch")]


class Reach:
    """Which tests run which lines."""

    def __init__(self, tests: Iterable[str] = ()) -> None:
        """Run them once, traced. TINYGEN_FULL is off, as it is for mutants."""
        self.lines: dict[Path, dict[int, list[str]]] = {}
        if not (paths := [test for test in dict.fromkeys(tests) if test]):
            return
        with tempfile.TemporaryDirectory() as folder:
            data = coverage.CoverageData(str(Path(folder, "coverage")))
            command = ["run", "--rcfile=/dev/null", f"--data-file={data.base_filename()}", "--source=tinygen", "-m"]
            command = [sys.executable, "-m", "coverage", *command, "pytest", *QUIETLY, *paths]
            environment = {**os.environ, "CI": "1", "TINYGEN_FULL": "", "TINYGEN_MUTANT": ""}
            subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
            data.read()
            self.lines = {Path(file): data.contexts_by_lineno(file) for file in data.measured_files()}

    def tests(self, mutant: Mutant) -> set[str]:
        """Those that are seen in the body of the function around it."""
        functions = [node for node in mutant.around() if isinstance(node, ast.FunctionDef)]
        body = range(functions[-1].body[0].lineno, functions[-1].end_lineno + 1) if functions else ()
        lines = self.lines.get(mutant.file, {})
        return {test for line in body for test in lines.get(line, ()) if test}


def pytest_runtest_protocol(item: Any) -> None:
    """What runs from here on is this test's, if anyone traces it."""
    if tracer := coverage.Coverage.current():
        tracer.switch_context(item.nodeid)


def killed(mutant: Mutant, tests: list[str], reach: set[str] | None = None) -> bool:
    """Whether a test fails, or they can't begin or don't end, on a copy of the package that has the mutant."""
    first = [test for test in tests if any(known.startswith(test) for known in reach or ())]
    return any(_noticed(mutant, some, reach or set()) for some in (first, [t for t in tests if t not in first]) if some)


def _noticed(mutant: Mutant, tests: list[str], reach: set[str]) -> bool:
    code, output = _tests(mutant, tuple(tests), reach)
    failed = re.search(r"^(?:FAILED|ERROR) (\S+?\.py)(::\w+)*", output, re.MULTILINE)
    blamed = [failed[0].split()[1]] if failed else tests
    if code != 0 and _unchanged(SECONDS, *blamed)[0] != 0:
        late = f" (more than {SECONDS} s)" if code == LATE else ""
        raise RuntimeError(f"without any mutant pytest exits {code}{late}, too, for {', '.join(blamed)}: {output}")
    return code != 0


@functools.cache
def _unchanged(seconds: float, *tests: str) -> tuple[int, str]:
    """What the tests say of the package as it is."""
    return _tests(Mutant(ROOT / "tinygen" / "__init__.py", 0, 0, ""), tests)


def _tests(mutant: Mutant, tests: tuple[str, ...], reach: Iterable[str] = ()) -> tuple[int, str]:
    """pytest's exit code, LATE if it was stopped, and the last it said."""
    name = mutant.file.relative_to(ROOT / "tinygen")
    with tempfile.TemporaryDirectory() as folder:
        for part in ("tinygen", "tests"):
            shutil.copytree(ROOT / part, Path(folder, part))  # with what is compiled already
        for part in ("pyproject.toml", "setup.py", "csrc"):
            Path(folder, part).symlink_to(ROOT / part)
        Path(folder, "tinygen", name).write_text(mutant.applied())
        limited = f'ulimit -S -t {SECONDS} && ulimit -H -t {SECONDS + 9} && exec "$0" "$@"'
        pytest = [sys.executable, "-m", "pytest", "-x", *QUIETLY, *tests]
        environment = {**os.environ, "PYTHONPATH": folder, "CI": "1", "TINYGEN_REQUIRE_PARITY": "", "TINYGEN_FULL": ""}
        environment["TINYGEN_MUTANT"] = str(Path(folder, "likely.json"))
        Path(folder, "likely.json").write_text(json.dumps([list(reach), mutant.names()]))
        try:
            done = subprocess.run(
                ["sh", "-c", limited, *pytest], cwd=folder, env=environment, capture_output=True, timeout=10 * SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return LATE, ""
    return done.returncode, done.stdout.decode()[-2000:]


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """The likeliest to notice come first: those that reach the mutant, and the more of its names they have."""
    if not os.environ["TINYGEN_MUTANT"]:
        return

    def plain(name: str) -> str:
        return name.replace("_", "").lower()

    reach, names = json.loads(Path(os.environ["TINYGEN_MUTANT"]).read_text())
    reach, names = set(reach), [plain(name) for name in names]
    items.sort(key=lambda item: (item.nodeid not in reach, -sum(name in plain(item.name) for name in names)))


class Kept:
    """What was found of mutants before: a line of JSON each in a file, if there is one."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path and path.exists() else []
        self.found: dict[str, bool] = dict(map(json.loads, lines))

    def killed(self, mutant: Mutant, tests: list[str], reach: set[str]) -> bool:
        """As `killed`; one that was found is known by its file's text, whatever the tests were then."""
        name = mutant.file.relative_to(ROOT).as_posix()
        key = hashlib.sha256(f"{name}\0{mutant.applied()}".encode()).hexdigest()[:24]
        if key not in self.found:
            self.found[key] = killed(mutant, tests, reach)
            if self.path:
                with self.path.open("a") as file:
                    file.write(json.dumps([key, self.found[key]]) + "\n")
        return self.found[key]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", type=Path, help="default: the engine, ops, nn and optim")
    parser.add_argument("-n", type=int, default=60, help="how many mutants (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="which (default %(default)s)")
    parser.add_argument("--kept", metavar="FILE", type=Path, help="what was found stands there, and is added to it")
    args = parser.parse_args(arguments)
    package = ROOT / "tinygen"
    rooms = [file for room in ROOMS for file in sorted((package / room).glob("[a-z]*.py"))]
    files = [file.resolve() for file in args.files] or [*(package / name for name in FILES), *rooms]
    chosen, possible = sample(files, args.n, args.seed)
    tests = [tests_of(mutant.file) for mutant in chosen]
    reach = Reach(itertools.chain(*tests) if args.n > FEW else ())
    kept, alive = Kept(args.kept), []
    with ThreadPoolExecutor(os.cpu_count()) as at_once:
        found = at_once.map(kept.killed, chosen, tests, map(reach.tests, chosen))
        for number, (mutant, dead) in enumerate(zip(chosen, found, strict=True), 1):
            alive += [] if dead else [mutant]
            print(f"{number:>4}/{len(chosen)}  {'killed' if dead else 'LIVES '}  {mutant}", flush=True)
    score = 1 - len(alive) / len(chosen)
    print(f"{len(chosen) - len(alive)} of {len(chosen)} mutants killed ({score:.0%}), of {possible:,} possible")
    return 0 if score >= 0.95 else 1


if __name__ == "__main__":
    sys.exit(main())
