"""`tinygen gradcheck FILE` on files as people have them: layer classes, ops, stubs, guessed inputs, odd imports."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tinygen
from tinygen import tape
from tinygen.gradcheck.command import NOT_RUN, RIGHT, WRONG, check_file, main

ROOT = Path(tinygen.__file__).parent.parent


@pytest.fixture
def check(tmp_path):
    """The reports on a file of that text, by name."""

    def run(text, limit=10.0):
        file = tmp_path / f"file{len(list(tmp_path.iterdir()))}.py"
        file.write_text("import numpy as np\n" + text)
        return {r.name: r for r in check_file(file, limit=limit)}

    return run


# ------------------------------------------------------------------------------------------------------------- layers

FORMS = {
    "attributes": ("self.W, self.b = W, b", "self.W", "self.b", "self.dW = {}", "self.db = {}"),
    "grad_": ("self.weight, self.bias = W, b", "self.weight", "self.bias", "self.grad_weight = {}",
              "self.grad_bias = {}"),
    "two dicts": ("self.params = {'W': W, 'b': b}", "self.params['W']", "self.params['b']",
                  "self.grads = getattr(self, 'grads', {}); self.grads['W'] = {}", "self.grads['b'] = {}"),
    "grads on the side": ("self.W, self.b, self.grads = W, b, {}", "self.W", "self.b", "self.grads['W'] = {}",
                          "self.grads['b'] = {}"),
    "keys with d": ("self.W, self.b, self.grads = W, b, {}", "self.W", "self.b", "self.grads['dW'] = {}",
                    "self.grads['db'] = {}"),
    "two lists": ("self.params, self.grads = [W, b], [0 * W, 0 * b]", "self.params[0]", "self.params[1]",
                  "self.grads[0][...] = {}", "self.grads[1][...] = {}"),
    "adding up": ("self.W, self.b, self.dW, self.db = W, b, 0 * W, 0 * b", "self.W", "self.b", "self.dW += {}",
                  "self.db += {}"),
}  # fmt: skip

IN_PLACE = ("two lists", "adding up")  # there a row is broadcast into the array


def layer(form, dw="self.x.T @ dout", db="dout.sum(0)", start="self, n_in, n_out"):
    init, w, b, set_w, set_b = FORMS[form]
    make = "W, b = np.random.randn(n_in, n_out), np.zeros(n_out)\n        " if "n_in" in start else ""
    set_w = set_w[:-2] + dw  # the text before has braces of its own
    return (
        f"class Layer:\n    def __init__({start}):\n        {make}{init}\n"
        f"    def forward(self, x):\n        self.x = x\n        return x @ {w} + {b}\n"
        f"    def backward(self, dout):\n        {set_w}\n"
        f"        {set_b.replace('{}', db)}\n        return dout @ {w}.T\n"
    )


@pytest.mark.parametrize("start", ["self, n_in, n_out", "self, W, b", "self, n_in=4, n_out=3"])
@pytest.mark.parametrize("form", FORMS)
def test_the_parameters_of_a_layer_are_checked_wherever_their_gradients_are(check, form, start):
    report = check(layer(form, start=start))["Layer"]
    assert report.verdict == "right", str(report)
    assert len(report.compared) == 3
    report = check(layer(form, db="2 * dout.sum(0)", start=start))["Layer"]
    assert report.cause == "factor", str(report)
    report = check(layer(form if form not in IN_PLACE else "attributes", dw="(self.x.T @ dout)[:1]", start=start))[
        "Layer"
    ]
    assert report.cause == "wrong shape", str(report)


def test_a_layer_without_gradients_of_its_parameters_says_that_only_dx_was_checked(check):
    report = check(
        "class Layer:\n"
        "    def __init__(self): self.W = np.ones((4, 3))\n"
        "    def forward(self, x): return x @ self.W\n"
        "    def backward(self, dout): return dout @ self.W.T\n"
    )["Layer"]
    assert report.verdict == "right"
    assert [*report.compared] == ["dx"]
    assert "only the gradients by the inputs were checked: no gradient of self.W was found" in str(report)


def test_a_layer_that_is_a_loss_and_one_that_draws_random_numbers(check):
    reports = check(
        "class SoftmaxWithLoss:\n"
        "    def forward(self, x, t):\n"
        "        e = np.exp(x)\n"
        "        self.t, self.y = t, e / e.sum(1, keepdims=True)\n"
        "        return -np.log(self.y[np.arange(len(x)), t]).mean()\n"
        "    def backward(self, dout=1):\n"
        "        dx = self.y.copy()\n"
        "        dx[np.arange(len(dx)), self.t] -= 1\n"
        "        return dx / len(dx)\n"
        "class Dropout:\n"
        "    def __init__(self, p=0.5): self.p = p\n"
        "    def forward(self, x):\n"
        "        self.mask = np.random.rand(*x.shape) < self.p\n"
        "        return x * self.mask\n"
        "    def backward(self, dout): return dout * self.mask\n"
    )
    assert reports["SoftmaxWithLoss"].verdict == "right", str(reports["SoftmaxWithLoss"])
    assert reports["Dropout"].verdict == "right", str(reports["Dropout"])


# ---------------------------------------------------------------------------------------------------------------- ops


def test_the_op_of_the_documentation(tmp_path, capsys):
    text = (ROOT / "docs" / "engine.md").read_text().partition("## An op, end to end")[2]
    code = text.partition("```python\n")[2].partition("```")[0].replace("gaussian", "gaussian_of_the_docs")
    file = tmp_path / "my_ops.py"
    file.write_text(code)
    try:
        assert main([str(file)]) == RIGHT
        out = capsys.readouterr().out
        assert "gaussian_of_the_docs: right: " in out
        assert " of dgout" in out  # the second order
        wrong_rule = code.replace("-gout * x", "-gout")
        for wrong in (wrong_rule, wrong_rule.partition("print(check(")[0]):
            tape.REGISTRY.pop("gaussian_of_the_docs")
            file.write_text(wrong.replace("from tinygen.gradcheck import\n", ""))
            assert main([str(file)]) == WRONG
            assert "gaussian_of_the_docs: wrong" in capsys.readouterr().out
    finally:
        tape.REGISTRY.pop("gaussian_of_the_docs", None)


def test_an_op_with_samples_of_its_own_and_one_wrong_in_the_second_order(check):
    names = ("taken_to_the_power", "cubed_once")
    try:
        reports = check(
            "from tinygen.tape import op\n"
            "from tinygen.ops._samples import sample\n"
            "@op\n"
            "def taken_to_the_power(x, n): return x ** n\n"
            "@taken_to_the_power.vjp('x')\n"
            "def _(gout, x, n): return gout * n * x ** (n - 1)\n"
            "@taken_to_the_power.samples\n"
            "def _(rng): yield sample(rng.uniform(0.5, 2, (3, 4)), n=3)\n"
            "@op\n"
            "def cubed_once(x): return x ** 3\n"
            "@cubed_once.vjp('x')\n"
            "def _(gout, x): return gout * (3 * np.asarray(getattr(x, 'numpy', lambda: x)()) ** 2)\n"
        )
    finally:
        for name in names:
            tape.REGISTRY.pop(name, None)
    assert reports["taken_to_the_power"].verdict == "right", str(reports["taken_to_the_power"])
    assert reports["cubed_once"].verdict == "wrong"


# -------------------------------------------------------------------------------------------------------------- stubs


def test_stubs_are_not_written(tmp_path, capsys):
    file = tmp_path / "stubs.py"
    file.write_text(
        "import numpy as np\n"
        "def affine_forward(x, w, b):\n"
        "    out = None\n"
        "    # TODO: Implement the affine forward pass.\n"
        "    pass\n"
        "    cache = (x, w, b)\n"
        "    return out, cache\n"
        "def affine_backward(dout, cache):\n"
        "    x, w, b = cache\n"
        "    dx, dw, db = None, None, None\n"
        "    pass\n"
        "    return dx, dw, db\n"
        "def relu_forward(x): return np.maximum(x, 0), x\n"
        "def relu_backward(dout, cache): raise NotImplementedError()\n"
        "def softmax_loss(x, y):\n"
        "    loss, dx = None, None\n"
        "    return loss, dx\n"
        "class Layer:\n"
        "    def forward(self, x): raise NotImplementedError\n"
        "    def backward(self, dout): raise NotImplementedError\n"
    )
    assert main([str(file)]) == NOT_RUN
    out = capsys.readouterr().out
    assert out.endswith("0 right, 4 not written\n"), out


# --------------------------------------------------------------------------------------------------- guessed arguments


def test_layers_whose_parameters_are_one_a_feature(check):
    reports = check(
        "def bias_forward(x, b): return x + b, None\n"
        "def bias_backward(dout, cache): return dout, dout.sum(axis=0)\n"
        "def scale_forward(x, g): return x * g, (x, g)\n"
        "def scale_backward(dout, c): return dout * c[1], (dout * c[0]).sum(axis=0)\n"
        "def prelu_forward(x, a): return np.where(x > 0, x, a * x), (x, a)\n"
        "def prelu_backward(dout, c): return dout * np.where(c[0] > 0, 1, c[1]), (dout * c[0] * (c[0] <= 0)).sum()\n"
        "def channel_forward(x, b): return x + b[:, None, None], None\n"
        "def channel_backward(dout, c): return dout, dout.sum(axis=(0, 2, 3))\n"
        "def rmsnorm_forward(x, g, eps=1e-5):\n"
        "    r = np.sqrt((x * x).mean(-1, keepdims=True) + eps)\n"
        "    return x / r * g, (x, g, r)\n"
        "def rmsnorm_backward(dout, c):\n"
        "    x, g, r = c\n"
        "    d = dout * g\n"
        "    return d / r - x * (d * x).mean(-1, keepdims=True) / r**3, (dout * x / r).sum(axis=0)\n"
        "def mean_forward(x, b): return x + b, None\n"
        "def mean_backward(dout, cache): return dout, dout.mean(axis=0)\n"
    )
    wrong = reports.pop("mean_backward")
    assert wrong.verdict == "wrong"
    assert wrong.cause == "factor"
    assert {r.verdict for r in reports.values()} == {"right"}, list(map(str, reports.values()))


def test_losses_whose_labels_are_not_those_of_softmax(check):
    reports = check(
        "def bce_loss(p, y):\n"
        "    loss = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))\n"
        "    return loss, (p - y) / (p * (1 - p)) / len(y)\n"
        "def logistic_loss(x, y):\n"
        "    p = 1 / (1 + np.exp(-x))\n"
        "    return -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)), (p - y) / len(y)\n"
        "def mse_forward(pred, target): return ((pred - target)**2).mean(), (pred, target)\n"
        "def mse_backward(dout, c): return dout * 2 * (c[0] - c[1]) / c[0].size\n"
        "def one_hot_loss(x, y):\n"
        "    p = np.exp(x) / np.exp(x).sum(1, keepdims=True)\n"
        "    return -(y * np.log(p)).sum() / len(x), (p - y) / len(x)\n"
        "def hinge_loss(x, y): return np.maximum(0, 1 - x * y).sum(), -y * (x * y < 1)\n"
        "def regression_loss(X, y, w):\n"
        "    dw = 2 * X.T @ (X @ w - y)\n"
        "    return ((X @ w - y)**2).sum(), dw\n"
    )
    assert {r.verdict for r in reports.values()} == {"right"}, list(map(str, reports.values()))


def test_a_list_of_inputs_is_one_case_and_integers_are_floats(check):
    reports = check(
        "def first_inputs(): return [np.ones((3, 4)), np.array([1, 2, 3, 4])]\n"
        "def first_forward(x, w): return x * w, (x, w)\n"
        "def first_backward(d, c): return d * c[1], (d * c[0]).sum(0)\n"
        "def ints_inputs(): return [np.array([1, 2])]\n"
        "def ints_forward(x): return x * x, x\n"
        "def ints_backward(d, x): return 100 * d\n"
        "def two_inputs(): return [(np.ones(3),), (np.ones((2, 2)),)]\n"
        "def two_forward(x): return x * x, x\n"
        "def two_backward(d, x): return 2 * d * x\n"
        "def bad_inputs(): raise KeyError('no data')\n"
        "def bad_forward(x): return x, x\n"
        "def bad_backward(d, x): return d\n"
        "def net_inputs(): return np.ones((3, 4)), {'W': np.ones((4, 2))}\n"
        "def net_forward(x, params): return x @ params['W'], x\n"
        "def net_backward(d, x): return {'W': x.T @ d * 7}\n"
    )
    assert reports["first_backward"].compared == {"dx": (12, 12)}
    assert reports["ints_backward"].verdict == "wrong"
    assert "on 2 sets of shapes" in str(reports["two_backward"])
    assert "KeyError: 'no data'" in str(reports["bad_backward"])
    assert reports["bad_backward"].verdict == "not run"
    assert reports["net_backward"].problems[0].hint.startswith("yours is 7 times")


def test_a_dropout_layer_that_is_wrong_in_test_mode_only(check):
    report = check(
        "def dropout_forward(x, dropout_param):\n"
        "    p = dropout_param\n"
        "    np.random.seed(p['seed'])\n"
        "    mask = (np.random.rand(*x.shape) < p['p']) / p['p'] if p['mode'] == 'train' else np.ones(x.shape)\n"
        "    return x * mask, (mask, p)\n"
        "def dropout_backward(dout, cache):\n"
        "    return dout * cache[0] * (1 if cache[1]['mode'] == 'train' else cache[1]['p'])\n"
    )["dropout_backward"]
    assert report.verdict == "wrong"
    assert report.when == "only in test mode"


# ------------------------------------------------------------------------------------------------------------- imports


def test_a_dataclass_with_annotations_from_the_future(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class Options:\n"
        "    n: int = 3\n"
        "def twice_forward(x): return 2 * x, Options()\n"
        "def twice_backward(d, c): return 2 * d\n"
    )
    assert [r.verdict for r in check_file(file)] == ["right"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("while True: pass", "still running after 0.6 s"),
        ("import time; time.sleep(60)", "still running after 0.6 s"),
        ("name = input('Name? ')", "asks for input; put that under"),
    ],
)
def test_a_file_that_does_things_when_it_is_imported(tmp_path, capsys, text, said):
    file = tmp_path / "mine.py"
    file.write_text(f"{text}\ndef relu_forward(x): return x, x\ndef relu_backward(d, c): return d\n")
    start = time.monotonic()
    assert main([str(file), "--limit", "0.2"]) == NOT_RUN
    assert time.monotonic() - start < 30
    assert said in capsys.readouterr().err


RIGHT_FILE = "def twice_forward(x): return 2 * x, None\ndef twice_backward(d, c): return 2 * d\n"


def command(file: Path, **options) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tinygen", "gradcheck", str(file)],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def test_a_pipe_that_nobody_reads(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(RIGHT_FILE)
    read, write = os.pipe()
    os.close(read)
    process = command(file, stdout=write)
    os.close(write)
    _, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")


def test_control_c_ends_without_a_traceback(tmp_path):
    file = tmp_path / "mine.py"
    flag = tmp_path / "running"
    file.write_text(
        f"import time\ndef twice_forward(x):\n    open({str(flag)!r}, 'w').close()\n    time.sleep(60)\n"
        "def twice_backward(d, c): return 2 * d\n"
    )
    process = command(file, stdout=subprocess.PIPE)
    while not flag.exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert (process.returncode, errors) == (130, "interrupted\n")
