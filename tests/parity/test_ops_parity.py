"""Every op against PyTorch: values and gradients, float32 and float64, at kinks, ties and extremes too."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygen
from tinygen import ops
from tinygen._tensor import leaf
from tinygen.geometry import Geometry
from tinygen.nn import functional as F
from tinygen.tape import REGISTRY

TN = torch.nn.functional
FEW = settings(max_examples=40)
dtypes = st.sampled_from([np.float32, np.float64])
seeds = st.integers(0, 2**32 - 1)


def agree(got, want, terms=1):
    """Equal but for the rounding of `terms` summands; NaN only where PyTorch has NaN."""
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    assert not (np.isnan(got) & ~np.isnan(want)).any(), "NaN where PyTorch has none"
    finite = np.isfinite(want)
    infinite = np.isinf(want)
    np.testing.assert_array_equal(got[infinite], want[infinite])
    got, want = got[finite], want[finite]
    rounding = 16 * (1 + terms) * np.finfo(want.dtype).eps
    np.testing.assert_allclose(got, want, rtol=rounding, atol=rounding)


def compare(ours, theirs, arrays, terms=1, seed=0):
    """The same functions of the same arrays: the same values, and the same gradients by all of them."""
    mine = [leaf(np.array(a), True) for a in arrays]
    other = [torch.tensor(np.ascontiguousarray(a).reshape(a.shape), requires_grad=True) for a in arrays]
    with np.errstate(all="ignore"):
        y, z = ours(*mine), theirs(*other)
        y, z = y if isinstance(y, tuple) else (y,), z if isinstance(z, tuple) else (z,)
        rng = np.random.default_rng(seed)
        upstream = [rng.standard_normal(o.shape).astype(o.dtype) for o in y]
        got = tinygen.grad(y, mine, upstream)
    want = torch.autograd.grad(z, other, list(map(torch.tensor, upstream)), materialize_grads=True)
    for a, b in zip(y, z, strict=True):
        agree(a.numpy(), b.detach().numpy(), terms)
    for g, h in zip(got, want, strict=True):
        agree(g.numpy(), h.numpy(), terms)


def normal(seed, dtype, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(s).astype(dtype) for s in shapes]


# -------------------------------------------------------------------------------------------------------- elementwise

UNARY = {
    "neg": torch.neg, "exp": torch.exp, "expm1": torch.expm1, "log": torch.log, "log1p": torch.log1p,
    "sqrt": torch.sqrt, "sin": torch.sin, "cos": torch.cos, "tanh": torch.tanh, "sigmoid": torch.sigmoid,
    "relu": torch.relu, "silu": TN.silu, "square": torch.square, "rsqrt": torch.rsqrt, "erf": torch.erf,
    "abs": torch.abs, "softplus": functools.partial(TN.softplus, threshold=80), "leaky_relu": TN.leaky_relu,
    "elu": TN.elu,
}  # fmt: skip
BINARY = {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "maximum": torch.maximum,
          "minimum": torch.minimum}  # fmt: skip
FLAT = {
    "sign": torch.sign,
    "gt": torch.gt,
    "ge": torch.ge,
    "lt": torch.lt,
    "le": torch.le,
    "eq": torch.eq,
    "ne": torch.ne,
}
SPECIAL = [0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 2.0, 1e-8, -1e-8, 1e4, -1e4, 100.0, -100.0, math.inf, -math.inf]


def values(dtype):
    """Numbers of ordinary size, and those at which functions have kinks, poles and limits."""
    width = 32 if dtype == np.float32 else 64
    tiny = float(np.finfo(dtype).smallest_subnormal)
    special = [float(dtype(v)) for v in (*SPECIAL, tiny, -tiny, np.finfo(dtype).tiny, np.finfo(dtype).max)]
    return st.one_of(st.sampled_from(special), st.floats(-8, 8, width=width))


@st.composite
def one_array(draw, max_dims=3, min_side=0):
    dtype = draw(dtypes)
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=max_dims, min_side=min_side, max_side=4))
    return draw(hnp.arrays(dtype, shape, elements=values(dtype)))


@st.composite
def two_arrays(draw):
    dtype = draw(dtypes)
    shapes = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=3)).input_shapes
    return [draw(hnp.arrays(dtype, s, elements=values(dtype))) for s in shapes]


@pytest.mark.fault("G03", "G10", "G11")
@pytest.mark.parametrize("name", UNARY)
@given(x=one_array())
@FEW
def test_functions_of_one_array(name, x):
    if name in ("sin", "cos"):
        x = np.where(np.abs(x) < 1e9, x, x.dtype.type(1))  # nobody reduces huge arguments alike
    compare(REGISTRY[name].function, UNARY[name], [x])


@pytest.mark.fault("G03", "G05", "G10", "G11")
@pytest.mark.parametrize("name", BINARY)
@given(arrays=two_arrays(), seed=seeds)
@FEW
def test_functions_of_two_arrays(name, arrays, seed):
    with np.errstate(all="ignore"):
        if name == "div":
            x, y = arrays
            assume(not (np.isfinite(x / y) & np.isinf(x / y / y)).any())  # PyTorch computes that, and overflows sooner
        compare(REGISTRY[name].function, BINARY[name], arrays, terms=81, seed=seed)


@pytest.mark.parametrize("name", FLAT)
@given(arrays=two_arrays())
@FEW
def test_comparisons_and_sign(name, arrays):
    arrays = arrays[: 1 if name == "sign" else 2]
    got = REGISTRY[name].function(*map(leaf, arrays)).numpy()
    np.testing.assert_array_equal(got, FLAT[name](*map(torch.tensor, arrays)).numpy())


@given(x=one_array(), exponent=st.sampled_from([0, 1, 2, 3, -1, -2, 0.5, 1.5, 2.0]))
@pytest.mark.fault("G03", "G10", "G11")
def test_pow(x, exponent):
    x = x + 0.0 if exponent == 0.5 else x  # at -0 PyTorch takes the slope of sqrt, -inf, not pow's +inf
    compare(lambda t: t**exponent, lambda t: t**exponent, [x])


@given(x=one_array(), low=st.sampled_from([None, -1.0, 0.0, 0.5]), high=st.sampled_from([None, 0.5, 1.0, 2]))
@pytest.mark.fault("G03", "G10", "G11")
def test_clamp(x, low, high):
    if low is None and high is None:
        return  # PyTorch refuses that
    compare(lambda t: t.clamp(low, high), lambda t: t.clamp(low, high), [x])


@given(x=one_array(), slope=st.sampled_from([0.0, 0.01, 0.2, 1.0]))
@pytest.mark.fault("G03", "G10")
def test_slopes_of_leaky_relu_and_elu(x, slope):
    compare(lambda t: ops.leaky_relu(t, slope), lambda t: TN.leaky_relu(t, slope), [x])
    compare(lambda t: ops.elu(t, slope), lambda t: TN.elu(t, slope), [x])


@given(arrays=two_arrays(), seed=seeds)
@pytest.mark.fault("G03", "G05")
def test_where(arrays, seed):
    condition = np.random.default_rng(seed).random(np.broadcast_shapes(*(a.shape for a in arrays))) > 0.5
    compare(
        functools.partial(ops.where, condition), functools.partial(torch.where, torch.tensor(condition)), arrays, 81
    )


# --------------------------------------------------------------------------------------------------------- reductions


@st.composite
def reductions(draw):
    """An array with ties, axes or None, keepdim."""
    dtype = draw(dtypes)
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=3))
    x = draw(hnp.arrays(dtype, shape, elements=st.integers(-3, 3).map(dtype)))
    dims = draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True))
    dims = tuple(d - len(shape) if draw(st.booleans()) else d for d in dims)
    return x, draw(st.sampled_from([dims, dims[0]])), draw(st.booleans())


@pytest.mark.parametrize("name", ["sum", "mean", "amax", "amin", "logsumexp"])
@given(reductions(), seeds)
@pytest.mark.fault("G03", "G10")
@FEW
def test_reductions(name, case, seed):
    x, dim, keepdim = case
    fn = REGISTRY[name].function
    compare(lambda t: fn(t, dim, keepdim), lambda t: getattr(torch, name)(t, dim, keepdim), [x], 27, seed)
    compare(lambda t: fn(t, dim, keepdim=keepdim).sum(), lambda t: getattr(torch, name)(t, dim, keepdim).sum(), [x], 81)
    if name != "logsumexp":
        whole = getattr(torch, name)
        compare(fn, whole if name in ("sum", "mean") else lambda t: whole(t, tuple(range(t.ndim))), [x], 81)


@given(reductions())
def test_argmax(case):
    x, dim, _ = case
    dim = dim if isinstance(dim, int) else dim[0]
    # Of equals NumPy takes the first; PyTorch promises none.
    got = ops.argmax(leaf(x), dim).numpy()
    top = np.take_along_axis(x, np.expand_dims(got, dim), dim)
    np.testing.assert_array_equal(top, x.max(axis=dim, keepdims=True))
    x = np.random.default_rng(0).permutation(x.size).reshape(x.shape).astype(x.dtype)
    np.testing.assert_array_equal(ops.argmax(leaf(x), dim).numpy(), torch.argmax(torch.tensor(x), dim).numpy())
    assert ops.argmax(leaf(x)).item() == torch.argmax(torch.tensor(x)).item()


@st.composite
def logits(draw):
    dtype = draw(dtypes)
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=4))
    elements = st.one_of(st.sampled_from([0.0, 1e4, -1e4, -math.inf]), st.floats(-20, 20, width=32)).map(dtype)
    return draw(hnp.arrays(dtype, shape, elements=elements)), draw(st.integers(-len(shape), len(shape) - 1))


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
@given(case=logits(), seed=seeds)
@pytest.mark.fault("G03", "G11")
@FEW
def test_softmax_family(name, case, seed):
    x, dim = case
    terms = 1e4 if name == "logsumexp" else 4  # at 1e4 a gradient of exp(x - out) has out's rounding
    compare(lambda t: getattr(t, name)(dim), lambda t: getattr(t, name)(dim), [x], terms, seed)


@given(reductions(), seeds)
@FEW
@pytest.mark.fault("G03")
def test_cumsum(case, seed):
    x, dim, _ = case
    dim = dim if isinstance(dim, int) else dim[0]
    compare(lambda t: t.cumsum(dim), lambda t: t.cumsum(dim), [x], 4, seed)


# ------------------------------------------------------------------------------------------------------------- shapes


@given(st.data(), dtypes, seeds)
@pytest.mark.fault("G03", "G04")
def test_reshape_permute_transpose_flip_expand(data, dtype, seed):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=3))
    n = len(shape)
    axis = st.integers(-n, n - 1)
    new = data.draw(st.sampled_from([(-1,), (1, *shape), shape[::-1], (*shape[:-1], 1, shape[-1])]))
    new = (math.prod(shape),) if new == (-1,) and not math.prod(shape) else new
    dims = tuple(data.draw(st.permutations(range(n))))
    i, j = data.draw(axis), data.draw(axis)
    flips = tuple(data.draw(st.sets(st.integers(0, n - 1))))
    wide = (2, *shape)
    x = normal(seed, dtype, shape)
    for ours, theirs in (
        (lambda t: t.reshape(new), lambda t: t.reshape(new)), (lambda t: t.reshape(*new), lambda t: t.reshape(*new)),
        (lambda t: t.permute(dims), lambda t: t.permute(dims)),
        (lambda t: t.permute(*dims), lambda t: t.permute(*dims)),
        (lambda t: t.transpose(i, j), lambda t: t.transpose(i, j)), (lambda t: t.flip(flips), lambda t: t.flip(flips)),
        (lambda t: t.expand(wide), lambda t: t.expand(wide)), (lambda t: t.expand(*wide), lambda t: t.expand(*wide)),
        (lambda t: ops.sum_to(t, (*shape[:-1], 1)), lambda t: t.sum_to_size((*shape[:-1], 1))),
        (lambda t: ops.broadcast_to(t, wide), lambda t: torch.broadcast_to(t, wide)),
    ):  # fmt: skip
        compare(ours, theirs, x, 4, seed)


@given(st.data(), dtypes, seeds)
@pytest.mark.fault("G03")
def test_indexing(data, dtype, seed):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=4))
    basic = data.draw(hnp.basic_indices(shape, allow_newaxis=True))
    parts = basic if isinstance(basic, tuple) else (basic,)
    if not any(isinstance(p, slice) and p.step is not None and p.step < 0 for p in parts):  # PyTorch has none
        compare(lambda t: t[basic], lambda t: t[basic], normal(seed, dtype, shape), 1, seed)
    index = data.draw(
        hnp.integer_array_indices(shape, result_shape=hnp.array_shapes(max_dims=2, min_side=0, max_side=3))
    )
    theirs = tuple(map(torch.tensor, index))
    compare(lambda t: t[index], lambda t: t[theirs], normal(seed, dtype, shape), 9, seed)
    y = normal(seed, dtype, index[0].shape)
    zeros = torch.zeros(shape, dtype=torch.float32 if dtype == np.float32 else torch.float64)
    compare(lambda t: ops.index_add(t, index, shape), lambda t: zeros.index_put(theirs, t, accumulate=True), y, 9, seed)
    mask = np.random.default_rng(seed).random(shape) > 0.5
    compare(lambda t: t[mask], lambda t: t[torch.tensor(mask)], normal(seed, dtype, shape), 1, seed)


@given(st.data(), dtypes, seeds)
@pytest.mark.fault("G03")
def test_gather_and_scatter_add(data, dtype, seed):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=4))
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    smaller = [data.draw(st.integers(1, n)) for n in shape]
    smaller[dim] = data.draw(st.integers(1, 6))
    index = np.random.default_rng(seed).integers(0, shape[dim], smaller)
    i = torch.tensor(index)
    compare(lambda t: t.gather(dim, index), lambda t: t.gather(dim, i), normal(seed, dtype, shape), 6, seed)
    zeros = torch.zeros(shape, dtype=torch.float32 if dtype == np.float32 else torch.float64)
    compare(lambda t: ops.scatter_add(t, dim, index, shape), lambda t: zeros.scatter_add(dim, i, t),
            normal(seed, dtype, smaller), 6, seed)  # fmt: skip


@given(st.data(), dtypes, seeds)
@pytest.mark.fault("G03")
def test_cat_stack_and_pad(data, dtype, seed):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=3))
    n, count = len(shape), data.draw(st.integers(1, 3))
    dim = data.draw(st.integers(-n, n - 1))
    shapes = [list(shape) for _ in range(count)]
    for s in shapes:
        s[dim] = data.draw(st.integers(0, 3))
    compare(lambda *t: tinygen.cat(t, dim), lambda *t: torch.cat(t, dim), normal(seed, dtype, *shapes), 1, seed)
    new = data.draw(st.integers(-n - 1, n))
    same = normal(seed, dtype, *[shape] * count)
    compare(lambda *t: tinygen.stack(t, new), lambda *t: torch.stack(t, new), same, 1, seed)
    widths = tuple(tuple(data.draw(st.integers(0, 2)) for _ in range(2)) for _ in shape)
    flat = [w for pair in widths[::-1] for w in pair]
    compare(lambda t: ops.pad(t, widths), lambda t: TN.pad(t, flat), same[:1], 1, seed)


@given(one_array())
def test_to(x):
    for ours, theirs in ((np.float32, torch.float32), (np.float64, torch.float64)):
        compare(lambda t, d=ours: t.to(d), lambda t, d=theirs: t.to(d), [np.clip(x, -1e30, 1e30)])


# ----------------------------------------------------------------------------------------- matrices and convolution


@given(st.data(), dtypes, seeds)
@pytest.mark.fault("G03", "G04", "G05")
def test_matmul(data, dtype, seed):
    m, k, n = (data.draw(st.integers(0, 4)) for _ in range(3))
    stacks = data.draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=2, max_side=3)).input_shapes
    left = data.draw(st.sampled_from([(k,), (*stacks[0], m, k)]))
    right = data.draw(st.sampled_from([(k,), (*stacks[1], k, n)]))
    compare(tinygen.matmul, torch.matmul, normal(seed, dtype, left, right), 40, seed)


@given(st.data(), dtypes, seeds, st.booleans())
@pytest.mark.fault("G03", "G04")
def test_linear(data, dtype, seed, biased):
    lead = data.draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3))
    i, o = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    arrays = normal(seed, dtype, (*lead, i), (o, i), (o,))[: 3 if biased else 2]
    compare(ops.linear, TN.linear, arrays, 16, seed)


@st.composite
def geometries(draw):
    """Shapes, stride, padding and dilation of a convolution that has at least one output pixel."""
    pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
    kernel, stride, dilation = draw(pairs), draw(pairs), draw(pairs)
    padding = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    least = [max(1, d * (k - 1) + 1 - 2 * p) for d, k, p in zip(dilation, kernel, padding, strict=True)]
    size = tuple(n + draw(st.integers(0, 4)) for n in least)
    n, i, o = (draw(st.integers(1, 3)) for _ in range(3))
    return (n, i, *size), (o, i, *kernel), stride, padding, dilation


@given(geometries(), dtypes, seeds)
@pytest.mark.fault("G03")
@settings(max_examples=60)
def test_the_convolution_family(case, dtype, seed):
    image, kernel, *rest = case
    stride, padding, dilation = rest
    geometry = Geometry(*rest)
    x, w, b, c = normal(seed, dtype, image, kernel, kernel[:1], kernel[1:2])
    compare(lambda *t: ops.conv2d(*t, geometry), lambda *t: TN.conv2d(*t, *rest), [x, w, b], 64, seed)
    y = ops.conv2d(x, w, None, geometry)
    extra = tuple(
        n - ((m - 1) * s - 2 * p + d * (k - 1) + 1)
        for n, m, s, p, d, k in zip(image[2:], y.shape[2:], stride, padding, dilation, kernel[2:], strict=True)
    )
    if all(e < max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):  # what PyTorch can say
        compare(
            lambda *t: ops.conv_transpose2d(*t, image[2:], geometry),
            lambda *t: TN.conv_transpose2d(*t, stride, padding, extra, 1, dilation), [y, w, c], 64, seed,
        )  # fmt: skip
    got, bias = ops.conv2d_weight(x, y, kernel[2:], geometry)
    want = torch.nn.grad.conv2d_weight(
        *map(torch.tensor, (x,)), kernel, torch.tensor(y.copy()), stride, padding, dilation
    )
    agree(np.ascontiguousarray(got), want.numpy(), 512)
    agree(bias, y.sum((0, 2, 3)), 512)


@given(st.sampled_from("AB"), st.sampled_from([1, 3]), st.sampled_from([1, 3, 5]), dtypes, seeds)
@pytest.mark.fault("G03")
@FEW
def test_a_masked_convolution_is_one_with_a_masked_weight(mask, channels, k, dtype, seed):
    o, i, half = 2 * channels, channels, k // 2
    keep = np.zeros((o, i, k, k), dtype)
    for a, b in np.ndindex(o, i):
        before = a * channels // o > b * channels // i or (mask == "B" and a * channels // o == b * channels // i)
        keep[a, b].reshape(-1)[: half * k + half + before] = 1
    kept = torch.tensor(keep)
    compare(lambda *t: ops.conv2d(*t, Geometry(padding=(half, half), mask=mask, channels=channels)),
            lambda x, w, b: TN.conv2d(x, w * kept, b, padding=half),
            normal(seed, dtype, (2, i, 4, 3), (o, i, k, k), (o,)), 64, seed)  # fmt: skip


@given(st.integers(1, 3), st.integers(0, 2), st.sampled_from([(), (3,), (2, 3)]), dtypes, seeds)
@pytest.mark.fault("G03")
@FEW
def test_an_affine_coupling(k, start, sides, dtype, seed):
    def theirs(x, both):
        s, t = both.chunk(2, 1)
        s = 2 * torch.tanh(s / 2)
        y2 = x[:, start : start + k] * s.exp() + t
        return torch.cat([x[:, :start], y2, x[:, start + k :]], 1), s.flatten(1).sum(1)

    arrays = normal(seed, dtype, (2, 5, *sides), (2, 2 * k, *sides))
    for i in range(2):
        compare(lambda x, both, i=i: ops.affine_coupling(x, both, start)[i], lambda *t, i=i: theirs(*t)[i], arrays, 64,
                seed)  # fmt: skip


@given(st.sampled_from([(), (3,), (2, 3)]), dtypes, seeds)
@pytest.mark.fault("G03")
@FEW
def test_a_scale_and_a_shift_of_each_channel(sides, dtype, seed):
    shape = (1, -1, *[1] * len(sides))
    compare(ops.channel_affine, lambda x, w, b: x * w.view(shape) + b.view(shape),
            normal(seed, dtype, (2, 5, *sides), (5,), (5,)), 64, seed)  # fmt: skip


# ------------------------------------------------------------------------------------------------------- completeness


def test_every_op_is_compared():
    here = {
        *UNARY, *BINARY, *FLAT, "pow", "clamp", "where", "sum", "mean", "amax", "amin", "argmax", "logsumexp",
        "softmax", "log_softmax", "cumsum", "reshape", "permute", "transpose", "flip", "broadcast_to", "sum_to",
        "getitem", "index_add", "gather", "scatter_add", "cat", "stack", "pad", "to", "matmul", "linear", "conv2d",
        "conv_transpose2d", "conv2d_weight", "affine_coupling", "channel_affine",
    }  # fmt: skip
    # Ops named .._backward are rules, compared as the gradients of their ops.
    # the ops of network functions: test_nn_parity, test_norms_parity
    elsewhere = {"attention", "loss", "recurrent", "normalize", "pooling"}
    # test_functions_parity, with the functions that are made of them; select_add is the gradient of index_select
    elsewhere |= {"order", "matrices"}
    here |= {"argmin", "index_select", "select_add", "roll", "tril", "triu"}
    # a model's, compared with it; what moves arrays, which PyTorch does by a method; sums of several processes
    elsewhere |= {"nade", "device", "ranks"}
    others = [
        name for name, op in REGISTRY.items()
        if op.function.__module__.split(".")[-1] not in elsewhere and not name.endswith("_backward")
    ]  # fmt: skip
    assert set(others) == here


# ------------------------------------------------------------------------------------------------------ NaNs and ties


@st.composite
def with_nans(draw, rank=2):
    """An array of few values, so with ties, NaNs and infinities among them."""
    shape = tuple(draw(st.integers(1, 5)) for _ in range(rank))
    return draw(
        hnp.arrays(np.float32, shape, elements=st.sampled_from([0.0, 1.0, -1.0, math.nan, math.inf, -math.inf]))
    )


def same(ours, theirs, *arrays, upstream=None):
    """Values and gradients are PyTorch's, NaN where those are."""
    mine, other = [leaf(a.copy(), True) for a in arrays], [torch.tensor(a, requires_grad=True) for a in arrays]
    with np.errstate(all="ignore"):
        y, z = ours(*mine), theirs(*other)
        g = np.arange(1, z.numel() + 1, dtype=np.float32).reshape(z.shape) if upstream is None else upstream
        y.backward(g)
    z.backward(torch.tensor(g))
    np.testing.assert_array_equal(y.numpy(), z.detach().numpy())
    for p, q in zip(mine, other, strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-6)


@settings(max_examples=100)
@given(with_nans(), st.data(), st.sampled_from([1.0, math.inf]))
def test_gradients_of_choices_at_nan_ties_and_infinities(x, data, most):
    y = data.draw(hnp.arrays(np.float32, x.shape, elements=st.sampled_from([0.0, 1.0, math.nan, math.inf])))
    upstream = np.full(x.shape, most, np.float32)
    same(ops.maximum, torch.maximum, x, y, upstream=upstream)
    same(ops.minimum, torch.minimum, x, y, upstream=upstream)
    for low, high in ((-1.0, 1.0), (None, 0.0), (0.0, None)):
        same(lambda t: t.clamp(low, high), lambda t: t.clamp(low, high), x, upstream=upstream)  # noqa: B023
    dim = data.draw(st.sampled_from([0, 1]))
    for name in ("amax", "amin"):
        same(lambda t: getattr(ops, name)(t, dim), lambda t: getattr(torch, name)(t, dim), x)  # noqa: B023
    for name in ("max", "min"):
        same(lambda t: getattr(ops, name)(t, dim).values, lambda t: getattr(torch, name)(t, dim).values, x)  # noqa: B023
    got, want = ops.argmax(x, dim), torch.argmax(torch.tensor(x), dim).numpy()
    nans = np.isnan(x).any(axis=dim)
    assert np.isnan(np.take_along_axis(x, np.expand_dims(got, dim), dim).squeeze(dim))[nans].all()
    assert np.isnan(np.take_along_axis(x, np.expand_dims(want, dim), dim).squeeze(dim))[nans].all()


@settings(max_examples=100)
@given(with_nans(4), st.sampled_from([(1, 1, 0), (2, 1, 0), (2, 2, 1), (3, 1, 1), (3, 2, 1)]))
def test_max_pooling_passes_the_gradient_to_the_nan(x, window):
    kernel, stride, padding = window
    if min(x.shape[2:]) + 2 * padding >= kernel:
        same(lambda t: F.max_pool2d(t, kernel, stride, padding),
             lambda t: TN.max_pool2d(t, kernel, stride, padding), x)  # fmt: skip


@settings(max_examples=100)
@given(st.sampled_from(["sigmoid", "tanh", "softplus", "elu", "log_softmax", "softmax"]), st.data(), dtypes)
def test_functions_far_from_0_by_relative_error(name, data, dtype):
    """Where `agree` counts what is small as 0."""
    elements, row = st.floats(-80, 80, width=32).map(dtype), (-1,) if "softmax" in name else ()
    columns = 4 if row else data.draw(st.sampled_from([4, 2000]))  # PyTorch's own sum of 2,000 is off by 200 ulps
    x = data.draw(hnp.arrays(dtype, (3, columns), elements=elements, fill=elements))
    mine, other = leaf(x, True), torch.tensor(x, requires_grad=True)
    theirs = functools.partial(TN.softplus, threshold=1000) if name == "softplus" else getattr(TN, name)
    y, z = REGISTRY[name].function(mine, *row), theirs(other, *row)
    np.testing.assert_allclose(y.numpy(), z.detach().numpy(), rtol=100 * np.finfo(dtype).eps, atol=1e-37)
    y.backward(np.ones_like(x)), z.backward(torch.ones_like(other))
    if name in ("sigmoid", "softplus", "elu"):
        np.testing.assert_allclose(mine.grad.numpy(), other.grad.numpy(), rtol=1e-5, atol=1e-37)


@settings(max_examples=60)
@given(reductions(), st.integers(0, 2**32 - 1), st.sampled_from([1, 50, 200]))
def test_sums_of_long_axes_in_any_layout(case, seed, times):
    x, dim, keepdim = case
    rng = np.random.default_rng(seed)
    long = np.repeat(x, times, axis=rng.integers(x.ndim)).transpose(rng.permutation(x.ndim))
    fn = functools.partial
    for ours, theirs in ((ops.sum, torch.sum), (ops.mean, torch.mean)):
        compare(fn(ours, dim=dim, keepdim=keepdim), fn(theirs, dim=dim, keepdim=keepdim), [long], 81, seed)
