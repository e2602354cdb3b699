"""The GAN zoo: what each game's paper says that can be computed exactly."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygen
from tests.models.test_gan import new, training
from tinygen.models.gan import objectives
from tinygen.models.gan.acgan import ACGAN, AuxiliaryClassifier
from tinygen.models.gan.infogan import InfoGAN, Information
from tinygen.models.gan.objectives import DIVERGENCES, EBGAN, FGAN, OBJECTIVES, Softmax, Verdict, alikeness


def test_every_objective_can_be_named_on_the_command_line():
    assert get_args(objectives.Name) == tuple(OBJECTIVES)


# ------------------------------------------------------------------------------------------------------------- f-GAN

F = {  # f, its derivative, and g_f's inverse, for divergences D_f(P, Q) = E_Q f(p / q)
    "kl": (lambda u: u * np.log(u), lambda u: 1 + np.log(u), lambda t: t),
    "reverse-kl": (lambda u: -np.log(u), lambda u: -1 / u, lambda t: -np.log(-t)),
    "pearson": (lambda u: (u - 1) ** 2, lambda u: 2 * (u - 1), lambda t: t),
    "hellinger": (lambda u: (np.sqrt(u) - 1) ** 2, lambda u: 1 - 1 / np.sqrt(u), lambda t: -np.log(1 - t)),
    "js": (
        lambda u: u * np.log(u) - (u + 1) * np.log((u + 1) / 2), lambda u: np.log(2 * u / (u + 1)),
        lambda t: -np.log(2 * np.exp(-t) - 1),
    ),
}  # fmt: skip
CONJUGATES = {
    "kl": lambda t: np.exp(t - 1),
    "reverse-kl": lambda t: -1 - np.log(-t),
    "pearson": lambda t: t**2 / 4 + t,
    "hellinger": lambda t: t / (1 - t),
    "js": lambda t: -np.log(2 - np.exp(t)),
}
P, Q = np.array([3, 1, 4, 2]), np.array([1, 5, 2, 2])  # tenths


def bound(name, v):
    """E_P T - E_Q f*(T) with T = g_f(v), by the loss of a batch in which each point is as often as in P, in Q."""
    real, fake = (tinygen.tensor(np.repeat(v, times)) for times in (P, Q))
    return -FGAN(name).d_loss(real, fake).item()


@pytest.mark.parametrize("name", DIVERGENCES)
def test_the_bound_is_the_divergence_at_its_best_and_less_elsewhere(name):
    f, slope, inverse = F[name]
    u = P / Q
    divergence = (Q / 10 * f(u)).sum()
    best = inverse(slope(u))
    assert bound(name, best) == pytest.approx(divergence, abs=1e-12)
    rng = np.random.default_rng(0)
    for _ in range(200):
        assert bound(name, best + rng.normal(0, rng.choice([0.01, 0.3, 2]), 4)) <= divergence


@pytest.mark.parametrize("name", DIVERGENCES)
def test_the_table_has_the_conjugate_of_the_activation(name):
    """The second column is f* of the first, and the first stays where f* is finite."""
    activation, conjugate, _ = DIVERGENCES[name]
    v = np.linspace(-6, 6, 49)
    t = activation(tinygen.tensor(v)).numpy()
    np.testing.assert_allclose(conjugate(tinygen.tensor(v)).numpy(), CONJUGATES[name](t), rtol=1e-9, atol=1e-9)
    u = np.exp(np.linspace(-16, 16, 200_001))  # and f*(t) is the maximum of u t - f(u)
    np.testing.assert_allclose(
        [(u * one - F[name][0](u)).max() for one in t[18:31:3]], CONJUGATES[name](t[18:31:3]), rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("name", ["hellinger", "js"])
def test_the_largest_divergence_is_that_of_distributions_apart(name):
    certain = tinygen.tensor(np.full(3, 40.0))
    assert FGAN(name).d_loss(certain, -certain).item() == pytest.approx(FGAN(name).best, abs=1e-9)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_discriminator_without_a_clue_bounds_the_divergence_by_0(name):
    v = F[name][2](F[name][1](np.ones(4)))  # T = f'(1)
    assert bound(name, v) == pytest.approx(0, abs=1e-12)


# ------------------------------------------------------------------------------------------- softmax GAN, EBGAN, AC-GAN


@given(st.integers(1, 5), st.floats(-9, 9))
def test_a_blind_softmax_loses_log_2n_by_both_targets(n, value):
    same = tinygen.tensor(np.full(n, value))
    assert Softmax().d_loss(same, same).item() == pytest.approx(math.log(2 * n))
    lost = Softmax().g_parts(Verdict(same), lambda: Verdict(same))["g_loss"].item()
    assert lost == pytest.approx(math.log(2 * n))


def test_the_softmax_losses_are_cross_entropies_over_the_whole_batch():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(2, 4))
    p = np.exp([*real, *fake]) / np.exp([*real, *fake]).sum()
    r, f = tinygen.tensor(real), tinygen.tensor(fake)
    assert Softmax().d_loss(r, f).item() == pytest.approx(-(np.log(p[:4]) / 4).sum())
    assert Softmax().g_parts(Verdict(f), lambda: Verdict(r))["g_loss"].item() == pytest.approx(-(np.log(p) / 8).sum())
    assert Softmax().shown(r, f)["mass"] == pytest.approx(p[:4].sum())


def test_beyond_the_margin_the_discriminator_has_no_gradient_at_all():
    m = EBGAN.margin
    energies = tinygen.tensor(np.array([m / 2, m + 1e-9, 3 * m]), requires_grad=True)
    loss = EBGAN().d_loss(tinygen.tensor(np.full(3, 0.1)), energies)
    (slope,) = tinygen.grad(loss, energies)
    np.testing.assert_array_equal(slope.numpy(), [-1 / 3, 0, 0])
    assert loss.item() == pytest.approx(0.1 + m / 6)


def test_the_pulling_away_term_is_the_mean_squared_cosine_of_different_codes():
    codes = np.random.default_rng(0).normal(size=(4, 3))
    unit = codes / np.linalg.norm(codes, axis=1, keepdims=True)
    pairs = [(unit[i] @ unit[j]) ** 2 for i in range(4) for j in range(4) if i != j]
    assert alikeness(tinygen.tensor(codes)).item() == pytest.approx(np.mean(pairs))
    assert alikeness(tinygen.tensor(np.eye(3))).item() == pytest.approx(0)
    assert alikeness(tinygen.tensor(np.ones((3, 2)))).item() == pytest.approx(1)
    assert alikeness(tinygen.tensor(np.zeros((1, 2)))).item() == 0  # a batch of one has no pairs


def test_a_perfect_classifier_loses_what_the_classes_leave_open():
    """L_C = H(y | x), on a pair of images of which the second is of class 1 in a quarter of all cases."""
    given_x = np.array([[1 - 1e-30, 1e-30], [0.75, 0.25]])
    x, y = np.array([0, 0, 1, 1, 1, 1]), np.array([0, 0, 0, 0, 0, 1])
    none = tinygen.tensor(np.zeros(6))
    said = Verdict(none, tinygen.tensor(np.log(given_x)[x]), y)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) * 4 / 6
    objective = AuxiliaryClassifier(2)
    assert objective.d_parts(said, said)["d_class"].item() == pytest.approx(2 * entropy)
    assert objective.g_parts(said, lambda: said)["g_class"].item() == pytest.approx(entropy)


def test_the_classifier_is_not_told_what_it_has_to_find():
    model = new(ACGAN, classes=3)
    z, labels = model.codes(2, np.random.default_rng(0)), np.array([0, 2])
    x = model.pair.generate(z, labels).detach()
    one, other = model.pair.judge(x, labels), model.pair.judge(x, labels[::-1])
    np.testing.assert_array_equal(one.head.numpy(), other.head.numpy())
    assert one.head.shape == (2, 3)
    assert (model.pair.generate(z, labels[::-1]).numpy() != x.numpy()).any()  # but G is


# ------------------------------------------------------------------------------------------------------------- InfoGAN


def test_the_bound_is_the_information_for_the_exact_q_and_less_for_any_other():
    """A generator of four codes that draws one of three images, by enumeration."""
    rng = np.random.default_rng(0)
    given_c = np.array([[7, 1, 0], [0, 8, 0], [2, 2, 4], [0, 0, 8]]) / 8  # p(x | c)
    joint = given_c / 4
    marginal = joint.sum(axis=0)
    positive = joint > 0
    information = (joint * np.log(np.where(positive, joint / (marginal / 4), 1))).sum()
    c, x = np.nonzero(positive)
    times = np.rint(joint[c, x] * 32).astype(int)
    c, x = np.repeat(c, times), np.repeat(x, times)  # all that can come out, as often as it does: 32 cases

    def bound(q):
        """L_I = E log Q(c | x) + H(c), by the objective's own loss."""
        with np.errstate(divide="ignore"):
            logits = np.maximum(np.log(q), -1e3)[x]
        z = np.concatenate([np.zeros((32, 1)), np.eye(4)[c]], axis=1)
        head = tinygen.tensor(np.concatenate([logits, np.zeros((32, 2))], axis=1))
        parts = Information(4, 1).g_parts(Verdict(tinygen.tensor(np.zeros(32)), head, None, z), lambda: None)
        return math.log(4) - parts["g_category"].item() / Information.shares[0]

    exact = (joint / marginal).T  # Q(c | x), a row an image
    assert bound(exact) == pytest.approx(information, abs=1e-12)
    for _ in range(100):
        assert bound(rng.dirichlet(np.ones(4), 3)) <= information + 1e-12


def test_the_bound_on_a_normal_number_is_its_density():
    rng = np.random.default_rng(0)
    z, mean, log_variance = rng.normal(size=(3, 5))
    head = np.stack([np.zeros(5), np.zeros(5), mean, log_variance], axis=1)
    code = np.concatenate([z[:, None], np.eye(2)[[0, 1, 0, 1, 1]]], axis=1)
    _, found = Information(2, 1).code_losses(Verdict(tinygen.tensor(z), tinygen.tensor(head), None, code))
    sigma = np.exp(log_variance / 2)
    density = np.exp(-(((z - mean) / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))
    assert found.item() == pytest.approx(-Information.shares[1] * np.log(density).mean())


def test_the_code_is_independent_of_the_noise_and_all_categories_are_alike():
    model = new(InfoGAN, latent=3, categories=4, numbers=1)
    z = model.codes(20_000, np.random.default_rng(0))
    np.testing.assert_array_equal(np.sort(z[:, 3:], axis=1), np.tile([0, 0, 0, 1], (20_000, 1)))
    np.testing.assert_allclose(z[:, 3:].mean(axis=0), 0.25, atol=0.015)
    np.testing.assert_allclose(np.corrcoef(z.T)[:3, 3:], 0, atol=0.03)
    np.testing.assert_allclose(np.cov(z[:, :3].T), np.eye(3), atol=0.05)


def test_truncation_and_temperature_leave_the_category_alone():
    model = new(InfoGAN, latent=3, categories=4, numbers=1)
    z = model.codes(100, np.random.default_rng(0), 0.5)
    assert np.abs(z[:, :3]).max() <= 0.5
    assert (z[:, 3:].max(axis=1) == 1).all()
    cold = model.sample(50, np.random.default_rng(0), temperature=0)
    z = np.concatenate([np.zeros((4, 3)), np.eye(4)], axis=1)
    kinds = {image.tobytes() for image in model.images(z)}
    assert {image.tobytes() for image in cold} == kinds


def test_q_learns_in_the_discriminators_step_and_the_generator_in_its_own():
    """No layer of Q is left out of the optimizers: all parameters of both players get a gradient."""
    model = new(InfoGAN, categories=4)
    training(model).advance(0.0)
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert np.abs(p.grad.numpy()).max() > 0, name
