"""The judging page in a real browser: by keyboard, as a screen reader has it, and its staircase."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from tests.browser import Browser
from tests.report.test_hype import run, written  # noqa: F401
from tinygen.cli.main import main
from tinygen.metrics.hype import exposures
from tinygen.report import hype

FULL = os.environ.get("TINYGEN_FULL") == "1"
ENTER, R, G = ("Enter", 13), ("r", 82), ("g", 71)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def judged(browser: Browser, key: hype.Key, wrong: set[int]) -> str:
    """The line of one who answers by keyboard, and is wrong about the images that are shown at these turns."""
    n = len(key.real)
    browser.press(*ENTER)  # Start has the focus
    for turn in range(n):
        browser.wait(f"document.getElementById('status').textContent === 'Image {turn + 1} of {n}' && give")
        shown = browser.evaluate("PAGE.images.indexOf(document.getElementById('image').getAttribute('src'))")
        browser.press(*(R if key.real[shown] != (turn in wrong) else G))
    browser.wait("!document.getElementById('end').hidden")
    return browser.evaluate("document.getElementById('line').value")


def test_a_person_judges_by_keyboard_and_the_answers_are_scored(browser, run, capsys):  # noqa: F811
    assert main(["hype", str(run), "-n", "12", "--out", "page.html"]) == 0
    browser.requests.clear()
    browser.open(Path("page.html"))
    key = hype.read_key(run, browser.evaluate("PAGE.page"))
    line = judged(browser, key, wrong={0, 5, 7})
    assert browser.errors == []
    loaded = {request.partition(":")[0] for request in browser.requests}
    assert loaded <= {"file", "data"}  # nothing from elsewhere
    assert sum(request.startswith("file") for request in browser.requests) == 1
    assert browser.evaluate("document.activeElement.id") == "thanks"
    browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(Path.cwd()))
    browser.evaluate("document.getElementById('save').click()")
    name = browser.evaluate("document.getElementById('save').download")
    browser.wait_for(lambda: Path(name).exists())
    assert Path(name).read_text() == line + "\n"
    capsys.readouterr()
    assert main(["hype", str(run), "--score", name]) == 0
    assert "errors: 25.0 %" in capsys.readouterr().out


def test_answers_are_not_lost_unasked(browser):
    written(2)
    for judges in (False, True):
        browser.open(Path("page.html"))
        browser.asked.clear()
        if judges:
            judged(browser, hype.Key("", np.ones(2, bool), False), wrong=set())
        browser.open(Path("page.html"))
        assert browser.asked == ["beforeunload"] * judges


def test_what_a_screen_reader_finds(browser):
    written()
    browser.open(Path("page.html"))
    start = browser.spoken()
    assert ("heading", "Real or generated?") in start
    assert ("button", "Start") in start
    browser.press(*ENTER)
    browser.wait("give")
    trial = browser.spoken()
    assert {
        ("StaticText", "Image 1 of 6"), ("image", "The image to judge"), ("group", "Your answer"), ("button", "Real"),
        ("button", "Generated"), ("progressbar", "Images judged"),
    } <= set(trial)  # fmt: skip
    assert browser.evaluate("document.getElementById('status').role") == "status"  # what changes in it is read out
    for turn in range(6):  # with the buttons alone
        browser.wait(f"document.getElementById('status').textContent === 'Image {turn + 1} of 6' && give")
        browser.evaluate("document.getElementById('real').focus()")
        browser.press(*ENTER)
    browser.wait("!document.getElementById('end').hidden")
    assert ("textbox", "Your answers, as a line of JSON") in browser.spoken()


def test_the_order_differs_from_person_to_person(browser):
    written(12)
    browser.open(Path("page.html"))
    orders = browser.evaluate("[shuffled(12), shuffled(12)]")
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(12))
    assert orders[0] != orders[1]
    places = np.array(browser.evaluate("Array.from({length: 3000}, () => shuffled(4))"))
    counts = np.stack([np.bincount(places[:, place], minlength=4) for place in range(4)])
    assert np.abs(counts - 750).max() < 4.5 * math.sqrt(3000 * 3 / 16)


def test_a_timed_page_shows_each_as_long_as_the_staircase_says_and_then_noise(browser):
    _, _, key = written(4, timed=True)
    browser.open(Path("page.html"))
    answers = json.loads(judged(browser, key, wrong={1, 2}))["answers"]
    assert browser.errors == []
    assert [answer["asked"] for answer in answers] == [500, 490, 520, 550]
    for answer in answers:
        assert answer["shown"] >= answer["asked"] - 9
    assert np.median([answer["shown"] - answer["asked"] for answer in answers]) < 100
    browser.open(Path("page.html"))
    browser.press(*ENTER)
    browser.wait("give")  # the image is gone now, and noise is in its place
    seen = "VIEWS.filter((id) => getComputedStyle(element(id)).visibility === 'visible')"
    assert browser.evaluate(seen) == ["mask"]
    drawn = browser.evaluate(
        "Array.from(document.getElementById('mask').getContext('2d').getImageData(0, 0, 4, 5).data)"
    )
    assert len({tuple(drawn[i : i + 4]) for i in range(0, 80, 4)}) > 10


def test_the_page_can_tell_whether_an_answer_was_right(browser):
    """The code's bit, the same in both languages."""
    _, _, key = written(40, timed=True)
    browser.open(Path("page.html"))
    right = browser.evaluate("PAGE.images.map((_, i) => [isRight(i, 'real'), isRight(i, 'generated')])")
    assert right == [[bool(real), not real] for real in key.real]


SIMULATED = """
((seed, n, middles, width) => {
  let state = seed;
  const random = () => {  // mulberry32
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  return middles.map((middle) => {
    const staircase = new Staircase(), shown = [];
    for (let i = 0; i < n; i++) {
      shown.push(staircase.exposure);
      staircase.answer(random() < 0.5 + 0.5 / (1 + Math.exp((middle - staircase.exposure) / width)));
    }
    return shown;
  });
})
"""


def test_the_staircase_finds_where_three_of_four_answers_are_right(browser):
    """Of simulated evaluators whose psychometric curves are known, as often as the interval says."""
    written(timed=True)
    browser.open(Path("page.html"))
    rng, many, people = np.random.default_rng(0), 400 if FULL else 60, 30
    hits, errors = 0, []
    for seed in range(many):
        middles = rng.normal(300, 50, people)
        shown = browser.evaluate(f"{SIMULATED}({seed}, 150, {middles.tolist()}, 40)")
        found = exposures([np.array(one) for one in shown], rng)
        hits += found.low <= 300 <= found.high
        errors.append(found.value - 300)
    assert abs(np.mean(errors)) < 5
    assert hits / many == pytest.approx(0.95, abs=0.02 + 3 * math.sqrt(0.95 * 0.05 / many))


def test_the_staircase_stays_between_100_and_1000_ms(browser):
    written(timed=True)
    browser.open(Path("page.html"))
    for middle, end in ((-1e6, 100), (1e6, 1000)):
        (shown,) = browser.evaluate(f"{SIMULATED}(1, 150, [{middle}], 1)")
        assert (min(shown) if end == 100 else max(shown)) == end
