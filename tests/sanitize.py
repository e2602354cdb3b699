"""Builds csrc/ with gcc's instruments and runs the kernels' tests on that build.

    python -m tests.sanitize [address thread coverage] [--full]

address   AddressSanitizer and UndefinedBehaviorSanitizer: every kernel on random shapes; no leak when memory runs out
thread    ThreadSanitizer: four Python threads in kernels at once
coverage  gcov: the share of csrc's lines that the tests of the kernels run

Each also runs a fault planted for it (tests/kernels/planted.c), which it has to report. Exit status 1 if anything was
found, or a planted fault wasn't. Without --full, a sample that takes about a minute in all.
"""

from __future__ import annotations

import argparse
import importlib.util
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


class Instrument(NamedTuple):
    flags: tuple[str, ...]
    runtime: str  # the library to load before Python
    options: dict[str, str]
    tests: str  # pytest's -k
    planted: dict[str, str]  # function of planted.c -> what the report says


INSTRUMENTS = {
    "address": Instrument(
        ("-O0", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"),
        "libasan.so",
        {
            "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:abort_on_error=0",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "PYTHONMALLOC": "malloc",
        },
        "definition or allocation or threads_at_once or absurd or fuzz",
        {
            "planted_overrun": "heap-buffer-overflow",
            "planted_stack_overrun": "stack-buffer-overflow",
            "planted_shift": "shift exponent",
        },
    ),
    "thread": Instrument(
        ("-O1", "-g", "-fsanitize=thread"),
        "libtsan.so",
        {"TSAN_OPTIONS": "ignore_noninstrumented_modules=1:exitcode=66:halt_on_error=0"},
        "threads_at_once or number_of_threads",
        {"planted_race": "data race"},
    ),
    "coverage": Instrument(("-O0", "-g", "--coverage"), "", {}, "not pip", {}),
}


def build(folder: Path, flags: tuple[str, ...]) -> Path:
    """A copy of tinygen and of the kernels' tests in folder, whose tinygen._native is built with these flags."""
    shutil.copytree(ROOT / "tinygen", folder / "tinygen", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    (folder / "tests").mkdir()
    for name in ("__init__.py", "conftest.py", "test_kernels.py"):
        shutil.copy(ROOT / "tests" / name, folder / "tests")
    shutil.copytree(ROOT / "tests" / "kernels", folder / "tests" / "kernels")
    for name in ("pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "csrc", folder / "csrc")
    setup = _load_setup()
    setup.ffi.emit_c_code(str(folder / "_native.c"))
    sources = ["_native.c", "tests/kernels/planted.c", *sorted(f"csrc/{p.name}" for p in (folder / "csrc").glob("*.c"))]
    warnings_off = [f for f in setup.FLAGS if f != "-O3"]
    includes = ["-Icsrc", f"-I{sysconfig.get_paths()['include']}"]

    def compile_one(source):
        out = source.replace("/", "_").removesuffix(".c") + ".o"
        subprocess.run([COMPILER, *warnings_off, *flags, *includes, "-fPIC", "-c", source, "-o", out], cwd=folder, check=True)
        return out

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, sources))
    library = folder / "tinygen" / f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"
    subprocess.run([COMPILER, *flags, "-shared", "-pthread", *objects, "-lm", "-o", str(library)], cwd=folder, check=True)
    return library


def _load_setup():
    spec = importlib.util.spec_from_file_location("setup_of_tinygen", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    print(build(Path(sys.argv[1]), tuple(sys.argv[2:])))
