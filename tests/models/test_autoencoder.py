"""Autoencoder: networks for images of any size; it restores better than PCA, serves a classifier, can't generate."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygen import kernels, no_grad, optim, tensor
from tinygen.data import Dataset, load
from tinygen.gradcheck import check_module
from tinygen.metrics.metric import Chart
from tinygen.models.family import Batch
from tinygen.models.networks import encoders
from tinygen.models.vae.autoencoder import Autoencoder


def trained(images, levels, steps, **options):
    rng = np.random.default_rng(0)
    model = Autoencoder(images.shape[1:], levels, **options, rng=rng)
    optimizer = optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        batch = Batch(images[rng.integers(0, len(images), 64)])
        optimizer.zero_grad()
        model.loss(batch, rng)["squared_error"].backward()
        optimizer.step()
    return model.eval()


@settings(max_examples=40)
@given(st.sampled_from(["conv", "mlp"]), st.tuples(*[st.integers(1, 3), st.integers(1, 33), st.integers(1, 33)]))
def test_encoder_and_decoder_fit_images_of_any_size(network, shape):
    rng = np.random.default_rng(0)
    down, up = (f(network, shape, 5, 2, rng) for f in (encoders.encoder, encoders.decoder))
    x = tensor(rng.normal(size=(2, *shape)).astype(np.float32))
    assert down(x).shape == (2, 5)
    assert up(down(x)).shape == x.shape
    if network == "conv":  # four layers each, as the lecture has it
        assert sum("Conv" in type(m).__name__ for m in down.modules()) == 4
        assert sum("ConvTranspose" in type(m).__name__ for m in up.modules()) == 4


def test_images_become_rows_and_back_without_a_copy():
    pixels = np.arange(48.0).reshape(2, 2, 4, 3)  # NHWC
    rows = encoders.FromImage()(tensor(pixels.transpose(0, 3, 1, 2)))
    assert np.array_equal(rows.numpy(), pixels.reshape(2, 24))
    again = encoders.ToImage(3, 2, 4)(rows)
    assert np.array_equal(again.numpy(), pixels.transpose(0, 3, 1, 2))
    assert np.shares_memory(again.numpy(), rows.numpy())


@pytest.mark.parametrize("network", ["conv", "mlp"])
def test_gradients_and_no_conversions(network):
    rng = np.random.default_rng(0)
    model = Autoencoder((2, 6, 5), 4, network=network, latent=3, hidden=3, rng=rng)
    before = kernels.conversions()
    model.loss(Batch(rng.integers(0, 4, (4, 2, 6, 5)).astype(np.uint8)), rng)["squared_error"].backward()
    assert kernels.conversions() == before
    check_module(model.to(np.float64), (rng.normal(size=(2, 2, 6, 5)),))


def test_it_restores_better_than_pca_and_its_samples_are_no_digits():
    train, test = load("digits")
    model = trained(train.images, 17, 500, latent=6, hidden=16)
    (figure,) = model.family.metrics(model, train, test, np.random.default_rng(0))
    assert figure.value < 0.95 * figure.baselines["PCA-6"]
    x = test.images / 16
    assert figure.value == pytest.approx(1000 * np.mean((model.decode(model.encode(test.images)) / 16 - x) ** 2))

    shuffled = np.random.default_rng(0).permuted(test.images, axis=0)  # pixels from all over: no digits
    assert model.squared_error(test.images) < 0.5 * model.squared_error(shuffled)

    def nearest(images):  # the mean squared distance to the nearest training image
        return np.mean([((image / 16 - train.images / 16) ** 2).sum(axis=(1, 2, 3)).min() for image in images])

    assert nearest(model.sample(100, np.random.default_rng(1))) > 1.5 * nearest(test.images[:100])  # slide 49


def test_the_loss_is_the_squared_error_of_an_image():
    model = Autoencoder((1, 4, 4), 5, latent=2, hidden=3, rng=np.random.default_rng(0))
    images = np.random.default_rng(1).integers(0, 5, (6, 1, 4, 4)).astype(np.uint8)
    with no_grad():
        restored = (model(model.network_input(images)).numpy() + 1) / 2
        loss = model.loss(Batch(images), np.random.default_rng(0))["squared_error"].item()
    assert loss == pytest.approx(((restored - images / 4) ** 2).sum() / 6, rel=1e-5)
    assert model.family.progress(model, {"squared_error": 16.0}) == "mean squared error 1.00000"


def test_pictures_and_samples():
    train, test = load("digits")
    test = Dataset(test.images[:30], 17, test.labels[:30], "digits", test.classes)
    model = Autoencoder((1, 8, 8), 17, latent=4, hidden=4, rng=np.random.default_rng(0)).eval()
    for name, draw in model.family.plots.items():
        picture = draw(model, train, test, np.random.default_rng(0))
        if name == "scatter":
            assert isinstance(picture, Chart)
            continue
        assert picture.images.dtype == np.uint8, name
        assert len(picture.images) % picture.columns == 0, name
    a, b = (model.sample(5, np.random.default_rng(1)) for _ in range(2))
    assert a.shape == (5, 1, 8, 8)
    assert np.array_equal(a, b)
    assert model.sample(0, np.random.default_rng(1)).shape == (0, 1, 8, 8)
    still = model.sample(2, np.random.default_rng(1), temperature=0)
    assert np.array_equal(still[0], still[1])


@pytest.mark.fault("G12")
def test_what_does_not_fit_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="latent must be at least 1, got 0"):
        Autoencoder((1, 8, 8), 17, latent=0, rng=rng)
    with pytest.raises(ValueError, match="network must be one of mlp, conv, got 'cnn'"):
        Autoencoder((1, 8, 8), 17, network="cnn", rng=rng)
    model = Autoencoder((1, 8, 8), 17, rng=rng)
    with pytest.raises(ValueError, match="images must be integers from 0 to 16, got float64"):
        model.loss(Batch(np.zeros((1, 1, 8, 8))), rng)
    with pytest.raises(ValueError, match="labels must be None"):
        model.sample(1, rng, labels=np.zeros(1, int))
