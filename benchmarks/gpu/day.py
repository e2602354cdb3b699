"""python -m benchmarks.gpu: all that is to be done on the day with a GPU, in one command of about ten minutes.

Build; the tests of tests/cuda on the real CuPy; every kernel under compute-sanitizer, for memory and for races; then
the cases of `benchmarks.kernels.cases` beside PyTorch on the same GPU and beside the roofline. It needs no
network. A step that can't be done says why and the others go on; the results are written as JSON after every step.

A time is the median over calls of what lies between two events on the device. Calls take turns through so many copies
of the inputs that these don't fit into the cache together. PyTorch computes in float32, without TF32. Roofline: the
time that a case's operations take at the processors' peak, or its bytes (each input read and each result written once)
at the speed of a copy measured here, whichever is longer.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.kernels import cases
from benchmarks.kernels.cases import CASES, Case, Runs
from benchmarks.kernels.contestants import disagreement, torch_or_none
from tinygen import cuda
from tinygen.array import moved
from tinygen.cli import doctor
from tinygen.cli.parser import Parser

ROOT = Path(__file__).parents[2]
LEFT_OUT = ("Sampling", "Overhead of an op", "Import")  # sections that say nothing of a GPU
LANES = {"7.5": 64, "8.0": 64}  # float32 units of a multiprocessor; newer ones have 128
NEEDED = ("cffi", "setuptools", "pytest", "hypothesis", "pillow", "tqdm")  # beside CuPy and PyTorch
MAX_COPIES = 32
CALLS = 15
COPIED = 1 << 26  # numbers, far more than any cache holds


def main(argv: list[str] | None = None) -> int:
    """Do the steps, write the JSON. Exit code 1 if there is no GPU or a step failed."""
    args = parser().parse_args(argv)
    if args.kernels:
        return kernels()
    if reason := cuda.problem():
        print(f"benchmarks.gpu: {reason}", file=sys.stderr)
        return 1
    results: dict[str, Any] = {"machine": machine(), "steps": [], "rows": []}
    for name, step in steps(args).items():
        start = time.monotonic()
        try:
            said, ok = step(results), True
        except (OSError, RuntimeError, MemoryError, subprocess.SubprocessError) as e:
            said, ok = f"{type(e).__name__}: {e}", False
        seconds = round(time.monotonic() - start, 1)
        results["steps"].append({"step": name, "ok": ok, "seconds": seconds, "said": said})
        print(f"{name}: {'done' if ok else 'FAILED'} in {seconds:.0f} s: {said}", flush=True)
        args.out.write_text(json.dumps(results, indent=1))
    print(f"wrote {args.out}")
    return 0 if all(step["ok"] for step in results["steps"]) else 1


def parser() -> Parser:
    p = Parser(prog="python -m benchmarks.gpu", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("--out", type=Path, default=Path("gpu.json"), help="the JSON to write (default %(default)s)")
    p.add_argument("--wheels", type=Path, help="a folder of wheels to install what is missing from, without network")
    p.add_argument("--filter", default="", metavar="SUBSTRING", help="time only the cases with this in their names")
    p.add_argument("--seconds", type=float, default=240, help="of timing, at most (default %(default)s)")
    p.add_argument("--kernels", action="store_true", help="only run every kernel once: what the sanitizer looks at")
    return p


def steps(args: Any) -> dict[str, Callable[[dict[str, Any]], str]]:
    """What is done, in order: functions of the results so far that return what is to be said."""
    here = [sys.executable, "-m"]
    pip = [*here, "pip", "install", "-q", "--no-build-isolation", "--no-deps", "-e", "."]
    wheels = [*here, "pip", "install", "-q", "--no-index", "--find-links", str(args.wheels), *NEEDED]
    tests = [*here, "pytest", "-q", "-p", "no:cacheprovider", "tests/cuda"]
    tool = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")

    def sanitize(kind: str) -> str:
        if tool is None:
            raise FileNotFoundError("there is no compute-sanitizer; it comes with the CUDA toolkit")
        return run([tool, "--tool", kind, "--error-exitcode", "9", *here, "benchmarks.gpu", "--kernels"], 240)

    todo: dict[str, Callable[[dict[str, Any]], str]] = {}
    if args.wheels:
        todo["wheels"] = lambda results: run(wheels, 300)
    return todo | {
        "build": lambda results: run(pip, 300),
        "kernels": lambda results: run([*here, "benchmarks.gpu", "--kernels"], 120),
        "tests": lambda results: run(tests, 300, TINYGEN_GPU="1"),
        "memcheck": lambda results: sanitize("memcheck"),
        "racecheck": lambda results: sanitize("racecheck"),
        "timing": lambda results: time_all(results, args.filter, args.seconds),
    }


def run(command: list[str], seconds: float, **environment: str) -> str:
    """The last line that a command says. RuntimeError with its last lines if it fails."""
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, timeout=seconds, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    lines = done.stdout.strip().splitlines()
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: " + "\n".join(lines[-20:]))
    return lines[-1] if lines else "nothing said"


def kernels() -> int:
    """Every kernel on the GPU on all samples, held against its definition."""
    cupy = cuda.require()
    worst = doctor.kernel_errors(lambda array: moved(array, cupy))
    cupy.cuda.get_current_stream().synchronize()
    wrong = [name for name, error in worst.items() if not error <= 1]
    print(f"{len(worst)} kernels; wrong: {', '.join(wrong) or 'none'}")
    return 1 if wrong or not worst else 0


# ------------------------------------------------------------------------------------------------------ the machine


def machine() -> dict[str, Any]:
    """The GPU, and its two limits: float32 operations a second (worked out), bytes a second (of a copy, measured)."""
    cupy = cuda.require()
    p = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    capability = f"{p['major']}.{p['minor']}"
    clock = cupy.cuda.Device().attributes.get("ClockRate", 0) * 1e3
    source = cupy.ones(COPIED, "float32")
    copy = median_seconds([lambda: source.copy()] * 2, cupy_stopwatch, 0.2)
    return {
        "name": p["name"].decode(), "capability": capability, "CuPy": cupy.__version__,
        "flops": p["multiProcessorCount"] * LANES.get(capability, 128) * 2 * clock, "bytes": 2 * source.nbytes / copy,
        "cache": p["l2CacheSize"], "driver": cupy.cuda.runtime.driverGetVersion(),
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------- the timing

Stopwatch = Callable[[Callable[[], Any]], float]


def time_all(results: dict[str, Any], part: str, seconds: float) -> str:
    """Measure the cases into results["rows"]."""
    chosen = [c for c in CASES if c.section not in LEFT_OUT and part.lower() in c.name.lower() and (part or c.quick)]
    torch = torch_or_none()
    torch = torch if torch is not None and torch.cuda.is_available() else None
    each = seconds / max(1, 8 * len(chosen))
    with on_cuda(torch):
        for case in chosen:
            rows = measure(case, results["machine"], torch, each)
            results["rows"] += rows
            for row in rows:
                print(f"  {row['case']}, {row['what']}: {row['said']}", flush=True)
    wrong = sum(bool(row["wrong"]) for row in results["rows"])
    if wrong:
        raise RuntimeError(f"{wrong} of {len(results['rows'])} rows differ from PyTorch")
    return f"{len(results['rows'])} rows{'' if torch else '; PyTorch with CUDA is not installed'}"


@contextlib.contextmanager
def on_cuda(torch: Any = None) -> Iterator[None]:
    """Within it what the cases set up is on the GPU, on both sides."""
    before = cases.DEVICE
    if torch:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        cases.DEVICE = "cuda"
        with torch.device("cuda") if torch else contextlib.nullcontext():
            yield
    finally:
        cases.DEVICE = before


def measure(case: Case, limits: dict[str, Any], torch: Any, seconds: float) -> list[dict[str, Any]]:
    """A row for each thing that the case measures: medians, ratios, the share of the roofline."""
    sets = copies(case, limits["cache"])
    ours = [case.ours() for _ in range(sets)]
    theirs: dict[str, list[Runs]] = {}
    if torch:
        for name, build in case.theirs().items():
            theirs[name] = [build() for _ in range(sets)]
    rows = []
    for what, flops in case.flops.items():
        expected = ours[0][what]()
        errors = {name: disagreement(built[0][what](), expected) for name, built in theirs.items()}
        medians = {"tinygen": median_seconds([r[what] for r in ours], cupy_stopwatch, seconds)}
        for name, built in theirs.items():
            if errors[name] <= 10 * case.bound:  # TF32 is off, but sums come in another order
                medians[name] = median_seconds([r[what] for r in built], torch_stopwatch(torch), seconds)
        roof = max(flops / limits["flops"] if limits["flops"] else 0.0, traffic(case, what, expected) / limits["bytes"])
        rows.append({
            "case": case.name, "section": case.section, "what": what, "seconds": medians, "copies": sets,
            "wrong": {n: e for n, e in errors.items() if n not in medians}, "errors": errors,
            "roofline": roof, "share": roof / medians["tinygen"], "said": said(medians, roof),
        })  # fmt: skip
    return rows


def said(medians: dict[str, float], roof: float) -> str:
    mine = medians["tinygen"]
    best = min((t, n) for n, t in medians.items() if n != "tinygen") if len(medians) > 1 else None
    ratio = f", PyTorch's best ({best[1]}) over ours {best[0] / mine:.2f}" if best else ""
    return f"{mine * 1e3:.3f} ms{ratio}, {roof / mine:.0%} of the roofline"


def copies(case: Case, cache: int) -> int:
    """So many sets of inputs that they are three times what the cache holds."""
    size = sum(a.nbytes for a in case.arrays()) if case.arrays else cache
    return min(MAX_COPIES, 1 + 3 * cache // max(size, 1))


def traffic(case: Case, what: str, result: Any) -> float:
    """The bytes that must move: inputs in, results out; backward the same once more, with a gradient for each input."""
    if not case.arrays:
        return 0.0
    inputs = sum(a.nbytes for a in case.arrays())
    if what == "forward":
        return inputs + result.numpy().nbytes
    return 3 * inputs  # inputs twice and their gradients; the output and its gradient are left out


def median_seconds(runs: list[Callable[[], Any]], stopwatch: Stopwatch, seconds: float) -> float:
    """The median of calls that take turns through the runs, for so many seconds and at least CALLS times."""
    for one in runs:
        one()
    times: list[float] = []
    end = time.monotonic() + seconds
    while len(times) < CALLS or time.monotonic() < end:
        times.append(stopwatch(runs[len(times) % len(runs)]))
    return statistics.median(times)


def cupy_stopwatch(run: Callable[[], Any]) -> float:
    events = sys.modules["cupy"].cuda
    start, end = events.Event(), events.Event()
    start.record()
    run()
    end.record()
    end.synchronize()
    return events.get_elapsed_time(start, end) / 1e3


def torch_stopwatch(torch: Any) -> Stopwatch:
    def stopwatch(run: Callable[[], Any]) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3

    return stopwatch


if __name__ == "__main__":
    sys.exit(main())
