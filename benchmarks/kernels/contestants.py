"""Who takes part in a case, and whether they all compute the same thing."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

import tinygen as tg
from benchmarks.kernels.cases import Case, Runs


def torch_or_none() -> Any:
    """The module torch if it is installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    return torch


def contestants(case: Case, with_torch: bool) -> dict[str, Callable[[], Runs]]:
    """Name -> a function that sets the contestant up. "reference": tinygen's own NumPy definitions."""
    found: dict[str, Callable[[], Runs]] = {"tinygen": case.ours}
    if case.reference:
        found["reference"] = lambda: {what: _on_reference(run) for what, run in case.ours().items()}
    if with_torch:
        found |= {f"PyTorch, {name}": build for name, build in case.theirs().items()}
    return found | case.extra


def _on_reference(run: Callable[[], Any]) -> Callable[[], Any]:
    def on_reference() -> Any:
        with tg.reference():
            return run()

    return on_reference


def disagreement(a: Any, b: Any) -> float:
    """The largest difference of two results, over the largest value; infinite for other shapes, nan or inf."""
    left, right = _arrays(a), _arrays(b)
    if [x.shape for x in left] != [y.shape for y in right]:
        return float("inf")
    worst = 0.0
    for x, y in zip(left, right, strict=True):
        x, y = x.astype(np.float64), y.astype(np.float64)
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            return float("inf")
        worst = max(worst, float(np.abs(x - y).max(initial=0) / max(np.abs(y).max(initial=0), 1e-30)))
    return worst


def _arrays(result: Any) -> list[np.ndarray]:
    if isinstance(result, (list, tuple)):
        return [array for part in result for array in _arrays(part)]
    if isinstance(result, np.ndarray):
        return [result]
    if hasattr(result, "detach"):
        result = result.detach()
        return [np.array((result.cpu() if hasattr(result, "cpu") else result).numpy())]
    return []  # nothing to compare: a process that ran
