"""What a model is judged by: a measured number, and a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np


class Metric(NamedTuple):
    """A measured number: `test: 1.828 +- 0.010 bits/dim (independent pixels 2.390)`.

    error: its standard error. baselines: what trivial models reach, by name, in the same unit.
    """

    name: str
    value: float
    unit: str = ""
    error: float | None = None
    baselines: Mapping[str, float] = MappingProxyType({})

    def json(self) -> dict[str, Any]:
        """As JSON has it; `Metric(**values)` gives it back."""
        return {**self._asdict(), "baselines": dict(self.baselines)}

    def __str__(self) -> str:
        digits = 3 if abs(self.value) < 10 else 2
        error = "" if self.error is None else f" +- {self.error:.{digits}f}"
        baselines = ", ".join(f"{name} {value:.{digits}f}" for name, value in self.baselines.items())
        line = f"{self.name}: {self.value:.{digits}f}{error} {self.unit}".rstrip()
        return line + (f" ({baselines})" if baselines else "")


class Plot(NamedTuple):
    """Images (N, C, H, W) uint8 to be shown in so many columns, 0 .. levels - 1 (None: the model's levels)."""

    images: np.ndarray
    columns: int | None = None
    caption: str = ""
    levels: int | None = None


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """The mean of independent values (N,), and its standard error."""
    return float(values.mean()), float(values.std() / math.sqrt(len(values)))
