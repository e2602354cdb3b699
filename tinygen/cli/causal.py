"""tinygen check-causal: a proof by gradients that no output of a model sees its own or a later value."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import numpy as np

from tinygen.cli.parser import Parser, add_options, whole_number
from tinygen.console import say
from tinygen.gradcheck.causal import dependencies, picture, violations
from tinygen.models.model import Causal
from tinygen.models.registry import MODELS, model_class
from tinygen.training.config import options

SHOWN = 5  # dependencies that are named, of those that shouldn't be there


def add(commands: Any) -> None:
    """Add the command to the top parser's."""
    p = commands.add_parser("check-causal", help="prove that no output of a model sees its own or a later value")
    models = p.add_subparsers(dest="model", required=True, metavar="MODEL")
    for name, entry in MODELS.items():
        about = "Prove by gradients that no output sees its own or a later value, and draw what the middle pixel sees. "
        about += "The weights are random: the structure decides."
        models.add_parser(name, help=entry.about, description=about, fill=partial(_add_flags, name=name))


def _add_flags(p: Parser, name: str) -> None:
    if not issubclass(model_class(name), Causal):
        p.error(f"{name} doesn't give each value of an image those before it: there is nothing to prove")
    p.add_argument("--side", type=whole_number, default=11, help="height and width of the image (default %(default)s)")
    p.add_argument("--channels", type=whole_number, default=1, help="1 for gray, 3 for RGB (default %(default)s)")
    add_options(p, model_class(name))
    p.set_defaults(run=_check)


def _check(args: argparse.Namespace) -> int:
    side, channels = args.side, args.channels
    chosen = {p.name: getattr(args, p.name) for p in options(model_class(args.model))}
    model = model_class(args.model)((channels, side, side), 2, **chosen, rng=np.random.default_rng(0))
    model.to(np.float64).eval()
    label = model.condition.in_turn(1)
    matrix = dependencies(lambda x: model.logits(x, label), np.zeros(model.image_shape), channels=True)
    order = model.order()
    broken = violations(matrix[np.ix_(order, order)])
    for i, j in ((order[i], order[j]) for i, j in broken[:SHOWN]):
        say(f"value {i} (row {i // channels // side}, column {i // channels % side}) sees value {j}, which comes later")
    if broken:
        say(f"{args.model} is not causal: {len(broken):,} dependencies on an output's own or a later value")
        return 1
    pixels = matrix.reshape(side * side, channels, side * side, channels)[:, 0].max(axis=-1)  # of a pixel's first value
    rank, middle = np.argsort(order[::channels] // channels), side // 2 * side + side // 2
    seen = np.count_nonzero(pixels[middle])
    say(f"{args.model} is causal: of {matrix.size:,} gradients all to an output's own or a later value are exactly 0\n"
        f"the middle pixel (o) sees {seen} of the {rank[middle]} before it (#):\n"
        f"{picture(pixels, side, side, rank=rank).rstrip()}")  # fmt: skip
    return 0
