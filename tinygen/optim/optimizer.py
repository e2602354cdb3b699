"""Optimizers, gradient clipping and weight averages: PyTorch's names and semantics.

Parameters change in place, through `Tensor.write`, so that a backward pass that would need the old values
raises. State dicts are flat, and hold arrays and plain numbers only: they go into a checkpoint as they are.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tinygen import errors, kernels
from tinygen._tensor import Array, Tensor
from tinygen.array import moved, on_device_of, xp
from tinygen.modes import is_reference

# ------------------------------------------------------------------------------------------------- optimizers


class Optimizer:
    """Parameter groups, state, and the loop over parameters. A subclass defines `update` and `slots`.

    Attributes:
        param_groups: dicts with the group's tensors under "params" and its settings ("lr", ...), which may be
            changed between steps.
        state: for each parameter, in the order of the groups, what `slots` names: arrays in the parameter's
            order in memory, and counts. Empty before its first step.
    """

    slots: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ("step",)  # the slots that are numbers, not arrays

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: list[dict[str, Any]] = []
        if not isinstance(params, Iterable):
            raise TypeError(f"{type(self).__name__}: params must be tensors or dicts, got {type(params).__name__}")
        groups: list[Any] = [params] if isinstance(params, (Tensor, dict)) else list(params)
        if not groups:
            raise ValueError(f"{type(self).__name__}: there are no parameters")
        for group in groups if isinstance(groups[0], dict) else [{"params": groups}]:
            self.add_param_group(group)

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Add {"params": tensors, **settings that differ from the defaults}."""
        name = type(self).__name__
        if not isinstance(group, dict):
            raise TypeError(f"{name}: a group must be a dict with params, as the first is, got {_described(group)}")
        if unknown := set(group) - {"params", *self.defaults}:
            raise ValueError(f"{name}: unknown setting {min(unknown)}; known are {', '.join(self.defaults)}")
        params = group.get("params", ())
        params = [params] if isinstance(params, Tensor) else list(params)
        known = {id(p) for p in self._params()}
        for p in params:
            if not isinstance(p, Tensor) or not p.is_leaf or p.dtype.kind != "f":
                raise TypeError(f"{name}: a parameter must be a leaf tensor of floats, got {_described(p)}")
            if id(p) in known:
                raise ValueError(f"{name}: a parameter is given twice, {_described(p)}")
            known.add(id(p))
        settings = {k: _number(v) for k, v in (self.defaults | group).items() if k != "params"}
        self.check(settings)
        self.param_groups.append({"params": params, **settings})
        self.state += [{} for _ in params]

    def check(self, settings: dict[str, Any]) -> None:
        """ValueError for a group's settings that make no sense, TypeError for one that is no number."""
        for key, value in settings.items():
            if key == "betas":
                if not (
                    isinstance(value, tuple)
                    and len(value) == 2
                    and all(isinstance(b, (int, float)) and 0 <= b < 1 for b in value)
                ):
                    raise ValueError(f"{type(self).__name__}: betas must be two numbers in [0, 1), got {value}")
            elif not isinstance(value, (int, float)):
                raise TypeError(f"{type(self).__name__}: {key} must be a number, got {value!r}")
            elif not value >= 0:
                raise ValueError(f"{type(self).__name__}: {key} must not be negative, got {value}")

    def _params(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def zero_grad(self) -> None:
        """Forget the parameters' gradients."""
        for p in self._params():
            p._grad = None  # without the checks that others' gradients need

    def step(self) -> None:
        """Change every parameter that has a gradient."""
        states = iter(self.state)
        for group in self.param_groups:
            pairs = zip(group["params"], states, strict=False)
            self.update_all([(p.write(), p._grad._array, state) for p, state in pairs if p._grad is not None], group)

    def update_all(self, parameters: list[tuple[Array, Array, dict[str, Any]]], group: dict[str, Any]) -> None:
        """`update` each (p, grad, state)."""
        for p, grad, state in parameters:
            self.update(p, grad, state, group)

    def update(self, p: Array, grad: Array, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Change the array p in place, given its gradient (not to be changed), state and group's settings."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """{"state.0.exp_avg": array, "group.0.lr": number, ...}: copies of arrays, numbers."""
        out: dict[str, Any] = {}
        for i, group in enumerate(self.param_groups):
            out |= {f"group.{i}.{k}": _number(group[k]) for k in self.defaults}
        for i, state in enumerate(self.state):
            out |= {f"state.{i}.{k}": v for k, v in state.items()}
        return {k: v if isinstance(v, (int, float)) else _copied(v) for k, v in out.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave, for the same parameters in the same order.

        Raises ValueError for what doesn't fit, TypeError for another thing; nothing is changed then.
        """
        state_dict = errors.state_dict(f"load_state_dict of {type(self).__name__}", state_dict)
        groups = [set(self.defaults)] * len(self.param_groups)
        known = {f"group.{i}.{k}" for i, keys in enumerate(groups) for k in keys}
        known |= {f"state.{i}.{k}" for i in range(len(self.state)) for k in self.slots}
        begun = {k.rpartition(".")[0] for k in state_dict if k.startswith("state.")}
        needed = {k for k in known if k.startswith("group.") or k.rpartition(".")[0] in begun}
        problems = [f"{k} is missing" for k in sorted(needed - set(state_dict))]
        problems += [f"{k} is unexpected" for k in sorted(set(state_dict) - known)]
        states: list[dict[str, Any]] = []
        for i, p in enumerate(self._params()):
            values = {k: state_dict[name] for k in self.slots if (name := f"state.{i}.{k}") in state_dict}
            for k, value in values.items():
                shape = () if k in self.numbers else p.shape
                if np.shape(value) != shape:
                    problems.append(f"state.{i}.{k} has shape {np.shape(value)} instead of {shape}")
                elif (kind := np.result_type(getattr(value, "dtype", value)).kind) not in "fiu" or (
                    k == "step" and (kind == "f" or value < 0)
                ):
                    problems.append(f"state.{i}.{k} is no {'count' if k == 'step' else 'array of real numbers'}")
            states.append(values)
        if problems:
            raise ValueError(f"load_state_dict of {type(self).__name__}: {'; '.join(problems[:10])}")
        settings = [{k: _number(state_dict[f"group.{i}.{k}"]) for k in keys} for i, keys in enumerate(groups)]
        for values in settings:
            self.check(values)
        for group, values in zip(self.param_groups, settings, strict=True):
            group.update(values)
        for i, p in enumerate(self._params()):
            self.state[i] = {
                k: _number(v) if k in self.numbers else _filled_like(p._array, v) for k, v in states[i].items()
            }


def _described(p: Any) -> str:
    return f"one of {p.dtype}, shape {p.shape}" if isinstance(p, Tensor) else type(p).__name__


def _number(value: Any) -> Any:
    """A setting as Python's numbers: np.float32(1e-3) is no number to a kernel. What is none stays what it is."""
    if np.ndim(value) and np.asarray(value).dtype.kind in "fiu":
        return tuple(map(float, value))
    return value.item() if hasattr(value, "item") and not np.ndim(value) else value


def _filled_like(model: Array, values: Any) -> Array:
    """A new array of these values, in the model's order in memory."""
    array = xp(model).empty_like(model)
    array[...] = on_device_of(model, values)
    return array


def _copied(array: Any) -> np.ndarray:
    return np.array(moved(array, np))


class SGD(Optimizer):
    """p <- p - lr d, where d is the gradient g, or with momentum b <- momentum b + (1 - dampening) g.

    b starts as the first g. With nesterov d = g + momentum b. weight_decay times p is added to g. Source:
    Sutskever et al., On the importance of initialization and momentum in deep learning (2013).
    """

    slots = ("momentum_buffer",)

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, momentum: float = 0, dampening: float = 0,
        weight_decay: float = 0, nesterov: bool = False,
    ) -> None:  # fmt: skip
        settings = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        super().__init__(params, settings | {"nesterov": nesterov})

    def check(self, settings: dict[str, Any]) -> None:
        super().check(settings)
        if settings["nesterov"] and (settings["momentum"] <= 0 or settings["dampening"] != 0):
            raise ValueError("SGD: nesterov needs momentum, and no dampening")

    def update(self, p: Array, grad: Array, state: dict[str, Any], group: dict[str, Any]) -> None:
        momentum = group["momentum"]
        if group["weight_decay"]:
            grad = grad + group["weight_decay"] * p
        if momentum:
            if not state:
                state["momentum_buffer"] = _filled_like(p, grad)
            else:
                buffer = state["momentum_buffer"]
                buffer *= momentum
                buffer += (1 - group["dampening"]) * grad
            buffer = state["momentum_buffer"]
            grad = grad + momentum * buffer if group["nesterov"] else buffer
        p -= group["lr"] * grad


class Adam(Optimizer):
    """m <- b1 m + (1 - b1) g; v <- b2 v + (1 - b2) g^2; p <- p - lr m' / (sqrt(v') + eps).

    m' = m / (1 - b1^t) and v' = v / (1 - b2^t) make up for the start at 0. weight_decay times p is added to
    the gradient g. Source: Kingma & Ba, Adam (2015), algorithm 1.
    """

    slots = ("step", "exp_avg", "exp_avg_sq")
    decoupled = False  # whether weight decay acts on p directly, not through the moments

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0,
    ) -> None:  # fmt: skip
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def update_all(self, parameters: list[tuple[Array, Array, dict[str, Any]]], group: dict[str, Any]) -> None:
        lr, (beta1, beta2), eps, decay = (group[k] for k in ("lr", "betas", "eps", "weight_decay"))
        alike: dict[Any, list[Any]] = defaultdict(list)  # what one call of the kernel can take together
        for p, grad, state in parameters:
            if not state:
                state.update(step=0, exp_avg=xp(p).zeros_like(p), exp_avg_sq=xp(p).zeros_like(p))
            state["step"] += 1
            if decay and self.decoupled:
                p *= 1 - lr * decay
            alike[state["step"], p.dtype].append((grad, p, state["exp_avg"], state["exp_avg_sq"]))
        settings = lr, beta1, beta2, eps, 0.0 if self.decoupled else decay
        for (t, _), rows in alike.items():
            if is_reference() or not kernels.optim.adam(rows, t, *settings):
                for grad, p, m, v in rows:
                    self._update(grad, p, m, v, t, *settings)

    @staticmethod
    def _update(
        grad: Array, p: Array, m: Array, v: Array, t: int, lr: float, beta1: float, beta2: float, eps: float,
        decay: float,
    ) -> None:  # fmt: skip
        n = xp(p)
        grad = grad + decay * p if decay else grad
        scratch = n.subtract(grad, m, out=n.empty_like(p))
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


class AdamW(Adam):
    """Adam whose weight decay doesn't pass through the moments: p <- p - lr weight_decay p before each step.

    Source: Loshchilov & Hutter, Decoupled Weight Decay Regularization (2019), algorithm 2.
    """

    decoupled = True

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 1e-2,
    ) -> None:  # fmt: skip
        super().__init__(params, lr, betas, eps, weight_decay)


# ------------------------------------------------------------------------------------- gradients and averages


def clip_grad_norm_(parameters: Iterable[Tensor] | Tensor, max_norm: float, norm_type: float = 2.0) -> float:
    """Scale all gradients in place, by one factor, so that their common norm is at most max_norm.

    norm_type: 1, 2, ... or math.inf. Returns the norm before; if it is nan or inf, the gradients are spoiled.
    """
    if not max_norm >= 0 or not norm_type > 0:
        raise ValueError(f"clip_grad_norm_: max_norm must be >= 0 and norm_type > 0, got {max_norm} and {norm_type}")
    parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    total = get_total_norm([p.grad for p in parameters if p.grad is not None], norm_type)
    clip_grads_with_norm_(parameters, max_norm, total)
    return total


def get_total_norm(tensors: Iterable[Tensor], norm_type: float = 2.0) -> float:
    """The norm of all numbers of some tensors together. Source: torch.nn.utils.get_total_norm."""
    return _norm(np.array([_norm(t._array, norm_type) for t in tensors]), norm_type)


def clip_grads_with_norm_(parameters: Iterable[Tensor], max_norm: float, total_norm: float) -> None:
    """Scale all gradients in place by max_norm / total_norm, if that is less than 1, where total_norm is known."""
    factor = max_norm / (total_norm + 1e-6)
    if not factor >= 1:
        for p in parameters:
            if p.grad is not None:
                array = p.grad.write()
                array *= factor


def _norm(array: Array, p: float) -> float:
    """The p-norm of all elements, in float64."""
    n = xp(array)
    if p == math.inf:
        return float(n.abs(array).max()) if array.size else 0.0
    if p == 2:  # the norm of most steps: without arrays of float64 in between
        flat = array.reshape(-1)
        return float(n.einsum("i,i->", flat, flat, dtype=np.float64)) ** 0.5
    return float(n.sum(n.abs(array, dtype=np.float64) ** p) ** (1 / p))


class ExponentialMovingAverage:
    """Averages of parameters, to evaluate and sample with: each `update` does a <- decay a + (1 - decay) p.

    They start as the parameters at construction. Buffers aren't averaged. Source: Polyak & Juditsky,
    Acceleration of stochastic approximation by averaging (1992); in this form Kingma & Ba (2015), 7.2.
    """

    def __init__(self, parameters: Iterable[Tensor], decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"ExponentialMovingAverage: decay must be in [0, 1), got {decay}")
        self.parameters, self.decay = list(parameters), decay
        self.averages = [_filled_like(p._array, p._array) for p in self.parameters]

    def update(self) -> None:
        """Take in the parameters as they are now: after each step of the optimizer."""
        for p, average in zip(self.parameters, self.averages, strict=True):
            change = p._array - average
            change *= 1 - self.decay
            average += change

    @contextmanager
    def average_parameters(self) -> Iterator[None]:
        """Within it the parameters hold the averages; afterwards, whatever happens, what they held before."""
        kept = [p._array.copy(order="K") for p in self.parameters]
        try:
            self._write(self.averages)
            yield
        finally:
            self._write(kept)

    def _write(self, values: list[Array]) -> None:
        for p, value in zip(self.parameters, values, strict=True):
            array = p.write()
            array[...] = value

    def state_dict(self) -> dict[str, Any]:
        """{"average.0": array, ...}, copies."""
        return {f"average.{i}": _copied(average) for i, average in enumerate(self.averages)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave. Raises ValueError if it doesn't fit; nothing is changed then."""
        expected = {f"average.{i}": average.shape for i, average in enumerate(self.averages)}
        found = {name: np.shape(value) for name, value in state_dict.items()}
        if found != expected:
            wrong = sorted({*found.items()} ^ {*expected.items()})[0][0]
            shapes = f"has shape {found.get(wrong)} instead of {expected.get(wrong)}"
            raise ValueError(f"load_state_dict of ExponentialMovingAverage: {wrong} {shapes}")
        for i, average in enumerate(self.averages):
            average[...] = on_device_of(average, state_dict[f"average.{i}"])
