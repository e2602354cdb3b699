"""Families beside each other: each member is trained, measured and kept; what is there is taken up."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest

from tinygen.cli import main as cli
from tinygen.data import Dataset
from tinygen.metrics import features
from tinygen.metrics.quality import blurred, sharpness
from tinygen.models import probing
from tinygen.models.registry import model_class
from tinygen.report import families as page
from tinygen.report.claims import BITS, Member
from tinygen.training import families
from tinygen.training.config import Config
from tinygen.training.run import Run

COMMAND = ["compare-families", "--data", "noise.npz", "-n", "8", "--out", "out", "--minutes"]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    rng = np.random.default_rng(1)
    images = rng.integers(0, 4, (40, 1, 8, 8)).astype(np.uint8)
    np.savez("noise.npz", images=images, levels=np.array(4))
    np.savez("labeled.npz", images=images, levels=np.array(4), labels=np.arange(40) % 2)


def results(name: str) -> dict:
    return Run(families.Path("out") / name).read_results()


def test_the_command_trains_each_in_a_process_and_does_so_once(capfd):
    assert cli.main([*COMMAND, "0.002", "made", "acgan"]) == 0
    assert "acgan-0: ValueError: the training set of noise has no labels" in capfd.readouterr().err
    assert results("made-0")["evidence"] == "exact"
    assert "no labels" in results("acgan-0")["failed"]
    page = families.Path("out/families.html").read_text()
    assert "acgan, seed 0, is missing" in page
    trained = os.stat("out/made-0/last.safetensors").st_mtime_ns
    assert cli.main([*COMMAND, "0.002", "made"]) == 0
    assert os.stat("out/made-0/last.safetensors").st_mtime_ns == trained
    capfd.readouterr()
    assert cli.main([*COMMAND, "0.003", "made"]) == 2
    told = "tinygen compare-families: out/made-0 is of other settings (minutes 0.002, not 0.003): name another --out\n"
    assert capfd.readouterr().err == told


def test_what_is_stopped_goes_on(capfd):
    def stop():
        while not families.Path("out/made-0/last.safetensors").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    signaled = threading.Thread(target=stop)
    signaled.start()
    assert cli.main([*COMMAND, "0.02", "made"]) == 130
    signaled.join()
    assert capfd.readouterr().err.endswith("interrupted: what was trained is saved; the same command goes on\n")
    run = Run(families.Path("out/made-0"))
    before = run.load(run.checkpoint)[2]
    assert 0 < before["seconds"] < 1.2
    assert cli.main([*COMMAND, "0.02", "made"]) == 0
    after = run.load(run.checkpoint)[2]
    assert after["step"] > before["step"]
    assert after["seconds"] >= 1.2


@pytest.mark.parametrize("model", ["vae", "pixelcnn", "flow-matching"])
def test_what_is_measured(model, monkeypatch, tmp_path):
    monkeypatch.setattr(features, "STEPS", 5)
    monkeypatch.setattr(probing, "LABELS", 10)
    config = Config.of({"model": model, "data": "labeled.npz", "minutes": 0.002})
    run = Run(tmp_path)
    assert families.train_and_measure(config, run, 8)
    member = Member(model, 0, run.folder, run.read_results())
    for name in ("FD*", "precision", "recall", "sharpness", "a sample", "a sample, drawn alone", "a training image",
                 "memory"):  # fmt: skip
        assert np.isfinite(member.value(name))
    assert member.value("memory") > 10
    assert (member.metric(BITS) is None) == (model_class(model).evidence == "none")
    assert (member.metric("linear probe") is None) == (model == "flow-matching")
    assert (tmp_path / "samples.png").exists()


@pytest.mark.parametrize("model", ["rotation", "inpainting"])
def test_of_what_cannot_be_sampled_from_the_features_are_measured(model, monkeypatch, tmp_path):
    monkeypatch.setattr(probing, "LABELS", 10)
    run = Run(tmp_path)
    assert families.train_and_measure(Config.of({"model": model, "data": "labeled.npz", "minutes": 0.002}), run, 8)
    member = Member(model, 0, run.folder, run.read_results())
    found = {metric["name"] for metric in member.results["metrics"]}
    assert found == {"linear probe", "a training image", "memory"}
    assert (tmp_path / "samples.png").exists() == (model == "inpainting")  # which fills in test images
    page.write(tmp_path / page.PAGE, [member])
    assert f"| {model} | selfsupervised | - | - |" in (tmp_path / "families.md").read_text()


def test_all_are_trained_on_the_same_images_and_measured_by_the_same_features(monkeypatch, tmp_path):
    monkeypatch.setattr(features, "STEPS", 5)
    named = set()
    for model in ("made", "gan"):  # of which one would hold images out to validate
        config = Config.of({"model": model, "data": "labeled.npz", "minutes": 0.001})
        (tmp_path / model).mkdir()
        families.train_and_measure(config, run := Run(tmp_path / model), 8)
        named |= {metric["name"] for metric in run.read_results()["metrics"] if metric["name"].startswith("FD*")}
    assert len(named) == 1


def test_a_model_that_cannot_be_sampled_and_data_that_there_are_not(capsys):
    assert cli.main([*COMMAND, "1", "pix2pix"]) == 2
    assert capsys.readouterr().err == (
        "tinygen compare-families: pix2pix cannot be sampled from and has no features: there is nothing to compare\n"
    )
    assert cli.main(["compare-families", "--data", "digit"]) == 2
    assert "did you mean 'digits'?" in capsys.readouterr().err
    assert not families.Path("out").exists()
    assert not families.Path("families").exists()


def test_blurring_lowers_the_sharpness_and_noise_raises_it():
    rng = np.random.default_rng(0)
    images = Dataset(rng.integers(0, 200, (9, 3, 8, 8)).astype(np.uint8), 256).images
    assert sharpness(blurred(images)) < 0.2 * sharpness(images)
    assert sharpness(np.full((2, 1, 5, 5), 7)) == 0
    plane = np.arange(25, dtype=np.uint8).reshape(1, 1, 5, 5)
    assert sharpness(plane) == 0  # a slope has no Laplacian
    dot = np.zeros((1, 1, 5, 5), np.uint8)
    dot[0, 0, 2, 2] = 4
    assert sharpness(dot) == pytest.approx(np.array([4, -1, -1, -1, -1, 0, 0, 0, 0]).var())
