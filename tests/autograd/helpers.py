"""What the tests of the engine share: tensors, ops made up for them, random programs, a little training."""

from __future__ import annotations

import gc
import inspect
import re
import weakref

import numpy as np
from hypothesis import strategies as st

import tinygen
from tinygen import op, tensor


def var(*values, dtype=np.float64):
    """A leaf that requires a gradient."""
    return tensor(np.array(values, dtype), requires_grad=True)


def here(offset=0):
    """`file:line` of the caller's line, as a pattern."""
    frame = inspect.currentframe().f_back
    return re.escape(f"{frame.f_code.co_filename}:{frame.f_lineno + offset}")


def equal(t, values):
    np.testing.assert_array_equal(t.numpy(), values)


UNARY = {
    "tanh": (tinygen.tanh, np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "sin": (tinygen.sin, np.sin, np.cos),
    "neg": (tinygen.neg, np.negative, lambda x: -np.ones_like(x)),
}


@st.composite
def programs(draw):
    """Lists of steps (name, argument, argument), each argument an earlier value."""
    steps = []
    for n in range(2, draw(st.integers(3, 14))):
        earlier = st.integers(0, n - 1)
        steps.append((draw(st.sampled_from([*UNARY, "add", "sub", "mul"])), draw(earlier), draw(earlier)))
    return steps


def polar():
    """An op of two outputs with one joint rule: (r, phi) -> (r cos phi, r sin phi)."""

    @op(outputs=("x", "y"))
    def polar(r, phi):
        return r * np.cos(phi), r * np.sin(phi)

    seen = []

    @polar.vjp("r", "phi")
    def _(gx, gy, r, phi, x, y, needs):
        seen.append((gx is None, gy is None, needs))
        gr = gphi = 0.0
        if gx is not None:
            gr, gphi = gr + gx * tinygen.cos(phi), gphi - gx * y
        if gy is not None:
            gr, gphi = gr + gy * tinygen.sin(phi), gphi + gy * x
        return gr, gphi

    return polar, seen


def kernel_op(log):
    """An op with a kernel; both say who ran."""

    @op
    def timesthree(x):
        log.append("body")
        return x * 3

    @timesthree.kernel
    def _(x):
        log.append("kernel")
        return NotImplemented if x.size == 3 else x * 3

    @timesthree.vjp("x")
    def _(gout):
        return timesthree(gout)

    return timesthree


def train(seed, steps=30, watch=lambda: None):
    """A little network, fitted by gradient descent; its losses."""
    rng = np.random.default_rng(seed)
    x, t = rng.standard_normal((8, 3)), rng.standard_normal((8, 2))
    w1, w2 = (tensor(rng.standard_normal(s), requires_grad=True) for s in ((3, 4), (4, 2)))
    losses = []
    for _ in range(steps):
        watch()
        loss = (((x @ w1).tanh() @ w2 - t) ** 2).mean()
        loss.backward()
        losses.append(loss.item())
        for w in (w1, w2):
            w.write()[...] -= 0.1 * w.grad.numpy()
            w.grad = None
    return losses


class Gone:
    """Within it the collector of cycles is off; afterwards nothing that was watched is alive."""

    def __enter__(self):
        gc.collect()
        gc.disable()
        self.refs = []
        return self

    def watch(self, *things):
        self.refs += [weakref.ref(t) for t in things]
        return things[0]

    def __exit__(self, *error):
        gc.enable()
        if error[0] is None:
            assert [r() for r in self.refs if r() is not None] == []
