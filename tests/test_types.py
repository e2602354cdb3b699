"""What type checkers are told of tinygen: enough for a user's own model, and no more than is true."""

import ast
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import tinygen
from tests import model_with_types
from tinygen import nn

ROOT = Path(__file__).parents[1]


def test_a_model_with_types_is_accepted_and_its_mistakes_are_found():
    file = ROOT / "tests" / "model_with_types.py"
    strict = ["--strict", "--follow-imports=silent", "--config-file=", "--no-error-summary", "--hide-error-context"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *strict, f"--cache-dir={ROOT / 'build' / 'mypy'}", str(file)],
        cwd=ROOT, capture_output=True, text=True, env=os.environ | {"MYPYPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    found = re.findall(r"^[^:]+:(\d+): error: .*\[([\w-]+)\]$", done.stdout, re.M)
    marked = re.findall(r"^(\d+): .*# error: ([\w-]+)$", numbered(file), re.M)
    assert found == marked, done.stdout + done.stderr
    assert len(found) == 14


def numbered(file):
    return "\n".join(f"{i}: {line}" for i, line in enumerate(file.read_text().splitlines(), 1))


def test_it_runs_as_well():
    assert model_with_types.train(100) < model_with_types.train(1)
    assert model_with_types.formulas(tinygen.tensor([[0.5, 2.0]])).shape == ()


def test_the_operators_are_told_as_they_are():
    """The names, the order, the defaults of the arguments; and all of the methods that are attached."""
    (told,) = [
        n for n in ast.parse((ROOT / "tinygen" / "_operators.pyi").read_text()).body if isinstance(n, ast.ClassDef)
    ]
    methods = {n.name: n.args for n in told.body if isinstance(n, ast.FunctionDef)}
    attached = {
        name for name, value in vars(tinygen.Tensor).items()
        if getattr(getattr(value, "fget", value), "__module__", "").startswith(("tinygen.ops", "tinygen.autograd"))
    }  # fmt: skip
    assert set(methods) == attached
    for name, args in methods.items():
        if isinstance(vars(tinygen.Tensor)[name], property) or name.startswith("__r") or args.vararg:
            continue
        _, *real = inspect.signature(getattr(tinygen.Tensor, name)).parameters.values()
        assert [a.arg for a in args.args[1:] + args.kwonlyargs] == [p.name for p in real], name
        defaults = [p.default for p in real if p.default is not inspect.Parameter.empty]
        assert [ast.literal_eval(d) for d in args.defaults + args.kw_defaults] == defaults, name


def test_all_that_a_package_imports_for_its_users_is_exported():
    """A name that is only imported isn't there for `mypy --strict`."""
    for package in (tinygen, nn):
        tree = ast.parse(Path(package.__file__).read_text())
        imported = {a.asname or a.name for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names}
        assert set(package.__all__) == {name for name in imported if not name.startswith("_")}
