"""Learning-rate schedules: PyTorch's names and semantics."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygen.optim.optimizer import Optimizer


class LRScheduler:
    """Sets an optimizer's learning rates as a function of how often `step` was called: that of a subclass.

    As in PyTorch, several may be stepped on one optimizer: each begins with the rates that the optimizer had before the
    first of them (its groups' "initial_lr"), and where the rate isn't its own, changes it as it would change its own.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.base_lrs = [group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups]
        self.last_epoch = 0
        self._go_on()

    def rate(self, base: float, epoch: int) -> float:
        """The learning rate after `epoch` calls of `step`, for a group that began with `base`."""
        raise NotImplementedError

    def changed(self, lr: float, before: float, after: float) -> float:
        """The rate lr, which isn't this schedule's, when that goes from `before` to `after`: by the same factor."""
        return lr * after / before if before else after

    def step(self) -> None:
        """Go on by one epoch (or batch: whatever one call stands for), after the optimizer's step."""
        self.last_epoch += 1
        self._go_on()

    def get_last_lr(self) -> list[float]:
        """The learning rates now in force, one for each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def _go_on(self) -> None:
        """From the last epoch but one to the last."""
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            before = self.rate(base, self.last_epoch - 1) if self.last_epoch else base
            after = self.rate(base, self.last_epoch)
            group["lr"] = after if group["lr"] == before else self.changed(group["lr"], before, after)

    def state_dict(self) -> dict[str, Any]:
        """{"last_epoch": number, "base_lrs": array, "last_lr": array}."""
        rates = {"base_lrs": np.array(self.base_lrs), "last_lr": np.array(self.get_last_lr())}
        return {"last_epoch": self.last_epoch, **rates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave, and set the rates. Raises ValueError if it doesn't fit."""
        name = f"load_state_dict of {type(self).__name__}"
        if set(state_dict) - {"last_lr"} != {"last_epoch", "base_lrs"}:
            raise ValueError(f"{name}: expected last_epoch and base_lrs, got {', '.join(state_dict) or 'nothing'}")
        for key in set(state_dict) - {"last_epoch"}:
            if np.shape(state_dict[key]) != (len(self.base_lrs),):
                raise ValueError(f"{name}: {key} must hold {len(self.base_lrs)} rates, got {state_dict[key]}")
        self.last_epoch = int(state_dict["last_epoch"])
        self.base_lrs = [float(x) for x in state_dict["base_lrs"]]
        alone = [self.rate(base, self.last_epoch) for base in self.base_lrs]
        for group, rate in zip(self.optimizer.param_groups, state_dict.get("last_lr", alone), strict=True):
            group["lr"] = float(rate)


class LambdaLR(LRScheduler):
    """base * lr_lambda(epoch), for any function."""

    def __init__(self, optimizer: Optimizer, lr_lambda: Callable[[int], float]) -> None:
        self.lr_lambda = lr_lambda
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int) -> float:
        return base * self.lr_lambda(epoch)

    def changed(self, lr: float, before: float, after: float) -> float:
        return after  # in PyTorch too it ignores what others set


class StepLR(LRScheduler):
    """base * gamma ** (epoch // step_size)."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        if step_size < 1:
            raise ValueError(f"StepLR: step_size must be at least 1, got {step_size}")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int) -> float:
        return base * self.gamma ** (epoch // self.step_size)


class LinearLR(LRScheduler):
    """Warm-up: base times a factor that goes from start_factor to end_factor in total_iters steps."""

    def __init__(
        self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5
    ) -> None:
        if total_iters < 1:
            raise ValueError(f"LinearLR: total_iters must be at least 1, got {total_iters}")
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int) -> float:
        done = min(epoch / self.total_iters, 1.0)
        return base * (self.start_factor + (self.end_factor - self.start_factor) * done)


class CosineAnnealingLR(LRScheduler):
    """From base to eta_min in T_max steps along half a cosine, then up again (Loshchilov & Hutter, 2017)."""

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        if T_max < 1:
            raise ValueError(f"CosineAnnealingLR: T_max must be at least 1, got {T_max}")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int) -> float:
        return self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * epoch / self.T_max)) / 2

    def changed(self, lr: float, before: float, after: float) -> float:
        low = self.eta_min
        return lr + after - before if before == low else low + (lr - low) * (after - low) / (before - low)
