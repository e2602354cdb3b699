"""The timer, the NaN watch and the drawing: three users of the engine's hook."""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest

import tinygen
from tinygen import debug, grad, modes, tape, tensor
from tinygen.debug import Graph, Timer, detect_nan


def var(*values):
    return tensor(np.array(values, float), requires_grad=True)


def test_each_is_small():
    for thing in (Timer, Graph):
        assert len(inspect.getsource(thing).splitlines()) < 60  # with its docstring
    code = inspect.getsource(debug)
    assert len([line for line in code.splitlines() if line.strip() and not line.strip().startswith("#")]) < 130


class TestTimer:
    def test_counts_calls_by_op_and_phase(self):
        x = var(1, 2)
        with Timer() as timer:
            for _ in range(3):
                (x.tanh() * x).sum().backward()
        x.tanh()
        names = ("tanh", "mul", "sum")
        ops = {(n, phase): 3 for n in names for phase in ("forward", "backward")}
        assert timer.calls == ops | {("add", "accumulate"): 3}  # x has two gradients
        assert timer.seconds.keys() == timer.calls.keys()
        assert all(s >= 0 for s in timer.seconds.values())

    def test_seconds_are_an_ops_own(self, monkeypatch):
        """By a clock that ticks once each time it is read."""
        ticks = iter(range(1000))
        monkeypatch.setattr(debug, "perf_counter", lambda: next(ticks))
        x = var(1, 2)
        y = x**3
        with Timer() as timer:
            grad(y, x, np.ones(2), create_graph=True)
        # its rule, gout * (3 * x**2), has three ops inside: eight readings, 7 ticks in all, one for each op.
        assert timer.calls == {("pow", "backward"): 1, ("mul", "forward"): 2, ("pow", "forward"): 1}
        assert timer.seconds == {("pow", "backward"): 4, ("mul", "forward"): 2, ("pow", "forward"): 1}

    def test_table_has_the_slowest_first(self):
        timer = Timer()
        timer.seconds = {("mul", "forward"): 0.5e-3, ("sum", "backward"): 2e-3}
        timer.calls = {("mul", "forward"): 1000, ("sum", "backward"): 7}
        head, *rows = [line.split() for line in str(timer).splitlines()]
        assert head == ["op", "phase", "calls", "ms"]
        assert rows == [["sum", "backward", "7", "2.000"], ["mul", "forward", "1000", "0.500"]]

    def test_an_op_that_raises_is_counted_and_the_next_is_timed_right(self):
        x = var(1, 2)
        with Timer() as timer:
            with pytest.raises(ValueError, match="matmul"):
                x @ var(1, 2, 3)
            x * x
        assert timer.calls == {("matmul", "forward"): 1, ("mul", "forward"): 1}
        with pytest.raises(KeyError), Timer():
            raise KeyError
        assert not modes.current.get().hooks


class TestDetectNan:
    def caught(self, run):
        with pytest.raises(FloatingPointError) as error, detect_nan():
            run()
        return str(error.value) + "".join(getattr(error.value, "__notes__", ()))

    def test_names_op_phase_and_shapes(self):
        x = var(-1, 1)
        assert re.match(r"forward of log\(float64 \(2,\)\) gave nan", self.caught(lambda: x.log()))
        assert "forward of exp(float64 (2,)) gave inf" in self.caught(lambda: (x * 1000.0).exp())
        assert "forward of div(float64 (2,), float64 (2,)) gave nan" in self.caught(lambda: (x - x) / (x - x))
        root = (x - x).sqrt()
        assert "backward of sqrt(float64 (2,)) gave inf" in self.caught(lambda: root.backward(np.ones(2)))
        assert x.grad is None

    def test_create_graph_names_the_op_within_the_rule(self):
        root = (var(1.0) - 1.0).sqrt()
        assert "forward of div" in self.caught(
            lambda: grad(root, [root], create_graph=True) and root.backward(create_graph=True)
        )

    def test_what_came_from_outside_is_named_as_such(self):
        x, bad = var(1, 2), tensor(np.array([1, np.nan]))
        assert "forward of mul(float64 (2,), float64 (2,)): its input 2 held nan already" in self.caught(
            lambda: x * bad
        )
        assert "its input 1 held nan already" in self.caught(lambda: bad * x)
        assert "input 2 held inf already" in self.caught(lambda: x * float("inf"))
        assert "input 1 held nan already" in self.caught(lambda: tinygen.cat(bad, x))
        y = x * 2.0
        text = self.caught(lambda: y.backward(np.array([np.nan, 1])))
        assert "backward of mul(float64 (2,)): its upstream gradient 1 held nan already" in text

    def test_an_op_with_several_outputs(self):
        before = dict(tape.REGISTRY)

        @tinygen.op(outputs=("s", "r"))
        def both(x):
            return x + 1, np.sqrt(x)

        try:
            assert "forward of both(float64 (2,)) gave nan" in self.caught(lambda: both(var(1, -1)))
        finally:
            tape.REGISTRY.clear()
            tape.REGISTRY.update(before)

    def test_lets_everything_else_through(self):
        x = var(1, 2)
        with detect_nan():
            loss = (tinygen.where(x > 1.0, x, -1e300) * 1.0).log_softmax(0)[1] + x.argmax()
            tensor([1, 2]) + tensor([True, False])
            loss.backward()
        with np.errstate(divide="ignore"):
            (x - x).log()  # outside, only NumPy's own warning
        assert np.isfinite(x.grad.numpy()).all()


class TestGraph:
    def build(self):
        x = var(1, 2, 3)
        with Graph() as graph:
            y = x.reshape(1, 3) * np.arange(3.0)
            loss = (y.tanh() + y).sum() * 2.0
            loss.backward()
        return graph

    def test_text(self):
        assert [line.strip() for line in str(self.build()).splitlines()] == [
            "0  input -> float64[3]", "1  reshape(0) -> float64[1, 3]", "2  input -> float64[3]",
            "3  mul(1, 2) -> float64[1, 3]", "4  tanh(3) -> float64[1, 3]", "5  add(4, 3) -> float64[1, 3]",
            "6  sum(5) -> float64[]", "7  mul(6) -> float64[]",
        ]  # fmt: skip

    def test_dot(self):
        dot = self.build().dot()
        lines = dot.splitlines()
        assert (lines[0], lines[-1]) == ("digraph {", "}")
        nodes = re.findall(r'^  n(\d+) \[label="(\w+)\\n([^"]*)"(, shape=box)?\];$', dot, re.M)
        assert [n[1] for n in nodes] == ["input", "reshape", "input", "mul", "tanh", "add", "sum", "mul"]
        assert [bool(n[3]) for n in nodes] == [n[1] == "input" for n in nodes]
        edges = set(re.findall(r"^  n(\d+) -> n(\d+);$", dot, re.M))
        assert edges == {tuple(e) for e in ("01", "13", "23", "34", "45", "35", "56", "67")}
        assert len(lines) == 2 + len(nodes) + len(edges)

    def test_several_outputs_and_variadic_ops(self):
        before = dict(tape.REGISTRY)

        @tinygen.op(outputs=("s", "c"))
        def both(x):
            return np.sin(x).sum(), np.cos(x)

        try:
            with Graph() as graph:
                s, c = both(var(1, 2))
                tinygen.cat(s.reshape(1), c, c)
        finally:
            tape.REGISTRY.clear()
            tape.REGISTRY.update(before)
        assert [(label, parents) for label, _, parents in graph.nodes] == [
            ("input", []), ("both", [0]), ("reshape", [1]), ("cat", [2, 1, 1]),
        ]  # fmt: skip
        assert graph.nodes[1][1] == "float64[], float64[2]"

    def test_freed_arrays_are_not_mistaken_for_new_ones(self):
        with Graph() as graph:
            for n in range(50):
                tensor(np.full(3, float(n))) * 2.0
        assert [parents for label, _, parents in graph.nodes if label == "mul"] == [[2 * n] for n in range(50)]

    @pytest.mark.fault("T04")
    def test_a_long_chain(self):
        y = var(1.0)
        with Graph() as graph:
            for _ in range(100_000):
                y = y + 1.0
        assert str(graph).splitlines()[-1].split() == ["100000", "add(99999)", "->", "float64[1]"]
        assert graph.dot().count("->") == 100_000


def test_all_three_together():
    x = var(1, 2)
    with Timer() as timer, detect_nan(), Graph() as graph:
        (x * x).sum().backward()
    assert len(graph.nodes) == 3
    assert sum(timer.calls.values()) == 5  # the gradients of x are added
    np.testing.assert_array_equal(x.grad.numpy(), [2, 4])
