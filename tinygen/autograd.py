"""The tape: what an op is, how a call is recorded, and how gradients flow back.

An op is a plain function of arrays. Its vjp rules (vector-Jacobian products: from the gradient of the output to the
gradient of one input) are functions of arrays too, written in ops:

    @op
    def tanh(x):
        return xp(x).tanh(x)

    @tanh.vjp("x")
    def _(gout, out):
        return gout * (1 - out * out)

Called with arrays, an op just runs. Called with a Tensor that requires a gradient, it runs on the arrays and leaves a
`Node` on the tape: which op, made from what, and the saved values that its rules ask for *by the names of their
parameters*:

    gout            gradient of the output (of several outputs named a, b: ga, gb, None where nothing depends on one)
    out             the output itself (of several: their names)
    x               an input or attribute        x_shape      only its shape, which keeps nothing alive
    needs           of a joint rule: which of its inputs need a gradient, a tuple of bools

`backward` walks the nodes from the newest to the oldest and runs the rules on arrays. With `create_graph=True` it
runs the very same rules on Tensors, which records them in turn: that is all that higher derivatives take.

Source: reverse mode as in Griewank & Walther, Evaluating Derivatives (2008), chapter 3.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from heapq import heappop, heappush
from typing import Any, NamedTuple

import numpy as np

from tinygen._tensor import Tensor
from tinygen._tensor import leaf as make_leaf

# ------------------------------------------------------------------------------------------------------------ modes


class Call(NamedTuple):
    """What a hook is told: an op is about to run."""

    op: Op
    phase: str  # "forward" or "backward"
    inputs: Sequence[Any]  # forward: the arguments; backward: the gradients of the outputs


Hook = Callable[[Call, Callable[[], Any]], Any]


class Mode(NamedTuple):
    """What holds for the ops of this thread or asyncio task."""

    grad: bool = True
    reference: bool = False
    hooks: tuple[Hook, ...] = ()


_DEFAULT = Mode()
_mode: ContextVar[Mode] = ContextVar("tinygen mode", default=_DEFAULT)


@contextmanager
def _set(**changes: Any) -> Iterator[None]:
    token = _mode.set(_mode.get()._replace(**changes))
    try:
        yield
    finally:
        _mode.reset(token)


def no_grad() -> AbstractContextManager[None]:
    """Within `with no_grad():` (or a function decorated so) nothing is recorded. Per thread and per asyncio task."""
    return _set(grad=False)


def enable_grad() -> AbstractContextManager[None]:
    """Record again, inside `no_grad()`."""
    return _set(grad=True)


def reference() -> AbstractContextManager[None]:
    """Within `with reference():` every op runs its NumPy definition instead of a kernel, in its backward pass too."""
    return _set(reference=True)


def hook(fn: Hook) -> AbstractContextManager[None]:
    """Within `with hook(fn):` every op and every backward rule runs through `fn(call, run)`, which returns `run()`."""
    return _set(hooks=(*_mode.get().hooks, fn))


def is_grad_enabled() -> bool:
    """Whether ops are recorded here."""
    return _mode.get().grad


def is_reference() -> bool:
    """Whether kernels stand aside here."""
    return _mode.get().reference


def _run_hooked(hooks: tuple[Hook, ...], call: Call, run: Callable[[], Any]) -> Any:
    for h in hooks:
        run = functools.partial(h, call, run)
    return run()


# -------------------------------------------------------------------------------------------------------------- ops


class Sample(NamedTuple):
    """Arguments that an op is tested on."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Rule(NamedTuple):
    targets: tuple[str, ...]  # the inputs whose gradients it gives
    fn: Callable[..., Any]
    wants: tuple[str, ...]  # the names of its parameters


class Node(NamedTuple):
    """One recorded call: how it was made, and what its rules will need."""

    number: int  # grows along every path: a node is newer than what it was made from
    plan: Plan
    parents: tuple[Any, ...]  # for each tracked input its source, (key, node), or the leaf tensor itself
    shapes: tuple[Any, ...]  # of the tracked inputs
    dtype: Any  # of the inputs
    saved: list[Any]  # arrays, shapes and attributes, in the order of plan.keep
    guards: list[Any]  # (version, its count when saved) of saved arrays that can be changed; then (code, instruction)

    def where(self) -> str:
        """` (file:line)` of the call in the user's code, as far as it was kept."""
        if not self.guards:
            return ""
        code, instruction = self.guards[-1]
        line = next(itertools.islice(code.co_positions(), instruction // 2, None))[0]
        return f" ({code.co_filename}:{line})"

    def check(self) -> None:
        """Raise RuntimeError if the saved arrays are gone, or no longer what they were."""
        name = self.plan.op.name
        if self.saved and self.saved[0] is _RELEASED:
            raise RuntimeError(
                f"backward through {name}{self.where()} a second time: what it had saved was released by the first; "
                "pass retain_graph=True there"
            )
        for version, stamp in self.guards[:-1]:
            if version[0] != stamp:
                raise RuntimeError(
                    f"backward of {name}{self.where()}: an array that it saved was changed in place since "
                    "(an optimizer step between forward and backward?)"
                )


class Plan(NamedTuple):
    """How calls of an op are recorded when a given set of its inputs requires gradients. Worked out once for each set."""

    op: Op
    reference: bool  # whether the definition ran instead of the kernel; its backward pass does the same
    n: int  # number of arguments
    tracked: tuple[int, ...]  # positions of the inputs that require gradients
    keep: tuple[int, ...]  # positions, among arguments + outputs, of what is saved; ~i: only the shape of argument i
    vjp: Callable[..., tuple[Any, ...]]  # (*gouts, *saved) -> gradients of the tracked inputs
    simple: bool  # one output
    record: Callable[..., tuple[int, Node]]  # leaves a node on the tape; see `_compile_recorder`


REGISTRY: dict[str, Op] = {}  # every op by its name
_PLAIN = frozenset([int, float, bool, type(None), str, tuple, slice])  # arguments passed on as they are
_ON_HOST = frozenset([np.ndarray, float, int])
_RELEASED = object()
_RELEASED_ALL = (_RELEASED,)
_numbers = itertools.count()
_HERE = os.path.dirname(__file__)
_INSIDE = tuple(os.path.join(_HERE, p) for p in ("autograd.py", "_tensor.py", "ops" + os.sep, "nn" + os.sep))


def op(body: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Make an op of a function of arrays, which becomes its definition. See the module's docstring.

    Args:
        body: any number of arrays and attributes to one array, or a tuple of arrays. `*tensors` as its first
            parameter makes a variadic op (then attributes are keyword-only and the rule for "tensors" gives a tuple).
        outputs: names of the outputs if there are several.
        view: the output shares its first argument's memory.
        casts: the output's dtype is not that of the inputs.
    """
    return Op(body, **options).function if body else functools.partial(op, **options)


class Op:
    """What is known of an op. The function that `@op` returns carries its `vjp`, `kernel` and `samples`."""

    def __init__(
        self, body: Callable[..., Any], outputs: Sequence[str] = ("out",), view: bool = False, casts: bool = False
    ) -> None:
        self.name: str = body.__name__
        if self.name in REGISTRY:
            raise ValueError(f"op: there is already an op named {self.name}")
        REGISTRY[self.name] = self
        self.signature = inspect.signature(body)
        parameters = list(self.signature.parameters.values())
        self.names = tuple(p.name for p in parameters)
        self.variadic = parameters[0].kind is inspect.Parameter.VAR_POSITIONAL
        self.outputs, self.view, self.casts = tuple(outputs), view, casts
        self.grad_names = tuple(f"g{name}" for name in outputs)
        self.rules: list[Rule] = []
        self.body = self.run = self._positional(body)  # run: the kernel if there is one
        self.make_samples: Callable[[np.random.Generator], Iterable[Sample]] | None = None
        self.plans: dict[Any, Plan | None] = {}
        unroll = not self.variadic and len(self.outputs) == 1 and not view and not casts
        self.function = functools.wraps(body)(_unrolled(self) if unroll else lambda *a, **k: self(*a, **k))
        vars(self.function).update(op=self, vjp=self.vjp, kernel=self.kernel, samples=self.samples)

    def _positional(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        if not self.variadic:
            return fn
        keywords, n = self.names[1:], len(self.names) - 1
        return lambda *values: fn(*values[:-n], **dict(zip(keywords, values[-n:], strict=True)))

    # -- declaring

    def vjp(self, *targets: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Declare the gradient rule of one input, or one joint rule of several, which returns a tuple."""

        def declare(fn: Callable[..., Any]) -> Callable[..., Any]:
            wants = tuple(inspect.signature(fn).parameters)
            shapes = {f"{n}_shape" for n in self.names}
            known = {*self.names, *self.outputs, *self.grad_names, *shapes, "needs"}
            for name in (*wants, *targets):
                if name not in known or (name in targets and name not in self.names):
                    raise NameError(f"{self.name}.vjp: unknown name {name!r}; known are {', '.join(sorted(known))}")
            if clash := self.differentiable().intersection(targets):
                raise NameError(f"{self.name}.vjp: {', '.join(clash)} has a rule already")
            self.rules.append(Rule(targets, fn, wants))
            return fn

        return declare

    def differentiable(self) -> set[str]:
        """The names of the inputs that have a rule."""
        return {t for rule in self.rules for t in rule.targets}

    def kernel(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Declare the fast implementation: same arguments as the body; NotImplemented hands over to the body."""
        fast = self._positional(fn)

        def run(*values: Any) -> Any:
            out = fast(*values)
            return self.body(*values) if out is NotImplemented else out

        self.run = run
        return fn

    def samples(self, fn: Callable[[np.random.Generator], Iterable[Sample]]) -> Callable[..., Iterable[Sample]]:
        """Declare the inputs that the op is tested on: a function of a random generator that gives `sample(...)`s."""
        self.make_samples = fn
        return fn

    # -- calling

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """A call in full. (`_unrolled` is the short cut for the common case.)"""
        args = self._bind(args, kwargs)
        mode = _mode.get()
        values = list(args)
        mask, dtype, tensors = 0, None, False  # bit i of mask: argument i requires a gradient
        for i, a in enumerate(args):
            if isinstance(a, Tensor):
                tensors, values[i] = True, a._array
                mask |= a.requires_grad << i
            elif isinstance(a, np.generic):
                values[i] = a.item()  # np.sqrt(2) is a number like 1.41, and must not promote float32 arrays
            dtype = self._common_dtype(i, values[i], dtype)
        run: Callable[[], Any] = functools.partial(self._run, values, mode.reference)
        if not tensors:
            return run()
        if mask:  # a plain array belongs to the caller, who may change it before backward
            values[:] = [v.copy() if isinstance(a, np.ndarray) else v for a, v in zip(args, values, strict=True)]
        raw = _run_hooked(mode.hooks, Call(self, "forward", args), run)
        outs = [Tensor(self._normal(array, dtype)) for array in (raw if len(self.outputs) > 1 else (raw,))]
        if self.view and isinstance(args[0], Tensor):
            outs[0]._version = args[0]._version
        if mask and mode.grad and self.rules:
            number, node = self.plan(mask, len(args), mode.reference).record(
                True, dtype, *[o._array for o in outs], *args, *values
            )
            for i, out in enumerate(outs):
                if out._array.dtype.kind == "f":
                    out.requires_grad, out._source = True, (number + i, node)
        return outs[0] if len(outs) == 1 else tuple(outs)

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as e:
            raise TypeError(f"{self.name}: {e}") from None
        bound.apply_defaults()
        return (*bound.args, *bound.kwargs.values())

    def _common_dtype(self, position: int, value: Any, dtype: Any) -> Any:
        new = getattr(value, "dtype", None)
        if new is None or new.kind != "f" or new == dtype:
            return dtype
        if dtype is not None and not self.casts:
            name = self.names[0] if self.variadic else self.names[position]
            raise TypeError(f"{self.name}: {name} is {new}, but an argument before it is {dtype}; convert one with .to()")
        return new

    def _run(self, values: Sequence[Any], reference: bool) -> Any:
        try:
            return (self.body if reference else self.run)(*values)
        except (ValueError, TypeError, IndexError) as e:
            raise self.named(e, values) from e

    def named(self, e: Exception, values: Iterable[Any]) -> Exception:
        """The same exception, its message led by the op and its arguments."""
        return e if str(e).startswith(f"{self.name}(") else type(e)(f"{self.name}({describe(values)}): {e}")

    def _normal(self, array: Any, dtype: Any) -> Any:
        """An op's result as it should be: an array also if 0-d (NumPy gives scalars), float32 from float32."""
        if isinstance(array, np.generic):
            array = np.asarray(array)
        if dtype is not None and array.dtype != dtype and array.dtype.kind == "f" and not self.casts:
            array = array.astype(dtype)
        return array

    # -- recording

    def plan(self, mask: int, n: int, reference: bool) -> Plan:
        """The plan for the inputs whose bits are set, of n arguments."""
        plan = self.plans.get((mask, n, reference))
        if plan is None:
            plan = self.plans[mask, n, reference] = self._make_plan(mask, n, reference)
        return plan

    def _make_plan(self, mask: int, n: int, reference: bool) -> Plan:
        tracked = tuple(i for i in range(n) if mask >> i & 1)
        n_tensors = n - len(self.names) + 1 if self.variadic else 1
        position = {name: i + n_tensors - 1 for i, name in enumerate(self.names)}
        position |= {f"{name}_shape": ~i for name, i in position.items()}
        position |= {name: n + j for j, name in enumerate(self.outputs)}
        keep: list[int] = []
        steps = []
        for targets, fn, wants in self.rules:
            places = range(n_tensors) if self.variadic else [position[t] for t in targets]
            if not set(places).intersection(tracked):
                continue
            if "needs" in wants:
                fn = functools.partial(fn, needs=tuple(p in tracked for p in places))
            picks = []
            for name in wants:
                if name in self.grad_names:
                    picks.append(self.grad_names.index(name))
                elif self.variadic and name == f"{self.names[0]}_shape":
                    picks.append(-1)  # recorded last
                elif name != "needs":
                    if position[name] not in keep:
                        keep.append(position[name])
                    picks.append(len(self.outputs) + keep.index(position[name]))
            steps.append((fn, picks, [tracked.index(p) if p in tracked else None for p in places]))
        covered = {slot for _, _, slots in steps for slot in slots}
        if len(covered - {None}) < len(tracked):
            names = [self.names[i] for i in tracked if self.names[i] not in self.differentiable()]
            raise TypeError(f"{self.name}: {names[0]} is not differentiable; pass a detached tensor")
        vjp = _compile_vjp(steps, len(tracked), len(self.outputs) + len(keep), self.variadic)
        record, scope = _compile_recorder(self, n, tracked, keep)
        plan = Plan(self, reference, n, tracked, tuple(keep), vjp, len(self.outputs) == 1, record)
        scope["_plan"] = plan
        return plan

    def __repr__(self) -> str:
        return f"<op {self.name}{self.signature}>"


def _guard(kept: Iterable[Any]) -> Any:
    """The versions of what is saved and can be changed in place; then the call site: the innermost frame outside the
    engine, the ops and the layers."""
    guards: list[Any] = [(v, v[0]) for a in kept if (v := getattr(a, "_version", None)) is not None]
    if guards:
        frame = sys._getframe(2)
        while frame.f_code.co_filename.startswith(_INSIDE) and frame.f_back:
            frame = frame.f_back
        guards.append((frame.f_code, frame.f_lasti))
    return guards


def xp(array: Any) -> Any:
    """The array module of an array: numpy, or cupy."""
    return np if array.__class__ in _ON_HOST or isinstance(array, np.generic) else sys.modules["cupy"]


def sample(*args: Any, **kwargs: Any) -> Sample:
    """One set of arguments to test an op on."""
    return Sample(args, kwargs)


def describe(values: Iterable[Any]) -> str:
    """Arguments in a few words: `float32 (2, 3), 1, None`."""
    return ", ".join(f"{v.dtype} {v.shape}" if hasattr(v, "dtype") else repr(v)[:40] for v in values)


# ------------------------------------------------------------------- speed: loops over arguments, unrolled at import


def _compile_vjp(steps: list[Any], n_tracked: int, n_pool: int, variadic: bool) -> Callable[..., tuple[Any, ...]]:
    """(*gouts, *saved) -> the gradients of the tracked inputs, from the rules' functions, picks and slots."""
    if all(len(slots) == 1 for _, _, slots in steps) and not variadic:
        fns = {f"rule{i}": fn for i, (fn, _, _) in enumerate(steps)}
        calls = {slots[0]: f"rule{i}({', '.join(f'p{k}' for k in picks)})" for i, (_, picks, slots) in enumerate(steps)}
        pool_names = ", ".join(f"p{k}" for k in range(n_pool))
        return eval(f"lambda {pool_names}: ({''.join(calls.get(i, '') + ', ' for i in range(n_tracked))})", fns)

    def vjp(*pool: Any) -> tuple[Any, ...]:
        grads: list[Any] = [None] * n_tracked
        for fn, picks, slots in steps:
            results = fn(*[pool[k] for k in picks])
            for slot, g in zip(slots, results if len(slots) > 1 or variadic else (results,), strict=True):
                if slot is not None:
                    grads[slot] = g
        return tuple(grads)

    return vjp


def _unrolled(op: Op) -> Callable[..., Any]:
    """`Op.__call__` for the common case, all its loops over the arguments unrolled; hands over to it in any other.

    Common: one output, default mode, arguments that are Tensors of one dtype or plain Python values. Small arrays
    spend more time in bookkeeping than in NumPy; this halves it.
    """
    names = op.names
    args, raws = ", ".join(names), ", ".join(f"{n}_" for n in names)
    lines = [f"def {op.name}{_bare(op.signature)}:",  # our own names begin with _, the op's don't
             f"    if _mode() is not _default: return _op({args})",
             "    _mask, _dtype, _changeable = 0, None, False"]  # fmt: skip
    for i, n in enumerate(names):
        lines += [f"    if {n}.__class__ is _Tensor:",
                  f"        {n}_ = {n}._array",
                  f"        if {n}.requires_grad: _mask |= {1 << i}",
                  f"        if {n}._version is not None: _changeable = True",
                  f"        if {n}_.dtype is not _dtype:",
                  f"            if _dtype is not None: return _op({args})",
                  f"            _dtype = {n}_.dtype",
                  f"    elif {n}.__class__ in _plain: {n}_ = {n}",
                  f"    else: return _op({args})"]  # fmt: skip
    lines += [f"    if _dtype is None: return _op({args})",
              f"    try: _raw = _op.run({raws})",
              f"    except _errors as _e: raise _op.named(_e, ({raws},)) from _e",
              "    if _raw.__class__ is not _ndarray or _raw.dtype is not _dtype: _raw = _op._normal(_raw, _dtype)",
              "    _out = _Tensor(_raw)",
              "    if _mask:",
              "        _record = _recorders.get(_mask)",
              "        if _record is None: _record = _make_recorder(_op, _mask)",
              "        if _record:",
              "            _out.requires_grad = True",
              f"            _out._source = _record(_changeable, _dtype, _raw, {args}, {raws})",
              "    return _out"]  # fmt: skip
    recorders: dict[int, Any] = {}

    def make_recorder(op: Op, mask: int) -> Any:
        recorders[mask] = op.plan(mask, len(names), False).record if op.rules else False
        return recorders[mask]

    scope = {f"_default_{p.name}": p.default for p in op.signature.parameters.values()}
    scope |= {"_op": op, "_mode": _mode.get, "_default": _DEFAULT, "_Tensor": Tensor, "_plain": _PLAIN,
              "_ndarray": np.ndarray, "_errors": (ValueError, TypeError, IndexError), "_recorders": recorders,
              "_make_recorder": make_recorder}  # fmt: skip
    exec("\n".join(lines), scope, local := {})
    return local[op.name]


def _bare(signature: inspect.Signature) -> str:
    """The signature's source, its defaults by name."""
    return f"({', '.join(n if p.default is p.empty else f'{n}=_default_{n}' for n, p in signature.parameters.items())})"


def _compile_recorder(op: Op, n: int, tracked: Sequence[int], keep: Sequence[int]) -> Any:
    """(whether an argument can be changed in place, dtype, *outputs, *arguments, *their arrays) -> number, Node.

    Lean, since every op of a small network goes through it.
    """
    outs = [f"out{j}" for j in range(len(op.outputs))]
    args = [f"a{i}" for i in range(n)]
    values = [f"v{i}" for i in range(n)]
    saved = [f"getattr(v{~k}, 'shape', ())" if k < 0 else outs[k - n] if k >= n else values[k] for k in keep]
    if op.variadic:
        saved.append(f"[v.shape for v in ({', '.join(values[: n - len(op.names) + 1])},)]")
    kept = "".join(f"{args[k]}, " for k in keep if 0 <= k < n)
    parents = "".join(f"a{i}._source or a{i}, " for i in tracked)
    shapes = "".join(f"v{i}.shape, " for i in tracked)
    source = f"""
def record(_changeable, _dtype, {', '.join(outs + args + values)}):
    _guards = _guard(({kept})) if _changeable else ()
    _node = _new(_Node, (_next(_numbers), _plan, ({parents}), ({shapes}), _dtype, [{', '.join(saved)}], _guards))
    {'_next(_numbers);' * (len(outs) - 1)}
    return _node[0], _node
"""
    scope = {"_Node": Node, "_new": tuple.__new__, "_numbers": _numbers, "_next": next, "_guard": _guard}
    exec(source, scope)
    return scope.pop("record"), scope


# --------------------------------------------------------------------------------------------------------- backward


def backward(
    tensor: Tensor, gradient: Any = None, retain_graph: bool | None = None, create_graph: bool = False
) -> None:
    """Add d(tensor)/d(leaf) to `leaf.grad` for every leaf that it was computed from. See `Tensor.backward`."""
    grads = _propagate([tensor], [gradient], None, retain_graph, create_graph)
    # Only now, when nothing can fail any more, is anything changed.
    for leaf, g in grads.items():
        if create_graph:
            leaf.grad = g if leaf.grad is None else leaf.grad + g
        elif leaf.grad is None:
            leaf.grad = _own(leaf, g)
        else:
            array = leaf.grad.write()
            array += g


def _own(model: Tensor, values: Any) -> Tensor:
    """A new leaf with these values, in the memory order of `model`: optimizers walk both side by side."""
    array = xp(model._array).empty_like(model._array)
    array[...] = values
    return make_leaf(array)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
) -> tuple[Tensor, ...]:
    """The gradients of the (sum of the) outputs with respect to the inputs, leaves or not, as new tensors.

    `.grad` isn't touched, and nothing is computed beyond the inputs. An input that the outputs don't depend on has
    gradient zero.

    Args:
        outputs, inputs: one tensor, or several.
        grad_outputs: for each output d(loss)/d(output), None for a single element (then 1).
        retain_graph, create_graph: as in `Tensor.backward`.

    Raises:
        ValueError: an input doesn't require a gradient; grad_outputs don't fit the outputs.
        RuntimeError: as `Tensor.backward`.
    """
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if grad_outputs is None:
        grad_outputs = [None] * len(outputs)
    elif isinstance(grad_outputs, Tensor) or hasattr(grad_outputs, "dtype"):
        grad_outputs = [grad_outputs]
    if len(grad_outputs) != len(outputs):
        raise ValueError(f"grad: {len(grad_outputs)} grad_outputs for {len(outputs)} outputs")
    for i, x in enumerate(inputs):
        if not x.requires_grad:
            raise ValueError(f"grad: inputs[{i}] does not require a gradient")
    targets = [_key(x) for x in inputs]
    grads = _propagate(outputs, grad_outputs, set(targets), retain_graph, create_graph)
    found = [grads.get(key) for key in targets]
    return tuple(
        g if isinstance(g, Tensor) else _own(x, 0 if g is None else g) for x, g in zip(inputs, found, strict=True)
    )


def _key(tensor: Tensor) -> Any:
    """Under which its gradient is collected: the number of its node plus that of the output, or the leaf itself."""
    return tensor._source[0] if tensor._source else tensor


def _propagate(
    outputs: Sequence[Tensor], gradients: Sequence[Any], targets: set[Any] | None,
    retain_graph: bool | None, create_graph: bool,
) -> dict[Any, Any]:  # fmt: skip
    """The gradients of all leaves, or of the targets only, by key.

    The newest node with a gradient is always next: all that was made from it is newer, so its gradient is complete.
    """
    retain = create_graph if retain_graph is None else retain_graph
    mode = _mode.get()
    default = not (mode.hooks or create_graph or targets)
    grads: dict[Any, Any] = {}
    owned: set[Any] = set()  # keys whose gradient array was allocated here, and may be added to in place
    queue: list[int] = []  # a heap of the keys with a gradient, negated
    nodes: dict[int, Node] = {}  # their nodes
    path = None if targets is None else _leading_to(targets, outputs)
    # The outputs come as if they were the inputs of a node whose rule has just run.
    sources, shapes = [o._source or o for o in outputs], [o.shape for o in outputs]
    dtype = outputs[0]._array.dtype
    results: Any = [_check_gradient(o, g, dtype, create_graph) for o, g in zip(outputs, gradients, strict=True)]
    with _set(grad=create_graph):
        while True:
            for source, shape, g in zip(sources, shapes, results):  # noqa: B905 (strict costs time, and can't fail)
                if g is None:
                    continue
                if g.shape != shape or g.dtype is not dtype:
                    g = _fit(g, shape, dtype)
                key = source[0] if source.__class__ is tuple else source
                if key in grads:
                    if key in owned:
                        grads[key] += g
                    else:
                        grads[key] = grads[key] + g
                        if not create_graph:
                            owned.add(key)
                elif key is source:
                    grads[key] = g
                elif path is None or key in targets or source[1].number in path:
                    grads[key], nodes[key] = g, source[1]
                    heappush(queue, -key)
            if not queue:
                return grads
            node = nodes.pop(-heappop(queue), None)
            if node is None or (path is not None and node.number not in path):
                results = ()  # done already, for another of its outputs; or a target that leads no further
                continue
            number, plan, sources, shapes, dtype, saved, guards = node
            if guards or (saved and saved[0] is _RELEASED):
                node.check()
            try:
                if default and plan.simple and plan.reference is mode.reference:
                    results = plan.vjp(grads.pop(number), *saved)
                else:
                    results = _run_rules(node, grads, nodes, targets or (), create_graph, mode.hooks)
            except (ValueError, TypeError, IndexError) as e:
                raise type(e)(f"backward of {plan.op.name}{node.where()}: {e}") from e
            if not retain:
                saved[:] = _RELEASED_ALL  # lets go of the arrays; and a second backward is recognised by it


def _run_rules(
    node: Node, grads: dict[Any, Any], nodes: dict[int, Node], targets: Any, create_graph: bool, hooks: tuple[Hook, ...]
) -> Any:
    """The rules of a node with several outputs, or under hooks, or on Tensors."""
    plan = node.plan
    gouts = []
    for key in range(node.number, node.number + len(plan.op.outputs)):
        gouts.append(grads.get(key) if key in targets else grads.pop(key, None))
        nodes.pop(key, None)
    run = functools.partial(plan.vjp, *gouts, *(_rewrapped(node) if create_graph else node.saved))
    with _set(reference=plan.reference):
        return _run_hooked(hooks, Call(plan.op, "backward", gouts), run)


def _fit(g: Any, shape: Any, dtype: Any) -> Any:
    """A gradient in the shape and dtype of its input: broadcasting is undone here, for all ops."""
    if g.shape != shape:
        g = REGISTRY["sum_to"].function(g, shape)
    if g.dtype != dtype:
        g = g.to(dtype) if isinstance(g, Tensor) else g.astype(dtype)
    return g


def _rewrapped(node: Node) -> list[Any]:
    """The saved values, those that are part of the graph as Tensors. (They are kept as arrays so that no cycle forms.)"""
    plan, saved = node.plan, list(node.saved)
    sources = dict(zip(plan.tracked, node.parents, strict=True))
    sources |= {plan.n + i: (node.number + i, node) for i in range(len(plan.op.outputs))}
    for i, k in enumerate(plan.keep):
        source = sources.get(k)
        if isinstance(source, tuple):
            saved[i] = t = Tensor(saved[i])
            t.requires_grad, t._source = True, source
        elif source is not None:
            saved[i] = source
    return saved


def _check_gradient(output: Tensor, gradient: Any, dtype: Any, create_graph: bool) -> Any:
    if not output.requires_grad:
        raise RuntimeError("backward: this tensor does not depend on anything that requires a gradient")
    if gradient is None:
        if output.numel() != 1:
            raise ValueError(f"backward: a tensor of shape {output.shape} needs a gradient of that shape (only for a single element is it 1 by default)")  # fmt: skip
        gradient = xp(output._array).ones_like(output._array)
    if not isinstance(gradient, Tensor):
        gradient = Tensor(gradient if hasattr(gradient, "dtype") else np.asarray(gradient, output.dtype))
    if gradient.shape != output.shape or gradient.dtype != output.dtype or output.dtype != dtype:
        raise ValueError(f"backward: gradient is {describe([gradient])}, but the tensor is {describe([output])}")
    return gradient if create_graph else gradient._array


def _leading_to(targets: set[Any], outputs: Sequence[Tensor]) -> set[int]:
    """The numbers of the nodes on a path from a target to an output."""
    nodes = {o._source[1].number: o._source[1] for o in outputs if o._source}
    stack = list(nodes.values())
    while stack:
        for parent in stack.pop().parents:
            if parent.__class__ is tuple and parent[1].number not in nodes:
                nodes[parent[1].number] = parent[1]
                stack.append(parent[1])
    leading: set[int] = set()
    for number in sorted(nodes):  # oldest first
        for parent in nodes[number].parents:
            key, node = parent if parent.__class__ is tuple else (parent, None)
            if key in targets or (node is not None and node.number in leading):
                leading.add(number)
    return leading
