"""The page of an image that is drawn value by value: what it says is what the model said as it drew."""

import contextlib
import json
import re

import numpy as np
import pytest

from tests.models.small import AUTOREGRESSIVE, new
from tinygen import no_grad
from tinygen.cli.main import main
from tinygen.learn.drawing import drawing, write
from tinygen.sampling.sampler import draw

SHAPE = (3, 2, 3)


@pytest.mark.parametrize("name", AUTOREGRESSIVE)
def test_an_images_chances_are_those_by_which_it_was_drawn(name):
    model = new(name, SHAPE, 3).eval()
    labels = model.condition.in_turn(1)
    found = drawing(model, np.random.default_rng(1), 0.7, labels)
    np.testing.assert_array_equal(found.image, model.sample(1, np.random.default_rng(1), 0.7, labels)[0])
    uniform, x = np.random.default_rng(1).random(found.image.size), np.zeros(SHAPE, np.uint8)
    with no_grad():
        for place, chances, number in zip(found.order, found.chances, uniform, strict=True):
            row, column, color = place // 9, place // 3 % 3, place % 3
            logits = model.logits(model.scale(x[None]), labels).numpy()[:, :, color, row, column]
            at = np.exp(logits[0].astype(float) / 0.7)
            np.testing.assert_allclose(chances, at / at.sum(), atol=1e-5)
            x[color, row, column] = draw(logits, number[None], 0.7)[0]
    np.testing.assert_array_equal(x, found.image)


@pytest.mark.parametrize("name", AUTOREGRESSIVE)
def test_nats_add_up_to_the_images_and_no_value_looks_ahead(name):
    model = new(name, SHAPE, 3).eval()
    found = drawing(model, np.random.default_rng(1), labels=model.condition.in_turn(1))
    drawn = found.image.transpose(1, 2, 0).ravel()[found.order]
    nats = -np.log(found.chances[np.arange(18), drawn]).sum()
    assert nats == pytest.approx(-model.log_prob(found.image[None], model.condition.in_turn(1))[0], abs=1e-4)
    for i, seen in enumerate(found.seen):
        assert {*np.flatnonzero(seen)} <= {*(found.order[:i] // 3)}
    assert (found.seen > 0).any()


def test_at_temperature_0_the_likeliest_is_sure():
    found = drawing(new("pixelcnn", SHAPE, 3).eval(), np.random.default_rng(0), temperature=0.0)
    drawn = found.image.transpose(1, 2, 0).ravel()[found.order]
    np.testing.assert_array_equal(found.chances[np.arange(18), drawn], 1)


@pytest.mark.parametrize("levels", [2, 32, 33, 256])
def test_many_levels_are_shown_together(levels, tmp_path):
    found = drawing(new("made", (1, 2, 2), levels).eval(), np.random.default_rng(0))
    write(tmp_path / "page.html", "Drawing", found)
    data = json.loads(re.search(r"id=data>(.*?)</script>", (tmp_path / "page.html").read_text(), re.S)[1])
    assert data["per"] == -(-levels // 32)
    bars = len(data["moments"][0]["bars"]) // 4 * 3
    assert -(-levels // data["per"]) <= bars <= 33


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs by their models' names."""
    folder = tmp_path_factory.mktemp("runs")
    small = {"gan": ["--width", "4"], "gated": ["--hidden", "4", "--layers", "1", "--classes", "10"]}
    for model, options in small.items():
        assert main(["train", model, *options, "--epochs", "0.02", "--out", str(folder / model)]) == 0
    return folder


def test_sample_writes_the_page_of_a_run(runs, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main(["sample", str(runs / "gated"), "--label", "3", "--page", str(page)]) == 0
    assert f"64 values of an image, one after the other: {page}" in capsys.readouterr().out
    assert page.read_text().count("<tr><td>") == 64


@pytest.mark.parametrize(
    ("model", "flags", "said"),
    [
        ("gan", "", "--page shows models that draw value by value, such as pixelcnn; got gan"),
        ("gated", "-n 3", "--page shows how one image is drawn, without -n and --out"),
        ("gated", "--caption bag", "--caption: GatedPixelCNN reads no captions"),
        ("gated", "--steps 3", "GatedPixelCNN draws without steps"),
        ("gated", "--page no/p.html", "--page: must be a file in a folder that exists, got 'no/p.html'"),
    ],
)
def test_what_has_no_page_is_told_why(model, flags, said, runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with contextlib.suppress(SystemExit):  # by which the parser refuses
        assert main(["sample", str(runs / model), "--page", "page.html", *flags.split()]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
