"""Optimizers with PyTorch's names and semantics.

An optimizer changes parameters in place, through `Tensor.write`, so that a backward pass that would need the old values
raises. All arithmetic goes into arrays that are kept, in the parameters' own order in memory: a step allocates nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from tinygen._tensor import Array, Tensor
from tinygen.autograd import xp


class Optimizer:
    """Base class: parameter groups, state, and the loop over parameters. A subclass defines `update`.

    Attributes:
        param_groups: dicts with the group's tensors under "params" and its settings ("lr", ...), which may be changed
            between steps.
        state: for each parameter, in the order of the groups, its arrays and counts by name; empty before its first step.
    """

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: list[dict[str, Any]] = []
        groups = list(params)
        if not groups:
            raise ValueError(f"{type(self).__name__}: there are no parameters")
        for group in groups if isinstance(groups[0], dict) else [{"params": groups}]:
            self.add_param_group(group)

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Add {"params": tensors, **settings that differ from the defaults}."""
        name = type(self).__name__
        params = group.get("params", ())
        params = [params] if isinstance(params, Tensor) else list(params)
        if unknown := set(group) - {"params", *self.defaults}:
            raise ValueError(f"{name}: unknown setting {', '.join(sorted(unknown))}; known are {', '.join(self.defaults)}")
        known = {id(p) for p in self._params()}
        for p in params:
            if not isinstance(p, Tensor) or not p.is_leaf or p.dtype.kind != "f":
                raise TypeError(f"{name}: a parameter must be a leaf tensor of floats, got {type(p).__name__}")
            if id(p) in known:
                raise ValueError(f"{name}: a parameter of shape {p.shape} is given twice")
            known.add(id(p))
        settings = self.defaults | {k: v for k, v in group.items() if k != "params"}
        self._check(settings)
        self.param_groups.append({"params": params, **settings})
        self.state += [{} for _ in params]

    def _check(self, settings: dict[str, Any]) -> None:
        for key in ("lr", "weight_decay", "eps"):
            if not settings.get(key, 0) >= 0:
                raise ValueError(f"{type(self).__name__}: {key} must not be negative, got {settings[key]}")
        for beta in settings.get("betas", ()):
            if not 0 <= beta < 1:
                raise ValueError(f"{type(self).__name__}: betas must be in [0, 1), got {settings['betas']}")

    def _params(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def zero_grad(self) -> None:
        """Forget the parameters' gradients."""
        for p in self._params():
            p.grad = None

    def step(self) -> None:
        """Change every parameter that has a gradient."""
        states = iter(self.state)
        for group in self.param_groups:
            for p in group["params"]:
                state = next(states)
                if p.grad is not None:
                    self.update(p.write(), p.grad._array, state, group)

    def update(self, p: Array, grad: Array, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Change the array p in place, given its gradient (which stays as it is), its state and its group's settings."""
        raise NotImplementedError


class Adam(Optimizer):
    """m <- b1 m + (1 - b1) g; v <- b2 v + (1 - b2) g^2; p <- p - lr m^ / (sqrt(v^) + eps), m^, v^ freed of their bias.

    weight_decay is added to the gradient, times p. Source: Kingma & Ba, Adam (2015), algorithm 1.
    """

    decoupled = False  # whether weight decay bypasses the moments

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0,
    ) -> None:  # fmt: skip
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def update(self, p: Array, grad: Array, state: dict[str, Any], group: dict[str, Any]) -> None:
        lr, (beta1, beta2), eps, decay = (group[k] for k in ("lr", "betas", "eps", "weight_decay"))
        n = xp(p)
        if not state:
            state.update(step=0, exp_avg=n.zeros_like(p), exp_avg_sq=n.zeros_like(p))
        state["step"] += 1
        m, v, t = state["exp_avg"], state["exp_avg_sq"], state["step"]
        if decay and self.decoupled:
            p *= 1 - lr * decay
        elif decay:
            grad = grad + decay * p
        scratch = n.subtract(grad, m)
        scratch *= 1 - beta1
        m += scratch
        n.multiply(grad, grad, out=scratch)
        scratch *= 1 - beta2
        v *= beta2
        v += scratch
        n.sqrt(v, out=scratch)
        scratch *= 1 / math.sqrt(1 - beta2**t)
        scratch += eps
        n.divide(m, scratch, out=scratch)
        scratch *= lr / (1 - beta1**t)
        p -= scratch
