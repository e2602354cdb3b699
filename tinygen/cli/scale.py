"""tinygen scale: what more ranks would bring."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from tinygen import parallel
from tinygen.cli.parser import Parser, add_options, number, seed, whole_number
from tinygen.console import say
from tinygen.models.registry import MODELS, model_class
from tinygen.training.config import Config, located, options

ETHERNET = 1.25, 30.0  # GB/s and us: 10 Gbit/s


def add(commands: Any) -> None:
    """Add the command to the top parser's."""
    p = commands.add_parser("scale", help="predict what more ranks would bring; under mpiexec, beside what they do")
    models = p.add_subparsers(dest="model", required=True, metavar="MODEL")
    about = "Time a rank's training step, and predict the images a second of many ranks with a network like that. "
    about += "Under mpiexec the network is measured, and the prediction stands beside what the ranks really do."
    for name in MODELS:
        models.add_parser(name, help=MODELS[name].about, description=about, fill=partial(_add_flags, name=name))


def _add_flags(p: Parser, name: str) -> None:
    model = model_class(name)
    p.add_argument("--ranks", type=whole_numbers, default="1,2,4,8,64,1024", metavar="N,N,...",
                   help="how many (default %(default)s)")  # fmt: skip
    p.add_argument("--bandwidth", type=number, metavar="GB/s",
                   help=f"between two ranks (default: measured under mpiexec, else {ETHERNET[0]})")  # fmt: skip
    p.add_argument("--latency", type=number, metavar="US",
                   help=f"of a message, in us (default: measured under mpiexec, else {ETHERNET[1]:g})")  # fmt: skip
    p.add_argument("--timeline", action="store_true", help="show when the sums of a step begin and are waited for")
    p.add_argument("--data", default="digits", metavar="NAME|FOLDER|FILE", help="as of train (default: the digits)")
    p.add_argument("--levels", type=whole_number, help="quantize to so many (2: threshold); default: the data's own")
    p.add_argument("--batch-size", type=whole_number, default=model.batch_size,
                   help="images of a rank's share (default %(default)s)")  # fmt: skip
    p.add_argument("--seed", type=seed, default=0, help="of all random numbers (default %(default)s)")
    add_options(p, model)
    p.set_defaults(run=_scale)


def whole_numbers(text: str) -> list[int]:
    return sorted({whole_number(part) for part in text.split(",")})


def _scale(args: argparse.Namespace) -> None:
    from tinygen.training import scale

    sizes = args.ranks
    chosen = {p.name: getattr(args, p.name) for p in options(model_class(args.model))}
    config = Config.of({"model": args.model, "data": located(args.data), "levels": args.levels, "options": chosen,
                        "seed": args.seed, "batch_size": args.batch_size, "epochs": 1.0})  # fmt: skip
    ranks, network = parallel.current(), scale.Network(ETHERNET[1] * 1e-6, ETHERNET[0] * 1e9)
    measured: dict[int, scale.Timeline] = {}
    if ranks.size > 1:
        network, measured = scale.measure(config)
        sizes = sorted({*sizes, ranks.size})
    timeline = measured.pop(0, None) or scale.rehearse(config)
    if args.latency:
        network = network._replace(latency=args.latency * 1e-6)
    if args.bandwidth:
        network = network._replace(bandwidth=args.bandwidth * 1e9)
    if ranks.rank:
        return
    say(f"{args.model}: {timeline.images} images a rank, {timeline.seconds * 1e3:.1f} ms a step; "
        f"{len(timeline.events)} sums of {timeline.size / 1e6:.2f} MB together; "
        f"latency {network.latency * 1e6:.1f} us, bandwidth {network.bandwidth / 1e9:.3g} GB/s")  # fmt: skip
    for line in scale.table(timeline, network, sizes, measured):
        say(line)
    if args.timeline:
        shown = measured.get(ranks.size, timeline)
        what = f"rank 0 of {ranks.size}" if measured else "a rank whose sums take no time"
        say(f"a step of {what}, {shown.seconds * 1e3:.1f} ms: = a sum is on its way, # it is waited for")
        for line in shown.picture():
            say(line)
