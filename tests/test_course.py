"""The course: exercises are the solutions with holes, and the grader tells right, wrong and not written apart."""

import runpy
from collections import Counter
from pathlib import Path

import pytest

COURSE = Path(__file__).parents[1] / "docs" / "course"
GRADE = runpy.run_path(str(COURSE / "grade.py"))
CHAPTERS = GRADE["chapters"]()
NAMED = 0.8  # of the wrong answers to each exercise


def test_every_chapter_has_a_page_and_is_in_the_table():
    text = (COURSE / "README.md").read_text()
    for chapter in CHAPTERS:
        page = (COURSE / chapter / "README.md").read_text()
        assert f"({chapter}/README.md)" in text
        assert page.count("<details><summary>") == 3
        assert (chapter, page[:5]) == (chapter, f"# {chapter[0]}. ")


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_exercise_is_the_solution_with_holes(chapter):
    text = (COURSE / chapter / "exercise.py").read_text()
    assert text == GRADE["exercise"](chapter)
    assert f'NotImplementedError("exercise {chapter[0]}.1")' in text


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_stub_is_not_written_and_a_solution_is_right(chapter):
    reports = GRADE["graded"]((COURSE / chapter / "exercise.py").read_text())
    assert {report.cause for report in reports} == {"not written"}
    answers = GRADE["graded"]((COURSE / "solutions" / f"{chapter}.py").read_text())
    assert len(answers) == len(reports)
    assert all(answers), [str(report) for report in answers if not report]


def test_every_wrong_answer_is_caught_and_most_are_named():
    reports = [(wrong, GRADE["answer"](wrong)) for wrong in GRADE["WRONG"]]
    assert [wrong for wrong, report in reports if report] == []
    planted = Counter(wrong.chapter for wrong, _ in reports)
    named = Counter(wrong.chapter for wrong, report in reports if GRADE["named"](wrong, report))
    assert min(planted.values()) >= 5
    assert [chapter for chapter in CHAPTERS if named[chapter] < NAMED * planted[chapter]] == []
    text = (COURSE / "README.md").read_text()
    assert f"how {len(reports)}\nwrong answers" in text
    assert f"of {named.total()} the cause is named" in text
