"""The commands that work on run folders: sample, evaluate, plot, export, probe, complete, hype, compare."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinygen.cli.parser import DEVICES, WHERE, device, file, need_packages, seed, temperature, whole_number
from tinygen.training.run import Run

IMAGES = 64  # that `sample` draws


def add(commands: Any) -> None:
    """Add the commands to the top parser's."""
    sample = _add(commands, "sample", "draw images from a trained model", _sample)
    sample.add_argument("-n", type=whole_number, default=IMAGES, help="how many (default %(default)s)")
    sample.add_argument("--temperature", type=temperature, default=1.0, help="below 1: likelier images (default 1)")
    told = sample.add_mutually_exclusive_group()
    told.add_argument("--label", type=seed, help="of that class, for models of classes: 0, 1, ...")
    told.add_argument("--caption", metavar="TEXT", help="of what it says, for textgan: 'a dark wide sneaker'")
    sample.add_argument("--steps", type=whole_number, help="from noise to image, for diffusion and its like: more are "
                        "slower and better (default: the run's)")  # fmt: skip
    sample.add_argument("--eta", type=temperature, help="noise on the way, for diffusion: 0 (DDIM) to 1 (DDPM)")
    sample.add_argument("--guidance", type=temperature, help="by how much to overdo the class, for diffusion: 0, 1, ..")
    _add_out(sample, "samples-SEED.png, with what else is given in its name")
    sample.add_argument("--page", type=file, metavar="FILE", help="instead, how one image is drawn value by "
                        "value: a page to play and to step through, of autoregressive models")  # fmt: skip
    _add(commands, "evaluate", "measure a trained model on the test set, beside trivial models", _evaluate)
    plot = _add(commands, "plot", "draw one of a model's plots; without a name: list them", _plot)
    plot.add_argument("name", metavar="NAME", nargs="?", help="such as complete, reconstruct, interpolate")
    _add_out(plot, "NAME-SEED.png")
    _add_out(_add(commands, "export", "write the weights for PyTorch", _export), "weights.safetensors")
    _add_probe(commands)
    _add_complete(commands)
    _add_hype(commands)
    _add_compare(commands)


def _add_probe(commands: Any) -> None:
    probe = _add(commands, "probe", "say how many classes the features of a model, or of several, tell by few labels",
                 _probe, several=True)  # fmt: skip
    probe.add_argument("--labels", type=whole_number, default=100, help="how many are used (default %(default)s)")
    probe.add_argument("--seeds", type=whole_number, default=5, help="how often they are drawn (default %(default)s)")
    probe.add_argument("--linear", action="store_true", help="without fine-tuning, which takes most of the time")


def _add_complete(commands: Any) -> None:
    about = "fill in the lower halves of the same test images by runs, side by side, and say how far off they are"
    p = _add(commands, "complete", about, _complete, several=True)
    p.add_argument("-n", type=whole_number, default=100, help="test images that are measured (default %(default)s)")
    p.add_argument("--draws", type=whole_number, default=8, help="of each, by models that draw (default %(default)s)")
    p.add_argument("--out", type=Path, default=Path("complete.png"), help="the picture (default %(default)s)")


def _add_hype(commands: Any) -> None:
    hype = _add(
        commands, "hype", "let people judge a model's samples beside real images, or score what they said", _hype
    )
    hype.add_argument(
        "-n", type=whole_number, help="images on the page, half of them real (default 100; 150 if --timed)"
    )
    hype.add_argument("--timed", action="store_true", help="show each only briefly, as long as a staircase says")
    _add_out(hype, "hype-SEED.html or hype-SEED-timed.html")
    hype.add_argument(
        "--score", type=Path, nargs="+", metavar="FILE", help="what people saved: say how often they erred"
    )


def _add_compare(commands: Any) -> None:
    about = "put runs beside each other on one page: metrics, curves, samples, cost"
    p = commands.add_parser("compare", help=about, description=about)
    p.add_argument("folders", metavar="RUN", type=Path, nargs="+", help="a run folder; two or more")
    p.add_argument("--out", type=Path, default=Path("compare.html"), help="the page to write (default %(default)s)")
    p.set_defaults(run=_compare)


def _add(
    commands: Any, name: str, does: str, command: Callable[[argparse.Namespace], None], several: bool = False
) -> argparse.ArgumentParser:
    """Add a command that takes a run; several: or more of them."""
    p = commands.add_parser(name, help=does, description=does)
    p.add_argument("folders" if several else "folder", metavar="RUN", type=Path, nargs="+" if several else None,
                   help="a run folder, such as runs/pixelcnn-1, or last; or a checkpoint in it")  # fmt: skip
    p.add_argument("--seed", type=seed, default=0, help="of the random numbers (default %(default)s)")
    p.add_argument("--device", choices=DEVICES, default="cpu", help=WHERE)
    p.set_defaults(run=command)
    return p


def _add_out(p: argparse.ArgumentParser, file: str) -> None:
    p.add_argument("--out", type=Path, help=f"the file to write (default RUN/{file})")


def _sample(args: argparse.Namespace) -> None:
    drawing = {name: getattr(args, name) for name in ("steps", "eta", "guidance")}
    label = args.label if args.caption is None else args.caption
    if args.page:
        if args.out or args.n != IMAGES:
            raise ValueError("--page shows how one image is drawn, without -n and --out")
        _commands().draw(_run(args), args.seed, args.temperature, label, args.page, **drawing)
        return
    _commands().sample(_run(args), args.n, args.seed, args.temperature, label, args.out, **drawing)


def _evaluate(args: argparse.Namespace) -> None:
    _commands().evaluate(_run(args), args.seed)


def _plot(args: argparse.Namespace) -> None:
    if args.name is None:
        _commands().list_plots(_run(args))
    else:
        _commands().plot(_run(args), args.name, args.seed, args.out)


def _export(args: argparse.Namespace) -> None:
    _commands().export(_run(args), args.out)


def _probe(args: argparse.Namespace) -> None:
    need_packages()
    from tinygen.training import probed

    seeds = range(args.seed, args.seed + args.seeds)
    probed.probe([_run(args, folder) for folder in args.folders], args.labels, seeds, not args.linear)


def _complete(args: argparse.Namespace) -> None:
    need_packages()
    from tinygen.training import completed

    completed.complete([_run(args, folder) for folder in args.folders], args.n, args.draws, args.seed, args.out)


def _hype(args: argparse.Namespace) -> None:
    need_packages()
    from tinygen.training import judged

    if args.score:
        if args.n or args.timed or args.out:
            raise ValueError("--score reads what people saved, without -n, --timed and --out, which make a page")
        judged.score(_run(args), args.score, args.seed)
    else:
        judged.write(_run(args), args.n, args.seed, args.timed, args.out)


def _compare(args: argparse.Namespace) -> None:
    _commands().compare([Run.existing(folder) for folder in args.folders], args.out)


def _run(args: argparse.Namespace, folder: Path | None = None) -> Run:
    run = Run.existing(folder or args.folder)
    run.device = device(args)
    return run


def _commands() -> Any:
    need_packages()
    from tinygen.training import commands

    return commands
