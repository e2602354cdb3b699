"""`backward` and `grad`: again and again, of any order, of any graph."""

from __future__ import annotations

import functools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygen
from tests.autograd.helpers import UNARY, equal, here, programs, var
from tinygen import grad, modes, op, tensor
from tinygen.tape import REGISTRY


@pytest.mark.fault("T06")
def test_backward_twice_is_refused_by_name():
    x = var(1, 2)
    y = (x * x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match=r"through sum.* a second time.*retain_graph=True"):
        y.backward()
    equal(x.grad, [2, 4])


@pytest.mark.fault("T06")
@pytest.mark.parametrize("make", [lambda x: x + 1, lambda x: x * x, lambda x: x.reshape(2, 1), lambda x: -x])
def test_backward_twice_through_a_shared_part_is_refused(make):
    x = var(1, 2)
    trunk = make(x)
    a, b = trunk.sum(), (trunk * 2.0).sum()
    a.backward()
    before = x.grad.numpy().copy()
    with pytest.raises(RuntimeError, match="a second time"):
        b.backward()
    equal(x.grad, before)
    with pytest.raises(RuntimeError, match="a second time"):
        grad(trunk, x, np.ones(trunk.shape))


@pytest.mark.fault("T06")
def test_the_error_names_the_line_of_the_forward_call():
    x = var(1, 2)
    y = x * x
    line = here(-1)
    y.backward(np.ones(2))
    with pytest.raises(RuntimeError, match=rf"through mul \({line}\) a second time"):
        y.backward(np.ones(2))


def test_retain_graph_lets_it_run_again():
    x = var(1, 2)
    y = (x * x).sum()
    for n in (1, 2, 3):
        y.backward(retain_graph=True)
        equal(x.grad, 2 * n * x.numpy())
    for _ in range(2):
        equal(grad(y, x, retain_graph=True)[0], [2, 4])
    y.backward(create_graph=True)  # keeps it too
    y.backward(create_graph=True, retain_graph=False)
    with pytest.raises(RuntimeError, match="a second time"):
        y.backward()


def test_what_the_backward_pass_did_not_reach_is_kept():
    x = var(1, 2)
    trunk, other = x * x, x * 3.0
    grad(trunk.sum(), x)
    equal(grad(other.sum(), x)[0], [3, 3])


def test_derivatives_to_the_third_order_and_beyond():
    x = var(2, 3)
    y = (x**4).sum()
    for want in (4 * x.numpy() ** 3, 12 * x.numpy() ** 2, 24 * x.numpy(), [24, 24], [0, 0]):
        (g,) = grad(y, x, create_graph=True)
        np.testing.assert_allclose(g.numpy(), want, rtol=1e-12)
        y = g.sum()


@given(st.floats(-3, 3))
def test_third_derivative_of_tanh(value):
    x = var(value)
    t = np.tanh(value)
    y = tinygen.tanh(x)
    for want in (1 - t**2, -2 * t * (1 - t**2), (1 - t**2) * (6 * t**2 - 2)):
        (y,) = grad(y, x, create_graph=True)
        np.testing.assert_allclose(y.numpy(), [want], atol=1e-13)


def test_backward_with_create_graph_leaves_gradients_that_can_be_differentiated():
    x = var(2, 3)
    (x**3).sum().backward(create_graph=True)
    g = x.grad
    x.grad = None
    (g * g).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * 3 * x.numpy() ** 2 * 6 * x.numpy())


def test_the_upstream_gradient_is_differentiated_too():
    x, u = var(2, 3), var(5, 7)
    (g,) = grad(x * x, x, u, create_graph=True)
    equal(grad(g.sum(), u)[0], [4, 6])
    v = np.array([5.0, 7.0])
    (g,) = grad(x * x * x, x, v, create_graph=True)
    v[:] = 100
    equal(grad(g.sum(), x)[0], 6 * x.numpy() * [5, 7])


class TestGrad:
    def test_leaves_grad_untouched_and_gives_zero_for_the_unused(self):
        x, y = var(1, 2), var(3, dtype=np.float32)
        gx, gy = grad((x * x).sum(), [x, y])
        equal(gx, [2, 4])
        equal(gy, [0])
        assert (x.grad, y.grad, gy.dtype) == (None, None, np.float32)

    def test_intermediates_the_output_itself_and_the_same_input_twice(self):
        x = var(2, 3)
        y = x * x
        z = y * y
        gz, gy, gx, gx_again = grad(z.sum(), [z, y, x, x])
        equal(gz, [1, 1])
        equal(gy, 2 * y.numpy())
        equal(gx, 4 * x.numpy() ** 3)
        equal(gx_again, gx.numpy())

    @pytest.mark.parametrize("create_graph", [False, True])
    def test_of_an_intermediate_that_is_used_twice_on_the_way_to_another(self, create_graph):
        x = var(2.0)
        y = x * 3.0
        z = (y * y + tinygen.sin(y)).sum()
        for inputs in ([y], [x], [x, y], [y, x]):
            got = grad(z, inputs, retain_graph=True, create_graph=create_graph)
            dy = 12 + np.cos(6)
            np.testing.assert_allclose([g.item() for g in got], [{x: 3 * dy, y: dy}[t] for t in inputs])

    def test_several_outputs_add_up(self):
        x = var(2, 3)
        equal(grad([x * x, x.sum()], x, [np.array([1.0, 10.0]), None])[0], [5, 61])
        y = x * 1.0
        equal(grad([y, y], x, [np.ones(2), np.ones(2)])[0], [2, 2])
        equal(grad([y.sum(), (y * y).sum()], y)[0], 1 + 2 * y.numpy())

    def test_stops_at_its_inputs(self):
        calls = []

        @op
        def step(x):
            return x * 2

        @step.vjp("x")
        def _(gout):
            calls.append(1)
            return gout * 2

        x = var(1.0)
        a = step(x)
        b = step(a)
        c = step(step(b)) + step(step(x))
        for inputs, n in ((b, 2), (a, 3), (x, 6), ([a, b], 3)):
            calls.clear()
            grad(c, inputs, retain_graph=True)
            assert len(calls) == n
        grad(c, b)  # releases only what it went through
        equal(grad(b, x)[0], [4])

    def test_a_graph_with_2_to_the_100_paths(self):
        x = y = var(1.0)
        for _ in range(100):
            y = y + y
        equal(grad(y, x, retain_graph=True)[0], [2.0**100])
        y.backward()
        equal(x.grad, [2.0**100])

    @pytest.mark.parametrize("create_graph", [False, True])
    def test_gives_new_tensors(self, create_graph):
        x, g = var(1, 2), tensor(np.ones(2))
        (got,) = grad(x + 1.0, x, g, create_graph=create_graph)
        assert got is not g
        if not create_graph:
            got.write()[...] = 5
        equal(g, [1, 1])

    def test_without_inputs(self):
        x = var(1.0)
        assert grad(x * x, []) == ()

    @pytest.mark.fault("G12")
    def test_refusals(self):
        x = var(1, 2)
        y, plain = x * x, tensor([1.0])
        for call, error, words in (
            (lambda: grad(y.sum(), [x, plain]), ValueError, "inputs[1] does not require a gradient"),
            (lambda: grad(plain, x), RuntimeError, "does not depend on anything that requires a gradient"),
            (lambda: grad(y, x), ValueError, "shape (2,)"),
            (lambda: grad([y, y], x, np.ones(2)), ValueError, "1 grad_outputs for 2 outputs"),
            (lambda: grad(y, x, np.ones(3)), ValueError, "float64 (3,)"),
            (lambda: grad(y, x, np.ones((1, 2))), ValueError, "float64 (1, 2)"),
            (lambda: grad(y, x, np.ones(2, np.float32)), ValueError, "float32 (2,)"),
            (y.backward, ValueError, "shape (2,)"),
            (plain.backward, RuntimeError, "does not depend on anything that requires a gradient"),
            (lambda: y.backward(np.ones(3)), ValueError, "float64 (3,)"),
        ):
            with pytest.raises(error, match=re.escape(words)):
                call()
        assert x.grad is None
        y.backward([1, 1])  # numbers do; and none of the refused calls has used up the graph
        equal(x.grad, [2, 4])


@given(programs())
def test_any_graph_agrees_with_forward_mode(steps):
    """Reverse mode against dual numbers, on random graphs; and each rule runs once."""
    leaves = [var(0.3, -0.7), var(0.5)]
    values = list(leaves)
    duals = [
        (x.numpy(), [np.ones_like(x.numpy()) if i == j else np.zeros_like(x.numpy()) for j in range(2)])
        for i, x in enumerate(leaves)
    ]
    for name, i, j in steps:
        (a, da), (b, db) = duals[i], duals[j]
        if name in UNARY:
            fn, value, slope = UNARY[name]
            values.append(fn(values[i]))
            duals.append((value(a), [slope(a) * d for d in da]))
        else:
            values.append({"add": tinygen.add, "sub": tinygen.sub, "mul": tinygen.mul}[name](values[i], values[j]))
            c = {"add": a + b, "sub": a - b, "mul": a * b}[name]
            duals.append(
                (
                    c,
                    [
                        x + y if name == "add" else x - y if name == "sub" else a * y + b * x
                        for x, y in zip(da, db, strict=True)
                    ],
                )
            )
    out, (value, slopes) = values[-1], duals[-1]
    np.testing.assert_allclose(out.numpy(), value, rtol=1e-12)
    calls = []
    with modes.hook(lambda call, run: (calls.append(call), run())[1]):
        got = grad(out.sum(), leaves, retain_graph=True)
    wanted = [
        np.broadcast_to(slopes[0], np.broadcast_shapes(slopes[0].shape, (2,)) if out.shape == (2,) else out.shape),
        slopes[1],
    ]
    np.testing.assert_allclose(got[1].numpy(), [wanted[1].sum()], rtol=1e-9, atol=1e-12)
    if out.shape == (2,):
        np.testing.assert_allclose(got[0].numpy(), wanted[0], rtol=1e-9, atol=1e-12)
    reached, todo = set(), [len(values) - 1]
    while todo:
        k = todo.pop()
        if k >= 2 and k not in reached:
            reached.add(k)
            name, i, j = steps[k - 2]
            todo += [i] if name in UNARY else [i, j]
    assert sum(c.phase == "backward" for c in calls) == len(reached) + 1  # the sum
    again = grad(out.sum(), leaves, create_graph=True)
    for a, b in zip(got, again, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12)


@given(hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=4, max_side=3))
@pytest.mark.fault("G05")
def test_broadcasting_is_undone_for_every_op(shapes):
    if "blend" not in REGISTRY:

        @op
        def blend(x, y, z):
            return x + 2 * y + 3 * z

        for i, name in enumerate("xyz"):
            blend.vjp(name)(functools.partial(lambda k, gout: gout * k, float(i + 1)))

    leaves = [tensor(np.zeros(s), requires_grad=True) for s in shapes.input_shapes]
    out = REGISTRY["blend"].function(*leaves)
    assert out.shape == shapes.result_shape
    n = out.numel()
    for create_graph in (False, True):
        for k, (x, g) in enumerate(zip(leaves, grad(out.sum(), leaves, create_graph=create_graph), strict=True)):
            np.testing.assert_array_equal(g.numpy(), np.full(x.shape, (k + 1) * n / max(x.numel(), 1)))
        out = REGISTRY["blend"].function(*leaves)
