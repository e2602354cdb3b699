"""Flows of points in the plane: densities that integrate to 1, and pictures of them."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from PIL import Image

from tinygen.cli.main import main
from tinygen.data import plane
from tinygen.models.flow import toy
from tinygen.report.charts import figure


def rng(seed=0):
    return np.random.default_rng(seed)


def trained(name, steps=30, **options):
    flow = toy.PlaneFlow(name, width=16, batch_size=128, rng=rng(), **options)
    flow.train(steps)
    return flow


def test_the_density_of_eight_gaussians_is_theirs():
    axis = np.linspace(-3, 3, 601)
    points = np.stack([v.ravel() for v in np.meshgrid(axis, axis)], axis=1)
    assert np.exp(-plane.eight_gaussians_nats(points)).sum() * 0.01**2 == pytest.approx(1, abs=1e-9)
    nats = plane.eight_gaussians_nats(plane.eight_gaussians(50_000, rng()))
    entropy = math.log(8) + math.log(2 * math.pi * math.e * 0.1**2)  # the Gaussians hardly overlap
    assert nats.mean() == pytest.approx(entropy, abs=0.02)


@pytest.mark.parametrize("name", toy.FLOWS)
def test_a_density_integrates_to_one_and_is_that_of_what_is_drawn(name, monkeypatch):
    monkeypatch.setattr(toy, "FINE", 81)
    before = toy.PlaneFlow(name, width=16, rng=rng())
    before.model.eval()
    flow = trained(name)
    new = plane.eight_gaussians(500, rng(7))
    assert flow.nats(new).mean() < before.nats(new).mean()
    assert flow.field(10.0, 101).sum() * 0.2**2 == pytest.approx(1, abs=0.01)
    assert flow.integral() == pytest.approx(flow.field(4.0, 81).sum() * 0.1**2)
    points = flow.sample(4000, rng(1))
    quarter = (points > 0).all(1).mean()  # of the points drawn, in the upper right
    field = flow.field(4.0, 80)  # none of whose points are on the axes
    assert field[:40, 40:].sum() / field.sum() == pytest.approx(quarter, abs=0.03)
    np.testing.assert_allclose(flow.from_codes(np.zeros((1, 2))), flow.from_codes(np.zeros((3, 2)))[:1], rtol=1e-5)


def test_pictures_show_the_density_the_points_and_the_grid():
    flow = trained("realnvp")
    axes, bar = figure(flow.picture(rng())).axes
    np.testing.assert_array_equal(axes.images[0].get_array(), flow.field(toy.REACH, toy.FIELD))
    np.testing.assert_allclose(axes.collections[0].get_offsets(), flow.sample(1000, rng()), rtol=1e-6)
    assert bar.get_ylabel() == "density"
    (axes,) = figure(flow.grid()).axes
    assert len(axes.lines) == 42
    np.testing.assert_allclose(
        axes.lines[0].get_xydata()[0], flow.from_codes(np.array([[-2.5, -2.5]]))[0], rtol=1e-4, atol=1e-5
    )
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["z1 fixed", "z2 fixed"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ("--flow", "ffjord", "--steps", "1"),
            r"new points: [\d.]+ \+- [\d.]+ nats \(the density's own 0\.3\d\d\)\n"
            r"integral of the density: [01]\.\d{4}; \d+ evaluations of f a solve\n"
            r"[0-8] of 8 modes, \d+\.\d% good samples \(the density's own: 98\.9%\)\n"
            r"The density of ffjord on eight-gaussians, .*: toy.png\nWhat ffjord .*: toy-grid.png\n",
        ),
        (
            ("--flow", "nice", "--steps", "2", "--density", "swiss-roll", "--lr", "1e-3"),
            r"new points: [\d.]+ \+- [\d.]+ nats\nintegral of the density: [01]\.\d{4}\n"
            r"The density of nice on swiss-roll, .*: toy.png\nWhat nice .*: toy-grid.png\n",
        ),
    ],
)
def test_the_toy_command_draws_a_flow(flags, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["toy", *flags]) == 0
    assert re.fullmatch(said, capsys.readouterr().out)
    for path in ("toy.png", "toy-grid.png"):
        with Image.open(path) as png:
            assert png.size[0] > 300
