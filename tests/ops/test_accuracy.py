"""One result whatever the path: every op by kernel, by definition, small and large, in any layout, against more digits.

Errors are counted in ulps, the distances between neighbors of a dtype. A result below the normal numbers may be 0.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

import tinygen
from tinygen import ops
from tinygen._tensor import leaf
from tinygen.kernels import library
from tinygen.tape import REGISTRY

FULL = os.environ.get("TINYGEN_FULL") == "1"
ULPS = 4  # what an op may be wrong by, unless its docstring says how much it may
EXTREMES = (0.0, -0.0, 1e-30, 1e-6, 0.3, 1.0, 3.0, 8.9, 17.5, 20.0, 50.0, 87.0, 100.0, 700.0, 1e30, np.inf)
SPECIAL = np.array([*EXTREMES, *(-v for v in EXTREMES), np.nan, 1e-40, -1e-40])
DTYPES = (np.float32, np.float64)
more = np.longdouble  # 64 bits of mantissa on x86; where it is float64, the references have an ulp's error of their own


# ------------------------------------------------------------------------------------------------------- references


def _sigmoid(x):
    return np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))


def _softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _elu(x, alpha=1.0):
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


UNARY = {
    "tanh": np.tanh, "sigmoid": _sigmoid, "softplus": _softplus, "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x > 0, x, x * 0.01), "elu": _elu, "neg": np.negative, "exp": np.exp,
    "expm1": np.expm1, "log": np.log, "log1p": np.log1p, "sqrt": np.sqrt, "sin": np.sin, "cos": np.cos,
    "abs": np.abs, "sign": np.sign, "clamp": lambda x: np.clip(x, -1, 1), "pow": lambda x: x**2,
}  # fmt: skip
OF_ONE = {  # the op as a function of one array, where it takes more
    "clamp": lambda x: ops.clamp(x, -1.0, 1.0), "pow": lambda x: ops.pow(x, 2),
}  # fmt: skip
BINARY = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "maximum": np.maximum,
    "minimum": np.minimum, "gt": np.greater, "ge": np.greater_equal, "lt": np.less, "le": np.less_equal,
    "eq": np.equal, "ne": np.not_equal,
    "relu_backward": lambda g, y: np.where(y > 0, g, 0), "elu_backward": lambda g, x: g * _slope(x),
    "logistic_backward": lambda g, y: g * (1 - y) * y,
}  # fmt: skip
OF_TWO = {
    "elu_backward": lambda g, x: REGISTRY["elu_backward"].function(g, x, 1.0),
    "logistic_backward": lambda g, y: REGISTRY["logistic_backward"].function(g, y, 0.0),
}


def _slope(x):
    return np.where(x > 0, 1, np.exp(np.minimum(x, 0)))


# ------------------------------------------------------------------------------------------------------- ulps


def ulps(got, want, scale=0.0):
    """How far `got` is at most from `want`, which has more digits, in ulps of want or, if that is larger, of `scale`."""
    info = np.finfo(got.dtype)
    assert got.shape == want.shape
    assert np.array_equal(np.isnan(got), np.isnan(want)), "NaN where there is none, or none where there is one"
    same = (got == want.astype(got.dtype)) | np.isnan(want)
    same |= np.isinf(got) & (np.sign(got) * want > info.max * 0.999)
    same |= (got == 0) & (np.abs(want) < info.tiny)
    size = np.maximum(np.where(np.isfinite(want), np.abs(want), 0), max(scale, info.tiny))
    error = np.where(same, 0, np.abs(got.astype(more) - want) / (size * info.eps))
    assert np.isfinite(error).all(), "infinite where the right value isn't, or the other way round"
    return float(error.max(initial=0))


def layouts(x):
    """The array in many orders in memory, all the same values."""
    yield x
    yield np.flip(np.flip(x).copy())
    holes = np.full([2 * n for n in x.shape], np.nan, x.dtype)
    holes[tuple(slice(None, None, 2) for _ in x.shape)] = x
    yield holes[tuple(slice(None, None, 2) for _ in x.shape)]
    yield np.array(x, order="F")
    yield np.moveaxis(np.moveaxis(x, 1, -1).copy(), -1, 1)  # channels last


def small_and_large(*flat):
    """The arrays as (1, 3, n), too small for kernels, and repeated along the first axis; and how often."""
    small = [np.resize(a, (1, 3, len(a) // 3 + 1)) for a in flat]
    times = library.SMALL // small[0].size + 1
    yield 1, small
    yield times, [np.repeat(a, times, axis=0) for a in small]


def ways(fn, *arrays):
    """fn's results by kernel and by definition, on plain arrays and on Tensors."""
    yield "plain", np.asarray(fn(*arrays))
    yield "tensor", fn(*map(leaf, arrays)).numpy()
    with tinygen.reference():
        yield "definition", np.asarray(fn(*arrays))
    with library.every_size():
        yield "kernel", np.asarray(fn(*arrays))


def check_everywhere(name, fn, reference, *flat):
    """fn of the values, small and large, in all layouts, in all ways, is what the reference says in more digits."""
    with np.errstate(all="ignore"):
        for times, arrays in small_and_large(*flat):
            want = np.asarray(reference(*(a[:1].astype(more) for a in arrays)))
            want = np.repeat(want if want.dtype == bool else want.astype(more), times, axis=0)
            known = np.empty(0)
            for number, laid in enumerate(zip(*map(layouts, arrays), strict=True)):
                for way, got in ways(fn, *laid):
                    if np.array_equal(got, known, equal_nan=True):
                        continue
                    what = f"{name} by {way}, {got.size} elements in layout {number}"
                    if got.dtype == bool:
                        assert np.array_equal(got, want), what
                    else:
                        assert got.dtype == flat[0].dtype, what
                        error = ulps(got, want)
                        assert error <= ULPS, f"{what}: {error:.1f} ulps"
                    known = got


# ------------------------------------------------------------------------------------------------------- elementwise


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("dtype", DTYPES)
def test_functions_of_one_array_at_extremes(name, dtype):
    with np.errstate(all="ignore"):
        values = SPECIAL.astype(dtype)
    if name in ("sin", "cos"):
        values = values[~(np.abs(values) > 1e9)]  # nobody reduces huge arguments alike
    if FULL:
        values = np.concatenate([values, np.random.default_rng(0).normal(0, 30, 3000).astype(dtype)])
    check_everywhere(name, OF_ONE.get(name, REGISTRY[name].function), UNARY[name], values)


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("dtype", DTYPES)
def test_functions_of_two_arrays_at_extremes(name, dtype):
    with np.errstate(all="ignore"):
        values = SPECIAL.astype(dtype)
        one, two = (a.reshape(-1) for a in np.meshgrid(values, values))
        if name == "logistic_backward":
            two = _sigmoid(two)  # it takes outputs of sigmoid
        if name == "elu_backward":  # an infinity times what is too small for dtype is no number
            fits = np.isfinite(one) & ~(two < np.log(np.finfo(dtype).tiny))
            one, two = one[fits], two[fits]
    check_everywhere(name, OF_TWO.get(name, REGISTRY[name].function), BINARY[name], one, two)
