"""The page of a GAN in the plane in a real browser."""

from __future__ import annotations

import numpy as np
import pytest

from tinygen.learn.plane import Moment, write


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    rng = np.random.default_rng(0)
    moments = [
        Moment(10 * i, rng.standard_normal((4, 4)), rng.standard_normal((20, 2)), rng.standard_normal((5, 2)), {"d": i})
        for i in range(1, 6)
    ]
    path = tmp_path_factory.mktemp("page") / "toy.html"
    write(path, "A toy", rng.standard_normal((30, 2)), moments)
    return path


def said(browser):
    return browser.evaluate("document.getElementById('says').textContent")


def pixels(browser):
    code = "[...document.getElementById('plane').getContext('2d').getImageData(0, 0, 544, 544).data].join()"
    return browser.evaluate(code)


def test_it_can_be_stepped_through_and_played(browser, page):
    browser.requests.clear()
    browser.open(page)
    assert said(browser).startswith("Step 10: d 1")
    first = pixels(browser)
    browser.evaluate("document.getElementById('next').click()")
    assert said(browser).startswith("Step 20: d 2")
    assert pixels(browser) != first
    browser.evaluate("document.getElementById('back').click()")
    assert pixels(browser) == first
    browser.evaluate("document.getElementById('play').click()")
    assert browser.evaluate("document.getElementById('play').textContent") == "Pause"
    browser.wait("document.getElementById('says').textContent.startsWith('Step 50')")
    browser.wait("document.getElementById('play').textContent === 'Play'")
    assert browser.errors == []
    assert [request.partition(":")[0] for request in browser.requests] == ["file"]


def test_a_screen_reader_finds_its_controls(browser, page):
    browser.open(page)
    roles = browser.spoken()
    for role, name in (("button", "Play"), ("button", "one moment on"), ("slider", "moment")):
        assert (role, name) in roles
