"""python -m benchmarks: tinygen's kernels, its NumPy definitions and PyTorch, side by side in one process."""

from __future__ import annotations

import argparse
import os
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy's own threads would get in the way of the others'

import gc
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import compare, report, timing
from benchmarks.kernels import memory
from benchmarks.kernels.cases import CASES, GROWTH, Case, Growth, Runs
from benchmarks.kernels.contestants import contestants, disagreement, torch_or_none
from tinygen import kernels
from tinygen.cli.parser import Parser, whole_number

PYTORCH_TO_AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2",
    # what torch.compile keeps of one instruction set crashes with another
    "TORCHINDUCTOR_CACHE_DIR": os.path.join(tempfile.gettempdir(), "torchinductor_avx2"),
}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and write results.json, results.md and charts. Exit code 1 if contestants disagreed."""
    argv = sys.argv[1:] if argv is None else argv
    args = parser().parse_args(argv)
    try:
        return each_isa(args, argv) if len(args.isa) > 1 else one_isa(args)
    except ValueError as e:
        print(f"benchmarks: {e}", file=sys.stderr)
        return 2


def one_isa(args: Any) -> int:
    with kernels.instruction_set(args.isa[0]) as isa:
        if isa == "avx2":
            os.environ |= PYTORCH_TO_AVX2  # PyTorch's libraries read it when they are loaded, which is below
        return run(args)


def each_isa(args: Any, argv: list[str]) -> int:
    """A process for each instruction set, since PyTorch keeps the one that it began with; then one table of all."""
    codes = []
    for isa in args.isa:  # of a flag that is given twice, the last one counts
        command = [sys.executable, "-m", "benchmarks", *argv, "--isa", isa, "--out", str(args.out / isa)]
        command += ["--compare", str(args.compare / isa)] if args.compare else []
        codes.append(subprocess.run(command, check=False).returncode)
        if codes[-1] not in (0, 1):
            return codes[-1]
    found = {isa: report.read(args.out / isa) for isa in args.isa}
    (args.out / "results.md").write_text(compare.columns(found))
    print(f"written to {args.out}: results.md")
    return max(codes)


def run(args: Any) -> int:
    """Measure with the instruction set that is in force."""
    everything = args.filter or not args.quick
    chosen = [c for c in CASES if _matches(args.filter, c.name) and (c.quick or everything)]
    panels = [g for g in GROWTH if _matches(args.filter, f"growth, {g.name}") and everything]
    if not chosen and not panels:
        names = "\n  ".join([*(c.name for c in CASES), *(f"growth, {g.name}" for g in GROWTH)])
        print(f"benchmarks: no case has {args.filter!r} in its name; there are\n  {names}", file=sys.stderr)
        return 2
    if not kernels.available():
        print("benchmarks: tinygen's C library was not built, so there is nothing to compare", file=sys.stderr)
        return 1
    torch = torch_or_none()
    if torch is None:
        print("PyTorch is not installed: tinygen's NumPy definitions against its C kernels only")
    results = report.new(torch, args.threads, args.quick)
    print(report.machine(results))
    if args.resume:
        resume(results, args.out)
    before = report.read(args.compare) if args.compare else None
    try:
        measure_all(results, chosen, panels, torch, args.out)
    except KeyboardInterrupt:
        print("interrupted: writing what there is", file=sys.stderr)
        results["interrupted"] = True
    results["machine"]["load_end"] = report.load()
    report.write(results, args.out)
    print(report.spread_line(results))
    if before:
        print("\n".join(compare.slower(before, results)))
    return 130 if "interrupted" in results else 1 if any(row["wrong"] for row in results["rows"]) else 0


def _matches(part: str, name: str) -> bool:
    return part.lower() in name.lower()


def parser() -> Parser:
    p = Parser(prog="python -m benchmarks", description=__doc__)
    p.add_argument("--quick", action="store_true", help="fewer cases, less time for each: about two minutes")
    p.add_argument("--filter", default="", metavar="SUBSTRING", help="only cases with this in their names")
    p.add_argument("--threads", type=thread_counts, metavar="N[,M]", default=sorted({1, kernels.get_num_threads()}),
                   help="thread counts, for both libraries (default: 1 and all cores)")  # fmt: skip
    p.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder to write (default %(default)s)")
    p.add_argument("--isa", type=instruction_sets, metavar="NAME[,NAME]", default=["avx512"],
                   help="instruction sets, for both libraries: avx2, avx512 (default: the machine's best)")  # fmt: skip
    p.add_argument(
        "--resume", action="store_true", help="go on with a run that was broken off: its cases stand in --out"
    )
    p.add_argument("--compare", type=Path, metavar="FOLDER", help="the results of another commit: what got slower")
    return p


def instruction_sets(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        with kernels.instruction_set(name if name in kernels.ISAS else "avx512") as in_force:
            if name != in_force:
                raise argparse.ArgumentTypeError(f"{name!r} is not one of this machine's instruction sets")
    return names


def resume(results: dict[str, Any], folder: Path) -> None:
    """Take over what an earlier run has measured. ValueError if it wasn't of the same machine and settings."""
    earlier = report.read(folder)
    same = ("name", "isa", "torch", "numpy", "cores")
    if [earlier["machine"][k] for k in same] != [results["machine"][k] for k in same] or any(
        earlier[k] != results[k] for k in ("quick", "threads")
    ):
        raise ValueError(f"--resume: {folder} is of another machine or other settings: {report.machine(earlier)}")
    for name in ("peak_gflops", "peaks", "rows", "memory", "growth"):
        results[name] = earlier[name]


def thread_counts(text: str) -> list[int]:
    return sorted({whole_number(part) for part in text.split(",")})


def measure_all(results: dict[str, Any], chosen: list[Case], panels: list[Growth], torch: Any, folder: Path) -> None:
    """Fill the results, saying each line as it is known; after each case they are in the folder, too."""
    quick, all_threads = results["quick"], results["threads"]
    done = {row["case"] for row in results["rows"]} | {panel["name"] for panel in results["growth"]}
    seconds = 0.15 if quick else 0.6
    measure_peaks(results, seconds, torch)
    for case in (c for c in chosen if c.name not in done):
        rows = []
        for threads in all_threads if case.threads else [1]:
            timing.use_threads(threads, torch)
            for row in measure(case, threads, seconds, quick, torch is not None):
                rows.append(row)
                print(report.line(row), flush=True)
        results["rows"] += rows
        if case.memory:
            results["memory"] += measure_memory(case, all_threads[-1], quick, torch is not None)
        results["peaks"].append(timing.share_of_peak())
        report.save(results, folder)
    timing.use_threads(1, torch)
    for panel in (p for p in panels if p.name not in done):
        results["growth"].append(measure_growth(panel, seconds / 2, torch is not None))
    measure_peaks(results, seconds, torch)


def measure_peaks(results: dict[str, Any], seconds: float, torch: Any) -> None:
    """At the start and at the end, since a shared machine isn't always at its best; the better counts."""
    for n in results["threads"]:
        timing.use_threads(n, torch)
        before, now = results["peak_gflops"].setdefault(str(n), {}), timing.peak(seconds, torch)
        results["peak_gflops"][str(n)] = {name: max(rate, before.get(name, 0)) for name, rate in now.items()}
        print(report.peak_line(results, n), flush=True)


def set_up(case: Case, quick: bool, with_torch: bool) -> dict[str, Runs]:
    """All contestants, torch.compile where it works (it needs a C++ compiler) and if there is time for it."""
    runs = {}
    for name, build in contestants(case, with_torch).items():
        compiles = "torch.compile" in name
        if compiles and quick:
            continue
        try:
            runs[name] = build()
        except Exception as e:
            if not compiles:
                raise
            print(f"{name}: left out: {type(e).__name__}: {e}".splitlines()[0], file=sys.stderr)
    return runs


def measure(case: Case, threads: int, seconds: float, quick: bool, with_torch: bool) -> list[dict[str, Any]]:
    """One row for each thing measured. Contestants that don't agree with tinygen are not timed, but named."""
    runs = set_up(case, quick, with_torch)
    rows = []
    for what, flops in case.flops.items():
        errors: dict[str, float] = {}
        for _ in range(2):  # the second time from the state that the first one left, if it left one
            expected = runs["tinygen"][what]()
            for name, of in runs.items():
                error = disagreement(of[what](), expected) if name != "tinygen" else 0.0
                errors[name] = max(error, errors.get(name, 0.0))
            del expected
        agreed = {name: of[what] for name, of in runs.items() if errors[name] <= case.bound}
        gc.collect()
        timings = timing.alternate(agreed, seconds * case.seconds)
        rows.append({
            "case": case.name, "section": case.section, "what": what, "threads": threads, "flops": flops,
            "per": case.per, "load": report.load(), "bound": case.bound, "errors": errors,
            "wrong": {n: e for n, e in errors.items() if n not in agreed},
            "seconds": {name: t.summary() for name, t in timings.items()},
            "ratio": {name: timing.ratio(t, timings["tinygen"]) for name, t in timings.items()},
            "cpu_ratio": {name: timing.ratio(t, timings["tinygen"], "cpu") for name, t in timings.items()},
        })  # fmt: skip
    return rows


def measure_memory(case: Case, threads: int, quick: bool, with_torch: bool) -> list[dict[str, Any]]:
    """The peak memory of each contestant, in a process of its own, for the last thing that the case measures."""
    names = [n for n in contestants(case, with_torch) if n != "reference" and "torch.compile" not in n]
    what = list(case.flops)[-1]
    row = {"case": case.name, "what": what, "threads": threads}
    return [
        row | {"contestant": n} | memory.measure(case.name, n, what, threads) for n in names[: 2 if quick else None]
    ]


def measure_growth(panel: Growth, seconds: float, with_torch: bool) -> dict[str, Any]:
    """The median time of each contestant along a panel's x, on one thread: what several cost to start isn't growth."""
    points: list[dict[str, Any]] = []
    what = list(panel.case(panel.values[0]).flops)[-1]
    for x in panel.values:
        case = panel.case(x)
        runs = {n: b()[what] for n, b in contestants(case, with_torch).items() if "torch.compile" not in n}
        for run in runs.values():
            run()
        timings = timing.alternate(runs, seconds)
        points.append({"x": x, "seconds": {name: t.summary() for name, t in timings.items()}})
        print(
            f"growth, {panel.name}: {panel.x} {x}, {points[-1]['seconds']['tinygen']['median'] * 1e3:.3f} ms",
            flush=True,
        )
    return {"name": panel.name, "x": panel.x, "what": what, "points": points}


if __name__ == "__main__":
    start = time.monotonic()
    code = main()
    print(f"{time.monotonic() - start:.0f} s")
    sys.exit(code)
