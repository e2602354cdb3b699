"""One result whatever the path: every op by kernel and by definition, small and large, in any layout.

Against references with more digits; errors are counted in ulps, the distances between neighbors of a dtype. A result
about the smallest normal number may be 0.
"""

from __future__ import annotations

import functools
import itertools
import math
import os

import numpy as np
import pytest

import tinygen
from tests.ops.test_ops import CASES, Case, _is_float, each_of
from tinygen import nn, ops
from tinygen._tensor import leaf
from tinygen.kernels import library
from tinygen.nn import functional as F
from tinygen.ops.loss import binary_cross_entropy_with_logits, cross_entropy, nll
from tinygen.ops.normalize import batch_norm
from tinygen.tape import REGISTRY

FULL = os.environ.get("TINYGEN_FULL") == "1"
ULPS = 4  # what an op may be wrong by, unless its docstring says how much it may
EXTREMES = (0.0, -0.0, 1e-30, 1e-6, 0.3, 1.0, 3.0, 8.9, 17.5, 20.0, 50.0, 87.0, 100.0, 700.0, 1e30, np.inf)
SPECIAL = np.array([*EXTREMES, *(-v for v in EXTREMES), np.nan, 1e-40, -1e-40])
DTYPES = (np.float32, np.float64)
more = np.longdouble  # 64 bits of mantissa on x86; where it is float64, the references have an ulp's error of their own


# ----------------------------------------------------------------------------------------------------------- references


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
    "silu": lambda x: x * _sigmoid(x),
    "abs": np.abs, "sign": np.sign, "clamp": lambda x: np.clip(x, -1, 1), "pow": lambda x: x**2,
    "square": np.square, "rsqrt": lambda x: 1 / np.sqrt(x), "erf": np.vectorize(math.erf),
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


# ----------------------------------------------------------------------------------------------------------------- ulps


def ulps(got, want, scale=0.0):
    """How far `got` is at most from `want`, which has more digits, in ulps of the larger of want and `scale`."""
    info = np.finfo(got.dtype)
    assert got.shape == want.shape
    assert np.array_equal(np.isnan(got), np.isnan(want)), "NaN where there is none, or none where there is one"
    same = (got == want.astype(got.dtype)) | np.isnan(want)
    same |= np.isinf(got) & (np.sign(got) * want > info.max * 0.999)
    same |= (got == 0) & (np.abs(want) < 2 * info.tiny)
    size = np.maximum(np.where(np.isfinite(want), np.abs(want), 0), np.maximum(scale, info.tiny))
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


# ---------------------------------------------------------------------------------------------------------- elementwise


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("dtype", DTYPES)
def test_functions_of_one_array_at_extremes(name, dtype):
    with np.errstate(all="ignore"):
        values = SPECIAL.astype(dtype)
    if name in ("sin", "cos"):
        values = values[~(np.abs(values) > 1e9)]  # nobody reduces huge arguments alike
    if FULL:
        values = np.concatenate([values, np.random.default_rng(0).normal(0, 30, 3000).astype(dtype)])
    if name == "silu":  # x times a number that is too small for dtype has few digits
        values = values[~(values < np.log(np.finfo(dtype).tiny))]
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
    if name == "logistic_backward":  # and of tanh, whose outputs near 1 must not lose what is left to 1
        tanh = np.tanh(one) * (1 - 2 * np.finfo(dtype).eps)
        check_everywhere(
            name, lambda g, y: REGISTRY[name].function(g, y, -1.0), lambda g, y: g * (1 - y) * (y + 1), two, tanh
        )


@pytest.mark.parametrize("isa", library.ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_exponential_does_not_depend_on_its_neighbors(dtype, isa):
    """The kernel takes the short way where no number nearby is extreme: sorted, most are among their like."""
    bound = 130 if dtype is np.float32 else 800
    x = np.linspace(-bound, bound, 3 * library.SMALL + 5).astype(dtype)
    order = np.random.default_rng(0).permutation(x.size)
    with np.errstate(all="ignore"), library.instruction_set(isa):
        got, mixed = ops.exp(x), ops.exp(x[order])
        assert ulps(got, np.exp(x.astype(more))) <= 2
    assert np.array_equal(got[order], mixed)
    assert 0 < got[got > 0].min() < np.finfo(dtype).tiny
    assert (got[0], got[-1]) == (0, np.inf)


# -------------------------------------------------------------------------------------------------------- rows and sums


def _logsumexp(x, dim):
    top = x.max(axis=dim, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    return np.log(np.exp(x - top).sum(axis=dim)) + top.squeeze(dim)


def _share(x, dim):
    """Softmax, and the scale of its error: an ulp more for each unit that x is below the largest."""
    below = x - x.max(axis=dim, keepdims=True)
    share = np.exp(below) / np.exp(below).sum(axis=dim, keepdims=True)
    return share, np.where(share > 0, share * (1 - below / ULPS), 0)


ROWS = {  # along the last axis: the op, the right values, the scale of the error beside the result's own
    "softmax": (lambda x: ops.softmax(x, -1), lambda x: _share(x, -1)),
    "log_softmax": (lambda x: ops.log_softmax(x, -1), lambda x: (x - _logsumexp(x, -1)[..., None], 1)),
    "logsumexp": (lambda x: ops.logsumexp(x, -1), lambda x: (_logsumexp(x, -1), 1)),
}


def rows(dtype, classes):
    """Logits near each other, far from each other, and -inf among them."""
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (3, 5, 4, classes)) * np.array([1e-30, 1, 20, 80, 700])[:, None, None]
    x[0, 1] += rng.choice([-50, 50, 1000], (4, 1))
    x[1, :, :, :: max(2, classes // 3)] = -np.inf
    return x.astype(dtype)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [2, 10, 300])
def test_softmax_and_its_relatives_at_extremes(name, dtype, classes):
    fn, reference = ROWS[name]
    x = rows(dtype, classes)
    with np.errstate(all="ignore"):
        want, scale = reference(x.astype(more))
        for number, laid in enumerate(layouts(x)):
            for way, got in ways(fn, laid):
                error = ulps(got, want, scale)
                assert error <= ULPS, f"{name} by {way}, layout {number}: {error:.1f} ulps"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [2, 10, 40, 300])
def test_cross_entropy_and_its_gradient_at_extremes(dtype, classes):
    x = np.moveaxis(rows(dtype, classes), -1, 1)  # (N, classes, 5, 4)
    target = np.random.default_rng(1).integers(0, classes, (3, 5, 4))
    onehot = np.moveaxis(target[..., None] == np.arange(classes), -1, 1)
    ones, backward = np.ones(target.shape, dtype), REGISTRY["cross_entropy_backward"].function
    with np.errstate(all="ignore"):
        log_p = x.astype(more) - _logsumexp(x.astype(more), 1)[:, None]
        loss = -np.take_along_axis(log_p, target[:, None], 1)[:, 0]
        share, scale = _share(x.astype(more), 1)
        for number, laid in enumerate(layouts(x)):
            for way, got in ways(lambda x: cross_entropy(x, target), laid):
                assert ulps(got, loss, 1) <= ULPS, f"{way}, layout {number}"
            for way, got in ways(lambda x: backward(x, target, ones), laid):
                assert ulps(got[~onehot], share[~onehot], scale[~onehot]) <= ULPS, f"{way}, layout {number}"
                assert ulps(got[onehot], share[onehot] - 1, 1) <= ULPS, f"{way}, layout {number}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 3000])
def test_losses_of_logits_at_extremes(dtype, size):
    """Binary cross entropy, and the gradients of it and of softplus, which are those of the report: 2.06e-9 at -20."""
    logits = np.repeat(np.array([-700.0, -80, -50, -20, -1, 0, 1, 20], dtype), size)
    exact = logits.astype(more)
    for labels in (np.zeros_like(logits), np.full_like(logits, 0.25), np.ones_like(logits)):
        x = leaf(logits, True)
        loss = binary_cross_entropy_with_logits(x, labels)
        loss.sum().backward()
        assert ulps(loss.numpy(), (1 - labels) * _softplus(exact) + labels * _softplus(-exact)) <= ULPS
        assert ulps(x.grad.numpy(), _sigmoid(exact) - labels, scale=float(labels[0])) <= ULPS
    x = leaf(logits, True)
    ops.softplus(x).sum().backward()
    assert ulps(x.grad.numpy(), _sigmoid(exact)) <= ULPS
    x = leaf(logits[3 * size :], True)
    ops.log(ops.sigmoid(x)).sum().backward()
    assert ulps(x.grad.numpy(), _sigmoid(-exact[3 * size :]), scale=1) <= ULPS


@pytest.mark.parametrize("cast", [np.uint8, np.int8, np.int64, bool])
def test_integers_count_as_floats_where_the_result_is_no_integer(cast):
    x = np.array([[0, 1, 3, 100], [100, 2, 1, 127]]).astype(cast)
    for name in (*UNARY, "softmax", "log_softmax", "logsumexp", "mean", "cross_entropy", "nll"):
        if name in ("neg", "abs", "sign", "relu", "clamp", "pow", "square"):
            continue
        fn = {**OF_ONE, "cross_entropy": lambda x: cross_entropy(x, np.array([0, 1])),
              "nll": lambda x: nll(x, np.array([0, 1])),
              **{k: v[0] for k, v in ROWS.items()}}.get(name, REGISTRY[name].function)  # fmt: skip
        with np.errstate(all="ignore"):
            want = np.asarray(fn(x.astype(np.float32)))
            for way, got in ways(fn, x):
                np.testing.assert_allclose(got, want, rtol=1e-6, err_msg=f"{name} by {way}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_losses_of_integer_images_do_not_wrap_around(dtype):
    for cast in (np.uint8, np.int16, np.int64):
        x, y = np.array([0, 200]).astype(cast), np.array([200, 0]).astype(cast)
        for a, b in itertools.product((x, tinygen.tensor(x)), (y, tinygen.tensor(y), y.astype(dtype))):
            assert F.l1_loss(a, b).item() == 200
            assert F.mse_loss(a, b).item() == 40_000


@pytest.mark.parametrize("cast", [np.uint8, np.int8, np.int64])
def test_layers_take_integer_images(cast):
    x = np.random.default_rng(0).integers(0, 100, (2, 3, 6, 6)).astype(cast)
    w = leaf(np.random.default_rng(1).standard_normal((4, 3, 3, 3)).astype(np.float32), True)
    for fn in (lambda x: F.conv2d(x, w), lambda x: F.conv_transpose2d(x, w[:3, :3]), lambda x: F.max_pool2d(x, 2),
               lambda x: F.avg_pool2d(x, 2), lambda x: F.linear(x, w[0, 0, :, :2].reshape(1, 6))):  # fmt: skip
        results = []
        for image in (x, x.astype(np.float32)):
            w.grad = None
            out = fn(tinygen.tensor(image))
            if out.requires_grad:
                out.sum().backward()
            results.append([out.numpy(), None if w.grad is None else w.grad.numpy()])
        np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-4, atol=1e-4)
        assert results[0][0].dtype == np.float32
        if results[1][1] is not None:
            np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-5)


@pytest.mark.parametrize("batch_first", [False, True])
def test_an_lstm_takes_arrays(batch_first):
    layer = nn.LSTM(3, 2, batch_first=batch_first, rng=np.random.default_rng(0))
    x = np.random.default_rng(1).integers(0, 9, (4, 5, 3))
    want = layer(leaf(x.astype(np.float32)))[0].numpy()
    for given in (x.astype(np.float32), x, x.astype(np.uint8), tinygen.tensor(x.astype(np.uint8))):
        np.testing.assert_allclose(layer(given)[0].numpy(), want, rtol=1e-5)


TENTH = np.float32(0.1)


MANY = 1 << (20 if FULL else 15)


@pytest.mark.parametrize("shape", [(MANY,), (MANY, 3), (3, MANY), (MANY, 2, 1, 3), (40, 300, 7, 3)])
def test_sums_over_any_axes_are_as_exact_as_in_pairs(shape):
    x = np.full(shape, TENTH)
    axes = [d for n in range(1, len(shape) + 1) for d in itertools.combinations(range(len(shape)), n)]
    views = [x, np.moveaxis(np.moveaxis(x, 0, -1).copy(), -1, 0), x[::-1], x[::2] if x.ndim == 1 else x[..., :2]]
    for dims, view in itertools.product(axes, views):
        want = more(TENTH) * np.prod([view.shape[d] for d in dims])
        for fn, right in ((ops.sum, want), (ops.mean, more(TENTH))):
            for way, got in ways(functools.partial(fn, dim=dims), view):
                assert ulps(got, np.broadcast_to(right, got.shape)) < 64, (fn, way, dims, view.strides)


@pytest.mark.parametrize("n", [1 << 17, 1 << 19])
def test_gradients_that_are_sums_over_many_rows(n):
    """Of a bias that was broadcast, of linear layers and convolutions, of batch norm, and its statistics."""
    x = np.full((n, 4), TENTH)
    want = more(TENTH) * n
    bias, weight = leaf(np.zeros(4, np.float32), True), leaf(np.zeros((4, 4), np.float32), True)
    image = np.moveaxis(x.reshape(n // 64, 8, 8, 4), -1, 1)
    kernel = leaf(np.zeros((4, 4, 1, 1), np.float32), True)
    for out, upstream in ((leaf(np.ones((n, 4), np.float32)) + bias, x),
                          (ops.linear(leaf(np.ones((n, 4), np.float32)), weight, bias), x),
                          (F.conv2d(leaf(np.ones_like(image)), kernel, bias), image)):  # fmt: skip
        for definition in (False, True):
            with tinygen.reference() if definition else tinygen.enable_grad():
                sources = (bias, weight, kernel)
                for p in sources:
                    p.grad = None
                out.backward(upstream, retain_graph=True)
                for p in sources:
                    if p.grad is not None:
                        assert ulps(p.grad.numpy(), np.broadcast_to(want, p.shape)) < 64
    for definition in (False, True):
        with tinygen.reference() if definition else tinygen.enable_grad():
            _, mean, _ = batch_norm(np.moveaxis(x + np.arange(2, dtype=np.float32).repeat(2), 1, -1))
            assert ulps(mean, more(TENTH) + np.arange(2).repeat(2), 1) < 64
    assert ulps(ops.sum_to(x, (4,)), np.broadcast_to(want, 4)) < 64
    product = ops.matmul(np.full((3, n), TENTH), np.ones((n, 5), np.float32))
    assert ulps(product, np.broadcast_to(want, (3, 5))) < 128


def test_a_running_sum_and_its_gradient():
    x = np.full((1 << 20, 2), TENTH)
    assert ulps(ops.cumsum(x, 0)[-1], np.broadcast_to(more(TENTH) * len(x), 2)) <= ULPS
    for upstream, want in (([1e8, 1, 1], [1e8, 2, 1]), ([np.inf, 1, 1], [np.inf, 2, 1]), ([1, 2, 3], [6, 5, 3])):
        for dim in (0, 1):
            shape = (3, 1) if dim == 0 else (1, 3)
            x = leaf(np.ones(shape, np.float32), True)
            ops.cumsum(x, dim).backward(np.array(upstream, np.float32).reshape(shape))
            np.testing.assert_array_equal(x.grad.numpy().ravel(), np.array(want, np.float32))


# -------------------------------------------------------------------------------------------------------- the other ops

# Ops that move values, pick them, or compare them: their results are their inputs' bits, or sums of those.
EXACT = {
    "argmax", "argmin", "argsort", "amax", "amin", "where", "reshape", "permute", "transpose", "flip", "roll", "tril",
    "triu", "broadcast_to", "getitem", "gather", "index_select", "cat", "cat_backward",
    "stack", "pad", "to", "transfer", "index_add", "scatter_add", "select_add", "window_spread", "max_pool2d",
    "all_reduce",
}  # fmt: skip
SUMS_OF_A_FEW = {"index_add", "scatter_add", "select_add", "window_spread"}
LAPACK = {"cholesky", "inverse", "slogdet", "solve"}  # as exact as the matrix's condition number lets them be
CANCEL = {"group_norm_backward"}  # of groups of two numbers: a difference of terms that are much larger
TESTED = {*UNARY, *BINARY, *ROWS, "sum", "mean", "sum_to", "cumsum", "cross_entropy", "cross_entropy_backward",
          "binary_cross_entropy_with_logits"}  # fmt: skip


def test_every_op_is_tested_for_what_it_is():
    others = set(REGISTRY) - EXACT - TESTED - LAPACK
    for name in others:
        doc = " ".join(REGISTRY[name].function.__doc__.split())
        assert "ulps" in doc or name == "nll", f"{name} doesn't say how exact it is"


def precise(case: Case):
    """The outputs of the definition in more digits, and the scale of their errors: the largest number in them."""
    args = [a.astype(more) if _is_float(a) else a for a in case.args]
    outs = case.op.body(*case.op._bind(args, dict(case.kwargs)))
    return [np.asarray(o) for o in (outs if isinstance(outs, tuple) else (outs,))]


@each_of([c for c in CASES if c.op.name not in TESTED | LAPACK | CANCEL])
@pytest.mark.parametrize("dtype", DTYPES)
def test_samples_against_the_definition_in_more_digits(case, dtype):
    """By what the docstring says: so many ulps of the largest element."""
    values = case.values(dtype)
    rounded = case._replace(args=tuple(a.astype(dtype) if _is_float(a) else a for a in case.args))
    for way, outs in (("plain", rounded.call(values, dtype)), ("kernel", _by_kernel(rounded, values, dtype)),
                      ("definition", _by_definition(rounded, values, dtype))):  # fmt: skip
        for got, want in zip(outs, precise(rounded), strict=True):
            got = np.asarray(got)
            if got.dtype.kind != "f" or case.op.name == "to":
                continue
            bound = 0.5 if case.op.name in EXACT - SUMS_OF_A_FEW else 16
            assert ulps(got, want, float(np.abs(want).max(initial=0))) <= bound, way


def _by_kernel(case, values, dtype):
    with library.every_size():
        return case.call(values, dtype)


def _by_definition(case, values, dtype):
    with tinygen.reference():
        return case.call(values, dtype)
