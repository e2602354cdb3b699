"""The moving average of a network's weights."""

import numpy as np
import pytest

from tinygen import nn, optim, tensor
from tinygen.models.averages import Averaged


def rng(seed=0):
    return np.random.default_rng(seed)


def averaged(decay=0.999):
    network = nn.Sequential(nn.Linear(3, 2, rng=rng()), nn.BatchNorm1d(2))
    return Averaged(network, decay)


def change(module, numbers):
    for p in module.parameters():
        p.write()[...] += numbers.standard_normal(p.shape).astype(np.float32)


@pytest.mark.parametrize("decay", [0.0, 0.4, 0.999])
def test_the_average_is_that_of_its_equation(decay):
    model, numbers = averaged(decay).to(np.float64), rng(1)
    expected = {name: p.numpy().copy() for name, p in model.network.named_parameters()}
    for n in range(1, 8):
        change(model, numbers)
        model.update()
        d = min(decay, (1 + n) / (10 + n))
        for name, p in model.network.named_parameters():
            expected[name] = d * expected[name] + (1 - d) * p.numpy()
    found = dict(model.average.named_buffers())
    for name, value in expected.items():
        np.testing.assert_allclose(found[name].numpy(), value, rtol=0, atol=1e-12)


def test_in_training_the_weights_compute_in_evaluation_their_average():
    model, x = averaged(), tensor(rng().standard_normal((4, 3)).astype(np.float32))
    change(model, rng(1))
    model.eval()
    before = model(x).numpy()
    change(model, rng(2))
    np.testing.assert_array_equal(model(x).numpy(), before)  # until it is told
    model.train()
    assert not np.array_equal(model(x).numpy(), before)
    np.testing.assert_array_equal(model(x).numpy(), model.network(x).numpy())
    model.update()
    assert not np.array_equal(model.eval()(x).numpy(), before)


def test_statistics_of_batch_norm_are_copied():
    model = averaged()
    for _ in range(3):
        model(tensor(rng().standard_normal((8, 3)).astype(np.float32) + 5))
        model.update()
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        np.testing.assert_array_equal(getattr(model.average[1], name).numpy(), getattr(model.network[1], name).numpy())


def test_checkpoints_hold_the_average_and_optimizers_do_not():
    model, again = averaged(), averaged()
    change(model, rng(1))
    model.update()
    assert {name for name, _ in model.named_parameters()} == {
        f"network.{name}" for name in ("0.weight", "0.bias", "1.weight", "1.bias")
    }
    optim.Adam(model.parameters())
    again.load_state_dict(model.state_dict())
    for (name, a), (_, b) in zip(model.named_buffers(), again.named_buffers(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=name)
    for m in (model, again):  # and go on alike
        change(m, rng(2))
        m.update()
    np.testing.assert_array_equal(model.average[0].weight.numpy(), again.average[0].weight.numpy())


def test_a_parameter_of_two_layers_has_one_average():
    layer = nn.Linear(2, 2, rng=rng())
    other = nn.Linear(2, 2, rng=rng(1))
    other.weight = layer.weight
    model = Averaged(nn.Sequential(layer, other))
    assert model.average[0].weight is model.average[1].weight
    first = layer.weight.numpy().copy()
    change(model, rng(2))
    model.update()
    once = 2 / 11 * first + 9 / 11 * layer.weight.numpy()  # not twice
    np.testing.assert_allclose(model.average[1].weight.numpy(), once, rtol=0, atol=1e-6)


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2.0, float("nan")])
def test_a_decay_that_there_is_not(decay):
    with pytest.raises(ValueError, match=r"decay must be from 0 to below 1, got "):
        averaged(decay)
