"""The table of what models can be asked: it is the classes', they keep to it, and it stands in docs/families.md."""

from pathlib import Path

import numpy as np
import pytest

from tests.models.small import CLASSES, SMALL, new
from tinygen import hook
from tinygen.cli import main as cli
from tinygen.data import Dataset
from tinygen.models import inference
from tinygen.models.energy import family as energy
from tinygen.models.model import QUESTIONS, SIGNS, Causal, HasLogProb, Samples
from tinygen.models.registry import MODELS, model_class

FORMS = [name for name in SMALL if issubclass(model_class(SMALL[name][0]), Samples)]


def test_the_page_has_the_table():
    page = (Path(__file__).parents[2] / "docs" / "families.md").read_text()
    assert inference.markdown() in page, "put tinygen.models.inference.markdown() there"


def test_the_command_prints_it_and_what_a_model_offers(capsys):
    assert cli.main(["models"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split("  ")[0] == "model"
    assert [line.split()[0] for line in lines] == list(MODELS)
    assert cli.main(["models", "dcgan", "glow"]) == 0
    out = capsys.readouterr().out
    assert "DCGAN can't give p(z given x): it has no encode(); it offers images between images, samples\n" in out
    assert "encode(): z of the middles of the images' cells" in out


def test_who_has_what_the_lecture_says():
    rows = {row.model: row for row in inference.table()}
    assert rows["pixelcnn"] == ("pixelcnn", "exact", "-", "yes", "-", "one for each value")
    assert rows["vae"] == ("vae", "bound", "yes", "-", "yes", "one pass")
    assert rows["dcgan"] == ("dcgan", "-", "-", "-", "yes", "one pass")


@pytest.mark.parametrize("name", MODELS)
def test_what_is_not_offered_is_refused_in_a_sentence(name):
    model = new(next(form for form, (of, _) in SMALL.items() if of == name), (1, 8, 8), 17)
    for method, (words, protocol) in QUESTIONS.items():
        if not isinstance(model, protocol) and not hasattr(type(model), method):
            with pytest.raises(AttributeError) as refused:
                getattr(model, method)
            sentence = str(refused.value)
            assert sentence.startswith(f"{type(model).__name__} can't give {words}: it has no {method}(); it offers ")
            assert not sentence.endswith("offers ")
    with pytest.raises(AttributeError, match="object has no attribute 'weigth'"):
        _ = model.weigth


@pytest.mark.parametrize("name", MODELS)
def test_a_likelihood_is_as_the_class_says(name, monkeypatch):
    """Where there is one, the family measures it, in bits/dim; where there is none, it gives none."""
    monkeypatch.setattr(energy, "TEMPERATURES", 5)
    model = new(next(form for form, (of, _) in SMALL.items() if of == name), (1, 8, 8), 17).eval()
    rng = np.random.default_rng(0)
    data = Dataset(rng.integers(0, 17, (6, 1, 8, 8)).astype(np.uint8), 17, np.arange(6) % CLASSES, "noise")
    found = model.family.likelihood(model, data, data, rng)
    assert (found is None) == (model.evidence == "none")
    assert found is None or (found.unit == "bits/dim" and np.isfinite(found.value))
    if isinstance(model, HasLogProb):
        assert model.evidence in ("exact", "bound")
        mean = -model.log_prob(data.images, model.condition.used(data.labels)).mean()
        assert found.value == pytest.approx(model.bits_per_dim(mean))
    assert (model.evidence == "exact") == isinstance(model, Causal)
    assert model.evidence == "none" or model.evidence in SIGNS


@pytest.mark.parametrize("name", FORMS)
def test_a_sample_takes_the_passes_that_the_class_says(name):
    """One pass: no parameter is used more than once by the same op. Else some are; by definition, of the chain rule."""
    model = new(name, (1, 8, 8), 17).eval()
    used: dict[tuple[int, str], int] = {}
    weights = {id(p._array) for p in model.parameters()} | {id(b._array) for _, b in model.named_buffers()}

    def count(call, run):
        for value in call.inputs:
            if id(array := getattr(value, "_array", value)) in weights and not call.op.view:
                used[id(array), call.op.name] = used.get((id(array), call.op.name), 0) + 1
        return run()

    rng = np.random.default_rng(0)
    with hook(count):
        if isinstance(model, Causal):
            given, uniform = np.arange(64) < 61, np.zeros((3, 1))
            zeros = np.zeros((1, 1, 8, 8), np.uint8)
            model.complete_naively(zeros, given, uniform, 1.0, model.condition.in_turn(1))
        else:
            model.sample(1, rng)
    assert used
    assert (max(used.values()) > 1) == (model.passes != "one")
