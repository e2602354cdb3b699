"""Densities of one variable, held against their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygen.baselines.density import GaussianMixture, Histogram, KernelDensity

seeds = st.integers(0, 999)


def bimodal(n, rng):
    return np.where(rng.random(n) < 0.4, rng.normal(-2, 0.4, n), rng.normal(1.5, 0.7, n))


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
def test_expectation_maximization_never_loses_likelihood(seed, components):
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
        (lambda: Histogram(np.zeros((2, 2))), r"x must be \(N,\), finite, with N of at least 1, got shape \(2, 2\)"),
        (lambda: Histogram(np.zeros(2), 0), "bins must be at least 1, got 0"),
        (lambda: KernelDensity(np.array([np.nan])), "finite"),
        (lambda: KernelDensity(np.zeros(2), -1), "width must be above 0, got -1"),
        (lambda: GaussianMixture(np.zeros(2), 0), "components must be at least 1, got 0"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
