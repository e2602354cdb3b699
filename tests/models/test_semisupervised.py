"""Semi-supervised learning: the sum over classes, D by the logits of K, and labels, of which only so many are told."""

from __future__ import annotations

import numpy as np
import pytest

import tinygen
from tests.models.small import new
from tinygen.data import Dataset, load, subset
from tinygen.models.family import Batch
from tinygen.models.gan.objectives import NonSaturating, Verdict
from tinygen.models.gan.semigan import ClassesOrGenerated, SemiGAN
from tinygen.models.semisupervised import accuracy, labeled
from tinygen.models.vae.m2 import M2
from tinygen.models.vae.normal import gaussian_kl
from tinygen.training.config import Config
from tinygen.training.trainer import Trainer


def rng(seed=0):
    return np.random.default_rng(seed)


def m2(shape=(1, 4, 4), **options):
    """In float64, of random weights; with one noise for all draws of z."""
    options = {"latent": 2, "hidden": 5, "classes": 3, "labels": 6, **options}
    model = M2(shape, 4, **options, rng=rng()).to(np.float64)
    for p in model.parameters():
        p.write()[...] = rng(1).normal(0, 0.4, p.shape)
    noise = rng(2).normal(size=(1, 5, 2))
    model.normal = lambda _, *size: model.tensor(np.broadcast_to(noise, size))
    return model


IMAGES = rng(3).integers(0, 4, (5, 1, 4, 4)).astype(np.uint8)


def bound(model, labels):
    """L(x, y) of each image, (5,)."""
    y = model.tensor(np.eye(3)[labels][None])
    mean, log_var, z = model.code(model.encoded(IMAGES), y, rng())
    reconstruction = -model.log_likelihood(IMAGES, tinygen.cat(z, y, dim=2))
    return (reconstruction + gaussian_kl(mean, log_var).sum(2)).numpy()[0] + np.log(3)


# ------------------------------------------------------------------------------------------------------------------ M2


def test_summing_out_the_class_gives_the_bound_of_the_image():
    model = m2()
    q = np.exp(model.log_q(model.encoded(IMAGES)).numpy())
    expected = sum(q[:, y] * (bound(model, np.full(5, y)) + np.log(q[:, y])) for y in range(3))
    found = sum(part.numpy() for part in model.negative_elbo(IMAGES, rng()))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_bound_of_the_image_is_best_where_q_is_the_posterior_of_the_class():
    """For given L(x, y): then it is -log of the sum of exp(-L), and else larger."""
    model = m2()
    of_classes = np.stack([bound(model, np.full(5, y)) for y in range(3)])
    best = -np.logaddexp.reduce(-of_classes, axis=0)
    assert (sum(part.numpy() for part in model.negative_elbo(IMAGES, rng())) > best).all()
    model.log_q = lambda h: model.tensor((best - of_classes).T)
    np.testing.assert_allclose(sum(p.numpy() for p in model.negative_elbo(IMAGES, rng())), best, rtol=1e-12)


def test_who_is_sure_of_the_class_has_the_bound_of_a_labeled_image():
    model, labels = m2(), np.array([0, 2, 1, 1, 0])
    model.log_q = lambda h: model.tensor(np.where(np.eye(3)[labels], 0, -800.0))
    found = sum(part.numpy() for part in model.negative_elbo(IMAGES, rng()))
    np.testing.assert_allclose(found, bound(model, labels), rtol=1e-12)
    parts = model.labeled_loss(Batch(IMAGES, labels), rng())
    assert parts["labeled"].item() == pytest.approx(bound(model, labels).mean(), rel=1e-12)


def test_the_class_loss_is_the_cross_entropy_of_q_times_alpha():
    model, labels = m2(alpha=7.0), np.array([0, 2, 1, 1, 0])
    log_q = model.log_q(model.encoded(IMAGES)).numpy()
    found = model.labeled_loss(Batch(IMAGES, labels), rng())["class"].item()
    assert found == pytest.approx(-7 * log_q[np.arange(5), labels].mean(), rel=1e-12)


def test_a_class_that_is_asked_for_is_in_the_code():
    model, asked = new("m2", (1, 8, 8), 17), np.array([0, 1, 2, 2])
    z = model.codes(4, rng())
    assert (z[:, 3:].sum(axis=1) == 1).all()
    told = model.given(z, asked)
    assert (told[:, :3] == z[:, :3]).all()
    assert (told[:, 3:].argmax(axis=1) == asked).all()
    assert (told[:, 3:].sum(axis=1) == 1).all()
    for labels, codes in ((None, z), (asked, told)):
        drawn = model.sample(4, rng(), temperature=0.0, labels=labels)
        np.testing.assert_array_equal(drawn, np.round(model.decode(codes)).astype(np.uint8))
    with pytest.raises(ValueError, match="labels must be from 0 to 2"):
        model.sample(1, rng(), labels=np.array([3]))


# --------------------------------------------------------------------------------------------------------------- K + 1


def test_d_is_the_share_of_the_classes_among_k_plus_1():
    """D = Z / (Z + 1); its losses are the softplus of log Z, to 1e-12, also where Z overflows."""
    logits = rng().normal(0, 5, (40, 7))
    rules, plain = ClassesOrGenerated(), NonSaturating()
    value = rules.value(tinygen.tensor(logits), None)
    z = np.exp(logits).sum(axis=1)
    p = np.exp(np.c_[logits, np.zeros(40)])
    p /= p.sum(axis=1, keepdims=True)  # of K + 1 classes, the last one "generated"
    np.testing.assert_allclose(value.sigmoid().numpy(), z / (z + 1), rtol=1e-12)
    np.testing.assert_allclose(value.sigmoid().numpy(), 1 - p[:, -1], rtol=1e-9)
    real, fake = value[:20], value[20:]
    expected = -np.log(1 - p[:20, -1]).mean() - np.log(p[20:, -1]).mean()
    assert rules.d_loss(real, fake).item() == pytest.approx(expected, rel=1e-12)
    assert rules.d_loss(real, fake).item() == plain.d_loss(real, fake).item()
    softplus = np.logaddexp(0, np.logaddexp.reduce(logits[20:], axis=1)).mean()
    assert rules.d_loss(real * 0 + 800, fake).item() == pytest.approx(softplus, rel=1e-12)
    huge = rules.value(tinygen.tensor(logits + 1e4), None)
    assert np.isfinite(rules.d_loss(huge, huge).numpy())


def test_the_generator_matches_the_means_of_features():
    rules, (a, b) = ClassesOrGenerated(), rng().normal(size=(2, 6, 4))
    real, fake = (Verdict(tinygen.tensor(x[:, 0]), tinygen.tensor(x)) for x in (a, b))
    found = rules.g_parts(fake, lambda: real)["g_features"].item()
    assert found == pytest.approx(((a.mean(0) - b.mean(0)) ** 2).sum(), rel=1e-12)
    mixed = Verdict(real.value, tinygen.tensor(rng(1).permuted(a, axis=0)))  # each feature in another order
    assert rules.g_parts(mixed, lambda: real)["g_features"].item() == pytest.approx(0, abs=1e-20)


def test_d_is_asked_for_the_labels_that_are_told():
    model = new("semigan", (1, 8, 8), 17)
    train, _ = load("digits")
    images, labels = train.images[:9], train.labels[:9] % 3
    model.pair.few = model.scale(images), labels
    x = model.scale(train.images[20:29])
    parts = model.pair.discriminator_loss(x, x, None, np.zeros((9, 3)), np.zeros(9), {})
    logits = model.logits(images).numpy().astype(float)
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    assert parts["d_class"].item() == pytest.approx(-log_p[np.arange(9), labels].mean(), rel=1e-5)


# --------------------------------------------------------------------------------------------------------- both of them


def training(name, data, **options):
    draws = rng()
    model = new(name, data.images.shape[1:], data.levels, draws, **{"classes": 10, "labels": 50, **options})
    return Trainer(Config(name, batch_size=32, lr=1e-3, epochs=50.0), model, data, draws)


@pytest.mark.parametrize("name", ["m2", "semigan"])
def test_only_so_many_labels_count(name):
    """All others can be wrong, and not a bit of the training changes; those that are told count."""
    train, _ = load("digits")
    few = labeled(train, 50)
    mine = {image.tobytes() for image in few.images}
    is_told = np.array([image.tobytes() in mine for image in train.images])
    assert is_told.sum() == 50
    wrong = np.where(is_told, train.labels, (train.labels + 1) % 10)
    found = []
    for labels in (train.labels, wrong, (train.labels + is_told) % 10):
        trainer = training(name, Dataset(train.images, 17, labels, "digits"))
        # the draw of the labels looks at the classes: the same images are told whatever is known of the others
        with pytest.MonkeyPatch.context() as patch:
            told = Dataset(train.images[is_told], 17, labels[is_told])
            patch.setattr("tinygen.models.semisupervised.labeled", lambda *_, told=told: told)
            found.append([trainer.advance(step / 3) for step in range(3)])
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("name", ["m2", "semigan"])
def test_another_draw_of_labels_tells_others(name):
    train, _ = load("digits")
    one, again, other = (
        [trainer.advance(0.0) for _ in range(2)]
        for trainer in (training(name, train, draw_of_labels=seed) for seed in (0, 0, 1))
    )
    assert one == again != other
    with pytest.raises(ValueError, match="labels must be from 10, one of each class, to 1,437, got 5"):
        training(name, train, labels=5).advance(0.0)
    with pytest.raises(ValueError, match="has no labels"):
        training(name, Dataset(train.images, 17)).advance(0.0)


@pytest.mark.parametrize("name", ["m2", "semigan"])
def test_classes_are_learned_from_the_labels(name):
    train, test = load("digits")
    trainer = training(name, train, labels=100, **({"width": 8} if name == "semigan" else {"hidden": 60}))
    for step in range(150):
        trainer.advance(step / 150)
    found = accuracy(trainer.model.eval(), train, test)
    assert found.value > 60  # chance is 10
    assert found.baselines["labels alone"] > 60


def test_the_metric_counts_what_is_told_rightly(monkeypatch):
    train, test = load("digits")
    test = subset(test, slice(50))
    model = new("semigan", (1, 8, 8), 17, classes=10, labels=20)
    monkeypatch.setattr("tinygen.models.probing.STEPS", 2)
    said = np.where(np.arange(50) < 40, test.labels, (test.labels + 1) % 10)
    monkeypatch.setattr(SemiGAN, "logits", lambda *_: tinygen.tensor(np.eye(10)[said]))
    assert accuracy(model, train, test).value == pytest.approx(80)
