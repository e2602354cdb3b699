"""tinygen doctor: every kernel is tested, what is broken is named, what is missing comes with what to do."""

import re
import types
from pathlib import Path

import numpy as np
import pytest

from tests.cuda.conftest import REAL, forget
from tinygen import cuda, kernels
from tinygen.cli import doctor
from tinygen.cli import main as cli

HEADER = (Path(__file__).parents[2] / "csrc" / "tinygen.h").read_text()
NAMES = set(re.findall(r"^int tg_(\w+)\(int dtype", HEADER, re.M)) - {"sample", "adam"}  # a model's; part of adam_list
AGREE = f"{len(NAMES)} kernels agree with their definitions: {', '.join(sorted(NAMES))}"


def findings():
    return {f.what.strip(): f for f in doctor.examine()}


@pytest.fixture
def properties(device, monkeypatch):
    """The GPU that there seems to be."""
    if not REAL:
        values = {"name": b"A GPU", "major": 9, "minor": 0, "totalGlobalMem": 80 << 30}
        monkeypatch.setattr(device.cuda, "Device", lambda: types.SimpleNamespace(id=0), raising=False)
        monkeypatch.setattr(device.cuda.runtime, "getDeviceProperties", lambda i: values, raising=False)


def test_on_this_machine_all_that_is_needed_works(capsys):
    assert cli.main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert said.endswith("all that is needed works\n")
    assert "tinygen" in said.split("\n")[0]
    assert max(map(len, said.split("\n"))) <= 120


def test_every_kernel_is_tested_in_every_instruction_set():
    found = findings()
    with kernels.instruction_set("avx512") as best:
        isas = kernels.ISAS[: kernels.ISAS.index(best) + 1]
    for isa in isas:
        assert (found[isa].state, found[isa].found) == ("ok", AGREE)


def test_every_kernel_is_tested_on_the_gpu(properties):
    found = findings()
    assert found["GPU"].state == found["CuPy"].state == found["CUDA kernels"].state == "ok"
    assert (found["cuda"].state, found["cuda"].found) == ("ok", AGREE)
    if not REAL:
        assert found["GPU"].found == "A GPU, 80 GiB, compute capability 9.0"


@pytest.mark.parametrize("error", [1e-2, np.nan])
def test_a_kernel_that_is_wrong_is_named(error, monkeypatch, capsys):
    call = kernels.library.call

    def wrong(kernel, model, *arguments):
        code = call(kernel, model, *arguments)
        if kernel == "tg_gated":
            arguments[-1].ravel()[0] += error
        return code

    monkeypatch.setattr(kernels.library, "call", wrong)
    assert doctor.main() == 1
    said = " ".join(capsys.readouterr().out.split())
    assert re.search(r"! baseline differ from their definitions: [^!]*gated \(by [\de+inf]+ roundings\)", said)
    assert "conv2d (" not in said
    assert "broken: baseline" in said


def test_a_kernel_that_fails_is_reported_and_the_rest_goes_on(monkeypatch):
    def fail(*arguments):
        raise OSError("no luck")

    monkeypatch.setattr(kernels.library, "call", fail)
    found = findings()
    assert found["baseline"].state == "broken"
    assert "the self-test failed: OSError: no luck" in found["baseline"].found
    assert found["pillow"].state in ("ok", "missing")


def test_without_a_c_library_the_definitions_do(monkeypatch, capsys):
    monkeypatch.setattr(kernels.library, "lib", None)
    monkeypatch.setattr(doctor.shutil, "which", lambda *a, **k: None)
    monkeypatch.delenv("CC", raising=False)
    assert doctor.main() == 0
    said = capsys.readouterr().out
    assert " - C compiler     none\n" in said
    assert " - C kernels      not built: the NumPy definitions run, which are slower\n" in said
    assert "-> install a C compiler and Python's headers (python3-dev), then tinygen again" in said


@pytest.mark.parametrize("compiler", ["", "/bin/false"])
def test_cuda_kernels_that_are_missing_or_do_not_compile(compiler, properties, tmp_path, monkeypatch):
    if REAL:
        return
    gpu = types.SimpleNamespace(id=0, compute_capability="90")
    monkeypatch.setattr(cuda.require().cuda, "Device", lambda: gpu, raising=False)
    monkeypatch.setattr(cuda, "LIBRARY", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("NVCC", compiler)
    forget()
    found = findings()
    assert "cuda" not in found
    state, _, said, advice = found["CUDA kernels"]
    assert state == ("broken" if compiler else "missing")
    assert said.startswith("/bin/false failed" if compiler else "no nvcc found")
    assert advice == ("" if compiler else "install nvcc (the CUDA toolkit): it compiles them at their first use")


def test_a_program_that_does_not_run_is_no_obstacle(monkeypatch):
    monkeypatch.setenv("CC", "/nowhere/gcc")
    assert "/nowhere/gcc doesn't run" in findings()["C compiler"].found


def test_packages_that_are_missing_come_with_the_command(monkeypatch):
    version = doctor.importlib.metadata.version

    def without(name):
        if name == "pillow":
            raise doctor.importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(doctor.importlib.metadata, "version", without)
    assert findings()["pillow"] == doctor.Finding("missing", "pillow", "not installed", "pip install 'tinygen[train]'")
