"""tinygen models: what every model can be asked."""

from __future__ import annotations

import argparse
from typing import Any

from tinygen.cli.parser import Parser
from tinygen.console import say
from tinygen.models.registry import MODELS

ABOUT = "say what every model can be asked: p(x), p(z given x), x given a part of it, samples; or of some, how"


def add(commands: Any) -> None:
    """Add the command to the top parser's."""
    commands.add_parser("models", help=ABOUT, description=ABOUT, fill=_add_flags)


def _add_flags(p: Parser) -> None:
    p.add_argument("models", nargs="*", metavar="MODEL", choices=MODELS, help="a model's name; several; or none: all")
    p.set_defaults(run=_models)


def _models(args: argparse.Namespace) -> None:
    from tinygen.models.inference import COLUMNS, said, table

    if args.models:
        for name in args.models:
            say("\n".join(said(name)))
        return
    rows = [COLUMNS, *table()]
    widths = [max(len(row[i]) for row in rows) + 2 for i in range(len(COLUMNS))]
    for row in rows:
        say("".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
