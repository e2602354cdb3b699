"""Chapter 2: gradient rules, by hand. Write the `_backward` functions, then run `tinygen gradcheck exercise.py`."""

import numpy as np

from tinygen import op
from tinygen.array import xp


def tanh_forward(x):
    y = np.tanh(x)
    return y, y


def tanh_backward(dout, cache):
    """Exercise 2.1: the gradient by x. The cache is y; it is all you need."""
    raise NotImplementedError("exercise 2.1")


def scale_forward(x, gamma):
    """x: (N, D), gamma: (D,), which is broadcast over the rows."""
    return x * gamma, (x, gamma)


def scale_backward(dout, cache):
    """Exercise 2.2: the gradients by x and by gamma, each in its argument's shape: broadcasting is undone by a sum."""
    raise NotImplementedError("exercise 2.2")


def scale_inputs():
    """The arguments that gradcheck takes."""
    r = np.random.default_rng(0)
    return r.standard_normal((3, 4)), r.standard_normal(4)


def linear_forward(x, w, b):
    """x: (N, D), w: (D, M), b: (M,)."""
    return x @ w + b, (x, w)


def linear_backward(dout, cache):
    """Exercise 2.3: the gradients by x, w and b. Let the shapes guide you."""
    raise NotImplementedError("exercise 2.3")


def softmax_loss(x, y):
    """Exercise 2.4: the cross entropy of scores x (N, C) and classes y (N,), a mean in nats; and its gradient by x.

    Take the largest score of a row off first: then no exponential overflows, and nothing else changes.
    """
    raise NotImplementedError("exercise 2.4")


@op
def bump(x):
    """exp(-x^2 / 2), an op of tinygen. Its rule is written in ops, so it has gradients of any order."""
    return xp(x).exp(-x * x / 2)


@bump.vjp("x")
def bump_rule(gout, x, out):
    """Exercise 2.5: the gradient by x, from the upstream gradient, the input and the output."""
    raise NotImplementedError("exercise 2.5")
