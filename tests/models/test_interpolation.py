"""What lies between two codes: the ends, the middle, and what is asked of which model."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygen.data import Dataset, Levels
from tinygen.models.condition import Condition
from tinygen.models.interpolation import interpolation, lerp, slerp

RNG = np.random.default_rng(0)
TEST = Dataset(RNG.integers(0, 256, (20, 1, 2, 2)).astype(np.uint8), 256)


class Decoder:
    """Its images are their own codes."""

    levels, condition = Levels(256), Condition()

    def __init__(self):
        self.told = []

    def codes(self, n, rng):
        return rng.uniform(1, 255, (n, 4))

    def decode(self, z, labels=None):
        self.told.append(labels)
        return z.reshape(-1, 1, 2, 2)


class Autoencoder(Decoder):
    def encode(self, images):
        return images.reshape(len(images), 4).astype(float)


VECTORS = st.lists(st.floats(-3, 3), min_size=2, max_size=5).map(np.array)


@given(VECTORS, st.integers(0, 2**32 - 1))
def test_paths_begin_and_end_where_they_should_and_the_arc_keeps_its_length(a, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=len(a)) + 0.1, rng.normal(size=len(a))
    t = np.linspace(0, 1, 7)
    for path in (lerp, slerp):
        np.testing.assert_allclose(path(a, b, t)[[0, -1]], [a, b], atol=1e-9)
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    if abs(a @ b) < 0.999:
        arc = slerp(a, b, t)
        np.testing.assert_allclose(np.linalg.norm(arc, axis=1), 1, rtol=1e-9)
        np.testing.assert_allclose(np.diff(arc @ a.T), np.diff(np.cos(t * np.arccos(a @ b))), atol=1e-9)
    np.testing.assert_allclose(slerp(a, a, t), np.tile(a, (7, 1)), atol=1e-9)
    np.testing.assert_allclose(slerp(a, 0 * a, t), lerp(a, 0 * a, t), atol=1e-9)


@given(st.integers(0, 999))
def test_a_line_and_an_arc_are_walked_evenly(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, 5))
    b *= np.linalg.norm(a) / np.linalg.norm(b)
    for path in (lerp, slerp):
        steps = np.linalg.norm(np.diff(path(a, b, np.linspace(0, 1, 7)), axis=0), axis=1)
        np.testing.assert_allclose(steps, steps[0])


@pytest.mark.parametrize("count", [1, 5, 20])
def test_a_model_that_encodes_goes_from_test_image_to_test_image(count):
    test = Dataset(TEST.images[:count], 256)
    plot = interpolation(Autoencoder(), test, test, RNG)
    assert plot.columns == len(plot.across) == 12
    rows = plot.images.reshape(6, 12, 4)
    for i, row in enumerate(rows):
        first, second = (test.images[j % count].reshape(4) for j in (2 * i, 2 * i + 1))
        np.testing.assert_array_equal(row[[0, 1]], [first, first])
        np.testing.assert_array_equal(row[[10, 11]], [second, second])
        between = first + np.arange(10)[:, None] / 9 * (second.astype(float) - first)
        np.testing.assert_allclose(row[1:11], between, atol=0.51)


def test_a_model_without_an_encoder_goes_between_codes_of_the_prior_in_a_line_and_an_arc():
    model = Decoder()
    plot = interpolation(model, TEST, TEST, np.random.default_rng(1))
    z = np.random.default_rng(1).uniform(1, 255, (8, 4))
    rows = plot.images.reshape(8, 10, 4)
    assert plot.rows == ["line", "arc"] * 4
    for i, row in enumerate(rows):
        path = (lerp, slerp)[i % 2]
        np.testing.assert_allclose(row, path(*z[i // 2 * 2 :][:2], np.linspace(0, 1, 10)), atol=0.51)
    assert model.told == [None]


def test_both_ends_of_a_path_are_of_one_class():
    model = Decoder()
    model.condition = Condition(10)
    interpolation(model, TEST, TEST, np.random.default_rng(1))
    labels = model.told[0].reshape(4, 20)
    assert (labels == labels[:, :1]).all()
    assert 0 <= labels.min() < labels.max() < 10
