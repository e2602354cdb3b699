"""Flows of images: what is reported is a bound of the likelihood, and what is drawn is what it says is likely."""

from __future__ import annotations

import itertools
import math
import os

import numpy as np
import pytest

from tests.models.small import new
from tinygen import no_grad, tensor
from tinygen.data import Dataset, load, subset
from tinygen.models.family import Batch
from tinygen.models.flow import base
from tinygen.models.flow.ffjord import FFJORD
from tinygen.models.flow.glow import Glow
from tinygen.models.flow.nice import NICE
from tinygen.models.flow.pixels import Logit, dequantize
from tinygen.models.flow.priors import StandardLogistic, StandardNormal
from tinygen.models.model import Encodes, HasLogProb
from tinygen.training.config import Config
from tinygen.training.trainer import Trainer

FULL = os.environ.get("TINYGEN_FULL") == "1"
FLOWS = ["nice", "realnvp", "glow", "ffjord"]
every_flow = pytest.mark.parametrize("name", FLOWS)


def rng(seed=0):
    return np.random.default_rng(seed)


def randomized(model, scale=0.25):
    numbers = rng(3)
    for p in model.parameters():
        p.write()[...] = scale * numbers.standard_normal(p.shape)
    return model.to(np.float64).eval()


def training(name, images, levels, batch_size=8, seed=0, lr=None, **options):
    model = new(name, images.shape[1:], levels, rng(seed), **options)
    config = Config(name, batch_size=batch_size, lr=lr or model.lr)
    return Trainer(config, model, Dataset(images, levels), rng(seed))


# -------------------------------------------------------------------------------------------- from pixels to numbers


@pytest.mark.parametrize("scaling", [Logit(17), Logit(256, alpha=0.01), Logit(256, alpha=1e-5)])
def test_scaling_is_inverted_and_its_jacobian_is_that_of_finite_differences(scaling):
    x = rng().uniform(0.01, 0.99, (3, 1, 2, 2)) * scaling.levels
    y, log_det = scaling.forward(x)
    np.testing.assert_allclose(scaling.inverse(y), x, rtol=0, atol=1e-10)
    h = 1e-6 * scaling.levels
    slopes = (scaling.forward(x + h)[0] - scaling.forward(x - h)[0]) / (2 * h)
    np.testing.assert_allclose(log_det, np.log(slopes).reshape(3, -1).sum(1), rtol=0, atol=1e-7)


def test_uniform_pixels_have_a_density_of_logits_that_integrates_to_one():
    """Of p(y) = p(x) |dx/dy| with x uniform in 0 .. 256: the logit's Jacobian is neither forgotten nor turned over."""
    scaling = Logit(256)
    x = (np.arange(100_000) + 0.5) * (256 / 100_000)
    y, log_det = scaling.forward(x[:, None, None, None])
    density = np.exp(-math.log(256) - log_det)
    assert np.trapezoid(density, y.ravel()) == pytest.approx(1, abs=1e-4)
    ends = scaling.forward(np.array([0.0, 256.0])[:, None, None, None])[0].ravel()
    middles, widths = (np.linspace(*ends, 200_001)[1:] + np.linspace(*ends, 200_001)[:-1]) / 2, np.diff(ends) / 200_000
    x = scaling.inverse(middles)
    density = np.exp(-math.log(256) - scaling.forward(x[:, None, None, None])[1])
    assert (density * widths).sum() == pytest.approx(1, abs=1e-9)


def test_noise_is_as_wide_as_a_level():
    x = dequantize(np.full((100, 10, 10), 3), rng())
    assert 3 <= x.min() < 3.001
    assert 3.999 < x.max() < 4
    assert x.mean() == pytest.approx(3.5, abs=0.01)
    np.testing.assert_array_equal(np.floor(x), 3)


def test_priors_are_densities_of_what_they_draw():
    axis = np.linspace(-40, 40, 8001)[:, None]
    for prior in (StandardNormal(), StandardLogistic()):
        density = np.exp(prior.log_prob(tensor(axis)).numpy())
        assert np.trapezoid(density, axis.ravel()) == pytest.approx(1, abs=1e-9)
        drawn = prior.sample((20_000, 2), rng())
        variance = (density * axis.ravel() ** 2).sum() * 0.01
        assert drawn.var() == pytest.approx(variance, rel=0.05)
        assert np.isfinite(drawn).all()


# ------------------------------------------------------------------------------------------------------ the likelihood


def cell_bounds(model, draws=40):
    """Of all images 1x1x2 with 4 levels: exp(E log p(x + u)), and the integral of p over the cell (both by a grid)."""
    u = (np.stack(np.meshgrid(np.arange(draws), np.arange(draws)), -1).reshape(-1, 2) + 0.5) / draws
    images = np.array(list(itertools.product(range(4), repeat=2)))
    bounds, integrals = [], []
    with no_grad():
        for image in images:
            y, log_det = model.scaled((image + u).reshape(-1, 1, 1, 2))
            exact = model.density(y, None) if isinstance(model, FFJORD) else model(y, rng())  # no estimate of the trace
            log_p = (exact[1] + log_det).numpy()
            bounds.append(np.exp(log_p.mean()))
            integrals.append(np.exp(log_p).mean())
    return images, np.array(bounds), np.array(integrals)


@pytest.mark.parametrize("name", ["nice", "realnvp", "ffjord"])
@pytest.mark.fault("M11", "M13")
def test_what_is_reported_is_a_lower_bound_of_the_likelihood_of_whole_pixels(name):
    model = fitted(name)
    images, bounds, integrals = cell_bounds(model)
    assert (bounds <= integrals).all()
    assert bounds.sum() <= integrals.sum() <= 1.001
    assert bounds.sum() > 0.3  # and it says something: the model was fitted to such images
    reported = np.mean([-model.nats(images.reshape(-1, 1, 1, 2), rng(i)).detach().numpy() for i in range(50)], axis=0)
    assert np.abs(np.exp(reported) - bounds).max() < 0.02


def fitted(name):
    """A flow after a few steps on images 1x1x2 of two kinds."""
    pixels = rng().choice([0, 3], (64, 1)).repeat(2, 1).reshape(64, 1, 1, 2).astype(np.uint8)
    run = training(name, pixels, 4, batch_size=64, lr=1e-2)
    for _ in range(40):
        run.advance(0.0)
    return run.model.to(np.float64).eval()


ONE = np.full((200, 1, 1, 2), 5, np.uint8)  # an image 1x1x2, many times


def reported_of_one_image(name):
    """exp(E log p(x + u)) of the only image that a flow was trained on: at most the image's probability."""
    run = training(name, ONE, 256, batch_size=200)
    for _ in range(5):
        run.advance(0.0)
    return math.exp(run.model.eval().log_prob(ONE).mean())


@pytest.mark.fault("M13")
@pytest.mark.parametrize("name", ["nice", "realnvp"])
def test_noise_narrower_than_a_level_would_report_a_probability_above_one(name, monkeypatch):
    """As neither the inverse nor the log determinant can tell."""
    assert 0.3 < reported_of_one_image(name) < 1
    monkeypatch.setattr(base, "dequantize", lambda images, rng: images + 0.5 + 0.1 * rng.random(images.shape))
    assert reported_of_one_image(name) > 2


@pytest.mark.fault("M11")
def test_the_density_of_logits_would_report_a_probability_above_one(monkeypatch):
    forward = Logit.forward
    monkeypatch.setattr(Logit, "forward", lambda self, x: (forward(self, x)[0], np.zeros(len(x))))
    assert reported_of_one_image("realnvp") > 2


@every_flow
def test_bits_a_dimension_of_noise_are_those_of_its_levels(name):
    """The constant counts once: uniform pixels cost log2(levels) bits, and no flow can do with less."""
    images = rng().integers(0, 16, (200, 1, 4, 4)).astype(np.uint8)
    run = training(name, images, 16, batch_size=100, lr=3e-3)
    for _ in range(60):
        run.advance(0.0)
    new_images = rng(1).integers(0, 16, (500, 1, 4, 4)).astype(np.uint8)
    run.model.eval()
    bits = run.model.bits_per_dim(-run.model.log_prob(new_images).mean())
    assert 3.98 < bits < 4.9


@every_flow
def test_log_prob_is_the_same_each_time_and_of_any_part(name):
    model = new(name, (1, 4, 4), 5).eval()
    images = rng().integers(0, 5, (7, 1, 4, 4))
    assert isinstance(model, HasLogProb)
    first = model.log_prob(images)
    np.testing.assert_array_equal(model.log_prob(images), first)
    if name != "ffjord":  # whose estimate of the trace draws more after the noise
        np.testing.assert_allclose(model.log_prob(images[:3]), first[:3], rtol=1e-5)
    assert model.log_prob(images[:0]).shape == (0,)
    np.testing.assert_allclose(model.nats(images, rng(0)).detach().numpy(), -first, rtol=1e-5)
    (part,) = model.loss(Batch(images), rng(0)).values()
    assert part.item() == pytest.approx(-first.mean(), rel=1e-5)


# ------------------------------------------------------------------------------------------------------- there and back


@every_flow
def test_images_come_back_from_their_codes(name):
    images = load("digits")[0].images[:64]
    run = training(name, images, 17, batch_size=32)
    for _ in range(10):
        run.advance(0.0)
    model = run.model.eval()
    assert isinstance(model, Encodes)
    z = model.encode(images)
    assert z.shape == (64, 64)
    np.testing.assert_array_equal(model.inverse(z), images)
    np.testing.assert_allclose(model.decode(z), images, atol=0.02)


@every_flow
def test_samples_are_the_inverse_of_the_priors_draws_times_temperature(name):
    model = randomized(new(name, (1, 4, 4), 5))
    drawn = model.sample(6, rng(), 0.5)
    assert drawn.dtype == np.uint8
    np.testing.assert_array_equal(drawn, model.inverse(0.5 * model.codes(6, rng())))
    still = model.sample(3, rng(), 0.0)
    assert (still == still[:1]).all()
    assert model.sample(1, rng()).shape == (1, 1, 4, 4)
    with pytest.raises(ValueError, match="temperature must not be negative, got -1"):
        model.sample(1, rng(), -1)
    with pytest.raises(ValueError, match="labels must be None"):
        model.sample(1, rng(), labels=np.zeros(1, int))


def test_codes_that_lead_nowhere_are_refused():
    model = randomized(new("realnvp", (1, 4, 4), 5))
    with pytest.raises(FloatingPointError, match="RealNVP: the inverse of 1 codes is not finite"):
        model.inverse(np.full((1, 16), np.inf))


# -------------------------------------------------------------------------------------------------- what is unusual


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("nice", (1, 1, 1), r"NICE splits an image in two: image_shape must have 2 or more values, got \(1, 1, 1\)"),
        ("realnvp", (1, 1, 1), r"RealNVP splits images in two: .* 2 or more values, got \(1, 1, 1\)"),
        ("glow", (1, 1, 1), r"Glow mixes channels: an image_shape of one must have even sides, got \(1, 1, 1\)"),
        ("glow", (1, 7, 7), r"Glow mixes channels"),
    ],
)
def test_images_that_cannot_be_split_are_refused_in_a_sentence(name, shape, said):
    with pytest.raises(ValueError, match=said):
        new(name, shape, 2)


@pytest.mark.parametrize(
    ("name", "options"),
    [("nice", {"hidden": 0}), ("nice", {"couplings": 0}), ("realnvp", {"hidden": 0}), ("realnvp", {"scales": -1}),
     ("glow", {"steps": 0}), ("glow", {"scales": 0}), ("ffjord", {"steps": 0}), ("ffjord", {"tolerance": 0.0})],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(name, options):
    with pytest.raises(ValueError, match="must be"):
        new(name, (1, 4, 4), 2, **options)


@every_flow
@pytest.mark.parametrize("shape", [(3, 4, 4), (1, 6, 4), (3, 1, 1), (2, 3, 5)], ids=str)
@pytest.mark.parametrize("n", [1, 5])
def test_one_image_a_batch_larger_than_the_data_colors_and_single_pixels(name, shape, n):
    images = rng().integers(0, 256, (n, *shape)).astype(np.uint8)
    run = training(name, images, 256, batch_size=8)
    for _ in range(3):
        run.advance(0.0)
    model = run.model.eval()
    assert np.isfinite(model.log_prob(images)).all()
    np.testing.assert_allclose(model.inverse(model.encode(images)).astype(float), images, atol=1)
    assert model.sample(2, rng()).shape == (2, *shape)


@every_flow
@pytest.mark.parametrize("seed", range(10 if FULL else 2))
def test_training_stays_finite(name, seed):
    """On images that are mostly empty, whose channels hardly vary. Small batches, and a rate that is too high.

    Two seeds of ten, all of them with TINYGEN_FULL=1.
    """
    images = load("digits")[0].images[:200].copy()
    images[:, :, :, :3] = 0
    run = training(name, images, 17, batch_size=4, seed=seed, lr=5e-3)
    first = [run.advance(0.0)["nats"] for _ in range(15)]
    last = [run.advance(0.0)["nats"] for _ in range(60)][-15:]
    assert np.mean(last) < np.mean(first)
    run.model.eval()
    assert np.isfinite(run.model.sample(20, rng())).all()


# ------------------------------------------------------------------------------------------- what is measured and shown


def test_the_metrics_are_bounds_in_bits_and_nats_with_their_errors():
    train, test = (subset(d, slice(60)) for d in load("digits"))
    model = new("glow", (1, 8, 8), 17).eval()
    bits, nats = model.family.metrics(model, train, test, rng())
    each = -model.log_prob(test.images)
    assert (bits.name, bits.unit, nats.unit) == ("test, at most", "bits/dim", "nats an image")
    assert nats.value == pytest.approx(each.mean())
    assert nats.error == pytest.approx(each.std() / math.sqrt(60))
    assert bits.value == pytest.approx(each.mean() / (64 * math.log(2)))
    assert bits.baselines["independent pixels"] == pytest.approx(nats.baselines["independent pixels"] * bits.value
                                                                 / nats.value)  # fmt: skip
    assert model.family.validation(model, Batch(test.images), rng()) == pytest.approx(bits.value)
    assert model.family.progress(model, {"nats": 64 * math.log(2), "gradient_norm": 3.0}) == (
        "1.000 bits/dim  gradient norm 3.0"
    )


@every_flow
def test_plots_show_temperatures_and_interpolation(name):
    data = subset(load("digits")[0], slice(30))
    model = new(name, (1, 8, 8), 17).eval()
    assert set(model.family.plots) == {"temperatures", "interpolate"}
    grid = model.family.plots["temperatures"](model, data, data, rng())
    assert grid.rows == ["1", "0.85", "0.7", "0.5"]
    np.testing.assert_array_equal(grid.images[:10], model.inverse(model.codes(10, rng())))
    between = model.family.plots["interpolate"](model, data, data, rng())
    ends = between.images.reshape(6, 12, 1, 8, 8)
    np.testing.assert_allclose(ends[:, 1].astype(int), ends[:, 0], atol=1)  # a code's own image is where it begins


def test_a_flow_learns_the_digits_within_seconds(monkeypatch):
    """Seen: 2.314 bits/dim after 4 CPU seconds."""
    train, test = load("digits")
    monkeypatch.setattr(Glow, "warmup", 20)
    run = training("glow", train.images, 17, batch_size=32, hidden=32, steps=4, lr=5e-3)
    for i in range(200):
        run.advance(i / 200)
    model = run.model.eval()
    baselines = model.family.baselines(model, Dataset(train.images, 17), Dataset(test.images, 17))
    assert model.bits_per_dim(-model.log_prob(test.images).mean()) < baselines["independent pixels"] - 0.05


# ------------------------------------------------------------------------------------------ clipping and warm-up


def test_the_gradient_is_clipped_to_the_models_norm_and_the_norm_before_is_reported(monkeypatch):
    images = rng().integers(0, 4, (16, 1, 2, 2)).astype(np.uint8)
    monkeypatch.setattr(NICE, "clip", 0.5)
    run = training("nice", images, 4)
    seen = []
    step = run.optimizers["adam"].step
    monkeypatch.setattr(run.optimizers["adam"], "step", lambda: (seen.append(gradient(run.model)), step())[1])
    parts = run.advance(0.0)
    assert parts["gradient_norm"] > 0.5
    assert np.linalg.norm(seen[0]) == pytest.approx(0.5, rel=1e-4)
    monkeypatch.setattr(NICE, "clip", None)
    assert "gradient_norm" not in run.advance(0.0)
    assert np.linalg.norm(seen[1]) > 0.5


def gradient(model):
    return np.concatenate([p.grad.numpy().ravel() for p in model.parameters()])


def test_rates_rise_over_the_warm_up_and_then_follow_the_schedule(monkeypatch):
    images = rng().integers(0, 4, (16, 1, 2, 2)).astype(np.uint8)
    monkeypatch.setattr(NICE, "warmup", 4)
    run = training("nice", images, 4, lr=1.0)
    monkeypatch.setattr(run.optimizers["adam"], "step", lambda: None)
    rates = []
    for done in (0, 0, 0, 0, 0, 0.5):
        run.advance(done)
        rates.append(run.optimizers["adam"].param_groups[0]["lr"])
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1, 1, 0.5])
