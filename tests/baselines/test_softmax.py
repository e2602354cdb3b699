"""Softmax regression: at its minimum, it tells what is told by a line, and its probabilities are those of the data."""

import numpy as np
import pytest

from tinygen.baselines.softmax import SoftmaxRegression, softmax


def data(n=200, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    return rng.normal(size=(n, 4)) + 2 * np.eye(3, 4)[labels], labels


def loss(weight, x, labels, l2):
    p = softmax(np.concatenate([x, np.ones((len(x), 1))], axis=1) @ weight)
    return -np.log(p[np.arange(len(x)), labels]).mean() + l2 / 2 * (weight**2).sum()


@pytest.mark.parametrize("l2", [1e-3, 0.1, 3.0])
def test_it_is_at_the_minimum(l2):
    x, labels = data()
    found = SoftmaxRegression(x, labels, 3, l2).weight
    best, rng = loss(found, x, labels, l2), np.random.default_rng(1)
    for size in (1e-4, 1e-2, 1.0):
        for _ in range(20):
            aside = rng.normal(size=found.shape) * size
            assert loss(found + aside, x, labels, l2) > best - 1e-8
    step = 1e-5 * np.eye(found.size).reshape(-1, *found.shape)
    slopes = [(loss(found + e, x, labels, l2) - loss(found - e, x, labels, l2)) / 2e-5 for e in step]
    assert np.abs(slopes).max() < 2e-5


def test_it_tells_classes_that_lie_apart():
    x, labels = data()
    p = SoftmaxRegression(x, labels, 3, 0.01)(x)
    np.testing.assert_allclose(p.sum(1), 1)
    assert (p.argmax(1) == labels).mean() > 0.85
    uniform = SoftmaxRegression(x * 0, labels, 3, 1e-6)(x * 0)  # nothing to tell them by: the classes' shares
    np.testing.assert_allclose(uniform[0], np.bincount(labels) / len(labels), atol=1e-3)


def test_what_does_not_fit_is_refused():
    x, labels = data(5)
    for bad in ((x, labels[:3], 3, 1.0), (x[:0], labels[:0], 3, 1.0), (x, labels, 3, 0.0)):
        with pytest.raises(ValueError, match="SoftmaxRegression: x and labels must be of one length"):
            SoftmaxRegression(*bad)
