"""`tinygen doctor`: what this machine has, whether every kernel agrees here with its NumPy definition, what to do.

A self-test walks the ops that have a kernel, on the samples that the tests use, and Adam: once for each instruction set
of the processor, and on the GPU where there is one. What counts as agreement is the rounding of a few dozen operations.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import shutil
import subprocess
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinygen import cuda, kernels, nn, nvcc, optim, reference
from tinygen._tensor import leaf
from tinygen.array import moved
from tinygen.kernels import library
from tinygen.tape import REGISTRY

OPTIONAL = {"pillow": "tinygen[train]", "tqdm": "tinygen[train]", "matplotlib": "tinygen[bench]"}


class Finding(NamedTuple):
    """A line of the report. state: "ok", "missing" (what works without it works), or "broken"."""

    state: str
    what: str
    found: str
    advice: str = ""


def main() -> int:
    """Print the report: 0 if what is needed works, else 1."""
    findings = []
    for finding in examine():
        mark = {"ok": "  ", "missing": " -", "broken": " !"}[finding.state]
        indent = " " * 18
        print(textwrap.fill(finding.found, 118, initial_indent=f"{mark} {finding.what:14} ", subsequent_indent=indent))
        if finding.advice:
            print(f"{indent}-> {finding.advice}", flush=True)
        findings.append(finding)
    broken = [f.what.strip() for f in findings if f.state == "broken"]
    print(f"broken: {', '.join(broken)}" if broken else "all that is needed works")
    return 1 if broken else 0


def examine() -> Iterator[Finding]:
    """All findings, in the order in which things build on each other."""
    version = importlib.metadata.version
    yield Finding("ok", "tinygen", f"{version('tinygen')}, in {Path(__file__).parent}")
    yield Finding("ok", "Python", f"{platform.python_version()}, {platform.platform(terse=True)}, {platform.machine()}")
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    yield Finding("ok", "NumPy", f"{np.__version__}, BLAS: {blas.get('name', 'none')} {blas.get('version', '')}")
    yield _compiler()
    yield from _c_kernels()
    yield from _gpu()
    for name, extra in OPTIONAL.items():
        try:
            yield Finding("ok", name, version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding("missing", name, "not installed", f"pip install '{extra}'")


# --------------------------------------------------------------------------------------------------- what there is


def _compiler() -> Finding:
    """The C compiler, which only an install needs."""
    name = os.environ.get("CC") or next(filter(shutil.which, ("gcc", "cc", "clang")), "")
    if not name:
        state = "ok" if kernels.available() else "missing"
        return Finding(state, "C compiler", "none", "" if kernels.available() else "install gcc: it builds the kernels")
    return Finding("ok", "C compiler", _first_line([*name.split(), "--version"]))


def _c_kernels() -> Iterator[Finding]:
    if not kernels.available():
        todo = "install a C compiler and Python's headers (python3-dev), then tinygen again"
        yield Finding("missing", "C kernels", "not built: the NumPy definitions run, which are slower", todo)
        return
    best = kernels.isa()
    yield Finding("ok", "C kernels", f"built; {best} in force; {kernels.get_num_threads()} threads")
    for isa in kernels.ISAS[: kernels.ISAS.index(best) + 1]:
        with kernels.instruction_set(isa):
            yield _self_test(isa, lambda array: array)


def _gpu() -> Iterator[Finding]:
    """From the driver up. Without a GPU all of it is optional."""
    compiler = nvcc.find()
    found = _first_line([compiler, "--version"], 3) if compiler else "none"
    yield Finding("ok" if compiler else "missing", "CUDA toolkit", found)
    if reason := cuda.problem():
        found, _, todo = reason.partition(": ")
        yield Finding("missing", "GPU", found, todo)
        return
    cupy = cuda.require()
    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    name, capability = properties["name"].decode(), f"{properties['major']}.{properties['minor']}"
    memory = f"{properties['totalGlobalMem'] / 2**30:.0f} GiB"
    yield Finding("ok", "GPU", f"{name}, {memory}, compute capability {capability}")
    yield Finding("ok", "CuPy", cupy.__version__)
    _, lib, why = cuda.library()
    if lib is None:
        todo = "install nvcc (the CUDA toolkit): it compiles them at their first use"
        yield Finding("broken" if compiler else "missing", "CUDA kernels", why, "" if compiler else todo)
        return
    yield Finding("ok", "CUDA kernels", "compiled")
    yield _self_test("cuda", lambda array: moved(array, cupy))


def _first_line(command: list[str], line: int = 0) -> str:
    """That line of what a program says of its version."""
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()
        return said[min(line, len(said) - 1)]
    except (OSError, IndexError, subprocess.SubprocessError) as e:
        return f"{command[0]} doesn't run: {e}"


# ----------------------------------------------------------------------------------------------------- the self-test


def _self_test(name: str, place: Callable[[np.ndarray], Any]) -> Finding:
    """Every kernel on arrays that `place` put on a device."""
    try:
        worst = kernel_errors(place)
    except Exception as e:  # whatever a broken build or driver does, the report goes on
        return Finding("broken", f"  {name}", f"the self-test failed: {type(e).__name__}: {e}", "install tinygen again")
    wrong = {kernel: error for kernel, error in worst.items() if not error <= 1}
    if wrong:
        told = ", ".join(f"{kernel} (by {error:.0e} roundings)" for kernel, error in wrong.items())
        return Finding("broken", f"  {name}", f"differ from their definitions: {told}", "install tinygen again")
    return Finding("ok", f"  {name}", f"{len(worst)} kernels agree with their definitions: {', '.join(sorted(worst))}")


def kernel_errors(place: Callable[[np.ndarray], Any]) -> dict[str, float]:
    """For each kernel that runs the largest difference from the definition, over what rounding allows."""
    worst: dict[str, float] = {}
    for dtype in (np.float32, np.float64):
        for fast, slow in (*_ops(dtype, place), _adam(dtype, place)):
            with library.every_size() as reached, warnings.catch_warnings():
                warnings.simplefilter("error")
                got = fast()
            with reference():
                wanted = slow()
            for kernel in (name.removeprefix("tg_") for name in reached):
                worst[kernel] = max(worst.get(kernel, 0.0), *map(_error, got, wanted))
    return worst


Pair = tuple[Callable[[], Any], Callable[[], Any]]


def _ops(dtype: Any, place: Callable[[np.ndarray], Any]) -> Iterator[Pair]:
    """Every sample of every op with a kernel: the kernel, and the definition, as functions without arguments."""
    for op in REGISTRY.values():
        if op.run is op.body or op.make_samples is None:
            continue
        for sample in op.make_samples(np.random.default_rng(0)):
            bound = op.signature.bind(*sample.args, **sample.kwargs)
            bound.apply_defaults()
            args = [_placed(a, dtype, place) for a in (*bound.args, *bound.kwargs.values())]
            yield functools.partial(_outputs, op.run, args), functools.partial(_outputs, op.body, args)


def _placed(value: Any, dtype: Any, place: Callable[[np.ndarray], Any]) -> Any:
    if isinstance(value, tuple):
        return tuple(_placed(v, dtype, place) for v in value)
    if not isinstance(value, np.ndarray):
        return value
    return place(value.astype(dtype) if value.dtype.kind == "f" else value)


def _outputs(fn: Callable[..., Any], args: list[Any]) -> list[Any]:
    result = fn(*args)
    return list(result) if isinstance(result, tuple) else [result]


def _adam(dtype: Any, place: Callable[[np.ndarray], Any]) -> Pair:
    def step() -> list[Any]:
        rng = np.random.default_rng(0)
        p, g = (place(rng.standard_normal((3, 4)).astype(dtype)) for _ in range(2))
        p = nn.Parameter(p)
        optimizer = optim.Adam([p], lr=0.1, weight_decay=0.1)
        for _ in range(3):
            p.grad = leaf(g)
            optimizer.step()
        return [p._array]

    return step, step


def _error(got: Any, wanted: Any) -> float:
    """The largest difference over the rounding of a few dozen operations; infinite where only one of them is NaN."""
    got, wanted = moved(got, np), moved(wanted, np)
    if got.shape != wanted.shape:
        return float("inf")
    if not got.size:
        return 0.0
    bound = 64 * np.finfo(wanted.dtype).eps * max(1.0, float(np.abs(wanted).max()))
    difference = float(np.abs(got - wanted).max())
    return difference / bound if difference == difference else float("inf")
