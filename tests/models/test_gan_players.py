"""Games with an encoder or with two domains, and searching for an image's code: BiGAN, CoGAN, AnoGAN."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

import tinygen
from tests.models.test_gan import gradients, new, states, training
from tinygen import nn
from tinygen.data import Dataset, load, subset
from tinygen.data.tasks import outlines
from tinygen.models.gan import anogan, family, plots
from tinygen.models.gan.bigan import BiGAN, JointPair
from tinygen.models.gan.cogan import CoGAN
from tinygen.models.gan.dcgan import DCGAN
from tinygen.models.gan.gan import GAN
from tinygen.models.gan.infogan import InfoGAN
from tinygen.models.gan.objectives import NonSaturating
from tinygen.models.model import Encodes

# --------------------------------------------------------------------------------------------------------------- BiGAN


class Matrix(nn.Module):
    """A linear map of the numbers of an image (N, 4, 1, 1)."""

    def __init__(self, matrix):
        self.weight = nn.Parameter(matrix)

    def forward(self, x):
        return (x.reshape(len(x), 4) @ self.weight).reshape(len(x), 4, 1, 1)


class Joint(nn.Module):
    """Any D of an image beside a code."""

    def __init__(self, matrix):
        self.weight = nn.Parameter(matrix)

    def forward(self, x, z):
        return ((x.reshape(len(x), 4) @ self.weight) * z).sum(1).tanh() * 3


def inverse_pair(seed=0):
    """G and E that invert each other, and a D."""
    rng = np.random.default_rng(seed)
    g = rng.normal(size=(4, 4))
    players = {
        "generator": Matrix(g), "discriminator": Joint(rng.normal(size=(4, 4))), "encoder": Matrix(np.linalg.inv(g)),
    }  # fmt: skip
    return JointPair(players, NonSaturating(), (4, 1, 1)), rng.normal(size=(6, 4))


def test_where_both_joint_distributions_are_one_no_discriminator_beats_chance():
    """x = G(z) as the data: (x, E(x)) are the pairs (G(z), z), hence D's best loss is log 4."""
    for seed in range(20):
        pair, z = inverse_pair(seed)
        x = pair.generate(z).detach()
        real, fake = pair.judge(x), pair.judge(x, None, z)
        np.testing.assert_allclose(real.value.numpy(), fake.value.numpy(), rtol=1e-7, atol=1e-8)
        assert pair.objective.d_loss(real.value, fake.value).item() >= math.log(4) - 1e-12


def test_swapping_the_roles_flips_the_sign_of_d():
    """The game of -D with (G(z), z) as real pairs is the same game, and E then has G's loss."""
    pair, z = inverse_pair()
    x = pair.generate(np.random.default_rng(1).normal(size=(6, 4))).detach()
    real, fake = pair.judge(x).value, pair.judge(pair.generate(z), None, z).value
    rules = pair.objective
    assert rules.d_loss(real, fake).item() == pytest.approx(rules.d_loss(-fake, -real).item(), rel=1e-12)
    turns = pair.turns(x, lambda: pair.generate(z), None, z)
    losses = {name: sum(part.item() for part in loss().values()) for name, loss in turns.items()}
    d = [1 / (1 + np.exp(-value.numpy())) for value in (real, fake)]
    assert losses == pytest.approx({"generator": -np.log(d[1]).mean(), "encoder": -np.log(1 - d[0]).mean()})


def test_no_player_of_three_touches_another():
    model = new(BiGAN)
    run = training(model)
    run.advance(0.0)
    moved = []

    def watched(closure, optimizer):
        others = {name: net for name, net in model.pair.players.items() if name != optimizer}
        before = {name: (states(net), gradients(net)) for name, net in others.items()}
        own = states(model.pair.players[optimizer])
        parts = run.minimize(closure, optimizer)
        assert {name: (states(net), gradients(net)) for name, net in others.items()} == before
        moved.append((optimizer, states(model.pair.players[optimizer]) != own))
        return parts

    step = SimpleNamespace(batch=run.batch, minimize=watched, rng=run.rng)
    assert {"d_grad", "g_grad", "e_grad", "e_loss"} <= set(model.pair.training_step(step, model.scale))
    assert moved == [("discriminator", True), ("generator", True), ("encoder", True)]


def test_a_bigan_encodes_what_it_decodes():
    model = new(BiGAN)
    assert isinstance(model, Encodes)
    images = load("digits")[0].images[:5]
    z = model.encode(images)
    assert z.shape == (5, model.latent)
    np.testing.assert_allclose(model.encode(images[2:3])[0], z[2], rtol=1e-4, atol=1e-6)  # each image by itself
    assert model.training
    assert training(model, batch_size=1).advance(0.0)["e_loss"] > 0  # and one image alone can be trained on


# --------------------------------------------------------------------------------------------------------------- CoGAN


def test_what_is_shared_is_one_parameter_with_one_state_of_adam():
    model = new(CoGAN, shape=(3, 16, 16))
    run = training(model, Dataset(np.random.default_rng(0).integers(0, 17, (32, 3, 16, 16)).astype(np.uint8), 17))
    run.advance(0.0)
    for player, net in model.pair.players.items():
        optimizer = run.optimizers[player]
        listed = [p for group in optimizer.param_groups for p in group["params"]]
        assert len({id(p) for p in listed}) == len(listed) == len(list(net.parameters()))
        shared, domains = list(net.shared.parameters()), [list(d.parameters()) for d in net.own]
        assert len(shared) + sum(map(len, domains)) == len(listed)
        assert shared
        assert not {id(p) for p in domains[0]} & {id(p) for p in domains[1]}


def test_the_gradients_of_both_domains_add_up_in_what_they_share():
    model = new(CoGAN, shape=(1, 16, 16)).to(np.float64)
    pair, z = model.pair, model.codes(4, np.random.default_rng(0))
    shared = list(pair.generator.shared.parameters())
    both = tinygen.grad(pair.objective.g_loss(pair.judge(pair.generate(z)).value), shared)
    halves = [
        tinygen.grad(pair.objective.g_loss(pair.judge(pair.generate(z)).value[half]) / 2, shared)
        for half in (slice(None, 4), slice(4, None))
    ]
    for whole, one, other in zip(both, *halves, strict=True):
        np.testing.assert_allclose(whole.numpy(), one.numpy() + other.numpy(), rtol=1e-9, atol=1e-12)
        assert np.abs(one.numpy()).max() > 0 < np.abs(other.numpy()).max()


def test_each_domain_is_judged_by_itself():
    model = new(CoGAN, shape=(2, 8, 8)).eval()
    x = tinygen.tensor(np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32))
    value = model.pair.judge(x).value.numpy()
    other = x.numpy().copy()
    other[:, 2] += 1  # other outlines
    changed = model.pair.judge(tinygen.tensor(other)).value.numpy() != value
    np.testing.assert_array_equal(changed, [False] * 3 + [True] * 3)


def test_the_players_never_see_a_pair():
    model = new(CoGAN)
    images = load("digits")[0].images[:6]
    x = model.levels.unscale(model.seen(images).numpy())
    np.testing.assert_allclose(x[:, :1], images, atol=1e-5)
    np.testing.assert_allclose(x[1:, 1:], outlines(images, 17)[:-1], atol=1e-5)
    assert model.sample(3, np.random.default_rng(0)).shape == (3, 1, 8, 8)
    assert [x.shape for x in model.pairs(model.codes(3, np.random.default_rng(0)))] == [(3, 1, 8, 8)] * 2


def test_outlines_of_the_images_themselves_fit_and_others_do_not():
    images = load("digits")[0].images[:200]
    model = SimpleNamespace(levels=17, codes=lambda n, rng: None, pairs=lambda z: (images, outlines(images, 17)))
    own, other = family.agreement(model, 200, None)
    assert own == pytest.approx(1)
    assert other < 0.5


# -------------------------------------------------------------------------------------------------------------- AnoGAN


@pytest.mark.parametrize(
    ("cls", "options"),
    [(GAN, {}), (DCGAN, {}), (DCGAN, {"classes": 10}), (DCGAN, {"objective": "ebgan"}), (BiGAN, {}), (CoGAN, {})],
)
def test_an_image_of_the_generator_itself_scores_0_from_its_own_code(cls, options):
    model = new(cls, **options).eval()
    z, labels = model.codes(4, np.random.default_rng(0)), model.condition.in_turn(4)
    x = model.pair.generate(z, labels).detach()[:, :1]
    before = states(model), gradients(model)
    found = anogan.search(model, x, z, labels, steps=3)
    np.testing.assert_array_equal(found.scores, 0)
    np.testing.assert_array_equal(found.z, z.astype(np.float32))
    assert (states(model), gradients(model)) == before  # the search leaves both players alone


def test_the_score_weighs_the_residual_and_the_features():
    model = new(DCGAN).eval()
    rng = np.random.default_rng(0)
    x, z = tinygen.tensor(rng.normal(size=(3, 1, 8, 8)).astype(np.float32)), model.codes(3, rng)
    fake, layers = model.pair.generate(z), list(model.pair.discriminator)
    f = nn.Sequential(*layers[:-1])
    residual = np.abs(x.numpy() - fake.numpy()).sum(axis=(1, 2, 3))
    features = np.abs(f(x).numpy() - f(fake).numpy()).sum(axis=(1, 2, 3))
    found = anogan.scores(model, x, tinygen.tensor(z.astype(np.float32))).numpy()
    np.testing.assert_allclose(found, 0.9 * residual + 0.1 * features, rtol=1e-4)


def test_a_search_finds_lower_scores_and_unseen_classes_are_told_from_others():
    digits = load("digits")
    train, test = (subset(d, d.labels <= keep) for d, keep in zip(digits, (0, 1), strict=True))
    model = new(GAN, width=32)
    run = training(model, train, batch_size=32, lr=1e-3)
    for _ in range(150):
        run.advance(0.0)
    model.eval()
    images = test.images[:20]
    few, many = (anogan.anomalies(model, images, np.random.default_rng(0), steps).scores for steps in (0, 40))
    assert (many <= few).all()
    assert many.mean() < few.mean()
    (metric,) = anogan.detection(model, train, test, np.random.default_rng(0))
    assert metric.value > 0.9
    assert anogan.detection(model, train, train, np.random.default_rng(0)) == []


def test_anomalies_are_shown_from_the_lowest_score_to_the_highest():
    digits = load("digits")[1]
    model = new(DCGAN, latent=4).eval()
    picture = model.family.plots["anomalies"](model, digits, digits, np.random.default_rng(0))
    scores = [int(name) for name in picture.across]
    assert scores == sorted(scores)
    assert scores[0] < scores[-1]
    image, made, difference = picture.images.reshape(3, 10, 1, 8, 8).astype(int)
    np.testing.assert_array_equal(difference, np.abs(image - made))
    assert all((digits.images[:40] == one.astype(np.uint8)).all(axis=(1, 2, 3)).any() for one in image)


# ------------------------------------------------------------------------------------- pictures that only some can show


@pytest.mark.parametrize(("cls", "name"), [(InfoGAN, "categories"), (InfoGAN, "numbers"), (BiGAN, "reconstruct")])
def test_pictures_of_their_own_are_of_the_model(cls, name):
    digits = load("digits")[1]
    model = new(cls, latent=4, **({"categories": 5} if cls is InfoGAN else {})).eval()
    picture = model.family.plots[name](model, digits, digits, np.random.default_rng(0))
    assert picture.images.dtype == np.uint8
    assert len(picture.images) % picture.columns == 0
    assert len(picture.rows) in (0, len(picture.images) // picture.columns)
    assert len(picture.across) in (0, picture.columns)


def test_a_row_has_all_categories_and_a_number_from_end_to_end_with_the_same_noise():
    model, seen = new(InfoGAN, latent=4, categories=5, numbers=2).eval(), []
    model.images = lambda z: seen.append(z) or np.zeros((len(z), 1, 8, 8), np.uint8)
    for name in ("categories", "numbers"):
        model.family.plots[name](model, None, None, np.random.default_rng(0))
    categories, numbers = seen[0].reshape(-1, 5, 9), seen[1].reshape(2, -1, plots.STEPS, 9)
    np.testing.assert_array_equal(categories[:, :, 4:], np.tile(np.eye(5), (len(categories), 1, 1)))
    assert np.ptp(categories[:, :, :4], axis=1).max() == 0
    for i in range(2):
        np.testing.assert_allclose(numbers[i, :, :, i], np.tile(np.linspace(-2, 2, plots.STEPS), (plots.NOISES, 1)))
        assert np.ptp(np.delete(numbers[i], i, axis=2), axis=1).max() == 0


def test_a_pair_is_made_from_one_code():
    model = new(CoGAN, latent=4, shape=(3, 8, 8)).eval()
    picture = model.family.plots["pairs"](model, None, None, np.random.default_rng(0))
    images, made = model.pairs(model.codes(40, np.random.default_rng(0)))
    rows = picture.images.reshape(-1, 2, 10, 3, 8, 8)
    np.testing.assert_array_equal(rows[:, 0].reshape(images.shape), images)
    np.testing.assert_array_equal(rows[:, 1].reshape(images.shape), np.broadcast_to(made, images.shape))
