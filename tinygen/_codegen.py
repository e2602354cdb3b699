"""Speed: the engine's loops over the arguments of an op, written out as code of its own for each op.

Small arrays spend more time in bookkeeping than in NumPy; this halves it. To learn how the engine works, read tape.py:
its `Op.__call__`, `_record` and `_vjp` do the same in full, and suffice where this file is left out. Importing it makes
the ops faster that are made from then on. Debuggers and tracebacks show the generated lines; our names in them begin
with _.
"""

from __future__ import annotations

import functools
import linecache
import sys
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Any

import numpy as np

from tinygen import autograd, errors, modes, tape
from tinygen._tensor import RELEASED, Node, Tensor
from tinygen.geometry import Geometry


class CompiledOp(tape.Op):
    """An op whose calls run generated code."""

    def caller(self) -> Callable[..., Any]:
        return super().caller() if self.variadic or self.casts else call(self)

    def kernel(self, fn: Callable[..., Any], least: int = 0) -> Callable[..., Any]:
        super().kernel(fn, least)
        if not self.variadic:  # without *values, which take as long as a small array's sum
            args = ", ".join(self.names)
            source = f"def run({args}):\n    _out = _fast({args})\n    return _body({args}) if _out is _not else _out\n"
            scope = {"_fast": fn, "_body": self.body, "_not": NotImplemented}
            self.run = functools.wraps(fn)(_define("run", f"run {self.name}", source, scope))
        return fn

    def make_plan(self, mask: int, n: int, reference: bool) -> tape.Plan:
        plan = super().make_plan(mask, n, reference)
        return CompiledPlan(*plan._replace(record=record(plan), vjp=vjp(plan)))


class CompiledPlan(tape.Plan):
    """A plan that knows whether `propagate` can go straight through its nodes: one output, one way to a gradient."""

    def __init__(self, *fields: Any) -> None:
        self.straight = len(self.op.outputs) == 1 and self.op.adds is None


tape.kind = CompiledOp
PLAIN = frozenset([int, float, bool, type(None), str, slice, Geometry])  # arguments passed on as they are


def call(op: tape.Op) -> Callable[..., Any]:
    """`Op.__call__` for the common case; hands over to it in any other.

    Common: neither the reference nor hooks, arguments that are Tensors of one dtype, plain Python values and tuples of
    such, or arrays of labels.
    """
    args, raws = ", ".join(op.names), ", ".join(f"{n}_" for n in op.names)
    defaults = {f"_default_{n}": p.default for n, p in op.signature.parameters.items() if p.default is not p.empty}
    signature = ", ".join(f"{n}=_default_{n}" if f"_default_{n}" in defaults else n for n in op.names)
    unpack = "".join(_unpack(i, n, args) for i, n in enumerate(op.names))
    first, *others = op.names
    arrays = " and ".join([f"{first}.__class__ is _ndarray", *(f"{n}.__class__ is not _Tensor" for n in others)])
    numbers = range(len(op.outputs))
    results = ", ".join(f"_raw{i}" for i in numbers)
    wrap = "".join(
        f"""
    if _raw{i}.__class__ is not _ndarray or _raw{i}.dtype is not _dtype: _raw{i} = _op.normal(_raw{i}, _dtype)
    _out{i} = _new(_Tensor)
    _out{i}._array = _raw{i}"""
        for i in numbers
    )
    if op.view:
        wrap += f"""
    if {first}.__class__ is _Tensor: _out0._version = {first}._version"""
    link = "".join(
        f"""
        if _raw{i}.dtype is _dtype: _out{i}.requires_grad, _out{i}._source = True, (_number + {i}, _node)"""
        for i in numbers
    )
    source = f"""
def {op.name}({signature}):
    _now = _mode()
    if {arrays}:
        try: return _op.body({args}) if {first}.size < _op.least or _now.reference else _op.run({args})
        except Exception as _e: _op.fail(_e, ({args},))
    if _now is not _default and (_now.reference or _now.hooks): return _op({args})
    _mask, _dtype, _changeable, _size = 0, None, False, 0{unpack}
    if _dtype is None: return _op({args})
    try: {results} = _op.body({raws}) if _size < _op.least else _op.run({raws})
    except Exception as _e: _op.fail(_e, ({raws},)){wrap}
    if _mask and _now.grad and _op.rules:
        _plan = _plans.get(_mask)
        if _plan is None: _plan = _plans[_mask] = _op.plan(_mask, {len(op.names)}, False)
        _number, _node = _plan.record(_plan, _changeable, _dtype, {results}, {args}, {raws}){link}
    return {", ".join(f"_out{i}" for i in numbers)}
"""
    scope = {
        "_op": op, "_plans": {}, "_mode": modes.current.get, "_default": modes.DEFAULT, "_plain": PLAIN,
        "_Tensor": Tensor, "_ndarray": np.ndarray, "_new": object.__new__,
    }  # fmt: skip
    return _define(op.name, op.name, source, scope | defaults)


def _unpack(i: int, name: str, args: str) -> str:
    """Code that puts an argument's plain value into `name_`, and hands over where that isn't simple."""
    return f"""
    if {name}.__class__ is _Tensor:
        {name}_ = {name}._array{f"; _size = {name}_.size" if i == 0 else ""}
        if {name}.requires_grad: _mask |= {1 << i}
        if {name}._version is not None: _changeable = True
        if {name}_.dtype is not _dtype:
            if _dtype is not None: return _op({args})
            _dtype = {name}_.dtype
    elif {name}.__class__ in _plain: {name}_ = {name}
    elif {name}.__class__ is _ndarray and {name}.dtype.kind in "iub": {name}_ = {name}.copy("K")
    elif {name}.__class__ is tuple and _plain.issuperset(map(type, {name})): {name}_ = {name}
    else: return _op({args})"""


def record(plan: tape.Plan) -> Callable[..., tuple[int, Node]]:
    """`tape._record` for this plan."""
    op, n = plan.op, plan.n
    outs, args, values = ([f"{c}{i}" for i in range(m)] for c, m in (("o", len(op.outputs)), ("a", n), ("v", n)))
    shapes = [f"getattr({v}, 'shape', ())" for v in values]
    if op.variadic:  # the shapes of all the tensors
        shapes[n - len(op.names)] = f"[v.shape for v in ({', '.join(values[: n - len(op.names) + 1])},)]"
    saved = ", ".join(shapes[~k] if k < 0 else outs[k - n] if k >= n else values[k] for k in plan.keep)
    kept = [args[k] for k in plan.keep if 0 <= k < n]
    versions = "".join(f"_stamped({a}), " for a in kept)
    guards = f"({versions} _call_site(_frame(2))) if _changeable else ()" if kept else "()"
    parents = "".join(f"a{i}._source or (a{i}, None), " for i in plan.tracked)
    source = f"""
def record(_plan, _changeable, _dtype, {", ".join(outs + args + values)}):
    _guards = {guards}
    _shapes = ({"".join(f"v{i}.shape, " for i in plan.tracked)})
    _node = _new(_Node, (next(_numbers), _plan, ({parents}), _shapes, _dtype, [{saved}], _guards))
    {"next(_numbers);" * (len(outs) - 1)}
    return _node[0], _node
"""
    scope = {
        "_Node": Node, "_new": tuple.__new__, "_numbers": tape.numbers, "_stamped": _stamped,
        "_call_site": errors.call_site, "_frame": sys._getframe,
    }  # fmt: skip
    return _define("record", f"record {op.name}, {plan.tracked} of {n}", source, scope)


def _stamped(argument: Any) -> tuple[Any, Any]:
    """An argument's version, and its count now. None if it can't be changed in place."""
    version = getattr(argument, "_version", None)
    return version, version and version[0]


def vjp(plan: tape.Plan) -> Callable[..., Any]:
    """`tape._vjp` for this plan, if each of its rules gives the gradient of one input."""
    if any(step.joint for step in plan.steps):
        return plan.vjp
    rules = {f"_rule{i}": step.rule for i, step in enumerate(plan.steps)}
    calls = {}
    for i, step in enumerate(plan.steps):
        calls[step.slots[0]] = f"_rule{i}({', '.join(f'p{k}' for k in step.picks)}), "
    pool = ", ".join(f"p{k}" for k in range(len(plan.op.outputs) + len(plan.keep)))
    source = f"def vjp(_plan, {pool}): return ({''.join(calls[i] for i in range(len(plan.tracked)))})\n"
    return _define("vjp", f"vjp {plan.op.name}, {plan.tracked} of {plan.n}", source, rules)


_propagate = autograd._propagate


def propagate(outputs: Sequence[Tensor], gradients: Any, targets: Any, retain_graph: Any, create_graph: bool) -> Any:
    """`autograd._propagate` for the common case; hands over to it in any other.

    Common: backward of one tensor to all leaves, without hooks, and not recorded itself. A gradient that is the only
    one of its node, and whose own node is newer than all that wait, needn't wait in the queue.
    """
    mode = modes.current.get()
    if mode.hooks or create_graph or targets is not None or len(outputs) > 1:
        return _propagate(outputs, gradients, targets, retain_graph, create_graph)
    add, reference = tape.REGISTRY["add"].function, mode.reference
    grads, nodes, owned, queue = dict[Any, Any](), dict[Any, Any](), set[Any](), list[Any]()
    node: Any = None
    sources: Any = [outputs[0]._source or (outputs[0], None)]
    shapes, dtype = [outputs[0].shape], outputs[0].dtype
    results: Any = [autograd._check_gradient(outputs[0], gradients[0], dtype, False)]
    while True:
        gout = None
        for (key, parent), shape, g in zip(sources, shapes, results):  # noqa: B905 (strict costs time, and can't fail)
            if g is None:
                continue
            if g.shape != shape or g.dtype is not dtype:
                g = autograd._fit(g, shape, dtype, node)
            if key in owned:
                grads[key] += g
            elif key in grads:
                grads[key] = add(grads[key], g)
                owned.add(key)
            elif parent is None:
                grads[key] = g
            elif len(sources) == 1 and parent.plan.straight and (not queue or key > -queue[0]):
                node, gout = parent, g
            else:
                grads[key], nodes[key] = g, parent
                heappush(queue, -key)
        if gout is None:
            if not queue:
                return grads
            node = nodes.pop(-heappop(queue), None)
            if node is None:
                results = ()
                continue
        number, plan, sources, shapes, dtype, saved, guards = node
        if guards or (saved and saved[0] is RELEASED[0]):
            node.check()
        try:
            if plan.straight and plan.reference is reference:
                results = plan.vjp(plan, grads.pop(number) if gout is None else gout, *saved)
            elif plan.op.adds and sources[0][0] in owned and plan.reference is reference:
                plan.op.adds(grads[sources[0][0]], grads.pop(number), *saved)
                results = ()
            else:
                if gout is not None:
                    grads[number] = gout
                results = autograd._run_rules(node, grads, nodes, (), False, ())
        except Exception as e:
            errors.fail(e, f"backward of {node}")
        if not retain_graph:
            saved[:] = RELEASED


autograd._propagate = propagate


def _define(name: str, title: str, source: str, scope: dict[str, Any]) -> Any:
    """The function of this name in the source, whose lines debuggers find by the title."""
    file = f"<tinygen {title}>"
    source = source.lstrip("\n")
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    exec(compile(source, file, "exec"), scope)
    return scope[name]
