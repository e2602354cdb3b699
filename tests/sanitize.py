"""Builds csrc/ with gcc's instruments and runs the kernels' tests on that build.

    python -m tests.sanitize [address thread coverage] [--full]

address   AddressSanitizer and UndefinedBehaviorSanitizer: every kernel on random shapes, and no memory left behind
          when an allocation fails
thread    ThreadSanitizer: four Python threads in kernels at once; two ranks of one process that train together
coverage  gcov: the share of csrc's lines that the tests of the kernels run

The sanitizers also have to report the faults that tests/kernels/planted.c has for them. Exit status 1 if anything was
found, or a planted fault wasn't. Without --full, fewer random cases: about a minute in all.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
COMPILER = os.environ.get("CC", "gcc")
COVERED = 0.95  # of the lines of csrc
ONCE = "-DINLINE=static __attribute__((unused))"  # the loops that are compiled again for every tile, just once


class Instrument(NamedTuple):
    flags: tuple[str, ...]
    runtime: str  # the library to load before Python
    environment: dict[str, str]
    tests: str  # pytest's -k
    cases: int  # of each kernel, without --full
    planted: dict[str, str]  # function of planted.c -> what the report says


INSTRUMENTS = {
    "address": Instrument(
        ("-O0", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"),
        "libasan.so",
        {"ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1", "PYTHONMALLOC": "malloc"},
        "test_definition or allocation_fails or absurd or fuzz or at_once or alignment or any_kind or special",
        25,
        {
            "planted_overrun": "heap-buffer-overflow",
            "planted_stack_overrun": "stack-buffer-overflow",
            "planted_shift": "shift exponent",
            "planted_leak": " in planted_leak ",
        },
    ),
    "thread": Instrument(
        ("-O1", "-g", "-fsanitize=thread"),
        "libtsan.so",
        {"TSAN_OPTIONS": "ignore_noninstrumented_modules=1:exitcode=66"},
        "at_once or number_of_threads",
        40,
        {"planted_race": "data race"},
    ),
    "coverage": Instrument(("-O0", "-g", "--coverage"), "", {}, "not 2_31 and not compiler and not forced", 60, {}),
}


def build(folder: Path, flags: tuple[str, ...]) -> Path:
    """A copy of tinygen and of the kernels' tests in folder, whose tinygen._native is built with these flags."""
    shutil.copytree(ROOT / "tinygen", folder / "tinygen", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    (folder / "tests").mkdir()
    for name in ("__init__.py", "conftest.py", "browser.py"):
        shutil.copy(ROOT / "tests" / name, folder / "tests")
    others = shutil.ignore_patterns("test_sanitize.py", "test_layout.py", "test_plain.py", "__pycache__")
    shutil.copytree(ROOT / "tests" / "kernels", folder / "tests" / "kernels", ignore=others)
    (folder / "tests" / "parallel").mkdir()
    for name in ("__init__.py", "together.py", "test_at_once.py"):
        shutil.copy(ROOT / "tests" / "parallel" / name, folder / "tests" / "parallel")
    for name in ("pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "csrc", folder / "csrc")
    setup = _load_setup()
    with contextlib.redirect_stdout(io.StringIO()):
        setup.ffi.emit_c_code(str(folder / "_native.c"))
    sources = [
        "_native.c",
        "tests/kernels/planted.c",
        *sorted(str(p.relative_to(folder)) for p in (folder / "csrc").rglob("*.c")),
    ]
    common = [f for f in setup.FLAGS if f != "-O3"]
    includes = ["-Icsrc", f"-I{sysconfig.get_paths()['include']}", f"-ffile-prefix-map={folder}=."]  # for ccache

    def compile_one(source):
        out = source.replace("/", "_").removesuffix(".c") + ".o"
        subprocess.run(
            [COMPILER, *common, ONCE, *flags, *includes, "-fPIC", "-c", source, "-o", out], cwd=folder, check=True
        )
        return out

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, sources))
    library = folder / "tinygen" / f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"
    link = [COMPILER, *flags, "-shared", "-pthread", *objects, "-lm", "-o", str(library)]
    subprocess.run(link, cwd=folder, check=True)
    return library


def _load_setup():
    spec = importlib.util.spec_from_file_location("setup_of_tinygen", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(command: list[str], folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    done = subprocess.run(
        command, cwd=folder, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def preloaded(instrument: Instrument) -> dict[str, str]:
    """The environment in which Python has the sanitizer's runtime."""
    if not instrument.runtime:
        return instrument.environment
    path = subprocess.run(
        [COMPILER, f"-print-file-name={instrument.runtime}"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return instrument.environment | {"LD_PRELOAD": path, "OPENBLAS_NUM_THREADS": "1"}


def with_leaks(environment: dict[str, str]) -> dict[str, str]:
    """Python leaves memory behind on its own, so this is not for every run.

    Up to gcc 13 the sanitizer takes some blocks of threads' variables, by where they lie, for those of a C library from
    before 2.25, and crashes as it reads what isn't there (github.com/google/sanitizers/issues/1322): it is to leave
    them alone.
    """
    leaks = "detect_leaks=1:intercept_tls_get_addr=0"
    return {name: value.replace("detect_leaks=0", leaks) for name, value in environment.items()}


def run_tests(instrument: Instrument, folder: Path, full: bool, tests: str = "tests") -> tuple[int, str]:
    environment = preloaded(instrument) | {
        "CI": "1",
        "TINYGEN_CASES": "500" if full else str(instrument.cases),
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-s",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:faulthandler",
        tests,
    ]
    return run([*command, "-k", instrument.tests], folder, environment)


def misses_planted(instrument: Instrument, folder: Path, library: Path) -> list[str]:
    """The planted faults that are not reported."""
    missed = []
    for function, report in instrument.planted.items():
        program = f"import tinygen.kernels, ctypes; ctypes.CDLL({str(library)!r}).{function}(0)"
        code, output = run([sys.executable, "-c", program], folder, with_leaks(preloaded(instrument)))
        if not code or report not in output:
            missed.append(f"{function} is not reported:\n{output}")
    return missed


def leaks(folder: Path, full: bool) -> list[str]:
    """The leaks with a line of csrc in their stack, after the tests in which allocations fail."""
    instrument = INSTRUMENTS["address"]
    instrument = instrument._replace(environment=with_leaks(instrument.environment), tests="allocation_fails and tg")
    _, output = run_tests(instrument, folder, full, "tests/kernels/test_kernels.py")
    if "LeakSanitizer has encountered a fatal error" in output:  # under a debugger, or without ptrace
        return [output]
    return [block for block in re.split(r"\n\n", output) if "leak of" in block and "csrc/" in block]


def coverage(folder: Path, root: Path) -> tuple[float, list[str]]:
    """The share of csrc's lines that ran, in any variant, and those that didn't; folder: of what gcov left in it."""
    _, output = run(["gcov", "-t", *map(str, folder.glob("csrc_*.gcda"))], root, {})
    ran: dict[tuple[str, int], bool] = {}
    source = ""
    for text in output.splitlines():
        match = re.match(r" *([-#=\d]+)\*?: *(\d+):(.*)", text)
        if match and match[2] == "0" and match[3].startswith("Source:"):
            source = match[3].removeprefix("Source:")
        elif match and match[1] != "-" and source.startswith("csrc/"):
            key = (source, int(match[2]))
            ran[key] = ran.get(key, False) or match[1][0].isdigit()
    return sum(ran.values()) / max(len(ran), 1), [f"{s}:{n}" for (s, n), r in sorted(ran.items()) if not r]


def check(name: str, full: bool) -> bool:
    """Build, run, and print what was found."""
    instrument = INSTRUMENTS[name]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        library = build(folder, instrument.flags)
        found = misses_planted(instrument, folder, library)
        code, output = run_tests(instrument, folder, full)
        summary = output.strip().splitlines()[-1]
        if code:
            found.append(output)
        if name == "address":
            found += leaks(folder, full)
        if name == "coverage":
            share, missing = coverage(folder, folder)
            summary += f"; {share:.1%} of csrc's lines ran, all but {', '.join(missing)}"
            if share < COVERED:
                found.append(f"less than {COVERED:.0%} of csrc's lines ran")
    print(*found, f"{name}: {'FAILED' if found else 'clean'}; {summary}", sep="\n", flush=True)
    return not found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("instruments", nargs="*", metavar="instrument", help="address, thread, coverage (all of them)")
    parser.add_argument("--full", action="store_true", help="500 random cases for each kernel")
    arguments = parser.parse_args()
    unknown = set(arguments.instruments) - set(INSTRUMENTS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(INSTRUMENTS)}")
    results = [check(name, arguments.full) for name in arguments.instruments or INSTRUMENTS]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
