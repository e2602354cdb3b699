"""k-means, PCA and densities of one variable, held against their definitions."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygen.baselines.classical import (
    PCA,
    GaussianMixture,
    Histogram,
    KernelDensity,
    kmeans,
    mutual_information,
    purity,
)
from tinygen.data import load

seeds = st.integers(0, 999)


def bimodal(n, rng):
    return np.where(rng.random(n) < 0.4, rng.normal(-2, 0.4, n), rng.normal(1.5, 0.7, n))


# ------------------------------------------------------------------------------------------------------------ k-means


@given(seeds, st.integers(1, 30), st.integers(1, 4))
def test_k_means_stops_where_neither_step_helps(seed, n, d):
    rng = np.random.default_rng(seed)
    x, k = rng.normal(size=(n, d)), int(rng.integers(1, n + 1))
    found = kmeans(x, k, rng)
    squared = ((x[:, None] - found.centres) ** 2).sum(axis=2)
    np.testing.assert_allclose(squared[np.arange(n), found.labels], squared.min(axis=1), atol=1e-9)
    assert found.inertia == pytest.approx(squared.min(axis=1).sum(), abs=1e-9)
    for c in range(k):
        if (found.labels == c).any():
            np.testing.assert_allclose(found.centres[c], x[found.labels == c].mean(axis=0), atol=1e-9)


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


# ---------------------------------------------------------------------------------------------------------------- PCA


@given(seeds, st.integers(2, 30), st.integers(1, 6))
def test_pca_is_the_singular_value_decomposition(seed, n, d):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) * np.exp(rng.normal(size=d))
    k = int(rng.integers(1, d + 1))
    pca = PCA(x, k)
    _, singular, right = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(pca.components @ pca.components.T, np.eye(k), atol=1e-9)
    np.testing.assert_allclose(pca.variance[: len(singular)], (singular**2)[:k] / (n - 1), atol=1e-9)
    np.testing.assert_allclose(
        pca.explained[: len(singular)], (singular**2).cumsum()[:k] / (singular**2).sum(), atol=1e-9
    )
    best = (x - x.mean(axis=0)) @ right[:k].T @ right[:k] + x.mean(axis=0)
    np.testing.assert_allclose(pca.decode(pca.encode(x)), best, atol=1e-7)


def test_pca_draws_from_the_gaussian_of_its_data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 3)) @ rng.normal(size=(3, 3)) + 5
    drawn = PCA(x, 3).sample(100000, rng)
    np.testing.assert_allclose(drawn.mean(axis=0), x.mean(axis=0), atol=0.05)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(x.T), atol=0.1)


# ---------------------------------------------------------------------------------------------------------- densities


@settings(max_examples=20)
@given(seeds, st.integers(10, 200))
def test_densities_are_not_negative_and_integrate_to_1(seed, n):
    rng = np.random.default_rng(seed)
    x = bimodal(n, rng) * np.exp(rng.normal())
    at = np.linspace(x.min() - 8 * x.std(), x.max() + 8 * x.std(), 40001)
    mixture = GaussianMixture(x, 3, 20)
    for p in (Histogram(x, 7), KernelDensity(x), KernelDensity(x, x.std() / 9), mixture):
        density = p.density(at)
        assert (density >= 0).all()
        assert density.sum() * (at[1] - at[0]) == pytest.approx(1, abs=0.01)
    assert (Histogram(x, 7).density(np.array([x.min() - 1e-6, x.max() + 1e-6])) == 0).all()
    assert (Histogram(x, 7).density(np.array([x.min(), x.max()])) > 0).all()


@settings(max_examples=10)
@given(seeds)
def test_each_of_them_beats_one_gaussian_on_data_of_two_modes(seed):
    rng = np.random.default_rng(seed)
    x, new = bimodal(500, rng), bimodal(2000, rng)
    one = GaussianMixture(x, 1, 2)
    assert one.means[0] == pytest.approx(x.mean())
    assert one.deviations[0] == pytest.approx(x.std())
    alone = np.log(one.density(new)).mean()
    for p in (KernelDensity(x), GaussianMixture(x, 2, 50)):
        assert np.log(p.density(new)).mean() > alone + 0.1
    assert np.log(np.maximum(Histogram(x, 15).density(new), 1e-4)).mean() > alone


@settings(max_examples=20)
@given(seeds, st.integers(1, 5))
def test_expectation_maximisation_never_loses_likelihood(seed, components):
    rng = np.random.default_rng(seed)
    p = GaussianMixture(bimodal(100, rng), components, 50)
    assert (np.diff(p.log_likelihoods) > -1e-9).all()
    assert p.weights.sum() == pytest.approx(1)


def test_it_finds_the_two_modes_and_survives_equal_values():
    rng = np.random.default_rng(1)
    p = GaussianMixture(bimodal(20000, rng), 2)
    order = p.means.argsort()
    np.testing.assert_allclose(p.means[order], [-2, 1.5], atol=0.05)
    np.testing.assert_allclose(p.deviations[order], [0.4, 0.7], atol=0.05)
    np.testing.assert_allclose(p.weights[order], [0.4, 0.6], atol=0.02)
    for same in (GaussianMixture(np.ones(5), 2), KernelDensity(np.ones(5)), Histogram(np.ones(5))):
        assert np.isfinite(same.density(np.array([1.0]))).all()
        assert same.density(np.array([1.0]))[0] > 0


@pytest.mark.fault("G12")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: kmeans(np.zeros((3, 2)), 4, g), "k must be from 1 to the 3 rows of x, got 4"),
        (lambda g: PCA(np.zeros((3, 2)), 3), "components must be from 1 to 2"),
        (lambda g: PCA(np.zeros((1, 2)), 1), "x have 2 rows or more"),
        (lambda g: purity(np.zeros(2, int), np.zeros(3, int)), "must be of one length, at least 1, got 2 and 3"),
        (lambda g: Histogram(np.zeros((2, 2))), r"x must be \(N,\), finite, with N of at least 1, got shape \(2, 2\)"),
        (lambda g: Histogram(np.zeros(2), 0), "bins must be at least 1, got 0"),
        (lambda g: KernelDensity(np.array([np.nan])), "finite"),
        (lambda g: KernelDensity(np.zeros(2), -1), "width must be above 0, got -1"),
        (lambda g: GaussianMixture(np.zeros(2), 0), "components must be at least 1, got 0"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.random.default_rng(0))
