"""Why a gradient is wrong: a table of the ways in which people get it wrong.

Each row makes the mistake itself, on the right gradient, and asks whether that reproduces the wrong numbers. The right
Jacobian J is known by finite differences, so a mistake on the way in ("only the last time step's upstream gradient
arrives", "the factor 1 - y^2 is missing") is J^T of a changed upstream gradient, and a mistake on the way out (a
factor, a transpose, a flip) is a change of the right gradient. The first row that reproduces the numbers names the
cause; rows that guess less stand earlier. Rows further down only describe which elements are wrong.
"""

from __future__ import annotations

from tinygen.gradcheck.causes import arrangement, elements, factors, terms, upstream
from tinygen.gradcheck.causes.guess import Row, reproduces
from tinygen.gradcheck.causes.misshapen import name_shape
from tinygen.gradcheck.evidence import Evidence, Mismatch, plain_problem
from tinygen.gradcheck.report import Problem
from tinygen.gradcheck.sandbox import Trouble
from tinygen.gradcheck.shapes import smallest


def diagnose(e: Evidence) -> list[Problem]:
    """One problem for each cause, the best explained first."""
    ranked: list[tuple[int, Problem]] = [(0, name_shape(e, s)) for s in e.misshapen]
    ranked += [_name(e, s) for s in e.mismatches]
    ranked.sort(key=lambda pair: pair[0])
    merged: dict[tuple[str, str], Problem] = {}
    for _, f in ranked:
        first = merged.setdefault((f.cause, f.hint), f)
        if first is not f:
            first.argument += f", {f.argument}"
    problems = list(merged.values())
    for f in problems[1:]:
        if f.cause == "unexplained":
            f.hint = "wrong too, perhaps for the same reason"
    if problems and problems[0].cause not in ("wrong shape", "missing sum"):
        problems[0].evidence |= smallest(e)
    return problems


def _name(e: Evidence, s: Mismatch) -> tuple[int, Problem]:
    for rank, (cause, row) in enumerate(TABLE):
        try:
            guess = next((g for g in row(e, s) if reproduces(s, g)), None)
        except Trouble:  # the function under test refuses a probe; a bug in a row isn't caught
            continue
        if guess is not None:
            problem = plain_problem(e, s, cause, guess.hint)
            problem.factor = guess.factor
            if row in DESCRIPTIONS:
                problem.evidence["vague"] = True
            return rank, problem
    return len(TABLE), plain_problem(e, s)


TABLE: list[Row] = [
    ("upstream ignored", upstream.upstream_ignored),
    ("not linear", upstream.not_linear),
    ("zero", factors.zero),
    ("factor", factors.factor),
    ("missing path", upstream.missing_output),
    ("swapped", arrangement.swapped),
    ("flipped", arrangement.flipped),
    ("transposed", arrangement.transposed),
    ("permuted", arrangement.permuted),
    ("recurrence", upstream.recurrence),
    ("mask", factors.mask),
    ("overwritten", upstream.overwritten),
    ("shifted", arrangement.shifted),
    ("only part", upstream.part_row("only part")),
    ("border", upstream.part_row("border")),
    ("non-square", upstream.part_row("non-square")),
    ("local factor", factors.local_factor),
    ("missing term", terms.missing_term),
    ("wrong variable", terms.wrong_variable),
    ("missing path", terms.statistics),
    ("transposed", terms.transposed_factor),
    ("flipped", terms.variant_row("flipped")),
    ("transposed", terms.variant_row("transposed")),
    ("wrong variable", terms.variant_row("wrong variable")),
    # From here on: which elements are wrong, rather than why.
    ("channel", elements.channel),
    ("time step", elements.time_step),
    ("recurrence", elements.later_steps),
    ("gate", elements.gate),
    ("border", elements.border),
    ("overwritten", elements.not_added_up),
    ("local factor", factors.elementwise_factor),
    ("slice", elements.some_slice),
]
DESCRIPTIONS = {row for _, row in TABLE[[row for _, row in TABLE].index(elements.channel) :]}
