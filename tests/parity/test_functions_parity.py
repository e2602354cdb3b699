"""Functions made of ops, and options of network functions, against PyTorch: values, gradients, and their gradients."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as TF
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import tinygen
from tinygen import linalg
from tinygen._tensor import leaf
from tinygen.nn import functional as F

FEW = settings(max_examples=40)
seeds = st.integers(0, 2**32 - 1)
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


def flat(results):
    return [results] if hasattr(results, "shape") else [x for part in results for x in flat(part)]


def agree(got, want, what=""):
    assert got.shape == tuple(want.shape), what
    want = want.detach().numpy()
    assert got.dtype == want.dtype, what
    np.testing.assert_allclose(got.numpy(), want, 1e-9, 1e-9 * max(1, np.abs(want).max(initial=0)), err_msg=what)


def compare(ours, theirs, *arrays, second=True):
    """Values, gradients and, with random weights, the gradients of these: all agree. Integers are passed on."""
    arrays = [np.asarray(a) for a in arrays]
    mine = [leaf(a.copy(), a.dtype.kind == "f") for a in arrays]
    other = [torch.tensor(np.ascontiguousarray(a).reshape(a.shape), requires_grad=a.dtype.kind == "f") for a in arrays]
    rng = np.random.default_rng(0)
    with np.errstate(all="ignore"):
        ys, zs = flat(ours(*mine)), flat(theirs(*other))
        assert len(ys) == len(zs)
        for y, z in zip(ys, zs, strict=True):
            agree(y, z, "value")
        mine, other = ([x for x in xs if x.requires_grad] for xs in (mine, other))
        ys, zs = [y for y in ys if y.requires_grad], [z for z in zs if z.requires_grad]
        assert len(ys) == len(zs)
        if not ys:
            return
        for order in ("gradient", "second order") if second else ("gradient",):
            upstream = [rng.standard_normal(y.shape) for y in ys]
            ys = tinygen.grad(ys, mine, upstream, create_graph=second)
            weights = list(map(torch.tensor, upstream))
            zs = torch.autograd.grad(zs, other, weights, create_graph=second, materialize_grads=True)
            for y, z in zip(ys, zs, strict=True):
                agree(y, z, order)
            live = [(y, z) for y, z in zip(ys, zs, strict=True) if z.requires_grad and y.requires_grad]
            ys, zs = [y for y, _ in live], [z for _, z in live]
            if not ys:
                return


def normal(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


def both(name, *args, **options):
    """The function of that name here and there, with these arguments after the first."""
    return [lambda x, m=m: getattr(m, name)(x, *args, **options) for m in (tinygen, torch)]


# --------------------------------------------------------------------------------------------------------- over axes

AXES = [{}, {"dim": 0}, {"dim": -1, "keepdim": True}, {"dim": (0, 2)}, {"dim": (1, -1), "keepdim": True}]


@pytest.mark.parametrize("options", AXES)
@pytest.mark.parametrize("name", ["var", "std", "norm", "amin", "amax"])
def test_functions_over_axes(name, options):
    compare(*both(name, **options), *normal((2, 3, 4)))


@pytest.mark.parametrize("options", [{"correction": 0}, {"unbiased": False}, {"dim": 1, "correction": 2.0}])
@pytest.mark.parametrize("name", ["var", "std"])
def test_variances_by_their_correction(name, options):
    options = {"dim": (0, 1), **options}
    compare(*both(name, **options), *normal((4, 5)))
    compare(lambda x: getattr(x, name)(0, False, True), lambda x: getattr(x, name)(0, False, True), *normal((4, 5)))
    compare(lambda x: getattr(x, name)(False), lambda x: getattr(x, name)(False), *normal((4, 5)))


def test_roots_have_the_slope_0_at_0():
    flat = np.array([[1.5, 1.5, 1.5], [1.0, 2.0, 4.0]])
    compare(*both("std", 1), flat, second=False)
    zeros = np.array([[0.0, 0.0], [3.0, 0.0]])
    for p, dim in itertools.product((1, 2, 3, 1.5, 0.5, math.inf), (None, 1)):
        compare(*both("norm", p, dim), zeros, second=False)
    compare(lambda x: linalg.norm(x, -1, 1), lambda x: torch.linalg.norm(x, -1, 1), zeros, second=False)


@pytest.mark.parametrize("zeros", [0, 1, 2, 3])
@pytest.mark.parametrize("options", [(), (0,), (1, True), (-1,)])
def test_prod(zeros, options):
    (x,) = normal((3, 5))
    x[1, :zeros] = 0
    compare(*both("prod", *options), x)


def test_products_and_softmax_of_nothing():
    empty = np.zeros((2, 0, 3))
    for options in ((), (1,), (0, True)):
        compare(*both("prod", *options), empty)
    compare(*both("softmax", -1), empty)
    compare(*both("log_softmax", -2), empty)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_as_function_and_method(name):
    compare(*both(name, 0), *normal((3, 4)))
    compare(lambda x: getattr(x, name)(-1), lambda x: getattr(x, name)(-1), *normal((3, 4)))


# --------------------------------------------------------------------------------------------------------- by order


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_what_is_picked_and_where_it_stood(dim):
    (x,) = normal((3, 4, 5))
    for name, keepdim in itertools.product(("max", "min"), (False, True)):
        compare(*both(name, dim, keepdim), x)
        got = getattr(tinygen, name)(leaf(x), dim)
        assert got.values is got[0]
        assert got.indices is got[1]
    for name, keepdim in itertools.product(("argmax", "argmin"), (False, True)):
        compare(*both(name, dim, keepdim), x)
    for descending in (False, True):
        compare(*both("sort", dim, descending), x)
        compare(*both("argsort", dim, descending), x)
        compare(*both("topk", 2, dim, descending), x)


def test_ties_and_nan():
    ties = np.array([[1.0, 3.0, 3.0, 0.0], [2.0, 2.0, 2.0, 2.0], [0.0, -0.0, -1.0, 0.0]])
    for name in ("max", "min"):
        compare(*both(name), ties, second=False)  # shared evenly
        compare(*both(name, 1), ties)  # the first
        compare(*both(name), *[np.array(3.0)])
        compare(*both(name, 0), *[np.array(3.0)])
        compare(*both("sort", dim=1, descending=name == "max", stable=True), ties)
    x = np.array([1.0, np.nan, -np.inf, np.inf, 0.0])
    for name in ("argmax", "argmin", "argsort"):
        compare(*both(name), x)
    assert np.isnan(tinygen.max(leaf(x), 0).values.numpy())
    compare(lambda x, y: tinygen.max(x, y) - tinygen.min(x, y), lambda x, y: torch.max(x, y) - torch.min(x, y),
            ties, ties[::-1].copy(), second=False)  # fmt: skip


def test_a_topk_that_is_too_long_is_refused():
    with pytest.raises(ValueError, match=r"topk: k must be in 0\.\.3, the length of dim -1, got 4"):
        tinygen.topk(leaf(np.zeros((2, 3))), 4)


# ------------------------------------------------------------------------------------------------------- elementwise


@pytest.mark.parametrize(("base", "exponent"), [
    ([0.5, 1.0, 2.0, 3.0], [-1.0, 0.0, 0.5, 2.0]),
    ([[0.5], [2.0]], [1.0, 0.0, -2.0]),
    (2.0, [-1.0, 0.0, 3.0]),
    ([1.0, -2.0, 0.5, -1.5], [2, 3, 0, -1]),
    (0.0, [0.0, 1.0, 2.5]),
])  # fmt: skip
def test_pow_of_arrays(base, exponent):
    # At the exponent 0 PyTorch takes d/dx x^y to be 0 whatever y, which is wrong from the second order on.
    second = bool(np.all(exponent)) or not isinstance(exponent[0], float)
    compare(lambda x, y: x**y, lambda x, y: x**y, np.array(base), np.array(exponent), second=second)
    if isinstance(base, float):
        compare(lambda y: base**y, lambda y: base**y, np.array(exponent), second=base > 0)


def test_pow_at_zero_and_below():
    base, exponent = np.array([0.0, 0.0, 0.0, 0.0, -2.0, -2.0]), np.array([0.0, 1.0, 2.0, 0.5, 2.0, 3.0])
    compare(lambda x: x ** leaf(exponent), lambda x: x ** torch.tensor(exponent), base, second=False)
    compare(lambda y: leaf(base[:4]) ** y, lambda y: torch.tensor(base[:4]) ** y, exponent[:4], second=False)


def test_clamp_by_arrays():
    x, low, high = np.array([-2.0, -1.0, 0.0, 1.0, 2.0]), np.full(5, -1.0), np.array([1.0, 1.0, -3.0, 1.0, 1.5])
    compare(lambda *a: a[0].clamp(*a[1:]), lambda *a: torch.clamp(*a), x, low, high)
    compare(lambda a, b: a.clamp(max=b), lambda a, b: torch.clamp(a, max=b), x, high[:1])
    compare(lambda a, b: a.clamp(b), torch.clamp, x[:, None], low)


def test_clamp_where_they_meet():
    x, low, high = np.indices((3, 3, 3)).astype(np.float64)
    compare(lambda *a: a[0].clamp(*a[1:]), lambda *a: torch.clamp(*a), x, low, high)
    compare(lambda a, b: a.clamp(b), torch.clamp, x, low)
    compare(lambda a, b: a.clamp(max=b), lambda a, b: torch.clamp(a, max=b), x, high)


# ------------------------------------------------------------------------------------------------------------ shapes


def test_moved_and_selected():
    (x,) = normal((3, 4, 5))
    for options in ((2,), (-1, 0), ((3, -7), (1, 2))):
        compare(*both("roll", *options), x)
    for diagonal in (-2, 0, 1):
        compare(*both("tril", diagonal), x)
        compare(*both("triu", diagonal), x)
    for dim in (0, -1):
        index = np.array([2, 0, 2, 1])
        compare(lambda t, i, d=dim: t.index_select(d, i), lambda t, i, d=dim: t.index_select(d, i), x, index)
    for sizes in ((2, 3, 4, 5), (-1, -1, -1), (7, -1, 4, -1)):
        compare(lambda t, s=sizes: t.expand(*s), lambda t, s=sizes: t.expand(*s), x if sizes[0] != 7 else x[:1])
    compare(tinygen.outer, torch.outer, *normal((3,), (4,)))
    compare(lambda t, i: t.gather(0, i), lambda t, i: t.gather(0, i), np.array(2.5), np.array([0, 0]))
    compare(lambda t, i: t.gather(0, i), lambda t, i: t.gather(0, i), *normal((3,)), np.array(2))


def test_axes_added_dropped_joined_and_parted():
    (x,) = normal((2, 1, 6, 1))
    for name, *arguments in (
        ("flatten",), ("flatten", 1), ("flatten", 1, 2), ("unsqueeze", 0), ("unsqueeze", -1), ("squeeze",),
        ("squeeze", 1), ("squeeze", 0), ("squeeze", (1, -1)), ("split", 4, 2), ("split", [1, 0, 5], -2),
        ("chunk", 4, 2), ("chunk", 3), ("unbind",), ("unbind", -2), ("repeat", 1, 2, 1, 3), ("repeat", (2, 1, 1, 2, 1)),
        ("view", 2, -1), ("view", (3, 4)),
    ):  # fmt: skip
        compare(*(lambda t, n=name, a=arguments: getattr(t, n)(*a) for _ in range(2)), x)
    compare(*both("flatten"), np.array(2.0))
    for call, message in (
        (lambda t: t.flatten(2, 1), "flatten: start_dim 2 must not stand after end_dim 1"),
        (lambda t: t.unsqueeze(5), "unsqueeze: dim must be in -5..4 for shape"),
        (lambda t: t.squeeze(4), "squeeze: dim must be in"),
        (lambda t: t.split([1, 2], 2), r"split: split_size must add up to 6, the length of dim 2, got \[1, 2\]"),
        (lambda t: t.split(0), "split_size must be at least 1"), (lambda t: t.chunk(0), "chunks must be at least 1"),
        (lambda t: t.repeat(2, 2), r"repeat: there must be a number for each axis of \(2, 1, 6, 1\), got \(2, 2\)"),
    ):  # fmt: skip
        with pytest.raises((ValueError, IndexError), match=message):
            call(leaf(x))


EQUATIONS = [
    ("ij,jk->ik", (2, 3), (3, 4)), ("ij,jk", (2, 3), (3, 4)), ("bij,bjk->bik", (2, 3, 4), (2, 4, 2)), ("ii->i", (3, 3)),
    ("ii", (3, 3)), ("ij->ji", (2, 3)), ("ij->", (2, 3)), ("i,j->ij", (2,), (3,)), ("i,i->", (3,), (3,)),
    ("ij,ij->j", (2, 3), (2, 3)), ("...ij,...jk->...ik", (2, 1, 2, 3), (4, 3, 2)), ("i...->...", (2, 3, 4)),
    ("bn,anm,bm->ba", (2, 3), (5, 3, 4), (2, 4)), ("iji,jkk->ik", (2, 3, 2), (3, 4, 4)), ("ba", (2, 3)),
    ("i,ij,j->", (2,), (2, 3), (3,)), ("...,...->...", (3, 1), (2,)), ("ij,kl->jl", (2, 3), (2, 4)),
]  # fmt: skip


@pytest.mark.parametrize("case", EQUATIONS, ids=lambda case: case[0])
def test_einsum(case):
    equation, *shapes = case
    compare(functools.partial(tinygen.einsum, equation), functools.partial(torch.einsum, equation), *normal(*shapes))


def test_einsum_by_numbers_and_by_a_list():
    x, y = normal((2, 3), (3, 4))
    for arguments in ((lambda x, y: (x, [0, 1], y, [1, 2], [0, 2])), (lambda x, y: (x, [0, 30], y, [30, 2])),
                      (lambda x, y: (x, [..., 1], y, [1, 2])), (lambda x, y: ("ij,jk", [x, y]))):  # fmt: skip
        compare(
            lambda x, y, a=arguments: tinygen.einsum(*a(x, y)), lambda x, y, a=arguments: torch.einsum(*a(x, y)), x, y
        )


@pytest.mark.parametrize(("equation", "message"), [
    ("ij,jk->ik", "'ij,jk->ik' is for 2 operands, got 1"), ("ijk->i", "'ijk' in 'ijk->i' doesn't fit an operand of 2"),
    ("i->i", "'i' in 'i->i' doesn't fit"), ("i1->i", "'i1' in"), ("ij->ik", "names an axis that no operand has"),
    ("ij->ii", "or one twice"), ("ii->i", "have lengths 2 and 3"),
])  # fmt: skip
def test_einsum_refuses_what_does_not_fit(equation, message):
    with pytest.raises(ValueError, match=message):
        tinygen.einsum(equation, leaf(np.zeros((2, 3))))


# ---------------------------------------------------------------------------------------------------------- matrices


def matrices(*shape, seed=0):
    return normal(shape, seed=seed)[0] * 0.4 + 2 * np.eye(shape[-1])


@pytest.mark.parametrize("shape", [(3, 3), (2, 2, 2), (1, 1), (2, 0, 0)])
def test_square_matrices(shape):
    x = matrices(*shape)
    compare(linalg.inv, torch.linalg.inv, x)
    compare(tinygen.inverse, torch.inverse, x)
    compare(linalg.slogdet, torch.linalg.slogdet, x)
    compare(linalg.det, torch.linalg.det, x)
    square = x @ x.swapaxes(-1, -2)
    for upper in (False, True):
        compare(
            lambda t, u=upper: linalg.cholesky(t, upper=u), lambda t, u=upper: torch.linalg.cholesky(t, upper=u), square
        )
    assert linalg.slogdet(leaf(x)).sign.shape == shape[:-2]


@pytest.mark.parametrize(("a", "b", "left"), [
    ((3, 3), (3,), True), ((3, 3), (3, 2), True), ((2, 3, 3), (2, 3), True), ((2, 3, 3), (3, 2), True),
    ((3, 3), (2, 3), False), ((2, 3, 3), (4, 1, 2, 3), False),
])  # fmt: skip
def test_solve(a, b, left):
    compare(
        lambda *t: linalg.solve(*t, left=left), lambda *t: torch.linalg.solve(*t, left=left), matrices(*a), *normal(b)
    )


def test_what_has_no_solution_is_refused():
    with pytest.raises(ValueError, match=r"solve: A must be square matrices \(..., N, N\), got shape \(2, 3\)"):
        linalg.solve(leaf(np.zeros((2, 3))), leaf(np.zeros(2)))
    with pytest.raises(ValueError, match=r"solve.*Singular"):
        linalg.solve(leaf(np.zeros((2, 2))), leaf(np.zeros(2)))
    with pytest.raises(ValueError, match="matrix_norm: ord must be 'fro', 1, -1, inf or -inf, got 'nuc'"):
        linalg.norm(leaf(np.zeros((2, 2))), "nuc")
    with pytest.raises(ValueError, match="norm: p must be a number or 'fro', got 'nuc'"):
        tinygen.norm(leaf(np.zeros((2, 2))), "nuc")


@pytest.mark.parametrize("ord", [2, 1, 0, 3, 0.5, -1, -2.5, math.inf, -math.inf])
@pytest.mark.parametrize("options", AXES)
def test_vector_norms(ord, options):
    def norm(module):
        return lambda x: module.vector_norm(x, ord, **options) * (1.0 if ord else x.sum())

    compare(norm(linalg), norm(torch.linalg), *normal((2, 3, 4)))


@pytest.mark.parametrize("ord", ["fro", 1, -1, math.inf, -math.inf])
def test_matrix_norms(ord):
    for dim, keepdim in itertools.product(((-2, -1), (2, 0), (0, 1)), (False, True)):
        of = [functools.partial(m.matrix_norm, ord=ord, dim=dim, keepdim=keepdim) for m in (linalg, torch.linalg)]
        compare(*of, *normal((2, 3, 4)))
    compare(lambda x: linalg.norm(x, ord), lambda x: torch.linalg.norm(x, ord), *normal((3, 4)))


# -------------------------------------------------------------------------------------------------- network functions


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@FEW
@given(
    groups=st.integers(1, 4), factors=st.tuples(st.integers(1, 3), st.integers(1, 3)), kernel=pairs,
    extra=st.tuples(st.integers(0, 3), st.integers(0, 3)), stride=pairs, dilation=pairs,
    padding=st.one_of(st.sampled_from(["same", "valid"]), st.integers(0, 2)), lead=st.sampled_from([(), (2,)]),
    seed=seeds,
)  # fmt: skip
def test_convolutions_in_groups(groups, factors, kernel, extra, stride, dilation, padding, lead, seed):
    i, o = (groups * f for f in factors)
    size = tuple(d * (k - 1) + 1 + e for k, d, e in zip(kernel, dilation, extra, strict=True))
    stride = (1, 1) if padding == "same" else stride
    x, w, b = normal((*lead, i, *size), (o, factors[0], *kernel), (o,), seed=seed)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    compare(*(functools.partial(m.conv2d, **options) for m in (F, TF)), x, w, b)
    options |= {"stride": stride[1], "dilation": dilation[1]}
    compare(*(functools.partial(m.conv1d, **options) for m in (F, TF)), x[..., 0, :], w[:, :, 0], b)


@FEW
@given(
    groups=st.integers(1, 4), factors=st.tuples(st.integers(1, 3), st.integers(1, 3)), kernel=pairs, size=pairs,
    stride=pairs, dilation=pairs, padding=st.integers(0, 2), more=st.integers(0, 2), lead=st.sampled_from([(), (2,)]),
    seed=seeds,
)  # fmt: skip
def test_transposed_convolutions_in_groups(groups, factors, kernel, size, stride, dilation, padding, more, lead, seed):
    i, o = (groups * f for f in factors)
    for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
        assume(more < max(s, d) and (n - 1) * s - 2 * padding + d * (k - 1) + more + 1 >= 1)
    x, w, b = normal((*lead, i, *size), (i, factors[1], *kernel), (o,), seed=seed)
    options = {"stride": stride, "padding": padding, "output_padding": more, "groups": groups, "dilation": dilation}
    compare(*(functools.partial(m.conv_transpose2d, **options) for m in (F, TF)), x, w, b)
    options |= {"stride": stride[1], "dilation": dilation[1]}
    compare(*(functools.partial(m.conv_transpose1d, **options) for m in (F, TF)), x[..., 0, :], w[:, :, 0], b)


@FEW
@given(
    kernel=pairs, stride=st.one_of(st.none(), pairs), padding=st.integers(0, 1), dilation=pairs, extra=pairs,
    ceil=st.booleans(), included=st.booleans(), divisor=st.sampled_from([None, 3, -2]),
    lead=st.sampled_from([(2,), (2, 2)]), seed=seeds,
)  # fmt: skip
def test_pooling_with_all_options(kernel, stride, padding, dilation, extra, ceil, included, divisor, lead, seed):
    assume(all(2 * padding <= k for k in kernel))
    size = [d * (k - 1) + 1 + e for k, d, e in zip(kernel, dilation, extra, strict=True)]
    (x,) = normal((*lead, *size), seed=seed)
    options = {"kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil}
    compare(*(functools.partial(m.avg_pool2d, **options, count_include_pad=included, divisor_override=divisor)
              for m in (F, TF)), x)  # fmt: skip
    options |= {"dilation": dilation, "return_indices": True}
    compare(*(functools.partial(m.max_pool2d, **options) for m in (F, TF)), np.round(x, 1))


@pytest.mark.parametrize("included", [True, False])
def test_means_of_windows_that_end_beyond_the_padding(included):
    options = {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": included}
    compare(*(functools.partial(m.avg_pool2d, **options) for m in (F, TF)), *normal((2, 2, 6, 5), seed=0))


@FEW
@given(kernel=pairs, stride=pairs, padding=st.integers(0, 2), dilation=pairs, lead=st.sampled_from([(2,), (2, 2)]))
def test_unfold(kernel, stride, padding, dilation, lead):
    size = [d * (k - 1) + 3 for k, d in zip(kernel, dilation, strict=True)]
    args = kernel, dilation, padding, stride
    compare(lambda x: F.unfold(x, *args), lambda x: TF.unfold(x, *args), *normal((*lead, *size)))


LINES, IMAGES, VOLUMES = (2, 2, 5), (2, 3, 5, 4), (1, 2, 3, 4, 2)
RESIZED = [
    (LINES, "linear"), (IMAGES, "bilinear"), (IMAGES, "bicubic"), (VOLUMES, "trilinear"),
    *((shape, mode) for shape in (LINES, IMAGES, VOLUMES) for mode in ("nearest", "nearest-exact", "area")),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "mode"), RESIZED)
def test_every_way_to_resize(shape, mode):
    (x,) = normal(shape)
    new = {"size": [n + i - 1 for i, n in enumerate(shape[2:])]}, {"size": 7}, {"size": 2}, {"size": 1}
    scaled = {"scale_factor": 2}, {"scale_factor": 2.3}, {"scale_factor": 0.6}
    scaled += ({"scale_factor": 1.7, "recompute_scale_factor": True},)
    ways = [{"align_corners": False}, {"align_corners": True}] if mode.endswith(("linear", "cubic")) else [{}]
    ways += [{"antialias": True}] if mode in ("bilinear", "bicubic") else []
    for size, way in itertools.product((*new, *scaled), ways):
        if (shape, mode, size) == (VOLUMES, "nearest", {"scale_factor": 2.3}):
            continue  # PyTorch's gradient isn't that of its values, as the product with both shows
        compare(*(functools.partial(m.interpolate, mode=mode, **size, **way) for m in (F, TF)), x, second=False)
    compare(*(functools.partial(m.interpolate, mode=mode, size=3) for m in (F, TF)), x)


@FEW
@given(
    mode=st.sampled_from(["constant", "reflect", "replicate", "circular"]), size=st.tuples(*[st.integers(2, 4)] * 2),
    widths=st.tuples(*[st.integers(-1, 3)] * 4), value=st.sampled_from([None, 1.5]),
)  # fmt: skip
def test_borders(mode, size, widths, value):
    limit = {"constant": 9, "reflect": -1, "replicate": 9, "circular": 0}[mode]
    for n, both in zip(size[::-1], (widths[:2], widths[2:]), strict=True):
        assume(n + sum(both) > 0 and all(width <= n + limit for width in both))
        assume(mode != "circular" or max(both) <= n + min(both[0], 0) + min(both[1], 0))
        assume(mode == "constant" or min(both) >= 0 or mode == "circular")
    value = value if mode == "constant" else None
    compare(*(lambda x, m=m: m.pad(x, widths, mode, value) for m in (F, TF)), *normal((2, 3, *size)))


def test_pixels_and_channels():
    for shape in ((8, 3, 2), (2, 8, 3, 2), (2, 1, 8, 3, 2)):
        compare(*(lambda x, m=m: m.pixel_shuffle(x, 2) for m in (F, TF)), *normal(shape))
        compare(*(lambda x, m=m: m.pixel_unshuffle(x, 2) for m in (F, TF)), *normal((*shape[:-2], 4, 6)))


def test_normalize_and_one_hot():
    for options in ({}, {"p": 1, "dim": 0}, {"p": 3.0, "dim": (0, 1)}):
        compare(*(functools.partial(m.normalize, **options) for m in (F, TF)), *normal((3, 4)))
    compare(F.normalize, TF.normalize, np.array([[0.0, 0.0], [3.0, 4.0]]), second=False)
    labels = np.array([[0, 2], [1, 2]])
    compare(F.one_hot, TF.one_hot, labels)
    compare(lambda x: F.one_hot(x, 5), lambda x: TF.one_hot(x, 5), labels)
    assert isinstance(F.one_hot(labels), np.ndarray)
