"""The bound of the likelihood: diffusion as a hierarchy of latent variables x_1 .. x_T.

    -log p(x_0) <= L_T + L_(T-1) + .. + L_1 + L_0                                                        equation 5
    L_T      = KL(q(x_T | x_0) || N(0, I))
    L_(t-1)  = KL(q(x_(t-1) | x_t, x_0) || p(x_(t-1) | x_t)),    on average over x_t from q(x_t | x_0)
    L_0      = -log p(x_0 | x_1),                                on average over x_1

p(x_(t-1) | x_t) is normal, its mean that of q with the network's x_0 in place of the true one. Its variance isn't
learned; each of two choices is the best for a certain kind of data (section 3.2): "beta", beta_t, for data N(0, I), and
"posterior", that of q, for a single image. The posterior's is 0 at t = 1; there t = 2's stands.

All terms are in nats an image. Time t - 1 is what the step from x_t leads to, as in the paper's L_(t-1).

Source: Ho, Jain & Abbeel, Denoising diffusion probabilistic models (2020), sections 2 and 3.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np

from tinygen import erf, tensor
from tinygen.models.diffusion.process import Predict, step
from tinygen.models.diffusion.schedules import Schedule

Variance = Literal["beta", "posterior"]
VARIANCES: tuple[Variance, ...] = get_args(Variance)
TERMS = "L_T", "L_t", "L_0"  # L_t: L_1 to L_(T-1) together
Decoder = Callable[[np.ndarray, np.ndarray, float], np.ndarray]  # of x_0, the mean and sigma: nats of each number


def variances(schedule: Schedule, t: int, variance: Variance) -> tuple[float, float]:
    """Of x_(t-1) given x_t: that of q, given x_0 too, and that of p."""
    posterior = step(schedule, t, 1.0).sigma ** 2
    if variance == "beta":
        return posterior, float(schedule.betas[t])
    return posterior, posterior if t > 1 or len(schedule) == 1 else step(schedule, 2, 1.0).sigma ** 2


def prior_term(schedule: Schedule, image: np.ndarray) -> np.ndarray:
    """L_T of images, (N,)."""
    left = float(schedule.abar[-1])
    return per_image(0.5 * (left * image * image - left - math.log1p(-left)))


def noised(schedule: Schedule, image: np.ndarray, noise: np.ndarray, t: int) -> np.ndarray:
    """x_t of images, in their dtype."""
    x = schedule.signal[t] * image + schedule.noise[t] * noise
    return x.astype(image.dtype, copy=False)


def term(
    schedule: Schedule, image: np.ndarray, found: np.ndarray, t: int, decoder: Decoder, variance: Variance
) -> np.ndarray:
    """L_(t-1) of images, (N,), for t of 1 .. T, by the x_0 that was found behind one draw of x_t."""
    posterior, model = variances(schedule, t, variance)
    if t == 1:  # the mean is that x_0
        return per_image(decoder(image, found, math.sqrt(model)))
    error = step(schedule, t, 1.0).image * (found - image)  # of the mean
    return per_image(0.5 * (math.log(model / posterior) + posterior / model - 1 + error * error / model))


def estimate(
    predict: Predict, schedule: Schedule, image: np.ndarray, decoder: Decoder, strata: int, rng: np.random.Generator
) -> dict[Variance, dict[str, float]]:
    """The terms "L_T", "L_t" (which is L_1 + .. + L_(T-1)) and "L_0", means over images in nats, with both variances.

    L_t by one time of each of so many strata, the same for all these images: so the sum is unbiased, but these images
    are one draw of it, not N. Strata are narrow near the image, where nearly all of the sum is: with equal ones its
    error is many times as large.
    """
    edges = 2 + (len(schedule) - 1) * np.linspace(0, 1, strata + 1) ** 3
    edges = np.unique(np.round(edges).astype(int))
    drawn = [(int(rng.integers(low, high)), int(high - low)) for low, high in itertools.pairwise(edges)]
    first = float(prior_term(schedule, image).mean())
    terms: dict[Variance, dict[str, float]] = {v: {"L_T": first, "L_t": 0.0, "L_0": 0.0} for v in VARIANCES}
    for t, weight in [*drawn, (1, 1)]:
        noise = rng.standard_normal(image.shape, np.float32)
        found = predict(noised(schedule, image, noise, t), t)
        for variance, sums in terms.items():
            nats = float(term(schedule, image, found, t, decoder, variance).mean())
            sums["L_0" if t == 1 else "L_t"] += weight * nats
    return terms


def per_image(nats: np.ndarray) -> np.ndarray:
    """The sum of each image's numbers, (N,) float64."""
    return nats.reshape(len(nats), -1).sum(1, dtype=np.float64)


# ------------------------------------------------------------------------------------------------------ p(x_0 | x_1)


def level_nats(levels: int) -> Decoder:
    """-log of the probability that a normal number falls into a level's cell: equation 13, levels on -1 .. 1.

    The outermost cells reach on to infinity, so the levels' probabilities sum to 1.
    """
    half = 1 / (levels - 1)

    def nats(image: np.ndarray, mean: np.ndarray, sigma: float) -> np.ndarray:
        low, high = (image - half - mean) / sigma, (image + half - mean) / sigma
        low, high = np.where(image < -1 + half, -np.inf, low), np.where(image > 1 - half, np.inf, high)
        return -log_between(low, high)

    return nats


def log_between(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """log of the probability that a standard normal number is between low and high, also where both are far out."""
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    mirrored = low + high < 0
    low, high = np.where(mirrored, -high, low), np.where(mirrored, -low, high)  # the nearer end is low
    above = log_above(low)
    return above + np.log1p(-np.exp(np.minimum(log_above(high) - above, 0)))


def log_above(z: np.ndarray) -> np.ndarray:
    """log of the probability that a standard normal number is above z: beyond 3 by Laplace's continued fraction."""
    far = np.maximum(z, 3.0)
    tail = far
    for k in range(60, 0, -1):
        tail = far + k / tail
    near = 0.5 * (1 - erf(tensor(np.minimum(z, 3.0) * math.sqrt(0.5))).numpy())
    with np.errstate(invalid="ignore"):
        return np.where(z > 3, -0.5 * far * far - 0.5 * math.log(2 * math.pi) - np.log(tail), np.log(near))
