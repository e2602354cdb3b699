"""Diffusion of images: what is trained, drawn, completed and reported."""

import numpy as np
import pytest

from tests.models.small import new
from tinygen.data import Dataset, load, subset
from tinygen.metrics.metric import Chart
from tinygen.models.diffusion import bound, process
from tinygen.models.diffusion.family import bounds
from tinygen.models.family import Batch
from tinygen.models.model import Encodes
from tinygen.report.charts import figure
from tinygen.training.config import Config
from tinygen.training.trainer import Trainer


def rng(seed=0):
    return np.random.default_rng(seed)


def images(n=6, shape=(1, 4, 4), levels=17, seed=5):
    return rng(seed).integers(0, levels, (n, *shape), np.uint8)


def randomized(name="diffusion", shape=(1, 4, 4), levels=17, scale=0.3, **options):
    """A model whose averages, which draw, are random."""
    model, numbers = new(name, shape, levels, **options), rng(3)
    for _, p in model.network.average.named_buffers():
        p.write()[...] += (scale * numbers.standard_normal(p.shape)).astype(np.float32)
    return model.eval()


# ------------------------------------------------------------------------------------------------------- the training


@pytest.mark.parametrize("predicts", ["noise", "image", "velocity"])
def test_at_first_the_network_says_nothing_and_the_loss_is_known(predicts):
    """It gives 0: the loss is the target's mean square, for noise 1 up to Monte Carlo."""
    model, batch = new("diffusion", (1, 4, 4), 17, predicts=predicts), Batch(images(400))
    loss = model.loss(batch, rng())["mse"].item()
    target = model.lesson(model.scale(batch.images).numpy(), rng()).target
    assert loss == pytest.approx((target**2).mean(), rel=1e-5)
    if predicts == "noise":
        assert loss == pytest.approx(1, abs=4 * np.sqrt(2 / target.size))


def test_a_lesson_is_q_at_times_that_are_spread_evenly():
    model = new("diffusion", (1, 4, 4), 17, predicts="noise")
    image = model.scale(images(40)).numpy()
    x, times, noise = model.lesson(image, rng())
    steps = np.round(times * 20).astype(int)
    np.testing.assert_array_equal(np.sort(steps), np.repeat(np.arange(1, 21), 2))
    a, s = (f[steps][:, None, None, None] for f in (model.noising.signal, model.noising.noise))
    np.testing.assert_allclose(x, a * image + s * noise, rtol=0, atol=1e-6)


def test_a_label_is_dropped_now_and_then_and_only_then_none():
    model, labels = new("diffusion, classes", (1, 4, 4), 17), np.arange(1000) % 3
    seen = []
    network = model.network.network
    network.classes.forward = lambda given: seen.append(given) or type(network.classes).forward(network.classes, given)
    model.loss(Batch(images(1000), labels), rng())
    none = seen[0] == 3
    np.testing.assert_array_equal(seen[0][~none], labels[~none])
    assert 60 < none.sum() < 140


def test_training_moves_the_average_which_evaluation_uses():
    trainer = training("diffusion", images(32))
    for _ in range(3):
        parts = trainer.advance(0.0)
    assert set(parts) == {"mse", "gradient_norm"}
    network = trainer.model.network
    assert int(network.updates.item()) == 3
    assert network.average.unet.output.weight.numpy().any()
    assert not np.array_equal(network.average.unet.output.weight.numpy(), network.network.unet.output.weight.numpy())


def training(name, data, levels=17, batch_size=16, labels=None, **options):
    model = new(name, data.shape[1:], levels, rng(), **options)
    return Trainer(Config(name, batch_size=batch_size, lr=1e-2), model, Dataset(data, levels, labels=labels), rng())


@pytest.mark.fault("M09")
def test_one_image_is_learned_by_heart():
    data = np.tile(images(1), (64, 1, 1, 1))
    trainer = training("diffusion", data, 17, 64, steps=20, width=8)
    first = trainer.advance(0.0)["mse"]
    for step in range(100):
        parts = trainer.advance(step / 100)
    assert parts["mse"] < 0.15 * first
    drawn = trainer.model.eval().sample(8, rng(1))
    assert np.abs(drawn.astype(int) - data[:8]).mean() < 1.5


# -------------------------------------------------------------------------------------------------------- the drawing


def test_the_same_noise_gives_the_same_image_whatever_the_batch():
    model = randomized(eta=0.0)
    together = model.sample(300, rng())
    np.testing.assert_array_equal(together, model.sample(300, rng()))
    noise = model.noise(300, rng())
    alone = [model.levels.round(model.last(model.states(x[None], None, rng(9)), "")) for x in noise[[0, 7, 299]]]
    np.testing.assert_array_equal(np.concatenate(alone), together[[0, 7, 299]])
    assert (randomized(eta=1.0).sample(300, rng()) != together).any()


def test_guidance_0_is_the_conditional_model_and_labels_none_the_unconditional_one():
    model, labels, noise = randomized("diffusion, classes", guidance=0.0), np.arange(6) % 3, None
    noise = model.noise(6, rng())

    def drawn(labels, guidance):
        model.guidance = guidance
        return model.last(model.states(noise, labels, rng(1)), "")

    schedule = model.noising.subsequence(model.steps)
    plain = model.last(process.reverse(model.predict(schedule, labels), schedule, noise, 1.0, rng(1)), "")
    np.testing.assert_array_equal(drawn(labels, 0.0), plain)
    assert (drawn(labels, 1.0) != plain).any()
    none = model.none(6)
    np.testing.assert_allclose(drawn(none, 2.0), drawn(none, 0.0), rtol=0, atol=1e-5)
    # what it says is affine in the guidance
    time = model.network.current.time(np.array([0.5]))
    said = [model.said(noise, time, labels, w) for w in (0.0, 1.0, 3.0)]
    unconditional = model.said(noise, time, none)
    for w, out in zip((0.0, 1.0, 3.0), said, strict=True):
        np.testing.assert_allclose(out, (1 + w) * said[0] - w * unconditional, rtol=0, atol=1e-5)


def test_clipping_changes_the_noise_too():
    """After a step without noise from x_t, x_(t-1) is on the line from the clipped image through x_t."""
    model = randomized(eta=0.0, scale=3.0)
    schedule, x = model.noising.subsequence(4), model.noise(5, rng())
    states = list(model.states(x, None, rng()))
    image = model.predict(schedule, None)(x, 4)
    assert np.abs(image).max() == 1
    noise = (x - schedule.signal[4] * image) / schedule.noise[4]
    np.testing.assert_allclose(states[1], schedule.signal[3] * image + schedule.noise[3] * noise, rtol=0, atol=1e-5)
    assert np.abs(states[-1]).max() <= 1


def test_what_is_known_stays_and_the_rest_goes_on_from_it():
    model, given = randomized(shape=(2, 4, 4)), images(5, (2, 4, 4))
    for known in (0, 2, 4):
        drawn = model.complete(given, known, rng())
        np.testing.assert_array_equal(drawn[:, :, :known], given[:, :, :known])
    other = given.copy()
    other[:, :, :2] = 16 - other[:, :, :2]
    assert (model.complete(other, 2, rng())[:, :, 2:] != model.complete(given, 2, rng())[:, :, 2:]).any()
    other = given.copy()
    other[:, :, 2:] = 0  # it sees only what it may
    np.testing.assert_array_equal(model.complete(other, 2, rng()), model.complete(given, 2, rng()))
    with pytest.raises(ValueError, match="known must be from 0 to 4 rows, got 5"):
        model.complete(given, 5, rng())


def test_an_image_has_its_noise():
    model = randomized(times=1000, steps=100, scale=0.1)
    assert isinstance(model, Encodes)
    given = images(4)
    z = model.encode(given)
    assert z.shape == (4, 16)
    assert np.abs(model.decode(z) - given).mean() < 0.7
    assert model.codes(3, rng()).shape == (3, 16)
    assert model.decode(z[:0]).shape == (0, 1, 4, 4)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 5), (3, 6, 6), (1, 16, 18), (1, 16, 17)])
def test_images_of_any_shape(shape):
    model = randomized(shape=shape)
    drawn = model.sample(2, rng())
    assert drawn.shape == (2, *shape)
    assert drawn.max() < 17
    assert model.sample(0, rng()).shape == (0, *shape)


def test_what_can_not_be_is_told():
    for options, text in (
        ({"predicts": "score"}, "predicts must be one of noise, image, velocity, got 'score'"),
        ({"betas": "flat"}, "betas must be one of linear, cosine, got 'flat'"),
        ({"times": 1}, "times must be at least 2, got 1"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": 21}, "steps must be at most the 20 times, got 21"),
        ({"eta": 1.5}, "eta must be from 0 to 1, got 1.5"),
        ({"guidance": -1.0}, "guidance must not be negative, got -1.0"),
        ({"guidance": 1.0}, "guidance needs classes: it must be 0 without, got 1.0"),
    ):
        with pytest.raises(ValueError, match=text):
            new("diffusion", (1, 4, 4), 17, **options)
    model = new("diffusion", (1, 4, 4), 17)
    model.draw_with(steps=7, eta=0.5)
    assert (model.steps, model.eta) == (7, 0.5)
    with pytest.raises(ValueError, match="steps must be at most"):
        model.draw_with(steps=50)
    with pytest.raises(ValueError, match="Diffusion draws without k; it takes steps, eta, guidance"):
        model.draw_with(k=1)
    with pytest.raises(ValueError, match="MADE draws without steps; it takes no such setting"):
        new("made").draw_with(steps=1)
    with pytest.raises(ValueError, match="temperature must not be negative, got -1"):
        model.sample(1, rng(), -1)


# ---------------------------------------------------------------------------------------------- what is reported, shown


def test_the_bound_in_bits_per_dim():
    """Of a network that says nothing, by hand: x_0 is clipped x_t / sqrt(abar_t)."""
    data = load("digits")
    train, test = subset(data[0], slice(50)), subset(data[1], slice(40))
    model = new("diffusion", (1, 8, 8), 17, predicts="noise", betas="linear").eval()
    found = bounds(model, train, test, rng())
    wholes, parts = found[:2], found[2:]
    assert [metric.unit for metric in found] == ["bits/dim"] * 5
    assert all(metric.error and metric.error > 0 for metric in wholes)
    assert all(set(metric.baselines) == {"independent pixels"} for metric in wholes)
    assert sum(metric.value for metric in parts) == pytest.approx(wholes[0].value)
    assert sum(metric.baselines["variance posterior"] for metric in parts) == pytest.approx(wholes[1].value)
    image, schedule, total = model.scale(test.images).numpy(), model.noising, 0.0
    for t in range(1, 21):
        x = bound.noised(schedule, image, model.noise(40, rng(t)), t)
        behind = np.clip(x / schedule.signal[t], -1, 1).astype(np.float32)
        total += bound.term(schedule, image, behind, t, bound.level_nats(17), "beta").mean()
    total += bound.prior_term(schedule, image).mean()
    assert found[0].value == pytest.approx(model.bits_per_dim(total), rel=0.05)


def test_plots():
    data = load("digits")
    train, test = (subset(some, slice(30)) for some in data)
    for name in ("diffusion", "diffusion, classes"):
        model = randomized(name, (1, 8, 8), 17, classes=10 if "classes" in name else 0)
        assert ("tradeoff" in model.family.plots) == bool(model.condition)
        for draw in model.family.plots.values():
            drawn = draw(model, train, test, rng())
            if isinstance(drawn, Chart):
                figure(drawn)
            else:
                assert drawn.images.dtype == np.uint8
                assert len(drawn.images) % drawn.columns == 0
    assert (model.steps, model.eta, model.guidance) == (4, 1.0, 1.0)
