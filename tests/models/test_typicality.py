"""The histogram of likelihoods: of every model that has one, and of no other."""

from __future__ import annotations

import numpy as np
import pytest

from tests.models.small import SMALL, new
from tinygen.data import Dataset
from tinygen.models.model import HasLogProb
from tinygen.models.typicality import log_probs, typicality
from tinygen.report.charts import figure
from tinygen.training.commands import plots

KINDS = ["training images", "test images", "inverted test images", "samples"]
LABELS = np.arange(12) % 3


def noise(seed, n=12):
    return Dataset(np.random.default_rng(seed).integers(0, 3, (n, 1, 2, 2)).astype(np.uint8), 3, LABELS[:n], "noise",
                   tuple("abc"))  # fmt: skip


@pytest.mark.parametrize("name", ["made", "gated, classes", "nice"])
def test_every_kind_of_images_has_the_likelihoods_that_the_model_gives_it(name):
    model, train, test = new(name).eval(), noise(0), noise(1, 9)
    found = log_probs(model, train, test, np.random.default_rng(2))
    assert list(found) == KINDS
    labels = LABELS[:9] if model.condition else None  # samples of a model of classes: one of each in turn
    drawn = model.sample(9, np.random.default_rng(2), labels=labels)
    for kind, images in zip(KINDS, (train.images[:9], test.images, 2 - test.images, drawn), strict=True):
        np.testing.assert_array_equal(found[kind], model.log_prob(images, labels))


def test_the_chart_says_the_mean_bits_of_each_kind():
    model, train, test = new("made").eval(), noise(0), noise(1)
    (axes,) = figure(typicality(model, train, test, np.random.default_rng(2))).axes
    names = [t.get_text() for t in axes.get_legend().get_texts()]
    found = log_probs(model, train, test, np.random.default_rng(2))
    for name, (kind, log_p) in zip(names, found.items(), strict=True):
        assert name.startswith(f"{kind} (mean {-log_p.mean() / 4 / np.log(2):.3f}")
    assert axes.get_xlabel() == "-log p(x), bits/dim"


def test_images_that_are_beyond_the_chart_are_counted():
    model, train, test = new("made").eval(), noise(0), noise(1)
    log_prob = model.log_prob
    model.log_prob = lambda images, labels=None: log_prob(images) - 1000 * np.array_equal(images, 2 - test.images)
    (axes,) = figure(typicality(model, train, test, np.random.default_rng(2))).axes
    names = [t.get_text() for t in axes.get_legend().get_texts()]
    assert [name.endswith(", 12 beyond)") for name in names] == [False, False, True, False]


@pytest.mark.parametrize("name", SMALL)
def test_what_has_a_likelihood_has_the_plot(name):
    model = new(name, (1, 8, 8), 17)
    assert ("typicality" in plots(model)) == isinstance(model, HasLogProb)
    assert plots(model).items() >= model.family.plots.items()


def test_some_models_have_a_likelihood_and_some_do_not():
    assert isinstance(new("gated"), HasLogProb)
    assert isinstance(new("glow"), HasLogProb)
    assert not isinstance(new("gan", (1, 8, 8)), HasLogProb)
    assert not isinstance(new("rbm", levels=2), HasLogProb)  # log Z is estimated
