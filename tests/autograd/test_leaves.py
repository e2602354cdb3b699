"""Leaves and their `.grad`, which is an array of each leaf's own."""

from __future__ import annotations

import weakref

import numpy as np
import pytest

import tinygen
from tests.autograd.helpers import equal, var
from tinygen import grad, op, tensor
from tinygen.pool import empty


def test_only_leaves_that_require_a_gradient_get_one():
    x, c = var(1, 2), tensor(np.array([3.0, 4.0]))
    y = x * c
    y.sum().backward()
    equal(x.grad, [3, 4])
    assert (c.grad, y.grad) == (None, None)
    assert (y.requires_grad, c.requires_grad, (c * c).requires_grad) == (True, False, False)
    assert (y.is_leaf, (c * c).is_leaf, x.grad.requires_grad, x.grad.is_leaf) == (False, True, False, True)


@pytest.mark.fault("G09")
def test_gradients_add_up_over_calls_and_over_uses():
    w, x = var(2, 3), var(5, 7)
    for n in (1, 2, 3):
        (w * x + w).sum().backward()
        equal(w.grad, n * (x.numpy() + 1))
        equal(x.grad, n * w.numpy())
    w.grad = None
    (w * w * w).sum().backward()
    equal(w.grad, 3 * w.numpy() ** 2)


def test_gradient_has_the_shape_dtype_and_memory_order_of_its_leaf():
    x = tensor(np.ones((2, 4, 5, 3), np.float32).transpose(0, 3, 1, 2), requires_grad=True)
    (x.transpose(1, 3) * 2.0).sum().backward()
    assert (x.grad.shape, x.grad.dtype, x.grad.numpy().strides) == (x.shape, np.float32, x.numpy().strides)
    (g,) = grad((x * x).sum(), x)
    assert g.numpy().strides == x.numpy().strides


def test_backward_on_a_leaf():
    x = var(3)
    x.backward()
    equal(x.grad, [1])
    equal(grad(x, x)[0], [1])


def test_detach_cuts_and_shares():
    x = var(2, 3)
    y = (x * x.detach()).sum()
    assert not x.detach().requires_grad
    assert np.shares_memory(x.detach().numpy(), x.numpy())
    equal(grad(y, x)[0], [2, 3])
    assert not (x * 2).detach().requires_grad


class TestOwnership:
    """A leaf's gradient is an array of its own: changing it in place changes nothing else."""

    def poke(self, *leaves):
        """Change each gradient in place, see that the others stay."""
        for x in leaves:
            before = [y.grad.numpy().copy() for y in leaves]
            x.grad.write()[...] += 100
            for y, b in zip(leaves, before, strict=True):
                np.testing.assert_array_equal(y.grad.numpy(), b + 100 * (y is x))

    @pytest.mark.parametrize("create_graph", [False, True])
    def test_of_an_op_that_gives_one_array_twice(self, create_graph):
        x, y = var(1, 2), var(3, 4)
        seed = tensor(np.ones(2))
        for _ in range(2):
            (x + y).backward(seed, create_graph=create_graph)
            if create_graph:
                x.grad, y.grad = (tensor(t.grad.detach()) for t in (x, y))
            self.poke(x, y)
        equal(seed, [1, 1])

    def test_of_a_rule_that_gives_a_view_with_stride_0(self):
        x = var(1, 2, 3)
        x.sum().backward()
        x.grad.write()[0] = 9
        equal(x.grad, [9, 1, 1])
        x.expand(2, 3).sum().backward()
        equal(x.grad, [11, 3, 3])

    def test_of_views_of_one_another(self):
        x, y = var(1, 2), var(3, 4)
        tinygen.cat(x, y).reshape(2, 2).transpose(0, 1).backward(np.ones((2, 2)))
        self.poke(x, y)

    @pytest.mark.parametrize("given", [np.ones(2), tensor(np.ones(2))], ids=["array", "tensor"])
    @pytest.mark.parametrize("create_graph", [False, True])
    def test_of_the_gradient_that_was_passed_in(self, given, create_graph):
        x, y = var(1, 2), var(3, 4)
        (x + y).backward(given, create_graph=create_graph)
        x.backward(given, create_graph=create_graph)
        for t in (x, y):
            assert not np.shares_memory(t.grad.numpy(), given if isinstance(given, np.ndarray) else given.numpy())
        equal(x.grad, [2, 2])
        equal(y.grad, [1, 1])

    def test_results_of_grad(self):
        x, y = var(1, 2), var(3, 4)
        seed = np.ones(2)
        for gx, gy in (grad(x + y, (x, y), seed), grad(x.sum() + y.sum(), (x, y))):
            gx.write()[...] = 7
            equal(gy, [1, 1])
        assert seed.tolist() == [1, 1]

    def test_accumulation_does_not_write_into_what_a_rule_returned(self):
        kept = []

        @op
        def keeper(x):
            return x * 1

        @keeper.vjp("x")
        def _(gout):
            kept.append(gout)
            return gout

        x = var(1, 2)
        y = keeper(x)
        (y + y + keeper(x) + x).backward(np.ones(2))
        equal(x.grad, [4, 4])
        assert [k.tolist() for k in kept] == [[1, 1], [2, 2]]

    @pytest.mark.parametrize("through", ["backward", "grad"])
    @pytest.mark.parametrize("shape", [(2, 3), (700, 300)], ids=["small", "recycled memory"])
    def test_is_the_rules_array_if_nobody_else_has_it(self, shape, through):
        alive, seen = [], []

        @op
        def double(x, keep):
            return x * 2

        @double.vjp("x")
        def _(gout, keep):
            array = empty(shape, np.float64)
            array[...] = 2 * gout
            if keep:
                alive.append(array[:] if keep == "view" else array)
            seen.append(weakref.ref(array))
            return array

        for keep in (None, "array", "view"):
            x = tensor(np.ones(shape), requires_grad=True)
            if through == "backward":
                double(x, keep).backward(np.ones(shape))
            else:
                (x.grad,) = grad(double(x, keep), x, np.ones(shape))
            assert (x.grad._array is seen.pop()()) == (keep is None)
            x.grad.write()[...] = 9
        assert all((array == 2).all() for array in alive)

    def test_of_one_array_for_two_inputs(self):
        @op
        def twice(x, y):
            return x + y

        @twice.vjp("x", "y")
        def _(gout):
            g = gout * 1
            return g, g

        x, y = var(1, 2), var(3, 4)
        twice(x, y).backward(np.ones(2))
        self.poke(x, y)

    def test_backward_without_a_graph_after_one_with(self):
        x = var(1, 2)
        (x * x).sum().backward(create_graph=True)
        assert x.grad.requires_grad
        first = x.grad
        (x * x).sum().backward()
        equal(x.grad, [4, 8])
        equal(first, [2, 4])
        assert not x.grad.requires_grad
        x.grad.write()[...] *= 0.5


def test_a_gradient_set_by_hand_must_be_one():
    x = var(1, 2)
    for grad_, error, words in (
        (np.ones(2), TypeError, "must be a tensor or None, got ndarray"),
        (1.0, TypeError, "got float"),
        (tensor(np.ones(1)), ValueError, r"as its tensor, float64 \(2,\), got float64 \(1,\)"),
        (tensor(np.ones(2, np.float32)), ValueError, r"got float32 \(2,\)"),
    ):
        with pytest.raises(error, match=f"^grad: .*{words}"):
            x.grad = grad_
        assert x.grad is None
    x.grad = tensor(np.ones(2))
    (x * x).sum().backward()
    equal(x.grad, [3, 5])
