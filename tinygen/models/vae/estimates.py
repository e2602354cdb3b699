"""How good a VAE is, and how much its latent variables are used. In evaluation mode, without a tape."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygen import logsumexp, no_grad, parallel
from tinygen.console import progress

ROWS = 2048  # of codes that are decoded at once
ACTIVE = 0.01  # how much the mean of a latent variable varies over images, from where it counts as used


def elbo(model: Any, images: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """-E log p(x | z), by one draw of z, and KL(q, p) of each image, in nats, both (N,). Sum: -ELBO."""

    def parts(some: slice, rng: np.random.Generator) -> np.ndarray:
        return np.stack([part.numpy().astype(np.float64) for part in model.negative_elbo(images[some], rng)], axis=1)

    with no_grad():
        reconstruction, kl = parallel.in_shares(parts, len(images), ROWS, rng).T
    return reconstruction, kl


def importance_bound(model: Any, images: np.ndarray, samples: int, rng: np.random.Generator) -> np.ndarray:
    """The importance-weighted bound of log p(x), in nats, (N,): log of the mean of p(x, z) / q(z | x).

    It rises with the number of samples, K, toward log p(x); for K = 1 its mean is the ELBO. Any K: it goes on in
    steps that bound the memory.
    """
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")

    def bound(some: slice, rng: np.random.Generator) -> np.ndarray:
        found = np.full(some.stop - some.start, -np.inf)
        for j in range(0, samples, ROWS):
            progress(some.start / max(len(images), 1), f"importance-weighted bound, K = {samples:,}")
            draws = min(ROWS, samples - j)
            found = np.logaddexp(
                found, model.draw(images[some], draws, rng).bound().numpy() + math.log(draws / samples)
            )
        return found

    with no_grad():
        return parallel.in_shares(bound, len(images), max(1, ROWS // samples), rng)


def prior_estimate(model: Any, images: np.ndarray, samples: int, rng: np.random.Generator) -> np.ndarray:
    """log of the mean of p(x | z) over z from the prior, in nats, (N,): slide 65, of too high variance."""
    estimates = np.full(len(images), -np.inf)
    step = max(1, ROWS // max(1, len(images)))
    with no_grad():
        for j in range(0, samples, step):
            z = model.tensor(model.codes(min(step, samples - j), rng)[:, None])  # for every image
            terms = model.log_likelihood(images, z)
            estimates = np.logaddexp(estimates, logsumexp(terms, 0).numpy() - math.log(samples))
    return estimates


def activity(model: Any, images: np.ndarray) -> np.ndarray:
    """How much the mean of each latent variable varies over images, (latent,): above `ACTIVE` it is active.

    For categories: the sum of their probabilities' variances. Source: Burda et al. (2016), section 5.2.
    """
    return model.encode(images).var(axis=0, dtype=np.float64).reshape(model.latent, -1).sum(axis=1)


def kl_by_variable(model: Any, images: np.ndarray) -> np.ndarray:
    """KL(q, p) of each latent variable, in nats, the mean over images, (latent,)."""
    with no_grad():
        return model.kl(model.encoded(images)).numpy().mean(axis=0, dtype=np.float64)
