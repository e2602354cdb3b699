"""Text to image: the losses, what is trained on, captions as vectors, how well captions are kept, what goes wrong."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import tinygen
from tests.models.test_gan import training
from tinygen.cli.main import main
from tinygen.data import Dataset, load
from tinygen.data.captions import Captions, measure
from tinygen.models.condition import Text
from tinygen.models.gan.textfamily import as_asked, drawn
from tinygen.models.gan.textgan import TextGAN
from tinygen.models.gan.textpair import matching_aware
from tinygen.models.networks.text import TextEncoder


def new(shape=(1, 8, 8), levels=17, seed=0, **options):
    options = {"nouns": "digits", "latent": 6, "width": 8, "embedding": 8} | options
    return TextGAN(shape, levels, **options, rng=np.random.default_rng(seed))


SCORES = st.lists(st.floats(-20, 20), min_size=1, max_size=6)


@given(SCORES, SCORES, SCORES)
def test_the_matching_aware_loss_is_that_of_the_paper(real, wrong, fake):
    """-log s_r - (log(1 - s_w) + log(1 - s_f)) / 2, algorithm 1."""
    r, w, f = (tinygen.tensor(np.array(x)) for x in (real, wrong, fake))
    d = [1 / (1 + np.exp(-x.numpy())) for x in (r, w, f)]
    expected = -np.log(d[0]).mean() - (np.log1p(-d[1]).mean() + np.log1p(-d[2]).mean()) / 2
    assert matching_aware(r, w, f).item() == pytest.approx(expected, rel=1e-7, abs=1e-7)


def test_a_constant_discriminator_loses_log_2_and_two_halves():
    none = tinygen.tensor(np.zeros(3))
    assert matching_aware(none, none, none).item() == pytest.approx(math.log(2) * (1 + 0.5 + 0.5), rel=1e-12)
    sure = tinygen.tensor(np.full(3, 50.0))
    for terms, lost in (((-sure, -sure, -sure), 50), ((sure, sure, -sure), 25), ((sure, -sure, sure), 25)):
        assert matching_aware(*terms).item() == pytest.approx(lost, rel=1e-9)
    model = new()
    for p in (*model.pair.discriminator.alone.parameters(), *model.pair.discriminator.together.parameters()):
        p.write()[...] = 0
    assert training(model, lr=1e-12).advance(0.0)["d_loss"] == pytest.approx(2 * math.log(2), rel=1e-6)


# -------------------------------------------------------------------------------------------------- captions as vectors


@pytest.mark.parametrize("kind", ["mean", "lstm"])
def test_every_combination_of_words_has_a_vector_of_its_own(kind):
    """Those too that were never seen: as many vectors as there are meanings, and none near another."""
    captions = Captions("fashion-mnist")
    every = np.array([(c, b, w) for c in range(10) for b in range(3) for w in range(2)])
    texts = [
        f"a {('dark', 'medium', 'bright')[b]} {('narrow', 'wide')[w]} {captions.sayings[0][c][0]}" for c, b, w in every
    ]
    vectors = TextEncoder(len(captions.words), 16, kind, rng=np.random.default_rng(0))(captions.numbers(texts)).numpy()
    assert vectors.shape == (60, 16)
    apart = np.linalg.norm(vectors[:, None] - vectors, axis=2) + 1e9 * np.eye(60)
    assert apart.min() > 0.02


def test_the_mean_is_that_of_the_words_and_the_lstm_sees_their_order():
    captions = Captions("fashion-mnist")
    two = captions.numbers(["dark wide coat", "wide dark coat"])
    mean, lstm = (TextEncoder(len(captions.words), 6, kind, rng=np.random.default_rng(0)) for kind in ("mean", "lstm"))
    table = mean.words.weight.numpy()
    expected = table[[captions.words.index(word) for word in ("dark", "wide", "coat")]].mean(axis=0)
    np.testing.assert_allclose(mean(two).numpy(), [expected, expected], rtol=1e-5, atol=1e-6)
    first, second = lstm(two).numpy()
    assert np.abs(first - second).max() > 1e-3


# --------------------------------------------------------------------------------------------------- what is trained on


def watched(model, steps=12):
    """Steps of training; what D was shown in each, in order."""
    run, seen = training(model, batch_size=32), []
    view, read = model.pair.discriminator.see, model.pair.vectors
    calls: list = []
    model.pair.discriminator.see = lambda x: (calls.append(("see", x.numpy().copy())), view(x))[1]
    model.pair.vectors = lambda rows: (calls.append(("read", np.array(rows))), read(rows))[1]
    for _ in range(steps):
        calls.clear()
        run.advance(0.0)
        seen.append(list(calls))
    return seen


def test_captions_fit_their_images_and_wrong_ones_do_not_and_none_is_held_out():
    """By what is measured on the very images that D was shown."""
    model = new(interpolate=False)
    captions, edges = model.condition.captions, model.pair.edges
    trained = 0
    for calls in watched(model):
        # G reads t; then D sees x, reads t, reads the wrong captions, sees G(z)
        assert [kind for kind, _ in calls[:5]] == ["read", "see", "read", "read", "see"]
        images, right, wrong = calls[1][1] / 2 + 0.5, calls[2][1], calls[3][1]
        np.testing.assert_array_equal(calls[0][1], right)
        said = np.array([captions.meant(text) for text in captions.texts(right)])
        mistaken = np.array([captions.meant(text) for text in captions.texts(wrong)])
        np.testing.assert_array_equal(captions.describe(images, said[:, 0], edges.numpy()), said)
        assert (said != mistaken).any(axis=1).all()
        assert not captions.held_out(np.concatenate([said, mistaken])).any()
        trained += len(said)
    assert 0.7 < trained / (12 * 32) < 0.95  # a sixth of the images is left out


def test_texts_between_are_the_halves_of_two_of_the_batch():
    pair = new().pair
    rows = pair.condition.draw(5, np.random.default_rng(0))
    z = np.random.default_rng(1).normal(size=(5, 6))
    phi, asked = pair.vectors(rows).numpy(), []
    draw = pair.draw
    pair.draw = lambda z, vectors: (asked.append(vectors.numpy()), draw(z, vectors))[1]
    parts = pair.generator_loss(pair.generate(z, rows), rows, z)
    assert set(parts) == {"g_loss", "g_between"}
    np.testing.assert_allclose(asked[-1], (phi + np.roll(phi, -1, axis=0)) / 2, rtol=1e-6)
    pair.interpolate = False
    assert set(pair.generator_loss(pair.generate(z, rows), rows, z)) == {"g_loss"}


def test_the_captions_vectors_learn_with_d_alone():
    model = new()
    run = training(model)
    own = {name: set(map(id, o.param_groups[0]["params"])) for name, o in run.optimizers.items()}
    words = id(model.pair.discriminator.encoder.words.weight)
    assert words in own["discriminator"]
    assert words not in own["generator"]
    z, rows = np.zeros((2, 6)), model.condition.draw(2, np.random.default_rng(0))
    model.pair.generate(z, rows).sum().backward()
    assert model.pair.discriminator.encoder.words.weight.grad is None


def test_edges_are_those_of_the_training_set_and_part_of_the_checkpoint():
    model, (train, _) = new(), load("digits")
    training(model).advance(0.0)
    np.testing.assert_allclose(model.pair.edges.numpy(), model.condition.captions.edges(train.images, train.labels, 17))
    assert "pair.edges" in model.state_dict()


def test_images_without_labels_have_captions_too():
    data = Dataset(load("digits")[0].images[:200], 17)
    model = new(nouns="none")
    for _ in range(2):
        assert math.isfinite(training(model, data).advance(0.0)["d_loss"])


# ------------------------------------------------------------------------------------------------- asking for something


def test_a_condition_of_captions_checks_them():
    text = Text(Captions("digits"))
    assert text
    rows = text.draw(3, np.random.default_rng(0))
    np.testing.assert_array_equal(text.check(rows, 3), rows)
    assert text.of_data.classes == 10
    assert Text(Captions()).of_data.classes == 0
    turns = [text.captions.meant(caption)[0] for caption in text.captions.texts(text.in_turn(12))]
    assert turns == [*range(10), 0, 1]
    for wrong in (None, rows[:2], rows + 1000, rows - 1000, rows.astype(float), np.arange(3)):
        with pytest.raises(
            ValueError, match=r"labels must be the captions of TextGAN, \(3, 10\) numbers of words below 27"
        ):
            text.check(wrong, 3, "TextGAN")


def test_as_asked_is_what_is_measured():
    """Of real images, asked for what they are, and for something else."""
    train, test = load("digits")
    model = new()
    training(model).advance(0.0)
    captions = model.condition.captions
    said = captions.describe(test.images / 16, test.labels, model.pair.edges.numpy())
    assert as_asked(model, test.images, said, train)[:, 1:].all()
    assert as_asked(model, test.images, said, train)[:, 0].mean() > 0.9
    other = said.copy()
    other[:, 1] = (other[:, 1] + 1) % 3
    assert not as_asked(model, test.images, other, train)[:, 1].any()


def bars(n=600):
    """Images of an upright bar, more or less bright and wide: what captions without nouns speak of."""
    rng, images = np.random.default_rng(0), np.zeros((n, 1, 8, 8), np.uint8)
    for image, width, light in zip(images, rng.integers(2, 8, n), rng.integers(60, 256, n), strict=True):
        left = (8 - width) // 2
        image[0, 1:7, left : left + width] = light
    return Dataset(images)


def trained(model, steps):
    """What is said of the training after so many steps on bars."""
    run = training(model, bars(), batch_size=64, lr=1e-3)
    rows = [run.advance(0.0) for _ in range(steps)]
    return model.family.diagnostics(model, {name: float(np.mean([r[name] for r in rows[-40:]])) for name in rows[0]})


def test_what_captions_ask_for_is_drawn_and_combinations_never_seen_too():
    """After seconds, both far above chance, a sixth; and then nothing is said of captions."""
    model, rng = new(nouns="none", width=16, latent=2, levels=256), np.random.default_rng(1)
    said = trained(model, 400)
    assert not any("caption" in text for text in said)
    for held_out, least in ((False, 0.6), (True, 0.3)):
        asked = model.condition.captions.draw(500, rng, held_out)
        right = as_asked(model.eval(), drawn(model, asked, rng), asked, bars())
        assert right.all(axis=1).mean() > least, right.mean(axis=0)


def test_images_that_ignore_the_caption_are_named():
    """Where the captions in training say nothing of the images."""
    model = new(nouns="none", width=16, latent=2, levels=256)
    captions, rng = model.condition.captions, np.random.default_rng(0)
    write = captions.write
    captions.write = lambda attributes, _: write(captions.draw(len(attributes), rng), rng)
    pattern = (
        r"images ignore the caption: brightness and width are as asked for in 1\d% \(by chance 17%\); D gives right "
    )
    found = trained(model, 100)
    assert any(re.match(pattern, text) for text in found), found


def test_the_metrics_put_chance_and_real_images_beside_each_attribute():
    train, test = load("digits")
    model = new()
    training(model).advance(0.0)
    found = {m.name: m for m in model.eval().family.metrics(model, train, test, np.random.default_rng(0))}
    for name, chance in (("class", 10), ("brightness", 100 / 3), ("width", 50), ("all of it", 100 / 60)):
        metric = found[f"{name} as asked for"]
        assert metric.baselines["chance"] == pytest.approx(chance)
        assert metric.baselines["real images"] > 90
        assert 0 <= metric.value <= 100
    assert found["the same, of combinations never seen"].baselines["chance"] == pytest.approx(100 / 60)


@pytest.mark.parametrize("name", ["words", "changes", "neighbors", "interpolate"])
def test_pictures_have_their_captions(name):
    train, test = load("digits")
    model = new()
    training(model).advance(0.0)
    plot = model.family.plots[name](model.eval(), train, test, np.random.default_rng(0))
    captions = model.condition.captions
    if name == "words":
        said = np.array([captions.meant(text) for text in plot.rows])
        assert captions.held_out(said).all()
        assert len(plot.images) == 6 * len(said) == 60
    if name == "changes":
        assert len(plot.under) == len(plot.images)
        assert [captions.meant(text) for text in plot.under[:6]] == [(0, b, w) for b in range(3) for w in range(2)]


def test_a_caption_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "textgan", "--nouns", "digits", "--width", "4", "--epochs", "0.05", "--out", "x"]) == 0
    capsys.readouterr()
    assert main(["sample", "x", "-n", "4", "--caption", "A dark, wide seven"]) == 0
    assert capsys.readouterr().out == "4 samples: x/samples-0-n-4-caption-a-dark-wide-seven.png\n"
    with Image.open("x/samples-0-n-4-caption-a-dark-wide-seven.png") as png:
        assert png.size[0] > 300
    before = sorted(Path().rglob("*"))
    for args, said in {
        ("--caption", "a drak seven"): "caption: no word 'drak' is known (did you mean dark?); there are a, an, ",
        ("--caption", ""): "caption must have 1 to 10 words, got 0",
        ("--label", "3"): "labels must be the captions of TextGAN",
    }.items():
        assert main(["sample", "x", *args]) == 2
        assert said in capsys.readouterr().err
    assert sorted(Path().rglob("*")) == before


def test_a_model_without_captions_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "gan", "--width", "4", "--epochs", "0.05", "--out", "x"]) == 0
    assert main(["sample", "x", "--caption", "a seven"]) == 2
    assert capsys.readouterr().err.endswith("tinygen sample: --caption: GAN reads no captions; textgan does\n")


def test_labels_that_have_no_noun_are_refused_before_the_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 9, (30, 1, 4, 4)).astype(np.uint8)
    np.savez("unlabeled.npz", images=images)
    np.savez("many.npz", images=images, labels=np.arange(30) % 12)
    for data, said in (("unlabeled.npz", "leave --nouns out, or add them"), ("many.npz", "got 0 to 11\n")):
        assert main(["train", "textgan", "--nouns", "digits", "--data", data]) == 2
        assert said in capsys.readouterr().err
    assert not Path("runs").exists()


def test_measures_of_generated_images_are_those_of_the_saved_ones():
    """What training says of its images, from -1 to 1, and what the metrics say of bytes."""
    model = new(levels=256)
    images = np.random.default_rng(0).integers(0, 256, (3, 1, 8, 8)).astype(np.uint8)
    np.testing.assert_allclose(measure(model.scale(images).numpy() / 2 + 0.5), measure(images / 255), rtol=1e-5)
