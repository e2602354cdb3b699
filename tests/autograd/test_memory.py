"""Long chains, and memory that comes back."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest

import tinygen
from tests.autograd.helpers import Gone, equal, polar, train, var
from tinygen import Tensor, grad, op
from tinygen._tensor import Node


@pytest.mark.fault("T04")
@pytest.mark.parametrize(
    ("fn", "slope"), [(lambda y, x: y + x, 100_001), (lambda y, x: y * 1.0, 1), (lambda y, x: y.reshape(1), 1)]
)
def test_a_chain_of_100_000_ops(fn, slope):
    x = var(1.0)
    y = x
    for _ in range(100_000):
        y = fn(y, x)
    assert repr(y)
    y.backward()
    equal(x.grad, [slope])
    del y  # without a RecursionError, or a crash


@pytest.mark.fault("T04")
def test_a_long_chain_recorded_twice_and_a_chain_that_is_just_dropped():
    x = var(1.0)
    y = x
    for _ in range(20_000):
        y = y * 1.0
    (g,) = grad(y, x, create_graph=True)
    equal(g, [1])
    del y, g
    y = x
    for _ in range(100_000):
        y = y + 1.0
    del y


@pytest.mark.fault("T05")
class TestMemory:
    def test_no_cycle_forms(self):
        fn, _ = polar()

        def run(gone):
            x, phi = var(1, 2), var(0.5)
            y = gone.watch((x * x).tanh().exp())
            a, b = fn(y, phi)
            z = gone.watch(tinygen.cat(y, a, b).softmax(0)[1:].sum())
            gone.watch(x, x._array, y._array, z._array, a, b, phi)
            return x, y, z

        with Gone() as gone:
            run(gone)
        with Gone() as gone:
            run(gone)[2].backward()
        with Gone() as gone:
            x, y, z = run(gone)
            (g,) = grad(z, x, create_graph=True)
            (h,) = grad((g * g).sum(), x, create_graph=True)
            gone.watch(g, h, g._array, h._array)
            del x, y, z, g, h

    def test_backward_releases_what_was_saved_while_the_result_lives(self):
        x = var(1, 2)
        with Gone() as gone:
            y = x.tanh() * x.exp()
            parents = [p[1] for p in y._source[1].parents]
            gone.watch(*(saved for node in parents for saved in node.saved if isinstance(saved, np.ndarray)))
            assert gone.refs
            del parents
            y.sum().backward()
            gc.collect()
        equal(y, np.tanh(x.numpy()) * np.exp(x.numpy()))

    def test_an_array_that_no_rule_asked_for_is_not_kept(self):
        x = var(1, 2)
        with Gone() as gone:
            y = gone.watch(x * 2.0)
            gone.watch(y._array)
            z = y + 1.0
            w = z.sum()
            gone.watch(z._array)
            del y, z
        equal(grad(w, x)[0], [2, 2])

    def test_memory_is_back_after_1000_steps(self):
        def live():
            gc.collect()
            return sum(type(o) in (Tensor, Node) for o in gc.get_objects())

        train(0, 20)
        before = live()
        tracemalloc.start()
        try:
            train(0, 20)
            gc.collect()
            base = tracemalloc.get_traced_memory()[0]
            train(0, 1000)
            gc.collect()
            grown = tracemalloc.get_traced_memory()[0] - base
        finally:
            tracemalloc.stop()
        assert live() == before
        assert grown < 50_000  # 50 bytes a step would show a single leaked object

    def test_a_failed_backward_keeps_nothing_either(self):
        @op
        def failing(x):
            return x * 1

        @failing.vjp("x")
        def _(gout):
            raise ValueError("no")

        x = var(1, 2)
        with Gone() as gone:
            y = gone.watch(failing(x * x) * 2.0)
            with pytest.raises(ValueError, match="no"):
                y.sum().backward()
            del y
            gc.collect()  # the traceback's frames
