"""tinygen.optim against PyTorch: the same gradients give the same parameters."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygen
from tinygen import optim
from tinygen.nn import Parameter

SHAPES = [(3, 2), (), (2, 3, 2, 2), (0,), (4,)]

SETTINGS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("Adam", {}),
    ("Adam", {"lr": 0.1, "betas": (0.5, 0.9), "eps": 1e-3}),
    ("Adam", {"lr": 0.1, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.1, "betas": (0.0, 0.99)}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.1, "weight_decay": 0.5}),
]


def parameters(rng):
    """The same values as ours (kernels HWIO in memory) and as torch's."""
    values = [rng.standard_normal(shape) for shape in SHAPES]
    mine = [Parameter(v.transpose(2, 3, 1, 0).copy().transpose(3, 2, 0, 1) if v.ndim == 4 else v) for v in values]
    return mine, [torch.tensor(v, requires_grad=True) for v in values]


def give_gradients(rng, mine, other):
    """The same random gradients; now and then a parameter has none, or a tiny or a huge one."""
    for p, q in zip(mine, other, strict=True):
        g = rng.standard_normal(p.shape) * rng.choice([1e-8, 1, 1, 1, 1e4])
        none = rng.random() < 0.1
        p.grad = None if none else tinygen.tensor(g)
        q.grad = None if none else torch.tensor(g)


def assert_same(mine, other, rtol=1e-12):
    for p, q in zip(mine, other, strict=True):
        np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol, rtol)


@pytest.mark.parametrize(("name", "options"), SETTINGS)
def test_fifty_steps(name, options):
    rng = np.random.default_rng(0)
    mine, other = parameters(rng)
    ours, theirs = getattr(optim, name)(mine, **options), getattr(torch.optim, name)(other, **options)
    for _ in range(50):
        give_gradients(rng, mine, other)
        ours.step(), theirs.step()
        assert_same(mine, other)


def test_defaults_are_pytorchs():
    p, q = Parameter(1.0), torch.zeros(1, requires_grad=True)
    for name in ("SGD", "Adam", "AdamW"):
        ours, theirs = getattr(optim, name)([p]).defaults, getattr(torch.optim, name)([q]).defaults
        assert ours == {key: theirs[key] for key in ours}


def test_groups_with_settings_of_their_own():
    rng = np.random.default_rng(1)
    mine, other = parameters(rng)
    ours, theirs = (
        lib.Adam([{"params": ps[:2], "lr": 0.2}, {"params": ps[2:4], "betas": (0.1, 0.2)}], weight_decay=0.01)
        for lib, ps in ((optim, mine), (torch.optim, other))
    )
    for step in range(10):
        if step == 5:
            ours.add_param_group({"params": mine[4], "eps": 0.1})
            theirs.add_param_group({"params": other[4], "eps": 0.1})
        give_gradients(rng, mine, other)
        ours.step(), theirs.step()
    assert_same(mine, other)


@pytest.mark.parametrize(
    ("name", "options"),
    [("StepLR", {"step_size": 3}), ("StepLR", {"step_size": 1, "gamma": 0.9}), ("LinearLR", {}),
     ("LinearLR", {"start_factor": 0.1, "end_factor": 0.7, "total_iters": 4}), ("CosineAnnealingLR", {"T_max": 10}),
     ("CosineAnnealingLR", {"T_max": 7, "eta_min": 0.01}), ("LambdaLR", {"lr_lambda": lambda n: 1 / (n + 1)})],
)  # fmt: skip
def test_schedules(name, options):
    p, q = Parameter([1.0, 2.0]), Parameter(3.0)
    t, u = torch.ones(2, requires_grad=True), torch.ones((), requires_grad=True)
    ours = optim.SGD([{"params": p, "lr": 0.1}, {"params": q, "lr": 0.3}])
    theirs = torch.optim.SGD([{"params": t, "lr": 0.1}, {"params": u, "lr": 0.3}])
    mine, other = getattr(optim, name)(ours, **options), getattr(torch.optim.lr_scheduler, name)(theirs, **options)
    for _ in range(10):
        assert mine.get_last_lr() == pytest.approx(other.get_last_lr(), rel=1e-12, abs=1e-15)
        assert mine.get_last_lr() == [group["lr"] for group in ours.param_groups]
        theirs.step(), mine.step(), other.step()


@settings(max_examples=30)
@given(
    norm_type=st.sampled_from([1.0, 2.0, 3.0, math.inf]), max_norm=st.sampled_from([0.0, 0.5, 3.0, 1e9]),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_clip_grad_norm(norm_type, max_norm, seed):
    rng = np.random.default_rng(seed)
    mine, other = parameters(rng)
    give_gradients(rng, mine, other)
    mine, other = mine[:3] + mine[4:], other[:3] + other[4:]  # torch has no largest of no elements
    total = optim.clip_grad_norm_(mine, max_norm, norm_type)
    assert total == pytest.approx(float(torch.nn.utils.clip_grad_norm_(other, max_norm, norm_type)), rel=1e-12)
    for p, q in zip(mine, other, strict=True):
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None:
            np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), 1e-12)


def test_moving_average():
    rng = np.random.default_rng(0)
    mine, other = parameters(rng)
    average = optim.ExponentialMovingAverage(mine, decay=0.9)
    means = [q.detach().clone() for q in other]
    for _ in range(5):
        for p, q in zip(mine, other, strict=True):
            change = rng.standard_normal(p.shape)
            p.write()[...] += change
            q.data += torch.tensor(change)
        average.update()
        torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)(means, [q.detach() for q in other], 1)
    with average.average_parameters():
        assert_same(mine, means)
    assert_same(mine, other)


factors = st.floats(0.05, 2)
counts = st.integers(1, 5)
KINDS = st.one_of(
    st.builds(lambda n, g: ("StepLR", {"step_size": n, "gamma": g}), counts, factors),
    st.builds(
        lambda a, b, n: ("LinearLR", {"start_factor": a, "end_factor": b, "total_iters": n}),
        st.floats(0.05, 1), st.floats(0, 1), counts,
    ),
    st.builds(lambda n, low: ("CosineAnnealingLR", {"T_max": n, "eta_min": low}), counts, st.sampled_from([0.0, 0.01])),
    st.builds(lambda g: ("LambdaLR", {"lr_lambda": lambda n: g / (n + 1)}), factors),
)  # fmt: skip


@settings(max_examples=100)
@given(st.lists(KINDS, min_size=1, max_size=3), st.lists(st.sampled_from([None, None, None, 0.07]), max_size=10))
def test_several_schedules_of_one_optimizer(kinds, by_hand):
    """Each stepped after each epoch; now and then the rate is set by hand in between."""
    ours, theirs = optim.SGD([Parameter(1.0)], lr=0.1), torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1)
    mine, other = [], []
    for name, options in kinds:
        mine.append(getattr(optim, name)(ours, **options))
        other.append(getattr(torch.optim.lr_scheduler, name)(theirs, **options))
    for rate in [*by_hand, *[None] * 4]:
        want = theirs.param_groups[0]["lr"]
        assert ours.param_groups[0]["lr"] == pytest.approx(want, rel=1e-9, abs=1e-12)
        if rate:
            ours.param_groups[0]["lr"] = theirs.param_groups[0]["lr"] = rate
        theirs.step()
        for schedule in (*mine, *other):
            schedule.step()


SETTINGS_OF = {
    "SGD": {"lr": factors, "momentum": st.sampled_from([0.0, 0.5, 0.9]), "weight_decay": st.sampled_from([0.0, 0.1])},
    "Adam": {"lr": factors, "betas": st.tuples(st.floats(0, 0.99), st.floats(0.1, 0.999)),
             "eps": st.sampled_from([1e-8, 1e-3]), "weight_decay": st.sampled_from([0.0, 0.1])},
}  # fmt: skip
SETTINGS_OF["AdamW"] = SETTINGS_OF["Adam"]


@settings(max_examples=100)
@given(st.data(), st.sampled_from(sorted(SETTINGS_OF)), st.integers(0, 2**32 - 1))
def test_any_settings_with_a_schedule_and_a_stop_in_between(data, kind, seed):
    """Numbers may be NumPy's; after some steps optimizer and schedule are made anew and take over the states."""
    options = data.draw(st.fixed_dictionaries(SETTINGS_OF[kind]))
    name, schedule = data.draw(KINDS)
    rng = np.random.default_rng(seed)
    mine, other = parameters(rng)
    number = data.draw(st.sampled_from([float, np.float64, np.array]))

    def ours():
        optimizer = getattr(optim, kind)(mine, **options | {"lr": number(options["lr"])})
        return optimizer, getattr(optim, name)(optimizer, **schedule)

    theirs = getattr(torch.optim, kind)(other, **options)
    their_schedule = getattr(torch.optim.lr_scheduler, name)(theirs, **schedule)
    optimizer, rates = ours()
    for step in range(8):
        if step == 4:
            (old, before), (optimizer, rates) = (optimizer, rates), ours()
            optimizer.load_state_dict(old.state_dict())
            rates.load_state_dict(before.state_dict())
        give_gradients(rng, mine, other)
        optimizer.step(), theirs.step()
        rates.step(), their_schedule.step()
    assert_same(mine, other, 1e-9)
