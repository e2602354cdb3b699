"""What training shows while it runs: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import math
import os
import sys
import time
from typing import Any, TextIO

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


class Progress:
    """The loss, smoothed, beside its floor; and the time left. On stderr, so that stdout stays clean.

    Args:
        steps, seconds: where training ends, whichever comes first; math.inf for none.
        unit: of the loss.
        floor: the loss of a trivial model, shown beside it.
    """

    def __init__(self, steps: float, seconds: float, unit: str, floor: float) -> None:
        self.steps, self.seconds, self.unit, self.floor = steps, seconds, unit, floor
        self.start = self.shown = time.monotonic()
        self.step, self.loss = 0, 0.0
        self.bar: Any = None
        if sys.stderr is not None and sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=100, bar_format="{percentage:3.0f}% |{bar:12}| {desc}")

    def update(self, step: int, loss: float) -> None:
        """Tell of a finished step, counted from 1."""
        self.step = step
        self.loss += max(0.05, 1 / step) * (loss - self.loss)  # the plain mean at first, so that no start value lingers
        now = time.monotonic()
        if now - self.shown >= (LINE_SECONDS if self.bar is None else BAR_SECONDS):
            self.shown = now
            self._show(now - self.start)

    def _show(self, elapsed: float) -> None:
        done = min(1.0, max(self.step / self.steps, elapsed / self.seconds))
        left = elapsed * (1 - done) / done if done and elapsed > 1 else math.inf  # the first step says little
        rest = f"{duration(left)} left" if done < 1 else duration(elapsed)
        text = f"{self.loss:.3f} {self.unit} (independent pixels {self.floor:.3f})  {rest}"
        if self.bar is not None:
            self.bar.n = int(100 * done)
            self.bar.set_description_str(text)  # draws it
        elif sys.stderr is not None:
            say(f"{int(100 * done):3}%  step {self.step}  {text}", sys.stderr)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.step:
            self._show(time.monotonic() - self.start)
        if self.bar is not None:
            self.bar.close()
