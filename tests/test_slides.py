"""The lecture's table: no slide is missing, and what it names is there."""

import importlib
import importlib.util
import operator
import runpy
import shlex
from pathlib import Path

import pytest

from tinygen.cli.main import parser
from tinygen.models.registry import model_class

ROOT = Path(__file__).parents[1]
SLIDES = runpy.run_path(str(ROOT / "docs" / "slides.py"))
ROWS = SLIDES["rows"]()
SHOWN = [row for row in ROWS if "command" in row]
LAST = 142


def ids(row):
    return str(row["slides"][0])


def test_every_slide_is_in_one_row():
    slides = [slide for row in ROWS for slide in range(row["slides"][0], row["slides"][1] + 1)]
    assert slides == list(range(1, LAST + 1))


def test_the_page_is_the_tables():
    assert (ROOT / "docs" / "slides.md").read_text() == SLIDES["page"]()


@pytest.mark.parametrize("row", SHOWN, ids=ids)
def test_its_command_is_one(row):
    program, *rest = shlex.split(row["command"])
    if program == "python":
        assert rest[0] == "-m"
        main = importlib.import_module(rest[1])
        assert callable(main.main)
        assert set(rest[2:]) <= set(getattr(main, "PARTS", {}))
    elif rest != ["train", "--help"]:
        args = parser().parse_args(rest)
        assert args.command == rest[0]
    if rest[0] == "plot":
        _, run, name = rest
        assert name in model_class(Path(run).name.rpartition("-")[0]).family.plots


@pytest.mark.parametrize("row", SHOWN, ids=ids)
def test_its_source_test_page_and_picture_are_there(row):
    module, _, name = row["source"].partition(":")
    found = importlib.import_module(module)
    if name:
        operator.attrgetter(name)(found)
    path, _, test = row["proof"].partition("::")
    assert f"def {test}(" in (ROOT / path).read_text()
    assert (ROOT / "docs" / row["page"].partition("#")[0]).exists()  # the site's build holds its heading against it
    assert (ROOT / "docs" / row.get("picture", "slides.toml")).exists()
