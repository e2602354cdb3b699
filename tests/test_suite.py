"""The suite itself: it notices errors, covers the code, doesn't depend on its order, and runs on every Python.

Here a sample of each; with TINYGEN_FULL=1 in the environment all of it, which takes an hour or two.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import mutation

ROOT = Path(__file__).parent.parent
FULL = os.environ.get("TINYGEN_FULL") == "1"
LEAST = (3, 11)
PYTHONS = [f"python3.{minor}" for minor in range(LEAST[1], 40)]
REST = ["-q", "-p", "no:cacheprovider", "-p", "randomly", "--ignore=tests/test_suite.py"]
WHOLE = ["-n", "auto"]


def run(*command, python=sys.executable, root=ROOT, **environment):
    environment = {**os.environ, "TINYGEN_FULL": "", "PYTEST_ADDOPTS": "", **environment}
    done = subprocess.run([python, "-m", *command], cwd=root, capture_output=True, text=True, env=environment)
    _, failures, what = done.stdout.partition("= FAILURES =")
    assert done.returncode == 0, (what[:20_000] if failures else done.stdout[-3000:]) + done.stderr[-3000:]
    return done.stdout


@pytest.mark.fault("S01")
def test_small_errors_are_noticed(capsys):
    assert mutation.main(["-n", "100" if FULL else "2"]) == 0, capsys.readouterr().out


HARMLESS = mutation.Mutant(mutation.ROOT / "tinygen" / "ops" / "pooling.py", 0, 0, "# the same\n")


def test_what_changes_nothing_is_no_error():
    assert not mutation.killed(HARMLESS, ["tests/kernels/test_layout.py"])


def test_what_is_as_slow_without_an_error_is_no_error_found(monkeypatch):
    monkeypatch.setattr(mutation, "SECONDS", 0)
    with pytest.raises(
        RuntimeError,
        match=rf"without any mutant pytest exits {mutation.LATE} \(more than 0 s\), too, for "
        r"tests/kernels/test_layout\.py",
    ):
        mutation.killed(HARMLESS, ["tests/kernels/test_layout.py"])


@pytest.mark.fault("S02", "S03")
def test_branches_and_lines_are_covered(tmp_path):
    """Of the sample: the engine's branches, by its own tests but for the long ones; no lines of C and CUDA."""
    tests = (
        [*WHOLE, "--randomly-seed=0"] if FULL else ["tests/autograd", "-k", "not (chain or same_bits or 1000_steps)"]
    )
    files = "tinygen/*" if FULL else "tinygen/_tensor.py,tinygen/modes.py,tinygen/tape.py,tinygen/autograd.py"
    environment = {"COVERAGE_FILE": str(tmp_path / "coverage")}
    run("coverage", "run", "-m", "pytest", *REST, *tests, **environment)
    run("coverage", "combine", "-q", str(tmp_path), **environment)
    report = run("coverage", "report", f"--include={files}", **environment)
    assert int(re.search(r"TOTAL.* (\d+)%", report).group(1)) >= 95, report
    for kernels in ("tests.sanitize", "tests.cuda") if FULL else ():
        run(kernels, "coverage")  # fails below 95 %


@pytest.mark.fault("S03")
@pytest.mark.parametrize("seed", range(1, 9) if FULL else [1])
def test_any_order(seed):
    """Eight; the ninth counts what is covered, the tenth is that of the run whose test this is."""
    tests = WHOLE if FULL else ["tests/nn/test_nn.py", "tests/test_optim.py"]
    run("pytest", *REST, f"--randomly-seed={seed}", *tests)


@pytest.mark.fault("S04")
def test_the_oldest_python_understands_every_file():
    assert f'requires-python = ">={LEAST[0]}.{LEAST[1]}"' in (ROOT / "pyproject.toml").read_text()
    for file in [*ROOT.glob("tinygen/**/*.py"), *ROOT.glob("tests/**/*.py"), *ROOT.glob("benchmarks/**/*.py")]:
        ast.parse(file.read_text(), str(file), feature_version=LEAST)


def starts(python):
    """Whether there is a Python of this name, which is not only a launcher for one."""
    return shutil.which(python) and subprocess.run([python, "-c", ""], capture_output=True).returncode == 0


@pytest.mark.fault("S04")
def test_every_python_that_is_installed(tmp_path):
    """Each but the one that runs this in a tree of its own, with its own kernels. Of the sample: none of them."""
    assert sys.version_info >= LEAST
    others = [name for name in PYTHONS if name != f"python3.{sys.version_info.minor}"]
    for name in filter(starts, others if FULL else []):
        tree, python = tmp_path / name, tmp_path / name / ".venv" / "bin" / "python"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git", ".venv", "build", "__pycache__", "*.so"))
        run("venv", str(tree / ".venv"), python=name)
        run("pip", "install", "-q", "-e", ".[test]", python=python, root=tree, NVCC="")
        assert "built; " in run("tinygen", "doctor", python=python, root=tree)
        run("pytest", *REST, *WHOLE, python=python, root=tree, TINYGEN_REQUIRE_PARITY="")
