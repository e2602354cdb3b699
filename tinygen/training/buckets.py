"""Gradients of several ranks, added up while backward still runs.

The gradients lie side by side in buckets, each of which is one array: the sums of few large arrays take less time than
those of many small ones. Backward comes to the last layers first. So do the buckets, and as soon as the gradients of
one are all there its sum over the ranks begins, while backward goes on with the layers before.

Where the parameters are sharded (`Ranks.sharded`), a bucket belongs to one rank. It alone gets the sums, takes the
optimizer's step on these parameters, and gives them to the others: of Adam's averages each rank has its own share.

Source: Li et al., PyTorch Distributed: Experiences on Accelerating Data Parallel Training (2020), section 3.2; sharded:
Rajbhandari et al., ZeRO: Memory Optimizations Toward Training Trillion Parameter Models (2020), stages 1 and 2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from tinygen import Tensor, ops
from tinygen._tensor import Node, leaf
from tinygen.array import memory_order, xp
from tinygen.modes import hook
from tinygen.parallel import Pending, Ranks
from tinygen.tape import Call

BYTES = 1 << 17  # of a bucket, or a little more; nothing hides the last one, so that it has to be small
ALIGNED = 64  # bytes: where each gradient begins


class Bucket:
    """Some parameters, and their gradients side by side.

    Attributes:
        missing: how many of the gradients aren't complete.
        owner: the rank whose they are; None: all ranks have them.
    """

    def __init__(self, parameters: list[Tensor]) -> None:
        self.owner: int | None = None
        self.parameters = parameters
        sizes = [-(-p._array.nbytes // ALIGNED) * ALIGNED // p._array.itemsize for p in parameters]
        self.starts = np.cumsum([0, *sizes]).tolist()
        self.flat = self.empty()
        self.views = self.views_of(self.flat)
        self.missing = 0
        self.begun: set[int] = set()  # the parameters that have something in their gradient

    def empty(self) -> Any:
        """An array for something of each parameter: zeros."""
        first = self.parameters[0]._array
        return xp(first).zeros(self.starts[-1], first.dtype)

    def views_of(self, flat: Any) -> dict[int, Any]:
        """The places of such an array, shaped as the parameters, by their ids."""
        arrays = [(id(p), p._array) for p in self.parameters]
        return {key: _like(a, flat[at : at + a.size]) for (key, a), at in zip(arrays, self.starts, strict=False)}

    def add(self, key: int, g: Any) -> None:
        """Add to a parameter's gradient."""
        view = self.views[key]
        if key in self.begun:
            view += g
        else:
            self.begun.add(key)
            view[...] = g

    def clear(self) -> None:
        """Make ready for a backward pass."""
        self.begun.clear()
        self.missing = len(self.parameters)

    def complete(self) -> Any:
        """All of it, with zeros for gradients to which nothing has been added."""
        for key in self.views.keys() - self.begun:
            self.views[key][...] = 0
        return self.flat


class Buckets:
    """The gradients of some parameters, in buckets; the last parameters', which backward comes to first, in the first.

    Attributes:
        pending: the sums that have begun, one for each bucket, in the buckets' order on every rank.
    """

    def __init__(self, parameters: Iterable[Tensor], ranks: Ranks) -> None:
        self.ranks, self.pending = ranks, list[Pending]()
        self.parameters = {id(p): p for p in parameters}
        groups: list[list[Tensor]] = [[]]
        for p in list(self.parameters.values())[::-1]:
            if groups[-1] and (sum(q._array.nbytes for q in groups[-1]) >= BYTES or p.dtype != groups[-1][0].dtype):
                groups.append([])
            groups[-1].append(p)
        self.buckets = [Bucket(group) for group in groups]
        if ranks.sharded:
            sizes = [0] * ranks.size
            for bucket in self.buckets:  # to the rank that has least so far
                bucket.owner = sizes.index(min(sizes))
                sizes[bucket.owner] += bucket.flat.nbytes
        self.of = {key: bucket for bucket in self.buckets for key in bucket.views}
        self.uses: Counter[int] = Counter()

    def backward(self, loss: Tensor) -> None:
        """`loss.backward()`, after which each parameter's `.grad` is the sum of the ranks' gradients.

        A parameter that the loss doesn't depend on has none, on all ranks; one of another rank's has none, either.
        """
        self.uses = uses_of_leaves(loss)
        self.pending = []
        for bucket in self.buckets:
            bucket.clear()
        for key in self.of.keys() - self.uses.keys():
            self.of[key].missing -= 1
        with hook(self._taking):
            loss.backward()
        while len(self.pending) < len(self.buckets):  # what waits for gradients that never came: nothing led to them
            self._start()
        for pending in self.pending:
            pending.wait()
        for bucket in self.buckets:
            for p in bucket.parameters:
                p.grad = leaf(bucket.views[id(p)]) if id(p) in bucket.begun and self._own(bucket) else None

    def owner(self, p: Tensor) -> int | None:
        """Whose a parameter is; None: all ranks'."""
        return self.of[id(p)].owner

    def share_out(self) -> None:
        """After a step: where the parameters are sharded, each rank gives its own to all."""
        if not self.ranks.sharded:
            return
        pending = []
        for bucket in self.buckets:
            values = bucket.empty() if self._own(bucket) else bucket.flat  # of which no gradient is needed
            if self._own(bucket):
                for key, view in bucket.views_of(values).items():
                    view[...] = self.parameters[key]._array
            pending.append(self.ranks.start_copy(values, bucket.owner or 0))
        for bucket, copy in zip(self.buckets, pending, strict=True):
            copy.wait()
            if not self._own(bucket):
                for key, view in bucket.views.items():
                    array = self.parameters[key].write()
                    array[...] = view

    def _own(self, bucket: Bucket) -> bool:
        return bucket.owner in (None, self.ranks.rank)

    def _taking(self, call: Call, run: Callable[[], Any]) -> Any:
        """A rule's results, without those for parameters: these go into the buckets."""
        results = run()
        if call.phase != "backward" or call.node is None:
            return results
        node, kept = call.node, list(results)
        for i, (key, parent) in enumerate(node.parents):
            if parent is None and id(key) in self.of:
                if results[i] is not None:
                    self.of[id(key)].add(id(key), _fitting(results[i], node, i))
                kept[i] = None
                self._used(id(key))
        if self.pending:
            self.pending[-1].done()  # which moves it on
        return kept

    def _used(self, key: int) -> None:
        self.uses[key] -= 1
        if not self.uses[key]:
            self.of[key].missing -= 1
        while len(self.pending) < len(self.buckets) and not self.buckets[len(self.pending)].missing:
            self._start()

    def _start(self) -> None:
        bucket = self.buckets[len(self.pending)]
        self.pending.append(self.ranks.start_sum(bucket.complete(), bucket.owner))


def uses_of_leaves(loss: Tensor) -> Counter[int]:
    """How often each leaf, by its id, is an input of what the loss was computed from."""
    uses: Counter[int] = Counter()
    nodes = {loss._source[1].number: loss._source[1]} if loss._source else {}
    stack: list[Node] = list(nodes.values())
    while stack:
        for key, parent in stack.pop().parents:
            if parent is None:
                uses[id(key)] += 1
            elif parent.number not in nodes:
                nodes[parent.number] = parent
                stack.append(parent)
    return uses


def _fitting(g: Any, node: Node, i: int) -> Any:
    """A gradient in the shape of its input: broadcasting undone, as the engine does it."""
    return g if g.shape == node.shapes[i] else ops.sum_to(g, node.shapes[i])


def _like(array: Any, flat: Any) -> Any:
    """A part of a bucket as an array of this shape, its axes in the same order in memory."""
    order = memory_order(array)
    return flat.reshape([array.shape[axis] for axis in order]).transpose(np.argsort(order))
