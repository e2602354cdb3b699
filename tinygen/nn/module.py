"""Module: a function with parameters that it owns, and submodules that own theirs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ParamSpec, Protocol, TypeVar

import numpy as np

from tinygen import errors
from tinygen._tensor import Tensor, tensor
from tinygen.array import moved, on_device_of
from tinygen.cuda import array_module
from tinygen.ops.device import is_device


def Parameter(data: Any) -> Tensor:
    """A leaf tensor that requires a gradient, holding a copy of data. A Module owns what it is assigned."""
    return tensor(data, requires_grad=True)


P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


class _Forward(Protocol[P, R_co]):
    """So that type checkers hold a module's calls against its own forward."""

    def forward(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


class Module:
    """Base class of layers and models: assign parameters and submodules as attributes, define `forward`.

    An attribute is a *parameter* if it is a leaf tensor that requires a gradient when it is assigned (it
    stays one if it is frozen later), a *submodule* if it is a Module, and a *buffer* (state that isn't
    learned) if it is registered as one. Everything else is a plain attribute.

    Attributes:
        training: whether dropout, batch norm etc. behave as in training. Set by `train()` and `eval()`.
    """

    training: bool
    _roles: dict[str, str]  # of some attributes: "parameter", "buffer" or "module"

    def __new__(cls, *args: Any, **kwargs: Any) -> Module:
        self = super().__new__(cls)
        vars(self).update(_roles={}, training=True)  # here, lest a forgotten super().__init__() does harm
        return self

    def __init__(self) -> None:
        """Takes no arguments, lest any are ignored."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Computes the output when the module is called."""
        raise NotImplementedError(f"{type(self).__name__} doesn't define forward()")

    def __call__(self: _Forward[P, R_co], *args: P.args, **kwargs: P.kwargs) -> R_co:
        try:
            return self.forward(*args, **kwargs)
        except AttributeError as e:
            errors.blame(e, type(self).__name__, self.forward, *args, **kwargs)
            raise

    # -- what it owns

    def __setattr__(self, name: str, value: Any) -> None:
        role = self._roles.get(name)
        if isinstance(value, Module):
            role = "module"
        elif not isinstance(value, Tensor):
            role = None
        elif role in (None, "module"):
            role = "parameter" if value.is_leaf and value.requires_grad else None
        if role:
            self._roles[name] = role
        else:
            self._roles.pop(name, None)
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        self._roles.pop(name, None)

    def register_buffer(self, name: str, value: Tensor) -> None:
        """Make value (a leaf tensor) an attribute that belongs to the module's state without being learned."""
        if not isinstance(value, Tensor) or not value.is_leaf or value.requires_grad:
            raise TypeError(f"register_buffer: {name} must be a leaf tensor that doesn't require a gradient")
        object.__setattr__(self, name, value)
        self._roles[name] = "buffer"

    def _own(self, role: str) -> Iterator[tuple[str, Any]]:
        """The attributes with a role, in the order in which they were assigned."""
        return ((name, getattr(self, name)) for name, r in list(self._roles.items()) if r == role)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The direct submodules with their names."""
        return self._own("module")

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module (named "") and all below it, each once, parents first: "0", "0.conv", ..."""
        seen: set[int] = set()
        stack = [(prefix, self)]
        while stack:
            name, module = stack.pop()
            if id(module) not in seen:
                seen.add(id(module))
                yield name, module
                stack += [(f"{name}.{n}" if name else n, m) for n, m in module.named_children()][::-1]

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        return (m for _, m in self.named_modules())

    def _tensors(self, role: str) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of all tensors with a role here and below, shared ones once."""
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for name, t in module._own(role):
                if id(t) not in seen:
                    seen.add(id(t))
                    yield f"{prefix}.{name}" if prefix else name, t

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """The parameters here and below with their names ("0.weight"), shared ones once, the first name."""
        return self._tensors("parameter")

    def parameters(self) -> Iterator[Tensor]:
        """The parameters here and below, shared ones once."""
        return (p for _, p in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """The buffers here and below with their names."""
        return self._tensors("buffer")

    # -- what all of it is told at once

    def train(self, mode: bool = True) -> Module:
        """Set training mode, here and below. Returns the module."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        """Set evaluation mode: `train(False)`."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Forget the parameters' gradients."""
        for p in self.parameters():
            p.grad = None

    def requires_grad_(self, requires_grad: bool = True) -> Module:
        """Freeze (False) or thaw all parameters here and below. Returns the module."""
        for p in self.parameters():
            p.requires_grad = requires_grad
        return self

    def to(self, target: Any) -> Module:
        """Move parameters and buffers to a device, "cpu" or "cuda", or convert those of floats to float32 or float64.

        In place; gradients are forgotten. Optimizers keep their state where it was: move before their first step.
        Raises tinygen.cuda.CudaError, saying why, if there is no CUDA here.
        """
        module = array_module(target) if is_device(target) else None
        if module is None and np.dtype(target) not in (np.float32, np.float64):
            raise TypeError(f"to: a module's dtype is float32 or float64, not {np.dtype(target)}")
        for role in ("parameter", "buffer"):
            for _, t in self._tensors(role):
                if module:
                    t._array, t.grad = moved(t.write(), module), None
                elif t.dtype.kind == "f":
                    t._array, t.grad = t.write().astype(target), None
        return self

    # -- state

    def _state(self) -> dict[str, Tensor]:
        return dict(self.named_parameters()) | dict(self.named_buffers())

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of all parameters and buffers by name."""
        return {name: np.array(t.numpy()) for name, t in self._state().items()}

    def load_state_dict(self, state_dict: dict[str, Any], strict: bool = True) -> None:
        """Take over the values of a state_dict: arrays or tensors by name, converted to the dtypes here.

        strict=False leaves out names that are missing here or there.

        Raises:
            ValueError: names missing, unexpected, of the wrong shape or kind; nothing is changed then.
            TypeError: arrays of another library.
        """
        own = self._state()
        given = {n: moved(v, np) for n, v in errors.state_dict("load_state_dict", state_dict).items()}
        problems = [f"{n} is missing" for n in own if n not in given and strict]
        problems += [f"{n} is unexpected" for n in given if n not in own and strict]
        pairs = {n: (own[n], given[n]) for n in own if n in given}
        for name, (t, value) in pairs.items():
            if value.shape != t.shape:
                problems.append(f"{name} has shape {value.shape} instead of {t.shape}")
            elif not np.can_cast(value.dtype, t.dtype, "same_kind"):
                problems.append(f"{name} has dtype {value.dtype} instead of {t.dtype}")
        if problems:
            more = f" and {len(problems) - 10} more" if len(problems) > 10 else ""
            raise ValueError(f"load_state_dict of {type(self).__name__}: {'; '.join(problems[:10])}{more}")
        for t, value in pairs.values():
            array = t.write()
            array[...] = on_device_of(array, value)

    # -- looks

    def extra_repr(self) -> str:
        """The text that `repr` shows of the layer's own settings."""
        return ""

    def __repr__(self) -> str:
        lines = [f"({name}): {module!r}".replace("\n", "\n  ") for name, module in self.named_children()]
        if not lines:
            return f"{type(self).__name__}({self.extra_repr()})"
        return "\n  ".join([f"{type(self).__name__}({self.extra_repr()}", *lines]) + "\n)"


class ModuleList(Module):
    """A list of modules that are part of the module that holds it."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        self.extend(modules)

    def append(self, module: Module) -> ModuleList:
        """Add a module at the end. Returns the list."""
        if not isinstance(module, Module):
            raise TypeError(f"{type(self).__name__}: expected a Module, got {type(module).__name__}")
        setattr(self, str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> ModuleList:
        """Add modules at the end. Returns the list."""
        for module in modules:
            self.append(module)
        return self

    def __len__(self) -> int:
        return len(self._roles)

    def __iter__(self) -> Iterator[Module]:
        return (module for _, module in self.named_children())

    def __getitem__(self, index: int | slice) -> Any:
        chosen = list(self)[index]
        return type(self)._of(chosen) if isinstance(chosen, list) else chosen

    @classmethod
    def _of(cls, modules: list[Module]) -> ModuleList:
        return cls(modules)


class Sequential(ModuleList):
    """Modules that run one after the other, each on the result of the one before."""

    def __init__(self, *modules: Module) -> None:
        super().__init__(modules)

    @classmethod
    def _of(cls, modules: list[Module]) -> Sequential:
        return cls(*modules)

    def forward(self, input: Any) -> Any:
        """Run them all."""
        for module in self:
            input = module(input)
        return input
