"""What training shows while it runs: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Self, TextIO

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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()


class Progress(Bar):
    """Of training: a step's numbers, smoothed. Says how it ended, also after a short time.

    Args:
        steps, seconds: where training ends, whichever comes first; math.inf for none.
        describe: the text for the numbers.
        step, spent: the steps and seconds of training before this one.
    """

    def __init__(
        self, steps: float, seconds: float, describe: Callable[[dict[str, float]], str],
        step: int = 0, spent: float = 0.0,
    ) -> None:  # fmt: skip
        self.steps, self.seconds, self.describe = steps, seconds, describe
        self.step = self.before = step
        self.spent = spent
        self.parts: dict[str, float] = {}
        super().__init__(self.fraction(0.0))
        self.keep = True

    def fraction(self, elapsed: float) -> float:
        """How much of the training is done."""
        return min(1.0, max(self.step / self.steps, (self.spent + elapsed) / self.seconds))

    def update(self, step: int, parts: dict[str, float]) -> None:
        """Tell of a finished step, counted from 1."""
        self.step = step
        weight = max(0.05, 1 / (step - self.before))  # the plain mean at first, so that no start value lingers
        before = {name: self.parts.get(name, 0.0) for name in parts}
        self.parts = {name: mean + weight * (parts[name] - mean) for name, mean in before.items()}
        self._tell()

    def _tell(self) -> None:
        done = self.fraction(time.monotonic() - self.start)
        where = "" if self.terminal else f"step {self.step}  "
        self.show(done, f"{where}{self.describe(self.parts)}")

    def __exit__(self, *error: object) -> None:
        if self.step > self.before:
            self.shown = -math.inf  # the last state in any case
            self._tell()
        super().__exit__(*error)
