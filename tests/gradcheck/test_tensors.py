"""check and check_module on tinygen's tensors, and on libraries that look like a course's."""

import sys
import types

import numpy as np
import pytest

import tinygen
from tinygen import nn, tape
from tinygen.gradcheck import GradcheckError, check, check_module

R = np.random.default_rng(0)


@pytest.fixture
def ops():
    """A way to declare an op whose rule may be wrong, and to forget it again."""
    before = set(tape.REGISTRY)

    def declare(body, rule, second=None):
        made = tape.op(body)
        made.vjp("x")(rule)
        return made

    yield declare
    for name in set(tape.REGISTRY) - before:
        del tape.REGISTRY[name]


def test_right_functions_pass_to_second_order():
    report = check(
        lambda a, b: (tinygen.tanh(a) * b, a + b), (R.standard_normal((3, 4)), R.standard_normal(4)), order=2
    )
    assert report.right == ["da", "db"]


def test_a_wrong_rule_raises_and_names_the_op(ops):
    def wrong_square(x):
        return x * x

    op = ops(wrong_square, lambda gout, x: gout * x)
    with pytest.raises(GradcheckError, match=r"wrong_square: wrong[\s\S]*dx: factor: yours is 1/2"):
        check(op, (R.standard_normal((2, 3)),))


def test_a_wrong_second_order_is_found_where_the_first_is_right(ops):
    def cube(x):
        return x**3

    def rule(gout, x):  # right in value; the Tensor made of a constant array loses the path through x
        return gout * (3 * np.asarray(x.numpy() if isinstance(x, tinygen.Tensor) else x) ** 2)

    op = ops(cube, rule)
    x = R.standard_normal((2, 3))
    assert check(op, (x,))
    with pytest.raises(GradcheckError, match="gradient of cube: wrong"):
        check(op, (x,), order=2)


def test_inputs_of_all_layouts_and_other_arguments():
    x = np.asfortranarray(R.standard_normal((4, 6)))
    assert check(lambda a: tinygen.exp(a), (x[::2, ::-1],))
    assert check(lambda a: tinygen.sin(a), (np.broadcast_to(x[0], (3, 6)),))
    assert check(lambda a, n, idx: tinygen.gather(a, 1, idx) * n, (x, 3.0, np.zeros((4, 2), np.int64)))
    assert check(lambda a: a * 2, (tinygen.tensor(x.astype(np.float32), requires_grad=True),))


def test_bad_arguments():
    with pytest.raises(ValueError, match="order must be 1, or 2"):
        check(tinygen.tanh, (R.standard_normal(3),), order=3)
    with pytest.raises(ValueError, match="library 'tensorflow' is unknown"):
        check(tinygen.tanh, (R.standard_normal(3),), library="tensorflow")
    with pytest.raises(TypeError, match="neither a tinygen nor a PyTorch module"):
        check_module(object(), ())


def test_modules_with_dropout_batch_norm_and_shared_parameters():
    g = np.random.default_rng(0)
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3, rng=g), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.5, rng=g)
    )  # fmt: skip
    state, drawn = net.state_dict(), g.bit_generator.state
    report = check_module(net, (R.standard_normal((3, 2, 5, 6)),))
    assert "grad of 0.weight" in report.right
    assert "grad of 1.bias" in report.right
    assert g.bit_generator.state == drawn
    assert all(np.array_equal(state[k], v) for k, v in net.state_dict().items())
    twice = nn.Linear(4, 4, rng=g)
    assert check_module(nn.Sequential(twice, nn.Tanh(), twice), (R.standard_normal((3, 4)),))


def test_a_module_of_100_000_parameters_takes_few_evaluations(ops):
    calls = 0

    class Net(nn.Module):
        def __init__(self, op=None):
            g = np.random.default_rng(0)
            self.first, self.second = nn.Linear(200, 400, rng=g), nn.Linear(400, 50, rng=g)
            self.op = op

        def forward(self, x):
            nonlocal calls
            calls += 1
            h = tinygen.tanh(self.first(x))
            return self.second(self.op(h) if self.op else h)

    x = R.standard_normal((16, 200))
    assert sum(p.numel() for p in Net().parameters()) > 100_000
    assert check_module(Net(), (x,))
    assert calls < 50

    def lossy(x):
        return x * 1.0

    def rule(gout):
        g = np.array(gout)
        g[:, 7] = 0
        return g

    with pytest.raises(GradcheckError) as caught:
        check_module(Net(ops(lossy, rule)), (x,))
    assert caught.value.report.right == ["grad of second.weight", "grad of second.bias"]
    assert calls < 20_000  # a full Jacobian takes 400,000


class FakeTensor:
    """A course's tensor: value, grad, and one multiplication."""

    scale = 1.0

    def __init__(self, array, dtype="float64", parents=()):
        self.array, self.grad, self.parents = np.array(array, dtype), None, parents

    def numpy(self):
        return self.array

    to_numpy = numpy

    def requires_grad_(self, flag):
        self.flag = flag

    def __mul__(self, other):
        return type(self)(self.array * other.array, parents=(self, other))

    def backward(self, gradient):
        a, b = self.parents
        a.grad = FakeTensor(gradient.array * b.array)
        b.grad = FakeTensor(gradient.array * a.array * self.scale)


@pytest.mark.parametrize("library", ["needle", "minitorch"])
def test_libraries_in_the_style_of_a_course(library, monkeypatch):
    module = types.ModuleType(library)
    module.Tensor = type("Tensor", (FakeTensor,), {"__module__": library})
    module.tensor = module.Tensor
    monkeypatch.setitem(sys.modules, library, module)
    x, y = (module.Tensor(R.standard_normal((2, 3))) for _ in range(2))
    assert check(lambda a, b: a * b, (x, y))
    module.Tensor.scale = -1.0
    with pytest.raises(GradcheckError, match="db: factor: the sign is wrong"):
        check(lambda a, b: a * b, (x, y))
