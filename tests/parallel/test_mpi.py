"""Ranks that mpiexec starts: the same run as one process leaves, and how a job ends when something goes wrong."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tinygen.training import checkpoint

pytest.importorskip("mpi4py")
FULL = os.environ.get("TINYGEN_FULL") == "1"
MANY = 200 if FULL else 10  # trainings in one job
MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
VAE = ["train", "vae", "--hidden", "6", "--latent", "2", "--batch-size", "17", "--data", "data.npz", "--levels", "4"]
LONG = [*VAE, "--epochs", "100000"]
MAIN = "import sys; from tinygen.cli.main import main; sys.exit(main(sys.argv[1:]))"
OFTEN = "from tinygen.training import callbacks; callbacks.SAVE_SECONDS = 0.1\n"  # seconds between checkpoints


@pytest.fixture
def folder(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (2, 50, 4, 4)).astype(np.uint8)
    np.savez(tmp_path / "data.npz", images=images[0], test_images=images[1])
    return tmp_path


def start(folder, ranks, *argv, before=""):
    """A command on so many ranks, in a process group of its own, after some lines of Python."""
    command = [sys.executable, "-c", before + MAIN, *argv]
    command = [MPIEXEC, "-n", str(ranks), *command] if ranks > 1 else command
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=folder, env=ENVIRONMENT, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )


def ended(process, seconds=120):
    """Its exit code, and what it said on stdout and on stderr. Fails if it hangs."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, out, err


def numbers(run):
    with (run / "metrics.csv").open() as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def alike(one, other, bound=1e-5):
    """Two runs with the same numbers and weights, as far as rounding goes."""
    assert len(numbers(one)) == len(numbers(other))
    for a, b in zip(numbers(one), numbers(other), strict=True):
        assert a == pytest.approx(b, bound)
    (first, _), (second, _) = (checkpoint.load(run / "last.safetensors") for run in (one, other))
    assert first.keys() == second.keys()
    for key, value in first.items():
        np.testing.assert_allclose(value, second[key], 1e-3, 1e-5, err_msg=key)


def process_of(folder, rank):
    """The number of the process that is a rank of the job in a folder; 0 if there is none."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            its_own = f"PMI_RANK={rank}".encode() in path.read_bytes().split(b"\0")
            if its_own and os.readlink(path.with_name("cwd")) == str(folder):
                return int(path.parent.name)
        except OSError:  # another user's, or gone by now
            pass
    return 0


def trains(folder):
    """Return when the run is in its training, with a checkpoint."""
    wait_for(lambda: (folder / "run/metrics.csv").exists() and (folder / "run/metrics.csv").stat().st_size > 1000)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_two_processes_leave_the_run_of_one(folder):
    code, out, err = ended(start(folder, 2, *VAE, "--epochs", "3", "--out", "two"))
    assert code == 0, err
    assert out.count("on 2 ranks") == 1
    assert ended(start(folder, 1, *VAE, "--epochs", "3", "--out", "one"))[0] == 0
    alike(folder / "one", folder / "two")
    one, two = (json.loads((folder / name / "results.json").read_text())["metrics"] for name in ("one", "two"))
    assert [(m["name"], pytest.approx(m["value"], 1e-4)) for m in one] == [(m["name"], m["value"]) for m in two]
    assert {p.name for p in (folder / "two").iterdir()} == {p.name for p in (folder / "one").iterdir()}
    assert sorted(p.name for p in folder.iterdir()) == ["data.npz", "one", "two"]


def test_a_sharded_optimizer_leaves_the_same_bytes(folder):
    two = [*VAE, "--hidden", "60", "--epochs", "3"]  # several buckets
    small = "from tinygen.training import buckets; buckets.BYTES = 1\n"
    assert ended(start(folder, 2, *two, "--out", "plain", before=small))[0] == 0
    assert ended(start(folder, 2, *two, "--out", "run", "--shard-optimizer", before=small))[0] == 0
    assert (folder / "run/last.safetensors").read_bytes() == (folder / "plain/last.safetensors").read_bytes()


def test_bad_usage_is_told_once(folder):
    code, out, err = ended(start(folder, 2, *VAE[:2], "--hidde", "6"))
    assert (code, out) == (2, "")
    assert err == "tinygen train vae: unrecognized arguments: --hidde 6 (did you mean --hidden?)\n"
    code, out, err = ended(start(folder, 2, *VAE, "--out", "data.npz"))
    assert (code, out) == (2, "")
    assert err == "tinygen train: --out data.npz: exists and is not an empty folder; name another\n"
    code, _, err = ended(start(folder, 2, "sample", "run"))
    assert (code, err) == (
        2, "tinygen sample: only tinygen train can be shared by several ranks: start this one without mpiexec\n",
    )  # fmt: skip


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_job_and_leaves_a_whole_checkpoint(folder, rank):
    process = start(folder, 2, *LONG, "--out", "run", before=OFTEN)
    trains(folder)
    os.kill(process_of(folder, rank), signal.SIGKILL)
    code, out, _ = ended(process)
    assert code == 9
    assert "EXIT CODE: 9" in out  # mpiexec's own words
    checkpoint.load(folder / "run/last.safetensors")


@pytest.mark.parametrize("number", range(20 if FULL else 2))
def test_a_kill_at_any_moment_ends_the_job(folder, number):
    """Also while it starts. A checkpoint that is there can be loaded."""
    rng = np.random.default_rng(number)
    process = start(folder, 2, *LONG, "--out", "run", before=OFTEN)
    rank = int(rng.integers(2))
    wait_for(lambda: process_of(folder, rank))
    time.sleep(rng.uniform(0, 5))
    os.kill(process_of(folder, rank), signal.SIGKILL)
    code, _, _ = ended(process, 30)
    assert code != 0
    for path in (folder / "run").glob("*.safetensors"):
        checkpoint.load(path)


def test_many_short_trainings_one_after_the_other_end(folder):
    """Each rank dawdles where it likes to. With --full 200 of them."""
    short = f"""
import random, time
import numpy as np
from tinygen import parallel
from tinygen.data import Dataset
from tinygen.models.registry import model_class
from tinygen.parallel import mpi
from tinygen.training import callbacks, loop
from tinygen.training.config import Config
from tinygen.training.trainer import Trainer

mpi.BEAT, callbacks.SAVE_SECONDS, callbacks.LOOK_SECONDS = 0.02, 0.01, 0.01
data = Dataset(np.random.default_rng(0).integers(0, 4, (20, 1, 4, 4)).astype(np.uint8), levels=4)
with mpi.job() as codes:
    ranks = parallel.current()
    dawdle = random.Random(ranks.rank)
    start_sum = ranks.start_sum
    def slow(array, root=None):
        if dawdle.random() < 0.05:
            time.sleep(dawdle.uniform(0, 0.003))
        return start_sum(array, root)
    ranks.start_sum = slow
    for number in range({MANY}):
        ranks.sharded, rng = number % 2 == 1, np.random.default_rng(number)
        model = model_class("vae")((1, 4, 4), 4, hidden=6, latent=2, rng=rng)
        trainer = Trainer(Config("vae", batch_size=6, epochs=1), model, data, rng)
        said = []
        assert loop.fit(trainer, [loop._snapshots(trainer, None, (data, data, data), said.append),
                                  callbacks.Checkpoints(trainer), callbacks.Stragglers(trainer, said.append)])
    if not ranks.rank:
        print(number + 1, "ended")
    codes.append(0)
raise SystemExit
"""
    code, out, err = ended(start(folder, 2, before=short), 600)
    assert (code, out) == (0, f"{MANY} ended\n"), err


@pytest.mark.parametrize("rank", [0, 1])
def test_a_stopped_rank_is_noticed_by_another(folder, rank):
    soon = "from tinygen.parallel import mpi; mpi.BEAT, mpi.PATIENCE = 0.1, 3.0\n"
    process = start(folder, 2, *LONG, "--out", "run", before=OFTEN + soon)
    trains(folder)
    stopped = process_of(folder, rank)
    os.kill(stopped, signal.SIGSTOP)
    code, _, err = ended(process)
    assert code == 1
    said = [line for line in err.splitlines() if line.startswith("tinygen")]
    assert len(said) == 1
    assert said[0].startswith(f"tinygen: rank {rank} (process {stopped} on ")
    assert "has given no sign of life for 3 s: it was stopped" in said[0]
    checkpoint.load(folder / "run/last.safetensors")


def test_a_full_disk_ends_all_ranks(folder):
    full = """
from tinygen.training import checkpoint, run
def save(path, tensors, metadata, save=checkpoint.save):
    if (path.parent / "metrics.csv").stat().st_size > 1000:
        raise OSError(28, "cannot save the checkpoint: No space left on device", str(path))
    save(path, tensors, metadata)
run.checkpoint.save = save
"""
    code, _, err = ended(start(folder, 2, *LONG, "--out", "run", before=OFTEN + full))
    assert code == 1
    said = [line for line in err.splitlines() if line.startswith("tinygen")]
    assert said == ["tinygen train: run/last.safetensors: cannot save the checkpoint: No space left on device"]
    checkpoint.load(folder / "run/last.safetensors")


def test_a_slow_rank_is_named(folder):
    slow = """
import time
from tinygen import parallel
from tinygen.models.vae.vae import VAE
from tinygen.training import callbacks
callbacks.LOOK_SECONDS = 0.5
def loss(self, batch, rng, loss=VAE.loss):
    time.sleep(0.02 * parallel.current().rank)
    return loss(self, batch, rng)
VAE.loss = loss
"""
    code, out, err = ended(start(folder, 2, *VAE, "--epochs", "30", "--out", "run", before=slow))
    assert code == 0, err
    (said,) = [line for line in out.splitlines() if "slower than the others" in line]
    assert ": rank 1 (process " in said
    assert said in (folder / "run/log.txt").read_text()


def test_an_error_of_one_rank_alone_is_told_by_it(folder):
    bad = """
from tinygen import parallel
from tinygen.training.trainer import Trainer
def advance(self, done, advance=Trainer.advance):
    if parallel.current().rank == 1 and self.step == 5:
        raise MemoryError("no memory for rank 1")
    return advance(self, done)
Trainer.advance = advance
"""
    code, _, err = ended(start(folder, 2, *LONG, "--out", "run", before=bad))
    assert code == 1
    said = [line for line in err.splitlines() if line.startswith("tinygen")]
    assert said == ["tinygen train: no memory for rank 1; a smaller --batch-size or model takes less"]


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_ctrl_c_saves_once_and_another_number_of_ranks_goes_on(folder, before, after):
    epochs = ["--epochs", "40"]
    slow = """
import time
from tinygen.training.trainer import Trainer
def advance(self, done, advance=Trainer.advance):
    time.sleep(0.02)
    return advance(self, done)
Trainer.advance = advance
"""
    assert ended(start(folder, 1, *VAE, *epochs, "--out", "unbroken"))[0] == 0
    process = start(folder, before, *VAE, *epochs, "--out", "run", before=slow)
    trains(folder)
    process.send_signal(signal.SIGINT)
    code, out, err = ended(process)
    assert code == 130, err
    assert err.count("interrupted: saved at step") == 1
    step = int(err.split("saved at step ")[1].split(";")[0])
    assert 0 < step < 120
    assert numbers(folder / "run")[-1]["step"] == step
    code, out, err = ended(start(folder, after, "train", "--resume", "run"))
    assert code == 0, err
    assert f"run goes on at step {step}{', on 2 ranks' * (after == 2)}" in out
    alike(folder / "unbroken", folder / "run", 1e-3)
