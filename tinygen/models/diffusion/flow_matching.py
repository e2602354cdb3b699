"""Flow matching: straight lines from noise to images, and a network that learns the velocity on them.

    x_u = (1 - u) x_0 + u e             a point on the line from the image (u = 0) to noise (u = 1)
    |e - x_0 - v_theta(x_u, u)|^2       what the network is trained on
    dx / du = v_theta(x, u)             how it draws: from u = 1 to u = 0, by Euler's steps

Where lines cross, the best velocity is their mean; so paths of the equation don't cross, and bend a little.

Source: Lipman et al., Flow matching for generative modeling (2023); Liu, Gong & Liu, Flow straight and fast (2023).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from tinygen import no_grad
from tinygen.models.diffusion.base import Denoiser, Lesson, spread


def euler(velocity: Callable[[np.ndarray, int], np.ndarray], steps: int, x: np.ndarray) -> Iterator[np.ndarray]:
    """x at u = 1, then at 1 - 1 / steps, .. 0. velocity(x, k): at u = k / steps."""
    yield x
    for k in range(steps, 0, -1):
        x = x - velocity(x, k) / steps
        yield x


class FlowMatching(Denoiser):
    """A flow along straight lines, by the U-Net of diffusion.

    Args:
        image_shape: (C, H, W).
        levels: values run from 0 to levels - 1.
        width: channels of the U-Net's first scale.
        steps: in how many steps noise becomes an image, unless `sample` is told otherwise.
        guidance: by how much what a class adds is overdone when images are drawn: 0: as it was learned.
        classes: how many classes the model may be told; 0: none.
        rng: draws the initial weights.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, width: int = 32, steps: int = 50,
        guidance: float = 0.0, classes: int = 0, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        super().__init__(image_shape, levels, width, steps, guidance, classes, rng)

    def lesson(self, image: np.ndarray, rng: np.random.Generator) -> Lesson:
        u, noise = spread(len(image), rng), self.noise(len(image), rng)
        share = u.astype(image.dtype)[:, None, None, None]
        return Lesson((1 - share) * image + share * noise, u, noise - image)

    def states(
        self, x: np.ndarray, labels: np.ndarray | None, rng: np.random.Generator, temperature: float = 1.0
    ) -> Iterator[np.ndarray]:
        with no_grad():
            time = self.network.current.time(np.arange(self.steps + 1) / self.steps)
        return euler(lambda x, k: self.said(x, time[k : k + 1], labels, self.guidance), self.steps, x)
