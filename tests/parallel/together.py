"""Ranks that are threads of one process: what several processes do, within a test and without MPI."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygen import parallel


class Job:
    """What its threads share: a place for each one's value, and a barrier."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.values: list[Any] = [None] * size
        self.barrier = threading.Barrier(size, timeout=60)
        self.errors: list[BaseException | None] = [None] * size


class ThreadRanks:
    """The ranks of a job, seen from one of its threads."""

    def __init__(self, job: Job, rank: int, sharded: bool = False) -> None:
        self.job, self.rank, self.size, self.sharded, self.waited = job, rank, job.size, sharded, 0.0
        self.names = [f"rank {rank}" for rank in range(job.size)]

    def exchanged(self, value: Any) -> list[Any]:
        """All ranks' values."""
        self.job.values[self.rank] = value
        self.job.barrier.wait()
        found = list(self.job.values)
        self.job.barrier.wait()
        return found

    def start_sum(self, array: Any, root: int | None = None) -> parallel.Alone:
        arrays = self.arrays(array)
        undefined = root not in (None, self.rank)
        array[...] = 77 if undefined else np.sum(arrays, axis=0, dtype=array.dtype)
        return parallel.Alone()

    def start_copy(self, array: Any, root: int) -> parallel.Alone:
        array[...] = self.arrays(array)[root]
        return parallel.Alone()

    def arrays(self, array: Any) -> list[Any]:
        """All ranks' arrays."""
        assert array.flags.c_contiguous
        arrays: list[Any] = self.exchanged(array.copy())
        assert len({(a.shape, a.dtype) for a in arrays}) == 1, [(a.shape, a.dtype) for a in arrays]
        return arrays

    def broadcast(self, value: Any, root: int = 0) -> Any:
        return copy.deepcopy(self.exchanged(value)[root])


def together(size: int, work: Callable[[], Any], sharded: bool = False) -> list[Any]:
    """What work() gives on each of so many ranks. What one of them raises is raised here."""
    job, results = Job(size), [None] * size

    def run(rank: int) -> None:
        try:
            with parallel.using(ThreadRanks(job, rank, sharded)):
                results[rank] = work()
        except BaseException as e:
            job.errors[rank] = e
            job.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [e for e in job.errors if e is not None]
    for e in sorted(found, key=lambda e: isinstance(e, threading.BrokenBarrierError)):
        raise e
    return results
