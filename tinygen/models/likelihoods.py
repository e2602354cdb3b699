"""p(x given z): what a decoder's output says of the image (lecture slides 57 and 75).

A likelihood turns the numbers that a network gives for each value, `outputs` of them, into a distribution of that value
over the levels 0 .. levels - 1; all values are independent given z. `nats` is -log p, `mean` the expectation and
`sample` a draw, in levels. An output is (..., outputs * C, H, W), images are (..., C, H, W), and the axes before
broadcast: several draws of z for one image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np

from tinygen import Tensor, clamp, exp, nn, tensor
from tinygen.data import Levels
from tinygen.nn import functional as F

Kind = Literal["logistic", "bernoulli", "gaussian"]


def likelihood(name: Kind, levels: int, sigma: float | None) -> Likelihood:
    """One by its name. sigma: of the Gaussian."""
    if name not in get_args(Kind):
        raise ValueError(f"likelihood must be one of {', '.join(get_args(Kind))}, got {name!r}")
    if sigma is not None and name != "gaussian":
        raise ValueError(f"sigma is the Gaussian likelihood's: with likelihood {name!r} it must be None, got {sigma}")
    return (
        Gaussian(levels, sigma) if name == "gaussian" else {"bernoulli": Bernoulli, "logistic": Logistic}[name](levels)
    )


class Likelihood(nn.Module):
    """What they share: levels 0 .. levels - 1 lie evenly on -1 .. 1, and a draw falls on the nearest one."""

    outputs: int
    nats: Callable[[Tensor, np.ndarray], Tensor]  # -log p of each value, in the images' shape
    sample: Callable[..., np.ndarray]

    def __init__(self, levels: int) -> None:
        self.levels = Levels(levels)

    def mean(self, output: np.ndarray) -> np.ndarray:
        """The expectation of each value, in levels, a float."""
        return self.levels.unscale(output[..., : output.shape[-3] // self.outputs, :, :])


class Bernoulli(Likelihood):
    """Black or white, by the logit of white. For images of 2 levels."""

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
    """A normal distribution around the output, of one standard deviation for all values, on the scale from -1 to 1.

    `nats` is -log of its density for one level's width: what it gives a level, as long as it is wide. So sigma is at
    least the one at which the density's peak is 1: a likelihood that can't run away.

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
    """A discretized logistic: the probabilities of the levels, whose number may be any. Outputs: means, log scales."""

    outputs = 2

    def nats(self, output: Tensor, images: np.ndarray) -> Tensor:
        last = output.ndim - 3
        pixels = output.permute(
            *range(last), last + 1, last + 2, last
        )  # channels last, so that as in memory they split
        halves = pixels[..., : output.shape[last] // 2], pixels[..., output.shape[last] // 2 :]
        mean, log_scale = (half.permute(*range(last), last + 2, last, last + 1) for half in halves)
        return F.discretized_logistic_nll(mean, log_scale, images, self.levels, reduction="none")

    def sample(self, output: np.ndarray, rng: np.random.Generator, temperature: float = 1.0) -> np.ndarray:
        channels = output.shape[-3] // 2
        mean, log_scale = output[..., :channels, :, :], np.clip(output[..., channels:, :, :], -7, 7)
        return self.levels.round(mean + temperature * np.exp(log_scale) * rng.logistic(size=mean.shape))
