"""VAE: the divergence, the gradient through the noise, the bounds and what they bound, options that are no option."""

from __future__ import annotations

import functools
import itertools
import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygen
from tinygen import kernels, no_grad, optim, tensor
from tinygen.data import Dataset, load
from tinygen.gradcheck import check_module
from tinygen.metrics.metric import Chart, Metric
from tinygen.models.family import Batch
from tinygen.models.likelihoods import Bernoulli, Gaussian, Logistic
from tinygen.models.vae import estimates
from tinygen.models.vae.categorical import CategoricalVAE
from tinygen.models.vae.estimates import activity, elbo, importance_bound, kl_by_variable, prior_estimate
from tinygen.models.vae.iwae import IWAE, MixtureIWAE
from tinygen.models.vae.m2 import M2
from tinygen.models.vae.mixture import MixtureVAE
from tinygen.models.vae.normal import gaussian_kl, log_normal, log_prior
from tinygen.models.vae.vae import VAE
from tinygen.report.charts import figure
from tinygen.training.config import Config
from tinygen.training.trainer import Trainer

ALL_2X2 = np.array(list(itertools.product(range(2), repeat=4)), np.uint8).reshape(16, 1, 2, 2)
GRID = np.linspace(-30, 30, 6001)
STEP = GRID[1] - GRID[0]


def vae(kind=VAE, shape=(1, 2, 2), levels=2, seed=0, scale=0.8, **options):
    """A small VAE in float64, of random weights: those of the decoder are large, so that its codes matter."""
    rng = np.random.default_rng(seed)
    model = kind(shape, levels, **{"hidden": 5, "latent": 1, **options}, rng=rng).to(np.float64)
    for network, size in ((model.encoder, 0.2), (model.decoder, scale)):
        for p in network.parameters():
            p.write()[...] = rng.normal(0, size, p.shape)
    return model


def log_p(model, images):
    """log p(x) by summing p(z) p(x given z) over a grid of z, one variable; or over all categories."""
    if isinstance(model, CategoricalVAE):
        choices = itertools.product(np.eye(model.categories), repeat=model.latent)
        z = np.array([np.concatenate(c) for c in choices])
        log_mass = np.full(len(z), -model.latent * np.log(model.categories))
    elif isinstance(model, M2):
        y = np.repeat(np.eye(model.classes), len(GRID), axis=0)
        z = np.concatenate([np.tile(GRID, model.classes)[:, None], y], axis=1)
        log_mass = log_prior(tensor(z[:, :1])).numpy() + np.log(STEP / model.classes)
    else:
        z = GRID[:, None]
        log_mass = log_prior(tensor(z)).numpy() + np.log(STEP)
    with no_grad():
        codes = model.tensor(z[:, None])
        log_p = np.stack([model.log_likelihood(images[i : i + 1], codes).numpy()[:, 0] for i in range(len(images))])
    return np.logaddexp.reduce(log_mass + log_p, axis=1)


def total(parts):
    return functools.reduce(operator.add, parts.values())


def parts(model, images, seed):
    """The parts of the loss, by the same noise for a seed."""
    return model.loss(Batch(images), np.random.default_rng(seed))


def gradients(model, images, seed):
    model.zero_grad()
    total(parts(model, images, seed)).backward()
    return {name: p.grad.numpy() for name, p in model.named_parameters()}


def within(estimates, truth, errors=5):
    """Whether the mean of random numbers is a given one, as far as their spread lets one tell."""
    return abs(np.mean(estimates) - truth) <= errors * np.std(estimates) / np.sqrt(len(estimates)) + 1e-12


# ------------------------------------------------------------------------------------ the divergence, slides 82 to 85


@pytest.mark.fault("M05")
@settings(max_examples=30)
@given(st.floats(-2, 2), st.floats(-3, 1.5), st.integers(0, 99))
def test_the_kl_divergence_in_closed_form_is_the_integral_and_what_draws_give(mean, log_var, seed):
    closed = gaussian_kl(tensor(np.float64(mean)), tensor(np.float64(log_var))).item()
    z = tensor(GRID[:, None])
    log_q, log_p = log_normal(z, tensor(np.array([mean])), tensor(np.array([log_var]))).numpy(), log_prior(z).numpy()
    assert closed == pytest.approx((np.exp(log_q) * (log_q - log_p)).sum() * STEP, rel=1e-9, abs=1e-9)
    z = mean + np.exp(log_var / 2) * np.random.default_rng(seed).standard_normal((20000, 1))
    ratios = log_normal(tensor(z), tensor(np.array([mean])), tensor(np.array([log_var]))) - log_prior(tensor(z))
    assert within(ratios.numpy(), closed)


def test_the_divergence_of_a_mixture_is_the_integral():
    model, rng = vae(MixtureVAE, components=3), np.random.default_rng(1)
    with no_grad():
        h = model.encoded(ALL_2X2[[5]])
        z = tensor(GRID[:, None, None, None])
        log_q, log_p = model.log_q(h, z).numpy().ravel(), log_prior(z).numpy().ravel()
        estimates = [model.divergence(h, model.reparameterized(h, 1, rng)).item() for _ in range(2000)]
        many = model.divergence(h, model.reparameterized(h, 3000, rng)).item()
    assert np.exp(log_q).sum() * STEP == pytest.approx(1, rel=1e-9)
    exact = (np.exp(log_q) * (log_q - log_p)).sum() * STEP
    assert within(estimates, exact)
    assert many == pytest.approx(exact, abs=0.01)


def test_a_mixtures_draws_count_as_much_as_their_components_weigh():
    model, x, rng = vae(MixtureVAE, likelihood="bernoulli", components=3).eval(), ALL_2X2[[5]], np.random.default_rng(1)
    bias = list(model.encoder)[-1].bias.write()
    bias[[0, 2, 4]], bias[-3:] = (-2, 0, 2), (1.5, 0, -1)  # means that lie apart, and unequal weights
    with no_grad():
        log_q = model.log_q(model.encoded(x), tensor(GRID[:, None, None, None])).numpy().ravel()
        log_p_of_x = model.log_likelihood(x, tensor(GRID[:, None, None])).numpy().ravel()
        found = [model.negative_elbo(x, rng)[0].item() for _ in range(2000)]
    assert within(found, -(np.exp(log_q) * log_p_of_x).sum() * STEP)
    bounds = np.stack([importance_bound(model, x, 1, rng) for _ in range(1000)])
    assert within(np.exp(bounds - log_p(model, x)), 1)


def test_the_divergence_of_categories_is_their_sum():
    model = vae(CategoricalVAE, latent=2, categories=3)
    with no_grad():
        h = model.encoded(ALL_2X2)
        p = np.exp(model.posterior(h).numpy())
        assert np.allclose(p.sum(axis=2), 1)
        expected = sum((p[:, i] * np.log(3 * p[:, i])).sum(axis=1) for i in range(2))
        np.testing.assert_allclose(model.kl(h).numpy().sum(axis=1), expected, rtol=1e-9)


# ------------------------------------------------------------------------- the gradient through noise, slides 86 to 88


def test_the_reparameterized_gradient_is_that_of_the_expectation(monkeypatch):
    """Three ways: through z = mean + noise deviation, finite differences with the same noise, score function."""
    h, model, seen = tensor(np.array([[0.4, -0.6]]), requires_grad=True), vae(), []

    def f(z):
        return (z * 1.5).sin() + z * z * 0.5

    def log_likelihood(x, z):
        seen.append(z)
        return -f(z)

    def reconstruction(h):  # of 40,000 images with this q(z | x)
        monkeypatch.setattr(model, "encoded", lambda x: h.expand(40000, 2))
        return model.negative_elbo(None, np.random.default_rng(0))[0].mean()

    monkeypatch.setattr(model, "log_likelihood", log_likelihood)
    (gradient,) = tinygen.grad(reconstruction(h), h)
    z = seen[-1].detach()
    for i in range(2):
        ends = []
        for sign in (1, -1):
            moved = h.numpy().copy()
            moved[0, i] += sign * 1e-5
            ends.append(reconstruction(tensor(moved)).item())
        assert gradient.numpy()[0, i] == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6)
    mean, deviation = h.numpy()[0, 0], np.exp(h.numpy()[0, 1] / 2)
    values, units = f(z).numpy().ravel(), (z.numpy().ravel() - mean) / deviation
    scores = [units / deviation, (units**2 - 1) / 2]  # of log q, by the mean and by the log variance
    through = [1.5 * np.cos(1.5 * z.numpy().ravel()) + z.numpy().ravel()]
    through.append(through[0] * units * deviation / 2)
    for i in range(2):
        assert within(values * scores[i] - through[i], 0)
        assert gradient.numpy()[0, i] == pytest.approx(through[i].mean(), rel=1e-9)
        assert (values * scores[i]).std() > 2 * through[i].std()  # why one goes through the noise


OPTIONS = [
    (VAE, {"likelihood": "bernoulli"}),
    (IWAE, {"likelihood": "logistic", "draws": 3}),
    (VAE, {"likelihood": "gaussian", "beta": 2.5}),
    (MixtureVAE, {"components": 2, "latent": 2}),
    (MixtureIWAE, {"components": 2, "draws": 2}),
    (CategoricalVAE, {"categories": 3, "latent": 2}),
    (VAE, {"network": "conv", "latent": 2}),
]


class Loss(tinygen.nn.Module):
    def __init__(self, model):
        self.model = model

    def forward(self, images):
        return total(parts(self.model, images, 1))


@pytest.mark.parametrize(("kind", "options"), OPTIONS)
def test_the_gradient_of_every_objective_is_right(kind, options):
    check_module(Loss(vae(kind, **options, scale=0.4)), (ALL_2X2[[3, 9, 14]],))


# ----------------------------------------------------------------------------------------- the bounds, slides 64 to 80

BOUNDED = [
    (VAE, {"likelihood": "bernoulli"}),
    (VAE, {"likelihood": "logistic"}),
    (MixtureVAE, {"likelihood": "bernoulli", "components": 2}),
    (CategoricalVAE, {"likelihood": "bernoulli", "categories": 3, "latent": 2}),
    (M2, {"likelihood": "bernoulli", "classes": 3}),
]


@pytest.mark.fault("M03")
@pytest.mark.parametrize(("kind", "options"), BOUNDED)
def test_the_probabilities_of_all_images_sum_to_1(kind, options):
    model = vae(kind, **options).eval()
    assert np.exp(log_p(model, ALL_2X2)).sum() == pytest.approx(1, rel=1e-6)


@pytest.mark.fault("M05")
@pytest.mark.parametrize(("kind", "options"), BOUNDED)
def test_elbo_then_tighter_bounds_then_the_likelihood(kind, options):
    model, rng = vae(kind, **options).eval(), np.random.default_rng(0)
    truth = log_p(model, ALL_2X2)
    elbos = -np.stack([np.sum(elbo(model, ALL_2X2, rng), axis=0) for _ in range(400)])
    spread = [np.stack([importance_bound(model, ALL_2X2, k, rng) for _ in range(400)]) for k in (1, 4, 16)]
    means = [elbos.mean(axis=0), *(s.mean(axis=0) for s in spread), importance_bound(model, ALL_2X2, 20000, rng)]
    if kind not in (MixtureVAE, M2):  # which draw from every component, of every class, once even for K = 1
        assert within((elbos - spread[0]).ravel(), 0)
    rising = [m.mean() for m in means[1:]]
    assert all(a < b - 1e-4 for a, b in itertools.pairwise(rising))
    assert means[0].mean() < truth.mean()
    np.testing.assert_allclose(means[-1], truth, atol=0.05)
    for s in spread:  # none is above the truth, but for chance
        assert (s.mean(axis=0) <= truth + 5 * s.std(axis=0) / 20 + 1e-9).all()
        assert within((np.exp(s - truth)).mean(axis=1), 1)  # p(x, z) / q(z given x) is p(x) in the mean


def test_the_estimate_from_the_prior_is_right_in_the_mean_but_spreads_more():
    model, rng = vae().eval(), np.random.default_rng(0)
    truth = log_p(model, ALL_2X2)
    prior = np.stack([prior_estimate(model, ALL_2X2, 5, rng) for _ in range(500)])
    assert within(np.exp(prior - truth).mean(axis=1), 1)
    best = vae()  # q that knows more than the prior: a few steps of training
    fitted(best, ALL_2X2.repeat(4, axis=0), 300)
    best.eval()
    by_prior = np.stack([prior_estimate(best, ALL_2X2, 5, rng) for _ in range(300)])
    by_posterior = np.stack([importance_bound(best, ALL_2X2, 5, rng) for _ in range(300)])
    assert by_posterior.std(axis=0).mean() < by_prior.std(axis=0).mean()


def test_the_training_objective_is_minus_the_bound():
    model = vae(IWAE, draws=7, likelihood="bernoulli")
    found = parts(model, ALL_2X2, 3)
    with no_grad():
        draws, *again = (model.draw(ALL_2X2, 7, np.random.default_rng(seed)) for seed in (3, *range(200)))
    log_w = draws.log_p.numpy() - draws.log_ratio.numpy()
    expected = np.log(np.exp(log_w).mean(axis=0))
    np.testing.assert_allclose(draws.bound().numpy(), expected, rtol=1e-9)
    assert total(found).item() == pytest.approx(-expected.mean(), rel=1e-9)
    tightening = [(-d.bound() - d.reconstruction() - d.kl).numpy() for d in (draws, *again)]
    assert found["tightening"].item() == pytest.approx(tightening[0].mean(), rel=1e-9)
    assert (np.mean(tightening[1:], axis=0) < 0).all()


@pytest.mark.parametrize(("kind", "options"), BOUNDED)
def test_what_is_evaluated_is_what_is_trained(kind, options):
    model = vae(kind, **options).eval()
    with no_grad():
        trained = model.negative_elbo(ALL_2X2, np.random.default_rng(5))
    for found, part in zip(elbo(model, ALL_2X2, np.random.default_rng(5)), trained, strict=True):
        np.testing.assert_allclose(found, part.numpy(), rtol=1e-12)
    validation = model.family.validation(model, Batch(ALL_2X2), np.random.default_rng(5))
    assert validation == pytest.approx(total(parts(model, ALL_2X2, 5)).item())


def test_active_variables_are_those_whose_mean_varies():
    model = vae(latent=3)
    for p in list(model.encoder)[-1].parameters():
        p.write()[1] = 0  # the second variable's mean knows nothing of the image
    assert activity(model, ALL_2X2)[1] == 0
    np.testing.assert_allclose(activity(model, ALL_2X2), model.encode(ALL_2X2).var(axis=0))
    categories = vae(CategoricalVAE, categories=3, latent=2)
    with no_grad():
        p = np.exp(categories.posterior(categories.encoded(ALL_2X2)).numpy())
    np.testing.assert_allclose(activity(categories, ALL_2X2), p.var(axis=0).sum(axis=1))


def test_a_bound_of_many_draws_is_the_same_in_however_many_steps(monkeypatch):
    model = vae()
    whole = importance_bound(model, ALL_2X2[:3], 50, np.random.default_rng(0))
    monkeypatch.setattr(estimates, "ROWS", 50)  # an image at a time, but all of its draws
    alone = importance_bound(model, ALL_2X2[:1], 50, np.random.default_rng(0))
    monkeypatch.setattr(estimates, "ROWS", 7)
    np.testing.assert_allclose(importance_bound(model, ALL_2X2[:1], 50, np.random.default_rng(0)), alone, rtol=1e-12)
    assert whole.shape == (3,)
    assert importance_bound(model, ALL_2X2[:0], 50, np.random.default_rng(0)).shape == (0,)


# --------------------------------------------------------------------------------------------- options, slide 98


@pytest.mark.parametrize(
    ("one", "other", "options"), [(VAE, MixtureVAE, {}), (IWAE, MixtureIWAE, {"draws": 3})], ids=["ELBO", "IWAE"]
)
def test_a_mixture_of_one_is_the_plain_vae(one, other, options):
    plain = vae(one, (1, 3, 3), latent=2, **options)
    mixture = vae(other, (1, 3, 3), latent=2, **options, components=1)
    state = plain.state_dict()
    last = list(plain.encoder)[-1]
    for name in ("weight", "bias"):  # one output more: the component's logit
        key = next(k for k, v in plain.named_parameters() if v is getattr(last, name))
        extra = np.full((1, *state[key].shape[1:]), 0.3)
        state[key] = np.concatenate([state[key], extra])
    mixture.load_state_dict(state)
    images = np.random.default_rng(0).integers(0, 2, (4, 1, 3, 3)).astype(np.uint8)
    for image in images:
        a, b = (parts(model, image[None], 1) for model in (plain, mixture))
        assert list(a) == list(b)
        for name in a:
            np.testing.assert_allclose(a[name].numpy(), b[name].numpy(), rtol=1e-12, err_msg=name)
    a, b = gradients(plain, images, 1), gradients(mixture, images, 1)
    for name, gradient in a.items():
        np.testing.assert_allclose(b[name][: len(gradient)], gradient, rtol=1e-9, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(b[name][len(gradient) :], 0, atol=1e-12)


def test_beta_1_is_the_plain_vae_and_another_is_a_part_of_its_own():
    plain, same, doubled = (parts(vae(**o), ALL_2X2, 0) for o in ({}, {"beta": 1.0}, {"beta": 2.0}))
    assert list(plain) == list(same) == ["reconstruction", "kl"]
    for name in plain:
        assert np.array_equal(plain[name].numpy(), same[name].numpy())
        assert np.array_equal(plain[name].numpy(), doubled[name].numpy())
    assert np.array_equal(doubled["penalty"].numpy(), plain["kl"].numpy())


def fitted(model, images, steps, seed=0, lr=3e-3, batch_size=64):
    rng = np.random.default_rng(seed)
    optimizer = optim.Adam(model.parameters(), lr=lr)
    for _ in range(steps):
        batch = images[rng.integers(0, len(images), batch_size)]
        loss = total(model.loss(Batch(batch), rng))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def test_beta_trades_reconstruction_for_divergence():
    images = load("digits")[0].images
    found = []
    for beta in (0.2, 1.0, 5.0):
        model = VAE((1, 8, 8), 17, latent=8, hidden=64, beta=beta, rng=np.random.default_rng(0))
        fitted(model, images, 300).eval()
        found.append([part.mean() for part in elbo(model, images, np.random.default_rng(1))])
    (low, middle, high) = found
    assert low[0] < middle[0] - 1 < high[0] - 2  # reconstruction
    assert low[1] > middle[1] + 1 > high[1] + 2  # divergence
    assert sum(middle) < min(sum(low), sum(high))  # the bound itself is best without beta


@pytest.mark.fault("M09")
@pytest.mark.parametrize(
    ("kind", "options"),
    [(VAE, {"hidden": 64}), (VAE, {"network": "conv", "hidden": 16}), (CategoricalVAE, {"hidden": 64})],
)
def test_a_batch_can_be_learned_by_heart(kind, options):
    images = load("digits")[0].images[:8]
    model = kind((1, 8, 8), 17, beta=0.05, **options, rng=np.random.default_rng(0))
    before = elbo(model, images, np.random.default_rng(1))[0].mean()
    fitted(model, images, 400, lr=1e-2, batch_size=16)
    reconstruction, kl = elbo(model.eval(), images, np.random.default_rng(1))
    assert reconstruction.mean() < 0.3 * before
    assert kl.mean() > 1  # eight images are told apart by their codes


# ------------------------------------------------------------------------------------------------- likelihoods


@settings(max_examples=25)
@given(st.sampled_from(["bernoulli", "logistic", "gaussian"]), st.integers(0, 99))
def test_a_likelihoods_draws_mean_and_probabilities_agree(name, seed):
    levels = 2 if name == "bernoulli" else 9
    p = {"bernoulli": Bernoulli, "logistic": Logistic, "gaussian": lambda n: Gaussian(n, 0.4)}[name](levels)
    p.to(np.float64)
    rng = np.random.default_rng(seed)
    output = rng.normal(0, 0.4, (1, p.outputs, 1, 1))
    values = np.arange(levels, dtype=np.uint8).reshape(levels, 1, 1, 1)
    probabilities = np.exp(-p.nats(tensor(output), values).numpy()).ravel()
    drawn = p.sample(np.repeat(output, 20000, axis=0), rng).ravel()
    assert drawn.dtype == np.uint8
    shares = np.bincount(drawn, minlength=levels) / 20000
    if name == "gaussian":  # a density, which leaves to the middle levels what the outermost ones get of the tails
        np.testing.assert_allclose(shares[1:-1], probabilities[1:-1], atol=0.02)
    else:
        assert probabilities.sum() == pytest.approx(1, rel=1e-9)
        np.testing.assert_allclose(shares, probabilities, atol=0.02)
        assert p.sample(output, rng, 0).item() == round(p.mean(output).item())
    if name == "bernoulli":
        assert p.mean(output).item() == pytest.approx(probabilities[1], rel=1e-12)


def test_the_gaussians_deviation_is_learned_but_never_below_a_levels():
    images = np.zeros((16, 1, 2, 2), np.uint8)
    model = VAE((1, 2, 2), 4, likelihood="gaussian", latent=1, rng=np.random.default_rng(0))
    fitted(model, images, 600, lr=2e-2, batch_size=8)
    p = model.likelihood
    assert p.log_sigma.item() < p.least + 0.05
    nats = elbo(model.eval(), images, np.random.default_rng(0))[0]
    assert (nats >= 0).all()
    assert nats.mean() < 0.1
    fixed = VAE((1, 2, 2), 4, likelihood="gaussian", sigma=0.5, latent=1, rng=np.random.default_rng(0))
    before = fixed.likelihood.log_sigma.item()
    assert "likelihood.log_sigma" not in dict(fixed.named_parameters())
    fitted(fixed, images, 20)
    assert fixed.likelihood.log_sigma.item() == before == pytest.approx(np.log(0.5), rel=1e-6)


# ------------------------------------------------------------------------------- metrics, samples, plots, errors


def digits(n=40):
    train, test = load("digits")
    return train, Dataset(test.images[:n], 17, test.labels[:n], "digits", test.classes)


@pytest.mark.parametrize(
    ("kind", "options"),
    [(VAE, {}), (IWAE, {}), (MixtureVAE, {}), (MixtureIWAE, {}), (CategoricalVAE, {"latent": 3}), (VAE, {"latent": 1})],
)
def test_metrics_and_plots(kind, options):
    train, test = digits()
    model = kind((1, 8, 8), 17, hidden=16, **options, rng=np.random.default_rng(0)).eval()
    metrics = {m.name: m for m in model.family.metrics(model, train, test, np.random.default_rng(0))}
    assert all(isinstance(m, Metric) and np.isfinite(m.value) for m in metrics.values())
    parts = metrics["reconstruction"].value + metrics["KL"].value
    assert metrics["-ELBO"].value == pytest.approx(model.bits_per_dim(parts), rel=1e-9)
    bound = metrics["importance-weighted bound, K = 500"]
    assert bound.value < bound.baselines["-ELBO of these 40 images"]
    for name, draw in model.family.plots.items():
        picture = draw(model, train, test, np.random.default_rng(0))
        assert isinstance(picture, Chart) == (name in ("scatter", "variables"))
        if isinstance(picture, Chart):
            assert figure(picture).axes[0].get_title(loc="left") == picture.caption
            continue
        assert picture.images.dtype == np.uint8, name
        assert picture.levels == 256
        assert picture.images.ndim == 4
        assert picture.images.max() > 0
        assert len(picture.images) % picture.columns == 0, name
        assert len(picture.rows) in (0, len(picture.images) // picture.columns)
        assert len(picture.across) in (0, picture.columns)


def test_a_traversal_moves_one_variable():
    train, test = digits()
    model = vae(VAE, (1, 8, 8), 17, latent=3)
    picture = model.family.plots["traverse"](model, train, test, np.random.default_rng(0))
    code = model.encode(test.images[:1])[0]
    first = kl_by_variable(model, test.images).argmax()
    z = np.tile(code, (11, 1))
    z[:, first] = np.linspace(-3, 3, 11)
    assert picture.images.shape == (33, 1, 8, 8)
    assert picture.rows[0] == f"variable {first}"
    assert picture.across[::5] == ["-3.0", "0.0", "3.0"]
    np.testing.assert_array_equal(picture.images[:11], np.round(model.decode(z) * (255 / 16)).astype(np.uint8))


@pytest.mark.fault("R08")
def test_samples_depend_on_the_generator_alone():
    model = VAE((3, 5, 4), 6, rng=np.random.default_rng(0))
    a, b = (model.sample(7, np.random.default_rng(1)) for _ in range(2))
    assert a.shape == (7, 3, 5, 4)
    assert a.dtype == np.uint8
    assert a.max() < 6
    assert np.array_equal(a, b)
    assert not np.array_equal(a, model.sample(7, np.random.default_rng(2)))
    assert model.sample(0, np.random.default_rng(1)).shape == (0, 3, 5, 4)
    assert model.encode(a[:0]).shape == (0, 20)
    cold = model.sample(50, np.random.default_rng(1), temperature=0)
    z = model.codes(50, np.random.default_rng(1))
    np.testing.assert_array_equal(cold, np.round(model.decode(z)).astype(np.uint8))


@pytest.mark.parametrize(("kind", "options"), BOUNDED)
def test_samples_have_the_models_own_probabilities(kind, options):
    model, n = vae(kind, scale=1.5, **options).eval(), 50_000
    drawn = model.sample(n, np.random.default_rng(0)).reshape(n, 4) @ [8, 4, 2, 1]
    p = np.exp(log_p(model, ALL_2X2))
    assert (abs(np.bincount(drawn, minlength=16) / n - p) < 5 * np.sqrt(p * (1 - p) / n) + 1e-4).all()


def test_relaxed_draws_in_training_are_categories_in_evaluation():
    model = vae(CategoricalVAE, categories=4, latent=3)
    log_p = model.posterior(tensor(np.random.default_rng(0).normal(size=(2, 12))))
    noise = model.gumbel(np.random.default_rng(1), 20000, *log_p.shape)
    relaxed = model.relaxed(log_p, noise[:50]).numpy().reshape(50, 2, 3, 4)
    model.eval()
    chosen = model.relaxed(log_p, noise).numpy().reshape(20000, 2, 3, 4)
    assert np.allclose(relaxed.sum(axis=3), 1)
    assert 0 < relaxed.min() < relaxed.max() < 1
    assert (relaxed.argmax(axis=3) == chosen[:50].argmax(axis=3)).all()
    assert set(np.unique(chosen)) == {0, 1}
    np.testing.assert_allclose(chosen.mean(axis=0), np.exp(log_p.numpy()), atol=0.02)


@pytest.mark.parametrize("options", [{"network": "conv"}, {"likelihood": "bernoulli"}], ids=str)
def test_a_training_step_converts_no_array(options):
    model = VAE((1, 28, 28), 2, **options, rng=np.random.default_rng(0))
    images = np.random.default_rng(0).integers(0, 2, (8, 1, 28, 28)).astype(np.uint8)
    before = kernels.conversions()
    fitted(model, images, 2, batch_size=8)
    assert kernels.conversions() == before


@pytest.mark.fault("G12")
@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (VAE, {"latent": 0}, "latent must be at least 1, got 0"),
        (CategoricalVAE, {"latent": 0}, "latent must be at least 1, got 0"),
        (VAE, {"hidden": 0}, "hidden must be at least 1, got 0"),
        (VAE, {"network": "mpl"}, "network must be one of mlp, conv, got 'mpl'"),
        (VAE, {"likelihood": "poisson"}, "likelihood must be one of logistic, bernoulli, gaussian, got 'poisson'"),
        (VAE, {"likelihood": "bernoulli"}, "likelihood 'bernoulli' is for images of 2 levels, these have 17"),
        (VAE, {"sigma": 0.5}, "sigma is the Gaussian likelihood's"),
        (VAE, {"likelihood": "gaussian", "sigma": 0.01}, r"sigma must be at least 0\.0499 for 17 levels, got 0\.01"),
        (MixtureVAE, {"components": 0}, "components must be at least 1, got 0"),
        (CategoricalVAE, {"categories": 1}, "categories must be at least 2, got 1"),
        (VAE, {"beta": -1.0}, r"beta must not be negative, got -1\.0"),
        (M2, {"classes": 1}, "classes must be at least 2, got 1"),
        (IWAE, {"draws": 0}, "draws must be at least 1, got 0"),
        (MixtureIWAE, {"draws": -1}, "draws must be at least 1, got -1"),
    ],
)
def test_options_that_do_not_fit_are_refused(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind((1, 8, 8), 17, **options, rng=np.random.default_rng(0))


@pytest.mark.fault("G12")
def test_images_and_arguments_that_do_not_fit_are_refused():
    model, rng = vae(), np.random.default_rng(0)
    with pytest.raises(ValueError, match="images must be integers from 0 to 1, got int64 from 0 to 2"):
        model.loss(Batch(np.arange(3).reshape(3, 1, 1, 1).repeat(2, 2).repeat(2, 3)), rng)
    with pytest.raises(ValueError, match=r"images must be \(N, 1, 2, 2\), got \(3, 1, 2, 3\)"):
        importance_bound(model, np.zeros((3, 1, 2, 3), np.uint8), 5, rng)
    with pytest.raises(ValueError, match="samples must be at least 1, got 0"):
        importance_bound(model, ALL_2X2, 0, rng)
    with pytest.raises(ValueError, match="labels must be None"):
        model.sample(2, rng, labels=np.zeros(2, int))
    with pytest.raises(ValueError, match="temperature must not be negative"):
        model.sample(2, rng, temperature=-1)
    assert list(vae(MixtureVAE, latent=3, components=2).encoder)[-1].bias.shape == (14,)


def test_one_odd_image_does_not_end_a_training():
    """An encoder whose log variance of it is 48: exp(48) is a number, its gradient's square is none in float32."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 2, (8, 1, 4, 4)).astype(np.uint8)
    model = VAE((1, 4, 4), 2, latent=2, hidden=5, rng=rng)
    training = Trainer(Config("vae", batch_size=8), model, Dataset(images, 2), rng)
    training.advance(0.0)
    last = model.encoder[-1]
    bias = last.bias.numpy().copy()
    last.bias.write()[...] = 48
    assert training.advance(0.0)["kl"] > 1e20
    last.bias.write()[...] = bias
    for _ in range(3):
        assert training.advance(0.0)["kl"] < 1e6
    assert all(np.isfinite(p.numpy()).all() for p in model.parameters())
