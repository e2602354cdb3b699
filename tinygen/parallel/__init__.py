"""Ranks: processes that train one model together, each on its share of every minibatch.

    loss = sum over ranks of (images of the rank / images of the batch) * (the loss of the rank's share)

is the loss of the whole batch, and so the gradients of the ranks, each with that weight, add up to its gradient. All
else that training takes of a batch as a whole is added up as well: the statistics of batch norm, means that are shown.

What runs on several ranks asks `current()` for them. There are two kinds: `Alone`, which is what there is unless a
command was started by mpiexec, and `mpi.MPIRanks`, whose sums are MPI's between CPUs and NCCL's between GPUs.
"""

from tinygen.parallel.draws import SharedDraws, along, positions, whole
from tinygen.parallel.ranks import Alone, Array, Pending, Ranks, all_gather, current, moments, share, total, using

__all__ = [
    "Alone", "Array", "Pending", "Ranks", "SharedDraws", "all_gather", "along", "current", "moments", "positions",
    "share", "total", "using", "whole",
]  # fmt: skip
