"""The tape: what an op is, and how a call of it leaves a node.

An op is a plain function of arrays. Its vjp rules (vector-Jacobian products: from the gradient of the output to the
gradient of one input) are functions of arrays too, written in ops:

    @op
    def tanh(x):
        return xp(x).tanh(x)

    @tanh.vjp("x")
    def _(gout, out):
        return gout * (1 - out * out)

Called with arrays, an op just runs. Called with a Tensor that requires a gradient, it runs on the arrays and leaves a
`Node`: which op, made from what, and the saved values that its rules ask for *by the names of their parameters*:

    gout            gradient of the output (of several outputs named a, b: ga, gb, None where nothing depends on one)
    out             the output itself (of several: their names)
    x               an input or attribute        x_shape      only its shape, which keeps nothing alive
    needs           of a joint rule: which of its inputs need a gradient, a tuple of bools

The engine's third file of four: `_tensor.py`, `modes.py`, `tape.py`, `autograd.py`. Begin at `Op.__call__`.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from tinygen import errors, modes, pool
from tinygen._tensor import Node, Tensor

if TYPE_CHECKING:
    from tinygen._op import op  # its types, in full

REGISTRY: dict[str, Op] = {}  # every op by its name
numbers = itertools.count()  # of nodes
_KNOWN = frozenset([Tensor, np.ndarray, float, int, bool, type(None), str, slice, tuple, list])


class Call:
    """A call that a hook is told of: an op is about to run.

    Attributes:
        phase: "forward", "backward", or "accumulate": a gradient on its way, added to another or summed to its shape.
        inputs: forward: the arguments; backward: the gradients of the outputs; accumulate: of the op's own arguments.
        node: backward: the node whose rule runs; accumulate: where the gradient comes from; forward: the node that the
            call leaves, there once the op has run and been recorded. None where there is none.
    """

    def __init__(self, op: Op, phase: str, inputs: Sequence[Any], node: Node | None = None) -> None:
        self.op, self.phase, self.inputs, self.node = op, phase, inputs, node


def run_hooked(hooks: tuple[modes.Hook, ...], call: Call, run: Callable[[], Any]) -> Any:
    """The result of `run`, which every hook sees, the last one first."""
    for hook in hooks:
        run = functools.partial(hook, call, run)
    return run()


class Plan(NamedTuple):
    """How calls of an op are recorded when a given set of its inputs requires gradients; worked out once for each."""

    op: Op
    reference: bool  # whether the definition ran instead of the kernel; its backward pass does the same
    n: int  # number of arguments
    tracked: tuple[int, ...]  # positions of the inputs that require gradients
    keep: tuple[int, ...]  # positions, among arguments + outputs, of what is saved; ~i: only the shape of argument i
    steps: tuple[Step, ...]  # the rules to run
    record: Callable[..., tuple[int, Node]]  # `_record`, or a faster function that does the same
    vjp: Callable[..., tuple[Any, ...]]  # `_vjp`, or a faster function that does the same


class Step(NamedTuple):
    """One rule of a plan."""

    rule: Callable[..., Any]
    picks: Sequence[int]  # its arguments' positions among the gradients of the outputs + what is saved
    slots: Sequence[int | None]  # for each of its results, which tracked input's gradient it is; None: nobody's
    joint: bool  # whether the rule returns a sequence of results


def _record(plan: Plan, changeable: bool, dtype: Any, *values: Any) -> tuple[int, Node]:
    """Leave a node on the tape.

    Args:
        changeable: whether an argument can be changed in place, so that what is saved has to be guarded.
        dtype: of the float arguments.
        values: the outputs' arrays, then the arguments, then the same arguments as plain values.

    Returns:
        The node, and its number. The gradient of output i has the key number + i.
    """
    first = len(plan.op.outputs)
    outs, args, plain = values[:first], values[first : first + plan.n], values[first + plan.n :]
    shapes = [getattr(value, "shape", ()) for value in plain]
    if plan.op.variadic:  # the shapes of all its tensors, under the number of the last
        last = plan.n - len(plan.op.names)
        shapes[last] = [value.shape for value in plain[: last + 1]]
    saved = [shapes[~k] if k < 0 else (*plain, *outs)[k] for k in plan.keep]
    versions = [getattr(args[k], "_version", None) for k in plan.keep if 0 <= k < plan.n]
    stamps = ((version, version and version[0]) for version in versions)
    guards = (*stamps, errors.call_site(sys._getframe(1))) if changeable and versions else ()
    parents = tuple(args[i]._source or (args[i], None) for i in plan.tracked)
    number, *_ = [next(numbers) for _ in outs]
    return number, Node(number, plan, parents, tuple(plain[i].shape for i in plan.tracked), dtype, saved, guards)


def _vjp(plan: Plan, *pool: Any) -> tuple[Any, ...]:
    """The gradients of the tracked inputs, from the gradients of the outputs and what was saved."""
    grads: list[Any] = [None] * len(plan.tracked)
    for rule, picks, slots, joint in plan.steps:
        results = rule(*[pool[k] for k in picks])
        for slot, g in zip(slots, results if joint else (results,), strict=True):
            if slot is not None:
                grads[slot] = g
    return tuple(grads)


def op(body: Callable[..., Any] | None = None, **options: Any) -> Any:  # type: ignore[no-redef]
    """Make an op of a function of arrays, which becomes its definition. See the module's docstring.

    Args:
        body: any number of arrays and attributes to one array, or a tuple of arrays. `*tensors` as its first
            parameter makes a variadic op, called with a sequence (its rule for "tensors" gives a tuple).
        outputs: names of the outputs if there are several.
        view: the output shares its first argument's memory.
        casts: the output's dtype is not that of the inputs.
    """
    return kind(body, **options).function if body else functools.partial(op, **options)


class Op:
    """An op and its rules. The function that `@op` returns carries it, its `vjp`, `kernel`, `samples` and `flops`."""

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
        self.count_flops: Callable[..., float] | None = None
        self.make_samples: Callable[[np.random.Generator], Iterable[Any]] | None = None
        self.plan = functools.cache(self.make_plan)
        self.function = functools.wraps(body)(self.caller())
        vars(self.function).update(op=self, vjp=self.vjp, kernel=self.kernel, samples=self.samples, flops=self.flops)

    def _positional(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        if not self.variadic:
            return fn
        keywords, n = self.names[1:], len(self.names) - 1
        return lambda *values: fn(*values[:-n], **dict(zip(keywords, values[-n:], strict=True)))

    def caller(self) -> Callable[..., Any]:
        """The function that `@op` returns."""
        return lambda *args, **kwargs: self(*args, **kwargs)

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

        @functools.wraps(fn)
        def run(*values: Any) -> Any:
            out = fast(*values)
            return self.body(*values) if out is NotImplemented else out

        self.run, self.least = run, least
        return fn

    def samples(self, fn: Callable[[np.random.Generator], Iterable[Any]]) -> Callable[..., Iterable[Any]]:
        """Declare what the op is tested on: a function of a random generator that yields `sample(*args, **kwargs)`s."""
        self.make_samples = fn
        return fn

    def flops(self, fn: Callable[..., float]) -> Callable[..., float]:
        """Declare how many operations a call takes, a multiply-add being two: a function of shapes and attributes.

        Its parameters are named as a rule's: `out_shape`, `x_shape` (None for an input of None), an attribute's name.
        """
        self.count_flops = fn
        return fn

    # -- calling

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run on arrays; record if an argument is a Tensor that requires a gradient."""
        if kwargs or len(args) != len(self.names) or self.variadic:
            args = self._bind(args, kwargs)
        for i, a in enumerate(args):
            if a.__class__ not in _KNOWN and not isinstance(a, Tensor) and (problem := errors.foreign(a)):
                raise TypeError(f"{self.name}: {self.argument(i, len(args))} {problem}")
        mode = modes.current.get()
        if not any(isinstance(a, Tensor) for a in args):
            return self.run_checked([np.asarray(a) if isinstance(a, np.matrix) else a for a in args], mode.reference)
        values = [a._array if isinstance(a, Tensor) else frozen(a) for a in args]
        mask = sum(1 << i for i, a in enumerate(args) if isinstance(a, Tensor) and a.requires_grad)
        dtype = self._common_dtype(values)
        seen = Call(self, "forward", args)
        raw = run_hooked(mode.hooks, seen, functools.partial(self.run_checked, values, mode.reference))
        outs = [Tensor(self.normal(array, dtype)) for array in (raw if len(self.outputs) > 1 else (raw,))]
        if self.view and isinstance(args[0], Tensor):
            outs[0]._version = args[0]._version
        if mask and mode.grad and self.rules:
            plan = self.plan(mask, len(args), mode.reference)
            number, seen.node = plan.record(plan, True, dtype, *[o._array for o in outs], *args, *values)
            for i, out in enumerate(outs):
                if out._array.dtype.kind == "f":
                    out.requires_grad, out._source = True, (number + i, seen.node)
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
                name = f"{self.name}: {self.argument(i, len(values))}"
                raise TypeError(f"{name} is {new}, an argument before it {dtype}; convert one with .to()")
            dtype = new
        return dtype

    def run_checked(self, values: Sequence[Any], reference: bool) -> Any:
        try:
            small = reference or getattr(values[0], "size", 0) < self.least
            return (self.body if small else self.run)(*values)
        except Exception as e:
            self.fail(e, values)

    def fail(self, e: Exception, values: Sequence[Any]) -> NoReturn:
        """Raise it again with the op's name and arguments, or say which argument is None."""
        what = f"{self.name}({errors.describe(values)})"
        # Not where the op refuses a shape, say, in words of its own.
        for i, value in enumerate(values if self.variadic or isinstance(e, (AttributeError, TypeError)) else ()):
            name = self.argument(i, len(values))
            parameter = self.signature.parameters[name.partition("[")[0]]
            if parameter.name in self.differentiable() and errors.is_wanting(value, parameter, e):
                raise TypeError(f"{what}: {name} {errors.no_array(value)}") from e
        errors.fail(e, what)

    def argument(self, i: int, n: int) -> str:
        """The name of argument i of n."""
        last = n - len(self.names) if self.variadic else -1  # the last of the tensors
        return f"{self.names[0]}[{i}]" if i <= last else self.names[i - max(last, 0)]

    def normal(self, array: Any, dtype: Any) -> Any:
        """A result as it should be: an array also if 0-d (NumPy gives scalars), float32 from float32 or integers."""
        if isinstance(array, np.generic):
            array = np.asarray(array)
        if array.dtype is dtype or self.casts or errors.is_whole(self.name, array.dtype):
            return array
        if dtype is None or dtype.kind != "f":
            dtype = np.dtype(np.float32)
        # A pickled array comes back with a dtype that is equal to NumPy's, but another object; make it one again.
        return array.view(dtype) if array.dtype == dtype else array.astype(dtype)

    # -- planning

    def make_plan(self, mask: int, n: int, reference: bool) -> Plan:
        """The plan for n arguments, those whose bits are set in the mask requiring gradients. (Call `plan`.)"""
        tracked = tuple(i for i in range(n) if mask >> i & 1)
        n_tensors = n - len(self.names) + 1 if self.variadic else 1
        place = {name: i + n_tensors - 1 for i, name in enumerate(self.names)}
        place |= {f"{name}_shape": ~i for name, i in place.items()}
        place |= {name: n + j for j, name in enumerate(self.outputs)}
        pool = [f"g{name}" for name in self.outputs]  # what the rules choose from: the gradients, then what is saved
        steps = []
        for targets, rule in self.rules:
            inputs = range(n_tensors) if self.variadic else [place[t] for t in targets]
            if not set(inputs).intersection(tracked):
                continue
            wants = list(inspect.signature(rule).parameters)
            if "needs" in wants:
                rule = functools.partial(rule, needs=tuple(i in tracked for i in inputs))
                wants.remove("needs")
            pool += [name for name in wants if name not in pool]
            slots = [tracked.index(i) if i in tracked else None for i in inputs]
            steps.append(Step(rule, [pool.index(name) for name in wants], slots, len(slots) > 1 or self.variadic))
        missing = set(range(len(tracked))).difference(*(step.slots for step in steps))
        if missing:
            name = self.names[tracked[min(missing)]]
            raise TypeError(f"{self.name}: {name} is not differentiable; pass a detached tensor")
        keep = tuple(place[name] for name in pool[len(self.outputs) :])
        return Plan(self, reference, n, tracked, keep, tuple(steps), _record, _vjp)


kind: type[Op] = Op  # of the ops that `@op` makes; `_codegen` puts a faster one here


def frozen(value: Any) -> Any:
    """An argument that isn't a Tensor, safe from later changes: it belongs to the caller."""
    if isinstance(value, np.generic):
        return value.item()  # np.sqrt(2) is a number like 1.41, and must not promote float32 arrays
    if hasattr(type(value), "strides"):  # an array
        return pool.copied(value)
    if isinstance(value, (tuple, list)):
        return type(value)(v._array if isinstance(v, Tensor) else frozen(v) for v in value)
    return value
