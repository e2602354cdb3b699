"""The settings of a run: checked name by name, written as TOML and read back."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import math
import re
import tomllib
import typing
from collections.abc import Iterable
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from tinygen.data import NAMES, Dataset, held_out, in_memory, load, quantize, subset
from tinygen.models.registry import MODELS, model_class

Sets = tuple[Dataset, Dataset | None, Dataset]  # to train on, to validate on, to test on

HELD = 20, 1000  # one of so many training images is held out, but no more than so many in all
RENAMED = {"variant": "objective", "--variant": "--objective"}  # what options and their flags were called before
_TINY = 5e-324  # the least number above 0
_LEAST = {"seed": 0, "batch_size": 1, "levels": 2, "size": 1, "lr": _TINY, "epochs": _TINY, "minutes": _TINY}


@dataclasses.dataclass
class Config:
    """Settings of a run. `options` are the model's own arguments."""

    model: str
    data: str = "digits"
    levels: int | None = None  # None: the data set's own
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0
    batch_size: int = 16
    lr: float = 2e-3
    epochs: float | None = None
    minutes: float | None = None
    weights: str | None = None  # a file of initial weights
    size: int | None = None  # height and width that a folder's images are resized to

    @classmethod
    def of(cls, values: dict[str, Any]) -> Config:
        """The settings in a dict; those that are missing are the model's defaults.

        Raises ValueError for names that don't exist, with the nearest that does, and for values that don't fit.
        """
        kinds = typing.get_type_hints(cls)
        _check_names(values, kinds, "setting")
        if values.get("model") not in MODELS:
            name = values.get("model")
            raise ValueError(f"no model is named {name!r}; there are {', '.join(MODELS)}{_nearest(name, MODELS)}")
        model = model_class(values["model"])
        settings: dict[str, Any] = {"options": {}, "lr": model.lr, "batch_size": model.batch_size} | values
        for name, value in settings.items():
            _check(name, value, kinds[name], _LEAST.get(name))
        known = {option.name: option for option in options(model)}
        _check_names(settings["options"], known, f"option of {values['model']}")
        for name, value in settings["options"].items():
            _check(f"{name} of {values['model']}", value, kind(known[name]))
        return cls(**settings)

    @classmethod
    def read(cls, path: Path) -> Config:
        """The settings of a TOML file. Raises ValueError for one that can't be read or holds what `of` refuses."""
        try:
            return cls.of(tomllib.loads(path.read_text(encoding="utf-8")))
        except (ValueError, RecursionError) as e:  # not UTF-8 or not TOML, too
            raise ValueError(f"{path}: {e}") from e

    def toml(self) -> str:
        """The settings as TOML; `read` gives them back."""
        return "# tinygen train --config FILE does the same again\n" + toml(dataclasses.asdict(self))

    def datasets(self) -> tuple[Dataset, Dataset]:
        """The training and the test set, in the levels asked for."""
        train, test = load(self.data, self.size)
        if self.levels is not None and self.levels != train.levels:
            train, test = quantize(train, self.levels), quantize(test, self.levels)
        return train, test

    def sets(self) -> Sets:
        """The training set, what is held out of it for validation if the model validates, and the test set.

        Which images are held out is drawn by `held_out`: the same ones whatever the seed. The training set may be
        larger than memory; of the other two, and for trivial models, `in_memory` gives what fits.
        """
        train, test = self.datasets()
        every = max(HELD[0], -(-len(train) // HELD[1]))
        if len(train) < every or not model_class(self.model).family.validation_unit:
            return train, None, in_memory(test)
        chosen = held_out(len(train) // every, len(train), train.labels)
        return subset(train, ~chosen), in_memory(subset(train, chosen)), in_memory(test)


def located(data: str) -> str:
    """The name of a data set as it is, a path as an absolute one: the run may be taken up from another folder."""
    return str(Path(data).absolute()) if data not in NAMES and Path(data).exists() else data


def options(model: Any) -> list[inspect.Parameter]:
    """The model's keyword arguments that have a default: its options."""
    return [p for p in inspect.signature(model, eval_str=True).parameters.values() if p.default is not p.empty]


def option_texts(model: Any) -> dict[str, str]:
    """The texts of a model's arguments: from the Args of its docstring and of those of the classes it derives from."""
    texts: dict[str, str] = {}
    for base in reversed(inspect.getmro(model)):
        block = re.search(r"Args:\n((?:    .*\n?|\n)*)", inspect.cleandoc(base.__doc__ or ""))
        for entry in re.findall(r"^    (\S[^\n]*(?:\n {5,}[^\n]*)*)", block[1] if block else "", re.M):
            names, _, text = " ".join(entry.split()).partition(": ")
            texts |= dict.fromkeys(names.split(", "), text.rstrip("."))
    return texts


def kind(option: inspect.Parameter) -> Any:
    """The type of an option: its annotation, or that of its default."""
    return type(option.default) if option.annotation is option.empty else option.annotation


def fits(value: Any, kind: Any) -> bool:
    """Whether a value from a file is of a type: a name, a union, a Literal. Numbers must be finite."""
    if get_origin(kind) in (Union, UnionType):
        return any(fits(value, one) for one in get_args(kind))
    if get_origin(kind) is Literal:
        return any(value == one and type(value) is type(one) for one in get_args(kind))
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    return kind is Any or type(value) is (get_origin(kind) or kind)


def toml(values: dict[str, Any]) -> str:
    """A dict of text, numbers, truth values and such dicts as TOML. What is None is left out."""
    plain = {k: v for k, v in values.items() if v is not None and not isinstance(v, dict)}
    lines = [f"{k} = {_literal(v)}" for k, v in plain.items()]
    for name, table in values.items():
        if isinstance(table, dict):
            lines += ["", f"[{name}]", toml(table).rstrip("\n")]
    return "\n".join(lines) + "\n"


def _literal(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _spelled(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", dict: "a table"}
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_spelled(one) for one in get_args(kind) if one is not type(None))
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(repr, get_args(kind)))
    return names.get(get_origin(kind) or kind, str(kind))


def _check(name: str, value: Any, kind: Any, least: float | None = None) -> None:
    if not fits(value, kind) or (least is not None and value is not None and value < least):
        limit = "" if least is None else " above 0" if least == _TINY else f", at least {least}"
        raise ValueError(f"{name} must be {_spelled(kind)}{limit}, got {value!r:.80}")


def _check_names(given: Iterable[str], known: Iterable[str], what: str) -> None:
    for name in given:
        if name not in known:
            raise ValueError(f"there is no {what} named {name!r:.80}{_nearest(name, known)}")


def nearest(word: str, known: Iterable[str]) -> list[str]:
    """Which known word was meant by another one, if any: what it is called now, or what is spelled much alike."""
    known = list(known)
    renamed = RENAMED.get(word)
    return [renamed] if renamed in known else difflib.get_close_matches(word, known, 1)


def _nearest(name: Any, known: Iterable[str]) -> str:
    near = nearest(str(name), known)
    return f" (did you mean {near[0]}?)" if near else ""
