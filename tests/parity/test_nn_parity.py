"""tinygen.nn against PyTorch: values, gradients, initial distributions, state dicts, training."""

import functools
import inspect

import numpy as np
import pytest
import torch
import torch.nn.functional as TF
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import tinygen
from tinygen import nn, optim
from tinygen.nn import functional as F

TOLERANCE = {np.float64: 1e-10, np.float32: 3e-4}
FEW = settings(max_examples=30)
seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from([np.float64, np.float32])


def compare(ours, theirs, arrays, rtol):
    """Values and gradients agree; arrays of floats are differentiated, others passed on."""
    mine = [tinygen.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    other = [torch.tensor(np.ascontiguousarray(a), requires_grad=a.dtype.kind == "f") for a in arrays]
    got, want = ours(*mine), theirs(*other)
    outs = list(zip(got, want, strict=True)) if isinstance(got, tuple) else [(got, want)]
    mine, other = ([x for x in xs if x.requires_grad] for xs in (mine, other))
    scalar, reference = 0.0, 0.0
    for i, (y, z) in enumerate(outs):
        assert y.shape == z.shape
        assert y.dtype == z.detach().numpy().dtype
        np.testing.assert_allclose(y.numpy(), z.detach().numpy(), rtol, rtol)
        upstream = np.random.default_rng(i).standard_normal(y.shape).astype(y.dtype)
        scalar, reference = scalar + (y * upstream).sum(), reference + (z * torch.tensor(upstream)).sum()
    grads = tinygen.grad(scalar, mine)
    for g, h in zip(grads, torch.autograd.grad(reference, other), strict=True):
        np.testing.assert_allclose(g.numpy(), h.numpy(), rtol, rtol * max(1, h.abs().max().item()))


def both(name, **options):
    """The function of that name here and there, with these options."""
    return [functools.partial(getattr(functions, name), **options) for functions in (F, TF)]


def normal(seed, dtype, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def pairs(low, high):
    return st.one_of(st.integers(low, high), st.tuples(st.integers(low, high), st.integers(low, high)))


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


@FEW
@given(
    sizes=st.tuples(*[st.integers(1, 3)] * 3, *[st.integers(1, 6)] * 2, *[st.integers(1, 4)] * 2),
    stride=pairs(1, 3), padding=pairs(0, 2), dilation=pairs(1, 2), bias=st.booleans(), seed=seeds, dtype=dtypes,
)  # fmt: skip
def test_conv2d(sizes, stride, padding, dilation, bias, seed, dtype):
    n, i, o, h, w, kh, kw = sizes
    for size, k, p, d in zip((h, w), (kh, kw), pair(padding), pair(dilation), strict=True):
        assume(size + 2 * p >= d * (k - 1) + 1)
    arrays = normal(seed, dtype, (n, i, h, w), (o, i, kh, kw), *([(o,)] if bias else []))
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    compare(*both("conv2d", **options), arrays, TOLERANCE[dtype])


@FEW
@given(
    sizes=st.tuples(*[st.integers(1, 3)] * 3, *[st.integers(1, 5)] * 2, *[st.integers(1, 4)] * 2),
    stride=pairs(1, 3), padding=pairs(0, 2), output_padding=pairs(0, 2), dilation=pairs(1, 2),
    bias=st.booleans(), seed=seeds, dtype=dtypes,
)  # fmt: skip
def test_conv_transpose2d(sizes, stride, padding, output_padding, dilation, bias, seed, dtype):
    n, i, o, h, w, kh, kw = sizes
    for size, k, s, p, e, d in zip(
        (h, w), (kh, kw), *map(pair, (stride, padding, output_padding, dilation)), strict=True
    ):
        assume(e < s and (size - 1) * s - 2 * p + d * (k - 1) + e + 1 >= 1)
    arrays = normal(seed, dtype, (n, i, h, w), (i, o, kh, kw), *([(o,)] if bias else []))
    options = {"stride": stride, "padding": padding, "output_padding": output_padding, "dilation": dilation}
    compare(*both("conv_transpose2d", **options), arrays, TOLERANCE[dtype])


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_conv2d_padding_by_name(padding):
    arrays = normal(0, np.float64, (2, 3, 6, 7), (4, 3, 3, 5))
    options = {"padding": padding, "dilation": (2, 1)}
    compare(*both("conv2d", **options), arrays, 1e-10)


@FEW
@given(
    half=st.tuples(st.integers(0, 3), st.integers(0, 2)), mask=st.sampled_from("AB"), channels=st.integers(1, 3),
    factors=st.tuples(st.integers(1, 2), st.integers(1, 2)), size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    seed=seeds, dtype=dtypes,
)  # fmt: skip
def test_masked_conv2d_is_a_convolution_with_a_masked_weight(half, mask, channels, factors, size, seed, dtype):
    (i, o), (kh, kw) = (channels * f for f in factors), (2 * h + 1 for h in half)
    visible = np.zeros((o, i, kh, kw))
    visible[:, :, : kh // 2] = visible[:, :, kh // 2, : kw // 2] = 1
    groups = np.arange(o)[:, None] // (o // channels) - np.arange(i) // (i // channels)
    visible[:, :, kh // 2, kw // 2] = groups > 0 if mask == "A" else groups >= 0
    arrays = normal(seed, dtype, (2, i, *size), (o, i, kh, kw), (o,))
    compare(
        lambda x, w, b: F.masked_conv2d(x, w, b, mask, channels),
        lambda x, w, b: TF.conv2d(x, w * torch.tensor(visible, dtype=w.dtype), b, padding=half),
        arrays, TOLERANCE[dtype],
    )  # fmt: skip


@FEW
@given(
    sizes=st.tuples(*[st.integers(1, 3)] * 2, *[st.integers(1, 6)] * 2), kernel=pairs(1, 3),
    stride=st.one_of(st.none(), pairs(1, 3)), padding=pairs(0, 1), seed=seeds, dtype=dtypes,
    kind=st.sampled_from(["max_pool2d", "avg_pool2d"]),
)  # fmt: skip
def test_pooling(kind, sizes, kernel, stride, padding, seed, dtype):
    for size, k, p in zip(sizes[2:], pair(kernel), pair(padding), strict=True):
        assume(2 * p <= k <= size + 2 * p)
    x = np.round(normal(seed, dtype, sizes)[0])  # rounded: with ties
    compare(*both(kind, kernel_size=kernel, stride=stride, padding=padding), [x], TOLERANCE[dtype])


@FEW
@given(sizes=st.tuples(*[st.integers(1, 4)] * 4), scale=pairs(1, 3), by_size=st.booleans(), seed=seeds)
def test_interpolate(sizes, scale, by_size, seed):
    size = tuple(s * n for s, n in zip(pair(scale), sizes[2:], strict=True))
    options = {"size": size} if by_size else {"scale_factor": tuple(map(float, pair(scale)))}
    compare(*both("interpolate", **options), normal(seed, np.float64, sizes), 1e-12)


@FEW
@given(
    sizes=st.lists(st.integers(0, 3), min_size=1, max_size=4), value=st.sampled_from([0.0, 1.5, -np.inf]),
    widths=st.lists(st.integers(0, 2), max_size=8), seed=seeds,
)  # fmt: skip
def test_pad(sizes, widths, value, seed):
    widths = tuple(widths[: min(len(widths) // 2, len(sizes)) * 2])
    assume(all(n + sum(widths[2 * k : 2 * k + 2]) for k, n in enumerate(sizes[::-1])))  # torch refuses empty results
    x = normal(seed, np.float64, sizes)[0]
    mine, other = tinygen.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, z = F.pad(mine, widths, value=value), TF.pad(other, widths, value=value)
    np.testing.assert_array_equal(y.numpy(), z.detach().numpy())
    upstream = np.random.default_rng(0).standard_normal(y.shape)
    (g,) = tinygen.grad(y, mine, grad_outputs=upstream)
    np.testing.assert_array_equal(g.numpy(), torch.autograd.grad(z, other, torch.tensor(upstream))[0].numpy())


@pytest.mark.fault("M07")
@FEW
@given(
    shape=st.one_of(st.tuples(st.integers(2, 5), st.integers(1, 3)), st.tuples(*[st.integers(1, 4)] * 4)),
    affine=st.booleans(), training=st.booleans(), momentum=st.floats(0, 1), eps=st.sampled_from([1e-5, 0.1]),
    seed=seeds, dtype=dtypes,
)  # fmt: skip
def test_batch_norm(shape, affine, training, momentum, eps, seed, dtype):
    assume(not training or np.prod(shape) > shape[1])
    c = shape[1]
    arrays = normal(seed, dtype, shape, *([(c,)] * 2 if affine else []))
    arrays[0] = arrays[0] * 3 + 1
    mean, var = normal(seed + 1, dtype, (c,), (c,))
    running = [[lib.tensor(mean), lib.tensor(var**2 + 0.5)] for lib in (tinygen, torch)]

    def call(functions, running):
        return lambda x, *p: functions.batch_norm(x, *running, *(p or (None, None)), training, momentum, eps)

    # With two values a channel the gradient is a difference of nearly equal numbers.
    tolerance = TOLERANCE[dtype] * (10 if dtype == np.float32 else 1)
    compare(call(F, running[0]), call(TF, running[1]), arrays, tolerance)
    for mine, other in zip(*running, strict=True):
        np.testing.assert_allclose(mine.numpy(), other.numpy(), TOLERANCE[dtype], TOLERANCE[dtype])


@FEW
@given(
    shape=st.lists(st.integers(2, 4), min_size=2, max_size=4), axes=st.integers(1, 2), affine=st.booleans(), seed=seeds
)  # fmt: skip
def test_layer_norm(shape, axes, affine, seed):
    last = tuple(shape[-axes:])
    arrays = normal(seed, np.float64, shape, *([last] * 2 if affine else []))
    compare(lambda x, *p: F.layer_norm(x, last, *p), lambda x, *p: TF.layer_norm(x, last, *p), arrays, 1e-9)


@FEW
@given(
    shape=st.lists(st.integers(1, 4), min_size=2, max_size=4), seed=seeds, dtype=dtypes,
    reduction=st.sampled_from(["mean", "sum", "none"]), scale=st.sampled_from([1, 100]),
)  # fmt: skip
def test_losses(shape, reduction, scale, seed, dtype):
    x, y = normal(seed, dtype, shape, shape)
    labels = np.random.default_rng(seed).integers(0, shape[1], (shape[0], *shape[2:]))
    cases = {
        "cross_entropy": [x * dtype(scale), labels],
        "nll_loss": [x, labels],
        "binary_cross_entropy_with_logits": [x * dtype(scale), y],
        "mse_loss": [x, y],
        "l1_loss": [x, y],
    }
    for name, arrays in cases.items():
        compare(*both(name, reduction=reduction), arrays, TOLERANCE[dtype])


@pytest.mark.fault("G11")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_losses_at_extreme_logits(dtype):
    logits = np.array([[1e4, -1e4, 0], [0, 0, 0], [-np.inf, 0, 1], [1e-40, -1e-40, 0]], dtype)
    targets = [np.array([0, 1, 1, 2]), np.array([1, 0, 2, 0])]
    for labels in targets:
        compare(F.cross_entropy, TF.cross_entropy, [logits, labels], TOLERANCE[dtype])
    x = np.array([1e4, -1e4, 1e4, -1e4, 0, 1e-40], dtype)
    y = np.array([1, 0, 0, 1, 0.5, 0.25], dtype)
    compare(*both("binary_cross_entropy_with_logits"), [x, y], TOLERANCE[dtype])


ACTIVATIONS = [
    ("relu", {}), ("leaky_relu", {}), ("leaky_relu", {"negative_slope": 0.2}), ("elu", {}), ("elu", {"alpha": 0.5}),
    ("sigmoid", {}), ("tanh", {}), ("softplus", {}), ("softmax", {"dim": 1}), ("log_softmax", {"dim": -1}),
]  # fmt: skip


@pytest.mark.fault("G10", "G11")
@pytest.mark.parametrize(("name", "options"), ACTIVATIONS)
def test_activations(name, options):
    x = np.array([[0.0, -0.0, 1.0, -1.0, 1e4, -1e4], [1e-310, 20, -20, 3, -3, 0.5]])
    compare(*both(name, **options), [x], 1e-9)


def test_gated_activation():
    x = normal(0, np.float64, (2, 6, 3, 2))
    compare(F.gated_activation, lambda x: x[:, :3].tanh() * x[:, 3:].sigmoid(), x, 1e-12)


def test_embedding():
    compare(F.embedding, TF.embedding, [np.array([[0, 2], [2, 2]]), *normal(0, np.float64, (4, 3))], 1e-12)


# -------------------------------------------------------------------------------------------------- modules

LAYERS = [  # (the layer, in either library, its input's shape)
    (lambda m, g: m.Linear(5, 3, **g), (4, 5)),
    (lambda m, g: m.Linear(5, 3, bias=False, **g), (2, 4, 5)),
    (lambda m, g: m.Conv2d(3, 4, 3, 2, 1, **g), (2, 3, 5, 6)),
    (lambda m, g: m.Conv2d(3, 4, (1, 3), padding="same", bias=False, **g), (2, 3, 5, 6)),
    (lambda m, g: m.ConvTranspose2d(3, 4, 4, 2, 1, **g), (2, 3, 4, 5)),
    (lambda m, g: m.ConvTranspose2d(3, 4, 3, 2, 1, 1, bias=False, **g), (2, 3, 4, 5)),
    (lambda m, g: m.Conv2d(4, 6, 3, groups=2, padding=1, padding_mode="reflect", **g), (2, 4, 5, 6)),
    (lambda m, g: m.Conv2d(3, 3, (2, 3), groups=3, padding="same", padding_mode="circular", **g), (3, 5, 6)),
    (lambda m, g: m.Conv1d(4, 6, 3, 2, 1, groups=2, **g), (2, 4, 7)),
    (lambda m, g: m.Conv1d(3, 4, 4, padding="same", padding_mode="replicate", dilation=2, **g), (2, 3, 7)),
    (lambda m, g: m.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2, **g), (2, 4, 4, 5)),
    (lambda m, g: m.ConvTranspose1d(4, 6, 3, 2, 1, 1, groups=2, dilation=2, **g), (2, 4, 5)),
    (lambda m, g: m.BatchNorm1d(5), (4, 5)),
    (lambda m, g: m.BatchNorm1d(5, momentum=None), (4, 5, 2)),
    (lambda m, g: m.BatchNorm2d(3, eps=1e-3, affine=False), (2, 3, 4, 5)),
    (lambda m, g: m.LayerNorm(5), (4, 5)),
    (lambda m, g: m.LayerNorm((3, 4), elementwise_affine=False), (2, 3, 4)),
    (lambda m, g: m.GroupNorm(2, 6), (3, 6, 4, 5)),
    (lambda m, g: m.GroupNorm(3, 6, 1e-3, affine=False), (3, 6)),
    (lambda m, g: m.InstanceNorm1d(3), (2, 3, 4)),
    (lambda m, g: m.InstanceNorm2d(3, affine=True), (2, 3, 4, 5)),
    (lambda m, g: m.InstanceNorm2d(3, track_running_stats=True), (2, 3, 4, 5)),
    (lambda m, g: m.InstanceNorm2d(3), (3, 4, 5)),
    (lambda m, g: m.LayerNorm((3, 4), bias=False), (2, 3, 4)),
    (lambda m, g: m.RMSNorm(5), (4, 5)),
    (lambda m, g: m.RMSNorm((3, 4), 1e-3, False), (2, 3, 4)),
    (lambda m, g: m.Sequential(m.SiLU(), m.GELU(), m.GELU("tanh"), m.Mish()), (3, 4)),
    (lambda m, g: m.LSTM(5, 3, **g), (4, 2, 5)),
    (lambda m, g: m.LSTM(5, 3, bias=False, batch_first=True, **g), (4, 2, 5)),
    (lambda m, g: m.LSTMCell(5, 3, **g), (2, 5)),
    (lambda m, g: m.MaxPool2d(2), (2, 3, 4, 5)),
    (lambda m, g: m.MaxPool2d(2, 1, dilation=2, ceil_mode=True), (2, 3, 4, 5)),
    (lambda m, g: m.AvgPool2d(3, 2, 1), (2, 3, 4, 5)),
    (lambda m, g: m.AvgPool2d(3, 2, 1, True, False), (2, 3, 4, 6)),
    (lambda m, g: m.Upsample(scale_factor=2), (2, 3, 4, 5)),
    (lambda m, g: m.Upsample((7, 3), mode="bicubic", align_corners=True), (2, 3, 4, 5)),
    (lambda m, g: m.Sequential(m.PixelShuffle(2), m.PixelUnshuffle(3), m.Unfold(2, stride=2)), (2, 4, 3, 6)),
    (lambda m, g: m.Sequential(m.ReflectionPad2d(1), m.ReplicationPad2d((1, 0, 2, 1))), (2, 3, 4, 5)),
    (lambda m, g: m.Sequential(m.CircularPad2d(2), m.ZeroPad2d((1, -1, 0, 2)), m.ConstantPad2d(1, 0.5)), (2, 3, 4, 5)),
    (lambda m, g: m.Flatten(), (2, 3, 4)),
    (lambda m, g: m.Flatten(0, 1), (2, 3, 4)),
    (lambda m, g: m.Flatten(-2), (2, 3, 4)),
    (lambda m, g: m.Sequential(m.LeakyReLU(0.2), m.ELU(), m.Softplus(), m.Softmax(1), m.LogSoftmax(-1)), (3, 4)),
    (lambda m, g: m.Sequential(m.Conv2d(1, 2, 3, **g), m.BatchNorm2d(2), m.ReLU(), m.Tanh()), (2, 1, 4, 4)),
]  # fmt: skip


def parameters(function):
    """By name, without the generator; none for a function that takes anything."""
    found = [p for p in inspect.signature(function).parameters.values() if p.name not in ("rng", "_stacklevel")]
    return {} if any(p.kind is p.VAR_KEYWORD for p in found) else {p.name: p for p in found}


OURS = {  # arguments that PyTorch doesn't have
    ("conv1d", "add"), ("conv2d", "add"), ("group_norm", "silu"), ("GroupNorm", "silu"), ("group_norm", "shift"),
}  # fmt: skip


@pytest.mark.parametrize(("ours", "theirs"), [(F, TF), (nn, torch.nn), (nn.init, torch.nn.init)])
def test_arguments_are_pytorchs_in_the_same_places_and_with_the_same_defaults(ours, theirs):
    compared = set()
    for name, function in vars(ours).items():
        if name.startswith("_") or not hasattr(theirs, name) or isinstance(function, type(F)) or name == "Tensor":
            continue
        try:
            want = parameters(getattr(theirs, name))
        except ValueError:  # written in C++
            continue
        got = parameters(function)
        if not want or not got or name in ("ModuleList", "Sequential"):
            continue
        places = [p.name for p in got.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert places[1:] == list(want)[1 : len(places)], name
        for key, p in list(got.items())[1:]:
            if (name, key) in OURS:
                assert p.kind is p.KEYWORD_ONLY
                continue
            required = p.default is p.empty  # as softmax's dim is, which PyTorch would guess
            assert required or p.default == want[key].default or (name, key) == ("pad", "value"), (name, key)
        compared.add(name)
    assert len(compared) >= 11


def flat(result):
    return [result] if hasattr(result, "shape") else [x for part in result for x in flat(part)]


@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_a_layer_takes_pytorchs_state_and_computes_the_same(make, shape):
    torch.manual_seed(0)
    other = make(torch.nn, {}).double()
    mine = make(nn, {"rng": np.random.default_rng(0)}).to(np.float64)
    assert {n: p.shape for n, p in mine.named_parameters()} == {n: tuple(p.shape) for n, p in other.named_parameters()}
    mine.load_state_dict({name: p.numpy() for name, p in other.state_dict().items()})
    for mode in (True, True, False):
        mine.train(mode), other.train(mode)
        x = np.random.default_rng(1).standard_normal(shape)
        a, b = tinygen.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        ys, zs = flat(mine(a)), flat(other(b))
        for y, z in zip(ys, zs, strict=True):
            np.testing.assert_allclose(y.numpy(), z.detach().numpy(), 1e-10, 1e-10)
        sum((y * y * y).sum() for y in ys).backward()
        sum((z * z * z).sum() for z in zs).backward()
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), 1e-9, 1e-9)
    for (name, p), q in zip(mine.named_parameters(), other.parameters(), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), 1e-9, 1e-9, err_msg=name)
    back = {name: torch.tensor(value) for name, value in mine.state_dict().items()}
    for name, value in other.state_dict().items():
        torch.testing.assert_close(back[name], value, rtol=1e-10, atol=1e-10)
    other.load_state_dict(back)


@pytest.mark.parametrize(
    "make",
    [
        lambda m, g: m.Linear(300, 200, **g),
        lambda m, g: m.Conv2d(30, 40, 5, **g),
        lambda m, g: m.ConvTranspose2d(30, 50, 5, **g),
        lambda m, g: m.Embedding(300, 100, **g),
        lambda m, g: m.Bilinear(30, 40, 50, **g),
        lambda m, g: m.MultiheadAttention(100, 5, bias=False, **g),
        lambda m, g: m.LSTM(100, 150, **g),
    ],
)
def test_initial_values_are_distributed_as_pytorchs(make):
    torch.manual_seed(0)
    other, mine = make(torch.nn, {}), make(nn, {"rng": np.random.default_rng(0)})
    for (name, p), q in zip(mine.named_parameters(), other.parameters(), strict=True):
        p, q = (np.sort(x.ravel()) for x in (p.numpy(), q.detach().numpy()))
        n = len(p)
        distance = np.abs(np.searchsorted(p, q, "right") / n - np.arange(1, n + 1) / n).max()
        assert distance < 2.2 * np.sqrt(2 / n), name  # Kolmogorov-Smirnov, significance about 1e-4


@pytest.mark.parametrize(
    ("name", "options"),
    [("kaiming_uniform_", {"a": 0.3}), ("kaiming_normal_", {"mode": "fan_out", "nonlinearity": "relu"}),
     ("xavier_uniform_", {"gain": 2.0}), ("xavier_normal_", {}), ("normal_", {"mean": 1.0, "std": 0.02}),
     ("uniform_", {"a": -2.0, "b": 3.0}), ("orthogonal_", {"gain": 1.5})],
)  # fmt: skip
def test_initializers_have_pytorchs_moments(name, options):
    mine, other = tinygen.tensor(np.zeros((60, 40, 3, 5))), torch.zeros(60, 40, 3, 5, dtype=torch.float64)
    torch.manual_seed(0)
    getattr(nn.init, name)(mine, **options, generator=np.random.default_rng(0))
    getattr(torch.nn.init, name)(other, **options)
    a, b = mine.numpy(), other.numpy()
    assert abs(a.mean() - b.mean()) < 0.02 * b.std()
    assert a.std() == pytest.approx(b.std(), rel=0.02)
    assert np.quantile(a, 0.99) == pytest.approx(np.quantile(b, 0.99), rel=0.03)


@pytest.mark.parametrize(
    ("mean", "std", "a", "b"), [(0.0, 1.0, -2.0, 2.0), (0.5, 0.3, 0.0, 0.6), (0.0, 0.02, -2.0, 2.0)]
)
def test_a_truncated_normal_has_pytorchs_moments(mean, std, a, b):
    mine, other = tinygen.tensor(np.zeros((100, 200))), torch.zeros(100, 200)
    nn.init.trunc_normal_(mine, mean, std, a, b, generator=np.random.default_rng(0))
    torch.nn.init.trunc_normal_(other, mean, std, a, b)
    p, q = mine.numpy(), other.numpy()
    assert a <= p.min() <= p.max() <= b
    assert abs(p.mean() - q.mean()) < 0.05 * q.std()
    assert p.std() == pytest.approx(q.std(), rel=0.03)


@pytest.mark.parametrize(
    ("name", "shape", "options"),
    [("eye_", (3, 5), {}), ("dirac_", (4, 3, 3), {}), ("dirac_", (6, 2, 3, 4), {"groups": 2}), ("ones_", (2, 3), {}),
     ("zeros_", (2,), {}), ("constant_", (2, 2), {"val": 0.5})],
)  # fmt: skip
def test_initializers_that_draw_nothing(name, shape, options):
    mine, other = tinygen.tensor(np.full(shape, np.nan)), torch.zeros(shape, dtype=torch.float64)
    getattr(nn.init, name)(mine, **options)
    np.testing.assert_array_equal(mine.numpy(), getattr(torch.nn.init, name)(other, **options))


def test_sparse_has_so_many_zeros_in_each_column():
    mine, other = tinygen.tensor(np.zeros((30, 400))), torch.zeros(30, 400)
    nn.init.sparse_(mine, 0.35, 0.5, generator=np.random.default_rng(0))
    torch.nn.init.sparse_(other, 0.35, 0.5)
    assert ((mine.numpy() == 0).sum(0) == 11).all()
    assert ((other == 0).sum(0) == 11).all()
    assert mine.numpy().std() == pytest.approx(other.std().item(), rel=0.03)
    assert len({tuple(np.flatnonzero(c == 0)) for c in mine.numpy().T}) > 300


@pytest.mark.parametrize("name", ["linear", "conv2d", "sigmoid", "tanh", "relu", "selu", "leaky_relu"])
def test_calculate_gain(name):
    assert nn.init.calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name))


def test_training_a_network_gives_pytorchs_losses():
    """The same weights and batches: the losses agree to 1e-9 over 40 steps, batch statistics included."""

    def build(m, g):
        return m.Sequential(
            m.Conv2d(1, 6, 3, padding=1, **g), m.BatchNorm2d(6), m.LeakyReLU(0.2), m.MaxPool2d(2),
            m.ConvTranspose2d(6, 4, 4, 2, 1, **g), m.ELU(), m.Flatten(), m.Linear(4 * 6 * 6, 5, **g),
        )  # fmt: skip

    torch.manual_seed(0)
    other, mine = build(torch.nn, {}).double(), build(nn, {"rng": np.random.default_rng(0)}).to(np.float64)
    mine.load_state_dict({name: p.numpy() for name, p in other.state_dict().items()})
    ours, theirs = optim.Adam(mine.parameters(), lr=1e-2), torch.optim.Adam(other.parameters(), lr=1e-2)
    rng = np.random.default_rng(0)
    for _ in range(40):
        x, labels = rng.standard_normal((8, 1, 6, 6)), rng.integers(0, 5, 8)
        loss = F.cross_entropy(mine(tinygen.tensor(x)), labels)
        reference = TF.cross_entropy(other(torch.tensor(x)), torch.tensor(labels))
        assert loss.item() == pytest.approx(reference.item(), rel=1e-9)
        ours.zero_grad(), theirs.zero_grad()
        loss.backward(), reference.backward()
        ours.step(), theirs.step()
