"""What a run reads: labels are checked before a folder is made, and it isn't resumed with other data."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.data.test_folders import save
from tinygen.cli import main as cli
from tinygen.data import Dataset
from tinygen.report import page
from tinygen.training import commands, config, loop, sets
from tinygen.training.checkpoint import CheckpointError
from tinygen.training.config import Config
from tinygen.training.run import Run

TINY = {"hidden": 2, "blocks": 1}


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def noise(count, labels=None, seed=0):
    images = np.random.default_rng(seed).integers(0, 4, (count, 1, 3, 3)).astype(np.uint8)
    return Dataset(images, 4, labels, "noise")


def write(labels, count=60, seed=0):
    extra = {} if labels is None else {"labels": np.asarray(labels)}
    np.savez("noise.npz", images=noise(count, seed=seed).images, levels=4, **extra)


def gated(classes=0, **settings):
    options = {"hidden": 2, "layers": 2, "classes": classes}
    return Config("gated", "noise.npz", options=options, epochs=1, **settings)


# --------------------------------------------------------------------------------------------------- labels are checked


@pytest.mark.fault("R14")
@pytest.mark.parametrize("where", ["training", "validation", "test"])
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            None,
            "the {} set of noise has no labels, which GatedPixelCNN of 3 classes has to be told: leave --classes out",
        ),
        ([0, 1, 3], "the {} set of noise: labels must be from 0 to 2 .*, got 0 to 3: write --classes 4"),
    ],
)
def test_labels_that_do_not_fit_are_refused_before_a_folder_is_made(where, labels, message, monkeypatch):
    good, bad = np.arange(30) % 3, None if labels is None else np.resize(labels, 30)
    parts = {name: noise(30, bad if name == where else good) for name in ("training", "validation", "test")}
    monkeypatch.setattr(Config, "sets", lambda self: tuple(parts.values()))
    with pytest.raises(ValueError, match=message.format(where)) as caught:
        loop.train(gated(3), Path("run"))
    assert "\n" not in str(caught.value)
    assert not Path("run").exists()
    with pytest.raises(ValueError, match=f"the {where} set"):
        loop.train(gated(3), dry=True)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 5), min_size=12, max_size=40), st.integers(1, 6))
def test_any_labels_are_refused_or_all_are_classes_of_the_model(labels, classes):
    write(labels, len(labels))
    asked = gated(classes)
    read = asked.sets()
    model = loop.build(asked, read[0], np.random.default_rng(0))
    if max(labels) >= classes:
        with pytest.raises(ValueError, match=rf": write --classes {max(labels) + 1}$"):
            sets.check_labels(model, read)
    else:
        sets.check_labels(model, read)
    sets.check_labels(loop.build(gated(0), read[0], np.random.default_rng(0)), read)  # it is told nothing


def test_a_label_outside_the_classes_is_one_sentence_on_the_command_line(capsys):
    write(np.arange(60) % 5)
    flags = ["--hidden", "2", "--layers", "2", "--epochs", "1", "--out", "run"]
    assert cli.main(["train", "gated", "--data", "noise.npz", "--classes", "4", *flags]) == 2
    assert re.fullmatch(
        r"tinygen train: the \w+ set of noise: .* got 0 to 4: write --classes 5\n", capsys.readouterr().err
    )
    assert not Path("run").exists()
    assert cli.main(["train", "gated", "--data", "noise.npz", "--classes", "5", *flags]) == 0
    assert "60" not in (out := capsys.readouterr().out).splitlines()[0]
    assert out.startswith(
        "gated on noise: 52 images 1x3x3, 4 levels (2 to validate, 6 to test), 5 classes, all in both;"
    )


def test_it_is_said_which_classes_a_set_lacks():
    labels = np.array([0, 1, 2, 2, 2, 2])
    train, test = noise(6, labels), noise(3, np.array([2, 3, 3]))
    assert sets._classes(train, test) == ", 4 classes: none to train on of 3; none to test on of 0, 1"
    named = Dataset(train.images, 4, labels, "noise", ("cat", "dog", "fish", "cow"))
    assert sets._classes(named, test).endswith("none to train on of cow; none to test on of cat, dog")
    assert sets._classes(noise(6), test) == ""
    assert sets._classes(noise(6, labels * 0), noise(3, np.zeros(3, int))) == ", 1 class, all in both"


# ----------------------------------------------------------------------------------------- what is held out and resumed


def test_validation_has_all_classes_whatever_the_order(monkeypatch):
    for labels in (np.arange(400) % 20, np.arange(400) // 20):
        whole = noise(400, labels)
        monkeypatch.setattr(config, "load", lambda name, size, whole=whole: (whole, whole))
        train, held, _ = Config("pixelcnn").sets()
        assert np.bincount(held.labels).tolist() == [1] * 20
        assert np.bincount(train.labels).tolist() == [19] * 20


@pytest.mark.fault("R14")
@pytest.mark.parametrize("part", ["training", "validation"])
@pytest.mark.parametrize("what", ["labels", "images"])
def test_a_run_is_not_resumed_with_other_labels_or_images(part, what, monkeypatch):
    rng = np.random.default_rng(0)
    parts = {name: noise(30, rng.integers(0, 3, 30), i) for i, name in enumerate(("training", "validation", "test"))}
    monkeypatch.setattr(Config, "sets", lambda self: tuple(parts.values()))
    run = loop.train(gated(3), Path("run"))
    loop.resume(run.folder)
    data = parts[part]
    other = (data.images, data.labels[::-1].copy()) if what == "labels" else (3 - data.images, data.labels)
    parts[part] = Dataset(other[0], 4, other[1], "noise")
    name = {"labels": "labels", "images": "sha256"}[what]
    with pytest.raises(CheckpointError, match=rf"'noise.npz' has changed: {name} were \w+, are now \w+$"):
        loop.resume(run.folder)


def test_labels_that_are_gone_are_noticed(monkeypatch):
    write(np.arange(60) % 3)
    run = loop.train(gated(), Path("run"))
    write(None)
    with pytest.raises(CheckpointError, match=r"labels were \w+, are now \w+$"):
        loop.resume(run.folder)


# ------------------------------------------------------------------------------------------------- images of any size


def test_photographs_of_any_size_are_trained_on(capsys):
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        for i in range(8):
            save(Path("mine", name), rng.integers(0, 256, (1, 9 + i, 20 - i, 3), np.uint8), suffix="jpg", first=i)
    Path("mine", ".ipynb_checkpoints").mkdir()
    flags = ["--levels", "2", "--hidden", "3", "--blocks", "1", "--epochs", "1"]
    assert cli.main(["train", "pixelcnn", "--data", "mine", *flags]) == 2
    assert re.search(
        r"mine/cats/001.jpg: 19x10, but 000.jpg is 20x9: write --size 9 to resize", capsys.readouterr().err
    )
    assert cli.main(["train", "pixelcnn", "--data", "mine", "--size", "6", *flags, "--out", "run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "pixelcnn on mine: 14 images 3x6x6, 2 levels (2 to test), 2 classes, all in both; into run"
    assert lines[1] == ("of the 16 images in mine: 16 resized to 6x6, the middle cut out; "
                        "left out: 1 hidden or of a system (.ipynb_checkpoints)")  # fmt: skip
    assert sum("left out" in line for line in lines) == 1
    assert Config.read(Path("run", "config.toml")).size == 6
    loop.resume(Path("run"))


@pytest.mark.parametrize("model", ["vae", "autoencoder"])
@pytest.mark.parametrize("count", [3, 4, 10])
def test_a_few_images_are_enough(model, count):
    write(None, count)
    run = loop.train(
        Config(model, "noise.npz", options={"hidden": 4, "latent": 3, "network": "mlp"}, epochs=1), Path("run")
    )
    assert run.report.exists()
    assert {f"{name}.png" for name in run.load()[1].family.plots} <= {path.name for path in run.folder.iterdir()}


def test_one_test_image_is_enough():
    save(Path("mine", "train"), np.zeros((2, 4, 4), np.uint8))
    save(Path("mine", "test"), np.zeros((1, 4, 4), np.uint8))
    for model in ("vae", "autoencoder"):
        options = {"hidden": 4, "latent": 3, "network": "mlp"}
        assert loop.train(Config(model, "mine", options=options, epochs=1), Path(model)).report.exists()


# ---------------------------------------------------------------------------------------------------------- their names


def test_snapshots_stand_in_the_order_of_their_steps():
    Path("run", "samples").mkdir(parents=True)
    steps = [1_000_000, 300_000, 12, 2_000_000]
    for step in steps:
        Image.new("L", (1, 1)).save(f"run/samples/step-{step:06}.png")
    page.write(Path("run"), {})
    found = re.findall(r"<figcaption>(?:step )?([\d,]+)</figcaption>", Path("run", "report.html").read_text())
    assert [int(step.replace(",", "")) for step in found] == sorted(steps)


def test_samples_of_other_settings_lie_beside_the_first():
    write(np.arange(60) % 3)
    run = Run.existing(loop.train(gated(3), Path("run")).folder)
    before = set(run.folder.iterdir())
    last = Run.existing(run.checkpoint)
    for which, asked in [
        (run, (64, 0, 1.0, None)), (run, (64, 0, 0.0, None)), (run, (64, 0, 0.5, 2)), (run, (9, 0, 1.0, None)),
        (run, (64, 1, 1.0, None)), (last, (64, 0, 1.0, None)),
    ]:  # fmt: skip
        commands.sample(which, *asked, None)
    commands.plot(last, "complete", 0, None)
    assert {path.name for path in set(run.folder.iterdir()) - before} == {
        "samples-0.png", "samples-0-temperature-0.png", "samples-0-temperature-0.5-label-2.png", "samples-0-n-9.png",
        "samples-1.png", "samples-0-last.png", "complete-0-last.png",
    }  # fmt: skip
