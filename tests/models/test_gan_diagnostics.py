"""What is said of how a GAN does: on runs that are made to fail in one way each, and on one that doesn't."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import tinygen
from tests.models.test_gan import new, training
from tinygen import optim
from tinygen.data import load, subset
from tinygen.metrics.features import feature_net
from tinygen.models.gan import base
from tinygen.models.gan.acgan import ACGAN
from tinygen.models.gan.bigan import BiGAN
from tinygen.models.gan.cogan import CoGAN
from tinygen.models.gan.diagnostics import LOOK, diagnosis, rare_classes
from tinygen.models.gan.gan import GAN
from tinygen.models.gan.infogan import InfoGAN
from tinygen.models.gan.objectives import OBJECTIVES
from tinygen.training import callbacks
from tinygen.training.cost import Cost
from tinygen.training.progress import Progress
from tinygen.training.run import Run


class SlowGenerator(GAN):
    """A generator that hardly learns: any discriminator wins."""

    def optimizers(self, lr):
        found = super().optimizers(lr)
        return found | {"generator": optim.Adam(self.pair.generator.parameters(), lr * 1e-3)}


class SlowEncoder(BiGAN):
    """An encoder that hardly learns."""

    def optimizers(self, lr):
        found = super().optimizers(lr)
        return found | {"encoder": optim.Adam(self.pair.encoder.parameters(), lr * 1e-4)}


def diagnosed(model, steps, lr, data=None):
    """What the model says after so many steps, by the means over the last 20."""
    run, rows = training(model, data, batch_size=32, lr=lr), []
    with np.errstate(all="ignore"):
        for _ in range(steps):
            rows.append(run.advance(0.0))
    assert all(row.keys() == rows[0].keys() for row in rows)
    means = {name: float(np.mean([row[name] for row in rows[-20:]])) for name in rows[0]}
    return model.family.diagnostics(model, means)


def tampered(objective, **changes):
    """A GAN by rules that don't work."""
    model = new(GAN, objective=objective, width=32)
    vars(model.pair.objective).update(changes)
    return model


FAILURES = {
    "the discriminator has won: the generator gets no gradient any more; --objective non-saturating": lambda: (
        new(SlowGenerator, objective="minimax", width=64), 120, 3e-3
    ),
    "the discriminator has won: it tells nearly all images apart": lambda: (
        new(SlowGenerator, objective="non-saturating", width=64), 60, 1e-3
    ),
    "the discriminator is blind": lambda: (new(GAN, width=32), 30, 1e-8),
    "mode collapse: the samples differ": lambda: (new(GAN, width=32), 30, 1e-8),
    "the critic's gradient norm is": lambda: (tampered("wgan-gp", weight=1e-3), 20, 3e-3),
    "BEGAN's k is at its limit 1": lambda: (tampered("began", rate=0.5), 30, 1e-4),
    "diverging: D's values have reached": lambda: (tampered("wgan", clip=1e9), 20, 0.3),
    "EBGAN's margin is passed: D learns nothing from 100%": lambda: (tampered("ebgan", margin=1e-3), 20, 1e-4),
    "the images don't show their class": lambda: (new(ACGAN), 20, 1e-8),
    "the images don't show the code: of 2.30 nats": lambda: (new(InfoGAN), 20, 1e-8),
    "the encoder doesn't invert the generator: z and E(G(z)) correlate by": lambda: (new(SlowEncoder), 30, 1e-3),
    "the domains have come apart: outlines fit": lambda: (new(CoGAN), 5, 1e-8),
}  # fmt: skip


@pytest.mark.parametrize("words", FAILURES)
def test_a_run_made_to_fail_says_how(words):
    found = diagnosed(*FAILURES[words]())
    assert any(text.startswith(words) for text in found), found


@pytest.mark.parametrize("objective", ["lsgan", "hinge", "softmax", "fgan-js", "fgan-hellinger"])
def test_winning_is_noticed_whatever_the_loss(objective):
    assert "has won" in diagnosed(new(SlowGenerator, objective=objective, width=64), 60, 1e-3)[0]


@pytest.mark.parametrize("objective", ["softmax", "fgan-kl", "fgan-pearson", "fgan-js"])
def test_blindness_is_noticed_whatever_the_loss(objective):
    """Of a D that gives one value for all images, its best."""
    rules = OBJECTIVES[objective]()
    value = tinygen.tensor(np.full(4, 1.0 if objective == "fgan-kl" else 0.0))
    parts = {"d_loss": rules.d_loss(value, value).item(), "g_grad": 1.0, "spread": 1.0} | rules.shown(value, value)
    assert diagnosis(parts, rules) == [
        "the discriminator is blind: it does no better than chance; try more --critic-steps"
    ]


@pytest.mark.parametrize(("changes", "collapsed"), [({}, False), ({"rate": 0.001, "gamma": 0.5}, True)])
def test_began_learns_to_tell_images_apart_before_its_generator_collapses(changes, collapsed):
    """By the paper's k, which is made for 200,000 steps, all samples look alike at first."""
    model = new(objective="began", width=16, latent=16)
    vars(model.pair.objective).update(changes)
    assert any(text.startswith("mode collapse") for text in diagnosed(model, 300, 2e-3)) == collapsed


def test_a_run_that_goes_well_says_nothing():
    assert diagnosed(new(GAN, objective="wgan-gp", width=64, critic_steps=2), 200, 1e-3) == []


def test_missing_classes_are_counted_among_samples():
    """Trained on zeros and ones alone, the model draws few others; the classifier knows all ten."""
    digits = load("digits")[0]
    model = new(GAN, objective="wgan-gp", width=32, critic_steps=1)
    diagnosed(model, 200, 1e-3, subset(digits, digits.labels <= 1))
    model.missing.write()[:] = rare_classes(model, digits, seed=0)
    missing, classes = model.missing.numpy()
    assert classes == 10
    assert missing >= 5
    healthy = dict.fromkeys(("real", "fake"), 0.5) | {"d_loss": 1.0, "g_grad": 1.0, "d_grad": 1.0, "spread": 1.0}
    assert model.family.diagnostics(model, healthy) == [f"mode collapse: {missing} of 10 classes missing"]


def test_a_class_is_rare_below_a_tenth_of_an_equal_share():
    """By images of known classes in place of samples."""
    digits = load("digits")[0]
    _, seen = feature_net(digits).of(digits.images)
    for share, rare in ((0.0, 1), (0.5, 1), (2.0, 0)):
        few = round(LOOK / 10 / 10 * share)
        others = np.resize(np.flatnonzero(seen != 3), LOOK - few)
        images = digits.images[np.concatenate([others, np.flatnonzero(seen == 3)[:few]])]
        assert rare_classes(SimpleNamespace(sample=lambda n, rng, x=images: x), digits, 0) == (rare, 10)


def test_a_look_takes_place_at_its_steps_and_changes_no_random_number(monkeypatch):
    def trained(looking):
        model = new(GAN, width=8)
        run = training(model)
        run.step = LOOK - 3
        if not looking:
            monkeypatch.setattr(base, "rare_classes", lambda *_, seed: (0, 0))
        rows = [run.advance(0.0) for _ in range(5)]
        return model, [{k: v for k, v in row.items() if k != "missing"} for row in rows], [r["missing"] for r in rows]

    (model, rows, missing), (_, others, _) = trained(True), trained(False)
    assert rows == others
    assert missing[:2] == [0, 0]
    assert missing[2] == missing[4] == model.missing.numpy()[0] > 0  # after two steps hardly any class is there
    assert "missing" in model.state_dict()


def test_nothing_is_said_at_the_very_start(tmp_path, capsys):
    """A discriminator does no better than chance at first; it is asked for after so many steps only."""
    trainer = training(new(GAN), batch_size=2, lr=1e-8)
    progress = Progress(trainer, lambda parts: "")
    with callbacks.ReportPage(trainer, Run(tmp_path), Cost(1, 1.0, 1.0, 1, 1), progress, {}) as report:
        for step in range(1, callbacks.ASKED + 1):
            assert capsys.readouterr().out == "", step
            row = trainer.advance(0.0)
            assert diagnosis(row, trainer.model.pair.objective)
            progress.step(row)
            report.step(row)
    assert "the discriminator is blind" in capsys.readouterr().out


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_the_progress_line_shows_what_the_objective_is_about(objective):
    model = new(GAN, objective=objective)
    text = model.family.progress(model, training(model).advance(0.0))
    expected = {"wgan": "D(x) - D(G(z)) ", "wgan-gp": "  gradient norm ", "began": "  k ", "lsgan": "D(x) - D(G(z)) "}
    assert expected.get(objective, "D(G(z)) ") in text
