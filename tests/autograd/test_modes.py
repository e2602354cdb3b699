"""no_grad, reference and hook; threads and tasks."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest
from hypothesis import given, settings

import tinygen
from tests.autograd.helpers import UNARY, equal, kernel_op, programs, train, var
from tinygen import grad, modes, no_grad, reference


class TestModes:
    def test_no_grad_records_nothing(self):
        x = var(1, 2)
        with no_grad():
            assert not modes.is_grad_enabled()
            y = x * x
            with modes.enable_grad():
                z = x * x
            assert not modes.is_grad_enabled()
        assert (y.requires_grad, z.requires_grad, modes.is_grad_enabled()) == (False, True, True)

        @no_grad()
        def evaluate():
            return x * x

        for _ in range(2):
            assert not evaluate().requires_grad
        assert (x * x).requires_grad

    @pytest.mark.parametrize("make", [no_grad, reference, lambda: modes.hook(lambda call, run: run())])
    def test_a_block_can_be_entered_again_and_within_itself(self, make):
        block, before = make(), modes.current.get()
        for _ in range(2):
            with block:
                inside = modes.current.get()
                assert inside[:3] != before[:3]
                with block:
                    assert modes.current.get()[:2] == inside[:2]
                assert modes.current.get() is inside
            assert modes.current.get() is before

    def test_a_hook_joins_those_that_hold_where_it_is_entered(self):
        seen = []
        one, two = (modes.hook(lambda call, run, n=n: (seen.append(n), run())[1]) for n in (1, 2))
        with one, two:
            var(1, 2) * 2.0
        assert sorted(seen) == [1, 2]

    def test_threads_share_a_block(self):
        block, barrier, seen = no_grad(), threading.Barrier(2), []

        def work(leaves_first):
            with block:
                barrier.wait(10)
                if not leaves_first:
                    barrier.wait(10)  # the other is out
                seen.append(modes.is_grad_enabled())
            seen.append(modes.is_grad_enabled())
            if leaves_first:
                barrier.wait(10)

        threads = [threading.Thread(target=work, args=(first,)) for first in (True, False)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [False, True] * 2

    def test_a_decorated_generator_runs_within_and_waits_outside(self):
        x, log = var(1, 2), []

        @no_grad()
        def pieces(n):
            """Their docstring."""
            try:
                for i in range(n):
                    with reference():
                        log.append(modes.is_grad_enabled())
                        log.append((yield x * float(i)))
                return "done"
            finally:
                log.append(modes.is_grad_enabled())

        def whole():
            log.append((yield from pieces(1)))

        before = modes.current.get()
        for piece in pieces(2):
            assert not piece.requires_grad
            assert modes.current.get() is before
            assert (x * 2.0).requires_grad
        assert log == [False, None, False, None, False]
        log.clear()
        generator = pieces(3)
        next(generator)
        equal(generator.send("sent"), [1, 2])
        with pytest.raises(KeyError):
            generator.throw(KeyError("thrown"))
        assert log == [False, "sent", False, False]
        log.clear()
        generator = pieces(3)
        next(generator)
        generator.close()
        assert log == [False, False]
        log.clear()
        assert len(list(whole())) == 1
        assert log == [False, None, False, "done"]
        assert modes.current.get() is before
        assert pieces.__doc__ == "Their docstring."

    def test_a_generator_that_ends_within_a_block_of_its_consumer(self):
        def quiet():
            with no_grad():
                yield

        generator = quiet()
        next(generator)
        with reference():
            assert (modes.is_grad_enabled(), modes.is_reference()) == (False, True)  # as in PyTorch
            generator.close()
        assert (modes.is_grad_enabled(), modes.is_reference()) == (True, False)

    def test_modes_end_with_an_exception(self):
        for mode, active in ((no_grad, modes.is_grad_enabled), (reference, modes.is_reference)):
            before = active()
            with pytest.raises(ZeroDivisionError), mode():
                (active() != before) / 0
            with pytest.raises(AssertionError), mode():
                assert active() == before
            assert active() == before

    def test_backward_works_within_no_grad_and_records_nothing(self):
        x = var(1, 2)
        y = (x * x).sum()
        with no_grad():
            (g,) = grad(y, x, retain_graph=True)
            y.backward(retain_graph=True)
            assert not modes.is_grad_enabled()
            (h,) = grad(y, x, create_graph=True)
        assert (g.requires_grad, x.grad.requires_grad, h.requires_grad) == (False, False, True)
        equal(x.grad, [2, 4])

    def test_reference_runs_the_definition_forward_and_backward(self):
        log = []
        triple = kernel_op(log)
        x = var(1, 2)
        y = triple(x)
        assert log == ["kernel"]
        with reference():
            z = triple(x)
            assert modes.is_reference()
        assert log == ["kernel", "body"]
        log.clear()
        for create_graph in (False, True):
            z.sum().backward(retain_graph=True, create_graph=create_graph)  # what ran forward is what runs backward
            with reference():
                y.sum().backward(retain_graph=True, create_graph=create_graph)
        assert log == ["body", "kernel"] * 2
        log.clear()
        triple(np.ones(2))
        with reference():
            triple(np.ones(2))
        assert log == ["kernel", "body"]

    def test_a_kernel_may_hand_over(self):
        log = []
        triple = kernel_op(log)
        equal(triple(var(1, 2, 3)), [3, 6, 9])
        assert log == ["kernel", "body"]

    @pytest.mark.fault("T02")
    def test_modes_belong_to_a_thread(self):
        x, log = var(1, 2), []
        triple = kernel_op(log)
        inside, done, seen = threading.Event(), threading.Event(), []

        def other():
            inside.wait(10)
            seen.append((modes.is_grad_enabled(), modes.is_reference(), (triple(x)).requires_grad))
            with no_grad():
                done.set()
                barrier.wait(10)

        barrier = threading.Barrier(2)
        thread = threading.Thread(target=other)
        thread.start()
        hooked = []
        with no_grad(), reference(), modes.hook(lambda call, run: (hooked.append(call.op.name), run())[1]):
            inside.set()
            done.wait(10)
        assert (x * x).requires_grad  # while the other thread is inside its own no_grad
        barrier.wait(10)
        thread.join()
        assert seen == [(True, False, True)]
        assert (log, hooked) == (["kernel"], [])

    @pytest.mark.fault("T02")
    def test_modes_belong_to_an_asyncio_task(self):
        x = var(1, 2)

        async def quiet(turn):
            with no_grad(), reference():
                for _ in range(3):
                    await turn()
                    assert not (x * x).requires_grad
                    assert modes.is_reference()

        async def loud(turn):
            for _ in range(3):
                await turn()
                assert (x * x).requires_grad
                assert not modes.is_reference()

        async def main():
            await asyncio.gather(*(f(lambda: asyncio.sleep(0)) for f in (quiet, loud, quiet, loud)))

        asyncio.run(main())


@pytest.mark.fault("T03")
def test_two_threads_train_two_models_as_one_after_the_other():
    want = [train(seed) for seed in range(2)]
    barrier, got = threading.Barrier(2), [None, None]

    def work(seed):
        got[seed] = train(seed, watch=lambda: barrier.wait(10))  # in step, so that they do overlap

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == want
    assert want[0][-1] < 0.5 * want[0][0]


class TestHook:
    def test_sees_every_op_and_every_rule(self):
        seen = []

        def watch(call, run):
            seen.append((call.op.name, call.phase, [getattr(a, "shape", a) for a in call.inputs]))
            return run()

        x = var(1, 2)
        with modes.hook(watch):
            y = (x.reshape(2, 1) * 3.0).sum()
            y.backward()
        want = [
            ("reshape", "forward", [(2,), (2, 1)]),
            ("mul", "forward", [(2, 1), 3.0]),
            ("sum", "forward", [(2, 1), None, False]),
            ("sum", "backward", [()]),
            ("mul", "backward", [(2, 1)]),
            ("reshape", "backward", [(2, 1)]),
        ]
        assert seen == want
        equal(x.grad, [3, 3])
        (x * 2.0).sum().backward()
        assert len(seen) == len(want)

    def test_every_rule_of_a_gradient_with_create_graph(self):
        seen = []
        x = var(1, 2)
        y = (x * x).sum()
        with modes.hook(lambda call, run: (seen.append((call.op.name, call.phase)), run())[1]):
            grad(y, x, create_graph=True)
        assert [s for s in seen if s[1] == "backward"] == [("sum", "backward"), ("mul", "backward")]
        assert ("mul", "forward") in seen

    def test_may_change_what_comes_out_and_hooks_nest(self):
        order = []

        def outer(call, run):
            order.append("outer")
            return run() * 10

        def inner(call, run):
            order.append("inner")
            return run() + 1

        x = var(1, 2)
        with modes.hook(outer), modes.hook(inner), no_grad():
            y = x * 2.0
        assert sorted(order) == ["inner", "outer"]
        assert y.numpy().tolist() in ([30, 50], [21, 41])

    def test_gradients_pass_through_it(self):
        def double(call, run):
            return tuple(2 * g for g in run()) if call.phase == "backward" else run()

        x = var(1, 2)
        y = (x * 3.0)[0]
        with modes.hook(double):
            equal(grad(y, x)[0], [12, 0])

    def test_an_exception_in_it_leaves_the_state_clean(self):
        def bomb(call, run):
            raise RuntimeError("boom")

        x = var(1, 2)
        y = x * x
        with pytest.raises(RuntimeError, match="boom"), modes.hook(bomb):
            x * x
        with pytest.raises(RuntimeError, match="boom"), modes.hook(bomb):
            y.backward(np.ones(2))
        assert x.grad is None
        y.backward(np.ones(2))
        equal(x.grad, [2, 4])

    @settings(max_examples=20)
    @given(programs())
    def test_results_are_the_same_with_and_without_it(self, steps):
        def run():
            values = [var(0.3, -0.7), var(0.5)]
            for name, i, j in steps:
                values.append(
                    UNARY[name][0](values[i]) if name in UNARY else getattr(tinygen, name)(values[i], values[j])
                )
            return [g.numpy() for g in grad(values[-1].sum(), values[:2])]

        plain = run()
        with modes.hook(lambda call, go: go()):
            hooked = run()
        with reference():
            by_definition = run()
        for a, b, c in zip(plain, hooked, by_definition, strict=True):
            np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(a, c)


def test_coroutines_and_callables_are_decorated_too():
    x = var(1, 2)

    @no_grad()
    async def inside():
        before = (x * x).requires_grad
        await asyncio.sleep(0)
        return before, (x * x).requires_grad

    async def beside():
        await asyncio.sleep(0)
        return (x * x).requires_grad

    async def main():
        return await asyncio.gather(inside(), beside())

    assert asyncio.run(main()) == [(False, False), True]

    class Steps:
        def __call__(self):
            yield (x * x).requires_grad

    assert list(no_grad()(Steps())()) == [False]
    assert (x * x).requires_grad


def test_what_a_mode_cannot_decorate():
    async def steps():
        yield 1

    with pytest.raises(TypeError, match="asynchronous generator: write a with block in it"):
        no_grad()(steps)
    for thing in (property(steps), classmethod(steps), int, 3):
        with pytest.raises(
            TypeError, match=r"a mode decorates functions, got .*write @property or @classmethod above it"
        ):
            no_grad()(thing)
