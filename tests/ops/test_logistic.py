"""The discretized logistic: probabilities of levels, their sum, extremes, gradients, mixtures over pixels."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygen import tensor
from tinygen.gradcheck import check
from tinygen.nn import functional as F

levels = st.integers(2, 256)
means = st.one_of(st.floats(-1.5, 1.5), st.floats(-1e4, 1e4))
scales = st.one_of(st.floats(-4, 2), st.floats(-1e4, 1e4))


def nll(mean, log_scale, count, dtype=np.float64):
    mean, log_scale = (tensor(np.full(count, v, dtype), requires_grad=True) for v in (mean, log_scale))
    return F.discretized_logistic_nll(mean, log_scale, np.arange(count), count, reduction="none"), mean, log_scale


@given(means, scales, levels)
def test_the_levels_probabilities_sum_to_1(mean, log_scale, count):
    assert np.exp(-nll(mean, log_scale, count)[0].numpy()).sum() == pytest.approx(1, rel=1e-9)


@given(st.floats(-1.2, 1.2), st.floats(-2, 2), levels)
def test_a_level_has_the_probability_of_its_interval(mean, log_scale, count):
    edges = (np.arange(count + 1) * 2 - 1) / (count - 1) - 1
    cdf = 1 / (1 + np.exp(-(edges - mean) / np.exp(log_scale)))
    cdf[0], cdf[-1] = 0, 1
    expected = np.diff(cdf)
    np.testing.assert_allclose(np.exp(-nll(mean, log_scale, count)[0].numpy()), expected, rtol=1e-6, atol=1e-14)


@pytest.mark.fault("G11")
@given(means, scales, levels)
def test_extremes_give_finite_losses_and_gradients_in_float32(mean, log_scale, count):
    losses, mean, log_scale = nll(mean, log_scale, count, np.float32)
    losses.sum().backward()
    for values in (losses, mean.grad, log_scale.grad):
        assert values.dtype == np.float32
        assert np.isfinite(values.numpy()).all()


def test_gradients_of_first_and_second_order():
    rng = np.random.default_rng(0)
    target = rng.integers(0, 5, (3, 4))
    target[0, :2] = 0, 4  # both ends

    def f(mean, log_scale):
        return F.discretized_logistic_nll(mean, log_scale, target, 5, reduction="none")

    check(f, (rng.normal(size=(3, 4)), rng.normal(size=4)), order=2)
    pixels = rng.integers(0, 5, (2, 3, 2, 2))
    mixture = [rng.normal(size=shape) for shape in ((2, 2, 2, 2), (2, 2, 3, 2, 2), (2, 2, 3, 2, 2))]
    check(lambda *x: F.logistic_mixture_nll(*x, pixels, 5, reduction="none"), mixture, order=2)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(2, 4), st.integers(0, 99))
def test_a_mixtures_probabilities_of_all_pixels_sum_to_1(components, colors, count, seed):
    rng = np.random.default_rng(seed)
    target = np.array(list(itertools.product(range(count), repeat=colors)))[:, :, None, None]

    def same(*shape):  # one pixel's parameters for all its values
        return tensor(np.repeat(rng.normal(size=(1, *shape, 1, 1)), len(target), axis=0))

    mixture = same(components), same(components, colors), same(components, colors)
    losses = F.logistic_mixture_nll(*mixture, target, count, reduction="none")
    assert losses.shape == (len(target), 1, 1)
    assert np.exp(-losses.numpy()).sum() == pytest.approx(1, rel=1e-9)


def test_a_mixture_of_one_is_that_one():
    rng = np.random.default_rng(0)
    mean, log_scale = (tensor(rng.normal(size=(2, 1, 1, 3, 3))) for _ in range(2))
    target = rng.integers(0, 7, (2, 1, 3, 3))
    one = F.discretized_logistic_nll(mean[:, 0], log_scale[:, 0], target, 7)
    mixture = F.logistic_mixture_nll(tensor(rng.normal(size=(2, 1, 3, 3))), mean, log_scale, target, 7)
    assert mixture.item() == pytest.approx(one.item(), rel=1e-12)


@pytest.mark.fault("G12")
def test_what_does_not_fit_is_refused():
    x = tensor(np.zeros((2, 3, 1, 4, 4)))
    target = np.zeros((2, 1, 4, 4), int)
    with pytest.raises(ValueError, match="levels must be an integer of at least 2, got 1"):
        F.discretized_logistic_nll(x[:, 0], x[:, 0], target, 1)
    with pytest.raises(ValueError, match=r"target must be in 0\.\.1, got 0\.\.2"):
        F.discretized_logistic_nll(x[:, 0], x[:, 0], target + np.arange(2)[:, None, None, None] * 2, 2)
    with pytest.raises(TypeError, match="target must be an array of integers"):
        F.discretized_logistic_nll(x[:, 0], x[:, 0], target * 1.0, 2)
    with pytest.raises(ValueError, match="target must have shape"):
        F.logistic_mixture_nll(x[:, :, 0], x, x, target[:, :, :3], 2)
    with pytest.raises(ValueError, match="mean must have shape"):
        F.logistic_mixture_nll(x[:, :, 0], x[:, :2], x, target, 2)
    with pytest.raises(ValueError, match="log_scale must have shape"):
        F.logistic_mixture_nll(x[:, :, 0], x, x[:, :, 0], target, 2)
