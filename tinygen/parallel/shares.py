"""Evaluation and sampling shared out: each rank computes its rows, and all of them have the result.

Within `sharing(ranks)` all ranks evaluate the same model on the same images, with generators in the same state, and
each does all of it by itself, as one process would. But where the rows of something don't depend on each other there is
`in_shares`, of which each rank does its share. So the ranks have the same numbers at each point, and those of one
process, but for rounding in kernels that see fewer rows at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np

from tinygen.parallel.draws import SharedDraws
from tinygen.parallel.ranks import ALONE, Ranks, first_said, using

_sharing: ContextVar[Ranks] = ContextVar("the ranks that evaluate together", default=ALONE)


@contextlib.contextmanager
def sharing(ranks: Ranks) -> Iterator[None]:
    """Within it all ranks do the same; they share the rows of `in_shares`, and nothing else."""
    token = _sharing.set(ranks)
    try:
        with using(ALONE):
            yield
    finally:
        _sharing.reset(token)


def in_shares(
    f: Callable[[slice, Any], np.ndarray], n: int, rows: int, rng: np.random.Generator | None = None
) -> np.ndarray:
    """What f gives for each of n rows, (n, ...): so many rows at a time, and of these each rank does its share.

    f(some, rng): of the rows that a slice names; it has to treat each on its own. What it draws of rng is what one
    process would draw for them (`SharedDraws`). FloatingPointError of one rank is raised on all of them.
    """
    ranks = _sharing.get()
    if ranks.size == 1:
        return np.concatenate([f(slice(i, min(i + rows, n)), rng) for i in range(0, max(n, 1), rows)])
    draws = SharedDraws((rng or np.random.default_rng(0)).bit_generator, ranks)
    found, failed = np.zeros(0), ""
    try:
        with sharing(ALONE):
            for i in range(0, max(n, 1), rows):
                count = min(rows, n - i)
                few = count < ranks.size  # no rank gets nothing: all of them do all
                own = slice(0, count) if few else draws.share(count)
                some = slice(i + own.start, i + own.stop)
                part = f(some, rng if few else draws)
                if not i:
                    found = np.zeros((n, *part.shape[1:]), part.dtype)
                if not (few and ranks.rank):
                    found[some] = part
    except FloatingPointError as e:
        failed = str(e)
    with using(ranks):
        if said := first_said(failed):
            raise FloatingPointError(said)
    ranks.start_sum(found).wait()
    return found
