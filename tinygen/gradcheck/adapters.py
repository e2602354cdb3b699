"""Subjects made of other things than NumPy pairs: tinygen functions and modules, and those of other libraries.

Another library is one function in LIBRARIES: given fn and the arguments' values, it returns the outputs as arrays and
a function from upstream gradients to gradients. It imports its library when it is called, never before.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinygen import autograd, modes
from tinygen._tensor import Tensor, leaf
from tinygen.gradcheck.source import argument_names
from tinygen.gradcheck.subject import Gradients, Subject
from tinygen.gradcheck.values import is_float_array, same

Array = Any
Pull = Callable[[list[Array]], Gradients]


def subject_of(fn: Callable[..., Any], inputs: Sequence[Any], name: str = "", library: str | None = None) -> Subject:
    """The subject for a function of tensors; whose tensors is read off the inputs unless `library` says it."""
    roots = {type(x).__module__.partition(".")[0] for x in inputs}
    library = library or next((n for n in LIBRARIES if n in roots or f"{n}lib" in roots), None)
    if library in (None, "tinygen"):
        return TensorSubject(fn, inputs, name)
    if library not in LIBRARIES:
        raise ValueError(f"check: library {library!r} is unknown, expected one of tinygen, {', '.join(LIBRARIES)}")
    return ForeignSubject(library, fn, inputs, name)


# ----------------------------------------------------------------------------------------------------------- tinygen


class TensorSubject(Subject):
    """A function on tinygen Tensors. Arguments that are arrays of floats or Tensors are checked, in float64."""

    def __init__(self, fn: Callable[..., Any], inputs: Sequence[Any], name: str = "") -> None:
        arrays = [x.numpy() if isinstance(x, Tensor) else x for x in inputs]
        called = name or getattr(fn, "name", "") or getattr(fn, "__name__", "fn")
        super().__init__(called, argument_names(fn, len(arrays)), arrays)
        self.fn = fn

    def _run(self, values: Sequence[Any], record: bool) -> tuple[list[Any], list[Any]]:
        args: list[Any] = list(values)
        for i in self.wrt:
            args[i] = leaf(values[i], record)
        outs = self.fn(*args)
        return list(outs) if isinstance(outs, (tuple, list)) else [outs], args

    def _outputs(self, values: list[Any]) -> list[Any]:
        with modes.no_grad():
            return [o._array if isinstance(o, Tensor) else o for o in self._run(values, False)[0]]

    def _gradients(self, values: list[Any], *upstreams: list[Array]) -> list[Gradients]:
        before = [v.copy() if isinstance(v, np.ndarray) else None for v in values]
        with modes.enable_grad():
            outs, args = self._run(values, True)
        leaves = [args[i] for i in self.wrt]
        live = [k for k, o in enumerate(outs) if isinstance(o, Tensor) and o.requires_grad]
        results: list[Gradients] = []
        for upstream in upstreams:
            given = [upstream[k].astype(outs[k].dtype, order="K") for k in live]
            copies = [u.copy() for u in given]
            if not live:
                results.append([np.zeros_like(values[i]) for i in self.wrt])
                continue
            grads = autograd.grad([outs[k] for k in live], leaves, [Tensor(u) for u in given], retain_graph=True)
            results.append([np.array(g._array) for g in grads])
            if not all(map(same, given, copies)):
                self.changed.add(("backward", "the upstream gradient"))
        for name, v, b in zip(self.names, values, before, strict=True):
            if b is not None and not same(v, b):
                self.changed.add(("the function", name))
        return results


def gradient_of(subject: TensorSubject, upstream: Sequence[Array]) -> TensorSubject:
    """The subject whose outputs are this one's gradients, as functions of its arguments and the upstream gradient."""
    n = len(subject.values)

    def gradient(*args: Any) -> tuple[Tensor, ...]:
        record = modes.is_grad_enabled()
        leaves = [args[i] if record else leaf(args[i]._array, True) for i in subject.wrt]
        inner = list(args[:n])
        for i, x in zip(subject.wrt, leaves, strict=True):
            inner[i] = x
        with modes.enable_grad():
            outs = subject.fn(*inner)
            outs = list(outs) if isinstance(outs, (tuple, list)) else [outs]
            live = [k for k, o in enumerate(outs) if isinstance(o, Tensor) and o.requires_grad]
            if not live:
                return tuple(Tensor(np.zeros_like(x._array)) for x in leaves)
            return autograd.grad([outs[k] for k in live], leaves, [args[n + k] for k in live], create_graph=record)

    result = TensorSubject(gradient, [*subject.values, *upstream], name=f"gradient of {subject.name}")
    result.names = [*subject.names, *(f"gout{k}" if len(upstream) > 1 else "gout" for k in range(len(upstream)))]
    result.outputs = [subject.grad_name(i) for i in subject.wrt]
    return result


class ModuleSubject(TensorSubject):
    """A tinygen module: its parameters and inputs. A float64 copy is checked, the module itself is never touched."""

    def __init__(self, module: Any, inputs: Sequence[Any], loss: Callable[..., Any] | None = None) -> None:
        own = copy.deepcopy(module).to(np.float64)
        parameters = dict(own.named_parameters())
        places = [  # where each parameter is an attribute; a shared one has several places
            [(m, n) for m in own.modules() for n, t in vars(m).items() if t is p] for p in parameters.values()
        ]
        buffers = [(b, b.numpy().copy()) for _, b in own.named_buffers()]
        rngs = [g for m in own.modules() for g in vars(m).values() if isinstance(g, np.random.Generator)]
        states = [g.bit_generator.state for g in rngs]

        def fn(*args: Any) -> Any:
            for b, value in buffers:  # batch statistics and random numbers are those of the first call
                b.write()[...] = value
            for g, state in zip(rngs, states, strict=True):
                g.bit_generator.state = state
            for spots, tensor in zip(places, args, strict=False):
                for m, n in spots:
                    vars(m)[n] = tensor
            out = own(*args[len(places) :])
            return loss(out) if loss else out

        super().__init__(fn, [*(p.numpy() for p in parameters.values()), *inputs], type(module).__name__)
        self.names = [*parameters, *argument_names(module.forward, len(inputs))]

    def grad_name(self, i: int) -> str:
        return f"grad of {self.names[i]}"


# ---------------------------------------------------------------------------------------------------- other libraries


class ForeignSubject(Subject):
    """A function of another library's tensors. Float arrays and float tensors among the inputs are checked."""

    def __init__(self, library: str, fn: Callable[..., Any], inputs: Sequence[Any], name: str = "") -> None:
        arrays = [_array(x) for x in inputs]
        super().__init__(name or getattr(fn, "__name__", type(fn).__name__), argument_names(fn, len(arrays)), arrays)
        self.fn, self.linearize = fn, LIBRARIES[library]

    def _outputs(self, values: list[Any]) -> list[Any]:
        return self.linearize(self.fn, values, [])[0]

    def _gradients(self, values: list[Any], *upstreams: list[Array]) -> list[Gradients]:
        results = []
        for upstream in upstreams:
            _, pull = self.linearize(self.fn, values, self.wrt)
            results.append([None if g is None else np.array(g) for g in pull(upstream)])
        return results


def _array(x: Any) -> Any:
    for method in ("detach", "cpu"):
        x = getattr(x, method)() if hasattr(x, method) and not isinstance(x, np.ndarray) else x
    for method in ("numpy", "to_numpy"):
        if callable(getattr(x, method, None)):
            return np.array(getattr(x, method)())
    return np.array(x) if hasattr(x, "__array__") else x


def _listed(outs: Any) -> list[Any]:
    return list(outs) if isinstance(outs, (tuple, list)) else [outs]


def _torch(fn: Callable[..., Any], values: list[Any], wrt: list[int]) -> tuple[list[Array], Pull]:
    import torch

    args = [torch.tensor(v) if isinstance(v, np.ndarray) else v for v in values]
    leaves = [args[i].requires_grad_(True) for i in wrt]
    with torch.random.fork_rng(), torch.set_grad_enabled(bool(wrt)):
        torch.manual_seed(0)
        outs = _listed(fn(*args))

    def pull(upstream: list[Array]) -> Gradients:
        live = [k for k, o in enumerate(outs) if o.requires_grad]
        given = [torch.tensor(upstream[k], dtype=outs[k].dtype).reshape(outs[k].shape) for k in live]
        return list(torch.autograd.grad([outs[k] for k in live], leaves, given, materialize_grads=True))

    return [o.detach().numpy() for o in outs], pull


def _jax(fn: Callable[..., Any], values: list[Any], wrt: list[int]) -> tuple[list[Array], Pull]:
    import jax

    def of_leaves(*leaves: Any) -> Any:
        args = [jax.numpy.asarray(v) if isinstance(v, np.ndarray) else v for v in values]
        for i, x in zip(wrt, leaves, strict=True):
            args[i] = x
        return tuple(_listed(fn(*args)))

    with jax.enable_x64(True):
        outs, vjp = jax.vjp(of_leaves, *(jax.numpy.asarray(values[i]) for i in wrt))

    def pull(upstream: list[Array]) -> Gradients:
        with jax.enable_x64(True):
            return list(vjp(tuple(jax.numpy.asarray(u, o.dtype) for u, o in zip(upstream, outs, strict=True))))

    return [np.asarray(o) for o in outs], pull


def _autograd(fn: Callable[..., Any], values: list[Any], wrt: list[int]) -> tuple[list[Array], Pull]:
    from autograd import make_vjp
    from autograd.builtins import tuple as joined

    def together(*args: Any) -> Any:
        return joined(_listed(fn(*args)))

    if not wrt:
        return _listed(fn(*values)), lambda upstream: []
    vjp, outs = make_vjp(together, tuple(wrt))(*values)
    return list(outs), lambda upstream: list(vjp(tuple(upstream)))


def _taped(make: Callable[[Any, Array], Any], module: str) -> Callable[..., tuple[list[Array], Pull]]:
    """For libraries in the style of a course: `out.backward(gradient)` sets `x.grad` of what it was made from."""

    def linearize(fn: Callable[..., Any], values: list[Any], wrt: list[int]) -> tuple[list[Array], Pull]:
        library = __import__(module)
        args = [make(library, v) if is_float_array(v) else v for v in values]
        outs = _listed(fn(*args))

        def pull(upstream: list[Array]) -> Gradients:
            if len(outs) > 1:
                raise ValueError(f"{module}: a function of several outputs can't be checked")
            outs[0].backward(make(library, upstream[0]))
            return [None if args[i].grad is None else _array(args[i].grad) for i in wrt]

        return [_array(o) for o in outs], pull

    return linearize


def _make_minitorch(library: Any, a: Array) -> Any:
    t = library.tensor(np.asarray(a).tolist())
    t.requires_grad_(True)
    return t


LIBRARIES: dict[str, Callable[..., tuple[list[Array], Pull]]] = {
    "torch": _torch,
    "jax": _jax,
    "autograd": _autograd,
    "needle": _taped(lambda library, a: library.Tensor(a, dtype="float64"), "needle"),
    "minitorch": _taped(_make_minitorch, "minitorch"),
}


class TorchModuleSubject(ForeignSubject):
    """A PyTorch module as a function of its parameters and inputs."""

    grad_name = ModuleSubject.grad_name


def module_of(module: Any, inputs: Sequence[Any], loss: Callable[..., Any] | None = None) -> Subject:
    """The subject for a module of tinygen or PyTorch: its parameters and its inputs."""
    roots = {c.__module__.partition(".")[0] for c in type(module).__mro__}
    if "torch" not in roots:
        if not hasattr(module, "named_parameters"):
            raise TypeError(f"check_module: {type(module).__name__} is neither a tinygen nor a PyTorch module")
        return ModuleSubject(module, inputs, loss)
    import torch

    own = copy.deepcopy(module).double()
    names = [n for n, _ in own.named_parameters()]
    buffers = {n: b.clone() for n, b in own.named_buffers()}

    def fn(*args: Any) -> Any:
        state = dict(zip(names, args, strict=False)) | {n: b.clone() for n, b in buffers.items()}
        out = torch.func.functional_call(own, state, args[len(names) :])
        return loss(out) if loss else out

    subject = TorchModuleSubject("torch", fn, [*own.parameters(), *inputs], type(module).__name__)
    subject.names = [*names, *argument_names(module.forward, len(inputs))]
    return subject
