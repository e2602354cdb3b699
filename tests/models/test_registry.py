"""The registry of models, and the small ones that tests go through."""

import pytest

from tests.models.small import SMALL, new
from tinygen.models.family import Family
from tinygen.models.model import HasFeatures, Model, Samples, Translates
from tinygen.models.registry import MODELS, model_class


def test_every_model_of_the_registry_is_among_the_small_ones():
    assert {model for model, _ in SMALL.values()} == set(MODELS)


@pytest.mark.parametrize("name", SMALL)
def test_a_model_keeps_to_the_frame(name):
    model = new(name, (1, 8, 8), 17)
    assert isinstance(model, Model)
    assert isinstance(model, (Samples, Translates, HasFeatures))
    assert type(model.family) is not Family
    assert model.family.progress.__qualname__ != Family.progress.__qualname__


def test_a_name_that_there_is_not():
    with pytest.raises(ValueError, match="no model is named 'pixelvae'; there are made, nade, "):
        model_class("pixelvae")
