"""FFJORD: a flow in continuous time, with a network as its velocity (lecture slides 17 to 21 and 36).

    dz/dt = f(z, t)                        from z(0) = x to z(1), by a solver                           equation 1
    d log p(z(t)) / dt = -tr(df/dz)        the instantaneous change of variables                        equation 2
    tr(df/dz) = E e' (df/dz) e             for noise e of mean 0 and covariance I (Hutchinson)           equation 6

One draw of e serves the whole solve: then the integrand is a smooth function of t, and the estimate stays unbiased
(equation 7, algorithm 1). Any f will do, so long as it is smooth: tanh here. Gradients flow through the solver's
steps, or come from a second differential equation that runs backwards (the adjoint method), which needs no memory of
the first one but is more work.

Source: Grathwohl, Chen, Bettencourt, Sutskever & Duvenaud, FFJORD (2019); Chen, Rubanova, Bettencourt & Duvenaud,
Neural ordinary differential equations (2018), appendices B and C, for the adjoint method.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import numpy as np

from tinygen import Tensor, cat, enable_grad, grad, is_grad_enabled, nn, no_grad, stack, tanh
from tinygen.data import Dataset
from tinygen.metrics.metric import Metric
from tinygen.models.family import Batch
from tinygen.models.flow.base import Flow
from tinygen.models.flow.family import FlowFamily
from tinygen.models.flow.layers import Flatten, Layer
from tinygen.models.flow.ode import State, dopri5, rk4
from tinygen.models.flow.pixels import Logit, dequantize
from tinygen.models.flow.priors import StandardNormal
from tinygen.models.model import Passes


class Velocity(nn.Module):
    """f(z, t): rows (N, D) and a time -> rows (N, D). A perceptron with tanh, told the time as one more number."""

    def __init__(self, d: int, hidden: int, rng: np.random.Generator) -> None:
        self.input = nn.Linear(d + 1, hidden, rng=rng)
        self.middle = nn.Linear(hidden, hidden, rng=rng)
        self.output = nn.Linear(hidden, d, rng=rng)

    def forward(self, z: Tensor, t: float) -> Tensor:
        told = cat(z, z.new_tensor(np.full((len(z), 1), t)), dim=1)
        return self.output(tanh(self.middle(tanh(self.input(told)))))


class Ode(Layer):
    """From x = z(0) to z(1): a layer whose log determinant is the integral of the trace.

    velocity: f(z, t). steps: of RK4, in training. tolerance: of Dormand and Prince's method, in evaluation.

    Attributes:
        evaluations: how often the last solve asked for f.
    """

    def __init__(self, velocity: nn.Module, steps: int = 8, tolerance: float = 1e-5) -> None:
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        if not tolerance > 0:
            raise ValueError(f"tolerance must be above 0, got {tolerance}")
        self.velocity, self.steps, self.tolerance, self.evaluations = velocity, steps, tolerance, 0

    def forward(self, x: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z(1), (N, D), and the integral of tr(df/dz), (N,).

        noise: e, (N, D), of the whole solve, for Hutchinson's estimate; None: the trace itself, by D gradients.
        """

        def rate(t: float, state: State) -> State:
            return self.rates(state[0], t, noise)

        return self.solve(rate, (x, x[:, 0] * 0), 0.0, 1.0)

    def inverse(self, y: Tensor) -> Tensor:
        """z(0) of z(1): the same equation backwards."""
        return self.solve(lambda t, state: (self.velocity(state[0], t),), (y,), 1.0, 0.0)[0]

    def solve(self, rate: Any, state: Any, start: float, end: float) -> Any:
        """The state at the time `end`."""
        self.evaluations = 0

        def counted(t: float, state: State) -> State:
            self.evaluations += 1
            return rate(t, state)

        if self.training:
            return rk4(counted, state, start, end, self.steps)
        return dopri5(counted, state, start, end, self.tolerance)

    def rates(self, z: Tensor, t: float, noise: Tensor | None) -> State:
        """f(z, t) and its trace, (N, D) and (N,): on the tape if one is kept."""
        kept = is_grad_enabled()
        with enable_grad():
            z = z if kept and z.requires_grad else z.new_tensor(z, requires_grad=True)
            f = self.velocity(z, t)
            trace = self.trace(f, z, noise, kept)
        return (f, trace) if kept else (f.detach(), trace.detach())

    def trace(self, f: Tensor, z: Tensor, noise: Tensor | None, create_graph: bool) -> Tensor:
        """tr(df/dz) of each row, (N,), by a gradient for each dimension; or e' (df/dz) e by one."""
        if noise is not None:
            (vjp,) = grad(f, z, noise, retain_graph=True, create_graph=create_graph)  # e' df/dz
            return (vjp * noise).sum(1)
        rows = (grad(f[:, i].sum(), z, None, True, create_graph)[0][:, i] for i in range(z.shape[1]))
        return stack(*rows, dim=1).sum(1)

    def adjoint(self, z: Tensor, noise: Tensor | None, a: Tensor, b: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The gradients of a loss by x and by the parameters, by one more solve, from the time 1 back to 0.

        a' = -(d/dz of f' a + trace b), and so the parameters' gradients grow (appendices B and C). z, the state, is
        found again on the way.

        Args:
            z, noise: z(1), and e of the forward solve.
            a, b: the loss's gradients by z(1), (N, D), and by the log determinant, (N,).
        """
        parameters = list(self.velocity.parameters())

        def rate(t: float, state: State) -> State:
            with enable_grad():
                z = state[0].new_tensor(state[0], requires_grad=True)
                f, trace = self.rates(z, t, noise)
                found = grad([f, trace], [z, *parameters], [state[1], b])
            return (f.detach(), *(-g for g in found))

        with no_grad():
            zeros = (p.new_tensor(np.zeros(p.shape)) for p in parameters)
            _, a, *gradients = self.solve(rate, (z, a, *zeros), 1.0, 0.0)
        return a, gradients


class ImageOde(Ode):
    """The same of images of a shape (C, H, W), as rows."""

    def __init__(self, shape: tuple[int, int, int], velocity: nn.Module, steps: int, tolerance: float) -> None:
        super().__init__(velocity, steps, tolerance)
        self.flatten = Flatten(shape)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return super().forward(self.flatten(x)[0], noise)

    def inverse(self, y: Tensor) -> Tensor:
        return self.flatten.inverse(super().inverse(y))


class FFJORDFamily(FlowFamily):
    """Of flows in continuous time."""

    def metrics(self, model: Any, train: Dataset, test: Dataset, rng: np.random.Generator) -> list[Metric]:
        """Those of flows, and how many evaluations of f a solve takes."""
        found = super().metrics(model, train, test, rng)
        return [
            *found,
            Metric("evaluations of f", model.ode.evaluations, f"a solve, tolerance {model.ode.tolerance:g}"),
        ]


class FFJORD(Flow):
    """A flow in continuous time, with a perceptron as its velocity; meant for small images.

    Training takes steps of RK4, evaluation Dormand and Prince's method. The log determinant is Hutchinson's estimate
    by signs +-1, one draw for a solve, also in evaluation: unbiased.

    Args:
        image_shape: (C, H, W).
        levels: values run from 0 to levels - 1.
        hidden: units of the velocity's two hidden layers.
        steps: of RK4 in training.
        tolerance: of a step in evaluation.
        adjoint: gradients by the adjoint method instead of through the solver.
        rng: draws the initial weights.

    Raises ValueError for numbers out of range.
    """

    family = FFJORDFamily()
    passes: ClassVar[Passes] = "many steps"  # of the solver

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, hidden: int = 128, steps: int = 4,
        tolerance: float = 1e-4, adjoint: bool = False, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        if hidden < 1:
            raise ValueError(f"hidden must be at least 1, got {hidden}")
        ode = ImageOde(image_shape, Velocity(math.prod(image_shape), hidden, rng), steps, tolerance)
        super().__init__(image_shape, levels, ode, Logit(levels), StandardNormal())
        self.adjoint = adjoint

    @property
    def ode(self) -> ImageOde:
        """The layer that does the work."""
        return cast(ImageOde, self.density.layers)

    def noise(self, n: int, rng: np.random.Generator) -> Tensor:
        """e of n rows: signs, which of all noise give the estimate with the least variance."""
        return self.tensor(rng.choice((-1.0, 1.0), (n, self.dimensions)))

    def forward(self, y: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        return self.density(y, self.noise(len(y), rng))

    def loss(self, batch: Batch, rng: np.random.Generator) -> dict[str, Tensor]:
        """{"nats": the mean of -log p(x + u)}."""
        if not self.adjoint:
            return super().loss(batch, rng)
        y, log_scale = self.scaled(dequantize(self.check_images(batch.images), rng))
        noise = self.noise(len(y), rng)
        with no_grad():
            z, log_det = (v.new_tensor(v, requires_grad=True) for v in self.ode(y, noise))
        nats = -(self.density.prior.log_prob(z) + log_det + log_scale).mean()
        _, gradients = self.ode.adjoint(z, noise, *grad(nats, [z, log_det]))
        return {"nats": with_gradients(nats, list(self.ode.velocity.parameters()), gradients)}


def with_gradients(value: Tensor, tensors: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """The 0-d value, with these gradients by these tensors: value + the sum of gradient (tensor - what it is now)."""
    value = value.detach()
    for t, g in zip(tensors, gradients, strict=True):
        value = value + (g * (t - t.detach())).sum()
    return value
