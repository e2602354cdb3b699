"""What was saved may not change before the backward pass: tensors are guarded, plain arrays copied."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import tinygen
from tests.autograd.helpers import equal, here, var
from tinygen import grad, op, reference, tensor


class TestInPlace:
    """A saved array that was changed since is refused, by op and line."""

    def refused(self, run, name, line):
        with pytest.raises(RuntimeError, match=rf"backward of {name} \({line}\): .*changed in place"):
            run()

    @pytest.mark.fault("T01")
    def test_a_leaf_that_was_saved(self):
        x = var(1, 2)
        y = x * x
        line = here(-1)
        x.write()[0] = 5
        self.refused(lambda: y.sum().backward(), "mul", line)
        self.refused(lambda: grad(y.sum(), x, create_graph=True), "mul", line)
        assert x.grad is None

    @pytest.mark.fault("T01")
    @pytest.mark.parametrize(
        "view",
        [
            lambda x: x.reshape((4, 1)),
            lambda x: x.transpose(0, 1),
            lambda x: x.permute(1, 0),
            lambda x: x[0],
            lambda x: x[:, 1:],
            lambda x: x[::-1],
            lambda x: x.expand(3, 2, 2),
            lambda x: x.flip((0,)),
            lambda x: x.detach(),
            lambda x: x.reshape((4,))[1:].reshape((3, 1)),
            lambda x: x.detach().reshape((4,)),
        ],
    )
    def test_through_a_view(self, view):
        x, w = tensor(np.ones((2, 2)), requires_grad=True), var(3.0)
        v = view(x)
        y = v * w
        line = here(-1)
        x.write()[...] = 5
        self.refused(lambda: y.sum().backward(), "mul", line)

    @pytest.mark.fault("T01")
    @pytest.mark.parametrize("view", [lambda x: x, lambda x: x.reshape(2), lambda x: x[::-1]])
    def test_in_the_graph_of_a_gradient(self, view):
        x, u = var(1, 2), var(3, 4)
        v = view(x)
        (g,) = grad((v * v * v).sum(), x, create_graph=True)
        x.write()[...] = 9
        with pytest.raises(RuntimeError, match=r"backward of mul.*changed in place"):
            g.sum().backward()
        (g,) = grad(v * v, x, u, create_graph=True)
        x.write()[...] = 10
        with pytest.raises(RuntimeError, match=r"backward of mul.*changed in place"):
            grad(g.sum(), u)

    @pytest.mark.fault("T01")
    def test_a_constant_tensor_and_an_attribute(self):
        x = var(1, 2)
        c, mask, index = tensor(np.array([3.0, 4.0])), tensor([True, False]), tensor([1, 1])
        for fn, changed, name in (
            (lambda: x * c, c, "mul"),
            (lambda: tinygen.where(mask, x, 0.0), mask, "where"),
            (lambda: x.gather(0, index), index, "gather"),
        ):
            y = fn()
            changed.write()[...] = 0
            with pytest.raises(RuntimeError, match=f"backward of {name}.*changed in place"):
                y.sum().backward()

    @pytest.mark.fault("T01")
    def test_an_index_tensor(self):
        x, index = var(1, 2), tensor([1, 1])
        y = x[index]
        index.write()[...] = 0
        with pytest.raises(RuntimeError, match=r"backward of getitem.*changed in place"):
            y.sum().backward()

    @pytest.mark.fault("T01")
    def test_in_a_retained_graph_and_between_two_backward_calls(self):
        x = var(1, 2)
        y = (x * x).sum()
        y.backward(retain_graph=True)
        x.write()[...] -= x.grad.numpy()
        with pytest.raises(RuntimeError, match="changed in place"):
            y.backward()

    @pytest.mark.fault("T01")
    def test_the_line_of_a_call_through_the_layers_is_the_users(self):
        import tinygen.nn.functional as F

        x, w = tensor(np.ones((2, 3)), requires_grad=True), tensor(np.ones((4, 3)), requires_grad=True)
        y = F.linear(x, w)
        line = here(-1)
        w.write()[...] = 0
        self.refused(lambda: y.sum().backward(), "linear", line)
        with reference():
            y = x.reshape(6) * 3.0 * x.reshape(6)
            line = here(-1)
            x.write()[...] = 0
            self.refused(lambda: y.sum().backward(), "mul", line)

    def test_what_was_not_saved_may_change(self):
        x, y = var(1, 2), var(3, 4)
        z = (x + y).sum() + (-x).sum() + x.reshape(1, 2).sum() + tinygen.exp(x * 2.0).sum() + (x * y.detach()).sum()
        x.write()[...] = 100
        z.backward()
        np.testing.assert_allclose(x.grad.numpy(), 1 + 2 * np.exp([2, 4]) - 1 + 1 + y.numpy())

    def test_only_leaves_can_be_written(self):
        x = var(1, 2)
        for t in (x * 2.0, x.sum(), x.reshape(2, 1), x[:1], tensor([1.0]) * 2.0, (x * 2.0).detach()):
            with pytest.raises(RuntimeError, match="write: "):
                t.write()
        x.write()[...] = 7
        equal(x, [7, 7])
        for mutation in (lambda: x.__setitem__(0, 1), lambda: x.numpy().__setitem__(0, 1)):
            with pytest.raises((AttributeError, TypeError, ValueError)):
                mutation()

    def test_augmented_assignment_makes_a_new_tensor(self):
        x = y = var(1, 2)
        y += 1.0
        y *= 2.0
        equal(x, [1, 2])
        equal(y, [4, 6])
        equal(grad(y.sum(), x)[0], [2, 2])


class TestPlainArrays:
    """Arrays that an op was given belong to the caller, who may change them before backward."""

    @pytest.mark.parametrize(
        "fn",
        [
            lambda x, a: x * a,
            lambda x, a: a * x,
            lambda x, a: x / a,
            lambda x, a: tinygen.maximum(x, a),
            lambda x, a: x @ a,
            lambda x, a: a @ x,
            lambda x, a: tinygen.where(a > 1.5, x, x * 2.0),
            lambda x, a: tinygen.where(np.greater(a, 1.5), x, x * 2.0),
        ],
    )
    def test_operands(self, fn):
        x, a = var(1.25, 3), np.array([2.0, 1.0])
        want = grad(fn(x, a.copy()).sum(), x)[0].numpy()
        y = fn(x, a)
        a[:] = [-7, 50]
        equal(grad(y.sum(), x)[0], want)

    @pytest.mark.parametrize(
        "fn",
        [
            lambda x, i: x[i],
            lambda x, i: x[(i,)],
            lambda x, i: x[(slice(1), i)],
            lambda x, i: x.gather(1, i[None]),
            lambda x, i: tinygen.ops.index_add(x, (slice(None), i), (2, 4)),
            lambda x, i: tinygen.ops.index_add(x, i, (4, 2)),
            lambda x, i: tinygen.ops.scatter_add(x, 0, np.stack([i, i]), (4, 2)),
            lambda x, i: tinygen.permute(x, i),
            lambda x, i: x[i == 0],
            lambda x, i: x[(i == 0, i == 0)],
            lambda x, i: tinygen.where(i == 0, x, 0.0),
        ],
    )
    def test_indices_and_masks(self, fn):
        x = tensor(np.array([[1.0, 2.0], [3.0, 4.0]]), requires_grad=True)
        for convert in (lambda i: i, list) if fn(x, np.array([0, 1])).ndim == 3 else (lambda i: i,):
            i = np.array([0, 1])
            want = grad((fn(x, convert(i.copy())) ** 2).sum(), x)[0].numpy()
            i = convert(i)
            y = (fn(x, i) ** 2).sum()
            i[0], i[1] = 1, 0
            equal(grad(y, x)[0], want)

    def test_an_index_list(self):
        x, i = var(1, 2), [0, 0]
        y = x[i]
        i[:] = [1, 1]
        equal(grad(y.sum(), x)[0], [2, 0])

    def test_members_of_a_variadic_op(self):
        @op
        def product(*tensors, scale=1.0):
            return functools.reduce(np.multiply, tensors) * scale

        @product.vjp("tensors")
        def _(gout, out, tensors_shape, scale):
            return [gout * scale] * len(tensors_shape)

        x, a = var(2.0), np.array([3.0])
        y = product(x, a, scale=a)
        a[:] = 100
        equal(grad(y, x)[0], [3])

    def test_the_gradient_passed_to_backward(self):
        x, g = var(1, 2), np.array([1.0, 2.0])
        (x * 3.0).backward(g)
        g[:] = 100
        equal(x.grad, [3, 6])
