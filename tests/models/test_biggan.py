"""BigGAN: spectral norm, conditional batch norm, the projection, orthogonal regularization, truncation, the average."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tinygen
from tests.models.test_gan import training
from tinygen import nn
from tinygen.data import Dataset, load, subset
from tinygen.models.gan import biggan
from tinygen.models.gan.biggan import BigGAN, BigPair, Discriminator, orthogonality, spectral
from tinygen.models.gan.large import tradeoff
from tinygen.models.gan.layers import conv_of_enlarged, mean_of_conv
from tinygen.models.networks.modulation import Modulated
from tinygen.nn import functional as F
from tinygen.report.charts import figure


def new(shape=(1, 8, 8), levels=17, dtype=np.float32, **options):
    options = {"latent": 6, "width": 3} | options
    return BigGAN(shape, levels, **options, rng=np.random.default_rng(0)).to(dtype)


def layers():
    """Layers under spectral norm, of weights that aren't orthogonal."""
    rng = np.random.default_rng(0)
    made = nn.Linear(7, 5, rng=rng), nn.Conv2d(4, 6, 3, padding=1, rng=rng), nn.Conv2d(9, 3, 1, rng=rng)
    for layer in made:
        spectral(layer, rng)
        original = layer.parametrizations.weight.original
        original.write()[...] = rng.normal(0, 2, original.shape)
        yield layer.to(np.float64)


def matrix(weight):
    return weight.numpy().reshape(len(weight), -1)


# -------------------------------------------------------------------------------------------------------- spectral norm


def test_sigma_is_the_largest_singular_value():
    for layer in layers():
        original = layer.parametrizations.weight.original
        for _ in range(50):
            weight = layer.weight
        sigma = np.linalg.svd(matrix(original), compute_uv=False)[0]
        np.testing.assert_allclose(weight.numpy(), original.numpy() / sigma, rtol=1e-6)


def test_the_singular_vectors_stay_as_they_are_in_evaluation():
    for layer in layers():
        buffers = dict(layer.named_buffers())
        assert [name[-2:] for name in buffers] == ["_u", "_v"]
        for training_mode in (False, True):
            layer.train(training_mode)
            before = {name: value.numpy().tobytes() for name, value in buffers.items()}
            x = tinygen.tensor(
                np.ones((2, 7)) if isinstance(layer, nn.Linear) else np.ones((2, layer.in_channels, 4, 4))
            )
            layer(x)
            changed = [name for name, value in buffers.items() if value.numpy().tobytes() != before[name]]
            assert len(changed) == 2 * training_mode


def test_no_layer_under_spectral_norm_stretches():
    """Of convolutions the rows that they see, patch by patch: that is the matrix."""
    rng = np.random.default_rng(1)
    for layer in layers():
        for _ in range(200):
            weight = layer.weight
        w = matrix(weight)
        x = rng.normal(size=(1000, w.shape[1]))
        assert (np.linalg.norm(x @ w.T, axis=1) <= np.linalg.norm(x, axis=1) * (1 + 1e-6)).all()
        top = np.linalg.svd(w)[2][0]
        assert np.linalg.norm(w @ top) == pytest.approx(1, rel=1e-6)
        if isinstance(layer, nn.Linear):
            a, b = (layer.eval()(tinygen.tensor(part)).numpy() for part in np.split(x, 2))
            assert (np.linalg.norm(a - b, axis=1) <= np.linalg.norm(x[:500] - x[500:], axis=1) * (1 + 1e-6)).all()


def test_all_weights_of_both_players_are_under_spectral_norm():
    """But for the embedding, and the layers that give norms their scales and shifts."""
    pair = new().pair
    for player in (pair.generator.network, pair.discriminator):
        plain = [name for name, p in player.named_parameters() if p.ndim > 1 and "parametrizations" not in name]
        assert all("affine" in name or name == "embedding.weight" for name in plain)


def test_convolutions_that_resize_are_those_of_the_blocks():
    """Enlarge, then convolve; convolve, then take means: in one convolution, with the same gradients."""
    rng = np.random.default_rng(0)
    x = tinygen.tensor(rng.normal(size=(2, 3, 4, 6)), requires_grad=True)
    conv = nn.Conv2d(3, 5, 3, padding=1, rng=rng).to(np.float64)
    pairs = [
        (conv_of_enlarged(conv, x), conv(F.interpolate(x, scale_factor=2))),
        (mean_of_conv(conv, x), F.avg_pool2d(conv(x), 2)),
    ]
    for once, plain in pairs:
        np.testing.assert_allclose(once.numpy(), plain.numpy(), rtol=1e-12, atol=1e-13)
        weights = tinygen.tensor(rng.normal(size=plain.shape))
        found = [tinygen.grad((y * weights).sum(), [x, conv.weight, conv.bias]) for y in (once, plain)]
        for own, expected in zip(*found, strict=True):
            np.testing.assert_allclose(own.numpy(), expected.numpy(), rtol=1e-11, atol=1e-12)


# ------------------------------------------------------------------------------------------------------- regularization


def test_the_regularization_is_that_of_the_paper():
    w = np.random.default_rng(0).normal(size=(4, 2, 3, 1))
    rows = w.reshape(4, 6)
    by_hand = sum((rows[i] @ rows[j]) ** 2 for i in range(4) for j in range(4) if i != j)
    assert orthogonality(tinygen.tensor(w)).item() == pytest.approx(by_hand, rel=1e-12)
    assert orthogonality(tinygen.tensor(rows.T)).item() == pytest.approx(by_hand, rel=1e-12)


def test_orthogonal_weights_of_any_length_cost_nothing():
    q = np.linalg.qr(np.random.default_rng(0).normal(size=(7, 7)))[0]
    lengths = np.arange(1, 5)[:, None]
    for w in (q[:4], lengths * q[:4], (lengths * q[:4]).T):
        assert orthogonality(tinygen.tensor(w)).item() == pytest.approx(0, abs=1e-25)
    assert orthogonality(tinygen.tensor(q[:4] + 0.1)).item() > 1e-3


def test_the_gradient_of_the_regularization_is_that_of_differences():
    rng = np.random.default_rng(0)
    for shape in ((3, 5), (5, 3), (2, 3, 2, 2)):
        w = tinygen.tensor(rng.normal(size=shape), requires_grad=True)
        (g,) = tinygen.grad(orthogonality(w), w)
        direction = rng.normal(size=shape)
        high, low = (orthogonality(tinygen.tensor(w.numpy() + step * direction)).item() for step in (1e-6, -1e-6))
        assert (high - low) / 2e-6 == pytest.approx(float((g.numpy() * direction).sum()), rel=1e-7)


def test_the_generator_alone_is_regularized(monkeypatch):
    monkeypatch.setattr(biggan, "BETA", 1.0)
    model = new()
    model.pair.objective.g_loss = lambda fake: fake.sum() * 0
    run = training(model, lr=1e-3)
    weights = [p for n, p in model.pair.generator.network.named_parameters() if n.endswith("weight.original")]
    for p in weights:
        p.write()[...] += 0.2
    before = sum(orthogonality(w).item() for w in weights)
    parts = run.advance(0.0)
    assert parts["orthogonality"] == pytest.approx(before, rel=1e-5)
    for _ in range(10):
        parts = run.advance(0.0)
    assert parts["orthogonality"] < 0.9 * before
    assert len(weights) == 2 + 3 * len(model.pair.generator.network.blocks)


# ---------------------------------------------------------------------------------------------------------- the classes


def test_conditional_batch_norm_of_equal_embeddings_is_batch_norm():
    rng = np.random.default_rng(0)
    x = tinygen.tensor(rng.normal(2, 3, (6, 4, 3, 3)))
    conditional = Modulated(nn.BatchNorm2d(4, affine=False), 4, 5, rng=rng).to(np.float64)
    scale, shift = rng.normal(size=(2, 4))
    conditional.affine.weight.write()[...] = rng.normal(size=(8, 5))
    embedding = rng.normal(size=5)  # of all classes
    conditional.affine.bias.write()[...] = (
        np.concatenate([scale, shift]) - conditional.affine.weight.numpy() @ embedding
    )
    plain = nn.BatchNorm2d(4).to(np.float64)
    plain.weight.write()[...], plain.bias.write()[...] = 1 + scale, shift
    vectors = tinygen.tensor(np.tile(embedding, (6, 1)))
    for training_mode in (True, False):
        plain.train(training_mode)
        conditional.train(training_mode)
        np.testing.assert_allclose(conditional(x, vectors).numpy(), plain(x).numpy(), rtol=1e-11, atol=1e-12)


def test_what_differs_between_classes_is_their_embedding():
    model = new(classes=3)
    rng = np.random.default_rng(1)
    generator = model.pair.generator.average
    for block in generator.blocks:
        block.norm1.affine.weight.write()[...] = rng.normal(0, 0.5, block.norm1.affine.weight.shape)
    z = np.tile(model.codes(1, rng), (3, 1))
    images = model.decode(z, np.arange(3))
    assert np.abs(images[0] - images[1]).max() > 0.01
    generator.embedding.weight.write()[...] = 0.3
    images = model.decode(z, np.arange(3))
    np.testing.assert_array_equal(images, images[:1].repeat(3, 0))


def test_the_projection_by_hand():
    d = Discriminator([3, 4], 3, 1, np.random.default_rng(0)).to(np.float64).eval()
    x, labels = tinygen.tensor(np.random.default_rng(1).normal(size=(3, 1, 8, 8))), np.array([2, 0, 2])
    h = x
    for block in d.blocks:
        h = block(h)
    assert h.shape == (3, 4, 4, 4)
    phi = np.maximum(h.numpy(), 0).sum((2, 3))
    by_hand = phi @ d.psi.weight.numpy()[0] + d.psi.bias.item() + (phi * d.v.weight.numpy().T[labels]).sum(1)
    np.testing.assert_allclose(d(x, tinygen.tensor(np.eye(3)[labels])).numpy(), by_hand, rtol=1e-12)


class Deaf(BigPair):
    """The discriminator is told a random class, the generator the one that is asked for."""

    def judge(self, x, labels=None, z=None):
        return super().judge(x, np.random.default_rng(len(x)).permutation(labels), z)


@pytest.mark.parametrize("deaf", [True, False])
def test_a_generator_that_ignores_the_class_is_noticed(deaf, monkeypatch):
    monkeypatch.setattr(BigGAN, "game", Deaf if deaf else BigPair)
    digits = load("digits")[0]
    model = new(width=8, latent=16, classes=2)
    run = training(model, subset(digits, digits.labels <= 1), batch_size=32, lr=3e-3)
    said = model.family.diagnostics(model, run.advance(0.0))
    assert not any("ignored" in text for text in said)  # nothing is known before the first look
    run.step = biggan.LOOK - 120
    for _ in range(120):
        parts = run.advance(0.0)
    found = [text for text in model.family.diagnostics(model, parts) if text.startswith("the class is ignored: ")]
    assert bool(found) == deaf, model.asked.item()


def test_without_classes_it_says_so():
    with pytest.raises(ValueError, match="classes must be at least 1, since BigGAN is told the class; got 0"):
        new(classes=0)
    with pytest.raises(ValueError, match="BigGAN of 10 classes must be told the labels, got None"):
        training(new(), Dataset(np.zeros((16, 1, 8, 8), np.uint8), 17)).advance(0.0)


# ----------------------------------------------------------------------------------------- truncation, average, picture


@pytest.mark.parametrize(("tau", "deviation"), [(0.5, 0.2839), (1.0, 0.5396), (2.0, 0.8796)])
def test_truncated_codes_are_drawn_again(tau, deviation):
    """Of a normal distribution cut off; clipped ones would be .42 wide at .5, scaled ones .5."""
    z = new(latent=200).codes(1000, np.random.default_rng(0), tau)
    assert np.abs(z).max() <= tau
    assert z.std() == pytest.approx(deviation, abs=0.002)
    density = math.exp(-(tau**2) / 2) / math.sqrt(2 * math.pi)
    variance = 1 - 2 * tau * density / math.erf(tau / math.sqrt(2))
    assert math.sqrt(variance) == pytest.approx(deviation, abs=5e-5)


def test_two_steps_of_the_discriminator_and_one_of_the_average():
    model = new()
    run = training(model, lr=1e-2)
    for _ in range(3):
        run.advance(0.0)
    generator = model.pair.generator
    assert run.drawn == 6
    assert generator.updates.item() == 3
    z, labels = model.codes(4, np.random.default_rng(0)), np.array([0, 1, 2, 9])
    images = model.decode(z, labels)
    for p in generator.network.parameters():
        p.write()[...] += 1
    np.testing.assert_array_equal(model.decode(z, labels), images)


def test_the_tradeoff_is_measured_and_drawn(monkeypatch):
    train, test = load("digits")
    model = new().eval()
    seen = []
    codes = model.codes
    monkeypatch.setattr(model, "codes", lambda n, rng, tau=math.inf: seen.append(tau) or codes(n, rng, tau))
    axes = figure(tradeoff(model, train, test, np.random.default_rng(0))).axes[0]
    assert seen == [0.25, 0.5, 1.0, 2.0, math.inf]
    assert [text.get_text() for text in axes.texts] == ["0.25", "0.5", "1", "2", "whole codes"]
    (line,) = axes.lines
    assert ((line.get_xydata() >= 0) & (line.get_xydata() <= 1)).all()
    names = [metric.name for metric in model.family.metrics(model, train, test, np.random.default_rng(0))]
    assert names[-3:] == ["classes as asked for", "precision of codes up to 0.5", "recall of codes up to 0.5"]
