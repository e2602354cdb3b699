"""Solvers of differential equations, and the flow in continuous time: exact where mathematics is."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from tests.models.small import new
from tinygen import grad, no_grad, tensor
from tinygen.data import load
from tinygen.models.family import Batch
from tinygen.models.flow.ffjord import Ode, Velocity, with_gradients
from tinygen.models.flow.ode import dopri5, rk4
from tinygen.models.flow.priors import StandardNormal

D = 3


def rng(seed=0):
    return np.random.default_rng(seed)


def expm(a):
    """exp(A) by its series."""
    total = term = np.eye(len(a))
    for k in range(1, 60):
        term = term @ a / k
        total = total + term
    return total


def linear(a):
    return lambda t, state: (state[0] @ a.transpose(0, 1),)


def ode(d=D, scale=0.7, **options):
    """With random weights, in float64."""
    found, numbers = Ode(Velocity(d, 8, rng(1)), **options), rng(2)
    for p in found.parameters():
        p.write()[...] = scale * numbers.standard_normal(p.shape)
    return found.to(np.float64)


# ----------------------------------------------------------------------------------------------------------- solvers


def test_the_error_of_rk4_falls_sixteenfold_when_steps_are_halved():
    a, y = rng().standard_normal((D, D)), rng(1).standard_normal((2, D))
    exact = y @ expm(a).T
    errors = [np.abs(rk4(linear(tensor(a)), (tensor(y),), 0.0, 1.0, n)[0].numpy() - exact).max() for n in (16, 32, 64)]
    for coarse, fine in itertools.pairwise(errors):
        assert coarse / fine == pytest.approx(16, abs=1)


def test_time_is_told_where_a_step_is():
    """y' = t^3 is integrated exactly by a method of order 4, and y' = t^5 by one of order 6 alone."""
    zero = (tensor(np.zeros((1, 1))),)
    for solve in (lambda f: rk4(f, zero, 0.0, 2.0, 1), lambda f: dopri5(f, zero, 0.0, 2.0, 1e-3)):
        assert solve(lambda t, y: (y[0] * 0 + t**3,))[0].item() == pytest.approx(4, abs=1e-13)
    assert abs(rk4(lambda t, y: (y[0] * 0 + t**5,), zero, 0.0, 2.0, 1)[0].item() - 64 / 6) > 0.1


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-9])
def test_dopri5_keeps_to_its_tolerance_and_takes_no_more_steps_than_that_needs(tolerance):
    a, y = 3 * rng().standard_normal((D, D)), rng(1).standard_normal((2, D))
    calls = []

    def rate(t, state):
        calls.append(t)
        return linear(tensor(a))(t, state)

    (found,) = dopri5(rate, (tensor(y),), 0.0, 1.0, tolerance)
    exact = y @ expm(a).T
    assert np.abs(found.numpy() / exact - 1).max() < 50 * tolerance
    assert len(calls) < 40 * tolerance**-0.2
    assert max(calls) == 1


def test_dopri5_is_of_order_five_and_its_estimate_of_order_four():
    """The conditions on its coefficients: sum b c^k = 1 / (k + 1), and the rows of A sum to c."""
    from tinygen.models.flow import ode as tableau

    c, b5, b4 = np.array(tableau.C), np.array([*tableau.A[-1], 0]), np.array(tableau.B4)
    for k in range(5):
        assert b5 @ c**k == pytest.approx(1 / (k + 1), abs=1e-15)
        assert (b4 @ c**k == pytest.approx(1 / (k + 1), abs=1e-15)) == (k < 4)
    for time, row in zip(tableau.C, tableau.A, strict=True):
        assert sum(row) == pytest.approx(time, abs=1e-14)


def test_backwards_is_back():
    a, y = tensor(rng().standard_normal((D, D))), tensor(rng(1).standard_normal((2, D)))
    there = dopri5(linear(a), (y,), 0.0, 1.0, 1e-10)
    np.testing.assert_allclose(dopri5(linear(a), there, 1.0, 0.0, 1e-10)[0].numpy(), y.numpy(), atol=1e-8)


def test_what_changes_too_fast_is_refused_in_a_sentence():
    one = (tensor(np.ones((1, 1))),)
    with pytest.raises(FloatingPointError, match=r"dopri5: at time 1 no step is short enough for a tolerance of"):
        dopri5(lambda t, y: (y[0] * y[0],), one, 0.0, 2.0, 1e-6)  # 1 / (1 - t)
    with pytest.raises(FloatingPointError, match="no step is short enough"):
        dopri5(lambda t, y: (y[0] * math.nan,), one, 0.0, 1.0, 1e-6)


# ------------------------------------------------------------------------------------------------------------- trace


def test_the_trace_is_that_of_the_jacobian_and_so_is_the_mean_of_hutchinsons_estimate_over_all_signs():
    f, z = ode(), tensor(rng().standard_normal((4, D)), requires_grad=True)
    y = f.velocity(z, 0.3)
    jacobian = np.stack([grad(y[:, i].sum(), z, retain_graph=True)[0].numpy() for i in range(D)], axis=1)
    expected = np.trace(jacobian, axis1=1, axis2=2)
    with no_grad():
        np.testing.assert_allclose(f.rates(z, 0.3, None)[1].numpy(), expected, rtol=0, atol=1e-12)
        signs = list(itertools.product((-1.0, 1.0), repeat=D))
        estimates = [f.rates(z, 0.3, tensor(np.tile(e, (4, 1))))[1].numpy() for e in signs]
    np.testing.assert_allclose(np.mean(estimates, axis=0), expected, rtol=0, atol=1e-14)
    symmetric = (jacobian + jacobian.transpose(0, 2, 1)) / 2
    off = (symmetric**2).sum((1, 2)) - (np.diagonal(symmetric, axis1=1, axis2=2) ** 2).sum(1)
    np.testing.assert_allclose(np.var(estimates, axis=0), 2 * off, rtol=1e-10)


@pytest.mark.parametrize("training", [True, False])
def test_the_log_determinant_is_that_of_the_whole_map(training):
    """Up to the solver's error: RK4 doesn't integrate the trace along the very map that it makes."""
    f = ode(steps=32, tolerance=1e-8).train(training)
    x = tensor(rng().standard_normal((3, D)), requires_grad=True)
    y, log_det = f(x)
    jacobian = np.stack([grad(y[:, i].sum(), x, retain_graph=True)[0].numpy() for i in range(D)], axis=1)
    np.testing.assert_allclose(log_det.numpy(), np.linalg.slogdet(jacobian)[1], rtol=0, atol=1e-6)
    np.testing.assert_allclose(f.inverse(y).numpy(), x.numpy(), rtol=0, atol=1e-6)
    assert f.evaluations == 128 if training else 6 < f.evaluations < 1000


def test_one_noise_serves_a_whole_solve():
    f, x = ode(steps=6), tensor(rng().standard_normal((2, D)))
    with no_grad():
        signs = itertools.product((-1.0, 1.0), repeat=D)
        estimates = [f(x, tensor(np.tile(e, (2, 1))))[1].numpy() for e in signs]
        np.testing.assert_allclose(np.mean(estimates, axis=0), f(x)[1].numpy(), atol=1e-13)


# ----------------------------------------------------------------------------------------------------------- gradients


def gradients(f, x, noise):
    """(through the solver, by the adjoint method) of -log p, by x and by the parameters."""
    parameters, x = list(f.parameters()), tensor(x, requires_grad=True)
    z, log_det = f(x, noise)
    loss = -(StandardNormal().log_prob(z) + log_det).mean()
    through = [g.numpy() for g in grad(loss, [x, *parameters])]
    with no_grad():
        z, log_det = (v.new_tensor(v, requires_grad=True) for v in f(x, noise))
    loss = -(StandardNormal().log_prob(z) + log_det).mean()
    by_x, others = f.adjoint(z, noise, *grad(loss, [z, log_det]))
    return through, [g.numpy() for g in (by_x, *others)]


@pytest.mark.parametrize("hutchinson", [True, False])
def test_the_adjoint_methods_gradients_tend_to_those_through_the_solver_at_fourth_order(hutchinson):
    x = rng().standard_normal((2, D))
    noise = tensor(rng(1).choice((-1.0, 1.0), x.shape)) if hutchinson else None
    differences = []
    for steps in (6, 12, 24):
        through, adjoint = gradients(ode(steps=steps), x, noise)
        differences.append(max(np.abs(a - b).max() for a, b in zip(through, adjoint, strict=True)))
    assert differences[-1] < 1e-5
    for coarse, fine in itertools.pairwise(differences):
        assert 10 < coarse / fine < 24


def test_gradients_through_the_solver_are_those_of_finite_differences():
    f, x = ode(steps=3), rng().standard_normal((2, D))
    noise = tensor(rng(1).choice((-1.0, 1.0), x.shape))

    def loss():
        z, log_det = f(tensor(x), noise)
        return -(StandardNormal().log_prob(z) + log_det).mean()

    for p in f.parameters():
        (g,), numbers = grad(loss(), [p]), rng(3).standard_normal(p.shape)
        kept, h = p.numpy().copy(), 1e-6
        ends = []
        for sign in (1, -1):
            p.write()[...] = kept + sign * h * numbers
            with no_grad():
                ends.append(loss().item())
        p.write()[...] = kept
        assert (g.numpy() * numbers).sum() == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-5, abs=1e-8)


def test_a_number_with_gradients_of_its_own():
    p, g = tensor([1.0, 2.0], requires_grad=True), tensor([3.0, -4.0])
    value = with_gradients(tensor(7.0), [p], [g])
    assert value.item() == 7
    np.testing.assert_array_equal(grad(value, p)[0].numpy(), g.numpy())


def test_the_switch_gives_the_same_loss_and_nearly_the_same_gradients():
    images = load("digits")[0].images[:6]
    found = {}
    for adjoint in (False, True):
        model = new("ffjord", (1, 8, 8), 17, steps=8, adjoint=adjoint)
        (loss,) = model.loss(Batch(images), rng(5)).values()
        loss.backward()
        found[adjoint] = loss.item(), {n: p.grad.numpy() for n, p in model.named_parameters()}
    assert found[True][0] == pytest.approx(found[False][0], rel=1e-6)
    for name, g in found[False][1].items():
        np.testing.assert_allclose(found[True][1][name], g, atol=2e-3 * np.abs(g).max(), err_msg=name)


def test_evaluations_are_counted_and_shown():
    train, test = load("digits")
    model = new("ffjord", (1, 8, 8), 17, steps=3)
    model.loss(Batch(train.images[:2]), rng())
    assert model.ode.evaluations == 12
    model.eval()
    metric = model.family.metrics(model, train, test, rng())[-1]
    assert str(metric) == f"evaluations of f: {model.ode.evaluations:.{3 if model.ode.evaluations < 10 else 2}f} " + (
        "a solve, tolerance 0.0001"
    )
    assert model.ode.evaluations % 6 == 1
