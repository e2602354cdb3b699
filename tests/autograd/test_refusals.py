"""What isn't a tensor or an array is refused in one sentence; leaves are copied and pickled, results are not."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import tinygen
import tinygen.nn.functional as F
from tests.autograd.helpers import equal, here, var
from tinygen import grad, nn, reference, tensor


class Foreign:
    """A tensor of another library."""

    dtype, shape, ndim = "float32", (2,), 1

    def __array__(self, dtype=None, copy=None):
        return np.ones(2, np.float32)

    def detach(self):
        return self


Foreign.__module__ = "torch.autograd"
OURS, THEIRS = var(1, 2, dtype=np.float32), Foreign()
REFUSED = r" is a torch\.Foreign, not a tensor of tinygen or an array; give its \.detach\(\)\.cpu\(\)\.numpy\(\)$"


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: tensor(THEIRS), "tensor: data"),
        (lambda: F.relu(THEIRS), "relu: x"),
        (lambda: tinygen.add(THEIRS, THEIRS), "add: x"),
        (lambda: OURS * THEIRS, "mul: y"),
        (lambda: THEIRS * OURS, "mul: x"),
        (lambda: OURS.numpy() * OURS + THEIRS, "add: y"),
        (lambda: tinygen.cat([OURS, THEIRS]), r"cat: tensors\[1\]"),
        (lambda: tinygen.cat([OURS, OURS], THEIRS), "cat: dim"),
        (lambda: OURS[THEIRS], "getitem: index"),
        (lambda: tinygen.where(THEIRS, OURS, 0.0), "where: condition"),
        (lambda: nn.Linear(2, 3, rng=np.random.default_rng(0))(THEIRS), "linear: input"),
        (lambda: nn.Linear(2, 3, rng=np.random.default_rng(0)).load_state_dict({"weight": THEIRS}),
         "load_state_dict: weight"),
    ],
)  # fmt: skip
def test_a_tensor_of_another_library(call, argument):
    for block in (tinygen.enable_grad(), reference()):
        with block, pytest.raises(TypeError, match="^" + argument + REFUSED):
            call()


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: F.relu(None), r"relu\(None\): x"),
        (lambda: OURS * None, r"mul\(float32 \(2,\), None\): y"),
        (lambda: None * OURS, r"mul\(None, float32 \(2,\)\): x"),
        (lambda: tinygen.tanh(None), r"tanh\(None\): x"),
        (lambda: tinygen.cat([OURS, None]), r"cat\(float32 \(2,\), None, 0\): tensors\[1\]"),
        (lambda: tinygen.matmul(None, np.ones(2)), r"matmul\(None, float64 \(2,\)\): x"),
        (lambda: F.linear(OURS, None), r"linear\(.*\): weight"),
        (lambda: nn.Linear(2, 3, rng=np.random.default_rng(0))(None), r"linear\(.*\): input"),
    ],
)
def test_none_where_a_return_was_forgotten(call, argument):
    for block in (tinygen.enable_grad(), reference()):
        with block, pytest.raises(TypeError, match=f"^{argument} is None \\(did the function that made it return"):
            call()


def test_none_where_it_means_something():
    equal(OURS[None], [[1, 2]])
    equal(OURS.sum(None), 3)
    equal(tinygen.clamp(OURS, None, 1.5), [1, 1.5])


@pytest.mark.parametrize("again", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
class TestCopies:
    def test_of_leaves(self, again):
        x = tensor(np.arange(6.0).reshape(2, 3).T, requires_grad=True)
        (x * 2.0).sum().backward()
        y = again(x)
        assert (y.requires_grad, y.is_leaf, y.dtype) == (True, True, x.dtype)
        equal(y, x.numpy())
        equal(y.grad, x.grad.numpy())
        y.write()[...] = 0
        y.grad.write()[...] = 0
        (y * y).sum().backward()
        assert (x.numpy() != 0).any()
        assert (x.grad.numpy() == 2).all()
        stale = y * y
        y.write()[...] = 1
        with pytest.raises(RuntimeError, match="changed in place"):
            stale.sum().backward()

    def test_of_modules(self, again):
        net = nn.Module()
        net.layers = nn.Sequential(nn.Linear(2, 3, rng=np.random.default_rng(0)), nn.BatchNorm1d(3))
        net.first = net.layers[0]
        twin, x = again(net), np.ones((4, 2), np.float32)
        equal(twin.layers(tensor(x)), net.layers(tensor(x)).numpy())
        assert twin.first is twin.layers[0]
        assert [name for name, _ in twin.named_parameters()] == [name for name, _ in net.named_parameters()]
        twin.first.weight.write()[...] = 0
        assert net.first.weight.numpy().any()

    def test_of_results_are_refused(self, again):
        x = var(1, 2)
        y = x * x
        line = here(-1)
        with pytest.raises(RuntimeError, match=rf"^only leaves can be .*result of mul \({line}\): use "):
            again(y)
        equal(again(y.detach()), [1, 4])
        equal(again(grad(y.sum(), x)[0]), [2, 4])

    def test_of_a_module_that_keeps_its_state(self, again):
        lstm = nn.LSTM(2, 3, rng=np.random.default_rng(0))
        state = None
        for _ in range(300):
            _, state = lstm(tensor(np.ones((1, 1, 2), np.float32)), state)
        lstm.state = state
        with pytest.raises(RuntimeError, match="only leaves can be copied or pickled, not the result of "):
            again(lstm)
        lstm.state = tuple(t.detach() for t in state)
        del state
        equal(again(lstm).state[0], lstm.state[0].numpy())


@pytest.mark.parametrize(
    "call",
    [
        lambda w, other: (w * 2).sum().backward(other),
        lambda w, other: tinygen.grad((w * 2).sum(), w, other),
        lambda w, other: w.new_tensor(other),
    ],
)
def test_arrays_of_another_library_are_refused_wherever_they_come_in(call):
    class Foreign:
        dtype = np.dtype(np.float32)
        shape = ()

        def numpy(self):
            raise AssertionError

    with pytest.raises(TypeError, match=r"Foreign.*\.numpy\(\)"):
        call(tinygen.tensor([1.0, 2.0], requires_grad=True), Foreign())
