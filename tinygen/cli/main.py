"""The command line: what can be typed, and what is wrong with it. The commands' work is done in training/."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib.util
import inspect
import io
import math
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

from tinygen import cuda
from tinygen.console import Bar, say
from tinygen.models.gan.objectives import VARIANTS
from tinygen.models.model import Causal
from tinygen.models.registry import MODELS, model_class
from tinygen.training.config import Config, kind, located, options

EPOCHS = 20  # of training, if nothing is said of its length
DEVICES, WHERE = ("cpu", "cuda", "auto"), "where it computes; auto: on the GPU if there is one (default cpu)"


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
        unknown = message.partition("unrecognized arguments:")[2] or message.partition("invalid choice:")[2]
        words = [w.partition("=")[0].strip("',:()") for w in unknown.partition("(choose")[0].split()]
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
        with _terminable():
            return args.run(args) or 0
    except KeyboardInterrupt as e:
        say(f"interrupted{f': {e}' if e.args else ''}", sys.stderr)
        return 130
    except (ValueError, ArithmeticError, MemoryError, OSError, cuda.CudaError) as e:  # mended by the user
        say(f"tinygen {args.command}: {_told(e)}", sys.stderr)
        return 2 if isinstance(e, (ValueError, FileNotFoundError, FileExistsError)) else 1


def _told(e: Exception) -> str:
    """What an exception says, without Python's quirks."""
    if isinstance(e, OSError) and e.strerror:
        return f"{e.filename}: {e.strerror}" if e.filename else e.strerror  # str(e) begins with a number
    advice = "; a smaller --batch-size or model takes less" if isinstance(e, MemoryError) else ""
    return str(e).rstrip(".") + advice


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Within it SIGTERM ends a command as Ctrl-C does."""

    def stop(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt("terminated")

    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def parser() -> Parser:
    """All commands with their flags."""
    top = Parser(prog="tinygen", description="Generative models from scratch.")
    top.add_argument("--version", action=Version, nargs=0, help="say which tinygen this is, and exit")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    train = commands.add_parser("train", help="train a model; with no flags in seconds, on the embedded digits")
    again = train.add_mutually_exclusive_group()
    again.add_argument("--resume", metavar="RUN", type=Path, help="go on with a run that was interrupted; last: the "
                       "latest in runs/. Model and settings are the run's own")  # fmt: skip
    again.add_argument(
        "--config", metavar="FILE", type=Path, help="train as a TOML file says, such as a run's config.toml"
    )
    _add_destination(train, None)
    train.set_defaults(run=_train_again, error=train.error)
    models = train.add_subparsers(dest="model", metavar="MODEL")
    for name in MODELS:
        _add_train(models, name)
    _add_commands_of_runs(commands)
    causal = commands.add_parser("check-causal", help="prove that no output of a model sees its own or a later value")
    checked = causal.add_subparsers(dest="model", required=True, metavar="MODEL")
    for name in MODELS:
        if issubclass(model_class(name), Causal):
            _add_check_causal(checked, name)
    _add_toy(commands)
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
    p.add_argument("--weights", metavar="FILE", help="start from the weights in a .safetensors file")
    _add_destination(p, argparse.SUPPRESS)
    _add_options(p, model)
    for flag in ("--resume", "--config"):
        p.add_argument(flag, type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    p.set_defaults(run=_train)


def _add_destination(p: argparse.ArgumentParser, default: Any) -> None:
    p.add_argument("--out", type=Path, default=default, help="the run folder (default: the next free runs/MODEL-N)")
    p.add_argument("--dry-run", action="store_true", default=default, help="only say what it would cost")
    p.add_argument("--device", choices=DEVICES, default=default, help=WHERE)


def _add_commands_of_runs(commands: Any) -> None:
    def add(name: str, does: str, command: Any) -> argparse.ArgumentParser:
        p = commands.add_parser(name, help=does, description=does)
        p.add_argument("folder", metavar="RUN", type=Path, help="a run folder, such as runs/pixelcnn-1, or last; or a "
                       "checkpoint in it")  # fmt: skip
        p.add_argument("--seed", type=seed, default=0, help="of the random numbers (default %(default)s)")
        p.add_argument("--device", choices=DEVICES, default="cpu", help=WHERE)
        p.set_defaults(run=command)
        return p

    def add_out(p: argparse.ArgumentParser, file: str) -> None:
        p.add_argument("--out", type=Path, help=f"the file to write (default RUN/{file})")

    sample = add("sample", "draw images from a trained model", _sample)
    sample.add_argument("-n", type=whole_number, default=64, help="how many (default 64)")
    sample.add_argument("--temperature", type=temperature, default=1.0, help="below 1: likelier images (default 1)")
    sample.add_argument("--label", type=seed, help="of that class, for models of classes: 0, 1, ...")
    add_out(sample, "samples-SEED.png")
    add("evaluate", "the test figures of a trained model, beside those of trivial ones", _evaluate)
    for name, function in {k: f for model in MODELS for k, f in model_class(model).family.plots.items()}.items():
        about = (inspect.getdoc(function) or name).split("\n")[0].rstrip(".")
        add_out(add(name, about[0].lower() + about[1:], _draw), f"{name}-SEED.png")
    add_out(add("export", "write the weights for PyTorch, as plain .safetensors", _export), "weights.safetensors")


def _add_toy(commands: Any) -> None:
    p = commands.add_parser("toy", help="a GAN in the plane, drawn with what its discriminator thinks of every point")
    p.add_argument("--variant", choices=VARIANTS, default="non-saturating", help="(default %(default)s)")
    p.add_argument("--density", choices=("eight-gaussians", "swiss-roll"), default="eight-gaussians")
    p.add_argument("--steps", type=whole_number, default=2000, help="of the generator (default %(default)s)")
    p.add_argument("--lr", type=number, default=1e-3, help="learning rate at the start (default %(default)s)")
    p.add_argument("--seed", type=seed, default=0, help="of all random numbers (default %(default)s)")
    p.add_argument("--losses", action="store_true", help="instead draw both of the generator's losses over D(G(z))")
    p.add_argument("--out", type=Path, default=Path("toy.png"), help="the PNG to write (default %(default)s)")
    p.set_defaults(run=_toy)


def _add_check_causal(models: Any, name: str) -> None:
    p = models.add_parser(name, description="Prove by gradients that no output sees its own or a later value, and draw "
                          "what the middle pixel sees. The weights are random: the structure decides.")  # fmt: skip
    p.add_argument("--side", type=whole_number, default=11, help="height and width of the image (default %(default)s)")
    p.add_argument("--channels", type=whole_number, default=1, help="1 for grey, 3 for RGB (default %(default)s)")
    _add_options(p, model_class(name))
    p.set_defaults(run=_check_causal)


def _add_options(p: argparse.ArgumentParser, model: Any) -> None:
    own = p.add_argument_group("the model's own")
    for option in options(model):
        own.add_argument(f"--{option.name.replace('_', '-')}", default=option.default,
                         help="(default %(default)s)", **_reads(kind(option)))  # fmt: skip


def _reads(annotation: Any) -> dict[str, Any]:
    """How argparse reads an option of this type.

    bool is --flag and --no-flag, Literal["a", "b"] a choice, `int | None` read as int.
    """
    if get_origin(annotation) in (Union, UnionType):
        annotation = next(kind for kind in get_args(annotation) if kind is not type(None))
    choices = get_args(annotation) if get_origin(annotation) is Literal else None
    kind = type(choices[0]) if choices else annotation
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    return {"type": {int: integer, float: real}.get(kind, str), "choices": choices}


def _toy(args: argparse.Namespace) -> None:
    import numpy as np

    from tinygen.models.gan import toy
    from tinygen.report.images import save_plot

    _needs("PIL", "Pillow")
    _needs("tqdm", "tqdm")
    if args.losses:
        found = toy.loss_picture()
    else:
        game = toy.Toy(args.variant, args.density, lr=args.lr, rng=np.random.default_rng(args.seed))
        with Bar() as bar:
            game.train(args.steps, lambda done: bar.show(done, f"{args.variant} on {args.density}"))
        found = game.picture(np.random.default_rng(args.seed))
        if args.density == "eight-gaussians":
            modes, good = toy.modes_and_good(game.sample(10_000, np.random.default_rng(args.seed)))
            say(f"{modes} of 8 modes, {good:.1%} good samples (the density's own: 98.9%)")
    save_plot(args.out, found, 256)
    say(f"{found.caption}: {args.out}")


def _doctor(args: argparse.Namespace) -> int:
    from tinygen.cli import doctor

    return doctor.main()


def _train_again(args: argparse.Namespace) -> None:
    if args.resume is None and args.config is None:
        args.error("the following arguments are required: MODEL or --resume RUN or --config FILE")
    if args.resume is not None and (args.out or args.dry_run):
        raise ValueError(f"--resume goes on in the run's own folder, without --{'out' if args.out else 'dry-run'}")
    _needs_packages()
    from tinygen.training.loop import resume, train

    if args.resume is not None:
        resume(args.resume, _device(args))
    else:
        config = Config.read(args.config)
        config.epochs = config.epochs if config.epochs or config.minutes else EPOCHS
        train(config, args.out, args.dry_run, _device(args))


def _train(args: argparse.Namespace) -> None:
    if args.resume is not None or args.config is not None:
        flag, what = ("--resume RUN", "run") if args.resume is not None else ("--config FILE", "file")
        raise ValueError(f"{flag.split()[0]} goes on with the {what}'s own model and settings: tinygen train {flag}")
    _needs_packages()
    from tinygen.training.loop import train

    chosen = {p.name: getattr(args, p.name) for p in options(model_class(args.model))}
    epochs = args.epochs if args.epochs or args.minutes else EPOCHS
    weights = args.weights and str(Path(args.weights).absolute())
    config = Config(args.model, located(args.data), args.levels, chosen, args.seed, args.batch_size, args.lr, epochs,
                    args.minutes, weights)  # fmt: skip
    train(config, args.out, args.dry_run, _device(args))


def _check_causal(args: argparse.Namespace) -> int:
    import numpy as np

    from tinygen.gradcheck.causal import dependencies, picture, violations

    side, channels, rng = args.side, args.channels, np.random.default_rng(0)
    chosen = {p.name: getattr(args, p.name) for p in options(model_class(args.model))}
    model = model_class(args.model)((channels, side, side), 2, **chosen, rng=rng).to(np.float64).eval()
    label = model.condition.in_turn(1)
    matrix = dependencies(lambda x: model.logits(x, label), np.zeros(model.image_shape), channels=True)
    order = model.order()
    broken = violations(matrix[np.ix_(order, order)])
    for i, j in ((order[i], order[j]) for i, j in broken[:5]):
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


def _sample(args: argparse.Namespace) -> None:
    _commands().sample(_run(args), args.n, args.seed, args.temperature, args.label, args.out)


def _evaluate(args: argparse.Namespace) -> None:
    _commands().evaluate(_run(args), args.seed)


def _draw(args: argparse.Namespace) -> None:
    _commands().plot(_run(args), args.command, args.seed, args.out)


def _export(args: argparse.Namespace) -> None:
    _commands().export(_run(args), args.out)


def _run(args: argparse.Namespace) -> Any:
    from tinygen.training.run import Run

    run = Run.existing(args.folder)
    run.device = _device(args)
    return run


def _device(args: argparse.Namespace) -> str:
    return cuda.resolve(args.device or "cpu")


def _commands() -> Any:
    _needs_packages()
    from tinygen.training import commands

    return commands


def _needs_packages() -> None:
    for module, package in (("PIL", "Pillow"), ("tqdm", "tqdm")):
        _needs(module, package)


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
    with contextlib.suppress(ValueError):
        if 0 <= float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a number, at least 0, got {text!r}")


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
