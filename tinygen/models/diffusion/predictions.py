"""What the network says of a noisy image x_t = a x_0 + s e, with a = sqrt(abar_t) and s = sqrt(1 - abar_t).

    noise:       e                  then x_0 = (x_t - s e) / a             Ho et al. 2020, equation 14
    image:       x_0
    velocity:    v = a e - s x_0    then x_0 = a x_t - s v                 Salimans & Ho 2022, appendix D

Each tells the other two. They differ in what an error costs: one in the noise is blown up by s / a where little is left
of the image, one in the image hardly matters there; the velocity's is in between.

Source: Ho, Jain & Abbeel (2020); Salimans & Ho, Progressive distillation for fast sampling of diffusion models (2022).
"""

from __future__ import annotations

from typing import Any, Literal

Name = Literal["noise", "image", "velocity"]


class Noise:
    """It says the noise."""

    def target(self, image: Any, noise: Any, a: Any, s: Any) -> Any:
        """What it should say of a x_0 + s e."""
        return noise

    def image(self, said: Any, x: Any, a: Any, s: Any) -> Any:
        """x_0 by what it says of x."""
        return (x - s * said) / a


class Image:
    """It says the image."""

    def target(self, image: Any, noise: Any, a: Any, s: Any) -> Any:
        return image

    def image(self, said: Any, x: Any, a: Any, s: Any) -> Any:
        return said


class Velocity:
    """It says the velocity: how the noisy image changes along the arc from image to noise."""

    def target(self, image: Any, noise: Any, a: Any, s: Any) -> Any:
        return a * noise - s * image

    def image(self, said: Any, x: Any, a: Any, s: Any) -> Any:
        return a * x - s * said


Prediction = Noise | Image | Velocity
PREDICTIONS: dict[Name, Prediction] = {"noise": Noise(), "image": Image(), "velocity": Velocity()}
