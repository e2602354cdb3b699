"""Chapter 6: what a VAE adds. Write what is missing, then run `tinygen gradcheck exercise.py`."""

import numpy as np


def kl_forward(mean, log_var):
    """KL(N(mean, exp(log_var)) || N(0, 1)): (exp(log_var) + mean^2 - 1 - log_var) / 2, slide 85."""
    return 0.5 * (np.exp(log_var) + mean**2 - 1 - log_var), (mean, log_var)


def kl_backward(dout, cache):
    """Exercise 6.1: the gradients by mean and by log_var. Where are both 0? At the prior."""
    mean, log_var = cache
    return dout * mean, dout * 0.5 * (np.exp(log_var) - 1)


def kl_inputs():
    """The arguments that gradcheck takes."""
    r = np.random.default_rng(0)
    return r.standard_normal((3, 4)), r.standard_normal((3, 4))


def reparameterize_forward(mean, log_var):
    """z = mean + exp(log_var / 2) * noise (slide 87), the noise drawn once and for all."""
    noise = np.random.default_rng(7).standard_normal(mean.shape)
    return mean + np.exp(log_var / 2) * noise, (log_var, noise)


def reparameterize_backward(dout, cache):
    """Exercise 6.2: the gradients by mean and by log_var: the noise is a constant, so they flow."""
    log_var, noise = cache
    return dout, dout * 0.5 * np.exp(log_var / 2) * noise


def reparameterize_inputs():
    """The arguments that gradcheck takes."""
    r = np.random.default_rng(1)
    return r.standard_normal((3, 4)), r.standard_normal((3, 4))


def bernoulli_loss(x, y):
    """Exercise 6.3: -log p(y) of logits x (N, D), pixels y of 0 or 1: summed over D, a mean over N; its gradient by x.

    log(1 + exp(x)) overflows for large x: np.logaddexp(0, x) doesn't.
    """
    nats = np.logaddexp(0, x) - y * x
    p = np.exp(x - np.logaddexp(0, x))
    return nats.sum(axis=1).mean(), (p - y) / len(x)


def bernoulli_loss_inputs():
    """The arguments that gradcheck takes."""
    r = np.random.default_rng(2)
    return 2 * r.standard_normal((4, 6)), r.integers(0, 2, (4, 6))
