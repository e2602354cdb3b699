"""Cached sampling draws what the plain loop draws, for every model, and computes nothing twice."""

from __future__ import annotations

import math
import os
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models import small
from tests.models.small import AUTOREGRESSIVE, CLASSES
from tinygen import Tensor, kernels, no_grad, ops, reference
from tinygen.models.autoregressive.base import Autoregressive
from tinygen.nn import functional as F
from tinygen.sampling import sampler
from tinygen.sampling.program import program
from tinygen.sampling.sampler import Sampler
from tinygen.sampling.trace import NotTraceable, Trace

FULL = os.environ.get("TINYGEN_FULL") == "1"
SHAPES = [((1, 6, 7), 3), ((3, 4, 5), 4), ((2, 1, 6), 2), ((1, 9, 1), 2), ((1, 1, 1), 5), ((1, 3, 3), 256)]
every = pytest.mark.parametrize("name", AUTOREGRESSIVE)
shapes = pytest.mark.parametrize(("shape", "levels"), SHAPES)


def new(name, shape, levels, dtype=np.float64, **options):
    """A model with weights so large that everything that is seen matters."""
    model = small.new(name, shape, levels, **options).to(dtype)
    rng = np.random.default_rng(1)
    for p in model.parameters():
        p.write()[...] = rng.normal(0, 0.4, p.shape)
    return model


def some(model, n, seed):
    """Images, and labels if the model takes them."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, model.levels, (n, *model.image_shape)).astype(np.uint8)
    return images, rng.integers(0, CLASSES, n) if model.condition else None


def naive(model, images, known, seed, temperature=1.0, labels=None):
    """A pass of the whole network for every value."""
    channels, height, width = model.image_shape
    given = model.order() < known * width * channels
    uniform = np.random.default_rng(seed).random((channels * (height - known) * width, len(images)))
    with no_grad():
        return model.complete_naively(images, given, uniform, temperature, labels)


@pytest.mark.fault("M04")
@every
@given(
    st.sampled_from(SHAPES), st.integers(0, 9), st.sampled_from([0.0, 0.5, 1.0]), st.data(), st.integers(0, 2**32 - 1)
)
@settings(max_examples=18 if FULL else 6)
def test_the_images_are_those_of_the_plain_loop(name, size, n, temperature, data, seed):
    """From the same random numbers, by the kernel and by its definition."""
    shape, levels = size
    model, known = new(name, shape, levels), data.draw(st.integers(0, shape[1]))
    images, labels = some(model, n, seed)
    expected = naive(model, images, known, seed, temperature, labels)
    drawn = model.complete(images, known, np.random.default_rng(seed), temperature, labels)
    np.testing.assert_array_equal(drawn, expected)
    with reference():
        by_definition = model.complete(images, known, np.random.default_rng(seed), temperature, labels)
    np.testing.assert_array_equal(by_definition, expected)


@pytest.mark.fault("M04")
@every
@pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_the_logits_are_the_networks(name, dtype, bound):
    """On images as they are drawn: later values are still others than in the end."""
    model = new(name, (3, 4, 5), 4, dtype)
    final, labels = some(model, 3, 0)
    x, _ = some(model, 3, 1)
    with no_grad():
        sampler = Sampler(model, labels)
        state, values = sampler.state(3), np.zeros((3, 60), np.uint8)
        for value, place in enumerate(model.order()):
            row, column, channel = np.unravel_index(place, (4, 5, 3))
            sampler.run(state, values, value, value + 1, 60, np.zeros((60, 3)), 1.0)
            expected = model.logits(model.network_input(x), labels).numpy()[:, :, channel, row, column]
            got = sampler.logits(state, values, value)
            assert got.dtype == dtype
            np.testing.assert_allclose(got, expected, rtol=bound, atol=bound * np.abs(expected).max())
            values[:, value] = x[:, channel, row, column] = final[:, channel, row, column]


@every
def test_an_image_is_drawn_alike_in_any_batch_by_any_number_of_threads(name, monkeypatch):
    """Bit for bit: also float32, whose last bits would show another order of additions in the next levels drawn."""
    model = new(name, (1, 6, 7), 256, np.float32)
    images, labels = some(model, 70, 0)
    uniform = np.random.default_rng(0).random((42, 70))
    draw = lambda which: Sampler(model, None if labels is None else labels[which]).complete(  # noqa: E731
        images[which], np.zeros(42, bool), np.ascontiguousarray(uniform[:, which]), 1.0
    )
    kernels.set_num_threads(1)
    together = draw(slice(None))
    for n in (2, 3, 7):
        kernels.set_num_threads(n)
        np.testing.assert_array_equal(draw(slice(None)), together)
    for which in (slice(0, 1), slice(5, 14), slice(30, 69)):
        np.testing.assert_array_equal(draw(which), together[which])
    monkeypatch.setattr(sampler, "_CHUNK", 1)  # a call of the kernel for every value
    np.testing.assert_array_equal(draw(slice(None)), together)


@every
def test_the_sampler_follows_the_weights_and_leaves_the_model_alone(name):
    model = new(name, (3, 3, 3), 4)
    names, before = [type(m) for m in model.modules()], model.state_dict()
    images, labels = some(model, 4, 0)
    first = model.sample(4, np.random.default_rng(0), labels=labels)
    assert [type(m) for m in model.modules()] == names
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[key])
    for p in model.parameters():
        p.write()[...] *= -1
    second = model.sample(4, np.random.default_rng(0), labels=labels)
    np.testing.assert_array_equal(second, naive(model, images, 0, 0, labels=labels))
    assert (first != second).any()


def test_no_weight_behind_a_mask_is_used():
    model = new("pixelcnn", (3, 3, 3), 4)
    expected = model.sample(2, np.random.default_rng(0))
    first = model.layers[0].weight.write()
    first[:, :, 3, 4:] = first[:, :, 4:] = np.nan
    first[:, :, 3, 3][np.triu(np.ones((3, 3), bool)).repeat(4, axis=0)] = np.nan  # a color itself and later ones
    np.testing.assert_array_equal(model.sample(2, np.random.default_rng(0)), expected)


def work(model):
    """Multiplications of the program's steps."""
    s = program(Trace(model))
    depth = np.array([s.runs[first : first + count, 1].sum() for _, _, first, count, *_ in s.layers.tolist()])
    return int((depth * s.layers[:, 1])[s.steps[:, 0]].sum())


def test_an_image_takes_the_multiplications_of_one_forward_pass():
    h, height, width = 6, 5, 7
    expected = height * width * (24 * 2 * h + 2 * (2 * h * h + 5 * h * h + 2 * h * h) + 2 * h * (2 * h + 3))
    assert work(new("pixelcnn", (1, height, width), 3, blocks=2)) == expected
    values = 42
    assert values * (values - 1) // 2 <= work(new("fvsbn", (1, 6, 7), 2)) <= values * (values + 16) // 2
    assert work(new("nade", (1, 6, 7), 2, hidden=20)) == 20 * (41 + 42)


@pytest.mark.parametrize("name", ["pixelcnn", "gated", "row", "diagonal", "multiscale, diagonal", "pixelcnnpp"])
def test_wide_layers_take_no_more_steps_than_narrow_ones(name):
    steps = {len(program(Trace(small.new(name, (1, 6, 5), 3, hidden=n))).steps) for n in (2, 7, 20)}
    assert len(steps) == 1


def test_only_what_later_pixels_see_is_kept():
    """The image, and in each block what its 3x3 convolution sees; the rest has room for one pixel."""
    h, blocks, height, width = 6, 2, 28, 28
    kept = (height + 3) * (width + 6) + blocks * h * (height + 1) * (width + 2)
    assert kept <= program(Trace(new("pixelcnn", (1, height, width), 3, blocks=2))).size <= kept + 1000


class Own(Autoregressive):
    """A network of any function."""

    def __init__(self, function, shape=(1, 3, 4), levels=3):
        super().__init__(shape, levels)
        self.function = function
        self.dtype_is = Tensor(np.ones(1))

    def parameters(self):
        return iter([self.dtype_is])

    def forward(self, x):
        return self.function(x)


def shifted(x):
    """The image moved right by one, as logits of three levels."""
    moved = F.pad(x, (1, 0))[..., :-1]
    return ops.stack([moved, moved * 2.0, 1.0 - moved], dim=1)


def test_a_network_may_be_any_function_of_the_known_ops():
    functions = {
        "shifted": shifted,
        "elu": lambda x: F.elu(shifted(x)) * shifted(x),
        "border": lambda x: shifted(F.pad(x, (0, 1), value=0.5)[..., :-1] - 0.25),
        "negative": lambda x: -shifted(x).tanh().sigmoid(),
        "flipped twice": lambda x: shifted(ops.flip(ops.flip(x, (2,)), (2,))),
    }
    for name, function in functions.items():
        model = Own(function)
        images, _ = some(model, 3, 0)
        got = model.complete(images, 1, np.random.default_rng(0))
        np.testing.assert_array_equal(got, naive(model, images, 1, 0), err_msg=name)
        Trace(model)


def test_strided_and_transposed_convolutions():
    """Down to half the size and up again, one row and column late, for every size, kernel and padding that fits."""
    rng = np.random.default_rng(0)
    for stride, k, padding, extra in ((2, 2, 0, 0), (2, 4, 1, 0), (2, 3, 1, 1), (3, 3, 0, 0)):
        down, up = (rng.standard_normal((k, k, i, o)).transpose(3, 2, 0, 1) for i, o in ((1, 4), (3, 4)))
        bias = Tensor(rng.standard_normal(3))

        def function(x, down=down, up=up, bias=bias, stride=stride, padding=padding, extra=extra):
            late = F.pad(x, (0, 0, stride, 0))[:, :, : x.shape[2]]  # whole windows of rows above
            small = F.relu(F.conv2d(late, Tensor(down), stride=stride, padding=padding))
            large = F.conv_transpose2d(small, Tensor(up), bias, stride, padding, extra)
            late = F.pad(large, (0, 0, stride, 0))[:, :, : x.shape[2]]
            return late.reshape(len(x), 1, 3, *x.shape[2:]).transpose(1, 2)

        model = Own(function, (1, 12, 12))
        images, _ = some(model, 3, 0)
        Trace(model)
        got = model.complete(images, 2, np.random.default_rng(0))
        np.testing.assert_array_equal(got, naive(model, images, 2, 0))


@given(st.integers(0, 10**6), st.lists(st.booleans(), min_size=12, max_size=12))
def test_no_call_of_the_kernel_is_long_so_ctrl_c_is_heard(n, given):
    """All values in order, those that are given apart from the others, and so much work at most."""
    drawing, given = Sampler(new("row", (1, 3, 4), 3)), np.array(given)
    stretches = list(drawing.stretches(given, n))
    assert [first for first, _ in stretches] == [0, *(last for _, last in stretches[:-1])]
    assert stretches[-1][1] == 12
    for first, last in stretches:
        assert len(set(given[first:last].tolist())) == 1
        assert last - first == 1 or (last - first) * n * drawing.program.weights.size <= sampler._CHUNK


@pytest.mark.parametrize(
    ("said", "function"),
    [
        ("abs of the image", lambda x: shifted(x).abs()),
        ("elu of the image", lambda x: F.elu(shifted(x), 0.5)),
        ("a convolution in groups",
         lambda x: F.conv2d(shifted(x)[:, :, 0], Tensor(np.ones((3, 1, 1, 1))), groups=3)[:, :, None]),
        ("a transposed convolution with a mask or in groups",
         lambda x: F.conv_transpose2d(shifted(x)[:, :, 0], Tensor(np.ones((3, 1, 1, 1))), groups=3)[:, :, None]),
        ("what isn't an op of the image", lambda x: shifted(Tensor(np.abs(x.numpy())))),
    ],
)  # fmt: skip
def test_what_has_no_schedule_is_drawn_by_the_plain_loop(said, function):
    model = Own(function)
    with pytest.raises(NotTraceable, match=said):
        Trace(model)
    images, _ = some(model, 3, 0)
    np.testing.assert_array_equal(model.complete(images, 1, np.random.default_rng(0)), naive(model, images, 1, 0))


def test_logits_may_be_made_of_any_output_by_the_plain_loop():
    model = Own(lambda x: shifted(x)[:, :, 0])
    model.of_levels = lambda output, x: 2 * output[:, :, None]
    with pytest.raises(NotTraceable, match="logits made of something else than a mixture"):
        Trace(model)
    images, _ = some(model, 3, 0)
    np.testing.assert_array_equal(model.complete(images, 1, np.random.default_rng(0)), naive(model, images, 1, 0))


def test_a_model_that_sees_what_it_draws_is_refused():
    model = Own(lambda x: ops.stack([x, x, x], dim=1))
    with pytest.raises(ValueError, match="isn't autoregressive: value 0 would depend on itself or a later one"):
        model.sample(1, np.random.default_rng(0))


@pytest.mark.parametrize(("bias", "word"), [(math.nan, "nan"), (math.inf, "inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_logit_that_is_no_number_is_an_error_that_says_where(bias, word, temperature):
    """By the kernel, by its definition and by the plain loop; whatever is known already is nobody's question."""
    model = new("pixelcnn", (1, 4, 5), 3, blocks=0)
    last = list(model.layers)[-1]
    images, _ = some(model, 40, 0)
    draw = lambda: model.complete(images, 2, np.random.default_rng(0), temperature)  # noqa: E731
    draw()
    last.bias.write()[1] = bias
    said = f"^a logit is {word} at row 2, column 0$"
    with pytest.raises(FloatingPointError, match=said):
        draw()
    with reference(), pytest.raises(FloatingPointError, match=said):
        draw()
    with pytest.raises(FloatingPointError, match=said):
        naive(model, images, 2, 0, temperature)
    last.bias.write()[1] = -math.inf  # a level that is never drawn
    assert not (draw()[:, :, 2:] == 1).any()


def test_the_first_value_that_can_not_be_drawn_is_named_whoever_finds_it():
    """Level 2 makes the next logits overflow; the random numbers draw it at another place in each image."""

    def function(x):
        before = shifted(x)[:, 0]
        return ops.stack([before * 1e200 * 1e200, before, before * 0.0], dim=1)

    sampler, uniform = Sampler(Own(function, (1, 4, 5))), np.full((20, 64), 0.5)
    for image, value in ((50, 6), (7, 13), (40, 15)):
        uniform[value, image] = 0.9
    for n in (1, 2, 4):
        kernels.set_num_threads(n)
        with pytest.raises(FloatingPointError, match=r"^a logit is inf at row 1, column 2$"):
            sampler.run(sampler.state(64), np.zeros((64, 20), np.uint8), 0, 20, 0, uniform, 1.0)


def arguments(model, n=2):
    s = Sampler(model)
    values = len(s.program.places)
    return SimpleNamespace(
        program=s.program, scaled=s.scaled, uniform=np.zeros((values, n)), state=s.state(n),
        x=np.zeros((n, values), np.uint8), first=0, last=values, known=0, temperature=1.0,
    )  # fmt: skip


def test_arrays_that_do_not_fit_never_reach_the_kernel():
    wrong = {
        "uniform": lambda a: a.uniform[1:],
        "state": lambda a: a.state[:, 1:],
        "x": lambda a: a.x.astype(np.int64),
        "results": lambda a: a.scaled[:1],
    }
    for name, change in wrong.items():
        a = arguments(new("pixelcnn", (1, 3, 3), 4))
        setattr(a, "scaled" if name == "results" else name, change(a))  # as many levels as results
        with pytest.raises(ValueError, match=f"sample: {name} must be"):
            kernels.sample.sample(**vars(a))
    for name in ("layers", "runs", "steps", "starts", "places", "results"):
        a = arguments(new("pixelcnn", (1, 3, 3), 4))
        array = getattr(a.program, name)
        a.program = a.program._replace(**{name: array.astype(np.int16)})
        with pytest.raises(ValueError, match=f"sample: {name} must be"):
            kernels.sample.sample(**vars(a))
    for change in ({"first": -1}, {"last": 10}, {"first": 5, "last": 4}, {"known": -1}, {"temperature": math.nan}):
        a = arguments(new("pixelcnn", (1, 3, 3), 4))
        with pytest.raises(ValueError, match="tg_sample"):
            kernels.sample.sample(**(vars(a) | change))


def test_the_memory_of_a_nades_steps_grows_with_its_numbers_not_with_their_square():
    model = small.new("nade", (1, 14, 14), 64)
    tracemalloc.start()
    try:
        model.sample(1, np.random.default_rng(0))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    logits = 14 * 14 * 64
    assert peak < 1000 * logits  # bytes; with all numbers kept for each value there were more
