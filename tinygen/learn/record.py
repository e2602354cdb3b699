"""A recording of code that uses the engine, op by op, in both directions, with the numbers."""

from __future__ import annotations

import contextlib
import functools
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Self

import numpy as np

from tinygen._tensor import RELEASED, Node, Tensor
from tinygen.errors import call_site, line
from tinygen.kernels.library import watched
from tinygen.learn.arrays import Summary, summary
from tinygen.learn.terms import Terms, worked_out
from tinygen.modes import hook
from tinygen.nn import Module
from tinygen.tape import Call

ENGINE = ("tinygen._tensor", "tinygen.modes", "tinygen.tape", "tinygen.autograd", "tinygen.ops")
QUIET = {"training_step", "minimize", "advance", "__call__", "<lambda>", "<listcomp>", "<genexpr>", "<dictcomp>"}


@dataclass
class Saved:
    """A value that an op keeps for its gradient rules."""

    name: str  # as the rules' parameters call it
    shape: tuple[int, ...] | None  # None: it is no array
    bytes: int
    text: str  # of what is no array


@dataclass
class Scope:
    """A call of a module or of a function within which ops ran."""

    parent: int  # its number, -1 for none
    kind: str  # "module" or "function"
    name: str
    about: str  # the class, and where it is
    code: Any  # its code object


@dataclass
class Event:
    """Something that the engine did: one op, or one gradient rule, or one sum of gradients.

    came: for each array that it took, the number of the event that made it, or a leaf's name, or "" (from outside).
    goes: backward, for each gradient that it gave, the forward event, or the leaf, whose gradient it is (a part of).
    of: backward, the forward event whose rule ran. accumulate: as `goes`, of the one sum.
    wanted: backward, the arguments by which it gives gradients, as the op names them.
    """

    phase: str
    op: str
    scope: int
    site: str
    came: list[int | str] = field(default_factory=list)
    goes: list[int | str] = field(default_factory=list)
    of: int | str = -1
    wanted: list[str] = field(default_factory=list)
    attributes: dict[str, str] = field(default_factory=dict)
    took: list[Summary] = field(default_factory=list)  # backward: the gradients of the outputs
    out: list[Summary] = field(default_factory=list)
    saved: list[Saved] = field(default_factory=list)
    kernels: list[str] = field(default_factory=list)
    terms: Terms | None = None
    held: int = 0  # bytes that all nodes together hold saved, once it is done


@dataclass
class Leaf:
    """A parameter, or another tensor that requires a gradient."""

    name: str
    value: Summary
    gradient: Summary | None = None
    update: float | None = None  # rms of how much it was changed, over the rms of what it was


class Recording:
    """Records what runs within its `with` block in this thread.

    Args:
        model: whose parameters and modules are called by their names; others by their shapes and classes.

    Attributes:
        events: all of them in order. scopes: those that they name. leaves: by name.
    """

    def __init__(self, model: Module | None = None) -> None:
        self.model = model
        self.events: list[Event] = []
        self.scopes: list[Scope] = []
        self.leaves: dict[str, Leaf] = {}
        self._modules = {id(m): name for name, m in model.named_modules()} if model else {}
        self._names = {id(p): name for name, p in model.named_parameters()} if model else {}
        self._tensors: dict[str, tuple[Tensor, np.ndarray]] = {}  # leaves, and their values before
        self._nodes: dict[int, int] = {}  # number of a node -> its event; of each of its outputs
        self._made: dict[int, tuple[Any, int]] = {}  # id of an array -> (weak reference to it, its event)
        self._frames: dict[int, tuple[FrameType, int]] = {}  # kept alive, so that no id comes back for another
        self._open: dict[
            int | str, list[tuple[int, int]]
        ] = {}  # event -> what its node holds: (id of the array, bytes)
        self._holders: dict[int, int] = {}  # id of an array -> how many nodes hold it
        self._held = 0
        self._going: list[tuple[Any, int | str]] = []  # gradients on their way, and whose they are
        self._last: tuple[Call, int] | None = None  # the call seen last, and its event
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._outermost = sys._getframe(1)
        self._kernels = self._stack.enter_context(watched())
        self._stack.enter_context(hook(self._see))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        self._settle()
        for name, (tensor, before) in self._tensors.items():
            leaf = self.leaves[name]
            leaf.gradient = None if tensor.grad is None else summary(tensor.grad.numpy())
            size = np.sqrt(np.mean(before.astype(np.float64) ** 2))
            change = np.sqrt(np.mean((tensor.numpy().astype(np.float64) - before) ** 2))
            leaf.update = float(change / size) if size else None
        self._frames.clear()
        self._made.clear()
        self._tensors.clear()

    @functools.cached_property
    def users(self) -> dict[int | str, list[int]]:
        """For each event and leaf, the forward events that took what it made, once for each time. Once all is over."""
        found: dict[int | str, list[int]] = {}
        for i, event in enumerate(self.events):
            for source in event.came:
                found.setdefault(source, []).append(i)
        return found

    @functools.cached_property
    def about(self) -> dict[int | str, list[int]]:
        """For each forward event and leaf, the events of its gradient: sums, and its rule. Once all is over."""
        found: dict[int | str, list[int]] = {}
        for i, event in enumerate(self.events):
            if event.phase != "forward":
                found.setdefault(event.of, []).append(i)
        return found

    # -- what happens

    def _see(self, call: Call, run: Callable[[], Any]) -> Any:
        self._settle()
        before, inside = len(self._kernels), len(self.events)
        event = Event(call.phase, call.op.name, -1, "")
        if call.phase == "forward":
            event.scope, event.site = self._scope(), line(call_site(sys._getframe(1)))
            event.came = [source for x in call.inputs for source in self._sources(x)]
            event.attributes = _attributes(call)
        results = run()
        if len(self.events) > inside and call.phase != "forward":
            return results  # with create_graph its ops were seen already, as forward ones
        several = isinstance(results, tuple)
        outs = tuple(np.asarray(r) if isinstance(r, np.generic) else r for r in (results if several else (results,)))
        event.kernels = self._kernels[before:]
        event.out = _summaries(outs)
        self._last = call, len(self.events)
        self.events.append(event)
        {"forward": self._forward, "backward": self._backward, "accumulate": self._accumulate}[call.phase](
            event, call, outs
        )
        event.held = self._held
        return outs if several else outs[0]

    def _forward(self, event: Event, call: Call, outs: tuple[Any, ...]) -> None:
        event.terms = worked_out(call, outs[0])
        for out in outs:
            self._made[id(out)] = (weakref.ref(out), len(self.events) - 1)

    def _settle(self) -> None:
        """What is known of the last call only after it was seen: what its node saved, or let go of."""
        (call, index), self._last = self._last or (None, -1), None
        if call is None or call.node is None:
            return
        node, event = call.node, self.events[index]
        if call.phase == "forward":
            self._nodes |= {node.number + i: index for i in range(len(node.plan.op.outputs))}
            event.saved = [_saved(name, value) for name, value in zip(_names_of(node), node.saved, strict=True)]
            self._hold(index, node)
        elif call.phase == "backward" and node.saved and node.saved[0] is RELEASED[0]:
            self._release(event.of)
        event.held = self._held

    def _hold(self, index: int, node: Node) -> None:
        own = [(id(base := _base(v)), base.nbytes) for v in node.saved if hasattr(v, "nbytes")]
        self._open[index] = own
        for key, size in dict(own).items():
            self._held += 0 if self._holders.get(key) else size
            self._holders[key] = self._holders.get(key, 0) + 1

    def _release(self, index: int | str) -> None:
        for key, size in dict(self._open.pop(index, [])).items():
            self._holders[key] -= 1
            self._held -= 0 if self._holders[key] else size

    def _backward(self, event: Event, call: Call, outs: tuple[Any, ...]) -> None:
        node: Any = call.node
        event.took = _summaries(call.inputs)
        event.of = self._nodes.get(node.number, -1)
        if isinstance(event.of, int) and event.of >= 0:
            event.scope, event.site = self.events[event.of].scope, self.events[event.of].site
        owners = [self._owner(parent) for parent in node.parents]
        event.goes = [owner for owner, g in zip(owners, outs, strict=True) if g is not None]
        names = [node.plan.op.argument(i, node.plan.n).partition("[")[0] for i in node.plan.tracked]
        event.wanted = [name for name, g in zip(names, outs, strict=True) if g is not None]
        self._going = [(g, owner) for owner, g in zip(owners, outs, strict=True) if g is not None]

    def _accumulate(self, event: Event, call: Call, outs: tuple[Any, ...]) -> None:
        addend = call.inputs[0 if event.op == "sum_to" else -1]
        event.of = next((owner for g, owner in self._going if g is addend), -1)
        event.goes = [event.of]
        self._going.append((outs[0], event.of))
        if isinstance(event.of, int) and event.of >= 0:
            event.scope = self.events[event.of].scope

    # -- whose is what

    def _sources(self, value: Any) -> list[int | str]:
        """Where an argument comes from; nothing for one that is no array."""
        if isinstance(value, (tuple, list)):
            return [source for v in value for source in self._sources(v)]
        if not isinstance(value, Tensor):
            return [""] if hasattr(value, "shape") and hasattr(value, "dtype") and value.ndim else []
        if value._source:
            return [self._nodes.get(value._source[0], "")]
        if value.requires_grad or id(value) in self._names:
            return [self._leaf(value)]
        reference, index = self._made.get(id(value._array), (lambda: None, -1))
        return [index if reference() is value._array else ""]

    def _owner(self, parent: tuple[Any, Node | None]) -> int | str:
        key, node = parent
        return self._leaf(key) if node is None else self._nodes.get(key, "")

    def _leaf(self, tensor: Tensor) -> str:
        name = self._names.setdefault(id(tensor), f"leaf {len(self._names) + 1}")
        if name not in self.leaves:
            self.leaves[name] = Leaf(name, summary(tensor.numpy()))
            self._tensors[name] = tensor, tensor.numpy().copy()
        return name

    def _scope(self) -> int:
        """The number of the scope in which the present op runs."""
        path = list(self._callers(sys._getframe(2)))
        parent = -1
        for frame in reversed(path):
            if id(frame) not in self._frames:
                self._frames[id(frame)] = frame, len(self.scopes)
                self.scopes.append(self._described(frame, parent))
            parent = self._frames[id(frame)][1]
        return parent

    def _callers(self, frame: FrameType | None) -> Iterator[FrameType]:
        """The frames, from the inside out, of modules and functions that call an op; not those of the engine."""
        while frame is not None and frame is not self._outermost:
            module = frame.f_globals.get("__name__", "")
            inside = module.startswith(ENGINE) or frame.f_code.co_filename.startswith("<tinygen")  # generated code
            helper = module.startswith("tinygen.nn") and frame.f_code.co_name != "forward"  # F.conv2d and its like
            if not (inside or helper or frame.f_code.co_name in QUIET):
                yield frame
            frame = frame.f_back

    def _described(self, frame: FrameType, parent: int) -> Scope:
        code, own = frame.f_code, frame.f_locals.get("self")
        about = f"{code.co_filename}:{code.co_firstlineno}"
        if isinstance(own, Module) and code.co_name == "forward":
            name = self._modules.get(id(own), "")
            return Scope(parent, "module", name or type(own).__name__, f"{type(own).__name__}, {about}", code)
        return Scope(parent, "function", code.co_name, about, code)


def _summaries(values: Iterable[Any]) -> list[Summary]:
    return [summary(v._array if isinstance(v, Tensor) else v) for v in values if v is not None]


def _attributes(call: Call) -> dict[str, str]:
    """The arguments that are no arrays, by name, those that are not the defaults."""
    found: dict[str, str] = {}
    for i, value in enumerate(call.inputs):
        name = call.op.argument(i, len(call.inputs))
        if hasattr(value, "shape") or name.partition("[")[0] not in call.op.signature.parameters:
            continue
        default = call.op.signature.parameters[name.partition("[")[0]].default
        if not isinstance(value, (list, tuple)) or not any(hasattr(v, "shape") for v in value):
            found |= {} if value is default or value == default else {name: repr(value)[:80]}
    return found


def _names_of(node: Node) -> list[str]:
    """The names of what a node saved, as its rules call them."""
    op, n = node.plan.op, node.plan.n
    name = [op.argument(i, n) for i in range(n)]
    return [f"{name[~k]}_shape" if k < 0 else op.outputs[k - n] if k >= n else name[k] for k in node.plan.keep]


def _saved(name: str, value: Any) -> Saved:
    if hasattr(value, "nbytes"):
        return Saved(name, value.shape, value.nbytes, "")
    return Saved(name, None, 0, repr(value)[:80])


def _base(array: Any) -> Any:
    """The array that owns the memory of a view."""
    while getattr(array, "base", None) is not None and hasattr(array.base, "nbytes"):
        array = array.base
    return array
