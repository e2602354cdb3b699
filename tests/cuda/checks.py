"""The CUDA kernels in several builds of the emulator, and the faults that each has to find.

plain     every kernel on random shapes, in several orders of threads
address   the same under AddressSanitizer and UndefinedBehaviorSanitizer
thread    under ThreadSanitizer, to which every CUDA thread is a thread: a race is found also where the result is right
coverage  gcov: the share of the lines of csrc's .cu and .cuh files that these tests run
"""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

from tests import sanitize
from tests.cuda.build import ROOT, emulator

PLANTED = Path(__file__).with_name("planted.cu")
COVERED = 0.95  # of the lines of csrc's .cu and .cuh files
_NEVER = ("nothing", "nothing_in_warps", "nothing_in_blocks")  # planted.cu's kernels without a fault


class Build(NamedTuple):
    flags: tuple[str, ...]
    scheduler: tuple[str, ...]
    sanitizer: str  # of tests.sanitize.INSTRUMENTS, whose runtime and environment are needed
    cases: tuple[int, int]  # of each kernel: a sample, all
    planted: dict[str, str]  # function of planted.cu -> what the report says


BUILDS = {
    "plain": Build(
        ("-O1",), ("-O2",), "coverage", (24, 200),
        {
            "divergence": "exchange, block (0, 0, 0): not all threads reach one barrier",
            "warp_divergence": "waiting at tests/cuda/planted.cu:",
        },
    ),
    "address": Build(
        ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"),
        ("-O2", "-DEMULATOR_ASAN"), "address", (6, 60),
        {
            "shared_overrun": "heap-buffer-overflow",
            "global_overrun": "heap-buffer-overflow",
            "misaligned": "misaligned address",
        },
    ),
    "thread": Build(
        ("-O1", "-g", "-fsanitize=thread"), ("-O2", "-DEMULATOR_TSAN"), "thread", (3, 30),
        dict.fromkeys(("no_barrier", "warp_barrier", "lost_update", "blocks"), "data race"),
    ),
    "coverage": Build(("-O0", "--coverage"), ("-O2",), "coverage", (24, 60), {}),
}  # fmt: skip


def library(name: str, kernels: tuple[Path, ...] = ()) -> Path:
    build = BUILDS[name]
    return emulator(*build.flags, scheduler=build.scheduler, kernels=kernels)


def environment(name: str) -> dict[str, str]:
    """In which Python has the sanitizer's runtime."""
    found = sanitize.preloaded(sanitize.INSTRUMENTS[BUILDS[name].sanitizer])
    if name == "thread":  # thousands of threads, whose histories would fill the memory
        found["TSAN_OPTIONS"] += ":history_size=0"
    return found


def planted(name: str, function: str) -> tuple[int, str]:
    """A planted kernel's exit status and output, in a process of its own, on an array with nothing around it."""
    path = library(name, (ROOT / "csrc" / "runtime" / "cuda.cu", PLANTED))
    program = f"""
        import ctypes
        library, libc = ctypes.CDLL({str(path)!r}), ctypes.CDLL(None)
        libc.malloc.restype = ctypes.c_void_p
        x = (ctypes.c_float * 4096).from_address(libc.malloc(4096 * 4))
        x[:] = range(4096)
        code = library.planted_{function}(x)
        print("result", code, x[64], x[127])
    """
    return sanitize.run([sys.executable, "-c", textwrap.dedent(program)], ROOT, environment(name))


def misses(name: str) -> list[str]:
    """What this build should have found and didn't, and what it found where nothing is."""
    missed = []
    for function, report in BUILDS[name].planted.items():
        code, output = planted(name, function)
        if not code or report not in output:
            missed.append(f"planted_{function} is not reported:\n{output}")
    for function in _NEVER:
        code, output = planted(name, function)
        if code or not output.startswith("result 0"):
            missed.append(f"planted_{function} has no fault:\n{output}")
    return missed


def check(name: str, full: bool) -> bool:
    """Build, run, and print what was found."""
    path = library(name)
    folder = path.parent
    for old in folder.glob("*.gcda"):
        old.unlink()
    found = misses(name)
    settings = environment(name) | {
        "TINYGEN_EMULATOR": str(path),
        "TINYGEN_CUDA_CASES": str(BUILDS[name].cases[full]),
        "CI": "1",
        "GCOV_PREFIX": str(folder),  # instead of the folder, as deep, in which it was compiled
        "GCOV_PREFIX_STRIP": str(len(folder.parts) - 1),
    }
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:faulthandler", "tests/cuda/test_kernels.py"]
    code, output = sanitize.run([sys.executable, "-m", "pytest", *options], ROOT, settings)
    summary = output.strip().splitlines()[-1]
    if code:
        found.append(output)
    if name == "coverage":
        share, missing = sanitize.coverage(folder, ROOT)
        summary += f"; {share:.1%} of the lines ran, all but {', '.join(missing)}"
        if share < COVERED:
            found.append(f"less than {COVERED:.0%} of the lines ran")
    print(*found, f"{name}: {'FAILED' if found else 'clean'}; {summary}", sep="\n", flush=True)
    return not found


def main(names: list[str], full: bool) -> int:
    os.chdir(ROOT)
    results = [check(name, full) for name in names or BUILDS]
    return 0 if all(results) else 1
