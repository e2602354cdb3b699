"""Probing: features for few labels, on their own and tuned; as they are for every model that has some."""

import copy

import numpy as np
import pytest

import tinygen
from tests.models.small import SMALL, new
from tinygen.cli.main import main
from tinygen.data import Dataset, load, subset
from tinygen.models.averages import Averaged
from tinygen.models.model import HasFeatures
from tinygen.models.probing import Classifier, accuracy, features, few, fine_tuned, fit, probe
from tinygen.models.registry import model_class
from tinygen.models.vae.autoencoder import Autoencoder
from tinygen.training.probed import LINEAR, TUNED

WITH_FEATURES = [name for name, (model, _) in SMALL.items() if issubclass(model_class(model), HasFeatures)]


def rng(seed=0):
    return np.random.default_rng(seed)


def test_which_models_have_features():
    found = {SMALL[name][0] for name in WITH_FEATURES}
    assert found >= {"autoencoder", "vae", "bigan", "diffusion", "pixelcnn", "simclr"}


@pytest.mark.parametrize("name", WITH_FEATURES)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 4, 4)])
def test_features_are_of_one_image_alone_and_lead_back_to_the_weights(name, shape):
    options = {"hidden": 6} if name in ("pixelcnn", "pixelcnn, plain") else {}
    model = new(name, shape, 5, **options).eval()
    for p in model.parameters():  # some layers start at zero
        p.write()[...] = rng(1).normal(0, 0.3, p.shape)
    for module in model.modules():
        if isinstance(module, Averaged):
            module.settle()
    images = rng().integers(0, 5, (4, *shape)).astype(np.uint8)
    found = features(model, images)
    assert found.ndim == 2
    assert np.isfinite(found).all()
    np.testing.assert_allclose(features(model, images[2:3]), found[2:3], rtol=1e-4, atol=1e-5)
    assert np.abs(np.diff(found, axis=0)).max() > 0  # images differ
    model.features(model.network_input(images)).sum().backward()
    assert any(p.grad is not None and p.grad.numpy().any() for p in model.parameters())


def test_few_labels_are_in_proportion_and_their_own_for_each_seed():
    train, _ = load("digits")
    found = few(train, 100, 3)
    assert len(found) == 100
    shares = np.bincount(found.labels) - 100 * np.bincount(train.labels) / len(train)
    assert np.abs(shares).max() < 1
    assert np.array_equal(found.images, few(train, 100, 3).images)
    assert not np.array_equal(found.images, few(train, 100, 4).images)
    assert few(train, len(train), 0) is train
    for labels in (9, len(train) + 1):
        with pytest.raises(ValueError, match=f"labels must be from 10, one of each class, to 1,437, got {labels}"):
            few(train, labels, 0)
    with pytest.raises(ValueError, match="the data set 'x' has no labels"):
        few(Dataset(train.images, 17, name="x"), 100, 0)


def test_the_probe_of_pixels_and_of_what_tells_nothing():
    train, test = load("digits")
    pixels = probe(None, train, test, 100, range(2))
    assert (pixels > 0.8).all()
    assert pixels[0] != pixels[1]

    class Blind:
        image_shape = (1, 8, 8)
        network_input = staticmethod(lambda images: tinygen.tensor(images.astype(np.float32)))
        features = staticmethod(lambda x: x.sum((1, 2, 3)).reshape(-1, 1) * 0)

    assert probe(Blind, train, test, 100, range(1))[0] < 0.12

    class Scaled(Blind):  # neither scale nor offset count
        features = staticmethod(lambda x: 1e-3 * x.reshape(len(x), -1) + 7)

    assert probe(Scaled, train, test, 100, range(1))[0] == pytest.approx(pixels[0], abs=0.006)


def test_a_classifier_starts_from_the_features_and_all_of_them_are_tuned():
    train, test = load("digits")
    model = Autoencoder((1, 8, 8), 17, latent=16, hidden=16, rng=rng())
    before = copy.deepcopy(model.state_dict())
    net = Classifier(model, 10, rng=rng())
    start = {name: p.numpy().copy() for name, p in net.named_parameters()}
    fit(net, few(train, 200, 0), rng(), steps=150)
    assert accuracy(net, test) > 0.6  # chance is .1
    for name, p in net.named_parameters():
        assert np.array_equal(p.numpy(), start[name]) == ("decoder" in name), name
    assert all(np.array_equal(value, before[name]) for name, value in model.state_dict().items())  # it worked on a copy


def test_what_an_average_computes_is_what_is_tuned():
    """Diffusion evaluates with averages of its weights: tuning begins there, and shows in evaluation."""
    train, test = load("digits")
    model = new("diffusion", (1, 8, 8), 17, width=8)
    for p in model.network.network.parameters():
        p.write()[...] += rng(1).normal(0, 0.05, p.shape)
    model.network.update()
    model.eval()
    net = Classifier(model, 10, rng=rng())
    np.testing.assert_array_equal(features(net.model, test.images[:9]), features(model, test.images[:9]))
    first = accuracy(net.eval(), test)
    assert not np.array_equal(features(model.train(), test.images[:9]), features(model.eval(), test.images[:9]))
    fit(net, few(train, 200, 0), rng(), steps=60)
    assert accuracy(net, test) > first + 0.2


def test_tuning_is_drawn_from_its_seed_alone():
    train, test = load("digits")
    model = new("simclr", (1, 8, 8), 17)
    one, again, other = (fine_tuned(model, train, subset(test, slice(100)), 100, seed) for seed in (0, 0, 1))
    assert one == again != other


def test_the_command_has_a_line_for_each_run_by_the_same_labels(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tinygen.models.probing.STEPS", 3)
    monkeypatch.setattr("tinygen.training.commands.finish", lambda *_: None)
    for model in ("autoencoder", "colorization"):  # of which one holds images out
        assert main(["train", model, "--epochs", "1", "--latent", "4", "--hidden", "4", "--out", model]) == 0
    capsys.readouterr()
    assert main(["probe", "autoencoder", "--labels", "20", "--seeds", "2"]) == 0
    head, _, *alone = capsys.readouterr().out.splitlines()
    assert head.startswith("digits: percent of 360 test images told rightly by 20 labels, mean and deviation of 2")
    assert alone[0] == f"|  | {' | '.join((*LINEAR, *TUNED))} |"
    cells = [line.split(" | ") for line in alone]
    assert {len(row) for row in cells} == {8}
    train, test = load("digits")
    pixels = 100 * probe(None, train, test, 20, range(2))
    assert cells[2][:2] == ["| raw pixels", f"{pixels.mean():.1f} +- {pixels.std(ddof=1):.1f}"]
    rate, first, gain = (float(cell.split()[0]) for cell in cells[3][1:4])
    assert gain == pytest.approx(rate - first, abs=0.11)
    assert gain != 0
    assert main(["probe", "colorization", "autoencoder", "--labels", "20", "--seeds", "2", "--linear"]) == 0
    both = capsys.readouterr().out.splitlines()[2:]
    assert both[2].startswith(f"| raw pixels | {cells[2][1]} |")
    assert both[3].startswith("| colorization, told classes |")
    assert both[4].removesuffix(" |").split(" | ") == cells[3][:5]


def test_what_cannot_be_probed_together_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tinygen.training.commands.finish", lambda *_: None)
    for model, *more in (("autoencoder",), ("rotation", "--levels", "2"), ("made",)):
        assert main(["train", model, "--epochs", ".1", "--hidden", "4", *more, "--out", model]) == 0
    for asked, told in {
        ("made",): "made has no features to probe",
        ("autoencoder", "--labels", "5"): "labels must be from 10, one of each class, to 1,437, got 5",
        ("autoencoder", "rotation"): "runs that are measured together must be of the same data, got digits and "
        "digits of 2 levels",
    }.items():
        capsys.readouterr()
        assert main(["probe", *asked]) == 2
        assert capsys.readouterr().err == f"tinygen probe: {told}\n"
