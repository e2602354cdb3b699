"""The gradients in a Python file: it is imported, and its functions are paired by their names."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from tinygen.gradcheck import layers, recipes
from tinygen.gradcheck.adapters import TensorSubject, gradient_of
from tinygen.gradcheck.plain import LossSubject, ModelSubject, PairSubject
from tinygen.gradcheck.report import GradcheckError
from tinygen.gradcheck.sandbox import Sandbox, Trouble
from tinygen.gradcheck.source import required_parameters
from tinygen.gradcheck.subject import Subject
from tinygen.tape import Op

Functions = dict[str, Any]


class Trial(NamedTuple):
    """Subjects with arguments of one kind, the plainest first."""

    subjects: list[Subject]
    certain: bool  # these arguments are meant: if the functions take them, no others are tried
    last: bool = False  # counts only if the functions take no others


class Target(NamedTuple):
    """Something in a file that has a gradient: its name, and ways to check it, the likeliest first."""

    name: str
    trials: Callable[[float], Iterator[Trial]]  # of the seconds that one call may take


_LOADED: set[str] = set()  # names of modules that `load` put among the imported ones


def load(path: Path, limit: float | None = None) -> ModuleType:
    """Import a file, as part of its package where it has one.

    Args:
        limit: seconds that it may take.

    Raises:
        OSError, ValueError: there is no such file; it can't be imported.
        GradcheckError: it checks a gradient itself, and that is wrong.
    """
    path = path.resolve()
    if not path.is_file():
        raise OSError(f"no such file: {path}")
    parts, root = [path.stem], path.parent
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    sys.path.insert(0, str(root))
    box = Sandbox(limit)
    try:
        with box():
            return box.run("import", importlib.import_module if len(parts) > 1 else _executed, ".".join(parts), path)
    except Trouble as e:
        cause = e.__cause__
        if isinstance(cause, GradcheckError):
            raise cause from None
        where = f" ({e.problem.where})" if e.problem.where else ""
        if e.problem.cause == "hangs":
            text = f'it is still running after {limit:g} s{where}; put what trains under `if __name__ == "__main__":`'
        elif isinstance(cause, EOFError):
            text = 'it asks for input; put that under `if __name__ == "__main__":`'
        else:
            text = f"{type(cause).__name__}: {cause}"
        raise ValueError(f"{path} can't be imported: {text}") from e
    finally:
        sys.path.remove(str(root))


def _executed(name: str, path: Path) -> ModuleType:
    """The module that a file's code makes, found under its name by what looks there (dataclasses, pickle)."""
    if name in sys.modules and name not in _LOADED:
        name += "_gradcheck"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    _LOADED.add(name)
    spec.loader.exec_module(module)
    return module


def targets(module: ModuleType) -> Iterator[Target]:
    """Everything in a module that has a gradient, in the order of the file."""
    own = {
        n: v for n, v in vars(module).items()
        if getattr(v, "__module__", None) == module.__name__ or isinstance(v, functools.partial)
    }  # fmt: skip
    functions = {n: v for n, v in own.items() if inspect.isfunction(v) or isinstance(v, functools.partial)}
    for name, value in own.items():
        if isinstance(getattr(value, "op", None), Op):
            yield Target(name, _op_trials(value, name, functions))
        elif name in functions:
            if "backward" in name and (partner := _forward_of(name, functions)):
                yield Target(name, _trials(functions[partner], partner, functions, _pair(functions[partner], value)))
            elif "loss" in name and name[0] != "_" and "backward" not in name and len(_required(value)) >= 2:
                yield Target(name, _trials(value, name, functions, LossSubject))
        elif inspect.isclass(value) and callable(getattr(value, "loss", None)):
            yield Target(name, _model_trials(value))
        elif inspect.isclass(value) and all(callable(getattr(value, n, None)) for n in ("forward", "backward")):
            yield Target(name, _layer_trials(value, name, functions))


def _required(fn: Callable[..., Any]) -> list[str]:
    try:
        return required_parameters(fn)
    except (TypeError, ValueError):
        return []


def _forward_of(backward: str, functions: dict[str, Any]) -> str | None:
    """`batchnorm_backward_alt` -> `batchnorm_forward`."""
    name = backward.replace("backward", "forward")
    while "forward" in name:
        for candidate in (name, f"{name}_naive"):
            if candidate in functions:
                return candidate
        shorter = name.rpartition("_")[0]
        if shorter == name or not shorter:
            break
        name = shorter
    return None


def _given(name: str, functions: Functions, limit: float) -> list[tuple[Any, ...]] | None:
    """The arguments that the file's own X_inputs() returns; None if there is none."""
    maker = functions.get(f"{recipes.layer_name(name)}_inputs") or functions.get(f"{name}_inputs")
    if maker is None:
        return None
    box = Sandbox(limit)
    with box():
        made = box.run("inputs", maker)
    if isinstance(made, list) and made and all(isinstance(m, tuple) for m in made):
        return made  # several cases
    return [tuple(made) if isinstance(made, (tuple, list)) else (made,)]


def _pair(forward: Any, backward: Any) -> Callable[..., Subject]:
    return lambda _, args, limit: PairSubject(forward, backward, args, limit=limit)


def _trials(
    forward: Any, name: str, functions: Functions, make: Callable[..., Subject]
) -> Callable[[float], Iterator[Trial]]:
    def trials(limit: float) -> Iterator[Trial]:
        given = _given(name, functions, limit)
        if given is not None:
            yield Trial([make(forward, args, limit=limit) for args in given], True)
            return
        for trial in recipes.trials(name, _required(forward)):
            yield Trial([make(forward, args, limit=limit) for args in trial.cases], trial.certain, trial.last)

    return trials


def _op_trials(fn: Any, name: str, functions: Functions) -> Callable[[float], Iterator[Trial]]:
    """Of an op: its own samples, if it declares any."""

    def make(_: Any, args: Sequence[Any], limit: float) -> Subject:
        return TensorSubject(fn, args, name).at()  # a probe: what it raises is reported

    def trials(limit: float) -> Iterator[Trial]:
        found: Iterable[Trial] = _trials(fn.op.body, name, functions, make)(limit)
        if fn.op.make_samples is not None:
            samples = fn.op.make_samples(np.random.default_rng(0))
            found = [Trial([TensorSubject(_with(fn, s.kwargs), s.args, name).at() for s in samples], True)]
        for trial in found:
            yield Trial([s for subject in trial.subjects for s in (subject, *_second(subject))], *trial[1:])

    return trials


def _with(fn: Any, kwargs: dict[str, Any]) -> Any:
    return functools.wraps(fn)(lambda *args: fn(*args, **kwargs)) if kwargs else fn


def _second(subject: Any) -> list[Subject]:
    """The subject's gradient as a subject, for the second order; nothing if the function refuses its arguments."""
    try:
        outputs = subject.forward(subject.values)
    except Trouble:
        return []
    r = np.random.default_rng(1)
    return [gradient_of(subject, [r.standard_normal(o.shape) for o in outputs]).at()]


SMALL = {
    "hidden_dim": 7, "hidden_size": 7, "num_classes": 3, "output_size": 3, "hidden_dims": [7, 5], "num_filters": 3,
    "filter_size": 3, "weight_scale": 0.5, "reg": 0.1, "dtype": np.float64,
}  # fmt: skip


def _model_trials(cls: type) -> Callable[[float], Iterator[Trial]]:
    def trials(limit: float) -> Iterator[Trial]:
        r = np.random.default_rng(0)
        parameters = inspect.signature(cls).parameters
        dim = parameters.get("input_dim") or parameters.get("input_size")
        if dim is None:
            return
        shape = (2, 6, 8) if isinstance(dim.default, tuple) else (6,)
        given = {dim.name: shape if len(shape) > 1 else 6} | {k: v for k, v in SMALL.items() if k in parameters}
        subjects: list[Subject] = []
        for reg in (0.0, 0.1) if "reg" in parameters else (0.1,):
            box = Sandbox(limit)
            with box():
                model = box.run(
                    "inputs", lambda reg=reg: cls(**(given | ({"reg": reg} if "reg" in parameters else {})))
                )
            if not isinstance(getattr(model, "params", None), dict):
                return
            for key, value in model.params.items():  # biases start at zero: give every term something to show
                model.params[key] = value + 0.1 * r.standard_normal(value.shape)
            subjects.append(ModelSubject(model, (r.standard_normal((5, *shape)), r.integers(0, 3, 5)), limit=limit))
        yield Trial(subjects, True)

    return trials


def _layer_trials(cls: type, name: str, functions: Functions) -> Callable[[float], Iterator[Trial]]:
    def trials(limit: float) -> Iterator[Trial]:
        layer = layers.made(cls)
        if layer is None:
            return
        layers.shaken(layer)

        def make(_: Any, args: Sequence[Any], limit: float) -> Subject:
            return layers.LayerSubject(layer, args, name, limit)

        given = _given(name.lower(), functions, limit)
        if given is None and (sized := layers.inputs(layer)):
            yield Trial([make(None, args, limit) for args in sized], False)
        yield from _trials(layer.forward, name.lower(), functions, make)(limit)

    return trials
