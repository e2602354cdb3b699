"""python -m benchmarks.gpu.cuda: what the CUDA kernels need of a GPU, worked out without one. It needs nvcc.

Resources: registers and shared memory of each compiled kernel as ptxas reports them, and the share of a
multiprocessor's threads that can be resident with them (occupancy). Work: the operations and bytes of a call of each
function of csrc/tinygen.h at a usual size, and what bounds it on a GPU of each architecture: memory if its operations
for each byte are fewer than the GPU can do in the time that it reads one. An exponential, a tanh or a division counts
as one operation; a byte is counted once for each pass over memory that the kernels make. Nothing here is a measurement
of speed.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from tinygen import nvcc

ROOT = Path(__file__).parents[2]
WARP, REGISTERS, REGISTER_UNIT, SHARED_UNIT = 32, 1 << 16, 256, 128


class Gpu(NamedTuple):
    """Of a multiprocessor: NVIDIA's CUDA C++ Programming Guide, "Compute capabilities". Of the GPU: its data sheet."""

    name: str
    threads: int
    blocks: int
    shared: int
    reserved: int  # bytes of shared memory that the system takes of each block
    operations: float  # float32 a second
    bandwidth: float  # bytes a second


GPUS = {
    75: Gpu("T4", 1024, 16, 64 << 10, 0, 8.1e12, 320e9),
    80: Gpu("A100 40 GB", 2048, 32, 164 << 10, 1024, 19.5e12, 1555e9),
    86: Gpu("RTX 3090", 1536, 16, 100 << 10, 1024, 35.6e12, 936e9),
    89: Gpu("RTX 4090", 1536, 24, 100 << 10, 1024, 82.6e12, 1008e9),
    90: Gpu("H100 SXM", 2048, 32, 228 << 10, 1024, 66.9e12, 3350e9),
}


def round_up(n: int, unit: int) -> int:
    return -(-n // unit) * unit


def occupancy(gpu: Gpu, registers: int, shared: int, threads: int) -> float:
    """The share of a multiprocessor's threads that blocks of a kernel can fill."""
    warps = round_up(threads, WARP) // WARP
    held = round_up(registers * WARP, REGISTER_UNIT) * warps
    limits = [gpu.blocks, gpu.threads // (warps * WARP), REGISTERS // held]
    if shared:
        limits.append(gpu.shared // (round_up(shared, SHARED_UNIT) + gpu.reserved))
    return min(limits) * warps * WARP / gpu.threads


# ------------------------------------------------------------------------------------------------------- resources


def compile_one(compiler: str, source: Path, architectures: list[int], folder: Path) -> list[dict[str, Any]]:
    """The kernels of a source file, compiled into folder. Raises RuntimeError with nvcc's output if that fails."""
    folder.mkdir()
    targets = [flag for a in architectures for flag in ("-gencode", f"arch=compute_{a},code=sm_{a}")]
    kept = ["-Xptxas", "-v", "--keep", "--keep-dir", str(folder)]
    flags = [*nvcc.FLAGS, *nvcc.STRICT, "-Icsrc", *targets, *kept]
    report = run([compiler, *flags, "-c", str(source), "-o", str(folder / "out.o")])
    ptx = "".join(path.read_text() for path in folder.glob("*.ptx"))
    return parse(report, ptx)


def run(command: list[str]) -> str:
    """What it says on stderr. Raises RuntimeError with that if it fails."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stderr


def parse(report: str, ptx: str) -> list[dict[str, Any]]:
    """One record a kernel, from ptxas's report and the PTX, in which its number of threads stands."""
    threads = {name: int(n) for name, n in re.findall(r"\.entry (\w+)\(.*?\.maxntid (\d+)", ptx, re.S)}
    found = []
    entry = r"Compiling entry function '(\w+)' for 'sm_(\d+)'(.*?)(?=Compiling entry|\Z)"
    for name, architecture, text in re.findall(entry, report, re.S):
        registers, shared = re.search(r"Used (\d+) registers", text), re.search(r"(\d+) bytes smem", text)
        spilled = sum(map(int, re.findall(r"(\d+) bytes (?:stack frame|spill)", text)))
        row = {"registers": int(registers[1]), "shared": int(shared[1]) if shared else 0, "threads": threads[name]}
        share = occupancy(GPUS[int(architecture)], **row)
        found.append({"kernel": name, "architecture": int(architecture), **row, "spilled": spilled, "occupancy": share})
    return found


def readable(names: list[str]) -> list[str]:
    """Kernels' names as in the source, without what follows from the rest."""
    done = subprocess.run(["c++filt", *names], capture_output=True, text=True, check=True)
    return [short(line) for line in done.stdout.splitlines()]


def short(name: str) -> str:
    name = re.sub(r"\(anonymous namespace\)::|^void ", "", name)
    name = re.sub(r"\((?:int|bool)\)", "", name)
    depth, end = 0, len(name)
    for i, letter in enumerate(name):
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and not depth:
            end = i
            break
    return re.sub(r"<(float|double)>(?=[,>])|, (?=>)", "", name[:end]).replace("> >", ">>")


def resources(architectures: list[int]) -> list[dict[str, Any]]:
    if (compiler := nvcc.find()) is None:
        raise RuntimeError("no nvcc found")
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(os.cpu_count()) as pool:
        folder = Path(temporary)
        jobs = [(compiler, source, architectures, folder / source.stem) for source in nvcc.sources()]
        rows = [row for rows in pool.map(lambda job: compile_one(*job), jobs) for row in rows]
        run([compiler, *nvcc.LINK, *map(str, folder.glob("*/out.o")), "-o", str(folder / "kernels.so")])
        ctypes.CDLL(str(folder / "kernels.so"))  # which loads where there is no driver
    for row, name in zip(rows, readable([row["kernel"] for row in rows]), strict=True):
        row["kernel"] = name
    return sorted(rows, key=lambda row: (row["architecture"], row["kernel"]))


# ------------------------------------------------------------------------------------------------------------ work


def work() -> list[dict[str, Any]]:
    """Operations and bytes in float32: images 28x28, 64 channels and N 64 where nothing else is said."""
    pixels, c = 64 * 28 * 28, 64
    n = pixels * c  # numbers of an image batch
    rows: list[tuple[str, str, float, float]] = []

    def conv(name, what, outputs, taps, ci, co, inputs, extra=0):
        rows.append(
            (name, what, 2 * outputs * taps * ci * co, 4 * (inputs * ci + outputs * co + taps * ci * co + extra))
        )

    conv("tg_conv2d", "3x3", pixels, 9, c, c, pixels)
    conv("tg_conv2d", "3x3, mask B", pixels, 5, c, c, pixels)
    conv("tg_conv2d", "7x7, mask A, 1 -> 64", pixels, 24, 1, c, pixels)
    conv("tg_conv2d", "linear, 784 -> 512, N 128", 128, 1, 784, 512, 128)
    conv("tg_conv_transpose2d", "4x4, stride 2, 128 -> 64, from 14x14", pixels / 4, 16, 128, c, pixels, 0)
    conv("tg_conv2d_weight", "3x3", pixels, 9, c, c, pixels)
    conv("tg_conv2d", "3x3, mask B, relu and a sum", pixels, 5, c, c, pixels, n)
    conv("tg_conv_transpose2d", "3x3, mask B, of relu", pixels, 5, c, c, pixels, n)
    conv("tg_conv2d_weight", "3x3, mask B, relu", pixels, 5, c, c, pixels)
    units, taps = 16, 3
    states, weights = pixels * units, 64 * 49 * 49
    product = 2 * states * taps * 4 * units
    rows += [
        ("tg_lstm", "Row LSTM, 16 units", product + 25 * states, 4 * states * (4 + 4 + 2 + 2)),
        ("tg_lstm_backward", "Row LSTM, 16 units", product + 35 * states, 4 * states * (4 + 4 + 4 + 5)),
        ("tg_lstm_weight", "Row LSTM, 16 units", product, 4 * states * 5),
        ("tg_add", "", n, 4 * 3 * n),
        ("tg_mul", "", n, 4 * 3 * n),
        ("tg_exp", "", n, 4 * 2 * n),
        ("tg_log", "", n, 4 * 2 * n),
        ("tg_sqrt", "", n, 4 * 2 * n),
        ("tg_relu", "", n, 4 * 2 * n),
        ("tg_relu_backward", "", n, 4 * 3 * n),
        ("tg_elu", "", 2 * n, 4 * 2 * n),
        ("tg_elu_backward", "", 3 * n, 4 * 3 * n),
        ("tg_tanh", "", n, 4 * 2 * n),
        ("tg_sigmoid", "", 4 * n, 4 * 2 * n),
        ("tg_silu", "", 5 * n, 4 * 2 * n),
        ("tg_silu_backward", "", 9 * n, 4 * 3 * n),
        ("tg_logistic_backward", "", 4 * n, 4 * 3 * n),
        ("tg_gated", "", 6 * n, 4 * 3 * n),
        ("tg_gated_backward", "", 12 * n, 4 * 5 * n),
        ("tg_transpose", "", 0, 4 * 2 * n),
        ("tg_cat", "two arrays", 0, 4 * 2 * n),
        ("tg_cat_backward", "two arrays", 0, 4 * 2 * n),
        ("tg_affine_coupling", "half of the channels", 6 * n, 4 * 3 * n),
        ("tg_affine_coupling_backward", "half of the channels", 8 * n, 4 * 5 * n),
        ("tg_channel_affine", "", 2 * n, 4 * 2 * n),
        ("tg_channel_affine_backward", "", 4 * n, 4 * 5 * n),
        ("tg_attention", "49 pixels of 64 channels, N 64", 4 * weights * c, 4 * (weights + 4 * 64 * 49 * c)),
        ("tg_attention_backward", "49 pixels of 64 channels, N 64", 10 * weights * c, 4 * (weights + 7 * 64 * 49 * c)),
        ("tg_batch_norm", "", 9 * n, 4 * 3 * n),
        ("tg_batch_norm_backward", "", 10 * n, 4 * 5 * n),
        ("tg_group_norm", "and silu", 14 * n, 4 * 3 * n),
        ("tg_group_norm_backward", "and silu", 30 * n, 4 * 5 * n),
        ("tg_cross_entropy", "256 classes", 5 * pixels * 256, 4 * pixels * 256),
        ("tg_cross_entropy_backward", "256 classes", 9 * pixels * 256, 4 * 2 * pixels * 256),
        ("tg_adam", "a million numbers", 14e6, 4 * 7e6),
        ("tg_adam_list", "64 times 10,000 numbers", 14 * 64e4, 4 * 7 * 64e4),
        ("tg_sample", "PixelCNN, 7 blocks of 16, N 64: 784 values", *sampling(64)),
    ]
    return [bounded(*row) for row in rows]


def sampling(images: int) -> tuple[float, float]:
    """A value's 7 blocks (1x1 to 16, 3x3 mask B with 5 taps, 1x1 to 32); its weights come from the cache."""
    numbers = 7 * (32 * 16 + 5 * 16 * 16 + 16 * 32)
    return 2.0 * images * 784 * numbers, 4.0 * images * 784 * 7 * (32 + 16 + 16 + 32)


def bounded(name: str, what: str, operations: float, moved: float) -> dict[str, Any]:
    intensity = operations / moved
    bound = {
        str(a): "memory" if intensity < gpu.operations / gpu.bandwidth else "arithmetic" for a, gpu in GPUS.items()
    }
    return {"function": name, "case": what, "operations": operations, "bytes": moved, "bound": bound}


# ------------------------------------------------------------------------------------------------------------ print


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def markdown(results: dict[str, Any]) -> str:
    kernels = [
        [row["kernel"], f"sm_{row['architecture']}", str(row["registers"]), str(row["shared"]), str(row["threads"]),
         str(row["spilled"]), f"{row['occupancy']:.0%}"]
        for row in results["resources"]
    ]  # fmt: skip
    calls = [
        [row["function"], row["case"], f"{row['operations'] / 1e6:,.0f}", f"{row['bytes'] / 1e6:,.1f}",
         f"{row['operations'] / row['bytes']:.1f}",
         *(row["bound"][str(a)] for a in GPUS)]
        for row in results["work"]
    ]  # fmt: skip
    gpus = [f"sm_{a} ({gpu.name}, {gpu.operations / gpu.bandwidth:.0f})" for a, gpu in GPUS.items()]
    return "\n\n".join(
        [
            table(["kernel", "", "registers", "shared bytes", "threads", "spilled bytes", "occupancy"], kernels),
            "Operations for each byte; below a GPU's own number, in brackets, memory is what bounds it.",
            table(["call", "case", "million operations", "MB", "operations a byte", *gpus], calls),
        ]
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.cuda", description=__doc__.split("\n\n")[0])
    parser.add_argument("--arch", type=int, action="append", choices=list(GPUS), help="only this one (default: all)")
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results"), help="folder to write (default %(default)s)"
    )
    args = parser.parse_args(argv)
    try:
        results = {"resources": resources(args.arch or list(GPUS)), "work": work()}
    except RuntimeError as error:
        print(f"benchmarks.gpu.cuda: {error}", file=sys.stderr)
        return 1
    print(markdown(results))
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "cuda.json").write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
