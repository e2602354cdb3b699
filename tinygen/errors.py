"""The words of errors: which op failed, on which arguments, and on which line of the user's code it was called."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np

Function = TypeVar("Function", bound=Callable[..., Any])

_FILES = ("_tensor.py", "modes.py", "tape.py", "autograd.py", "ops", "nn")
_INSIDE = ("<tinygen", *(str(Path(__file__).with_name(name)) for name in _FILES))  # <tinygen ...>: generated code


def fail(e: Exception, what: str) -> NoReturn:
    """Raise the exception again, saying what failed: leading the message of the usual kinds, as a note on others."""
    for kind in (ValueError, TypeError, IndexError, OverflowError):
        if isinstance(e, kind) and not str(e).startswith(what.partition("(")[0] + "("):
            raise kind(f"{what}: {e}") from e
    e.add_note(f"in {what}")
    raise e


def foreign(value: Any) -> str:
    """Of another library's array, `is a torch.Tensor: ...` and what to write; nothing of any other value."""
    kind = type(value)
    if isinstance(value, np.ma.MaskedArray):
        return "is a numpy.ma.MaskedArray, whose mask would be lost; give its .filled(...) with a number"
    if hasattr(kind, "strides") or not hasattr(kind, "__array__"):
        return ""
    write = "give its .detach().cpu().numpy()" if hasattr(kind, "detach") else "give numpy.asarray of it"
    return f"is a {kind.__module__.partition('.')[0]}.{kind.__name__}, not a tensor of tinygen or an array; {write}"


def no_array(value: Any) -> str:
    """Of what isn't one: `is a list, ...` and what to do."""
    if value is None:
        return "is None (did the function that made it return nothing?)"
    return f"is a {type(value).__name__}, not a tensor or an array: write tinygen.tensor(...) of numbers"


def is_wanting(value: Any, parameter: inspect.Parameter, e: Exception) -> bool:
    """Whether it is this argument that made an op fail: None where it must be given, or what was asked for a shape."""
    return parameter.default is parameter.empty if value is None else value is getattr(e, "obj", None)


def is_whole(name: str, dtype: Any) -> bool:
    """Whether an op's result is of integers or booleans. TypeError if it isn't of real numbers."""
    if dtype.kind not in "fiub":
        raise TypeError(f"{name}: all arguments must be real numbers, the result would be {dtype}")
    return dtype.kind != "f"


def set_grad(tensor: Any, grad: Any) -> None:
    """Make this a tensor's gradient. TypeError if it is no tensor, ValueError for another shape or dtype."""
    if grad is not None:
        if not isinstance(grad, type(tensor)):
            raise TypeError(f"grad: must be a tensor or None, got {type(grad).__name__}")
        if grad.shape != tensor.shape or grad.dtype != tensor.dtype:
            raise ValueError(f"grad: must be as its tensor, {describe([tensor])}, got {describe([grad])}")
    tensor._grad = grad


def state_dict(name: str, given: Any) -> dict[str, Any]:
    """A state dict with arrays in place of tensors. TypeError, which begins with the name, for what is none."""
    if not isinstance(given, Mapping):
        hint = "; give its .state_dict()" if hasattr(given, "state_dict") else ""
        raise TypeError(f"{name}: state_dict must be a dict of arrays by name, got {type(given).__name__}{hint}")
    found = {key: getattr(value, "_array", value) for key, value in given.items()}
    for key, value in found.items():
        if problem := "is None, not an array" if value is None else foreign(value):
            raise TypeError(f"{name}: {key} {problem}")
    return found


def blame(e: AttributeError, what: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """TypeError that names the argument of the function that isn't a tensor, if it was asked for what those have."""
    for name, value in inspect.signature(function).bind(*args, **kwargs).arguments.items():
        if value is e.obj and e.name in _OF_ARRAYS and not hasattr(value, "strides"):
            raise TypeError(f"{what}: {name} {foreign(value) or no_array(value)}") from e
        if type(e.obj).__module__ == type(value).__module__ and (problem := foreign(value)):  # such as its dtype's kind
            raise TypeError(f"{what}: {name} {problem}") from e


_OF_ARRAYS = frozenset(["shape", "dtype", "ndim", "size", "_array"])


def naming(function: Function) -> Function:
    """The function, which names the argument that isn't a tensor where it stumbles over one. See `blame`."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except AttributeError as e:
            blame(e, function.__name__, function, *args, **kwargs)
            raise

    return call  # type: ignore[return-value]


def describe(values: Iterable[Any]) -> str:
    """Arguments in a few words: `float32 (2, 3), float32 (3,) on cuda, 1, None`."""
    return ", ".join(
        f"{v.dtype} {v.shape}{' on cuda' if hasattr(v, 'get') else ''}" if hasattr(v, "dtype") else repr(v)[:40]
        for v in values
    )


def call_site(frame: Any) -> tuple[Any, int]:
    """Where an op was called, (code, instruction): the innermost frame outside the engine, the ops and the layers."""
    while _is_inside(frame.f_code.co_filename) and frame.f_back:
        frame = frame.f_back
    return frame.f_code, frame.f_lasti


def line(site: tuple[Any, int]) -> str:
    """`file:line` of a call site."""
    code, instruction = site
    number = next(itertools.islice(code.co_positions(), instruction // 2, None))[0]
    return f"{code.co_filename}:{number}"


@functools.cache
def _is_inside(filename: str) -> bool:
    return filename.startswith(_INSIDE)
