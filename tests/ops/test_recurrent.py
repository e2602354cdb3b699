"""The LSTM over sequences, rows and diagonals: kernels, definition, derivatives of any order, what sees what."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygen
from tinygen import kernels, nn, ops
from tinygen._tensor import leaf
from tinygen.gradcheck import check
from tinygen.gradcheck.causal import dependencies
from tinygen.modes import reference
from tinygen.nn import functional as F
from tinygen.ops._derive import derive_from
from tinygen.ops.recurrent import lstm, lstm_backward
from tinygen.pool import new


class Case(NamedTuple):
    """Arguments of `lstm`, and gradients of its h and c."""

    x: Any
    weight: Any
    h0: Any
    c0: Any
    diagonal: int
    w_ih: Any
    bias: Any
    gh: Any
    gc: Any

    @property
    def args(self):
        return self[:7]

    def gradients(self):
        """The gradients of z, weight and the states before, as arrays."""
        leaves = [x if not isinstance(x, np.ndarray) else leaf(x, True) for x in self.args]
        outs = lstm(*leaves)
        pairs = [(o, g) for o, g in zip(outs, (self.gh, self.gc), strict=False) if g is not None]
        inputs = [x for x in leaves if isinstance(x, tinygen.Tensor)]
        return [g.numpy() for g in tinygen.grad([o for o, _ in pairs], inputs, [g for _, g in pairs])]


def make(
    rng, shape, units, diagonal=0, taps=1, states=False, dtype=np.float64, gh=True, gc=True, features=None,
    bias=False,
):  # fmt: skip
    """A case. shape: (B,), (T, B), or (N, H, W) for images; features: of x, if it isn't z itself."""
    kernel = () if len(shape) < 3 else (2, 1) if diagonal else (1, taps)

    def normal(*s):
        return rng.standard_normal(s).astype(dtype)

    weight = 0.5 * normal(4 * units, units, *kernel)
    before = (normal(shape[-1], units), normal(shape[-1], units)) if states else (None, None)
    upstream = [normal(*shape, units) if wanted else None for wanted in (gh, gc)]
    if features is None:
        return Case(normal(*shape, 4 * units), weight, *before, diagonal, None, None, *upstream)
    inputs = normal(4 * units, features), normal(4 * units) if bias else None
    return Case(normal(*shape, features), weight, *before, diagonal, *inputs, *upstream)


@st.composite
def cases(draw, most=6, units=9, dtypes=(np.float32, np.float64)):
    """Every geometry: a step, sequences, rows with odd taps, both diagonals; with and without inputs and states."""
    axes = draw(st.integers(1, 3))
    shape = tuple(draw(st.lists(st.integers(1, most), min_size=axes, max_size=axes)))
    images = axes == 3
    gh, gc = draw(st.sampled_from([(True, True), (True, False), (False, True)]))
    return make(
        np.random.default_rng(draw(st.integers(0, 2**32 - 1))),
        shape,
        draw(st.integers(1, units)),
        draw(st.sampled_from([-1, 0, 1])) if images else 0,
        draw(st.sampled_from([1, 3, 5])),
        draw(st.booleans()) and not images,
        draw(st.sampled_from(dtypes)),
        gh,
        gc,
        draw(st.one_of(st.none(), st.integers(0, 5))),
        draw(st.booleans()),
    )


def agree(got, want, factor=1.0):
    """Equal up to rounding."""
    for g, w in zip(got, want, strict=True):
        assert (g.shape, g.dtype) == (w.shape, w.dtype)
        bound = factor * 100 * np.finfo(w.dtype).eps * max(1.0, float(np.max(np.abs(w), initial=0)))
        np.testing.assert_allclose(g, w, rtol=0, atol=bound)


def pixel_by_pixel(x, weight, h0, c0, diagonal, w_ih, bias):
    """h, c and gates by the formulas, one pixel after the other, no slices, no steps."""
    units = weight.shape[1]
    z = x if w_ih is None else x @ w_ih.T + (0 if bias is None else bias)
    image = z.reshape((1,) * (4 - z.ndim) + z.shape)
    u = weight.reshape(4 * units, units, -1)
    h, c = (np.zeros((*image.shape[:-1], units), z.dtype) for _ in range(2))
    gates = np.zeros_like(image)
    n, height, width, _ = image.shape

    def state(array, first, i, y, x):
        if 0 <= y < height and 0 <= x < width:
            return array[i, y, x]
        return first[x] if y < 0 and first is not None and 0 <= x < width else np.zeros(units, z.dtype)

    for i, y, k in np.ndindex(n, height, width):
        x = width - 1 - k if diagonal < 0 else k
        if diagonal:
            seen = [(y - 1, x), (y, x - diagonal)]
            before = seen[1]
        else:
            seen = [(y - 1, x + t - u.shape[2] // 2) for t in range(u.shape[2])]
            before = (y - 1, x)
        a = image[i, y, x] + sum(u[:, :, t] @ state(h, h0, i, *place) for t, place in enumerate(seen))
        sigmoid = 1 / (1 + np.exp(-a))
        act = np.concatenate([sigmoid[: 2 * units], np.tanh(a[2 * units : 3 * units]), sigmoid[3 * units :]])
        i_, f, g, o = act.reshape(4, units)
        c[i, y, x] = f * state(c, c0, i, *before) + i_ * g
        h[i, y, x] = o * np.tanh(c[i, y, x])
        gates[i, y, x] = act
    return [a.reshape(*z.shape[:-1], a.shape[-1]) for a in (h, c, gates)]


# ------------------------------------------------------------------------------------------- kernels and definition


@given(cases())
def test_definition_follows_the_formulas(case):
    agree(lstm.op.body(*case.args), pixel_by_pixel(*case.args))


@pytest.mark.fault("G03", "G04", "K01")
@given(cases())
@settings(max_examples=150)
def test_kernel_agrees_with_its_definition(case):
    agree(lstm(*case.args), lstm.op.body(*case.args))
    gradients = case.gradients()
    with reference():
        agree(gradients, case.gradients(), 4)


@pytest.mark.fault("K07", "K12")
@given(cases(most=9, units=20), st.sampled_from(kernels.ISAS), st.integers(1, 4))
@settings(max_examples=60)
def test_threads_and_instruction_sets(case, isa, threads):
    expected = lstm(*case.args), case.gradients()
    before = kernels.get_num_threads()
    try:
        kernels.set_num_threads(threads)
        same_bytes = [a.tobytes() for a in (*lstm(*case.args), *case.gradients())]
        with kernels.instruction_set(isa):
            got = lstm(*case.args), case.gradients()
    finally:
        kernels.set_num_threads(before)
    assert same_bytes == [a.tobytes() for a in (*expected[0], *expected[1])]
    agree(got[0], expected[0])
    agree(got[1], expected[1], 4)


def test_weights_in_pytorchs_order_of_memory_are_converted_and_those_of_the_layers_are_not():
    rng = np.random.default_rng(0)
    for shape, diagonal in (((3, 2), 0), ((2, 3, 3), 0), ((2, 3, 3), -1)):
        case = make(rng, shape, 2, diagonal, 3)
        weight = np.asfortranarray(case.weight) if case.weight.ndim == 2 else _hwio(case.weight)
        before = kernels.conversions()
        got = case._replace(weight=weight).gradients()
        assert kernels.conversions() == before
        agree(got, case.gradients())
        if kernels.available():
            assert kernels.conversions() == before + 2  # forward and backward


def _hwio(weight):
    return weight.transpose(2, 3, 1, 0).copy().transpose(3, 2, 0, 1)


def test_layers_convert_nothing():
    rng = np.random.default_rng(0)

    def normal(*s):
        return rng.standard_normal(s).astype(np.float32)

    layer, cell = (kind(3, 5, rng=rng) for kind in (nn.LSTM, nn.LSTMCell))
    z = leaf(normal(2, 4, 6, 20).transpose(0, 3, 1, 2), True)
    row, diagonal = (leaf(_hwio(normal(20, 5, *kernel)), True) for kernel in ((1, 3), (2, 1)))
    before = kernels.conversions()
    layer(tinygen.tensor(normal(4, 2, 3)))[0].backward(normal(4, 2, 5))
    cell(tinygen.tensor(normal(2, 3)))[0].backward(normal(2, 5))
    upstream = tinygen.tensor(normal(2, 4, 6, 5).transpose(0, 3, 1, 2))
    for h in (F.row_lstm(z, row), F.diagonal_lstm(z, diagonal)):
        assert h.numpy().transpose(0, 2, 3, 1).flags.c_contiguous
        h.backward(upstream)
    assert kernels.conversions() == before


def test_without_a_tape_no_gates_are_kept(monkeypatch):
    rng = np.random.default_rng(0)
    z = leaf(rng.standard_normal((2, 4, 6, 20)).astype(np.float32).transpose(0, 3, 1, 2), True)
    row, diagonal = (leaf(_hwio(rng.standard_normal((20, 5, *k)).astype(np.float32))) for k in ((1, 3), (2, 1)))
    made = []
    monkeypatch.setattr(kernels.recurrent, "new", lambda shape, model: (made.append(shape), new(shape, model))[1])
    for run in (lambda: F.row_lstm(z, row), lambda: F.diagonal_lstm(z, diagonal, reverse=True)):
        kept = run()
        assert not kernels.available() or (*z.shape[2:], 20) in {shape[1:] for shape in made}
        made.clear()
        with tinygen.no_grad():
            assert run().numpy().tobytes() == kept.numpy().tobytes()
        assert all(shape[-1] != 20 for shape in made)


def test_what_was_saved_may_be_left_out():
    for shape, features in (((3,), None), ((4, 2), 5), ((2, 3, 4), None)):
        images = len(shape) == 3
        case = make(np.random.default_rng(0), shape, 3, int(images), states=not images, features=features)
        given, left_out = (
            lstm_backward(case.gh, case.gc, None, *case.args, saved=saved) for saved in (lstm(*case.args), None)
        )
        agree(given, left_out)


@pytest.mark.parametrize("features", [None, 5])
@pytest.mark.parametrize("definition", [False, True], ids=["kernel", "definition"])
def test_the_gradient_of_x_is_left_out_where_it_is_not_needed(features, definition):
    case = make(np.random.default_rng(0), (4, 2), 3, features=features)
    with reference() if definition else tinygen.enable_grad():
        gx, *others = lstm_backward(case.gh, case.gc, None, *case.args, needs_x=False)
        agree(others, lstm_backward(case.gh, case.gc, None, *case.args)[1:])
    assert gx.size == 0


@pytest.mark.fault("G11")
@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
def test_saturated_gates(size):
    case = make(np.random.default_rng(0), (5, 3), 4, dtype=np.float32)
    case = case._replace(x=case.x * np.float32(size))
    results = [*lstm(*case.args), *case.gradients()]
    assert all(np.isfinite(r).all() for r in results)
    assert np.abs(results[2]).max() <= 1


# --------------------------------------------------------------------------------------------------------- derivatives

GEOMETRIES = [{"shape": (3,), "states": True}, {"shape": (3, 2), "states": True, "features": 3, "bias": True},
              {"shape": (3, 2), "features": 2}, {"shape": (2, 3, 3), "taps": 3}, {"shape": (2, 2, 3), "diagonal": 1},
              {"shape": (1, 3, 2), "diagonal": -1, "features": 1}]  # fmt: skip
geometries = pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)


def scalar(case):
    """A smooth number that h and c determine, as a function of the float arguments; and these."""
    arrays = [a for a in case.args if isinstance(a, np.ndarray)]

    def fn(*values):
        left = iter(values)
        h, c, _ = lstm(*(next(left) if isinstance(a, np.ndarray) else a for a in case.args))
        return ops.sum(h * case.gh) + ops.sum(ops.tanh(c) * case.gc)

    return fn, arrays


@geometries
@pytest.mark.fault("G01", "G02")
@pytest.mark.parametrize("definition", [False, True], ids=["kernel", "definition"])
def test_first_and_second_derivatives(geometry, definition):
    fn, arrays = scalar(make(np.random.default_rng(1), units=2, **geometry))
    with reference() if definition else tinygen.enable_grad():
        check(fn, arrays, order=2)


@geometries
@pytest.mark.parametrize("definition", [False, True], ids=["kernel", "definition"])
def test_third_derivatives(geometry, definition):
    """Of D = the second derivative along two directions: its gradient against differences of D itself."""
    rng = np.random.default_rng(2)
    fn, arrays = scalar(make(rng, units=2, **geometry))
    first, second, along = ([rng.standard_normal(a.shape) for a in arrays] for _ in range(3))

    def d(*values, create_graph):
        leaves = [leaf(v, True) for v in values]
        total = fn(*leaves)
        for direction in (first, second):
            grads = tinygen.grad(total, leaves, create_graph=True)
            total = sum((ops.sum(g * v) for g, v in zip(grads, direction, strict=True)), 0.0)
        return tinygen.grad(total, leaves) if create_graph else total.item()

    with reference() if definition else tinygen.enable_grad():
        third = sum(float(np.sum(g.numpy() * v)) for g, v in zip(d(*arrays, create_graph=True), along, strict=True))
        step = 1e-3
        at = {k: d(*[a + k * step * v for a, v in zip(arrays, along, strict=True)], create_graph=False)
              for k in (-2, -1, 1, 2)}  # fmt: skip
    difference = (8 * (at[1] - at[-1]) - (at[2] - at[-2])) / (12 * step)
    assert abs(third) > 1e-3
    assert third == pytest.approx(difference, rel=1e-6)


def test_derivatives_do_not_depend_on_who_computes_them():
    """Kernel and definition, to second order, in every argument; frozen arguments get none and change none."""
    case = make(np.random.default_rng(3), (4, 3), 2, states=True, features=3, bias=True)
    fn, arrays = scalar(case)

    def second(frozen=()):
        leaves = [leaf(a, i not in frozen) for i, a in enumerate(arrays)]
        wanted = [x for x in leaves if x.requires_grad]
        grads = tinygen.grad(fn(*leaves), wanted, create_graph=True)
        return [g.numpy() for g in tinygen.grad(sum((ops.sum(g * g) for g in grads[:1]), 0.0), wanted)]

    fast = second()
    with reference():
        agree(fast, second(), 10)
    agree(second(frozen=(1, 2, 3, 4, 5)), fast[:1], 10)


def test_derive_from_stops_at_its_inputs():
    """Not at what they were made from, nor does one input stand for another that is the same tensor."""
    gradients = derive_from(lambda x, y: (x * x * y, None if y is None else y * 2.0))
    a = np.array([2.0, 3.0])
    on_arrays = gradients((a, a), (np.ones(2), None))
    np.testing.assert_array_equal(on_arrays, [2 * a * a, a * a])
    assert all(type(g) is np.ndarray for g in on_arrays)
    x = leaf(a, True)
    y = x * 1.0
    for second in (x, y):
        gx, gy = gradients((x, second), (tinygen.tensor(np.ones(2)), None))
        np.testing.assert_array_equal([gx.numpy(), gy.numpy()], [2 * a * a, a * a])
    (g,) = tinygen.grad(gx.sum() + gy.sum(), x)  # 2 x y + x x with y = x
    np.testing.assert_array_equal(g.numpy(), 6 * a)


def test_derive_from_without_dependence():
    gradients = derive_from(lambda x, y: x * 2.0)
    gx, gy, none = derive_from(lambda x, y, z: x * 2.0)((np.ones(2), np.ones(3), None), (np.ones(2),))
    np.testing.assert_array_equal(gx, [2, 2])
    np.testing.assert_array_equal(gy, np.zeros(3))
    assert none is None
    assert [g.tolist() for g in gradients((np.ones(1), np.ones(1)), (None,))] == [[0.0], [0.0]]


# ------------------------------------------------------------------------------------------------------- what sees what

HEIGHT, WIDTH, UNITS = 5, 6, 3


def seen_by(fn):
    """(H, W, H, W) of booleans: which pixels of its input an output pixel of fn depends on."""
    x = np.random.default_rng(0).standard_normal((4 * UNITS, HEIGHT, WIDTH))
    return (dependencies(fn, x) != 0).reshape(HEIGHT, WIDTH, HEIGHT, WIDTH)


def weight_of(*kernel):
    return np.random.default_rng(1).standard_normal((4 * UNITS, UNITS, *kernel))


def expected(rule):
    sides = (HEIGHT, WIDTH, HEIGHT, WIDTH)
    return np.array([rule(*at) for at in np.ndindex(sides)]).reshape(sides)


@pytest.mark.fault("M01", "M02")
@pytest.mark.parametrize("taps", [1, 3, 5])
def test_a_row_lstm_sees_a_triangle(taps):
    weight = weight_of(1, taps)
    triangle = expected(lambda y, x, v, u: v <= y and abs(x - u) <= (y - v) * (taps // 2))
    np.testing.assert_array_equal(seen_by(lambda z: F.row_lstm(z, weight)), triangle)


@pytest.mark.fault("M01", "M02")
def test_half_a_diagonal_lstm_sees_a_rectangle():
    weight = weight_of(2, 1)
    left, right = (seen_by(lambda z, r=r: F.diagonal_lstm(z, weight, reverse=r)) for r in (False, True))
    np.testing.assert_array_equal(left, expected(lambda y, x, v, u: v <= y and u <= x))
    np.testing.assert_array_equal(right, expected(lambda y, x, v, u: v <= y and u >= x))


@pytest.mark.fault("M01", "M02")
def test_a_diagonal_bilstm_sees_all_that_came_before_and_nothing_after():
    weights = weight_of(2, 1), weight_of(2, 1)[::-1].copy()
    seen = seen_by(lambda z: F.diagonal_bilstm(z, z, *weights))
    np.testing.assert_array_equal(seen, expected(lambda y, x, v, u: (v, u) <= (y, x)))


def test_the_second_direction_is_the_first_mirrored_and_one_row_lower():
    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal((2, 8, 3, 4)) for _ in range(2))
    weight, other = (rng.standard_normal((8, 2, 2, 1)) for _ in range(2))
    mirrored = F.diagonal_lstm(right[..., ::-1], other)[..., ::-1]
    both = F.diagonal_bilstm(left, right, weight, other)
    np.testing.assert_allclose(mirrored, F.diagonal_lstm(right, other, reverse=True), rtol=1e-12)
    one = F.diagonal_lstm(left, weight)
    np.testing.assert_allclose(both[:, :, 1:], one[:, :, 1:] + mirrored[:, :, :-1], rtol=1e-12)
    np.testing.assert_array_equal(both[:, :, 0], one[:, :, 0])


def test_a_row_lstm_of_one_tap_is_an_lstm_for_each_column():
    case = make(np.random.default_rng(0), (2, 5, 3), 2)
    h = F.row_lstm(case.x.transpose(0, 3, 1, 2), case.weight).transpose(0, 2, 3, 1)
    for image in range(2):
        alone = lstm(case.x[image], case.weight[:, :, 0, 0])[0]
        np.testing.assert_allclose(h[image], alone, rtol=1e-12)


# ------------------------------------------------------------------------------------------------------ sizes, messages


@pytest.mark.fault("G04")
@pytest.mark.parametrize("shape", [(0,), (0, 2), (3, 0), (0, 2, 2), (2, 0, 2), (2, 2, 0)])
@pytest.mark.parametrize("diagonal", [-1, 0, 1])
def test_nothing_to_do(shape, diagonal):
    if diagonal and len(shape) < 3:
        diagonal = 0
    case = make(np.random.default_rng(0), shape, 2, diagonal, states=len(shape) < 3)
    assert [o.shape for o in lstm(*case.args)] == [(*shape, 2), (*shape, 2), (*shape, 8)]
    grads = case.gradients()
    assert [g.shape for g in grads] == [a.shape for a in case.args if isinstance(a, np.ndarray)]
    assert all((g == 0).all() for g in grads)


def zeros(*shape):
    return np.zeros(shape)


@pytest.mark.fault("G12")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lstm(zeros(8), zeros(8, 2)), r"lstm\(.*: x and weight must be .* got \(8,\) and \(8, 2\)"),
        (lambda: lstm(zeros(3, 8), zeros(8, 2, 1, 3)), "x and weight must be"),
        (lambda: lstm(zeros(1, 2, 3, 8), zeros(8, 2)), "x and weight must be"),
        (lambda: lstm(zeros(3, 12), zeros(8, 2)), r"weight must be \(4U, U, ...\), .* got \(8, 2\) for \(3, 12\)"),
        (lambda: lstm(zeros(3, 8), zeros(8, 3)), "weight must be"),
        (lambda: lstm(zeros(3, 8), zeros(8, 2), zeros(3, 2)), "h0 and c0 must be given together"),
        (lambda: lstm(zeros(3, 8), zeros(8, 2), None, zeros(3, 2)), "h0 and c0 must be given together"),
        (lambda: lstm(zeros(3, 8), zeros(8, 2), zeros(2, 2), zeros(3, 2)),
         r"h0 must have shape \(3, 2\), got \(2, 2\)"),
        (lambda: lstm(zeros(3, 8), zeros(8, 2), zeros(3, 2), zeros(3, 3)),
         r"c0 must have shape \(3, 2\), got \(3, 3\)"),
        (lambda: lstm(zeros(1, 2, 3, 8), zeros(8, 2, 1, 3), zeros(3, 2), zeros(3, 2)), "not for images"),
        (lambda: lstm(zeros(1, 2, 3, 8), zeros(8, 2, 1, 2)), r"must be \(1, K\) with K odd .* got \(1, 2\)"),
        (lambda: lstm(zeros(1, 2, 3, 8), zeros(8, 2, 2, 1)), "with K odd"),
        (lambda: lstm(zeros(1, 2, 3, 8), zeros(8, 2, 1, 3), None, None, 1), r"must be \(2, 1\) for diagonal=1"),
        (lambda: lstm(zeros(3, 8), zeros(8, 2), None, None, 1), r"must be \(2, 1\)"),
        (lambda: lstm(zeros(1, 2, 3, 8), zeros(8, 2, 2, 1), None, None, 2), "diagonal must be 0, 1 or -1, got 2"),
        (lambda: lstm(zeros(3, 5), zeros(8, 2), None, None, 0, zeros(8, 4)),
         r"w_ih must have shape \(8, 5\), got \(8, 4\)"),
        (lambda: lstm(zeros(3, 5), zeros(8, 2), None, None, 0, zeros(8, 5), zeros(4)), r"bias must have shape \(8,\)"),
        (lambda: lstm(zeros(3, 8), zeros(8, 2), None, None, 0, None, zeros(8)), "bias must .* come with w_ih"),
        (lambda: lstm_backward(zeros(3, 3), None, None, zeros(3, 8), zeros(8, 2)), r"gh must have shape \(3, 2\)"),
        (lambda: lstm_backward(None, None, zeros(3, 2), zeros(3, 8), zeros(8, 2)), r"ggates must have shape \(3, 8\)"),
        (lambda: F.row_lstm(zeros(2, 8, 3), zeros(8, 2, 1, 3)), r"row_lstm: input must be \(N, C, H, W\)"),
        (lambda: F.row_lstm(zeros(2, 8, 3, 3), zeros(8, 2, 1, 2)), r"row_lstm: weight must be \(4U, U, 1, K\), K odd"),
        (lambda: F.row_lstm(zeros(2, 8, 3, 3), zeros(8, 2)), r"row_lstm: weight .* got \(8, 2\) for \(2, 8, 3, 3\)"),
        (lambda: F.row_lstm(zeros(2, 9, 3, 3), zeros(8, 2, 1, 3)), "row_lstm: weight must be"),
        (lambda: F.diagonal_lstm(zeros(2, 8, 3, 3), zeros(8, 2, 1, 3)),
         r"diagonal_lstm: weight must be \(4U, U, 2, 1\)"),
        (lambda: F.diagonal_bilstm(zeros(2, 8, 3, 3), zeros(2, 8, 3, 4), zeros(8, 2, 2, 1), zeros(8, 2, 2, 1)),
         r"diagonal_bilstm: right must have left's shape \(2, 8, 3, 3\), got \(2, 8, 3, 4\)"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("definition", [False, True], ids=["kernel", "definition"])
def test_shapes_that_do_not_fit(call, message, definition):
    with reference() if definition else tinygen.enable_grad(), pytest.raises(ValueError, match=message):
        call()


def test_mixed_dtypes():
    z, weight = tinygen.tensor(np.zeros((3, 8), np.float32)), tinygen.tensor(np.zeros((8, 2)))
    with pytest.raises(TypeError, match="lstm: weight is float64, an argument before it float32"):
        lstm(z, weight)
