"""The builds: of the library by nvcc, where there is one, and of the emulator, with the faults that it has to find."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import cuda
from tests.cuda import checks
from tests.cuda.build import ROOT

FAKE = """#!/bin/sh
echo "$@" > "$0.log"
while [ "$1" != -o ]; do shift; done
echo built > "$2"
"""


def install(folder, nvcc):
    """What `setup.py build_ext` says without a C compiler and with this nvcc, in a copy of the sources."""
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "csrc", folder / "csrc")
    (folder / "tinygen").mkdir()
    (folder / "README.md").touch()
    (folder / "LICENSE").touch()
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=folder, capture_output=True, text=True,
        env=os.environ | {"CC": "/bin/false", "NVCC": nvcc}, check=True,
    )  # fmt: skip
    assert (folder / "tinygen" / "_cuda_abi.py").exists()
    return [line for line in done.stdout.splitlines() if line.startswith("tinygen:")]


@pytest.mark.parametrize(("nvcc", "said"), [("", "no nvcc found"), ("/bin/false", "/bin/false failed")])
def test_without_nvcc_one_line_says_so(tmp_path, nvcc, said):
    assert install(tmp_path, nvcc) == [f"tinygen: {said}: built without the CUDA kernels, everything runs on the CPU"]
    assert not (tmp_path / "tinygen" / "_cuda.so").exists()


def test_what_nvcc_is_asked_for(tmp_path):
    """All kernels, for each architecture and as PTX for later ones; no warning and no spill passes."""
    nvcc = tmp_path / "nvcc"
    nvcc.write_text(FAKE)
    nvcc.chmod(0o755)
    folder = tmp_path / "source"
    folder.mkdir()
    assert install(folder, str(nvcc)) == []
    assert (folder / "tinygen" / "_cuda.so").read_text() == "built\n"
    asked = (tmp_path / "nvcc.log").read_text()
    assert re.findall(r"code=(\w+)", asked) == ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "compute_90"]
    kernels = {str(p.relative_to(ROOT)) for p in (ROOT / "csrc").rglob("*.cu")}
    assert set(re.findall(r"csrc/\S+\.cu\b", asked)) == kernels
    for flag in ("-Werror all-warnings", "-warn-spills,-warn-lmem-usage,-Werror", "-cudart static"):
        assert flag in asked


# ------------------------------------------------------------------------------------------------------ the emulator


@pytest.mark.fault("K15")
@pytest.mark.parametrize("name", ["plain", "address", "thread"])
def test_planted_faults_are_found_and_nothing_else(name):
    assert checks.misses(name) == []


def test_what_the_emulator_itself_finds():
    """A missing barrier and shared memory that nobody wrote show as NaN; a launch that is too large is refused."""
    assert checks.planted("plain", "nothing") == (0, "result 0 63.0 0.0\n")
    assert checks.planted("plain", "no_barrier") == (0, "result 0 nan 0.0\n")
    assert checks.planted("plain", "unset") == (0, "result 0 63.0 nan\n")
    assert checks.planted("plain", "too_many_threads")[1].startswith("result 1009 ")


# ------------------------------------------------------------------------------------------------------- resources


def test_occupancy_of_known_kernels():
    """By hand: registers a warp are counted in 256, a block's shared memory in 128 bytes and 1 KiB more since sm_80."""
    known = {
        (80, 32, 0, 256): 1, (80, 64, 0, 256): 0.5, (80, 128, 0, 256): 0.25, (80, 255, 0, 1024): 0,
        (86, 40, 0, 256): 1, (86, 48, 0, 256): 5 / 6, (75, 32, 0, 32): 0.5, (90, 32, 48 << 10, 256): 0.5,
        (80, 32, 48 << 10, 64): 3 * 64 / 2048,
    }  # fmt: skip
    for (architecture, registers, shared, threads), share in known.items():
        assert cuda.occupancy(cuda.GPUS[architecture], registers, shared, threads) == share


@given(st.sampled_from(list(cuda.GPUS)), st.integers(16, 255), st.integers(0, 48 << 10), st.integers(1, 1024))
def test_occupancy_falls_with_what_a_kernel_takes(architecture, registers, shared, threads):
    gpu = cuda.GPUS[architecture]
    share = cuda.occupancy(gpu, registers, shared, threads)
    assert 0 <= share <= 1
    assert cuda.occupancy(gpu, registers - 1, shared, threads) >= share
    assert cuda.occupancy(gpu, registers, shared // 2, threads) >= share


def test_a_report_of_ptxas_is_read():
    ptx = ".visible .entry _Z3onev(\n)\n.maxntid 256\n.minnctapersm 4\n{ }\n.entry _Z3twov()\n.maxntid 64\n{ }"
    report = """ptxas info    : Compiling entry function '_Z3twov' for 'sm_80'
ptxas info    : Function properties for _Z3twov
    8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 512 bytes smem, 400 bytes cmem[0]
ptxas info    : Compiling entry function '_Z3onev' for 'sm_80'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 64 registers, 400 bytes cmem[0]
"""
    two, one = cuda.parse(report, ptx, 80)
    assert two == {"kernel": "_Z3twov", "architecture": 80, "registers": 40, "shared": 512, "threads": 64,
                   "spilled": 16, "occupancy": 25 * 64 / 2048}  # fmt: skip
    assert (one["registers"], one["shared"], one["spilled"], one["occupancy"]) == (64, 0, 0, 0.5)


def test_names_as_in_the_source():
    name = "void (anonymous namespace)::product<float, (int)32, (anonymous namespace)::cell<float> >(cell<float>, int)"
    assert cuda.short(name) == "product<float, 32, cell<float>>"


def test_every_function_has_its_work_and_bound():
    rows = cuda.work()
    header = (ROOT / "csrc" / "tinygen.h").read_text()
    assert {row["function"] for row in rows} == set(re.findall(r"^int (tg_\w+)\(int dtype", header, re.M))
    bound = {row["function"]: set(row["bound"].values()) for row in rows}
    assert bound["tg_add"] == {"memory"}
    (weight,) = (row for row in rows if row["function"] == "tg_conv2d_weight" and row["case"] == "3x3")
    assert set(weight["bound"].values()) == {"arithmetic"}
    plain, masked = (row for row in rows if row["function"] == "tg_conv2d" and row["case"] in ("3x3", "3x3, mask B"))
    assert plain["operations"] == 2 * 64 * 784 * 9 * 64 * 64 == masked["operations"] * 9 / 5
