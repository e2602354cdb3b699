"""Sums between GPUs, by NCCL: one process a GPU, which MPI has started.

Not yet run on a GPU: the tests have a stand-in for CuPy's names.
"""

from __future__ import annotations

from typing import Any

from tinygen.cuda import require
from tinygen.parallel.ranks import Array, Pending, Ranks

TYPES = {"float32": "NCCL_FLOAT32", "float64": "NCCL_FLOAT64", "int64": "NCCL_INT64", "uint8": "NCCL_UINT8"}


class Queued:
    """A sum that stands in a stream's queue. See `Pending`."""

    def __init__(self, cupy: Any, event: Any) -> None:
        self.cupy, self.event = cupy, event

    def done(self) -> bool:
        return self.event.done

    def wait(self) -> None:
        """What the current stream is given from now on comes after it; the CPU goes on."""
        self.cupy.cuda.get_current_stream().wait_event(self.event)


class NCCL:
    """The GPUs of a job's ranks, for arrays of CuPy's. The sums have a stream of their own, beside backward's.

    ranks: by which they find each other.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.cupy = cupy = require()
        from cupy.cuda import nccl

        self.nccl, self.stream = nccl, cupy.cuda.Stream(non_blocking=True)
        key = ranks.broadcast(None if ranks.rank else nccl.get_unique_id())
        self.communicator = nccl.NcclCommunicator(ranks.size, key, ranks.rank)

    def start_sum(self, array: Array, root: int | None = None) -> Pending:
        """See `Ranks.start_sum`. It begins when the current stream has come to where it is now."""
        what = self._queue_behind(array)
        if root is None:
            self.communicator.allReduce(*what, self.nccl.NCCL_SUM, self.stream.ptr)
        else:
            self.communicator.reduce(*what, self.nccl.NCCL_SUM, root, self.stream.ptr)
        return Queued(self.cupy, self.stream.record())

    def start_copy(self, array: Array, root: int) -> Pending:
        """See `Ranks.start_copy`."""
        self.communicator.broadcast(*self._queue_behind(array), root, self.stream.ptr)
        return Queued(self.cupy, self.stream.record())

    def _queue_behind(self, array: Array) -> tuple[int, int, int, int]:
        """Let the sums' stream wait for the current one; NCCL's names for the array: from, to, how many, of what."""
        self.stream.wait_event(self.cupy.cuda.get_current_stream().record())
        return array.data.ptr, array.data.ptr, array.size, getattr(self.nccl, TYPES[array.dtype.name])


def choose_gpu(neighbor: int) -> None:
    """Let the process use a GPU of its own: the `neighbor`-th rank of a machine the `neighbor`-th GPU.

    Raises ValueError where there are more ranks on the machine than GPUs.
    """
    cupy = require()
    count = cupy.cuda.runtime.getDeviceCount()
    if neighbor >= count:
        raise ValueError(f"--device cuda takes a GPU for each rank: this machine has {count}, and more ranks than that")
    cupy.cuda.Device(neighbor).use()
