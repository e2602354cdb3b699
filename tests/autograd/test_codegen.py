"""Generated code: the engine does the same without it, and debuggers show its lines."""

from __future__ import annotations

import io
import json
import linecache
import os
import pdb
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

import tinygen
from tests.autograd.helpers import var
from tinygen import op, tape

ROOT = Path(__file__).parents[2]
WITHOUT = """
import sys, types
sys.modules["tinygen._codegen"] = types.ModuleType("nothing in its place")
"""
PLAIN = """
import tinygen
assert type(tinygen.mul.op) is tinygen.tape.Op
"""
SAMPLES = """
import hashlib, json
from tests.ops.test_ops import CASES
digests = {}
for number, case in enumerate(CASES):
    arrays = []
    arrays += case.call(case.values())
    if case.floats:
        results, grads = case.gradients(case.values("float32"), case.upstream("float32"), "float32")
        arrays += results + grads + case.gradients(case.values(), case.upstream(), create_graph=True)[1]
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    digests[f"{number}: {case.op.name}"] = digest.hexdigest()
print(json.dumps(digests))
"""
TESTS = """
import pytest
names = ("tensor", "leaves", "gradients", "op", "in_place", "modes", "failures")
files = [f"tests/autograd/test_{name}.py" for name in names]
options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:randomly", "-k", "not long_chain"]
assert pytest.main([*files, "tests/test_debug.py", *options]) == 0
"""


def run(code):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_every_op_gives_the_same_bits_without_it():
    """Values, gradients in float32, and gradients with create_graph, of all the ops' samples."""
    want, got = json.loads(run(SAMPLES)), json.loads(run(WITHOUT + SAMPLES + PLAIN))
    assert len(want) > 100
    assert [name for name in want if got[name] != want[name]] == []


def test_the_engines_tests_pass_without_it():
    assert " passed" in run(WITHOUT + TESTS + PLAIN)


@pytest.fixture
def failing():
    @op
    def halve(x, y):
        return x / 2 + y

    @halve.vjp("x")
    def _(gout):
        raise ArithmeticError("on purpose")

    halve.vjp("y")(lambda gout, x: gout * x)
    return halve


def generated(error):
    """(name of a function of generated code, its line) for each frame in it."""
    frames = traceback.extract_tb(error.value.__traceback__)
    return [(frame.name, frame.line) for frame in frames if frame.filename.startswith("<tinygen ")]


def test_a_traceback_shows_the_generated_lines(failing):
    with pytest.raises(ValueError, match="halve") as error:
        failing(var(1, 2), var(1, 2, 3))
    linecache.checkcache()  # which drops the lines of files that have changed on disk
    ((name, line),) = generated(error)
    assert name == "halve"
    assert line.startswith("except Exception as _e: _op.fail(")
    with pytest.raises(ArithmeticError) as error:
        failing(var(1, 2), var(1, 2)).sum().backward()
    assert generated(error) == [("vjp", "def vjp(_plan, p0, p1): return (_rule0(p0), _rule1(p0, p1), )")]


def test_the_debugger_lists_them(failing):
    with pytest.raises(ArithmeticError) as error:
        failing(var(1, 2), var(1, 2)).sum().backward()
    tb, out = error.value.__traceback__, io.StringIO()
    while not tb.tb_frame.f_code.co_filename.startswith("<tinygen "):
        tb = tb.tb_next
    tb.tb_next = None
    debugger = pdb.Pdb(stdout=out, nosigint=True, readrc=False)
    debugger.setup(None, tb)
    debugger.onecmd("list")  # without "quit", which would end the measuring of what the tests cover
    assert "  1  ->\tdef vjp(_plan, p0, p1): return (_rule0(p0), _rule1(p0, p1), )" in out.getvalue()


def test_each_function_has_lines_of_its_own(failing):
    plans = [failing.op.plan(mask, 2, False) for mask in (0b01, 0b10, 0b11)]
    for plan in plans:
        for fn in (plan.record, plan.vjp):
            lines = linecache.getlines(fn.__code__.co_filename)
            assert lines[fn.__code__.co_firstlineno - 1].startswith(f"def {fn.__name__}(_plan, ")
    assert len({fn.__code__.co_filename for plan in plans for fn in (plan.record, plan.vjp)}) == 6
    assert type(failing.op) is tape.kind is not tape.Op
    assert tinygen.add.__code__.co_filename == "<tinygen add>"
