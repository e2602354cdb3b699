"""Other people's data: every model on color images in CIFAR-10's format, and on gray ones in MNIST's; photographs, too.

Each trains for some steps, goes on from a checkpoint bit for bit, draws and is measured; and each keeps colors apart.
"""

from __future__ import annotations

import struct

import numpy as np
import pytest

from tests.models.small import CLASSES, SMALL, new
from tinygen.cli import main as cli
from tinygen.data import Dataset, load
from tinygen.metrics import features
from tinygen.models.energy import chain
from tinygen.models.energy import family as energy
from tinygen.models.family import Batch
from tinygen.models.gan import family as gan
from tinygen.models.model import Model, Samples, Translates
from tinygen.models.registry import MODELS, model_class
from tinygen.models.vae import family as vae
from tinygen.training.commands import picture
from tinygen.training.config import Config
from tinygen.training.loop import build
from tinygen.training.run import Run
from tinygen.training.sets import check_labels
from tinygen.training.trainer import Trainer

TRAIN, TEST = 24, 6
FORM = {model: name for name, (model, _) in reversed(SMALL.items())}  # the first form of each model
EXPENSIVE = {"made": 2, "nade": 2}  # models whose weights or steps of drawing grow with levels, and how many they get


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folders cifar (3x32x32), mnist (1x28x28), and photographs (color, of all sizes, without classes)."""
    from PIL import Image

    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("data")
    for name in ("cifar", "mnist", "photographs"):
        (root / name).mkdir()
    for n, batch, part in ((TRAIN, "data_batch_1", "train"), (TEST, "test_batch", "t10k")):
        labels = (np.arange(n) % CLASSES).astype(np.uint8)
        records = np.concatenate([labels[:, None], rng.integers(0, 256, (n, 3072))], axis=1)
        (root / "cifar" / f"{batch}.bin").write_bytes(records.astype(np.uint8).tobytes())
        head, gray = struct.pack(">4B3I", 0, 0, 8, 3, n, 28, 28), rng.integers(0, 256, (n, 28, 28)).astype(np.uint8)
        (root / "mnist" / f"{part}-images-idx3-ubyte").write_bytes(head + gray.tobytes())
        (root / "mnist" / f"{part}-labels-idx1-ubyte").write_bytes(
            struct.pack(">4BI", 0, 0, 8, 1, n) + labels.tobytes()
        )
    for i in range(TRAIN):
        photograph = rng.integers(0, 256, (int(rng.integers(33, 60)), 40, 3)).astype(np.uint8)
        Image.fromarray(photograph).save(root / "photographs" / f"{i}.{('jpg', 'png', 'webp')[i % 3]}")
    return root


@pytest.fixture
def _quick(monkeypatch):
    """Chains, estimates and the feature network take as little time as they can: what they give doesn't matter here."""
    monkeypatch.setattr(energy, "TEMPERATURES", 10)
    monkeypatch.setattr(energy, "QUICK", 5)
    monkeypatch.setattr(chain.MarkovChain, "burn_in", 5)
    monkeypatch.setattr(model_class("gsn"), "burn_in", 5)
    monkeypatch.setattr(vae.VAEFamily, "draws", 5)
    monkeypatch.setattr(gan, "READ", 20)
    monkeypatch.setattr(features, "STEPS", 2)
    monkeypatch.setattr(features, "EPOCHS", 1)


def config(folder, data: str, model: str, size: int | None = None) -> Config:
    options = SMALL[FORM[model]][1]
    return Config(model, str(folder / data), EXPENSIVE.get(model), options, batch_size=4, lr=1e-4, size=size)


def trainer(asked: Config) -> Trainer:
    sets, rng = asked.sets(), np.random.default_rng(0)
    model = build(asked, sets[0], rng)
    check_labels(model, sets)
    return Trainer(asked, model.train(), sets[0], rng, sets[1])


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("data", ["cifar", "mnist"])
@pytest.mark.parametrize("model", MODELS)
def test_every_model_trains_goes_on_draws_and_is_measured(model, data, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    asked, run = config(folder, data, model), Run(tmp_path)
    whole = trainer(asked)
    whole.advance(0.0)
    whole.save(run)
    parts = whole.advance(0.5)
    assert np.isfinite([*parts.values()]).all()
    _, resumed, state = run.load(run.checkpoint)
    again = Trainer(asked, resumed.train(), whole.dataset, np.random.default_rng(1), whole._read[1])
    again.restore(run, state)
    assert again.advance(0.5) == parts
    for name, value in whole.model.state_dict().items():
        assert value.tobytes() == again.model.state_dict()[name].tobytes(), name
    train, held, test = asked.sets()
    whole.model.eval()
    if isinstance(whole.model, (Samples, Translates)):
        drawn = picture(whole.model, lambda: test, 3, seed=0).images
        assert drawn.shape[2:] == whole.model.image_shape[1:]
        assert drawn.shape[1] in (3, whole.model.image_shape[0])
        assert drawn.dtype == np.uint8
        assert drawn.max() < test.levels
    family, rng = whole.model.family, np.random.default_rng(0)
    assert all(np.isfinite(m.value) for m in family.metrics(whole.model, train, test, rng))
    assert held is None or np.isfinite(family.validation(whole.model, Batch(held.images, held.labels), rng))


@pytest.mark.parametrize("model", ["pixelcnn", "autoencoder", "vae", "glow", "gsn", "diffusion", "dcgan", "cyclegan"])
def test_a_folder_of_photographs_serves_every_family(model, folder):
    asked = config(folder, "photographs", model, size=32)
    whole = trainer(asked)
    assert whole.model.image_shape == (3, 32, 32)
    assert np.isfinite([*whole.advance(0.0).values()]).all()


NEEDS = {  # what some models need that these data don't have, in a sentence
    ("made", "cifar"): "MADE joins every value with every other: images 3x32x32 of 256 levels take 2,406,481,920 "
    "weights, more than 1,073,741,824; take fewer levels (--levels 2) or smaller images",
    ("acgan", "photographs"): "the training set of photographs has no labels, which ACGAN of 10 classes has to be "
    "told: leave --classes out, or add them",
}


@pytest.mark.parametrize(("model", "data"), NEEDS)
def test_what_a_model_needs_and_the_data_lack_is_said_in_a_sentence(model, data, folder, tmp_path, capsys):
    more = ["--size", "32"] if data == "photographs" else []
    asked = ["train", model, "--data", str(folder / data), "--out", str(tmp_path / "run"), *more]
    assert cli.main(asked) == 2
    assert capsys.readouterr().err == f"tinygen train: {NEEDS[model, data]}\n"


# -------------------------------------------------------------------------------------------------------------- colors

COLOR, SPREAD, LEVELS = (13, 7, 2), 1, 16  # the channels' middles, how far images are from them, and of how many levels
SLOW = ("ffjord", "score")  # what they make of noise hardly changes in a few steps: they take more, and aren't drawn


def test_the_readers_give_red_first(folder, tmp_path):
    from PIL import Image

    (tmp_path / "red").mkdir()
    for i in range(4):
        Image.new("RGB", (40, 33), (200, 100, 50)).save(tmp_path / "red" / f"{i}.png")
    train, _ = load(tmp_path / "red", 32)
    assert (train.images == np.array([200, 100, 50])[:, None, None]).all()
    first = (folder / "cifar" / "data_batch_1.bin").read_bytes()[1:3073]
    assert load(folder / "cifar")[0].images[0].tobytes() == first  # all red, then all green, then all blue


@pytest.mark.parametrize("model", MODELS)
def test_every_model_keeps_the_channels_apart(model):
    """After some steps on images that are all of one color, it draws red above blue; others' colors are unlikely.

    Of a model that gives features, those of the color differ from those of blue and red exchanged.
    """
    rng, n = np.random.default_rng(0), 32
    images = np.reshape(COLOR, (3, 1, 1)) + rng.integers(-SPREAD, SPREAD + 1, (n, 3, 8, 8))
    data = Dataset(images.astype(np.uint8), LEVELS, np.arange(n) % CLASSES, "of one color")
    name, options = FORM[model], SMALL[FORM[model]][1]
    one = new(name, (3, 8, 8), LEVELS, rng).train()
    asked = Config(model, options=options, batch_size=4, lr=10 * one.lr)
    training = Trainer(asked, one, data, rng)
    steps = 60 if model in SLOW else 20
    for i in range(steps):
        training.advance(i / steps)
    one.eval()
    if not isinstance(one, (Samples, Translates)):
        of, swapped = (one.features(one.network_input(x)).numpy() for x in (data.images, data.images[:, ::-1]))
        assert np.abs(of - swapped).mean() > 0.1 * np.abs(of).mean()
        return
    if type(one).loss is not Model.loss:
        labels = one.condition.used(data.labels)
        known, other = (
            sum(part.item() for part in one.loss(Batch(x, labels), np.random.default_rng(0)).values())
            for x in (data.images, np.ascontiguousarray(data.images[:, ::-1]))
        )
        assert known < other
    if model not in SLOW:
        red, _, blue = picture(one, lambda: data, 16, seed=0).images[-16:].mean((0, 2, 3))
        assert red > blue + 0.8
