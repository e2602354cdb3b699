"""A rank that is slower than the others is named, once, with what it costs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.parallel.together import together
from tinygen.parallel import current
from tinygen.training.callbacks import LOOK_SECONDS, Stragglers


def said(busy, images=(8, 8, 8), looks=4):
    """What rank 0 says when each rank is busy for so much of the time, as a function of the look."""

    def work():
        ranks, told = current(), []
        trainer = SimpleNamespace(ranks=ranks, elapsed=0.0, busy=0.0, own_images=0)
        callback = Stragglers(trainer, told.append)
        for look in range(looks):
            trainer.elapsed += LOOK_SECONDS
            trainer.busy += LOOK_SECONDS * busy(look)[ranks.rank]
            trainer.own_images += images[ranks.rank]
            callback.step({})
            trainer.elapsed += LOOK_SECONDS / 2  # too soon for another look
            callback.step({})
            trainer.elapsed -= LOOK_SECONDS / 2
        return told

    return together(len(images), work)


def test_a_slow_rank_is_named_once_with_what_it_costs():
    found = said(lambda look: (0.6, 0.9, 0.65))
    assert found[0] == found[1] == found[2]
    (text,) = found[0]
    assert text == ("rank 1 is slower than the others: its share of a step takes 44% longer, "
                    "for which all wait, 25% of the time")  # fmt: skip


@pytest.mark.parametrize(
    ("busy", "images"),
    [
        (lambda look: (0.6, 0.7, 0.65), (8, 8, 8)),  # by less than a fifth
        (lambda look: (0.6, 0.9 if look % 2 else 0.6, 0.6), (8, 8, 8)),  # in every other look
        (lambda look: (0.6, 0.9, 0.6), (8, 12, 8)),  # it has more images
    ],
)
def test_what_is_no_straggler(busy, images):
    assert said(busy, images)[0] == []


def test_of_two_ranks_the_slow_one_is_named_and_a_second_one_later():
    assert len(said(lambda look: (0.5, 0.9), (8, 8))[0]) == 1
    texts = said(lambda look: (0.9, 0.5) if look > 3 else (0.5, 0.9), (8, 8), looks=8)[0]
    assert [text[:6] for text in texts] == ["rank 1", "rank 0"]
