"""The script for the day with a GPU, as far as it can go without one."""

import json
import subprocess
import sys
import types

import numpy as np
import pytest

from benchmarks.gpu import day as gpu
from benchmarks.kernels import cases
from tests.cuda import standin
from tests.cuda.conftest import REAL
from tinygen import cuda, kernels
from tinygen.cli import doctor
from tinygen.nn import functional as F

LIMITS = {"flops": 1e12, "bytes": 1e9, "cache": 10_000}


def small(name="relu of little", ours=F.relu):
    return cases.function(name, "Elementwise", 0.0, [(2, 3, 4, 5)], ours, lambda t: {})


def test_without_a_gpu_it_says_so(tmp_path):
    if cuda.problem():
        command = [sys.executable, "-m", "benchmarks.gpu", "--out", str(tmp_path / "gpu.json")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("benchmarks.gpu: ")
        assert done.stderr.count("\n") == 1


def test_every_kernel_runs_once_for_the_sanitizer(device, capsys):
    assert gpu.kernels() == 0
    assert capsys.readouterr().out == f"{len(doctor.kernel_errors(lambda a: a))} kernels; wrong: none\n"


def test_a_wrong_kernel_is_named(device, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "kernel_errors", lambda place: {"relu": 0.5, "tanh": 2.0})
    assert gpu.kernels() == 1
    assert capsys.readouterr().out == "2 kernels; wrong: tanh\n"


def test_a_row(device):
    with gpu.on_cuda():
        rows = gpu.measure(small(), LIMITS, None, 0.0)
    assert [row["what"] for row in rows] == ["forward", "forward + backward"]
    n = 4 * 2 * 3 * 4 * 5
    assert [row["roofline"] for row in rows] == [2 * n / 1e9, 3 * n / 1e9]  # bound by memory
    for row in rows:
        assert row["share"] == row["roofline"] / row["seconds"]["tinygen"]
        assert row["copies"] == gpu.MAX_COPIES
    json.dumps(rows)


def test_a_case_that_is_arithmetic(device):
    case = cases.masked(2, 3, 3, "B", 4, 2)
    with gpu.on_cuda():
        row = gpu.measure(case, LIMITS | {"flops": 1e3}, None, 0.0)[0]
    assert row["roofline"] == case.flops["forward"] / 1e3


def test_who_differs_isnt_timed(device):
    def theirs(factor):
        return lambda: {what: lambda: factor * np.ones(3) for what in ("forward",)}

    case = cases.Case("ones", "Elementwise", {"forward": 0.0}, theirs(1), lambda: {"a": theirs(1), "b": theirs(2)})
    events = types.SimpleNamespace(Event=lambda enable_timing: standin.cupy.cuda.Event())
    torch = types.SimpleNamespace(cuda=events)
    standin._Event.elapsed_time = lambda a, b: (b.time - a.time) * 1e3
    try:
        (row,) = gpu.measure(case, LIMITS, torch, 0.0)
    finally:
        del standin._Event.elapsed_time
    assert row["seconds"].keys() == {"tinygen", "a"}
    assert row["wrong"] == {"b": 1.0}
    assert "PyTorch's best (a) over ours" in row["said"]


def test_all_kinds_of_cases_run_on_the_device(device):
    chosen = [small(), cases.row_lstm(2, 3, 2), cases.lstm(2, 2, 3, 2), cases.batch_norm(3, 2, 2),
              cases.cross_entropy(4, 2, 3), cases.lstm_cells(2, 2, 3, 2), cases.adam(1), cases.linear(3, 4, 2),
              cases.training_step(1, 2, 1, 3, 3)]  # fmt: skip
    with gpu.on_cuda():
        for case in chosen:
            for what, run in case.ours().items():
                before = kernels.conversions()
                result = run()
                for tensor in result if isinstance(result, list) else [result]:
                    assert tensor.device == "cuda", (case.name, what)
                assert kernels.conversions() <= before + 4, case.name
    assert cases.DEVICE == "cpu"


def test_steps_go_on_after_one_that_failed(device, tmp_path, monkeypatch, capsys):
    def fail(results):
        raise RuntimeError("no luck")

    todo = {"build": fail, "timing": lambda results: results["rows"].append(1) or "one row"}
    monkeypatch.setattr(gpu, "machine", lambda: LIMITS)
    monkeypatch.setattr(gpu, "steps", lambda args: todo)
    assert gpu.main(["--out", str(tmp_path / "gpu.json")]) == 1
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert [(s["step"], s["ok"], s["said"]) for s in found["steps"]] == [
        ("build", False, "RuntimeError: no luck"), ("timing", True, "one row")]  # fmt: skip
    assert found["rows"] == [1]
    assert "build: FAILED" in capsys.readouterr().out


def test_the_steps_of_the_day():
    todo = gpu.steps(gpu.parser().parse_args(["--wheels", "w"]))
    assert list(todo) == ["wheels", "build", "kernels", "tests", "memcheck", "racecheck", "timing"]


def test_a_command_that_fails_is_shown_with_its_last_lines():
    assert gpu.run([sys.executable, "-c", "print(1); print('done')"], 60) == "done"
    with pytest.raises(RuntimeError, match="exit code 3: 1\noops"):
        gpu.run([sys.executable, "-c", "print(1); print('oops'); raise SystemExit(3)"], 60)


def test_the_machine(device, monkeypatch):
    if not REAL:
        properties = {"name": b"GPU", "major": 8, "minor": 0, "multiProcessorCount": 10, "l2CacheSize": 5}
        runtime = types.SimpleNamespace(getDeviceProperties=lambda i: properties, driverGetVersion=lambda: 13000)
        one = types.SimpleNamespace(id=0, attributes={"ClockRate": 1_000_000})
        monkeypatch.setattr(device.cuda, "runtime", runtime)
        monkeypatch.setattr(device.cuda, "Device", lambda: one, raising=False)
        monkeypatch.setattr(cuda, "require", lambda: device)
        monkeypatch.setattr(gpu, "CALLS", 2)
        monkeypatch.setattr(gpu, "COPIED", 1000)
        assert gpu.machine()["flops"] == 10 * 64 * 2 * 1e9
    found = gpu.machine()
    assert found["bytes"] > 0
    json.dumps(found)
