"""Inputs for the layers of coursework files, on shapes that notebooks use and on those that they don't.

A recipe turns sizes into arguments; its cases are such sizes: first a plain one with distinct sizes (so that a factor N
can't be taken for a factor H), then the edges: N = 1, one step, no padding, stride 3, images that aren't square.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinygen.gradcheck.arguments import WEIGHTS, by_names

Arguments = tuple[Any, ...]
Sizes = dict[str, Any]


def _affine(r: np.random.Generator, N: int, D: tuple[int, ...], M: int) -> Arguments:
    return r.standard_normal((N, *D)), r.standard_normal((int(np.prod(D)), M)), r.standard_normal(M)


def _elementwise(r: np.random.Generator, shape: tuple[int, ...]) -> Arguments:
    return (r.standard_normal(shape),)


def _between_0_and_1(r: np.random.Generator, shape: tuple[int, ...]) -> Arguments:
    return (r.uniform(0.1, 0.9, shape),)


def _dropout(r: np.random.Generator, shape: tuple[int, ...], p: float, mode: str) -> Arguments:
    return r.standard_normal(shape), {"p": p, "mode": mode, "seed": 7}


def _norm(r: np.random.Generator, shape: tuple[int, ...]) -> Arguments:
    C = shape[1]
    x = 2 * r.standard_normal(shape) + r.standard_normal((1, C) + (1,) * (len(shape) - 2))
    return x, r.uniform(0.5, 2, C), r.standard_normal(C), {"mode": "train"}


def _group_norm(r: np.random.Generator, N: int, C: int, H: int, W: int, G: int) -> Arguments:
    gamma, beta = r.uniform(0.5, 2, (1, C, 1, 1)), r.standard_normal((1, C, 1, 1))
    return 2 * r.standard_normal((N, C, H, W)) + 1, gamma, beta, G, {}


def _conv(
    r: np.random.Generator, N: int, C: int, H: int, W: int, F: int, K: tuple[int, int], stride: int, pad: int
) -> Arguments:
    x, w, b = r.standard_normal((N, C, H, W)), r.standard_normal((F, C, *K)), r.standard_normal(F)
    return x, w, b, {"stride": stride, "pad": pad}


def _pool(r: np.random.Generator, N: int, C: int, H: int, W: int, K: tuple[int, int], stride: int) -> Arguments:
    return r.standard_normal((N, C, H, W)), {"pool_height": K[0], "pool_width": K[1], "stride": stride}


def _cell(gates: int, states: int) -> Callable[..., Arguments]:
    def recipe(r: np.random.Generator, N: int, D: int, H: int, T: int = 0) -> Arguments:
        x = r.standard_normal((N, T, D) if T else (N, D))
        hidden = [r.standard_normal((N, H)) for _ in range(states)]
        weights = r.standard_normal((D, gates * H)), r.standard_normal((H, gates * H)) / 2, r.standard_normal(gates * H)
        return (x, *hidden, *weights)

    return recipe


def _embedding(r: np.random.Generator, N: int, T: int, V: int, D: int) -> Arguments:
    return r.integers(0, V, (N, T)), r.standard_normal((V, D))


def _temporal_affine(r: np.random.Generator, N: int, T: int, D: int, M: int) -> Arguments:
    return r.standard_normal((N, T, D)), r.standard_normal((D, M)), r.standard_normal(M)


def _scores(r: np.random.Generator, N: int, C: int) -> Arguments:
    return r.standard_normal((N, C)), r.integers(0, C, N)


def _temporal_scores(r: np.random.Generator, N: int, T: int, V: int) -> Arguments:
    return r.standard_normal((N, T, V)), r.integers(0, V, (N, T)), r.random((N, T)) < 0.7


def _linear_classifier(r: np.random.Generator, N: int, D: int, C: int, reg: float) -> Arguments:
    return r.standard_normal((D, C)) / 2, r.standard_normal((N, D)), r.integers(0, C, N), reg


def _chain(*parts: str) -> Callable[..., Arguments]:
    """affine_relu, conv_bn_relu, conv_relu_pool ...: the first layer's arguments, then the parameters of the others."""

    def recipe(r: np.random.Generator, N: int, stride: int = 1) -> Arguments:
        if parts[0] == "affine":
            arrays, params, C = list(_affine(r, N, (4,), 5)), [], 5
        else:
            *arrays, conv = _conv(r, N, 2, 6, 8, 3, (3, 3), stride, 1)
            params, C = [conv], 3
        if any(p in ("bn", "batchnorm", "norm", "ln") for p in parts):
            arrays += [r.uniform(0.5, 2, C), r.standard_normal(C)]
            params.append({"mode": "train"})
        if "pool" in parts:
            params.append({"pool_height": 2, "pool_width": 2, "stride": 2})
        return (*arrays, *params)

    return recipe


PLAIN: list[Sizes] = [{"shape": (3, 4)}, {"shape": (1, 5)}, {"shape": (3, 2, 4, 5)}]
CONV = [
    {"N": 3, "C": 2, "H": 4, "W": 6, "F": 5, "K": (3, 3), "stride": 1, "pad": 1},
    {"N": 1, "C": 1, "H": 7, "W": 4, "F": 3, "K": (3, 2), "stride": 1, "pad": 0},
    {"N": 3, "C": 2, "H": 7, "W": 7, "F": 1, "K": (3, 3), "stride": 2, "pad": 1},
    {"N": 1, "C": 2, "H": 8, "W": 5, "F": 2, "K": (2, 2), "stride": 3, "pad": 0},
]
POOL = [
    {"N": 3, "C": 2, "H": 4, "W": 6, "K": (2, 2), "stride": 2},
    {"N": 1, "C": 1, "H": 6, "W": 4, "K": (2, 2), "stride": 2},
    {"N": 3, "C": 2, "H": 5, "W": 7, "K": (3, 3), "stride": 2},
    {"N": 1, "C": 2, "H": 7, "W": 5, "K": (2, 1), "stride": 1},
    {"N": 2, "C": 1, "H": 8, "W": 5, "K": (2, 2), "stride": 3},
]
STEP = [{"N": 3, "D": 4, "H": 5}, {"N": 1, "D": 3, "H": 3}, {"N": 4, "D": 5, "H": 1}]
SEQUENCE = [{"N": 3, "D": 5, "H": 6, "T": 4}, {"N": 1, "D": 3, "H": 2, "T": 3}, {"N": 3, "D": 4, "H": 4, "T": 1}]
CLASSIFIER = [
    {"N": 7, "D": 6, "C": 3, "reg": 0.0},
    {"N": 5, "D": 4, "C": 6, "reg": 0.3},
    {"N": 1, "D": 3, "C": 2, "reg": 0.1},
]
NORM = [{"shape": (4, 5)}, {"shape": (7, 3)}, {"shape": (2, 3)}]
IMAGES = [{"shape": (3, 2, 4, 5)}, {"shape": (2, 3, 5, 3)}]

# The name of the layer (without forward, backward, naive, ...), its recipe, its cases.
RECIPES: list[tuple[str, Any, list[Sizes]]] = [
    (r"(affine|conv)(_\w+)?_(relu|pool)", _chain, [{"N": 3}, {"N": 2}]),
    (r"affine_(bn|batchnorm|ln)", _chain, [{"N": 3}, {"N": 2}]),
    (r"temporal_affine", _temporal_affine, [{"N": 3, "T": 4, "D": 5, "M": 6}, {"N": 1, "T": 1, "D": 3, "M": 2}]),
    (r"temporal_softmax_loss", _temporal_scores, [{"N": 3, "T": 4, "V": 5}, {"N": 1, "T": 3, "V": 3}]),
    (r"word_embedding|embedding", _embedding, [{"N": 3, "T": 4, "V": 5, "D": 6}, {"N": 1, "T": 3, "V": 7, "D": 3}]),
    (r"spatial_group_?norm", _group_norm, [
        {"N": 3, "C": 4, "H": 5, "W": 3, "G": 2}, {"N": 1, "C": 6, "H": 2, "W": 3, "G": 3},
    ]),
    (r"spatial_batch_?norm", _norm, IMAGES),
    (r"batch_?norm", _norm, NORM),
    (r"layer_?norm", _norm, [{"shape": (4, 5)}, {"shape": (1, 4)}, {"shape": (6, 3)}]),
    (r"dropout", _dropout, [
        {"shape": (3, 4), "p": 0.7, "mode": "train"}, {"shape": (1, 9), "p": 0.5, "mode": "train"},
        {"shape": (3, 2, 4), "p": 0.7, "mode": "test"},
    ]),
    (r"(max_?|avg_?|average_?|mean_?)?pool(ing)?(2d)?", _pool, POOL),
    (r"conv(olution)?(2d)?", _conv, CONV),
    (r"lstm_(step|cell)", _cell(4, 2), STEP),
    (r"rnn_(step|cell)", _cell(1, 1), STEP),
    (r"gru_(step|cell)", _cell(3, 1), STEP),
    (r"lstm", _cell(4, 1), SEQUENCE),
    (r"rnn", _cell(1, 1), SEQUENCE),
    (r"affine|linear|fc|dense|fully_connected", _affine, [
        {"N": 3, "D": (4, 5), "M": 6}, {"N": 1, "D": (7,), "M": 3}, {"N": 5, "D": (4,), "M": 4},
    ]),
    (r"((softmax|svm|hinge|cross_entropy)\w*)?loss\w*", _scores, [
        {"N": 4, "C": 5}, {"N": 1, "C": 3}, {"N": 7, "C": 3},
    ]),
]  # fmt: skip

# For layers of other names: by the number of arguments. Those of one kind are one guess.
GUESSES: list[tuple[Any, list[Sizes]]] = [
    (_elementwise, PLAIN),
    (_affine, [{"N": 3, "D": (4,), "M": 5}, {"N": 1, "D": (3,), "M": 2}]),
    (lambda r, N, D, M: _affine(r, N, D, M)[:2], [{"N": 3, "D": (4,), "M": 5}, {"N": 1, "D": (3,), "M": 2}]),
    (lambda r, N, D, M: (r.standard_normal((N, D)), r.standard_normal((M, D)), r.standard_normal(M)),
     [{"N": 3, "D": 4, "M": 5}, {"N": 1, "D": 3, "M": 2}]),
    (lambda r, N, D, M: (r.standard_normal((N, D)), r.standard_normal((M, D))),
     [{"N": 3, "D": 4, "M": 5}, {"N": 1, "D": 3, "M": 2}]),
    (_conv, CONV),
    (_pool, POOL),
    (_norm, NORM),
]  # fmt: skip
LOSS = re.compile(r".*(loss|entropy|bce|mse|nll|hinge|likelihood|divergence|error).*")


def layer_name(function: str) -> str:
    """`conv_backward_naive` -> `conv`."""
    words = [w for w in function.lower().split("_") if w]
    drop = {
        "forward",
        "backward",
        "fwd",
        "bwd",
        "naive",
        "fast",
        "vectorized",
        "alt",
        "im2col",
        "strides",
        "cython",
        "numpy",
    }
    return "_".join(w for w in words if w not in drop)


class Trial(NamedTuple):
    """Arguments of one kind to try a function on, the plainest first."""

    cases: list[Arguments]
    certain: bool  # the function's name says that these are meant: if it takes them, no others are tried
    last: bool = False  # counts only if the function takes no others


def trials(function: str, names: Sequence[str], seed: int = 0) -> Iterator[Trial]:
    """All kinds of arguments that a function may be made for, the likeliest first.

    Args:
        function: its name, such as "conv_forward_naive".
        names: of its required arguments.
    """
    layer, n = layer_name(function), len(names)
    loss = bool(LOSS.fullmatch(layer))
    named = next(((recipe, sizes) for p, recipe, sizes in RECIPES if re.fullmatch(p, layer)), None)
    if loss and n == 4:
        named = _linear_classifier, CLASSIFIER
    if named:
        recipe = _chain(*layer.split("_")) if named[0] is _chain else named[0]
        certain = not loss or layer.startswith(("softmax", "svm", "temporal"))
        yield Trial(list(_make(recipe, named[1], n, seed)), certain)
    general = [list(_make(recipe, sizes, n, seed)) for recipe, sizes in GUESSES
               if len(next(_make(recipe, sizes[:1], None, seed))) == n]  # fmt: skip
    found = list(by_names(names, loss, seed))
    if n == 1:  # log, sqrt ... are defined for positive numbers only
        found.append(list(_make(_between_0_and_1, PLAIN, n, seed)))
    product = any(WEIGHTS.fullmatch(name.lower()) for name in names)
    for k, cases in enumerate([*general, *found] if product or n == 1 else [*found, *general]):
        yield Trial(cases, certain=False, last=n == 1 and k > 0)


def _make(recipe: Callable[..., Arguments], sizes: list[Sizes], n: int | None, seed: int) -> Iterator[Arguments]:
    for k, size in enumerate(sizes):
        made = recipe(np.random.default_rng(seed + k), **size)
        yield made if n is None else made[:n]
