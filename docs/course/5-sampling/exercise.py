"""Chapter 5: drawing an image. Fill the holes, then run `tinygen gradcheck exercise.py`.

The model is a small PixelCNN: a pixel is normally distributed, with deviation 1, and its mean is what two masked
convolutions make of the pixels before it. So a pixel is drawn as its mean plus noise.

gradcheck compares gradients. The gradient of np.vdot(a, b) by a is b, so that it can compare any array: in its report
`dnoise` is the noise that comes back of your image, `dwork` how many multiplications you needed.
"""

import functools

import numpy as np

SIDE, FEATURES = 5, 3
_r = np.random.default_rng(0)
NOISE = _r.standard_normal((SIDE, SIDE))
PAST = np.array([[1, 1, 1], [1, 0, 0], [0, 0, 0]])  # mask A: the pixels before
W1 = _r.standard_normal((FEATURES, 3, 3)) * PAST
W2 = _r.standard_normal((FEATURES, 3, 3)) * (PAST + np.diag([0, 1, 0])) / 3  # mask B: and the middle
work = 0  # multiplications so far


def product(w, values, i, j):
    """Of 3x3 weights with what they see around pixel (i, j), zeros beyond the edges. values: (..., H, W)."""
    global work
    work += w.size
    edges = [(0, 0)] * (values.ndim - 2) + [(1, 1), (1, 1)]
    return (w * np.pad(values, edges)[..., i : i + 3, j : j + 3]).sum(axis=(-2, -1))


def hidden_at(x, i, j):
    """The hidden numbers at a pixel, (FEATURES,), by the pixels of x (H, W) before it."""
    return np.tanh(product(W1, x, i, j))


def mean_at(h, i, j):
    """The mean of a pixel, by the hidden numbers h (FEATURES, H, W) at it and before it."""
    return product(W2, h, i, j).sum()


def network(x):
    """One pass: the means of all pixels (H, W) of an image x (H, W), and its hidden numbers (FEATURES, H, W)."""
    h, mean = np.zeros((FEATURES, *x.shape)), np.zeros(x.shape)
    for i, j in np.ndindex(x.shape):
        h[:, i, j] = hidden_at(x, i, j)
    for i, j in np.ndindex(x.shape):
        mean[i, j] = mean_at(h, i, j)
    return mean, h


def order(height, width):
    """Exercise 5.1: the pixels (i, j) in the order in which they are drawn: row by row, each from left to right."""
    raise NotImplementedError("exercise 5.1")


def naive(noise):
    """Exercise 5.2: an image (H, W): each pixel is its mean, by one pass over what is drawn so far, plus its noise."""
    raise NotImplementedError("exercise 5.2")


def remembering(noise):
    """Exercise 5.3: the same image, and the hidden numbers (FEATURES, H, W) of it, with the work of one pass.

    The hidden numbers at a pixel depend on the pixels before it alone. So those that were computed stay right, and
    `hidden_at` and `mean_at` are needed only once for each pixel.
    """
    raise NotImplementedError("exercise 5.3")


@functools.cache
def drawn(function):
    """What a function makes of the noise, and the multiplications that it took, in passes of the network over it."""
    global work
    work = 0
    result = function(NOISE)
    return result, np.array([work / (2 * W1.size * SIDE * SIDE)])


def order_loss(place, count):
    """`dplace`: when each pixel is drawn, the first one at 0. `dcount`: how many are."""
    pixels, places = order(SIDE, SIDE), np.zeros((SIDE, SIDE))
    for number, pixel in enumerate(pixels):
        places[pixel] = number
    right = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    return np.vdot(place, right) + SIDE * SIDE * count.sum(), (places, np.full(1, float(len(pixels))))


def naive_loss(noise, work):
    """`dnoise`: an image minus its means is its noise. `dwork`: a pass for each pixel."""
    x, passes = drawn(naive)
    return np.vdot(noise, NOISE) + SIDE * SIDE * work.sum(), (x - network(x)[0], passes)


def remembering_loss(noise, hidden, work):
    """`dnoise`: as above. `dhidden`: those of the image. `dwork`: one pass."""
    (x, h), passes = drawn(remembering)
    mean, right = network(x)
    return np.vdot(noise, NOISE) + np.vdot(hidden, right) + work.sum(), (x - mean, h, passes)


def order_loss_inputs():
    """The arguments that gradcheck takes: any numbers, since only gradients are compared."""
    return np.random.default_rng(1).standard_normal((SIDE, SIDE)), np.full(1, 0.3)


def naive_loss_inputs():
    """The same."""
    return order_loss_inputs()


def remembering_loss_inputs():
    """The same."""
    noise, work = order_loss_inputs()
    return noise, np.random.default_rng(2).standard_normal((FEATURES, SIDE, SIDE)), work


if __name__ == "__main__":
    image, passes = drawn(naive)
    (again, _), fewer = drawn(remembering)
    print(f"the naive loop: {passes[0]:g} passes; remembering: {fewer[0]:g}; same image: {np.allclose(image, again)}")
