"""GANs: the losses of every objective, the rules around them, the players kept apart, codes, points in the plane."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import tinygen
from tinygen import kernels, nn
from tinygen.cli.main import main
from tinygen.data import Dataset, load, plane, subset
from tinygen.models.gan import plots, toy
from tinygen.models.gan.dcgan import DCGAN, Guidelines, discriminator_net, generator_net
from tinygen.models.gan.diagnostics import gradient_norm
from tinygen.models.gan.gan import GAN
from tinygen.models.gan.objectives import BEGAN, OBJECTIVES, Wasserstein, gradient_norms
from tinygen.models.gan.pair import AdversarialPair
from tinygen.models.model import Decodes
from tinygen.report.charts import figure
from tinygen.training.checkpoint import CheckpointError
from tinygen.training.config import Config
from tinygen.training.run import Run
from tinygen.training.trainer import Trainer

SCORES = st.lists(st.floats(-20, 20), min_size=1, max_size=6)


def new(cls=DCGAN, shape=(1, 8, 8), levels=17, seed=0, **options):
    options = {"latent": 6, "width": 8} | options
    return cls(shape, levels, **options, rng=np.random.default_rng(seed))


def training(model, data=None, seed=0, batch_size=16, lr=2e-4):
    data = data or load("digits")[0]
    config = Config("dcgan", batch_size=batch_size, lr=lr, epochs=1.0)
    return Trainer(config, model, data, np.random.default_rng(seed))


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x)))


# ----------------------------------------------------------------------------------------------- losses and their rules

PAPERS = {  # the papers' own words: D's loss from D(x) and D(G(z)), G's loss from D(G(z))
    "minimax": (
        lambda r, f: -np.log(sigmoid(r)).mean() - np.log(sigmoid(-f)).mean(), lambda f: np.log(sigmoid(-f)).mean()
    ),
    "non-saturating": (
        lambda r, f: -np.log(sigmoid(r)).mean() - np.log(sigmoid(-f)).mean(), lambda f: -np.log(sigmoid(f)).mean()
    ),
    "lsgan": (lambda r, f: ((r - 1) ** 2).mean() / 2 + (f**2).mean() / 2, lambda f: ((f - 1) ** 2).mean() / 2),
    "hinge": (
        lambda r, f: -np.minimum(0, r - 1).mean() - np.minimum(0, -f - 1).mean(), lambda f: -f.mean()
    ),
    "wgan": (lambda r, f: f.mean() - r.mean(), lambda f: -f.mean()),
    "wgan-gp": (lambda r, f: f.mean() - r.mean(), lambda f: -f.mean()),
    "began": (lambda r, f: r.mean() - 0.3 * f.mean(), lambda f: f.mean()),
    "ebgan": (lambda r, f: r.mean() + np.maximum(0, 0.4 - f).mean(), lambda f: f.mean()),
    "fgan-kl": (lambda r, f: np.exp(f - 1).mean() - r.mean(), lambda f: -f.mean()),
    "fgan-reverse-kl": (lambda r, f: np.exp(-r).mean() + f.mean() - 1, lambda f: np.exp(-f).mean()),
    "fgan-pearson": (lambda r, f: (f**2 / 4 + f).mean() - r.mean(), lambda f: -f.mean()),
    "fgan-hellinger": (lambda r, f: np.exp(-r).mean() - 1 + np.exp(f).mean() - 1, lambda f: np.exp(-f).mean() - 1),
    "fgan-js": (
        lambda r, f: -np.log(2 * sigmoid(r)).mean() - np.log(2 * sigmoid(-f)).mean(),
        lambda f: -np.log(2 * sigmoid(f)).mean(),
    ),
}  # fmt: skip


@settings(max_examples=30)
@given(SCORES, SCORES, st.sampled_from(sorted(PAPERS)))
def test_losses_are_those_of_the_papers(real, fake, name):
    objective = OBJECTIVES[name]()
    if name == "began":
        objective.to(np.float64).k.write()[...] = 0.3
    d_loss, g_loss = PAPERS[name]
    r, f = (tinygen.tensor(np.array(x)) for x in (real, fake))
    assert objective.d_loss(r, f).item() == pytest.approx(d_loss(r.numpy(), f.numpy()), rel=1e-9, abs=1e-9)
    assert objective.g_loss(f).item() == pytest.approx(g_loss(f.numpy()), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_chance_is_what_a_discriminator_without_a_clue_loses(name):
    objective = OBJECTIVES[name]()
    if objective.chance is not None:
        constant = tinygen.tensor(np.full(3, {"lsgan": 0.5, "ebgan": 0.1, "fgan-kl": 1.0}.get(name, 0.0)))
        assert objective.d_loss(constant, constant).item() == pytest.approx(objective.chance)
        for other in (-1.0, 0.25, 2.0):  # and no other constant does better
            same = tinygen.tensor(np.full(3, other))
            assert objective.d_loss(same, same).item() >= objective.chance - 1e-9


def test_the_minimax_loss_is_flat_where_samples_are_bad_and_the_other_is_not():
    """Slides 119 to 121: where D is sure of generated images, log(1 - D) has hardly a gradient, -log D its largest."""
    d = np.array([1e-4, 0.1, 0.5, 0.9, 0.999])
    found = toy.generator_losses(d)
    np.testing.assert_allclose(found["minimax"][0], np.log(1 - d), rtol=1e-9)
    np.testing.assert_allclose(found["non-saturating"][0], -np.log(d), rtol=1e-9)
    np.testing.assert_allclose(found["minimax"][1], -d, rtol=1e-9)
    np.testing.assert_allclose(found["non-saturating"][1], d - 1, rtol=1e-9)
    _, minimax, non_saturating = figure(toy.loss_picture()).axes[0].lines  # after the line at 0
    assert minimax.get_ydata().max() < 0 < non_saturating.get_ydata().min()


def test_the_energy_is_how_badly_the_autoencoder_reproduces_an_image():
    output, x = np.random.default_rng(0).normal(size=(2, 3, 1, 4, 4))
    found = BEGAN().value(tinygen.tensor(output), tinygen.tensor(x)).numpy()
    np.testing.assert_allclose(found, np.abs(output - x).mean(axis=(1, 2, 3)))


@given(st.floats(0, 3), st.floats(0, 3), st.floats(0, 1))
def test_k_stays_between_0_and_1_and_moves_towards_balance(real, fake, start):
    objective = BEGAN().to(np.float64)
    objective.k.write()[...] = start
    objective.gamma, objective.rate = 0.5, 0.7
    objective.after_step(nn.Module(), real, fake)
    assert objective.k.item() == pytest.approx(np.clip(start + 0.7 * (0.5 * real - fake), 0, 1), abs=1e-12)


def test_the_clip_box_holds_after_every_step_of_the_critic():
    model = new(objective="wgan", critic_steps=2)
    run = training(model, lr=1e-2)
    for _ in range(3):
        run.advance(0.0)
        largest = max(np.abs(p.numpy()).max() for p in model.pair.discriminator.parameters())
        assert largest <= np.float32(Wasserstein.clip)
    assert largest == np.float32(Wasserstein.clip)  # such steps do run into it


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_gradient_norms_are_those_between_the_images(n, seed):
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(3, 2, 2))
    real, fake = (tinygen.tensor(rng.normal(size=(n, 3, 2, 2))) for _ in range(2))
    mix = rng.random(n)

    def quadratic(x):
        return (x**2 * tinygen.tensor(w)).sum((1, 2, 3))

    between = mix[:, None, None, None] * real.numpy() + (1 - mix[:, None, None, None]) * fake.numpy()
    expected = np.sqrt(((2 * w * between) ** 2).sum(axis=(1, 2, 3)))
    np.testing.assert_allclose(gradient_norms(quadratic, real, fake, mix).numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("classes", [0, 10])
def test_the_evaluation_says_how_steep_the_critic_is(classes):
    train, test = load("digits")
    model = new(GAN, objective="wgan-gp", classes=classes).eval()

    def measured(model):
        return model.family.metrics(model, train, test, np.random.default_rng(0))

    metric = measured(model)[-1]
    assert (metric.name, metric.baselines) == ("critic's gradient norm", {"asked for": 1.0})
    last = list(model.pair.discriminator.parameters())[-2]
    last.write()[...] *= 3  # the weights of D's last layer: it is three times as steep
    assert measured(model)[-1].value == pytest.approx(3 * metric.value, rel=1e-4)
    assert "critic's gradient norm" not in [m.name for m in measured(new(GAN).eval())]


def test_a_critic_without_gradient_has_a_penalty_with_a_finite_gradient():
    w = tinygen.tensor(np.zeros(4), requires_grad=True)
    x = tinygen.tensor(np.ones((2, 4)))
    penalty = OBJECTIVES["wgan-gp"]().penalty(gradient_norms(lambda x: (x * w).sum(1), x, x, np.zeros(2)))
    assert penalty.item() == pytest.approx(10)
    assert np.isfinite(tinygen.grad(penalty, w)[0].numpy()).all()


def test_second_derivatives_of_the_penalty_are_those_of_finite_differences():
    rng = np.random.default_rng(0)
    net = discriminator_net((1, 8, 8), 1, 3, Guidelines(batch_norm=False), rng).to(np.float64)
    for p in net.parameters():
        p.write()[...] = rng.normal(0, 0.4, p.shape)
    real, fake = (tinygen.tensor(rng.normal(size=(2, 1, 8, 8))) for _ in range(2))
    penalty = OBJECTIVES["wgan-gp"]().penalty
    mix = np.array([0.3, 0.8])

    def value():
        return penalty(gradient_norms(lambda x: net(x).reshape(2), real, fake, mix))

    parameters = list(net.parameters())
    gradients = tinygen.grad(value(), parameters)
    for p, g in zip(parameters, gradients, strict=True):
        direction = rng.normal(size=p.shape)
        here, values = p.numpy().copy(), []
        for step in (1e-6, -1e-6):
            p.write()[...] = here + step * direction
            values.append(value().item())
        p.write()[...] = here
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(float((g.numpy() * direction).sum()), rel=1e-6, abs=1e-7)


# ---------------------------------------------------------------------------------------------------------- the players


def states(net):
    return {n: p.numpy().tobytes() for n, p in net.named_parameters()}


def gradients(net):
    return {n: None if p.grad is None else p.grad.numpy().tobytes() for n, p in net.named_parameters()}


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_batch_norm_is_where_the_objective_allows_it(name):
    """Not in a critic with a penalty, and nor in D as an autoencoder, nor in BEGAN's G."""
    pair = new(objective=name, shape=(1, 16, 16)).pair
    found = [
        any(isinstance(m, nn.BatchNorm2d) for m in player.modules()) for player in (pair.generator, pair.discriminator)
    ]
    assert found == {"wgan-gp": [True, False], "began": [False] * 2, "ebgan": [True, False]}.get(name, [True, True])
    if name == "began":
        encoder, decoder = pair.discriminator
        assert [type(m) for m in decoder] == [type(m) for m in pair.generator]
        assert encoder(tinygen.tensor(np.zeros((2, 1, 16, 16), np.float32))).shape == (2, BEGAN.code, 1, 1)


@pytest.mark.fault("M08")
@pytest.mark.parametrize("cls", [GAN, DCGAN])
@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_no_player_touches_the_other(name, cls):
    model = new(cls, objective=name)
    run = training(model)
    run.advance(0.0)
    players = {
        "discriminator": (model.pair.discriminator, model.pair.generator),
        "generator": (model.pair.generator, model.pair.discriminator),
    }
    moved = []

    def watched(closure, optimizer):
        own, other = players[optimizer]
        before = states(own), states(other), gradients(other)
        parts = run.minimize(closure, optimizer)
        assert (states(other), gradients(other)) == before[1:]
        moved.append(states(own) != before[0])
        return parts

    model.pair.training_step(SimpleNamespace(batch=run.batch, minimize=watched, rng=run.rng), model.scale)
    assert moved == [True] * (model.pair.steps + 1)


def test_a_discriminator_sees_real_and_generated_images_in_batches_of_their_own():
    """By the running mean of its first batch norm: two updates a step, one with each kind's mean."""
    model = new(critic_steps=1, shape=(1, 16, 16), levels=256)
    image = np.random.default_rng(0).integers(0, 256, (16, 1, 16, 16)).astype(np.uint8)
    run = training(model, Dataset(image), lr=1e-12)
    norms = [m for m in model.pair.discriminator.modules() if isinstance(m, nn.BatchNorm2d)]
    before = norms[0].num_batches_tracked.item()
    run.advance(0.0)
    assert norms[0].num_batches_tracked.item() == before + 3  # real, generated, and generated in the generator's step


def test_running_statistics_are_part_of_the_state_and_decide_what_is_sampled():
    model = new()
    for p in model.pair.generator.parameters():
        p.write()[...] *= 20  # images that differ
    run = training(model)
    for _ in range(3):
        run.advance(0.0)
    state = model.state_dict()
    assert any("running_mean" in name for name in state if name.startswith("pair.generator"))
    assert any("running_var" in name for name in state if name.startswith("pair.generator"))
    other = new(seed=1)
    other.load_state_dict(state)
    np.testing.assert_array_equal(*(m.sample(5, np.random.default_rng(0)) for m in (model, other)))
    next(m for m in other.modules() if isinstance(m, nn.BatchNorm2d)).running_mean.write()[...] += 3
    assert (model.sample(5, np.random.default_rng(0)) != other.sample(5, np.random.default_rng(0))).any()


@pytest.mark.fault("M07")
@pytest.mark.parametrize("name", ["non-saturating", "wgan-gp", "began"])
def test_a_batch_of_one_trains_and_one_sample_is_as_in_a_batch(name):
    model = new(objective=name)
    parts = training(model, batch_size=1).advance(0.0)
    assert all(math.isfinite(v) for v in parts.values())
    z = model.codes(3, np.random.default_rng(0))
    together, alone = model.images(z), np.concatenate([model.images(z[i : i + 1]) for i in range(3)])
    assert np.abs(together.astype(int) - alone).max() <= 1  # a rounding at most
    assert model.images(z[:0]).shape == (0, 1, 8, 8)


@pytest.mark.fault("R08")
@pytest.mark.parametrize("name", ["non-saturating", "wgan-gp", "began"])
def test_the_same_seed_gives_the_same_bytes(name):
    def trained():
        model = new(objective=name, seed=3)
        run = training(model, seed=3)
        parts = [run.advance(0.0) for _ in range(3)]
        return parts, model.state_dict(), model.sample(4, np.random.default_rng(0)).tobytes()

    one, other = trained(), trained()
    assert one[0] == other[0]
    assert one[2] == other[2]
    assert {k: v.tobytes() for k, v in one[1].items()} == {k: v.tobytes() for k, v in other[1].items()}


@pytest.mark.fault("R07")
def test_a_gan_goes_on_from_a_checkpoint_as_if_it_had_never_stopped(tmp_path):
    config = Config("gan", options={"objective": "began", "width": 8, "latent": 4}, batch_size=16, epochs=1.0)
    data, rng = load("digits")[0], np.random.default_rng(0)
    first = Trainer(config, GAN((1, 8, 8), 17, **config.options, rng=rng), data, rng)
    run = Run.create("gan", tmp_path / "run")
    for _ in range(4):
        first.advance(0.0)
    first.save(run)
    expected = [first.advance(0.0) for _ in range(4)]
    _, model, state = run.load()
    second = Trainer(config, model.train(), data, np.random.default_rng(1))
    second.restore(run, state)
    assert second.model.pair.objective.k.item() > 0
    assert [second.advance(0.0) for _ in range(4)] == expected


def test_a_checkpoint_from_when_objectives_were_called_variants_is_refused_by_name(tmp_path):
    data, rng = load("digits")[0], np.random.default_rng(0)
    model, run = GAN((1, 8, 8), 17, width=8, rng=rng), Run.create("gan", tmp_path / "run")
    trainer = Trainer(Config("gan", options={"variant": "wgan", "width": 8}, batch_size=16), model, data, rng)
    trainer.save(run)
    said = r"last\.safetensors: .* there is no option of gan named 'variant' \(did you mean objective\?\)"
    with pytest.raises(CheckpointError, match=said):
        run.load()


@pytest.mark.fault("R01")
@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_a_spoiled_player_stops_the_training_by_name(player):
    model = new()
    run = training(model)
    run.advance(0.0)
    name, p = list(getattr(model.pair, player).named_parameters())[-1]
    p.write()[...] = np.nan
    before = states(model.pair.discriminator)
    with pytest.raises(FloatingPointError, match=rf"at step 2: .*pair\.{player}\.{name}"), np.errstate(all="ignore"):
        run.advance(0.0)
    assert states(model.pair.discriminator) == before


@pytest.mark.parametrize(
    ("g_loss", "message"),
    [
        (lambda fake: (fake * 1e30 * 1e30).exp().mean(), r"'g_loss' became .* at step 1: .*\b(mul|exp)\b"),
        (lambda fake: (fake * 0).abs().sqrt().mean(), r"the gradient of pair\.generator\..* at step 1: .*\bsqrt\b"),
    ],
)
def test_what_spoils_the_generators_own_step_is_named(g_loss, message):
    model = new(GAN, objective="lsgan")
    run = training(model)
    model.pair.objective.g_loss = g_loss
    with pytest.raises(FloatingPointError, match=message), np.errstate(all="ignore"):
        run.advance(0.0)


class Steep(nn.Module):
    """The identity, whose gradient overflows where what comes in is large."""

    def forward(self, x):
        return x * 1e-25 * 1e25


def test_what_spoils_a_gradient_within_the_generator_is_named():
    """G's graph is used up when that is noticed: its images have to be made once more."""
    model = new(GAN, objective="lsgan")
    model.pair.generator = nn.Sequential(*model.pair.generator, Steep())
    run = training(model)
    model.pair.objective.g_loss = lambda fake: fake.mean() * 1e35
    with (
        pytest.raises(FloatingPointError, match=r"the gradient of pair\.generator\..* at step 1: .*backward of mul"),
        np.errstate(all="ignore"),
    ):
        run.advance(0.0)


# --------------------------------------------------------------------------------------------------------- the networks


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 8, 8), (1, 12, 20), (2, 2, 2)])
@pytest.mark.parametrize("off", [None, "strided", "batch_norm", "convolutional", "relu", "leaky"])
def test_each_guideline_can_be_switched_off(shape, off):
    rules = Guidelines(**({off: False} if off else {}))
    rng = np.random.default_rng(0)
    g, d = generator_net(shape, 5, 4, rules, rng), discriminator_net(shape, 1, 4, rules, rng)
    kinds = [{type(m) for m in net} for net in (g, d)]
    assert (nn.AvgPool2d in kinds[1], nn.Upsample in kinds[0]) == (off == "strided", off == "strided")
    assert (nn.BatchNorm2d in kinds[0]) == (off != "batch_norm")
    assert (nn.ReLU in kinds[0], nn.LeakyReLU in kinds[1]) == (off != "relu", off != "leaky")
    images = g(tinygen.tensor(rng.standard_normal((3, 5, 1, 1), np.float32)))
    assert images.shape == (3, *shape)
    assert np.abs(images.numpy()).max() <= 1
    assert d(images).shape == (3, 1, 1, 1)
    assert sum(getattr(m, "out_channels", 0) == 512 for net in (g, d) for m in net) == 2 * (off == "convolutional")


def test_a_critic_with_a_penalty_and_an_autoencoder_have_no_batch_norm():
    for name in OBJECTIVES:
        model = new(objective=name, shape=(1, 28, 28))
        found = any(isinstance(m, nn.BatchNorm2d) for m in model.pair.discriminator.modules())
        assert found == (name not in ("wgan-gp", "began", "ebgan"))


def test_the_size_is_that_of_the_readme():
    model = DCGAN((1, 28, 28), 256, rng=np.random.default_rng(0))
    sizes = {name: sum(p.numel() for p in net.parameters()) for name, net in model.pair.players.items()}
    assert sizes == {"generator": 533_889, "discriminator": 138_689}


@pytest.mark.parametrize("name", ["non-saturating", "wgan-gp", "began"])
def test_a_step_of_dcgan_converts_no_image(name, monkeypatch):
    """At most the one number a image that the gradient of a mean is, which isn't in memory at all before."""
    model = new(objective=name, shape=(1, 16, 16), levels=256)
    run = training(model, Dataset(np.random.default_rng(0).integers(0, 256, (16, 1, 16, 16)).astype(np.uint8)))
    run.advance(0.0)
    sizes, convert = [0], kernels.layout.contiguous
    monkeypatch.setattr(
        kernels.layout, "contiguous", lambda a: sizes.append(a.size * (not a.flags.c_contiguous)) or convert(a)
    )
    run.advance(0.0)
    assert len(sizes) > 5
    assert max(sizes) <= 16


@pytest.mark.parametrize(("cls", "name"), [(GAN, "non-saturating"), (DCGAN, "hinge"), (DCGAN, "began")])
def test_both_players_see_the_classes(cls, name):
    model = new(cls, objective=name, classes=3)
    pair, rng = model.pair.eval(), np.random.default_rng(0)
    z, labels = pair.codes(2, rng), np.array([0, 2])
    with tinygen.no_grad():
        one, other = pair.generate(z, labels), pair.generate(z, labels[::-1])
        assert (one.numpy() != other.numpy()).any()
        assert (pair.discriminate(one, labels).numpy() != pair.discriminate(one, labels[::-1]).numpy()).any()
    assert model.sample(5, rng, labels=np.array([0, 1, 2, 1, 0])).shape == (5, 1, 8, 8)
    said = r"labels must be (2 integers, one|from 0 to 2 for a GAN of 3 classes, got (-1|0) to)"
    for wrong in (np.array([0, 3]), np.array([-1, 0]), np.array([0])):
        with pytest.raises(ValueError, match=said):
            pair.generate(z, wrong)


def test_a_class_is_a_plane_of_ones_beside_an_image_and_beside_its_noise():
    model, labels = new(GAN, classes=3), np.array([2, 0])
    for x in (np.zeros((2, 1, 8, 8), np.float32), np.zeros((2, 6, 1, 1), np.float32)):
        seen = model.pair.with_classes(tinygen.tensor(x), labels).numpy()
        planes = np.zeros((2, 3, *x.shape[2:]))
        planes[0, 2] = planes[1, 0] = 1
        np.testing.assert_array_equal(seen, np.concatenate([x, planes], axis=1))


ERRORS = {
    "odd sides": (lambda: new(shape=(1, 7, 8)), r"image_shape must have an even height and width, got \(1, 7, 8\)"),
    "objective": (lambda: new(objective="wgn"), "objective must be one of non-saturating, .*, fgan-js, got 'wgn'"),
    "no latent": (lambda: new(latent=0), "latent must be at least 1, got 0"),
    "critic steps": (lambda: new(critic_steps=-1), "critic_steps must be at least 0, got -1"),
    "labels for nothing": (
        lambda: new().sample(1, None, labels=np.zeros(1, int)),
        "DCGAN knows no classes: labels must be None, got 1 of them",
    ),
    "temperature": (lambda: new().sample(1, None, temperature=-1), "temperature must not be negative, got -1"),
    "truncation": (lambda: new().codes(1, np.random.default_rng(0), 0), "truncation must be above 0, got 0"),
    "no labels": (
        lambda: training(new(classes=10), Dataset(np.zeros((4, 1, 8, 8), np.uint8), 17)).advance(0.0),
        "a GAN of 10 classes must be told the labels, got None; has the data none?",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_bad_input_is_one_sentence(case):
    make, message = ERRORS[case]
    with pytest.raises(ValueError, match=message):
        make()


# ---------------------------------------------------------------------------------------------------------------- codes


@settings(max_examples=10)
@given(st.floats(0.2, 3), st.integers(0, 2**32 - 1))
def test_truncated_codes_are_normal_ones_within_bounds(limit, seed):
    z = new(latent=40).codes(200, np.random.default_rng(seed), limit)
    assert np.abs(z).max() <= limit
    whole = np.random.default_rng(seed).standard_normal((200, 40))
    kept = np.abs(whole) <= limit
    np.testing.assert_array_equal(z[kept], whole[kept])


def test_decode_gives_the_players_images_in_levels():
    model = new(seed=2)
    for p in model.pair.generator.parameters():
        p.write()[...] *= 20  # images that differ
    z = model.codes(3, np.random.default_rng(0))
    assert isinstance(model, Decodes)
    with tinygen.no_grad():
        x = model.pair.eval().generate(z).numpy()
    np.testing.assert_allclose(model.decode(z), (x + 1) * 8, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(model.images(z), np.round(model.decode(z)))
    assert model.decode(z).std() > 1


def test_temperature_scales_the_codes():
    model = new(seed=2)
    z = model.codes(3, np.random.default_rng(0))
    np.testing.assert_array_equal(model.sample(3, np.random.default_rng(0), temperature=0.5), model.images(z * 0.5))
    assert (model.sample(3, np.random.default_rng(0), temperature=0) == model.images(z * 0)).all()


# -------------------------------------------------------------------------------------------------- points in the plane


def test_the_densities_are_what_their_names_say():
    rng = np.random.default_rng(0)
    points = plane.eight_gaussians(20_000, rng)
    modes, good = plane.modes_and_good(points)
    assert modes == 8
    assert good == pytest.approx(1 - math.exp(-4.5), abs=0.004)  # within 3 deviations in the plane
    np.testing.assert_allclose(np.linalg.norm(plane.centers(), axis=1), plane.RADIUS)
    roll = plane.swiss_roll(5000, rng)
    t = np.linspace(1.5, 4.5, 1000) * math.pi
    spiral = 2 * t[:, None] / t[-1] * np.stack([np.cos(t), np.sin(t)], axis=1)
    off = np.linalg.norm(roll[:, None] - spiral, axis=2)
    assert off.min(axis=1).mean() == pytest.approx(0.05 * math.sqrt(2 / math.pi), rel=0.05)  # noise, across the spiral
    ends = np.bincount(off.argmin(axis=1) // 100, minlength=10)
    assert ends.min() > 350  # and all along it


def test_modes_are_counted_and_points_between_them_are_not_good():
    one = np.repeat(plane.centers()[:1], 100, axis=0)
    assert plane.modes_and_good(one) == (1, 1.0)
    assert plane.modes_and_good(np.concatenate([one, np.zeros((100, 2))])) == (1, 0.5)
    assert plane.modes_and_good(plane.centers().repeat(50, axis=0)) == (8, 1.0)
    assert plane.modes_and_good(plane.centers() * 1.2) == (0, 0.0)


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_a_toy_learns_the_radius_and_draws_its_field(objective):
    points = toy.Toy(objective, width=32, batch_size=32, rng=np.random.default_rng(0))
    untrained = np.linalg.norm(points.sample(500, np.random.default_rng(1)), axis=1).mean()
    parts = points.train(40)
    assert {"d_loss", "g_loss", "real", "fake", "d_grad", "g_grad", "spread"} <= set(parts)
    trained = np.linalg.norm(points.sample(500, np.random.default_rng(1)), axis=1).mean()
    if objective not in ("wgan", "began"):  # whose first steps are small by design
        assert abs(trained - plane.RADIUS) < abs(untrained - plane.RADIUS)
    field = points.field(5)
    corner = tinygen.tensor(np.array([[-toy.REACH, toy.REACH]], np.float32))
    assert field[0, 0] == pytest.approx(points.pair.discriminate(corner).item(), rel=1e-5)
    axes = figure(points.picture(np.random.default_rng(0))).axes[0]
    assert [len(dots.get_offsets()) for dots in axes.collections] == [2000, 2000]  # real ones, generated ones


def test_the_non_saturating_gan_finds_all_eight_modes():
    points = toy.Toy("non-saturating", rng=np.random.default_rng(0))
    points.train(2000)
    modes, good = plane.modes_and_good(points.sample(5000, np.random.default_rng(0)))
    assert modes == 8
    assert good >= 0.9


def test_norm_is_that_of_all_gradients_together():
    net = nn.Linear(2, 1, rng=np.random.default_rng(0))
    assert gradient_norm(net) == 0
    (net(tinygen.tensor([[3.0, 4.0]])) * 2).sum().backward()
    assert gradient_norm(net) == pytest.approx(math.sqrt(36 + 64 + 4))


def test_steps_of_the_critic_take_new_images_each():
    model = new(GAN, objective="wgan-gp")
    assert model.pair.steps == 5
    run = training(model)
    run.advance(0.0)
    assert run.drawn == 5
    players = {"generator": nn.ReLU(), "discriminator": nn.ReLU()}
    assert AdversarialPair(players, Wasserstein(), (1,), steps=2).steps == 2


@pytest.mark.parametrize("name", ["neighbors", "interpolate", "truncate", "arithmetic", "anomalies"])
@pytest.mark.parametrize("classes", [0, 10])
def test_pictures_show_images_of_the_model(name, classes):
    data = subset(load("digits")[0], slice(200))
    data = Dataset(data.images, 17, data.labels if classes else None)
    model = new(classes=classes).eval()
    picture = model.family.plots[name](model, data, data, np.random.default_rng(0))
    assert picture.images.shape[1:] == (1, 8, 8)
    assert picture.images.dtype == np.uint8
    assert len(picture.images) % picture.columns == 0
    assert len(picture.rows) in (0, len(picture.images) // picture.columns)
    assert len(picture.across) in (0, picture.columns)
    assert picture.images.max() < (picture.levels or 17)
    again = model.family.plots[name](model, data, data, np.random.default_rng(0))
    np.testing.assert_array_equal(picture.images, again.images)


def test_neighbors_shows_training_images_that_are_really_the_nearest():
    data = subset(load("digits")[0], slice(300))
    model = new().eval()
    picture = plots.neighbors(model, data, data, np.random.default_rng(0))
    for sample, neighbor in picture.images.reshape(-1, 2, 64).astype(float):
        squares = ((data.images.reshape(300, 64) - sample) ** 2).sum(axis=1)
        assert ((neighbor - sample) ** 2).sum() == squares.min()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ("--steps", "2"),
            r"[0-8] of 8 modes, \d+\.\d% good samples \(the density's own: 98\.9%\)\nWhat .*: toy.png\n",
        ),
        (("--steps", "2", "--density", "swiss-roll", "--objective", "began"), r"What the discriminator .*: toy.png\n"),
        (("--losses",), r"Where D is sure that an image is generated, .*: toy.png\n"),
    ],
)
def test_the_toy_command_draws_a_picture(flags, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["toy", *flags]) == 0
    assert re.fullmatch(said, capsys.readouterr().out)
    with Image.open("toy.png") as png:
        assert png.mode == "RGB"
        assert png.size[0] > 300


@pytest.mark.parametrize("command", [("train", "gan"), ("train", "dcgan"), ("toy",)])
def test_the_flag_that_was_called_variant_is_named(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--variant", "wgan"])
    assert stopped.value.code == 2
    assert "unrecognized arguments: --variant wgan (did you mean --objective?)" in capsys.readouterr().err


def test_what_comes_out_of_arithmetic_is_what_was_asked_for_far_more_often_than_by_chance():
    """Bright A - dark A + dark B, for all pairs of classes, as a classifier sees them: slides 130 to 133."""
    train, rng = load("digits")[0], np.random.default_rng(5)
    model = new(GAN, objective="wgan-gp", width=64, critic_steps=1)
    run = training(model, batch_size=32, lr=1e-3)
    for _ in range(300):
        run.advance(0.0)
    z = model.codes(2000, rng)
    kinds, _, light = plots.described(model.images(z), train)
    often = [kind for kind in range(10) if (kinds == kind).sum() >= 2 * plots.AVERAGED]
    means = {}
    for kind in often:
        dark, bright = plots.extremes(kinds == kind, light)
        assert (kinds[dark] == kind).all()
        assert light[dark].max() <= np.sort(light[kinds == kind])[len(dark) - 1] <= light[bright].min()
        means[kind] = z[dark].mean(axis=0), z[bright].mean(axis=0)
    pairs = [(a, b) for a in often for b in often if a != b]
    codes = np.array([means[a][1] - means[a][0] + means[b][0] for a, b in pairs])
    found, _, _ = plots.described(model.images(codes), train)
    assert len(often) >= 5
    assert np.mean(found == [b for _, b in pairs]) > 0.3  # by chance a tenth
