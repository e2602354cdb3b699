"""Grids of images: every pixel of every image, and names around them that cover none."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tinygen.metrics.metric import ImageGrid
from tinygen.report.images import GAP, NARROWEST, draw_grid, save_grid, save_plot


@settings(max_examples=60)
@given(
    st.integers(1, 12), st.sampled_from([1, 3]), st.integers(1, 9), st.integers(1, 9), st.integers(2, 256),
    st.none() | st.integers(1, 5), st.integers(40, 400),
)  # fmt: skip
def test_a_grid_holds_every_image_pixel_for_pixel(n, channels, height, width, levels, columns, side):
    images = np.random.default_rng(0).integers(0, levels, (n, channels, height, width))
    file = io.BytesIO()
    save_grid(file, images, levels, columns, side)
    with Image.open(file) as png:
        assert png.format == "PNG"
        grid = np.asarray(png).reshape(png.height, png.width, channels)
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    scale = (grid.shape[1] - GAP - columns * GAP) // (columns * width)
    assert grid.shape[:2] == (rows * (height * scale + GAP) + GAP, columns * (width * scale + GAP) + GAP)
    assert scale == 1 or abs(grid.shape[1] - side) <= columns * width / 2 + GAP
    for i in range(n):
        top = i // columns * (height * scale + GAP) + GAP
        left = i % columns * (width * scale + GAP) + GAP
        part = grid[top : top + height * scale, left : left + width * scale]
        expected = np.kron(images[i].transpose(1, 2, 0), np.ones((scale, scale, 1), int)) * 255 / (levels - 1)
        assert np.abs(part - expected).max() <= 0.5


@pytest.mark.parametrize("shape", [(0, 1, 2, 2), (1, 2, 4, 4), (1, 4, 4), (2, 1, 0, 3)])
def test_what_cannot_be_shown(tmp_path, shape):
    with pytest.raises(ValueError, match=r"images must be \(N, 1 or 3, H, W\) with no size 0"):
        save_grid(tmp_path / "x.png", np.zeros(shape, np.uint8), 2)
    assert not list(tmp_path.iterdir())


def test_the_file_is_a_png_whatever_its_name(tmp_path):
    save_grid(tmp_path / "picture", np.ones((1, 1, 2, 2), np.uint8), 2)
    assert (tmp_path / "picture").read_bytes().startswith(b"\x89PNG")


# ---------------------------------------------------------------------------------------------------------- their names


def black(n: int) -> np.ndarray:
    return np.zeros((n, 1, 4, 4), np.uint8)


def boxes(grid: ImageGrid, side: int = 300) -> list[tuple[int, int, int, int]]:
    """Where each of six images of one color each is: its first row and column, its height and width."""
    picture, found = np.asarray(draw_grid(grid, 256, side)), []
    for i in range(6):
        y, x = np.nonzero((picture == [255, 0, 40 * i]).all(axis=2))
        height, width = int(np.ptp(y)) + 1, int(np.ptp(x)) + 1
        assert len(y) == height * width  # nothing is written into it
        found.append((int(y.min()), int(x.min()), height, width))
    return found


def ink(picture: np.ndarray) -> tuple[int, int, int, int]:
    """The first and the last row, and the first and the last column, that have ink."""
    rows, columns = (np.flatnonzero((picture < 150).any(axis=axis)) for axis in (1, 0))
    return rows[0], rows[-1], columns[0], columns[-1]


NAMES = st.lists(st.text("Ab -=gj\n", max_size=14).map(str.strip), min_size=6, max_size=6)


@settings(max_examples=25)
@given(NAMES, NAMES, st.text("Some words. ", max_size=120), st.integers(1, 6))
def test_what_is_written_covers_no_image(rows, across, caption, columns):
    images = np.zeros((6, 3, 5, 3), np.uint8)
    images[:, 0], images[:, 2] = 255, 40 * np.arange(6)[:, None, None]
    lines = -(-6 // columns)
    found = boxes(ImageGrid(images, columns, caption, None, rows[:lines], across[:columns], ("down", "across")), 100)
    scale = found[0][2] // 5
    top, left = found[0][:2]
    for i, box in enumerate(found):
        at = top + i // columns * (5 * scale + GAP), left + i % columns * (3 * scale + GAP)
        assert box == (*at, 5 * scale, 3 * scale)


def test_names_stand_beside_what_they_are_of():
    bare = np.asarray(draw_grid(ImageGrid(black(9), 3), 256, 300))
    pitch, body = (len(bare) - GAP) // 3, len(bare) - GAP  # of which the first pixels are a gap
    named = np.asarray(draw_grid(ImageGrid(black(9), 3, rows=["", "second", ""]), 256, 300))
    assert np.array_equal(named[:, -body:], bare[:, -body:])
    first, last, left, right = ink(named[:, :-body])
    assert last - first > 1.9 * pitch - GAP  # it reaches on over the third row: a line along both
    first, last, left, right = ink(named[:, : -body - GAP])
    assert 1.5 * pitch < first < last < 2.5 * pitch
    assert right - left > 35  # six letters
    assert last - first >= 8  # nine pixels high
    named = np.asarray(draw_grid(ImageGrid(black(9), 3, across=["", "", "third"]), 256, 300))
    assert np.array_equal(named[-body:], bare[-body:])
    first, last, left, right = ink(named[:-body])
    assert 2 * pitch < left < right < 3 * pitch


def test_names_that_need_room_make_the_images_larger():
    narrow = draw_grid(ImageGrid(black(20), 20), 256, 300)
    named = draw_grid(ImageGrid(black(20), 20, across=["sample", "nearest"] * 10), 256, 300)
    assert named.width > 20 * 40 > narrow.width
    spread = draw_grid(ImageGrid(black(20), 20, across=["sample", *[""] * 9, "nearest", *[""] * 9]), 256, 300)
    assert spread.width == narrow.width


@settings(max_examples=25)
@given(NAMES, st.integers(1, 6), st.integers(40, 300))
def test_what_stands_under_an_image_covers_none_and_is_below_its_own(names, columns, side):
    images = np.zeros((6, 3, 4, 4), np.uint8)
    images[:, 0], images[:, 2] = 255, (40 * np.arange(6))[:, None, None]
    grid = ImageGrid(images, columns, under=names)
    found = boxes(grid, side)  # which sees that nothing is written into them
    picture = np.asarray(draw_grid(grid, 256, side).convert("L"))
    for i, (top, left, height, width) in enumerate(found):
        below = [box[0] for box in found if box[0] > top]
        end = min(below, default=picture.shape[0])
        inked = (picture[top + height : end, left : left + width] < 100).any()
        assert inked == bool(names[i].strip("- =")) or "-" in names[i] or "=" in names[i]
        beside = picture[top + height : end, left + width : left + width + GAP]
        assert not (beside < 100).any()  # and it is no wider than its image


def test_a_caption_is_broken_into_lines_that_fit():
    caption = "a caption that says more than one line holds " * 3
    bare, short, long = (draw_grid(ImageGrid(black(1), 1, text), 256, 40) for text in ("", "a caption", caption))
    assert bare.height < short.height < long.height
    assert bare.width < short.width == long.width == NARROWEST
    first, last, left, right = ink(np.asarray(long)[: long.height - bare.height])
    assert left >= GAP - 1
    assert right < NARROWEST - GAP
    assert last - first > 4 * 12


def test_the_axis_of_the_rows_is_written_upwards():
    plain = draw_grid(ImageGrid(black(4), 2, axes=("", "")), 256, 300)
    named = np.asarray(draw_grid(ImageGrid(black(4), 2, axes=("latent variable", "")), 256, 300))
    first, last, left, right = ink(named[:, : named.shape[1] - plain.width])
    assert last - first > 4 * (right - left)
    assert abs((first + last) / 2 - len(named) / 2) < 10


def test_plots_are_written_with_their_names_and_levels(tmp_path):
    grid = ImageGrid(np.full((1, 1, 4, 4), 4, np.uint8), 1, "white", 5, ["row"])
    save_plot(tmp_path / "x.png", grid, 256)
    with Image.open(tmp_path / "x.png") as png:
        assert png.mode == "L"
        assert (np.asarray(png) == 255).sum() == (np.asarray(draw_grid(grid, 256, 720)) == 255).sum() > 600**2
