"""The gradient check on other libraries' tensors: PyTorch's, and JAX's and autograd's where they are installed."""

import importlib
import importlib.util

import numpy as np
import pytest
import torch

from tinygen.gradcheck import GradcheckError, check, check_module

NUMPY = {"torch": "torch", "jax": "jax.numpy", "autograd": "autograd.numpy"}
INSTALLED = [name for name in NUMPY if importlib.util.find_spec(name)]
R = np.random.default_rng(0)


@pytest.mark.parametrize("library", INSTALLED)
def test_functions_of_one_and_of_several_outputs(library):
    n = importlib.import_module(NUMPY[library])
    x, w = R.standard_normal((3, 4)), R.standard_normal((4, 2))
    report = check(lambda a, b: n.tanh(a @ b), (x, w), library=library)
    assert report.right == ["da", "db"]
    assert check(lambda a, k, b: (n.exp(a) * k, a @ b), (x, 3, w), library=library).right == ["da", "db"]


@pytest.mark.parametrize("library", INSTALLED)
def test_a_gradient_that_stops_is_wrong(library):
    still = {
        "torch": lambda x: x.detach(),
        "jax": lambda x: importlib.import_module("jax").lax.stop_gradient(x),
        "autograd": lambda x: importlib.import_module("autograd.tracer").getval(x),
    }[library]
    with pytest.raises(GradcheckError, match="da: factor: yours is 1/2"):
        check(lambda a: a * still(a), (R.standard_normal((2, 3)),), library=library)
    with pytest.raises(GradcheckError, match="dx: zero"):
        check(still, (R.standard_normal((2, 3)),), library=library, name="still")


def test_the_library_is_that_of_the_inputs():
    x = torch.tensor(R.standard_normal((2, 3)))
    assert check(torch.sin, (x,))
    with pytest.raises(ValueError, match="order must be 1, or 2 for functions of tinygen tensors, got 2"):
        check(torch.sin, (x,), order=2)


class Halved(torch.autograd.Function):
    """Doubles; its gradient doesn't."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, g):
        return g


def test_modules():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.ReLU(), torch.nn.Dropout(0.5))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    images = R.standard_normal((3, 2, 5, 6))
    assert "grad of 0.weight" in check_module(net, (images,), loss=lambda out: (out**2).sum()).right
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    net[2].forward = Halved.apply
    with pytest.raises(GradcheckError, match=r"grad of 1\.bias, grad of input: factor: yours is 1/2"):
        check_module(net, (images,))
