"""Training on the device: twenty steps of a model of each family go as they go on the CPU."""

import numpy as np
import pytest

from tinygen.data import Dataset
from tinygen.models.family import Batch
from tinygen.models.model import Samples
from tinygen.models.registry import MODELS, model_class
from tinygen.training.run import Config
from tinygen.training.trainer import Trainer

STEPS, LEVELS = 20, 5
FAMILIES = {
    "PixelCNN": ("pixelcnn", {"hidden": 3, "blocks": 1}),
    "Row LSTM": ("pixelrnn", {"hidden": 3, "layers": 1}),
    "VAE": ("vae", {"latent": 2, "hidden": 6}),
    "convolutional VAE": ("vae", {"network": "conv", "latent": 2, "hidden": 2, "likelihood": "gaussian"}),
    "WGAN-GP": ("gan", {"objective": "wgan-gp", "latent": 3, "width": 6}),
    "DCGAN": ("dcgan", {"latent": 3, "width": 2}),
    "Diagonal BiLSTM": ("pixelrnn", {"rnn": "diagonal", "hidden": 3, "layers": 1}),
    "multi-scale PixelRNN": ("multiscale", {"hidden": 2, "layers": 1}),
    "Gated PixelCNN given the class": ("gated", {"hidden": 3, "layers": 2, "classes": 3}),
    "MADE": ("made", {"hidden": 5}),
    "NADE": ("nade", {"hidden": 3}),
    "autoencoder": ("autoencoder", {"latent": 2}),
    "PixelCNN++": ("pixelcnnpp", {"hidden": 2, "blocks": 1}),
}


def test_every_family_is_here():
    assert {model for model, _ in FAMILIES.values()} == set(MODELS)


every_family = pytest.mark.parametrize("name", FAMILIES)


def built(name, rng=None):
    """(the model, images for it)."""
    family, options = FAMILIES[name]
    images = np.random.default_rng(1).integers(0, LEVELS, (24, 1, 6, 4)).astype(np.uint8)
    rng = rng or np.random.default_rng(0)
    return model_class(family)(images.shape[1:], LEVELS, **options, rng=rng), images


def trained(name, device, steps=STEPS):
    """(numbers of each step, all arrays of the model and its optimizers afterwards)."""
    rng = np.random.default_rng(0)
    model, images = built(name, rng)
    data = Dataset(images, levels=LEVELS, labels=np.arange(len(images)) % 3, name="random")
    training = Trainer(Config("a family", batch_size=4), model.to(device), data, rng)
    numbers = [training.advance(step / steps) for step in range(steps)]
    states = {f"{k}.{n}": v for k, o in training.optimizers.items() for n, v in o.state_dict().items()}
    return numbers, model.state_dict() | states


@every_family
def test_it_draws_and_judges_on_the_device_as_on_the_cpu(name, device):
    drawn, judged = [], []
    for where in ("cpu", "cuda"):
        model, images = built(name)
        model.to(where).eval()
        labels = np.arange(3) if model.condition else None
        if isinstance(model, Samples):
            drawn.append(model.sample(3, np.random.default_rng(2), labels=labels))
        if model.family.validation_unit:
            judged.append(model.family.validation(model, Batch(images[:5], np.arange(5) % 3), np.random.default_rng(3)))
    assert drawn or judged
    for on_cpu, there in (found for found in (drawn, judged) if found):
        np.testing.assert_allclose(there, on_cpu, rtol=1e-4)


@every_family
def test_twenty_steps_on_the_device_are_those_on_the_cpu(name, device):
    numbers, arrays = trained(name, "cpu")
    there, theirs = trained(name, "cuda")
    assert [n.keys() for n in there] == [n.keys() for n in numbers]
    for mine, wanted in zip(there, numbers, strict=True):
        np.testing.assert_allclose(list(mine.values()), list(wanted.values()), rtol=1e-4)
    assert theirs.keys() == arrays.keys()
    for key, wanted in arrays.items():
        np.testing.assert_allclose(theirs[key], wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max(), err_msg=key)
