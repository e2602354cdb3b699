"""What was measured, as JSON, as a table in Markdown and as charts."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from tinygen import kernels

Results = dict[str, Any]

BUSY = 0.5  # load average at the start from which others are in the way
SPREAD = 0.1  # of the peak over a run, from which its figures say nothing
BUSY_NOTE = """\
**The machine was busy when this began.** Then wall times with several threads say little (all wait for the thread that
has lost its core; PyTorch's spin meanwhile, to its disadvantage): look at the CPU time of a single thread."""


# ------------------------------------------------------------------------------------------------------------ machine


def new(torch: Any, threads: list[int], quick: bool) -> Results:
    """Results without any measurement yet."""
    machine = {
        "name": _cpu(), "cores": kernels.get_num_threads(), "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(), "numpy": np.__version__, "isa": kernels.isa(),
        "torch": torch.__version__ if torch else None, "load_start": load(), "load_end": None,
    }  # fmt: skip
    empty: Results = {"peak_gflops": {}, "peaks": [], "rows": [], "memory": [], "growth": []}
    return {"machine": machine, "quick": quick, "threads": threads} | empty


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown processor"


def load() -> float | None:
    """The load average of the last minute: processes that want a core, this one's threads among them."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def machine(results: Results) -> str:
    m = results["machine"]
    torch = f"PyTorch {m['torch']}" if m["torch"] else "no PyTorch"
    loads = f"load {m['load_start']}" + (
        f" at the start, {m['load_end']} at the end" if m["load_end"] is not None else ""
    )
    return (
        f"{m['name']}, {m['cores']} cores, {m['system']}; Python {m['python']}, NumPy {m['numpy']}, {torch}; "
        f"kernels: {m['isa']}; {loads}"
    )


def peak_line(results: Results, threads: int) -> str:
    products = results["peak_gflops"][str(threads)]
    best = max(products, key=lambda name: products[name])
    return f"peak, {_threads(threads)}: {products[best]:.0f} GFLOP/s ({best})"


def spread_line(results: Results) -> str:
    """How far the peak fell below its best during the run, and a warning where that is far."""
    peaks = results["peaks"]
    if not peaks:
        return "the peak was not measured during the run"
    best = max([*peaks, *results["peak_gflops"].get("1", {}).values()])
    said = f"peak of one thread, after each case: {min(peaks):.0f} to {max(peaks):.0f} GFLOP/s, at best {best:.0f}"
    if min(peaks) >= (1 - SPREAD) * best:
        return said
    return f"**{said}: others had a part of the processor. Don't quote these figures.**"


# ---------------------------------------------------------------------------------------------------------- one row


def versions(row: Results) -> dict[str, float]:
    """PyTorch's versions and their ratios: time over tinygen's."""
    return {name.removeprefix("PyTorch, "): r for name, r in row["ratio"].items() if name.startswith("PyTorch, ")}


def best(row: Results) -> tuple[str, float] | None:
    """PyTorch's fastest version and its ratio."""
    return min(versions(row).items(), key=lambda item: item[1], default=None)


def line(row: Results) -> str:
    """A row while it is being measured."""
    parts = [f"{row['case']}, {row['what']}, {_threads(row['threads'])}: tinygen {_time(row)}"]
    if (found := best(row)) is not None:
        usual = versions(row).get("usual")
        parts.append(
            "PyTorch/tinygen: " + (f"usual {usual:.2f}, " if usual else "") + f"best {found[1]:.2f} ({found[0]})"
        )
        parts.append(f"by CPU time {min(_cpu_ratios(row)):.2f}")
    if "reference" in row["ratio"]:
        parts.append(f"NumPy/tinygen {row['ratio']['reference']:.1f}")
    parts += [
        f"{name} {_milliseconds(s['median'])}"
        for name, s in row["seconds"].items()
        if name in ("NumPy", "Python alone")
    ]
    return "; ".join([*parts, *(f"NOT TIMED: {w}" for w in _wrong(row))])


def _wrong(row: Results) -> list[str]:
    return [f"{name} is off by {error:.1e}, more than {row['bound']:.0e}" for name, error in row["wrong"].items()]


def _cpu_ratios(row: Results) -> list[float]:
    return [r for name, r in row["cpu_ratio"].items() if name.startswith("PyTorch, ")]


def _time(row: Results) -> str:
    seconds, per = row["seconds"]["tinygen"], row["per"]
    return _milliseconds(seconds["median"] / per) + (" an op" if per > 1 else "")


def _milliseconds(seconds: float) -> str:
    if seconds < 1e-4:
        return f"{seconds * 1e6:.2f} us"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.2f} s"


def _threads(n: int) -> str:
    return f"{n} thread{'s' if n > 1 else ''}"


# ------------------------------------------------------------------------------------------------------------ Markdown

NOTES = """\
tinygen, median and minimum: wall time of a call, of calls in turn with all other columns'. GFLOP/s count useful
arithmetic only (a multiply-add twice, masked taps not at all), by the median; of peak: of what multiply-adds in the
registers alone reach in this run (dense 3x3 kernels can pass it: Winograd's algorithm multiplies less than is counted).
*usual*: PyTorch as usually written; *best*: the fastest of all PyTorch versions tried
(contiguous, channels_last, cropped masked kernels, torch.compile and fused Adam for training steps, ...), named in the
last column. Each of these ratios is PyTorch's wall time over tinygen's with equal thread counts: above 1 tinygen is
faster. *CPU, 1 thread*: the same with the CPU time of single-threaded calls, the steadiest figure on a machine that
others use too; of the best version by that measure. *NumPy*: tinygen's own NumPy definition (BLAS on one thread) over
its C kernel.

Backward goes through each library's autograd, and gives all gradients that the case asks for. tinygen reuses the memory
of earlier results (its own buffer pool); PyTorch allocates each result anew: part of the difference is that.
"""


def markdown(results: Results) -> str:
    """The tables: of each case one row for each thing measured, at the largest thread count."""
    parts = ["# tinygen and PyTorch, side by side", "", machine(results) + ".", ""]
    parts += [f"- {peak_line(results, int(n))}" for n in results["peak_gflops"]]
    if results["quick"]:
        parts.append("- A quick run: fewer cases, and little time for each.")
    parts.append(f"- {spread_line(results)}")
    if (results["machine"]["load_start"] or 0) > BUSY:
        parts.append(f"- {BUSY_NOTE}")
    parts += ["", NOTES]
    for section in dict.fromkeys(row["section"] for row in results["rows"]):
        parts += [f"## {section}", "", *_section(results, section), ""]
    if results["memory"]:
        parts += ["## Peak memory", "", *_memory(results), ""]
    if results["growth"]:
        parts += ["## Growth", "", *_growth(results), ""]
    wrong = [f"- {r['case']}, {r['what']}: {w}" for r in results["rows"] for w in _wrong(r)]
    if wrong:
        parts += ["## Not timed, because the results differ", "", *wrong, ""]
    return "\n".join(parts)


def _section(results: Results, section: str) -> list[str]:
    header = ["case", "measured", "threads", "tinygen, median", "min", "GFLOP/s", "of peak", "usual / tinygen",
              "best / tinygen", "best, CPU, 1 thread", "NumPy / tinygen", "best version"]  # fmt: skip
    rows = [row for row in results["rows"] if row["section"] == section]
    most = {(r["case"], r["what"]): r for r in sorted(rows, key=lambda r: r["threads"])}
    single = {(r["case"], r["what"]): r for r in rows if r["threads"] == 1}
    table = [_cells(row, single.get(key), results["peak_gflops"]) for key, row in most.items()]
    keep = [i for i in range(len(header)) if i < 5 or any(cells[i] != "" for cells in table)]
    return as_table([header[i] for i in keep], [[cells[i] for i in keep] for cells in table])


def _cells(row: Results, single: Results | None, peaks: Results) -> list[str]:
    seconds, found, ratios = row["seconds"]["tinygen"], best(row), versions(row)
    rate = row["flops"] / seconds["median"] / 1e9
    peak = max(peaks.get(str(row["threads"]), {"": 0}).values())
    cpu = min(_cpu_ratios(single), default=None) if single else None
    return [
        row["case"], row["what"], str(row["threads"]), _time(row), _milliseconds(seconds["min"] / row["per"]),
        f"{rate:.0f}" if rate else "", f"{100 * rate / peak:.0f} %" if rate and peak else "",
        _ratio(ratios.get("usual")), _ratio(found and found[1]), _ratio(cpu), _ratio(row["ratio"].get("reference")),
        found[0] if found else "",
    ]  # fmt: skip


def _ratio(r: float | None) -> str:
    return "" if r is None else f"{r:.2f}" if r < 10 else f"{r:.0f}"


def as_table(header: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]


def _memory(results: Results) -> list[str]:
    header = ["case", "measured", "threads", "contestant", "MB beyond the libraries", "MB of the process"]
    rows = [
        [r["case"], r["what"], str(r["threads"]), r["contestant"], f"{r['above']:.0f}", f"{r['peak']:.0f}"]
        for r in results["memory"]
    ]
    return [
        "Each in a process of its own, at most during three calls: inputs, weights and all that a call makes or keeps.",
        "",
        *as_table(header, rows),
    ]


def _growth(results: Results) -> list[str]:
    header = ["one thread", "from", "to", "tinygen grows as", "PyTorch's best grows as"]
    rows = []
    for panel in results["growth"]:
        ends, curves = [p["x"] for p in panel["points"]], _curves(panel)
        slopes = [f"x^{slope(ends, curves[n]):.2f}" if n in curves else "" for n in ("tinygen", "PyTorch's best")]
        rows.append([f"{panel['name']}: {panel['what']}, x = {panel['x']}", str(ends[0]), str(ends[-1]), *slopes])
    return as_table(header, rows)


def _curves(panel: Results) -> dict[str, list[float]]:
    """Median seconds along a panel: tinygen's, and the least of PyTorch's versions at each point."""
    curves: dict[str, list[float]] = {}
    for point in panel["points"]:
        medians = {name: s["median"] for name, s in point["seconds"].items()}
        curves.setdefault("tinygen", []).append(medians["tinygen"])
        theirs = [seconds for name, seconds in medians.items() if name.startswith("PyTorch")]
        if theirs:
            curves.setdefault("PyTorch's best", []).append(min(theirs))
    return curves


def slope(xs: list[float], ys: list[float]) -> float:
    """The exponent of growth over the second half of the points, where fixed costs matter least."""
    half = max(2, (len(xs) + 1) // 2)
    return statistics.linear_regression([math.log(x) for x in xs[-half:]], [math.log(y) for y in ys[-half:]]).slope


# -------------------------------------------------------------------------------------------------------------- files


def save(results: Results, folder: Path) -> None:
    """results.json, whole at every moment."""
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / "results.json.new"
    new.write_text(json.dumps(results, indent=1) + "\n")
    new.replace(folder / "results.json")


def read(folder: Path) -> Results:
    """The results in a folder. ValueError if there are none."""
    try:
        return json.loads((folder / "results.json").read_text())
    except OSError:
        raise ValueError(f"there are no results in {folder}: results.json is missing") from None


def write(results: Results, folder: Path) -> None:
    """results.json, results.md, and if matplotlib is installed ratios.png and growth.png."""
    save(results, folder)
    (folder / "results.md").write_text(markdown(results))
    written = ["results.json", "results.md"]
    try:
        import matplotlib
    except ImportError:
        print("no charts: matplotlib is not installed")
    else:
        matplotlib.use("agg")
        written += [
            name
            for name, draw in (("ratios.png", _draw_ratios), ("growth.png", _draw_growth))
            if draw(results, folder / name)
        ]
    print(f"written to {folder}: {', '.join(written)}")


def _draw_ratios(results: Results, path: Path) -> bool:
    """Bars: PyTorch's best over tinygen, of each row at the largest thread count. Whether there are any."""
    from matplotlib import pyplot as plt

    rows = {(r["case"], r["what"]): r for r in sorted(results["rows"], key=lambda r: r["threads"]) if versions(r)}
    if not rows:
        return False
    labels = [f"{case}: {what}" for case, what in rows]
    figure, axes = plt.subplots(figsize=(10, 1.2 + 0.28 * len(rows)), layout="constrained")
    places = range(len(rows))
    usual = [versions(r).get("usual", 1) for r in rows.values()]
    fastest = [min(versions(r).values()) for r in rows.values()]
    for ratios, height, color, label in (
        (usual, 0.8, "#c9d6e8", "PyTorch as usually written / tinygen"),
        (fastest, 0.5, "#2f5d9b", "PyTorch's best / tinygen"),
    ):
        axes.barh(places, [r - 1 for r in ratios], height, left=1, color=color, label=label)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    ticks = [
        t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if min(1, *fastest) / 2 < t < 2 * max(usual + fastest)
    ]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.set_yticks(places, labels, fontsize=7)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("wall time, PyTorch over tinygen (right of 1: tinygen is faster)")
    figure.suptitle("\n".join(textwrap.wrap(machine(results), 110)), fontsize=8)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return True


def _draw_growth(results: Results, path: Path) -> bool:
    """A panel for each thing that grows, both axes logarithmic. Whether there are any."""
    from matplotlib import pyplot as plt

    panels = results["growth"]
    if not panels:
        return False
    figure, grid = plt.subplots(1, len(panels), figsize=(4 * len(panels), 3.6), layout="constrained", squeeze=False)
    for axes, panel in zip(grid[0], panels, strict=True):
        xs = [p["x"] for p in panel["points"]]
        for name, seconds in _curves(panel).items():
            milliseconds = [1e3 * s for s in seconds]
            axes.loglog(xs, milliseconds, marker="o", label=f"{name}, x^{slope(xs, seconds):.2f}")
        axes.set_title(f"{panel['name']}\n{panel['what']}, one thread", fontsize=7)
        axes.set_xticks(xs, [f"{x:g}" for x in xs])
        axes.xaxis.set_minor_formatter("")
        axes.set_xlabel(panel["x"])
        axes.set_ylabel("ms")
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return True
