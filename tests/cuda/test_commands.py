"""`--device`, from the command line to the files: the same run, wherever it computes."""

import csv
import sys

import numpy as np
import pytest

from tests.cuda import standin
from tests.cuda.test_device import cupy_that_says
from tinygen import cuda
from tinygen.cli import main as cli
from tinygen.training import checkpoint


@pytest.fixture
def data(tmp_path):
    """A file of small images."""
    images = np.random.default_rng(0).integers(0, 3, (60, 1, 4, 4)).astype(np.uint8)
    np.savez(tmp_path / "data.npz", images=images)
    return str(tmp_path / "data.npz")


def train(folder, data, *flags):
    tiny = ["--blocks", "0", "--hidden", "2", "--epochs", "1", "--batch-size", "8", "--data", data]
    return cli.main(["train", "pixelcnn", *tiny, "--out", str(folder), *flags])


def run(folder, data, *flags):
    assert train(folder, data, *flags) == 0
    with open(folder / "metrics.csv") as file:
        rows = [[float(v) for v in row if v] for row in list(csv.reader(file))[1:]]
    return rows, checkpoint.load(folder / "last.safetensors")[0]


def test_a_run_on_the_device_is_the_one_on_the_cpu(device, data, tmp_path, capsys):
    rows, arrays = run(tmp_path / "cpu", data)
    there, theirs = run(tmp_path / "cuda", data, "--device", "cuda")
    assert len(there) == len(rows) > 3
    for mine, wanted in zip(there, rows, strict=True):
        np.testing.assert_allclose(mine[:2], wanted[:2], rtol=1e-4)  # step and loss; then comes the time
    assert theirs.keys() == arrays.keys()
    for name, wanted in arrays.items():
        np.testing.assert_allclose(theirs[name], wanted, rtol=1e-3, atol=1e-4)
    assert (tmp_path / "cuda" / "config.toml").read_bytes() == (tmp_path / "cpu" / "config.toml").read_bytes()
    for where in ("cpu", "cuda"):
        for command in (["sample", "-n", "2"], ["evaluate"]):
            assert cli.main([*command, str(tmp_path / "cuda"), "--device", where]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("test: ")]
    assert (len(said), len(set(said))) == (8, 2)  # nats and bits, of two trainings and two evaluations


def test_a_gpu_whose_memory_is_used_up(device, data, tmp_path, monkeypatch, capsys):
    def full(*arguments, **settings):
        raise MemoryError("Out of memory allocating 1,024 bytes (allocated so far: 0 bytes).")  # CuPy's own words

    monkeypatch.setattr(device, "empty", full)
    assert train(tmp_path / "run", data, "--device", "cuda") == 1
    said = "tinygen train: Out of memory allocating 1,024 bytes (allocated so far: 0 bytes); a smaller --batch-size"
    assert capsys.readouterr().err.startswith(said)


@pytest.mark.parametrize("answer", [standin.CUDARuntimeError(35), 0])
def test_without_a_gpu_the_command_says_why(answer, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cupy", cupy_that_says(answer))
    assert train(tmp_path / "run", data, "--device", "cuda") == 1
    said = capsys.readouterr().err
    assert said == f"tinygen train: device 'cuda' can't be used: {cuda.problem()}\n"
    assert not (tmp_path / "run").exists()
    assert train(tmp_path / "run", data, "--device", "auto") == 0
