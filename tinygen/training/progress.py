"""How far a training is, and the numbers of its steps."""

from __future__ import annotations

import math
from collections.abc import Callable

from tinygen.console import Bar
from tinygen.training.trainer import Trainer


class Progress(Bar):
    """Of training: a step's numbers, smoothed. Says how it ended, also after a short time.

    Args:
        trainer: its attribute `done` tells how much is over.
        describe: the text for a step's numbers.
    """

    def __init__(self, trainer: Trainer, describe: Callable[[dict[str, float]], str]) -> None:
        super().__init__(trainer.done)
        self.trainer, self.describe = trainer, describe
        self.parts: dict[str, float] = {}
        self.steps, self.keep = 0, True

    def step(self, row: dict[str, float]) -> None:
        """Tell of a finished step."""
        self.steps += 1
        weight = max(0.05, 1 / self.steps)  # the plain mean at first, so that no start value lingers
        for name in row.keys() - {"step", "validation"}:
            self.parts[name] = (mean := self.parts.get(name, 0.0)) + weight * (row[name] - mean)
        self._tell()

    def _tell(self) -> None:
        where = "" if self.terminal else f"step {self.trainer.step}  "
        self.show(self.trainer.done, f"{where}{self.describe(self.parts)}")

    def __exit__(self, *error: object) -> None:
        if self.steps:
            self.shown = -math.inf  # the last state in any case
            self._tell()
        super().__exit__(*error)
