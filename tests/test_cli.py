"""The command line: what a person types, what comes back, and what goes wrong politely."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinygen import cli
from tinygen.models import MODELS
from tinygen.training import checkpoint

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
    assert sorted(p.name for p in folder.iterdir()) == ["last.safetensors", "metrics.csv", "samples.png"]
    lines = first.stdout.splitlines()
    assert lines[0].startswith("pixelcnn on noise: 36 images 1x4x4, 3 levels; ")
    assert lines[0].endswith(f"into {folder}")
    pattern = r"test: (#) \+- (#) bits/dim, (#) nats an image \(4 images; independent pixels: (#) bits/dim\)"
    test = re.fullmatch(pattern.replace("#", r"[\d.]+"), lines[1])
    bits, _, nats, floor = map(float, test.groups())
    assert nats == pytest.approx(bits * 16 * np.log(2), rel=1e-3)
    assert 1 < bits < 3
    assert 1.5 < floor < 1.8  # of noise: log2(3), and a little for what 36 images don't tell
    assert lines[2:] == [f"samples: {folder}/samples.png", f"more of them: tinygen sample {folder}"]
    assert "100%  step 5  " in first.stderr
    assert len(set(size(folder / "samples.png"))) == 1
    assert size(folder / "samples.png")[0] > 400
    assert (folder / "metrics.csv").read_text().startswith("step,seconds,bits_per_dim\n5,")
    _, about = checkpoint.load(folder / "last.safetensors")
    assert about["config"] == {
        "model": "pixelcnn", "data": data, "levels": None, "options": {"hidden": 3, "blocks": 1}, "seed": 0,
        "batch_size": 8, "lr": 2e-3, "epochs": 1.0, "minutes": None,
    }  # fmt: skip

    second = tinygen("train", "pixelcnn", "--data", data, *TINY)
    assert second.returncode == 0
    other = Path("runs/pixelcnn-2")
    for name in ("last.safetensors", "samples.png"):  # the same seed: the same bytes
        assert (other / name).read_bytes() == (folder / name).read_bytes()

    drawn = tinygen("sample", str(folder))
    assert (drawn.returncode, drawn.stdout) == (0, f"64 samples: {folder}/samples-0.png\n")
    assert (folder / "samples-0.png").read_bytes() == (folder / "samples.png").read_bytes()


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


def test_levels_minutes_and_the_digits_by_default(capsys):
    assert main("train", "pixelcnn", "--levels", 2, "--minutes", 0.002, "--hidden", 2, "--blocks", 0, "--out", "x") == 0
    out, _ = capsys.readouterr()
    assert out.startswith("pixelcnn on digits")
    assert "1,437 images 1x8x8, 2 levels" in out
    _, about = checkpoint.load("x/last.safetensors")
    assert (about["config"]["epochs"], about["config"]["minutes"]) == (None, 0.002)
    with Image.open("x/samples.png") as png:
        assert set(np.unique(np.asarray(png))) <= {0, 48, 255}


@pytest.mark.parametrize("model", MODELS)
def test_every_model_trains_from_the_command_line_also_on_colours(model, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (12, 3, 2, 2)).astype(np.uint8)
    np.savez("rgb.npz", images=images)
    assert main("train", model, "--data", "rgb.npz", "--epochs", 1, "--out", "x") == 0  # the defaults fit colours too
    assert main("sample", "x", "-n", 2) == 0
    with Image.open("x/samples-0.png") as png:
        assert png.mode == "RGB"


def test_a_loss_that_explodes_is_one_sentence(data, capsys):
    assert main("train", "pixelcnn", "--data", data, *TINY, "--lr", "1e30", "--out", "x") == 1
    err = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(r"tinygen train: the loss became (nan|inf) at step \d+: try a lower --lr", err)
    assert not Path("x/last.safetensors").exists()


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
    ("train",): "required: MODEL",
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
    ("train", "pixelcnn", "--hidden", "many"): "argument --hidden: invalid int value: 'many'",
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
    assert capsys.readouterr().err == "tinygen train: [Errno 20] Not a directory: 'file/run'\n"
    assert main("train", "pixelcnn", "--data", data, *TINY, "--out", "/proc/run") in (1, 2)
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.fault("R03")
def test_a_full_disk_is_one_sentence(capsys, run):
    assert main("sample", run, "--out", "/dev/full") == 1
    assert capsys.readouterr().err == "tinygen sample: [Errno 28] No space left on device\n"


def test_a_picture_that_cannot_be_written_is_refused_before_it_is_drawn(capsys, run):
    assert "--out a/b.png: must be a file in a folder that exists" in refused(capsys, "sample", run, "--out", "a/b.png")
    Path("folder").mkdir()
    assert "--out folder: must be a file" in refused(capsys, "sample", run, "--out", "folder")


@pytest.mark.fault("R04", "R14")
@pytest.mark.parametrize("damage", ["cut", "other model", "a run of another tool"])
def test_a_checkpoint_that_cannot_be_used(capsys, run, damage):
    shutil.copytree(run, "copy")
    path = Path("copy/last.safetensors")
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
    assert "copy/last.safetensors" in err
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
def test_paths_with_spaces_and_any_letters_in_any_locale(data, variables):
    folder = Path("zwei Wörter ☃")
    folder.mkdir()
    shutil.copy(data, folder / "дата.npz")
    env = os.environ | {"NO_COLOR": "1", "HOME": "/nowhere"} | variables
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


def test_ctrl_c_exits_130(data):
    process = subprocess.Popen(
        [COMMAND, "train", "pixelcnn", "--minutes", "5", "--data", data, "--out", "x"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a job in the background ignores
    )  # fmt: skip
    assert process.stdout.readline().startswith("pixelcnn on noise")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, ""), err
    assert err.endswith("interrupted\n")
    assert "Traceback" not in err


@pytest.mark.parametrize("module", ["PIL", "tqdm"])
def test_without_an_optional_package_a_sentence_says_which(module, capsys, monkeypatch, data):
    monkeypatch.setitem(sys.modules, module, None)  # as if it weren't installed
    text = refused(capsys, "train", "pixelcnn", "--data", data)
    package = {"PIL": "Pillow", "tqdm": "tqdm"}[module]
    assert text == f"tinygen train: this command needs {package}: pip install 'tinygen[train]'\n"


def test_the_command_line_alone_needs_no_optional_package():
    code = """
import sys
from tinygen import cli
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
    assert re.fullmatch(r"100% \|█+\| [\d.]+ bits/dim \(independent pixels [\d.]+\)  \d+ s\s*", states[-1])
    assert all(s.endswith("left") for s in (s.rstrip() for s in states[2:-3]))


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # Linux says EIO when the other end is closed
        return b""
