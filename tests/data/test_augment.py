"""Views: cut out, stretched, mirrored, darkened; of the image's own pixels."""

import numpy as np

from tinygen.data import augment


def rng(seed=0):
    return np.random.default_rng(seed)


def test_a_view_is_of_the_images_own_pixels_in_their_order(monkeypatch):
    """Of an image whose values are its pixels' numbers, undarkened: rows and columns in order, none from outside."""
    monkeypatch.setattr(augment, "DARKEST", 1.0)
    image = np.arange(64, dtype=np.uint8).reshape(1, 1, 8, 8).repeat(500, axis=0)
    seen = augment.view(image, rng())
    assert seen.shape == image.shape
    assert seen.dtype == np.uint8
    rows, columns = np.divmod(seen[:, 0], 8)
    assert (rows == rows[:, :, :1]).all()
    assert (columns == columns[:, :1]).all()
    assert (np.diff(rows, axis=1) >= 0).all()
    direction = np.sign(columns[:, 0, -1].astype(int) - columns[:, 0, 0])
    assert (np.sign(np.diff(columns[:, 0].astype(int), axis=1)) * direction[:, None] >= 0).all()
    assert 0.4 < (direction < 0).mean() < 0.6
    height = np.ptp(rows[:, :, 0], axis=1) + 1
    assert height.min() in (4, 5)
    assert height.max() == 8
    assert set(rows[:, 0, 0]) >= set(range(4))  # crops begin everywhere, and end everywhere
    assert set(rows[:, -1, 0]) >= set(range(4, 8))


def test_each_channel_is_darkened_by_a_number_of_its_own():
    image = np.full((400, 3, 4, 6), 200, np.uint8)
    seen = augment.view(image, rng())
    assert (seen == seen[:, :, :1, :1]).all()
    values = seen[:, :, 0, 0] / 200
    assert 0.4 <= values.min() < 0.42
    assert 0.98 < values.max() <= 1
    assert abs(np.corrcoef(values.T)[0, 1]) < 0.2


def test_another_generator_another_view():
    images = rng(1).integers(0, 17, (5, 1, 8, 8)).astype(np.uint8)
    one, again, other = (augment.view(images, rng(seed)) for seed in (0, 0, 1))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert augment.view(images[:0], rng()).shape == (0, 1, 8, 8)
