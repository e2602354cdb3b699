"""Charts: what is in the figure that matplotlib draws, and what is left of matplotlib's state."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image, ImageColor

from tinygen.data import Dataset, load, plane
from tinygen.metrics.metric import Chart
from tinygen.models.gan import toy
from tinygen.models.vae import plots
from tinygen.models.vae.vae import VAE
from tinygen.report.charts import figure, save_chart
from tinygen.report.style import COLORS, PAPER


def model(**options) -> VAE:
    return VAE((1, 8, 8), 17, hidden=8, **options, rng=np.random.default_rng(0)).eval()


def legend(drawing) -> list[str]:
    (found,) = drawing.legends or [drawing.axes[0].get_legend()]
    return [text.get_text() for text in found.get_texts()]


def test_a_chart_is_a_png_on_the_houses_paper_with_its_caption(tmp_path):
    chart = Chart(lambda axes: axes.plot([0, 1], [0, 1]), "What it shows")
    save_chart(tmp_path / "chart", chart)
    with Image.open(tmp_path / "chart") as png:
        assert png.format == "PNG"
        assert png.size == (720, 500)
        assert png.getpixel((0, 0)) == ImageColor.getrgb(PAPER)
    (axes,) = figure(chart).axes
    assert axes.get_title(loc="left") == "What it shows"
    assert to_hex(axes.lines[0].get_color()) == COLORS[0]


def test_nothing_of_matplotlibs_state_changes_and_no_window_is_asked_for():
    code = """
import sys
import matplotlib
from pathlib import Path
from tinygen.models.gan import toy
from tinygen.report.images import save_plot
from tinygen.report.style import rc
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
before = {name: matplotlib.rcParams[name] for name in rc()}
save_plot(Path(sys.argv[1]), toy.loss_picture(), 256)
assert {name: matplotlib.rcParams[name] for name in rc()} == before != rc()
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, "/dev/null"], check=True, timeout=120)


def test_codes_are_scattered_by_class_with_their_names():
    train, test = load("digits")
    names = ["$x$", "_hidden", *"cdefghij"]
    test = Dataset(test.images[:200], 17, test.labels[:200], "digits", names)
    chart = plots.scatter(model(), train, test, np.random.default_rng(0))
    drawing = figure(chart)
    axes = drawing.axes[0]
    assert "200 test images" in axes.get_title(loc="left")
    assert legend(drawing) == ["$x$", "hidden", *"cdefghij"]
    clouds = axes.collections
    assert [len(c.get_offsets()) for c in clouds] == np.bincount(test.labels, minlength=10).tolist()
    assert [to_hex(c.get_facecolor()[0]) for c in clouds] == list(COLORS)
    assert axes.get_xlabel().startswith("first principal component")
    assert axes.get_ylabel().startswith("second principal component")
    points = np.concatenate([c.get_offsets() for c in clouds])
    assert points[:, 0].var() > points[:, 1].var()


def test_codes_without_classes_and_of_one_variable():
    train, test = load("digits")
    chart = plots.scatter(model(latent=1), train, Dataset(test.images[:20], 17), np.random.default_rng(0))
    drawing = figure(chart)
    assert not drawing.legends
    assert len(drawing.axes[0].collections[0].get_offsets()) == 20


def test_a_name_that_the_font_lacks_is_no_warning(tmp_path):
    save_chart(tmp_path / "x.png", Chart(lambda axes: axes.set_xlabel("\u65e5\u672c")))
    assert (tmp_path / "x.png").exists()


@pytest.mark.parametrize("used", [[1, 1, 1], [1, 0, 1], [0, 0, 0]])
def test_bars_of_latent_variables_tell_the_active_ones(used, monkeypatch):
    monkeypatch.setattr(plots, "kl_by_variable", lambda model, images: np.array([1.0, 0.25, 2.0]))
    monkeypatch.setattr(plots, "activity", lambda model, images: np.array(used, float))
    train, test = load("digits")
    drawing = figure(plots.variables(None, train, test, np.random.default_rng(0)))
    (axes,) = drawing.axes
    bars = sorted((bar.get_x() + bar.get_width() / 2, bar.get_height(), bar.get_facecolor()) for bar in axes.patches)
    assert [height for _, height, _ in bars] == [2.0, 1.0, 0.25]
    expected = [COLORS[0] if used[v] else COLORS[3] for v in (2, 0, 1)]
    assert [to_hex(color) for _, _, color in bars] == expected
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["2", "0", "1"]
    counts = {"active": sum(used), "not active": 3 - sum(used)}
    assert legend(drawing) == [f"{name} ({count})" for name, count in counts.items() if count]
    assert "nats" in axes.get_ylabel()


def test_the_plane_has_a_colorbar_and_tells_real_points_from_generated_ones():
    game = toy.Toy("non-saturating", width=8, rng=np.random.default_rng(0))
    drawing = figure(game.picture(np.random.default_rng(0)))
    axes, bar = drawing.axes
    assert legend(drawing) == ["real points", "generated points"]
    real, generated = (c.get_offsets() for c in axes.collections)
    assert plane.modes_and_good(np.asarray(real))[1] > 0.95
    rng = np.random.default_rng(0)
    game.density(2000, rng)
    np.testing.assert_allclose(generated, game.sample(2000, rng), rtol=1e-6)
    np.testing.assert_array_equal(axes.images[0].get_array(), game.field(toy.FIELD))
    assert axes.images[0].get_extent() == [-toy.REACH, toy.REACH, -toy.REACH, toy.REACH]
    assert bar.get_ylabel() == "output of the discriminator"


def test_both_losses_of_the_generator_are_named():
    drawing = figure(toy.loss_picture())
    (axes,) = drawing.axes
    assert legend(drawing) == ["minimax: log(1 - D(G(z)))", "non-saturating: -log D(G(z))"]
    _, minimax, saturating = axes.lines  # after the line at 0
    d = minimax.get_xdata()
    np.testing.assert_allclose(minimax.get_ydata(), np.log(1 - d), rtol=1e-6)
    np.testing.assert_allclose(saturating.get_ydata(), -np.log(d), rtol=1e-6)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("D(G(z))", "loss of the generator")
