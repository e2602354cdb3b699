"""What training shows while it runs: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, TextIO

if TYPE_CHECKING:
    from tinygen.training.trainer import Trainer

LINE_SECONDS = 5.0  # between lines where there is no terminal
BAR_SECONDS = 0.1  # between two states of the bar


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a line, on stdout unless told otherwise. That nobody reads on (`| head -1`) is no reason to stop."""
    stream = stream or sys.stdout
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:  # what comes after goes nowhere, also what Python flushes at the end
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())


def duration(seconds: float) -> str:
    """A length of time for people: 42 s, 3 min 20 s, 5 h 07 min; ? s if it is infinite."""
    if not math.isfinite(seconds):
        return "? s"
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    if hours:
        return f"{hours} h {m:02} min"
    return f"{m} min {s:02} s" if m else f"{s} s"


class Bar:
    """How far a long task is: a bar on a terminal, a line now and then elsewhere; nothing for a short one.

    On stderr, so that stdout stays clean. Use it in a `with` block.

    Args:
        done: what was done before, of 1.
    """

    def __init__(self, done: float = 0.0) -> None:
        self.first, self.done, self.text = done, done, ""
        self.start = self.shown = time.monotonic()
        self.bar: Any = None
        self.keep = False  # whether the last state stays on the terminal
        self.terminal = sys.stderr is not None and sys.stderr.isatty()

    def show(self, done: float, text: str) -> None:
        """Tell how much is done, of 1, and of what."""
        self.done, self.text = min(1.0, done), text
        now = time.monotonic()
        if now - self.shown >= (BAR_SECONDS if self.terminal else LINE_SECONDS):
            self.shown = now
            self._draw(now - self.start)

    def _draw(self, elapsed: float) -> None:
        share = self.done - self.first
        known = share > 0 and elapsed > 1  # the first step says little
        left = elapsed * (1 - self.done) / share if known else math.inf
        text = f"{self.text}  {f'{duration(left)} left' if self.done < 1 else duration(elapsed)}"
        if self.terminal:
            if self.bar is None:
                from tqdm import tqdm

                self.bar = tqdm(total=100, bar_format="{percentage:3.0f}% |{bar:12}| {desc}", leave=self.keep)
            self.bar.n = int(100 * self.done)
            self.bar.set_description_str(text)  # draws it
        elif sys.stderr is not None:
            say(f"{int(100 * self.done):3}%  {text}", sys.stderr)

    def clear(self) -> None:
        """Make room for a line; the bar comes back below it."""
        if self.bar is not None:
            self.bar.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()


class Progress(Bar):
    """Of training: a step's numbers, smoothed. Says how it ended, also after a short time.

    Args:
        training: its attribute `done` tells how much is over.
        describe: the text for a step's numbers.
    """

    def __init__(self, training: Trainer, describe: Callable[[dict[str, float]], str]) -> None:
        super().__init__(training.done)
        self.training, self.describe = training, describe
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
        where = "" if self.terminal else f"step {self.training.step}  "
        self.show(self.training.done, f"{where}{self.describe(self.parts)}")

    def __exit__(self, *error: object) -> None:
        if self.steps:
            self.shown = -math.inf  # the last state in any case
            self._tell()
        super().__exit__(*error)
