"""What is checked, in one shape: outputs = forward(values), gradients = pull(values, upstream).

`Pair` is a plain forward/backward pair, `Loss` a function that returns a loss and its gradients; the adapters for
tensor libraries are in tinygen.gradcheck.adapters. Students' functions print, raise, hang, change what they are given
and draw random numbers: `Sandbox` keeps all of that from the caller.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import linecache
import random
import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import numpy as np

from tinygen.gradcheck.report import Finding

Array = Any
Gradients = list[Any]  # for each differentiable argument an array, or None


class Trouble(Exception):
    """A function under test could not be used; `finding` says why."""

    def __init__(self, stage: str, cause: str, hint: str, where: str = "") -> None:
        super().__init__(hint)
        self.stage = stage
        self.finding = Finding(cause, stage, hint, where=where)


class _Late(BaseException):  # not an Exception: `except Exception` in the code under test must not swallow it
    pass


class Sandbox:
    """Runs foreign functions: with a time limit for each call, silently, and leaving global state as it was.

    The limit needs the main thread of a system with signals; elsewhere there is none.
    """

    def __init__(self, limit: float | None = 10.0) -> None:
        usable = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
        self.limit = limit if usable else None
        self.printed = io.StringIO()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[Sandbox]:
        numpy_state, python_state, errors = np.random.get_state(), random.getstate(), np.geterr()  # noqa: NPY002
        timer: Any = (0.0, 0.0)
        if self.limit:
            old_handler = signal.signal(signal.SIGALRM, self._late)
            timer = signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            with contextlib.redirect_stdout(self.printed), warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                yield self
        finally:
            if self.limit:
                signal.signal(signal.SIGALRM, old_handler)
                signal.setitimer(signal.ITIMER_REAL, *timer)
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)
            np.seterr(**errors)

    @staticmethod
    def _late(signum: int, frame: FrameType | None) -> None:
        raise _Late

    def run(self, stage: str, fn: Callable[..., Any], *args: Any) -> Any:
        """fn(*args); raises Trouble if that raises or takes too long. Global random numbers are the same each time."""
        np.random.seed(0)  # noqa: NPY002
        try:
            if self.limit:
                signal.setitimer(signal.ITIMER_REAL, self.limit)
            try:
                return fn(*args)
            finally:
                if self.limit:
                    signal.setitimer(signal.ITIMER_REAL, 0)
        except _Late as e:
            place = _last_line(e, fn)
            raise Trouble(stage, "hangs", f"{stage} did not return within {self.limit:g} s", place) from None
        except (Exception, SystemExit) as e:
            text = f"{stage} raised {type(e).__name__}: {e}"
            raise Trouble(stage, "raises", text, _last_line(e, fn)) from e


def _last_line(error: BaseException, fn: Callable[..., Any]) -> str:
    """`file:line: text` of the innermost frame in the file that fn comes from."""
    file = getattr(getattr(inspect.unwrap(fn), "__code__", None), "co_filename", "")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename == file:
            line = linecache.getline(file, frame.lineno or 0).strip()
            return f"{file.rsplit('/', 1)[-1]}:{frame.lineno}: {line}"
    return ""


class Subject:
    """Something with a gradient. Subclasses implement `_outputs` and `_pull`.

    Attributes:
        name: for the report.
        names, values: all arguments; float arrays as float64, never handed to foreign code themselves.
        wrt: the positions of those whose gradients are checked.
        outputs: the names of the outputs; upstream: False where a loss fixes the upstream gradient to 1.
        changed: what foreign code changed that isn't its own: (who, what).
    """

    upstream = True

    def __init__(self, name: str, names: Sequence[str], values: Sequence[Any]) -> None:
        self.name, self.names = name, list(names)
        self.values = [float64(v) for v in values]
        self.wrt = [i for i, v in enumerate(self.values) if is_float_array(v)]
        self.outputs = ["out"]
        self.changed: set[tuple[str, str]] = set()
        self.box = Sandbox(None)
        self.alias: list[str] = []

    def grad_name(self, i: int) -> str:
        """What the gradient of argument i is called."""
        return f"d{self.names[i]}"

    def forward(self, values: list[Any]) -> list[Array]:
        """All outputs, as float64 (or complex) arrays."""
        outs = self._outputs(values)
        return [
            o if isinstance(o, np.ndarray) and o.dtype.kind in "fc" and o.itemsize >= 8 else _output(o) for o in outs
        ]

    def flat(self, values: list[Any]) -> Array:
        """All outputs as one vector."""
        outs = self.forward(values)
        return outs[0].ravel() if len(outs) == 1 else np.concatenate([o.ravel() for o in outs])

    def pull(self, values: list[Any], *upstreams: list[Array]) -> list[Gradients]:
        """One forward run, then one backward run for each upstream gradient (one array for each output)."""
        raise NotImplementedError

    def _outputs(self, values: list[Any]) -> list[Any]:
        raise NotImplementedError

    def at(self, values: list[Any]) -> Subject:
        """The same functions at other values."""
        other = copy.copy(self)
        other.values, other.changed = values, set()
        return other

    def source(self, i: int) -> str:
        """`file:line: text` of the last place that sets the gradient of argument i, where the source is known."""
        return ""

    def culprit(self, who: str, what: str) -> str:
        """`file:line: text` of where `who` changes `what`, where the source is known."""
        return ""

    def describe(self) -> str:
        """The arguments' shapes and plain values in words."""
        return describe(self.names, self.values)


class Pair(Subject):
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

    def pull(self, values: list[Any], *upstreams: list[Array]) -> list[Gradients]:
        _, cache, args = self._call_forward(values)
        self._note = values is self.values
        if self._note:
            self._note_changes("forward", args)
        results = []
        for upstream in upstreams:
            given = [fresh(u) for u in upstream]
            before = _snapshot(cache)
            tail = [] if self.keeps else args if self.takes_args else [cache]
            grads = self.box.run("backward", self.back, *given, *tail)
            for name, u, g in zip(self.upstream_names, upstream, given, strict=False):
                if not same(u, g):
                    self.changed.add(("backward", name))
            if self._note and not any(who == "forward" for who, _ in self.changed):
                self._note_changes("backward", args)
            if before is not None and not _equal(before, cache):
                self.changed.add(("backward", "the cache"))
            matched = self._match(grads)
            self.alias = _aliases(
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


class Loss(Subject):
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

    def pull(self, values: list[Any], *upstreams: list[Array]) -> list[Gradients]:
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


class Model(Loss):
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


# ----------------------------------------------------------------------------------------------------------- values


def is_float_array(value: Any) -> bool:
    """Whether a gradient by it makes sense."""
    return isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size > 0


def float64(value: Any) -> Any:
    """A float array as float64 in its own memory order; anything else as it is."""
    return value.astype(np.float64, copy=False) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value


def fresh(value: Any) -> Any:
    """A copy that foreign code may change."""
    if isinstance(value, np.ndarray):
        return value.copy(order="K")
    return copy.deepcopy(value) if isinstance(value, (dict, list)) else value


def same(a: Array, b: Array) -> bool:
    """Equal, NaN counting as itself."""
    return a.shape == b.shape and bool(np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"))


def describe(names: Sequence[str], values: Sequence[Any]) -> str:
    """`x (3, 4), w (4, 5), stride 2`."""
    words = []
    for name, v in zip(names, values, strict=True):
        if isinstance(v, np.ndarray):
            words.append(f"{name} {v.shape}" if v.ndim != 1 else f"{name} ({len(v)},)")
        elif isinstance(v, dict):
            words += [f"{k} {w:.4g}" for k, w in v.items() if isinstance(w, (int, float))]
        elif isinstance(v, (int, float)):
            words.append(f"{name} {v:.4g}")
    return ", ".join(words)


def _output(value: Any) -> Array:
    try:
        array = np.asarray(value)
        return array if array.dtype.kind == "c" else array.astype(np.float64)
    except (TypeError, ValueError):
        kind = type(value).__name__
        raise Trouble("forward", "raises", f"an output is {kind}, which is not an array of numbers") from None


def _snapshot(cache: Any) -> Any:
    try:
        return copy.deepcopy(cache)
    except Exception:  # a cache may hold anything
        return None


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and same(a, b)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    return True


def _aliases(grads: Gradients, names: list[str], others: list[str], arrays: list[Any]) -> list[str]:
    notes = []
    for name, g in zip(names, grads, strict=True):
        for other, a in zip(others, arrays, strict=False):
            if isinstance(g, np.ndarray) and isinstance(a, np.ndarray) and np.may_share_memory(g, a):
                notes.append(f"d{name} shares its memory with {other}: changing one in place changes the other")
                break
    return notes


# ------------------------------------------------------------------------------------------------------ source code


def argument_names(fn: Callable[..., Any], n: int) -> list[str]:
    """The names of the first n parameters; arg0, arg1, ... where they can't be known."""
    try:
        names = [
            p.name
            for p in inspect.signature(fn).parameters.values()
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
    except (TypeError, ValueError):
        names = []
    return (names + [f"arg{i}" for i in range(len(names), n)])[:n]


def required_parameters(fn: Callable[..., Any]) -> list[str]:
    """The names of the positional parameters without a default."""
    return [
        p.name
        for p in inspect.signature(fn).parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]


def _tree(fn: Callable[..., Any]) -> tuple[Any, str, int]:
    import ast  # only needed once something is wrong
    import textwrap

    fn = inspect.unwrap(fn)
    lines, first = inspect.getsourcelines(fn)
    file = inspect.getsourcefile(fn) or "?"
    return ast.parse(textwrap.dedent("".join(lines))), file.rsplit("/", 1)[-1], first


def returned_names(fn: Callable[..., Any]) -> list[str]:
    """The plain names in the last return statement: ["dx", "dw", "db"]."""
    import ast

    try:
        tree, _, _ = _tree(fn)
    except (OSError, TypeError, SyntaxError):
        return []
    returns = [n.value for n in ast.walk(tree) if isinstance(n, ast.Return) and n.value is not None]
    if not returns:
        return []
    parts = returns[-1].elts if isinstance(returns[-1], (ast.Tuple, ast.List)) else [returns[-1]]
    return [p.id if isinstance(p, ast.Name) else "" for p in parts]


def last_assignment(fn: Callable[..., Any], name: str) -> str:
    """`file:line: text` of the last statement in fn that sets `name` or a part of it."""
    import ast

    try:
        tree, file, first = _tree(fn)
    except (OSError, TypeError, SyntaxError):
        return ""
    found = None
    for node in ast.walk(tree):
        targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
        for target in targets:
            for part in getattr(target, "elts", [target]):
                while isinstance(part, (ast.Subscript, ast.Attribute)):
                    part = part.value
                if isinstance(part, ast.Name) and part.id == name and isinstance(node, (ast.Assign, ast.AugAssign)):
                    found = node if found is None or node.lineno >= found.lineno else found
    return "" if found is None else f"{file}:{first + found.lineno - 1}: {ast.unparse(found)}"
