"""Curves: within their picture, with axes and baselines."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygen.report.curves import ABOVE, BELOW, HEIGHT, LEFT, WIDTH, Curve, _ticks, curves

VALUES = st.lists(st.floats(-1e9, 1e9) | st.sampled_from([0.0, 5e-324, 1e-300, -1e300]), min_size=2, max_size=60)


@given(
    st.lists(VALUES, min_size=1, max_size=3), st.integers(1, 10**7), st.integers(1, 1000),
    st.dictionaries(st.sampled_from(["one", "two"]), st.floats(-1e300, 1e300)),
)  # fmt: skip
def test_curves_stay_within_their_picture(series, start, stride, baselines):
    many = [Curve(start + stride * np.arange(len(values)), np.array(values)) for values in series]
    drawn = curves(many, "x", "nats", baselines)
    assert "nan" not in drawn
    assert "inf" not in drawn
    lines = re.findall(r'<polyline points="(.*?)"', drawn)
    assert len(lines) == len(series)
    for line in lines:
        points = np.array([[float(v) for v in pair.split(",")] for pair in line.split()])
        assert (np.diff(points[:, 0]) > -0.11).all()
        assert (points >= [LEFT - 0.1, ABOVE - 0.1]).all()
        assert (points <= [WIDTH, HEIGHT - BELOW + 0.1]).all()
    for name in baselines:
        y = float(re.search(rf"y=([\d.-]+) text-anchor=end>{name} ", drawn)[1])
        assert ABOVE - 6 <= y <= HEIGHT - BELOW


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(4, 9))
def test_ticks_are_few_and_round(low, width, most):
    ticks = _ticks(low, low + width, most)
    assert 1 <= len(ticks) <= most + 1
    assert all(low - 1e-6 * width <= tick <= low + width * (1 + 1e-6) for tick in ticks)
    if len(ticks) > 1:
        step = ticks[1] - ticks[0]
        assert float(f"{step:.1e}") == pytest.approx(step, rel=1e-3)
        assert f"{step:.0e}"[0] in "1259"  # 9: 0.999...


# ------------------------------------------------------------------------------------------------- axes and baselines

STEPS = np.arange(1, 101)


def height(drawn: str, value: str) -> float:
    """Where the tick of a value is."""
    return float(re.search(rf"<text x={LEFT - 6} y=([\d.]+) text-anchor=end>{value}</text>", drawn)[1]) - 4


def test_the_axes_have_names():
    drawn = curves([Curve(STEPS, np.linspace(2, 1, 100))], "validation", "bits/dim")
    assert re.search(r"<text [^>]*text-anchor=middle>step</text>", drawn)
    assert re.search(r"<text [^>]*>bits/dim</text>", drawn)
    assert 'aria-label="validation by step"' in drawn


def test_a_baseline_is_a_dashed_line_at_its_value_with_its_name():
    drawn = curves([Curve(STEPS, np.linspace(4, 2, 100))], "x", "nats", {"independent <pixels>": 3.0})
    y = float(re.search(r'<path class=baseline d="M[\d.]+ ([\d.]+)H', drawn)[1])
    assert y == pytest.approx(height(drawn, "3"), abs=0.11)
    assert "independent &lt;pixels&gt; 3.000</text>" in drawn
    higher = curves([Curve(STEPS, np.linspace(4, 2, 100))], "x", "nats", {"pixels": 6.0})
    y = float(re.search(r'<path class=baseline d="M[\d.]+ ([\d.]+)H', higher)[1])
    assert y == pytest.approx(height(higher, "6"), abs=0.11)  # the axis reaches up to it


@pytest.mark.parametrize(("value", "where"), [(100.0, "above"), (-100.0, "below")])
def test_a_baseline_far_from_the_curve_is_named_and_squeezes_nothing(value, where):
    alone = curves([Curve(STEPS, np.linspace(4, 2, 100))], "x")
    drawn = curves([Curve(STEPS, np.linspace(4, 2, 100))], "x", "", {"pixels": value})
    assert f"pixels {value:.2f} ({where})</text>" in drawn
    assert "class=baseline" not in drawn
    assert height(drawn, "3") == height(alone, "3")


def test_curves_over_each_other_share_their_axes_and_have_colors_of_their_own():
    short, long = Curve(STEPS[:50], np.full(50, 1.0), "run0"), Curve(STEPS, np.full(100, 3.0), "run1")
    drawn = curves([short, long], "x")
    lines = dict(re.findall(r'<polyline class="(run\d)" points="(.*?)"', drawn))
    (a, low), (b, high) = ([float(v) for v in lines[k].split()[-1].split(",")] for k in ("run0", "run1"))
    assert low == pytest.approx(height(drawn, "1"), abs=0.11)
    assert high == pytest.approx(height(drawn, "3"), abs=0.11)
    assert (a - LEFT) / (b - LEFT) == pytest.approx(49 / 99, abs=0.01)
    assert "polygon" not in drawn  # bands over each other would hide the lines
    assert '<polygon class="run1" ' in curves([long], "x")
