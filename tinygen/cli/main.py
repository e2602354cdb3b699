"""The command line: which commands there are, and how they end. Each has a file of its own beside this one."""

from __future__ import annotations

import argparse
import contextlib
import io
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

from tinygen import cuda, parallel
from tinygen.cli import causal, families, models, runs, scale, tape, toy, train
from tinygen.cli.parser import Parser
from tinygen.console import say
from tinygen.parallel.mpi import job, wait_for_turn

USAGE = (ValueError, NotImplementedError, FileNotFoundError, FileExistsError)  # what was asked for can't be done


def main(argv: list[str] | None = None) -> int:
    """Run a command; gives the exit code: 0 done, 1 failed, 2 bad usage, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):  # a path's characters may be none of the terminal's
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["gradcheck"]:  # its flags are its own: it runs without the rest of tinygen
        from tinygen.gradcheck.command import main as gradcheck

        return gradcheck(argv[1:])
    with job() as codes:
        codes.append(_run(parser().parse_args(argv)))
    return codes[-1]


def _run(args: argparse.Namespace) -> int:
    """Run a command, and say why it can't be done."""
    try:
        if parallel.current().size > 1 and args.command not in ("train", "scale"):
            raise ValueError("only tinygen train can be shared by several ranks: start this one without mpiexec")
        with _terminable():
            return args.run(args) or 0
    except KeyboardInterrupt as e:
        wait_for_turn()
        say(f"interrupted{f': {e}' if e.args else ''}", sys.stderr)
        return 130
    except (*USAGE, ArithmeticError, MemoryError, OSError, cuda.CudaError) as e:  # mended by the user
        wait_for_turn()
        say(f"tinygen {args.command}: {_told(e)}", sys.stderr)
        return 2 if isinstance(e, USAGE) else 1


def parser() -> Parser:
    """All commands; their flags are added when they are used."""
    top = Parser(prog="tinygen", description="Generative models from scratch.")
    top.add_argument("--version", action=Version, nargs=0, help="say which tinygen this is, and exit")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    train.add(commands)
    runs.add(commands)
    families.add(commands)
    models.add(commands)
    causal.add(commands)
    toy.add(commands)
    tape.add(commands)
    scale.add(commands)
    commands.add_parser("gradcheck", help="check the gradients in a Python file, and say what is wrong with them")
    doctor = commands.add_parser("doctor", help="say what this machine has, and whether every kernel is right on it")
    doctor.set_defaults(run=_doctor)
    return top


def _doctor(args: argparse.Namespace) -> int:
    from tinygen.cli import doctor

    return doctor.main()


def _told(e: Exception) -> str:
    """The text of an exception, without Python's quirks."""
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


class Version(argparse.Action):
    """Prints the version, which is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from importlib.metadata import version

        say(f"tinygen {version('tinygen')}")
        parser.exit(0)


if __name__ == "__main__":
    sys.exit(main())
