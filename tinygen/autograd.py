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
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from tinygen import _unroll as unroll
from tinygen import native
from tinygen._tensor import Tensor, leaf
from tinygen.native import xp

if TYPE_CHECKING:
    from tinygen._op import op  # its types, in full

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


REGISTRY: dict[str, Op] = {}  # every op by its name
_PLAIN = frozenset([int, float, bool, type(None), str, slice])  # arguments passed on as they are
_RELEASED = (object(),)  # stands where saved arrays stood
_INSIDE = tuple(__file__.replace("autograd.py", p) for p in ("autograd.py", "_unroll.py", "_tensor.py", "ops", "nn"))
_numbers = itertools.count()


class Node(NamedTuple):
    """One recorded call: how it was made, and what its rules will need."""

    number: int  # grows along every path: a node is newer than what it was made from
    plan: Plan
    parents: tuple[Any, ...]  # for each tracked input its source, (key, node), or the leaf tensor itself
    shapes: tuple[Any, ...]  # of the tracked inputs
    dtype: Any  # of the inputs
    saved: list[Any]  # arrays, shapes and attributes, in the order of plan.keep
    guards: Sequence[Any]  # for each saved input (its version, its count then); at last the call: (code, instruction)

    def where(self) -> str:
        """` (file:line)` of the call in the user's code, as far as it was kept."""
        if not self.guards:
            return ""
        code, instruction = self.guards[-1]
        line = next(itertools.islice(code.co_positions(), instruction // 2, None))[0]
        return f" ({code.co_filename}:{line})"

    def check(self) -> None:
        """Raise RuntimeError if the saved arrays are gone, or no longer what they were."""
        if self.saved and self.saved[0] is _RELEASED[0]:
            name = f"{self.plan.op.name}{self.where()}"
            raise RuntimeError(f"backward through {name} a second time: the first needs retain_graph=True")
        for version, stamp in self.guards[:-1]:
            if version is not None and version[0] != stamp:
                raise RuntimeError(f"backward of {self.plan.op.name}{self.where()}: a saved array was changed in place")


class Plan(NamedTuple):
    """How calls of an op are recorded when a given set of its inputs requires gradients; worked out once for each."""

    op: Op
    reference: bool  # whether the definition ran instead of the kernel; its backward pass does the same
    n: int  # number of arguments
    tracked: tuple[int, ...]  # positions of the inputs that require gradients
    keep: tuple[int, ...]  # positions, among arguments + outputs, of what is saved; ~i: only the shape of argument i
    vjp: Callable[..., tuple[Any, ...]]  # (*gouts, *saved) -> gradients of the tracked inputs
    record: Callable[..., tuple[int, Node]]  # leaves a node on the tape; see `unroll.record`


def op(body: Callable[..., Any] | None = None, **options: Any) -> Any:  # type: ignore[no-redef]
    """Make an op of a function of arrays, which becomes its definition. See the module's docstring.

    Args:
        body: any number of arrays and attributes to one array, or a tuple of arrays. `*tensors` as its first
            parameter makes a variadic op, called with a sequence (its rule for "tensors" gives a tuple).
        outputs: names of the outputs if there are several.
        view: the output shares its first argument's memory.
        casts: the output's dtype is not that of the inputs.
    """
    return Op(body, **options).function if body else functools.partial(op, **options)


class Op:
    """What is known of an op. The function that `@op` returns carries it, and its `vjp`, `kernel` and `samples`."""

    def __init__(
        self, body: Callable[..., Any], outputs: Sequence[str] = ("out",), view: bool = False, casts: bool = False
    ) -> None:
        self.name: str = body.__name__
        if self.name in REGISTRY:
            raise ValueError(f"op: there is already an op named {self.name}")
        self.signature = inspect.signature(body)
        self.names = tuple(self.signature.parameters)
        self.variadic = self.signature.parameters[self.names[0]].kind is inspect.Parameter.VAR_POSITIONAL
        self.outputs, self.view, self.casts = tuple(outputs), view, casts
        if clash := {*outputs, *(f"g{name}" for name in outputs), "needs"}.intersection(self.names):
            raise NameError(f"op {self.name}: the argument {min(clash)} is named like what rules ask for")
        REGISTRY[self.name] = self
        self.rules: list[tuple[tuple[str, ...], Callable[..., Any]]] = []  # (targets, function)
        self.body = self.run = self._positional(body)  # run: the kernel if there is one
        self.least = 0  # the size of the first argument from which it runs
        # (total, gout, *saved): adds the gradient of the only input to the sum so far, in place, where that is faster.
        self.adds: Callable[..., None] | None = None
        self.make_samples: Callable[[np.random.Generator], Iterable[Any]] | None = None
        self.plans: dict[Any, Plan] = {}
        common = not (self.variadic or casts)
        scope = {"mode": _mode.get, "default": _DEFAULT, "plain": _PLAIN, "fail": _fail, "describe": describe}
        self.function = functools.wraps(body)(unroll.call(self, scope) if common else lambda *a, **k: self(*a, **k))
        vars(self.function).update(op=self, vjp=self.vjp, kernel=self.kernel, samples=self.samples)

    def _positional(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        if not self.variadic:
            return fn
        keywords, n = self.names[1:], len(self.names) - 1
        return lambda *values: fn(*values[:-n], **dict(zip(keywords, values[-n:], strict=True)))

    # -- declaring

    def vjp(self, *targets: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Declare the gradient rule of one input, or one joint rule of several, which returns a tuple.

        Raises NameError for a parameter that is none of the names that the module's docstring lists.
        """

        def declare(fn: Callable[..., Any]) -> Callable[..., Any]:
            shapes, gouts = [f"{n}_shape" for n in self.names], [f"g{n}" for n in self.outputs]
            known = {*self.names, *shapes, *self.outputs, *gouts, "needs"}
            if unknown := (set(inspect.signature(fn).parameters) - known) | (set(targets) - set(self.names)):
                raise NameError(f"{self.name}.vjp: unknown name {min(unknown)!r}; known are {', '.join(sorted(known))}")
            if again := self.differentiable().intersection(targets):
                raise NameError(f"{self.name}.vjp: {min(again)} has a rule already")
            self.rules.append((targets, fn))
            return fn

        return declare

    def differentiable(self) -> set[str]:
        """The names of the inputs that have a rule."""
        return {target for targets, _ in self.rules for target in targets}

    def kernel(self, fn: Callable[..., Any], least: int = 0) -> Callable[..., Any]:
        """Declare the fast implementation: same arguments as the body; NotImplemented hands over to the body.

        least: the size of the first argument below which the body is as fast, and runs.
        """
        fast = self._positional(fn)

        def run(*values: Any) -> Any:
            out = fast(*values)
            return self.body(*values) if out is NotImplemented else out

        self.run, self.least = run, least
        return fn

    def samples(self, fn: Callable[[np.random.Generator], Iterable[Any]]) -> Callable[..., Iterable[Any]]:
        """Declare what the op is tested on: a function of a random generator that yields `sample(*args, **kwargs)`s."""
        self.make_samples = fn
        return fn

    # -- calling

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """A call in full. (`unroll.call` is the short cut for the common case.)"""
        if kwargs or len(args) != len(self.names) or self.variadic:
            args = self._bind(args, kwargs)
        mode = _mode.get()
        if not any(isinstance(a, Tensor) for a in args):
            return self.run_checked(args, mode.reference)
        values = [a._array if isinstance(a, Tensor) else _frozen(a) for a in args]
        mask = sum(1 << i for i, a in enumerate(args) if isinstance(a, Tensor) and a.requires_grad)
        dtype = self._common_dtype(values)
        run: Callable[[], Any] = functools.partial(self.run_checked, values, mode.reference)
        raw = _run_hooked(mode.hooks, Call(self, "forward", args), run)
        outs = [Tensor(self.normal(array, dtype)) for array in (raw if len(self.outputs) > 1 else (raw,))]
        if self.view and isinstance(args[0], Tensor):
            outs[0]._version = args[0]._version
        if mask and mode.grad and self.rules:
            plan = self.plan(mask, len(args), mode.reference)
            number, node = plan.record(plan, True, dtype, *[o._array for o in outs], *args, *values)
            for i, out in enumerate(outs):
                if out._array.dtype.kind == "f":
                    out.requires_grad, out._source = True, (number + i, node)
        return outs[0] if len(outs) == 1 else tuple(outs)

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        if self.variadic and args and isinstance(args[0], (list, tuple)):  # cat([x, y], 1), as in PyTorch
            kwargs |= zip(self.names[1:], args[1:], strict=False)
            args = tuple(args[0])
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as e:
            raise TypeError(f"{self.name}: {e}") from None
        bound.apply_defaults()
        return (*bound.args, *bound.kwargs.values())

    def _common_dtype(self, values: Sequence[Any]) -> Any:
        """The float dtype of the arrays; None if there is none."""
        dtype = None
        for i, value in enumerate(values):
            new = getattr(value, "dtype", None) if not isinstance(value, type) else None
            if new is None or new.kind != "f":
                continue
            if dtype is not None and new != dtype and not self.casts:
                name = f"tensors[{i}]" if self.variadic else self.names[i]
                raise TypeError(f"{self.name}: {name} is {new}, an argument before it {dtype}; convert one with .to()")
            dtype = new
        return dtype

    def run_checked(self, values: Sequence[Any], reference: bool) -> Any:
        try:
            small = reference or getattr(values[0], "size", 0) < self.least
            return (self.body if small else self.run)(*values)
        except Exception as e:
            _fail(e, self.name, f"({describe(values)})")

    def normal(self, array: Any, dtype: Any) -> Any:
        """A result as it should be: an array also if 0-d (NumPy gives scalars), float32 from float32 or integers."""
        if isinstance(array, np.generic):
            array = np.asarray(array)
        if dtype is None or dtype.kind != "f":
            dtype = np.dtype(np.float32)
        return array if array.dtype.kind != "f" or array.dtype == dtype or self.casts else array.astype(dtype)

    # -- planning

    def plan(self, mask: int, n: int, reference: bool) -> Plan:
        """The plan for n arguments, those whose bits are set in the mask requiring gradients."""
        if (mask, n, reference) not in self.plans:
            self.plans[mask, n, reference] = self._make_plan(mask, n, reference)
        return self.plans[mask, n, reference]

    def _make_plan(self, mask: int, n: int, reference: bool) -> Plan:
        tracked = tuple(i for i in range(n) if mask >> i & 1)
        n_tensors = n - len(self.names) + 1 if self.variadic else 1
        place = {name: i + n_tensors - 1 for i, name in enumerate(self.names)}
        place |= {f"{name}_shape": ~i for name, i in place.items()}
        place |= {name: n + j for j, name in enumerate(self.outputs)}
        pool = [f"g{name}" for name in self.outputs]  # what the rules choose from: the gradients, then what is saved
        steps = []
        for targets, fn in self.rules:
            slots = range(n_tensors) if self.variadic else [place[t] for t in targets]
            if not set(slots).intersection(tracked):
                continue
            wants = list(inspect.signature(fn).parameters)
            if "needs" in wants:
                fn = functools.partial(fn, needs=tuple(i in tracked for i in slots))
                wants.remove("needs")
            pool += [name for name in wants if name not in pool]
            picks = [pool.index(name) for name in wants]
            steps.append((fn, picks, [tracked.index(i) if i in tracked else None for i in slots]))
        missing = set(range(len(tracked))).difference(*(slots for _, _, slots in steps))
        if missing:
            name = self.names[tracked[min(missing)]]
            raise TypeError(f"{self.name}: {name} is not differentiable; pass a detached tensor")
        keep = tuple(place[name] for name in pool[len(self.outputs) :])
        vjp = unroll.vjp(steps, len(tracked), len(pool), self.variadic)
        record = unroll.record(self, n, tracked, keep, {"Node": Node, "numbers": _numbers, "site": _call_site})
        return Plan(self, reference, n, tracked, keep, vjp, record)


def _fail(e: Exception, name: str, details: str) -> NoReturn:
    """Raise the exception again with the op's name: leading the message of the usual kinds, as a note on others."""
    for kind in (ValueError, TypeError, IndexError):
        if isinstance(e, kind) and not str(e).startswith(f"{name}("):
            raise kind(f"{name}{details}: {e}") from e
    e.add_note(f"in {name}{details}")
    raise e


def _frozen(value: Any) -> Any:
    """An argument that isn't a Tensor, safe from later changes: it belongs to the caller."""
    if isinstance(value, np.generic):
        return value.item()  # np.sqrt(2) is a number like 1.41, and must not promote float32 arrays
    if hasattr(type(value), "strides"):  # an array
        return value.copy(order="K")
    if isinstance(value, (tuple, list)):
        return type(value)(v._array if isinstance(v, Tensor) else _frozen(v) for v in value)
    return value


def _call_site(frame: Any) -> tuple[Any, int]:
    """Where the op was called: the innermost frame outside the engine, the ops and the layers."""
    while _is_inside(frame.f_code.co_filename) and frame.f_back:
        frame = frame.f_back
    return frame.f_code, frame.f_lasti


@functools.cache
def _is_inside(filename: str) -> bool:
    return filename.startswith(_INSIDE)


def describe(values: Iterable[Any]) -> str:
    """Arguments in a few words: `float32 (2, 3), float32 (3,) on cuda, 1, None`."""
    return ", ".join(
        f"{v.dtype} {v.shape}{' on cuda' if hasattr(v, 'get') else ''}" if hasattr(v, "dtype") else repr(v)[:40]
        for v in values
    )


# --------------------------------------------------------------------------------------------------------- backward


def backward(
    tensor: Tensor, gradient: Any = None, retain_graph: bool | None = None, create_graph: bool = False
) -> None:
    """Add d(tensor)/d(leaf) to `leaf.grad` for every leaf that it was computed from. See `Tensor.backward`."""
    grads = _propagate([tensor], [gradient], None, retain_graph, create_graph)
    # Only now, when nothing can fail any more, is anything changed.
    for x in list(grads):
        held = [grads.pop(x)]
        if create_graph:
            x.grad = held[0] if x.grad is None else x.grad + held[0]
        elif x.grad is None or x.grad._version is None:  # none yet, or one that is part of a graph
            x.grad = _own(x, held if x.grad is None else [x.grad._array + held[0]])
        else:
            array = x.grad.write()
            array += held[0]


def _own(model: Tensor, held: list[Any]) -> Tensor:
    """A new leaf with the values held, in the memory order of `model`: optimizers walk both side by side.

    An array to whose memory only the list refers becomes the leaf's own. Two references: the other one is the call's.
    """
    same = held[0].__class__ is model._array.__class__ and held[0].strides == model._array.strides
    if same and sys.getrefcount(held[0]) == 2 and (held[0].base is None or sys.getrefcount(held[0].base) == 2):
        return leaf(held[0])
    array = native.empty_like(model._array)
    array[...] = held[0]
    return leaf(array)


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
    if constant := [i for i, x in enumerate(inputs) if not x.requires_grad]:
        raise ValueError(f"grad: inputs[{constant[0]}] does not require a gradient")
    targets = [x._source[0] if x._source else x for x in inputs]
    grads = _propagate(outputs, grad_outputs, set(targets), retain_graph, create_graph)
    found = [[grads.get(key, 0)] for key in targets]
    grads.clear()
    return tuple(g[0] if isinstance(g[0], Tensor) else _own(x, g) for x, g in zip(inputs, found, strict=True))


def _propagate(outputs: Sequence[Tensor], gradients: Any, targets: Any, retain_graph: Any, create_graph: bool) -> Any:
    """The gradients of all leaves, or of the targets only, by key: node's number plus output's, or the leaf itself.

    The newest node with a gradient is always next: all that was made from it is newer, so its gradient is complete.
    """
    retain = create_graph if retain_graph is None else retain_graph
    mode, add = _mode.get(), REGISTRY["add"].function
    default = not (mode.hooks or create_graph or targets)
    grads: dict[Any, Any] = {}
    owned: set[Any] = set()  # keys whose gradient array was allocated here, and may be added to in place
    queue: list[int] = []  # a heap of the keys with a gradient, negated
    nodes: dict[int, Node] = {}  # their nodes
    path = None if targets is None else _leading_to(targets, outputs)
    # The outputs come as if they were the inputs of a node whose rule has just run.
    node: Any = None
    sources: Any = [o._source or o for o in outputs]
    shapes: Any = [o.shape for o in outputs]
    dtype = outputs[0]._array.dtype
    results: Any = [_check_gradient(o, g, dtype, create_graph) for o, g in zip(outputs, gradients, strict=True)]
    with _set(grad=create_graph):
        while True:
            for source, shape, g in zip(sources, shapes, results):  # noqa: B905 (strict costs time, and can't fail)
                if g is None:
                    continue
                if g.shape != shape or g.dtype is not dtype:
                    g = _fit(g, shape, dtype, node)
                key: Any = source[0] if source.__class__ is tuple else source
                if key in owned:
                    grads[key] += g
                elif key in grads:
                    grads[key] = add(grads[key], g)
                    if not create_graph:
                        owned.add(key)
                elif key is source:
                    grads[key] = g
                elif path is None or source[1].number in path or key in (targets or ()):
                    grads[key], nodes[key] = g, source[1]
                    heappush(queue, -key)
            if not queue:
                return grads
            node = nodes.pop(-heappop(queue), None)
            if node is None or (path is not None and node.number not in path):
                results = ()  # done already, for another of its outputs; or a target that leads no further
                continue
            number, plan, sources, shapes, dtype, saved, guards = node
            if guards or (saved and saved[0] is _RELEASED[0]):
                node.check()
            try:
                if default and plan.reference is mode.reference and len(plan.op.outputs) == 1:
                    gout, source, results = grads.pop(number), sources[0], ()
                    if plan.op.adds and (key := source[0] if source.__class__ is tuple else source) in owned:
                        plan.op.adds(grads[key], gout, *saved)
                    else:
                        results = plan.vjp(gout, *saved)
                else:
                    results = _run_rules(node, grads, nodes, targets or (), create_graph, mode.hooks)
            except Exception as e:
                _fail(e, f"backward of {plan.op.name}", node.where())
            if not retain:
                saved[:] = _RELEASED  # lets go of the arrays; and a second backward is recognized by it


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
    if not hooks and plan.reference is _mode.get().reference:
        return run()
    with _set(reference=plan.reference):
        return _run_hooked(hooks, Call(plan.op, "backward", gouts), run)


def _fit(g: Any, shape: Any, dtype: Any, node: Node) -> Any:
    """A gradient in the shape and dtype of its input: broadcasting is undone here, for all ops."""
    if g.shape != shape:
        if np.broadcast_shapes(g.shape, shape) != g.shape:
            raise ValueError(f"a vjp rule of {node.plan.op.name} gave a gradient of {g.shape} for an input of {shape}")
        g = REGISTRY["sum_to"].function(g, shape)
    if g.dtype != dtype:
        g = g.to(dtype) if isinstance(g, Tensor) else g.astype(dtype)
    return g


def _rewrapped(node: Node) -> list[Any]:
    """The saved values, those of the graph as Tensors. (They are kept as arrays so that no cycle forms.)"""
    plan, saved = node.plan, list(node.saved)
    sources = dict(zip(plan.tracked, node.parents, strict=True))
    sources |= {plan.n + i: (node.number + i, node) for i in range(len(plan.op.outputs))}
    guards = iter(node.guards)
    for i, k in enumerate(plan.keep):
        version = next(guards, (None, None))[0] if 0 <= k < plan.n else None
        source = sources.get(k)
        if isinstance(source, tuple) and saved[i].dtype.kind == "f":
            saved[i] = t = Tensor(saved[i])
            t.requires_grad, t._source, t._version = True, source, version
        elif isinstance(source, Tensor):
            saved[i] = source
    return saved


def _check_gradient(output: Tensor, gradient: Any, dtype: Any, create_graph: bool) -> Any:
    if not output.requires_grad:
        raise RuntimeError("backward: this tensor does not depend on anything that requires a gradient")
    if gradient is None:
        if output.numel() != 1:
            raise ValueError(f"backward: a tensor of shape {output.shape} needs a gradient of that shape")
        gradient = xp(output._array).ones_like(output._array)
    if not isinstance(gradient, Tensor):
        values = _frozen(gradient) if hasattr(gradient, "dtype") else np.asarray(gradient, output.dtype)
        gradient = Tensor(native.beside(output._array, values))
    if gradient.shape != output.shape or gradient.dtype != output.dtype or output.dtype != dtype:
        raise ValueError(f"backward: gradient is {describe([gradient])}, but the tensor is {describe([output])}")
    if create_graph:
        return gradient if gradient._version is None else gradient * 1.0  # not the tensor that the caller may change
    return gradient._array


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
