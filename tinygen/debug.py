"""Three things to do with the engine's one hook: time the ops, stop at the first NaN, draw the graph.

`with tinygen.hook(fn):` sends every op and every backward rule of this thread through `fn(call, run)`: `call` says
which op runs, in which phase, on what, at which node; `run()` runs it. All below are such an `fn`; write your own:

    def shout(call, run):
        print(call.phase, call.op.name)
        return run()

    with tinygen.hook(shout):
        loss(x).backward()
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from time import perf_counter
from typing import Any

import numpy as np

from tinygen._tensor import Tensor
from tinygen.array import xp
from tinygen.errors import describe
from tinygen.modes import hook
from tinygen.tape import Call


class _Watch:
    """Something that is called for every op within its `with` block."""

    def __enter__(self) -> Any:
        hook(self).__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        hook(self).__exit__(*error)

    def __call__(self, call: Call, run: Callable[[], Any]) -> Any:
        raise NotImplementedError


class Timer(_Watch):
    """Where the time goes: seconds and calls of each op, forward and backward.

        with Timer() as timer:
            loss(x).backward()
        print(timer)

    Attributes:
        seconds, calls: dicts by (op's name, phase). Seconds are an op's own: those of the ops that a backward rule
            calls (seen with create_graph) count for them.
    """

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, str], float] = {}
        self.calls: dict[tuple[str, str], int] = {}
        self._inner = 0.0  # seconds of the calls inside the current one

    def __call__(self, call: Call, run: Callable[[], Any]) -> Any:
        key, outer = (call.op.name, call.phase), self._inner
        self._inner, start = 0.0, perf_counter()
        try:
            return run()
        finally:
            elapsed = perf_counter() - start
            self.seconds[key] = self.seconds.get(key, 0.0) + elapsed - self._inner
            self.calls[key] = self.calls.get(key, 0) + 1
            self._inner = outer + elapsed

    def __str__(self) -> str:
        """A table, the slowest first."""
        rows = [f"{'op':<20} {'phase':<10} {'calls':>8} {'ms':>10}"]
        for name, phase in sorted(self.seconds, key=self.seconds.__getitem__, reverse=True):
            key = name, phase
            rows.append(f"{name:<20} {phase:<10} {self.calls[key]:>8} {self.seconds[key] * 1e3:>10.3f}")
        return "\n".join(rows)


def detect_nan() -> AbstractContextManager[None]:
    """Within `with detect_nan():` the first op or gradient rule that gives NaN or infinity raises.

    Raises:
        FloatingPointError: which op, forward or backward, its arguments' shapes; or that its input held it already
            (then it came from outside: the data, the parameters, the gradient passed to backward).
    """
    return hook(_stop_at_nan)


def _stop_at_nan(call: Call, run: Callable[[], Any]) -> Any:
    with np.errstate(all="ignore"):  # what NumPy would only warn of is said better here
        results = run()
    for result in results if isinstance(results, tuple) else (results,):
        if word := not_finite(result):
            where = f"{call.phase} of {call.op.name}({describe(call.inputs)})"
            for i, value in enumerate(call.inputs):
                if came := not_finite(value):
                    what = "upstream gradient" if call.phase == "backward" else "input"
                    raise FloatingPointError(f"{where}: its {what} {i + 1} held {came} already")
            raise FloatingPointError(f"{where} gave {word}")
    return results


def not_finite(value: Any) -> str:
    """ "nan" or "inf" if an array, a tensor or a number holds one, else "". Anything but floats is finite."""
    array = value._array if isinstance(value, Tensor) else np.asarray(value) if isinstance(value, float) else value
    if getattr(getattr(array, "dtype", None), "kind", "") != "f" or xp(array).isfinite(array).all():
        return ""
    return "nan" if xp(array).isnan(array).any() else "inf"


class Graph(_Watch):
    """A drawing of the ops that ran forward within it: `print(graph)` for text, `graph.dot()` for Graphviz.

        with Graph() as graph:
            loss(x)
        print(graph)

    It keeps all their arrays alive. Arrays that came from outside are drawn as inputs.
    """

    def __init__(self) -> None:
        self.nodes: list[tuple[str, str, list[int]]] = []  # label, shape, made from
        self._number: dict[int, int] = {}  # id of an array -> number of the node that made it
        self._arrays: list[Any] = []  # all of them, so that no id comes back for another

    def _add(self, label: str, parents: list[int], arrays: tuple[Any, ...]) -> int:
        self.nodes.append((label, ", ".join(f"{a.dtype}{list(a.shape)}" for a in arrays), parents))
        self._arrays += arrays
        self._number |= dict.fromkeys(map(id, arrays), len(self.nodes) - 1)
        return len(self.nodes) - 1

    def __call__(self, call: Call, run: Callable[[], Any]) -> Any:
        results = run()
        if call.phase != "forward":
            return results
        # The Tensors will hold these very arrays, by which we know them again; so NumPy's scalars must be arrays now.
        several = isinstance(results, tuple)
        outs = tuple(np.asarray(r) if isinstance(r, np.generic) else r for r in (results if several else (results,)))
        parents = []
        for x in call.inputs:
            array = x._array if isinstance(x, Tensor) else x
            if hasattr(array, "shape"):
                known = self._number.get(id(array))
                parents.append(self._add("input", [], (array,)) if known is None else known)
        self._add(call.op.name, parents, outs)
        return outs if several else outs[0]

    def __str__(self) -> str:
        """A line for each op: `3  mul(1, 2) -> float32[2, 3]`."""
        lines = []
        for i, (label, shapes, parents) in enumerate(self.nodes):
            made_from = f"({', '.join(map(str, parents))})" if parents else ""
            lines.append(f"{i:>4}  {label}{made_from} -> {shapes}")
        return "\n".join(lines)

    def dot(self) -> str:
        """The same as a Graphviz file; `dot -Tsvg` makes a picture of it."""
        lines = ["digraph {"]
        for i, (label, shapes, parents) in enumerate(self.nodes):
            lines.append(f'  n{i} [label="{label}\\n{shapes}"{"" if parents else ", shape=box"}];')
            lines += [f"  n{parent} -> n{i};" for parent in parents]
        return "\n".join([*lines, "}"])
