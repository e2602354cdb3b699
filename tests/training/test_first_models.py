"""A person's first model, half written: what training and the commands say of it."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest

from tinygen import Tensor, nn
from tinygen.cli import main as cli
from tinygen.models.family import Family
from tinygen.models.model import Model
from tinygen.models.registry import MODELS, Entry, model_class


class Half(Model):
    """A linear layer that is trained to give zeros."""

    def __init__(self, image_shape: tuple[int, int, int], levels: int, *, rng: np.random.Generator) -> None:
        super().__init__(image_shape, levels)
        self.layer = nn.Linear(self.dimensions, 2, rng=rng)

    def of(self, batch) -> Tensor:
        return (self.layer(self.scale(batch.images).reshape(len(batch.images), -1)) ** 2).sum(1)


class NothingToSample(Half):
    def loss(self, batch, rng):
        return {"nll": self.of(batch).mean()}


class NoLoss(Half):
    pass


class NoDict(Half):
    def loss(self, batch, rng):
        return self.of(batch).mean()


class NoMean(Half):
    def loss(self, batch, rng):
        return {"nll": self.of(batch)}


class Number(Half):
    def loss(self, batch, rng):
        return {"nll": self.of(batch).mean().item()}


class NoParts(Half):
    def loss(self, batch, rng):
        return {}


class NoReturn(NothingToSample):
    def training_step(self, step):
        super().training_step(step)


class NoParameters(Model):
    def __init__(self, image_shape: tuple[int, int, int], levels: int, *, rng: np.random.Generator) -> None:
        super().__init__(image_shape, levels)

    def optimizers(self, lr):
        return {}

    def training_step(self, step):
        return {"mean": self.scale(step.batch().images).mean().item()}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("noise.npy", np.random.default_rng(0).integers(0, 3, (40, 4, 4)).astype(np.uint8))


def main(monkeypatch, kind: type, *command: str) -> int:
    """A command, of a registry in which `mine` is this class."""
    module = types.ModuleType("tinygen.models.mine")
    module.Mine = kind
    monkeypatch.setitem(sys.modules, "tinygen.models.mine", module)
    monkeypatch.setitem(MODELS, "mine", Entry("mine:Mine", "a first model"))
    return cli.main(list(command))


TRAIN = ("train", "mine", "--data", "noise.npy", "--epochs", "3", "--out", "run")
WANTED = "must be a dict of 0-d tensors by name, such as {'nll': nll.mean()}"


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (NoLoss, "NoLoss doesn't define loss()"),
        (NoDict, f"the loss of NoDict {WANTED}; it is float32 ()"),
        (NoMean, f"the loss of NoMean {WANTED}; 'nll' is float32 (16,)"),
        (NoParts, f"the loss of NoParts {WANTED}; it is {{}}"),
        (NoReturn, "NoReturn.training_step must return a dict of numbers by name, got None"),
        (NoParameters, "NoParameters has no parameters: give self layers, or nn.Parameter(...)"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_what_is_wrong_is_one_sentence_before_a_folder_is_made(kind, sentence, monkeypatch, capsys):
    assert main(monkeypatch, kind, *TRAIN) == 2
    assert capsys.readouterr().err == f"tinygen train: {sentence}\n"
    assert not Path("run").exists()


def test_a_loss_that_is_a_number(monkeypatch, capsys):
    assert main(monkeypatch, Number, *TRAIN) == 2
    assert capsys.readouterr().err.startswith(f"tinygen train: the loss of Number {WANTED}; 'nll' is ")


def test_a_model_that_only_has_a_loss_trains_and_says_what_is_missing(monkeypatch, capsys):
    assert main(monkeypatch, NothingToSample, *TRAIN) == 0
    said = capsys.readouterr().out
    assert said.count("no pictures while it trains: NothingToSample doesn't define sample()") == 1
    assert "no test figures: Family doesn't define metrics()" in said
    assert not list(Path("run").glob("**/*.png"))
    assert len(Path("run/metrics.csv").read_text().splitlines()) == 1 + 3 * 3
    for command, sentence in {
        ("sample", "run"): "mine cannot be sampled from; it offers no plots",
        ("plot", "run"): "mine has no plots: Family.plots is empty",
        ("plot", "run", "chains"): "mine has no chains; it offers no plots",
    }.items():
        assert main(monkeypatch, NothingToSample, *command) == 2
        assert capsys.readouterr().err == f"tinygen {command[0]}: {sentence}\n"
    assert main(monkeypatch, NothingToSample, "evaluate", "run") == 0
    assert "no test figures: Family doesn't define metrics()" in capsys.readouterr().out


def test_a_snapshot_of_its_own_needs_no_sample(monkeypatch):
    class Drawn(Family):
        def snapshot(self, model, batch, rng):
            from tinygen.metrics.metric import ImageGrid

            return ImageGrid(batch.images)

    class Shown(NothingToSample):
        family = Drawn()

    assert main(monkeypatch, Shown, *TRAIN) == 0
    assert list(Path("run/samples").glob("*.png"))


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("gan.gan:GANN", "tinygen.models.gan.gan has no class named 'GANN'"),
        ("gan.gan", "tinygen.models.gan.gan has no class named ''"),
        ("gan.gann:GAN", "there is no module tinygen.models.gan.gann"),
        ("gann.gan:GAN", "there is no module tinygen.models.gann"),
    ],
)
def test_a_wrong_place_in_the_registry(path, sentence, monkeypatch):
    monkeypatch.setitem(MODELS, "mine", Entry(path, ""))
    with pytest.raises(ValueError, match=r"^MODELS\['mine'\] in tinygen/models/registry.py is wrong: ") as caught:
        model_class("mine")
    assert str(caught.value).endswith(sentence)


def test_a_model_whose_import_fails_says_which_import(monkeypatch, tmp_path):
    import tinygen.models

    (tmp_path / "importing.py").write_text("import nothing_of_this_name\n")
    monkeypatch.setattr(tinygen.models, "__path__", [*tinygen.models.__path__, str(tmp_path)])
    monkeypatch.setitem(MODELS, "mine", Entry("importing:Mine", ""))
    with pytest.raises(ModuleNotFoundError, match="nothing_of_this_name"):
        model_class("mine")
