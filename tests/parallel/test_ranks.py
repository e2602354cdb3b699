"""Shares, draws, buckets and batch norm of several ranks."""

from __future__ import annotations

import numpy as np
import pytest

import tinygen
from tests.parallel.together import together
from tinygen import nn, ops, parallel, tensor
from tinygen.data import Dataset, Minibatches
from tinygen.models.model import Model
from tinygen.modes import hook
from tinygen.nn import functional as F
from tinygen.parallel import Alone, SharedDraws, along, current, positions, share, whole
from tinygen.training import buckets
from tinygen.training.buckets import Buckets
from tinygen.training.config import Config
from tinygen.training.trainer import Trainer


def at(rank, size):
    """Ranks of which nobody asks for more than who they are."""
    ranks = Alone()
    ranks.rank, ranks.size = rank, size
    return ranks


@pytest.mark.parametrize("n", [0, 1, 5, 7, 8, 16])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_shares_are_disjoint_complete_and_even(n, size):
    shares = [np.arange(n)[share(n, at(rank, size))] for rank in range(size)]
    np.testing.assert_array_equal(np.concatenate(shares), np.arange(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_minibatches_give_each_rank_its_share_of_what_one_process_gets():
    data = np.arange(11)
    whole_ones = list(Minibatches(data, 4, np.random.default_rng(0)))
    parts = [
        list(Minibatches(data, 4, np.random.default_rng(0), share=lambda n, r=r: share(n, at(r, 3)))) for r in range(3)
    ]
    for i, batch in enumerate(whole_ones):
        np.testing.assert_array_equal(np.concatenate([part[i] for part in parts]), batch)


DRAWS = {
    "standard_normal": lambda rng, n: rng.standard_normal((n, 2), np.float32),
    "random": lambda rng, n: rng.random(n),
    "random of a size by name": lambda rng, n: rng.random(size=(n, 3)),
    "integers": lambda rng, n: rng.integers(0, 9, (n, 2), np.uint8),
    "choice": lambda rng, n: rng.choice((-1.0, 1.0), (n, 2)),
    "logistic": lambda rng, n: rng.logistic(size=(n, 2)),
    "gumbel": lambda rng, n: along(1, rng).gumbel(size=(3, n, 2)),
    "normal": lambda rng, n: rng.normal(0.0, 1.0, (n, 2)),
    "uniform": lambda rng, n: rng.uniform(0, 2, n),
    "exponential": lambda rng, n: rng.exponential(1.0, n),
}


@pytest.mark.parametrize("name", DRAWS)
def test_ranks_draw_what_one_process_draws(name):
    axis = int(name == "gumbel")
    expected = DRAWS[name](np.random.default_rng(0), 5)
    found = np.concatenate([DRAWS[name](shared(rank, 2), (2, 3)[rank]) for rank in range(2)], axis)
    np.testing.assert_array_equal(found, expected)


def test_of_axes_of_one_length_only_one_is_that_of_the_images():
    expected = np.random.default_rng(0).normal(0.0, 1.0, (2, 2, 5, 2))[:, :, :2]
    np.testing.assert_array_equal(along(-2, shared(0, 2)).normal(0.0, 1.0, (2, 2, 2, 2)), expected)


def shared(rank, size, images=5):
    rng = SharedDraws(np.random.default_rng(0).bit_generator, at(rank, size))
    rng.share(images)
    return rng


def test_draws_that_are_no_images_are_alike_on_all_ranks():
    for draw in (lambda rng: rng.random(), lambda rng: rng.random(4), lambda rng: whole(rng).random((2, 2))):
        assert np.array_equal(draw(shared(0, 2)), draw(shared(1, 2)))
    np.testing.assert_array_equal(positions(3, shared(1, 2))[0], [2, 3, 4])
    assert positions(3, shared(1, 2))[1] == 5
    assert positions(3, np.random.default_rng(0))[1] == 3


def test_moments_and_rows_of_all_ranks():
    x = np.random.default_rng(0).standard_normal((7, 3, 2))
    for mean, variance, rows, own in together(
        3, lambda: (*parallel.moments(mine(x), (0, 2)), *parallel.all_gather(mine(x)))
    ):
        np.testing.assert_allclose(mean, x.mean((0, 2)))
        np.testing.assert_allclose(variance, x.var((0, 2)))
        np.testing.assert_array_equal(rows, x)
        assert rows[own].shape[0] in (2, 3)


def mine(x):
    return x[share(len(x), current())]


@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 2, 2), (5, 1, 3, 2)])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_of_several_ranks_is_that_of_one(shape, affine):
    """Values, running statistics and first and second derivatives, as of one process."""
    x = np.random.default_rng(0).standard_normal(shape)
    norm = (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(shape[1], affine=affine).to(np.float64)
    weights = np.random.default_rng(1).standard_normal(shape)

    def outcome():
        layer = type(norm)(shape[1], affine=affine).to(np.float64)
        part, w = tensor(mine(x), requires_grad=True), mine(weights)
        (g,) = tinygen.grad((layer(part) ** 3 * w).sum(), part, create_graph=True)
        (h,) = tinygen.grad((g**2 * w).sum(), part)
        return layer(part).numpy(), g.numpy(), h.numpy(), layer.state_dict()

    *one, state = outcome()
    ranks = together(2, outcome)
    for i, expected in enumerate(one):
        np.testing.assert_allclose(np.concatenate([found[i] for found in ranks]), expected, 1e-9, 1e-11)
    for found in ranks:
        for key, value in state.items():
            np.testing.assert_allclose(found[-1][key], value)


@pytest.mark.parametrize("size", [2, 3])
def test_means_and_logsumexp_of_the_whole_batch(size):
    x = np.random.default_rng(0).standard_normal((5, 2))
    for mean, log in together(
        size, lambda: (ops.batch_mean(tensor(mine(x))).numpy(), ops.batch_logsumexp(tensor(mine(x)[:, 0])).item())
    ):
        np.testing.assert_allclose(mean, x.mean(0))
        np.testing.assert_allclose(log, np.log(np.exp(x[:, 0]).sum()))


# ------------------------------------------------------------------------------------------------------------ buckets


def net():
    rng = np.random.default_rng(0)
    layers = [nn.Conv2d(1, 4, 3, padding=1, rng=rng), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1, rng=rng), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(64, 3, rng=rng), nn.Linear(3, 3, rng=rng))


@pytest.mark.parametrize("size", [1, 1 << 20])
def test_gradients_are_those_of_backward(monkeypatch, size):
    """Of one rank to the bit: shared weights, one without a gradient, and arrays that aren't in C order among them."""
    monkeypatch.setattr(buckets, "BYTES", size)
    one, other = net(), net()
    x = tensor(np.random.default_rng(1).standard_normal((2, 4, 4, 1)).astype(np.float32)).permute(0, 3, 1, 2)

    def loss(model):
        h = F.conv2d(model[2](F.relu(model[0](x))), model[2].weight, padding=1)  # a weight that is used twice
        return (model[4](model[3](h)) + model[0].bias[:3]).square().sum()  # and the last layer not at all

    summed = Buckets(one.parameters(), current())
    for _ in range(2):
        one.zero_grad()
        other.zero_grad()
        summed.backward(loss(one))
        loss(other).backward()
        for (name, p), (_, q) in zip(one.named_parameters(), other.named_parameters(), strict=True):
            assert (p.grad is None) == (q.grad is None) == name.startswith("5"), name
            if p.grad is not None:
                np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), 1e-6, 1e-6, err_msg=name)
                assert p.grad.numpy().strides == q.grad.numpy().strides


def test_sums_begin_while_backward_runs(monkeypatch):
    """Each as soon as the gradients of its bucket are there, the last layers' first."""
    monkeypatch.setattr(buckets, "BYTES", 1)
    events = []

    class Noting(Alone):
        def start_sum(self, array, root=None):
            events.append("begun")
            return self

    model = net()
    x = tensor(np.ones((2, 1, 4, 4), np.float32))
    summed = Buckets(model.parameters(), Noting())

    def note(call, run):
        out = run()
        if call.phase == "backward":
            events.append(call.op.name)
        return out

    with hook(note):
        summed.backward(model(x).square().sum())
    assert events.count("begun") == 8
    assert events.index("begun") < events.index("conv2d")  # the linear layers' before the convolutions' rules have run
    last = len(events) - 1 - events[::-1].index("conv2d")
    assert events[:last].count("begun") >= 6


# ----------------------------------------------------------------------------------------------------------- training


class Logarithm(Model):
    """Its loss is log(w) of the mean of the images: nan where those are negative, which levels of 0 are made to be."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__((1, 1, 1), 2)
        self.w = nn.Parameter(np.ones((), np.float32))

    def loss(self, batch, rng):
        return {"nats": (self.w * float(batch.images.sum() or -1)).log()}


@pytest.mark.parametrize("spoiled", [0, 1])
def test_a_loss_that_is_not_finite_on_one_rank_stops_all_and_all_name_the_op(spoiled):
    data = Dataset(np.array([1 - spoiled, spoiled], np.uint8).reshape(2, 1, 1, 1), levels=2)

    def step():
        trainer = Trainer(Config("vae", batch_size=2), Logarithm(np.random.default_rng(0)), data, Unshuffled())
        with (
            pytest.raises(FloatingPointError, match=r"the loss 'nats' became nan at step 1.*log") as e,
            np.errstate(all="ignore"),
        ):
            trainer.advance(0.0)
        return str(e.value)

    one, other = together(2, step)
    assert one == other


class Unshuffled(np.random.Generator):
    """Leaves the images in their order."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(0))

    def permutation(self, x, axis=0):
        return np.arange(x)


def test_a_minibatch_with_fewer_images_than_ranks_is_refused():
    data = Dataset(np.zeros((5, 1, 1, 1), np.uint8), levels=2)

    def steps():
        trainer = Trainer(Config("vae", batch_size=4), Logarithm(np.random.default_rng(0)), data, Unshuffled())
        return [trainer.batch() for _ in range(2)]

    message = "a minibatch of 1 images, the last of an epoch, can't be shared: it has fewer than there are ranks, 2"
    with pytest.raises(ValueError, match=message):
        together(2, steps)
