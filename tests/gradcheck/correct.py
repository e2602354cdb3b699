"""Right gradients at awkward places: kinks, ties, two-example batches, saturation, tiny and huge numbers, float32."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tests.gradcheck import layers
from tinygen.gradcheck import GradcheckReport, check_loss, check_pair
from tinygen.gradcheck.recipes import RECIPES

NORMAL, GRID, SATURATED, TINY, HUGE, OFFSET, SINGLE = range(7)
PAIRS = [
    ("affine", {"D": (4, 3), "M": 3}), ("relu", {}), ("sigmoid", {}), ("tanh", {}), ("dropout", {}),
    ("batchnorm", {}), ("layernorm", {}), ("conv", {}), ("max_pool", {}), ("avg_pool", {}),
    ("spatial_batchnorm", {}), ("spatial_groupnorm", {}), ("rnn_step", {}), ("rnn", {}), ("lstm_step", {}),
    ("lstm", {}), ("word_embedding", {}), ("temporal_affine", {}),
]  # fmt: skip
LOSSES = ["softmax_loss", "svm_loss", "temporal_softmax_loss", "softmax_loss_vectorized", "svm_loss_naive"]
ANALYTIC = {"sigmoid", "tanh", "rnn_step", "lstm_step", "softmax_loss"}


class Correct(NamedTuple):
    """A right gradient, where it is looked at, and how."""

    name: str
    forward: Callable[..., Any]
    backward: Callable[..., Any] | None
    args: tuple[Any, ...]
    style: int

    def check(self, seed: int) -> GradcheckReport:
        """The report, which has to be right."""
        rng = np.random.default_rng(seed)
        if self.backward is None:
            return check_loss(self.forward, self.args, rng=rng)
        return check_pair(self.forward, self.backward, self.args, rng=rng)


def random_sizes(r: np.random.Generator, name: str) -> tuple[Any, ...]:
    """Arguments of a layer, of random shapes."""
    n = lambda low, high: int(r.integers(low, high + 1))  # noqa: E731
    N, C, H, W = n(1, 4), n(1, 3), n(3, 6), n(3, 6)
    if name in ("relu", "sigmoid", "tanh"):
        return (r.standard_normal(tuple(n(1, 4) for _ in range(n(1, 4)))),)
    if name == "dropout":
        return r.standard_normal((N, H)), {"p": r.uniform(0.3, 0.9), "mode": "train", "seed": n(0, 99)}
    if name == "conv":
        stride, pad = n(1, 3), n(0, 2)
        w = r.standard_normal((n(1, 3), C, n(1, 3), n(1, 3)))
        return r.standard_normal((N, C, H, W)), w, r.standard_normal(len(w)), {"stride": stride, "pad": pad}
    if name in ("max_pool", "avg_pool"):
        return r.standard_normal((N, C, H, W)), {"pool_height": n(1, 3), "pool_width": n(1, 3), "stride": n(1, 3)}
    if "norm" in name:
        shape = {"batchnorm": (n(2, 5), C), "layernorm": (N, n(2, 5))}.get(name, (max(N, 2), 2 * C, H, W))
        width = (1, shape[1], 1, 1) if "group" in name else shape[1]
        tail: tuple[Any, ...] = (2, {}) if "group" in name else ({"mode": "train"},)
        return r.standard_normal(shape), r.standard_normal(width), r.standard_normal(width), *tail
    if name in ("softmax_loss_vectorized", "svm_loss_naive"):
        D = n(1, 5)
        return r.standard_normal((D, H)), r.standard_normal((N, D)), r.integers(0, H, N), r.uniform(0, 1)
    sizes = {"N": N, "D": n(1, 4), "H": n(1, 4), "T": n(1, 4), "M": n(1, 4), "V": n(2, 5), "C": n(2, 5)}
    recipe = next(make for pattern, make, _ in RECIPES if __import__("re").fullmatch(pattern, name))
    wanted = recipe.__code__.co_varnames[1 : recipe.__code__.co_argcount]
    picked = {k: sizes[k] for k in wanted if k in sizes and not (k == "T" and name.endswith("step"))}
    if name == "affine":
        picked["D"] = (n(1, 3), n(1, 3))
    return recipe(r, **picked)


def restyle(style: int, value: Any, first: bool, r: np.random.Generator) -> Any:
    """An argument moved to an awkward place."""
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        return value
    if style == GRID:
        return np.round(2 * value) / 2  # exact zeros and ties
    if style == SATURATED:
        return 30 * value
    if style == TINY:
        return 1e-6 * value
    if style == HUGE:
        return 1e4 * value if first else value
    if style == OFFSET:
        return value + 1e3 if first else value
    return value.astype(np.float32) if style == SINGLE else value


def in_single(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The same function on float32 arrays only."""

    def lowered(v: Any) -> Any:
        if isinstance(v, np.ndarray) and v.dtype == np.float64:
            return v.astype(np.float32)
        return type(v)(map(lowered, v)) if isinstance(v, (tuple, list)) else v

    def wrapped(*args: Any) -> Any:
        return lowered(fn(*map(lowered, args)))

    return wrapped


def in_single_pair(forward: Any, backward: Any) -> tuple[Any, Any]:
    """A pair in float32, with the signature that a pair has."""
    low_forward, low_backward = in_single(forward), in_single(backward)
    if backward.__code__.co_argcount == 3:
        return low_forward, lambda da, db, cache: low_backward(da, db, cache)
    return low_forward, lambda dout, cache: low_backward(dout, cache)


def random_case(seed: int) -> Correct:
    """One of them."""
    r = np.random.default_rng(seed)
    names = [name for name, _ in PAIRS] + LOSSES
    name, style = names[int(r.integers(len(names)))], int(r.integers(7))
    args = tuple(restyle(style, v, k == 0, r) for k, v in enumerate(random_sizes(r, name)))
    if name in LOSSES:
        return Correct(name, getattr(layers, name), None, args, style)
    suffix = "_naive" if name in ("conv", "max_pool", "avg_pool") else ""
    forward, backward = (getattr(layers, f"{name}_{way}{suffix}") for way in ("forward", "backward"))
    if style == SINGLE:
        forward, backward = in_single_pair(forward, backward)
    return Correct(name, forward, backward, args, style)
