"""Models: what they may see, that they are distributions, that sampling draws from them, that they learn."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygen
from tinygen import nn, optim
from tinygen.data import load
from tinygen.models import MODELS, model_class
from tinygen.models.autoregressive import Autoregressive, draw
from tinygen.models.independent import independent_nats
from tinygen.models.pixelcnn import PixelCNN

SIZES = [((1, 2, 2), 2), ((1, 1, 2), 3), ((1, 2, 1), 3), ((3, 1, 1), 3), ((2, 1, 2), 3), ((1, 3, 3), 2)]
GREY = st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(2, 5)


def pixelcnn(shape, levels, hidden=6, blocks=1, seed=0, dtype=np.float64, scale=0.5, positive=False):
    """A PixelCNN with weights so large that a value that is seen changes much; positive ones pass every ReLU."""
    generator = np.random.default_rng(seed)
    model = PixelCNN(shape, levels, hidden=hidden, blocks=blocks, generator=generator).to(dtype)
    for p in model.parameters():
        values = generator.normal(0, scale, p.shape)
        p.write()[...] = np.abs(values) if positive else values
    return model


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


def order(shape):
    """The number of each value in the order of the chain rule: pixels in raster order, within a pixel colours."""
    channels, height, width = shape
    return np.arange(math.prod(shape)).reshape(height, width, channels).transpose(2, 0, 1)


# ------------------------------------------------------------------------------------------------- what may be seen


@pytest.mark.fault("M01")
@pytest.mark.parametrize("kernel", [1, 3, (5, 3)])
@pytest.mark.parametrize("groups", [1, 2, 3, 4])
@pytest.mark.parametrize("mask", ["A", "B"])
def test_masked_convolution_sees_what_its_mask_says(mask, groups, kernel):
    conv = nn.MaskedConv2d(2 * groups, 3 * groups, kernel, mask, groups, generator=np.random.default_rng(0))
    conv.to(np.float64)
    kh, kw = conv.weight.shape[2:]
    x = np.random.default_rng(1).normal(size=(1, 2 * groups, 6, 5))
    row, column = 3, 2
    for o in range(3 * groups):
        seen = gradient(conv, x, (o, row, column)) != 0
        for i, r, c in np.ndindex(seen.shape):
            near = abs(r - row) <= kh // 2 and abs(c - column) <= kw // 2
            mine, its = o // 3, i // 2  # colour groups
            same = its <= mine if mask == "B" else its < mine
            assert seen[i, r, c] == (near and ((r, c) < (row, column) or ((r, c) == (row, column) and same)))


@pytest.mark.fault("M01")
def test_weights_behind_the_mask_are_not_used_whatever_they_are():
    conv = nn.MaskedConv2d(3, 3, 5, "A", 3, generator=np.random.default_rng(0))
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


def reachable(shape, blocks):
    """seen[position of the output][position of the input], by following the layers' masks over the image's pixels."""

    def layer(kernel, mask):
        near = np.zeros((*shape, *shape), bool)
        for c, y, x in np.ndindex(shape):
            for d, v, u in np.ndindex(shape):
                inside = abs(y - v) <= kernel // 2 and abs(x - u) <= kernel // 2
                before = (v, u) < (y, x) or ((v, u) == (y, x) and (d < c or (mask == "B" and d == c)))
                near[c, y, x, d, v, u] = inside and before
        return near.reshape(math.prod(shape), -1)

    seen = layer(7, "A")
    for _ in range(blocks):
        seen = layer(3, "B") @ layer(1, "B") @ seen
    return (layer(1, "B") @ seen).reshape(*shape, *shape)


@pytest.mark.fault("M01")
@pytest.mark.parametrize(
    ("shape", "blocks"), [((1, 8, 9), 0), ((1, 8, 9), 1), ((1, 6, 6), 3), ((3, 3, 4), 1), ((2, 5, 4), 2)]
)
def test_pixelcnn_sees_earlier_values_and_never_its_own_or_a_later_one(shape, blocks):
    x = np.random.default_rng(0).uniform(-1, 1, (1, *shape))
    ordinary = pixelcnn(shape, 3, blocks=blocks)
    open_ = pixelcnn(shape, 3, blocks=blocks, scale=0.1, positive=True)
    open_.layers[0].bias.write()[...] = 20  # every unit is above 0: what can be seen has a gradient
    expected = reachable(shape, blocks)
    for position in np.ndindex(shape):
        earlier = order(shape) < order(shape)[position]
        assert not gradient(ordinary, x, position)[~earlier].any()
        seen = gradient(open_, x, position) != 0
        np.testing.assert_array_equal(seen, expected[position])
        assert not seen[~earlier].any()


def test_the_blind_spot():
    """Stacked masks can't see far to the right in the rows above: PixelCNN's known fault, mended by the gated one."""
    for blocks in (1, 2, 5):
        model = pixelcnn((1, 4, 9), 2, blocks=blocks)
        seen = gradient(model, np.zeros((1, 1, 4, 9)), (0, 1, 4))[0] != 0
        assert seen[0, 7]
        assert not seen[0, 8]  # one row up and four to the right: earlier, yet never seen


@settings(max_examples=30)
@given(*GREY, st.integers(0, 2**32 - 1))
def test_a_change_changes_no_earlier_distribution(channels, height, width, levels, seed):
    """The same by values instead of gradients, through the whole likelihood path, in float32."""
    shape = (channels, height, width)
    model = pixelcnn(shape, levels, seed=seed, dtype=np.float32)
    generator = np.random.default_rng(seed)
    a = generator.integers(0, levels, (1, *shape))
    position = tuple(generator.integers(0, shape))
    b = a.copy()
    b[(0, *position)] = (b[(0, *position)] + 1) % levels
    one, other = (model(model.scaled(x)).numpy()[0] for x in (a, b))
    not_later = order(shape) <= order(shape)[position]
    np.testing.assert_array_equal(one[:, not_later], other[:, not_later])


# --------------------------------------------------------------------------------------------------- distributions


@pytest.mark.fault("M03")
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-6)])
@pytest.mark.parametrize(("shape", "levels"), SIZES)
def test_the_probabilities_of_all_images_sum_to_one(shape, levels, dtype, tolerance):
    for seed in range(3):
        log_prob = pixelcnn(shape, levels, seed=seed, dtype=dtype).log_prob(all_images(shape, levels))
        assert log_prob.std() > 0.1  # not just near uniform
        assert abs(np.exp(log_prob).sum() - 1) < tolerance


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
@pytest.mark.parametrize("levels", [2, 3, 17, 256])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_output_layer_of_zeros_costs_log2_of_the_levels(levels, dtype):
    model = pixelcnn((3, 4, 3), levels, dtype=dtype)
    last = list(model.layers)[-1]
    for p in (last.weight, last.bias):
        p.write()[...] = 0
    images = np.random.default_rng(0).integers(0, levels, (5, 3, 4, 3))
    tolerance = 4 * float(np.finfo(dtype).eps)
    for nats in -model.log_prob(images):
        assert model.bits_per_dim(nats) == pytest.approx(math.log2(levels), rel=tolerance)


def test_likelihood_is_what_the_chain_rule_says():
    model = pixelcnn((3, 2, 2), 4)
    images = np.random.default_rng(0).integers(0, 4, (5, 3, 2, 2))
    logits = model(model.scaled(images)).numpy()
    expected = np.zeros(5)
    for n, c, y, x in np.ndindex(images.shape):
        row = logits[n, :, c, y, x]
        expected[n] += row[images[n, c, y, x]] - math.log(np.exp(row).sum())
    np.testing.assert_allclose(model.log_prob(images), expected, rtol=1e-12)
    np.testing.assert_allclose(-model.nats(images).numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(model.log_prob(images, batch_size=2), expected, rtol=1e-12)
    assert model.log_prob(images[:0]).shape == (0,)
    assert model.dimensions == 12
    assert model.bits_per_dim(12 * math.log(2)) == pytest.approx(1)


@given(st.integers(2, 256), st.sampled_from([np.uint8, np.int16, np.int64]))
def test_levels_are_spread_from_minus_one_to_one(levels, dtype):
    model = PixelCNN((1, 1, levels), levels, hidden=1, blocks=0, generator=np.random.default_rng(0))
    scaled = model.scaled(np.arange(levels).reshape(1, 1, 1, -1).astype(dtype if levels < 256 else np.int64))
    np.testing.assert_allclose(scaled.numpy().ravel(), np.linspace(-1, 1, levels), atol=1e-6)
    assert scaled.dtype == np.float32


# -------------------------------------------------------------------------------------------------------- sampling


def tempered(model, images, temperature):
    """p(x) if every conditional is raised to 1 / temperature and normalized, by the network's logits alone."""
    logits = model(model.scaled(images)).numpy() / temperature
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return np.exp(np.take_along_axis(log_p, images[:, None].astype(int), axis=1).sum(axis=(1, 2, 3, 4)))


@pytest.mark.parametrize("temperature", [1.0, 0.6, 2.0])
@pytest.mark.parametrize(("shape", "levels"), [((1, 2, 2), 2), ((3, 1, 1), 3), ((1, 1, 3), 3)])
def test_samples_come_as_often_as_their_probability_says(shape, levels, temperature):
    model, n = pixelcnn(shape, levels, scale=0.35, seed=1), 20_000
    images = all_images(shape, levels)
    expected = n * tempered(model, images, temperature)
    drawn = model.sample(n, np.random.default_rng(0), temperature)
    digits = drawn.reshape(n, -1) @ levels ** np.arange(math.prod(shape))[::-1]
    counts = np.bincount(digits, minlength=len(images))
    chi2, freedom = ((counts - expected) ** 2 / expected).sum(), len(images) - 1
    assert expected.max() > 2 * expected.min()  # a uniform sampler would not pass
    assert chi2 < freedom + 4 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("shape", [(1, 3, 4), (3, 2, 2)])
def test_sampling_takes_one_uniform_number_for_each_image_and_position_in_order(shape, temperature):
    model = pixelcnn(shape, 4)
    drawn = model.sample(5, np.random.default_rng(3), temperature)
    uniform = np.random.default_rng(3)
    x = np.zeros((5, *shape), np.uint8)
    for y, u, c in np.ndindex(shape[1], shape[2], shape[0]):
        logits = model(model.scaled(x)).numpy()[:, :, c, y, u]
        if temperature == 0:
            x[:, c, y, u] = [row.argmax() for row in logits]
            continue
        p = np.exp(logits / temperature)
        p /= p.sum(axis=1, keepdims=True)
        for image, number in enumerate(uniform.random(5)):
            x[image, c, y, u] = np.searchsorted(np.cumsum(p[image]), number, side="right")
    np.testing.assert_array_equal(drawn, x)
    assert drawn.dtype == np.uint8


@pytest.mark.fault("R08")
def test_the_seed_decides_what_is_drawn():
    model = pixelcnn((1, 4, 4), 5, dtype=np.float32)
    one, same, other = (model.sample(8, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    assert model.sample(0, np.random.default_rng(1)).shape == (0, 1, 4, 4)


@given(st.integers(0, 4), st.integers(0, 2**32 - 1), st.sampled_from([np.uint8, np.int64]))
@settings(max_examples=20)
def test_completing_keeps_the_known_rows_and_the_argument(known, seed, dtype):
    model = pixelcnn((3, 4, 3), 4, hidden=3)
    images = np.random.default_rng(seed).integers(0, 4, (3, 3, 4, 3), dtype)
    before = images.copy()
    done = model.complete(images, known, np.random.default_rng(seed))
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(done[:, :, :known], images[:, :, :known])
    assert done.dtype == np.uint8
    assert done.max() < 4
    # what stood below the known rows has no influence
    images[:, :, known:] = 0
    np.testing.assert_array_equal(model.complete(images, known, np.random.default_rng(seed)), done)


def test_an_image_completed_from_no_row_is_a_sample():
    model = pixelcnn((1, 3, 3), 3)
    completed = model.complete(np.ones((4, 1, 3, 3), np.uint8), 0, np.random.default_rng(0))
    np.testing.assert_array_equal(completed, model.sample(4, np.random.default_rng(0)))


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
    levels = draw(logits, np.full(len(logits), uniform), temperature)
    np.testing.assert_array_equal(np.take_along_axis(logits, levels[:, None], 1)[:, 0], logits.max(axis=1))


# -------------------------------------------------------------------------------------------------------- learning


@pytest.mark.fault("M09")
@pytest.mark.parametrize("colour", [False, True])
def test_one_batch_can_be_overfitted(colour):
    if colour:
        images, levels = np.random.default_rng(0).integers(0, 4, (6, 3, 4, 4)), 4
    else:
        images, levels = load("digits")[0].images[:8], 17
    model = PixelCNN(images.shape[1:], levels, hidden=24, blocks=2, generator=np.random.default_rng(0))
    optimizer = optim.Adam(model.parameters(), lr=5e-3)
    first = model.bits_per_dim(-model.log_prob(images).mean())
    for _ in range(150):
        optimizer.zero_grad()
        model.nats(images).mean().backward()
        optimizer.step()
    # all that is left to know is which image it is: log2(N) bits for the whole image
    floor = math.log2(len(images)) / model.dimensions
    last = model.bits_per_dim(-model.log_prob(images).mean())
    assert first > 0.8 * math.log2(levels)
    assert floor <= last < floor + 0.1


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 4, 4)])
def test_every_parameter_learns(shape):
    model = pixelcnn(shape, 4, blocks=2)
    images = np.random.default_rng(0).integers(0, 4, (16, *shape))
    model.nats(images).mean().backward()
    for name, p in model.named_parameters():
        assert np.abs(p.grad.numpy()).max() > 0, name


# ----------------------------------------------------------------------------------------------------------- names


def test_models_by_name():
    assert model_class("pixelcnn") is PixelCNN
    for name in MODELS:
        assert issubclass(model_class(name), nn.Module)
        assert model_class(name).__doc__
    with pytest.raises(ValueError, match=r"no model is named 'pixelrn'; there are .*pixelcnn"):
        model_class("pixelrn")


def small():
    return pixelcnn((1, 2, 2), 3)


def new(shape=(1, 2, 2), levels=3, **options):
    return PixelCNN(shape, levels, generator=np.random.default_rng(0), **options)


GENERATOR = np.random.default_rng(0)
ERRORS = {
    "one level": (lambda: new(levels=1), "levels must be from 2 to 256, got 1"),
    "more levels than uint8 holds": (lambda: new(levels=257), "levels must be from 2 to 256, got 257"),
    "two axes": (lambda: new((8, 8)), r"image_shape must be \(channels, height, width\), got \(8, 8\)"),
    "no rows": (lambda: new((1, 0, 8)), r"image_shape must be .*got \(1, 0, 8\)"),
    "hidden 0": (lambda: new(hidden=0), "hidden must be a positive multiple of the 1 image channels, got 0"),
    "hidden 4, RGB": (lambda: new((3, 2, 2), hidden=4), "multiple of the 3 image channels, got 4"),
    "blocks -1": (lambda: new(blocks=-1), "blocks must not be negative, got -1"),
    "three axes": (lambda: small().nats(np.zeros((1, 2, 2), int)), r"images must be \(N, 1, 2, 2\), got \(1, 2, 2\)"),
    "size": (lambda: small().nats(np.zeros((5, 1, 2, 3), int)), r"images must be \(N, 1, 2, 2\), got \(5, 1, 2, 3\)"),
    "floats": (lambda: small().nats(np.zeros((1, 1, 2, 2))), "images must be integers from 0 to 2, got float64"),
    "too large": (lambda: small().nats(np.full((1, 1, 2, 2), 3)), "integers from 0 to 2, got int64 from 3 to 3"),
    "negative": (lambda: small().nats(np.full((1, 1, 2, 2), -1)), "integers from 0 to 2, got int64 from -1 to -1"),
    "temperature": (lambda: small().sample(1, GENERATOR, -1.0), r"temperature must not be negative, got -1\.0"),
    "temperature nan": (lambda: small().sample(1, GENERATOR, math.nan), "temperature must not be negative, got nan"),
    "known": (lambda: small().complete(np.zeros((1, 1, 2, 2), int), 3, GENERATOR), "known must be from 0 to 2 rows"),
    "completing what doesn't fit": (
        lambda: small().complete(np.full((1, 1, 2, 2), 300), 2, GENERATOR),
        "integers from 0 to 2, got int64 from 300 to 300",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_one_clear_sentence(case):
    function, text = ERRORS[case]
    with pytest.raises(ValueError, match=text) as caught:
        function()
    assert "\n" not in str(caught.value)


def test_a_model_without_forward_says_so():
    with pytest.raises(NotImplementedError, match="Bare doesn't define forward"):
        type("Bare", (Autoregressive,), {})((1, 1, 1), 2)(tinygen.tensor(0.0))
