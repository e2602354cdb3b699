"""MADE, FVSBN, PixelRNN, Gated PixelCNN: what they may see and do see, that they are distributions, that they learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygen
from tests.test_models import SIZES, all_images, gradient, order
from tinygen import cli, optim
from tinygen.data import load
from tinygen.models.gated import GatedPixelCNN
from tinygen.models.made import MADE, MaskedLinear
from tinygen.models.pixelcnn import PixelCNN
from tinygen.models.pixelrnn import PixelRNN

FAMILIES = {  # the class, options for small models, the layers that end in the logits
    "made": (MADE, {"hidden": 7}, lambda m: [m.last, m.direct]),
    "fvsbn": (MADE, {"hidden": 0}, lambda m: [m.direct]),
    "row": (PixelRNN, {"rnn": "row", "hidden": 6, "layers": 2}, lambda m: list(m.head)[-1:]),
    "diagonal": (PixelRNN, {"rnn": "diagonal", "hidden": 6, "layers": 2}, lambda m: list(m.head)[-1:]),
    "gated": (GatedPixelCNN, {"hidden": 6, "layers": 2}, lambda m: list(m.head)[-1:]),
}
SHAPES = [(1, 5, 6), (1, 1, 9), (1, 6, 1), (3, 3, 4), (2, 4, 3)]
every = pytest.mark.parametrize("name", FAMILIES)


def new(name, shape=(1, 2, 2), levels=3, **options):
    kind, small, _ = FAMILIES[name]
    return kind(shape, levels, **{**small, **options}, generator=np.random.default_rng(0))


def family(name, shape, levels=3, seed=0, dtype=np.float64, scale=0.5, positive=False, **options):
    """A model with weights so large that a value that is seen changes much; positive ones cancel nowhere."""
    model, generator = new(name, shape, levels, **options).to(dtype), np.random.default_rng(seed)
    for p in model.parameters():
        values = generator.normal(0, scale, p.shape)
        p.write()[...] = np.abs(values) if positive else values
    return model


def seen_by(model, position):
    """Which values the logits there depend on, (C, H, W): with positive weights and images every unit is open."""
    x = np.random.default_rng(0).uniform(0.1, 1, (1, *model.image_shape))
    return gradient(model, x, position) != 0


# ------------------------------------------------------------------------------------------------- what may be seen


@pytest.mark.fault("M01")
@every
@pytest.mark.parametrize("shape", SHAPES)
def test_no_output_sees_its_own_or_a_later_value(name, shape):
    x = np.random.default_rng(0).uniform(-1, 1, (1, *shape))
    ordinary, open_ = family(name, shape), family(name, shape, scale=0.1, positive=True)
    for position in np.ndindex(shape):
        later = order(shape) >= order(shape)[position]
        assert not gradient(ordinary, x, position)[later].any()
        assert not seen_by(open_, position)[later].any()


@pytest.mark.fault("M01")
@every
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(2, 5), st.integers(0, 2**32 - 1))
@settings(max_examples=12)
def test_a_change_changes_no_earlier_distribution(name, channels, height, width, levels, seed):
    """The same by values instead of gradients, through the whole likelihood path, in float32."""
    shape, generator = (channels, height, width), np.random.default_rng(seed)
    model = family(name, shape, levels, seed, np.float32)
    a = generator.integers(0, levels, (1, *shape))
    position = tuple(generator.integers(0, shape))
    b = a.copy()
    b[(0, *position)] = (b[(0, *position)] + 1) % levels
    one, other = (model(model.scaled(x)).numpy()[0] for x in (a, b))
    not_later = order(shape) <= order(shape)[position]
    np.testing.assert_array_equal(one[:, not_later], other[:, not_later])


@pytest.mark.fault("M02")
@pytest.mark.parametrize(("name", "layers"), [("made", None), ("fvsbn", None), ("diagonal", 1), ("diagonal", 2)])
@pytest.mark.parametrize("shape", [*SHAPES, (1, 3, 12)])
def test_all_past_values_are_seen(name, layers, shape):
    model = family(name, shape, scale=0.1, positive=True, **({"layers": layers} if layers else {}))
    for position in np.ndindex(shape):
        np.testing.assert_array_equal(seen_by(model, position), order(shape) < order(shape)[position])


@pytest.mark.fault("M02")
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 7, 8), (3, 5, 4), (1, 4, 9)])
def test_gated_pixelcnn_has_no_blind_spot(shape, layers):
    """All past values as near as its kernels reach, in every direction."""
    model = family("gated", shape, scale=0.1, positive=True, layers=layers)
    _, rows, columns = np.indices(shape)
    for channel, y, x in np.ndindex(shape):
        near = (y - rows <= layers + 2) & (np.abs(x - columns) <= layers + 2)
        past = order(shape) < order(shape)[channel, y, x]
        np.testing.assert_array_equal(seen_by(model, (channel, y, x)), near & past)


def test_gated_pixelcnn_sees_what_pixelcnn_never_sees():
    """One row up and four to the right."""
    plain = PixelCNN((1, 4, 9), 2, hidden=6, blocks=5, generator=np.random.default_rng(0)).to(np.float64)
    for p in plain.parameters():
        p.write()[...] = 0.1
    assert not seen_by(plain, (0, 1, 4))[0, 0, 8]
    assert seen_by(family("gated", (1, 4, 9), scale=0.1, positive=True, layers=2), (0, 1, 4))[0, 0, 8]


def reach(shape, rule):
    """(D, D) booleans: whether the value at y, x of colour c depends on that at v, u of colour d, by a rule."""
    sees = [rule(c, y, x, d, v, u) for c, y, x in np.ndindex(shape) for d, v, u in np.ndindex(shape)]
    return np.array(sees).reshape(math.prod(shape), -1)


def masked(shape, kernel, mask):
    def rule(c, y, x, d, v, u):
        before = (v, u) < (y, x) or ((v, u) == (y, x) and (d < c or (mask == "B" and d == c)))
        return abs(y - v) <= kernel[0] // 2 and abs(x - u) <= kernel[1] // 2 and before

    return reach(shape, rule)


@pytest.mark.fault("M02")
@pytest.mark.parametrize("layers", [0, 1, 2])
@pytest.mark.parametrize("shape", [(1, 5, 9), (3, 3, 4)])
def test_row_lstm_sees_what_its_kernels_let_through(shape, layers):
    above = reach(shape, lambda c, y, x, d, v, u: v == y - 1 and abs(x - u) <= 1)  # from state to state
    states = np.linalg.matrix_power((above | np.eye(len(above), dtype=bool)).astype(float), shape[1]) > 0
    seen = masked(shape, (7, 7), "A")
    for _ in range(layers):
        seen = seen | masked(shape, (1, 1), "B") @ states @ masked(shape, (1, 3), "B") @ seen
    seen = (masked(shape, (1, 1), "B") @ seen).reshape(*shape, *shape)
    model = family("row", shape, scale=0.1, positive=True, layers=layers)
    for position in np.ndindex(shape):
        np.testing.assert_array_equal(seen_by(model, position), seen[position])


def test_row_lstm_sees_a_triangle():
    """Its right edge: three pixels in the row above, by the 7x7 convolution, and one more with each row."""
    for layers in (1, 2):
        seen = seen_by(family("row", (1, 7, 12), scale=0.1, positive=True, layers=layers), (0, 6, 2))[0]
        assert [row.nonzero()[0].max() for row in seen] == [10, 9, 8, 7, 6, 5, 1]


@pytest.mark.parametrize(("hidden", "shape"), [(11, (3, 2, 2)), (40, (1, 3, 4)), (3, (1, 3, 4)), (1, (1, 1, 1))])
def test_made_without_its_direct_connections_sees_as_far_as_degrees_go(hidden, shape):
    model = family("made", shape, scale=0.1, positive=True, hidden=hidden)
    model.direct.weight.write()[...] = 0
    total = math.prod(shape)
    numbers = []
    for position in np.ndindex(shape):
        seen, place = seen_by(model, position), order(shape)[position]
        assert not (seen & (order(shape) >= place)).any()
        assert seen[order(shape) < seen.sum()].all()  # the first so many
        numbers.append((place, seen.sum()))
    if hidden >= total - 1:
        assert all(place == number for place, number in numbers)
    else:
        assert len({number for _, number in numbers}) == hidden + 1  # each unit has a degree of its own


@pytest.mark.fault("M01")
def test_weights_behind_mades_mask_are_not_used_whatever_they_are():
    seen = np.random.default_rng(0).random((5, 4)) < 0.5
    layer = MaskedLinear(seen, generator=np.random.default_rng(0))
    x = tinygen.tensor(np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32))
    expected = x.numpy() @ np.where(seen, layer.weight.numpy(), 0).T + layer.bias.numpy()
    layer.weight.write()[~seen] = np.nan
    np.testing.assert_allclose(layer(x).numpy(), expected, rtol=1e-5, atol=1e-6)
    (layer(x) ** 2).sum().backward()
    grad = layer.weight.grad.numpy()
    assert not grad[~seen].any()
    assert (grad[seen] != 0).all()


# --------------------------------------------------------------------------------------------------- distributions


@pytest.mark.fault("M03")
@every
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-6)])
@pytest.mark.parametrize(("shape", "levels"), SIZES)
def test_the_probabilities_of_all_images_sum_to_one(name, shape, levels, dtype, tolerance):
    for seed in range(2):
        log_prob = family(name, shape, levels, seed, dtype).log_prob(all_images(shape, levels))
        assert log_prob.std() > 0.1  # not just near uniform
        assert abs(np.exp(log_prob).sum() - 1) < tolerance


@pytest.mark.fault("M10")
@every
@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_output_layer_of_zeros_costs_log2_of_the_levels(name, levels, dtype):
    model = family(name, (3, 4, 3), levels, dtype=dtype)
    for layer in FAMILIES[name][2](model):
        for p in layer.parameters():
            p.write()[...] = 0
    images = np.random.default_rng(0).integers(0, levels, (5, 3, 4, 3))
    tolerance = 4 * float(np.finfo(dtype).eps)
    for nats in -model.log_prob(images):
        assert model.bits_per_dim(nats) == pytest.approx(math.log2(levels), rel=tolerance)


@every
@pytest.mark.parametrize("shape", [(1, 3, 4), (3, 2, 2)])
def test_samples_follow_the_networks_logits(name, shape):
    """Each value is drawn from the logits that the finished image has there: later values change nothing."""
    model = family(name, shape, 4)
    drawn = model.sample(6, np.random.default_rng(3))
    logits = model(model.scaled(drawn)).numpy()
    uniform = np.random.default_rng(3).random((math.prod(shape), 6))
    for position in np.ndindex(shape):
        p = np.exp(logits[:, :, *position])
        cumulative = (p / p.sum(axis=1, keepdims=True)).cumsum(axis=1)
        below = (cumulative <= uniform[order(shape)[position]][:, None]).sum(axis=1)
        np.testing.assert_array_equal(drawn[:, *position], below)


# -------------------------------------------------------------------------------------------------------- learning


@pytest.mark.fault("M09")
@every
@pytest.mark.parametrize("colour", [False, True])
def test_one_batch_can_be_overfitted(name, colour):
    if colour:
        images, levels = np.random.default_rng(0).integers(0, 4, (6, 3, 4, 4)), 4
    else:
        images, levels = load("digits")[0].images[:8], 17
    hidden, steps, lr = {"made": (96, 500, 0.01), "fvsbn": (0, 500, 0.03)}.get(name, (24, 150, 0.01))
    model = new(name, images.shape[1:], levels, hidden=hidden)
    optimizer = optim.Adam(model.parameters(), lr=lr)
    first = model.bits_per_dim(-model.log_prob(images).mean())
    for _ in range(steps):
        optimizer.zero_grad()
        model.nats(images).mean().backward()
        optimizer.step()
    # all that is left to know is which image it is: log2(N) bits for the whole image
    floor = math.log2(len(images)) / model.dimensions
    last = model.bits_per_dim(-model.log_prob(images).mean())
    assert first > 0.8 * math.log2(levels)
    assert floor <= last < floor + 0.1


@every
@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 4, 4)])
def test_every_parameter_learns(name, shape):
    model = family(name, shape, 4)
    images = np.random.default_rng(0).integers(0, 4, (16, *shape))
    model.nats(images).mean().backward()
    for parameter, p in model.named_parameters():
        assert np.abs(p.grad.numpy()).max() > 0, parameter


@pytest.mark.parametrize("arguments", ["made", "pixelrnn --rnn row", "pixelrnn --rnn diagonal", "gated"])
def test_one_command_trains_it(arguments, tmp_path, capsys):
    folder = tmp_path / "run"
    small = ["--hidden", "4", "--levels", "2", "--minutes", "0.001", "--out", str(folder)]
    assert cli.main(["train", *arguments.split(), *small]) == 0
    assert cli.main(["sample", str(folder), "-n", "4"]) == 0
    assert "bits/dim" in capsys.readouterr().out
    assert (folder / "samples-0.png").exists()


# ---------------------------------------------------------------------------------------------------------- errors

ERRORS = {
    "made, hidden -1": (lambda: new("made", hidden=-1), "hidden must not be negative, got -1"),
    "rnn": (lambda: new("row", rnn="rows"), "rnn must be one of row, diagonal, got 'rows'"),
    "pixelrnn, hidden 4, RGB": (lambda: new("row", (3, 2, 2), hidden=4), "multiple of the 3 image channels, got 4"),
    "pixelrnn, hidden 0": (lambda: new("diagonal", hidden=0), "positive multiple of the 1 image channels, got 0"),
    "pixelrnn, layers -1": (lambda: new("diagonal", layers=-1), "layers must not be negative, got -1"),
    "gated, hidden 4, RGB": (lambda: new("gated", (3, 2, 2), hidden=4), "multiple of the 3 image channels, got 4"),
    "gated, hidden 0": (lambda: new("gated", hidden=0), "positive multiple of the 1 image channels, got 0"),
    "gated, no layers": (lambda: new("gated", layers=0), "layers must be at least 1, got 0"),
}  # fmt: skip


@every
def test_images_that_dont_fit_are_refused(name):
    for images, text in (
        (np.zeros((1, 1, 2, 3), int), r"images must be \(N, 1, 2, 2\), got \(1, 1, 2, 3\)"),
        (np.full((1, 1, 2, 2), 3), "images must be integers from 0 to 2, got int64 from 3 to 3"),
    ):
        with pytest.raises(ValueError, match=text):
            new(name).nats(images)


@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_one_clear_sentence(case):
    function, text = ERRORS[case]
    with pytest.raises(ValueError, match=text) as caught:
        function()
    assert "\n" not in str(caught.value)
