"""The layers of flows: one to one, and the log determinant is that of the Jacobian by brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.models.small import new
from tinygen import grad, nn, no_grad, tensor
from tinygen.models.flow.layers import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Chain,
    Checkerboard,
    Flatten,
    Halves,
    Invertible1x1,
    Permute,
    Split,
    Squeeze,
    lu,
)  # fmt: skip
from tinygen.models.flow.networks import convolutions, perceptron

SHAPE = 4, 4, 4  # of images
ROWS = 7  # numbers in a row


def rng(seed=0):
    return np.random.default_rng(seed)


def conv(kept, outputs):
    return convolutions(kept, 5, outputs, rng(1))


LAYERS = {
    "additive": lambda: AdditiveCoupling(Halves(), conv(2, 2)),
    "additive, rows": lambda: AdditiveCoupling(Halves(exchanged=True), perceptron((3, 5, 4), rng(1))),
    "affine": lambda: AffineCoupling(Halves(), conv(2, 4)),
    "affine, exchanged": lambda: AffineCoupling(Halves(exchanged=True), conv(2, 4)),
    "affine, rows": lambda: AffineCoupling(Halves(), perceptron((4, 5, 6), rng(1))),
    "checkerboard": lambda: AffineCoupling(Checkerboard(4, 4), conv(4, 8)),
    "checkerboard, exchanged": lambda: AffineCoupling(Checkerboard(4, 4, exchanged=True), conv(4, 8)),
    "additive checkerboard": lambda: AdditiveCoupling(Checkerboard(4, 4), conv(4, 4)),
    "actnorm": lambda: ActNorm(4),
    "actnorm, rows": lambda: ActNorm(ROWS),
    "1x1": lambda: Invertible1x1(4, rng(1)),
    "1x1, rows": lambda: Invertible1x1(ROWS, rng(1)),
    "permute": lambda: Permute(rng(1).permutation(4)),
    "permute, rows": lambda: Permute(rng(1).permutation(ROWS)),
    "flatten": lambda: Flatten(SHAPE),
    "squeeze": Squeeze,
    "split": lambda: Split(SHAPE, Chain([ActNorm(2), Squeeze(), Flatten((8, 2, 2))])),
    "chain": lambda: Chain([ActNorm(4), Invertible1x1(4, rng(1)), AffineCoupling(Halves(), conv(2, 4))]),
}
MODELS = {
    "nice": (1, 4, 4), "nice, odd": (1, 3, 5), "nice, color": (3, 1, 1),
    "realnvp": (1, 4, 4), "realnvp, odd": (1, 3, 3), "realnvp, color": (3, 2, 2), "realnvp, 1x1": (3, 1, 1),
    "glow": (1, 4, 4), "glow, color": (3, 3, 1), "glow, 1x1": (3, 1, 1),
}  # fmt: skip


def randomized(module, scale=0.25):
    """In float64 with random weights: at the start nearly everything is the identity, and every mistake passes."""
    numbers = rng(3)
    for p in module.parameters():
        p.write()[...] = scale * numbers.standard_normal(p.shape)
    return module.to(np.float64)


def made(name):
    """(a layer or a model's f with random weights, inputs for it)."""
    if name in MODELS:
        module, shape = new(name.partition(",")[0], MODELS[name], 4).density.layers, MODELS[name]
    else:
        module, shape = LAYERS[name](), (ROWS,) if "rows" in name else SHAPE
    return randomized(module), rng(4).standard_normal((3, *shape))


def jacobians(f, x):
    """d f(x)[n] / d x[n] by a gradient for each output: (N, D, D)."""
    x = tensor(x, requires_grad=True)
    y, _ = f(x)
    y = y.reshape(len(x), -1)
    rows = [grad(y[:, i].sum(), x, retain_graph=True)[0].numpy().reshape(len(x), -1) for i in range(y.shape[1])]
    return np.stack(rows, axis=1)


every_f = pytest.mark.parametrize("name", [*LAYERS, *MODELS])
modes = pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])


@every_f
@modes
def test_the_log_determinant_is_that_of_the_jacobian(name, training):
    f, x = made(name)
    f.train(training)
    log_det = f(tensor(x))[1]
    expected = np.linalg.slogdet(jacobians(f, x))[1]
    log_det = log_det.numpy() if hasattr(log_det, "numpy") else log_det
    np.testing.assert_allclose(np.broadcast_to(log_det, 3), expected, rtol=0, atol=1e-9)


@every_f
@modes
def test_there_and_back_is_nowhere_both_ways(name, training):
    f, x = made(name)
    f.train(training)
    with no_grad():
        z = f(tensor(x))[0]
        np.testing.assert_allclose(f.inverse(z).numpy(), x, rtol=0, atol=1e-10)
        z = tensor(rng(5).standard_normal(z.shape))
        np.testing.assert_allclose(f(f.inverse(z))[0].numpy(), z.numpy(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_every_number_depends_on_many_and_f_is_not_the_identity(name):
    f, x = made(name)
    j = np.abs(jacobians(f, x)).max(axis=0)
    assert (j > 0).sum() > 1.5 * len(j) or len(j) < 4
    assert np.linalg.slogdet(jacobians(f, x))[1].std() > 1e-3 or name.startswith("nice")


# -- masks


@pytest.mark.parametrize("partition", [Halves(), Halves(True), Checkerboard(3, 4), Checkerboard(3, 4, True)])
def test_what_is_kept_and_what_is_changed_are_disjoint_and_complete(partition):
    x = tensor(rng().standard_normal((2, 5, 3, 4)))
    x1, x2 = partition.part(x)
    np.testing.assert_array_equal(partition.join(x1, x2).numpy(), x.numpy())
    if isinstance(partition, Checkerboard):
        kept, changed = x1.numpy() != 0, x2.numpy() != 0
        assert (kept ^ changed).all()
        assert (kept[:, :, 1:] ^ kept[:, :, :-1]).all()
        assert (kept[..., 1:] ^ kept[..., :-1]).all()
    else:
        assert x1.shape[1] + x2.shape[1] == 5
        assert x1.shape[1] == (2 if partition.exchanged else 3)


@pytest.mark.parametrize("name", ["affine", "affine, exchanged", "checkerboard", "checkerboard, exchanged"])
def test_a_coupling_leaves_what_it_keeps_and_the_network_sees_nothing_else(name):
    f, x = made(name)
    x1, x2 = f.partition.part(tensor(x))
    y1, y2 = f.partition.part(f(tensor(x))[0])
    np.testing.assert_array_equal(y1.numpy(), x1.numpy())
    assert np.abs(y2.numpy() - x2.numpy()).max() > 0.1
    other = f.partition.join(x1, f.partition.part(tensor(x + 1))[1])
    for mine, theirs in zip(*(f.s_and_t(f.network(kept)) for kept in (f.partition.part(other)[0], x1)), strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())


def test_the_first_couplings_of_realnvp_are_checkerboards():
    """Of the whole image: by the first, black squares are kept and seen, white ones changed; then in turn."""
    chain = list(made("realnvp")[0])
    squeeze, order, *couplings = (layer for layer in chain[:8] if not isinstance(layer, ActNorm))
    x = rng(4).standard_normal((1, 1, 4, 4))
    black = np.add.outer(np.arange(4), np.arange(4)) % 2 == 0
    for i, coupling in enumerate(couplings):

        def f(x, coupling=coupling):
            with no_grad():
                y, _ = coupling(order(squeeze(tensor(x))[0])[0])
                return squeeze.inverse(order.inverse(y)).numpy()[0, 0]

        kept = black == (i % 2 == 0)
        np.testing.assert_array_equal(f(x)[kept], x[0, 0][kept])
        assert (f(x)[~kept] != x[0, 0][~kept]).all()
        seen = np.argwhere(kept)[0]
        other = x.copy()
        other[0, 0][tuple(seen)] += 1
        assert (f(other) != f(x))[~kept].sum() > 2  # of one that is kept, several that are changed depend
    assert len(couplings) == 3


def test_scales_are_bounded_however_large_the_networks_numbers():
    f = AffineCoupling(Halves(), perceptron((1, 2), rng()))
    for p in f.parameters():
        p.write()[...] = 1000
    x = np.ones((1, 2))
    f.to(np.float64)
    y, log_det = f(tensor(x))
    assert log_det.item() == pytest.approx(2)
    assert np.isfinite(y.numpy()).all()


@pytest.mark.parametrize("name", ["additive", "affine", "checkerboard"])
def test_a_coupling_starts_as_the_identity(name):
    f, x = LAYERS[name]().to(np.float64), made(name)[1]
    y, log_det = f(tensor(x))
    np.testing.assert_array_equal(y.numpy(), x)
    assert np.all(log_det == 0.0) if isinstance(log_det, float) else not log_det.numpy().any()


# -- places


def test_squeeze_makes_channels_of_squares():
    x = np.arange(16.0).reshape(1, 1, 4, 4)
    y = Squeeze()(tensor(x))[0].numpy()
    assert y.shape == (1, 4, 2, 2)
    np.testing.assert_array_equal(y[0, :, 0, 0], [0, 1, 4, 5])
    np.testing.assert_array_equal(y[0, :, 1, 1], [10, 11, 14, 15])


def test_split_is_done_with_the_first_half_of_the_channels():
    x = rng().standard_normal((2, 4, 3, 2))
    y = Split((4, 3, 2), Flatten((2, 3, 2)))(tensor(x))[0].numpy()
    np.testing.assert_array_equal(y[:, :12], x[:, :2].transpose(0, 2, 3, 1).reshape(2, 12))
    np.testing.assert_array_equal(y[:, 12:], x[:, 2:].transpose(0, 2, 3, 1).reshape(2, 12))


# -- actnorm


@pytest.mark.parametrize("shape", [(50, 4), (5, 4, 3, 3)])
def test_actnorm_starts_from_the_first_batch_alone(shape):
    axes = (0, *range(2, len(shape)))
    f, x = ActNorm(4), tensor(rng().normal(3, 5, shape).astype(np.float32))
    f.eval()
    np.testing.assert_array_equal(f(x)[0].numpy(), x.numpy())  # evaluation starts nothing
    f.train()
    y = f(x)[0].numpy()
    np.testing.assert_allclose(y.mean(axes), 0, atol=1e-5)
    np.testing.assert_allclose(y.var(axes), 1, atol=1e-5)
    state = f.state_dict()
    f(x * 2 + 1)
    for name, value in f.state_dict().items():
        np.testing.assert_array_equal(value, state[name])


def test_the_flag_is_a_buffer_so_that_a_resumed_run_does_not_start_again():
    f, other = ActNorm(3), ActNorm(3)
    f(tensor(rng().normal(1, 2, (9, 3)).astype(np.float32)))
    assert dict(f.named_buffers()).keys() == {"started"}
    other.load_state_dict(f.state_dict())
    other(tensor(rng(1).normal(5, 3, (9, 3)).astype(np.float32)))
    np.testing.assert_array_equal(other.log_s.numpy(), f.log_s.numpy())


def test_a_channel_that_is_the_same_all_over_keeps_its_scale():
    f = ActNorm(2)
    x = rng().standard_normal((8, 2)).astype(np.float32)
    x[:, 1] = 7
    y = f(tensor(x))[0].numpy()
    np.testing.assert_array_equal(y[:, 1], 0)
    assert f.log_s.numpy()[1] == 0
    assert f.log_s.numpy()[0] != 0


# -- 1x1


@pytest.mark.parametrize("n", [1, 2, 5, 12])
def test_lu_gives_back_the_matrix(n):
    a = rng(n).standard_normal((n, n))
    p, lower, upper = lu(a)
    np.testing.assert_allclose(p @ lower @ upper, a, atol=1e-12)
    assert ((p == 0) | (p == 1)).all()
    assert (p.sum(0) == 1).all()
    assert (np.triu(lower, 1) == 0).all()
    assert (np.diag(lower) == 1).all()
    assert (np.tril(upper, -1) == 0).all()


def test_a_1x1_starts_as_a_rotation_and_its_log_determinant_is_slogdet():
    f = Invertible1x1(6, rng()).to(np.float64)
    w = f.weight().numpy()
    np.testing.assert_allclose(w @ w.T, np.eye(6), atol=1e-6)  # the weights were float32
    randomized(f)
    x = tensor(rng().standard_normal((2, 6, 3, 5)))
    y, log_det = f(x)
    w = f.weight().numpy()
    assert log_det.item() == pytest.approx(15 * np.linalg.slogdet(w)[1], abs=1e-12)
    np.testing.assert_allclose(y.numpy(), np.einsum("oi,nihw->nohw", w, x.numpy()), atol=1e-12)


def test_permutation_and_signs_are_no_parameters_and_the_triangles_stay_triangles():
    f = Invertible1x1(4, rng())
    assert dict(f.named_parameters()).keys() == {"log_s", "lower", "upper"}
    assert dict(f.named_buffers()).keys() == {"p", "sign_s"}
    x = tensor(rng().standard_normal((3, 4)).astype(np.float32))
    (f(x)[0] ** 2).sum().backward()
    assert (np.triu(f.lower.grad.numpy()) == 0).all()
    assert (np.tril(f.upper.grad.numpy()) == 0).all()


def test_a_chain_of_nothing_is_the_identity():
    x = tensor(rng().standard_normal((2, 3)))
    y, log_det = Chain([])(x)
    assert y is x
    assert log_det == 0
    assert math.prod(Chain([]).inverse(y).shape) == 6
    assert isinstance(Chain([]), nn.Module)
