"""k-means and what it is judged by, held against their definitions."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygen.baselines.kmeans import kmeans, mutual_information, purity
from tinygen.data import load

seeds = st.integers(0, 999)


@given(seeds, st.integers(1, 30), st.integers(1, 4))
def test_k_means_stops_where_neither_step_helps(seed, n, d):
    rng = np.random.default_rng(seed)
    x, k = rng.normal(size=(n, d)), int(rng.integers(1, n + 1))
    found = kmeans(x, k, rng)
    squared = ((x[:, None] - found.centers) ** 2).sum(axis=2)
    np.testing.assert_allclose(squared[np.arange(n), found.labels], squared.min(axis=1), atol=1e-9)
    assert found.inertia == pytest.approx(squared.min(axis=1).sum(), abs=1e-9)
    for c in range(k):
        if (found.labels == c).any():
            np.testing.assert_allclose(found.centers[c], x[found.labels == c].mean(axis=0), atol=1e-9)


def test_k_means_finds_clusters_that_lie_apart_and_the_digits():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, 300)
    found = kmeans(rng.normal(size=(300, 2)) * 0.05 + 10 * np.stack([truth, truth**2], axis=1), 5, rng)
    assert purity(found.labels, truth) == mutual_information(found.labels, truth) == pytest.approx(1)
    digits, _ = load("digits")
    found = kmeans(digits.images, 10, rng)
    assert purity(found.labels, digits.labels) > 0.7
    assert mutual_information(found.labels, digits.labels) > 0.65


@given(seeds, st.integers(1, 60), st.integers(1, 5), st.integers(1, 5))
def test_purity_and_mutual_information_by_their_definitions(seed, n, k, c):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, k, n), rng.integers(0, c, n)
    assert purity(a, b) == pytest.approx(sum(np.bincount(b[a == i]).max() for i in set(a)) / n)
    p = {(i, j): np.mean((a == i) & (b == j)) for i, j in itertools.product(set(a), set(b))}
    pa, pb = ({i: np.mean(v == i) for i in set(v)} for v in (a, b))
    mutual = sum(q * np.log(q / (pa[i] * pb[j])) for (i, j), q in p.items() if q)
    entropy = -sum(q * np.log(q) for m in (pa, pb) for q in m.values())
    assert mutual_information(a, b) == pytest.approx(2 * mutual / entropy if entropy else 1, abs=1e-9)
    assert mutual_information(a, b) == pytest.approx(mutual_information((a + 1) % k, b), abs=1e-9)  # names don't matter


@pytest.mark.fault("G12")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: kmeans(np.zeros((3, 2)), 4, g), "k must be from 1 to the 3 rows of x, got 4"),
        (lambda _: purity(np.zeros(2, int), np.zeros(3, int)), "must be of one length, at least 1, got 2 and 3"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.random.default_rng(0))
