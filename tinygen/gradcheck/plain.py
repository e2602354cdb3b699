"""Plain NumPy functions as subjects: forward/backward pairs, losses, models with a dict of parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinygen.gradcheck.sandbox import Sandbox, Trouble
from tinygen.gradcheck.source import argument_names, last_assignment, matching, required_parameters, returned_names
from tinygen.gradcheck.subject import Gradients, Subject
from tinygen.gradcheck.values import as_floats, equal, fresh, is_float_array, same, shared_memory, snapshot

Array = Any
TARGETS = {"y", "t", "target", "targets", "label", "labels", "y_true", "ytrue", "true", "gt", "mask"}  # often constants


class PlainSubject(Subject):
    """Functions of NumPy arrays; their gradients come in a list, in a dict, or as a list that holds a dict.

    Float arrays are arguments with a gradient. So are lists, floats and integers if there is a gradient for them and
    the function takes float64 arrays in their place, and the arrays in a dict of parameters: each becomes an argument
    of its own, behind those of the function.
    """

    def __init__(self, name: str, names: Sequence[str], args: Sequence[Any], limit: float | None) -> None:
        super().__init__(name, names, args)
        self.n = len(args)
        self.entries: list[tuple[int, Any]] = []  # (the dict's position, key) of each further argument
        self.box = Sandbox(limit)

    def assembled(self, values: Sequence[Any]) -> list[Any]:
        """The function's arguments, copied, with the entries put back into their dicts."""
        args = [fresh(v) for v in values[: self.n]]
        for (k, key), v in zip(self.entries, values[self.n :], strict=True):
            args[k][key] = fresh(v)
        return args

    def note_changes(self, who: str, args: list[Any]) -> None:
        """Compare what a function was given with what it left."""
        theirs = [*args, *(args[k].get(key) if isinstance(args[k], dict) else None for k, key in self.entries)]
        for name, mine, left in zip(self.names, self.values, theirs, strict=True):
            if isinstance(mine, np.ndarray) and not (isinstance(left, np.ndarray) and same(mine, left)):
                self.changed.add((who, name))

    def returned(self, values: list[Any]) -> Any:
        """The gradients in the form in which they come."""
        raise NotImplementedError

    def names_returned(self) -> list[str]:
        """The names in the return statement, as far as they are known."""
        return []

    # -- which arguments have a gradient

    def _settle(self) -> None:
        if not self.wrt:
            self._convert([i for i, v in enumerate(self.values) if as_floats(v) is not None])
        dicts = [k for k, v in enumerate(self.values) if isinstance(v, dict) and any(map(is_float_array, v.values()))]
        others = [i for i, v in enumerate(self.values) if i not in self.wrt and type(v) in (list, float, int)]
        grads = self._tried()
        listed, named = _sorted_out(grads)
        by_name = self.names_returned()
        by_name = by_name if len(by_name) == len(listed) and all(n.startswith("d") for n in by_name) else []
        wanted = [i for i in others if matching(named, self.names[i]) or f"d{self.names[i]}" in by_name]
        if not wanted and not by_name and len(listed) == len(self.wrt) + len(others):
            wanted = others
        self._convert(wanted)
        for k in dicts:
            self._open(k, named)
        if grads is not None:
            self._drop(listed, named, by_name)
        if named and not listed and all(matching(named, self.names[i]) is None for i in self.wrt):
            self.absent = f"backward returns a dict with the keys {', '.join(map(str, named))}: none names an argument"

    def _tried(self) -> Any:
        """The gradients, or None if the functions refuse these values: why, the check itself will tell."""
        try:
            return self.returned(self.values)
        except Trouble as e:
            if e.problem.cause == "hangs":
                raise
            return None

    def _convert(self, some: list[int]) -> None:
        """Make arguments float64 arrays: all, or, if the function refuses that, each that it takes."""
        for chosen in [some, *([i] for i in some)] if some else []:
            before = list(self.values), list(self.wrt)
            for i in chosen:
                array = as_floats(self.values[i])
                self.values[i] = np.array(float(self.values[i])) if array is None else array
            self.wrt = sorted({*self.wrt, *chosen})
            if self._tried() is None:
                self.values, self.wrt = before
            elif chosen is some:
                return

    def _open(self, k: int, named: dict[Any, Any]) -> None:
        """Make the arrays of a dict arguments of their own, if there is a gradient for any of them."""
        entries = {key: v for key, v in self.values[k].items() if is_float_array(v)}
        if any(matching(named, str(key)) is not None for key in entries):
            for key, v in entries.items():
                if not str(key).startswith(("running", "moving")):
                    self.wrt.append(len(self.values))
                    self.names.append(str(key))
                    self.values.append(np.asarray(v, np.float64))
                    self.entries.append((k, key))

    def _drop(self, listed: list[Any], named: dict[Any, Any], by_name: list[str]) -> None:
        """Leave out arguments that are no parameters: x where only parameters have gradients, a target."""

        def has(i: int) -> bool:
            return matching(named, self.names[i]) is not None or f"d{self.names[i]}" in by_name

        dropped: list[int] = []
        if not listed and any(map(has, self.wrt)):
            dropped = [i for i in self.wrt if not has(i) and i < self.n]
        elif len(listed) < len([i for i in self.wrt if by_name or not has(i)]):
            dropped = [i for i in self.wrt if not has(i) and self.names[i].lower() in TARGETS]
        self.wrt = [i for i in self.wrt if i not in dropped]
        self.remarks += [f"no gradient is returned for {self.names[i]}: it was not checked" for i in dropped]

    def match(self, grads: Any) -> Gradients:
        """The gradients in the order of the differentiable arguments."""
        if grads is None:
            return [None] * len(self.wrt)
        listed, named = _sorted_out(grads)
        returned = self.names_returned()
        if len(listed) < len(self.wrt) and len(returned) == len(listed) and all(n.startswith("d") for n in returned):
            named |= dict(zip(returned, listed, strict=True))  # some have no gradient: go by the names
            listed = []
        keys = [matching(named, self.names[i]) for i in self.wrt]
        rest = iter(listed)
        return [next(rest, None) if key is None else named[key] for key in keys]


def _sorted_out(grads: Any) -> tuple[list[Any], dict[Any, Any]]:
    """Gradients that come in order, and those that come by name."""
    listed: list[Any] = []
    named: dict[Any, Any] = {}
    for g in grads if isinstance(grads, (tuple, list)) else [] if grads is None else [grads]:
        if isinstance(g, dict):
            named |= g
        else:
            listed.append(g)
    return listed, named


class PairSubject(PlainSubject):
    """A forward/backward pair of plain functions.

    forward(*args) -> out, cache      backward(dout, cache) -> dx, dw, ...
    forward(*args) -> a, b, cache     backward(da, db, cache) -> ...
    forward(*args) -> out             backward(dout, *args) -> ...
    forward(*args) -> out             backward(dout) -> ...        (a layer object that keeps its cache)
    """

    def __init__(self, forward: Callable[..., Any], backward: Callable[..., Any], args: Sequence[Any],
                 name: str = "", limit: float | None = 10.0) -> None:  # fmt: skip
        names = argument_names(forward, len(args))
        super().__init__(name or getattr(backward, "__name__", "backward"), names, args, limit)
        self.fn, self.back = forward, backward
        required = required_parameters(backward)
        self.keeps = len(required) == 1
        self.takes_args = len(required) == 1 + len(args) and len(required) > 2
        self.n_outputs = 1 if self.takes_args else max(1, len(required) - 1)
        given = required[: self.n_outputs]
        self.outputs = [p.removeprefix("d").removeprefix("_") or p for p in given] or ["out"]
        self.upstream_names = given or ["dout"]

    def functions(self) -> list[Callable[..., Any]]:
        return [self.fn, self.back]

    def names_returned(self) -> list[str]:
        return returned_names(self.back)

    def returned(self, values: list[Any]) -> Any:
        outs, cache, args = self._call_forward(values)
        ones = [np.ones(np.shape(o)) for o in outs]
        return self.box.run("backward", self.back, *ones, *self._tail(cache, args))

    def _tail(self, cache: Any, args: list[Any]) -> list[Any]:
        return [] if self.keeps else args if self.takes_args else [cache]

    def _call_forward(self, values: list[Any]) -> tuple[list[Any], Any, list[Any]]:
        args = self.assembled(values)
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
            self.note_changes("forward", args)
        return outs

    def _gradients(self, values: list[Any], *upstreams: list[Array]) -> list[Gradients]:
        _, cache, args = self._call_forward(values)
        own = values is self.values
        if own:
            self.note_changes("forward", args)
        results = []
        for upstream in upstreams:
            given = [fresh(u) for u in upstream]
            before = snapshot(cache)
            grads = self.box.run("backward", self.back, *given, *self._tail(cache, args))
            for name, u, g in zip(self.upstream_names, upstream, given, strict=False):
                if not same(u, g):
                    self.changed.add(("backward", name))
            if own and not any(who == "forward" for who, _ in self.changed):
                self.note_changes("backward", args)
            if before is not None and not equal(before, cache):
                self.changed.add(("backward", "the cache"))
            matched = self.match(grads)
            self.alias = shared_memory(
                matched, [self.names[i] for i in self.wrt], self.upstream_names + self.names, given + args
            )
            results.append([None if g is None else np.array(g) for g in matched])
        return results

    def culprit(self, who: str, what: str) -> str:
        return last_assignment(self.back if who == "backward" else self.fn, what)

    def source(self, i: int) -> str:
        returned = self.names_returned()
        k = self.wrt.index(i)
        return last_assignment(self.back, returned[k] if k < len(returned) else self.grad_name(i))


class LossSubject(PlainSubject):
    """A function that returns a loss and its gradients: `loss(x, y) -> loss, dx`, or `-> loss, {"W": dW}`."""

    upstream = False

    def __init__(self, fn: Callable[..., Any], args: Sequence[Any], wrt: Sequence[str] | None = None,
                 name: str = "", limit: float | None = 10.0) -> None:  # fmt: skip
        super().__init__(name or fn.__name__, argument_names(fn, len(args)), args, limit)
        self.fn = fn
        self.wrt = [i for i in self.wrt if wrt is None or self.names[i] in wrt]
        self.outputs = ["loss"]
        self.narrow = wrt is None

    def functions(self) -> list[Callable[..., Any]]:
        return [self.fn]

    def returned(self, values: list[Any]) -> Any:
        return self._run(values)[1]

    def _settle(self) -> None:
        if self.narrow:
            super()._settle()

    def _run(self, values: list[Any]) -> tuple[Any, Any]:
        args = self.assembled(values)
        result = self.box.run(self.name, self.fn, *args)
        if not isinstance(result, (tuple, list)) or len(result) < 2:
            raise Trouble(self.name, "no gradient", f"{self.name} returned no gradient; expected (loss, gradient)")
        if values is self.values:
            self.note_changes(self.name, args)
        return result[0], result[1] if len(result) == 2 else tuple(result[1:])

    def _outputs(self, values: list[Any]) -> list[Any]:
        return [self._run(values)[0]]

    def _gradients(self, values: list[Any], *upstreams: list[Array]) -> list[Gradients]:
        return [[None if g is None else np.array(g) for g in self.match(self._run(values)[1])] for _ in upstreams]

    def match(self, grads: Any) -> Gradients:
        listed, named = _sorted_out(grads)
        if self.narrow and listed and not named:
            self.wrt, self.narrow = self._narrowed(listed), False
        return super().match(grads)

    def _narrowed(self, listed: list[Any]) -> list[int]:
        """The arguments of `loss, dW`: those that the return statement names, the first, or those of that shape."""
        names = returned_names(self.fn)[1:]
        by_name = [i for i in self.wrt if f"d{self.names[i]}" in names]
        if len(by_name) == len(listed):
            return by_name
        first, left = self.wrt[: len(listed)], list(self.wrt)
        if all(np.shape(g) == self.values[i].shape for i, g in zip(first, listed, strict=False)):
            return first
        fitting = []
        for g in listed:
            fits = [i for i in left if self.values[i].shape == np.shape(g)]
            fitting += fits[:1]
            left = [i for i in left if i not in fits[:1]]
        return fitting if len(fitting) == len(listed) and fitting == sorted(fitting) else first

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

        super().__init__(fn, [*(model.params[k] for k in keys), *inputs], None, name or type(model).__name__, limit)
        self.model = model
        self.names = [*keys, *(f"input{k}" for k in range(len(inputs)))]
        self.wrt = [i for i in range(len(keys)) if is_float_array(self.values[i])]
        self.narrow = False

    def functions(self) -> list[Callable[..., Any]]:
        return [self.model.loss]

    def source(self, i: int) -> str:
        return ""
