"""The judging page: nothing in it tells real from generated, and what it gives is read back, in a real browser too."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.report.test_pages import Page
from tinygen.cli.main import main
from tinygen.report import hype


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def written(n: int = 6, seed: int = 0, timed: bool = False, channels: int = 1):
    """A page of noise, its content and its key. Real images are dark, so that a test can tell them."""
    rng = np.random.default_rng(seed)
    real = rng.integers(0, 120, (n // 2, channels, 5, 4)).astype(np.uint8)
    generated = rng.integers(130, 256, (n // 2, channels, 5, 4)).astype(np.uint8)
    key = hype.write(Path("page.html"), real, generated, 256, "noise & more", timed)
    text = Path("page.html").read_text()
    return text, json.loads(re.search(r"const PAGE = (.*);</script>", text)[1]), key


def pixels(source: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,")))))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("timed", [False, True])
def test_the_page_holds_the_images_and_the_key_knows_them_apart(timed, channels):
    _, content, key = written(8, timed=timed, channels=channels)
    images = [pixels(source) for source in content["images"]]
    assert {image.shape for image in images} == {(5, 4) if channels == 1 else (5, 4, 3)}
    np.testing.assert_array_equal([image.max() < 125 for image in images], key.real)
    assert key.real.sum() == 4
    hype.write_key(Path(), key)
    again = hype.read_key(Path(), content["page"])
    np.testing.assert_array_equal(again.real, key.real)
    assert (again.page, again.timed) == (key.page, timed)


def test_levels_are_spread_over_all_of_gray():
    image = np.arange(4, dtype=np.uint8).reshape(1, 1, 2, 2)
    hype.write(Path("page.html"), image, image, 4, "x", False)
    content = json.loads(re.search(r"const PAGE = (.*);</script>", Path("page.html").read_text())[1])
    np.testing.assert_array_equal(pixels(content["images"][0]), [[0, 85], [170, 255]])


@pytest.mark.parametrize("timed", [False, True])
def test_apart_from_the_images_no_page_differs_from_another(timed):
    """What is the same whichever images are real can't tell which are."""
    bare = set()
    for seed in range(3):
        text, content, _ = written(seed=seed, timed=timed)
        assert set(content) == {"page", "timed", "images", *(["code"] if timed else [])}
        bare.add(re.sub(r"const PAGE = .*", "", text))
        assert {len(source) for source in content["images"]} == {len(content["images"][0])}
        headers = {base64.b64decode(source.partition(",")[2])[:33] for source in content["images"]}
        assert len(headers) == 1
    assert len(bare) == 1
    assert "noise &amp; more" in bare.pop()


def test_neither_the_order_nor_the_code_says_which_are_real():
    """Over 300 pages real images stand at every place equally often; so do both bits of the code, for either kind."""
    pages = [written(seed=seed, timed=True) for seed in range(300)]
    real = np.array([key.real for _, _, key in pages])
    code = np.array([[int(bit) for bit in content["code"]] for _, content, _ in pages])
    error = 0.5 / np.sqrt(300)
    assert np.abs(real.mean(axis=0) - 0.5).max() < 4 * error
    assert np.abs(code.mean(axis=0) - 0.5).max() < 4 * error
    for kind in (True, False):
        assert abs(code[real == kind].mean() - 0.5) < 4 * error / np.sqrt(3)


def test_the_order_is_that_of_the_images_alone_and_changes_with_any_of_them():
    first, second = (written(20, seed=0)[1] for _ in range(2))
    assert first == second
    assert written(20, seed=1)[2].real.tolist() != written(20, seed=0)[2].real.tolist()


def test_the_page_needs_nothing_else():
    text, _, _ = written()
    page = Page(text.replace("<button id=start", "<button  id=start"))
    assert set(page.links) <= {"#"}
    assert "http" not in text.replace("http-equiv", "")


LINE = {"page": "0" * 12, "sitting": "a", "answers": [{"image": 1, "answer": "real", "ms": 5},
                                                      {"image": 0, "answer": "generated", "ms": 5}]}  # fmt: skip


def test_answers_are_read_from_several_files_and_lines():
    Path("a.json").write_text(json.dumps(LINE) + "\n\n" + json.dumps(LINE | {"sitting": "b"}))
    Path("c.json").write_text(json.dumps(LINE | {"sitting": "c"}))
    found = hype.read_answers([Path("a.json"), Path("c.json")])
    assert [s.name for s in found] == ["a", "b", "c"]
    assert found[0].images.tolist() == [1, 0]
    assert found[0].said_real.tolist() == [True, False]
    assert found[0].shown.size == 0


@pytest.mark.parametrize(
    "line", ["{", "[]", "null", "3", '{"page": 3}', json.dumps(LINE | {"page": "../../etc"}),
             json.dumps(LINE | {"answers": [{"image": 0, "answer": "maybe"}]}), json.dumps(LINE | {"sitting": 3}),
             json.dumps(LINE | {"answers": [{"image": "x", "answer": "real"}]}), json.dumps(LINE | {"answers": 3})],
)  # fmt: skip
def test_what_is_no_line_of_the_page_is_named(line):
    Path("a.json").write_text(json.dumps(LINE) + "\n" + line)
    with pytest.raises(ValueError, match=r"^a\.json, line 2: must be the line that the page gives at its end, got "):
        hype.read_answers([Path("a.json")])


def test_a_sitting_that_is_there_twice_is_named():
    Path("a.json").write_text(json.dumps(LINE))
    with pytest.raises(ValueError, match=r"a\.json, line 1: the answers of sitting a are there twice"):
        hype.read_answers([Path("a.json"), Path("a.json")])


# ------------------------------------------------------------------------------------------------------- the commands


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", "gan", "--width", "4", "--latent", "2", "--epochs", "0.05", "--out", str(folder)]) == 0
    return folder


def answers(key: hype.Key, sitting: str, wrong: int) -> str:
    """The line of an evaluator who is wrong about the first so many images of either kind."""
    said = key.real.copy()
    for kind in (True, False):
        said[np.flatnonzero(key.real == kind)[:wrong]] ^= True
    given = [{"image": i, "answer": "real" if real else "generated", "ms": 1} for i, real in enumerate(said.tolist())]
    return json.dumps({"page": key.page, "sitting": sitting, "answers": given})


def test_a_page_is_written_and_what_people_saved_is_scored(run, capsys):
    assert main(["hype", str(run), "-n", "40", "--out", "page.html"]) == 0
    said = capsys.readouterr().out
    page = re.search(r"\npage ([0-9a-f]{12}); once people have saved", said)[1]
    assert "40 images to be judged: page.html (its key, which isn't for those who judge: " in said
    key = hype.read_key(run, page)
    for i, wrong in enumerate((1, 3)):
        Path(f"answers-{i}.json").write_text(answers(key, str(i), wrong))
    assert main(["hype", str(run), "--score", "answers-0.json", "answers-1.json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"page {page}, without a time limit: 2 evaluators, 40 images"
    assert [line.partition(" (")[0] for line in lines[1:]] == [
        "  errors: 10.0 %", "  generated taken for real: 10.0 %", "  real taken for generated: 10.0 %",
    ]  # fmt: skip
    assert main(["hype", str(run), "--score", "answers-0.json"]) == 0
    assert (
        "1 evaluator, 40 images; of one evaluator, the interval reaches to other images alone"
        in capsys.readouterr().out
    )


def test_the_same_seed_gives_the_same_page(run):
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert main(["hype", str(run), "-n", "10", "--out", name, "--seed", seed]) == 0
    assert Path("a").read_bytes() == Path("b").read_bytes() != Path("c").read_bytes()


WRONG = {
    ("-n", "7"): "-n must be even, for half of the images are real, got 7",
    ("-n", "4000"): "-n 4000: half of them are real, but the test set has only 360 images",
    ("--score", "ghost.json"): "ghost.json: No such file or directory",
    ("--score", "x", "-n", "4"): "--score reads what people saved, without -n, --timed and --out, which make a page",
    ("--score", "other.json"): "has no key of the page 000000000000: it belongs to another run",
    ("--score", "short.json"): "sitting a must have one answer to each of 6 images, got 2",
}


@pytest.mark.parametrize("args", WRONG, ids=" ".join)
def test_wrong_usage_is_one_sentence(args, run, capsys):
    hype.write_key(run, hype.Key("1" * 12, np.arange(6) < 3, False))
    Path("other.json").write_text(json.dumps(LINE))
    Path("short.json").write_text(json.dumps(LINE | {"page": "1" * 12}))
    assert main(["hype", str(run), *args]) == 2
    err = capsys.readouterr().err
    assert WRONG[args] in err
    assert err.count("\n") == 1
