"""Runs functions that may print, raise, hang, or draw random numbers, and keeps all of that from the caller."""

from __future__ import annotations

import contextlib
import io
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import numpy as np

from tinygen.gradcheck.report import Problem
from tinygen.gradcheck.source import innermost_line


class Trouble(Exception):
    """A function under test could not be used; `problem` says why."""

    def __init__(self, stage: str, cause: str, hint: str, where: str = "") -> None:
        super().__init__(hint)
        self.stage = stage
        self.problem = Problem(cause, stage, hint, where=where)


class _Late(BaseException):  # not an Exception: `except Exception` in the code under test must not swallow it
    pass


class Sandbox:
    """Runs foreign functions: with a time limit for each call, silently, and leaving global state as it was.

    The limit needs the main thread of a system with signals; elsewhere there is none.
    """

    def __init__(self, limit: float | None = 10.0) -> None:
        usable = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
        self.limit = limit if usable else None
        self.printed = io.StringIO()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[Sandbox]:
        numpy_state, python_state, errors = np.random.get_state(), random.getstate(), np.geterr()  # noqa: NPY002
        timer: Any = (0.0, 0.0)
        stdin = sys.stdin
        if self.limit:
            old_handler = signal.signal(signal.SIGALRM, self._late)
            timer = signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            with contextlib.redirect_stdout(self.printed), warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                sys.stdin = io.StringIO()  # input() raises EOFError rather than wait
                yield self
        finally:
            sys.stdin = stdin
            if self.limit:
                signal.signal(signal.SIGALRM, old_handler)
                signal.setitimer(signal.ITIMER_REAL, *timer)
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)
            np.seterr(**errors)

    @staticmethod
    def _late(signum: int, frame: FrameType | None) -> None:
        raise _Late

    def run(self, stage: str, fn: Callable[..., Any], *args: Any) -> Any:
        """fn(*args); raises Trouble if that raises or takes too long. Global random numbers are the same each time.

        Those of a backward are others: one that draws the forward's mask anew is wrong.
        """
        np.random.seed(int(stage == "backward"))  # noqa: NPY002
        random.seed(int(stage == "backward"))
        try:
            if self.limit:
                signal.setitimer(signal.ITIMER_REAL, self.limit)
            try:
                return fn(*args)
            finally:
                if self.limit:
                    signal.setitimer(signal.ITIMER_REAL, 0)
        except _Late as e:
            place = innermost_line(e, fn)
            raise Trouble(stage, "hangs", f"{stage} did not return within {self.limit:g} s", place) from None
        except (Exception, SystemExit) as e:
            text = f"{stage} raised {type(e).__name__}: {e}"
            raise Trouble(stage, "raises", text, innermost_line(e, fn)) from e
