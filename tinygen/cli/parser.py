"""How flags are read: argparse that suggests what was meant, and a model's options as flags."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

from tinygen import cuda
from tinygen.parallel.mpi import own_gpu, wait_for_turn
from tinygen.training.config import kind, nearest, option_texts, options

DEVICES, WHERE = ("cpu", "cuda", "auto"), "where it computes; auto: on the GPU if there is one (default cpu)"


class Parser(argparse.ArgumentParser):
    """argparse that suggests what was meant, and always exits 2 on bad usage.

    fill: adds the parser's arguments when the parser is used, not before.
    """

    def __init__(self, *args: Any, fill: Callable[[Parser], None] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})
        self.fill = fill

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, except that a command refuses unknown flags itself, since it knows what was meant."""
        fill, self.fill = self.fill, None
        if fill:
            fill(self)
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return namespace, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if value != []:  # of nargs="*", if nothing is named: Python 3.11 holds even that against the choices
            super()._check_value(action, value)

    def error(self, message: str) -> NoReturn:
        """Exit 2, with the nearest known word for each that isn't one."""
        known = [s for action in self._actions for s in (*action.option_strings, *map(str, action.choices or ()))]
        unknown = message.partition("unrecognized arguments:")[2] or message.partition("invalid choice:")[2]
        words = [w.partition("=")[0].strip("',:()") for w in unknown.partition("(choose")[0].split()]
        guesses = [m for w in words if w not in known for m in nearest(w, known)]
        hint = f" (did you mean {guesses[0]}?)" if guesses else ""
        wait_for_turn()
        self.exit(2, f"{self.prog}: {message}{hint}\n")


def add_options(p: argparse.ArgumentParser, model: Any) -> None:
    """A flag for each of a model's own options, explained as in its docstring."""
    own, texts = p.add_argument_group("the model's own"), option_texts(model)
    for option in options(model):
        text = texts.get(option.name, "").replace("%", "%%")
        own.add_argument(f"--{option.name.replace('_', '-')}", default=option.default,
                         help=f"{text} (default %(default)s)".lstrip(), **_reads(kind(option)))  # fmt: skip


def _reads(annotation: Any) -> dict[str, Any]:
    """How argparse reads an option of this type.

    bool is --flag and --no-flag, Literal["a", "b"] a choice, `int | None` read as int.
    """
    if get_origin(annotation) in (Union, UnionType):
        annotation = next(kind for kind in get_args(annotation) if kind is not type(None))
    choices = get_args(annotation) if get_origin(annotation) is Literal else None
    kind = type(choices[0]) if choices else annotation
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    return {"type": {int: integer, float: real}.get(kind, str), "choices": choices}


def device(args: argparse.Namespace) -> str:
    """The device asked for. Raises tinygen.cuda.CudaError where CUDA can't be used."""
    if (where := cuda.resolve(args.device or "cpu")) == "cuda":
        own_gpu()
    return where


def need_packages() -> None:
    """ValueError unless what commands draw and show progress with is installed."""
    for module, package in (("PIL", "Pillow"), ("tqdm", "tqdm"), ("matplotlib", "matplotlib")):
        if importlib.util.find_spec(module) is None:
            raise ValueError(f"this command needs {package}: pip install 'tinygen[train]'")


# ------------------------------------------------------------------------------------------------- values of flags


def whole_number(text: str, least: int = 1) -> int:
    if not (text.isascii() and text.isdigit() and int(text) >= least):
        raise argparse.ArgumentTypeError(f"must be a whole number, at least {least}, got {text!r}")
    return int(text)


def integer(text: str) -> int:
    if not (text.isascii() and text.removeprefix("-").isdigit()):
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}")
    return int(text)


def seed(text: str) -> int:
    return whole_number(text, 0)


def temperature(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a number, at least 0, got {text!r}")


def file(text: str) -> Path:
    """One to write: said now, since what it will hold can take long to make."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file in a folder that exists, got {text!r}")
    return path


def number(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")


def real(text: str) -> float:
    with contextlib.suppress(ValueError):
        if math.isfinite(float(text)):
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a number, got {text!r}")
