"""Pages: a run's report, and runs beside each other. They need nothing but themselves."""

from __future__ import annotations

import base64
import html.parser
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygen.cli import main as cli
from tinygen.report import page
from tinygen.training import loop
from tinygen.training.config import Config
from tinygen.training.run import Run


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def trained(out: str = "run", model: str = "pixelcnn", data: str = "noise.npz", **options) -> Run:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 4, (45, 1, 4, 4)).astype(np.uint8)
    np.savez(data, images=images, levels=np.array(4), labels=np.arange(45) % 2)
    options = options or {"hidden": 3, "blocks": 1}
    return loop.train(Config(model, data=data, options=options, batch_size=8, epochs=2.5), Path(out))


class Page(html.parser.HTMLParser):
    """Checks that a page's tags are closed, and gathers what it refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "data", "action")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_is_one_page_that_needs_nothing_else():
    run = trained()
    text = run.report.read_text()
    read = Page(text)
    assert read.links
    assert all(link.startswith("data:image/png;base64,") for link in read.links)
    assert not re.search(r"https?:|@import|url\(", text)
    assert read.tags.count("svg") == 2  # nats and validation
    assert re.search(r"<figcaption>validation</figcaption><svg .*?>bits/dim</text>.*?</svg>", text)
    assert read.tags.count("img") == len(list(run.folder.rglob("*.png")))
    for figure in run.read_results()["metrics"]:
        assert f"<b>{figure['value']:.{3 if figure['value'] < 10 else 2}f}</b>" in text
        assert "independent pixels" in figure["baselines"]
    assert "four completions" in text
    assert "prefers-color-scheme: dark" in text
    assert "to go on if it is interrupted" in text  # the log


def test_the_report_shows_names_as_text_whatever_they_are(capsys):
    folder = Path("<b>&run")
    folder.mkdir()
    run = Run(folder)
    page.write(run.folder, run.read_results())
    Page(run.report.read_text())  # of an empty folder
    run.begin(Config("<script>alert(1)</script>", data="/x/<i>\udce9"))
    run.note("<u>\udce9")
    run.metrics.write_text("step,<s>,odd\n1,2.0,nan\n2,3.0,\n3,inf,\n4,1.0,7\n")
    run.write_results(
        {"metrics": [{"name": "<p>", "value": 1.0, "unit": "<q>", "error": None, "baselines": {"<h1>": 2.0}}]}
    )
    page.write(run.folder, run.read_results())
    read = Page(run.report.read_text(errors="strict"))
    assert not {"b", "script", "i", "u", "s", "q"} & set(read.tags) - {"b"}
    assert read.tags.count("h1") == 1
    assert read.tags.count("svg") == 1  # one number of the column "odd" is no curve


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 10**9) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
SOUND = {
    "step": 3, "images": 24, "seconds": 0.5, "parameters": 9, "flops": 1e6,
    "metrics": [{"name": "test", "value": 1.0, "unit": "nats", "error": None, "baselines": {"pixels": 2.0}}],
    "messages": [{"step": 2, "text": "the discriminator has won"}], "captions": {"samples": "samples"},
    "baselines": {"independent pixels": 2.5},
}  # fmt: skip


def edited(value, data):
    """The value, something in it changed or left out."""
    if not isinstance(value, (dict, list)) or not value or data.draw(st.integers(0, 3)) == 0:
        return data.draw(ANYTHING)
    key = data.draw(st.sampled_from(sorted(value))) if isinstance(value, dict) else 0
    if data.draw(st.booleans()) and isinstance(value, dict):
        return {k: v for k, v in value.items() if k != key}
    changed = edited(value[key], data)
    return value | {key: changed} if isinstance(value, dict) else [changed]


@given(st.data())
def test_a_page_is_made_whatever_was_done_to_the_results(data):
    run = Run(Path())
    run.metrics.write_text("step,nats\n1,2.0\nx,y\n2,\n3,1.5\n")
    run.write_results(SOUND)
    assert run.read_results() == SOUND
    run.write_results(edited(SOUND, data))
    page.write(run.folder, run.read_results())
    assert Page(run.report.read_text()).tags.count("svg") == 1


def test_the_validation_is_drawn_beside_the_baselines():
    run = trained()
    ((name, value),) = run.read_results()["baselines"].items()
    assert name == "independent pixels"
    drawn = dict(re.findall(r"<figcaption>(\w+)</figcaption>(<svg.*?</svg>)", run.report.read_text()))
    assert f"{name} {value:.3f}" in drawn["validation"]
    assert name not in drawn["nats"]
    run.write_results(run.read_results() | {"baselines": {"odd": float("nan")}})
    page.write(run.folder, run.read_results())
    assert "nan" not in re.findall(r"<svg.*?</svg>", run.report.read_text())[1]


# ----------------------------------------------------------------------------------------------- runs beside each other


def compared(*runs: str) -> tuple[str, Page]:
    assert cli.main(["compare", *runs]) == 0
    text = Path("compare.html").read_text()
    return text, Page(text)


def rows(text: str) -> dict[str, list[str]]:
    """The tables' rows by their names: the cells, as HTML."""
    found = re.findall(r"<tr><th>([^<]*)</th>(.*?)</tr>", text)
    return {html.unescape(name): re.findall(r"<td>(.*?)</td>", cells) for name, cells in found}


def test_runs_are_compared_on_one_page_that_needs_nothing_else(capsys):
    one, two = trained("one"), trained("two", hidden=5, blocks=2)
    text, read = compared("one", "two")
    assert "2 runs: compare.html" in capsys.readouterr().out
    assert not re.search(r"https?:|@import|url\(", text)
    assert read.links == [
        "data:image/png;base64," + base64.b64encode(run.samples.read_bytes()).decode() for run in (one, two)
    ]
    assert read.tags.count("svg") == 2
    for kind in ("run0", "run1"):
        assert text.count(f'<polyline class="{kind}"') == 2
    table = rows(text)
    for i, metric in enumerate(one.read_results()["metrics"]):
        other = two.read_results()["metrics"][i]
        cells = table[f"{metric['name']}, {metric['unit']}"]
        values = [m["value"] for m in (metric, other)]
        for cell, m in zip(cells, (metric, other), strict=True):
            shown = f"{m['value']:.{3 if m['value'] < 10 else 2}f}"
            assert cell.startswith(f"<b>{shown}</b>" if m["value"] == min(values) else shown)
            assert "±" in cell
    assert table["parameters"] == [f"{run.read_results()['parameters']:,}" for run in (one, two)]
    assert all(re.match(r"[\d.]+", cell) for cell in table["ms a training image"])
    assert "blocks 2" in text
    assert "different data" not in text


def test_what_cannot_be_compared_is_said_and_nothing_is_called_best():
    trained("one"), trained("two", data="other.npz"), trained("three", "vae", hidden=4, latent=2)
    text, _ = compared("one", "two")
    assert "The runs are of different data (noise; other): their metrics and losses can" in text
    assert "<b>" not in text
    text, read = compared("one", "three")
    assert "different data" not in text
    table = rows(text)
    assert table["test, bits/dim"][1] == table["-ELBO, bits/dim"][0] == "-"
    assert read.tags.count("svg") == 6  # two of the one; reconstruction, kl, gradient norm, validation of the other


def test_runs_of_one_name_are_told_apart_and_names_are_text():
    for folder in ("a", "b"):
        Path(folder).mkdir()
        trained(f"{folder}/<i>run")
    text, read = compared("a/<i>run", "b/<i>run")
    assert "a/&lt;i&gt;run" in text
    assert "b/&lt;i&gt;run" in text
    assert "i" not in read.tags


def test_a_run_that_has_measured_nothing_yet_is_shown_as_far_as_it_is():
    one, two = trained("one"), trained("two")
    for path in (two.results, two.metrics, two.samples, two.folder / "config.toml"):
        path.unlink()
    text, read = compared("one", "two")
    assert read.tags.count("img") == 1
    assert rows(text)["test, bits/dim"][1] == "-"
    assert one.read_results()["metrics"]


@pytest.mark.parametrize(
    ("runs", "says"),
    [
        (("one",), "runs to compare must be two or more, got 1"),
        (("one", "two", "./one"), "runs to compare must differ, got one twice"),
        (("one", "nothing"), "nothing is no run folder: it has no last.safetensors"),
        (("one", "two", "--out", "no/page.html"), "--out no/page.html: must be a file in a folder that exists"),
        (("one", "odd"), "odd/metrics.csv: not the numbers of a run: it must be lines of a step and its numbers"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused_in_a_sentence(runs, says, capsys):
    for folder in ("one", "two", "odd"):
        Path(folder).mkdir()
        Path(folder, "last.safetensors").touch()
    Path("odd/metrics.csv").write_bytes(b"\x00\xff" + b"0" * 200_000)
    assert cli.main(["compare", *runs]) == 2
    assert capsys.readouterr().err == f"tinygen compare: {says}\n"
    assert not Path("compare.html").exists()
