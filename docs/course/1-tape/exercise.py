"""Chapter 1: a tape of your own. Write `Value.backward`, then run `tinygen gradcheck exercise.py`."""

import numpy as np


class Value:
    """An array that remembers how it was made: from which values, and by which rule gradients go back to them.

    Attributes:
        data: the array.
        grad: the gradient of whatever `backward` was called on, with respect to this one; zeros before.
        parents: the values it was made from.
        rule: from the gradient of this one to those of the parents, a tuple.
    """

    def __init__(self, data, parents=(), rule=None):
        self.data, self.parents, self.rule = np.asarray(data, float), parents, rule
        self.grad = np.zeros_like(self.data)

    def __add__(self, other):
        return Value(self.data + other.data, (self, other), lambda g: (g, g))

    def __mul__(self, other):
        return Value(self.data * other.data, (self, other), lambda g: (g * other.data, g * self.data))

    def tanh(self):
        y = np.tanh(self.data)
        return Value(y, (self,), lambda g: (g * (1 - y * y),))

    def backward(self, gradient):
        """Exercise 1.1: add to `.grad` of every value that this one was made from (and to its own) its gradient.

        A value that is used twice has two gradients, which add up; only then may its rule run. So the order matters:
        a value comes after all that were made from it.
        """
        raise NotImplementedError("exercise 1.1")


def chain(a):
    """One path."""
    return a.tanh().tanh()


def chain_forward(x):
    return chain(Value(x)).data, x


def chain_backward(dout, cache):
    a = Value(cache)
    chain(a).backward(dout)
    return a.grad


def diamond(a):
    """Two values that are used twice."""
    b = a + a
    return b + b


def diamond_forward(x):
    return diamond(Value(x)).data, x


def diamond_backward(dout, cache):
    a = Value(cache)
    diamond(a).backward(dout)
    return a.grad


def knot(a, b):
    """Paths of different lengths meet in a and in h."""
    h = (a * b).tanh()
    return h * h + h * a


def knot_forward(x, w):
    return knot(Value(x), Value(w)).data, (x, w)


def knot_backward(dout, cache):
    a, b = map(Value, cache)
    knot(a, b).backward(dout)
    return a.grad, b.grad


def knot_inputs():
    """The arguments that gradcheck takes."""
    r = np.random.default_rng(0)
    return r.standard_normal((3, 4)), r.standard_normal((3, 4))
