"""Errors in ops and rules: the state is as before, the message names the op."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.autograd.helpers import equal, here, var
from tinygen import modes, op


@pytest.mark.fault("T07")
@pytest.mark.parametrize(
    "error", [ValueError, TypeError, IndexError, RuntimeError, FloatingPointError, KeyError, MemoryError]
)
@pytest.mark.parametrize("create_graph", [False, True])
def test_a_rule_that_raises_leaves_everything_as_it_was(error, create_graph):
    armed = True

    @op
    def fragile(x):
        return x * 2

    @fragile.vjp("x")
    def _(gout, x):
        if armed:
            raise error("broken on purpose")
        return gout * 2.0

    x, y = var(1, 2), var(3, 4)
    (x * y).sum().backward()
    loss = (fragile(x) * y).sum() + x.sum()
    line = here(-1)
    before = modes.is_grad_enabled(), modes.is_reference()
    with pytest.raises(error) as caught:
        loss.backward(create_graph=create_graph)
    text = str(caught.value) + "".join(getattr(caught.value, "__notes__", ()))
    assert "broken on purpose" in text
    assert "backward of fragile" in text
    assert re.search(line, text)
    assert before == (modes.is_grad_enabled(), modes.is_reference())
    equal(x.grad, [3, 4])
    equal(y.grad, [1, 2])
    armed = False
    ((fragile(x) * y).sum() + x.sum()).backward()
    equal(x.grad, [3 + 7, 4 + 9])
    equal(y.grad, [1 + 2, 2 + 4])


@pytest.mark.fault("T07")
def test_ctrl_c_within_a_rule():
    @op
    def slow(x):
        return x * 1

    @slow.vjp("x")
    def _(gout):
        raise KeyboardInterrupt

    x = var(1.0)
    with pytest.raises(KeyboardInterrupt):
        slow(x).backward(create_graph=True)
    assert x.grad is None
    assert modes.is_grad_enabled()


@pytest.mark.fault("G12")
@pytest.mark.parametrize("error", [ValueError, TypeError, IndexError, RuntimeError, KeyError, FloatingPointError])
def test_an_op_that_raises_is_named_with_its_arguments(error):
    @op
    def broken(x, n=2):
        raise error("by design")

    for args in ((var(1, 2),), (var(1, 2), 3), (np.ones(2),)):
        with pytest.raises(error) as caught:
            broken(*args)
        text = str(caught.value) + "".join(getattr(caught.value, "__notes__", ()))
        assert "broken(float64 (2,), " in text
        assert "by design" in text
