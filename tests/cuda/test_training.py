"""Training on the device: the first steps of every model go as they go on the CPU.

In float64: in float32 the training of a flow multiplies what rounding alone makes differ."""

import os

import numpy as np
import pytest

from tests.models.small import SMALL, new
from tinygen.data import Dataset
from tinygen.models.energy import family as energy
from tinygen.models.energy.chain import MarkovChain
from tinygen.models.family import Batch
from tinygen.models.model import HasFeatures, Samples, Translates
from tinygen.models.probing import features
from tinygen.training.run import Config
from tinygen.training.trainer import Trainer

STEPS = 20 if os.environ.get("TINYGEN_FULL") == "1" else 7  # more than an epoch of six batches
LEVELS = 5
every_model = pytest.mark.parametrize("name", SMALL)


@pytest.fixture(autouse=True)
def _short_chains(monkeypatch):
    """The emulator takes its time for each of their transitions."""
    monkeypatch.setattr(MarkovChain, "burn_in", 20)
    monkeypatch.setattr(energy, "QUICK", 20)


def built(name, rng=None):
    """(the model, images for it)."""
    images = np.random.default_rng(1).integers(0, LEVELS, (24, 1, 6, 4)).astype(np.uint8)
    return new(name, images.shape[1:], LEVELS, rng), images


def trained(name, device, steps=STEPS):
    """(numbers of each step, all arrays of the model and its optimizers afterwards)."""
    rng = np.random.default_rng(0)
    model, images = built(name, rng)
    data = Dataset(images, levels=LEVELS, labels=np.arange(len(images)) % 3, name="random")
    training = Trainer(Config("a model", batch_size=4), model.to(np.float64).to(device), data, rng)
    numbers = [training.advance(step / steps) for step in range(steps)]
    states = {f"{k}.{n}": v for k, o in training.optimizers.items() for n, v in o.state_dict().items()}
    return numbers, model.state_dict() | states


@every_model
def test_it_draws_and_judges_on_the_device_as_on_the_cpu(name, device):
    found = []
    for where in ("cpu", "cuda"):
        model, images = built(name)
        model.to(where).eval()
        labels, numbers = model.condition.in_turn(3), []
        found.append(numbers)
        if isinstance(model, Samples):
            numbers.append(model.sample(3, np.random.default_rng(2), labels=labels))
        if isinstance(model, Translates):
            numbers.append(model.translate(images, np.random.default_rng(2)))
        if isinstance(model, HasFeatures):
            numbers.append(features(model, images))
        if model.family.validation_unit:
            some = Batch(images[:5], np.arange(5) % 3)
            numbers.append(model.family.validation(model, some, np.random.default_rng(3)))
    assert found[0]
    for on_cpu, there in zip(*found, strict=True):
        np.testing.assert_allclose(there, on_cpu, rtol=1e-4, atol=1e-6 * np.abs(on_cpu).max())


@every_model
def test_steps_on_the_device_are_those_on_the_cpu(name, device):
    numbers, arrays = trained(name, "cpu")
    there, theirs = trained(name, "cuda")
    assert [n.keys() for n in there] == [n.keys() for n in numbers]
    for mine, wanted in zip(there, numbers, strict=True):
        rounding = 1e-13 * max(map(abs, wanted.values()))  # some numbers are differences of larger ones
        np.testing.assert_allclose(list(mine.values()), list(wanted.values()), rtol=1e-7, atol=rounding)
    assert theirs.keys() == arrays.keys()
    for key, wanted in arrays.items():
        np.testing.assert_allclose(theirs[key], wanted, rtol=1e-6, atol=1e-7 * np.abs(wanted).max(), err_msg=key)
