"""Metrics and plots: the measured numbers and the pictures by which a model is judged."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np


class Metric(NamedTuple):
    """A measured number: `test: 1.828 +- 0.010 bits/dim (independent pixels 2.390)`.

    error: its standard error. baselines: what trivial models reach, by name, in the same unit. lower_is_better: None
    where neither lower nor higher values are better.
    """

    name: str
    value: float
    unit: str = ""
    error: float | None = None
    baselines: Mapping[str, float] = MappingProxyType({})
    lower_is_better: bool | None = None

    def json(self) -> dict[str, Any]:
        """As JSON has it; `Metric(**values)` gives it back."""
        return {**self._asdict(), "baselines": dict(self.baselines)}

    def __str__(self) -> str:
        digits = 3 if abs(self.value) < 10 else 2
        error = "" if self.error is None else f" +- {self.error:.{digits}f}"
        baselines = ", ".join(f"{name} {value:.{digits}f}" for name, value in self.baselines.items())
        line = f"{self.name}: {self.value:.{digits}f}{error} {self.unit}".rstrip()
        return line + (f" ({baselines})" if baselines else "")


class ImageGrid(NamedTuple):
    """Images (N, C, H, W) uint8, 0 .. levels - 1, to be shown in so many columns.

    columns: None: a square. levels: None: the model's. rows, across: the names of the rows and of the columns; a name
    reaches on over the empty ones after it. axes: what the rows and what the columns are, as an axis has a name.
    under: what stands below each image, in lines that fit.
    """

    images: np.ndarray
    columns: int | None = None
    caption: str = ""
    levels: int | None = None
    rows: Sequence[str] = ()
    across: Sequence[str] = ()
    axes: tuple[str, str] = ("", "")
    under: Sequence[str] = ()


class Chart(NamedTuple):
    """A chart by matplotlib: draw(axes) fills empty Axes.

    Colors are named "C0" to "C9", and the house's (`tinygen.report.style`) are taken.
    """

    draw: Callable[[Any], None]
    caption: str = ""


Plot = ImageGrid | Chart


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """The mean of independent values (N,), and its standard error."""
    return float(values.mean()), float(values.std() / math.sqrt(len(values)))
