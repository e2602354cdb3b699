"""The CUDA kernels for the CPU: the .cu files of csrc/ compiled by g++ with csrc/emulator.

`emulator()` gives the library's path; it is opened with tinygen._cuda_abi's ffi and takes pointers to the CPU's memory.
What was built for the same sources and flags before is used again.
"""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMPILER = os.environ.get("CXX", "g++")
FLAGS = ["-std=c++17", "-fPIC", "-fvisibility=hidden", "-Icsrc"]
FLAGS += ["-Wall", "-Wextra", "-Wconversion", "-Wmissing-declarations", "-Werror"]
FLAGS += ["-Wno-unknown-pragmas"]  # those are nvcc's
SCHEDULER = Path("csrc/emulator/emulator.cpp")


@functools.cache
def emulator(*flags: str, scheduler: tuple[str, ...] = ("-O2",), kernels: tuple[Path, ...] = ()) -> Path:
    """The library of these .cu files (none: all of csrc), compiled with these flags (none: -O1), and the scheduler.

    Raises CalledProcessError if the compiler fails.
    """
    flags = flags or ("-O1",)
    files = [p.relative_to(ROOT) for p in kernels or sorted((ROOT / "csrc").rglob("*.cu"))]
    headers = sorted(p for p in (ROOT / "csrc").rglob("*") if p.suffix in (".h", ".cuh", ".cpp"))
    text = [sys.version, COMPILER, *FLAGS, *flags, "|", *scheduler, *map(str, files)]
    content = [p.read_bytes() for p in [*map(ROOT.joinpath, files), *headers]]
    digest = hashlib.sha256(b"\0".join([*(t.encode() for t in text), *content])).hexdigest()
    folder = ROOT / "build" / f"emulator-{digest[:16]}"
    if not (folder / "emulator.so").exists():
        (ROOT / "build").mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=ROOT / "build") as temporary:
            _build(Path(temporary), files, flags, scheduler)
            folder.mkdir(exist_ok=True)
            for made in Path(temporary).iterdir():
                made.replace(folder / made.name)  # by one process or by several: the same files
    return folder / "emulator.so"


def _build(folder: Path, kernels: list[Path], flags: tuple[str, ...], scheduler: tuple[str, ...]) -> None:
    def compile_one(source: Path) -> str:
        own = scheduler if source == SCHEDULER else ("-x", "c++", *flags)
        out = str(folder / f"{'_'.join(source.with_suffix('').parts)}.o")
        run([COMPILER, *FLAGS, *own, "-c", str(source), "-o", out])
        return out

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, [SCHEDULER, *kernels]))
    sanitizers = [f for f in flags if f.startswith("-fsanitize") or f == "--coverage"]
    run([COMPILER, "-shared", "-pthread", *sanitizers, *objects, "-o", str(folder / "emulator.so")])


def run(command: list[str]) -> None:
    subprocess.run(command, cwd=ROOT, check=True)


if __name__ == "__main__":
    print(emulator())
