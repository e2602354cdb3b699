"""Tasks: edges of known images, colors with known chances, a hole; pairs that are made of images and labels."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from tinygen.data import Dataset, load, tasks


def made(name, images, labels=None, levels=256, seed=0):
    return tasks.named(name)(np.asarray(images, np.uint8), labels, levels, np.random.default_rng(seed))


# --------------------------------------------------------------------------------------------------------------- edges


def by_loops(images, levels):
    """Sobel's kernels, written out pixel by pixel in float64."""
    n, _, h, w = images.shape
    kernel = np.outer([1, 2, 1], [-1, 0, 1]) / 8
    out = np.zeros((n, 1, h, w), np.uint8)
    for i, y, x in itertools.product(range(n), range(h), range(w)):
        dx = dy = 0.0
        for a, b in itertools.product(range(3), range(3)):
            row, column = min(max(y + a - 1, 0), h - 1), min(max(x + b - 1, 0), w - 1)
            value = images[i, :, row, column].mean() / (levels - 1)
            dx, dy = dx + kernel[a, b] * value, dy + kernel[b, a] * value
        out[i, 0, y, x] = (levels - 1) * (math.hypot(dx, dy) >= tasks.EDGE)
    return out


@pytest.mark.parametrize(("channels", "levels"), [(1, 256), (3, 17), (1, 2)])
def test_edges_are_sobels(channels, levels):
    images = np.random.default_rng(0).integers(0, levels, (3, channels, 6, 5)).astype(np.uint8)
    edges, target = made("edges", images, levels=levels)
    np.testing.assert_array_equal(edges, by_loops(images, levels))
    assert target is images
    assert 0 < (edges > 0).mean() < 1


def test_edges_of_a_step_are_two_pixels_wide_and_a_flat_image_has_none():
    step = np.zeros((1, 1, 5, 8), np.uint8)
    step[..., 4:] = 128  # half of all levels: half of that from pixel to pixel, over two pixels
    np.testing.assert_array_equal(made("edges", step)[0][0, 0], np.tile([0, 0, 0, 255, 255, 0, 0, 0], (5, 1)))
    assert not made("edges", step // 2)[0].any()  # a slope of an eighth isn't enough
    assert not made("edges", np.full((1, 1, 4, 4), 255))[0].any()


def test_turning_an_image_turns_its_edges():
    images = load("digits")[0].images[:20]
    edges = made("edges", images, levels=17)[0]
    for turned in (lambda x: x[..., ::-1], lambda x: x.transpose(0, 1, 3, 2)):
        np.testing.assert_array_equal(made("edges", turned(images), levels=17)[0], turned(edges))


# -------------------------------------------------------------------------------------------------------------- colors


def test_hues_are_drawn_as_the_table_says():
    """The shares of 60,000 draws are within five standard errors of the table's."""
    labels = np.arange(60_000) % 10
    _, colored = made("color", np.full((60_000, 1, 1, 1), 200), labels)
    tints = np.round(200 * tasks.TINTS).astype(np.uint8)
    drawn = (colored[:, None, :, 0, 0] == tints).all(axis=2)
    assert (drawn.sum(axis=1) == 1).all()
    table = tasks.hues(10)
    shares = np.stack([drawn[labels == c].mean(axis=0) for c in range(10)])
    assert (np.abs(shares - table) <= 5 * np.sqrt(table * (1 - table) / 6000)).all()
    np.testing.assert_allclose(table.sum(axis=1), 1)
    assert -(table[0][table[0] > 0] * np.log(table[0][table[0] > 0])).sum() == pytest.approx(0.8018, abs=1e-4)


def test_the_input_is_the_targets_brightness():
    images = np.random.default_rng(0).integers(0, 256, (50, 1, 3, 3)).astype(np.uint8)
    gray, colored = made("color", images, np.zeros(50, int))
    assert colored.shape == (50, 3, 3, 3)
    np.testing.assert_array_equal(gray, images)  # the largest channel of each color is the image's own value
    photos = np.random.default_rng(1).integers(0, 256, (5, 3, 2, 2)).astype(np.uint8)
    gray, kept = made("color", photos)
    assert kept is photos
    np.testing.assert_array_equal(gray[:, 0], photos.max(axis=1))


def test_gray_images_without_labels_have_no_hue():
    with pytest.raises(ValueError, match="task color: draws a gray image's hue given its class, but the images have"):
        made("color", np.zeros((1, 1, 2, 2)))


# ---------------------------------------------------------------------------------------------------------- and others


def test_the_lower_half_is_a_hole():
    images = np.random.default_rng(0).integers(0, 17, (2, 3, 5, 4)).astype(np.uint8)
    given, target = made("half", images, levels=17)
    assert target is images
    assert given.dtype == np.uint8
    np.testing.assert_array_equal(given[:, :, :2], images[:, :, :2])
    assert (given[:, :, 2:] == 8).all()
    np.testing.assert_array_equal(tasks.hole(5, 4), np.arange(5)[:, None].repeat(4, axis=1) >= 2)


@pytest.mark.parametrize("name", tasks.TASKS)
def test_shapes_levels_and_the_same_draw_from_the_same_generator(name):
    digits = load("digits")[0]
    pairs = [made(name, digits.images[:30], digits.labels[:30], 17, seed) for seed in (0, 0)]
    for (inputs, target), (again, other) in [pairs]:
        np.testing.assert_array_equal(inputs, again)
        np.testing.assert_array_equal(target, other)
        assert (inputs.shape[1:], target.shape[1:]) == tasks.shapes(name, (1, 8, 8))
        assert inputs.dtype == target.dtype == np.uint8
        assert max(inputs.max(), target.max()) == 16
    whole = tasks.targets(name, digits)
    assert whole is tasks.targets(name, digits)
    assert (whole is digits) == (name != "color")
    assert isinstance(whole, Dataset)
    assert whole.classes == digits.classes


def test_a_task_that_there_is_not():
    with pytest.raises(ValueError, match="task must be one of edges, color, half, got 'paint'"):
        tasks.named("paint")
