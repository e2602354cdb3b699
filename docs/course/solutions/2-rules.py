"""Chapter 2: gradient rules, by hand. Write the `_backward` functions, then run `tinygen gradcheck exercise.py`."""

import numpy as np

from tinygen import op
from tinygen.array import xp


def tanh_forward(x):
    y = np.tanh(x)
    return y, y


def tanh_backward(dout, cache):
    """Exercise 2.1: the gradient by x. The cache is y; it is all you need."""
    y = cache
    return dout * (1 - y * y)


def scale_forward(x, gamma):
    """x: (N, D), gamma: (D,), which is broadcast over the rows."""
    return x * gamma, (x, gamma)


def scale_backward(dout, cache):
    """Exercise 2.2: the gradients by x and by gamma, each in its argument's shape: broadcasting is undone by a sum."""
    x, gamma = cache
    return dout * gamma, (dout * x).sum(axis=0)


def scale_inputs():
    """The arguments that gradcheck takes."""
    r = np.random.default_rng(0)
    return r.standard_normal((3, 4)), r.standard_normal(4)


def linear_forward(x, w, b):
    """x: (N, D), w: (D, M), b: (M,)."""
    return x @ w + b, (x, w)


def linear_backward(dout, cache):
    """Exercise 2.3: the gradients by x, w and b. Let the shapes guide you."""
    x, w = cache
    return dout @ w.T, x.T @ dout, dout.sum(axis=0)


def softmax_loss(x, y):
    """Exercise 2.4: the cross entropy of scores x (N, C) and classes y (N,), a mean in nats; and its gradient by x.

    Take the largest score of a row off first: then no exponential overflows, and nothing else changes.
    """
    x = x - x.max(axis=1, keepdims=True)
    log_p = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    rows = np.arange(len(x))
    dx = np.exp(log_p)
    dx[rows, y] -= 1
    return -log_p[rows, y].mean(), dx / len(x)


@op
def bump(x):
    """exp(-x^2 / 2), an op of tinygen. Its rule is written in ops, so it has gradients of any order."""
    return xp(x).exp(-x * x / 2)


@bump.vjp("x")
def bump_rule(gout, x, out):
    """Exercise 2.5: the gradient by x, from the upstream gradient, the input and the output."""
    return -gout * x * out
