"""`tinygen gradcheck FILE[::NAME]` and the pytest plugin, as a student runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tinygen
from tests.gradcheck.planted import LAYERS
from tinygen.gradcheck.command import NOT_RUN, RIGHT, WRONG, check_file, main

ROOT = Path(tinygen.__file__).parent.parent
BROKEN = LAYERS.read_text().replace("db = dout.sum(axis=(0, 2, 3))", "db = dout.sum(axis=(2, 3))")


def test_a_right_file(capsys):
    assert main([str(LAYERS)]) == RIGHT
    out = capsys.readouterr().out
    assert out.endswith("25 right\n")
    for name in ("batchnorm_backward_alt", "lstm_backward", "svm_loss_naive", "TwoLayerNet"):
        assert f"\n{name}: right" in out


def test_one_broken_function_and_its_line(tmp_path, capsys):
    file = tmp_path / "layers with space.py"
    file.write_text(BROKEN)
    assert main([f"{file}::conv_backward_naive"]) == WRONG
    out = capsys.readouterr().out
    assert "db: missing sum: db has shape (3, 5), b has (5,): sum it over N (axis 0, size 3)" in out
    assert "layers with space.py:" in out
    assert "1 wrong" in out
    assert main([f"{file}::affine_backward"]) == RIGHT
    capsys.readouterr()
    assert main([f"{file}::conv_backward_naive", "--json"]) == WRONG
    assert json.loads(capsys.readouterr().out)["problems"][0]["cause"] == "missing sum"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(", "can't be imported: SyntaxError"),
        ("raise SystemExit(3)", "can't be imported: SystemExit"),
        ("x = 1", "no X_forward with an X_backward"),
        ("def a_forward(x): return x, x\ndef a_backward(d, c): return d", "no gradient named q"),
    ],
)
def test_what_can_not_be_run(tmp_path, capsys, text, message):
    file = tmp_path / "mine.py"
    file.write_text(text)
    assert main([f"{file}::q" if "named q" in message else str(file)]) == NOT_RUN
    assert message in capsys.readouterr().err
    assert main([str(tmp_path / "missing.py")]) == NOT_RUN


def test_files_inside_a_package_with_relative_imports(tmp_path):
    package = tmp_path / "course1"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "base.py").write_text("def double(x): return 2 * x\n")
    (package / "mine.py").write_text(
        "from .base import double\n"
        "def twice_forward(x): return double(x), None\n"
        "def twice_backward(d, c): return double(d)\n"
    )
    path = list(sys.path)
    assert [r.verdict for r in check_file(package / "mine.py")] == ["right"]
    assert sys.path == path


def test_unknown_layers_get_guessed_or_given_inputs(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "import numpy as np\n"
        "def mix_forward(a, b): return a * b, (a, b)\n"
        "def mix_backward(d, c): return d * c[1], d * c[0]\n"
        "def odd_inputs(): return np.ones(4), np.ones((2, 3)), 2, np.ones(1)\n"
        "def odd_forward(a, b, n, c): return a.sum() * b * n * c, (a, b, n, c)\n"
        "def odd_backward(d, k):\n"
        "    a, b, n, c = k\n"
        "    da, dc = np.ones(4) * (d * b * n * c).sum(), (d * a.sum() * b * n).sum(keepdims=True)[0]\n"
        "    return da, d * a.sum() * n * c, dc\n"
        "class Square:\n"
        "    def forward(self, x):\n"
        "        self.x = x\n"
        "        return x * x\n"
        "    def backward(self, d): return d * self.x\n"
        "def five_forward(a, b, c, d, e): return a, None\n"
        "def five_backward(d, c): return d\n"
    )
    reports = {r.name: r for r in check_file(file)}
    assert reports["mix_backward"]
    assert reports["odd_backward"], str(reports["odd_backward"])
    assert reports["Square"].cause == "factor"
    assert reports["five_backward"].verdict == "not run"
    assert "five_inputs()" in str(reports["five_backward"])


SANDWICHES = """
from tests.gradcheck.layers import *

def affine_relu_forward(x, w, b):
    a, fc = affine_forward(x, w, b)
    out, r = relu_forward(a)
    return out, (fc, r)

def affine_relu_backward(dout, cache):
    return affine_backward(relu_backward(dout, cache[1]), cache[0])

def affine_bn_relu_forward(x, w, b, gamma, beta, bn_param):
    a, fc = affine_forward(x, w, b)
    a, bn = batchnorm_forward(a, gamma, beta, bn_param)
    out, r = relu_forward(a)
    return out, (fc, bn, r)

def affine_bn_relu_backward(dout, cache):
    da, dgamma, dbeta = batchnorm_backward(relu_backward(dout, cache[2]), cache[1])
    return *affine_backward(da, cache[0]), dgamma, dbeta

def conv_relu_pool_forward(x, w, b, conv_param, pool_param):
    a, conv = conv_forward_naive(x, w, b, conv_param)
    a, r = relu_forward(a)
    out, pool = max_pool_forward_naive(a, pool_param)
    return out, (conv, r, pool)

def conv_relu_pool_backward(dout, cache):
    return conv_backward_naive(relu_backward(max_pool_backward_naive(dout, cache[2]), cache[1]), cache[0])
"""


def test_layers_of_layers(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(SANDWICHES)
    reports = list(check_file(file))
    assert [r.verdict for r in reports] == ["right"] * 3
    assert reports[1].right == ["dx", "dw", "db", "dgamma", "dbeta"]
    file.write_text(SANDWICHES.replace("relu_backward(dout, cache[2])", "dout"))
    assert [r.verdict for r in check_file(file)] == ["right", "wrong", "right"]


def test_what_has_no_known_inputs_or_partner_is_left_out(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "def alone_backward(d, c): return d\n"
        "class Sized:\n"
        "    def __init__(self, size): self.height, self.width = size\n"
        "    def forward(self, x): return x\n"
        "    def backward(self, d): return d\n"
        "class Model:\n"
        "    def loss(self, X, y): return 0.0, {}\n"
    )
    assert [r.verdict for r in check_file(file)] == ["not run"] * 2


def test_a_hang_on_one_shape_is_reported_and_the_rest_goes_on(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "def relu_forward(x):\n"
        "    while x.shape[0] == 1: pass\n"
        "    return x * (x > 0), x\n"
        "def relu_backward(d, x): return d * (x > 0)\n"
        "def tanh_forward(x): return x, x\n"
        "def tanh_backward(d, x):\n"
        "    while x.shape[0] == 1: pass\n"
        "    return d\n"
    )
    relu, tanh = check_file(file, limit=1.0)
    assert relu.verdict == "right"
    assert any("did not return within 1 s" in note for note in relu.notes)
    assert tanh.verdict == "wrong"
    assert tanh.cause == "hangs"


def pytest_run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest in a process of its own, with the plugin that tinygen brings."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{folder}", "PATH": ""},
        capture_output=True,
        text=True,
    )


def test_the_pytest_plugin(tmp_path):
    (tmp_path / "mylayers.py").write_text(BROKEN)
    (tmp_path / "test_mine.py").write_text(
        "import numpy as np, pytest, tinygen, mylayers as L\n"
        "def test_fixture(gradcheck): gradcheck(L.relu_forward, L.relu_backward, (np.ones((2, 3)),))\n"
        "def test_loss(gradcheck): gradcheck(L.softmax_loss, None, (np.ones((2, 3)), np.array([0, 2])))\n"
        "def test_function(gradcheck): gradcheck(tinygen.tanh, (np.ones((2, 3)),))\n"
        "@pytest.mark.gradcheck(L.tanh_forward, L.tanh_backward)\n"
        "def test_marker(): return np.ones((2, 3))\n"
        "@pytest.mark.gradcheck(L.tanh_forward, L.sigmoid_backward)\n"
        "def test_wrong(): return np.ones((2, 3))\n"
        "def test_other(): pass\n"
    )
    run = pytest_run(tmp_path, "--strict-markers", "test_mine.py", "--gradcheck", "mylayers.py", "-m", "gradcheck")
    assert run.returncode == 1, run.stdout
    assert "2 failed, 28 passed, 1 deselected" in run.stdout
    assert "db: missing sum: db has shape (3, 5), b has (5,)" in run.stdout
    assert "FAILED test_mine.py::test_wrong" in run.stdout
    plain = pytest_run(tmp_path, "mylayers.py", "test_mine.py", "--help")
    assert "--gradcheck" in plain.stdout


def test_importing_is_cheap():
    """No optional package, and nothing of the models or the command line, comes with it."""
    code = "import sys, tinygen.gradcheck; print(*[m for m in sys.modules])"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT).stdout.split()
    assert not {"torch", "jax", "autograd", "pytest", "scipy", "matplotlib"} & set(modules)
    assert not {"tinygen.models", "tinygen.cli.main", "tinygen.training"} & set(modules)
