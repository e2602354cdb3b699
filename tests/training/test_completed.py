"""Lower halves by several runs: the same test images for all, and errors that a mean and a draw must have."""

from pathlib import Path

import numpy as np
import pytest

from tinygen.cli.main import main
from tinygen.data import Dataset
from tinygen.models.selfsupervised.family import guesses, squared_errors
from tinygen.training import completed
from tinygen.training.completed import Halves
from tinygen.training.run import Run, names


def trained(*models):
    for model, *more in models:
        assert main(["train", model, "--epochs", ".1", *more, "--out", model]) == 0


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tinygen.training.commands.finish", lambda *_: None)


def test_the_command(monkeypatch, capsys):
    trained(("made", "--hidden", "8"), ("inpainting", "--hidden", "4"), ("pix2pix", "--task", "half", "--dropout", "0"))
    asked = ["complete", "made", "inpainting", "pix2pix", "-n", "20", "--draws", "3"]
    capsys.readouterr()
    shown = []
    monkeypatch.setattr(completed, "save_plot", lambda path, grid, levels: shown.append(grid))
    assert main(asked) == 0
    head, _, *lines, _, said = capsys.readouterr().out.splitlines()
    assert head.startswith("digits: lower halves of 20 test images; squared errors")
    assert said == "Test images, and their lower halves told from the upper ones: complete.png"
    cells = {row[0]: row[1:] for row in (line.removeprefix("| ").removesuffix(" |").split(" | ") for line in lines[2:])}
    assert [*cells] == ["mean image", "nearest neighbor", "made", "inpainting", "pix2pix"]
    drawn, mean = (float(cells["made"][i].split()[0]) for i in (0, 2))
    assert mean < drawn
    assert cells["inpainting"][2:4] == ["", ""]  # it always says the same
    (grid,) = shown
    assert grid.rows == ["test image", "known half", "made, 1", "made, 2", "made, mean", "inpainting", "pix2pix"]
    rows = grid.images.reshape(7, 8, 1, 8, 8)
    assert (rows[:, :, :, :4] == rows[0, :, :, :4]).all()  # the known halves stay
    assert (rows[2] != rows[3]).any()
    assert main([*asked[:2], "-n", "20", "--draws", "3"]) == 0
    assert f"| {' | '.join(['made', *cells['made'][:4]])} |" in capsys.readouterr().out  # whatever stands beside it


def test_runs_of_the_same_name_are_told_apart_by_their_paths():
    assert names([Run(Path("a/made-0")), Run(Path("a/vae-0"))]) == ["made-0", "vae-0"]
    assert names([Run(Path("a/made-0")), Run(Path("b/made-0"))]) == ["a/made-0", "b/made-0"]


def test_what_cannot_be_completed_is_said(capsys):
    trained(("vae",), ("pix2pix", "--width", "4"))
    capsys.readouterr()
    for model in ("vae", "pix2pix"):  # the latter's task is another
        assert main(["complete", model]) == 2
        told = f"{model} can't tell lower halves from upper ones: it has no complete(), and its task isn't half"
        assert capsys.readouterr().err == f"tinygen complete: {told}\n"
    assert main(["complete", "vae", "--out", "none/x.png"]) == 2
    assert "--out none/x.png: must be a file in a folder that exists" in capsys.readouterr().err


def test_of_true_draws_one_has_twice_the_least_error_and_their_mean_a_little_more_than_that():
    rng, s = np.random.default_rng(0), 4
    images = rng.integers(0, 256, (3000, 1, 6, 4)).astype(np.uint8)
    draws = np.where(np.arange(6)[:, None] < 3, images, rng.integers(0, 256, (s, 3000, 1, 6, 4))).astype(np.uint8)
    least = 1000 * (256**2 - 1) / 12 / 255**2
    cells = Halves("uniform", draws, 1.0).cells(images, 256)
    one, mean = (float(cells[i].split()[0]) for i in (1, 3))
    assert one == pytest.approx(2 * least, rel=0.01)
    assert float(cells[2]) == pytest.approx(1, abs=0.03)  # as sharp
    assert mean == pytest.approx((1 + 1 / s) * least, rel=0.01)
    assert squared_errors(np.full_like(images, 127), images, 256).mean() == pytest.approx(least, rel=0.02)


def test_the_trivial_answers_keep_the_upper_half():
    rng = np.random.default_rng(0)
    train = Dataset(rng.integers(0, 16, (50, 1, 5, 4)).astype(np.uint8), 16)
    images = train.images[:7].copy()
    images[:, :, 2:] = 15 - images[:, :, 2:]
    found = guesses(train, images)
    for made in found.values():
        assert np.array_equal(made[:, :, :2], images[:, :, :2])
    assert np.array_equal(found["nearest neighbor"], train.images[:7])  # whose upper half is the same
    assert not squared_errors(images, images, 16).any()
