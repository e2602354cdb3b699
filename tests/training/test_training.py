"""Training: the gate on the digits, what a run leaves behind, progress."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import itertools
import math
import os
import re
import signal
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tinygen
from tinygen import console, optim
from tinygen.console import Bar, duration, say
from tinygen.data import Dataset, Minibatches, load
from tinygen.models.autoregressive.pixelcnn import PixelCNN
from tinygen.training import callbacks, checkpoint, commands, loop
from tinygen.training.callbacks import Checkpoints, MetricsFile
from tinygen.training.checkpoint import CheckpointError
from tinygen.training.config import Config
from tinygen.training.interrupt import interruptions
from tinygen.training.progress import Progress
from tinygen.training.run import Run
from tinygen.training.trainer import Trainer

TINY = {"hidden": 3, "blocks": 1}


def tiny(seed: int = 0, n: int = 20) -> tuple[Config, PixelCNN, Dataset, np.random.Generator]:
    """All that `fit` needs, for a few steps on images of noise."""
    config = Config("pixelcnn", "noise", None, TINY, seed, batch_size=8, epochs=2.5)
    rng = np.random.default_rng(seed)
    data = Dataset(np.random.default_rng(1).integers(0, 4, (n, 1, 3, 4)).astype(np.uint8), levels=4)
    return config, PixelCNN((1, 3, 4), 4, **TINY, rng=rng), data, rng


def fit(training: Trainer, run: Run) -> None:
    """Train with checkpoints and metrics, and nothing else around."""
    metrics = MetricsFile(run, validated=False)
    with np.errstate(all="raise"):
        assert loop.fit(training, [metrics, Checkpoints(training, run, metrics)])


def trained(folder: Path, seed: int = 0) -> Run:
    config, model, data, rng = tiny(seed)
    run = Run.create("pixelcnn", folder)
    fit(Trainer(config, model, data, rng), run)
    return run


# --------------------------------------------------------------------------------------------------------- the loop


def test_digits_within_seconds(tmp_path):
    """The gate: PyTorch reaches 1.92 bits/dim on the test digits after 14 s with this architecture."""
    train, test = load("digits")
    rng = np.random.default_rng(0)
    model = PixelCNN((1, 8, 8), 17, hidden=16, blocks=3, rng=rng)
    config = Config("pixelcnn", batch_size=16, lr=4e-3, epochs=12)
    fit(Trainer(config, model, train, rng), Run.create("pixelcnn", tmp_path))
    assert model.bits_per_dim(-model.log_prob(test.images).mean()) <= 1.93


def test_fit_is_adam_on_shuffled_batches_with_a_rate_that_falls_along_a_cosine(tmp_path):
    config, model, data, rng = tiny()
    fit(Trainer(config, model, data, rng), Run.create("pixelcnn", tmp_path))
    _, other, _, rng = tiny()
    optimizer = optim.Adam(other.parameters())
    batches = Minibatches(data.images, 8, rng)
    stream = itertools.chain.from_iterable(batches for _ in range(3))
    steps = 8  # 2.5 epochs of 3 batches, rounded
    for step, images in zip(range(steps), stream, strict=False):
        optimizer.param_groups[0]["lr"] = 2e-3 * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.zero_grad()
        other.nats(images).mean().backward()
        optimizer.step()
    for name, value in other.state_dict().items():
        np.testing.assert_array_equal(model.state_dict()[name], value)
    # the checkpoint holds this very place, so that a run that goes on from it misses no image and repeats none
    _, _, state = Run(tmp_path).load()
    assert state["step"] == steps
    assert state["generator"] == rng.bit_generator.state
    assert state["batches"]["position"] == batches.state_dict()["position"] == 16
    np.testing.assert_array_equal(state["batches"]["permutation"], batches.state_dict()["permutation"])
    for name, value in optimizer.state_dict().items():
        np.testing.assert_array_equal(state["optimizers"]["adam"][name], value)


def test_what_a_checkpoint_holds_can_be_taken_up(tmp_path):
    run = trained(tmp_path)
    config, model, state = run.load()
    assert config == tiny()[0]
    optimizer = optim.Adam(model.parameters())
    optimizer.load_state_dict(state["optimizers"]["adam"])
    batches = Minibatches(tiny()[2].images, 8, np.random.default_rng(0))
    batches.load_state_dict(state["batches"])
    batches.rng.bit_generator.state = state["generator"]
    assert [len(b) for b in batches] == [4]  # the rest of the third epoch
    assert len(next(iter(batches))) == 8


def test_minutes_end_training_too(tmp_path, monkeypatch):
    clock = itertools.count(0, 0.5)
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(clock))
    config, model, data, rng = tiny()
    config.epochs, config.minutes = None, 0.5
    fit(Trainer(config, model, data, rng), Run.create("pixelcnn", tmp_path))
    assert 5 < Run(tmp_path).load()[2]["step"] < 60


@pytest.mark.parametrize("seconds", [0, 1e9])
def test_metrics_are_a_table_of_all_steps(tmp_path, monkeypatch, seconds):
    monkeypatch.setattr(callbacks, "REPORT_SECONDS", seconds)
    rows = list(csv.DictReader(trained(tmp_path).metrics.read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == list(range(1, 9))
    _, model, data, rng = tiny()
    first = model.nats(next(iter(Minibatches(data.images, 8, rng)))).mean().item()
    assert float(rows[0]["nats"]) == first  # bit for bit
    assert all(0.5 < model.bits_per_dim(float(row["nats"])) < 4 for row in rows)


@pytest.mark.fault("R02")
def test_the_metrics_are_never_behind_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks, "SAVE_SECONDS", 0)
    metrics, save, sync, seen, synced = tmp_path / "metrics.csv", checkpoint.save, os.fsync, [], [b""]

    def as_synced(descriptor):
        if metrics.exists() and os.path.samestat(os.fstat(descriptor), metrics.stat()):
            synced.append(metrics.read_bytes())
        sync(descriptor)

    def after_a_look(path, tensors, about):
        assert not metrics.exists() or synced[-1] == metrics.read_bytes()
        seen.append((about["state"]["step"], max(0, synced[-1].count(b"\n") - 1)))
        save(path, tensors, about)

    monkeypatch.setattr(os, "fsync", as_synced)
    monkeypatch.setattr(checkpoint, "save", after_a_look)
    trained(tmp_path)
    assert seen == [(step, step) for step in (*range(9), 8)]


@pytest.mark.fault("R08")
def test_the_seed_decides_every_byte(tmp_path):
    one, same, other = (trained(tmp_path / str(i), seed).checkpoint.read_bytes() for i, seed in enumerate((0, 0, 1)))
    assert one == same
    assert one != other


# --------------------------------------------------------------------------------------------------- the run folder


def test_a_run_comes_back_as_it_was(tmp_path):
    config, model, data, _ = tiny()
    run = Run.create("pixelcnn", tmp_path)
    state = {"a": [1, 2.5, None, "x", [np.arange(3)]], "b": {"c": np.array(1.5), "d": True}, "e": (1, 2)}
    run.save(run.checkpoint, config, model, **state)
    loaded, again, back = Run(tmp_path).load()
    assert loaded == config
    np.testing.assert_array_equal(again.log_prob(data.images), model.log_prob(data.images))
    assert back["a"][:4] == [1, 2.5, None, "x"]
    np.testing.assert_array_equal(back["a"][4][0], np.arange(3))
    assert back["b"]["c"].shape == ()
    assert (back["b"]["c"], back["b"]["d"], back["e"]) == (1.5, True, [1, 2])


@pytest.mark.fault("R10")
def test_of_runs_that_start_at_once_each_gets_its_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found: list[Path] = []
    refused: list[Exception] = []
    start = threading.Barrier(8)

    def create(out: Path | None) -> None:
        start.wait()
        try:
            found.append(Run.create("m", out).folder)
        except FileExistsError as e:
            refused.append(e)

    for out in (None, Path("one")):
        threads = [threading.Thread(target=create, args=(out,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(map(str, found)) == sorted([*(f"runs/m-{i}" for i in range(1, 9)), "one"])
    assert len(refused) == 7


@pytest.mark.fault("R10")
def test_a_folder_with_anything_in_it_is_refused(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    for out in (tmp_path, file):
        with pytest.raises(FileExistsError, match="exists and is not an empty folder; name another"):
            Run.create("m", out)
    assert file.read_text() == "mine"
    with pytest.raises(OSError, match="Not a directory"):
        Run.create("m", file / "below")
    assert Run.create("m", tmp_path / "a" / "b").folder.is_dir()


def test_runs_that_is_no_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("runs").symlink_to("nowhere")
    with pytest.raises(FileExistsError, match="runs"):
        Run.create("m")


def last(folder: str | Path) -> dict:
    """The state of the checkpoint that training goes on from."""
    run = Run(Path(folder))
    return run.load(run.checkpoint)[2]


def changed(run: Run, **about) -> None:
    tensors, before = checkpoint.load(run.checkpoint)
    checkpoint.save(run.checkpoint, tensors, before | about)


def without(name: str):
    def change(run: Run) -> None:
        tensors, about = checkpoint.load(run.checkpoint)
        checkpoint.save(run.checkpoint, {k: v for k, v in tensors.items() if k != name}, about)

    return change


def flipped(run: Run, bit: int = -790) -> None:
    data = bytearray(run.checkpoint.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    run.checkpoint.write_bytes(data)


CONFIG = {"model": "pixelcnn", "options": TINY}
DAMAGE = {
    "a flipped bit": (flipped, "checksum does not match"),
    "half of it": (lambda run: os.truncate(run.checkpoint, 3000), "truncated"),
    "nothing": (lambda run: os.truncate(run.checkpoint, 0), "empty or truncated"),
    "a text": (lambda run: run.checkpoint.write_text("once upon a time"), "no checkpoint"),
    "only weights": (lambda run: checkpoint.save(run.checkpoint, {"w": np.ones(3)}, {}), "it has no 'config'"),
    "an unknown model": (lambda run: changed(run, config={"model": "pixelvae"}), "no model is named 'pixelvae'"),
    "an unknown setting": (lambda run: changed(run, config={"model": "pixelcnn", "depth": 3}), "'depth'"),
    "an unknown option": (lambda run: changed(run, config=CONFIG | {"options": {"depth": 3}}), "'depth'"),
    "another size": (lambda run: changed(run, config=CONFIG | {"options": {"hidden": 4, "blocks": 1}}), "has shape"),
    "more layers": (lambda run: changed(run, config=CONFIG | {"options": {"hidden": 3, "blocks": 2}}), "is missing"),
    "other images": (lambda run: changed(run, image_shape=7), "int"),
    "other levels": (lambda run: changed(run, levels=1), "levels must be from 2 to 256, got 1"),
    "no state": (lambda run: changed(run, state="none"), "'str'"),
    "a list for a state": (lambda run: changed(run, state=[]), "list|integer"),
    "a tensor less": (without("model.layers.0.weight"), "model.layers.0.weight"),
}


@pytest.mark.fault("R04", "R14")
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_checkpoint_that_cannot_be_used_says_why(tmp_path, damage):
    run = trained(tmp_path)
    function, text = DAMAGE[damage]
    function(run)
    with pytest.raises(CheckpointError, match=text) as caught:
        run.load()
    assert "last.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.fault("R04")
def test_a_thousand_random_flips_in_a_run_s_checkpoint_are_refused(tmp_path):
    run = trained(tmp_path)
    rng = np.random.default_rng(0)
    for bit in rng.integers(8 * run.checkpoint.stat().st_size, size=1000).tolist():
        flipped(run, bit)
        with pytest.raises(CheckpointError, match=r"last\.safetensors"):
            run.load()
        flipped(run, bit)
    assert run.load()[2]["step"] == 8


def test_a_folder_without_a_checkpoint_is_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"ghost is no run folder: it has no last\.safetensors"):
        Run(tmp_path / "ghost").load()


# ------------------------------------------------------------------------------------------- NaN, interruption, resume


def run_of_noise(**changes) -> Config:
    """A configuration of 8 steps: 2.5 epochs of 3 batches, on a file of noise that is made here."""
    images = np.random.default_rng(1).integers(0, 4, (23, 1, 3, 4)).astype(np.uint8)
    np.savez("noise.npz", images=images, levels=np.array(4))
    settings = {"data": "noise.npz", "options": TINY, "batch_size": 8, "epochs": 2.5}
    return Config("pixelcnn", **(settings | changes))


CLOCK = {"log.txt", "results.json", "report.html"}


def everything(folder: str | Path) -> dict[str, str]:
    """Checksums of the files in a folder that don't depend on the clock."""
    paths = [path for path in Path(folder).rglob("*") if path.is_file() and path.name not in CLOCK]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def before_step(number: int, do, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something in step `number`, counted from 1, before anything changes. Steps that only measure don't count."""
    advance, steps = Trainer.advance, itertools.count(1)

    def patched(training, done):
        if training.config.lr and next(steps) == number:
            do()
        return advance(training, done)

    monkeypatch.setattr(Trainer, "advance", patched)


@pytest.fixture
def whole(tmp_path, monkeypatch) -> dict[str, str]:
    """What a run that nothing stopped leaves behind; the working folder is a new one from then on."""
    monkeypatch.chdir(tmp_path)
    loop.train(run_of_noise(), Path("whole"))
    return everything("whole")


@pytest.mark.fault("R07", "R09")
@pytest.mark.parametrize("step", range(1, 9))
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_at_any_step_and_resumed_a_run_leaves_the_same_bytes(whole, monkeypatch, capsys, step, number):
    def never(*_):
        raise AssertionError("the signal wasn't held back")

    old = signal.signal(number, never)
    try:
        with monkeypatch.context() as patch:
            before_step(step, lambda: signal.raise_signal(number), patch)
            with pytest.raises(KeyboardInterrupt, match=f"saved at step {step}; to go on: tinygen train --resume x"):
                loop.train(run_of_noise(), Path("x"))
        assert signal.getsignal(number) is never
    finally:
        signal.signal(number, old)
    assert last("x")["step"] == step  # the step that was begun is whole
    capsys.readouterr()
    loop.resume(Path("x"))
    out = capsys.readouterr().out.splitlines()
    assert out[0].endswith(f"x goes on at step {step}")
    assert out[2] == "to go on if it is interrupted: tinygen train --resume x"
    assert everything("x") == whole


@pytest.mark.fault("R02", "R07")
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    crashes=st.lists(st.integers(1, 9), max_size=4),
    interval=st.integers(1, 4),
    tail=st.sampled_from(["", "9,1.", "1"]),
)
def test_crashes_lose_no_more_than_an_interval(whole, crashes, interval, tail):
    """Each crash happens so many steps after the start, and may leave half a line in metrics.csv."""
    folder = Path(tempfile.mkdtemp(dir="."))

    def go(crash: int | None) -> None:
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(ZeroDivisionError):
            # a checkpoint every `interval` steps, whatever the clock says
            patch.setattr(callbacks, "SAVE_SECONDS", 0)
            save = Trainer.save
            patch.setattr(Trainer, "save", lambda t, r: None if t.step % interval and t.step < 8 else save(t, r))
            if crash is not None:
                before_step(crash, lambda: 1 / 0, patch)
            if (folder / "x").exists():
                before = last(folder / "x")["step"]
                loop.resume(folder / "x")
            else:
                before = 0
                loop.train(run_of_noise(), folder / "x")
        step = last(folder / "x")["step"]
        assert step % interval == 0 or step == 8
        assert crash is None or step > before + crash - 1 - interval or step == 8
        with (folder / "x" / "metrics.csv").open("a") as file:
            file.write(tail)

    for crash in crashes:
        go(crash)
    tail = ""
    go(None)
    assert everything(folder / "x") == whole


def test_a_finished_run_that_is_resumed_stays_as_it_is(whole):
    loop.resume(Path("whole"))
    assert everything("whole") == whole


def test_a_run_bounded_by_minutes_goes_on_with_the_rest_of_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    clock = itertools.count(0, 0.5)
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(clock))
    before_step(5, lambda: signal.raise_signal(signal.SIGINT), monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        loop.train(run_of_noise(epochs=None, minutes=0.5), Path("x"))
    spent = last("x")["seconds"]
    assert 5 < spent < 25  # of 30; everybody who looks at this clock moves it on
    loop.resume(Path("x"))
    state = last("x")
    assert 30 <= state["seconds"] < 33
    assert 5 < state["step"] <= 5 + (36 - spent) * 5 / spent  # at the same speed


def test_the_model_is_in_training_mode_while_it_trains_and_only_then(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    modes, forward = [], PixelCNN.forward
    monkeypatch.setattr(
        PixelCNN, "forward", lambda m, x: [modes.append((m.training, tinygen.is_grad_enabled())), forward(m, x)][1]
    )
    with monkeypatch.context() as patch:
        before_step(3, lambda: signal.raise_signal(signal.SIGINT), patch)
        with pytest.raises(KeyboardInterrupt):
            loop.train(run_of_noise(), Path("x"))
    assert modes.count((True, True)) >= 3
    loop.resume(Path("x"))
    assert set(modes) == {(True, True), (False, False)}
    assert modes[-1] == (False, False)


@pytest.mark.fault("R03")
def test_a_disk_that_is_full_for_a_while_costs_an_interval(whole, monkeypatch):
    fsync, calls = os.fsync, itertools.count(1)

    def full(descriptor):
        if next(calls) > 9:  # at the start the metrics, a file and its folder; two of the best; three of step 1
            # and the metrics of step 2, whose validation is no better
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(callbacks, "SAVE_SECONDS", 0)
        patch.setattr(checkpoint.os, "fsync", full)
        with pytest.raises(OSError, match=r"cannot save the checkpoint: No space left on device: 'x/last\.saf"):
            loop.train(run_of_noise(), Path("x"))
    assert last("x")["step"] == 1
    loop.resume(Path("x"))
    assert everything("x") == whole


def test_the_last_run_is_the_one_saved_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no run in the folder runs"):
        Run.existing(Path("last"))
    for time, name in ((3, "a"), (9, "b"), (5, "c")):
        path = Path("runs") / name / "last.safetensors"
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (time, time))
    Path("runs/d").mkdir()
    assert Run.existing(Path("last")).folder == Path("runs/b")
    assert Run.existing(Path("runs/c")).folder == Path("runs/c")
    with pytest.raises(FileNotFoundError, match="runs/d is no run folder"):
        Run.existing(Path("runs/d"))


@pytest.mark.fault("R10")
def test_a_run_is_trained_by_one_process_at_a_time(whole):
    run = Run(Path("whole"))
    with run.held(), pytest.raises(FileExistsError, match="whole: another process is training this run"):
        loop.resume(Path("whole"))
    with pytest.raises(ZeroDivisionError), run.held():
        raise ZeroDivisionError
    loop.resume(Path("whole"))
    assert everything("whole") == whole


def other_data(run: Run) -> None:
    np.savez("noise.npz", images=np.zeros((23, 1, 3, 4), np.uint8), levels=np.array(4))


def more_data(run: Run) -> None:
    np.savez("noise.npz", images=np.zeros((40, 1, 3, 4), np.uint8), levels=np.array(5))


def state_without(*names: str):
    def change(run: Run) -> None:
        tensors, about = checkpoint.load(run.checkpoint)
        state = {k: v for k, v in about["state"].items() if k not in names}
        checkpoint.save(run.checkpoint, tensors, about | {"state": state})

    return change


CHANGES = {
    "other images": (other_data, r"the data set 'noise.npz' has changed: sha256 were \w+, are now \w+$"),
    "more images": (more_data, r"images were \[19, 1, 3, 4\], are now \[35, 1, 3, 4\]; levels were 4, are now 5"),
    "a version that held less": (state_without("data"), "it has no 'data'"),
    "no optimizer": (state_without("optimizers"), "it has no 'optimizers'"),
    "another optimizer": (without("optimizers.adam.state.0.exp_avg"), "optimizers.adam.state.0.exp_avg"),
    "another model": (lambda run: changed(run, config=CONFIG | {"options": {"hidden": 4, "blocks": 1}}), "has shape"),
}


@pytest.mark.fault("R14")
@pytest.mark.parametrize("change", CHANGES)
def test_a_run_that_does_not_fit_any_more_says_what_differs(whole, change, capsys):
    function, text = CHANGES[change]
    function(Run(Path("whole")))
    before = everything("whole")
    with pytest.raises(CheckpointError, match=text) as caught:
        loop.resume(Path("whole"))
    assert "whole/last.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert everything("whole") == before


def spoil(number: int, how, monkeypatch: pytest.MonkeyPatch) -> None:
    """From step `number` on the loss is how(model, loss)."""
    nats = PixelCNN.nats
    steps = itertools.count(1)
    monkeypatch.setattr(
        PixelCNN, "nats", lambda m, *args: nats(m, *args) if next(steps) < number else how(m, nats(m, *args))
    )


def root_of_zero(model, loss):
    """Adds 0, whose gradient to the last bias is infinite times 0: a loss that is finite, a gradient that isn't."""
    return loss + tinygen.sqrt((list(model.layers)[-1].bias * 0).sum())


def log_of_minus_one(model, loss):
    return tinygen.log(loss * 0 - 1)


SPOILED = {
    "loss": (
        log_of_minus_one,
        r"the loss 'nats' became nan at step 3: try a lower --lr \(forward of log\(.*\) gave nan\)",
    ),
    "gradient": (
        root_of_zero,
        r"the gradient of layers.\d.bias is nan at step 3: try a lower --lr \(backward of \w+\(.*\) gave inf\)",
    ),
}


@pytest.mark.fault("R01")
@pytest.mark.parametrize("where", SPOILED)
def test_nan_names_step_op_and_tensor_and_the_good_checkpoint_stays(tmp_path, monkeypatch, where):
    how, text = SPOILED[where]
    config, model, data, rng = tiny()
    training = Trainer(config, model, data, rng)
    run = Run.create("pixelcnn", tmp_path)
    monkeypatch.setattr(callbacks, "SAVE_SECONDS", 0)
    spoil(3, how, monkeypatch)
    weights = []
    advance = Trainer.advance
    monkeypatch.setattr(Trainer, "advance", lambda t, done: [weights.append(model.state_dict()), advance(t, done)][1])
    with pytest.raises(FloatingPointError, match=text):
        fit(training, run)
    assert len(run.metrics.read_text().splitlines()) == 3
    _, saved, state = run.load()
    assert (state["step"], training.step) == (2, 2)
    for name, value in model.state_dict().items():  # nothing was spoiled in memory either
        np.testing.assert_array_equal(value, saved.state_dict()[name])
        np.testing.assert_array_equal(value, weights[-1][name])


@pytest.mark.fault("R01")
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_parameter_that_is_not_finite_is_named_and_never_saved(tmp_path, monkeypatch, value):
    config, model, data, rng = tiny()
    training, run = Trainer(config, model, data, rng), Run.create("pixelcnn", tmp_path)
    training.save(run)
    before = run.checkpoint.read_bytes()
    list(model.layers)[-1].bias.write()[0] = value
    with pytest.raises(FloatingPointError, match=rf"parameter layers.\d.bias is {value} at step 0: try a lower --lr"):
        training.save(run)
    text = rf"the loss 'nats' became nan at step 1: .*\(parameter layers.\d.bias is {value}\)"
    with pytest.raises(FloatingPointError, match=text), np.errstate(all="ignore"):
        training.advance(0.0)
    assert run.checkpoint.read_bytes() == before


@pytest.mark.fault("R01")
def test_the_failing_step_is_looked_at_with_the_same_random_numbers(monkeypatch):
    config, model, data, rng = tiny()
    drawn = []

    def unlucky(model, loss):
        drawn.append(rng.random())
        return tinygen.log(loss * 0 - 1)

    spoil(1, unlucky, monkeypatch)
    with pytest.raises(FloatingPointError, match="forward of log"), np.errstate(all="ignore"):
        Trainer(config, model, data, rng).advance(0.0)
    assert len(drawn) == 2
    assert drawn[0] == drawn[1]


def test_a_second_signal_acts_at_once_and_ignored_ones_stay_ignored():
    with interruptions() as came:
        signal.raise_signal(signal.SIGINT)
        assert came == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptions() as came:
            signal.raise_signal(signal.SIGINT)
        assert came == []
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, old)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_training_in_a_thread_leaves_signals_alone(tmp_path):
    done = []
    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=lambda: done.append(trained(tmp_path)))
    thread.start()
    thread.join()
    assert done[0].load()[2]["step"] == 8
    assert signal.getsignal(signal.SIGINT) is before


# --------------------------------------------------------------------------------------------- likelihood and samples


def test_what_is_shown_of_long_tasks_changes_nothing_and_short_tasks_say_nothing(capsys, monkeypatch):
    model, data = tiny()[1:3]
    drawn = commands.samples(model, 5, 7, 0.8)
    np.testing.assert_array_equal(drawn, model.sample(5, np.random.default_rng(7), 0.8))
    with Bar():
        model.family.metrics(model, data, data, np.random.default_rng(7))
    assert shown(capsys) == []
    monkeypatch.setattr(console, "LINE_SECONDS", 0)
    many = Dataset(np.tile(data.images, (30, 1, 1, 1)), levels=4)
    with Bar():
        model.family.metrics(model, data, many, np.random.default_rng(7))
    assert [line.partition("  ? s")[0] for line in shown(capsys)] == [
        f"{p:3}%  likelihood of 600 images" for p in (0, 42, 85)
    ]  # fmt: skip
    model.log_prob(data.images)
    assert shown(capsys) == []


# --------------------------------------------------------------------------------------------------------- progress


class Clock:
    """Time that stands still, and a training whose steps take half a second."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, steps: float, seconds: float = math.inf, step: int = 0) -> None:
        self.now, self.steps, self.seconds, self.step, self.spent = 100.0, steps, seconds, step, 0.0
        monkeypatch.setattr(console.time, "monotonic", lambda: self.now)

    @property
    def done(self) -> float:
        return min(1.0, max(self.step / self.steps, (self.now - 100) / self.seconds))

    def tick(self, bar: Progress, loss: float = 1.0) -> None:
        self.now += 0.5
        self.step += 1
        bar.step({"step": self.step, "loss": loss})


def shows(parts: dict[str, float]) -> str:
    return f"{parts['loss']:.3f} nats (floor 2.391)"


def shown(capsys) -> list[str]:
    out, err = capsys.readouterr()
    assert out == ""  # stdout stays clean
    return err.splitlines()


def test_without_a_terminal_a_line_every_few_seconds_and_one_at_the_end(capsys, monkeypatch):
    clock = Clock(monkeypatch, 100)
    with Progress(clock, shows) as bar:
        for _ in range(100):
            clock.tick(bar, 1.75)
    lines = shown(capsys)
    assert len(lines) == 50 / console.LINE_SECONDS + 1
    assert lines[0] == " 10%  step 10  1.750 nats (floor 2.391)  45 s left"
    assert lines[-1] == "100%  step 100  1.750 nats (floor 2.391)  50 s"


@pytest.mark.parametrize(("steps", "seconds"), [(1000, math.inf), (math.inf, 500.0), (1000, 200.0), (100, 500.0)])
def test_the_time_left_is_right_if_the_speed_stays(capsys, monkeypatch, steps, seconds):
    clock = Clock(monkeypatch, steps, seconds)
    bar = Progress(clock, shows)
    end = min(steps * 0.5, seconds)
    for _ in range(50):
        clock.tick(bar)
    for line in shown(capsys):
        step = int(re.search(r"step (\d+)", line)[1])
        percent, left = int(line.partition("%")[0]), line.rpartition("  ")[2].removesuffix(" left")
        assert percent == math.floor(100 * step * 0.5 / end)
        assert left == duration(end - step * 0.5)


def test_the_numbers_shown_are_smoothed_and_forget_the_start(monkeypatch):
    clock = Clock(monkeypatch, 10)
    bar = Progress(clock, shows)
    for loss in (9.0, 1.0, 2.0):
        clock.tick(bar, loss)
    assert bar.parts == {"loss": pytest.approx(4)}  # few steps: their mean
    for step in range(4, 300):
        clock.tick(bar, 1.0 + step % 2)
    assert bar.parts["loss"] == pytest.approx(1.5, abs=0.05)
    bar.step({"step": 301, "loss": 1.5, "validation": 9.0})
    assert bar.parts.keys() == {"loss"}


def test_a_run_that_goes_on_shows_the_time_left_at_the_speed_of_now(capsys, monkeypatch):
    clock = Clock(monkeypatch, 200, step=100)
    bar = Progress(clock, shows)
    for _ in range(50):
        clock.tick(bar)
    assert shown(capsys)[-1] == " 75%  step 150  1.000 nats (floor 2.391)  25 s left"


def test_a_run_that_fails_at_once_shows_no_progress(capsys, monkeypatch):
    with pytest.raises(ZeroDivisionError), Progress(Clock(monkeypatch, 10), shows):
        raise ZeroDivisionError
    assert shown(capsys) == []


@given(st.floats(0, 1e6))
def test_a_duration_reads_back(seconds):
    units = {"h": 3600, "min": 60, "s": 1}
    pairs = re.findall(r"(\d+) (h|min|s)", duration(seconds))
    value = sum(int(n) * units[unit] for n, unit in pairs)
    assert " ".join(f"{n} {unit}" for n, unit in pairs) == duration(seconds)
    assert abs(value - seconds) <= (60 if "h" in duration(seconds) else 0.5)
    assert all(int(n) < 60 for n, unit in pairs if unit != "h")


def test_durations():
    known = {0: "0 s", 59.6: "1 min 00 s", 200: "3 min 20 s", 18420: "5 h 07 min", math.inf: "? s"}
    assert {seconds: duration(seconds) for seconds in known} == known


@pytest.mark.fault("R11")
def test_a_line_that_nobody_reads_is_no_error():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stream:
        say("one", stream)
        say("two", stream)  # and closing it, which flushes, is none either


@pytest.mark.fault("R11")
def test_streams_that_are_not_there(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(sys, "stdout", None)
    say("nothing")
    clock = Clock(monkeypatch, 2)
    with Progress(clock, shows) as bar:
        clock.tick(bar)
