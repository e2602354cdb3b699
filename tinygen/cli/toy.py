"""tinygen toy: a GAN in the plane."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from tinygen.cli.parser import Parser, need_packages, number, seed, whole_number
from tinygen.console import Bar, say


def add(commands: Any) -> None:
    """Add the command to the top parser's."""
    about = "a GAN in the plane, drawn with what its discriminator thinks of every point"
    commands.add_parser("toy", help=about, description=about, fill=_add_flags)


def _add_flags(p: Parser) -> None:
    from tinygen.models.gan.objectives import OBJECTIVES

    p.add_argument("--objective", choices=OBJECTIVES, default="non-saturating",
                   help="what the two players minimize (default %(default)s)")  # fmt: skip
    p.add_argument("--density", choices=("eight-gaussians", "swiss-roll"), default="eight-gaussians")
    p.add_argument("--steps", type=whole_number, default=2000, help="of the generator (default %(default)s)")
    p.add_argument("--lr", type=number, default=1e-3, help="learning rate at the start (default %(default)s)")
    p.add_argument("--seed", type=seed, default=0, help="of all random numbers (default %(default)s)")
    p.add_argument("--losses", action="store_true", help="instead draw both of the generator's losses over D(G(z))")
    p.add_argument("--out", type=Path, default=Path("toy.png"), help="the PNG to write (default %(default)s)")
    p.set_defaults(run=_toy)


def _toy(args: argparse.Namespace) -> None:
    need_packages()
    from tinygen.models.gan import toy
    from tinygen.report.images import save_plot

    if args.losses:
        found = toy.loss_picture()
    else:
        points = toy.Toy(args.objective, args.density, lr=args.lr, rng=np.random.default_rng(args.seed))
        with Bar():
            points.train(args.steps)
        found = points.picture(np.random.default_rng(args.seed))
        if args.density == "eight-gaussians":
            modes, good = toy.modes_and_good(points.sample(10_000, np.random.default_rng(args.seed)))
            say(f"{modes} of 8 modes, {good:.1%} good samples (the density's own: 98.9%)")
    save_plot(args.out, found, 256)
    say(f"{found.caption}: {args.out}")
