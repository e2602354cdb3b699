"""The builds: of the library by nvcc, when it is needed, and of the emulator, with the faults that it has to find."""

import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygen
from benchmarks.gpu import cuda
from tests.cuda import checks
from tests.cuda.build import ROOT
from tests.cuda.conftest import REAL, forget
from tinygen import nvcc
from tinygen._cuda_abi import ffi

FAKE = """#!/bin/sh
echo "$@" >> "$0.log"
while [ "$1" != -o ]; do shift; done
echo built > "$2"
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A program in the place of nvcc, with a cache of its own; gives what it was asked for, a line a call."""
    program = tmp_path / "nvcc"
    program.write_text(FAKE)
    program.chmod(0o755)
    monkeypatch.setenv("NVCC", str(program))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return lambda: log.read_text().splitlines() if (log := tmp_path / "nvcc.log").exists() else []


def codes(asked):
    return re.findall(r"code=(\w+)", asked)


def test_an_install_compiles_nothing_for_cuda(fake, tmp_path):
    """It takes along what is needed later: the declarations and the sources."""
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    (tmp_path / "tinygen").mkdir()
    (tmp_path / "README.md").touch()
    (tmp_path / "LICENSE").touch()
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", "built"], cwd=tmp_path, capture_output=True,
        text=True, env=os.environ | {"CC": "/bin/false"}, check=True,
    )  # fmt: skip
    assert fake() == []
    said = [line for line in done.stdout.splitlines() if line.startswith("tinygen:")]
    assert len(said) == 1
    assert re.fullmatch(r"tinygen: compiling the C kernels \(\d+ files\), under half a minute", said[0])
    assert (tmp_path / "built" / "tinygen" / "_cuda_abi.py").exists()
    taken = {p.relative_to(tmp_path / "built" / "tinygen") for p in (tmp_path / "built").rglob("*.cu")}
    assert taken == set(nvcc.sources())


def test_the_library_is_compiled_once_for_the_gpu_that_is_there(fake, capfd):
    path = nvcc.library(86)
    assert nvcc.library(86) == path
    assert path.read_text() == "built\n"
    (asked,) = fake()
    assert codes(asked) == ["sm_86"]
    assert "-Werror" not in asked  # whatever a later nvcc warns of
    said = capfd.readouterr().err
    assert said.startswith("tinygen: compiling the CUDA kernels for sm_86 with ")
    assert said.count("\n") == 1
    nvcc.library(90)
    assert [codes(line) for line in fake()] == [["sm_86"], ["sm_90"]]


def test_what_nvcc_is_asked_for(fake, monkeypatch):
    """All kernels, for each architecture and as PTX for later ones; no warning and no spill passes."""
    monkeypatch.setattr(sys, "argv", ["nvcc"])
    assert nvcc.main() == 0
    (asked,) = fake()
    assert codes(asked) == ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "compute_90"]
    assert set(re.findall(r"csrc/\S+\.cu\b", asked)) == {
        str(p.relative_to(ROOT)) for p in (ROOT / "csrc").rglob("*.cu")
    }
    for flag in ("-Werror all-warnings", "-warn-spills,-warn-lmem-usage,-Werror", "-cudart static"):
        assert flag in asked
    nvcc.library(90)
    nvcc.library(75)
    assert len(fake()) == 1  # it serves every GPU


def test_other_sources_are_another_library(fake, tmp_path, monkeypatch):
    before = nvcc.library(90)
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    monkeypatch.setattr(nvcc, "folder", lambda: tmp_path / "csrc")
    assert nvcc.library(90) == before
    with (tmp_path / "csrc" / "tinygen.h").open("a") as file:
        file.write("/* changed */")
    assert nvcc.library(90) != before


@pytest.mark.parametrize(
    ("program", "said"),
    [("", "no nvcc found"), ("/bin/false", "/bin/false failed: exit status 1"), ("/nowhere/nvcc", "No such file")],
)
def test_why_there_is_no_library(program, said, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NVCC", program)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(nvcc.NvccError, match=said):
        nvcc.library(90)
    assert not list(tmp_path.rglob("*.so"))
    monkeypatch.setattr(sys, "argv", ["nvcc", "90"])
    assert nvcc.main() == 1
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_the_library_is_compiled_when_the_gpu_is_first_used(device, fake, monkeypatch):
    """What nvcc makes here is no library, which is said; the architecture is that of the GPU."""
    if REAL:
        return
    gpu = types.SimpleNamespace(compute_capability="89")
    monkeypatch.setattr(device.cuda, "Device", lambda: gpu, raising=False)
    monkeypatch.setattr(tinygen.cuda, "LIBRARY", None)
    forget()
    with pytest.warns(RuntimeWarning, match="the CUDA kernels were not built, so .* CuPy.*too short"):
        tinygen.tensor(np.ones((3, 3), np.float32)).to("cuda").relu()
    (asked,) = fake()
    assert codes(asked) == ["sm_89"]


def test_what_nvcc_makes_loads_without_a_driver(tmp_path, monkeypatch):
    """Of the one file that asks for the devices, where there is an nvcc; .ci/run compiles all of them."""
    if nvcc.find() is None:
        return
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(
        nvcc, "sources", lambda pattern="*.cu": [Path("csrc/runtime/cuda.cu")] if pattern == "*.cu" else []
    )
    lib = ffi.dlopen(str(nvcc.library(90)))
    count = ffi.new("int *")
    code = lib.tg_cuda_devices(count)
    assert code == 0 or (code > 1000 and count[0] == 0 and tinygen.cuda.sentence(code - 1000))


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
    two, one = cuda.parse(report, ptx)
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
