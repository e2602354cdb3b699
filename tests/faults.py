"""Which of the faults that tinygen has to survive are covered by a test that passes: `python -m tests.faults`.

It runs the tests that carry `@pytest.mark.fault("R04", ...)` and prints a table; with `--full` all of the long ones
(200 times kill -9, ...), else a sample. Other arguments go to pytest (`-n auto`, `tests/cli/test_cli.py`, ...). A fault
is green if a test of it passed and none failed. What no test covers isn't green, nor is what was not run; those that
need a GPU are counted apart. Exit code 0 if all the others are green.
"""

from __future__ import annotations

import os
import sys
from collections import Counter

import pytest

GROUPS = {
    "G": "Gradients of every op",
    "T": "The tape",
    "K": "Kernels",
    "R": "Training",
    "M": "Models",
    "S": "The suite itself",
}

FAULTS = {
    "G01": "first derivatives are those of finite differences in float64",
    "G02": "second derivatives are right or refused",
    "G03": "values and gradients are PyTorch's",
    "G04": "arrays without elements, with one, without dimensions",
    "G05": "broadcasting between all ranks from 0 to 4",
    "G06": "strided, reversed, broadcast and Fortran-ordered arrays, also upstream",
    "G07": "one tensor as two arguments; views of views",
    "G08": "no rule changes its inputs or the upstream gradient",
    "G09": "gradients add up over backward calls and shared parameters",
    "G10": "at kinks the documented choice is taken",
    "G11": "a finite loss of extreme values has no NaN in its gradient",
    "G12": "bad arguments: one sentence with the op, the argument and what was expected",
    "T01": "an in-place change of a saved array is an error that names op and line",
    "T02": "no_grad and reference() hold for one thread, one task",
    "T03": "two threads that train get what each alone would get",
    "T04": "a chain of 100,000 ops: backward, drawing, freeing",
    "T05": "1,000 steps leave no memory behind",
    "T06": "a second backward without retain_graph is a clear error",
    "T07": "an exception inside backward leaves nothing half-done",
    "K01": "each kernel against plain loops on hundreds of random shapes",
    "K02": "the kernel tests under address and undefined-behavior sanitizers",
    "K03": "four Python threads under the thread sanitizer",
    "K04": "arrays that end, or begin, at a page that may not be touched",
    "K05": "indices beyond 2^31",
    "K06": "a child forked after use can use the kernels",
    "K07": "the number of threads doesn't change results beyond the stated bound",
    "K08": "200 runs give the same bytes",
    "K09": "Ctrl-C while a kernel runs",
    "K10": "memory runs out inside a kernel: MemoryError",
    "K11": "without a compiler the definitions run, and one message says so",
    "K12": "each instruction set gives the same answers",
    "K13": "arrays at odd addresses",
    "K14": "without its fast paths a kernel gives the same",
    "K15": "the CUDA kernels in the emulator: thread orders, sanitizers, races",
    "K16": "compute-sanitizer finds nothing",
    "K17": "a CUDA stream other than the default one",
    "K18": "the GPU's memory runs out",
    "R01": "NaN or infinity in the loss or a gradient: step, op and tensor are named, the good checkpoint stays",
    "R02": "kill -9 at any moment: the last checkpoint loads",
    "R03": "a full disk, a folder that is read-only",
    "R04": "checkpoints cut short, with a flipped bit, or empty are refused",
    "R05": "files made to do harm are refused, and nothing in them runs",
    "R06": "parameters of any memory layout and byte order come back",
    "R07": "resumed at any step, also inside an epoch: the same losses, bit for bit",
    "R08": "the same seed gives the same bytes",
    "R09": "Ctrl-C and SIGTERM save and exit 130",
    "R10": "two runs into one folder",
    "R11": "no terminal, nobody reading, C locale, odd paths, no home, no network",
    "R12": "data files damaged, cut short, of the wrong kind, without labels",
    "R13": "a typo gets a suggestion and exit 2 before any work",
    "R14": "a checkpoint of another model or version: what differs is said",
    "M01": "no output sees what it may not see",
    "M02": "every output sees all that it may see",
    "M03": "the probabilities of all images sum to 1",
    "M04": "cached sampling draws what naive sampling draws",
    "M05": "the ELBO is below log p(x); closed-form KL is right",
    "M06": "transposed convolution is the adjoint of convolution",
    "M07": "batch norm in training and evaluation, also of one image",
    "M08": "each player's step leaves the other as it was",
    "M09": "every model can learn one batch by heart",
    "M10": "with a zero output layer bits/dim is log2 of the levels",
    "M11": "a flow that reports the density of its logits gives an image a probability above 1",
    "M12": "the bound of diffusion is the entropy, where that is known: no term is at the wrong time",
    "M13": "a flow whose noise is narrower than a level gives an image a probability above 1",
    "M14": "AIS of too few temperatures is told by the chains that count, and by chains in reverse",
    "S01": "19 of 20 planted errors in engine, ops, nn and optim are found",
    "S02": "coverage: 95 % of branches in Python, 95 % of lines in C",
    "S03": "any order of the tests, ten seeds, no flake",
    "S04": "all supported Python versions",
}
GPU = {"K16", "K17", "K18"}
SIGNS = {"passed": "green", "failed": "RED", "skipped": "SKIPPED", "": "NO TEST RAN"}

outcomes: dict[str, Counter[str]] = {number: Counter() for number in FAULTS}


def pytest_itemcollected(item: pytest.Item) -> None:
    """A test's numbers travel with its report, also from pytest-xdist's workers."""
    numbers = sorted({number for mark in item.iter_markers("fault") for number in mark.args})
    if unknown := set(numbers) - set(FAULTS):
        raise pytest.UsageError(f"{item.nodeid}: there is no fault {', '.join(sorted(unknown))}")
    item.user_properties.append(("faults", numbers))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count what tests came to; one whose setup or teardown fails has failed."""
    if report.when == "call" or report.outcome != "passed":
        for number in dict(report.user_properties).get("faults", []):
            outcomes[number][report.outcome] += 1


def verdict(counts: Counter[str]) -> str:
    """What a fault's tests come to: "failed" if one did, else "passed" if one did, "skipped", or "" for no test."""
    return next((outcome for outcome in ("failed", "passed", "skipped") if counts[outcome]), "")


def table(counts: dict[str, Counter[str]]) -> str:
    """A line for each fault, and how many of them are green."""
    lines = []
    for letter, group in GROUPS.items():
        lines.append(f"\n{group}")
        for number in (number for number in FAULTS if number[0] == letter):
            result = verdict(counts[number])
            sign = "GPU" if number in GPU and not result else SIGNS[result]
            tests = f"{counts[number]['passed']:>4} passed" if result else " " * 11
            lines.append(f"  {number}  {sign:<11}  {tests}  {FAULTS[number]}")
    rest = [number for number in FAULTS if number not in GPU]
    by_verdict = {sign: [n for n in rest if verdict(counts[n]) == outcome] for outcome, sign in SIGNS.items()}
    on_gpu = [number for number in sorted(GPU) if verdict(counts[number]) == "passed"]
    lines.append(f"\n{len(by_verdict['green'])} of {len(rest)} are green; "
                 f"of {len(GPU)} more, which need a GPU, {len(on_gpu)}")  # fmt: skip
    lines += [f"{sign}: {', '.join(numbers)}" for sign, numbers in by_verdict.items() if numbers and sign != "green"]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Run the marked tests and print the table."""
    full = "--full" in arguments
    os.environ["TINYGEN_FULL"] = "1" if full else ""
    arguments = [a for a in arguments if a != "--full"]
    code = pytest.main(["-q", "-m", "fault", "-p", "tests.faults", *arguments])
    from tests import faults as plugin  # what pytest loaded: this module by its proper name

    print(table(plugin.outcomes))
    extent = "the long tests whole" if full else "of the long tests a sample"
    print(f"This run: pytest {' '.join(arguments) or 'of all tests'}, {extent}; pytest's exit code {int(code)}")
    green = all(verdict(plugin.outcomes[number]) == "passed" for number in FAULTS if number not in GPU)
    return 0 if green and code == 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
