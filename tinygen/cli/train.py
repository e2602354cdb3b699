"""tinygen train: a model, or again as a file or an interrupted run says."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from tinygen import parallel
from tinygen.cli.parser import (
    DEVICES,
    WHERE,
    Parser,
    add_options,
    device,
    need_packages,
    number,
    seed,
    whole_number,
)
from tinygen.models.registry import MODELS, model_class
from tinygen.training.config import Config, located, options

EPOCHS = 20  # of training, if nothing is said of its length


def add(commands: Any) -> None:
    """Add the command to the top parser's."""
    p = commands.add_parser("train", help="train a model; with no flags in seconds, on the embedded digits")
    again = p.add_mutually_exclusive_group()
    again.add_argument("--resume", metavar="RUN", type=Path, help="go on with a run that was interrupted; last: the "
                       "latest in runs/. Model and settings are the run's own")  # fmt: skip
    again.add_argument(
        "--config", metavar="FILE", type=Path, help="train as a TOML file says, such as a run's config.toml"
    )
    _add_destination(p, None)
    p.set_defaults(run=_train_again, error=p.error)
    models = p.add_subparsers(dest="model", metavar="MODEL")
    for name, entry in MODELS.items():
        models.add_parser(name, help=entry.about, description=entry.about, fill=partial(_add_flags, name=name))


def _add_flags(p: Parser, name: str) -> None:
    model = model_class(name)
    p.add_argument("--data", default="digits", metavar="NAME|FOLDER|FILE",
                   help="a named set, a folder of images, an .npz or .npy (default: the embedded digits)")  # fmt: skip
    p.add_argument("--levels", type=whole_number, help="quantize to so many (2: threshold); default: the data's own")
    p.add_argument(
        "--size", type=whole_number, metavar="N", help="resize a folder's images, and cut out the middle NxN"
    )
    length = p.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=number, help=f"passes over the data (default {EPOCHS}, if no --minutes)")
    length.add_argument("--minutes", type=number, help="stop after so many minutes; fractions are fine")
    p.add_argument(
        "--batch-size", type=whole_number, default=model.batch_size, help="images a step (default %(default)s)"
    )
    p.add_argument("--lr", type=number, default=model.lr, help="learning rate at the start (default %(default)s)")
    p.add_argument("--seed", type=seed, default=Config.seed, help="of all random numbers (default %(default)s)")
    p.add_argument("--weights", metavar="FILE", help="start from the weights in a .safetensors file")
    _add_destination(p, argparse.SUPPRESS)
    add_options(p, model)
    for flag in ("--resume", "--config"):
        p.add_argument(flag, type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    p.set_defaults(run=_train)


def _add_destination(p: argparse.ArgumentParser, default: Any) -> None:
    p.add_argument("--out", type=Path, default=default, help="the run folder (default: the next free runs/MODEL-N)")
    p.add_argument("--dry-run", action="store_true", default=default, help="only say what it would cost")
    p.add_argument("--device", choices=DEVICES, default=default, help=WHERE)
    p.add_argument("--shard-optimizer", action="store_true", default=default,
                   help="of several ranks each keeps the optimizer's state of a part of the parameters")  # fmt: skip


def _shard(args: argparse.Namespace) -> None:
    if args.shard_optimizer and (ranks := parallel.current()).size > 1:
        ranks.sharded = True


def _train_again(args: argparse.Namespace) -> None:
    if args.resume is None and args.config is None:
        args.error("the following arguments are required: MODEL or --resume RUN or --config FILE")
    if args.resume is not None and (args.out or args.dry_run):
        raise ValueError(f"--resume goes on in the run's own folder, without --{'out' if args.out else 'dry-run'}")
    need_packages()
    _shard(args)
    from tinygen.training.loop import resume, train

    if args.resume is not None:
        resume(args.resume, device(args))
    else:
        config = Config.read(args.config)
        config.epochs = config.epochs if config.epochs or config.minutes else EPOCHS
        train(config, args.out, args.dry_run, device(args))


def _train(args: argparse.Namespace) -> None:
    if args.resume is not None or args.config is not None:
        flag, what = ("--resume RUN", "run") if args.resume is not None else ("--config FILE", "file")
        raise ValueError(f"{flag.split()[0]} goes on with the {what}'s own model and settings: tinygen train {flag}")
    need_packages()
    _shard(args)
    from tinygen.training.loop import train

    chosen = {p.name: getattr(args, p.name) for p in options(model_class(args.model))}
    epochs = args.epochs if args.epochs or args.minutes else EPOCHS
    weights = args.weights and str(Path(args.weights).absolute())
    config = Config(args.model, located(args.data), args.levels, chosen, args.seed, args.batch_size, args.lr, epochs,
                    args.minutes, weights, args.size)  # fmt: skip
    train(config, args.out, args.dry_run, device(args))
