"""The score model and flow matching: their samplers on data that are known, and what they are trained on."""

import math

import numpy as np
import pytest

from tests.models.small import new
from tinygen.models.diffusion.flow_matching import euler
from tinygen.models.diffusion.score import langevin, rate

MEAN, COVARIANCE = np.array([0.3, -0.5]), np.array([[0.5, 0.3], [0.3, 0.4]])


def rng(seed=0):
    return np.random.default_rng(seed)


def standardized(n=40_000):
    """n points whose mean is 0 and whose covariance is the identity, exactly."""
    x = rng().standard_normal((n, 2))
    x -= x.mean(0)
    return x @ np.linalg.inv(np.linalg.cholesky(x.T @ x / n)).T


def gain_at(u):
    """Of the best velocity E[e - x_0 | x_u] = gain (x_u - mean) + offset for data N(m, A)."""
    covariance = (1 - u) ** 2 * COVARIANCE + u * u * np.eye(2)
    return (u * np.eye(2) - (1 - u) * COVARIANCE) @ np.linalg.inv(covariance)


# ----------------------------------------------------------------------------------------------------- flow matching


@pytest.mark.parametrize("steps", [1, 4, 32])
def test_euler_draws_what_the_recursion_says(steps):
    def velocity(x, k):
        u = k / steps
        return (x - (1 - u) * MEAN) @ gain_at(u).T - MEAN

    *_, drawn = euler(velocity, steps, standardized())
    mean, covariance = np.zeros(2), np.eye(2)
    for k in range(steps, 0, -1):
        u, gain = k / steps, gain_at(k / steps)
        mean = mean - (gain @ (mean - (1 - u) * MEAN) - MEAN) / steps
        covariance = (np.eye(2) - gain / steps) @ covariance @ (np.eye(2) - gain / steps).T
    np.testing.assert_allclose(drawn.mean(0), mean, rtol=0, atol=1e-10)
    np.testing.assert_allclose(np.cov(drawn.T, bias=True), covariance, rtol=0, atol=1e-10)
    if steps == 32:
        np.testing.assert_allclose(covariance, COVARIANCE, rtol=0, atol=0.05)


def test_from_one_point_lines_are_straight_and_one_step_does():
    *_, drawn = euler(lambda x, k: x - MEAN, 1, standardized(100))  # at u = 1: e - x_0 = x - m
    np.testing.assert_allclose(drawn, np.tile(MEAN, (100, 1)), rtol=0, atol=1e-12)


def test_a_lesson_of_flow_matching_is_the_slope_of_its_line():
    model, image = new("flow-matching", (1, 4, 4), 17), rng().uniform(-1, 1, (8, 1, 4, 4)).astype(np.float32)
    x, u, slope = model.lesson(image, rng())
    u = u[:, None, None, None]
    np.testing.assert_allclose(x - u * slope, image, rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.diff(np.sort(u.ravel())), 1 / 8, atol=1e-9)
    assert (slope + image).std() == pytest.approx(1, abs=0.2)


# --------------------------------------------------------------------------------------------------------- the score


def test_denoising_score_matching_has_the_score_as_its_best_answer():
    """Data N(0, v): of all multiples of x the best is -sigma times the score, -x / (v + sigma^2)."""
    model, v = new("score", (1, 4, 4), 17, noises=3, widest=4.0, narrowest=0.25), 0.7
    image = (math.sqrt(v) * rng(1).standard_normal((30_000, 1, 4, 4))).astype(np.float32)
    seen, times, noise = model.lesson(image, rng(2))
    for i, sigma in enumerate(model.sigmas):
        chosen = np.isclose(times, model.times(np.array(i)))
        x = seen[chosen] * math.sqrt(1 + sigma**2)
        best = (x * noise[chosen]).sum() / (x * x).sum()
        assert best == pytest.approx(sigma / (v + sigma**2), rel=0.02)


SIGMAS = np.geomspace(5.0, 0.05, 20)


def langevin_moments(steps):
    """The mean and the covariance of what Langevin's chain draws with the exact score."""
    r, mean, covariance = rate(SIGMAS, steps), np.zeros(2), 25.0 * np.eye(2)

    def toward(mean, covariance, share, sigma):
        gain = np.eye(2) - share * sigma**2 * np.linalg.inv(COVARIANCE + sigma**2 * np.eye(2))
        return MEAN + gain @ (mean - MEAN), gain @ covariance @ gain.T

    for sigma in [s for s in SIGMAS for _ in range(steps)]:
        mean, covariance = toward(mean, covariance, r, sigma)
        covariance = covariance + 2 * r * sigma**2 * np.eye(2)
    return toward(mean, covariance, 1, sigma)  # the last noise is taken out


@pytest.mark.parametrize("steps", [1, 3])
def test_langevin_draws_what_the_recursion_says(steps):
    def score(x, i):
        return -(x - MEAN) @ np.linalg.inv(COVARIANCE + SIGMAS[i] ** 2 * np.eye(2))

    *_, drawn = langevin(score, SIGMAS, steps, standardized(), rng(1))
    mean, covariance = langevin_moments(steps)
    np.testing.assert_allclose(drawn.mean(0), mean, rtol=0, atol=0.02)
    np.testing.assert_allclose(np.cov(drawn.T, bias=True), covariance, rtol=0, atol=0.02)


def test_langevin_comes_to_the_data_with_more_steps():
    errors = [np.abs(langevin_moments(steps)[1] - COVARIANCE).max() for steps in (1, 3, 30, 300)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.05


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_the_rate_brings_a_point_nearest_to_rest(steps):
    sigmas = np.geomspace(10, 0.02, 50)

    def left(r):
        variance = (sigmas[0] / sigmas[1]) ** 2
        for _ in range(steps):
            variance = (1 - r) ** 2 * variance + 2 * r
        return variance

    best = rate(sigmas, steps)
    assert 0 < best < 1
    assert left(best) <= min(left(best + d) for d in (-0.01, -0.002, 0.002, 0.01))
    assert left(best) < (sigmas[0] / sigmas[1]) ** 2


# ------------------------------------------------------------------------------------------------------------- both


@pytest.mark.parametrize(("name", "scale"), [("score", 0.3), ("flow-matching", 0.3)])
@pytest.mark.parametrize("classes", [0, 3])
def test_they_draw_images_of_classes_or_without(name, scale, classes):
    model, numbers = new(name, (1, 4, 4), 17, classes=classes), rng(3)
    for _, p in model.network.average.named_buffers():
        p.write()[...] += (scale * numbers.standard_normal(p.shape)).astype(np.float32)
    drawn = model.eval().sample(5, rng(), labels=np.arange(5) % 3 if classes else None)
    assert drawn.shape == (5, 1, 4, 4)
    np.testing.assert_array_equal(model.sample(5, rng(), labels=np.arange(5) % 3 if classes else None), drawn)
    model.draw_with(steps=3, guidance=2.0 if classes else 0.0)
    assert (model.sample(5, rng()) != drawn).any()
    with pytest.raises(ValueError, match=r"draws without eta; it takes steps, guidance"):
        model.draw_with(eta=1)


def test_sigmas_that_can_not_be_are_told():
    for options in ({"noises": 1}, {"narrowest": 0.0}, {"widest": 0.01}):
        with pytest.raises(ValueError, match="noises must be at least 2 and 0 < narrowest < widest, got "):
            new("score", (1, 4, 4), 17, **options)
