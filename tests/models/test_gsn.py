"""Generative stochastic networks: what the chain tends to, by enumeration on three bits; walkback."""

from __future__ import annotations

import functools
import itertools
import os

import numpy as np
import pytest

from tinygen import nn, no_grad
from tinygen.data import Dataset, load, threshold
from tinygen.models.energy.gsn import GSN, denoising_nats
from tinygen.models.energy.plots import autocorrelation
from tinygen.models.family import Batch
from tinygen.optim import Adam
from tinygen.training.config import Config
from tinygen.training.trainer import Trainer

FULL = os.environ.get("TINYGEN_FULL") == "1"
BITS = np.array(list(itertools.product(range(2), repeat=3)), np.uint8).reshape(8, 1, 1, 3)
DATA = np.random.default_rng(4).dirichlet(np.full(8, 0.4))  # a distribution of three bits
CORRUPTIONS = 0.1, 0.2, 0.6, 1.0  # bits are flipped by half of that


def index(images):
    return images.reshape(len(images), 3).astype(int) @ [4, 2, 1]


def corruption_matrix(corruption, levels=2, values=3):
    """C(x~ | x), by its definition: each value stays, or becomes one of all levels."""
    one = np.full((levels, levels), corruption / levels) + (1 - corruption) * np.eye(levels)
    return functools.reduce(np.kron, [one] * values)


def posterior(corruption):
    """The true p(x | x~) of three bits, (x~, x)."""
    joint = DATA[:, None] * corruption_matrix(corruption)
    return (joint / joint.sum(axis=0)).T


def by_pixel(corruption):
    """What a decoder can say of it whose values are independent: the product of the marginals, (x~, x)."""
    on = posterior(corruption) @ BITS.reshape(8, 3)  # p(bit is 1 | x~)
    bits = BITS.reshape(8, 3)
    return np.prod(np.where(bits == 1, on[:, None], 1 - on[:, None]), axis=2)


def stationary(kernel):
    """The distribution that a kernel (from, to) leaves as it is."""
    return np.linalg.matrix_power(kernel, 1 << 20)[0]


def second_eigenvalue(kernel):
    return np.sort(abs(np.linalg.eigvals(kernel)))[-2]


class Table(nn.Module):
    """A denoiser that knows p(bit | x~) of every x~."""

    def __init__(self, on):
        self.logits = nn.Parameter(np.log(on) - np.log1p(-on))

    def forward(self, x):
        bits = (x.numpy().reshape(len(x), 3) > 0).astype(int) @ [4, 2, 1]
        return self.logits[bits].reshape(-1, 1, 1, 3)


def gsn(shape=(1, 1, 3), levels=2, **options):
    options = {"hidden": 8, "likelihood": "bernoulli" if levels == 2 else "logistic"} | options
    return GSN(shape, levels, **options, rng=np.random.default_rng(0)).to(np.float64)


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_the_chain_of_the_true_posterior_has_the_distribution_of_the_data(corruption):
    """Theorem 1."""
    kernel = corruption_matrix(corruption) @ posterior(corruption)
    np.testing.assert_allclose(kernel.sum(axis=1), 1, atol=1e-15)
    np.testing.assert_allclose(DATA @ kernel, DATA, atol=1e-16)
    np.testing.assert_allclose(stationary(kernel), DATA, atol=1e-9)


def test_a_decoder_by_pixel_is_further_off_and_mixes_faster_the_more_is_corrupted():
    kernels = [corruption_matrix(c) @ by_pixel(c) for c in CORRUPTIONS]
    distances = [abs(stationary(kernel) - DATA).sum() / 2 for kernel in kernels]
    eigenvalues = [second_eigenvalue(kernel) for kernel in kernels]
    assert all(a + 0.01 < b for a, b in itertools.pairwise(distances))
    assert all(a > b + 0.01 for a, b in itertools.pairwise(eigenvalues))
    assert eigenvalues[-1] < 1e-12  # all is corrupted: independent draws


@pytest.mark.parametrize("levels", [2, 5])
def test_corruption_is_what_it_says(levels):
    model, x = gsn((1, 1, 3), levels, corruption=0.3), np.array([0, 1, levels - 1], np.uint8)
    found = model.corrupt(np.tile(x, (50000, 1)).reshape(-1, 1, 1, 3), np.random.default_rng(0)).reshape(-1, 3)
    assert found.dtype == np.uint8
    shares = np.stack([(found == level).mean(axis=0) for level in range(levels)], axis=1)
    np.testing.assert_allclose(shares, corruption_matrix(0.3, levels, 1)[x], atol=5 * 0.5 / np.sqrt(50000))
    pairs = np.corrcoef((found != x).T)
    np.testing.assert_allclose(pairs, np.eye(3), atol=0.03)  # each value on its own


@pytest.mark.parametrize("corruption", [0.2, 0.6])
def test_the_models_own_chain_tends_to_the_kernels_stationary_distribution(corruption):
    model, n = gsn(corruption=corruption), 20000
    model.denoiser = Table(posterior(corruption) @ BITS.reshape(8, 3))
    for state in model.chain(model.start(n, np.random.default_rng(0)), 60, np.random.default_rng(1)):
        last = state
    expected = stationary(corruption_matrix(corruption) @ by_pixel(corruption))
    shares = np.bincount(index(model.images(last)), minlength=8) / n
    assert (abs(shares - expected) < 5 * np.sqrt(expected / n) + 1e-4).all()


def test_trained_on_one_pixel_it_has_the_distribution_of_the_data(monkeypatch):
    """Where P(x | x~) can be the true posterior, with walkback and without."""
    p, n, rng = np.array([0.5, 0.1, 0.4]), 5000, np.random.default_rng(0)
    monkeypatch.setattr(GSN, "burn_in", 20)
    data = rng.choice(3, n, p=p).astype(np.uint8).reshape(n, 1, 1, 1)
    for walkback in (1, 3):
        model = GSN((1, 1, 1), 3, walkback=walkback, hidden=16, corruption=0.5, rng=np.random.default_rng(0))
        optimizer = Adam(model.parameters(), lr=1e-2)
        for i in range(150):
            optimizer.param_groups[0]["lr"] = 1e-2 * (1 - i / 150)
            optimizer.zero_grad()
            model.loss(Batch(data[rng.integers(0, n, 500)]), rng)["nats"].backward()
            optimizer.step()
        drawn = model.eval().sample(n, np.random.default_rng(1))
        np.testing.assert_allclose(np.bincount(drawn.ravel(), minlength=3) / n, p, atol=0.06)


def test_walkback_learns_to_go_back_from_where_the_chain_goes():
    model, x = (
        gsn((1, 4, 4), walkback=3, corruption=0.5),
        np.random.default_rng(0).integers(0, 2, (7, 1, 4, 4), np.uint8),
    )
    rng, images, terms = np.random.default_rng(1), x, []
    with no_grad():
        for _ in range(3):
            output = model.denoise(model.corrupt(images, rng))
            logits, target = output.numpy(), x
            terms.append((np.logaddexp(0, logits) - logits * target).sum(axis=(1, 2, 3)).mean())
            images = model.likelihood.sample(logits, rng)
        loss = model.loss(Batch(x), np.random.default_rng(1))
    assert loss["nats"].item() == pytest.approx(np.mean(terms), rel=1e-12)
    assert len(set(terms)) == 3


def test_it_learns_to_denoise_and_its_chain_mixes_the_faster_the_more_is_corrupted():
    train, test = (threshold(d) for d in load("digits"))
    found = []
    for corruption in (0.1, 0.8):
        model = GSN((1, 8, 8), 2, corruption=corruption, hidden=64, rng=np.random.default_rng(0))
        rng, optimizer = np.random.default_rng(0), Adam(model.parameters(), lr=3e-3)
        for _ in range(150):
            optimizer.zero_grad()
            model.loss(Batch(train.images[rng.integers(0, len(train), 64)]), rng)["nats"].backward()
            optimizer.step()
        nats = denoising_nats(model.eval(), test.images, rng).mean()
        found.append((nats, autocorrelation(model, train.images[:100], 20, rng)))
    (little, slow), (much, fast) = found
    assert little < much < model.family.baselines(model, train, test)["independent pixels"]
    assert slow[0] == fast[0] == pytest.approx(1, abs=1e-5)
    assert slow[5] > fast[5] + 0.1
    assert abs(fast[20]) < 0.15


def test_metrics_are_of_denoising_and_of_samples(monkeypatch):
    rng = np.random.default_rng(0)
    train, test = (Dataset(rng.integers(0, 2, (40, 1, 3, 3), np.uint8), 2, None, "noise") for _ in range(2))
    monkeypatch.setattr(GSN, "burn_in", 5)
    model = GSN((1, 3, 3), 2, hidden=16, rng=np.random.default_rng(0)).eval()
    metrics = {m.name: m for m in model.family.metrics(model, train, test, np.random.default_rng(0))}
    assert metrics["-log P(x given x~)"].lower_is_better
    assert metrics["-log P(x given x~)"].baselines.keys() == {"independent pixels"}
    assert "memorization ratio" in metrics
    assert model.family.validation(model, Batch(test.images), np.random.default_rng(0)) > 0


def trainer(model, data, batch_size, seed=0, lr=GSN.lr):
    return Trainer(Config("gsn", batch_size=batch_size, lr=lr), model, data, np.random.default_rng(seed))


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize(("shape", "n", "batch"), [((1, 1, 1), 3, 1), ((3, 2, 3), 5, 16), ((1, 8, 8), 40, 16)])
def test_images_of_every_size_and_batches_of_every_size(levels, shape, n, batch, monkeypatch):
    """1x1 images, colors, a batch of one, a batch larger than the data."""
    monkeypatch.setattr(GSN, "burn_in", 5)
    images = np.random.default_rng(0).integers(0, levels, (n, *shape)).astype(np.uint8)
    model = GSN(shape, levels, hidden=5, rng=np.random.default_rng(0))
    training = trainer(model, Dataset(images, levels, None, "noise"), batch)
    for _ in range(3):
        assert np.isfinite(list(training.advance(0.0).values())).all()
    drawn = model.eval().sample(3, np.random.default_rng(0))
    assert (drawn.shape, drawn.dtype) == ((3, *shape), np.uint8)
    assert drawn.max() < levels
    assert model.sample(0, np.random.default_rng(0)).shape == (0, *shape)
    done = model.complete(images, shape[1] - 1, np.random.default_rng(0))
    assert np.array_equal(done[:, :, :-1], images[:, :, :-1])
    assert np.isfinite(denoising_nats(model, images, np.random.default_rng(0))).all()


@pytest.mark.parametrize("levels", [2, 17])
def test_training_stays_finite(levels):
    """On the digits, at five times the rate that it has by default. One seed of ten, all with TINYGEN_FULL=1."""
    train = load("digits")[0] if levels == 17 else threshold(load("digits")[0])
    for seed in range(10 if FULL else 1):
        model = GSN((1, 8, 8), levels, hidden=64, rng=np.random.default_rng(seed))
        training = trainer(model, train, 8, seed, 5 * GSN.lr)
        nats = [training.advance(i / 150)["nats"] for i in range(150)]
        assert np.isfinite(nats).all()
        assert np.mean(nats[-30:]) < np.mean(nats[:30])
        assert model.eval().sample(5, np.random.default_rng(0)).max() < levels


@pytest.mark.fault("G12")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"corruption": 0.0}, r"corruption must be above 0 and at most 1, got 0\.0"),
        ({"corruption": 1.5}, r"corruption must be above 0 and at most 1, got 1\.5"),
        ({"walkback": 0}, "walkback must be at least 1, got 0"),
        ({"hidden": 0}, "hidden must be at least 1, got 0"),
        ({"likelihood": "bernoulli"}, "likelihood 'bernoulli' is for images of 2 levels, these have 17"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GSN((1, 8, 8), 17, **options, rng=np.random.default_rng(0))
