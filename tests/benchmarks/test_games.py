"""python -m benchmarks.models.games: equally long work for all objectives; the table is what was measured."""

from __future__ import annotations

import re

import pytest

from benchmarks.models import games
from tests.models.small import SMALL
from tinygen.data import load


def test_objectives_take_as_many_steps_as_their_minutes_are_worth(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(games, "costs", lambda entries, train: {e.name: 0.5 + i for i, e in enumerate(entries)})
    assert games.main(["hinge", "wgan", "--minutes", "0.05", "--data", "digits", "--out", str(tmp_path)]) == 0
    table = (tmp_path / "games.md").read_text()
    rows = {cells[0]: cells[1:] for cells in (line.strip("| ").split(" | ") for line in table.splitlines())}
    assert rows["hinge"][:3] == ["6", "384", "3"]
    assert rows["wgan"][:3] == ["2", "640", "3"]  # five batches a step
    for name in ("hinge", "wgan", "real images"):
        distance, share = map(float, rows[name][3:5])
        assert share == pytest.approx(distance / float(rows["PCA-Gaussian"][3]), rel=0.01, abs=0.01)
    assert {path.name for path in tmp_path.iterdir()} == {"games.md", "results.json", "hinge.png", "wgan.png"}
    assert capsys.readouterr().out.endswith(table)
    monkeypatch.setattr(games, "trained", lambda *_: pytest.fail("the same command goes on where it was stopped"))
    assert games.main(["hinge", "wgan", "--minutes", "0.05", "--data", "digits", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "games.md").read_text() == table


def test_games_with_models_of_their_own_show_what_only_they_have(tmp_path, monkeypatch):
    monkeypatch.setattr(games, "costs", lambda entries, train: {e.name: 2.0 for e in entries})
    small = SMALL | {"anogan": SMALL["dcgan"]}
    monkeypatch.setattr(games, "entry", lambda name: games.Entry(name, *small[name]))
    names = ["infogan", "bigan", "cogan", "anogan"]
    assert games.main([*names, "--minutes", "0.1", "--data", "digits", "--out", str(tmp_path)]) == 0
    table = (tmp_path / "games.md").read_text()
    assert re.search(r"\| infogan \| 3 \|.* \| information of the category -?\d.\d\d nats \|", table)
    assert re.search(r"\| bigan \| 3 \|.* \| classes kept by G\(E\(x\)\) \d+.\d\d % \|", table)
    assert re.search(r"\| cogan \| 3 \|.* \| outlines fit their images -?0.\d\d \|", table)
    assert re.search(r"\nanogan: AUROC of unseen classes: \d.\d\d\d \(chance 0.500\)\n", table)
    pictures = {"infogan-categories", "infogan-numbers", "bigan-reconstruct", "cogan-pairs", "anogan-anomalies"}
    assert {f"{name}.png" for name in pictures} <= {path.name for path in tmp_path.iterdir()}


def test_every_entry_is_timed_with_all_steps_of_its_critic(monkeypatch):
    train, _ = load("digits")
    drawn = {}

    def alternate(runs, seconds):
        for name, run in runs.items():
            before = run.func.__self__.drawn
            run()
            drawn[name] = run.func.__self__.drawn - before
        return timed(runs, seconds)

    timed = games.alternate
    monkeypatch.setattr(games, "TIMED", 1e-6)
    monkeypatch.setattr(games, "alternate", alternate)
    found = games.costs([games.Entry(o, "gan", {"objective": o, "width": 8}) for o in ("minimax", "wgan")], train)
    assert drawn == {"minimax": 1, "wgan": 5}
    assert min(found.values()) > 0


def test_an_objective_that_there_is_not_is_named(capsys):
    with pytest.raises(SystemExit) as stopped:
        games.main(["wgan-gb"])
    assert stopped.value.code == 2
    assert "invalid choice: 'wgan-gb' (choose from " in (said := capsys.readouterr().err)
    assert "non-saturating" in said
    assert "(did you mean wgan-gp?)" in said
