"""Ranks: processes that train one model together, each on its share of every minibatch.

    loss = sum over ranks of (images of the rank / images of the batch) * (the loss of the rank's share)

is the loss of the whole batch, and so the gradients of the ranks, each with that weight, add up to its gradient. All
else that training takes of a batch as a whole is added up as well: the statistics of batch norm, means that are shown.

When it is trained, and now and then before, the model is evaluated and drawn from by all ranks (`shares.py`).

What runs on several ranks asks `current()` for them. There are two kinds: `Alone`, which is what there is unless a
command was started by mpiexec, and `mpi.MPIRanks`, whose sums are MPI's between CPUs and NCCL's between GPUs.
"""

from tinygen.parallel.draws import SharedDraws, along, positions, whole
from tinygen.parallel.ranks import (
    Alone, Array, Pending, Ranks, all_gather, current, first_said, from_owners, moments, share, total, using,
)  # fmt: skip
from tinygen.parallel.shares import in_shares, sharing

__all__ = [
    "Alone", "Array", "Pending", "Ranks", "SharedDraws", "all_gather", "along", "current", "first_said", "from_owners",
    "in_shares", "moments", "positions", "share", "sharing", "total", "using", "whole",
]  # fmt: skip
