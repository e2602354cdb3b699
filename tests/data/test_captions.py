"""Captions: what is measured, what is said of it, what is wrong of it, and what is held out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygen.data import load
from tinygen.data.captions import LONGEST, NOUNS, Captions, measure

SEEDS = st.integers(0, 2**32 - 1)


def every(captions: Captions) -> np.ndarray:
    return np.array(list(itertools.product(*map(range, captions.sizes))))


@settings(max_examples=30)
@given(st.sampled_from(sorted(NOUNS)), SEEDS)
def test_a_caption_says_what_it_was_written_for(nouns, seed):
    captions = Captions(nouns)
    attributes = every(captions)
    texts = captions.write(attributes, np.random.default_rng(seed))
    assert [captions.meant(text) for text in texts] == [tuple(row) for row in attributes.tolist()]
    rows = captions.numbers(texts)
    assert rows.shape == (len(attributes), LONGEST)
    assert captions.texts(rows) == texts
    assert len({text.split()[0] for text in texts} - {"a", "an"}) == 0


@pytest.mark.parametrize("nouns", sorted(NOUNS))
def test_every_word_and_both_orders_occur(nouns):
    captions, rng = Captions(nouns), np.random.default_rng(0)
    texts = captions.write(every(captions).repeat(40, axis=0), rng)
    assert set(" ".join(texts).split()) | {"an"} == set(captions.words[1:])
    some = [text for text in texts if "dark" in text and "wide" in text and "that" not in text]
    assert {text.index("dark") < text.index("wide") for text in some} == {True, False}


@settings(max_examples=30)
@given(st.sampled_from(sorted(NOUNS)), SEEDS)
def test_a_wrong_caption_is_never_right_and_never_one_held_out(nouns, seed):
    captions, rng = Captions(nouns), np.random.default_rng(seed)
    right = captions.draw(200, rng)
    wrong = captions.others(right, rng)
    assert (right != wrong).any(axis=1).all()
    assert not captions.held_out(wrong).any()
    assert ((wrong >= 0) & (wrong < captions.sizes)).all()
    for text, meant in zip(captions.write(wrong, rng), right.tolist(), strict=True):
        assert captions.meant(text) != tuple(meant)


def test_wrong_captions_are_wrong_in_every_way():
    """Each attribute about as often, alone and with others: D has to read all of them."""
    captions, rng = Captions("fashion-mnist"), np.random.default_rng(0)
    right = captions.draw(4000, rng)
    differs = right != captions.others(right, rng)
    patterns = np.bincount(differs @ [4, 2, 1], minlength=8) / 4000
    assert patterns[0] == 0
    assert patterns[1:].min() > 0.08


@pytest.mark.parametrize("nouns", ["digits", "fashion-mnist"])
def test_one_combination_of_each_class_is_held_out_and_all_its_parts_are_seen(nouns):
    captions, rng = Captions(nouns), np.random.default_rng(0)
    combinations = every(captions)
    held = captions.held_out(combinations)
    assert sorted(combinations[held][:, 0]) == list(range(10))
    seen = combinations[~held]
    for parts, number in (((0, 1), 30), ((0, 2), 20), ((1, 2), 6)):
        assert len(np.unique(seen[:, parts], axis=0)) == number
    assert not captions.held_out(captions.draw(2000, rng)).any()
    assert captions.held_out(captions.draw(200, rng, held_out=True)).all()


def test_brightness_and_width_are_measured_on_what_is_shown():
    images = np.zeros((4, 1, 4, 8))
    images[0, 0, 1:3, 2:6] = 0.5  # four wide of eight
    images[1, 0, 0, :] = 1.0  # one row, all of it
    images[2, 0, 2, :2] = 0.25
    np.testing.assert_allclose(measure(images), [[0.5, 0.5], [1, 1], [0.25, 0.25], [0, 0]])
    colored = np.zeros((1, 3, 2, 2))
    colored[0, 0] = 0.6
    np.testing.assert_allclose(measure(colored), [[0.2, 1]])


def test_the_words_part_each_class_into_thirds_and_halves():
    train, _ = load("digits")
    captions = Captions("digits")
    edges = captions.edges(train.images, train.labels, 17)
    found = captions.describe(train.images / 16, train.labels, edges)
    np.testing.assert_array_equal(found[:, 0], train.labels)
    for digit in range(10):
        own = found[found[:, 0] == digit]
        np.testing.assert_allclose(np.bincount(own[:, 1], minlength=3) / len(own), 1 / 3, atol=0.03)
        np.testing.assert_allclose(own[:, 2].mean(), 0.5, atol=0.1)
    shares = np.array([(found == row).all(axis=1).mean() for row in every(captions)])
    assert shares.min() > 0.004  # of 1 in 60: every combination has images


def test_without_nouns_all_images_are_of_one_kind():
    train, _ = load("digits")
    captions = Captions()
    edges = captions.edges(train.images, train.labels, 17)
    assert edges.shape == (1, 3)
    assert (captions.describe(train.images / 16, train.labels, edges)[:, 0] == 0).all()
    assert (
        captions.meant(captions.write(captions.draw(1, np.random.default_rng(0)), np.random.default_rng(0))[0])[0] == 0
    )


def test_images_that_do_not_differ_cannot_be_told_apart_in_words():
    with pytest.raises(ValueError, match="captions need images that differ in brightness or width, and these don't"):
        Captions().edges(np.zeros((5, 1, 2, 2), np.uint8), None, 256)


@pytest.mark.parametrize(
    ("caption", "said"),
    [
        ("a drak sneaker", r"caption: no word 'drak' is known \(did you mean dark\?\); there are a, an, "),
        ("", "caption must have 1 to 10 words, got 0: ''"),
        ("a " * 11, "caption must have 1 to 10 words, got 11: 'a a a"),
    ],
)
def test_what_is_no_caption_is_said(caption, said):
    with pytest.raises(ValueError, match=said):
        Captions("fashion-mnist").numbers([caption])


def test_capitals_commas_and_missing_words_are_understood():
    captions = Captions("fashion-mnist")
    assert captions.texts(captions.numbers(["Dark, wide sneaker."])) == ["dark wide sneaker"]
    assert captions.meant("dark sneaker") == (7, 0, -1)
    assert captions.meant("an ankle boot") == (9, -1, -1)
    with pytest.raises(ValueError, match="nouns must be one of none, digits, fashion-mnist, got 'cifar'"):
        Captions("cifar")
