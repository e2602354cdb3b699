"""tinygen tape: a training step of a model as a page to step through."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from tinygen.cli.parser import Parser, add_options, file, need_packages, seed, whole_number
from tinygen.console import say
from tinygen.models.registry import MODELS, model_class
from tinygen.training.config import Config, located, options


def add(commands: Any) -> None:
    """Add the command to the top parser's."""
    p = commands.add_parser("tape", help="a training step as a page: every op, forward and backward, with its numbers")
    models = p.add_subparsers(dest="model", required=True, metavar="MODEL")
    about = "Record the first training step, and write it as one HTML page that can be stepped through: every op and "
    about += "gradient rule, what it saves, the numbers, and the source behind it."
    for name, entry in MODELS.items():
        models.add_parser(name, help=entry.about, description=about, fill=partial(_add_flags, name=name))


def _add_flags(p: Parser, name: str) -> None:
    p.add_argument("--data", default="digits", metavar="NAME|FOLDER|FILE", help="as of train (default: the digits)")
    p.add_argument("--levels", type=whole_number, help="quantize to so many (2: threshold); default: the data's own")
    p.add_argument("--batch-size", type=whole_number, default=4, help="images of the step (default %(default)s)")
    p.add_argument("--seed", type=seed, default=0, help="of all random numbers (default %(default)s)")
    p.add_argument("--out", type=file, default=Path("tape.html"), help="the page to write (default %(default)s)")
    add_options(p, model_class(name))
    p.set_defaults(run=_tape)


def _tape(args: argparse.Namespace) -> None:
    need_packages()
    from tinygen.training.recording import record

    chosen = {p.name: getattr(args, p.name) for p in options(model_class(args.model))}
    config = Config.of({"model": args.model, "data": located(args.data), "levels": args.levels, "options": chosen,
                        "seed": args.seed, "batch_size": args.batch_size, "epochs": 1.0})  # fmt: skip
    tape = record(config, args.out)
    counts = [sum(e.phase == phase for e in tape.events) for phase in ("forward", "backward", "accumulate")]
    say(f"{counts[0]} ops, {counts[1]} gradient rules, {counts[2]} sums of gradients: {args.out}")
