"""Plain NumPy functions as subjects: forward/backward pairs, losses, models with a dict of parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinygen.gradcheck.sandbox import Sandbox, Trouble
from tinygen.gradcheck.source import argument_names, last_assignment, required_parameters, returned_names
from tinygen.gradcheck.subject import Gradients, Subject
from tinygen.gradcheck.values import equal, fresh, is_float_array, same, shared_memory, snapshot

Array = Any


class PairSubject(Subject):
    """A forward/backward pair of plain functions.

    forward(*args) -> out, cache      backward(dout, cache) -> dx, dw, ...
    forward(*args) -> a, b, cache     backward(da, db, cache) -> ...
    forward(*args) -> out             backward(dout, *args) -> ...
    forward(*args) -> out             backward(dout) -> ...        (a layer object that keeps its cache)
    """

    def __init__(self, forward: Callable[..., Any], backward: Callable[..., Any], args: Sequence[Any],
                 name: str = "", limit: float | None = 10.0) -> None:  # fmt: skip
        super().__init__(name or getattr(backward, "__name__", "backward"), argument_names(forward, len(args)), args)
        self.fn, self.back = forward, backward
        required = required_parameters(backward)
        self.keeps = len(required) == 1
        self.takes_args = len(required) == 1 + len(args) and len(required) > 2
        self.n_outputs = 1 if self.takes_args else max(1, len(required) - 1)
        given = required[: self.n_outputs]
        self.outputs = [p.removeprefix("d").removeprefix("_") or p for p in given] or ["out"]
        self.upstream_names = given or ["dout"]
        self.box = Sandbox(limit)
        self.positions: list[int] | None = None

    def _call_forward(self, values: list[Any]) -> tuple[list[Any], Any, list[Any]]:
        args = [fresh(v) for v in values]
        result = self.box.run("forward", self.fn, *args)
        if self.keeps and isinstance(result, np.ndarray):
            return [result], None, args
        if isinstance(result, (tuple, list)) and not self.takes_args and len(result) > self.n_outputs:
            outs, rest = list(result[: self.n_outputs]), result[self.n_outputs :]
            return outs, rest[0] if len(rest) == 1 else tuple(rest), args
        if isinstance(result, (tuple, list)) and len(result) == self.n_outputs:
            return list(result), None, args
        if result is None or isinstance(result, (tuple, list)):
            n = "None" if result is None else f"{len(result)} values"
            raise Trouble("forward", "raises", f"forward returned {n}; expected {self.n_outputs} output(s) and a cache")
        self.takes_args = True
        return [result], None, args

    def _outputs(self, values: list[Any]) -> list[Any]:
        outs, _, args = self._call_forward(values)
        if values is self.values:
            self._note_changes("forward", args)
        return outs

    def _note_changes(self, who: str, args: list[Any]) -> None:
        for name, mine, theirs in zip(self.names, self.values, args, strict=True):
            if isinstance(mine, np.ndarray) and not same(mine, theirs):
                self.changed.add((who, name))

    def _gradients(self, values: list[Any], *upstreams: list[Array]) -> list[Gradients]:
        _, cache, args = self._call_forward(values)
        self._note = values is self.values
        if self._note:
            self._note_changes("forward", args)
        results = []
        for upstream in upstreams:
            given = [fresh(u) for u in upstream]
            before = snapshot(cache)
            tail = [] if self.keeps else args if self.takes_args else [cache]
            grads = self.box.run("backward", self.back, *given, *tail)
            for name, u, g in zip(self.upstream_names, upstream, given, strict=False):
                if not same(u, g):
                    self.changed.add(("backward", name))
            if self._note and not any(who == "forward" for who, _ in self.changed):
                self._note_changes("backward", args)
            if before is not None and not equal(before, cache):
                self.changed.add(("backward", "the cache"))
            matched = self._match(grads)
            self.alias = shared_memory(
                matched, [self.names[i] for i in self.wrt], self.upstream_names + self.names, given + args
            )
            results.append([None if g is None else np.array(g) for g in matched])
        return results

    def _match(self, grads: Any) -> Gradients:
        """The gradients in the order of the differentiable arguments."""
        if grads is None:
            return [None] * len(self.wrt)
        if isinstance(grads, dict):
            return [grads.get(self.grad_name(i), grads.get(self.names[i])) for i in self.wrt]
        given = list(grads) if isinstance(grads, (tuple, list)) else [grads]
        if len(given) < len(self.wrt):  # some arguments have no gradient: go by the names in the return statement
            returned = returned_names(self.back)
            if len(returned) == len(given) and all(n.startswith("d") for n in returned):
                by_name = dict(zip(returned, given, strict=True))
                return [by_name.get(self.grad_name(i)) for i in self.wrt]
        return (given + [None] * len(self.wrt))[: len(self.wrt)]

    def culprit(self, who: str, what: str) -> str:
        return last_assignment(self.back if who == "backward" else self.fn, what)

    def source(self, i: int) -> str:
        returned = returned_names(self.back)
        k = self.wrt.index(i)
        return last_assignment(self.back, returned[k] if k < len(returned) else self.grad_name(i))


class LossSubject(Subject):
    """A function that returns a loss and its gradients: `loss(x, y) -> loss, dx`, or `-> loss, {"W": dW}`."""

    upstream = False

    def __init__(self, fn: Callable[..., Any], args: Sequence[Any], wrt: Sequence[str] | None = None,
                 name: str = "", limit: float | None = 10.0) -> None:  # fmt: skip
        super().__init__(name or fn.__name__, argument_names(fn, len(args)), args)
        self.fn = fn
        self.box = Sandbox(limit)
        self.wrt = [i for i in self.wrt if wrt is None or self.names[i] in wrt]
        self.outputs = ["loss"]
        self.narrow = wrt is None

    def _run(self, values: list[Any]) -> tuple[Any, Any]:
        args = [fresh(v) for v in values]
        result = self.box.run(self.name, self.fn, *args)
        if not isinstance(result, (tuple, list)) or len(result) < 2:
            raise Trouble(self.name, "no gradient", f"{self.name} returned no gradient; expected (loss, gradient)")
        if values is self.values:
            for name, mine, theirs in zip(self.names, self.values, args, strict=True):
                if isinstance(mine, np.ndarray) and not same(mine, theirs):
                    self.changed.add((self.name, name))
        return result[0], result[1] if len(result) == 2 else tuple(result[1:])

    def _outputs(self, values: list[Any]) -> list[Any]:
        return [self._run(values)[0]]

    def _gradients(self, values: list[Any], *upstreams: list[Array]) -> list[Gradients]:
        return [self._match(self._run(values)[1]) for _ in upstreams]

    def _match(self, grads: Any) -> Gradients:
        if isinstance(grads, dict):
            return [grads.get(self.names[i], grads.get(self.grad_name(i))) for i in self.wrt]
        given = list(grads) if isinstance(grads, (tuple, list)) else [grads]
        if self.narrow:  # `loss, dW` of loss(W, X, y): a gradient for the first arguments only
            self.wrt, self.narrow = self.wrt[: len(given)], False
        return [None if g is None else np.array(g) for g in given[: len(self.wrt)]]

    def source(self, i: int) -> str:
        return last_assignment(self.fn, self.grad_name(i))


class ModelSubject(LossSubject):
    """An object with `params` (a dict of arrays), which are checked, and `loss(X, y) -> loss, grads`."""

    def __init__(self, model: Any, inputs: Sequence[Any], name: str = "", limit: float | None = 10.0) -> None:
        keys = list(model.params)

        def fn(*args: Any) -> Any:
            old = dict(model.params)
            model.params.update(zip(keys, args[: len(keys)], strict=True))
            try:
                return model.loss(*args[len(keys) :])
            finally:
                model.params.update(old)

        inputs_names = [f"input{k}" for k in range(len(inputs))]
        super().__init__(
            fn, [*(model.params[k] for k in keys), *inputs], name=name or type(model).__name__, limit=limit
        )
        self.names = [*keys, *inputs_names]
        self.wrt = [i for i in range(len(keys)) if is_float_array(self.values[i])]
        self.narrow = False

    def source(self, i: int) -> str:
        return ""
