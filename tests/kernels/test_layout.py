"""Images stay NHWC in memory, weights HWIO: between tinygen's own layers no array is copied into a kernel's layout."""

import numpy as np
import pytest

from tinygen import kernels, nn, optim, tensor
from tinygen.models.autoregressive.pixelcnn import PixelCNN


def images(rng, channels, side):
    return tensor(rng.standard_normal((8, side, side, channels)).astype(np.float32).transpose(0, 3, 1, 2))


def discriminator_and_generator(rng):
    return nn.Sequential(
        nn.Conv2d(3, 16, 4, stride=2, padding=1, rng=rng), nn.BatchNorm2d(16), nn.LeakyReLU(0.2),
        nn.Conv2d(16, 32, 3, padding=1, rng=rng), nn.GatedActivation(),
        nn.MaxPool2d(2), nn.Upsample(scale_factor=2),
        nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1, rng=rng), nn.BatchNorm2d(8), nn.ReLU(),
        nn.MaskedConv2d(8, 3, 3, "B", rng=rng), nn.Tanh(),
    ), images(rng, 3, 16)  # fmt: skip


def multilayer_perceptron(rng):
    net = nn.Sequential(nn.Linear(64, 200, rng=rng), nn.ReLU(), nn.Linear(200, 200, rng=rng), nn.Sigmoid())
    return net, tensor(rng.standard_normal((32, 64)).astype(np.float32))


class Sequence(nn.Module):
    def __init__(self, rng):
        self.lstm = nn.LSTM(32, 64, rng=rng)

    def forward(self, x):
        return self.lstm(x)[0]


def sequence(rng):
    return Sequence(rng), tensor(rng.standard_normal((10, 16, 32)).astype(np.float32))


@pytest.mark.parametrize("make", [discriminator_and_generator, multilayer_perceptron, sequence])
def test_a_training_step_converts_nothing(make):
    net, x = make(np.random.default_rng(0))
    optimizer = optim.Adam(net.parameters())
    before = kernels.conversions()
    for _ in range(2):
        optimizer.zero_grad()
        (net(x) ** 2).mean().backward()
        optimizer.step()
    assert kernels.conversions() == before


@pytest.mark.parametrize(("channels", "levels"), [(1, 256), (3, 4)])
def test_a_step_of_pixelcnn_converts_nothing(channels, levels):
    rng = np.random.default_rng(0)
    model = PixelCNN((channels, 9, 9), levels, hidden=6, blocks=2, rng=rng)
    optimizer = optim.Adam(model.parameters())
    before = kernels.conversions()
    model.nats(rng.integers(0, levels, (4, channels, 9, 9))).mean().backward()
    optimizer.step()
    assert kernels.conversions() == before


def test_adam_runs_in_its_kernel_for_every_shape_of_weight(monkeypatch):
    """Also of one channel, and of one output: the strides of an axis of length 1 may be any."""
    rng = np.random.default_rng(0)
    net = nn.Sequential(
        nn.Conv2d(1, 3, (3, 1), rng=rng), nn.Conv2d(3, 1, 4, rng=rng),
        nn.ConvTranspose2d(1, 3, 1, rng=rng), nn.ConvTranspose2d(3, 1, 2, rng=rng),
    )  # fmt: skip
    optimizer = optim.Adam(net.parameters())
    net(images(rng, 1, 9)).sum().backward()
    if kernels.available():
        monkeypatch.setattr(optim.Adam, "_update", None)  # NumPy's way
    optimizer.step()


def test_a_conversion_is_counted():
    rng = np.random.default_rng(0)
    net = nn.Conv2d(3, 4, 3, rng=rng)
    before = kernels.conversions()
    net(tensor(rng.standard_normal((2, 3, 8, 8)).astype(np.float32)))  # NCHW in memory
    assert kernels.conversions() == before + kernels.available()
