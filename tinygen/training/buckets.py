"""Gradients of several ranks, added up while backward still runs.

The gradients lie side by side in buckets, each of which is one array: the sums of few large arrays take less time than
those of many small ones. Backward comes to the last layers first. So do the buckets, and as soon as the gradients of
one are all there its sum over the ranks begins, while backward goes on with the layers before.

Source: Li et al., PyTorch Distributed: Experiences on Accelerating Data Parallel Training (2020), section 3.2.
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
    """

    def __init__(self, parameters: list[Tensor]) -> None:
        first = parameters[0]._array
        sizes = [-(-p._array.nbytes // ALIGNED) * ALIGNED // p._array.itemsize for p in parameters]
        starts = np.cumsum([0, *sizes]).tolist()
        self.flat = xp(first).zeros(starts[-1], first.dtype)
        self.parameters = parameters
        self.views = {
            id(p): _like(p._array, self.flat[a : a + p._array.size]) for p, a in zip(parameters, starts, strict=False)
        }
        self.missing = 0
        self.begun: set[int] = set()  # the parameters that have something in their gradient

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
        self.flat[...] = 0
        self.missing = len(self.parameters)


class Buckets:
    """The gradients of some parameters, in buckets; the last parameters', which backward comes to first, in the first.

    Attributes:
        pending: the sums that have begun, one for each bucket, in the buckets' order on every rank.
    """

    def __init__(self, parameters: Iterable[Tensor], ranks: Ranks) -> None:
        self.ranks, self.pending = ranks, list[Pending]()
        groups: list[list[Tensor]] = [[]]
        for p in list(parameters)[::-1]:
            if groups[-1] and (sum(q._array.nbytes for q in groups[-1]) >= BYTES or p.dtype != groups[-1][0].dtype):
                groups.append([])
            groups[-1].append(p)
        self.buckets = [Bucket(group) for group in groups]
        self.of = {key: bucket for bucket in self.buckets for key in bucket.views}
        self.uses: Counter[int] = Counter()

    def backward(self, loss: Tensor) -> None:
        """`loss.backward()`, after which each parameter's `.grad` is the sum of the ranks' gradients.

        A parameter that the loss doesn't depend on has none, on all ranks.
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
                p.grad = leaf(bucket.views[id(p)]) if id(p) in bucket.begun else None

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
        self.pending.append(self.ranks.start_sum(self.buckets[len(self.pending)].flat))


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
