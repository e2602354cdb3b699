"""More optimizers that give each parameter a rate of its own, and Lion, which looks at signs alone: PyTorch's names.

In the formulas g is the gradient, to which weight_decay times p is added first, unless it is decoupled; t counts steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from tinygen._tensor import Array
from tinygen.array import xp
from tinygen.optim.optimizer import Optimizer

State = dict[str, Any]
Betas = tuple[float, float]


class _Adaptive(Optimizer):
    """State that begins as zeros, and weight decay; a subclass defines `change`."""

    decoupled = False  # whether weight decay acts on p directly, unless the group says so

    def update(self, p: Array, grad: Array, state: State, group: dict[str, Any]) -> None:
        if not state:
            state.update({name: 0 if name == "step" else xp(p).zeros_like(p) for name in self.slots})
        if "step" in state:
            state["step"] += 1
        if group["weight_decay"] and group.get("decoupled_weight_decay", self.decoupled):
            p *= 1 - group["lr"] * group["weight_decay"]
        elif group["weight_decay"]:
            grad = grad + group["weight_decay"] * p
        self.change(p, grad, state, group)

    def change(self, p: Array, g: Array, state: State, group: dict[str, Any]) -> None:
        """Change p in place, by its decayed gradient g (not to be changed) and its state."""
        raise NotImplementedError


def _average(average: Array, new: Array, beta: float) -> None:
    """average <- beta average + (1 - beta) new, in place."""
    average *= beta
    average += (1 - beta) * new


class RMSprop(_Adaptive):
    """v <- alpha v + (1 - alpha) g^2; p <- p - lr g / (sqrt(v) + eps).

    centered: of v - m^2, where m averages g as v does g^2. With momentum b <- momentum b + g / (sqrt(v) + eps), and b
    takes the fraction's place. Source: Tieleman & Hinton, lecture 6.5 (2012); centered: Graves (2013), eq. 38.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
        weight_decay: float = 0, momentum: float = 0, centered: bool = False,
    ) -> None:  # fmt: skip
        settings = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, settings | {"momentum": momentum, "centered": centered})

    @property
    def slots(self) -> tuple[str, ...]:  # type: ignore[override]
        momentum = any(group["momentum"] for group in self.param_groups)
        centered = any(group["centered"] for group in self.param_groups)
        return ("square_avg", *["momentum_buffer"] * momentum, *["grad_avg"] * centered)

    def change(self, p: Array, g: Array, state: State, group: dict[str, Any]) -> None:
        v = state["square_avg"]
        _average(v, g * g, group["alpha"])
        if group["centered"]:
            _average(state["grad_avg"], g, group["alpha"])
            v = v - state["grad_avg"] * state["grad_avg"]
        step = g / (xp(p).sqrt(v) + group["eps"])
        if group["momentum"]:
            buffer = state["momentum_buffer"]
            buffer *= group["momentum"]
            buffer += step
            step = buffer
        p -= group["lr"] * step


class Adagrad(_Adaptive):
    """v <- v + g^2; p <- p - lr / (1 + (t - 1) lr_decay) g / (sqrt(v) + eps).

    v begins as initial_accumulator_value. Source: Duchi, Hazan, Singer, Adaptive Subgradient Methods (2011).
    """

    slots = ("step", "sum")

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-2, lr_decay: float = 0, weight_decay: float = 0,
        initial_accumulator_value: float = 0, eps: float = 1e-10,
    ) -> None:  # fmt: skip
        settings = {"lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, settings | {"initial_accumulator_value": initial_accumulator_value})

    def change(self, p: Array, g: Array, state: State, group: dict[str, Any]) -> None:
        if state["step"] == 1:
            state["sum"] += group["initial_accumulator_value"]
        state["sum"] += g * g
        lr = group["lr"] / (1 + (state["step"] - 1) * group["lr_decay"])
        p -= lr * (g / (xp(p).sqrt(state["sum"]) + group["eps"]))


class Adadelta(_Adaptive):
    """v <- rho v + (1 - rho) g^2; d = g sqrt(u + eps) / sqrt(v + eps); u <- rho u + (1 - rho) d^2; p <- p - lr d.

    Source: Zeiler, ADADELTA: An Adaptive Learning Rate Method (2012), algorithm 1.
    """

    slots = ("square_avg", "acc_delta")

    def __init__(
        self, params: Iterable[Any], lr: float = 1.0, rho: float = 0.9, eps: float = 1e-6, weight_decay: float = 0
    ) -> None:
        super().__init__(params, {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay})

    def change(self, p: Array, g: Array, state: State, group: dict[str, Any]) -> None:
        n, rho, eps = xp(p), group["rho"], group["eps"]
        _average(state["square_avg"], g * g, rho)
        d = g * n.sqrt(state["acc_delta"] + eps) / n.sqrt(state["square_avg"] + eps)
        _average(state["acc_delta"], d * d, rho)
        p -= group["lr"] * d


class Adamax(_Adaptive):
    """m <- b1 m + (1 - b1) g; u <- max(b2 u, |g| + eps); p <- p - lr / (1 - b1^t) m / u.

    Source: Kingma & Ba, Adam (2015), algorithm 2.
    """

    slots = ("step", "exp_avg", "exp_inf")

    def __init__(
        self, params: Iterable[Any], lr: float = 2e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0,
    ) -> None:  # fmt: skip
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def change(self, p: Array, g: Array, state: State, group: dict[str, Any]) -> None:
        n, (beta1, beta2), u = xp(p), group["betas"], state["exp_inf"]
        _average(state["exp_avg"], g, beta1)
        u *= beta2
        n.maximum(u, n.abs(g) + group["eps"], out=u)
        p -= group["lr"] / (1 - beta1 ** state["step"]) * (state["exp_avg"] / u)


class NAdam(_Adaptive):
    """Adam with Nesterov's look ahead: m' mixes g with the m that the next step will use.

    With a(t) = b1 (1 - 0.96^(t momentum_decay) / 2) and A(t) the product of a(1) to a(t):
    m' = a(t + 1) m / (1 - A(t + 1)) + (1 - a(t)) g / (1 - A(t)). Source: Dozat, Incorporating Nesterov Momentum into
    Adam (2016).
    """

    slots = ("step", "mu_product", "exp_avg", "exp_avg_sq")
    numbers = ("step", "mu_product")

    def __init__(
        self, params: Iterable[Any], lr: float = 2e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0, momentum_decay: float = 4e-3, decoupled_weight_decay: bool = False,
    ) -> None:  # fmt: skip
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        more = {"momentum_decay": momentum_decay, "decoupled_weight_decay": decoupled_weight_decay}
        super().__init__(params, settings | more)

    def change(self, p: Array, g: Array, state: State, group: dict[str, Any]) -> None:
        (beta1, beta2), t, decay = group["betas"], state["step"], group["momentum_decay"]
        now, then = (beta1 * (1 - 0.5 * 0.96 ** (k * decay)) for k in (t, t + 1))
        product = now if t == 1 else state["mu_product"] * now
        state["mu_product"] = product
        _average(state["exp_avg"], g, beta1)
        _average(state["exp_avg_sq"], g * g, beta2)
        root = xp(p).sqrt(state["exp_avg_sq"] / (1 - beta2**t)) + group["eps"]
        p -= group["lr"] * (1 - now) / (1 - product) * (g / root)
        p -= group["lr"] * then / (1 - product * then) * (state["exp_avg"] / root)


class RAdam(_Adaptive):
    """Adam that waits with v until its variance can be told: p <- p - lr r m' / (sqrt(v') + eps), or p - lr m'.

    r comes from the length of the average that v is: from more than 5 steps on. Source: Liu et al., On the Variance of
    the Adaptive Learning Rate and Beyond (2020), algorithm 2.
    """

    slots = ("step", "exp_avg", "exp_avg_sq")

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0, decoupled_weight_decay: bool = False,
    ) -> None:  # fmt: skip
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, settings | {"decoupled_weight_decay": decoupled_weight_decay})

    def change(self, p: Array, g: Array, state: State, group: dict[str, Any]) -> None:
        (beta1, beta2), t = group["betas"], state["step"]
        _average(state["exp_avg"], g, beta1)
        _average(state["exp_avg_sq"], g * g, beta2)
        most = 2 / (1 - beta2) - 1  # the length that the average tends to, and has now
        length = most - 2 * t * beta2**t / (1 - beta2**t)
        step = state["exp_avg"] / (1 - beta1**t)
        if length > 5:
            r = math.sqrt((length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length))
            step *= r * math.sqrt(1 - beta2**t) / (xp(p).sqrt(state["exp_avg_sq"]) + group["eps"])
        p -= group["lr"] * step


class Lion(_Adaptive):
    """p <- p - lr weight_decay p - lr sign(b1 m + (1 - b1) g), then m <- b2 m + (1 - b2) g: every step as large.

    Source: Chen et al., Symbolic Discovery of Optimization Algorithms (2023), program 1.
    """

    slots = ("exp_avg",)
    decoupled = True

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-4, betas: Betas = (0.9, 0.99), weight_decay: float = 0
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    def change(self, p: Array, g: Array, state: State, group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        p -= group["lr"] * xp(p).sign(beta1 * state["exp_avg"] + (1 - beta1) * g)
        _average(state["exp_avg"], g, beta2)
