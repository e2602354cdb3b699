"""The command line: tinygen train | sample | check-causal | gradcheck | doctor. `tinygen COMMAND --help` says more."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib.util
import inspect
import io
import math
import sys
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

from tinygen.models import MODELS, model_class
from tinygen.training.progress import say
from tinygen.training.run import Config

EPOCHS = 20  # of training, if nothing is said of its length


class Parser(argparse.ArgumentParser):
    """argparse that suggests what was meant, and always exits 2 on bad usage."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, except that a command refuses unknown flags itself, since it knows what was meant."""
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return namespace, unknown

    def error(self, message: str) -> NoReturn:
        """Exit 2, with the nearest known word for each that isn't one."""
        known = [s for action in self._actions for s in (*action.option_strings, *map(str, action.choices or ()))]
        words = [w.partition("=")[0].strip("',:()") for w in message.partition("(choose")[0].split()]
        guesses = [m for w in words if w not in known for m in difflib.get_close_matches(w, known, 1)]
        hint = f" (did you mean {guesses[0]}?)" if guesses else ""
        self.exit(2, f"{self.prog}: {message}{hint}\n")


def main(argv: list[str] | None = None) -> int:
    """Run a command; gives the exit code: 0 done, 1 failed, 2 bad usage, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):  # a path's characters may be none of the terminal's
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["gradcheck"]:  # its flags are its own: it runs without the rest of tinygen
        from tinygen.gradcheck.command import main as gradcheck

        return gradcheck(argv[1:])
    args = parser().parse_args(argv)
    try:
        return args.run(args) or 0
    except KeyboardInterrupt as e:
        say(f"interrupted{f': {e}' if e.args else ''}", sys.stderr)
        return 130
    except (ValueError, ArithmeticError, MemoryError, OSError) as e:  # what a user can mend, in one sentence
        say(f"tinygen {args.command}: {e}", sys.stderr)
        return 2 if isinstance(e, (ValueError, FileNotFoundError, FileExistsError)) else 1


def parser() -> Parser:
    """All commands with their flags."""
    top = Parser(prog="tinygen", description="Generative models from scratch.")
    top.add_argument("--version", action=Version, nargs=0, help="say which tinygen this is, and exit")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    train = commands.add_parser("train", help="train a model; with no flags in seconds, on the embedded digits")
    train.add_argument("--resume", metavar="RUN", type=Path, help="go on with a run that was interrupted; last: the "
                       "latest in runs/. Model and settings are the run's own")  # fmt: skip
    train.set_defaults(run=_resume, error=train.error)
    models = train.add_subparsers(dest="model", metavar="MODEL")
    for name in MODELS:
        _add_train(models, name)
    sample = commands.add_parser("sample", help="draw images from a trained model")
    sample.add_argument("folder", metavar="RUN", type=Path, help="a run folder, such as runs/pixelcnn-1, or last")
    sample.add_argument("-n", type=whole_number, default=64, help="how many (default 64)")
    sample.add_argument("--seed", type=seed, default=0, help="of the random numbers (default %(default)s)")
    sample.add_argument("--temperature", type=temperature, default=1.0, help="below 1: likelier images (default 1)")
    sample.add_argument("--out", type=Path, help="the PNG to write (default RUN/samples-SEED.png)")
    sample.set_defaults(run=_sample)
    causal = commands.add_parser("check-causal", help="prove that no output of a model sees its own or a later value")
    checked = causal.add_subparsers(dest="model", required=True, metavar="MODEL")
    for name in MODELS:
        _add_check_causal(checked, name)
    commands.add_parser("gradcheck", help="check the gradients in a Python file, and say what is wrong with them")
    doctor = commands.add_parser("doctor", help="say what this machine has, and whether every kernel is right on it")
    doctor.set_defaults(run=_doctor)
    return top


def _add_train(models: Any, name: str) -> None:
    model = model_class(name)
    about = (inspect.getdoc(model) or "").split("\n")[0]
    p = models.add_parser(name, help=about, description=about)
    p.add_argument("--data", default="digits", metavar="NAME|FOLDER|FILE", help="default: the embedded digits")
    p.add_argument("--levels", type=whole_number, help="quantize to so many (2: threshold); default: the data's own")
    length = p.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=number, help=f"passes over the data (default {EPOCHS}, if no --minutes)")
    length.add_argument("--minutes", type=number, help="stop after so many minutes; fractions are fine")
    p.add_argument(
        "--batch-size", type=whole_number, default=model.batch_size, help="images a step (default %(default)s)"
    )
    p.add_argument("--lr", type=number, default=model.lr, help="learning rate at the start (default %(default)s)")
    p.add_argument("--seed", type=seed, default=Config.seed, help="of all random numbers (default %(default)s)")
    p.add_argument("--out", type=Path, help="the run folder (default: the next free runs/MODEL-N)")
    _add_options(p, model)
    p.add_argument("--resume", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    p.set_defaults(run=_train)


def _add_check_causal(models: Any, name: str) -> None:
    p = models.add_parser(name, description="Prove by gradients that no output sees its own or a later value, and draw "
                          "what the middle pixel sees. The weights are random: the structure decides.")  # fmt: skip
    p.add_argument("--side", type=whole_number, default=11, help="height and width of the image (default %(default)s)")
    p.add_argument("--channels", type=whole_number, default=1, help="1 for grey, 3 for RGB (default %(default)s)")
    _add_options(p, model_class(name))
    p.set_defaults(run=_check_causal)


def _add_options(p: argparse.ArgumentParser, model: Any) -> None:
    own = p.add_argument_group("the model's own")
    for option in _options(model):
        own.add_argument(f"--{option.name.replace('_', '-')}", default=option.default,
                         help="(default %(default)s)", **_reads(option.annotation, option.default))  # fmt: skip


def _options(model: Any) -> list[inspect.Parameter]:
    """The model's keyword arguments that have a default: its flags."""
    return [p for p in inspect.signature(model, eval_str=True).parameters.values() if p.default is not p.empty]


def _reads(annotation: Any, default: Any) -> dict[str, Any]:
    """How argparse reads an argument of a model: by its annotation, or without one by its default.

    bool is --flag and --no-flag, Literal["a", "b"] a choice, `int | None` read as int.
    """
    if get_origin(annotation) in (Union, UnionType):
        annotation = next(kind for kind in get_args(annotation) if kind is not type(None))
    choices = get_args(annotation) if get_origin(annotation) is Literal else None
    kind = type(choices[0]) if choices else type(default) if annotation is inspect.Parameter.empty else annotation
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    return {"type": {int: integer, float: real}.get(kind, str), "choices": choices}


def _doctor(args: argparse.Namespace) -> int:
    from tinygen import doctor

    return doctor.main()


def _resume(args: argparse.Namespace) -> None:
    if args.resume is None:
        args.error("the following arguments are required: MODEL or --resume RUN")
    _needs("PIL", "Pillow")
    _needs("tqdm", "tqdm")
    from tinygen.training.loop import resume

    resume(args.resume)


def _train(args: argparse.Namespace) -> None:
    if args.resume is not None:
        raise ValueError("--resume goes on with the run's own model and settings: tinygen train --resume RUN")
    _needs("PIL", "Pillow")
    _needs("tqdm", "tqdm")
    from tinygen.training.loop import train

    options = {p.name: getattr(args, p.name) for p in _options(model_class(args.model))}
    epochs = args.epochs if args.epochs or args.minutes else EPOCHS
    config = Config(
        args.model, args.data, args.levels, options, args.seed, args.batch_size, args.lr, epochs, args.minutes
    )  # fmt: skip
    train(config, args.out)


def _check_causal(args: argparse.Namespace) -> int:
    import numpy as np

    from tinygen.gradcheck.causal import blind_spot, dependencies, picture, violations

    side, channels, generator = args.side, args.channels, np.random.default_rng(0)
    options = {p.name: getattr(args, p.name) for p in _options(model_class(args.model))}
    model = model_class(args.model)((channels, side, side), 2, **options, generator=generator).to(np.float64).eval()
    matrix = dependencies(model, np.zeros(model.image_shape), channels=True)
    broken = violations(matrix)
    for i, j in broken[:5]:
        say(f"value {i} (row {i // channels // side}, column {i // channels % side}) sees value {j}, which comes later")
    if broken:
        say(f"{args.model} is not causal: {len(broken):,} dependencies on an output's own or a later value")
        return 1
    pixels = matrix.reshape(side * side, channels, side * side, channels)[:, 0].max(axis=-1)  # of a pixel's first value
    middle = side // 2 * side + side // 2
    unseen = sum(i == middle for i, _ in blind_spot(pixels))
    say(f"{args.model} is causal: of {matrix.size:,} gradients all to an output's own or a later value are exactly 0\n"
        f"the middle pixel (o) sees {middle - unseen} of the {middle} before it (#):\n"
        f"{picture(pixels, side, side).rstrip()}")  # fmt: skip
    return 0


def _sample(args: argparse.Namespace) -> None:
    _needs("PIL", "Pillow")
    from tinygen.training.evaluate import samples
    from tinygen.training.images import save_grid
    from tinygen.training.run import Run

    run = Run.existing(args.folder)
    _, model, _ = run.load()
    path = args.out or run.folder / f"samples-{args.seed}.png"
    if path.is_dir() or not path.parent.is_dir():  # drawing can take long: say so now
        raise ValueError(f"--out {path}: must be a file in a folder that exists")
    save_grid(path, samples(model, args.n, args.seed, args.temperature), model.levels)
    say(f"{args.n} samples: {path}")


def _needs(module: str, package: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ValueError(f"this command needs {package}: pip install 'tinygen[train]'")


def whole_number(text: str, least: int = 1) -> int:
    if not (text.isascii() and text.isdigit() and int(text) >= least):
        raise argparse.ArgumentTypeError(f"must be a whole number, at least {least}, got {text!r}")
    return int(text)


def integer(text: str) -> int:
    if not (text.isascii() and text.removeprefix("-").isdigit()):
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}")
    return int(text)


def seed(text: str) -> int:
    return whole_number(text, 0)


def temperature(text: str) -> float:
    return 0.0 if text == "0" else number(text)


def number(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")


def real(text: str) -> float:
    with contextlib.suppress(ValueError):
        if math.isfinite(float(text)):
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a number, got {text!r}")


class Version(argparse.Action):
    """Says the version, which is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from importlib.metadata import version

        say(f"tinygen {version('tinygen')}")
        parser.exit(0)


if __name__ == "__main__":
    sys.exit(main())
