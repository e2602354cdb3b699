"""Every op on the device gives what it gives on the CPU: values, gradients, gradients of gradients."""

import numpy as np
import pytest

import tinygen
from tests.ops.test_ops import CASES, of_op
from tinygen._tensor import leaf
from tinygen.array import moved


def on_device(cupy, value):
    """An argument with its arrays on the device, in the same order in memory."""
    if isinstance(value, (tuple, list)):
        return type(value)(on_device(cupy, v) for v in value)
    return moved(value, cupy) if isinstance(value, np.ndarray) else value


def derivatives(case, values, upstream, second):
    """Outputs, gradients, and the gradients of their product with `second`, as arrays of the host."""
    leaves = [leaf(v, True) for v in values]
    outs = case.call(leaves)
    found, live = [getattr(o, "_array", o) for o in outs], [o for o in outs if getattr(o, "requires_grad", False)]
    if live:
        grads = tinygen.grad(live, leaves, upstream, create_graph=True)
        found += [g._array for g in grads]
        products = [(g * s).sum() for g, s in zip(grads, second, strict=True) if g.requires_grad]
        found += [g._array for g in tinygen.grad(products, leaves)] if products else []
    return [moved(a, np) for a in found]


@of_op(CASES)
@pytest.mark.parametrize("definition", [False, True], ids=["kernel", "reference"])
def test_every_op_agrees_with_the_cpu(cases, definition, device):
    with tinygen.reference() if definition else tinygen.enable_grad():
        compare(cases, device)


def compare(cases, device):
    for case in cases:
        values, upstream = case.values(), case.upstream() if case.floats else []
        second = [np.random.default_rng(1).standard_normal(v.shape) for v in values]
        expected = derivatives(case, values, upstream, second)
        there = case._replace(args=tuple(on_device(device, a) for a in case.args))
        got = derivatives(there, *(on_device(device, a) for a in (values, upstream, second)))
        for mine, wanted in zip(got, expected, strict=True):
            assert mine.dtype == wanted.dtype
            np.testing.assert_allclose(mine, wanted, rtol=1e-10, atol=1e-12)
