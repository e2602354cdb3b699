"""tinygen toy: a GAN or a flow in the plane."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from tinygen.cli.parser import Parser, file, need_packages, number, seed, whole_number
from tinygen.console import Bar, say

MOMENTS = 100  # of a training, in a page


def add(commands: Any) -> None:
    """Add the command to the top parser's."""
    about = "a GAN in the plane, drawn with what its discriminator thinks of every point; or a flow, with its density"
    commands.add_parser("toy", help=about, description=about, fill=_add_flags)


def _add_flags(p: Parser) -> None:
    from tinygen.data.plane import DENSITIES
    from tinygen.models.flow.toy import FLOWS
    from tinygen.models.gan.objectives import OBJECTIVES

    p.add_argument("--objective", choices=OBJECTIVES, default="non-saturating",
                   help="what the two players minimize (default %(default)s)")  # fmt: skip
    p.add_argument("--flow", choices=FLOWS, help="instead of a GAN a flow: its density, and what it makes of a grid")
    p.add_argument("--density", choices=DENSITIES, default="eight-gaussians")
    p.add_argument("--steps", type=whole_number, default=2000, help="of training (default %(default)s)")
    p.add_argument("--lr", type=number, help="learning rate at the start (default 1e-3, of a flow 1e-2)")
    p.add_argument("--seed", type=seed, default=0, help="of all random numbers (default %(default)s)")
    p.add_argument("--losses", action="store_true", help="instead draw both of the generator's losses over D(G(z))")
    p.add_argument("--out", type=file, default=Path("toy.png"), help="the PNG to write (default %(default)s); "
                   "a flow's grid goes into another beside it, toy-grid.png")  # fmt: skip
    p.add_argument("--page", type=file, metavar="FILE", help="a GAN's training as a page, to play and to step through")
    p.set_defaults(run=_toy)


def _toy(args: argparse.Namespace) -> None:
    need_packages()
    from tinygen.models.gan import toy
    from tinygen.report.images import save_plot

    if args.page and (args.flow or args.losses):
        raise ValueError(f"--page shows a GAN's training, not --{'flow' if args.flow else 'losses'}")
    if args.flow:
        _flow(args)
        return
    if args.losses:
        found = toy.loss_picture()
    else:
        points = toy.Toy(args.objective, args.density, lr=args.lr or 1e-3, rng=np.random.default_rng(args.seed))
        with Bar():
            _train(args, points)
        found = points.picture(np.random.default_rng(args.seed))
        _say_modes(args, points)
    save_plot(args.out, found, 256)
    say(f"{found.caption}: {args.out}")


def _train(args: argparse.Namespace, points: Any) -> None:
    """Train a GAN of points; with --page keep what is seen at some moments, more of them at the start."""
    from tinygen.learn import plane

    if not args.page:
        points.train(args.steps)
        return
    kept = {1, *(round(args.steps * (i / MOMENTS) ** 2) for i in range(1, MOMENTS + 1))}
    found: list[plane.Moment] = []

    def seen(step: int, parts: dict[str, float]) -> None:
        if step in kept:
            generated = points.sample(plane.POINTS, np.random.default_rng(args.seed))  # of the same codes
            pushes = points.pushes(generated[: plane.ARROWS])
            found.append(plane.Moment(step, points.field(plane.SIDE), generated, pushes, parts))

    points.train(args.steps, seen)
    real = points.density(500, np.random.default_rng(args.seed))
    plane.write(args.page, f"A GAN in the plane: {points.name}", real, found)
    say(f"{len(found)} moments of the training: {args.page}")


def _flow(args: argparse.Namespace) -> None:
    """A flow in the plane: how likely new points are, and both pictures."""
    from tinygen.data.plane import DENSITIES, eight_gaussians_nats
    from tinygen.metrics.metric import Metric, mean_and_error
    from tinygen.models.flow.toy import TESTED, PlaneFlow
    from tinygen.report.images import save_plot

    flow = PlaneFlow(args.flow, args.density, lr=args.lr or 1e-2, rng=np.random.default_rng(args.seed))
    with Bar():
        flow.train(args.steps)
    points = DENSITIES[args.density](TESTED, np.random.default_rng((args.seed, 1)))
    mean, error = mean_and_error(flow.nats(points))
    eight = args.density == "eight-gaussians"
    known = {"the density's own": float(eight_gaussians_nats(points).mean())} if eight else {}
    say(str(Metric("new points", mean, "nats", error, known)))
    say(f"integral of the density: {flow.integral():.4f}{flow.evaluations()}")
    _say_modes(args, flow)
    grid = args.out.with_stem(f"{args.out.stem}-grid")
    for path, found in ((args.out, flow.picture(np.random.default_rng(args.seed))), (grid, flow.grid())):
        save_plot(path, found, 256)
        say(f"{found.caption}: {path}")


def _say_modes(args: argparse.Namespace, points: Any) -> None:
    """How many of the Gaussians a model of points found, if it was asked for them."""
    from tinygen.data.plane import modes_and_good

    if args.density == "eight-gaussians":
        modes, good = modes_and_good(points.sample(10_000, np.random.default_rng(args.seed)))
        say(f"{modes} of 8 modes, {good:.1%} good samples (the density's own: 98.9%)")
