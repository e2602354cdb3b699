"""Losses as modules, under PyTorch's names, for programs that make an object of a loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygen._tensor import Tensor, tensor
from tinygen.nn import functional as F
from tinygen.nn.module import Module


class _Loss(Module):
    """A function of losses.py, called with settings; those that are weights are buffers."""

    function: Any
    settings: dict[str, Any]

    def __init__(self, reduction: str, weights: dict[str, Any] | None = None, **settings: Any) -> None:
        if reduction not in ("mean", "sum", "none") and (reduction, type(self)) != ("batchmean", KLDivLoss):
            raise ValueError(f"{type(self).__name__}: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
        self.settings, self.weights = settings | {"reduction": reduction}, []
        for name, value in (weights or {}).items():
            if value is not None:
                self.weights.append(name)
                self.register_buffer(name, value if isinstance(value, Tensor) else tensor(np.asarray(value)))

    def forward(self, input: Tensor, *target: Any) -> Tensor:
        """The loss of input against what the function takes beside it: the target, and a variance."""
        weights = {name: getattr(self, name) for name in self.weights}
        return type(self).function(input, *target, **self.settings, **weights)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.settings.items())


class CrossEntropyLoss(_Loss):
    """Of logits (N, C, ...) against classes or probabilities. See `functional.cross_entropy`."""

    function = F.cross_entropy

    def __init__(
        self, weight: Any = None, *, ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0
    ) -> None:
        super().__init__(reduction, {"weight": weight}, ignore_index=ignore_index, label_smoothing=label_smoothing)


class NLLLoss(_Loss):
    """Of log-probabilities (N, C, ...) against classes. See `functional.nll_loss`."""

    function = F.nll_loss

    def __init__(self, weight: Any = None, *, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__(reduction, {"weight": weight}, ignore_index=ignore_index)


class BCELoss(_Loss):
    """Of probabilities. See `functional.binary_cross_entropy`."""

    function = F.binary_cross_entropy

    def __init__(self, weight: Any = None, *, reduction: str = "mean") -> None:
        super().__init__(reduction, {"weight": weight})


class BCEWithLogitsLoss(_Loss):
    """Of logits. See `functional.binary_cross_entropy_with_logits`."""

    function = F.binary_cross_entropy_with_logits

    def __init__(self, weight: Any = None, *, reduction: str = "mean", pos_weight: Any = None) -> None:
        super().__init__(reduction, {"weight": weight, "pos_weight": pos_weight})


class MSELoss(_Loss):
    """(input - target) ** 2. See `functional.mse_loss`."""

    function = F.mse_loss

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__(reduction)


class L1Loss(_Loss):
    """|input - target|. See `functional.l1_loss`."""

    function = F.l1_loss

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__(reduction)


class HuberLoss(_Loss):
    """See `functional.huber_loss`."""

    function = F.huber_loss

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction, delta=delta)


class SmoothL1Loss(_Loss):
    """See `functional.smooth_l1_loss`."""

    function = F.smooth_l1_loss

    def __init__(self, *, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction, beta=beta)


class KLDivLoss(_Loss):
    """Of log-probabilities against probabilities. See `functional.kl_div`."""

    function = F.kl_div

    def __init__(self, *, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction, log_target=log_target)


class GaussianNLLLoss(_Loss):
    """Of means against values, and variances: `loss(input, target, var)`. See `functional.gaussian_nll_loss`."""

    function = F.gaussian_nll_loss

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(reduction, full=full, eps=eps)
