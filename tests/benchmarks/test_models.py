"""python -m benchmarks.models, end to end on tiny data, and that its table says what was measured."""

from __future__ import annotations

import importlib
import json

import numpy as np
import pytest

from tinygen.data import Dataset
from tinygen.models.energy import family as energy
from tinygen.models.energy.rbm import RBM


@pytest.fixture(scope="module")
def models():
    from benchmarks.models import likelihoods as models

    return models


@pytest.fixture
def run(models, tmp_path, monkeypatch):
    """Calls the command on images of 4x4, and returns what it said and wrote."""
    rng = np.random.default_rng(0)

    def datasets(config):
        sizes = {"train": 200, "test": 60}
        return [
            Dataset(rng.integers(0, config.levels, (n, 1, 4, 4)).astype(np.uint8), config.levels,
                    np.arange(n) % 10, name, tuple("abcdefghij"))
            for name, n in sizes.items()
        ]  # fmt: skip

    monkeypatch.setattr(models.Config, "datasets", datasets)
    monkeypatch.setattr(models, "TIMED", 0.0)
    monkeypatch.setattr(energy, "TEMPERATURES", 10)
    monkeypatch.setattr(RBM, "burn_in", 10)

    def call(*flags):
        assert models.main([*flags, "--out", str(tmp_path), "--threads", "1", "--images", "128"]) == 0
        return json.loads((tmp_path / "results.json").read_text()), (tmp_path / "models.md").read_text()

    return call


def test_every_model_has_a_line_that_says_what_was_measured(run, models, tmp_path):
    results, table = run()
    assert list(results["rows"]) == [entry.name for entry in models.ENTRIES]
    for entry in models.ENTRIES:
        row = results["rows"][entry.name]
        line = next(line for line in table.splitlines() if line.startswith(f"| {entry.name} |"))
        nats, bits = (next(f for f in row["metrics"] if f["unit"] == u) for u in ("nats an image", "bits/dim"))
        assert nats["value"] == pytest.approx(bits["value"] * 16 * np.log(2))
        assert f"{row['parameters']:,}" in line
        assert f"| {entry.sign}{nats['value']:.1f} +- {nats['error']:.1f} | {entry.sign}{bits['value']:.3f} |" in line
        assert ("~" in entry.sign) == ("AIS" in nats["name"])
        assert ("<=" in entry.sign) == any(word in nats["name"] for word in ("at most", "bound", "ELBO"))
        assert row["images"] == 128
        assert row["test images"] == 60
        assert set(row["times"]) == {"training", "sample, 1", "sample, 16", "threads", "load"}
        assert (tmp_path / f"{entry.name}.png").exists()
    assert table.count("independent pixels") == 2  # of 2 and of 256 levels


def test_it_goes_on_where_it_was_stopped_and_measures_times_again_if_asked(run):
    first, _ = run("--only", "fvsbn")
    second, _ = run("--only", "made")
    assert second["rows"]["FVSBN"] == first["rows"]["FVSBN"]
    again, _ = run("--only", "fvsbn", "--times")
    timed, before = again["rows"]["FVSBN"], first["rows"]["FVSBN"]
    assert timed["metrics"] == before["metrics"]
    assert timed["times"] != before["times"]
    assert again["rows"]["MADE"] == second["rows"]["MADE"]


def test_results_of_another_length_are_not_mixed(run, models, tmp_path):
    run("--only", "fvsbn")
    with pytest.raises(SystemExit, match="is of 128 images a model: remove it"):
        models.main(["--only", "fvsbn", "--out", str(tmp_path), "--images", "256"])


def test_a_name_that_no_model_has_lists_them(models, capsys):
    assert models.main(["--only", "pixelrnnn"]) == 2
    assert "Row LSTM" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["autoencoders", "energy", "games"])
def test_a_command_without_names_takes_all(module, monkeypatch):
    module = importlib.import_module(f"benchmarks.models.{module}")
    monkeypatch.setattr(module.kernels, "set_num_threads", lambda n: 1 / 0)  # the first thing after its arguments
    with pytest.raises(ZeroDivisionError):
        module.main([])
