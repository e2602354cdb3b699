"""Boltzmann machines: energies, Gibbs sampling, gradients, log Z by enumeration; the mean field and its bound."""

from __future__ import annotations

import itertools
import os

import numpy as np
import pytest

import tinygen
from tinygen import no_grad, tensor
from tinygen.baselines.independent import independent_nats
from tinygen.data import Dataset, load, threshold
from tinygen.metrics.metric import Chart, ImageGrid
from tinygen.models.energy import family
from tinygen.models.energy.ais import log_partition, reverse_log_partition
from tinygen.models.energy.dbm import DBM
from tinygen.models.energy.machine import Bernoulli, Gaussian, Machine, SideBySide
from tinygen.models.energy.plots import autocorrelation
from tinygen.models.energy.rbm import RBM
from tinygen.models.family import Batch
from tinygen.report.charts import figure
from tinygen.training.config import Config
from tinygen.training.trainer import Trainer

FULL = os.environ.get("TINYGEN_FULL") == "1"


def states(n):
    """All states of n units that are 0 or 1, (2^n, n)."""
    return np.array(list(itertools.product((0.0, 1.0), repeat=n))).reshape(2**n, n)


def rbm(shape=(1, 2, 3), hidden=4, kind=RBM, seed=0, scale=0.8, **options):
    """A small machine in float64 of random weights."""
    rng = np.random.default_rng(seed)
    model = kind(shape, 2, hidden=hidden, **options, rng=rng).to(np.float64)
    for p in model.parameters():
        p.write()[...] = rng.normal(0, scale, p.shape)
    return model


def numbers(model):
    """W, b, c of the machine."""
    return tuple(p.numpy() for p in model.machine()[:3])


def energies(model):
    """E(v, h) = -v'Wh - b'v - c'h of all pairs of states, by its definition: (2^visible, 2^hidden)."""
    weight, b, c = numbers(model)
    v, h = states(len(b)), states(len(c))
    return -v @ weight @ h.T - (v @ b)[:, None] - h @ c


def log_z(model):
    return np.logaddexp.reduce(-energies(model), axis=None)


def log_p(model):
    """log p(v) of all states of the visible units."""
    return np.logaddexp.reduce(-energies(model), axis=1) - log_z(model)


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def gibbs_kernel(model):
    """p(v' | v) of one step, from v to h to v', by enumeration."""
    joint = np.exp(-energies(model))
    to_h, to_v = joint / joint.sum(axis=1, keepdims=True), joint / joint.sum(axis=0)
    return to_h @ to_v.T


def statistics(model, v, p):
    """d F / d theta averaged over states v with probabilities p: <-v sigmoid'>, <-v>, <-sigmoid>, flat."""
    weight, _, c = numbers(model)
    h = sigmoid(c + v @ weight)
    return -np.concatenate([((v * p[:, None]).T @ h).ravel(), p @ v, p @ h])


def flat_gradients(model):
    return np.concatenate([p.grad.numpy().ravel() for p in model.parameters()])


def trainer(model, data, batch_size=100, seed=0, lr=0.05):
    return Trainer(Config("rbm", batch_size=batch_size, lr=lr, epochs=1.0), model, data, np.random.default_rng(seed))


def digits():
    return tuple(threshold(data) for data in load("digits"))


# --------------------------------------------------------------------------------- the machine, slides 17 to 21


def test_hidden_units_are_summed_out_by_the_free_energy():
    model = rbm()
    f = model.machine().free_energy(tensor(states(6))).numpy()
    np.testing.assert_allclose(np.exp(-energies(model)).sum(axis=1), np.exp(-f), rtol=1e-13)


@pytest.mark.parametrize(
    "kind", [Bernoulli(), Gaussian(), SideBySide(1, Gaussian(), Bernoulli())], ids=["0 or 1", "normal", "both"]
)
def test_a_family_of_units_is_normalized_and_drawn_with_its_means(kind):
    """exp(a x - R(x)) summed, or integrated, is exp(A(a)); draws have the mean dA / da."""
    x, weight = (states(1), 1.0) if isinstance(kind, Bernoulli) else (np.linspace(-12, 12, 4001)[:, None], 24 / 4000)
    rng, inputs = np.random.default_rng(0), np.array([0.7, -0.4])
    if not isinstance(kind, SideBySide):
        for value in inputs:
            energy = kind.energy(tensor(x))
            energy = energy.numpy() if isinstance(energy, tinygen.Tensor) else energy
            total = np.exp(value * x[:, 0] - energy).sum() * weight
            assert np.log(total) == pytest.approx(kind.log_partition(tensor(np.array([value]))).item(), rel=1e-10)
    a = tensor(inputs, requires_grad=True)
    (mean,) = tinygen.grad(kind.log_partition(a), a)
    drawn = kind.sample(a.detach().expand(40000, 2), rng).numpy()
    assert (abs(drawn.mean(axis=0) - mean.numpy()) < 5 * drawn.std(axis=0) / 200).all()
    cold = kind.sample(a.detach(), rng, 0.0).numpy()
    hot = kind.sample(a.detach().expand(40000, 2), rng, 4.0).numpy()
    if isinstance(kind, Bernoulli):
        assert cold.tolist() == [1, 0]
        assert (abs(hot.mean(axis=0) - sigmoid(inputs / 4)) < 5 * hot.std(axis=0) / 200).all()
    elif isinstance(kind, Gaussian):
        assert np.array_equal(cold, inputs)
        np.testing.assert_allclose(hot.std(axis=0), 2, rtol=0.02)


def test_gibbs_sampling_leaves_the_model_as_it_is():
    model = rbm()
    kernel, p = gibbs_kernel(model), np.exp(log_p(model))
    np.testing.assert_allclose(p @ kernel, p, atol=1e-16)
    flow = p[:, None] * kernel
    np.testing.assert_allclose(flow, flow.T, atol=1e-17)  # detailed balance
    v = tensor(np.tile(states(6)[37], (40000, 1)))
    found = model.machine().gibbs(v, np.random.default_rng(0)).numpy() @ 2.0 ** np.arange(5, -1, -1)
    shares, wanted = np.bincount(found.astype(int), minlength=64) / 40000, kernel[37]
    assert (abs(shares - wanted) < 5 * np.sqrt(wanted / 40000) + 1e-4).all()


def test_samples_have_the_models_own_probabilities(monkeypatch):
    model, n = rbm(), 20000
    monkeypatch.setattr(RBM, "burn_in", 20)
    drawn = model.sample(n, np.random.default_rng(0)).reshape(n, 6) @ 2 ** np.arange(5, -1, -1)
    assert not model.chains.numpy().any()  # where they start, and aren't changed
    p = np.exp(log_p(model))
    assert (abs(np.bincount(drawn, minlength=64) / n - p) < 5 * np.sqrt(p * (1 - p) / n) + 1e-4).all()


def test_a_gaussian_machine_is_a_mixture_of_gaussians():
    """One pixel of many levels: the density is the mixture over all hidden states, and integrates to 1."""
    model, rng = RBM((1, 1, 1), 256, hidden=3, sigma=0.25, rng=np.random.default_rng(0)).to(np.float64), None
    rng = np.random.default_rng(1)
    for p in model.parameters():
        p.write()[...] = rng.normal(0, 1, p.shape)
    weight, b, c = numbers(model)
    means = b + states(3) @ weight.T  # of v given h, with variance 1
    log_mass = states(3) @ c + means[:, 0] ** 2 / 2
    log_z = np.logaddexp.reduce(log_mass) + np.log(2 * np.pi) / 2
    v = np.linspace(-12, 12, 4001)
    density = (np.exp(log_mass - np.logaddexp.reduce(log_mass)) / np.sqrt(2 * np.pi)) @ np.exp(-((v - means) ** 2) / 2)
    f = model.machine().free_energy(tensor(v[:, None])).numpy()
    np.testing.assert_allclose(np.exp(-f - log_z), density, rtol=1e-9, atol=1e-15)
    assert density.sum() * (v[1] - v[0]) == pytest.approx(1, rel=1e-6)
    estimate = log_partition(model.machine(), model.marginal_biases(np.zeros((5, 1, 1, 1), int)), 200, 500, rng)
    assert abs(estimate.value - log_z) < 4 * estimate.error
    images = np.arange(256).reshape(256, 1, 1, 1)
    p = np.exp(model.log_unnormalized(images).numpy() - log_z)  # of the levels: the density times a level's width
    inside = np.exp(-f - log_z)[abs(v) <= 1 / 0.25].sum() * (v[1] - v[0])
    assert p.sum() == pytest.approx(inside, abs=0.01)


# -------------------------------------------------------------------------------------------------- the gradient


def test_the_exact_gradient_is_that_of_the_enumerated_likelihood():
    """E F' over the data - E F' over the model is the gradient of the mean of -log p: against finite differences."""
    model, rng = rbm(), np.random.default_rng(1)
    data = rng.dirichlet(np.ones(64))
    exact = statistics(model, states(6), data) - statistics(model, states(6), np.exp(log_p(model)))
    found = []
    for p in model.parameters():
        for place in np.ndindex(p.shape):
            ends = []
            for sign in (1, -1):
                p.write()[place] += sign * 1e-5
                ends.append(-data @ log_p(model))
                p.write()[place] -= sign * 1e-5
            found.append((ends[0] - ends[1]) / 2e-5)
    np.testing.assert_allclose(exact, found, atol=1e-9)


def test_the_loss_has_the_exact_gradient_where_the_chains_are_the_models():
    """Every state as often as the model has it, weighted: what autograd gives is the exact gradient."""
    model, data = rbm(), np.random.default_rng(1).dirichlet(np.ones(64))
    f, p = model.machine().free_energy(tensor(states(6))), np.exp(log_p(model))
    ((f * tensor(data)).sum() - (f * tensor(p)).sum()).backward()
    exact = statistics(model, states(6), data) - statistics(model, states(6), p)
    np.testing.assert_allclose(flat_gradients(model), exact, atol=1e-13)


def test_the_expected_gradient_of_cd_k_tends_to_the_exact_one():
    """At the rate of the second eigenvalue of the Gibbs kernel."""
    model, v = rbm(scale=0.6), states(6)
    data = np.random.default_rng(1).dirichlet(np.ones(64))
    kernel, p = gibbs_kernel(model), np.exp(log_p(model))
    exact = statistics(model, v, data) - statistics(model, v, p)
    errors = []
    for k in (1, 2, 5, 10):
        after = data @ np.linalg.matrix_power(kernel, k)
        found = statistics(model, v, data) - statistics(model, v, after)
        errors.append(np.linalg.norm(found - exact) / np.linalg.norm(exact))
    second = np.sort(abs(np.linalg.eigvals(kernel)))[-2]
    assert errors[0] > 1e-3
    assert errors[-1] < 1e-6
    for (k, error), (more, less) in itertools.pairwise(zip((1, 2, 5, 10), errors, strict=True)):
        assert less / error < 2 * second ** (more - k)


def offset(model, mu, nu):
    """The same parameters, with these offsets: another machine."""
    model.weights.network.visible_offset.write()[...] = mu
    model.weights.network.hidden_offset.write()[...] = nu
    return model


def test_offsets_change_what_is_learned_and_not_the_machines():
    """E(v, h) = -b'(v - mu) - c'(h - nu) - (v - mu)'W(h - nu) is the machine's, but for a constant."""
    mu, nu = np.random.default_rng(1).random(6), np.random.default_rng(2).random(4)
    model = offset(rbm(), mu, nu)
    weight, b, c = (p.numpy() for p in model.parameters())
    v, h = states(6) - mu, states(4) - nu
    difference = -v @ weight @ h.T - (v @ b)[:, None] - h @ c - energies(model)
    np.testing.assert_allclose(difference, difference[0, 0], atol=1e-13)
    assert abs(difference[0, 0]) > 0.1


@pytest.mark.parametrize("centered", [True, False])
def test_a_centered_step_does_not_depend_on_what_is_called_0(centered):
    """Some pixels inverted in data, machine and offsets: after an exact step all is as it was, inverted."""
    data, flip, nu = np.random.default_rng(2).dirichlet(np.ones(64)), np.array([0.0, 1, 1, 0, 0, 1]), np.full(4, 0.5)

    def stepped(weight, b, c, mu, v):
        """log p of the states v after a step from the machine of these numbers."""
        model = offset(rbm(), mu, nu)
        for p, value in zip(model.parameters(), (weight, b + weight @ nu, c + mu @ weight), strict=True):
            p.write()[...] = value
        for found, wanted in zip(numbers(model), (weight, b, c), strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-14)
        f = model.machine().free_energy(tensor(v))
        (f * tensor(data - np.exp(-f.numpy() - np.logaddexp.reduce(-f.numpy())))).sum().backward()
        model.optimizers(0.5)["sgd"].step()
        f = model.machine().free_energy(tensor(v)).numpy()
        return -f - np.logaddexp.reduce(-f)

    (weight, b, c), sign = numbers(rbm()), 1 - 2 * flip
    mu = np.random.default_rng(1).random(6) if centered else np.zeros(6)
    one = stepped(weight, b, c, mu, states(6))
    other = stepped(
        weight * sign[:, None], b * sign, c + flip @ weight, abs(mu - flip) if centered else mu, abs(states(6) - flip)
    )  # fmt: skip
    assert abs(one - log_p(rbm())).max() > 0.1
    assert (abs(one - other).max() < 1e-12) == centered
    assert centered or abs(one - other).max() > 1e-3


@pytest.mark.parametrize("k", [1, 2])
def test_a_training_step_has_the_gradient_of_cd_k(k):
    """Of a batch of 40,000 images one step's gradient is the expected one, but for chance."""
    model, v, n = rbm(chains=0, steps=k), states(6), 40000
    which = np.random.default_rng(1).choice(64, n, p=np.random.default_rng(2).dirichlet(np.ones(64)))
    data = Dataset(v[which].reshape(n, 1, 2, 3).astype(np.uint8), 2, None, "states")
    shares = np.bincount(which, minlength=64) / n
    after = shares @ np.linalg.matrix_power(gibbs_kernel(model), k)
    expected = statistics(model, v, shares) - statistics(model, v, after)
    trainer(model, data, n, lr=0.0).advance(0.0)
    assert abs(flat_gradients(model) - expected).max() < 5 * 0.5 / np.sqrt(n)
    fewer = shares @ np.linalg.matrix_power(gibbs_kernel(model), k // 2)  # 0, 1
    wrong = statistics(model, v, shares) - statistics(model, v, fewer)
    assert abs(flat_gradients(model) - wrong).max() > 5 * 0.5 / np.sqrt(n)


def test_persistent_chains_go_on_where_they_were():
    train, _ = digits()
    model = RBM((1, 8, 8), 2, hidden=8, chains=20, rng=np.random.default_rng(0))
    training = trainer(model, train)
    training.advance(0.0)
    before, machine = model.chains.numpy().copy(), Machine(*(tensor(p) for p in numbers(model)), Bernoulli())
    state = training.rng.bit_generator.state
    training.advance(0.0)
    rng = np.random.default_rng()
    rng.bit_generator.state = state
    expected = machine.gibbs(tensor(before), rng).numpy()
    assert np.array_equal(model.chains.numpy(), expected)
    assert set(np.unique(model.chains.numpy())) == {0, 1}


@pytest.mark.parametrize("kind", [RBM, DBM])
def test_in_evaluation_it_is_the_average_of_its_weights(kind):
    train, _ = digits()
    model = kind((1, 8, 8), 2, hidden=8, rng=np.random.default_rng(0))
    training, seen = trainer(model, train), []
    for _ in range(4):
        training.advance(0.0)
        seen.append(np.concatenate([p.numpy().ravel() for p in model.parameters()]).astype(np.float64))
    start = kind((1, 8, 8), 2, hidden=8, rng=np.random.default_rng(0))
    start.begin(train, np.random.default_rng(1))
    average = np.concatenate([p.numpy().ravel() for p in start.parameters()]).astype(np.float64)
    for n, weights in enumerate(seen, 1):
        average += (weights - average) * (1 - (1 + n) / (10 + n))
    model.eval()
    learned = [getattr(model.weights.average, name) for name in ("weight", "visible_bias", "hidden_bias")]
    found = np.concatenate([p.numpy().ravel() for p in learned])
    np.testing.assert_allclose(found, average, atol=1e-6)
    assert abs(found - seen[-1]).max() > 1e-4
    for its, average in zip(numbers(model), model.weights.average.machine(model.units)[:3], strict=True):
        assert np.array_equal(its, average.numpy())


def test_it_starts_with_the_marginals_of_the_data():
    train, test = digits()
    model = RBM((1, 8, 8), 2, hidden=8, rng=np.random.default_rng(0))
    model.weight.write()[...] = 0
    model.begin(train, np.random.default_rng(1))
    log_z = np.log(2) * 8 + np.logaddexp(0, numbers(model)[1]).sum()
    nats = log_z - family.log_unnormalized(model, test.images).mean()
    assert nats == pytest.approx(model.family.baselines(model, train, test)["independent pixels"], rel=1e-5)
    learned = model.weights.network
    np.testing.assert_allclose(learned.visible_offset.numpy(), sigmoid(learned.visible_bias.numpy()), rtol=1e-6)
    assert (learned.hidden_offset.numpy() == 0.5).all()
    weights = {name: p.numpy() + 1 for name, p in model.named_parameters()}
    model.load_state_dict(weights, strict=False)
    trainer(model, train, lr=0.0).advance(0.0)  # biases that were given aren't touched
    assert np.array_equal(model.weights.network.visible_bias.numpy(), weights["weights.network.visible_bias"])


# ------------------------------------------------------------------------------------ annealed importance sampling

PATHS = 1, 10, 100, 1000


def wide(seed=0):
    """20 x 12 units, and the exact log Z."""
    model = rbm((1, 4, 5), 12, scale=0.5, seed=seed)
    weight, b, c = numbers(model)
    h = states(12)
    return model, np.logaddexp.reduce(h @ c + np.logaddexp(0, b + h @ weight.T).sum(axis=1))


@pytest.mark.parametrize("temperatures", PATHS)
def test_ais_is_right_at_every_length(temperatures):
    model, exact = wide()
    base = model.machine().visible_bias.detach()
    forward = log_partition(model.machine(), base, temperatures, 500, np.random.default_rng(temperatures))
    with no_grad():
        v = model.start(500, np.random.default_rng(1))
        for _ in range(200):  # it mixes soon: these are samples
            v = model.machine().gibbs(v, np.random.default_rng(2))
    for estimate in (
        forward, reverse_log_partition(model.machine(), base, temperatures, v, np.random.default_rng(3))
    ):  # fmt: skip
        assert abs(estimate.value - exact) < 4 * estimate.error
        assert 1 <= estimate.effective <= 500
        assert estimate.error == pytest.approx(np.sqrt((500 / estimate.effective - 1) / 499), rel=1e-9)


@pytest.mark.fault("M14")
def test_ais_of_too_few_temperatures_reports_a_better_likelihood():
    """The trap: it is no error, it is optimism. How many chains count shows it, and chains in reverse err upwards."""
    model = rbm((1, 4, 5), 12, scale=1.5)
    weight, b, c = numbers(model)
    exact = np.logaddexp.reduce(states(12) @ c + np.logaddexp(0, b + states(12) @ weight.T).sum(axis=1))
    base = tensor(np.zeros(20))
    with no_grad():
        v = model.start(100, np.random.default_rng(1))
        for beta in np.linspace(0, 1, 300):  # samples, by annealing and then long chains
            hot = Machine(*(tensor(p * beta) for p in numbers(model)), Bernoulli())
            v = hot.gibbs(v, np.random.default_rng(int(1e6 * beta)))
    found = {}
    for temperatures in (3, 300):
        runs = [
            log_partition(model.machine(), base, temperatures, 100, np.random.default_rng(s)) for s in range(8)
        ]  # fmt: skip
        back = reverse_log_partition(model.machine(), base, temperatures, v, np.random.default_rng(9))
        found[temperatures] = np.mean([r.value for r in runs]), np.mean([r.effective for r in runs]), back.value
    (few, count_few, back_few), (many, count_many, back_many) = found.values()
    assert few < exact - 0.5  # so -log p = log Z + F comes out better by as much
    assert abs(many - exact) < 0.2
    assert count_few < 10 < 50 < count_many
    assert back_few > exact + 1
    assert back_few - few > 5 * abs(back_many - many)


def test_the_reported_likelihood_is_the_enumerated_one(monkeypatch):
    monkeypatch.setattr(family, "TEMPERATURES", 1000)
    model = rbm((1, 3, 3), 5, scale=0.7)
    weight, b, c = numbers(model)
    images = np.random.default_rng(1).integers(0, 2, (50, 1, 3, 3)).astype(np.uint8)
    data = Dataset(images, 2, None, "noise")
    f = -(images.reshape(50, 9) @ b) - np.logaddexp(0, c + images.reshape(50, 9) @ weight).sum(axis=1)
    exact = float(f.mean()) + log_z(model)
    metrics = model.family.metrics(model, data, data, np.random.default_rng(0))
    by_name = {(m.name, m.unit): m for m in metrics}
    nats = by_name["-log p by AIS, 1,000 temperatures", "nats an image"]
    assert nats.value == pytest.approx(exact, abs=0.05)
    assert nats.lower_is_better
    assert nats.error > f.std() / np.sqrt(50)
    assert by_name["-log p by AIS, 1,000 temperatures, in reverse", "nats an image"].value == pytest.approx(
        exact, abs=0.05
    )
    bits = by_name["-log p by AIS, 1,000 temperatures", "bits/dim"]
    assert bits.value == pytest.approx(nats.value / 9 / np.log(2))
    assert by_name["log Z", "nats"].value == pytest.approx(log_z(model), abs=0.05)
    assert by_name["chains that count", "of 100"].value > 50
    found = model.family.validation(model, Batch(images), np.random.default_rng(0))
    assert found == pytest.approx(exact, abs=0.1)


# -------------------------------------------------------------------------------------- the deep Boltzmann machine


def dbm(top=3, scale=0.8, seed=0, updates=50):
    """4 pixels, 3 hidden units, 3 above them."""
    return rbm((1, 2, 2), 3, DBM, seed, scale, top=top, updates=updates)


def dbm_log_p(model):
    """log p of the 16 images, by the sum over h1 and h2 of the energy as the paper has it."""
    weight, biases, c = numbers(model)
    w1, w2, b, d = weight[:4], weight[4:].T, biases[:4], biases[4:]
    v, h1, h2 = states(4), states(len(c)), states(len(d))
    energy = -(v @ w1 @ h1.T)[:, :, None] - (h1 @ w2 @ h2.T) - (v @ b)[:, None, None]
    energy = energy - (h1 @ c)[:, None] - h2 @ d
    joint = np.logaddexp.reduce(-energy.reshape(16, -1), axis=1)
    return joint - np.logaddexp.reduce(joint), np.logaddexp.reduce(joint)


IMAGES_2X2 = states(4).astype(np.uint8).reshape(16, 1, 2, 2)


def test_the_mean_field_is_at_its_fixed_point():
    model = dbm()
    weight, biases, c = numbers(model)
    rows = model.state(IMAGES_2X2).numpy()
    v, m2 = rows[:, :4], rows[:, 4:]
    assert np.array_equal(v, states(4))
    m1 = sigmoid(c + v @ weight[:4] + m2 @ weight[4:])
    np.testing.assert_allclose(sigmoid(biases[4:] + m1 @ weight[4:].T), m2, atol=2e-4)
    few = dbm(updates=1)  # in training, from the means of m2 when nothing is known of m1
    m1 = sigmoid(c + v @ weight[:4] + sigmoid(biases[4:]) @ weight[4:])
    np.testing.assert_allclose(
        few.state(IMAGES_2X2).numpy()[:, 4:], sigmoid(biases[4:] + m1 @ weight[4:].T), atol=1e-12
    )
    assert np.array_equal(few.log_unnormalized(IMAGES_2X2).numpy(), model.log_unnormalized(IMAGES_2X2).numpy())


@pytest.mark.parametrize("scale", [0.3, 0.8, 2.0])
def test_the_bound_of_a_dbm_is_below_its_likelihood(scale):
    model = dbm(scale=scale)
    truth, z = dbm_log_p(model)
    bound = model.log_unnormalized(IMAGES_2X2).numpy() - z
    assert (bound <= truth + 1e-12).all()
    assert (truth - bound).max() > 1e-6
    if scale == 0.3:
        assert (truth - bound).max() < 0.02  # units that hardly hang together: nearly independent given the image
    # the bound as the paper has it: -E_q E(v, h) + H(q) - log Z, with any other means it is lower
    weight, biases, c = numbers(model)
    rows = model.state(IMAGES_2X2).numpy()

    def paper(m2):
        m1 = sigmoid(c + rows[:, :4] @ weight[:4] + m2 @ weight[4:])
        m = np.concatenate([m1, m2], axis=1)
        entropy = -(m * np.log(m) + (1 - m) * np.log1p(-m)).sum(axis=1)
        energy = -(rows[:, :4] @ weight[:4] * m1).sum(1) - (m2 @ weight[4:] * m1).sum(1)
        return -(energy - rows[:, :4] @ biases[:4] - m1 @ c - m2 @ biases[4:]) + entropy - z

    np.testing.assert_allclose(bound, paper(rows[:, 4:]), atol=1e-5)
    other = np.random.default_rng(0).uniform(0.05, 0.95, (16, 3))
    assert (paper(other) < truth).all()


def test_log_z_of_a_dbm_is_the_enumerated_one():
    model = dbm()
    base = model.marginal_biases(IMAGES_2X2)
    assert np.array_equal(base.numpy()[4:], np.zeros(3))
    estimate = log_partition(model.machine(), base, 200, 500, np.random.default_rng(0))
    assert abs(estimate.value - dbm_log_p(model)[1]) < 4 * estimate.error


def test_a_dbm_of_one_hidden_layer_is_an_rbm():
    train, _ = digits()
    found = []
    for kind, options in ((RBM, {}), (DBM, {"top": 0})):
        model = kind((1, 8, 8), 2, hidden=8, chains=10, **options, rng=np.random.default_rng(0))
        training = trainer(model, train)
        for _ in range(5):
            training.advance(0.0)
        found.append((model.state_dict(), model.log_unnormalized(train.images[:9]).numpy(), model.eval()))
    (one, f, rbm_model), (other, g, dbm_model) = found
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)
    np.testing.assert_allclose(f, g, rtol=1e-6)
    drawn = [m.sample(3, np.random.default_rng(0)) for m in (rbm_model, dbm_model)]
    assert np.array_equal(*drawn)


def test_training_raises_the_likelihood_of_machines_that_can_be_enumerated():
    rng = np.random.default_rng(0)
    flat = rng.integers(0, 2, (400, 1, 1, 1)) ^ (rng.random((400, 1, 2, 2)) < 0.05)  # black or white, and some noise
    data = Dataset(flat.astype(np.uint8), 2, None, "states")
    shares = np.bincount(data.images.reshape(-1, 4) @ [8, 4, 2, 1], minlength=16) / 400
    entropy = -(shares[shares > 0] * np.log(shares[shares > 0])).sum()
    independent = independent_nats(data.images, data.images, 2).mean()
    for kind, options in ((RBM, {}), (RBM, {"chains": 0, "steps": 5}), (DBM, {"top": 4})):
        model = kind((1, 2, 2), 2, hidden=8, **options, rng=np.random.default_rng(0))
        training = trainer(model, data, lr=0.5)
        for i in range(600):
            training.advance(i / 600)
        model.to(np.float64)
        truth = dbm_log_p(model)[0] if kind is DBM else log_p(model)
        assert entropy <= -shares @ truth < entropy + (independent - entropy) / 5


# ---------------------------------------------------------------------------------- every size; options; plots


@pytest.mark.parametrize("kind", [RBM, DBM])
@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize(("shape", "n", "batch"), [((1, 1, 1), 3, 1), ((3, 2, 3), 5, 16), ((1, 8, 8), 40, 16)])
def test_images_of_every_size_and_batches_of_every_size(kind, levels, shape, n, batch):
    """1x1 images, colors, a batch of one, a batch larger than the data."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, levels, (n, *shape)).astype(np.uint8)
    model = kind(shape, levels, hidden=5, chains=4, rng=rng)
    training = trainer(model, Dataset(images, levels, None, "noise"), batch)
    for _ in range(3):
        assert all(np.isfinite(list(training.advance(0.0).values())))
    drawn = model.eval().sample(3, np.random.default_rng(0))
    assert drawn.shape == (3, *shape)
    assert drawn.dtype == np.uint8
    assert drawn.max() < levels
    assert model.sample(0, rng).shape == (0, *shape)
    done = model.complete(images, shape[1] - 1, np.random.default_rng(0))
    assert np.array_equal(done[:, :, :-1], images[:, :, :-1])
    assert np.isfinite(model.log_unnormalized(images).numpy()).all()


@pytest.mark.parametrize("kind", [RBM, DBM])
@pytest.mark.parametrize("levels", [2, 17])
def test_training_stays_finite(kind, levels):
    """As it is by default, on the digits; the chains follow. One seed of ten, all of them with TINYGEN_FULL=1."""
    train, _ = load("digits") if levels == 17 else digits()
    for seed in range(10 if FULL else 1):
        model = kind((1, 8, 8), levels, rng=np.random.default_rng(seed))
        training = trainer(model, train, kind.batch_size, seed, kind.lr)
        gaps = []
        for i in range(200):
            parts = training.advance(i / 200)
            assert np.isfinite(list(parts.values())).all()
            gaps.append(sum(parts.values()))
        assert abs(np.mean(gaps[-50:])) < 20
        assert abs(model.weight.numpy()).max() < 3


@pytest.mark.parametrize(("kind", "levels"), [(RBM, 2), (RBM, 17), (DBM, 2)])
def test_plots(kind, levels, monkeypatch):
    train, test = load("digits") if levels == 17 else digits()
    monkeypatch.setattr(kind, "burn_in", 5)
    model = kind((1, 8, 8), levels, hidden=10, rng=np.random.default_rng(0)).eval()
    shown = {name: draw(model, train, test, np.random.default_rng(0)) for name, draw in model.family.plots.items()}
    assert shown.keys() == {"filters", "chains", "complete", "mixing"}
    assert isinstance(shown["mixing"], Chart)
    assert figure(shown["mixing"]).axes[0].get_title(loc="left") == shown["mixing"].caption
    for name in ("filters", "chains", "complete"):
        picture = shown[name]
        assert isinstance(picture, ImageGrid)
        assert picture.images.dtype == np.uint8
        columns = picture.columns or 1
        assert len(picture.images) % columns == 0
        assert len(picture.rows) in (0, len(picture.images) // columns)
        assert len(picture.across) in (0, columns)
    assert np.array_equal(shown["chains"].images[0], test.images[0])
    assert len(shown["filters"].images) == 10
    weight = model.weight.numpy()[:64]
    largest = weight[:, (weight * weight).sum(axis=0).argmax()]
    gray = shown["filters"].images[0].reshape(-1).astype(float)
    assert np.corrcoef(gray, largest)[0, 1] > 0.99


def test_completions_tend_to_the_conditional_distribution(monkeypatch):
    model, n = rbm((1, 2, 3), 4, seed=2), 20000
    monkeypatch.setattr(RBM, "burn_in", 20)
    images = np.tile(np.array([[1, 0, 1], [0, 0, 0]], np.uint8), (n, 1, 1, 1))
    done = model.complete(images, 1, np.random.default_rng(0)).reshape(n, 6)
    assert (done[:, :3] == [1, 0, 1]).all()
    fits = (states(6)[:, :3] == [1, 0, 1]).all(axis=1)
    p = np.exp(log_p(model))[fits]
    shares = np.bincount(done[:, 3:] @ [4, 2, 1], minlength=8) / n
    assert (abs(shares - p / p.sum()) < 5 * 0.5 / np.sqrt(n)).all()


def test_the_correlation_of_a_chain_is_the_kernels():
    """One pixel: the correlation after k steps is the second eigenvalue to the power of k."""
    model = rbm((1, 1, 1), 3)
    model.weight.write()[...] = [[3.0, -3.0, 2.0]]
    model.weights.network.hidden_bias.write()[...] = [-1.5, 1.5, -1.0]
    joint = np.exp(-energies(model))
    to_h, to_v = joint / joint.sum(axis=1, keepdims=True), joint / joint.sum(axis=0)
    second = np.trace(to_h @ to_v.T) - 1
    found = autocorrelation(model, np.zeros((20000, 1, 1, 1), np.uint8), 4, np.random.default_rng(0))
    np.testing.assert_allclose(found, second ** np.arange(5), atol=0.05)
    assert second > 0.3


@pytest.mark.fault("G12")
@pytest.mark.parametrize(
    ("kind", "levels", "options", "message"),
    [
        (RBM, 2, {"hidden": 0}, "hidden must be at least 1, got 0"),
        (RBM, 2, {"chains": -1}, "chains must be at least 0, got -1"),
        (RBM, 2, {"steps": 0}, "steps must be at least 1, got 0"),
        (RBM, 17, {"sigma": 0.01}, r"sigma must be at least 0\.0499 for 17 levels, got 0\.01"),
        (RBM, 17, {"sigma": float("nan")}, r"sigma must be at least 0\.0499 for 17 levels, got nan"),
        (DBM, 2, {"top": -1}, "top must not be negative, got -1"),
        (DBM, 2, {"updates": 0}, "updates must be at least 1, got 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(kind, levels, options, message):
    with pytest.raises(ValueError, match=message):
        kind((1, 8, 8), levels, **options, rng=np.random.default_rng(0))


@pytest.mark.fault("G12")
def test_images_and_arguments_that_do_not_fit_are_refused():
    model, rng = rbm(), np.random.default_rng(0)
    images = np.zeros((3, 1, 2, 3), np.uint8)
    with pytest.raises(ValueError, match="images must be integers from 0 to 1, got int64 from 0 to 2"):
        model.log_unnormalized(images.astype(int) + 2 * (np.arange(3) > 1)[:, None, None, None])
    with pytest.raises(ValueError, match="known must be from 0 to 2 rows, got 3"):
        model.complete(images, 3, rng)
    with pytest.raises(ValueError, match="labels must be None"):
        model.sample(2, rng, labels=np.zeros(2, int))
    with pytest.raises(ValueError, match="temperature must not be negative"):
        model.sample(2, rng, temperature=-1)
    with pytest.raises(ValueError, match="temperature must not be negative"):
        model.complete(images, 1, rng, temperature=-1)
    with pytest.raises(ValueError, match="AIS takes 1 temperature and 2 chains or more, got 0 and 5"):
        log_partition(model.machine(), tensor(np.zeros(6)), 0, 5, rng)
    with pytest.raises(ValueError, match="AIS takes 1 temperature and 2 chains or more, got 5 and 1"):
        reverse_log_partition(model.machine(), tensor(np.zeros(6)), 5, tensor(np.zeros((1, 6))), rng)
