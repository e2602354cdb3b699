"""Densities of one variable (lecture slide 12): what a generative model is for many."""

from __future__ import annotations

import math

import numpy as np


class Histogram:
    """Equal bins over the data's range; the density is constant in each, and 0 outside. x: (N,)."""

    def __init__(self, x: np.ndarray, bins: int = 20) -> None:
        _check_values("Histogram", x, bins=bins)
        counts, self.edges = np.histogram(x, bins)
        self.heights = counts / (len(x) * np.diff(self.edges))

    def density(self, at: np.ndarray) -> np.ndarray:
        """p(x) at these places."""
        index = np.searchsorted(self.edges, at, "right") - 1
        index = np.where(at == self.edges[-1], len(self.heights) - 1, index)  # the last bin holds its right edge
        inside = (index >= 0) & (index < len(self.heights))
        return np.where(inside, self.heights[np.where(inside, index, 0)], 0.0)


class KernelDensity:
    """The mean of Gaussians around the data, x (N,). width: their deviation; None: Silverman's rule (1986)."""

    def __init__(self, x: np.ndarray, width: float | None = None) -> None:
        _check_values("KernelDensity", x)
        self.x = np.asarray(x, np.float64)
        if width is None:
            quartiles = np.subtract(*np.percentile(x, [75, 25])) / 1.349
            spread = min(s for s in (float(np.std(x)), quartiles, math.inf) if s > 0)
            width = 0.9 * spread * len(x) ** -0.2 if spread < math.inf else 1.0
        if not width > 0:
            raise ValueError(f"KernelDensity: width must be above 0, got {width}")
        self.width = width

    def density(self, at: np.ndarray) -> np.ndarray:
        """p(x) at these places."""
        return _normal(np.asarray(at, np.float64)[..., None], self.x, self.width).mean(axis=-1)


class GaussianMixture:
    """Several Gaussians, fitted by expectation maximization (Dempster, Laird & Rubin 1977). x: (N,).

    Attributes:
        weights, means, deviations: (components,). A deviation stays above a thousandth of the data's own, lest a
            component shrinks onto a single value, where the likelihood has no bound.
        log_likelihoods: the mean log p(x) before each step; it never falls.
    """

    def __init__(self, x: np.ndarray, components: int = 2, iterations: int = 200) -> None:
        _check_values("GaussianMixture", x, components=components, iterations=iterations)
        x = np.asarray(x, np.float64)
        least = max(float(x.std()) / 1000, 1e-12)
        self.means = np.quantile(x, (np.arange(components) + 0.5) / components)
        self.deviations = np.full(components, max(float(x.std()), least))
        self.weights = np.full(components, 1 / components)
        self.log_likelihoods: list[float] = []
        for _ in range(iterations):
            log_joint = self._log_joint(x)
            log_p = np.logaddexp.reduce(log_joint, axis=1, keepdims=True)
            share = np.exp(log_joint - log_p)  # E: how much each component is responsible for each value
            self.log_likelihoods.append(float(log_p.mean()))
            total = np.maximum(share.sum(axis=0), 1e-300)  # M: the components' own means and deviations
            self.weights = total / len(x)
            self.means = share.T @ x / total
            variances = (share * (x[:, None] - self.means) ** 2).sum(axis=0) / total
            self.deviations = np.maximum(np.sqrt(variances), least)

    def _log_joint(self, at: np.ndarray) -> np.ndarray:
        z = (np.asarray(at, np.float64)[..., None] - self.means) / self.deviations
        return np.log(self.weights) - np.log(self.deviations) - z * z / 2 - 0.5 * math.log(2 * math.pi)

    def density(self, at: np.ndarray) -> np.ndarray:
        """p(x) at these places."""
        return np.exp(np.logaddexp.reduce(self._log_joint(at), axis=-1))


def _normal(at: np.ndarray, mean: np.ndarray, deviation: float) -> np.ndarray:
    return np.exp(-(((at - mean) / deviation) ** 2) / 2) / (deviation * math.sqrt(2 * math.pi))


def _check_values(name: str, x: np.ndarray, **counts: int) -> None:
    if np.ndim(x) != 1 or not len(x) or not np.isfinite(x).all():
        raise ValueError(f"{name}: x must be (N,), finite, with N of at least 1, got shape {np.shape(x)}")
    for argument, count in counts.items():
        if count < 1:
            raise ValueError(f"{name}: {argument} must be at least 1, got {count}")
