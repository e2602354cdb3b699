"""The command line: what a person types, what comes back, and what goes wrong politely."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from importlib import metadata
from pathlib import Path
from typing import Literal, Optional

import numpy as np
import pytest
from PIL import Image

from tests.faults import FAULTS
from tinygen.cli import main as cli
from tinygen.cli import train
from tinygen.models.autoregressive.base import Autoregressive
from tinygen.models.energy import family as energy
from tinygen.models.energy.chain import MarkovChain
from tinygen.models.model import Model
from tinygen.models.registry import MODELS, Entry, model_class
from tinygen.training import checkpoint
from tinygen.training.config import option_texts, options

COMMAND = shutil.which("tinygen", path=str(Path(sys.executable).parent))
TINY = ["--hidden", "3", "--blocks", "1", "--batch-size", "8", "--epochs", "1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    """40 images of 4x4, three levels: a run on them takes a blink."""
    path = tmp_path_factory.mktemp("data") / "noise.npz"
    images = np.random.default_rng(0).integers(0, 3, (40, 1, 4, 4)).astype(np.uint8)
    np.savez(path, images=images, levels=np.array(3))
    return str(path)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    """A trained run, not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert cli.main(["train", "pixelcnn", "--data", data, "--out", str(folder), *TINY]) == 0
    return folder


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def tinygen(*args: str, **kwargs) -> subprocess.CompletedProcess[str]:
    """The installed command, in a process of its own."""
    assert COMMAND, "the tinygen command is not installed beside this Python"
    kwargs = {"capture_output": True, "text": True, "timeout": 120} | kwargs
    return subprocess.run([COMMAND, *args], check=False, **kwargs)


def main(*args: object) -> int:
    """The command line in this process: its exit code."""
    try:
        return cli.main([str(a) for a in args])
    except SystemExit as e:
        return int(e.code or 0)


def refused(capsys, *args: object) -> str:
    """What is said on stderr, one sentence, when the command line is refused before any work."""
    before = sorted(Path().rglob("*"))
    assert main(*args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before
    return err


def left(folder: str | Path) -> dict[str, bytes]:
    """All files of a run by their names but for those that the clock has a part in."""
    clock = {"log.txt", "results.json", "report.html"}
    paths = [p for p in Path(folder).rglob("*") if p.is_file() and not p.name.startswith(".tinygen-")]
    return {p.name: p.read_bytes() for p in paths if p.name not in clock}


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as png:
        png.load()
        return png.size


# ----------------------------------------------------------------------------------------------------- train, sample


def test_train_and_sample(data):
    """From the first command to pictures, as a newcomer does it."""
    first = tinygen("train", "pixelcnn", "--data", data, *TINY)
    assert first.returncode == 0, first.stderr
    folder = Path("runs/pixelcnn-1")
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == [
        "best.safetensors", "complete.png", "config.toml", "environment.toml", "last.safetensors", "log.txt",
        "metrics.csv", "report.html", "results.json", "samples.png",
        *(f"samples/step-00000{i}.png" for i in range(1, 6)), "typicality.png",
    ]  # fmt: skip
    lines = first.stdout.splitlines()
    said = [line[21:] for line in (folder / "log.txt").read_text().splitlines()]
    assert said == lines  # all of it is in the log, with the time before it
    assert lines[0] == f"pixelcnn on noise: 35 images 1x4x4, 3 levels (1 to validate, 4 to test); into {folder}"
    cost = r"[\d,]+ parameters; [\d.]+ [kM]FLOP and [\d.]+ [mu]s an image; about \d+ s for 5 steps of 8 images"
    assert re.fullmatch(cost, lines[1])
    assert lines[2] == f"to go on if it is interrupted: tinygen train --resume {folder}"
    assert re.fullmatch(r"from here on with the weights of step \d, whose validation was best", lines[3])
    pattern = r"test: (#) \+- (#) UNIT \(independent pixels (#)\)".replace("#", r"[\d.]+")
    bits, _, floor = map(float, re.fullmatch(pattern.replace("UNIT", "bits/dim"), lines[4]).groups())
    nats, _, _ = map(float, re.fullmatch(pattern.replace("UNIT", "nats an image"), lines[5]).groups())
    assert nats == pytest.approx(bits * 16 * np.log(2), rel=1e-3)
    assert 1 < bits < 3
    assert 1.5 < floor < 1.8  # of noise: log2(3), and a little for what 36 images don't tell
    assert lines[-4:-2] == [
        f"samples: {folder}/samples.png",
        f"Test images, and four completions of their upper halves: {folder}/complete.png",
    ]
    assert lines[-2].endswith(f": {folder}/typicality.png")
    assert lines[-1] == (f"all of it: {folder}/report.html; more samples: tinygen sample {folder}")
    assert "100%  step 5  " in first.stderr
    assert len(set(size(folder / "samples.png"))) == 1
    assert size(folder / "samples.png")[0] > 400
    number = r"\d\.\d+"
    table = "".join(rf"{i},\d+\.\d+,{number}\n" for i in range(1, 6))
    assert re.fullmatch(rf"step,nats,validation\n{table}", (folder / "metrics.csv").read_text())
    _, about = checkpoint.load(folder / "last.safetensors")
    assert about["config"].pop("options") | {"hidden": 3, "blocks": 1} == {"hidden": 3, "blocks": 1, "residual": True}
    assert about["config"] == {
        "model": "pixelcnn", "data": data, "levels": None, "seed": 0,
        "batch_size": 8, "lr": 2e-3, "epochs": 1.0, "minutes": None, "weights": None, "size": None,
    }  # fmt: skip

    second = tinygen("train", "--config", f"{folder}/config.toml")
    assert second.returncode == 0
    other = Path("runs/pixelcnn-2")
    assert left(other) == left(folder)  # the same seed: the same bytes

    drawn = tinygen("sample", str(folder))
    assert (drawn.returncode, drawn.stdout) == (0, f"64 samples: {folder}/samples-0.png\n")
    assert (folder / "samples-0.png").read_bytes() == (folder / "samples.png").read_bytes()
    assert tinygen("sample", "last").stdout == f"64 samples: {other}/samples-0.png\n"


@pytest.mark.fault("R08")
def test_another_seed_gives_other_weights_and_pictures(run, data):
    assert main("train", "pixelcnn", "--data", data, *TINY, "--seed", 1, "--out", "other") == 0
    for name in ("last.safetensors", "samples.png"):
        assert (run / name).read_bytes() != (Path("other") / name).read_bytes()
    assert main("sample", run, "--seed", 1, "--out", "1.png") == 0
    assert main("sample", run, "--seed", 2, "--out", "2.png") == 0
    assert main("sample", run, "--seed", 1, "--out", "1 again.png") == 0
    assert Path("1.png").read_bytes() == Path("1 again.png").read_bytes() != Path("2.png").read_bytes()


def test_sample_takes_a_number_a_temperature_and_a_file(run):
    assert main("sample", run, "-n", 1, "--temperature", 0, "--out", "one.png") == 0
    assert main("sample", run, "-n", 1, "--temperature", "0", "--seed", 5, "--out", "same") == 0
    assert Path("one.png").read_bytes() == Path("same").read_bytes()  # nothing is left to chance
    width, height = size(Path("one.png"))
    assert width == height


def test_sample_takes_how_a_model_draws_if_it_can_be_told(run, data, capsys):
    small = ("--width", 4, "--times", 20, "--steps", 4, "--batch-size", 64, "--epochs", 0.1)
    assert main("train", "diffusion", "--data", data, *small, "--out", "d") == 0
    for flags in (("--eta", 0), ("--steps", 2), ("--steps", 2, "--eta", 0, "--seed", 3)):
        assert main("sample", "d", "-n", 4, *flags) == 0
    names = {path.name for path in Path("d").glob("samples-*")}
    assert names == {f"samples-{name}.png" for name in ("0-n-4-eta-0", "0-n-4-steps-2", "3-n-4-steps-2-eta-0")}
    capsys.readouterr()
    assert main("sample", "d", "--steps", 21) == 2
    assert "tinygen sample: steps must be at most the 20 times, got 21" in capsys.readouterr().err
    assert main("sample", run, "--guidance", 2) == 2
    assert "PixelCNN draws without guidance; it takes no such setting" in capsys.readouterr().err


def test_levels_minutes_and_the_digits_by_default(capsys):
    assert main("train", "pixelcnn", "--levels", 2, "--minutes", 0.002, "--hidden", 2, "--blocks", 0, "--out", "x") == 0
    out, _ = capsys.readouterr()
    assert out.startswith("pixelcnn on digits")
    assert "1,366 images 1x8x8, 2 levels" in out
    _, about = checkpoint.load("x/last.safetensors")
    assert (about["config"]["epochs"], about["config"]["minutes"]) == (None, 0.002)
    with Image.open("x/samples.png") as png:
        assert set(np.unique(np.asarray(png))) <= {0, 244, 255}


@pytest.mark.parametrize("model", MODELS)
def test_every_model_trains_from_the_command_line_also_on_colors(model, monkeypatch):
    monkeypatch.setattr(energy, "TEMPERATURES", 10)
    monkeypatch.setattr(MarkovChain, "burn_in", 20)
    images = np.random.default_rng(0).integers(0, 256, (12, 3, 2, 2)).astype(np.uint8)
    np.savez("rgb.npz", images=images, labels=np.arange(12) % 10)
    few = ["--labels", 10] if model in ("m2", "semigan") else []  # by default more than there are images
    assert main("train", model, "--data", "rgb.npz", *few, "--epochs", 1, "--out", "x") == 0  # the defaults fit colors
    if not {"sample", "translate"} & set(dir(model_class(model))):
        assert main("sample", "x", "-n", 2) == 2
        return
    assert main("sample", "x", "-n", 2) == 0
    with Image.open("x/samples-0-n-2.png") as png:
        assert png.mode == "RGB"


@pytest.mark.fault("R01")
def test_a_loss_that_explodes_is_one_sentence(data, capsys):
    assert main("train", "pixelcnn", "--data", data, *TINY, "--lr", "1e30", "--out", "x") == 1
    err = capsys.readouterr().err.splitlines()[-1]
    pattern = r"the loss 'nats' became (nan|inf) at step 2: try a lower --lr \(forward of \w+\(.*\) gave \w+\)"
    assert re.fullmatch(f"tinygen train: {pattern}", err)
    assert main("sample", "x") == 0  # from the checkpoint of the start, which is sound


def test_a_model_larger_than_the_memory_is_one_sentence(capsys):
    assert main("train", "pixelcnn", "--hidden", 10**13) == 1
    assert re.fullmatch(r"tinygen train: Unable to allocate .*\n", capsys.readouterr().err)
    assert not Path("runs").exists()


# ------------------------------------------------------------------------------------------------------- wrong usage

TYPOS = {
    ("trian",): "did you mean train?",
    ("smaple", "runs/x"): "did you mean sample?",
    ("train", "pixelcn"): "did you mean pixelcnn?",
    ("train", "pixelcnn", "--epoch", "3"): "did you mean --epochs?",
    ("train", "pixelcnn", "--sed=3"): "did you mean --seed?",
    ("train", "pixelcnn", "--batchsize", "3"): "did you mean --batch-size?",
    ("train", "pixelcnn", "--hiden", "8"): "did you mean --hidden?",
    ("train", "pixelcnn", "--data", "digit"): "digits",
    ("train", "pixelcnn", "--data", "fasion-mnist"): "fashion-mnist",
    ("sample", "x", "--temprature", "1"): "did you mean --temperature?",
}


@pytest.mark.fault("R13")
@pytest.mark.parametrize("args", TYPOS, ids=" ".join)
def test_a_typo_gets_a_suggestion(args, capsys):
    assert TYPOS[args] in refused(capsys, *args)


WRONG = {
    (): "required: COMMAND",
    ("train",): "required: MODEL or --resume RUN or --config FILE",
    ("train", "--resume"): "expected one argument",
    ("train", "--resume", "ghost"): "ghost is no run folder: it has no last.safetensors",
    ("train", "--resume", "last"): "there is no run in the folder runs",
    ("train", "--resume", "x", "--out", "y"): "--resume goes on in the run's own folder, without --out",
    ("train", "--resume", "x", "--dry-run"): "--resume goes on in the run's own folder, without --dry-run",
    ("train", "pixelcnn", "--resume", "x"): "--resume goes on with the run's own model and settings",
    ("train", "--resume", "x", "pixelcnn"): "--resume goes on with the run's own model and settings",
    ("gradcheck", "missing.py"): "no such file: ",
    ("sample",): "required: RUN",
    ("sample", "x", "y"): "unrecognized arguments: y",
    ("train", "pixelcnn", "--epochs", "1", "--minutes", "1"): "not allowed with",
    ("train", "pixelcnn", "--epochs", "0"): "argument --epochs: must be a number above 0, got '0'",
    ("train", "pixelcnn", "--epochs", "nan"): "got 'nan'",
    ("train", "pixelcnn", "--epochs", "few"): "got 'few'",
    ("train", "pixelcnn", "--minutes", "inf"): "got 'inf'",
    ("train", "pixelcnn", "--minutes", "-1"): "got '-1'",
    ("train", "pixelcnn", "--lr", "1e999"): "argument --lr: must be a number above 0, got '1e999'",
    ("train", "pixelcnn", "--batch-size", "0"): "argument --batch-size: must be a whole number, at least 1, got '0'",
    ("train", "pixelcnn", "--batch-size", "2.5"): "got '2.5'",
    ("train", "pixelcnn", "--seed", "-1"): "argument --seed: must be a whole number, at least 0, got '-1'",
    ("train", "pixelcnn", "--levels", "1"): "levels must be",
    ("train", "pixelcnn", "--levels", "300"): "levels must be",
    ("train", "pixelcnn", "--hidden", "0"): "hidden must be a positive multiple",
    ("train", "pixelcnn", "--hidden", "many"): "argument --hidden: must be a whole number, got 'many'",
    ("train", "pixelcnn", "--blocks", "-1"): "blocks must not be negative, got -1",
    ("train", "pixelcnn", "--data", "./nothing"): "nothing: no such file or folder",
    ("sample", "x", "--temperature", "-1"): "argument --temperature: must be",
    ("sample", "x", "--temperature", "nan"): "argument --temperature: must be",
    ("sample", "x", "-n", "0"): "argument -n: must be a whole number, at least 1, got '0'",
    ("sample", "ghost"): "ghost is no run folder: it has no last.safetensors",
}


@pytest.mark.fault("R13")
@pytest.mark.parametrize("args", WRONG, ids=" ".join)
def test_wrong_usage_is_refused_before_any_work(args, capsys):
    text = refused(capsys, *args)
    assert WRONG[args] in text
    assert "did you mean" not in text


def test_the_usage_errors_of_the_installed_command():
    done = tinygen("train", "pixelcnn", "--sede", "1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "tinygen train pixelcnn: unrecognized arguments: --sede 1 (did you mean --seed?)\n"


def test_help_names_every_default(capsys):
    assert main("train", "pixelcnn", "--help") == 0
    text = capsys.readouterr().out
    for default in ("(default 20", "(default 16)", "(default 0.002)", "(default 48)", "(default 4)", "embedded digits"):
        assert default in text
    assert main("--help") == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("train", "sample"))


@pytest.mark.parametrize("name", MODELS)
def test_every_option_of_every_model_is_explained(name):
    texts = option_texts(model_class(name))
    for option in options(model_class(name)):
        assert len(texts.get(option.name, "")) > 10, option.name
        assert "see `" not in texts[option.name], option.name


def test_the_text_of_an_option_is_that_of_the_docstring(capsys):
    assert main("train", "gated", "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--classes CLASSES how many classes of images there are to be given; 0 for a model that isn't told" in text


def test_help_of_one_model_imports_no_other():
    code = """
import sys
from tinygen.cli import main as cli
try:
    cli.main(["train", "made", "--help"])
except SystemExit:
    pass
sys.exit(str([m for m in sys.modules if m in ("tinygen.models.gan.gan", "tinygen.models.vae.vae")] or ""))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "\n"


def test_plot_without_a_name_lists_the_plots(run, capsys):
    assert main("plot", run) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == f"pixelcnn offers: tinygen plot {run} NAME, where NAME is"
    assert rest[0].startswith("  complete     draw test images")
    assert main("plot", run, "complete", "--out", "x.png") == 0
    assert Path("x.png").exists()


@pytest.mark.parametrize("command", [[COMMAND], [sys.executable, "-m", "tinygen"]], ids=["tinygen", "-m"])
def test_the_version(command):
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"tinygen {metadata.version('tinygen')}\n", "")


class Flags(Model):
    """A model with arguments of every kind."""

    def __init__(
        self, image_shape: tuple[int, int, int], levels: int, *, layer_norm: bool = False, residual: bool = True,
        depth: int | None = None, kind: Literal["row", "diagonal"] = "row", side: Literal[3, 5] = 3,
        rate: float = 1, shift: int = 0, name: Optional[str] = None, bare=7, rng: np.random.Generator,  # noqa: UP045
    ) -> None:  # fmt: skip
        raise AssertionError("only its signature is read")


DEFAULTS = {"layer_norm": False, "residual": True, "depth": None, "kind": "row", "side": 3, "rate": 1, "shift": 0,
            "name": None, "bare": 7}  # fmt: skip
GIVEN = {
    "": {},
    "--layer-norm --no-residual": {"layer_norm": True, "residual": False},
    "--no-layer-norm --residual": {},
    "--depth 3 --shift -2 --bare 8": {"depth": 3, "shift": -2, "bare": 8},
    "--kind diagonal --side 5": {"kind": "diagonal", "side": 5},
    "--rate -0.25 --name None": {"rate": -0.25, "name": "None"},
}
NOT_GIVEN = {
    "--layer-norm False": "unrecognized arguments: False",
    "--depth None": "argument --depth: must be a whole number, got 'None'",
    "--depth 2.5": "must be a whole number, got '2.5'",
    "--depth --3": "expected one argument",
    "--kind diagnal": "did you mean diagonal?",
    "--side 4": "(choose from 3, 5)",
    "--rate nan": "argument --rate: must be a number, got 'nan'",
    "--rate fast": "argument --rate: must be a number, got 'fast'",
    "--bare x": "argument --bare: must be a whole number, got 'x'",
}


@pytest.fixture
def _flags(monkeypatch):
    monkeypatch.setattr(train, "MODELS", {"flags": Entry("", "a model")})
    monkeypatch.setattr(train, "model_class", lambda name: Flags)


@pytest.mark.usefixtures("_flags")
@pytest.mark.parametrize("text", GIVEN)
def test_a_models_arguments_become_flags(text, monkeypatch):
    configs = []
    monkeypatch.setattr("tinygen.training.loop.train", lambda config, *_: configs.append(config))
    assert main("train", "flags", *text.split()) == 0
    assert configs[0].options == DEFAULTS | GIVEN[text]
    assert [type(v) for v in configs[0].options.values()] == [type(v) for v in (DEFAULTS | GIVEN[text]).values()]


@pytest.mark.usefixtures("_flags")
@pytest.mark.fault("R13")
@pytest.mark.parametrize("text", NOT_GIVEN)
def test_values_that_a_models_arguments_do_not_take(text, capsys):
    assert NOT_GIVEN[text] in refused(capsys, "train", "flags", *text.split())


# ------------------------------------------------------------------------------------------------------ files, folders


@pytest.mark.fault("R10")
def test_a_folder_in_use_is_refused_and_left_alone(capsys, data):
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("x")
    assert "mine: exists and is not an empty folder" in refused(
        capsys, "train", "pixelcnn", "--data", data, "--out", "mine"
    )
    Path("mine/thesis.tex").unlink()
    assert main("train", "pixelcnn", "--data", data, *TINY, "--out", "mine") == 0  # an empty one will do


@pytest.mark.fault("R03")
def test_a_folder_that_cannot_be_made(capsys, data):
    Path("file").write_text("")
    assert main("train", "pixelcnn", "--data", data, *TINY, "--out", "file/run") == 1
    assert capsys.readouterr().err == "tinygen train: file/run: Not a directory\n"
    assert main("train", "pixelcnn", "--data", data, *TINY, "--out", "/proc/run") in (1, 2)
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.fault("R03")
def test_a_full_disk_is_one_sentence(capsys, run):
    assert main("sample", run, "--out", "/dev/full") == 1
    assert capsys.readouterr().err == "tinygen sample: No space left on device\n"


def test_a_picture_that_cannot_be_written_is_refused_before_it_is_drawn(capsys, run):
    assert "--out a/b.png: must be a file in a folder that exists" in refused(capsys, "sample", run, "--out", "a/b.png")
    Path("folder").mkdir()
    assert "--out folder: must be a file" in refused(capsys, "sample", run, "--out", "folder")


@pytest.mark.fault("R04", "R14")
@pytest.mark.parametrize("damage", ["cut", "other model", "a run of another tool"])
def test_a_checkpoint_that_cannot_be_used(capsys, run, damage):
    shutil.copytree(run, "copy")
    path = Path("copy/best.safetensors")
    tensors, about = checkpoint.load(path)
    if damage == "cut":
        os.truncate(path, 2000)
    elif damage == "other model":
        checkpoint.save(path, tensors, about | {"config": about["config"] | {"model": "pixelvae"}})
    else:
        checkpoint.save(path, tensors, {})
    text = {"cut": "truncated", "other model": "no model is named 'pixelvae'", "a run of another tool": "no 'config'"}
    err = refused(capsys, "sample", "copy")
    assert err.startswith("tinygen sample: ")
    assert "copy/best.safetensors" in err
    assert text[damage] in err


@pytest.mark.fault("R12")
def test_data_that_cannot_be_used(capsys):
    Path("broken.npz").write_bytes(b"PK\x03\x04 and then nothing")
    assert "broken.npz" in refused(capsys, "train", "pixelcnn", "--data", "broken.npz")
    np.savez("floats.npz", images=np.zeros((20, 1, 4, 4)) + 0.5)
    assert "floats.npz" in refused(capsys, "train", "pixelcnn", "--data", "floats.npz")
    Path("empty").mkdir()
    assert "empty" in refused(capsys, "train", "pixelcnn", "--data", "empty")


# ------------------------------------------------------------------------------------------------------- surroundings


@pytest.mark.fault("R11")
@pytest.mark.parametrize(
    "variables", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}, {"PYTHONUTF8": "0", "LC_ALL": "C"}]
)
def test_paths_with_spaces_and_any_letters_in_any_locale(data, variables, tmp_path):
    folder = Path("zwei Wörter ☃")
    folder.mkdir()
    shutil.copy(data, folder / "дата.npz")
    env = os.environ | {"NO_COLOR": "1", "HOME": str(tmp_path / "none")} | variables
    args = ["--data", "дата.npz", "--out", "læuf 1", *TINY]
    done = tinygen("train", "pixelcnn", *args, cwd=folder, env=env, encoding="utf-8", errors="replace")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert (folder / "læuf 1" / "samples.png").is_file()
    done = tinygen("sample", "læuf 1", cwd=folder, env=env, encoding="utf-8", errors="replace")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("64 samples: l")


@pytest.mark.fault("R11")
def test_a_path_that_is_no_text(run):
    folder = os.fsdecode(b"caf\xe9")
    shutil.copytree(run, folder)
    done = subprocess.run([COMMAND, "sample", folder], capture_output=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"64 samples: caf")


@pytest.mark.fault("R11")
@pytest.mark.parametrize("pipe", ["| head -1", "2>&1 | head -1", "| true", "2>&1 | true", ">&-", ">&- 2>&-"])
def test_that_nobody_listens_does_not_stop_training(data, pipe):
    command = f"set -o pipefail; {COMMAND} train pixelcnn --data {data} {' '.join(TINY)} --out x {pipe}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not re.search("Traceback|Exception|Broken", done.stdout + done.stderr)
    assert size(Path("x/samples.png"))
    if "head" in pipe:
        assert done.stdout.startswith("pixelcnn on noise")
        assert done.stdout.count("\n") == 1


FULL = os.environ.get("TINYGEN_FULL") == "1"
KILLS = 200 if FULL else 4
LONG = ["--hidden", "3", "--blocks", "1", "--batch-size", "8", "--epochs", str(max(120, 6 * KILLS))]


@pytest.fixture(scope="module")
def long_run(data, tmp_path_factory) -> dict[str, bytes]:
    """What hundreds of steps leave behind if nothing stops them, in a process of their own as all here."""
    folder = tmp_path_factory.mktemp("runs") / "long"
    assert tinygen("train", "pixelcnn", "--data", data, "--out", str(folder), *LONG).returncode == 0
    return left(folder)


def started(*command: str) -> tuple[subprocess.Popen[str], str]:
    """A training in a process of its own that has begun, and the command that it says goes on with it."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("pixelcnn on noise")
    assert " parameters; " in process.stdout.readline()
    return process, process.stdout.readline().rstrip("\n").partition(": ")[2]


@pytest.mark.fault("R07", "R09")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_exit_130_and_the_command_shown_goes_on(data, long_run, number):
    process, shown = started(COMMAND, "train", "pixelcnn", "--data", data, "--out", "my run", *LONG)
    time.sleep(np.random.default_rng().uniform(0, 0.05))
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, ""), err
    last = err.splitlines()[-1]
    assert re.fullmatch(r"interrupted: saved at step \d+; to go on: tinygen train --resume 'my run'", last)
    assert last.endswith(shown)
    assert "Traceback" not in err
    resumed = tinygen(*shlex.split(shown)[1:])
    assert resumed.returncode == 0, resumed.stderr
    assert left("my run") == long_run


SAVING_ALWAYS = (
    "import sys; from tinygen.cli import main as cli; from tinygen.training import callbacks; "
    "callbacks.SAVE_SECONDS = 0; "
)


@pytest.mark.fault("R02", "R07")
def test_kill_9_at_random_moments_and_resumed_the_run_ends_with_the_same_bytes(data, long_run):
    python = [sys.executable, "-c", SAVING_ALWAYS + "sys.exit(cli.main(sys.argv[1:]))"]
    command, reached = ["train", "pixelcnn", "--data", data, "--out", "x", *LONG], 0
    for _ in range(KILLS):
        process, shown = started(*python, *command)
        time.sleep(np.random.default_rng().uniform(0, 0.5))
        process.kill()
        process.communicate()
        tensors, about = checkpoint.load("x/last.safetensors")
        assert about["state"]["step"] >= reached
        assert np.isfinite(tensors["model.layers.0.weight"]).all()
        reached = about["state"]["step"]
        command = shlex.split(shown)[1:]
    assert main(*command) == 0
    assert left("x") == long_run


@pytest.mark.parametrize("module", ["PIL", "tqdm", "matplotlib"])
def test_without_an_optional_package_a_sentence_says_which(module, capsys, monkeypatch, data):
    monkeypatch.setitem(sys.modules, module, None)  # as if it weren't installed
    text = refused(capsys, "train", "pixelcnn", "--data", data)
    package = {"PIL": "Pillow"}.get(module, module)
    assert text == f"tinygen train: this command needs {package}: pip install 'tinygen[train]'\n"


def test_the_command_line_alone_needs_no_optional_package():
    code = """
import sys
from tinygen.cli import main as cli
try:
    cli.main(["train", "pixelcnn", "--help"])
except SystemExit:
    pass
optional = {"PIL", "tqdm", "torch", "matplotlib", "cupy"} & set(sys.modules)
sys.exit(f"imported {optional}" if optional else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.fault("R11")
@pytest.mark.parametrize("columns", [80, 120])
def test_on_a_terminal_a_bar_that_fits_into_a_line(data, columns):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = os.environ | {"NO_COLOR": "1", "TERM": "xterm"}
    args = [COMMAND, "train", "pixelcnn", "--data", data, *TINY[:-1], "50", "--out", "x"]
    process = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=theirs, text=True, env=env)
    os.close(theirs)
    screen = b""
    while chunk := _read(ours):
        screen += chunk
    out, _ = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == 0
    assert "test: " in out
    states = [s for s in screen.decode().replace("\n", "\r").split("\r") if s.strip()]
    assert all(len(s) <= columns for s in states)
    assert not re.search(r"\x1b\[[\d;]*m", screen.decode())
    assert screen.count(b"\n") == 1  # the bar stays, and what comes next begins its own line
    states = [s for s in states if "bits/dim" in s]  # likelihood and samples come after it, and go again
    assert re.fullmatch(r"100% \|█+\| [\d.]+ bits/dim \(independent pixels [\d.]+\)  \d+ s\s*", states[-1])
    assert all(s.endswith("left") for s in (s.rstrip() for s in states[2:-3]))


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # Linux says EIO when the other end is closed
        return b""


# ------------------------------------------------------------------------------------------------- the table of faults

TESTS = """
import pytest

@pytest.mark.fault("R01", "R02")
def test_one(): pass

@pytest.mark.fault("R02")
def test_two(): assert False

@pytest.mark.fault("R03")
class TestThree:
    @pytest.mark.parametrize("x", [0, pytest.param(1, marks=pytest.mark.fault("R04"))])
    def test_three(self, x): pass

@pytest.mark.fault("R05")
def test_five(): pytest.skip("no reason")

@pytest.fixture
def broken():
    yield
    raise OSError

@pytest.mark.fault("R06")
def test_six(broken): pass

@pytest.mark.fault("K17")
def test_gpu(): pass

def test_none(): raise AssertionError("carries no number, hence isn't run")
"""


def test_the_table_of_faults(tmp_path):
    """Green is what passed; what failed, was skipped or has no test isn't; no unknown numbers."""
    path = tmp_path / "test_some.py"
    path.write_text(TESTS)
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.faults", "-p", "no:cacheprovider", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=root)
    assert done.returncode == 1, done.stderr
    signs = dict(re.findall(r"^  (\w\d\d)  (\S+(?: \S+)*)  ", done.stdout, re.M))
    assert set(signs) == set(FAULTS)
    special = {"R01": "green", "R02": "RED", "R03": "green", "R04": "green", "R05": "SKIPPED", "R06": "RED"}
    assert {n: s for n, s in signs.items() if n[0] == "R" and s != "NO TEST RAN"} == special
    assert (signs["K16"], signs["K17"], signs["K18"]) == ("GPU", "green", "GPU")
    assert f"3 of {len(FAULTS) - 3} are green; of 3 more, which need a GPU, 1\n" in done.stdout
    assert "\nRED: R02, R06\nSKIPPED: R05\nNO TEST RAN: G01, " in done.stdout
    assert f"{path}, of the long tests a sample; pytest's exit code 1" in done.stdout

    path.write_text("import os\ndef test(): assert os.environ['TINYGEN_FULL'] == '1'\ntest()")
    done = subprocess.run([*command, "--full"], capture_output=True, text=True, check=False, timeout=120, cwd=root)
    assert f"{path}, the long tests whole; pytest's exit code 5" in done.stdout  # 5: nothing to run

    path.write_text("import pytest\n@pytest.mark.fault('R99')\ndef test(): pass")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=root)
    assert done.returncode == 1
    assert "there is no fault R99" in done.stdout + done.stderr


def test_check_causal_proves_and_draws(capsys):
    assert main("check-causal", "pixelcnn", "--hidden", "4", "--blocks", "1") == 0
    said = capsys.readouterr().out
    assert "pixelcnn is causal" in said
    assert "sees 39 of the 60 before it" in said
    assert said.rstrip().endswith(".#########.\n.########..\n.####o")  # a 7x7 and a 3x3 kernel, and their blind spot


@pytest.mark.parametrize("model", [name for name in MODELS if issubclass(model_class(name), Autoregressive)])
def test_every_autoregressive_model_is_proved_causal(model, capsys):
    assert main("check-causal", model, "--side", "4") == 0
    assert f"{model} is causal" in capsys.readouterr().out


def test_check_causal_takes_the_order_that_is_the_models(capsys):
    assert main("check-causal", "multiscale", "--side", "5", "--hidden", "12", "--channels", "3") == 0
    said = capsys.readouterr().out
    assert "the middle pixel (o) sees 4 of the 4 before it (#):" in said  # of the small image's 9, first in the order
    assert said.endswith("# # #\n\n# o\n")


def test_check_causal_finds_what_is_not(capsys, monkeypatch):
    monkeypatch.setattr(
        "tinygen.models.autoregressive.pixelcnn.PixelCNN.forward", lambda self, x: (x * x).reshape(1, 1, *x.shape[1:])
    )
    assert main("check-causal", "pixelcnn", "--side", "3", "--hidden", "2", "--blocks", "0") == 1
    assert "value 0 (row 0, column 0) sees value 0" in capsys.readouterr().out
