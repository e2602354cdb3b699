"""What is held out: always the same images, in proportion to the classes, of which none is lost."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinygen import data
from tinygen.data import Dataset, held_out, load


def test_labels_round_and_round_are_all_in_both(tmp_path):
    """Every tenth image would be the class 0, and nothing else."""
    labels = np.arange(200) % 10
    images = np.arange(200).astype(np.uint8).repeat(4).reshape(200, 2, 2)
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    train, test = load(tmp_path / "a.npz")
    assert np.bincount(test.labels).tolist() == [2] * 10
    assert np.bincount(train.labels).tolist() == [18] * 10
    both = np.concatenate([train.images, test.images])[:, 0, 0, 0]
    assert sorted(both) == list(range(200))
    assert np.array_equal(both % 10, np.concatenate([train.labels, test.labels]))  # an image keeps its label
    again = load(tmp_path / "a.npz")[1]
    assert np.array_equal(again.images, test.images)


def test_the_draw_is_the_same_on_every_machine():
    assert np.flatnonzero(held_out(3, 20)).tolist() == DRAWN
    assert np.flatnonzero(held_out(4, 20, np.arange(20) % 2)).tolist() == DRAWN_OF_TWO


DRAWN, DRAWN_OF_TWO = [10, 12, 15], [1, 5, 10, 18]


@given(st.data())
def test_classes_give_in_proportion(draw):
    total = draw.draw(st.integers(2, 120))
    kinds = draw.draw(st.integers(1, 12))
    labels = draw.draw(hnp.arrays(np.int64, total, elements=st.integers(0, kinds - 1) | st.just(1 << 60)))
    count = draw.draw(st.integers(1, total - 1))
    mask = held_out(count, total, labels)
    assert np.array_equal(mask, held_out(count, total, labels))
    values, sizes = np.unique(labels, return_counts=True)
    if len(values) == total:
        assert mask.sum() == count
        return
    assert mask.sum() == min(count, total - len(values))
    taken = np.array([mask[labels == value].sum() for value in values])
    assert (taken < sizes).all()  # none is lost to the training
    if count >= (sizes > 1).sum():
        assert (taken[sizes > 1] > 0).all()
    # no class could give one more and another one less, and the shares be more alike
    for a, more in enumerate(taken):
        for b, fewer in enumerate(taken):
            if fewer + 1 < sizes[b] and more > 1:
                assert Fraction(int(more - 1), int(sizes[a])) <= Fraction(int(fewer), int(sizes[b])) + Fraction(
                    1, 10**9
                )


@given(st.integers(2, 300), st.data())
def test_without_labels_so_many_are_drawn_anywhere(total, draw):
    count = draw.draw(st.integers(1, total - 1))
    assert held_out(count, total).sum() == count


def test_no_place_in_the_file_is_preferred():
    for labels in (None, np.arange(10_000) % 10, np.arange(10_000) // 1000):
        tenths = held_out(1000, 10_000, labels).reshape(10, -1).sum(axis=1)
        assert np.abs(tenths - 100).max() < 40  # 4 standard deviations


@pytest.mark.parametrize(("count", "expected"), [(3, 1), (10, 1), (11, 2), (60, 6), (200_000, 10_000)])
def test_a_tenth_is_tested_on_but_no_more_than_ten_thousand(count, expected, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((count, 1, 1), np.uint8))
    train, test = load(tmp_path / "a.npy")
    assert (len(train), len(test)) == (count - expected, expected)


@pytest.mark.parametrize(("sizes", "message"), [((2,), "3 images, .*, got 2"), ((1, 1), "2 training images, got 1")])
def test_too_few_images_are_refused(sizes, message):
    parts = [(np.zeros((size, 1, 2, 2), np.uint8), None) for size in sizes]
    with pytest.raises(ValueError, match=f"data set 'few': must have at least {message}"):
        data.sources._pair(parts, "few")


def test_an_official_split_is_left_as_it_is():
    train, test = load("digits")
    assert (len(train), len(test)) == (1437, 360)
    assert isinstance(train, Dataset)
