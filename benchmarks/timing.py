"""How long calls take, side by side: the contestants take turns in short bursts, so that whatever else the machine
does meets them all alike.

Each turn begins with calls that aren't timed: the threads of the contestant before, which spin for some milliseconds
after their last work, go to sleep, and this one's data and threads wake up. Then every call is timed by itself. What is
compared is the median over turns, of ratios taken within a turn: load that comes and goes falls out of it.
"""

from __future__ import annotations

import itertools
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinygen import kernels, ops

SETTLE = 0.005  # seconds of untimed calls at the start of a turn
BURST = 0.02  # seconds of timed calls in a turn, at least one call
MIN_TURNS = 3  # unless a call takes longer than a contestant's whole time


@dataclass
class Timing:
    """What was measured of one contestant, in seconds."""

    turns: list[list[float]] = field(default_factory=list)  # of each turn, the wall time of each call
    cpu: list[float] = field(default_factory=list)  # of each turn, the process's CPU time a call, over all threads

    @property
    def calls(self) -> list[float]:
        return list(itertools.chain(*self.turns))

    def summary(self) -> dict[str, float]:
        """Median and minimum of a call's wall time, median of its CPU time, the number of timed calls."""
        calls = self.calls
        return {
            "median": statistics.median(calls),
            "min": min(calls),
            "cpu": statistics.median(self.cpu),
            "calls": len(calls),
        }


def alternate(runs: dict[str, Callable[[], Any]], seconds: float) -> dict[str, Timing]:
    """Time the functions in turns until each has had so many seconds. They should have been called before."""
    timings = {name: Timing() for name in runs}
    spent = dict.fromkeys(runs, 0.0)
    names = list(runs)
    while waiting := [n for n in names if spent[n] < seconds * (1 if len(timings[n].turns) >= MIN_TURNS else 3)]:
        for name in waiting:
            start = time.perf_counter()
            _turn(runs[name], timings[name])
            spent[name] += time.perf_counter() - start
        names = names[1:] + names[:1]  # nobody always follows the same one
    return timings


def _turn(run: Callable[[], Any], timing: Timing) -> None:
    last = min(timing.calls, default=0.0)
    settled = time.perf_counter() + SETTLE
    while last < SETTLE * 10:  # a longer call settles by itself
        run()
        if time.perf_counter() > settled:
            break
    walls, cpu, end = [], _cpu_time(), time.perf_counter() + BURST
    while True:
        start = time.perf_counter()
        run()
        now = time.perf_counter()
        walls.append(now - start)
        if now > end:
            break
    timing.turns.append(walls)
    timing.cpu.append((_cpu_time() - cpu) / len(walls))


def _cpu_time() -> float:
    """Seconds of CPU that this process and those it has run took."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def ratio(theirs: Timing, ours: Timing, of: str = "wall") -> float:
    """Their time over ours: the median over turns of the ratio within a turn, of wall time or of CPU time."""
    if of == "cpu":
        return statistics.median(t / o for t, o in zip(theirs.cpu, ours.cpu, strict=False) if o > 0)
    medians = [[statistics.median(turn) for turn in t.turns] for t in (theirs, ours)]
    return statistics.median(t / o for t, o in zip(*medians, strict=False))


def use_threads(n: int, torch: Any = None) -> None:
    """Let both libraries use n threads, each told explicitly."""
    kernels.set_num_threads(n)
    if torch is not None:
        torch.set_num_threads(n)


def share_of_peak() -> float:
    """GFLOP/s of one thread over the next tenth of a second, of multiply-adds in registers, whoever else runs."""
    operations, spent, start = 0, 0.0, time.perf_counter()
    while kernels.available() and spent < 0.1:
        operations += kernels.library.lib.tg_peak(1)
        spent = time.perf_counter() - start
    return operations / spent / 1e9 if spent else 0.0


def peak(seconds: float, torch: Any = None) -> dict[str, float]:
    """The most GFLOP/s in float32 with the threads now set, by what reached them, the best call of each.

    Multiply-adds that stay in the registers are the machine's limit; large products show how near to it one can come.
    A convolution doesn't: by Winograd's algorithm it multiplies less than its formula says.
    """
    n = 1024
    a, b = (np.random.default_rng(0).standard_normal((n, n), np.float32) for _ in range(2))
    matmul = 2.0 * n**3
    products: dict[str, tuple[float, Callable[[], Any]]] = {}
    if kernels.available():
        threads = kernels.get_num_threads()
        products["multiply-adds in registers"] = (
            kernels.library.lib.tg_peak(threads),
            lambda: kernels.library.lib.tg_peak(threads),
        )
    products["tinygen linear"] = (matmul, lambda: ops.linear(a, b))
    if torch is not None:
        ta, tb = torch.from_numpy(a), torch.from_numpy(b)
        products["PyTorch mm"] = (matmul, lambda: torch.mm(ta, tb))
    timings = alternate({name: run for name, (_, run) in products.items()}, seconds)
    return {name: products[name][0] / min(t.calls) / 1e9 for name, t in timings.items()}
