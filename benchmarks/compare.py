"""Results beside each other: of several instruction sets, and of two commits."""

from __future__ import annotations

from benchmarks import report
from benchmarks.report import Results

SLOWER = 0.9  # of what it was: below, a row is named


def columns(found: dict[str, Results]) -> str:
    """PyTorch's best time over tinygen's with each instruction set, at the largest number of threads, in Markdown."""
    parts = ["# tinygen and PyTorch, by instruction set", ""]
    parts += [f"- {isa}: {report.machine(results)}; {report.spread_line(results)}" for isa, results in found.items()]
    table: dict[tuple[str, str], dict[str, str]] = {}
    for isa, results in found.items():
        for row in sorted(results["rows"], key=lambda row: row["threads"]):
            best = report.best(row)
            table.setdefault((row["case"], row["what"]), {})[isa] = f"{best[1]:.2f}" if best else ""
    header = ["PyTorch's best / tinygen", "measured", *found]
    rows = [[*key, *(cells.get(isa, "") for isa in found)] for key, cells in table.items()]
    return "\n".join([*parts, "", *report.as_table(header, rows), ""])


def slower(before: Results, now: Results) -> list[str]:
    """A line for each row that has become slower, and one that says how many were compared.

    Measured is CPU time against PyTorch's best in the same run, where both have it: it depends least on the machine's
    mood. Else it is tinygen's own CPU time.
    """
    earlier = {_key(row): row for row in before["rows"]}
    pairs = [(earlier[_key(row)], row) for row in now["rows"] if _key(row) in earlier]
    changes = [(_change(old, new), new) for old, new in pairs]
    lines = [
        f"slower: {row['case']}, {row['what']}, threads {row['threads']}: {change:.2f} of the speed before"
        for change, row in changes
        if change < SLOWER
    ]
    summary = [f"compared {len(pairs)} rows: {len(lines)} slower"]
    isas = before["machine"]["isa"], now["machine"]["isa"]
    return lines + summary + ([f"before with {isas[0]}, now with {isas[1]}"] if isas[0] != isas[1] else [])


def _key(row: Results) -> tuple[str, str, int]:
    return row["case"], row["what"], row["threads"]


def _change(old: Results, new: Results) -> float:
    """The speed now over the speed before."""
    ratios = [[r for name, r in row["cpu_ratio"].items() if name.startswith("PyTorch")] for row in (old, new)]
    if all(ratios):
        return min(ratios[1]) / min(ratios[0])
    return old["seconds"]["tinygen"]["cpu"] / new["seconds"]["tinygen"]["cpu"]
