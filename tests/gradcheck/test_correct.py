"""No false alarms; and the error bounds aren't so wide that errors slip through."""

import os

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.gradcheck.correct import NORMAL, random_case
from tinygen.gradcheck import check_pair
from tinygen.gradcheck.numeric import Differences


@pytest.mark.parametrize("block", range(10 if os.environ.get("TINYGEN_FULL") == "1" else 3))
def test_right_gradients_raise_no_alarm(block: int) -> None:
    """Kinks, ties, batches of two, saturation, scales of 1e-6 and 1e4, offsets, float32-only code.

    300 of them; with TINYGEN_FULL=1 a thousand.
    """
    for seed in range(100 * block, 100 * block + 100):
        case = random_case(seed)
        report = case.check(seed)
        assert report.verdict == "right", (seed, case.name, case.style, str(report))


@given(st.integers(0, 10**6), st.floats(1e-4, 1), st.booleans())
@example(158326, 1.0, True)  # with an index per number, not per row
@settings(max_examples=150, deadline=None)
def test_a_small_error_anywhere_is_detected(seed: int, size: float, one: bool) -> None:
    """One element off, or all, by a relative error of 1e-4 or more."""
    case = random_case(seed)
    if case.backward is None or case.style != NORMAL:
        return
    r = np.random.default_rng(seed)
    wronged = []

    def nudge(grads):
        grads = [np.array(g) for g in (grads if isinstance(grads, tuple) else (grads,))]
        g = grads[seed % len(grads)]
        k = np.unravel_index(seed % g.size, g.shape)
        wronged.append(np.abs(g[k]) > 1e-3 * np.abs(g).max() and np.abs(g).max() > 1e-6)
        if one:
            g[k] *= 1 + size
        else:
            g *= 1 + size
        return tuple(grads)

    backward = case.backward
    if backward.__code__.co_argcount == 3:
        broken = lambda da, db, cache: nudge(backward(da, db, cache))  # noqa: E731
    else:
        broken = lambda dout, cache: nudge(backward(dout, cache))  # noqa: E731
    report = check_pair(case.forward, broken, case.args, rng=r)
    assert not (report and all(wronged)), (case.name, str(report))


@given(st.lists(st.integers(2, 3), min_size=1, max_size=3), st.lists(st.integers(2, 3), max_size=3))
@settings(max_examples=50)
def test_integers_of_any_shape_are_no_labels_by_mistake(floats: list[int], integers: list[int]) -> None:
    """The gradient of w is wrong whatever else the function is given, and the search for a cause survives it."""
    r = np.random.default_rng(0)
    x, index = r.standard_normal(floats), r.integers(0, 2, integers)
    w, off = r.standard_normal((2, floats[-1], 2))

    def forward(x, index, w):
        return (w**2).sum() + index.sum(), (x, index, w)

    def backward(dout, cache):
        x, _, w = cache
        return np.zeros_like(x), dout * (2 * w + off)

    report = check_pair(forward, backward, [x, index, w])
    assert [problem.argument for problem in report.problems] == ["dw"]


SMOOTH = {"sin": (np.sin, np.cos), "exp": (np.exp, np.exp), "cube": (lambda x: x**3, lambda x: 3 * x**2)}


@given(st.sampled_from(sorted(SMOOTH)), st.floats(0.05, 5), st.floats(-8, 4), st.booleans())
@settings(max_examples=200, deadline=None)
def test_the_error_bar_holds_the_derivative(name: str, at: float, magnitude: float, single: bool) -> None:
    """At every scale, in float64 and for code that computes in float32."""
    f, slope = SMOOTH[name]
    scale = 10.0**magnitude
    x = np.array([at * scale])

    def function(values):
        y = f(values[0] / scale)
        return y.astype(np.float32).astype(np.float64) if single else y

    found = Differences(function, [x], np.ones(1)).at(0, (0,))
    exact = slope(at) / scale
    assert abs(found.value - exact) <= 4 * found.bound + 1e-9 * abs(exact) + 1e-30
    assert found.bound <= (1e-2 if single else 1e-7) * (abs(exact) + abs(f(at)) / scale)
