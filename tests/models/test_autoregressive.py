"""Autoregressive models: what they may see and do see, that they are distributions, that sampling draws from them, that
they learn. What should hold of all of them is asked of all of them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygen
from tests.models.small import AUTOREGRESSIVE, CLASSES, new
from tinygen import nn, optim
from tinygen.baselines.independent import independent_nats
from tinygen.cli import main as cli
from tinygen.data import load
from tinygen.models.autoregressive.base import Autoregressive
from tinygen.models.autoregressive.made import MaskedLinear
from tinygen.models.autoregressive.multiscale import SMALL, MultiScalePixelRNN
from tinygen.models.autoregressive.pixelcnn import PixelCNN
from tinygen.models.family import Batch
from tinygen.models.registry import MODELS, model_class
from tinygen.sampling.sampler import draw


def last(*layers):
    return [p for layer in layers for p in layer.parameters()]


LAST = {  # the parameters of a model's output layers; those of PixelCNN++ are of mixtures
    "fvsbn": lambda m: last(m.direct),
    "made": lambda m: last(m.last, m.direct),
    "nade": lambda m: [m.output, m.output_bias],
    "pixelcnn": lambda m: last(m.layers[-1]),
    "pixelcnn, plain": lambda m: last(m.layers[-1]),
    "gated": lambda m: last(m.head[-1]),
    "gated, classes": lambda m: last(m.head[-1]),
    "row": lambda m: last(m.head[-1]),
    "diagonal": lambda m: last(m.head[-1]),
    "multiscale": lambda m: last(m.small.head[-1], m.large.head[-1]),
    "multiscale, diagonal": lambda m: last(m.small.head[-1], m.large.head[-1]),
}
OVERFIT = {  # options, steps, learning rate to overfit a model by, where they aren't these
    "": ({"hidden": 24}, 200, 0.01),
    "fvsbn": ({}, 300, 0.03),
    "made": ({"hidden": 96}, 300, 0.01),
    "nade": ({"hidden": 60}, 200, 0.02),
    "pixelcnn": ({"hidden": 24, "blocks": 2}, 200, 0.005),
    "pixelcnnpp": ({"hidden": 24, "scales": 1}, 300, 0.005),
}
SIZES = [((1, 2, 2), 2), ((1, 1, 2), 3), ((1, 2, 1), 3), ((3, 1, 1), 3), ((2, 1, 2), 3), ((1, 3, 3), 2)]
SHAPES = [(1, 5, 6), (1, 1, 9), (1, 6, 1), (3, 3, 4), (2, 4, 3)]
every = pytest.mark.parametrize("name", AUTOREGRESSIVE)
softmax = pytest.mark.parametrize("name", list(LAST))


def model_of(name, shape, levels=3, seed=0, dtype=np.float64, scale=0.5, positive=False, **options):
    """A model with weights so large that a value that is seen changes much; positive ones cancel nowhere."""
    model, rng = new(name, shape, levels, **options).to(dtype), np.random.default_rng(seed)
    for p in model.parameters():
        values = rng.normal(0, scale, p.shape)
        p.write()[...] = np.abs(values) if positive else values
    return model


def labels_of(model, n, first=0):
    """Labels of n images, if the model takes them."""
    return (first + np.arange(n)) % CLASSES if model.condition else None


def logits_of(model, x):
    return model.logits(x, labels_of(model, len(x)))


def all_images(shape, levels):
    values = itertools.product(range(levels), repeat=math.prod(shape))
    return np.array(list(values), np.uint8).reshape(-1, *shape)


def gradient(function, x, position):
    """Of the function's output there, all levels weighted at random, by its input (1, C, H, W)."""
    x = tinygen.tensor(x, requires_grad=True)
    out = function(x)
    upstream = np.zeros(out.shape)
    upstream[(0, ..., *position)] = 0.5 + np.random.default_rng(0).random(upstream[(0, ..., *position)].shape)
    return tinygen.grad(out, x, tinygen.tensor(upstream))[0].numpy()[0]


def raster(shape):
    """The number of each value in the raster order: pixels row by row, within a pixel colors."""
    channels, height, width = shape
    return np.arange(math.prod(shape)).reshape(height, width, channels).transpose(2, 0, 1)


def order(model):
    """The number of each value in the order in which the model's chain rule takes them."""
    places = raster(model.image_shape)
    if isinstance(model, MultiScalePixelRNN):
        between = np.ones(places.shape, bool)
        between[SMALL] = False
        places = np.argsort(np.argsort(places + places.size * between, axis=None)).reshape(places.shape)
    return places


def seen_by(model, position):
    """Which values the logits there depend on, (C, H, W): with positive weights and images every unit is open."""
    x = np.random.default_rng(0).uniform(0.1, 1, (1, *model.image_shape))
    return gradient(lambda x: logits_of(model, x), x, position) != 0


# ------------------------------------------------------------------------------------------------- what may be seen


@pytest.mark.fault("M01")
@pytest.mark.parametrize("kernel", [1, 3, (5, 3)])
@pytest.mark.parametrize("groups", [1, 2, 3, 4])
@pytest.mark.parametrize("mask", ["A", "B"])
def test_masked_convolution_sees_what_its_mask_says(mask, groups, kernel):
    conv = nn.MaskedConv2d(2 * groups, 3 * groups, kernel, mask, groups, rng=np.random.default_rng(0))
    conv.to(np.float64)
    kh, kw = conv.weight.shape[2:]
    x = np.random.default_rng(1).normal(size=(1, 2 * groups, 6, 5))
    row, column = 3, 2
    for o in range(3 * groups):
        seen = gradient(conv, x, (o, row, column)) != 0
        for i, r, c in np.ndindex(seen.shape):
            near = abs(r - row) <= kh // 2 and abs(c - column) <= kw // 2
            mine, its = o // 3, i // 2  # color groups
            same = its <= mine if mask == "B" else its < mine
            assert seen[i, r, c] == (near and ((r, c) < (row, column) or ((r, c) == (row, column) and same)))


@pytest.mark.fault("M01")
def test_weights_behind_the_mask_are_not_used_whatever_they_are():
    conv = nn.MaskedConv2d(3, 3, 5, "A", 3, rng=np.random.default_rng(0))
    x = tinygen.tensor(np.random.default_rng(1).normal(size=(2, 3, 4, 4)).astype(np.float32))
    before = conv(x).numpy()
    hidden = np.zeros((3, 3, 5, 5), bool)
    hidden[:, :, 2, 3:] = hidden[:, :, 3:] = True
    hidden[:, :, 2, 2] = np.triu(np.ones((3, 3), bool))
    conv.weight.write()[hidden] = np.nan
    np.testing.assert_array_equal(conv(x).numpy(), before)
    loss = (conv(x) ** 2).sum()
    loss.backward()
    grad = conv.weight.grad.numpy()
    assert not grad[hidden].any()
    assert np.isfinite(grad).all()


@pytest.mark.fault("M01")
def test_weights_behind_mades_mask_are_not_used_whatever_they_are():
    seen = np.random.default_rng(0).random((5, 4)) < 0.5
    layer = MaskedLinear(seen, rng=np.random.default_rng(0))
    x = tinygen.tensor(np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32))
    expected = x.numpy() @ np.where(seen, layer.weight.numpy(), 0).T + layer.bias.numpy()
    layer.weight.write()[~seen] = np.nan
    np.testing.assert_allclose(layer(x).numpy(), expected, rtol=1e-5, atol=1e-6)
    (layer(x) ** 2).sum().backward()
    grad = layer.weight.grad.numpy()
    assert not grad[~seen].any()
    assert (grad[seen] != 0).all()


@pytest.mark.fault("M01")
@every
@pytest.mark.parametrize("shape", SHAPES)
def test_no_output_sees_its_own_or_a_later_value(name, shape):
    x = np.random.default_rng(0).uniform(-1, 1, (1, *shape))
    ordinary, open_ = model_of(name, shape), model_of(name, shape, scale=0.1, positive=True)
    for position in np.ndindex(shape):
        later = order(ordinary) >= order(ordinary)[position]
        assert not gradient(lambda x: logits_of(ordinary, x), x, position)[later].any()
        assert not seen_by(open_, position)[later].any()


@pytest.mark.fault("M01")
@every
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(2, 5), st.integers(0, 2**32 - 1))
@settings(max_examples=12)
def test_a_change_changes_no_earlier_distribution(name, channels, height, width, levels, seed):
    """The same by values instead of gradients, through the whole likelihood path, in float32."""
    shape, rng = (channels, height, width), np.random.default_rng(seed)
    model = model_of(name, shape, levels, seed, np.float32)
    a = rng.integers(0, levels, (1, *shape))
    position = tuple(rng.integers(0, shape))
    b = a.copy()
    b[(0, *position)] = (b[(0, *position)] + 1) % levels
    one, other = (logits_of(model, model.network_input(x)).numpy()[0] for x in (a, b))
    not_later = order(model) <= order(model)[position]
    np.testing.assert_array_equal(one[:, not_later], other[:, not_later])


def reach(shape, rule):
    """(D, D) booleans: whether the value at y, x of color c depends on that at v, u of color d, by a rule."""
    sees = [rule(c, y, x, d, v, u) for c, y, x in np.ndindex(shape) for d, v, u in np.ndindex(shape)]
    return np.array(sees).reshape(math.prod(shape), -1)


def masked(shape, kernel, mask):
    def rule(c, y, x, d, v, u):
        before = (v, u) < (y, x) or ((v, u) == (y, x) and (d < c or (mask == "B" and d == c)))
        return abs(y - v) <= kernel[0] // 2 and abs(x - u) <= kernel[1] // 2 and before

    return reach(shape, rule)


@pytest.mark.fault("M02")
@pytest.mark.parametrize(
    ("name", "blocks"), [("pixelcnn", 0), ("pixelcnn", 1), ("pixelcnn", 3), ("pixelcnn, plain", 2)]
)
@pytest.mark.parametrize("shape", [(1, 8, 9), (3, 3, 4), (2, 5, 4)])
def test_pixelcnn_sees_what_its_kernels_let_through(name, blocks, shape):
    seen = masked(shape, (7, 7), "A")
    for _ in range(blocks):
        seen = seen | masked(shape, (3, 3), "B") @ seen
    seen = (masked(shape, (1, 1), "B") @ seen).reshape(*shape, *shape)
    model = model_of(name, shape, scale=0.1, positive=True, hidden=6, blocks=blocks)
    model.layers[0].bias.write()[...] = 20  # every unit is above 0: what can be seen has a gradient
    for position in np.ndindex(shape):
        np.testing.assert_array_equal(seen_by(model, position), seen[position])


def test_the_blind_spot():
    """Stacked masks can't see far to the right in the rows above: PixelCNN's known fault, mended by the gated one."""
    for blocks in (1, 2, 5):
        model = model_of("pixelcnn", (1, 4, 9), blocks=blocks)
        seen = gradient(model, np.zeros((1, 1, 4, 9)), (0, 1, 4))[0] != 0
        assert seen[0, 7]
        assert not seen[0, 8]  # one row up and four to the right: earlier, yet never seen
    assert seen_by(model_of("gated", (1, 4, 9), scale=0.1, positive=True, layers=2), (0, 1, 4))[0, 0, 8]


@pytest.mark.fault("M02")
@pytest.mark.parametrize(
    ("name", "layers"), [("made", 0), ("fvsbn", 0), ("nade", 0), ("diagonal", 1), ("diagonal", 2), ("pixelcnnpp", 0)]
)
@pytest.mark.parametrize("shape", [*SHAPES, (1, 3, 7)])
def test_all_past_values_are_seen(name, layers, shape):
    model = model_of(name, shape, scale=0.1, positive=True, **({"layers": layers} if layers else {}))
    for position in np.ndindex(shape):
        np.testing.assert_array_equal(seen_by(model, position), raster(shape) < raster(shape)[position])


@pytest.mark.fault("M02")
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 7, 8), (3, 5, 4), (1, 4, 9)])
def test_gated_pixelcnn_has_no_blind_spot(shape, layers):
    """All past values as near as its kernels reach, in every direction."""
    model = model_of("gated", shape, scale=0.1, positive=True, layers=layers)
    _, rows, columns = np.indices(shape)
    for channel, y, x in np.ndindex(shape):
        near = (y - rows <= layers + 2) & (np.abs(x - columns) <= layers + 2)
        past = raster(shape) < raster(shape)[channel, y, x]
        np.testing.assert_array_equal(seen_by(model, (channel, y, x)), near & past)


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
    model = model_of("row", shape, scale=0.1, positive=True, layers=layers)
    for position in np.ndindex(shape):
        np.testing.assert_array_equal(seen_by(model, position), seen[position])


def test_row_lstm_sees_a_triangle():
    """Its right edge: three pixels in the row above, by the 7x7 convolution, and one more with each row."""
    for layers in (1, 2):
        seen = seen_by(model_of("row", (1, 7, 12), scale=0.1, positive=True, layers=layers), (0, 6, 2))[0]
        assert [row.nonzero()[0].max() for row in seen] == [10, 9, 8, 7, 6, 5, 1]


@pytest.mark.parametrize(("hidden", "shape"), [(11, (3, 2, 2)), (40, (1, 3, 4)), (3, (1, 3, 4)), (1, (1, 1, 1))])
def test_made_without_its_direct_connections_sees_as_far_as_degrees_go(hidden, shape):
    model = model_of("made", shape, scale=0.1, positive=True, hidden=hidden)
    model.direct.weight.write()[...] = 0
    total = math.prod(shape)
    numbers = []
    for position in np.ndindex(shape):
        seen, place = seen_by(model, position), raster(shape)[position]
        assert not (seen & (raster(shape) >= place)).any()
        assert seen[raster(shape) < seen.sum()].all()  # the first so many
        numbers.append((place, seen.sum()))
    if hidden >= total - 1:
        assert all(place == number for place, number in numbers)
    else:
        assert len({number for _, number in numbers}) == hidden + 1  # each unit has a degree of its own


@pytest.mark.parametrize("shape", [(1, 5, 6), (3, 3, 4)])
def test_all_pixels_between_see_the_small_images_pixels_around_them(shape):
    """Below and to the right too: those that a kernel of 4 with a stride of 2, after one of 3, lets through."""
    model = model_of("multiscale", shape, scale=0.1, positive=True)
    for channel, y, x in np.ndindex(shape):
        if y % 2 or x % 2:
            seen = seen_by(model, (channel, y, x))[SMALL]
            rows, columns = (abs(np.arange(0, n, 2) - i) <= 2 for n, i in ((shape[1], y), (shape[2], x)))
            assert seen[:, rows][:, :, columns].all()


# --------------------------------------------------------------------------------------------------- distributions


@pytest.mark.fault("M03")
@every
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-6)])
@pytest.mark.parametrize(("shape", "levels"), SIZES)
def test_the_probabilities_of_all_images_sum_to_one(name, shape, levels, dtype, tolerance):
    images = all_images(shape, levels)
    for seed in range(2):
        model = model_of(name, shape, levels, seed, dtype)
        log_prob = model.log_prob(images, np.full(len(images), seed) if model.condition else None)
        assert log_prob.std() > 0.1  # not just near uniform
        assert abs(np.exp(log_prob).sum() - 1) < tolerance


@pytest.mark.fault("M03")
@pytest.mark.parametrize("rnn", ["row", "diagonal"])
def test_the_small_image_has_the_probability_of_all_images_that_it_is_part_of(rnn):
    images = all_images((1, 3, 3), 2)
    model = model_of("multiscale", (1, 3, 3), 2, rnn=rnn)
    p = np.exp(model.log_prob(images))
    for small in all_images((1, 2, 2), 2):
        whole = p[(images[SMALL] == small).all(axis=(1, 2, 3))].sum()
        assert whole == pytest.approx(math.exp(model.small.log_prob(small[None])[0]), rel=1e-12)


@pytest.mark.fault("M03")
@pytest.mark.parametrize(("shape", "levels"), SIZES)
def test_the_floor_is_a_distribution_too(shape, levels):
    train = np.random.default_rng(0).integers(0, levels, (3, *shape))
    nats = independent_nats(train, all_images(shape, levels), levels)
    assert abs(np.exp(-nats).sum() - 1) < 1e-12


def test_the_floor_counts_each_position_by_itself_and_knows_no_impossible_value():
    train = np.array([0, 2, 1, 2, 1, 2]).reshape(3, 1, 1, 2)  # left: 0 1 1, right: 2 2 2
    test = np.array([1, 2, 2, 0]).reshape(2, 1, 1, 2)
    expected = [-math.log(3 / 6 * 4 / 6), -math.log(1 / 6 * 1 / 6)]
    np.testing.assert_allclose(independent_nats(train, test, 3), expected, rtol=1e-14)


@pytest.mark.fault("M10")
@softmax
@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_output_layer_of_zeros_costs_log2_of_the_levels(name, levels, dtype):
    model = model_of(name, (3, 4, 3), levels, dtype=dtype)
    for p in LAST[name](model):
        p.write()[...] = 0
    images = np.random.default_rng(0).integers(0, levels, (5, 3, 4, 3))
    tolerance = 4 * float(np.finfo(dtype).eps)
    for nats in -model.log_prob(images, labels_of(model, 5)):
        assert model.bits_per_dim(nats) == pytest.approx(math.log2(levels), rel=tolerance)


@every
def test_likelihood_is_what_the_chain_rule_says(name):
    model = model_of(name, (3, 2, 2), 4)
    images, labels = np.random.default_rng(0).integers(0, 4, (5, 3, 2, 2)), labels_of(model, 5)
    logits = logits_of(model, model.network_input(images)).numpy()
    expected = np.zeros(5)
    for n, c, y, x in np.ndindex(images.shape):
        row = logits[n, :, c, y, x]
        expected[n] += row[images[n, c, y, x]] - math.log(np.exp(row).sum())
    np.testing.assert_allclose(model.log_prob(images, labels), expected, rtol=1e-12)
    np.testing.assert_allclose(-model.nats(images, labels).numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(model.log_prob(images, labels, batch_size=2), expected, rtol=1e-12)
    assert model.log_prob(images[:0], labels_of(model, 0)).shape == (0,)
    assert model.dimensions == 12
    assert model.bits_per_dim(12 * math.log(2)) == pytest.approx(1)


def test_each_class_has_a_distribution_of_its_own():
    model, images = model_of("gated, classes", (1, 2, 2), 2), all_images((1, 2, 2), 2)
    each = [model.log_prob(images, np.full(16, c)) for c in range(CLASSES)]
    for one, other in itertools.combinations(each, 2):
        assert np.abs(one - other).max() > 0.1
    labels = np.arange(16) % CLASSES
    np.testing.assert_allclose(model.log_prob(images, labels), np.array(each)[labels, np.arange(16)], rtol=1e-12)
    silent = model_of("gated, classes", (1, 2, 2), 2)
    for layer in silent.layers:
        for p in (*layer.given_vertical.parameters(), *layer.given_horizontal.parameters()):
            p.write()[...] = 0  # then it is the same model without classes
    without = new("gated", (1, 2, 2), 2).to(np.float64)
    without.load_state_dict({k: v for k, v in silent.state_dict().items() if "given" not in k})
    np.testing.assert_allclose(silent.log_prob(images, labels), without.log_prob(images), rtol=1e-12)


@given(st.integers(1, 3), st.integers(2, 9), st.integers(0, 2**32 - 1))
@settings(max_examples=8)
def test_pixelcnnpp_mixes_logistics_whose_means_move_with_the_colors_before(channels, levels, seed):
    """The mixture written out, with the intervals of the levels as differences of the logistic function."""
    model, rng = model_of("pixelcnnpp", (channels, 2, 2), levels, seed), np.random.default_rng(seed)
    images = model.sample(2, rng)  # such as are not too unlikely to be computed like this
    x = model.network_input(images)
    parameters = model(x).numpy().reshape(2, model.mixtures, -1, 2, 2)
    edges = np.append(np.arange(levels - 1) * 2 - (levels - 2), np.inf) / (levels - 1)  # above each level
    expected = np.zeros(2)
    for n, i, j in np.ndindex(2, 2, 2):
        p = 0.0
        weights = np.exp(parameters[n, :, 0, i, j])
        for k, weight in enumerate(weights / weights.sum()):
            own = parameters[n, k, 1:, i, j]
            for c in range(channels):
                factors = np.tanh(own[2 * channels + c * (c - 1) // 2 :][:c])
                mean = own[c] + factors @ x.numpy()[n, :c, i, j]
                with np.errstate(over="ignore"):
                    below = np.append(0, 1 / (1 + np.exp(-(edges - mean) / np.exp(own[channels + c].clip(-7, 7)))))
                weight *= np.diff(below)[images[n, c, i, j]]
            p += weight
        expected[n] += np.log(p)
    np.testing.assert_allclose(model.log_prob(images), expected, rtol=1e-9)


@given(st.integers(2, 256), st.sampled_from([np.uint8, np.int16, np.int64]))
def test_levels_are_spread_from_minus_one_to_one(levels, dtype):
    model = PixelCNN((1, 1, levels), levels, hidden=1, blocks=0, rng=np.random.default_rng(0))
    scaled = model.network_input(np.arange(levels).reshape(1, 1, 1, -1).astype(dtype if levels < 256 else np.int64))
    np.testing.assert_allclose(scaled.numpy().ravel(), np.linspace(-1, 1, levels), atol=1e-6)
    assert scaled.dtype == np.float32


# -------------------------------------------------------------------------------------------------------- sampling


def tempered(model, images, temperature):
    """p(x) if every conditional is raised to 1 / temperature and normalized, by the network's logits alone."""
    logits = model(model.network_input(images)).numpy() / temperature
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return np.exp(np.take_along_axis(log_p, images[:, None].astype(int), axis=1).sum(axis=(1, 2, 3, 4)))


@pytest.mark.parametrize("temperature", [1.0, 0.6, 2.0])
@pytest.mark.parametrize(("shape", "levels"), [((1, 2, 2), 2), ((3, 1, 1), 3), ((1, 1, 3), 3)])
def test_samples_come_as_often_as_their_probability_says(shape, levels, temperature):
    model, n = model_of("pixelcnn", shape, levels, scale=0.35, seed=1), 20_000
    images = all_images(shape, levels)
    expected = n * tempered(model, images, temperature)
    drawn = model.sample(n, np.random.default_rng(0), temperature)
    digits = drawn.reshape(n, -1) @ levels ** np.arange(math.prod(shape))[::-1]
    counts = np.bincount(digits, minlength=len(images))
    chi2, freedom = ((counts - expected) ** 2 / expected).sum(), len(images) - 1
    assert expected.max() > 2 * expected.min()  # a uniform sampler would not pass
    assert chi2 < freedom + 4 * math.sqrt(2 * freedom)


@every
@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("shape", [(1, 3, 4), (3, 2, 2)])
def test_each_value_is_drawn_from_its_logits_by_one_uniform_number_in_order(name, shape, temperature):
    """From the logits that the finished image has there: later values change nothing."""
    model = model_of(name, shape, 4)
    drawn = model.sample(6, np.random.default_rng(3), temperature)
    logits = logits_of(model, model.network_input(drawn)).numpy()
    uniform = np.random.default_rng(3).random((math.prod(shape), 6))
    for position in np.ndindex(shape):
        here, number = logits[:, :, *position], uniform[order(model)[position]]
        if temperature == 0:
            expected = here.argmax(axis=1)
        else:
            p = np.exp(here / temperature)
            cumulative = (p / p.sum(axis=1, keepdims=True)).cumsum(axis=1)
            expected = (cumulative <= number[:, None]).sum(axis=1)
        np.testing.assert_array_equal(drawn[:, *position], expected)
    assert drawn.dtype == np.uint8


@pytest.mark.fault("R08")
@every
def test_the_seed_decides_what_is_drawn(name):
    model = model_of(name, (1, 4, 4), 5, dtype=np.float32)
    one, same, other = (model.sample(8, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    assert model.sample(0, np.random.default_rng(1)).shape == (0, 1, 4, 4)
    completed = model.complete(np.ones((8, 1, 4, 4), np.uint8), 0, np.random.default_rng(1), 1.0, labels_of(model, 8))
    np.testing.assert_array_equal(completed, one)  # from no row; and the classes come in turn


@every
@given(st.integers(0, 4), st.integers(0, 2**32 - 1), st.sampled_from([np.uint8, np.int64]))
@settings(max_examples=6)
def test_completing_keeps_the_known_rows_and_the_argument(name, known, seed, dtype):
    model = model_of(name, (3, 4, 3), 4)
    images, labels = np.random.default_rng(seed).integers(0, 4, (3, 3, 4, 3), dtype), labels_of(model, 3)
    before = images.copy()
    done = model.complete(images, known, np.random.default_rng(seed), 1.0, labels)
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(done[:, :, :known], images[:, :, :known])
    assert done.dtype == np.uint8
    assert done.max() < 4
    # what stood below the known rows has no influence
    images[:, :, known:] = 0
    again = model.complete(images, known, np.random.default_rng(seed), 1.0, labels)
    np.testing.assert_array_equal(again, done)


LOGITS = hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(-1e4, 1e4))
BELOW_ONE = st.floats(0, 1, exclude_max=True)


@given(LOGITS, BELOW_ONE | st.sampled_from([0.0, math.nextafter(1, 0)]), st.floats(0.01, 100))
def test_a_drawn_level_is_where_the_cumulative_probability_passes_the_number(logits, uniform, temperature):
    levels = draw(logits, np.full(len(logits), uniform), temperature)
    for level, row in zip(levels, logits, strict=True):
        p = np.exp((row - row.max()) / temperature)
        p /= p.sum()
        assert p[level] > 0
        assert p[:level].sum() <= uniform + 1e-12
        assert p[: level + 1].sum() >= uniform - 1e-12


@given(LOGITS, BELOW_ONE, st.sampled_from([0.0, 5e-324, 1e-300]))
def test_without_temperature_the_likeliest_level_is_drawn(logits, uniform, temperature):
    logits = np.where(abs(logits) < 1e-200, 0, logits)  # differences as small as the temperature are no certainty
    levels = draw(logits, np.full(len(logits), uniform), temperature)
    np.testing.assert_array_equal(np.take_along_axis(logits, levels[:, None], 1)[:, 0], logits.max(axis=1))


# -------------------------------------------------------------------------------------------------------- learning


@pytest.mark.fault("M09")
@every
@pytest.mark.parametrize("color", [False, True])
def test_one_batch_can_be_overfitted(name, color):
    if color:
        images, levels = np.random.default_rng(0).integers(0, 4, (6, 3, 4, 4)), 4
    else:
        images, levels = load("digits")[0].images[:8], 17
    options, steps, lr = OVERFIT.get(name, OVERFIT[""])
    model = new(name, images.shape[1:], levels, **options)
    optimizer, batch, rng = optim.Adam(model.parameters(), lr=lr), Batch(images), np.random.default_rng(0)
    if model.condition:
        batch = Batch(images, labels_of(model, len(images)))
    # all that is left to know is which image it is: log2(N) bits for the whole image, or which one of its class
    each = len(images) if not model.condition else len(images) / CLASSES
    floor = math.log2(each) / model.dimensions
    least, most = (0 if model.condition else floor), floor + (0.4 if name == "pixelcnnpp" else 0.1)  # bits/dim
    first = last = model.family.validation(model, batch, rng)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * min(1, 2 - 2 * step / steps)
        optimizer.zero_grad()
        model.loss(batch, rng)["nats"].backward()
        optimizer.step()
        if step % 20 == 19 and (last := model.family.validation(model, batch, rng)) < most:
            break
    assert first > 0.7 * math.log2(levels)
    assert least <= last < most


@every
@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 4, 4)])
def test_every_parameter_learns(name, shape):
    model = model_of(name, shape, 4)
    images = np.random.default_rng(0).integers(0, 4, (16, *shape))
    model.nats(images, labels_of(model, 16)).mean().backward()
    for parameter, p in model.named_parameters():
        assert np.abs(p.grad.numpy()).max() > 0, parameter


def test_pixelcnnpp_drops_features_in_the_loss_and_nowhere_else():
    model = model_of("pixelcnnpp", (1, 4, 4), 5, dropout=0.5)
    images = np.random.default_rng(0).integers(0, 5, (8, 1, 4, 4))
    losses = [model.loss(Batch(images), np.random.default_rng(seed))["nats"].item() for seed in (0, 0, 1)]
    plain = -model.log_prob(images).mean()
    assert losses[0] == losses[1] != losses[2]
    assert plain not in losses
    assert -model.log_prob(images).mean() == plain
    kept = model_of("pixelcnnpp", (1, 4, 4), 5)
    assert kept.loss(Batch(images), np.random.default_rng(0))["nats"].item() == pytest.approx(plain, rel=1e-12)


@pytest.mark.parametrize(
    "arguments",
    ["made", "nade", "pixelcnn --no-residual", "pixelrnn --rnn row", "pixelrnn --rnn diagonal", "gated",
     "gated --classes 10", "multiscale", "pixelcnnpp"],
)  # fmt: skip
def test_one_command_trains_it(arguments, tmp_path, capsys):
    folder = tmp_path / "run"
    small = ["--hidden", "4", "--levels", "2", "--minutes", "0.001", "--out", str(folder)]
    assert cli.main(["train", *arguments.split(), *small]) == 0
    assert cli.main(["sample", str(folder), "-n", "4"]) == 0
    assert "bits/dim" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------------- names and errors


def test_models_by_name():
    assert model_class("pixelcnn") is PixelCNN
    for name in MODELS:
        assert issubclass(model_class(name), nn.Module)
        assert model_class(name).__doc__
    with pytest.raises(ValueError, match=r"no model is named 'pixelrn'; there are .*pixelcnn"):
        model_class("pixelrn")


def small():
    return new("pixelcnn")


def told(*labels):
    return new("gated, classes").nats(np.zeros((2, 1, 2, 2), int), np.array(labels))


GENERATOR = np.random.default_rng(0)
ERRORS = {
    "one level": (lambda: new("pixelcnn", levels=1), "levels must be from 2 to 256, got 1"),
    "more levels than uint8 holds": (lambda: new("pixelcnn", levels=257), "levels must be from 2 to 256, got 257"),
    "two axes": (lambda: new("pixelcnn", (8, 8)), r"image_shape must be \(channels, height, width\), got \(8, 8\)"),
    "no rows": (lambda: new("pixelcnn", (1, 0, 8)), r"image_shape must be .*got \(1, 0, 8\)"),
    "hidden 0": (lambda: new("pixelcnn", hidden=0), "hidden must be a positive multiple of the images' channels, 1"),
    "hidden 4, RGB": (lambda: new("pixelcnn", (3, 2, 2), hidden=4), "multiple of the images' channels, 3, got 4"),
    "blocks -1": (lambda: new("pixelcnn", blocks=-1), "blocks must not be negative, got -1"),
    "made, hidden -1": (lambda: new("made", hidden=-1), "hidden must not be negative, got -1"),
    "nade, hidden 0": (lambda: new("nade", hidden=0), "hidden must be at least 1, got 0"),
    "rnn": (lambda: new("row", rnn="rows"), "rnn must be one of row, diagonal, got 'rows'"),
    "multiscale, rnn": (lambda: new("multiscale", rnn="rows"), "rnn must be one of row, diagonal, got 'rows'"),
    "pixelrnn, hidden 4, RGB": (lambda: new("row", (3, 2, 2), hidden=4), "multiple of the images' channels, 3, got 4"),
    "pixelrnn, hidden 0": (lambda: new("diagonal", hidden=0), "multiple of the images' channels, 1, got 0"),
    "pixelrnn, layers -1": (lambda: new("diagonal", layers=-1), "layers must not be negative, got -1"),
    "gated, hidden 4, RGB": (lambda: new("gated", (3, 2, 2), hidden=4), "multiple of the images' channels, 3, got 4"),
    "gated, hidden 0": (lambda: new("gated", hidden=0), "multiple of the images' channels, 1, got 0"),
    "gated, no layers": (lambda: new("gated", layers=0), "layers must be at least 1, got 0"),
    "gated, classes -1": (lambda: new("gated", classes=-1), "classes must not be negative, got -1"),
    "++, no scales": (lambda: new("pixelcnnpp", scales=0), "scales must be at least 1, got 0"),
    "++, too many scales": (
        lambda: new("pixelcnnpp", (1, 8, 5), scales=5), r"scales must be at most 4 for images of \(8, 5\)"),
    "++, no mixtures": (lambda: new("pixelcnnpp", mixtures=0), "mixtures must be at least 1, got 0"),
    "++, dropout": (lambda: new("pixelcnnpp", dropout=1.0), r"dropout must be from 0 to below 1, got 1\.0"),
    "a mask without an order": (
        lambda: nn.MaskedConv2d(3, 3, 3, "C", rng=GENERATOR), "mask must be 'A' or 'B', got 'C'"),
    "a mask that colors don't fit": (
        lambda: nn.MaskedConv2d(4, 6, 3, "A", 3, rng=GENERATOR), "channels must divide the 4 input and 6 output"),
    "a kernel without a middle": (
        lambda: nn.MaskedConv2d(3, 3, 2, "A", rng=GENERATOR), "sides must be odd, got 2 x 2"),
    "three axes": (lambda: small().nats(np.zeros((1, 2, 2), int)), r"images must be \(N, 1, 2, 2\), got \(1, 2, 2\)"),
    "floats": (lambda: small().nats(np.zeros((1, 1, 2, 2))), "images must be integers from 0 to 2, got float64"),
    "negative": (lambda: small().nats(np.full((1, 1, 2, 2), -1)), "integers from 0 to 2, got int64 from -1 to -1"),
    "temperature": (lambda: small().sample(1, GENERATOR, -1.0), r"temperature must not be negative, got -1\.0"),
    "temperature nan": (lambda: small().sample(1, GENERATOR, math.nan), "temperature must not be negative, got nan"),
    "known": (lambda: small().complete(np.zeros((1, 1, 2, 2), int), 3, GENERATOR), "known must be from 0 to 2 rows"),
    "completing what doesn't fit": (
        lambda: small().complete(np.full((1, 1, 2, 2), 300), 2, GENERATOR),
        "integers from 0 to 2, got int64 from 300 to 300"),
    "multiscale, known": (
        lambda: new("multiscale").complete(np.zeros((1, 1, 2, 2), int), 3, GENERATOR), "known must be from 0 to 2"),
    "multiscale, temperature": (lambda: new("multiscale").sample(1, GENERATOR, -1.0), "must not be negative"),
    "an unknown class": (lambda: told(0, 3), "labels must be from 0 to 2 for GatedPixelCNN of 3 classes, got 0 to 3"),
    "a negative class": (lambda: told(-1, 2), "labels must be from 0 to 2 for .*, got -1 to 2"),
    "too few labels": (lambda: told(0), r"labels must be 2 integers, one for each image, got int64 \(1,\)"),
    "labels that aren't integers": (lambda: told(0.0, 1.0), "labels must be 2 integers.*got float64"),
    "no labels": (
        lambda: new("gated, classes").nats(np.zeros((2, 1, 2, 2), int)), "of 3 classes must be told the labels"),
    "unknown classes to draw": (
        lambda: new("gated, classes").sample(1, GENERATOR, labels=np.array([7])), "from 0 to 2 for .*, got 7 to 7"),
}  # fmt: skip


@every
def test_what_doesnt_fit_is_refused(name):
    for images, text in (
        (np.zeros((1, 1, 2, 3), int), r"images must be \(N, 1, 2, 2\), got \(1, 1, 2, 3\)"),
        (np.full((1, 1, 2, 2), 3), "images must be integers from 0 to 2, got int64 from 3 to 3"),
    ):
        model = new(name)
        with pytest.raises(ValueError, match=text):
            model.nats(images, labels_of(model, 1))
        with pytest.raises(ValueError, match=text):
            model.complete(images, 1, GENERATOR, 1.0, labels_of(model, 1))
    if not model.condition:
        for function in (model.nats, model.log_prob, lambda images, labels: model.sample(1, GENERATOR, labels=labels)):
            with pytest.raises(ValueError, match=r"knows no classes: labels must be None, got 1 of them"):
                function(np.zeros((1, 1, 2, 2), int), np.zeros(1, int))


@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_one_clear_sentence(case):
    function, text = ERRORS[case]
    with pytest.raises(ValueError, match=text) as caught:
        function()
    assert "\n" not in str(caught.value)


def test_a_model_without_forward_says_so():
    with pytest.raises(NotImplementedError, match="Bare doesn't define forward"):
        type("Bare", (Autoregressive,), {})((1, 1, 1), 2)(tinygen.tensor(0.0))
