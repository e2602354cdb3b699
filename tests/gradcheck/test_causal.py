"""The dependency matrix of a model: who sees whom."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygen
from tinygen.gradcheck.causal import blind_spot, dependencies, picture, violations


def masked(side: int, include: bool, rows_too_many: int = 0) -> np.ndarray:
    """The taps of a kernel before its center in raster order (and the center itself, for type B)."""
    m = np.zeros((side, side))
    middle = side // 2
    m[: middle + rows_too_many] = 1
    m[middle, : middle + include] = 1
    return m


def convolution(weights: np.ndarray):
    """x (1, 1, H, W) -> (1, 2, H, W) by shifted copies: slow, and plainly right."""
    side = len(weights)

    def fn(x):
        h, w = x.shape[-2:]
        n = h * w
        matrix = np.zeros((n, n))
        for i, (r, c) in enumerate(np.ndindex(h, w)):
            for a, b in np.ndindex(side, side):
                y, z = r + a - side // 2, c + b - side // 2
                if 0 <= y < h and 0 <= z < w:
                    matrix[i, y * w + z] = weights[a, b]
        out = tinygen.reshape(tinygen.matmul(tinygen.tensor(matrix), tinygen.reshape(x, (n, 1))), (1, 1, h, w))
        return tinygen.cat((tinygen.tanh(out), out * 2), 1)

    return fn


@given(st.integers(2, 5), st.integers(2, 5), st.sampled_from([3, 5]))
@settings(max_examples=15, deadline=None)
def test_masks_before_the_center_are_causal_and_others_are_not(h: int, w: int, side: int) -> None:
    x = np.random.default_rng(h).standard_normal((1, h, w))
    causal = dependencies(convolution(masked(side, False)), x)
    assert violations(causal) == []
    itself = dependencies(convolution(masked(side, True)), x)
    assert violations(itself) == [(i, i) for i in range(h * w)]
    broken = dependencies(convolution(masked(side, False, 1)), x)  # a mask with one row too many
    assert any(j > i for i, j in violations(broken))


def test_the_blind_spot_of_stacked_masks_and_its_picture() -> None:
    x = np.random.default_rng(0).standard_normal((1, 4, 5))
    first, second = convolution(masked(3, False)), convolution(masked(3, True))
    matrix = dependencies(lambda x: second(first(x)[:, :1]), x)
    assert violations(matrix) == []
    assert (3 * 5 + 2, 2 * 5 + 4) in blind_spot(matrix)
    assert picture(matrix, 4, 5, (3, 2)) == ".....\n#####\n####.\n##o"


def test_channels_keep_the_order_red_green_blue() -> None:
    x = np.random.default_rng(0).standard_normal((3, 2, 2))
    mix = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0]], float)

    def fn(image):  # each channel sees the channels before it at its own pixel
        flat = tinygen.reshape(image, (3, 4))
        return tinygen.reshape(tinygen.matmul(tinygen.tensor(mix), flat), (1, 1, 3, 2, 2))

    matrix = dependencies(fn, x, channels=True)
    assert violations(matrix) == []
    assert matrix[1, 0] != 0
    assert matrix[4, 0] == 0
    assert matrix[5, 4] != 0


def test_outputs_that_are_no_image_are_refused() -> None:
    with pytest.raises(ValueError, match="doesn't end in the image's"):
        dependencies(lambda x: tinygen.reshape(x, (1, 4)), np.zeros((1, 2, 2)))
