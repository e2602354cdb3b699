"""Every op on its own samples: what should hold for all ops is asked of all of them.

Ops are found in the registry, so a new op is tested as soon as it is declared; one without samples fails the suite.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import itertools
import pkgutil
import zlib
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygen
from tinygen._tensor import leaf
from tinygen.geometry import Geometry
from tinygen.gradcheck import check
from tinygen.kernels import library
from tinygen.tape import REGISTRY, Op

for _module in pkgutil.walk_packages(tinygen.__path__, "tinygen."):
    if _module.name.startswith(("tinygen.ops", "tinygen.nn")):
        importlib.import_module(_module.name)

# Without a gradient on purpose: piecewise constant, or integers.
NO_GRADIENT = {"gt", "ge", "lt", "le", "eq", "ne", "sign", "argmax", "argmin", "argsort"}


class Case(NamedTuple):
    """One sample of an op, all arguments in their place."""

    op: Op
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    floats: tuple[int, ...]  # which args have a gradient here

    def values(self, dtype=np.float64):
        """Fresh arrays, for the floats."""
        return [np.array(self.args[i], dtype, order="K") for i in self.floats]

    def call(self, values, dtype=np.float64):
        """The op's outputs, a list, with `values` in place of the floats."""
        args = [a.astype(dtype) if _is_float(a) else a for a in self.args]
        for i, v in zip(self.floats, values, strict=True):
            args[i] = v
        outs = self.op.function(*args, **self.kwargs)
        return list(outs) if isinstance(outs, tuple) else [outs]

    def upstream(self, dtype=np.float64):
        """A random gradient for each output that has one."""
        rng = np.random.default_rng(5)
        outs = [np.asarray(o) for o in self.call(self.values(dtype), dtype)]
        return [rng.standard_normal(o.shape).astype(o.dtype) for o in outs if o.dtype.kind == "f"]

    def gradients(self, values, upstream, dtype=np.float64, create_graph=False):
        """(outputs, gradients of the floats) as arrays."""
        leaves = [leaf(v, True) for v in values]
        outs = self.call(leaves, dtype)
        live = [o for o in outs if o.requires_grad]
        grads = tinygen.grad(live, leaves, list(upstream), create_graph=create_graph)
        return [o.numpy() for o in outs], [g.numpy() for g in grads]


def _is_float(a):
    return isinstance(a, (np.ndarray, np.floating)) and a.dtype.kind == "f"


def _cases():
    for name, op in REGISTRY.items():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        for sample in op.make_samples(rng) if op.make_samples else ():
            bound = op.signature.bind(*sample.args, **sample.kwargs)
            bound.apply_defaults()
            names = [op.names[0]] * len(bound.args) if op.variadic else op.names
            has_rule = op.differentiable()
            floats = tuple(i for i, a in enumerate(bound.args) if _is_float(a) and names[i] in has_rule)
            yield Case(op, bound.args, bound.kwargs, floats)


CASES = list(_cases())
SMOOTH = [c for c in CASES if c.floats]

ELEMENTWISE = [c for c in SMOOTH if c.op.body.__module__ == "tinygen.ops.elementwise"]


def of_op(cases):
    """The cases, grouped: a test for each op, given the list of its cases."""
    groups: dict[str, list[Case]] = {}
    for c in cases:
        groups.setdefault(c.op.name, []).append(c)
    return pytest.mark.parametrize("cases", groups.values(), ids=groups.keys())


def each_of(cases):
    """A test of a case becomes one for each op, which takes its cases in turn; a failure says at which it was."""

    def decorate(test):
        @of_op(cases)
        @functools.wraps(test)
        def turns(cases, **others):
            for number, case in enumerate(cases):
                try:
                    test(case, **others)
                except Exception as e:
                    e.add_note(f"at sample {number} of {case.op.name}")
                    raise

        _, *others = inspect.signature(test).parameters.values()
        cases_first = inspect.Parameter("cases", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        turns.__signature__ = inspect.Signature([cases_first, *others])
        return turns

    return decorate


every_case, every_gradient = each_of(CASES), each_of(SMOOTH)


def assert_close(got, want, what=""):
    """Equal up to the rounding of a few dozen operations in want's dtype."""
    assert got.shape == want.shape, what
    assert got.dtype == want.dtype, what
    if want.size and want.dtype.kind == "f":
        bound = 64 * np.finfo(want.dtype).eps * max(1.0, float(np.max(np.abs(want))))
        np.testing.assert_allclose(got, want, rtol=0, atol=bound, err_msg=what)
    else:
        np.testing.assert_array_equal(got, want, err_msg=what)


def assert_all_close(got, want, what=""):
    for g, w in zip(got, want, strict=True):
        assert_close(g, w, what)


# ----------------------------------------------------------------------------------------------- declarations


@pytest.mark.parametrize("op", REGISTRY.values(), ids=REGISTRY.keys())
def test_every_op_is_documented_and_has_samples_for_each_of_its_rules(op):
    assert op.function.__doc__, f"{op.name} has no docstring"
    cases = [c for c in CASES if c.op is op]
    assert cases, f"{op.name} has no samples"
    tested = {op.names[0 if op.variadic else i] for c in cases for i in c.floats}
    assert tested == op.differentiable()


def test_what_has_no_gradient_has_none_on_purpose():
    assert {name for name, op in REGISTRY.items() if not op.rules} == NO_GRADIENT
    for op, args, _, floats in SMOOTH:
        constants = {op.names[i] for i, a in enumerate(args) if _is_float(a) and i not in floats}
        assert not constants, f"{op.name}: a float array without a rule"


@pytest.mark.parametrize("name", sorted(NO_GRADIENT))
def test_ops_without_a_gradient_record_nothing(name):
    for case in (c for c in CASES if c.op.name == name):
        args = [leaf(np.array(a), True) if _is_float(a) else a for a in case.args]
        assert not case.op.function(*args, **case.kwargs).requires_grad


# -------------------------------------------------------------------------------------------------- gradients


@every_gradient
@pytest.mark.fault("G01", "G02", "G08")
@pytest.mark.parametrize("definition", [False, True], ids=["kernel", "reference"])
def test_first_and_second_derivatives(case, definition):
    if definition and case.op.run is case.op.body:
        return  # there is only the one

    def fn(*values):
        return tuple(case.call(values))

    with tinygen.reference() if definition else tinygen.enable_grad():
        check(fn, case.values(), order=2, name=case.op.name)  # raises, naming op, argument and worst element


@every_gradient
def test_rules_run_on_tensors_give_what_they_give_on_arrays(case):
    values, upstream = case.values(), case.upstream()
    _, on_arrays = case.gradients(values, upstream)
    _, on_tensors = case.gradients(values, [leaf(u, True) for u in upstream], create_graph=True)
    assert_all_close(on_tensors, on_arrays)


@every_gradient
@pytest.mark.fault("G03", "G08")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kernel_agrees_with_its_definition(case, dtype):
    values, upstream = case.values(dtype), case.upstream(dtype)
    fast = case.gradients(values, upstream, dtype)
    with tinygen.reference():
        slow = case.gradients(values, upstream, dtype)
    assert_all_close(fast[0], slow[0], "output")
    assert_all_close(fast[1], slow[1], "gradient")


@every_gradient
def test_float32_stays_float32_and_agrees_with_float64(case):
    values, upstream = case.values(), case.upstream()
    outs, grads = case.gradients(values, upstream)
    values32 = case.values(np.float32)
    outs32, grads32 = case.gradients(values32, case.upstream(np.float32), np.float32)
    assert_all_close([_rounded(o) for o in outs32], [_rounded(o) for o in outs], "output")
    assert_all_close(grads32, [_rounded(g) for g in grads], "gradient")
    if not case.op.casts:
        assert [o.dtype for o in outs32 if o.dtype.kind == "f"] == [np.float32] * len(upstream)
        for create_graph in (False, True):
            _, grads = case.gradients(values32, case.upstream(np.float32), np.float32, create_graph)
            assert {g.dtype for g in grads} == {np.dtype(np.float32)}
        plain = case.call(values32, np.float32)
        assert all(o.dtype == np.float32 for o in plain if o.dtype.kind == "f"), "on plain arrays"


def _rounded(a):
    return a.astype(np.float32) if a.dtype == np.float64 else a


@every_gradient
def test_each_input_alone_gets_the_gradient_that_it_gets_with_the_others(case):
    values, upstream = case.values(), case.upstream()
    _, expected = case.gradients(values, upstream)
    for k, (value, want) in enumerate(zip(values, expected, strict=True)):
        for other in (lambda v: v, leaf):  # beside plain arrays, beside tensors that need no gradient
            x = leaf(value, True)
            outs = case.call([x if j == k else other(v) for j, v in enumerate(values)])
            live = [o for o in outs if o.requires_grad]
            (got,) = tinygen.grad(live, x, [u for o, u in zip(outs, upstream, strict=False) if o.requires_grad])
            assert_close(got.numpy(), want)


@every_gradient
@pytest.mark.fault("G07")
def test_the_same_tensor_as_two_arguments(case):
    values, upstream = case.values(), case.upstream()
    for i, j in itertools.combinations(range(len(values)), 2):
        if values[i].shape != values[j].shape:
            continue
        equal = [values[i] if k == j else v for k, v in enumerate(values)]
        outs, grads = case.gradients(equal, upstream)
        leaves = [leaf(v, True) for v in equal]
        leaves[j] = leaves[i]
        shared_outs = case.call(leaves)
        (g,) = tinygen.grad([o for o in shared_outs if o.requires_grad], leaves[i], upstream)
        assert_all_close([o.numpy() for o in shared_outs], outs)
        assert_close(g.numpy(), grads[i] + grads[j])


@every_gradient
@pytest.mark.fault("G09")
def test_backward_adds_to_the_gradient_that_is_there(case):
    values, upstream = case.values(), case.upstream()
    _, expected = case.gradients(values, upstream)
    leaves = [leaf(v, True) for v in values]
    for _ in range(2):
        for out, u in zip([o for o in case.call(leaves) if o.requires_grad], upstream, strict=True):
            out.backward(u, retain_graph=True)
    for x, want in zip(leaves, expected, strict=True):
        assert_close(x.grad.numpy(), 2 * want)


# ----------------------------------------------------------------------------------------------------- memory


def _fortran(a):
    return np.array(a, order="F")


def _backwards(a):
    return np.flip(np.flip(a).copy()) if a.ndim else a


def _with_gaps(a):
    """Every second element along each axis of an array that is NaN elsewhere."""
    holes = np.full([2 * n for n in a.shape], np.nan, a.dtype)
    seen = holes[(..., *(slice(None, None, 2),) * a.ndim)]
    seen[...] = a
    return seen


def _last_axis_first(a):
    """The second axis last in memory (channels-last for images), else the last axis first."""
    return (
        np.moveaxis(np.moveaxis(a, 1, -1).copy(), -1, 1)
        if a.ndim == 4
        else np.moveaxis(np.moveaxis(a, -1, 0).copy(), 0, -1)
        if a.ndim
        else a
    )


def _all_equal(a):
    """One value, with stride 0."""
    return np.broadcast_to(a[(0,) * a.ndim] if a.size else a, a.shape)


LAYOUTS = [_fortran, _backwards, _with_gaps, _last_axis_first, _all_equal]


WITH_KERNEL = [c for c in SMOOTH if c.op.run is not c.op.body and c.op.name != "where"]


def _for_kernels(case, dtype):
    """(case, values); for elementwise ops, whose kernels leave small arrays to NumPy, large ones in many layouts."""
    yield case, case.values(dtype)
    if any(case is c for c in ELEMENTWISE):
        rng = np.random.default_rng(1)
        arrays = [rng.standard_normal((5, 7, 11, 13)).astype(dtype) for _ in case.floats]
        arrays[0].flat[:8] = [np.inf, -np.inf, np.nan, 0.0, -0.0, 1e-40, 80, -80]
        args = list(case.args)
        for i, a in zip(case.floats, arrays, strict=True):
            args[i] = a
        large = case._replace(args=tuple(args))
        for ways in ([np.copy], [_last_axis_first], [_fortran], [_with_gaps], [_backwards], [np.copy, _fortran]):
            yield large, [way(a) for way, a in zip(itertools.cycle(ways), arrays, strict=False)]


@of_op(WITH_KERNEL)
@pytest.mark.fault("G03", "G06", "G11", "K14")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_kernel_is_reached_and_agrees_with_its_definition(cases, dtype, monkeypatch):
    monkeypatch.setattr(cases[0].op, "least", 0)
    runs = [run for case in cases for run in _for_kernels(case, dtype)]
    for case, values in runs:
        with np.errstate(all="ignore"), library.every_size():
            upstream = case.upstream(dtype)
            fast = case.gradients(values, upstream, dtype)
            with tinygen.reference():
                slow = case.gradients(values, upstream, dtype)
        for got, want in zip(itertools.chain(*fast), itertools.chain(*slow), strict=True):
            finite = np.isfinite(want)
            np.testing.assert_array_equal(got[~finite], want[~finite])
            assert_close(got[finite], want[finite])
            assert got.dtype == want.dtype
    with np.errstate(all="ignore"), library.every_size() as reached:
        for case, values in runs:
            case.call(values, dtype)
    assert reached or not library.available()


@every_gradient
@pytest.mark.fault("G06")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_inputs_and_upstream_gradients_of_any_strides(case, layout):
    for dtype in (np.float64, np.float32):
        odd, odd_upstream = ([layout(a) for a in arrays] for arrays in (case.values(dtype), case.upstream(dtype)))
        if layout is _all_equal:
            odd = case.values(dtype)  # equal inputs would be ties: only the upstream gradient here
        even, even_upstream = ([np.array(a, order="C") for a in arrays] for arrays in (odd, odd_upstream))
        outs, grads = case.gradients(odd, odd_upstream, dtype)
        expected = case.gradients(even, even_upstream, dtype)
        assert_all_close(outs, expected[0], "output")
        assert_all_close(grads, expected[1], "gradient")
        assert_all_close([np.asarray(o) for o in case.call(odd, dtype)], expected[0], "output on plain arrays")


@every_case
@pytest.mark.fault("G06")
def test_a_broadcast_input_is_read_like_its_copy(case):
    if case.op.body.__module__ == "tinygen.ops.matrices":
        return  # a matrix of equal numbers has no inverse
    values = [_all_equal(v) for v in case.values()]
    copies = [np.array(v, order="C") for v in values]
    assert_all_close(map(np.asarray, case.call(values)), list(map(np.asarray, case.call(copies))))
    if values:
        upstream = case.upstream()
        assert_all_close(case.gradients(values, upstream)[1], case.gradients(copies, upstream)[1])


@every_case
@pytest.mark.fault("G08")
def test_inputs_and_upstream_gradients_are_left_as_they_were(case):
    arrays = [
        a
        for a in [*case.args, *itertools.chain(*(a for a in case.args if isinstance(a, tuple)))]
        if isinstance(a, np.ndarray)
    ]
    values = case.values()
    upstream = case.upstream() if case.floats else []
    before = [a.tobytes() for a in (*arrays, *values, *upstream)]
    case.call(values)
    case.call([leaf(v) for v in values])
    if case.floats:
        for create_graph in (False, True):
            case.gradients(values, upstream, create_graph=create_graph)
    assert [a.tobytes() for a in (*arrays, *values, *upstream)] == before


@every_gradient
def test_only_views_share_memory_with_an_input(case):
    """What shares memory must share the version, or an in-place change of the input would go unnoticed."""
    for order in "CF":
        values = [np.array(v, order=order) for v in case.values()]
        leaves = [leaf(v, True) for v in values]
        for out in case.call(leaves):
            for x, v in zip(leaves, values, strict=True):
                if np.shares_memory(out.numpy(), v):
                    assert case.op.view
                    assert out._version is x._version


@every_gradient
def test_gradients_share_no_memory(case):
    values, upstream = case.values(), case.upstream()
    _, grads = case.gradients(values, upstream)
    for g, other in itertools.product(grads, [*values, *upstream]):
        assert not np.shares_memory(g, other)
    for g, other in itertools.combinations(grads, 2):
        assert not np.shares_memory(g, other)


@every_case
def test_plain_arrays_and_tensors_give_the_same(case):
    values = case.values()
    plain = case.call(values)
    tensors = case.call([leaf(v) for v in values])
    if case.floats:
        assert not any(isinstance(o, tinygen.Tensor) for o in plain)
        assert all(isinstance(o, tinygen.Tensor) and not o.requires_grad for o in tensors)
    for p, t in zip(plain, tensors, strict=True):
        t = t.numpy() if isinstance(t, tinygen.Tensor) else np.asarray(t)
        np.testing.assert_array_equal(p, t)
        assert np.asarray(p).dtype == t.dtype


# ----------------------------------------------------------------------------------------------------- shapes


EMPTY = {  # where cutting a sample's arrays can't fit
    "broadcast_to": (np.ones((0, 1)), (2, 0, 3)),
    "nade_backward": (np.ones((0, 3, 1)), np.ones((0, 3)), np.ones((3, 2)), np.ones(2), np.ones((3, 1, 2))),
}


def _without_elements(case):
    """The case with its arrays cut to no elements, in the ways that may fit: all of them, only the first."""
    if case.op.name in EMPTY:
        yield case._replace(args=EMPTY[case.op.name])
    for cut in (slice(0), (..., slice(0))):
        for all_of_them in (True, False):
            yield case._replace(
                args=tuple(
                    a[cut] if isinstance(a, np.ndarray) and a.ndim and (all_of_them or i == 0) else a
                    for i, a in enumerate(case.args)
                )
            )


@of_op(SMOOTH)
@pytest.mark.fault("G04")
def test_arrays_without_elements(cases):
    done, refusals = 0, []
    for empty in itertools.chain.from_iterable(map(_without_elements, cases)):
        values = empty.values()
        if all(v.size for v in values):
            continue
        try:
            outs = empty.call(values)
        except (ValueError, IndexError, RuntimeWarning) as e:  # NumPy only warns of a mean of nothing
            refusals.append(str(e))
            continue
        upstream = [np.ones_like(o) for o in map(np.asarray, outs) if o.dtype.kind == "f"]
        for create_graph in (False, True):
            _, grads = empty.gradients(values, upstream, create_graph=create_graph)
            assert [g.shape for g in grads] == [v.shape for v in values]
            assert all(np.isfinite(g).all() for g in grads)
        done += 1
    name = cases[0].op.name
    assert done, refusals
    assert all(name in r or "empty slice" in r for r in refusals)


@of_op(ELEMENTWISE)
@pytest.mark.fault("G04")
@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1)])
def test_single_elements(cases, shape):
    for case in cases:
        small, flat = (
            case._replace(
                args=tuple(a.reshape(-1)[:1].reshape(s) if isinstance(a, np.ndarray) else a for a in case.args)
            )
            for s in (shape, (1, 1))
        )
        (want_out,), want = flat.gradients(flat.values(), [np.full((1, 1), 1.5)])
        for create_graph in (False, True):
            (out,), grads = small.gradients(small.values(), [np.full(shape, 1.5)], create_graph=create_graph)
            assert {a.shape for a in (out, *grads)} == {shape}
            assert_all_close([a.reshape(1, 1) for a in (out, *grads)], [want_out, *want])


BINARY = {c.op.name: c for c in ELEMENTWISE if len(c.floats) == 2}


@st.composite
def two_shapes(draw):
    """Shapes that broadcast: of every pair of ranks, and the shape that they give."""
    ranks = st.integers(0, 4)
    a, b = draw(ranks), draw(ranks)
    full = tuple(draw(st.integers(0, 3)) for _ in range(max(a, b)))
    one = [draw(st.tuples(*(st.sampled_from((1, n)) for n in full))) for _ in range(2)]
    return one[0][len(full) - a :], one[1][len(full) - b :]


@pytest.mark.parametrize("name", sorted(BINARY))
@pytest.mark.fault("G05")
@given(two_shapes(), st.integers(0, 2**32))
def test_broadcasting_of_every_pair_of_ranks(name, shapes, seed):
    case = BINARY[name]
    rng = np.random.default_rng(seed)
    full = np.broadcast_shapes(*shapes)
    args = [rng.random(full) > 0.5 if np.asarray(a).dtype.kind == "b" else a for a in case.args]
    case = case._replace(args=tuple(args))
    values = [rng.uniform(0.5, 2, s) for s in shapes]
    upstream = rng.standard_normal(full)
    (out,), grads = case.gradients(values, [upstream])
    wide = [np.array(np.broadcast_to(v, full)) for v in values]
    (wide_out,), wide_grads = case.gradients(wide, [upstream])
    np.testing.assert_array_equal(out, wide_out)
    for g, v, w in zip(grads, values, wide_grads, strict=True):
        lead = len(full) - v.ndim
        axes = (*range(lead), *(i + lead for i, n in enumerate(v.shape) if n == 1))
        assert g.shape == v.shape
        np.testing.assert_allclose(g, w.sum(axis=axes).reshape(v.shape), rtol=1e-13, atol=1e-13)


# ----------------------------------------------------------------------------------------------------- dtypes


@every_gradient
@pytest.mark.fault("G12")
def test_float32_and_float64_do_not_mix(case):
    if len(case.floats) < 2 or case.op.casts:
        return
    values = case.values()
    names = ["" if case.op.variadic else case.op.names[i] for i in case.floats]
    for last in (lambda v: leaf(v, True), leaf, lambda v: v):
        mixed = [leaf(values[0].astype(np.float32), True), *values[1:-1], last(values[-1])]
        with pytest.raises(TypeError, match=rf"^{case.op.name}.*{'|'.join(names[1:])}.*float64.*float32"):
            case.call(mixed, np.float32)


@pytest.mark.parametrize("number", [2, 0.5, True, np.sqrt(2), np.float64(3), np.float32(0.5), np.int64(4)], ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_take_the_dtype_of_the_tensor(number, dtype):
    x = leaf(np.array([1.0, 2.0], dtype), True)
    for y in (x * number, number * x, x + number, x - number, number - x, x / number, number / x):
        assert isinstance(y, tinygen.Tensor)
        assert y.dtype == dtype
        (g,) = tinygen.grad(y.sum(), x)
        assert g.dtype == dtype
    np.testing.assert_array_equal((number * x).numpy(), x.numpy() * dtype(number))
    np.testing.assert_array_equal((number - x).numpy(), dtype(number) - x.numpy())
    np.testing.assert_array_equal((number / x).numpy(), dtype(number) / x.numpy())


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, bool])
@pytest.mark.parametrize("wrap", [lambda a: a, leaf], ids=["array", "tensor"])
def test_integers_and_booleans_beside_a_float_tensor_take_its_dtype(dtype, wrap):
    x = leaf(np.array([1.5, 2.5], np.float32), True)
    n = np.array([0, 1], dtype)
    for y in (x * wrap(n), wrap(n) * x, x + wrap(n)):
        assert y.dtype == np.float32
        assert tinygen.grad(y.sum(), x)[0].dtype == np.float32
    np.testing.assert_array_equal((x * wrap(n)).numpy(), [0, 2.5])


def test_integer_tensors_are_not_rounded_into_integers():
    n = tinygen.tensor([1, 2])
    np.testing.assert_allclose((n * 1.5).numpy(), [1.5, 3])
    np.testing.assert_allclose((n / 2).numpy(), [0.5, 1])
    np.testing.assert_allclose(tinygen.exp(n).numpy(), np.exp([1, 2]), rtol=1e-6)
    np.testing.assert_allclose(tinygen.mean(n).numpy(), 1.5)
    assert {t.dtype for t in (n * 1.5, n / 2, tinygen.exp(n), tinygen.mean(n))} == {np.dtype(np.float32)}


# ----------------------------------------------------------------------------------------------------- errors


def _t(*shape, dtype=np.float32):
    return leaf(np.ones(shape, dtype), True)


BAD_CALLS = [
    ("add", lambda: _t(2, 3) + _t(2), ValueError, "float32 (2, 3), float32 (2,)"),
    ("matmul", lambda: _t(2, 3) @ _t(2, 3), ValueError, "float32 (2, 3), float32 (2, 3)"),
    ("matmul", lambda: _t() @ _t(2), ValueError, "0-d"),
    ("linear", lambda: REGISTRY["linear"].function(_t(2, 3), _t(4, 2)), ValueError, "weight must be (out, in)"),
    ("reshape", lambda: _t(2, 3).reshape(4), ValueError, "(4,)"),
    ("transpose", lambda: _t(2, 3).transpose(0, 2), ValueError, "float32 (2, 3), 0, 2"),
    ("permute", lambda: _t(2, 3).permute(0, 0), ValueError, "(0, 0)"),
    ("sum", lambda: _t(2, 3).sum(2), ValueError, "float32 (2, 3), 2"),
    ("softmax", lambda: _t(2, 3).softmax(5), ValueError, "5"),
    ("getitem", lambda: _t(2, 3)[2], IndexError, "index 2"),
    ("getitem", lambda: _t(2, 3)[np.array([0, 2])], IndexError, "index 2"),
    ("gather", lambda: _t(2, 3).gather(1, np.array([[3], [0]])), IndexError, "index 3"),
    ("gather", lambda: _t(2, 3).gather(0, np.array([0, 1])), (ValueError, IndexError), "int64 (2,)"),
    ("cat", lambda: tinygen.cat(_t(2, 3), _t(3, 2)), ValueError, "float32 (2, 3)"),
    ("stack", lambda: tinygen.stack(_t(2, 3), _t(3, 2)), ValueError, "same shape"),
    ("pow", lambda: _t(2) ** "2", TypeError, "'2'"),
    ("clamp", lambda: _t(2).clamp(), ValueError, "min or max must be given"),
    ("inverse", lambda: tinygen.tensor(np.zeros((2, 2))).inverse(), ValueError, "Singular"),
    ("cholesky", lambda: tinygen.tensor(-np.eye(2)).cholesky(), ValueError, "not positive definite"),
    ("index_select", lambda: _t(2, 3).index_select(1, np.array([3])), IndexError, "index 3"),
    ("index_select", lambda: _t(2, 3).index_select(1, np.array([[0]])), ValueError, "one axis"),
    ("broadcast_to", lambda: _t(2).expand(3), ValueError, "(3,)"),
    ("sum_to", lambda: REGISTRY["sum_to"].function(_t(2, 3), (2, 2)), ValueError, "(2, 2)"),
    ("conv2d", lambda: REGISTRY["conv2d"].function(_t(1, 1, 2, 2), _t(1, 1, 3, 3)), ValueError, "doesn't fit"),
    ("add", lambda: _t(2) + "a", TypeError, "'a'"),
    ("add", lambda: _t(2) + None, TypeError, "None"),
    ("lt", lambda: _t(2) < "a", TypeError, "'a'"),
]


@pytest.mark.fault("G12")
@pytest.mark.parametrize(("name", "call", "error", "words"), BAD_CALLS, ids=[f"{n}-{w}" for n, _, _, w in BAD_CALLS])
def test_a_bad_call_names_the_op_and_its_arguments(name, call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).startswith(f"{name}(")
    assert words in str(caught.value)
    with tinygen.reference(), pytest.raises(error) as caught:  # by the long way round
        call()
    assert str(caught.value).startswith(f"{name}(")


@pytest.mark.fault("G12")
@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_arguments_that_the_signature_does_not_have(name):
    x = _t(2, 3)
    with pytest.raises(TypeError, match=name):
        REGISTRY[name].function(x, x, nonsense=1)


# ----------------------------------------------------------- conventions at kinks, and values at the extremes

f = functools.partial(np.array, dtype=np.float64)
INF, TINY = np.inf, np.finfo(np.float64).smallest_subnormal


def _value_and_slope(fn, *values):
    leaves = [leaf(f(v), True) for v in values]
    y = fn(*leaves)
    return (y.numpy(), *(g.numpy() for g in tinygen.grad(y, leaves, np.ones(y.shape))))


@pytest.mark.fault("G10")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_where_is_exactly_zero_whatever_it_leaves_out(dtype):
    x = np.array([np.nan, np.inf, -np.inf, -1, 1e-45, 3], dtype)
    for keep in itertools.product([False, True], repeat=6):
        out = tinygen.where(np.array([keep, keep[::-1]]), x[::-1], 0.0)
        assert out.tobytes() == np.where([keep, keep[::-1]], x[::-1], dtype(0)).tobytes()
        assert out.dtype == dtype


def test_slopes_at_kinks():
    for fn, x, slope in (
        (tinygen.ops.relu, [-1, -0.0, 0, 1], [0, 0, 0, 1]),
        (functools.partial(tinygen.ops.leaky_relu, negative_slope=0.1), [-1, 0, 1], [0.1, 0.1, 1]),
        (functools.partial(tinygen.ops.elu, alpha=2.0), [0, 1], [2, 1]),
        (tinygen.abs, [-2, -0.0, 0, 2], [-1, 0, 0, 1]),
        (lambda x: tinygen.clamp(x, -1, 1), [-2, -1, 0, 1, 2], [0, 1, 1, 1, 0]),
        (lambda x: tinygen.clamp(x, min=0), [-1, 0, 1], [0, 1, 1]),
        (lambda x: tinygen.clamp(x, max=0), [-1, 0, 1], [1, 1, 0]),
        (lambda x: x**0, [-1, 0, 1], [0, 0, 0]),
        (lambda x: x**1, [-1, 0, 1], [1, 1, 1]),
        (lambda x: x**2, [-1, 0, 1], [-2, 0, 2]),
    ):
        np.testing.assert_array_equal(_value_and_slope(fn, x)[1], slope)
    np.testing.assert_array_equal(
        _value_and_slope(tinygen.maximum, [1, 2, 3], [2, 2, 2])[1:], [[0, 0.5, 1], [1, 0.5, 0]]
    )
    np.testing.assert_array_equal(
        _value_and_slope(tinygen.minimum, [1, 2, 3], [2, 2, 2])[1:], [[1, 0.5, 0], [0, 0.5, 1]]
    )
    ties = [[1, 3, 3], [5, 5, 5]]
    np.testing.assert_array_equal(_value_and_slope(lambda x: x.amax(1), ties)[1], [[0, 0.5, 0.5], [1 / 3] * 3])
    np.testing.assert_array_equal(_value_and_slope(lambda x: x.amax(), ties)[1], [[0, 0, 0], [1 / 3] * 3])


EXTREMES = [-INF, -1e4, -745, -1, -TINY, -0.0, 0.0, TINY, 1e-300, 1, 745, 1e4, INF]


@pytest.mark.fault("G11")
@pytest.mark.parametrize(
    ("name", "value", "slope"),
    [  # limits at the ends of EXTREMES: of the value, and of the slope
        ("sigmoid", (0, 1), (0, 0)),
        ("tanh", (-1, 1), (0, 0)),
        ("softplus", (0, INF), (0, 1)),
        ("relu", (0, INF), (0, 1)),
        ("elu", (-1, INF), (0, 1)),
        ("abs", (INF, INF), (-1, 1)),
        ("exp", (0, INF), (0, INF)),
        ("expm1", (-1, INF), (0, INF)),
    ],
)
def test_elementwise_ops_at_the_extremes(name, value, slope):
    with np.errstate(over="ignore"):
        y, g = _value_and_slope(REGISTRY[name].function, EXTREMES)
    assert not np.isnan([y, g]).any()
    np.testing.assert_array_equal(y[[0, -1]], value)
    np.testing.assert_array_equal(g[[0, -1]], slope)
    tiny = np.abs(EXTREMES) < 1e-290
    at_zero = REGISTRY[name].body(np.zeros(tiny.sum()))
    np.testing.assert_allclose(y[tiny], at_zero, rtol=0, atol=1e-290)


@pytest.mark.fault("G11")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_family_at_the_extremes(dtype):
    x = np.array([[1e4, -1e4, 0], [-1e4, -1e4, -1e4], [1e4, 1e4, 1e4], [0, -INF, 0], [-INF, -INF, 3]], dtype)
    n = [1, 3, 3, 2, 1]
    p = np.array([[1, 0, 0], [1 / 3] * 3, [1 / 3] * 3, [0.5, 0, 0.5], [0, 0, 1]], dtype)
    t = leaf(x, True)
    lse = t.logsumexp(1)
    np.testing.assert_array_equal(lse.numpy(), x.max(1) + np.log(n).astype(dtype))
    np.testing.assert_allclose(tinygen.grad(lse.sum(), t)[0].numpy(), p, rtol=2e-3 if dtype == np.float32 else 1e-12)
    np.testing.assert_allclose(t.softmax(1).numpy(), p, rtol=1e-6)
    log_p = t.log_softmax(1)
    np.testing.assert_allclose(log_p.numpy(), x - lse.numpy()[:, None], atol=1e4 * np.finfo(dtype).eps)
    (g,) = tinygen.grad(log_p, t, np.eye(3, dtype=dtype)[[0, 0, 0, 0, 2]])
    np.testing.assert_allclose(g.numpy(), np.eye(3)[[0, 0, 0, 0, 2]] - p, rtol=1e-6, atol=1e-7)


@pytest.mark.fault("G11")
def test_logsumexp_of_nothing_but_minus_infinity():
    y = tinygen.logsumexp(np.array([[-INF, -INF], [INF, 0.0], [-INF, INF]]), 1)
    np.testing.assert_array_equal(y, [-INF, INF, INF])


INDICES = (0, -1, slice(1, None), (slice(None), 2), (..., 1), np.array([1, 1, 0]), (np.array([2, 2]), 3), [True] * 3)


@given(st.lists(st.sampled_from((None, *INDICES)), min_size=1, max_size=7), st.booleans())
def test_gradients_of_elements_taken_one_after_the_other_add_up(taken, derived):
    """None: the whole array, in between."""
    x, expected, total = tinygen.tensor(np.ones((3, 4)), requires_grad=True), np.zeros((3, 4)), 0.0
    source = x * 2.0 if derived else x
    for i, index in enumerate(taken, 1):
        total = total + (source if index is None else source[index]).sum() * float(i)
        np.add.at(expected, ... if index is None else index, i * (1 + derived))
    total.backward(retain_graph=True)
    np.testing.assert_array_equal(x.grad.numpy(), expected)
    total.backward()
    np.testing.assert_array_equal(x.grad.numpy(), 2 * expected)


@given(hnp.arrays(np.float64, (3, 4), elements=st.floats(-1e4, 1e4)))
@pytest.mark.fault("G11")
def test_finite_logits_give_finite_losses_and_gradients(x):
    for fn in (
        lambda x: x.log_softmax(1).sum(),
        lambda x: x.logsumexp(1).sum(),
        lambda x: x.softmax(0).sum(),
        lambda x: tinygen.ops.softplus(x).sum(),
        lambda x: x.sigmoid().sum(),
        lambda x: x.tanh().sum(),
    ):
        y, g = _value_and_slope(fn, x)
        assert np.isfinite(y)
        assert np.isfinite(g).all()


def test_operations_are_two_for_each_multiply_add():
    """Of products their multiply-adds, written out; of attention those of its scores and of its output."""
    scores, output = 2 * 3 * 5 * 4, 2 * 3 * 3 * 5
    shapes = {"query_shape": (2, 3, 4), "key_shape": (2, 5, 4), "value_shape": (2, 5, 3)}
    assert REGISTRY["attention"].count_flops(**shapes) == 2 * (scores + output)
    assert REGISTRY["attention_backward"].count_flops(**shapes) == 2 * (3 * scores + 2 * output)
    assert REGISTRY["matmul"].count_flops((7, 2, 3), (7, 2, 5)) == 2 * 7 * 2 * 3 * 5
    assert REGISTRY["linear"].count_flops((7, 2, 3), (7, 2, 5)) == 2 * 7 * 2 * 3 * 5
    weight, geometry = (
        (5, 3, 2, 2),
        Geometry((2, 2)),
    )  # 5 channels from 3, patches of 2x2: 4x4 pixels, or their gradient
    for name, size in (("conv2d", "out_shape"), ("conv_transpose2d", "y_shape"), ("conv2d_weight", "y_shape")):
        given = {size: (7, 5, 4, 4), "weight_shape": weight, "geometry": geometry}
        assert REGISTRY[name].count_flops(**given) == 2 * (7 * 5 * 4 * 4) * (3 * 2 * 2)
    assert REGISTRY["nade"].count_flops((7, 5), (5, 3), (5, 2, 3)) == 2 * 7 * (5 * 3 + 5 * 2 * 3)
    lstm = REGISTRY["lstm"].count_flops  # h (N, height, width, U) from U to 4U by 1x3 taps, and from 6 inputs to 4U
    assert lstm((7, 2, 2, 5), (20, 5, 1, 3), None) == 2 * 7 * 2 * 2 * (20 * 5 * 3)
    assert lstm((7, 2, 2, 5), (20, 5, 1, 3), (20, 6)) == 2 * 7 * 2 * 2 * (20 * 5 * 3 + 20 * 6)


def test_which_ops_have_a_kernel():
    """A kernel that isn't declared is one that nothing misses: the definition gives the same numbers, later."""
    with_kernel = """
        add affine_coupling affine_coupling_backward attention attention_backward batch_norm batch_norm_backward cat
        cat_backward channel_affine channel_affine_backward conv2d conv2d_weight conv_transpose2d cross_entropy
        cross_entropy_backward elu elu_backward exp gated_activation gated_activation_backward group_norm
        group_norm_backward leaky_relu linear log logistic_backward lstm lstm_backward matmul mul relu relu_backward
        reshape sigmoid silu silu_backward sqrt sum tanh where
    """
    ours = {name: op for name, op in REGISTRY.items() if op.body.__module__.startswith("tinygen.")}
    assert {name for name, op in ours.items() if op.run is not op.body} == set(with_kernel.split())
