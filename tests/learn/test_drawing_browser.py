"""The page of an image that is drawn value by value, in a real browser."""

from __future__ import annotations

import numpy as np
import pytest

from tests.models.small import new
from tinygen.learn.drawing import drawing, write


@pytest.fixture(scope="module", params=[1, 3], ids=["gray", "colors"])
def page(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "drawing.html"
    found = drawing(new("pixelcnn", (request.param, 3, 4), 5).eval(), np.random.default_rng(0))
    write(path, "Drawing", found)
    return path, found


def at(browser, canvas, row, column):
    """The color of a pixel of the image."""
    code = f"(() => {{ const c = document.getElementById('{canvas}'), cell = c.width / 4;"
    code += (
        f"return [...c.getContext('2d').getImageData({column} * cell + cell / 2, {row} * cell + cell / 2, 1, 1).data]"
    )
    return browser.evaluate(f"{code} }})()")


def test_it_is_stepped_through_to_the_whole_image(browser, page):
    path, found = page
    browser.requests.clear()
    browser.open(path)
    said = "document.getElementById('says').textContent"
    assert browser.evaluate(said).startswith(f"Value 1 of {found.image.size}, row 0, column 0")
    browser.evaluate("document.getElementById('next').click()")
    assert browser.evaluate(said).startswith("Value 2 of ")
    browser.evaluate("document.getElementById('play').click()")
    browser.wait(f"{said}.startsWith('Value {found.image.size} of ')")
    for row, column in np.ndindex(3, 4):
        shown = at(browser, "image", row, column)
        gray = np.rint(found.image[:, row, column] * (255 / 4))
        np.testing.assert_allclose(shown[:3], np.broadcast_to(gray, 3), atol=1)
    colored = {(r, c) for r, c in np.ndindex(3, 4) if at(browser, "seen", r, c)[0] < 250}
    seen = {divmod(int(p), 4) for p in np.flatnonzero(found.seen[-1] > 0.01 * found.seen[-1].max())}
    assert colored >= seen - {(2, 3)}
    assert browser.errors == []
    assert [request.partition(":")[0] for request in browser.requests] == ["file"]


def test_a_screen_reader_finds_its_parts(browser, page):
    browser.open(page[0])
    roles = browser.spoken()
    for role, name in (("button", "Play"), ("slider", "moment"), ("image", "How likely each level is")):
        assert (role, name) in roles
