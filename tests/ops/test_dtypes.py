"""Arrays as people have them: integers, float16, other bytes and classes, NaN, axes in lists, what is no array."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygen import nn, ops, tensor
from tinygen.nn import functional as F

IMAGES = np.random.default_rng(0).integers(0, 2, (2, 4, 3, 3)) * 200
WHOLE = {  # what takes integers as float32, of images
    "batch_norm": lambda x: F.batch_norm(x, None, None, training=True),
    "binary_cross_entropy": lambda x: F.binary_cross_entropy(np.full(x.shape, 0.2, np.float32), x > 0),
    "dropout": lambda x: F.dropout(x, 0.5, rng=np.random.default_rng(0)),
    "gaussian_nll_loss": lambda x: F.gaussian_nll_loss(x, x[::-1], np.ones(x.shape, np.float32)),
    "group_norm": lambda x: F.group_norm(x, 2),
    "interpolate": lambda x: F.interpolate(x, 5, mode="bilinear"),
    "layer_norm": lambda x: F.layer_norm(x, 3),
    "linalg_norm": lambda x: ops.norms.linalg_norm(x[0, 0], 1),
    "logsumexp": lambda x: F.logsumexp(x, (1, 2)),
    "norm": lambda x: ops.norm(x),
    "norm_1": lambda x: ops.norm(x, 1, -1),
    "normalize": lambda x: F.normalize(x),
    "rms_norm": lambda x: F.rms_norm(x, 3),
    "softmax": lambda x: F.softmax(x, 1),
    "std": lambda x: ops.std(x, 0),
    "var": lambda x: ops.var(x, (0, 2)),
}


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("dtype", ["uint8", "int8", "bool", "int64"])
def test_integers_count_as_floats(name, dtype):
    values = IMAGES.astype(dtype)
    for wrap in (tensor, np.asarray):
        got, want = (np.asarray(WHOLE[name](wrap(v))) for v in (values, values.astype(np.float32)))
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_a_target_of_bytes_is_no_other_number_than_one_of_floats():
    p, target = np.float32([0.2, 0.7]), np.uint8([0, 1])
    for dtype in (np.uint8, bool, np.int8, np.float32):  # 0 - 1 is 255 in uint8
        losses = F.binary_cross_entropy(tensor(p), tensor(target.astype(dtype)), reduction="none").numpy()
        np.testing.assert_allclose(losses, -np.log([0.8, 0.7]), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int32", "bool"])
def test_sums_and_products_of_integers_are_int64(dtype):
    torch = pytest.importorskip("torch")
    values = np.array([[3, 2], [1, 120]]).astype(dtype)
    for f in ("sum", "cumsum", "prod"):
        for dims in ((), (0,), (-1,)) if f != "cumsum" else ((0,), (-1,)):
            got, want = getattr(tensor(values), f)(*dims), getattr(torch.tensor(values), f)(*dims).numpy()
            assert got.dtype == want.dtype == np.int64
            np.testing.assert_array_equal(got.numpy(), want)
            np.testing.assert_array_equal((got - 130).numpy(), want - 130)  # not modulo 2^64


def test_float16_is_added_up_in_float32():
    x = np.full(100_000, 1.0, np.float16)
    for wrap in (tensor, np.asarray):
        assert ops.mean(wrap(x)) == ops.mean(wrap(x.reshape(-1, 2)), 0)[1] == 1
        assert ops.cumsum(wrap(x[:5000]), 0)[-1] == 5000
        np.testing.assert_allclose(np.asarray(ops.softmax(wrap(x), 0)), 1e-5, rtol=1e-2)
        assert abs(float(ops.logsumexp(wrap(x), 0)) - 12.513) < 0.01
    assert tensor(x * np.float16(300)).std().item() == 0
    spread = tensor(np.tile(np.float16([-300, 300]), 500))
    assert abs(spread.std().item() / 300.15 - 1) < 1e-3  # though 300^2 is above float16's largest
    for y in (spread.std(), spread.norm(), spread.mean(), spread.sum(), spread.cumsum(0)):
        assert y.dtype == np.float16
    images = tensor(IMAGES.astype(np.float16))
    np.testing.assert_allclose(
        F.batch_norm(images, None, None, training=True).numpy(), WHOLE["batch_norm"](IMAGES * 1.0), atol=2e-3
    )


@given(st.sets(st.integers(-3, 2)), st.booleans())
def test_axes_in_a_list_or_none_at_all(dims, keepdim):
    torch = pytest.importorskip("torch")
    dims = [d for d in dims if d < 0 or d - 3 not in dims]
    x = np.random.default_rng(0).standard_normal((2, 3, 40))
    for f in ("sum", "mean", "amax", "amin", "var", "logsumexp"):
        if f == "logsumexp" and not dims:  # PyTorch's raises
            continue
        for values in (x, x[:, :, :2]):  # above and below the size from which `total` has a plan
            a, b = tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
            got, want = getattr(a, f)(dims, keepdim=keepdim), getattr(b, f)(dims, keepdim=keepdim)
            assert got.shape == tuple(want.shape)
            np.testing.assert_allclose(got.numpy(), want.detach().numpy(), rtol=1e-12)
            if f != "var" or dims:  # of no axes PyTorch's gradient of var is infinite
                got.square().sum().backward(), (want**2).sum().backward()
                np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-9, atol=1e-12)


def test_nan_stays_nan():
    x = np.array([[1.0, np.nan, 2.0], [np.nan, np.nan, 1.0]])
    for result in (
        ops.logsumexp(x, 1),
        ops.logsumexp(np.float32(x), 0)[:2],
        *(ops.norm(x, p, 1) for p in (-1, 0.5, 3)),
    ):
        assert np.isnan(result).all()
    for f in ("amax", "amin"):  # and its gradient, as in PyTorch
        t = tensor(x, requires_grad=True)
        with np.errstate(invalid="ignore"):
            getattr(t, f)(1).sum().backward()
        assert np.isnan(t.grad.numpy()).all()


def test_logsumexp_of_nothing():
    for shape, dim, left in (((0,), 0, ()), ((2, 0), 1, (2,)), ((0, 3), (0, 1), ())):
        out = ops.logsumexp(np.zeros(shape), dim)
        assert out.shape == left
        assert (out == -np.inf).all()
    assert ops.logsumexp(np.zeros((2, 0)), 0, True).shape == (1, 0)


@pytest.mark.parametrize("index", [True, False, np.True_, (None, True), (True, 0), (Ellipsis, True)])
def test_a_truth_value_as_an_index_has_a_gradient(index):
    x = tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    weights = np.cos(np.arange(12.0))[: x[index].numel()].reshape(x[index].shape)
    (x[index] * weights).sum().backward()
    want = np.zeros((2, 3))
    np.add.at(want, index, weights)
    np.testing.assert_array_equal(x.grad.numpy(), want)


@pytest.mark.parametrize("index", [np.array([True, False]), np.array([0.0])])
def test_indices_are_integers(index):
    for call in (ops.index_select, ops.gather):
        with pytest.raises(TypeError, match=rf"index must be an array of integers, got {index.dtype}"):
            call(tensor(np.ones(2)), 0, index)


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_other_bytes_and_classes():
    other = np.arange(6, dtype=">f4").reshape(2, 3)
    w = tensor(other, requires_grad=True)
    assert w.dtype is np.dtype(np.float32) or w.dtype.isnative
    (w * other + other * tensor(np.ones(3, np.float32))).sum().backward()
    np.testing.assert_array_equal(w.grad.numpy(), other)
    matrix = np.matrix([[1.0, 2.0], [3.0, 4.0]])  # whose * is a matrix product
    square = [[1, 4], [9, 16]]
    for x, y in (
        (matrix, matrix),
        (tensor(matrix), matrix),
        (matrix, tensor(matrix)),
        (tensor(matrix), tensor(matrix)),
    ):
        np.testing.assert_array_equal(np.asarray(ops.mul(x, y)), square)
    masked = np.ma.masked_array([1.0, 2.0], [False, True])
    for call in (lambda: tensor(masked), lambda: ops.sum(masked), lambda: tensor([1.0, 1.0]) * masked):
        with pytest.raises(TypeError, match="MaskedArray, whose mask would be lost"):
            call()
    for bad in (np.array([1j]), np.array([1], object), np.array(["a"])):
        with pytest.raises(TypeError, match=r"add|unsupported|real numbers"):
            tensor([1.0], requires_grad=True) + bad
    with pytest.raises(TypeError, match=r"where: all arguments must be real numbers, the result would be object"):
        ops.where(np.array([True]), None, tensor([1.0]))
    with pytest.raises(OverflowError, match=r"^add\(uint8 \(1,\), 300\)"):
        tensor(np.uint8([1])) + 300


TAKERS = {  # network functions, and what they take besides their first argument
    F.avg_pool2d: (2,), F.binary_cross_entropy: (IMAGES,), F.conv2d: (IMAGES,), F.cross_entropy: (IMAGES,),
    F.group_norm: (2,), F.huber_loss: (IMAGES,), F.interpolate: (2,), F.kl_div: (IMAGES,),
    F.layer_norm: (2,), F.max_pool2d: (2,), F.mse_loss: (IMAGES,), F.normalize: (), F.pad: ((1, 1),),
    F.pixel_shuffle: (2,), F.softmax: (1,), F.unfold: (2,), ops.norm: (), ops.std: (), ops.var: (),
}  # fmt: skip


@pytest.mark.parametrize("value", [None, [[1.0, 2.0]], 1.5, "a"])
def test_what_is_no_tensor_is_named(value):
    words = "is None .did the function" if value is None else rf"is a {type(value).__name__}, not a tensor"
    for f, rest in TAKERS.items():
        with pytest.raises(TypeError, match=words):
            f(value, *rest)
    rng = np.random.default_rng(0)
    for module in (nn.Linear(2, 2, rng=rng), nn.LSTM(2, 2, rng=rng), nn.BatchNorm1d(2), nn.MaxPool2d(2)):
        with pytest.raises(TypeError, match=rf"input {words}"):
            module(value)
    y = tensor(np.ones((1, 2)))
    for call in (F.mse_loss, F.l1_loss, F.kl_div, F.huber_loss):
        with pytest.raises(TypeError, match=rf"^{call.__name__}: target {words}"):
            call(y, value)


def test_errors_of_a_users_own_forward_stay_what_they_are():
    class Wrong(nn.Module):
        def forward(self, x, options):
            return x * options.size if options else self.missing

    for options in ({"size": 1}, None):
        with pytest.raises(AttributeError):
            Wrong()(tensor([1.0]), options and type("Options", (), options)().missing)
    with pytest.raises(AttributeError, match="missing"):
        Wrong()(tensor([1.0]), None)
