"""`@op`: several outputs, variadic ops, what may be declared."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import tinygen
from tests.autograd.helpers import equal, here, polar, var
from tinygen import grad, op, reference, tensor
from tinygen.tape import REGISTRY


class TestSeveralOutputs:
    @pytest.mark.parametrize("create_graph", [False, True])
    def test_each_alone_and_both(self, create_graph):
        fn, seen = polar()
        r, phi = var(2.0), var(0.5)
        c, s = np.cos(0.5), np.sin(0.5)
        for pick, want in (
            (lambda x, y: x, (c, -2 * s)),
            (lambda x, y: y, (s, 2 * c)),
            (lambda x, y: x * y, (4 * c * s, 4 * (c * c - s * s))),
            (lambda x, y: x * x + x, (4 * c * c + c, -8 * c * s - 2 * s)),
        ):
            got = grad(pick(*fn(r, phi)), (r, phi), create_graph=create_graph)
            np.testing.assert_allclose([g.item() for g in got], want)
        assert [(gx, gy) for gx, gy, _ in seen] == [(False, True), (True, False), (False, False), (False, True)]

    def test_the_joint_rule_runs_once_and_is_told_what_is_needed(self):
        fn, seen = polar()
        for r_needs, phi_needs in itertools.product((True, False), repeat=2):
            r, phi = (tensor(np.ones(1), requires_grad=n) for n in (r_needs, phi_needs))
            x, y = fn(r, phi)
            assert x.requires_grad == y.requires_grad == (r_needs or phi_needs)
            if x.requires_grad:
                (x * y + x).backward()
        assert [needs for _, _, needs in seen] == [(True, True), (True, False), (False, True)]

    def test_both_outputs_as_inputs_of_grad(self):
        fn, _ = polar()
        r, phi = var(2.0), var(0.5)
        x, y = fn(r, phi)
        z = x * y * y
        gx, gy, gr = grad(z, (x, y, r))
        np.testing.assert_allclose(gx.numpy(), y.numpy() ** 2)
        np.testing.assert_allclose(gy.numpy(), 2 * x.numpy() * y.numpy())
        np.testing.assert_allclose(gr.numpy(), 3 * 4 * np.cos(0.5) * np.sin(0.5) ** 2)

    def test_higher_orders(self):
        fn, _ = polar()
        r, phi = var(2.0), var(0.5)
        x, _ = fn(r, phi)
        for want in (-2 * np.sin(0.5), -2 * np.cos(0.5), 2 * np.sin(0.5)):
            (x,) = grad(x, phi, create_graph=True)
            np.testing.assert_allclose(x.numpy(), [want])

    def test_backward_twice_and_in_place(self):
        fn, _ = polar()
        r, phi = var(2.0), var(0.5)
        x, y = fn(r, phi)
        line = here(-1)
        x.backward()
        with pytest.raises(RuntimeError, match=rf"through polar \({line}\) a second time"):
            y.backward()
        x, y = fn(r, phi)
        line = here(-1)
        phi.write()[...] = 1
        with pytest.raises(RuntimeError, match=rf"backward of polar \({line}\)"):
            y.backward()

    def test_an_integer_output_has_no_gradient(self):
        @op(outputs=("top", "place"))
        def best(x):
            return x.max(), x.argmax()

        @best.vjp("x")
        def _(gtop, x_shape, place):
            return tinygen.ops.index_add(gtop, int(place), x_shape)

        x = var(1, 5, 2)
        top, place = best(x)
        assert (top.requires_grad, place.requires_grad, place.item()) == (True, False, 1)
        equal(grad(top * 3.0, x)[0], [0, 3, 0])

    def test_plain_arrays_give_a_tuple_of_plain_arrays(self):
        fn, _ = polar()
        x, y = fn(np.ones(1), np.zeros(1))
        assert type(x) is type(y) is np.ndarray


class TestVariadic:
    def total(self):
        @op
        def total(*tensors, weight=1.0):
            return sum(np.asarray(t).sum() for t in tensors) * weight

        @total.vjp("tensors")
        def _(gout, tensors_shape, weight):
            return [tinygen.ops.broadcast_to(gout * weight, s) for s in tensors_shape]

        return total

    @pytest.mark.parametrize("create_graph", [False, True])
    def test_any_subset_may_require_a_gradient(self, create_graph):
        total = self.total()
        for wants in itertools.product((True, False), repeat=3):
            xs = [tensor(np.ones(n + 1), requires_grad=w) for n, w in enumerate(wants)]
            y = total(*xs, np.ones(2), weight=2.0)
            assert y.item() == 16
            assert y.requires_grad == any(wants)
            leaves = [x for x in xs if x.requires_grad]
            for x, g in zip(leaves, grad(y, leaves, create_graph=create_graph) if leaves else (), strict=True):
                equal(g, np.full(x.shape, 2))

    def test_number_of_arguments_may_change(self):
        total = self.total()
        x = var(1.0)
        for n in (1, 2, 5, 2):
            equal(grad(total(*[x] * n), x)[0], [n])

    def test_a_sequence_as_in_pytorch(self):
        x, y = var(1, 2), var(3, 4)
        for joined in (tinygen.cat([x, y]), tinygen.cat((x, y), dim=0), tinygen.cat([x, y], 0), tinygen.cat(x, y)):
            equal(joined, [1, 2, 3, 4])
            equal(grad(joined, y, np.arange(4.0))[0], [2, 3])
        equal(tinygen.stack([x, y], 1), [[1, 3], [2, 4]])


class TestDeclarations:
    @pytest.mark.parametrize("name", ["gx", "y", "x_shap", "gut", "y_shape", "OUT"])
    def test_an_unknown_name_in_a_rule_raises_at_once(self, name):
        @op
        def one(x, factor=2):
            return x * factor

        rule = eval(f"lambda {name}: None")
        with pytest.raises(NameError, match=rf"one\.vjp: unknown name '{name}'; known are .*gout"):
            one.vjp("x")(rule)
        assert not one.op.rules

    @pytest.mark.parametrize("target", ["out", "gout", "y", "x_shape", "needs"])
    def test_only_inputs_have_rules(self, target):
        @op
        def two(x):
            return x

        with pytest.raises(NameError, match=rf"two\.vjp: unknown name '{target}'"):
            two.vjp(target)(lambda gout: gout)

    def test_names_are_taken_once(self):
        with pytest.raises(ValueError, match="already an op named mul"):

            @op
            def mul(x):
                return x

        @op
        def three(x, y):
            return x + y

        three.vjp("x")(lambda gout: gout)
        with pytest.raises(NameError, match="x has a rule already"):
            three.vjp("y", "x")(lambda gout: (gout, gout))

    def test_every_name_that_a_rule_may_ask_for(self):
        seen = {}

        @op
        def four(x, y, scale=3.0):
            return x * y * scale

        @four.vjp("x")
        def _(gout, x_shape, y, scale, out):
            seen.update(x_shape=x_shape, y=y, scale=scale, out=out)
            return gout * y * scale

        @four.vjp("y")
        def _(y_shape, x, scale_shape, gout, scale):
            seen.update(y_shape=y_shape, x=x, scale_shape=scale_shape)
            return gout * x * scale

        x, y = var(2, 3), var(5.0)
        gx, gy = grad(four(x, y), (x, y), np.ones(2))
        equal(gx, [15, 15])
        equal(gy, [15])
        assert seen.pop("x_shape") == (2,)
        assert seen.pop("y_shape") == (1,)
        assert seen.pop("scale_shape") == ()
        assert {k: np.asarray(v).tolist() for k, v in seen.items()} == {
            "x": [2, 3],
            "y": [5],
            "scale": 3,
            "out": [30, 45],
        }

    def test_an_input_without_a_rule_is_an_attribute(self):
        @op
        def scaled(x, by):
            return x * by

        scaled.vjp("x")(lambda gout, by: gout * by)
        x, by = var(1, 2), var(3, 4)
        equal(grad(scaled(x, by.detach()), x, np.ones(2))[0], [3, 4])
        for _ in range(2):
            with pytest.raises(TypeError, match=r"^scaled: by is not differentiable; pass a detached tensor"):
                scaled(x, by)
        with pytest.raises(TypeError, match="by is not differentiable"):
            scaled(np.ones(2), by)

    def test_a_rule_may_say_that_there_is_no_gradient(self):
        @op
        def gate(x, y):
            return x * y

        gate.vjp("x", "y")(lambda gout, y: (gout * y, None))
        x, y = var(1, 2), var(3, 4)
        gate(x, y).backward(np.ones(2))
        equal(x.grad, [3, 4])
        assert y.grad is None

    def test_a_rule_that_gives_the_wrong_number_or_shape(self):
        @op
        def bad(x, y):
            return x * y

        bad.vjp("x", "y")(lambda gout: (gout,))
        x, y = var(1, 2), var(3, 4)
        with pytest.raises(ValueError, match="backward of bad"):
            bad(x, y).sum().backward()

        @op
        def worse(x):
            return x * 2

        worse.vjp("x")(lambda gout: tinygen.reshape(gout, (1, 2))[:, :1])
        for create_graph in (False, True):
            with pytest.raises(ValueError, match=r"worse.*\(1, 1\).*\(2,\)"):
                worse(x).sum().backward(create_graph=create_graph)
        assert (x.grad, y.grad) == (None, None)

    def test_calls_by_keyword_and_with_defaults(self):
        x = var(-2, 0.5)
        for y in (
            tinygen.clamp(x, -1),
            tinygen.clamp(x, min=-1),
            tinygen.clamp(min=-1, x=x),
            x.clamp(min=-1, max=None),
        ):
            equal(y, [-1, 0.5])
            equal(grad(y.sum(), x)[0], [0, 1])
        with reference():
            equal(grad(tinygen.clamp(min=-1, x=x).sum(), x)[0], [0, 1])

    def test_what_an_op_carries(self):
        assert tinygen.tanh.__name__ == "tanh"
        assert "tangent" in tinygen.tanh.__doc__
        assert tinygen.tanh.op is REGISTRY["tanh"]
        assert tinygen.tanh.op.name == "tanh"
