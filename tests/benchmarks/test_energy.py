"""python -m benchmarks.models.energy, end to end on tiny data."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from tinygen.data import Dataset
from tinygen.models.energy import family
from tinygen.models.energy.chain import MarkovChain


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Calls the command on images of 4x4, chains and paths being short: what it printed."""
    from benchmarks.models import energy

    rng = np.random.default_rng(0)
    sets = [Dataset(rng.integers(0, 2, (n, 1, 4, 4)).astype(np.uint8), 2, None, "noise") for n in (60, 20)]
    monkeypatch.setattr(energy, "data", functools.cache(lambda levels: sets))
    monkeypatch.setattr(energy, "HELD", 20)
    monkeypatch.setattr(MarkovChain, "burn_in", 3)
    for name in ("TEMPERATURES", "QUICK"):
        monkeypatch.setattr(family, name, 5)

    def call(*flags):
        assert energy.main([*flags, "--seconds", "0.05", "--out", str(tmp_path)]) == 0
        return tmp_path

    return call


def test_it_measures_and_draws(run, capsys):
    folder = run("rbm")
    said = capsys.readouterr().out
    assert said.startswith("rbm: ")
    assert "-log p by AIS, 5 temperatures: " in said
    assert (folder / "rbm.txt").read_text() == said.removeprefix("rbm: ")
    shown = {"filters", "chains", "complete", "mixing", "samples"}
    assert {path.stem for path in folder.glob("*.png")} == {f"rbm-{name}" for name in shown}


@pytest.mark.parametrize("name", ["rbm", "gsn"])
def test_rates_are_chosen_on_images_that_are_held_out_of_the_training_set(run, name, capsys, monkeypatch):
    from benchmarks.models import energy

    seen, trained = [], energy.trained
    monkeypatch.setattr(
        energy, "trained", lambda name, train, *more: (seen.append(train), trained(name, train, *more))[1]
    )
    folder = run(name, "--validate", "--lr", "0.01")
    assert "rate 0.01, " in capsys.readouterr().out
    np.testing.assert_array_equal(seen[0].images, energy.data(2)[0].images[:40])
    assert not list(folder.iterdir())
