"""Settings of learning-rate schedules: counts, a number for each group, momenta."""

from __future__ import annotations

from typing import Any


def check_count(name: str, **counts: int) -> None:
    """ValueError, which begins with the name, unless all are integers of at least 1."""
    for argument, count in counts.items():
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"{name}: {argument} must be an integer of at least 1, got {count!r}")


def each(name: str, value: Any, groups: list[Any]) -> list[float]:
    """A number for each group, from one or a list."""
    values = list(value) if isinstance(value, (list, tuple)) else [value] * len(groups)
    if len(values) != len(groups):
        raise ValueError(f"{name}: expected a number, or one for each of the {len(groups)} groups, got {value}")
    return values


def momenta(name: str, groups: list[Any], low: Any, high: Any) -> list[tuple[float, float]]:
    """(least, greatest) momentum of each group."""
    if "momentum" not in groups[0] and "betas" not in groups[0]:
        raise ValueError(f"{name}: the optimizer has no momentum; pass cycle_momentum=False")
    return list(zip(*(each(name, m, groups) for m in (low, high)), strict=True))


def set_momentum(group: Any, momentum: float) -> None:
    """A group's momentum, or its first beta."""
    if "betas" in group:
        group["betas"] = (momentum, *group["betas"][1:])
    else:
        group["momentum"] = momentum
