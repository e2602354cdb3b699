"""What ops do at one place each: defaults, new tensors, wrong shapes."""

import numpy as np
import pytest

import tinygen
from tinygen import ops
from tinygen.nn import functional as F


@pytest.mark.parametrize("data", [[1, 2], np.array([1, 2]), tinygen.tensor([1.0, 2.0])])
def test_a_new_tensor_is_a_leaf_of_the_other_ones_dtype(data):
    x = tinygen.tensor(np.zeros(3, np.float64))
    new = x.new_tensor(data, requires_grad=True)
    assert new.dtype == np.float64
    assert new.requires_grad
    np.testing.assert_array_equal(new.numpy(), [1, 2])
    assert not x.new_tensor(data).requires_grad


def test_a_new_tensor_is_a_copy():
    data = np.zeros(2)
    new = tinygen.tensor(np.zeros(3)).new_tensor(data)
    data[:] = 1
    np.testing.assert_array_equal(new.numpy(), 0)


def test_arrays_of_numpy_are_on_the_cpu():
    x = tinygen.tensor([1.0])
    assert x.device == "cpu"
    assert x.to("cpu").device == "cpu"
    with pytest.raises((TypeError, ValueError), match="elsewhere"):
        x.to("elsewhere")


def test_split_is_along_the_first_axis_unless_told():
    x = np.arange(12).reshape(4, 3)
    assert [part.shape for part in ops.split(x, 2)] == [(2, 3), (2, 3)]
    assert [part.shape for part in ops.split(x, 2, 1)] == [(4, 2), (4, 1)]


@pytest.mark.parametrize("dim", [(), [], None])
def test_no_axes_at_all_are_all_of_them(dim):
    x = np.arange(6.0).reshape(2, 3)
    assert ops.var(x, dim=dim) == pytest.approx(x.var(ddof=1))


def test_a_convolution_of_other_channels_is_refused():
    x, weight = np.zeros((1, 3, 4, 4)), np.zeros((2, 2, 3, 3))
    with pytest.raises(ValueError, match="channels"):
        ops.conv2d(x, weight)


def test_probabilities_may_be_0_and_1():
    losses = F.binary_cross_entropy(np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0, 0.0]), reduction="none")
    np.testing.assert_array_equal(losses, [0, 0, 100, 100])
    for wrong in (-1e-9, 1 + 1e-9):
        with pytest.raises(ValueError, match="probabilities"):
            F.binary_cross_entropy(np.array([wrong]), np.array([0.0]))


def test_the_gradients_of_a_single_number():
    x = tinygen.tensor(3.0, requires_grad=True)
    (2 * ops.cumsum(x, 0)).backward()
    assert x.grad.item() == 2
