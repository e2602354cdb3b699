"""p(x | z): what a decoder's output says of the image (lecture slides 57 and 75).

A likelihood turns the numbers that a network gives for each value of an image, `outputs` of them, into a distribution
over the levels 0 .. levels - 1; given z, all values are independent. Outputs are (..., outputs * C, H, W), images are
(..., C, H, W), and the axes before broadcast: several draws of z for one image.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np

from tinygen import Tensor, clamp, exp, nn, tensor
from tinygen.data import Levels
from tinygen.nn import functional as F

Kind = Literal["logistic", "bernoulli", "gaussian"]


def likelihood(name: Kind, levels: int, sigma: float | None) -> Likelihood:
    """The likelihood of that name. sigma: the Gaussian's.

    Raises ValueError for another name, for a sigma without the Gaussian, and for levels that don't fit.
    """
    if name not in get_args(Kind):
        raise ValueError(f"likelihood must be one of {', '.join(get_args(Kind))}, got {name!r}")
    if sigma is not None and name != "gaussian":
        raise ValueError(f"sigma is the Gaussian likelihood's: with likelihood {name!r} it must be None, got {sigma}")
    if name == "gaussian":
        return Gaussian(levels, sigma)
    return Bernoulli(levels) if name == "bernoulli" else Logistic(levels)


class Likelihood(nn.Module):
    """The base of likelihoods: levels 0 .. levels - 1 lie evenly on -1 .. 1, and a draw falls on the nearest one."""

    outputs: int

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = Levels(levels)

    def nats(self, output: Tensor, images: np.ndarray) -> Tensor:
        """-log p of each value of the images, in their shape."""
        raise NotImplementedError

    def sample(self, output: np.ndarray, rng: np.random.Generator, temperature: float = 1.0) -> np.ndarray:
        """A level drawn for each value, (..., C, H, W) uint8; at temperature 0 the likeliest."""
        raise NotImplementedError

    def mean(self, output: np.ndarray) -> np.ndarray:
        """The expectation of each value, (..., C, H, W) floats, 0 .. levels - 1."""
        return self.levels.unscale(output[..., : output.shape[-3] // self.outputs, :, :])


class Bernoulli(Likelihood):
    """Black or white, of images of 2 levels; the output is the logit of white."""

    outputs = 1

    def __init__(self, levels: int) -> None:
        if levels != 2:
            raise ValueError(f"likelihood 'bernoulli' is for images of 2 levels, these have {levels}: threshold them "
                             "(--levels 2), or take 'logistic' or 'gaussian'")  # fmt: skip
        super().__init__(levels)

    def nats(self, output: Tensor, images: np.ndarray) -> Tensor:
        return F.softplus(output) - output * output.new_tensor(images)

    def mean(self, output: np.ndarray) -> np.ndarray:
        return np.tanh(output / 2) / 2 + 0.5

    def sample(self, output: np.ndarray, rng: np.random.Generator, temperature: float = 1.0) -> np.ndarray:
        return (output > temperature * rng.logistic(size=output.shape)).astype(np.uint8)


class Gaussian(Likelihood):
    """A normal distribution around the output, with one standard deviation for all values, on the scale from -1 to 1.

    `nats` is -log of its density times a level's width: about the level's probability while the density is wide. Sigma
    is at least what gives the level at the peak probability 1, so that the likelihood can't grow without bound.

    sigma: fixed; None: learned with the rest (Rybkin, Daniilidis & Levine 2021, Simple and effective VAE training).
    """

    outputs = 1

    def __init__(self, levels: int, sigma: float | None) -> None:
        super().__init__(levels)
        self.least = math.log(2 / (levels - 1) / math.sqrt(2 * math.pi))
        if sigma is not None and not sigma >= math.exp(self.least):
            raise ValueError(f"sigma must be at least {math.exp(self.least):.3g} for {levels} levels, got {sigma}")
        log_sigma = np.float32(max(math.log(sigma or 0.5), self.least))
        if sigma is None:
            self.log_sigma = nn.Parameter(log_sigma)
        else:
            self.register_buffer("log_sigma", tensor(log_sigma))

    def nats(self, output: Tensor, images: np.ndarray) -> Tensor:
        log_sigma = clamp(self.log_sigma, min=self.least)
        z = (output - output.new_tensor(self.levels.scale(images))) * exp(-log_sigma)
        return z * z * 0.5 + (log_sigma - self.least)

    def sample(self, output: np.ndarray, rng: np.random.Generator, temperature: float = 1.0) -> np.ndarray:
        sigma = math.exp(max(self.log_sigma.item(), self.least))
        return self.levels.round(output + temperature * sigma * rng.standard_normal(output.shape))


class Logistic(Likelihood):
    """A discretized logistic, for any number of levels. The outputs: all means, then all log scales."""

    outputs = 2

    def nats(self, output: Tensor, images: np.ndarray) -> Tensor:
        last = output.ndim - 3
        pixels = output.permute(*range(last), last + 1, last + 2, last)  # channels last, as in memory: they split
        halves = pixels[..., : output.shape[last] // 2], pixels[..., output.shape[last] // 2 :]
        mean, log_scale = (half.permute(*range(last), last + 2, last, last + 1) for half in halves)
        return F.discretized_logistic_nll(mean, log_scale, images, self.levels, reduction="none")

    def sample(self, output: np.ndarray, rng: np.random.Generator, temperature: float = 1.0) -> np.ndarray:
        channels = output.shape[-3] // 2
        mean, log_scale = output[..., :channels, :, :], np.clip(output[..., channels:, :, :], -7, 7)
        return self.levels.round(mean + temperature * np.exp(log_scale) * rng.logistic(size=mean.shape))
