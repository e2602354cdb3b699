"""Diffusion: an image turns into noise in small steps, and a network learns to take them back (lecture slide 140).

    x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) e         what it is shown                         DDPM, equation 4
    |e - e_theta(x_t, t)|^2                             what it is trained on, for t at random   DDPM, equation 14
    x_(t-1) from x_t and the x_0 expected behind it     how it draws (process.py)                DDIM, equation 12

The loss leaves out the weights that the bound of the likelihood has (bound.py): it looks at large noise more, and its
samples are better, its likelihood worse.

Source: Ho, Jain & Abbeel, Denoising diffusion probabilistic models (2020); Song, Meng & Ermon, Denoising diffusion
implicit models (2021).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar

import numpy as np

from tinygen import Tensor, no_grad
from tinygen.models.diffusion import predictions, process, schedules
from tinygen.models.diffusion.base import Denoiser, Lesson, in_chunks, spread
from tinygen.models.diffusion.family import DiffusionFamily, GuidedFamily
from tinygen.models.diffusion.process import Predict
from tinygen.models.diffusion.schedules import Schedule
from tinygen.models.model import Evidence

CLEAR = 0.1  # of all times: the one at which features are read
ITERATIONS = 3  # of the noise at a place that isn't known yet, in `encode`


class Diffusion(Denoiser):
    """DDPM, drawn by DDPM's or DDIM's steps; with classes on demand, and guidance.

    Args:
        image_shape: (C, H, W).
        levels: values run from 0 to levels - 1.
        predicts: what the network says of a noisy image: its noise, the image, or the velocity between both.
        betas: how the noise grows: in a straight line, or later, along a cosine.
        times: T, in how many steps an image turns into noise.
        width: channels of the U-Net's first scale.
        steps: in how many steps noise becomes an image, at most T, unless `sample` is told otherwise.
        eta: how much noise is added on the way from noise to an image: 0: none (DDIM), 1: DDPM's.
        guidance: by how much what a class adds is overdone when images are drawn: 0: as it was learned.
        classes: how many classes the model may be told; 0: none.
        rng: draws the initial weights.

    Raises ValueError for numbers out of range and names that there aren't.
    """

    evidence: ClassVar[Evidence] = "bound"
    drawing: ClassVar[tuple[str, ...]] = ("steps", "eta", "guidance")

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, predicts: predictions.Name = "velocity",
        betas: schedules.Name = "cosine", times: int = 1000, width: int = 32, steps: int = 50, eta: float = 1.0,
        guidance: float = 0.0, classes: int = 0, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        named = (("predicts", predicts, predictions.PREDICTIONS), ("betas", betas, schedules.SCHEDULES))
        for name, value, known in named:
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        if times < 2:
            raise ValueError(f"times must be at least 2, got {times}")
        self.prediction, self.noising = predictions.PREDICTIONS[predicts], schedules.SCHEDULES[betas](times)
        self.eta, self.family = eta, GuidedFamily() if classes else DiffusionFamily()
        super().__init__(image_shape, levels, width, steps, guidance, classes, rng)

    def check_drawing(self) -> None:
        super().check_drawing()
        if self.steps > len(self.noising):
            raise ValueError(f"steps must be at most the {len(self.noising)} times, got {self.steps}")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must be from 0 to 1, got {self.eta}")

    def lesson(self, image: np.ndarray, rng: np.random.Generator) -> Lesson:
        """Noisy images at times 1 .. T, which are spread evenly over the batch, and the prediction's target."""
        t = 1 + (spread(len(image), rng) * len(self.noising)).astype(int)
        a, s = (f[t].astype(image.dtype)[:, None, None, None] for f in (self.noising.signal, self.noising.noise))
        noise = self.noise(len(image), rng)
        return Lesson(a * image + s * noise, self.noising.times[t], self.prediction.target(image, noise, a, s))

    # -- drawing

    def predict(
        self, schedule: Schedule, labels: np.ndarray | None, guidance: float = 0.0, clip: bool = True
    ) -> Predict:
        """The image x_0 expected behind x at time t of a schedule, as `process` asks for it.

        What depends on time alone is computed once. clip: x_0 to -1 .. 1, where pixels are; without, errors at the
        noisiest times, where x_0 is a small difference of large numbers, grow.
        """
        with no_grad():
            time = self.network.current.time(schedule.times)

        def predict(x: np.ndarray, t: int) -> np.ndarray:
            said = self.said(x, time[t : t + 1], labels, guidance)
            image = self.prediction.image(said, x, float(schedule.signal[t]), float(schedule.noise[t]))
            return np.clip(image, -1, 1, out=image) if clip else image

        return predict

    def states(
        self, x: np.ndarray, labels: np.ndarray | None, rng: np.random.Generator, temperature: float = 1.0,
        known: Callable[[np.ndarray, int], np.ndarray] | None = None,
    ) -> Iterator[np.ndarray]:  # fmt: skip
        schedule = self.noising.subsequence(self.steps)
        return process.reverse(
            self.predict(schedule, labels, self.guidance), schedule, x, self.eta, rng, temperature, known
        )

    def complete(
        self, images: np.ndarray, known: int, rng: np.random.Generator, temperature: float = 1.0,
        labels: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        """The images with their first `known` rows kept and the rest drawn, (N, C, H, W) uint8 (lecture slide 8).

        After every step the known rows are replaced by the images' own, with as much noise as the time has: so what is
        drawn goes on from what is known, though no step was trained for it. labels: "none" if not given.

        Source: Song et al., Score-based generative modeling through stochastic differential equations (2021).
        """
        if not 0 <= known <= self.image_shape[1]:
            raise ValueError(f"known must be from 0 to {self.image_shape[1]} rows, got {known}")
        if labels is not None:
            self.condition.check(labels, len(images), type(self).__name__)
        given, schedule = self.network_input(images).numpy()[:, :, :known], self.noising.subsequence(self.steps)

        def replaced(x: np.ndarray, t: int) -> np.ndarray:
            noise = self.noise(len(x), rng)[:, :, :known]
            x[:, :, :known] = float(schedule.signal[t]) * given + float(schedule.noise[t]) * noise
            return x

        labels = self.none(len(images)) if labels is None else labels
        states = self.states(self.noise(len(images), rng), labels, rng, temperature, replaced)
        return self.levels.round(self.last(states, f"completing {len(images):,} images"))

    def features(self, x: Tensor) -> Tensor:
        """The middle of the U-Net for scaled images (N, C, H, W) at an early time, without noise, (N, channels).

        Source: Baranchuk et al., Label-efficient semantic segmentation with diffusion models (2022), in this form.
        """
        network, t = self.network.current, max(1, round(CLEAR * len(self.noising)))
        time = network.time(self.noising.times[t : t + 1])
        return network.middle(x * float(self.noising.signal[t]), time, self.none(len(x)))

    # -- images as noise: without noise on the way, each image has its own

    def codes(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n draws of the noise x_T, (n, D)."""
        return self.noise(n, rng).reshape(n, -1)

    def encode(self, images: np.ndarray) -> np.ndarray:
        """The noise from which `decode` comes back to images, nearly, (N, D): see `process.encode`."""
        schedule = self.noising.subsequence(self.steps)

        def noise_of(x: np.ndarray) -> np.ndarray:
            predict = self.predict(schedule, self.none(len(x)), clip=False)
            return process.encode(predict, schedule, x, ITERATIONS)

        return in_chunks(noise_of, self.network_input(images).numpy()).reshape(len(images), -1)

    def decode(self, z: np.ndarray) -> np.ndarray:
        """The images of noise z (N, D), by steps without noise: (N, C, H, W) floats, 0 .. levels - 1."""
        schedule, rng = self.noising.subsequence(self.steps), np.random.default_rng(0)  # which draws nothing

        def image_of(x: np.ndarray) -> np.ndarray:
            predict = self.predict(schedule, self.none(len(x)), clip=False)
            return self.last(process.reverse(predict, schedule, x, 0.0, rng), "decoding")

        return self.levels.unscale(in_chunks(image_of, z.astype(np.float32).reshape(-1, *self.image_shape)))
