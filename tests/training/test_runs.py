"""What surrounds training: configurations, costs, snapshots, and the commands that work on a run."""

from __future__ import annotations

import csv
import dataclasses
import json
import platform
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygen
from tests.models.small import SMALL
from tinygen import nn, optim
from tinygen.cli import main as cli
from tinygen.data import Dataset
from tinygen.geometry import Geometry, channel_mask
from tinygen.models.autoregressive.gated import GatedPixelCNN
from tinygen.models.autoregressive.pixelcnn import PixelCNN
from tinygen.models.energy import family as energy
from tinygen.models.family import Batch, Family
from tinygen.models.gan.progressive import ProgressiveGAN
from tinygen.models.model import Model
from tinygen.report.images import save_plot
from tinygen.training import callbacks, checkpoint, commands, config, cost, environment, loop
from tinygen.training import run as run_module
from tinygen.training.checkpoint import CheckpointError
from tinygen.training.config import Config
from tinygen.training.progress import Progress
from tinygen.training.run import Run
from tinygen.training.trainer import Trainer

TINY = {"hidden": 3, "blocks": 1}
SETTINGS = {"data": "noise.npz", "options": TINY, "batch_size": 8, "epochs": 2.5}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def noise(side: int = 4, levels: int = 4, n: int = 45) -> None:
    """noise.npz: images and labels of two classes."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, levels, (n, 1, side, side)).astype(np.uint8)
    np.savez("noise.npz", images=images, levels=np.array(levels), labels=np.arange(n) % 2)


def trained(**changes) -> Run:
    noise()
    return loop.train(Config("pixelcnn", **(SETTINGS | changes)), Path("run"))


def rows(run: Run) -> list[dict[str, str]]:
    return list(csv.DictReader(run.metrics.read_text().splitlines()))


# ------------------------------------------------------------------------------------------------------- configuration

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
CONFIGS = st.builds(
    Config, model=st.just("gated"), data=TEXT, levels=st.none() | st.integers(2, 256), seed=st.integers(0, 2**64),
    batch_size=st.integers(1, 10**6), lr=st.floats(1e-300, 1e300), epochs=st.none() | st.floats(0.01, 1e9),
    minutes=st.none() | st.integers(1, 99), weights=st.none() | TEXT,
    options=st.fixed_dictionaries({}, optional={"hidden": st.integers(-9, 99), "layers": st.integers(1, 5)}),
)  # fmt: skip


@given(CONFIGS)
def test_a_configuration_reads_back_from_toml(one):
    path = Path("config.toml")
    path.write_text(one.toml(), encoding="utf-8")
    assert Config.read(path) == one


def test_what_a_file_leaves_out_is_the_models_default():
    assert Config.of({"model": "gated", "lr": 1}) == Config("gated", lr=1, batch_size=GatedPixelCNN.batch_size)


WRONG = {
    'model = "pixelcn"': "no model is named 'pixelcn'; there are .* (did you mean pixelcnn?)",
    'data = "digits"': "no model is named None",
    'model = "gated"\nepoch = 3': "there is no setting named 'epoch' (did you mean epochs?)",
    'model = "gated"\n[options]\nhiden = 3': "there is no option of gated named 'hiden' (did you mean hidden?)",
    'model = "gated"\n[options]\nhidden = "3"': "hidden of gated must be a whole number, got '3'",
    'model = "gated"\n[options]\nhidden = true': "hidden of gated must be a whole number, got True",
    'model = "gated"\noptions = 3': "options must be a table, got 3",
    'model = "gated"\nlr = 0.0': "lr must be a number above 0, got 0.0",
    'model = "gated"\nlr = nan': "lr must be a number above 0, got nan",
    'model = "gated"\nbatch_size = 0': "batch_size must be a whole number, at least 1, got 0",
    'model = "gated"\nlevels = 2.5': "levels must be a whole number, at least 2, got 2.5",
    'model = "gated"\nseed = -1': "seed must be a whole number, at least 0, got -1",
    'model = "gated"\ndata = 7': "data must be text, got 7",
    "model = gated": "Invalid value",
    "\x00": "Invalid statement",
}


@pytest.mark.fault("R13")
@pytest.mark.parametrize("text", WRONG)
def test_a_configuration_that_is_wrong_is_refused_by_name_before_any_work(text, capsys):
    Path("x.toml").write_text(text)
    assert cli.main(["train", "--config", "x.toml"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert re.match(f"tinygen train: x.toml: {re.escape(WRONG[text]).replace(re.escape('.*'), '.*')}", err)
    assert sorted(p.name for p in Path().iterdir()) == ["x.toml"]


@pytest.mark.fault("R13")
def test_a_file_of_no_text_and_none_at_all():
    Path("x.toml").write_bytes(b"\xff\xfe")
    assert cli.main(["train", "--config", "x.toml"]) == 2
    assert cli.main(["train", "--config", "y.toml"]) == 2
    Path("x.toml").write_text("a = " + "[" * 100_000)
    assert cli.main(["train", "--config", "x.toml"]) == 2


def test_a_device_that_cannot_be_used_is_one_sentence(monkeypatch, capsys):
    trained()
    capsys.readouterr()
    monkeypatch.setattr(tinygen.cuda, "problem", lambda: "there is no such thing")
    before = sorted(Path().rglob("*"))
    for command in (["train", "made"], ["sample", "run"], ["train", "--resume", "run"]):
        assert cli.main([*command, "--device", "cuda"]) == 1
        said = f"tinygen {command[0]}: device 'cuda' can't be used: there is no such thing\n"
        assert capsys.readouterr().err == said
    assert sorted(Path().rglob("*")) == before
    assert cli.main(["sample", "run", "--device", "auto"]) == 0  # the CPU, then


KINDS = {
    int: ([0, -5], [True, 1.0, "1", None]), float: ([1, 0.5], [np.inf, np.nan, "1", True]),
    Literal["row", 3]: (["row", 3], ["column", 3.0, True]), int | None: ([None, 4], [4.0, "4"]),
    bool: ([True], [1, "true"]), dict[str, int]: ([{}], [[]]),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_which_values_an_annotation_takes(kind):
    right, wrong = KINDS[kind]
    assert [config.fits(value, kind) for value in right + wrong] == [True] * len(right) + [False] * len(wrong)


def test_the_folder_says_what_was_asked_for_and_where_it_ran():
    run = trained(seed=3)
    assert Config.read(run.folder / "config.toml") == Config("pixelcnn", **SETTINGS, seed=3)
    about = tomllib.loads((run.folder / "environment.toml").read_text())
    assert about["numpy"] == np.__version__
    assert about.keys() >= {"tinygen", "python", "processor", "threads", "kernels"}


def test_where_neither_git_nor_the_system_tells(monkeypatch, tmp_path):
    read = Path.read_text

    def unreadable(path, *args, **kwargs):
        if path == Path("/proc/cpuinfo"):
            raise PermissionError(path)
        return read(path, *args, **kwargs)

    monkeypatch.setenv("PATH", "")  # no git
    monkeypatch.setattr(Path, "read_text", unreadable)
    about = environment.environment()
    assert about["commit"] is None
    assert about["processor"] == (platform.processor() or platform.machine())
    monkeypatch.undo()
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "tinygen" / "training" / "environment.py"))
    assert environment.environment()["commit"] is None  # installed, not a clone


def test_a_path_of_data_is_kept_so_that_the_run_goes_on_from_anywhere(monkeypatch):
    noise()
    assert cli.main(["train", "made", "--data", "noise.npz", "--epochs", "1", "--hidden", "2", "--out", "run"]) == 0
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert cli.main(["evaluate", "../run"]) == 0
    assert cli.main(["train", "--resume", "../run"]) == 0


# ---------------------------------------------------------------------------------------------------------------- costs


@pytest.mark.parametrize(("channels", "mask"), [(1, "A"), (1, "B"), (3, "A"), (3, "B")])
def test_the_operations_of_a_masked_convolution_are_those_on_the_weights_that_it_keeps(channels, mask):
    conv = nn.MaskedConv2d(2 * channels, 4 * channels, 5, mask, channels, rng=np.random.default_rng(0))
    kept = 12 * conv.weight[:, :, 0, 0].numel() + channel_mask(4 * channels, 2 * channels, mask, channels).sum()
    assert Geometry(mask=mask, channels=channels).terms(conv.weight.shape) * conv.weight.shape[0] == pytest.approx(kept)


class Sized(Model):
    """One of each layer whose operations are counted, with their numbers written out; only some can be trained."""

    def __init__(self, image_shape, levels, *, rng) -> None:
        super().__init__(image_shape, levels)
        self.first = nn.Conv2d(1, 3, 3, padding=1, bias=False, rng=rng).requires_grad_(False)
        self.conv = nn.Conv2d(3, 5, 2, stride=2, rng=rng)
        self.up = nn.ConvTranspose2d(5, 2, 2, stride=2, rng=rng)
        self.linear = nn.Linear(32, 7, rng=rng)

    def loss(self, batch, rng):
        x = self.up(self.conv(self.first(self.network_input(batch.images))))
        return {"loss": self.linear(x.reshape(len(x), 32)).sum()}


def test_operations_are_counted_twice_a_multiply_add_and_thrice_where_gradients_flow():
    data = Dataset(np.zeros((9, 1, 4, 4), np.uint8), levels=2)
    rng = np.random.default_rng(0)
    training = Trainer(Config("sized", batch_size=3), Sized((1, 4, 4), 2, rng=rng), data, rng)
    found = cost.measure(training)
    first, conv, up, linear = 16 * 9 * 3, 4 * 4 * 3 * 5, 4 * 5 * 4 * 2, 32 * 7
    assert found.flops == 3 * 2 * (first + 3 * (conv + up + linear))
    assert (found.batches, found.images) == (1, 3)
    assert found.parameters == 27 + 65 + 42 + 231


def test_the_cost_of_a_model_that_grows_is_of_all_its_sizes(monkeypatch):
    data = Dataset(np.zeros((4, 1, 16, 16), np.uint8), levels=256)
    rng = np.random.default_rng(0)
    model = ProgressiveGAN((1, 16, 16), 256, latent=3, width=2, rng=rng)
    training = Trainer(Config("progressive", batch_size=2), model, data, rng)
    whole = cost.measure(training).flops
    parts = []
    for moment in cost.MOMENTS:
        monkeypatch.setattr(cost, "MOMENTS", (moment,))
        parts.append(cost.measure(training).flops)
    assert whole == pytest.approx(sum(parts) / 3)
    assert parts[0] < parts[-1]


def test_measuring_changes_nothing_and_a_dry_run_leaves_nothing(monkeypatch, capsys):
    noise()
    made = cli.main(["train", "pixelcnn", "--data", "noise.npz", "--hidden", "3", "--dry-run"])
    out = capsys.readouterr().out
    assert (made, sorted(p.name for p in Path().iterdir())) == (0, ["noise.npz"])
    assert re.fullmatch(
        r"pixelcnn on noise: .*\n.* parameters; .*FLOP and .*s an image; about .* steps of 16 images\n", out
    )
    run = trained()
    monkeypatch.setattr(loop, "measure", lambda *_: cost.Cost(1, 1.0, 1.0, 1, 8))
    other = loop.train(Config("pixelcnn", **SETTINGS), Path("other"))
    assert run.metrics.read_bytes() == other.metrics.read_bytes()
    assert run.checkpoint.read_bytes() == other.checkpoint.read_bytes()


@pytest.mark.parametrize("minutes", [None, 2.0])
def test_the_estimate_is_the_time_of_the_steps_that_are_left(minutes):
    data = Dataset(np.zeros((20, 1, 2, 2), np.uint8), levels=2)
    asked = Config("pixelcnn", batch_size=8, epochs=None if minutes else 4, minutes=minutes)
    training = Trainer(asked, PixelCNN((1, 2, 2), 2, rng=np.random.default_rng(0)), data, np.random.default_rng(0))
    training.drawn, training.seconds = 6, 60.0  # half of it
    text = cost.Cost(1, 1.0, seconds=3.0, batches=2, images=16).estimate(training)
    assert text == ("about 20 steps (16 epochs) in 1 min 00 s" if minutes else "about 9 s for 3 steps of 16 images")


# ---------------------------------------------------------------------------------------------- several optimizers


class Players(Model):
    """Two networks and a buffer; each player's loss depends on both."""

    schedule = "constant"

    def __init__(self, image_shape, levels, *, rng) -> None:
        super().__init__(image_shape, levels)
        self.one, self.two = (nn.Linear(4, 4, rng=rng) for _ in range(2))

    def optimizers(self, lr):
        return {"one": optim.Adam(self.one.parameters(), lr), "two": optim.SGD(self.two.parameters(), lr)}

    def both(self, batch):
        x = self.network_input(batch.images).reshape(-1, 4)
        return {"a": self.two(self.one(x)).mean(), "b": (self.one(x) * self.two(x)).mean()}


@pytest.mark.fault("M08")
@pytest.mark.parametrize("player", ["one", "two"])
def test_a_step_of_one_optimizer_leaves_the_others_parameters_and_gradients_alone(player):
    data = Dataset(np.random.default_rng(0).integers(0, 2, (8, 1, 2, 2)).astype(np.uint8), levels=2)
    model = Players((1, 2, 2), 2, rng=np.random.default_rng(0))
    training = Trainer(Config("players", batch_size=4), model, data, np.random.default_rng(0))
    before = model.state_dict()
    marks = {name: tinygen.tensor(np.full(p.shape, 7, p.dtype)) for name, p in model.named_parameters()}
    for name, p in model.named_parameters():
        p.grad = marks[name]
    batch = training.batch()
    total = sum(part.item() for part in model.both(batch).values())
    parts = training.minimize(lambda: model.both(batch), player)
    assert sum(parts.values()) == pytest.approx(total)
    for name, p in model.named_parameters():
        own = name.startswith(player)
        assert p.requires_grad
        assert (p.grad is marks[name]) == (not own)
        assert np.array_equal(p.numpy(), before[name]) == (not own)
    with pytest.raises(ZeroDivisionError):
        training.minimize(lambda: {"x": 1 / 0}, player)
    assert all(p.requires_grad for p in model.parameters())


def test_epochs_count_the_batches_that_are_drawn():
    noise(n=23)
    data = Dataset(np.zeros((20, 1, 2, 2), np.uint8), levels=2)
    training = Trainer(
        Config("pixelcnn", batch_size=8, epochs=2), PixelCNN((1, 2, 2), 2, rng=np.random.default_rng(0)), data,
        np.random.default_rng(0),
    )  # fmt: skip
    sizes = [len(training.batch().images) for _ in range(5)]
    assert sizes == [8, 8, 4, 8, 8]
    assert (training.images, training.done) == (36, 5 / 6)
    training.batch()
    assert (training.images, training.done) == (40, 1.0)


# -------------------------------------------------------------------------------------------------- looking at a model


def test_looking_at_a_model_changes_nothing_and_the_best_is_kept(monkeypatch):
    run = trained()
    monkeypatch.setattr(callbacks, "MOMENTS", (1.0,))
    once = loop.train(Config("pixelcnn", **SETTINGS), Path("once"))
    assert [row["nats"] for row in rows(run)] == [row["nats"] for row in rows(once)]
    values = [float(row["validation"]) for row in rows(run) if row["validation"]]
    assert len(values) > 5
    assert [row["validation"] != "" for row in rows(once)] == [False] * (len(rows(once)) - 1) + [True]
    _, model, state = run.load(run.best)
    _, held, _ = Config("pixelcnn", **SETTINGS).sets()
    assert state["best"] == min(values) == model.family.validation(model, Batch(held.images), np.random.default_rng(0))
    steps = [int(path.stem.partition("-")[2]) for path in sorted(run.snapshots.iterdir())]
    assert steps == [int(row["step"]) for row in rows(run) if row["validation"]]
    *_, final = sorted(run.snapshots.iterdir())
    last = run.load(run.checkpoint)[1]
    drawn = last.family.snapshot(last, Batch(np.zeros((len(held), 1, 4, 4))), np.random.default_rng((0, steps[-1])))
    save_plot(Path("again.png"), drawn, 4)
    assert final.read_bytes() == Path("again.png").read_bytes()


def test_snapshots_of_steps_that_are_lost_go():
    run = trained()
    kept = {path.name for path in run.snapshots.iterdir()}
    for name in ("step-000999.png", "step-000013.png", "step-mine.png"):
        (run.snapshots / name).write_text("from a future that a crash undid")
    loop.resume(run.folder)
    assert {path.name for path in run.snapshots.iterdir()} == kept | {"step-mine.png"}


def test_minutes_end_with_a_look_too():
    run = trained(epochs=None, minutes=0.01)
    assert rows(run)[-1]["validation"]
    assert sorted(run.snapshots.iterdir())[-1].stem == f"step-{len(rows(run)):06}"


@pytest.mark.parametrize("n", [5, 19, 20, 399, 45_000])
def test_what_is_held_out(n, monkeypatch):
    images = np.arange(n).astype(np.uint16).view(np.uint8).reshape(n, 1, 1, 2)
    whole = Dataset(images)
    monkeypatch.setattr(config, "load", lambda name, size: (whole, whole))
    train, held, test = Config("pixelcnn").sets()
    kept = {tuple(x.ravel()) for part in (train, held) if part for x in part.images}
    assert kept == {tuple(x.ravel()) for x in images}  # nothing is lost
    assert len(train) + (len(held) if held else 0) == n
    assert (0 if held is None else len(held)) == min(n // 20, n // max(20, -(-n // 1000))) <= 1000
    assert test is whole
    assert Config("gan").sets()[:2] == (whole, None)  # its family has no validation


class Ailing(Trainer, Family):
    """A trainer in name: what the report needs of one, of its model and of the model's family."""

    def __init__(self, found: list[list[str]]) -> None:
        self.step, self.moment = 0, 0
        self.model = self.family = self
        self.found = found

    done, images = 0.5, 0

    def diagnostics(self, model: Model, parts: dict[str, float]) -> list[str]:
        return self.found[self.step // callbacks.ASKED - 1]


def test_what_is_wrong_is_said_when_it_begins_and_when_it_comes_back(capsys):
    Path("run").mkdir()
    run = Run(Path("run"))
    training = Ailing([[], ["slow: 1", "blind: 2"], ["slow: 3"], [], ["slow: 4"]])
    progress = Progress(training, str)
    with callbacks.ReportPage(training, run, cost.Cost(1, 1.0, 1.0, 1, 1), progress, {}) as watching:
        for training.step in range(1, 5 * callbacks.ASKED + 1):
            progress.step({"step": training.step})
            watching.step({})
    said = sorted(capsys.readouterr().out.splitlines())
    assert said == ["step 200: blind: 2", "step 200: slow: 1", "step 500: slow: 4"]
    assert [m["step"] for m in run.read_results()["messages"]] == [200, 200, 500]
    assert "step 500: slow: 4" in run.report.read_text()


# ------------------------------------------------------------------------------------------------------------- commands


def test_evaluate_says_the_metrics_beside_their_baselines_and_keeps_them(capsys):
    run = trained()
    before = run.read_results()["metrics"]
    run.write_results({})
    capsys.readouterr()
    assert cli.main(["evaluate", "run"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("pixelcnn on 5 test images of noise, 4 levels\ntest: ")
    assert out.count("independent pixels") == 2
    assert run.read_results()["metrics"] == before
    kept = json.loads(run.results.read_text())["metrics"][0]
    assert f"test: {kept['value']:.3f} +- {kept['error']:.3f} bits/dim" in out
    run.results.write_text(run.results.read_text().replace('"baselines"', '"baseline"'))
    assert cli.main(["evaluate", "run"]) == 0
    assert "run/results.json is not as tinygen writes it: it is begun anew\n" in capsys.readouterr().out
    assert run.read_results()["metrics"] == before


def test_of_binarised_data_it_is_said_how(capsys):
    trained(levels=2)
    assert cli.main(["evaluate", "run"]) == 0
    assert ", thresholded" in capsys.readouterr().out.splitlines()[-4]


def test_complete_keeps_what_is_given(monkeypatch):
    run = trained()
    drawn = []
    monkeypatch.setattr(commands, "save_plot", lambda path, plot, levels: drawn.append(plot))
    commands.plot(run, "complete", 3, None)
    picture, test = drawn[0], Config("pixelcnn", **SETTINGS).sets()[2]
    images = picture.images.reshape(6, len(test), 1, 4, 4)
    assert picture.columns == len(test)
    given = images[0]
    np.testing.assert_array_equal(given, np.round(test.images * 85.0))
    for completion in images[1:]:
        np.testing.assert_array_equal(completion[:, :, :2], given[:, :, :2])
    assert len(np.unique(images[1][:, :, 2:])) == 1
    assert (images[2] != images[3]).any()


def test_a_command_that_a_model_does_not_offer(capsys):
    trained()
    assert cli.main(["plot", "run", "traverse"]) == 2
    assert (
        capsys.readouterr().err.splitlines()[-1]
        == "tinygen plot: pixelcnn has no traverse; it offers: complete, typicality"
    )


def test_a_model_that_cannot_be_sampled_says_so(monkeypatch, capsys):
    trained()

    class Mute(PixelCNN):
        sample = None

    monkeypatch.setattr(run_module, "model_class", lambda name: Mute)
    assert cli.main(["sample", "run"]) == 2
    assert (
        capsys.readouterr().err.splitlines()[-1]
        == "tinygen sample: pixelcnn cannot be sampled from; it offers: complete, typicality"
    )


def test_weights_that_are_exported_start_another_run(capsys):
    run = trained()
    assert cli.main(["export", "run"]) == 0
    assert "safetensors.torch.load_file('run/weights.safetensors')" in capsys.readouterr().out
    _, model, _ = run.load()
    tensors, _ = checkpoint.load("run/weights.safetensors")
    assert list(tensors) == sorted(model.state_dict())
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(tensors[name], value)
    for weights in ("run/weights.safetensors", "run/best.safetensors"):
        asked = Config("pixelcnn", **SETTINGS, weights=weights)
        other = loop.build(asked, asked.sets()[0], np.random.default_rng(5))
        for name, value in model.state_dict().items():
            np.testing.assert_array_equal(other.state_dict()[name], value)
    args = ["train", "pixelcnn", "--data", "noise.npz", "--hidden", "4", "--weights", "run/weights.safetensors"]
    assert cli.main(args) == 2
    err = capsys.readouterr().err
    assert "weights.safetensors: load_state_dict of PixelCNN: " in err
    assert err.count("\n") == 1


def test_a_checkpoint_file_names_a_run_too(capsys):
    run = trained()
    assert Run.existing(run.checkpoint).load()[2]["step"] == len(rows(run))
    assert cli.main(["sample", "run/last.safetensors", "--out", "x.png"]) == 0


# ---------------------------------------------------------------------------------------------------------- hardening

HOSTILE = """
import resource, sys
from pathlib import Path
from tinygen.training.checkpoint import CheckpointError
from tinygen.training.run import Run
run = Run(Path("run"))
run.load()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
Path("hostile").rename("run/best.safetensors")
try:
    run.load()
except CheckpointError as e:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, e)
"""


@pytest.mark.fault("R05", "R14")
@pytest.mark.parametrize(
    "lie", [{"hidden": 30_000}, {"hidden": 3 * 10**9}, {"blocks": 10**9}, {"image_shape": [1, 10**6, 10**6]}], ids=str
)
def test_a_checkpoint_that_claims_a_huge_model_is_refused_within_little_memory(lie):
    run = trained()
    tensors, about = checkpoint.load(run.best)
    shape = lie.get("image_shape")
    changes = {"image_shape": shape} if shape else {"config": about["config"] | {"options": TINY | lie}}
    if shape:
        changes["config"] = about["config"] | {"model": "nade", "options": {}}
    checkpoint.save("hostile", tensors, about | changes)
    done = subprocess.run([sys.executable, "-c", HOSTILE], capture_output=True, text=True, check=False, timeout=60)
    size, _, message = done.stdout.partition(" ")
    assert int(size) < 400_000, done.stderr  # kB
    assert message == (
        "run/best.safetensors: not a checkpoint that this tinygen can use: the model that it describes is far larger "
        "than the file\n"
    )


@pytest.mark.fault("R05", "R14")
def test_a_huge_tensor_of_another_shape_is_refused_before_it_is_read():
    run = trained()
    tensors, about = checkpoint.load(run.best)
    checkpoint.save("hostile", tensors | {"model.layers.0.weight": np.zeros((64, 1 << 20), np.float32)}, about)
    done = subprocess.run([sys.executable, "-c", HOSTILE], capture_output=True, text=True, check=False, timeout=60)
    size, _, message = done.stdout.partition(" ")
    assert int(size) < 100_000, done.stderr  # kB, of 256 MiB
    assert "layers.0.weight has shape (64, 1048576)" in message


@pytest.mark.fault("R14")
@pytest.mark.parametrize("change", [{"hidden": "3"}, {"hiden": 3}, {"hidden": True}, {"hidden": None}], ids=str)
def test_options_that_a_checkpoint_cannot_have_are_named(change):
    run = trained()
    tensors, about = checkpoint.load(run.best)
    checkpoint.save(run.best, tensors, about | {"config": about["config"] | {"options": change}})
    with pytest.raises(CheckpointError, match="hidden"):
        run.load()


@pytest.mark.fault("R09")
def test_sigterm_after_training_exits_130_too():
    noise()
    code = """
import os, signal, sys
from tinygen.cli import main as cli
from tinygen.training import commands
commands.finish = lambda *_: os.kill(os.getpid(), signal.SIGTERM)
sys.exit(cli.main(["train", "made", "--data", "noise.npz", "--hidden", "2", "--epochs", "1", "--out", "run"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 130, done.stderr
    assert done.stderr.splitlines()[-1] == "interrupted: it is trained; its test figures: tinygen evaluate run"
    assert "stopped: it is trained" in Path("run/log.txt").read_text()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


# ------------------------------------------------------------------------------------------------------- every family


@pytest.mark.fault("R07", "R08")
@pytest.mark.parametrize("name", SMALL)
def test_every_model_is_resumed_with_the_same_bytes(name, monkeypatch):
    noise(side=8)
    monkeypatch.setattr(commands, "finish", lambda *_: None)
    monkeypatch.setattr(energy, "QUICK", 5)  # temperatures
    model, options = SMALL[name]
    epochs = 4 if model in ("cyclegan", "discogan") else 2  # a step of those takes a batch of each domain
    asked = Config(model, "noise.npz", options=options, batch_size=16, epochs=epochs, lr=1e-3)
    whole = loop.train(asked, Path("whole"))
    with monkeypatch.context() as patch:
        advance, steps = Trainer.advance, iter(range(100))

        def interrupted(training, done):
            if training.config.lr and next(steps) == 3:
                signal.raise_signal(signal.SIGINT)
            return advance(training, done)

        patch.setattr(Trainer, "advance", interrupted)
        with pytest.raises(KeyboardInterrupt):
            loop.train(asked, Path("parts"))
    parts = Run(Path("parts"))
    assert parts.load(parts.checkpoint)[2]["step"] == 4
    loop.resume(Path("parts"))
    for name in ("metrics.csv", "last.safetensors", "best.safetensors"):
        one, other = whole.folder / name, parts.folder / name
        assert one.exists() == other.exists()
        assert not one.exists() or one.read_bytes() == other.read_bytes()
    assert len(rows(whole)) >= 5
    assert dataclasses.asdict(asked) == dataclasses.asdict(parts.load(parts.checkpoint)[0])
