"""A verdict of "right" means that numbers were compared, and the report says how many."""

import json

import numpy as np
import pytest

from tinygen.gradcheck import check, check_loss, check_module, check_pair
from tinygen.gradcheck.command import check_file

R = np.random.default_rng(0)
X = R.standard_normal((3, 4))
PARAMS = {"W1": R.standard_normal((4, 5)), "b1": R.standard_normal(5), "W2": R.standard_normal((5, 2))}


def square(a):
    a = np.asarray(a)
    return a * a * 1.0, a


def right(dout, a):
    return 2 * dout * a


def wrong(dout, a):
    return 100 * dout


NUMBERS = [np.array([1, 2]), [1.0, 2.0], [1, 2], 3.0, 3, np.float64(2), np.float16([1, 2]), np.array([1, 2.0], object)]


@pytest.mark.parametrize("value", NUMBERS, ids=repr)
def test_numbers_in_any_form_are_checked(value):
    n = np.size(value)
    report = check_pair(square, right, (value,))
    assert report.verdict == "right"
    assert report.compared == {"da": (n, n)}
    assert f"right: {n} of {n} elements of da" in str(report)
    assert check_pair(square, wrong, (value,)).verdict == "wrong"


@pytest.mark.parametrize("value", [np.array([1j, 2]), np.zeros(0), True, {"mode": "train"}], ids=repr)
def test_nothing_to_compare_is_not_run(value):
    report = check_pair(lambda a: (np.ones(3), a), lambda dout, a: 0 * dout, (value,))
    assert report.verdict == "not run"
    assert "a is a" in str(report)
    assert "right" not in str(report)


def test_a_loss_of_integers_is_checked():
    args = np.array([1, 2]), np.array([3, 4])
    assert check_loss(lambda x, y: ((x * y).sum(), y), args).compared == {"dx": (2, 2)}
    assert check_loss(lambda x, y: ((x * y).sum(), 2 * y), args).verdict == "wrong"


def test_what_float16_can_not_show_is_not_counted():
    def half(x):
        return x.astype(np.float16) * np.float16(2), None

    report = check_pair(half, lambda d, c: 2 * d, (X,))
    assert report.compared["dx"][0] < 12
    assert "can't be decided" in str(report)
    assert check_pair(half, lambda d, c: 100 * d, (X,)).verdict == "wrong"


def test_a_number_with_a_gradient_is_an_argument():
    def scale(x, s):
        return x * s, (x, s)

    report = check_pair(scale, lambda d, c: (d * c[1], (d * c[0]).sum()), (X, 2.0))
    assert report.compared == {"dx": (12, 12), "ds": (1, 1)}
    assert check_pair(scale, lambda d, c: (d * c[1], (d * c[0]).mean()), (X, 2.0)).right == ["dx"]


def net_forward(X, params):
    h = np.tanh(X @ params["W1"] + params["b1"])
    return h @ params["W2"], (X, h, params)


def net_backward(dout, cache):
    X, h, params = cache
    dh = dout @ params["W2"].T * (1 - h * h)
    return {"W1": X.T @ dh, "b1": dh.sum(0), "W2": h.T @ dout}


@pytest.mark.parametrize("form", ["{}", "d{}", "d_{}", "grad_{}", "{}_grad"])
def test_gradients_in_a_dict_belong_to_the_parameters_of_that_name(form):
    def named(dout, cache):
        return {form.format(k): g for k, g in net_backward(dout, cache).items()}

    report = check_pair(net_forward, named, (X, PARAMS))
    assert report.compared == {"dW1": (20, 20), "db1": (5, 5), "dW2": (10, 10)}
    assert report.notes == ["no gradient is returned for X: it was not checked"]

    def doubled(dout, cache):
        grads = named(dout, cache)
        return grads | {form.format("b1"): 2 * grads[form.format("b1")]}

    report = check_pair(net_forward, doubled, (X, PARAMS))
    assert (report.cause, report.problems[0].argument, report.right) == ("factor", "db1", ["dW1", "dW2"])


def test_dicts_of_gradients_beside_others_and_with_something_missing():
    def with_dx(dout, cache):
        grads = net_backward(dout, cache)
        h = cache[1]
        return (dout @ PARAMS["W2"].T * (1 - h * h)) @ PARAMS["W1"].T, grads

    assert [*check_pair(net_forward, with_dx, (X, PARAMS)).compared] == ["dX", "dW1", "db1", "dW2"]

    def without(dout, cache):
        return {k: g for k, g in net_backward(dout, cache).items() if k != "b1"}

    assert check_pair(net_forward, without, (X, PARAMS)).cause == "no gradient"
    report = check_pair(net_forward, lambda dout, cache: {"theta": 1}, (X, PARAMS))
    assert "a dict with the keys theta: none names an argument" in str(report)


def todo_none(dout, cache):
    """The gradient."""
    dx, dw = None, None
    # TODO
    return dx, dw


def todo_zeros(dout, cache):
    x = cache
    dx = np.zeros_like(x)  # TODO
    return dx  # noqa: RET504


def todo_raise(dout, cache):
    raise NotImplementedError("yours")


def todo_pass(dout, cache):
    pass


@pytest.mark.parametrize("stub", [todo_none, todo_zeros, todo_raise, todo_pass])
def test_a_stub_is_not_written_rather_than_wrong(stub):
    report = check_pair(square, stub, (X,))
    assert report.verdict == "not written"
    assert not report
    assert stub.__name__ in str(report)


def test_a_written_function_that_returns_none_or_zeros_is_wrong():
    def forgets(dout, cache):
        dx = 2 * dout * cache  # noqa: F841

    def zeros(dout, cache):
        dx = np.zeros_like(cache)
        return dx  # noqa: RET504

    assert check_pair(square, forgets, (X,)).verdict == "wrong"
    assert check_pair(square, zeros, (X,)).verdict == "wrong"
    assert check_pair(lambda x: (np.ones(3), x), zeros, (X,)).verdict == "right"  # a constant's gradient


def test_counts_are_in_the_json_and_in_the_text_of_many():
    report = check_pair(square, right, (X,))
    assert json.loads(report.json())["compared"] == {"da": [12, 12]}
    many = check(lambda *xs: sum(x * x for x in xs), [X] * 9)
    assert "right: 108 of 108 elements of 9 gradients" in str(many)


def test_modules_count_too():
    from tinygen import nn

    report = check_module(nn.Linear(4, 2, rng=R), (X,))
    assert sum(n for n, _ in report.compared.values()) == 8 + 2 + 12


def test_a_backward_that_draws_the_mask_anew_is_wrong():
    """Global random numbers come back the same at each call of forward, but must not be those of backward."""

    def forward(x):
        mask = np.random.rand(*x.shape) < 0.5  # noqa: NPY002
        return x * mask, mask

    assert check_pair(forward, lambda dout, mask: dout * mask, (X,)).verdict == "right"
    assert check_pair(forward, lambda dout, mask: dout * (np.random.rand(*X.shape) < 0.5), (X,)).verdict == "wrong"  # noqa: NPY002


FILE = """
import functools
import numpy as np

class Slots:
    __slots__ = "W", "dW", "x"
    def __init__(self, W):
        self.W, self.dW = W, None
    def forward(self, x):
        self.x = x
        return x @ self.W
    def backward(self, dout):
        self.dW = FACTOR * self.x.T @ dout
        return dout @ self.W.T

def scale(k, x):
    return k * x, None

times_forward = functools.partial(scale, 3)
times_backward = functools.partial(lambda k, dout, cache: k * dout, 3 * FACTOR)
"""


@pytest.mark.parametrize(("factor", "verdict"), [(1, "right"), (2, "wrong")])
def test_slots_and_partial_functions(tmp_path, factor, verdict):
    path = tmp_path / "odd.py"
    path.write_text(FILE.replace("FACTOR", str(factor)))
    reports = {r.name: r for r in check_file(str(path))}
    assert {name: r.verdict for name, r in reports.items()} == {"Slots": verdict, "times_backward": verdict}
    assert reports["Slots"].compared["dW"][1]
