"""What training shows while it runs: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

LINE_SECONDS = 10.0  # between lines where there is no terminal


class Progress:
    """Loss, smoothed, beside its floor; and the time left. On stderr, so that stdout stays clean.

    Args:
        steps, seconds: where training ends, whichever comes first; math.inf for none.
        unit: of the loss.
        floor: the loss of a trivial model, shown beside it.
    """

    def __init__(self, steps: float, seconds: float, unit: str, floor: float) -> None:
        self.steps, self.seconds, self.unit, self.floor = steps, seconds, unit, floor
        self.start = self.shown = time.monotonic()
        self.loss = math.nan
        self.bar: Any = None
        if sys.stderr.isatty():
            from tqdm.auto import tqdm

            layout = "{l_bar}{bar:24}| {postfix[0]}"
            self.bar = tqdm(total=100, bar_format=layout, postfix=[""], leave=True)

    def update(self, step: int, loss: float) -> None:
        """Tell of a finished step."""
        self.loss = loss if math.isnan(self.loss) else 0.95 * self.loss + 0.05 * loss
        now = time.monotonic()
        if now - self.shown < (0.1 if self.bar is not None else LINE_SECONDS):
            return
        self.shown = now
        self._show(step, now - self.start)

    def _show(self, step: int, elapsed: float) -> None:
        done = min(1.0, max(step / self.steps, elapsed / self.seconds))
        left = elapsed * (1 - done) / done if done else math.inf
        text = f"step {step}  {self.loss:.3f} {self.unit} (independent pixels {self.floor:.3f})  {left:.0f} s left"
        if self.bar is not None:
            self.bar.postfix[0] = text
            self.bar.n = round(100 * done, 1)
            self.bar.refresh()
        else:
            print(f"{done:4.0%}  {text}", file=sys.stderr, flush=True)
        self.last = step

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()
