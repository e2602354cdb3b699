"""Evaluation and sampling by several ranks: the numbers of one process."""

from __future__ import annotations

import numpy as np
import pytest

from tests.models.small import CLASSES, SMALL, new
from tests.parallel.together import together
from tinygen.models.family import Batch
from tinygen.models.model import HasFeatures, HasLogProb, Samples, Translates
from tinygen.models.networks.encoders import in_batches
from tinygen.parallel import SharedDraws, current, in_shares, sharing

IMAGES = np.random.default_rng(1).integers(0, 4, (7, 1, 4, 4)).astype(np.uint8)
LABELS = np.random.default_rng(2).integers(0, CLASSES, 7)


@pytest.mark.parametrize("n", [0, 1, 3, 7, 8])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_rows_are_shared_and_what_is_drawn_for_them_is_what_one_process_draws(n, size):
    x = np.random.default_rng(1).random((n, 2))

    def rows(rng, seen):
        def f(some, rng):
            assert current().size == 1
            assert isinstance(rng, SharedDraws) == (some.stop - some.start < min(3, n - some.start // 3 * 3))
            seen.append(some.stop - some.start)
            inner = in_shares(lambda some, _: np.zeros((some.stop - some.start, 1)), 9, 4)  # shared by nobody
            assert len(inner) == 9
            return (x[some] + rng.random((some.stop - some.start, 2))).astype(np.float32)

        return in_shares(f, n, 3, rng)

    def work():
        rng, seen = np.random.default_rng(5), []
        with sharing(current()):
            found = rows(rng, seen)
        return found, sum(seen), rng.random()

    rng, size_then = np.random.default_rng(5), size
    size = 1
    expected, after = rows(rng, []), rng.random()
    size = size_then
    ranks = together(size, work)
    for found, _, then in ranks:
        np.testing.assert_array_equal(found, expected)
        assert (found.dtype, then) == (expected.dtype, after)
    assert sum(seen for _, seen, _ in ranks) == (n if n % 3 == 0 or n % 3 >= size else n + (size - 1) * (n % 3))


def test_an_error_of_one_rank_is_raised_on_all():
    def work():
        rank = current().rank

        def f(some, _):
            if rank == 1 and some.start > 2:
                raise FloatingPointError("a logit is nan")
            return np.zeros(some.stop - some.start)

        with sharing(current()), pytest.raises(FloatingPointError) as e:
            in_shares(f, 9, 3)
        return str(e.value)

    assert together(3, work) == ["a logit is nan"] * 3


@pytest.mark.parametrize("name", SMALL)
def test_what_ranks_evaluate_and_draw_together_is_what_one_process_does(name):
    def work():
        model = new(name, (1, 4, 4), 4, np.random.default_rng(0)).to(np.float64).eval()
        family, labels = model.family, model.condition.used(LABELS)
        with sharing(current()):
            rng, found = np.random.default_rng(3), []
            if isinstance(model, Samples):
                found.append(model.sample(5, rng))
                found.append(model.sample(1, rng))
            if isinstance(model, Translates):
                found.append(model.translate(IMAGES, rng))
            if isinstance(model, HasLogProb):
                found.append(model.log_prob(IMAGES, labels))
            if isinstance(model, HasFeatures):
                found.append(in_batches(lambda x: model.features(model.network_input(x)), IMAGES, 3))
            if family.validation_unit:
                found.append(np.array(family.validation(model, Batch(IMAGES, LABELS), rng)))
            return found, rng.bit_generator.state

    expected, state = work()
    for found, its in together(2, work):
        assert len(found) == len(expected) > 0
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, 1e-9, 1e-9)
        assert its == state
