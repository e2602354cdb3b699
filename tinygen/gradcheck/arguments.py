"""Arguments for functions that no recipe knows, guessed from the names of their parameters.

The cases of a list are of one kind: "b is (D,) for x (N, D)", "y holds 0 and 1 for x (N,)". A function is
right if it is right on all cases of some kind; which kinds it is made for can't be told from outside.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

Arguments = tuple[Any, ...]
Maker = Callable[[np.random.Generator, tuple[int, ...]], Any]  # (rng, shape of the data) -> an argument

LABELS = re.compile(r"y|t|y_?true|targets?|labels?|gt|ground_truth|classes")
WEIGHTS = re.compile(r"w\w*|theta|kernel|coef\w*")
PARAMETERS = re.compile(r"[abgs]|w\w*|b\w+|gamma|beta|scale|shift|bias|alpha|slope|gain|offset|theta|mu|sigma|mean|std")
MOST = 4  # arguments: those of more are not guessed
SMALL = {"eps": 1e-5, "epsilon": 1e-5, "reg": 0.1, "lam": 0.1, "lambda_": 0.1, "lamb": 0.1, "l2": 0.1, "delta": 1.0,
         "margin": 1.0, "axis": -1, "gamma_focal": 2.0, "temperature": 2.0}  # fmt: skip

SIZES: dict[int, list[tuple[int, ...]]] = {
    1: [(7,), (1,), (4,)], 2: [(3, 4), (1, 5), (6, 2)], 3: [(2, 3, 4), (1, 2, 5)], 4: [(3, 2, 4, 5), (1, 3, 2, 4)],
}  # fmt: skip

# A parameter's shape for the data's shape: by the number of the data's axes.
SHAPES: dict[int, list[Callable[[tuple[int, ...]], tuple[int, ...] | None]]] = {
    2: [lambda s: (s[1],), lambda s: (1, s[1]), lambda s: s, lambda s: None, lambda s: (1,), lambda s: (s[0], 1),
        lambda s: (1, 1), lambda s: (s[0],)],
    4: [lambda s: (s[1],), lambda s: (s[1], 1, 1), lambda s: (1, s[1], 1, 1), lambda s: (s[3],), lambda s: s[1:]],
    3: [lambda s: (s[2],), lambda s: s[1:], lambda s: (1, 1, s[2]), lambda s: (1, s[1], 1), lambda s: (s[1], 1)],
    1: [lambda s: s, lambda s: None, lambda s: (1,)],
}  # fmt: skip


def by_names(names: Sequence[str], loss: bool, seed: int = 0) -> Iterator[list[Arguments]]:
    """Cases for a function with these parameters, one list for each kind of arguments, the likeliest first.

    Args:
        loss: whether it is a loss, whose last array holds labels or targets.
    """
    lower = [n.lower() for n in names]
    free = [i for i, n in enumerate(lower) if n not in SMALL]
    labels = [i for i in free if LABELS.fullmatch(lower[i])]
    weights = [i for i in free if WEIGHTS.fullmatch(lower[i])]
    if labels and weights and len(free) in (3, 4):
        for model in MODELS:
            yield _filled(names, free, [_roles(i, free, labels, weights, lower) for i in free], model, seed)
    elif loss and len(free) == 2:
        yield from _losses(names, free, labels, seed)
    elif 0 < len(free) <= MOST:
        alike = not any(PARAMETERS.fullmatch(lower[i]) for i in free[1:])
        yield from _parameters(names, free, alike, seed)
        if labels and len(free) == 2:
            yield from _losses(names, free, labels, seed)


def _losses(names: Sequence[str], free: list[int], labels: list[int], seed: int) -> Iterator[list[Arguments]]:
    """Data and its labels, which stand last unless their name says otherwise."""
    at = labels[0] if len(labels) == 1 else free[1]
    for axes, data, target in TARGETS:
        cases = []
        for k, size in enumerate(SIZES[len(axes)]):
            r = np.random.default_rng(seed + k)
            args: list[Any] = [SMALL.get(n.lower()) for n in names]
            args[free[0] if at == free[1] else free[1]] = data(r, size)
            args[at] = target(r, size)
            cases.append(tuple(args))
        yield cases


def _parameters(names: Sequence[str], free: list[int], alike: bool, seed: int) -> Iterator[list[Arguments]]:
    """Data and its parameters: all parameters of one shape first, then of several.

    alike: no name says which of the arguments are parameters, so that they may all be of one shape.
    """
    if alike and len(free) > 1:
        yield from (_case(names, free, ndim, (lambda s: s,) * (len(free) - 1), seed) for ndim in (2, 4))
    for ndim in (2, 4, 3, 1):
        shapes = [(f,) * (len(free) - 1) for f in SHAPES[ndim]] if len(free) > 1 else [()]
        yield from (_case(names, free, ndim, fs, seed) for fs in shapes)
    if len(free) == 3:
        for ndim in (2, 4, 3, 1):
            for fs in itertools.permutations(SHAPES[ndim], 2):
                yield _case(names, free, ndim, fs, seed)


def _case(names: Sequence[str], free: list[int], ndim: int, shapes: Sequence[Any], seed: int) -> list[Arguments]:
    cases = []
    for k, size in enumerate(SIZES[ndim]):
        r = np.random.default_rng(seed + k)
        args: list[Any] = [SMALL.get(n.lower()) for n in names]
        args[free[0]] = r.standard_normal(size)
        for i, f in zip(free[1:], shapes, strict=True):
            shape = f(size)
            args[i] = float(r.uniform(0.3, 0.7)) if shape is None else r.standard_normal(shape)
        cases.append(tuple(args))
    return cases


# ------------------------------------------------------------------------------------------------------------- losses


def _normal(r: np.random.Generator, s: tuple[int, ...]) -> Any:
    return r.standard_normal(s)


def _unit(r: np.random.Generator, s: tuple[int, ...]) -> Any:
    return r.uniform(0.1, 0.9, s)


def _simplex(r: np.random.Generator, s: tuple[int, ...]) -> Any:
    p = r.uniform(0.2, 1, s)
    return p / p.sum(axis=-1, keepdims=True)


def _classes(r: np.random.Generator, s: tuple[int, ...]) -> Any:
    return r.integers(0, s[-1], s[:-1])


def _one_hot(r: np.random.Generator, s: tuple[int, ...]) -> Any:
    return np.eye(s[-1])[_classes(r, s)]


def _bits(r: np.random.Generator, s: tuple[int, ...]) -> Any:
    return r.integers(0, 2, s)


def _signs(r: np.random.Generator, s: tuple[int, ...]) -> Any:
    return 2 * r.integers(0, 2, s) - 1


def _column(make: Maker) -> Maker:
    return lambda r, s: make(r, (s[0], 1))


# The data's axes, the data, and the labels that a loss may be made for.
TARGETS: list[tuple[str, Maker, Maker]] = [
    ("NC", _normal, _classes),
    ("NC", _normal, _one_hot),
    ("N", _normal, _bits),
    ("NC", _column(_normal), _column(_bits)),
    ("N", _normal, _signs),
    ("NC", _column(_normal), _column(_signs)),
    ("NC", _normal, _bits),
    ("NC", _normal, _signs),
    ("N", _normal, _normal),
    ("NC", _normal, _normal),
    ("NC", _column(_normal), _column(_normal)),
    ("N", _unit, _bits),
    ("NC", _column(_unit), _column(_bits)),
    ("NC", _unit, _bits),
    ("NC", _simplex, _classes),
    ("NC", _simplex, _one_hot),
    ("N", _unit, _unit),
    ("NC", _simplex, _simplex),
    ("NTC", _normal, _classes),
]


# Linear models: shapes of w and b for D features and C classes, and the labels.
MODELS: list[tuple[Maker, Maker, Maker]] = [
    (lambda r, s: _normal(r, s) / 2, lambda r, s: _normal(r, s[1:]), lambda r, s: r.integers(0, s[1], s[2])),
    *((lambda r, s: _normal(r, s[:1]), lambda r, s: float(r.normal()), lambda r, s, make=make: make(r, s[2:]))
      for make in (_bits, _signs, _normal)),
    *((lambda r, s: _normal(r, (s[0], 1)), lambda r, s: _normal(r, (1,)), lambda r, s, make=make: make(r, (s[2], 1)))
      for make in (_bits, _signs, _normal)),
    (lambda r, s: _normal(r, s[:2]), lambda r, s: _normal(r, s[1:2]), lambda r, s: _one_hot(r, (s[2], s[1]))),
    (lambda r, s: _normal(r, s[:2]), lambda r, s: _normal(r, s[1:2]), lambda r, s: _normal(r, (s[2], s[1]))),
]  # fmt: skip


def _roles(i: int, free: list[int], labels: list[int], weights: list[int], lower: list[str]) -> str:
    if i in labels:
        return "y"
    return "w" if i in weights else "b" if lower[i].startswith(("b", "c")) else "X"


def _filled(names: Sequence[str], free: list[int], roles: list[str], model: Any, seed: int) -> list[Arguments]:
    w, b, y = model
    cases = []
    for k, (N, D, C) in enumerate([(7, 4, 3), (5, 3, 6), (1, 3, 2)]):
        r = np.random.default_rng(seed + k)
        make = {"X": lambda r, s: r.standard_normal((s[2], s[0])), "w": w, "b": b, "y": y}
        args: list[Any] = [SMALL.get(n.lower()) for n in names]
        for i, role in zip(free, roles, strict=True):
            args[i] = make[role](r, (D, C, N))
        cases.append(tuple(args))
    return cases
