"""The page of a step in a real browser: by keyboard, as a screen reader has it, and without JavaScript."""

from __future__ import annotations

import numpy as np
import pytest

from tinygen import nn, optim, tensor
from tinygen.learn import Tape

LEFT, RIGHT, G, N, F, P = ("ArrowLeft", 37), ("ArrowRight", 39), ("g", 71), ("n", 78), ("f", 70), ("p", 80)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A recording of four equal layers with skip connections, and its page."""
    rng = np.random.default_rng(0)
    layers = [nn.Linear(4, 4, rng=rng) for _ in range(4)]
    model = nn.ModuleList(layers)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with Tape(model) as tape:
        x = tensor(rng.standard_normal((3, 4)).astype(np.float32))
        for layer in layers:
            x = x + layer(x).tanh()
        (x**2).mean().backward()
        optimizer.step()
    path = tmp_path_factory.mktemp("page") / "tape.html"
    tape.write(path, "four layers", "A test.")
    return tape, path


def said(browser):
    return browser.evaluate("document.getElementById('says').textContent")


def marked(browser):
    return browser.evaluate("(document.querySelector('.now-f,.now-b,.now-a') || {}).id")


def test_arrows_walk_from_the_first_op_to_the_last_gradient(browser, recorded):
    tape, path = recorded
    browser.requests.clear()
    browser.open(path)
    for i, event in enumerate(tape.events):
        assert said(browser).startswith(f"{i + 1} of {len(tape.events)}, ")
        row = i if event.phase == "forward" else event.of
        if isinstance(row, int):
            assert marked(browser) == f"e{row}"
            assert browser.evaluate("document.querySelector('#panel h3').textContent").startswith(tape.events[row].op)
            assert browser.evaluate("document.querySelector('.now-f,.now-b,.now-a').getClientRects().length") == 1
        browser.press(*RIGHT)
    assert said(browser).startswith(f"{len(tape.events)} of {len(tape.events)}, ")  # the last one stays
    browser.press(*LEFT)
    assert said(browser).startswith(f"{len(tape.events) - 1} of ")
    assert browser.errors == []
    assert [request.partition(":")[0] for request in browser.requests if not request.startswith("data:")] == ["file"]


def test_keys_go_to_the_loss_the_next_phase_fold_and_cover(browser, recorded):
    tape, path = recorded
    browser.open(path)
    browser.press(*G)
    last = max(i for i, e in enumerate(tape.events) if e.phase == "forward")
    assert marked(browser) == f"e{last}"
    browser.press(*N)
    assert ", backward: " in said(browser)
    folded = "[...document.querySelectorAll('#rows li:not(.op) > details')].filter(d => d.open).length"
    browser.press(*F)
    everything = browser.evaluate(folded)
    browser.press(*F)
    assert {everything, browser.evaluate(folded)} == {
        0, browser.evaluate("document.querySelectorAll('#rows li:not(.op) > details').length"),
    }  # fmt: skip
    shape = "getComputedStyle(document.querySelector('.op .shape')).filter"
    assert browser.evaluate(shape) == "none"
    browser.press(*P)
    assert browser.evaluate(shape) == "blur(6px)"
    browser.evaluate("document.querySelector('.op .shape').click()")
    assert browser.evaluate(shape) == "none"


def test_pictures_are_drawn(browser, recorded):
    _, path = recorded
    browser.open(path)
    pixels = """(() => { const c = document.querySelector('#panel canvas');
        return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]; })()"""
    colors = np.array(browser.evaluate(pixels)).reshape(-1, 4)[:, :3]
    assert len(np.unique(colors, axis=0)) > 5
    assert browser.evaluate("document.querySelectorAll('#lanes path').length") > 0


def test_a_screen_reader_hears_the_event_and_every_picture_has_a_text(browser, recorded):
    _, path = recorded
    browser.open(path)
    roles = browser.spoken()
    assert ("heading", "four layers") in roles
    assert sum(role == "button" and "next event" in name for role, name in roles) == 1
    assert browser.evaluate("document.getElementById('says').getAttribute('aria-live')") == "polite"
    unnamed = (
        "[...document.querySelectorAll('canvas, svg')].filter(e => !e.ariaHidden && !e.getAttribute('aria-label'))"
    )
    assert browser.evaluate(f"{unnamed}.length") == 0


def test_without_javascript_all_of_it_is_text(browser, recorded):
    tape, path = recorded
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(path)
        text = browser.call("Runtime.evaluate", expression="document.body.textContent", returnByValue=True)
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
    page = text["result"]["value"]
    for e in tape.events:
        assert e.op in page
    assert page.count("One number worked out") == 4
    assert "def linear(input, weight, bias=None)" in page
    assert "four layers" in page
