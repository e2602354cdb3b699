"""Chapter 7: two players. Write what is missing, then run `tinygen gradcheck exercise.py`.

D gives a logit for each image, (N,): the probability that it is real is 1 / (1 + exp(-logit)).
"""

import numpy as np


def sigmoid(x):
    return np.exp(-np.logaddexp(0, -x))


def discriminator_forward(real, fake):
    """-log D(x) - log(1 - D(G(z))), for each pair: (N,) from logits (N,) and (N,)."""
    return np.logaddexp(0, -real) + np.logaddexp(0, fake), (real, fake)


def discriminator_backward(dout, cache):
    """Exercise 7.1: the gradients by both logits. Which way does each push?"""
    real, fake = cache
    return dout * (sigmoid(real) - 1), dout * sigmoid(fake)


def discriminator_inputs():
    """The arguments that gradcheck takes."""
    r = np.random.default_rng(0)
    return 2 * r.standard_normal(5), 2 * r.standard_normal(5)


def minimax_forward(fake):
    """The generator's loss as the game is defined, log(1 - D(G(z))) (slide 115)."""
    return -np.logaddexp(0, fake), fake


def minimax_backward(dout, cache):
    """Exercise 7.2: the gradient by the logit. What is left of it where D is sure, at a logit of -10?"""
    fake = cache
    return -dout * sigmoid(fake)


def saturation_forward(fake):
    """The generator's loss as it is trained, -log D(G(z)) (slide 121)."""
    return np.logaddexp(0, -fake), fake


def saturation_backward(dout, cache):
    """Exercise 7.3: the gradient by the logit. And now, at a logit of -10?"""
    fake = cache
    return dout * (sigmoid(fake) - 1)


def penalty_forward(x, w):
    """WGAN-GP's penalty of a critic tanh(x w): (|dD/dx| - 1)^2 of each row. x: (N, D), w: (D,). -> (N,)."""
    t = np.tanh(x @ w)
    slope = (1 - t * t)[:, None] * w  # dD/dx, (N, D)
    norm = np.sqrt((slope**2).sum(axis=1))
    return (norm - 1) ** 2, (x, w, t, slope, norm)


def penalty_backward(dout, cache):
    """Exercise 7.4: the gradients by x and by w: gradients through a gradient.

    w stands in it twice: in the slope's factor w, and within t = tanh(x w).
    """
    x, w, t, slope, norm = cache
    dslope = (dout * 2 * (norm - 1) / norm)[:, None] * slope
    dw = ((1 - t * t)[:, None] * dslope).sum(axis=0)
    dt = -2 * t * (dslope * w).sum(axis=1)
    da = dt * (1 - t * t)  # of a = x w
    return da[:, None] * w, dw + x.T @ da


def penalty_inputs():
    """The arguments that gradcheck takes."""
    r = np.random.default_rng(1)
    return r.standard_normal((4, 3)), r.standard_normal(3)
