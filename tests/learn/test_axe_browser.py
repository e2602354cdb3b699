"""Everybody can use the pages: axe-core finds nothing serious in them; in the dark, no contrast that is too low."""

from __future__ import annotations

import numpy as np
import pytest

from tests.models.small import new
from tinygen.cli.main import main
from tinygen.learn import drawing
from tinygen.report import hype


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A page of each kind, by name."""
    folder, rng = tmp_path_factory.mktemp("pages"), np.random.default_rng(0)
    found = {name: folder / f"{name}.html" for name in ("tape", "toy", "drawing", "hype", "compare")}
    assert main(["tape", "pixelcnn", "--hidden", "4", "--blocks", "1", "--out", str(found["tape"])]) == 0
    toy = ["toy", "--steps", "3", "--page", str(found["toy"]), "--out", str(folder / "toy.png")]
    assert main(toy) == 0
    drawing.write(found["drawing"], "Drawing", drawing.drawing(new("made", (1, 3, 3), 4).eval(), rng))
    images = rng.integers(0, 256, (2, 4, 1, 5, 5)).astype(np.uint8)
    hype.write(found["hype"], *images, 256, "noise", timed=False)
    for name in ("a", "b"):
        assert main(["train", "made", "--hidden", "4", "--epochs", "0.02", "--out", str(folder / name)]) == 0
    assert main(["compare", str(folder / "a"), str(folder / "b"), "--out", str(found["compare"])]) == 0
    return found | {"report": folder / "a" / "report.html"}


STATES = {  # of pages, by name: what is done there first, in JavaScript
    "tape": "document.querySelectorAll('details').forEach(d => d.open = true)",  # and it shows an op beside
    "toy": "", "drawing": "", "compare": "", "hype": "", "hype, begun": "document.getElementById('start').click()",
    "report": "document.querySelectorAll('details').forEach(d => d.open = true)",
}  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("state", STATES)
def test_nothing_serious(browser, pages, state, scheme):
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.open(pages[state.partition(",")[0]])
    browser.evaluate(STATES[state])
    assert browser.serious(["color-contrast"] if scheme == "dark" else None) == []
