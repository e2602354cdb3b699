"""Learning-rate schedules: PyTorch's names and semantics."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from tinygen.optim.optimizer import Optimizer
from tinygen.optim.settings import check_count, each, momenta, set_momentum


class LRScheduler:
    """Sets an optimizer's learning rates as a function of how often `step` was called: that of a subclass.

    As in PyTorch, several may be stepped on one optimizer: each begins with the rates that the optimizer had before the
    first of them (its groups' "initial_lr"), and where the rate isn't its own, changes it as it would change its own.
    """

    def __init__(self, optimizer: Optimizer, base_lrs: list[float] | None = None) -> None:
        self.optimizer = optimizer
        initial = [group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups]
        self.base_lrs = initial if base_lrs is None else base_lrs
        self.last_epoch = 0
        self._go_on()

    def rate(self, base: float, epoch: int) -> float:
        """The learning rate after `epoch` calls of `step`, for a group that began with `base`."""
        raise NotImplementedError

    def rates(self, epoch: int) -> list[float]:
        """`rate` of each group."""
        return [self.rate(base, epoch) for base in self.base_lrs]

    def set_momenta(self, epoch: int) -> None:
        """Where a schedule changes the momentum, too: set what it is after `epoch` calls of `step`."""

    def changed(self, lr: float, before: float, after: float) -> float:
        """The rate lr, which isn't this schedule's, when that goes from `before` to `after`: by the same factor."""
        then, now = (self.rate(1.0, epoch) if epoch >= 0 else 1.0 for epoch in (self.last_epoch - 1, self.last_epoch))
        if then == now:
            return lr
        return lr * now / then if then else after

    def step(self) -> None:
        """Go on by one epoch (or batch: whatever one call stands for), after the optimizer's step."""
        self.last_epoch += 1
        self._go_on()

    def get_last_lr(self) -> list[float]:
        """The learning rates now in force, one for each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def _go_on(self) -> None:
        """From the last epoch but one to the last."""
        old = self.rates(self.last_epoch - 1) if self.last_epoch else self.base_lrs
        for group, before, after in zip(self.optimizer.param_groups, old, self.rates(self.last_epoch), strict=True):
            group["lr"] = after if group["lr"] == before else self.changed(group["lr"], before, after)
        self.set_momenta(self.last_epoch)

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
        alone = self.rates(self.last_epoch)
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


class MultiplicativeLR(LRScheduler):
    """The rate before times lr_lambda(epoch), in every step."""

    def __init__(self, optimizer: Optimizer, lr_lambda: Callable[[int], float]) -> None:
        self.lr_lambda, self.factors = lr_lambda, [1.0]  # factors: the products of the first 0, 1, .. epochs'
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int) -> float:
        while len(self.factors) <= epoch:
            self.factors.append(self.factors[-1] * self.lr_lambda(len(self.factors)))
        return base * self.factors[epoch]


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
        return self.eta_min + (base - self.eta_min) * self._height(epoch)

    def _height(self, epoch: int) -> float:
        """Where between eta_min, 0, and base, 1."""
        return (1 + math.cos(math.pi * epoch / self.T_max)) / 2

    def changed(self, lr: float, before: float, after: float) -> float:
        now, then = self._height(self.last_epoch), self._height(max(self.last_epoch - 1, 0))
        return self.eta_min + (lr - self.eta_min) * now / then if then else lr + after - before


class ConstantLR(LRScheduler):
    """base * factor for total_iters steps, then base."""

    def __init__(self, optimizer: Optimizer, factor: float = 1 / 3, total_iters: int = 5) -> None:
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int) -> float:
        return base * self.factor if epoch < self.total_iters else base


class ExponentialLR(LRScheduler):
    """base * gamma ** epoch."""

    def __init__(self, optimizer: Optimizer, gamma: float) -> None:
        self.gamma = gamma
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int) -> float:
        return base * self.gamma**epoch


class MultiStepLR(LRScheduler):
    """base times gamma for each of the milestones, epochs, that is reached."""

    def __init__(self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1) -> None:
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int) -> float:
        return base * self.gamma ** bisect.bisect_right(self.milestones, epoch)


class PolynomialLR(LRScheduler):
    """base * (1 - epoch / total_iters) ** power, down to 0."""

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0) -> None:
        check_count("PolynomialLR", total_iters=total_iters)
        self.total_iters, self.power = total_iters, power
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int) -> float:
        return base * (1 - min(epoch / self.total_iters, 1)) ** self.power


class CosineAnnealingWarmRestarts(LRScheduler):
    """From base to eta_min along half a cosine in T_0 steps, again from base in T_0 T_mult steps, and so on.

    Source: Loshchilov & Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts (2017), equation 5.
    """

    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0) -> None:
        check_count("CosineAnnealingWarmRestarts", T_0=T_0, T_mult=T_mult)
        self.T_0, self.T_mult, self.eta_min = T_0, T_mult, eta_min
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int) -> float:
        length = self.T_0
        if self.T_mult == 1:
            epoch %= length
        while epoch >= length:
            epoch, length = epoch - length, length * self.T_mult
        return self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * epoch / length)) / 2

    def changed(self, lr: float, before: float, after: float) -> float:
        return after  # in PyTorch too it ignores what others set


class OneCycleLR(LRScheduler):
    """From max_lr / div_factor up to max_lr in the first part, pct_start, of total_steps, then far down.

    Down to 1 / final_div_factor of where it began; with three_phase first back to that, in as many steps as up, then
    down. anneal_strategy: "cos", along half a cosine, or "linear". Meanwhile momentum (or the first beta) goes from
    max_momentum down to base_momentum and back, if cycle_momentum. total_steps, or epochs and steps_per_epoch; max_lr
    and the momenta: numbers, or lists of one for each group.

    Source: Smith & Topin, Super-Convergence (2017).
    """

    def __init__(
        self, optimizer: Optimizer, max_lr: Any, total_steps: int | None = None, epochs: int | None = None,
        steps_per_epoch: int | None = None, pct_start: float = 0.3, anneal_strategy: str = "cos",
        cycle_momentum: bool = True, base_momentum: Any = 0.85, max_momentum: Any = 0.95, div_factor: float = 25.0,
        final_div_factor: float = 1e4, three_phase: bool = False,
    ) -> None:  # fmt: skip
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("OneCycleLR: give total_steps, or epochs and steps_per_epoch")
            total_steps = epochs * steps_per_epoch
        check_count("OneCycleLR", total_steps=total_steps)
        if not 0 <= pct_start <= 1 or anneal_strategy not in ("cos", "linear"):
            raise ValueError(
                "OneCycleLR: pct_start must be from 0 to 1, and anneal_strategy 'cos' or 'linear', got "
                f"{pct_start} and {anneal_strategy!r}"
            )
        groups = optimizer.param_groups
        self.total_steps, self.div_factor, self.final_div_factor = total_steps, div_factor, final_div_factor
        self.straight, peak = anneal_strategy == "linear", pct_start * total_steps - 1
        self.ends = [peak, 2 * peak, total_steps - 1] if three_phase else [peak, total_steps - 1]
        self.momenta = momenta("OneCycleLR", groups, base_momentum, max_momentum) if cycle_momentum else None
        for group, lr in zip(groups, each("OneCycleLR: max_lr", max_lr, groups), strict=True):
            group["initial_lr"] = group["lr"] = lr / div_factor
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int) -> float:
        top, low = base * self.div_factor, base / self.final_div_factor
        return self._along([base, top, *[base] * (len(self.ends) - 2), low], epoch)

    def _along(self, values: list[float], epoch: int) -> float:
        """Between the values, the first at epoch 0, the others at the ends of the phases."""
        if epoch > self.total_steps:
            raise ValueError(f"OneCycleLR: step {epoch} of a schedule of total_steps {self.total_steps}")
        phase = next((i for i, end in enumerate(self.ends) if epoch <= end), len(self.ends) - 1)
        begin = self.ends[phase - 1] if phase else 0.0
        done = (epoch - begin) / (self.ends[phase] - begin)
        start, end = values[phase : phase + 2]
        return (
            start + (end - start) * done if self.straight else end + (start - end) / 2 * (1 + math.cos(math.pi * done))
        )

    def set_momenta(self, epoch: int) -> None:
        for group, (low, high) in zip(self.optimizer.param_groups, self.momenta or (), strict=self.momenta is not None):
            set_momentum(group, self._along([high, low, *[high] * (len(self.ends) - 1)], epoch))

    def changed(self, lr: float, before: float, after: float) -> float:
        return after  # in PyTorch too it ignores what others set


class CyclicLR(LRScheduler):
    """From base_lr up to max_lr in step_size_up steps, down in step_size_down (as many if None), and again.

    mode: "triangular"; "triangular2", each cycle half as high as the one before; "exp_range", height times gamma **
    epoch. scale_fn in place of a mode: the height of a cycle (1, 2, ..), or by epoch with scale_mode "iterations".
    Meanwhile momentum (or the first beta) goes from max_momentum down to base_momentum and back, if cycle_momentum.
    base_lr, max_lr and the momenta: numbers, or lists of one for each group.

    Source: Smith, Cyclical Learning Rates for Training Neural Networks (2017), section 3.2.
    """

    def __init__(
        self, optimizer: Optimizer, base_lr: Any, max_lr: Any, step_size_up: int = 2000,
        step_size_down: int | None = None, mode: str = "triangular", gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None, scale_mode: str = "cycle", cycle_momentum: bool = True,
        base_momentum: Any = 0.8, max_momentum: Any = 0.9,
    ) -> None:  # fmt: skip
        heights: dict[str, tuple[Callable[[float], float], str]] = {
            "triangular": (lambda cycle: 1.0, "cycle"), "triangular2": (lambda cycle: 0.5 ** (cycle - 1), "cycle"),
            "exp_range": (lambda epoch: gamma**epoch, "iterations"),
        }  # fmt: skip
        if (scale_fn is None and mode not in heights) or scale_mode not in ("cycle", "iterations"):
            raise ValueError(f"CyclicLR: mode must be one of {', '.join(heights)}, and scale_mode 'cycle' or "
                             f"'iterations', got {mode!r} and {scale_mode!r}")  # fmt: skip
        self.height, self.by = heights[mode] if scale_fn is None else (scale_fn, scale_mode)
        self.up, self.down = step_size_up, step_size_up if step_size_down is None else step_size_down
        check_count("CyclicLR", step_size_up=self.up, step_size_down=self.down)
        groups = optimizer.param_groups
        self.momenta = momenta("CyclicLR", groups, base_momentum, max_momentum) if cycle_momentum else None
        self.max_lrs = each("CyclicLR: max_lr", max_lr, groups)
        base_lrs = each("CyclicLR: base_lr", base_lr, groups)
        for group, lr in zip(groups, base_lrs, strict=True):
            group["lr"] = lr
        super().__init__(optimizer, base_lrs)

    def share(self, epoch: int) -> float:
        """How much of the way from base_lr to max_lr."""
        cycle, place = divmod(epoch, self.up + self.down)
        height = self.height(cycle + 1 if self.by == "cycle" else epoch)
        return height * (place / self.up if place <= self.up else (self.up + self.down - place) / self.down)

    def rates(self, epoch: int) -> list[float]:
        share = self.share(epoch)
        return [low + (high - low) * share for low, high in zip(self.base_lrs, self.max_lrs, strict=True)]

    def set_momenta(self, epoch: int) -> None:
        for group, (low, high) in zip(self.optimizer.param_groups, self.momenta or (), strict=self.momenta is not None):
            set_momentum(group, high - (high - low) * self.share(epoch))

    def changed(self, lr: float, before: float, after: float) -> float:
        return after  # in PyTorch too it ignores what others set


class SequentialLR(LRScheduler):
    """One schedule after the other: the i-th from milestones[i - 1] on, as if it began there. Warm-up, then another.

    Each goes on from its own base_lrs, and changes the momentum, if it does, while it lasts. The schedules are of the
    same optimizer; only this one is stepped.
    """

    def __init__(self, optimizer: Optimizer, schedulers: list[LRScheduler], milestones: list[int]) -> None:
        if len(schedulers) != len(milestones) + 1:
            raise ValueError(f"SequentialLR: {len(schedulers)} schedulers need {len(schedulers) - 1} milestones, "
                             f"got {len(milestones)}")  # fmt: skip
        if any(s.optimizer is not optimizer for s in schedulers):
            raise ValueError("SequentialLR: all schedulers must be of its own optimizer")
        self.schedulers, self.milestones = list(schedulers), list(milestones)
        super().__init__(optimizer, list(self.schedulers[0].base_lrs))

    def _now(self, epoch: int) -> tuple[LRScheduler, int]:
        """The schedule that holds, and its own epoch."""
        now = bisect.bisect_right(self.milestones, epoch)
        return self.schedulers[now], epoch - (self.milestones[now - 1] if now else 0)

    def rates(self, epoch: int) -> list[float]:
        now, own = self._now(epoch)
        return now.rates(own)

    def set_momenta(self, epoch: int) -> None:
        now, own = self._now(epoch)
        now.set_momenta(own)

    def changed(self, lr: float, before: float, after: float) -> float:
        return after


class ReduceLROnPlateau:
    """Multiplies the rates by factor when a metric, which `step` takes, hasn't got better for more than patience steps.

    Better: below the best so far (mode "min"; above it, "max") by more than threshold, times that best (threshold_mode
    "rel") or as it is ("abs"). After a change there are cooldown steps in which nothing counts. Rates stop at min_lr, a
    number or a list of one for each group, and where a change would be at most eps.
    """

    def __init__(
        self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1, patience: int = 10,
        threshold: float = 1e-4, threshold_mode: str = "rel", cooldown: int = 0, min_lr: Any = 0, eps: float = 1e-8,
    ) -> None:  # fmt: skip
        if not factor < 1 or mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            raise ValueError(
                "ReduceLROnPlateau: factor must be below 1, mode 'min' or 'max', threshold_mode 'rel' or 'abs', got "
                f"{factor}, {mode!r} and {threshold_mode!r}"
            )
        self.optimizer, self.factor, self.patience, self.cooldown, self.eps = optimizer, factor, patience, cooldown, eps
        self.sign = 1 if mode == "min" else -1
        self.relative, self.threshold = threshold_mode == "rel", threshold
        self.min_lrs = each("ReduceLROnPlateau: min_lr", min_lr, optimizer.param_groups)
        self.best, self.num_bad_epochs, self.cooldown_counter, self.last_epoch = self.sign * math.inf, 0, 0, 0

    def step(self, metrics: Any) -> None:
        """Take in the metric, a number or a tensor of one, and lower the rates if it is time."""
        metric = float(metrics.item() if hasattr(metrics, "item") else metrics)
        self.last_epoch += 1
        if self._is_better(metric):
            self.best, self.num_bad_epochs = metric, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            for group, low in zip(self.optimizer.param_groups, self.min_lrs, strict=True):
                new = max(group["lr"] * self.factor, low)
                if group["lr"] - new > self.eps:
                    group["lr"] = new
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0

    def _is_better(self, metric: float) -> bool:
        margin = self.threshold * (self.best if self.relative else 1.0)
        bound = self.sign * self.best - margin if math.isfinite(self.best) else math.inf
        return self.sign * metric < bound

    def get_last_lr(self) -> list[float]:
        """The learning rates now in force, one for each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Numbers by name."""
        return {name: getattr(self, name) for name in ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave (the rates are in the optimizer's). ValueError if it doesn't fit."""
        if set(state_dict) != set(self.state_dict()):
            names = ", ".join(self.state_dict())
            raise ValueError(f"load_state_dict of ReduceLROnPlateau: expected {names}, got {', '.join(state_dict)}")
        for name, value in state_dict.items():
            setattr(self, name, float(value) if name == "best" else int(value))
