"""Diffusion where everything is known: q in closed form, samplers on Gaussian data, the bound beside the entropy."""

import functools
import math

import numpy as np
import pytest

from tinygen.models.diffusion import bound
from tinygen.models.diffusion.predictions import PREDICTIONS
from tinygen.models.diffusion.process import encode, reverse, score, step
from tinygen.models.diffusion.schedules import SCHEDULES, Schedule, cosine, linear

every_schedule = pytest.mark.parametrize("schedule", [linear(1000), cosine(1000), linear(10), cosine(7)])
MEAN, COVARIANCE = np.array([0.3, -0.5]), np.array([[0.5, 0.3], [0.3, 0.4]])


def rng(seed=0):
    return np.random.default_rng(seed)


class Gaussian:
    """Data N(m, A), and what is known of them: q(x_t), and the image expected behind x_t, which is affine in it."""

    def __init__(self, schedule, mean=MEAN, covariance=COVARIANCE):
        self.schedule, self.mean, self.covariance = schedule, np.atleast_1d(mean), np.atleast_2d(covariance)
        self.affine = functools.cache(self.affine)

    def marginal(self, t):
        """The mean and the covariance of x_t."""
        a, s = self.schedule.signal[t], self.schedule.noise[t]
        return a * self.mean, a * a * self.covariance + s * s * np.eye(len(self.mean))

    def affine(self, t):
        """(gain, offset) of E[x_0 | x_t] = gain x_t + offset."""
        mean, covariance = self.marginal(t)
        gain = self.schedule.signal[t] * self.covariance @ np.linalg.inv(covariance)
        return gain, self.mean - gain @ mean

    def predict(self, x, t):
        gain, offset = self.affine(t)
        return x @ gain.T + offset

    def log_density(self, x, t):
        mean, covariance = self.marginal(t)
        d = x - mean
        return -0.5 * ((d @ np.linalg.inv(covariance)) * d).sum(-1) - 0.5 * np.linalg.slogdet(covariance)[1]


# ----------------------------------------------------------------------------------------------------------------- q


@every_schedule
def test_q_step_by_step_is_q_in_closed_form(schedule):
    signal, variance = 1.0, 0.0
    for t in range(1, len(schedule) + 1):
        beta = schedule.betas[t]
        signal, variance = math.sqrt(1 - beta) * signal, (1 - beta) * variance + beta  # equation 2
        assert signal == pytest.approx(schedule.signal[t], abs=1e-13)
        assert variance == pytest.approx(schedule.noise[t] ** 2, abs=1e-13)


def test_schedules_are_those_of_their_papers():
    np.testing.assert_allclose(linear(1000).betas[[1, 1000]], [1e-4, 0.02], rtol=1e-9)
    np.testing.assert_allclose(np.diff(linear(1000).betas[1:]), 0.0199 / 999, rtol=1e-6)
    t = 500 / 1000
    ratio = math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    assert cosine(1000).abar[500] == pytest.approx(ratio, rel=1e-12)
    assert cosine(1000).betas.max() == pytest.approx(0.999, rel=1e-9)
    for make in SCHEDULES.values():
        assert make(1000).abar[-1] < 1e-4  # hardly anything is left


@every_schedule
def test_a_step_with_eta_1_is_that_of_bayes(schedule):
    """q(x_(t-1) | x_t, x_0) from q(x_(t-1) | x_0) and q(x_t | x_(t-1)), by weighting with precisions."""
    for t in range(1, len(schedule) + 1):
        of_image, of_x, sigma = step(schedule, t, 1.0)
        keep, beta, prior = math.sqrt(1 - schedule.betas[t]), schedule.betas[t], 1 - schedule.abar[t - 1]
        if t == 1:
            assert (of_image, of_x, sigma) == (1, 0, 0)
            continue
        precision = 1 / prior + keep**2 / beta
        assert sigma**2 == pytest.approx(1 / precision, rel=1e-9)
        assert of_image == pytest.approx(math.sqrt(schedule.abar[t - 1]) / prior / precision, rel=1e-9)
        assert of_x == pytest.approx(keep / beta / precision, rel=1e-9)
        # equations 6 and 7, as they are printed
        left = 1 - schedule.abar[t]
        assert sigma**2 == pytest.approx(prior / left * beta, rel=1e-9)
        assert of_image == pytest.approx(math.sqrt(schedule.abar[t - 1]) * beta / left, rel=1e-9)
        assert of_x == pytest.approx(keep * prior / left, rel=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@every_schedule
def test_every_eta_keeps_the_marginals(schedule, eta):
    """x_(t-1) from x_t and the true x_0 is distributed as q(x_(t-1) | x_0): DDIM's lemma 1."""
    for t in range(1, len(schedule) + 1):
        of_image, of_x, sigma = step(schedule, t, eta)
        assert of_image + of_x * schedule.signal[t] == pytest.approx(schedule.signal[t - 1], abs=1e-12)
        assert (of_x * schedule.noise[t]) ** 2 + sigma**2 == pytest.approx(schedule.noise[t - 1] ** 2, abs=1e-12)


@pytest.mark.parametrize("prediction", PREDICTIONS.values(), ids=list(PREDICTIONS))
def test_what_the_network_should_say_tells_the_image(prediction):
    image, noise, schedule = rng().uniform(-1, 1, (2, 3)), rng(1).standard_normal((2, 3)), linear(1000)
    for t in (1, 200, 1000):
        a, s = schedule.signal[t], schedule.noise[t]
        said = prediction.target(image, noise, a, s)
        np.testing.assert_allclose(prediction.image(said, a * image + s * noise, a, s), image, rtol=0, atol=1e-12)
    velocity = PREDICTIONS["velocity"].target(image, noise, math.cos(0.4), math.sin(0.4))  # d x / d angle
    h = 1e-6
    slope = [math.cos(0.4 + d) * image + math.sin(0.4 + d) * noise for d in (h, -h)]
    np.testing.assert_allclose(velocity, (slope[0] - slope[1]) / (2 * h), atol=1e-9)


def test_a_subsequence_has_betas_of_its_own():
    schedule = linear(1000)
    some = schedule.subsequence(50)
    assert len(some) == 50
    np.testing.assert_array_equal(some.abar, schedule.abar[::20])
    np.testing.assert_array_equal(some.times, schedule.times[::20])
    np.testing.assert_allclose(np.cumprod(1 - some.betas), some.abar, rtol=1e-12)
    assert some.betas[7] > 15 * schedule.betas[140]
    np.testing.assert_array_equal(schedule.subsequence(1000).abar, schedule.abar)
    for wrong in (0, 1001):
        with pytest.raises(ValueError, match=rf"steps must be from 1 to 1000, got {wrong}"):
            schedule.subsequence(wrong)
    for abar in ([0.9, 0.5], [1.0], [1.0, 0.5, 0.5], [1.0, -0.1]):
        with pytest.raises(ValueError, match="abar must fall from 1"):
            Schedule(np.array(abar))


# ------------------------------------------------------------------------------------------- samplers on Gaussian data


def recursion(data, schedule, eta):
    """The mean and the covariance of what the sampler draws with the exact denoiser: no randomness is left."""
    mean, covariance = np.zeros(2), np.eye(2)
    for t in range(len(schedule), 0, -1):
        of_image, of_x, sigma = step(schedule, t, eta)
        gain, offset = data.affine(t)
        m = of_image * gain + of_x * np.eye(2)
        mean, covariance = m @ mean + of_image * offset, m @ covariance @ m.T + sigma**2 * np.eye(2)
    return mean, covariance


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 5, 20])
def test_the_sampler_draws_what_the_recursion_says(eta, steps):
    """40,000 points, turned so that their own moments are exact: with eta 0 no error of Monte Carlo is left."""
    schedule = linear(1000).subsequence(steps)
    data, x = Gaussian(schedule), rng().standard_normal((40_000, 2))
    x -= x.mean(0)
    x = x @ np.linalg.inv(np.linalg.cholesky(x.T @ x / len(x))).T
    *_, drawn = reverse(data.predict, schedule, x, eta, rng(1))
    mean, covariance = recursion(data, schedule, eta)
    tolerance = 1e-10 if eta == 0 else 0.02
    np.testing.assert_allclose(drawn.mean(0), mean, rtol=0, atol=tolerance)
    np.testing.assert_allclose(np.cov(drawn.T, bias=True), covariance, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("eta", "seen"), [(0.0, (0.45, 0.10, 0.052, 0.0055)), (1.0, (0.56, 0.20, 0.11, 0.014))])
def test_more_steps_come_nearer_to_the_data_at_first_order(eta, seen):
    schedule, size = linear(1000), np.linalg.norm(COVARIANCE)
    errors = []
    for steps in (10, 50, 100, 1000):
        some = schedule.subsequence(steps)
        errors.append(np.linalg.norm(recursion(Gaussian(some), some, eta)[1] - COVARIANCE) / size)
    assert errors == sorted(errors, reverse=True)
    assert all(error < 1.5 * bound for error, bound in zip(errors, seen, strict=True))
    assert errors[2] / errors[3] > 6


def test_without_noise_the_image_follows_from_the_first_x():
    schedule, x = linear(1000).subsequence(10), rng().standard_normal((5, 2))
    data = Gaussian(schedule)
    *_, once = reverse(data.predict, schedule, x, 0.0, rng(1))
    *_, again = reverse(data.predict, schedule, x, 0.0, rng(2))
    *_, noisy = reverse(data.predict, schedule, x, 1.0, rng(1))
    np.testing.assert_array_equal(once, again)
    assert np.abs(noisy - once).max() > 0.1


def test_encoding_leads_back_at_first_order_and_with_iterations_exactly():
    schedule, x = linear(1000), rng().multivariate_normal(MEAN, COVARIANCE, 50)

    def error(steps, iterations):
        some = schedule.subsequence(steps)
        data = Gaussian(some)
        z = encode(data.predict, some, x, iterations)
        *_, back = reverse(data.predict, some, z, 0.0, rng())
        return np.abs(back - x).max()

    once = [error(steps, 1) for steps in (10, 100, 1000)]
    assert once[0] > 0.1
    assert once[0] / once[1] > 4
    assert once[1] / once[2] > 8
    assert error(10, 150) < 1e-10
    assert error(100, 30) < 1e-10


@every_schedule
def test_the_score_is_that_of_finite_differences(schedule):
    data, x, h = Gaussian(schedule), rng().standard_normal((20, 2)), 1e-5
    for t in (1, len(schedule) // 2, len(schedule)):
        ends = [[data.log_density(x + sign * h * e, t) for sign in (1, -1)] for e in np.eye(2)]
        slopes = np.stack([(up - down) / (2 * h) for up, down in ends], axis=1)
        scale = max(1, np.abs(slopes).max())
        np.testing.assert_allclose(score(data.predict, schedule, x, t), slopes, rtol=0, atol=1e-6 * scale)


# --------------------------------------------------------------------------------------------------------- the bound


def hermite(nodes=3):
    """Points (N, 1) and weights (N,) that give the mean of polynomials of a standard normal number exactly."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    return points[:, None], weights / weights.sum()


def density_nats(image, mean, sigma):
    return 0.5 * ((image - mean) / sigma) ** 2 + math.log(sigma) + 0.5 * math.log(2 * math.pi)


def exact_bound(schedule, data, variance):
    """The bound in nats, all its means by quadrature: its terms are quadratic in data and noise."""
    points, weights = hermite()
    image = np.repeat(data.mean + math.sqrt(data.covariance.item()) * points, 3, 0)
    noise, both = np.tile(points, (3, 1)), np.outer(weights, weights).ravel()
    total = both @ bound.prior_term(schedule, image)
    for t in range(1, len(schedule) + 1):
        found = data.predict(bound.noised(schedule, image, noise, t), t)
        total += both @ bound.term(schedule, image, found, t, density_nats, variance)
    return total


@pytest.mark.fault("M12")
@pytest.mark.parametrize("times", [10, 100, 1000])
def test_the_bound_is_the_entropy_for_normal_data(times):
    """Of N(0, 1), with sigma^2 = beta: a wrong term, weight or index anywhere in L_T, L_t, L_0 breaks it."""
    for make in SCHEDULES.values():
        schedule = make(times)
        found = exact_bound(schedule, Gaussian(schedule, 0.0, 1.0), "beta")
        assert found == pytest.approx(0.5 * math.log(2 * math.pi * math.e), abs=1e-9)


def test_the_bound_is_above_the_entropy_of_other_data():
    schedule = linear(1000)
    entropy = 0.5 * math.log(2 * math.pi * math.e * 0.25)
    gaps = {v: exact_bound(schedule, Gaussian(schedule, 0.4, 0.25), v) - entropy for v in bound.VARIANCES}
    assert 0 < gaps["beta"] < 2e-3
    assert 0.1 < gaps["posterior"] < 0.6


@pytest.mark.fault("M12")
def test_a_time_index_off_by_one_is_seen():
    """Samples look the same then: only the bound's identity tells."""
    schedule = linear(100)

    class Off(Gaussian):
        def predict(self, x, t):
            return super().predict(x, max(t - 1, 1))

    found = exact_bound(schedule, Off(schedule, 0.0, 1.0), "beta")
    assert found - 0.5 * math.log(2 * math.pi * math.e) > 1e-4


def test_the_estimate_of_the_bound_is_unbiased():
    schedule = linear(30)
    data = Gaussian(schedule, 0.0, 1.0)
    image = rng().standard_normal((40, 1))
    found = [bound.estimate(data.predict, schedule, image, density_nats, 4, rng(i)) for i in range(400)]
    for variance in bound.VARIANCES:
        sums = np.array([sum(draw[variance].values()) for draw in found])
        noise = rng(9).standard_normal((40, 200))
        expected = bound.prior_term(schedule, image).mean()
        for t in range(1, 31):
            x = schedule.signal[t] * image + schedule.noise[t] * noise
            behind = data.predict(x.reshape(-1, 1), t).reshape(-1, 1)
            expected += bound.term(schedule, np.repeat(image, 200, 0), behind, t, density_nats, variance).mean()
        assert abs(sums.mean() - expected) < 4 * sums.std() / math.sqrt(len(sums)) + 0.02
    assert set(found[0]["beta"]) == {"L_T", "L_t", "L_0"}


def test_the_estimate_is_near_the_sum_over_all_times_also_where_the_first_ones_have_nearly_all_of_it():
    """Of whole pixels, and a denoiser that only scales: with equal strata it would mostly miss those times."""
    schedule, image = cosine(1000), rng().choice([-1.0, 0.0, 1.0], (20, 64))

    def predict(x, t):
        return np.clip(x / schedule.signal[t], -1, 1)

    total = bound.prior_term(schedule, image).mean()
    for t in range(1, 1001):
        x = bound.noised(schedule, image, rng(t).standard_normal(image.shape), t)
        total += bound.term(schedule, image, predict(x, t), t, bound.level_nats(3), "beta").mean()
    found = [bound.estimate(predict, schedule, image, bound.level_nats(3), 20, rng(i))["beta"] for i in range(40)]
    sums = np.array([sum(terms.values()) for terms in found])
    assert sums.std() < 0.1 * total
    assert abs(sums.mean() - total) < 4 * sums.std() / math.sqrt(len(sums)) + 0.01 * total


@pytest.mark.parametrize("sigma", [1e-3, 0.01, 0.3, 5.0])
@pytest.mark.parametrize("levels", [2, 17, 256])
def test_probabilities_of_levels_sum_to_one(levels, sigma):
    values = np.linspace(-1, 1, levels)
    for mean in (-1.2, -0.3, 0.001, 0.9):
        nats = bound.level_nats(levels)(values, np.full(levels, mean), sigma)
        assert np.isfinite(nats).all()
        assert np.exp(-nats).sum() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 0.5), (2.9, 3.1), (5.0, 5.5), (30.0, 31.0), (-40.0, -39.0)])
def test_probabilities_far_out_are_those_of_quadrature(low, high):
    z, nearer = np.linspace(low, high, 200_001), min(abs(low), abs(high)) if low * high > 0 else 0.0
    integral = np.trapezoid(np.exp(-0.5 * (z**2 - nearer**2)), z) / math.sqrt(2 * math.pi)
    assert bound.log_between(low, high) == pytest.approx(math.log(integral) - 0.5 * nearer**2, abs=1e-7)
