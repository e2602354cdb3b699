"""Tensors: what they hold, their attributes and conversions, dtypes."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest

import tinygen
from tests.autograd.helpers import equal, var
from tinygen import Tensor, grad, modes, reference, tensor


def test_python_numbers_become_float32_and_arrays_keep_their_dtype():
    for data in (1.5, [1.5, 2], [[1, 2.5]], (1.0,)):
        assert tensor(data).dtype == np.float32
    assert tensor([1, 2]).dtype == np.int64
    assert tensor([True]).dtype == bool
    for dtype in (np.float32, np.float64, np.int32, np.uint8):
        assert tensor(np.ones(2, dtype)).dtype == dtype
    assert tensor(np.float64(1)).dtype == np.float64
    assert tensor([1, 2], np.float64).dtype == np.float64
    assert tensor(tensor([1.0])).dtype == np.float32


def test_tensor_copies_and_keeps_the_order_in_memory():
    a = np.ones((2, 3, 4, 5)).transpose(0, 3, 1, 2)
    t = tensor(a)
    a[...] = 7
    equal(t, np.ones(a.shape))
    assert t.numpy().strides == a.strides
    u = tensor(t)
    u.write()[...] = 3
    equal(t, np.ones(a.shape))


@pytest.mark.fault("G12")
def test_tensor_refuses_what_it_cannot_hold():
    for data in ("a", ["a"], [None], object(), 1j):
        with pytest.raises(TypeError, match=r"^tensor: data must be numbers, not "):
            tensor(data)
    for data in ([1, 2], True, np.ones(2, np.float16)):
        with pytest.raises(TypeError, match=r"^tensor: requires_grad needs float32 or float64, not "):
            tensor(data, requires_grad=True)


def test_attributes_and_conversions():
    t = tensor([[1.5, 2.0, 3.0]])
    assert (t.shape, t.ndim, t.dtype, t.numel(), len(t), t.is_leaf) == ((1, 3), 2, np.float32, 3, 1, True)
    x = var(2.5)[0]
    assert (x.item(), float(x), int(x), bool(x), x.is_leaf) == (2.5, 2.5, 2, True, False)
    assert type(tensor([3]).item()) is int
    assert "made_by=getitem" in repr(x)
    assert "2.5" in repr(x)
    assert "requires_grad=True" in repr(var(1))
    for call, error, words in (
        (t.item, ValueError, "(1, 3)"),
        (lambda: len(x), TypeError, "0-d"),
        (lambda: bool(t), ValueError, "(1, 3)"),
        (lambda: list(x), TypeError, "0-d"),
    ):
        with pytest.raises(error, match=re.escape(words)):
            call()
    assert [row.shape for row in t] == [(3,)]
    assert {x: 1}[x] == 1  # by identity, although == compares elementwise
    equal(t == t, [[True] * 3])
    equal(t != np.array([1.5, 0, 3], np.float32), [[False, True, False]])


def test_numpy_is_a_read_only_view():
    x = var(1, 2)
    a = x.numpy()
    assert np.shares_memory(a, x.numpy())
    with pytest.raises(ValueError, match="read-only"):
        a[0] = 5
    x.write()[0] = 5
    assert a[0] == 5


def test_numpy_takes_a_tensor_that_needs_no_gradient():
    t = tensor([1.5, 2.0])
    assert np.shares_memory(np.asarray(t), t.numpy())
    assert not np.shares_memory(np.array(t), t.numpy())
    assert np.asarray(t, np.float64).dtype == np.float64
    assert np.asarray(t).tolist() == [1.5, 2.0]
    with pytest.raises(TypeError, match=r"becomes an array by \.detach\(\)\.numpy\(\)"):
        np.asarray(var(1, 2))


def test_an_array_on_the_left_of_an_operator():
    x = var(1, 2)
    a = np.array([3.0, 4.0])
    for y, want in (
        (a + x, [4, 6]),
        (a - x, [2, 2]),
        (a * x, [3, 8]),
        (a / x, [3, 2]),
        (a @ x, 11),
        (a > x, [True, True]),
    ):
        assert isinstance(y, Tensor)
        equal(y, want)
    equal(grad(a @ x, x)[0], a)
    equal(grad((a / x).sum(), x)[0], -a / x.numpy() ** 2)


@pytest.mark.fault("G12")
def test_mixing_float32_and_float64_is_refused_by_name():
    x, y = var(1, 2, dtype=np.float32), var(1, 2)
    for call in (
        lambda: x * y,
        lambda: x * y.numpy(),
        lambda: y.numpy() * x,
        lambda: tinygen.cat(x, y),
        lambda: x @ y.detach(),
    ):
        with pytest.raises(
            TypeError, match=r"^(mul|cat|matmul): .* is float(32|64),.* float(32|64); convert one with \.to\(\)"
        ):
            call()
    assert (x.to(np.float64) * y).dtype == np.float64
    assert (x * y.to(np.float32)).dtype == np.float32


def test_numpy_numbers_and_python_numbers_do_not_promote():
    x = var(1, 2, dtype=np.float32)
    for y in (np.sqrt(2) * x, x * np.sqrt(2), x / np.float64(3), x + 1, x * 0.1, 2 - x, x**2, x**0.5, x * np.pi):
        assert y.dtype == np.float32
        for create_graph in (True, False):
            assert grad(y.sum(), x, create_graph=create_graph)[0].dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_array_that_was_pickled_has_gradients(dtype):
    """Its dtype equals NumPy's own, but is another object."""
    again = pickle.loads(pickle.dumps(np.array([1, 2], dtype)))
    assert again.dtype is not np.dtype(dtype)
    x, y = tensor(again, requires_grad=True), var(3, 4, dtype=dtype)
    for _ in range(2):
        for fn in (lambda: x.exp().sum(), lambda: (x * y).tanh().sum(), lambda: (y * again).sum()):
            for block in (modes.enable_grad(), reference()):
                with block:
                    assert fn().requires_grad
    equal(grad((x * y * again).sum(), y)[0], [1, 4])
    equal(grad((x * x).sum(), x)[0], [2, 4])


def test_to_converts_and_its_gradient_comes_back():
    x = var(1, 2, dtype=np.float32)
    y = x.to(np.float64)
    assert y.dtype == np.float64
    for create_graph in (False, True):
        (g,) = grad((x.to(np.float64) ** 2).sum(), x, create_graph=create_graph)
        assert g.dtype == np.float32
        equal(g, [2, 4])
    assert not x.to(np.int64).requires_grad
    assert tensor([1, 2]).to(np.float32).dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zero_dimensional_results_stay_arrays_through_every_step(dtype):
    """NumPy turns 0-d results into scalars; the engine does not."""
    x = var(1, 2, dtype=dtype)
    loss = ((x.sum() * 2.0 + 1) / 4.0 - 3).tanh().abs().mean() ** 2
    y = x.sum().detach()
    for create_graph in (False, True):
        (g,) = grad(loss, x, create_graph=create_graph)
        assert (type(g.numpy()), g.dtype) == (np.ndarray, dtype)
        loss = tinygen.maximum(tinygen.where(y > 0, x.sum(), 0.0), 1.0).relu() * x[0]
    assert (loss.shape, type(loss.numpy())) == ((), np.ndarray)
