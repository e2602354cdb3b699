"""The page of a GAN in the plane: what it shows is what the training had."""

import base64
import json
import re

import numpy as np
import pytest

from tinygen import tensor
from tinygen.cli.main import main
from tinygen.models.gan.objectives import OBJECTIVES
from tinygen.models.gan.toy import Toy


def data_of(path):
    return json.loads(re.search(r"id=data>(.*?)</script>", path.read_text(), re.S)[1])


def values(text, dtype):
    return np.frombuffer(base64.b64decode(text), dtype)


@pytest.mark.parametrize("objective", ["minimax", "wgan-gp", "ebgan", "softmax"])
def test_a_push_is_minus_the_gradient_of_the_generators_loss(objective):
    toy = Toy(objective, width=8, rng=np.random.default_rng(0))
    points = np.random.default_rng(1).standard_normal((4, 2))
    found = toy.pushes(points)
    assert found.shape == (4, 2)
    assert np.abs(found).max() > 0
    if objective == "minimax":  # of each point by itself
        h = 1e-3
        for i in range(4):
            for k in range(2):
                near = [np.array(points[i : i + 1]) for _ in range(2)]
                near[0][0, k] += h
                near[1][0, k] -= h
                up, down = (loss_at(toy, p) for p in near)
                assert found[i, k] == pytest.approx(-(up - down) / (2 * h), rel=1e-2, abs=1e-4)


def loss_at(toy, points):
    return toy.pair.objective.g_loss(toy.pair.discriminate(tensor(points.astype(np.float32)))).item()


def test_the_page_has_the_trainings_points_and_field(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["toy", "--steps", "6", "--page", "page.html", "--objective", "hinge"]) == 0
    assert "6 moments of the training: page.html" in capsys.readouterr().out
    data = data_of(tmp_path / "page.html")
    assert [m["step"] for m in data["moments"]] == [1, 2, 3, 4, 5, 6]
    toy = Toy("hinge", lr=1e-3, rng=np.random.default_rng(0))
    toy.train(6)
    points = toy.sample(250, np.random.default_rng(0))
    shown = values(data["moments"][-1]["points"], np.uint8).reshape(-1, 2) / 255 * 6 - 3
    np.testing.assert_allclose(shown, np.clip(points, -3, 3), atol=0.013)
    field = toy.field(data["side"])
    low, high = data["low"], data["high"]
    share = values(data["moments"][-1]["field"], np.uint8).reshape(field.shape) / 255
    np.testing.assert_allclose(share, np.clip((field - low) / (high - low), 0, 1), atol=0.003)


def test_training_is_the_same_with_a_page_and_without(tmp_path):
    with_page, without = (Toy("hinge", rng=np.random.default_rng(3)) for _ in range(2))
    with_page.train(3, lambda step, parts: with_page.pushes(with_page.sample(5, np.random.default_rng(0))))
    without.train(3)
    for a, b in zip(with_page.pair.parameters(), without.pair.parameters(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("other", [["--flow", "nice"], ["--losses"]])
def test_only_a_gan_has_a_page(other, capsys):
    assert main(["toy", "--page", "p.html", *other]) == 2
    assert "--page shows a GAN's training, not --" in capsys.readouterr().err


def test_every_objective_can_be_shown():
    for name in OBJECTIVES:
        toy = Toy(name, width=4, rng=np.random.default_rng(0))
        assert np.isfinite(toy.pushes(np.ones((2, 2)))).all()
