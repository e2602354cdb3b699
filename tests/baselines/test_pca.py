"""PCA, held against the singular value decomposition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygen.baselines.pca import PCA

seeds = st.integers(0, 999)


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


@pytest.mark.fault("G12")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PCA(np.zeros((3, 2)), 3), "components must be from 1 to 2"),
        (lambda: PCA(np.zeros((1, 2)), 1), "x have 2 rows or more"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
