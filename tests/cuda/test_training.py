"""Training on the device: twenty steps of a model of each family go as they go on the CPU."""

import numpy as np
import pytest

from tinygen.data import Dataset
from tinygen.models import model_class
from tinygen.training.run import Config
from tinygen.training.state import Training

STEPS = 20
FAMILIES = {
    "PixelCNN": ("pixelcnn", {"hidden": 3, "blocks": 1}),
    "Row LSTM": ("pixelrnn", {"hidden": 3, "layers": 1}),
    "VAE": ("vae", {"latent": 2, "hidden": 6}),
    "convolutional VAE": ("vae", {"network": "conv", "latent": 2, "hidden": 2, "likelihood": "gaussian"}),
    "WGAN-GP": ("gan", {"variant": "wgan-gp", "latent": 3, "width": 6}),
    "DCGAN": ("dcgan", {"latent": 3, "width": 2}),
}
every_family = pytest.mark.parametrize("name", FAMILIES)


def trained(name, device, steps=STEPS):
    """(numbers of each step, all arrays of the model and its optimizers afterwards)."""
    model_name, options = FAMILIES[name]
    generator = np.random.default_rng(0)
    images = np.random.default_rng(1).integers(0, 5, (24, 1, 6, 4)).astype(np.uint8)
    data = Dataset(images, levels=5, labels=np.arange(24) % 3, name="random")
    model = model_class(model_name)(data.images.shape[1:], data.levels, **options, generator=generator)
    training = Training(Config(model_name, batch_size=4), model.to(device), data, generator)
    numbers = [training.advance(step / steps) for step in range(steps)]
    states = {f"{k}.{n}": v for k, o in training.optimizers.items() for n, v in o.state_dict().items()}
    return numbers, model.state_dict() | states


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
