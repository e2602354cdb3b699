"""Losses, one number for each prediction, in nats. `tinygen.nn.functional` averages them."""

from __future__ import annotations

import numpy as np

from tinygen import kernels
from tinygen.array import on_device_of, real, total, xp
from tinygen.ops._samples import normal, sample
from tinygen.ops.activations import sigmoid
from tinygen.ops.elementwise import log, log1p, maximum
from tinygen.ops.reduce import softmax, sum
from tinygen.ops.shape import getitem, index_add, reshape
from tinygen.tape import op


@op
def cross_entropy(input, target):
    """-log softmax(input)[target] along axis 1. input: (N, C, ...), target: (N, ...) integers in 0..C-1.

    Accuracy: 4 ulps of the larger of the result and 1; so is that of its gradient, the softmax minus 1 for the target.
    """
    _check_target(input, target)
    input, target = real(input), on_device_of(input, target)
    shifted = input - input.max(axis=1, keepdims=True)
    return xp(input).log(total(xp(input).exp(shifted), 1)) - shifted[_at(target)]


@cross_entropy.vjp("input")
def _(gout, input, target):
    return cross_entropy_backward(input, target, gout)


@op
def cross_entropy_backward(input, target, gloss):
    """(softmax(input) - onehot(target)) * gloss: the gradient of `cross_entropy`. gloss is shaped as the target."""
    _check_target(input, target)
    out = xp(input).exp(input - input.max(axis=1, keepdims=True))
    out /= total(out, 1, True)
    out[_at(on_device_of(input, target))] -= 1
    out *= gloss[:, None]
    return out


@cross_entropy_backward.vjp("input")
def _(gout, input, gloss):
    p = softmax(input, 1)
    return p * (gout - sum(gout * p, 1, True)) * reshape(gloss, (gloss.shape[0], 1, *gloss.shape[1:]))


@cross_entropy_backward.vjp("gloss")
def _(gout, input, target):
    return sum(gout * softmax(input, 1), 1) - getitem(gout, _at(target))


@cross_entropy.kernel
def _(input, target):
    return _by_kernel(kernels.rows.cross_entropy, input, target)


@cross_entropy_backward.kernel
def _(input, target, gloss):
    return _by_kernel(kernels.rows.cross_entropy_backward, input, target, gloss)


def _by_kernel(kernel, input, target, *more):
    """On the CPU the kernel itself refuses labels that are no classes, sooner than NumPy would have found them."""
    if input.__class__ is not np.ndarray or input.ndim < 2 or getattr(target, "dtype", _NO_DTYPE).kind not in "iu":
        _check_target(input, target)
    try:
        return kernel(input, target, *more)
    except ValueError:
        _check_target(input, target)
        raise


_NO_DTYPE = np.dtype(object)


def check_labels(name, labels, classes):
    """TypeError unless labels is an array of integers, ValueError unless they are all in [0, classes)."""
    dtype = getattr(labels, "dtype", None)
    if dtype is None or dtype.kind not in "iu":
        raise TypeError(f"{name} must be an array of integers, got {dtype or type(labels).__name__}")
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        raise ValueError(f"{name} must be in 0..{classes - 1}, got {labels.min()}..{labels.max()}")


def _check_target(input, target):
    if input.ndim < 2:
        raise ValueError(f"input must be (N, classes, ...), got shape {input.shape}")
    check_labels("target", target, input.shape[1])
    if target.shape != (input.shape[0], *input.shape[2:]):
        raise ValueError(f"target must have input's shape without axis 1, got {target.shape} for {input.shape}")


def _at(target):
    """The index of each prediction's target in an array with the classes on axis 1."""
    first, *rest = xp(target).ogrid[tuple(map(slice, target.shape))]
    return first, target, *rest


@op
def nll(input, target):
    """-input[target]. input: (N, C, ...) log-probabilities, target: (N, ...) integers."""
    _check_target(input, target)
    return -real(input)[_at(on_device_of(input, target))]


@nll.vjp("input")
def _(gout, input_shape, target):
    return index_add(-gout, _at(target), input_shape)


@op
def binary_cross_entropy_with_logits(input, target):
    """-target log sigmoid(input) - (1 - target) log(1 - sigmoid(input)), elementwise, without overflow.

    Its gradient, sigmoid(input) - target, is as exact as an ulp of the larger of the two.
    """
    if input.shape != target.shape:
        raise ValueError(f"target must have input's shape, got {target.shape} for {input.shape}")
    n, input, target = xp(input), real(input), real(target)
    return n.maximum(input, 0) - input * target + n.log1p(n.exp(-n.abs(input)))


@binary_cross_entropy_with_logits.vjp("input")
def _(gout, input, target):
    return gout * (sigmoid(input) - target)


@binary_cross_entropy_with_logits.vjp("target")
def _(gout, input):
    return -gout * input


@op
def binary_cross_entropy(input, target):
    """-target log(input) - (1 - target) log(1 - input), elementwise; logarithms count as at least -100, as in PyTorch.

    The gradient divides by input (1 - input), or 1e-12 if that is more.

    Accuracy: 16 ulps of the largest element.
    """
    _check_probabilities(input, target)
    n, input, target = xp(input), real(input), real(target, input)
    with np.errstate(divide="ignore"):
        yes, no = n.maximum(n.log(input), -100), n.maximum(n.log1p(-input), -100)
    return (target - 1) * no - target * yes


def _check_probabilities(input, target):
    if input.shape != target.shape:
        raise ValueError(f"target must have input's shape, got {target.shape} for {input.shape}")
    if input.size and not ((input >= 0) & (input <= 1)).all():
        raise ValueError(f"input must be probabilities, from 0 to 1, got {input.min()} to {input.max()}")


@binary_cross_entropy.vjp("input")
def _(gout, input, target):
    return gout * (input - target) / maximum(input * (1.0 - input), float(np.float32(1e-12)))


@binary_cross_entropy.vjp("target")
def _(gout, input):
    return gout * (log1p(-input) - log(input))


# ------------------------------------------------------------------------------------ what they are tested on


def _logits_and_labels(rng):
    for shape in ((4, 3), (2, 5, 3), (2, 3, 2, 2)):
        labels = rng.integers(0, shape[1], (shape[0], *shape[2:]))
        yield sample(normal(rng, *shape), labels)
    yield sample(normal(rng, 3, 1), np.zeros(3, np.uint8))


cross_entropy.samples(_logits_and_labels)
nll.samples(_logits_and_labels)


@cross_entropy_backward.samples
def _(rng):
    for logits, labels in (s.args for s in _logits_and_labels(rng)):
        yield sample(logits, labels, normal(rng, *labels.shape))


@binary_cross_entropy_with_logits.samples
def _(rng):
    yield sample(normal(rng, 2, 3), rng.uniform(0, 1, (2, 3)))
    yield sample(normal(rng, 4), np.array([0.0, 1.0, 1.0, 0.0]))


@binary_cross_entropy.samples
def _(rng):
    yield sample(rng.uniform(0.1, 0.9, (2, 3)), rng.uniform(0, 1, (2, 3)))
