"""Modes: what holds for the ops of a thread or asyncio task. Are they recorded, do kernels run, who watches?

The engine's second file of four: `_tensor.py`, `modes.py`, `tape.py`, `autograd.py`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

Hook = Callable[[Any, Callable[[], Any]], Any]  # takes a `tape.Call` and the function that runs it, returns the result
Function = TypeVar("Function", bound=Callable[..., Any])


class Mode(NamedTuple):
    """The settings that hold at the moment. A block puts another mode in its place."""

    grad: bool = True
    reference: bool = False
    hooks: tuple[Hook, ...] = ()
    outer: Mode | None = None  # what holds again after the block


DEFAULT = Mode()
current: ContextVar[Mode] = ContextVar("tinygen mode", default=DEFAULT)


class Block:
    """A `with` block within which another mode holds; also a decorator of functions, also of generators and coroutines.

    It keeps no state of its own: it can be entered again, within itself, and by several threads at once.
    """

    def __init__(self, change: Callable[[Mode], Mode]) -> None:
        self.change = change

    def __enter__(self) -> None:
        outer = current.get()
        current.set(self.change(outer)._replace(outer=outer))

    def __exit__(self, *error: object) -> None:
        current.set(current.get().outer or DEFAULT)

    def __call__(self, fn: Function) -> Function:
        if isinstance(fn, type) or not callable(fn):
            raise TypeError(f"a mode decorates functions, got {fn!r}: of a class decorate the methods, "
                            "and write @property or @classmethod above it")  # fmt: skip
        kinds = fn, getattr(fn, "__call__", None)  # noqa: B004 (of an object that can be called)
        if any(map(inspect.isasyncgenfunction, kinds)):
            raise TypeError(f"a mode can't decorate {fn!r}, an asynchronous generator: write a with block in it")
        steps = any(map(inspect.isgeneratorfunction, kinds))
        if any(map(inspect.iscoroutinefunction, kinds)):

            @functools.wraps(fn)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return await fn(*args, **kwargs)

            return awaited  # type: ignore[return-value]

        @functools.wraps(fn)
        def call(*args: Any, **kwargs: Any) -> Any:
            return _Steps(fn(*args, **kwargs), self) if steps else self.run(fn, *args, **kwargs)

        return call  # type: ignore[return-value]

    def run(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The result of a function that runs within the block."""
        with self:
            return fn(*args, **kwargs)


class _Steps(Generator[Any, Any, Any]):
    """A generator within a block. Its mode waits with it at each `yield`, and doesn't hold outside."""

    def __init__(self, generator: Generator[Any, Any, Any], block: Block) -> None:
        self.generator, self.mode = generator, block.change(current.get())

    def send(self, value: Any) -> Any:
        return self._step(self.generator.send, value)

    def throw(self, *error: Any) -> Any:
        return self._step(self.generator.throw, *error)

    def _step(self, advance: Callable[..., Any], *values: Any) -> Any:
        outside = current.get()
        current.set(self.mode)
        try:
            return advance(*values)
        finally:
            self.mode = current.get()
            current.set(outside)


def recording(grad: bool) -> Block:
    """Within it ops are recorded, or aren't."""
    return Block(lambda mode: mode._replace(grad=grad))


def no_grad() -> Block:
    """Within `with no_grad():` (or a function decorated so) nothing is recorded. Per thread and per asyncio task."""
    return recording(False)


def enable_grad() -> Block:
    """Record again, inside `no_grad()`."""
    return recording(True)


def reference() -> Block:
    """Within `with reference():` every op runs its NumPy definition instead of a kernel, in its backward pass too."""
    return Block(lambda mode: mode._replace(reference=True))


def hook(fn: Hook) -> Block:
    """Within `with hook(fn):` every op and every backward rule runs through `fn(call, run)`, which returns `run()`."""
    return Block(lambda mode: mode._replace(hooks=(*mode.hooks, fn)))


def is_grad_enabled() -> bool:
    """Whether ops are recorded here."""
    return current.get().grad


def is_reference() -> bool:
    """Whether ops run their definitions here, and no kernels."""
    return current.get().reference
