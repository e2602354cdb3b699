"""Messages of a command while it works: lines on stdout, progress on stderr."""

from __future__ import annotations

import math
import os
import sys
import time
from contextvars import ContextVar
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

    On stderr, so that stdout stays clean. Use it in a `with` block; in the block `progress` shows on it.

    Args:
        done: the share of the task that was done before.
    """

    def __init__(self, done: float = 0.0) -> None:
        self.first, self.done, self.text = done, done, ""
        self.start = self.shown = time.monotonic()
        self.bar: Any = None
        self.keep = False  # whether the last state stays on the terminal
        self.terminal = sys.stderr is not None and sys.stderr.isatty()

    def show(self, done: float, text: str) -> None:
        """Show the share that is done, and of what."""
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
        self._outer = _bar.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _bar.reset(self._outer)
        if self.bar is not None:
            self.bar.close()


_bar: ContextVar[Bar | None] = ContextVar("the bar that shows progress", default=None)


def progress(done: float, text: str) -> None:
    """Called by what can take long: the share that is done, and of what. Shown if a command has opened a `Bar`."""
    if (bar := _bar.get()) is not None:
        bar.show(done, text)
