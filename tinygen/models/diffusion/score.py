"""A score model: the gradient of log q of images with noise in it, and Langevin's chain along it.

    q_sigma: images plus noise of standard deviation sigma,    sigma_1 > .. > sigma_L, each the same share of the last
    s(x, sigma) = -e_theta(x, sigma) / sigma                   the score: the gradient of log q_sigma at x
    sigma^2 |s(x_0 + sigma e, sigma) + e / sigma|^2            = |e_theta - e|^2: denoising score matching
    x <- x + r sigma^2 s(x, sigma) + sqrt(2 r) sigma z         Langevin's chain, a few steps at each sigma, widest first

It is diffusion's noise prediction once more, without the shrinking of the image; and in place of steps that lead from
one noise to the next it has a chain that is to come to rest at each. At last the noise of sigma_L is taken out.

Source: Vincent, A connection between score matching and denoising autoencoders (2011); Song & Ermon, Generative
modeling by estimating gradients of the data distribution (2019), algorithm 1; Improved techniques for training
score-based generative models (2020), section 3.3, for r.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from tinygen import no_grad
from tinygen.models.diffusion.base import Denoiser, Lesson, spread


def langevin(
    score: Callable[[np.ndarray, int], np.ndarray], sigmas: np.ndarray, steps: int, x: np.ndarray,
    rng: np.random.Generator, temperature: float = 1.0,
) -> Iterator[np.ndarray]:  # fmt: skip
    """x, standard normal numbers, times sigma_1; then after `steps` steps at each sigma; then without the last noise.

    score(x, i): at sigmas[i]. temperature: of the noise z.
    """
    r, x = rate(sigmas, steps), sigmas.item(0) * x
    yield x
    for i, sigma in enumerate(sigmas.tolist()):
        for _ in range(steps):
            z = rng.standard_normal(x.shape, x.dtype)
            x = x + (r * sigma * sigma) * score(x, i) + (temperature * math.sqrt(2 * r) * sigma) * z
        yield x
    yield x + sigma * sigma * score(x, len(sigmas) - 1)


def rate(sigmas: np.ndarray, steps: int) -> float:
    """r, with which so many steps come nearest to rest: the variance of a single point's x, from the sigma before.

    Of a point's x it becomes (1 - r)^2 v + 2 r sigma^2 in a step.
    """
    rates, variance = np.linspace(0.001, 1, 1000), np.full(1000, (sigmas[0] / sigmas[min(1, len(sigmas) - 1)]) ** 2)
    for _ in range(steps):
        variance = (1 - rates) ** 2 * variance + 2 * rates
    return float(rates[np.argmin(variance)])


class ScoreModel(Denoiser):
    """A noise-conditional score network (NCSN), by the U-Net of diffusion.

    Args:
        image_shape: (C, H, W).
        levels: values run from 0 to levels - 1.
        noises: L, how many sigmas there are.
        widest, narrowest: sigma_1 and sigma_L, where pixels run from -1 to 1.
        width: channels of the U-Net's first scale.
        steps: of the chain at each sigma, unless `sample` is told otherwise.
        guidance: by how much what a class adds is overdone when images are drawn: 0: as it was learned.
        classes: how many classes the model may be told; 0: none.
        rng: draws the initial weights.

    Raises ValueError for numbers out of range.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, noises: int = 50, widest: float = 10.0,
        narrowest: float = 0.02, width: int = 32, steps: int = 2, guidance: float = 0.0, classes: int = 0,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        if noises < 2 or not 0 < narrowest < widest:
            expected = "noises must be at least 2 and 0 < narrowest < widest"
            raise ValueError(f"{expected}, got {noises}, {narrowest} and {widest}")
        self.sigmas = np.geomspace(widest, narrowest, noises)
        super().__init__(image_shape, levels, width, steps, guidance, classes, rng)

    def seen(self, x: np.ndarray, sigma: np.ndarray | float) -> np.ndarray:
        """What the network is shown of x: all of about the same size."""
        return x / np.sqrt(1 + np.square(sigma)).astype(x.dtype)

    def times(self, i: np.ndarray) -> np.ndarray:
        """What the network is told of sigmas[i]: the narrowest is 0, the widest 1."""
        return 1 - i / (len(self.sigmas) - 1)

    def lesson(self, image: np.ndarray, rng: np.random.Generator) -> Lesson:
        i = (spread(len(image), rng) * len(self.sigmas)).astype(int)
        noise, sigma = self.noise(len(image), rng), self.sigmas[i].astype(image.dtype)[:, None, None, None]
        return Lesson(self.seen(image + sigma * noise, sigma), self.times(i), noise)

    def states(
        self, x: np.ndarray, labels: np.ndarray | None, rng: np.random.Generator, temperature: float = 1.0
    ) -> Iterator[np.ndarray]:
        with no_grad():
            time = self.network.current.time(self.times(np.arange(len(self.sigmas))))

        def score(x: np.ndarray, i: int) -> np.ndarray:
            sigma = self.sigmas.item(i)
            return self.said(self.seen(x, sigma), time[i : i + 1], labels, self.guidance) / -sigma

        return langevin(score, self.sigmas, self.steps, x, rng, temperature)
