"""check_pair and check_loss on functions that misbehave: each is reported, none is fatal, nothing outside changes."""

import contextlib
import json
import random
import signal
import time

import numpy as np
import pytest

from tests.gradcheck import layers
from tinygen.gradcheck import GradcheckError, check_loss, check_pair
from tinygen.gradcheck.report import LINES

X = np.random.default_rng(0).standard_normal((3, 4))


def forward(x):
    return np.tanh(x), x


def backward(dout, cache):
    return dout * (1 - np.tanh(cache) ** 2)


def test_right_pairs_are_right_and_the_report_is_true():
    report = check_pair(forward, backward, (X,))
    assert report
    assert report.verdict == "right"
    assert report.right == ["dx"]
    assert report.raise_if_wrong() is report


def test_a_wrong_pair_raises_on_demand_with_the_facts():
    report = check_pair(forward, lambda dout, cache: 2 * backward(dout, cache), (X,))
    with pytest.raises(GradcheckError, match="dx: factor: yours is 2") as caught:
        report.raise_if_wrong()
    problem = caught.value.report.problems[0]
    assert problem.factor == pytest.approx(2)
    facts = json.loads(report.json())
    assert facts["problems"][0]["cause"] == "factor"
    assert facts["problems"][0]["index"] == list(problem.index)
    true = problem.evidence["right"]
    assert problem.evidence["yours"] == pytest.approx(2 * true)
    assert len(str(report).splitlines()) <= LINES


def hang(dout, cache):
    while True:
        time.sleep(0.01)


def bare_except(dout, cache):
    while True:
        with contextlib.suppress(Exception):
            time.sleep(0.01)


def spoil_state(dout, cache):
    print("hello")
    np.random.seed(3)  # noqa: NPY002
    random.random()
    np.seterr(all="raise")
    return backward(dout, cache)


BAD = {
    "hangs": hang,
    "no gradient": lambda dout, cache: None,
    "raises": lambda dout, cache: 1 / 0,
    "wrong dtype": lambda dout, cache: "gradient",
    "not finite": lambda dout, cache: dout / 0.0,
    "wrong shape": lambda dout, cache: dout[:, :2],
    "zero": lambda dout, cache: 0 * dout,
    "changes upstream": lambda dout, cache: dout.__imul__(1 - np.tanh(cache) ** 2),
    "changes input": lambda dout, cache: cache.__iadd__(dout),
}


@pytest.mark.parametrize("cause", BAD)
def test_misbehaving_backwards_are_reported(cause):
    before = X.copy()
    report = check_pair(forward, BAD[cause], (X,), limit=1.0)
    assert report.verdict == "wrong"
    assert cause in [f.cause for f in report.problems], str(report)
    np.testing.assert_array_equal(X, before)


def test_a_hang_that_swallows_exceptions_is_stopped():
    assert check_pair(forward, bare_except, (X,), limit=1.0).cause == "hangs"


@pytest.mark.parametrize("bad", [lambda x: None, lambda x: ("abc", 1), lambda x: 1 / 0, lambda x: (x / 0.0, x), exit])
def test_misbehaving_forwards_are_not_run(bad):
    report = check_pair(bad, backward, (X,), limit=1.0)
    assert report.verdict == "not run"
    assert not report
    assert report.problems[0].hint


def test_a_forward_that_draws_its_own_numbers_is_not_run():
    def noisy(x):
        return x * np.random.default_rng().random(x.shape), x

    assert check_pair(noisy, backward, (X,)).cause == "not repeatable"


def test_global_random_numbers_are_the_same_at_each_call():
    def drop(x):
        mask = np.random.rand(*x.shape) < 0.5  # noqa: NPY002
        return x * mask, mask

    assert check_pair(drop, lambda dout, mask: dout * mask, (X,))


def test_global_state_is_left_as_it_was():
    np.random.seed(11)  # noqa: NPY002
    random.seed(11)
    numpy_state, python_state, errors = np.random.get_state(), random.getstate(), np.geterr()  # noqa: NPY002
    handler = signal.getsignal(signal.SIGALRM)
    report = check_pair(forward, spoil_state, (X,))
    assert report.verdict == "right"
    assert any("printed" in note for note in report.notes)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state[1])  # noqa: NPY002
    assert random.getstate() == python_state
    assert np.geterr() == errors
    assert signal.getsignal(signal.SIGALRM) is handler
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_callers_arrays_and_dicts_are_untouched():
    x, gamma, beta = X.copy(), np.ones(4), np.zeros(4)
    param = {"mode": "train"}
    assert check_pair(layers.batchnorm_forward, layers.batchnorm_backward, (x, gamma, beta, param))
    np.testing.assert_array_equal(x, X)
    assert param == {"mode": "train"}
    assert np.all(gamma == 1)
    assert np.all(beta == 0)


def test_lists_dicts_and_uncached_backwards_are_understood():
    w = np.random.default_rng(1).standard_normal((4, 5))
    assert check_pair(lambda x, w: [x @ w, (x, w)], lambda dout, c: [dout @ c[1].T, c[0].T @ dout], (X, w))
    assert check_pair(lambda x, w: (x @ w, (x, w)), lambda d, c: {"w": c[0].T @ d, "dx": d @ c[1].T}, (X, w))
    assert check_pair(lambda x, w: x @ w, lambda dout, x, w: (dout @ w.T, x.T @ dout), (X, w))


def test_integer_arguments_have_no_gradient():
    ids = np.array([[0, 2], [2, 1]])
    W = np.random.default_rng(1).standard_normal((3, 4))
    assert check_pair(layers.word_embedding_forward, layers.word_embedding_backward, (ids, W))


def test_losses_with_tuples_and_dicts():
    y = np.array([0, 2, 3])
    assert check_loss(layers.softmax_loss, (X, y))
    assert check_loss(lambda X, y: (layers.softmax_loss(X, y)[0], {"X": layers.softmax_loss(X, y)[1]}), (X, y))
    assert check_loss(layers.softmax_loss, (X,)).verdict == "not run"  # an argument is missing
    report = check_loss(lambda x: (x.sum(), None), (X,))
    assert report.verdict == "wrong"


def test_kinks_pass_and_say_where():
    x = np.array([[0.0, 1.0, -1.0], [2.0, 0.0, 0.5]])
    report = check_pair(layers.relu_forward, layers.relu_backward, (x,))
    assert report
    assert "kink at x[0, 0] = 0: slopes" in report.notes[0]
    assert "(2 such)" in report.notes[0]
    halves = check_pair(layers.relu_forward, lambda d, x: d * np.where(x == 0, 0.5, x > 0), (x,))
    assert halves
    outside = check_pair(layers.relu_forward, lambda d, x: d * np.where(x == 0, 1.5, x > 0), (x,))
    assert outside.verdict == "wrong"


def test_the_smallest_failing_shape_is_found():
    report = check_pair(
        layers.affine_forward, lambda d, c: (d @ c[1].T, c[0].T @ d, d.mean(axis=0)), (X, np.ones((4, 5)), np.ones(5))
    )
    assert report.problems[0].evidence["smallest"] == "x (2, 1), w (1, 1), b (1,)"


def test_one_wrong_element_among_many_is_located():
    r = np.random.default_rng(0)
    x, w = r.standard_normal((8, 60)), r.standard_normal((60, 400))

    def spoiled(dout, cache):
        dw = x.T @ dout
        dw[17, 333] *= 1.01
        return dout @ w.T, dw

    report = check_pair(lambda x, w: (x @ w, None), spoiled, (x, w))
    assert report.verdict == "wrong"
    assert report.problems[0].index == (17, 333)
    assert report.problems[0].argument == "dw"
    assert report.right == ["dx"]
