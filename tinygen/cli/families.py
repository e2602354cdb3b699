"""tinygen compare-families: members of all families, trained for equal CPU time, on one page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tinygen.cli.parser import Parser, need_packages, number, seed, whole_number
from tinygen.console import say
from tinygen.models.registry import MODELS

ABOUT = "train a member of each family for equal CPU time, and put what they reach on one page"


def add(commands: Any) -> None:
    """Add the command to the top parser's."""
    commands.add_parser(
        "compare-families", help=ABOUT, fill=_add_flags, description=f"{ABOUT}. Stopped, the same command goes on."
    )


def _add_flags(p: Parser) -> None:
    p.add_argument("models", nargs="*", metavar="MODEL", choices=MODELS, help="instead of a member of each family")
    p.add_argument("--data", default="digits", metavar="NAME|FOLDER|FILE", help="as of train (default %(default)s)")
    p.add_argument("--levels", type=whole_number, help="quantize to so many; default: the data's own")
    p.add_argument("--size", type=whole_number, metavar="N", help="resize a folder's images to NxN")
    p.add_argument("--minutes", type=number, default=1.0, help="CPU time of each's training (default %(default)s)")
    p.add_argument("--seeds", type=whole_number, default=1, help="how often each is trained (default %(default)s)")
    p.add_argument("--seed", type=seed, default=0, help="the first (default %(default)s)")
    p.add_argument(
        "-n",
        type=whole_number,
        default=2000,
        help="samples of each that are measured, at most as many as test images (default %(default)s)",
    )
    p.add_argument("--out", type=Path, default=Path("families"), help="a folder for the runs and the page "
                   "(default %(default)s)")  # fmt: skip
    p.set_defaults(run=_compare)


def _compare(args: argparse.Namespace) -> None:
    need_packages()
    from tinygen.training.config import Config, located
    from tinygen.training.families import MEMBERS, compare_families

    models = list(dict.fromkeys(args.models or MEMBERS))
    common = {"data": located(args.data), "levels": args.levels, "size": args.size, "minutes": args.minutes}
    asked = [
        Config.of({"model": model, "seed": args.seed + i, **common})
        for i in range(args.seeds) for model in models
    ]  # fmt: skip
    say(f"{len(asked)} trainings of {args.minutes:g} CPU minutes: {', '.join(models)}")
    say(f"all of it: {compare_families(asked, args.n, args.out)}")
