"""Sums over the ranks of a job (`tinygen.parallel`), through which gradients flow."""

from __future__ import annotations

import numpy as np

from tinygen import parallel
from tinygen._tensor import Tensor
from tinygen.array import xp
from tinygen.ops._samples import normal, sample
from tinygen.ops.reduce import logsumexp, mean, sum
from tinygen.tape import op


@op
def all_reduce(x):
    """The sum of all ranks' x, of one shape; of one process x itself. On every rank the same, and differentiable.

    Source: torch.distributed.nn.functional.all_reduce.
    """
    out = xp(x).array(x, order="C")
    parallel.current().start_sum(out).wait()
    return out


@all_reduce.vjp("x")
def _(gout):
    return all_reduce(gout)  # a rank's x is in the sums of all


@all_reduce.samples
def _(rng):
    yield sample(normal(rng, 2, 3))
    yield sample(normal(rng))


def batch_mean(x: Tensor, keepdim: bool = False) -> Tensor:
    """The mean over the first axis of all ranks' x, whose lengths may differ: of the whole minibatch."""
    if parallel.current().size == 1:
        return mean(x, 0, keepdim)
    return all_reduce(sum(x, 0, keepdim)) / float(parallel.total(len(x)))


def batch_logsumexp(x: Tensor) -> Tensor:
    """log of the sum of exp of all ranks' x, (n,) each: 0-d."""
    own, ranks = logsumexp(x, 0), parallel.current()
    if ranks.size == 1:
        return own
    return logsumexp(all_reduce(own * (np.arange(ranks.size) == ranks.rank).astype(own.dtype)), 0)
