"""Modules, layers and network functions without PyTorch: structure, state, errors, memory, exact identities."""

import copy
import inspect

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import tinygen
from tinygen import gradcheck, nn
from tinygen.nn import functional as F

seeds = st.integers(0, 2**32 - 1)


def rng(seed=0):
    return np.random.default_rng(seed)


def normal(*shape, dtype=np.float64, seed=0):
    return tinygen.tensor(rng(seed).standard_normal(shape).astype(dtype), requires_grad=True)


def image(n, c, h, w, dtype=np.float32):
    """NHWC in memory, as images should be."""
    return tinygen.tensor(rng().standard_normal((n, h, w, c)).astype(dtype).transpose(0, 3, 1, 2), requires_grad=True)


def is_nhwc(x):
    array = getattr(x, "_array", x)
    step = array.strides[3] // array.itemsize  # a slice of the channels is fine
    return array.strides[1] == array.itemsize and step >= array.shape[1] and array.strides[2] >= array.strides[3]


# --------------------------------------------------------------------------------------------------- modules


class Net(nn.Module):
    """A bit of everything, without super().__init__()."""

    def __init__(self, rng):
        self.scale = nn.Parameter(np.array([2.0], np.float32))
        self.first = nn.Linear(3, 4, rng=rng)
        self.rest = nn.ModuleList([nn.Sequential(nn.ReLU(), nn.Linear(4, 4, bias=False, rng=rng))])
        self.norm = nn.BatchNorm1d(4)
        self.note, self.nothing, self.constant = "plain", None, tinygen.tensor([1.0])
        self.register_buffer("seen", tinygen.tensor(np.array(0)))

    def forward(self, x):
        x = self.first(x) * self.scale
        for module in self.rest:
            x = module(x)
        return self.norm(x)


NAMES = ["scale", "first.weight", "first.bias", "rest.0.1.weight", "norm.weight", "norm.bias"]
BUFFERS = ["seen", "norm.running_mean", "norm.running_var", "norm.num_batches_tracked"]


def test_what_a_module_owns():
    net = Net(rng())
    assert [name for name, _ in net.named_parameters()] == NAMES
    assert [name for name, _ in net.named_buffers()] == BUFFERS
    modules = ["", "first", "rest", "rest.0", "rest.0.0", "rest.0.1", "norm"]
    assert [name for name, _ in net.named_modules()] == modules
    assert list(net.modules()) == [m for _, m in net.named_modules()]
    assert [name for name, _ in net.named_children()] == ["first", "rest", "norm"]
    assert all(p.requires_grad and p.is_leaf and p.dtype == np.float32 for p in net.parameters())
    assert list(net.state_dict()) == NAMES + BUFFERS


def test_shared_parameters_and_modules_count_once():
    a = nn.Linear(3, 3, rng=rng())
    b = nn.Linear(3, 3, rng=rng())
    b.weight = a.weight
    net = nn.Sequential(a, b, a)
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
    assert len(list(net.modules())) == 3
    x = normal(2, 3, dtype=np.float32)
    net(x).sum().backward()
    assert a.weight.grad.shape == (3, 3)


def test_roles_follow_assignment():
    net = Net(rng())
    net.scale = nn.Parameter(np.zeros(2, np.float32))
    assert dict(net.named_parameters())["scale"].shape == (2,)
    net.scale = None
    assert "scale" not in dict(net.named_parameters())
    net.constant = nn.Parameter([1.0])
    assert "constant" in dict(net.named_parameters())
    net.seen = tinygen.tensor(np.array(3))
    assert dict(net.named_buffers())["seen"].item() == 3
    net.first = nn.Identity()
    assert "first.weight" not in net.state_dict()
    net.norm = tinygen.tensor([1.0])
    assert "norm" not in dict(net.named_children())
    assert "norm" not in net.state_dict()
    del net.rest
    assert not hasattr(net, "rest")
    assert [name for name, _ in net.named_modules()] == ["", "first"]


def test_a_frozen_parameter_stays_a_parameter():
    net = Net(rng())
    assert net.requires_grad_(False) is net
    assert [name for name, _ in net.named_parameters()] == NAMES
    net.norm.eval()
    assert not net(tinygen.tensor(np.zeros((2, 3), np.float32))).requires_grad
    net.first.requires_grad_()
    net(tinygen.tensor(np.zeros((2, 3), np.float32))).sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is not None] == ["first.weight", "first.bias"]
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_train_and_eval_reach_all_modules():
    net = Net(rng())
    assert all(m.training for m in net.modules())
    assert net.eval() is net
    assert not any(m.training for m in net.modules())
    net.rest.train()
    assert [name for name, m in net.named_modules() if m.training] == ["rest", "rest.0", "rest.0.0", "rest.0.1"]


def test_a_copy_is_independent():
    net = Net(rng())
    twin = copy.deepcopy(net)
    before = net.state_dict()
    for p in twin.parameters():
        p.write()[...] += 1
    assert list(twin.state_dict()) == NAMES + BUFFERS
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
        assert name in BUFFERS or not np.array_equal(value, twin.state_dict()[name])


def test_to_float64_keeps_tensors_values_and_memory_order():
    net = nn.Sequential(nn.Conv2d(2, 3, (2, 4), rng=rng()), nn.BatchNorm2d(3))
    before, tensors = net.state_dict(), list(net.parameters())
    tensors[0].grad = tinygen.tensor(np.zeros_like(before["0.weight"]))
    assert net.to(np.float64) is net
    assert all(a is b for a, b in zip(net.parameters(), tensors, strict=True))
    assert tensors[0].grad is None
    assert net[0].weight._array.transpose(2, 3, 1, 0).flags.c_contiguous
    for name, value in net.state_dict().items():
        assert value.dtype == (np.int64 if name == "1.num_batches_tracked" else np.float64)
        np.testing.assert_array_equal(value, before[name])
    assert net(image(2, 2, 5, 5, np.float64)).dtype == np.float64
    with pytest.raises(TypeError, match="a module's dtype is float32 or float64, not int64"):
        net.to(np.int64)


def test_a_state_dict_round_trip_gives_the_same_function():
    one, two = Net(rng(1)), Net(rng(2))
    x = normal(5, 3, dtype=np.float32)
    one(x)
    state = one.state_dict()
    before = {name: value.copy() for name, value in state.items()}
    two.load_state_dict(state)
    one.eval(), two.eval()
    np.testing.assert_array_equal(one(x).numpy(), two(x).numpy())
    one.scale.write()[...] = 7
    two.norm.running_mean.write()[...] = 7
    for name, value in before.items():
        np.testing.assert_array_equal(state[name], value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("first.bias"), "load_state_dict of Net: first.bias is missing$"),
        (lambda s: s.update(extra=np.zeros(1)), "extra is unexpected$"),
        (lambda s: s.update({"first.bias": np.zeros((4, 1))}), r"first.bias has shape \(4, 1\) instead of \(4,\)$"),
        (lambda s: s.update({"seen": np.array(0.5)}), "seen has dtype float64 instead of int64$"),
        (lambda s: s.update({"scale": np.array([1j])}), "scale has dtype complex128 instead of float32$"),
        (lambda s: (s.clear(), s.update({f"x{i}": np.zeros(1) for i in range(9)})), "and 9 more$"),
        (lambda s: s.clear(), "norm.num_batches_tracked is missing$"),  # ten problems are all named
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_nothing_changed(change, message):
    net, other = Net(rng(1)), Net(rng(2))
    before, state = net.state_dict(), other.state_dict()
    change(state)
    with pytest.raises(ValueError, match=message):
        net.load_state_dict(state)
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_loading_what_is_there_and_from_tensors_and_float64():
    net = Net(rng(1))
    before = net.state_dict()
    net.load_state_dict({"scale": tinygen.tensor(np.array([9.5])), "unknown": np.zeros(3)}, strict=False)
    assert net.scale.dtype == np.float32
    assert net.scale.item() == 9.5
    np.testing.assert_array_equal(net.first.weight.numpy(), before["first.weight"])
    with pytest.raises(ValueError, match=r"scale has shape \(2,\)"):
        net.load_state_dict({"scale": np.zeros(2)}, strict=False)


@pytest.mark.fault("R06")
def test_kernels_are_loaded_whatever_their_order_in_memory():
    net = nn.Conv2d(3, 4, (2, 5), rng=rng())
    value = rng(1).standard_normal((4, 3, 2, 5)).astype(np.float32)
    for array in (value, np.asfortranarray(value), np.repeat(value, 2, 0)[::2], value.astype(">f4")):
        net.load_state_dict({"weight": array}, strict=False)
        np.testing.assert_array_equal(net.weight.numpy(), value)
        assert net.weight._array.transpose(2, 3, 1, 0).flags.c_contiguous


def test_lists_of_modules():
    layers = [nn.Linear(2, 2, rng=rng(i)) for i in range(3)]
    net = nn.Sequential(*layers)
    assert len(net) == 3
    assert list(net) == layers
    assert net[-1] is layers[2]
    part = net[1:]
    assert isinstance(part, nn.Sequential)
    assert list(part) == layers[1:]
    x = normal(4, 2, dtype=np.float32)
    np.testing.assert_array_equal(net(x).numpy(), layers[2](layers[1](layers[0](x))).numpy())
    modules = nn.ModuleList(layers[:1]).append(layers[1]).extend(layers[2:])
    assert list(modules) == layers
    assert isinstance(modules[:2], nn.ModuleList)
    assert list(modules.state_dict()) == [f"{i}.{p}" for i in range(3) for p in ("weight", "bias")]
    with pytest.raises(TypeError, match="ModuleList: expected a Module, got int"):
        modules.append(3)
    with pytest.raises(TypeError, match="Sequential: expected a Module, got function"):
        nn.Sequential(lambda x: x)
    with pytest.raises(IndexError):
        net[3]
    with pytest.raises(NotImplementedError, match=r"ModuleList doesn't define forward\(\)"):
        modules(x)


def test_repr_shows_the_structure():
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3, stride=2, rng=rng()), nn.MaskedConv2d(2, 4, 3, "B", 2, bias=False, rng=rng()),
        nn.Sequential(nn.ReLU(), nn.Dropout(0.1, rng=rng())), nn.Linear(4, 2, rng=rng()),
    )  # fmt: skip
    assert repr(net) == (
        "Sequential(\n"
        "  (0): Conv2d(1, 2, kernel_size=(3, 3), stride=2, padding=0, dilation=1)\n"
        "  (1): MaskedConv2d(2, 4, kernel_size=(3, 3), mask='B', channels=2, relu=False, bias=False)\n"
        "  (2): Sequential(\n    (0): ReLU()\n    (1): Dropout(p=0.1)\n  )\n"
        "  (3): Linear(4, 2)\n)"
    )
    assert repr(nn.LSTMCell(2, 3, bias=False, rng=rng())) == "LSTMCell(2, 3, bias=False)"
    assert repr(nn.LSTM(2, 3, batch_first=True, rng=rng())) == "LSTM(2, 3, batch_first=True)"
    assert repr(nn.LSTM(2, 3, 2, bidirectional=True, rng=rng())) == "LSTM(2, 3, num_layers=2, bidirectional=True)"
    assert repr(nn.BatchNorm2d(3, affine=False)) == "BatchNorm2d(3, eps=1e-05, momentum=0.1, affine=False)"
    assert repr(nn.LayerNorm(3)) == "LayerNorm((3,), eps=1e-05)"
    assert repr(nn.LayerNorm(3, elementwise_affine=False)) == "LayerNorm((3,), eps=1e-05, elementwise_affine=False)"
    assert repr(nn.RMSNorm((2, 3))) == "RMSNorm((2, 3), eps=None)"
    assert repr(nn.RMSNorm(3, elementwise_affine=False)) == "RMSNorm((3,), eps=None, elementwise_affine=False)"
    assert repr(nn.GroupNorm(2, 4)) == "GroupNorm(2, 4, eps=1e-05)"
    assert repr(nn.GroupNorm(2, 4, affine=False)) == "GroupNorm(2, 4, eps=1e-05, affine=False)"
    assert repr(nn.InstanceNorm2d(3)) == "InstanceNorm2d(3, eps=1e-05)"
    assert repr(nn.InstanceNorm2d(3, affine=True)) == "InstanceNorm2d(3, eps=1e-05, affine=True)"
    assert repr(nn.MultiheadAttention(4, 2, rng=rng())).startswith("MultiheadAttention(4, 2\n")
    assert ", batch_first=True\n" in repr(nn.MultiheadAttention(4, 2, batch_first=True, rng=rng()))
    assert repr(nn.Flatten(2)) == "Flatten(start_dim=2, end_dim=-1)"
    assert repr(nn.Linear(4, 2, bias=False, rng=rng())) == "Linear(4, 2, bias=False)"
    assert repr(nn.Embedding(5, 2, rng=rng())) == "Embedding(5, 2)"
    assert repr(nn.Upsample(scale_factor=2)) == "Upsample(size=None, scale_factor=2, mode='nearest')"


# ------------------------------------------------------------------------------------------------ initial values

DRAWING = [
    lambda **g: nn.Linear(6, 5, **g),
    lambda **g: nn.Conv2d(6, 5, 3, **g),
    lambda **g: nn.MaskedConv2d(6, 5, 3, "A", **g),
    lambda **g: nn.ConvTranspose2d(6, 5, 3, **g),
    lambda **g: nn.LSTM(6, 5, **g),
    lambda **g: nn.LSTMCell(6, 5, **g),
    lambda **g: nn.Embedding(6, 5, **g),
]


@pytest.mark.parametrize("make", DRAWING)
def test_layers_draw_from_the_generator_that_they_are_given(make):
    with pytest.raises(TypeError, match="rng"):
        make()
    shared = rng(3)
    one, two, again = make(rng=shared), make(rng=shared), make(rng=rng(3))
    for (name, p), q, r in zip(one.named_parameters(), two.parameters(), again.parameters(), strict=True):
        assert not np.array_equal(p.numpy(), q.numpy()), name
        np.testing.assert_array_equal(p.numpy(), r.numpy())
        assert p.numpy().std() > 0


@pytest.mark.parametrize("name", ["uniform_", "normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_",
                                  "xavier_normal_", "orthogonal_"])  # fmt: skip
def test_initial_values_do_not_depend_on_dtype_or_memory_order(name):
    tensors = [tinygen.tensor(np.zeros((4, 3, 2, 5))), tinygen.tensor(np.zeros((4, 3, 2, 5), np.float32)),
               tinygen.tensor(np.zeros((2, 5, 3, 4)).transpose(3, 2, 0, 1))]  # fmt: skip
    first, *others = [getattr(nn.init, name)(t, generator=rng(1)) for t in tensors]
    assert first is tensors[0]
    for other in others:
        np.testing.assert_allclose(other.numpy(), first.numpy(), rtol=1e-6)
    assert others[0].dtype == np.float32
    with pytest.raises(TypeError, match="generator"):
        getattr(nn.init, name)(tensors[0])


@given(st.integers(1, 6), st.lists(st.integers(1, 4), min_size=1, max_size=3), seeds)
def test_orthogonal_rows_or_columns(rows, rest, seed):
    w = nn.init.orthogonal_(tinygen.tensor(np.zeros((rows, *rest))), 2.0, generator=rng(seed)).numpy()
    w = w.reshape(rows, -1)
    product = w @ w.T if rows <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(product, 4 * np.eye(len(product)), atol=1e-12)


def test_constants_and_bounds():
    t = tinygen.tensor(np.zeros((3, 2, 2, 2)))
    assert (nn.init.ones_(t).numpy() == 1).all()
    assert (nn.init.constant_(t, 0.3).numpy() == 0.3).all()
    assert (nn.init.zeros_(t).numpy() == 0).all()
    big = tinygen.tensor(np.zeros((50, 20, 3, 3)))
    bound = 1 / np.sqrt(180)  # of PyTorch's layers: kaiming with a = sqrt(5) is 1 / sqrt(fan_in)
    top = np.abs(nn.init.kaiming_uniform_(big, np.sqrt(5), generator=rng()).numpy()).max()
    assert 0.99 * bound < top <= bound


# ------------------------------------------------------------------------------------------------------- errors

W, IMAGES = normal(4, 3, 3, 3), normal(2, 3, 5, 5)
LABELS = np.array([0, 2])


FLOATS = normal(2, 1, 4, dtype=np.float32)


@pytest.mark.fault("G12")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.conv2d(IMAGES, W, groups=3), ValueError,
         r"conv2d: input must have 9 channels for weight \(4, 3, 3, 3\) in 3 groups, got \(2, 3, 5, 5\)"),
        (lambda: F.conv2d(normal(2, 9, 5, 5), W, groups=3), ValueError, "groups must divide the 4 output channels"),
        (lambda: F.conv2d(IMAGES, W, groups=0), ValueError, "conv2d: groups must be an integer of at least 1, got 0"),
        (lambda: F.conv2d(normal(5, 5), W), ValueError,
         r"conv2d: input and weight must have 4 axes, .* \(5, 5\)"),
        (lambda: F.conv1d(IMAGES, normal(4, 3, 3)), ValueError, r"conv1d: input must be \(N, I, L\), weight"),
        (lambda: F.conv1d(normal(2, 3, 5), normal(4, 3, 3), stride=(1, 2)), ValueError,
         r"conv1d: stride must be an integer, got \(1, 2\)"),
        (lambda: F.conv_transpose1d(IMAGES, normal(4, 3, 3)), ValueError, "conv_transpose1d: input must be"),
        (lambda: F.conv2d(normal(2, 4, 5, 5), W), ValueError,
         r"conv2d: input must have 3 channels .*got \(2, 4, 5, 5\)"),
        (lambda: F.conv2d(IMAGES, W, normal(3)), ValueError, r"conv2d: bias must have shape \(4,\), got \(3,\)"),
        (lambda: F.conv2d(IMAGES, W, stride=0), ValueError, "conv2d: stride must be an integer of at least 1, .*got 0"),
        (lambda: F.conv2d(IMAGES, W, stride=1.5), ValueError, "stride must be an integer"),
        (lambda: F.conv2d(IMAGES, W, padding=-1), ValueError, "conv2d: padding must be an integer of at least 0"),
        (lambda: F.conv2d(IMAGES, W, dilation=(1, 2, 3)), ValueError, r"dilation .* a pair of them, got \(1, 2, 3\)"),
        (lambda: F.conv2d(IMAGES, W, padding="full"), ValueError, "padding must be an integer .* got 'full'"),
        (lambda: F.conv2d(IMAGES, W, stride=2, padding="same"), ValueError, "padding='same' needs stride 1, got"),
        (lambda: F.conv2d(IMAGES, W, dilation=3), ValueError, r"conv2d.*doesn't fit"),
        (lambda: F.conv2d(IMAGES, normal(4, 3, 3, 3, dtype=np.float32)), TypeError, "conv2d: weight is float32"),
        (lambda: F.conv_transpose2d(normal(2, 3, 5, 5), W), ValueError, "conv_transpose2d: input must have 4 channels"),
        (lambda: F.conv_transpose2d(normal(1, 4, 2, 2), W, normal(4)), ValueError, r"bias must have shape \(3,\)"),
        (lambda: F.conv_transpose2d(normal(1, 4, 2, 2), W, groups=3), ValueError,
         "conv_transpose2d: groups must divide the 4 input channels, got 3"),
        (lambda: F.conv_transpose2d(normal(1, 4, 2, 2), W, stride=2, output_padding=2), ValueError,
         r"output_padding \(2, 2\) must be smaller than stride \(2, 2\)"),
        (lambda: F.conv_transpose2d(normal(1, 4, 1, 1), W, padding=2), ValueError, r"leaves an output of \(-1, -1\)"),
        (lambda: F.masked_conv2d(IMAGES, W, mask="C"), ValueError, "masked_conv2d: mask must be 'A' or 'B', got 'C'"),
        (lambda: F.masked_conv2d(normal(2, 4, 5, 5), W), ValueError, "masked_conv2d: input must have 3 channels"),
        (lambda: F.masked_conv2d(IMAGES, W, normal(1)), ValueError, r"masked_conv2d: bias must have shape \(4,\)"),
        (lambda: nn.Flatten(1, 2, 3), TypeError, "takes from 1 to 3 positional arguments"),
        (lambda: nn.Flatten()(normal(2)), IndexError, r"flatten: dims must be in -1..0 for shape \(2,\), got 1, -1"),
        (lambda: F.mse_loss(normal(2), normal(2), weight=normal(3)), ValueError,
         r"mse_loss: weight must have input's shape \(2,\), got \(3,\)"),
        (lambda: nn.ReLU(inplace=True), TypeError, "unexpected keyword argument 'inplace'"),
        (lambda: F.masked_conv2d(IMAGES, normal(4, 3, 3, 2)), ValueError, "sides must be odd, got 3 x 2"),
        (lambda: F.masked_conv2d(IMAGES, W, channels=3), ValueError,
         "channels must divide the 3 input and 4 output channels, got 3"),
        (lambda: F.masked_conv2d(IMAGES, W, channels=0), ValueError, "channels must divide"),
        (lambda: F.linear(normal(2, 3), normal(4, 2)), ValueError, r"linear.*weight must be \(out, in\)"),
        (lambda: F.max_pool2d(normal(4, 4), 2), ValueError, r"max_pool2d: input must be \(N, C, H, W\) or .*, got"),
        (lambda: F.max_pool2d(IMAGES, 2, padding=2), ValueError,
         r"padding \(2, 2\) must be at most half of kernel_size"),
        (lambda: F.max_pool2d(IMAGES, 6), ValueError, "doesn't fit"),
        (lambda: F.avg_pool2d(IMAGES, 0), ValueError, "avg_pool2d: kernel_size must be an integer of at least 1"),
        (lambda: F.avg_pool2d(IMAGES, 2, divisor_override=0), ValueError, "divisor_override must not be 0"),
        (lambda: F.unfold(normal(3, 3), 2), ValueError, r"unfold: input must be \(N, C, H, W\)"),
        (lambda: F.interpolate(IMAGES, mode="lanczos", scale_factor=2), ValueError,
         "mode must be one of linear, .*, got 'lanczos'"),
        (lambda: F.interpolate(IMAGES, mode="linear", scale_factor=2), ValueError,
         "mode 'linear' is for inputs of 3 axes, got shape"),
        (lambda: F.interpolate(IMAGES, 3, align_corners=False), ValueError, "align_corners is for linear and cubic"),
        (lambda: F.interpolate(IMAGES, 3, mode="area", antialias=True), ValueError, "antialias is for bilinear and"),
        (lambda: F.interpolate(IMAGES, 3, recompute_scale_factor=True), ValueError, "needs a scale_factor"),
        (lambda: F.interpolate(IMAGES), ValueError, "interpolate: give either size or scale_factor"),
        (lambda: F.interpolate(IMAGES, 10, 2), ValueError, "interpolate: give either size or scale_factor"),
        (lambda: F.interpolate(IMAGES, scale_factor=0.1), ValueError, r"scale_factor 0.1 leaves nothing of \(5, 5\)"),
        (lambda: F.interpolate(IMAGES, size=(10, 0)), ValueError, r"size must be an integer above 0, or .*\(10, 0\)"),
        (lambda: F.interpolate(IMAGES, scale_factor=(1, 2, 3)), ValueError, "one for each of 2 axes"),
        (lambda: F.interpolate(normal(2, 3), size=2), ValueError, r"interpolate: input must be \(N, C, H, W\)"),
        (lambda: F.pixel_shuffle(IMAGES, 2), ValueError, "channels must be a multiple of 4, got shape"),
        (lambda: F.pixel_shuffle(IMAGES, 0), ValueError, "upscale_factor must be an integer of at least 1, got 0"),
        (lambda: F.pixel_unshuffle(IMAGES, 2), ValueError, "height and width must be multiples of 2, got"),
        (lambda: F.pixel_unshuffle(normal(4, 4), 2), ValueError, r"pixel_unshuffle: input must be \(..., C, H, W\)"),
        (lambda: F.row_lstm(normal(1, 4, 3, 3), normal(4, 1, 2, 3)), ValueError, r"must be \(4U, U, 1, K\), K odd"),
        (lambda: F.row_lstm(normal(1, 4, 3, 3), normal(4, 1, 1, 2)), ValueError, r"must be \(4U, U, 1, K\), K odd"),
        (lambda: F.row_lstm(normal(1, 4, 3, 3), normal(4, 1, 1)), ValueError, r"must be \(4U, U, 1, K\), K odd"),
        (lambda: F.row_lstm(normal(1, 5, 3, 3), normal(4, 1, 1, 3)), ValueError, r"for input \(N, 4U, H, W\), got"),
        (lambda: F.row_lstm(normal(1, 4, 3, 3), normal(4, 2, 1, 3)), ValueError, r"for input \(N, 4U, H, W\), got"),
        (lambda: F.diagonal_lstm(normal(1, 4, 3, 3), normal(4, 1, 1, 1)), ValueError, r"must be \(4U, U, 2, 1\)"),
        (lambda: F.diagonal_lstm(normal(1, 4, 3, 3), normal(4, 1, 2, 2)), ValueError, r"must be \(4U, U, 2, 1\)"),
        (lambda: F.one_hot(np.array([0.5])), TypeError, "one_hot: tensor must be an array of integers"),
        (lambda: F.one_hot(np.array([3]), 3), ValueError, r"one_hot: tensor must be in 0..2, got 3..3"),
        (lambda: F.one_hot(np.array([], int)), ValueError, "one_hot: num_classes must be given"),
        (lambda: F.pad(IMAGES, (1,)), ValueError, "pad must be pairs of integers"),
        (lambda: F.pad(normal(3), (1, 1, 1, 1)), ValueError, "pad must be pairs"),
        (lambda: F.pad(IMAGES, (-3, -3)), ValueError, r"pad \(-3, -3\) cuts off more than there is of"),
        (lambda: F.pad(IMAGES, (1, 1), mode="mirror"), ValueError, "pad: mode must be 'constant', .*, got 'mirror'"),
        (lambda: F.pad(IMAGES, (1, 1), "reflect", 1.0), ValueError, "mode 'reflect' takes no value, got 1.0"),
        (lambda: F.pad(IMAGES, (5, 1), mode="reflect"), ValueError, "can't make a border of 5 from 5 pixels"),
        (lambda: F.pad(IMAGES, (6, 1), mode="circular"), ValueError, "can't make a border of 6 from 5 pixels"),
        (lambda: F.pad(normal(1, 1, 2, 0), (1, 0), mode="replicate"), ValueError,
         "can't make a border of 1 from 0 pixels"),
        (lambda: F.batch_norm(IMAGES, None, None), ValueError,
         "running_mean and running_var are required in evaluation"),
        (lambda: F.batch_norm(normal(1, 3), None, None, training=True), ValueError,
         r"training takes more than 1 value per channel, got input of shape \(1, 3\)"),
        (lambda: F.batch_norm(normal(3), None, None, training=True), ValueError, r"input must be \(N, C, ...\)"),
        (lambda: F.batch_norm(IMAGES, None, None, normal(2), training=True), ValueError,
         r"weight must have shape \(3,\)"),
        (lambda: F.batch_norm(IMAGES, normal(4), normal(3)), ValueError,
         r"running_mean must have shape \(3,\), got \(4,\)"),
        (lambda: nn.BatchNorm2d(3)(normal(2, 3)), ValueError,
         r"BatchNorm2d: input must have 4 axes and 3 channels, got"),
        (lambda: nn.BatchNorm1d(3)(normal(2, 4)), ValueError,
         r"BatchNorm1d: input must have 2 or 3 axes and 3 channels"),
        (lambda: F.layer_norm(IMAGES, 4), ValueError,
         r"layer_norm: input of shape .* must end in normalized_shape \(4,\)"),
        (lambda: F.layer_norm(IMAGES, 5, normal(4)), ValueError,
         r"layer_norm: weight must have shape \(5,\), got \(4,\)"),
        (lambda: F.layer_norm(IMAGES, ()), ValueError, "must end in normalized_shape"),
        (lambda: F.dropout(IMAGES, 1.5, rng=rng()), ValueError, "dropout: p must be between 0 and 1, got 1.5"),
        (lambda: F.dropout(IMAGES), TypeError, "dropout: rng is required in training"),
        (lambda: nn.Dropout(-0.1, rng=rng()), ValueError, "Dropout: p must be between 0 and 1"),
        (lambda: nn.Dropout(0.1), TypeError, "rng"),
        (lambda: F.embedding(np.array([0.5]), normal(3, 2)), TypeError,
         "embedding: input must be an array of integers"),
        (lambda: F.embedding(np.array([3]), normal(3, 2)), ValueError, r"embedding: input must be in 0..2, got 3..3"),
        (lambda: F.embedding(np.array([-1, 1]), normal(3, 2)), ValueError, r"must be in 0..2, got -1..1"),
        (lambda: F.embedding(np.array([0]), normal(3)), ValueError, r"weight must be \(rows, D\), got shape \(3,\)"),
        (lambda: F.cross_entropy(normal(2, 3), LABELS + 1), ValueError,
         r"cross_entropy.*target must be in 0..2, got 1..3"),
        (lambda: F.cross_entropy(normal(2, 3), LABELS - 1), ValueError, r"must be in 0..2, got -1..1"),
        (lambda: F.cross_entropy(normal(2, 3), LABELS * 1.0), TypeError,
         "cross_entropy.*array of integers, or probabilities of input's shape .2, 3., got float64"),
        (lambda: F.cross_entropy(normal(2, 3), [0, 2]), TypeError, "array of integers, got list"),
        (lambda: F.cross_entropy(normal(2, 3), LABELS[:1]), ValueError, r"without axis 1, got \(1,\) for \(2, 3\)"),
        (lambda: F.cross_entropy(normal(3), LABELS), ValueError,
         r"input must be \(N, classes, ...\), got shape \(3,\)"),
        (lambda: F.cross_entropy(normal(2, 3), LABELS * 0, ignore_index=0), ValueError, "all targets are ignored"),
        (lambda: F.cross_entropy(normal(2, 3), LABELS, normal(2)), ValueError, r"weight must have shape \(3,\), got"),
        (lambda: F.cross_entropy(normal(2, 3), LABELS, normal(3), True), TypeError, "positional"),
        (lambda: F.cross_entropy(normal(2, 3), LABELS, label_smoothing=2), ValueError, "label_smoothing must be fr"),
        (lambda: F.huber_loss(normal(2), normal(2), delta=0), ValueError, "huber_loss: delta must be above 0, got 0"),
        (lambda: F.smooth_l1_loss(normal(2), normal(2), beta=-1), ValueError, "beta must not be negative, got -1"),
        (lambda: F.kl_div(normal(2), normal(3)), ValueError, "kl_div: target must have input's shape"),
        (lambda: F.gaussian_nll_loss(normal(2), normal(2), normal(2) * 0 - 1), ValueError, "var must not be negative"),
        (lambda: F.gaussian_nll_loss(normal(2, 3), normal(2, 3), normal(3)), ValueError, "var must have input's shape"),
        (lambda: F.binary_cross_entropy(normal(2) * 0 + 2, normal(2)), ValueError, "input must be probabilities"),
        (lambda: F.gelu(normal(2), "erf"), ValueError, "gelu: approximate must be 'none' or 'tanh', got 'erf'"),
        (lambda: F.group_norm(IMAGES, 2), ValueError, "num_groups must be a divisor of the 3 channels, got 2"),
        (lambda: F.group_norm(normal(1, 3), 3), ValueError, r"a group takes more than 1 value, got .*\(1, 3\)"),
        (lambda: F.group_norm(IMAGES, 3, normal(2)), ValueError, r"group_norm: weight must have shape \(3,\)"),
        (lambda: F.group_norm(IMAGES, 3, shift=normal(3)), ValueError, "group_norm: shift must have shape"),
        (lambda: F.instance_norm(normal(2, 3, 1)), ValueError, "instance_norm: a channel takes more than 1 pixel"),
        (lambda: F.instance_norm(IMAGES, use_input_stats=False), ValueError, "are required in evaluation"),
        (lambda: F.rms_norm(IMAGES, 4), ValueError, r"rms_norm: input .* must end in normalized_shape \(4,\)"),
        (lambda: nn.GroupNorm(2, 3), ValueError, "num_groups must divide the 3 channels, got 2"),
        (lambda: nn.InstanceNorm2d(3)(normal(2, 3)), ValueError, "InstanceNorm2d: input must have 4 axes and 3"),
        (lambda: F.scaled_dot_product_attention(normal(2, 3), normal(2, 4), normal(2, 3)), ValueError,
         r"query and key must be \(..., L, E\) and \(..., S, E\), got \(2, 3\), \(2, 4\)"),
        (lambda: F.scaled_dot_product_attention(normal(2, 3), normal(4, 3), normal(2, 3)), ValueError,
         "value must have as many rows as key"),
        (lambda: F.scaled_dot_product_attention(*[normal(2, 3)] * 3, dropout_p=0.1), TypeError, "rng is required"),
        (lambda: F.scaled_dot_product_attention(*[normal(2, 3)] * 3, normal(2, 2), is_causal=True), ValueError,
         "give either attn_mask or is_causal"),
        (lambda: nn.MultiheadAttention(4, 3, rng=rng()), ValueError, "num_heads must divide embed_dim 4, got 3"),
        (lambda: nn.MultiheadAttention(4, 2, rng=rng())(*[FLOATS] * 3, attn_mask=np.zeros((3, 2))),
         ValueError, r"attn_mask must have shape \(2, 2\), got \(3, 2\)"),
        (lambda: F.bilinear(normal(2, 3), normal(2, 4), normal(5, 4, 3)), ValueError, "bilinear: inputs and weight"),
        (lambda: nn.Bilinear(0, 1, 2, rng=rng()), ValueError, "Bilinear: in1_features, in2_features and out_fea"),
        (lambda: nn.utils.parametrizations.weight_norm(nn.ReLU()), ValueError, "ReLU has no parameter weight"),
        (lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(2, 2, rng=rng()), n_power_iterations=0, rng=rng()),
         ValueError, "n_power_iterations must be at least 1, got 0"),
        (lambda: nn.CrossEntropyLoss(reduction="avg"), ValueError, "CrossEntropyLoss: reduction must be 'mean'"),
        (lambda: nn.init.eye_(normal(3)), ValueError, "eye_: tensor must have 2 axes"),
        (lambda: nn.init.dirac_(normal(3, 2)), ValueError, "dirac_: tensor must have 3 to 5 axes"),
        (lambda: nn.init.sparse_(normal(3, 2), 2.0, generator=rng()), ValueError, "sparsity be from 0 to 1"),
        (lambda: nn.init.trunc_normal_(normal(2), 0, 1, 9, 10, generator=rng()), ValueError, "trunc_normal_: from 9"),
        (lambda: F.cross_entropy(normal(2, 3), LABELS, reduction="avg"), ValueError,
         "'mean', 'sum' or 'none', got 'avg'"),
        (lambda: F.cross_entropy(normal(0, 3), LABELS[:0]), ValueError, "there is no mean of no elements"),
        (lambda: F.nll_loss(normal(2, 3), LABELS + 9), ValueError, r"nll.*must be in 0..2"),
        (lambda: F.mse_loss(normal(2, 3), normal(2, 1)), ValueError, r"mse_loss: target must have input's shape, got"),
        (lambda: F.l1_loss(normal(2, 3), normal(3)), ValueError, "l1_loss: target must have input's shape"),
        (lambda: F.binary_cross_entropy_with_logits(normal(2, 3), normal(2, 1)), ValueError, "must have input's shape"),
        (lambda: F.gated_activation(normal(2, 3)), ValueError, "even number of channels"),
        (lambda: F.lstm_cell(normal(2, 3), (normal(2, 4), normal(2, 5)), normal(16, 3), normal(16, 4)), ValueError,
         r"lstm_cell: c must have shape \(2, 4\), got \(2, 5\)"),
        (lambda: F.lstm_cell(normal(3, 3), (normal(2, 4), normal(2, 4)), normal(16, 3), normal(16, 4)), ValueError,
         r"lstm_cell: h must have shape \(3, 4\), got \(2, 4\)"),
        (lambda: F.lstm_cell(normal(2, 2), (normal(2, 4), normal(2, 4)), normal(16, 3), normal(16, 4)), ValueError,
         r"lstm_cell: input must have shape \(2, 3\), got \(2, 2\)"),
        (lambda: F.lstm_cell(normal(2, 3), (normal(2, 4), normal(2, 4)), normal(12, 3), normal(16, 4)), ValueError,
         r"w_ih must have shape \(16, 3\)"),
        (lambda: nn.LSTM(2, 3, 0, rng=rng()), ValueError, "num_layers must be an integer of at least 1, got 0"),
        (lambda: nn.LSTM(2, 3, dropout=2, rng=rng()), ValueError, "LSTM: dropout must be between 0 and 1, got 2"),
        (lambda: nn.LSTM(0, 3, rng=rng()), ValueError, "input_size and hidden_size must be at least 1, got 0"),
        (lambda: nn.LSTM(2, 3, rng=rng())(normal(4, 2)), ValueError, "input must have 3 axes"),
        (lambda: nn.LSTM(2, 3, rng=rng())(normal(0, 4, 2)), ValueError, "at least one step"),
        (lambda: nn.LSTM(2, 3, rng=rng())(normal(4, 1, 2), (normal(1, 3), normal(1, 3))), ValueError,
         r"h and c must have shape \(1, 1, 3\), got \(1, 3\)"),
        (lambda: nn.Conv2d(4, 4, 3, groups=3, rng=rng()), ValueError,
         "Conv2d: groups must divide the 4 input and 4 output channels, got 3"),
        (lambda: nn.Conv2d(4, 4, 3, padding_mode="mirror", rng=rng()), ValueError, "padding_mode must be 'zeros', "),
        (lambda: nn.Conv2d(0, 4, 3, rng=rng()), ValueError, "every side of a weight must be at least 1"),
        (lambda: nn.Conv2d(1, 4, "3", rng=rng()), ValueError, "Conv2d: kernel_size must be an integer"),
        (lambda: nn.ConvTranspose2d(4, 4, 3, groups=3, rng=rng()), ValueError,
         "ConvTranspose2d: groups must divide"),
        (lambda: nn.MaskedConv2d(3, 4, 3, "A", 3, rng=rng()), ValueError, "channels must divide"),
        (lambda: nn.Linear(3, 0, rng=rng()), ValueError, "every side of a weight"),
        (lambda: nn.Module()(1), NotImplementedError, r"Module doesn't define forward\(\)"),
        (lambda: nn.Module().register_buffer("b", W), TypeError,
         "register_buffer: b must be a leaf tensor that doesn't"),
        (lambda: nn.Module().register_buffer("b", np.zeros(1)), TypeError, "register_buffer: b must be a leaf tensor"),
        (lambda: nn.init.xavier_normal_(normal(3), generator=rng()), ValueError, r"at least 2 axes, got shape \(3,\)"),
        (lambda: nn.init.orthogonal_(normal(3), generator=rng()), ValueError,
         "orthogonal_: tensor must have at least 2"),
        (lambda: nn.init.kaiming_normal_(W, mode="fan", generator=rng()), ValueError,
         "mode must be 'fan_in' or 'fan_out'"),
        (lambda: nn.init.kaiming_normal_(W, nonlinearity="gelu", generator=rng()), ValueError, "got 'gelu'"),
        (lambda: nn.init.zeros_(W * 2), RuntimeError, "write: only a tensor made by tinygen.tensor"),
    ],
)  # fmt: skip
def test_bad_arguments_get_one_clear_sentence(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_unknown_arguments_of_pytorch_are_not_in_any_signature():
    for name in ("inplace", "size_average", "enable_gqa", "device"):
        for function in vars(F).values():
            if inspect.isfunction(function):
                assert name not in inspect.signature(function).parameters


# ------------------------------------------------------------------------------------------------- convolutions


@pytest.mark.fault("M01")
@settings(max_examples=30)
@given(
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)), half=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    mask=st.sampled_from("AB"), channels=st.integers(1, 3), factor=st.integers(1, 2), seed=seeds, data=st.data(),
)  # fmt: skip
def test_masked_convolution_sees_exactly_the_past(size, half, mask, channels, factor, seed, data):
    (h, w), c, k = size, channels * factor, tuple(2 * n + 1 for n in half)
    x = normal(1, c, h, w, seed=seed)
    weight = tinygen.tensor(rng(seed).uniform(0.5, 1, (c, c, *k)))
    y = F.masked_conv2d(x, weight, None, mask, channels)
    assert y.shape == x.shape
    out = tuple(data.draw(st.integers(0, n - 1)) for n in (c, h, w))
    (g,) = tinygen.grad(y[(0, *out)], x)
    for i in np.ndindex(c, h, w):
        behind = (out[1] - i[1], out[2] - i[2])
        groups = out[0] // factor - i[0] // factor
        seen = behind > (0, 0) or (behind == (0, 0) and (groups > 0 if mask == "A" else groups >= 0))
        near = abs(behind[0]) <= half[0] and abs(behind[1]) <= half[1]
        assert (g.numpy()[(0, *i)] != 0) == (seen and near)


@settings(max_examples=20)
@given(st.sampled_from([(1, 1), (3, 3), (5, 1)]), st.sampled_from("AB"), st.integers(1, 33), st.booleans(), seeds)
def test_a_masked_convolution_of_relu_and_a_sum_are_the_same_as_separate_ops(kernel, mask, outputs, adds, seed):
    x, weight, bias = normal(2, 3, 5, 4, seed=seed), normal(outputs, 3, *kernel, seed=seed + 1), normal(outputs)
    add = normal(2, outputs, 5, 4, seed=seed + 2) if adds else None
    inputs = [t for t in (x, weight, bias, add) if t is not None]
    one = F.masked_conv2d(x, weight, bias, mask, relu=True, add=add)
    several = F.masked_conv2d(F.relu(x), weight, bias, mask)
    several = several if add is None else several + add
    np.testing.assert_allclose(one.numpy(), several.numpy(), rtol=1e-12, atol=1e-12)
    g = rng(seed).standard_normal(one.shape)
    for got, want in zip(tinygen.grad(one, inputs, g), tinygen.grad(several, inputs, g), strict=True):
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("conv", "shape", "kernel"),
    [(F.conv2d, (2, 3, 5, 4), (3, 1)), (F.conv2d, (3, 5, 4), (1, 3)), (F.conv1d, (2, 3, 6), (3,))],
)
def test_a_convolution_and_a_sum_are_the_same_as_separate_ops(conv, shape, kernel):
    x, weight, bias = normal(*shape), normal(4, 3, *kernel, seed=1), normal(4, seed=2)
    add = normal(*conv(x, weight).shape, seed=3)
    one, several = conv(x, weight, bias, add=add), conv(x, weight, bias) + add
    np.testing.assert_allclose(one.numpy(), several.numpy(), rtol=1e-12, atol=1e-12)
    inputs, g = [x, weight, bias, add], rng(4).standard_normal(one.shape)
    for got, want in zip(tinygen.grad(one, inputs, g), tinygen.grad(several, inputs, g), strict=True):
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("mask", "channels"), [("A", 1), ("B", 1), ("A", 3), ("B", 3)])
def test_weights_of_hidden_taps_do_not_matter_and_get_no_gradient(mask, channels):
    weight = normal(6, 3, 3, 5)
    (g,) = tinygen.grad(F.masked_conv2d(IMAGES, weight, None, mask, channels).sum(), weight)
    hidden = g.numpy() == 0
    assert hidden[:, :, 2].all()
    assert not hidden[:, :, 0].any()
    poisoned = weight.numpy().copy()
    poisoned[hidden] = np.nan
    got = F.masked_conv2d(IMAGES, tinygen.tensor(poisoned), None, mask, channels)
    np.testing.assert_array_equal(got.numpy(), F.masked_conv2d(IMAGES, weight, None, mask, channels).numpy())


@pytest.mark.fault("M06")
@settings(max_examples=100)
@given(
    sizes=st.tuples(*[st.integers(1, 3)] * 3, *[st.integers(1, 7)] * 2, *[st.integers(1, 4)] * 2),
    stride=st.integers(1, 3), padding=st.integers(0, 3), dilation=st.integers(1, 2), seed=seeds,
)  # fmt: skip
def test_transposed_convolution_is_the_adjoint(sizes, stride, padding, dilation, seed):
    """<conv(x), y> = <x, conv_transpose(y)>, whatever pixels at the border the stride leaves over."""
    n, i, o, h, w, kh, kw = sizes
    reach = [size + 2 * padding - dilation * (k - 1) - 1 for size, k in ((h, kh), (w, kw))]
    assume(min(reach) >= 0)
    x, weight = normal(n, i, h, w, seed=seed), normal(o, i, kh, kw, seed=seed + 1)
    forward = F.conv2d(x, weight, None, stride, padding, dilation)
    y = normal(*forward.shape, seed=seed + 2)
    left_over = tuple(r % stride for r in reach)
    back = F.conv_transpose2d(y, weight, None, stride, padding, left_over, 1, dilation)
    assert back.shape == x.shape
    assert (forward * y).sum().item() == pytest.approx((x * back).sum().item(), abs=1e-9)


def test_padding_by_name():
    same = F.conv2d(IMAGES, normal(4, 3, 3, 5), padding="same", dilation=(2, 1))
    assert same.shape == (2, 4, 5, 5)
    np.testing.assert_array_equal(F.conv2d(IMAGES, W, padding="valid").numpy(), F.conv2d(IMAGES, W).numpy())


# -------------------------------------------------------------------------------------------------- memory order

KEEP_NHWC = {
    "conv2d": lambda x: F.conv2d(x, normal(4, 4, 3, 3, dtype=np.float32), stride=2, padding=1),
    "conv_transpose2d": lambda x: F.conv_transpose2d(x, normal(4, 4, 3, 3, dtype=np.float32), stride=2),
    "masked_conv2d": lambda x: F.masked_conv2d(x, normal(4, 4, 3, 3, dtype=np.float32)),
    "max_pool2d": lambda x: F.max_pool2d(x, 2, 1, 1),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 2),
    "interpolate": lambda x: F.interpolate(x, scale_factor=2),
    "interpolate, nearest": lambda x: F.interpolate(x, scale_factor=1.5),
    "conv2d in groups": lambda x: F.conv2d(x, normal(4, 2, 3, 3, dtype=np.float32), groups=2),
    "depthwise conv_transpose2d": lambda x: F.conv_transpose2d(x, normal(4, 1, 3, 3, dtype=np.float32), groups=4),
    "max_pool2d, rounded up": lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True),
    "avg_pool2d, rounded up": lambda x: F.avg_pool2d(x, 3, 2, 1, True, False),
    "pad, reflect": lambda x: F.pad(x, (1, 2, 0, 1), "reflect"),
    "pad, replicate": lambda x: F.pad(x, (1, 2, 0, 1), "replicate"),
    "pad, circular": lambda x: F.pad(x, (1, 2, 0, 1), "circular"),
    "pad": lambda x: F.pad(x, (1, 2, 0, 1)),
    "pad with a value": lambda x: F.pad(x, (1, 2, 0, 1), value=3.0),
    "batch_norm": nn.BatchNorm2d(4),
    "batch_norm in evaluation": nn.BatchNorm2d(4).eval(),
    "layer_norm": nn.LayerNorm((6, 8)),
    "group_norm": nn.GroupNorm(2, 4, silu=True),
    "instance_norm": nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
    "rms_norm": nn.RMSNorm(8),
    "silu": F.silu,
    "gelu": F.gelu,
    "mish": F.mish,
    "dropout": lambda x: F.dropout(x, rng=rng()),
    "gated_activation": F.gated_activation,
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "softplus": F.softplus,
    "softmax": lambda x: F.softmax(x, 1),
    "log_softmax": lambda x: F.log_softmax(x, 1),
    "a slice of the channels": lambda x: x[:, :2] * 2,
    "concatenated channels": lambda x: tinygen.cat([x, x], 1),
}


@pytest.mark.parametrize("name", KEEP_NHWC)
def test_images_stay_nhwc_in_memory_forwards_and_backwards(name):
    x = image(2, 4, 6, 8)
    wrong = []

    def watch(call, run):
        results = run()
        for r in results if isinstance(results, tuple) else (results,):
            if getattr(r, "shape", ())[:1] == (2,) and r.ndim == 4 and min(r.shape[1:]) > 1 and not is_nhwc(r):
                wrong.append((call.op.name, call.phase, r.shape, r.strides))
        return results

    with tinygen.hook(watch):
        y = KEEP_NHWC[name](x)
        upstream = tinygen.tensor(np.ones_like(y._array))
        tinygen.grad(y, x, grad_outputs=upstream)
    assert is_nhwc(y)
    assert y.dtype == np.float32
    assert not wrong


def test_images_resized_by_products_are_nhwc_and_so_are_their_gradients():
    x = image(2, 4, 6, 8)
    y = F.interpolate(x, scale_factor=1.5, mode="bilinear")
    (g,) = tinygen.grad(y, x, grad_outputs=np.ones(y.shape, np.float32))
    assert is_nhwc(y)
    assert is_nhwc(g)


@pytest.mark.parametrize("make", DRAWING[1:4])
def test_kernels_and_their_gradients_are_hwio_in_memory(make):
    layer = make(rng=rng())
    layer(image(2, 6, 5, 5)).sum().backward()
    for array in (layer.weight._array, layer.weight.grad._array):
        assert array.transpose(2, 3, 1, 0).flags.c_contiguous
        assert array.dtype == np.float32


# ------------------------------------------------------------------------------------------------------- the rest


@given(p=st.sampled_from([0.1, 0.5, 0.9]), seed=seeds, dtype=st.sampled_from([np.float32, np.float64]))
def test_dropout(p, seed, dtype):
    x = tinygen.tensor(np.full((40, 50), 3.0, dtype), requires_grad=True)
    y = F.dropout(x, p, rng=rng(seed))
    kept = y.numpy() != 0
    assert abs(kept.mean() - (1 - p)) < 0.05
    np.testing.assert_allclose(y.numpy()[kept], 3 / (1 - p), rtol=1e-6)
    assert y.dtype == dtype
    (g,) = tinygen.grad(y.sum(), x)
    np.testing.assert_allclose(g.numpy(), kept / (1 - p), rtol=1e-6)
    np.testing.assert_array_equal(F.dropout(x, p, rng=rng(seed)).numpy(), y.numpy())
    turned = tinygen.tensor(np.asfortranarray(x.numpy()))
    np.testing.assert_array_equal(F.dropout(turned, p, rng=rng(seed)).numpy(), y.numpy())


def test_dropout_off_and_complete():
    x = normal(3, 4)
    assert F.dropout(x, training=False) is x
    assert F.dropout(x, 0.0) is x
    assert (F.dropout(x, 1.0, rng=rng()).numpy() == 0).all()
    layer = nn.Dropout(0.5, rng=rng())
    assert not np.array_equal(layer(x).numpy(), layer(x).numpy())
    assert layer.eval()(x) is x


@pytest.mark.fault("M07")
def test_batch_norm_statistics():
    x = normal(4, 3, 5, 2)
    layer = nn.BatchNorm2d(3).to(np.float64)
    y = layer(x * 3.0 + 1.0).numpy()
    np.testing.assert_allclose(y.mean((0, 2, 3)), 0, atol=1e-12)
    np.testing.assert_allclose(y.var((0, 2, 3)), 1, atol=1e-4)
    values = (x.numpy() * 3 + 1).transpose(1, 0, 2, 3).reshape(3, -1)
    np.testing.assert_allclose(layer.running_mean.numpy(), 0.1 * values.mean(1))
    np.testing.assert_allclose(layer.running_var.numpy(), 0.9 + 0.1 * values.var(1, ddof=1))
    assert layer.num_batches_tracked.item() == 1
    assert not layer.running_mean.requires_grad


@pytest.mark.fault("M07")
def test_batch_norm_of_one_image():
    layer = nn.BatchNorm2d(2)
    y = layer(image(1, 2, 3, 3))
    np.testing.assert_allclose(y.numpy().mean((0, 2, 3)), 0, atol=1e-6)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        layer(image(1, 2, 1, 1))
    assert layer.num_batches_tracked.item() == 1
    layer.eval()
    one = image(1, 2, 1, 1)
    expected = (one.numpy()[0, :, 0, 0] - layer.running_mean.numpy()) / np.sqrt(layer.running_var.numpy() + 1e-5)
    np.testing.assert_allclose(layer(one).numpy()[0, :, 0, 0], expected, rtol=1e-5)
    assert layer.num_batches_tracked.item() == 1


def test_batch_norm_in_evaluation_does_not_mix_images():
    layer = nn.BatchNorm2d(3)
    layer(image(4, 3, 2, 2))
    layer.eval()
    x = image(4, 3, 2, 2)
    together, alone = layer(x).numpy(), layer(x[1:2]).numpy()
    np.testing.assert_array_equal(together[1:2], alone)


def test_the_plain_average_of_batch_statistics():
    layer = nn.BatchNorm1d(2, momentum=None).to(np.float64)
    batches = [rng(i).standard_normal((5, 2)) for i in range(3)]
    for batch in batches:
        layer(tinygen.tensor(batch))
    np.testing.assert_allclose(layer.running_mean.numpy(), np.mean([b.mean(0) for b in batches], 0))
    np.testing.assert_allclose(layer.running_var.numpy(), np.mean([b.var(0, ddof=1) for b in batches], 0))


def test_an_lstm_is_its_cell_step_by_step():
    lstm = nn.LSTM(3, 4, rng=rng())
    cell = nn.LSTMCell(3, 4, rng=rng(1))
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in lstm.state_dict().items()})
    x, h0, c0 = (normal(*shape, dtype=np.float32) for shape in ((5, 2, 3), (1, 2, 4), (1, 2, 4)))
    output, (h, c) = lstm(x, (h0, c0))
    state = (h0[0], c0[0])
    for t in range(5):
        state = cell(x[t], state)
        np.testing.assert_allclose(output[t].numpy(), state[0].numpy(), rtol=1e-6)
    np.testing.assert_array_equal(h[0].numpy(), output[-1].numpy())
    np.testing.assert_allclose(c[0].numpy(), state[1].numpy(), rtol=1e-6)
    first = nn.LSTM(3, 4, batch_first=True, rng=rng())
    first.load_state_dict(lstm.state_dict())
    np.testing.assert_array_equal(first(x.transpose(0, 1), (h0, c0))[0].numpy(), output.numpy().swapaxes(0, 1))
    zeros = tinygen.tensor(np.zeros((1, 2, 4), np.float32))
    np.testing.assert_array_equal(lstm(x)[0].numpy(), lstm(x, (zeros, zeros))[0].numpy())


def test_the_smallest_lstm():
    output, (h, c) = nn.LSTM(1, 1, rng=rng())(normal(1, 1, 1, dtype=np.float32))
    assert output.shape == h.shape == c.shape == (1, 1, 1)


def test_gates_have_pytorchs_order():
    """With all weights zero and one block of biases large: i, f, g, o."""
    h, c = tinygen.tensor(np.array([[0.0]])), tinygen.tensor(np.array([[2.0]]))
    x, w = tinygen.tensor(np.zeros((1, 1))), tinygen.tensor(np.zeros((4, 1)))
    sigmoid = 1 / (1 + np.exp(-3.0))
    expected = [1.0, 2 * sigmoid, 1 + 0.5 * np.tanh(3), 1.0]  # c: half of the old one, half of tanh(0)
    for block, value in enumerate(expected):
        b = np.zeros(4)
        b[block] = 3.0
        h_next, c_next = F.lstm_cell(x, (h, c), w, w, tinygen.tensor(b))
        assert c_next.item() == pytest.approx(value)
        assert h_next.item() == pytest.approx((sigmoid if block == 3 else 0.5) * np.tanh(value))


@pytest.mark.parametrize("shuffle", [F.pixel_shuffle, F.pixel_unshuffle])
def test_a_factor_of_1_moves_no_pixel(shuffle):
    np.testing.assert_array_equal(shuffle(IMAGES, 1).numpy(), IMAGES.numpy())


def test_a_border_of_ones():
    padded = F.pad(IMAGES, (1, 2), value=1).numpy()
    assert (padded[..., :1] == 1).all()
    assert (padded[..., -2:] == 1).all()
    np.testing.assert_array_equal(padded[..., 1:-2], IMAGES.numpy())


@given(st.tuples(*[st.integers(1, 4)] * 4), st.integers(1, 3), st.integers(1, 3))
def test_averaging_undoes_upsampling(shape, a, b):
    x = normal(*shape)
    big = F.interpolate(x, scale_factor=(a, b))
    assert big.shape == (*shape[:2], a * shape[2], b * shape[3])
    np.testing.assert_array_equal(big.numpy(), x.numpy().repeat(a, 2).repeat(b, 3))
    np.testing.assert_allclose(F.avg_pool2d(big, (a, b)).numpy(), x.numpy(), rtol=1e-12)
    np.testing.assert_array_equal(F.max_pool2d(big, (a, b)).numpy(), x.numpy())


def test_a_border_is_zero_unless_told_otherwise():
    np.testing.assert_array_equal(F.pad(tinygen.tensor([[5.0]]), (1, 0, 0, 1)).numpy(), [[0, 5], [0, 0]])


@pytest.mark.fault("G10")
def test_of_equal_pixels_the_first_gets_the_gradient():
    x = tinygen.tensor(np.zeros((1, 1, 2, 4)), requires_grad=True)
    (g,) = tinygen.grad(F.max_pool2d(x, 2).sum(), x)
    np.testing.assert_array_equal(g.numpy()[0, 0], [[1, 0, 1, 0], [0, 0, 0, 0]])


def test_max_pooling_passes_nan_and_minus_infinity_on():
    x = np.array([[1.0, np.nan, -np.inf, -np.inf], [2.0, 3.0, -np.inf, -np.inf]])[None, None]
    np.testing.assert_array_equal(F.max_pool2d(tinygen.tensor(x), 2).numpy()[0, 0], [[np.nan, -np.inf]])


@pytest.mark.fault("G11")
@given(
    st.lists(st.lists(st.floats(-1e4, 1e4), min_size=3, max_size=3), min_size=1, max_size=4),
    st.sampled_from([np.float32, np.float64]),
)
def test_cross_entropy_is_finite_and_its_gradient_sums_to_zero(logits, dtype):
    x = tinygen.tensor(np.array(logits, dtype), requires_grad=True)
    labels = np.arange(len(logits)) % 3
    losses = F.cross_entropy(x, labels, reduction="none")
    assert np.isfinite(losses.numpy()).all()
    assert (losses.numpy() >= 0).all()
    (g,) = tinygen.grad(losses.sum(), x)
    assert np.isfinite(g.numpy()).all()
    np.testing.assert_allclose(g.numpy().sum(1), 0, atol=1e-5)


def test_reductions():
    x, labels = normal(3, 4, 2), rng().integers(0, 4, (3, 2))
    every = F.cross_entropy(x, labels, reduction="none")
    assert every.shape == (3, 2)
    probabilities = np.exp(x.numpy()) / np.exp(x.numpy()).sum(1, keepdims=True)
    np.testing.assert_allclose(every.numpy(), -np.log(np.take_along_axis(probabilities, labels[:, None], 1)[:, 0]))
    assert F.cross_entropy(x, labels).item() == pytest.approx(every.numpy().mean())
    assert F.cross_entropy(x, labels, reduction="sum").item() == pytest.approx(every.numpy().sum())
    np.testing.assert_allclose(F.nll_loss(F.log_softmax(x, 1), labels, reduction="none").numpy(), every.numpy())
    assert F.cross_entropy(x, tinygen.tensor(labels)).item() == F.cross_entropy(x, labels.astype(np.uint8)).item()
    assert F.cross_entropy(normal(0, 4), labels[:0, 0], reduction="sum").item() == 0


def test_flatten_keeps_the_order_of_channels():
    x = image(2, 3, 2, 2)
    np.testing.assert_array_equal(nn.Flatten()(x).numpy(), np.ascontiguousarray(x.numpy()).reshape(2, -1))
    assert nn.Flatten()(image(0, 3, 2, 2)).shape == (0, 12)
    assert nn.Identity()(x) is x


def test_functions_of_plain_arrays_give_plain_arrays():
    x = rng().standard_normal((2, 4, 4, 4))
    for result in (
        F.conv2d(x, x[:, :, :3, :3]), F.max_pool2d(x, 2), F.avg_pool2d(x, 2), F.interpolate(x, scale_factor=2),
        F.pad(x, (1, 1), value=2.0), F.dropout(x, rng=rng()), F.batch_norm(x, None, None, training=True),
        F.group_norm(x, 2, silu=True, shift=x[0, 0][:2]), F.instance_norm(x), F.rms_norm(x, 4), F.gelu(x), F.mish(x),
        F.scaled_dot_product_attention(x, x, x, is_causal=True), F.huber_loss(x, x, "none"),
        F.cross_entropy(x, x, label_smoothing=0.1, reduction="none"), F.bilinear(x[0, 0], x[0, 0], x[0]),
        F.gated_activation(x), F.mse_loss(x, x, reduction="none"), F.embedding(np.array([1]), x[0, 0]),
        *F.lstm_cell(x[0, 0], (x[0, 0], x[0, 0]), x.reshape(-1, 4)[:16], x.reshape(-1, 4)[:16]),
    ):  # fmt: skip
        assert isinstance(result, np.ndarray)


COMPOSED = {
    "masked_conv2d": (lambda x, w, b: F.masked_conv2d(x, w, b, "B"), [(1, 2, 3, 3), (2, 2, 3, 3), (2,)]),
    "max_pool2d": (lambda x: F.max_pool2d(x, 2, 1), [(1, 2, 3, 3)]),
    "interpolate": (lambda x: F.interpolate(x, size=(4, 6)), [(1, 2, 2, 3)]),
    "pad": (lambda x: F.pad(x, (0, 1, 2, 0), value=1.5), [(2, 3)]),
    "batch_norm": (lambda x, w, b: F.batch_norm(x, None, None, w, b, True), [(3, 2, 2, 2), (2,), (2,)]),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (2, 3), w, b), [(2, 2, 3), (2, 3), (2, 3)]),
    "lstm_cell": (
        lambda x, h, c, w, u, b: F.lstm_cell(x, (h, c), w, u, b, b),
        [(2, 3), (2, 2), (2, 2), (8, 3), (8, 2), (8,)],
    ),
    "mse_loss": (F.mse_loss, [(2, 3), (2, 3)]),
    "l1_loss": (F.l1_loss, [(2, 3), (2, 3)]),
    "cross_entropy": (lambda x: F.cross_entropy(x, np.array([[0, 2], [1, 1]])), [(2, 3, 2)]),
    "embedding": (lambda w: F.embedding(np.array([[0, 2], [2, 2]]), w), [(3, 2)]),
}


@pytest.mark.fault("G01", "G02")
@pytest.mark.parametrize("name", COMPOSED)
def test_gradients_of_first_and_second_order(name):
    function, shapes = COMPOSED[name]
    gradcheck.check(function, [rng(i).standard_normal(shape) for i, shape in enumerate(shapes)], order=2)


@pytest.mark.parametrize("make", [lambda g: nn.BatchNorm2d(4), lambda g: nn.Conv2d(4, 4, 3, rng=g)])
def test_a_layer_can_be_trained_between_evaluations(make):
    """One step with gradient descent lowers the loss, and evaluation leaves everything as it is."""
    layer = make(rng())
    x, target = image(3, 4, 4, 4), 0.5
    before = {name: value.copy() for name, value in layer.state_dict().items()}
    layer.eval()
    layer(x)
    for name, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    layer.train()
    losses = []
    for _ in range(3):
        loss = ((layer(x) - target) ** 2).mean()
        losses.append(loss.item())
        layer.zero_grad()
        loss.backward()
        for p in layer.parameters():
            p.write()[...] -= 0.1 * p.grad.numpy()
    assert losses[2] < losses[1] < losses[0]
