"""Speed: the engine's loops over the arguments of an op, unrolled into code of its own for each op.

Small arrays spend more time in bookkeeping than in NumPy; what is here halves that. To learn how the engine works, read
`Op.__call__` in autograd.py, which does the same in full. In the generated code our own names begin with _.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinygen._tensor import Tensor


def call(op: Any, scope: dict[str, Any]) -> Callable[..., Any]:
    """`Op.__call__` for the common case; hands over to it in any other.

    Common: neither the reference nor hooks, arguments that are Tensors of one dtype, or plain Python values and tuples
    of such.
    """
    args, raws = ", ".join(op.names), ", ".join(f"{n}_" for n in op.names)
    defaults = {f"_default_{n}": p.default for n, p in op.signature.parameters.items() if p.default is not p.empty}
    signature = ", ".join(f"{n}=_default_{n}" if f"_default_{n}" in defaults else n for n in op.names)
    unpack = "".join(
        f"""
    if {n}.__class__ is _Tensor:
        {n}_ = {n}._array{"; _size = " + n + "_.size" if i == 0 else ""}
        if {n}.requires_grad: _mask |= {1 << i}
        if {n}._version is not None: _changeable = True
        if {n}_.dtype is not _dtype:
            if _dtype is not None: return _op({args})
            _dtype = {n}_.dtype
    elif {n}.__class__ in _plain or {n}.__class__ is tuple and _plain.issuperset(map(type, {n})): {n}_ = {n}
    else: return _op({args})"""
        for i, n in enumerate(op.names)
    )
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
    if {arrays}: return _op.run_checked(({args},), _mode().reference)
    _now = _mode()
    if _now is not _default and (_now.reference or _now.hooks): return _op({args})
    _mask, _dtype, _changeable, _size = 0, None, False, 0{unpack}
    if _dtype is None: return _op({args})
    try: {results} = _op.body({raws}) if _size < _op.least else _op.run({raws})
    except Exception as _e: _fail(_e, "{op.name}", f"({{_describe(({raws},))}})"){wrap}
    if _mask and _now.grad and _op.rules:
        _plan = _plans.get(_mask)
        if _plan is None: _plan = _plans[_mask] = _op.plan(_mask, {len(op.names)}, False)
        _number, _node = _plan.record(_plan, _changeable, _dtype, {results}, {args}, {raws}){link}
    return {", ".join(f"_out{i}" for i in numbers)}
"""
    scope = {**scope, "op": op, "Tensor": Tensor, "ndarray": np.ndarray, "new": object.__new__, "plans": {}}
    return _define(op.name, source, scope, defaults)


def record(op: Any, n: int, tracked: Sequence[int], keep: Sequence[int], scope: dict[str, Any]) -> Callable[..., Any]:
    """The function that leaves a node on the tape, when n arguments were given and those tracked require gradients:

    (plan, whether an argument can be changed in place, dtype, *outputs, *arguments, *their arrays) -> number, node.
    Output i has the gradient key number + i.
    """
    outs, args, values = ([f"{c}{i}" for i in range(m)] for c, m in (("o", len(op.outputs)), ("a", n), ("v", n)))
    shapes = [f"getattr({v}, 'shape', ())" for v in values]
    if op.variadic:  # the shapes of all the tensors
        shapes[n - len(op.names)] = f"[v.shape for v in ({', '.join(values[: n - len(op.names) + 1])},)]"
    saved = ", ".join(shapes[~k] if k < 0 else outs[k - n] if k >= n else values[k] for k in keep)
    kept = [args[k] for k in keep if 0 <= k < n]
    versions = "".join(f"_stamped({a}), " for a in kept)
    guards = f"({versions} _site(_frame(2))) if _changeable else ()" if kept else "()"
    parents = "".join(f"a{i}._source or a{i}, " for i in tracked)
    source = f"""
def record(_plan, _changeable, _dtype, {", ".join(outs + args + values)}):
    _guards = {guards}
    _shapes = ({"".join(f"v{i}.shape, " for i in tracked)})
    _node = _new(_Node, (next(_numbers), _plan, ({parents}), _shapes, _dtype, [{saved}], _guards))
    {"next(_numbers);" * (len(outs) - 1)}
    return _node[0], _node
"""
    return _define("record", source, {**scope, "new": tuple.__new__, "stamped": _stamped, "frame": sys._getframe}, {})


def _stamped(a: Any) -> tuple[Any, Any]:
    """An argument's version, and its count now. None if it can't be changed in place."""
    version = getattr(a, "_version", None)
    return version, version and version[0]


def vjp(steps: Sequence[Any], n_tracked: int, n_pool: int, variadic: bool) -> Callable[..., tuple[Any, ...]]:
    """(*gouts, *saved) -> the gradients of the tracked inputs, from (rule, indices of its arguments, its inputs)s."""
    if all(len(slots) == 1 for _, _, slots in steps) and not variadic:
        rules = {f"rule{i}": fn for i, (fn, _, _) in enumerate(steps)}
        calls = {s[0]: f"_rule{i}({', '.join(f'p{k}' for k in picks)}), " for i, (_, picks, s) in enumerate(steps)}
        pool = ", ".join(f"p{k}" for k in range(n_pool))
        return _define("vjp", f"def vjp({pool}): return ({''.join(calls[i] for i in range(n_tracked))})", rules, {})

    def vjp(*pool: Any) -> tuple[Any, ...]:
        grads: list[Any] = [None] * n_tracked
        for fn, picks, slots in steps:
            result = fn(*[pool[k] for k in picks])
            for slot, g in zip(slots, result if len(slots) > 1 or variadic else (result,), strict=True):
                if slot is not None:
                    grads[slot] = g
        return tuple(grads)

    return vjp


def _define(name: str, source: str, own: dict[str, Any], more: dict[str, Any]) -> Any:
    scope = {f"_{n}": value for n, value in own.items()} | more
    exec(compile(source, __file__, "exec"), scope)  # under a name that call sites are not looked for in
    return scope[name]
