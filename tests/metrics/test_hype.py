"""Judgments of images: rates, variances and intervals, on simulated evaluators whose rates are known."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygen.metrics.hype import (
    Estimate,
    crossed_bootstrap,
    crossed_variance,
    error_rates,
    exposure,
    exposures,
    student,
)

FULL = os.environ.get("TINYGEN_FULL") == "1"
SEEDS = st.integers(0, 2**32 - 1)


def test_rates_are_shares_of_wrong_answers():
    real = np.array([True, False, True, False, False])
    wrong = np.array([[1, 0, 0, 1, 1], [0, 0, 0, 0, 1]], bool)
    found = {e.name: e.value for e in error_rates(wrong, real, np.random.default_rng(0))}
    assert found == {
        "errors": pytest.approx(40), "generated taken for real": pytest.approx(50), "real taken for generated": 25
    }  # fmt: skip


@settings(max_examples=20)
@given(st.integers(2, 6), st.integers(2, 6), st.integers(2, 6), SEEDS)
def test_an_interval_holds_its_rate_and_lies_within_0_and_100(evaluators, n, m, seed):
    rng = np.random.default_rng(seed)
    for e in error_rates(rng.random((evaluators, n + m)) < rng.random(), np.arange(n + m) < n, rng):
        assert 0 <= e.low <= e.value + 1e-9
        assert e.value - 1e-9 <= e.high <= 100


@pytest.mark.parametrize("always", [False, True])
def test_where_all_agree_there_is_nothing_to_draw(always):
    wrong = np.full((3, 4), always)
    for e in error_rates(wrong, np.arange(4) < 2, np.random.default_rng(0)):
        assert (e.low, e.value, e.high) == (100 * always,) * 3


@pytest.mark.parametrize(
    ("wrong", "real"),
    [((0, 4), [1, 1, 0, 0]), ((2, 3), [1, 1, 0, 0]), ((2, 2), [1, 1]), ((2, 2), [0, 0]), ((2,), [1, 0])],
)
def test_answers_that_do_not_fit_are_refused(wrong, real):
    with pytest.raises(
        ValueError, match=r"wrong must be \(evaluators, images\) and real \(images,\) with images of both"
    ):
        error_rates(np.zeros(wrong), np.array(real, bool), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("rows", "columns", "noise"), [(1.0, 0.0, 0.5), (0.0, 1.0, 0.5), (1.0, 1.0, 1.0), (0.0, 0.0, 1.0)]
)
def test_the_variance_is_without_bias(rows, columns, noise):
    """Of tables with known effects: the mean estimate is the variance of the mean."""
    rng, many, shape = np.random.default_rng(0), 1500, (8, 9)

    def drawn():
        by_row, by_column = rng.normal(0, rows, (8, 1)), rng.normal(0, columns, (1, 9))
        table = by_row + by_column + rng.normal(0, noise, shape)
        return [table[:, :4], table[:, 4:]]

    true = rows**2 / 8 + columns**2 / 9 + noise**2 / 72
    found = np.array([crossed_variance(drawn())[0] for _ in range(many)])
    floor = noise**2 / 72 if not (rows or columns) else 0  # where only noise is left, it may not be less than that
    assert found.mean() == pytest.approx(true + 0.25 * floor, abs=4 * found.std() / math.sqrt(many) + 0.25 * floor)


def covered(evaluators: int, images: int, people: float, pictures: float, many: int) -> tuple[float, float]:
    """How often the interval holds the true rate, if evaluators and images differ (deviations of the logit).

    And how wide it is, over what 95 % of the estimates take up.
    """
    rng = np.random.default_rng(5)

    def rate(logit):
        return 1 / (1 + np.exp(-logit))

    level = math.log(0.35 / 0.65)
    true = rate(level + rng.normal(0, math.hypot(people, pictures), 10**6)).mean()
    hits, widths, values = 0, [], []
    for _ in range(many):
        by_person, by_picture = rng.normal(0, people, (evaluators, 1)), rng.normal(0, pictures, images)
        wrong = rng.random((evaluators, images)) < rate(level + by_person + by_picture)
        value, low, high = crossed_bootstrap([wrong[:, ::2] * 1.0, wrong[:, 1::2] * 1.0], rng)
        hits += low <= true <= high
        widths.append(high - low)
        values.append(value)
    return hits / many, float(np.mean(widths) / np.std(values) / (2 * 1.96))


@pytest.mark.parametrize(
    ("evaluators", "people", "pictures"),
    [(30, 0.0, 0.0), (30, 0.5, 0.0), (30, 0.0, 1.0), (30, 0.5, 1.0), (6, 0.5, 0.5)],
)
def test_the_rate_of_simulated_evaluators_is_within_the_interval_as_often_as_it_says(
    evaluators, people, pictures, monkeypatch
):
    monkeypatch.setattr("tinygen.metrics.hype.DRAWS", 1000 if FULL else 400)
    many = 2000 if FULL else 150
    error = math.sqrt(0.95 * 0.05 / many)
    share, width = covered(evaluators, 100, people, pictures, many)
    assert share == pytest.approx(0.95, abs=0.015 + 3 * error)
    assert width == pytest.approx(1.1, abs=0.3)  # by the plain pigeonhole bootstrap 1.7 where nothing but chance varies


@pytest.mark.parametrize(("freedom", "t"), [(4, 2.776), (9, 2.262), (29, 2.045), (math.inf, 1.960)])
def test_few_evaluators_widen_the_interval_as_students_t(freedom, t):
    """The table of t at 97.5 %."""
    assert 1.96 * student(freedom) == pytest.approx(t, rel=0.02)


def test_the_exposure_is_the_mean_of_the_second_half():
    assert exposure(np.array([500, 490, 100.0, 140])) == 120
    found = exposures([np.array([500, 100.0]), np.array([500, 300.0])], np.random.default_rng(0))
    assert found.value == 200
    assert 100 <= found.low < 200 < found.high <= 1000
    one = exposures([np.array([500, 300.0])], np.random.default_rng(0))
    assert (one.low, one.value, one.high) == (100, 300, 1000)


def test_an_estimate_is_said_with_its_interval():
    assert str(Estimate("errors", 34.18, 30.0, 38.44, "%")) == "errors: 34.2 % (95 % interval 30.0 to 38.4)"
