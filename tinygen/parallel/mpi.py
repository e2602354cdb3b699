"""Ranks that mpiexec started: processes on one machine or on many, which talk by MPI.

Sums are MPI's own (MPI_Iallreduce): the library chooses the algorithm for the network that there is. What MPI leaves to
its user is what happens when something goes wrong. Here what happens to one rank happens to all: `job` ends all of
them, and a `Watch` on each rank notices when another one has stopped.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tinygen import kernels
from tinygen.console import say
from tinygen.parallel.nccl import NCCL, choose_gpu
from tinygen.parallel.ranks import Array, Pending, current, using

STARTED = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK")  # one of which mpiexec sets, whose ever it is
BEAT = 1.0  # seconds between two signs of life
PATIENCE = 20.0  # seconds without one after which a rank is given up
TURN = 2.0  # seconds that rank 0 has to say what went wrong, and to end the job, before others say it
PASSED_ON = 0.3  # seconds in which mpiexec gets hold of what a rank has said before it ends
BUSY = 1e-3  # seconds for which a rank that waits does nothing else; then it sleeps between two looks


class Asked:
    """What MPI works on, a sum or a copy; it moves on whenever it is asked for. See `Pending`.

    ranks: for whom waiting is noted.
    """

    def __init__(self, request: Any, ranks: MPIRanks) -> None:
        self.request, self.ranks = request, ranks

    def done(self) -> bool:
        return self.request.Test()

    def wait(self) -> None:
        start = time.monotonic()
        while not self.request.Test():
            if (waited := time.monotonic() - start) > BUSY:
                time.sleep(min(waited / 20, 0.01))
        self.ranks.waited += time.monotonic() - start


class MPIRanks:
    """All processes of the job. See `tinygen.parallel.Ranks`. Between GPUs NCCL takes the sums over.

    Attributes:
        neighbors: how many ranks are on this machine, this one among them; it is the `neighbor`-th, from 0.
    """

    def __init__(self) -> None:
        from mpi4py import MPI  # begins MPI

        self.mpi, self.comm = MPI, MPI.COMM_WORLD.Dup()
        self.rank, self.size = self.comm.rank, self.comm.size
        host = socket.gethostname()
        hosts = self.comm.allgather((host, os.getpid()))
        self.names: Sequence[str] = [
            f"rank {rank} (process {pid} on {where})" for rank, (where, pid) in enumerate(hosts)
        ]
        here = [rank for rank, (where, _) in enumerate(hosts) if where == host]
        self.neighbors, self.neighbor = len(here), here.index(self.rank)
        self.gpus: NCCL | None = None
        self.sharded, self.waited = False, 0.0

    def start_sum(self, array: Array, root: int | None = None) -> Pending:
        if not isinstance(array, np.ndarray):
            return self.between_gpus().start_sum(array, root)
        here = self.mpi.IN_PLACE
        if root is None:
            return Asked(self.comm.Iallreduce(here, array), self)
        sent, received = (here, array) if self.rank == root else (array, None)
        return Asked(self.comm.Ireduce(sent, received, self.mpi.SUM, root), self)

    def start_copy(self, array: Array, root: int) -> Pending:
        if not isinstance(array, np.ndarray):
            return self.between_gpus().start_copy(array, root)
        return Asked(self.comm.Ibcast(array, root), self)

    def between_gpus(self) -> NCCL:
        """NCCL, which takes over where the arrays are CuPy's."""
        self.gpus = self.gpus or NCCL(self)
        return self.gpus

    def broadcast(self, value: Any, root: int = 0) -> Any:
        return self.comm.bcast(value, root)

    def end(self, code: int) -> None:
        """End all processes of the job at once. What happened has been said: MPI needs to add nothing."""
        sys.stdout.flush()
        time.sleep(PASSED_ON)
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        self.mpi.COMM_WORLD.Abort(code)


class Watch(threading.Thread):
    """Tells the next rank every second that this one lives, and ends the job if the one before it is silent.

    A rank that computes for long lives, since this is a thread of its own; one that was stopped doesn't, and neither
    does one whose machine or network is gone. (MPI itself notices a process that was killed.)
    """

    def __init__(self, ranks: MPIRanks) -> None:
        super().__init__(daemon=True)
        self.ranks, self.comm, self.over = ranks, ranks.comm.Dup(), threading.Event()
        self.before, self.after = (ranks.rank - 1) % ranks.size, (ranks.rank + 1) % ranks.size

    def run(self) -> None:
        sign, came = np.zeros(1, np.uint8), np.zeros(1, np.uint8)
        receive, send = self.comm.Irecv(came, self.before), self.comm.Isend(sign, self.after)
        heard = looked = time.monotonic()
        while not self.over.wait(BEAT):
            now = time.monotonic()
            if now - looked > PATIENCE / 2:  # it was this rank that stopped: all of them may have
                heard = now
            looked = now
            while receive.Test():
                receive, heard = self.comm.Irecv(came, self.before), now
            if send.Test():
                send = self.comm.Isend(sign, self.after)
            if now - heard > PATIENCE:
                silent = f"{self.ranks.names[self.before]} has given no sign of life for {now - heard:.0f} s"
                why = "it was stopped, or its machine is gone"
                say(f"tinygen: {silent}: {why}; the job ends, and its last checkpoint is whole", sys.stderr)
                self.ranks.end(1)
        receive.Cancel()
        receive.Wait()

    def stop(self) -> None:
        self.over.set()
        self.join()


@contextlib.contextmanager
def job() -> Iterator[list[int]]:
    """Within it `current()` are the ranks that mpiexec started, if it did. The list that is given takes the exit code.

    Whatever ends one of the ranks early, a code that isn't 0 or an exception, ends all of them.

    Raises ValueError where mpiexec started several, but mpi4py isn't installed.
    """
    codes: list[int] = []
    if not any(name in os.environ for name in STARTED):
        yield codes
        return
    try:
        ranks = MPIRanks()
    except ImportError as e:
        raise ValueError(f"mpiexec started this, which takes mpi4py: pip install 'tinygen[mpi]' ({e})") from e
    if ranks.size == 1:
        yield codes
        return
    cores = max(1, (os.cpu_count() or 1) // ranks.neighbors)
    kernels.set_num_threads(min(kernels.get_num_threads(), cores))
    watch = Watch(ranks)
    watch.start()
    try:
        with using(ranks):
            yield codes
    except BaseException as e:
        wait_for_turn(ranks)
        if not isinstance(e, SystemExit):
            traceback.print_exc()
        codes.append(e.code if isinstance(e, SystemExit) and isinstance(e.code, int) else 1)
    if codes[-1:] not in ([], [0]):
        ranks.end(codes[-1])
    Asked(ranks.comm.Ibarrier(), ranks).wait()
    watch.stop()


def own_gpu() -> None:
    """Of several ranks each takes a GPU of its own. Raises ValueError if its machine has too few."""
    if isinstance(ranks := current(), MPIRanks):
        choose_gpu(ranks.neighbor)


def wait_for_turn(ranks: Any = None) -> None:
    """Return at once on rank 0, on others a little later: if all ranks fail alike, the job is over by then."""
    if (ranks or current()).rank:
        time.sleep(TURN)
