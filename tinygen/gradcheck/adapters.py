"""Subjects made of other things than NumPy pairs: functions on tensors that record a tape, and function transforms.

A tape library is a row: how to make a tensor, read one, and run backward. Nothing is imported that isn't there yet.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinygen import autograd
from tinygen._tensor import Tensor, leaf
from tinygen.gradcheck.subject import Gradients, Subject, argument_names, is_float_array, same

Array = Any


class Tensors(Subject):
    """A function on tinygen Tensors. Arguments that are arrays of floats or Tensors are checked, in float64.

    order 2: what is checked is the gradient's own gradient, by the arguments and by the upstream gradient.
    """

    def __init__(self, fn: Callable[..., Any], inputs: Sequence[Any], name: str = "") -> None:
        arrays = [x.numpy() if isinstance(x, Tensor) else x for x in inputs]
        super().__init__(name or getattr(fn, "name", "") or getattr(fn, "__name__", "fn"), argument_names(fn, len(arrays)), arrays)
        self.fn = fn
        self.tensors = {i for i, x in enumerate(self.values) if isinstance(x, np.ndarray)}

    def _call(self, values: Sequence[Any], record: bool) -> tuple[list[Tensor], list[Any]]:
        args: list[Any] = list(values)
        for i in self.wrt:
            args[i] = leaf(values[i], record)
        outs = self.fn(*args)
        return list(outs) if isinstance(outs, (tuple, list)) else [outs], args

    def _outputs(self, values: list[Any]) -> list[Any]:
        with autograd.no_grad():
            return [o._array if isinstance(o, Tensor) else o for o in self._call(values, False)[0]]

    def pull(self, values: list[Any], *upstreams: list[Array]) -> list[Gradients]:
        before = [v.copy() if isinstance(v, np.ndarray) else None for v in values]
        with autograd.enable_grad():
            outs, args = self._call(values, True)
        leaves = [args[i] for i in self.wrt]
        live = [k for k, o in enumerate(outs) if isinstance(o, Tensor) and o.requires_grad]
        results: list[Gradients] = []
        for upstream in upstreams:
            given = [upstream[k].astype(outs[k].dtype, order="K") for k in live]
            copies = [u.copy() for u in given]
            if not live:
                results.append([np.zeros_like(values[i]) for i in self.wrt])
                continue
            grads = autograd.grad([outs[k] for k in live], leaves, [Tensor(u) for u in given], retain_graph=True)
            results.append([np.array(g._array) for g in grads])
            if not all(map(same, given, copies)):
                self.changed.add(("backward", "the upstream gradient"))
        for name, v, b in zip(self.names, values, before, strict=True):
            if b is not None and not same(v, b):
                self.changed.add(("the function", name))
        return results


def gradient_of(subject: Tensors, upstream: Sequence[Array]) -> Tensors:
    """The subject whose outputs are this one's gradients, as functions of its arguments and the upstream gradient."""
    n = len(subject.values)

    def gradient(*args: Any) -> tuple[Tensor, ...]:
        leaves = [args[i] for i in subject.wrt]
        if not autograd.is_grad_enabled():
            leaves = [leaf(x._array, True) for x in leaves]
        inner = list(args[:n])
        for i, x in zip(subject.wrt, leaves, strict=True):
            inner[i] = x
        record = autograd.is_grad_enabled()
        with autograd.enable_grad():
            outs = subject.fn(*inner)
            outs = list(outs) if isinstance(outs, (tuple, list)) else [outs]
            live = [k for k, o in enumerate(outs) if isinstance(o, Tensor) and o.requires_grad]
            if not live:
                return tuple(Tensor(np.zeros_like(x._array)) for x in leaves)
            return autograd.grad([outs[k] for k in live], leaves, [args[n + k] for k in live], create_graph=record)

    result = Tensors(gradient, [*subject.values, *upstream], name=f"gradient of {subject.name}")
    result.names = [*subject.names, *(f"g{name}" for name in subject.outputs)] if len(upstream) == len(subject.outputs) else [
        *subject.names, *(f"g{k}" for k in range(len(upstream)))
    ]  # fmt: skip
    result.outputs = [subject.grad_name(i) for i in subject.wrt]
    return result
