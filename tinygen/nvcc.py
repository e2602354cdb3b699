"""The CUDA kernels, compiled by nvcc when they are needed: at the first use of a GPU, for that GPU alone.

The library is kept in the cache folder, under a name that changes with the sources.

    python -m tinygen.nvcc           compiles them now, for every architecture of ARCHITECTURES and those after
    python -m tinygen.nvcc 80 90     for these (compute capability 8.0 and 9.0)

A library that was compiled so serves a GPU without nvcc, too, once the cache folder is copied to its machine.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tinygen.cache import cache_folder

ARCHITECTURES = (75, 80, 86, 89, 90)  # compiled without a warning or a spill: benchmarks/gpu/cuda.py sees to it
FLAGS = ["-std=c++17", "-O3", "-Xcompiler", "-fPIC,-fvisibility=hidden"]
STRICT = ["-Werror", "all-warnings", "-Xptxas", "-warn-spills,-warn-lmem-usage,-Werror"]
LINK = ["-shared", "-cudart", "static", "-Xfatbin", "-compress-all", "-t0"]  # -t0: one thread for each processor


class NvccError(RuntimeError):
    """The CUDA kernels can't be compiled; the message says why."""


def folder() -> Path:
    """csrc/: inside of an installed package, or beside it in a checkout."""
    here = Path(__file__).parent
    return next((p for p in (here / "csrc", here.parent / "csrc") if p.is_dir()), here / "csrc")


def sources(pattern: str = "*.cu") -> list[Path]:
    """The files of csrc/ like this, but for those of the emulator, relative to the folder that csrc/ is in."""
    root = folder()
    return sorted(p.relative_to(root.parent) for p in root.rglob(pattern) if "emulator" not in p.parts)


def find() -> str | None:
    """NVCC of the environment (empty: none), one on the path, or that of CUDA's usual place."""
    if "NVCC" in os.environ:
        return os.environ["NVCC"] or None
    return shutil.which("nvcc") or shutil.which("nvcc", path=os.environ.get("CUDA_HOME", "/usr/local/cuda") + "/bin")


def command(nvcc: str, out: Path, architectures: Sequence[int], newer: bool) -> list[str]:
    """The command, run beside csrc/, that compiles a library which needs no CUDA to be loaded.

    newer: as PTX, too, from which drivers compile for later architectures. Architectures that are known are compiled
    strictly; what a new one, or a new nvcc, warns of is no reason to go without kernels.
    """
    codes = [f"arch=compute_{a},code=sm_{a}" for a in architectures]
    codes += [f"arch=compute_{architectures[-1]},code=compute_{architectures[-1]}"] * newer
    targets = [flag for code in codes for flag in ("-gencode", code)]
    strict = STRICT if tuple(architectures) == ARCHITECTURES else []
    return [nvcc, *LINK, *FLAGS, *strict, *targets, "-Icsrc", *map(str, sources()), "-o", str(out)]


def cached(name: str) -> Path:
    """Where the library of these sources for an architecture, or for all, is kept."""
    digest = hashlib.sha256(" ".join([*LINK, *FLAGS]).encode())
    for path in (*sources(), *sources("*.cuh"), *sources("*.h")):
        digest.update(b"\0" + (folder().parent / path).read_bytes())
    return cache_folder() / f"cuda-{digest.hexdigest()[:16]}-{name}.so"


def library(architecture: int) -> Path:
    """The library for a GPU of this architecture (90: compute capability 9.0), compiled if there is none yet.

    Raises NvccError, saying why, if that can't be done.
    """
    found = next(filter(Path.exists, (cached(f"sm{architecture}"), cached("all"))), None)
    return found or build([architecture], f"sm{architecture}")


def build(architectures: Sequence[int], name: str) -> Path:
    """Compile the library for these architectures into the cache folder; one line says so. Raises NvccError."""
    nvcc, out = find(), cached(name)
    if nvcc is None:
        raise NvccError("no nvcc found, which compiles them at their first use (install the CUDA toolkit)")
    if not sources():
        raise NvccError(f"there are no sources in {folder()}")
    many = f"{len(architectures)} architectures" if len(architectures) > 1 else f"sm_{architectures[0]}"
    print(f"tinygen: compiling the CUDA kernels for {many} with {nvcc}, once: about a minute", file=sys.stderr)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent) as aside:  # another process never sees half of it
            part = Path(aside) / out.name
            line = command(nvcc, part, architectures, newer=name == "all")
            done = subprocess.run(line, cwd=folder().parent, capture_output=True, text=True, check=False)
            if done.returncode:
                said = (done.stderr + done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
                raise NvccError(f"{nvcc} failed: {next((s for s in said if 'error' in s.lower()), said[0])}")
            part.replace(out)
    except OSError as e:
        raise NvccError(f"{nvcc}: {e}") from e
    return out


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tinygen.nvcc", description="Compile the CUDA kernels now.")
    parser.add_argument("architectures", nargs="*", type=int, metavar="architecture", help="such as 90 (default: all)")
    asked = parser.parse_args().architectures
    try:
        for architecture in asked:
            print(build([architecture], f"sm{architecture}"))
        if not asked:
            print(build(ARCHITECTURES, "all"))
    except NvccError as e:
        print(f"tinygen.nvcc: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
