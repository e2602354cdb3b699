"""Ctrl-C and SIGTERM, held back until there is a good moment to stop."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def interruptions() -> Iterator[list[int]]:
    """Within it the first SIGINT or SIGTERM only joins the list that is given; a second one acts as ever.

    A signal that the process ignores (`nohup`, jobs in the background) stays ignored. Python gives signals to the main
    thread alone, so in another thread the list stays empty.
    """
    came: list[int] = []
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: object) -> None:
        came.append(number)
        restore()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, note)
    try:
        yield came
    finally:
        if not came:
            restore()
