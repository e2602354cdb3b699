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
    ("RMSprop", {}),
    ("RMSprop", {"momentum": 0.9, "weight_decay": 0.1, "alpha": 0.9}),
    ("RMSprop", {"centered": True, "momentum": 0.5, "eps": 1e-3}),
    ("Adagrad", {}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.5}),
    ("Adadelta", {}),
    ("Adadelta", {"lr": 0.5, "rho": 0.8, "eps": 1e-3, "weight_decay": 0.1}),
    ("Adamax", {}),
    ("Adamax", {"lr": 0.1, "betas": (0.5, 0.9), "weight_decay": 0.1}),
    ("NAdam", {}),
    ("NAdam", {"lr": 0.1, "weight_decay": 0.1, "momentum_decay": 0.1}),
    ("NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("RAdam", {}),
    ("RAdam", {"lr": 0.1, "betas": (0.8, 0.9), "weight_decay": 0.1}),
    ("RAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
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


@pytest.fixture
def _numbers_in_float64():
    """PyTorch keeps an optimizer's numbers, as NAdam's product, in the default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("_numbers_in_float64")
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
    for name in dict.fromkeys(name for name, _ in SETTINGS):
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
     ("CosineAnnealingLR", {"T_max": 7, "eta_min": 0.01}), ("LambdaLR", {"lr_lambda": lambda n: 1 / (n + 1)}),
     ("ConstantLR", {}), ("ConstantLR", {"factor": 0.5, "total_iters": 2}), ("ExponentialLR", {"gamma": 0.8}),
     ("MultiStepLR", {"milestones": [2, 5, 5], "gamma": 0.5}), ("PolynomialLR", {"total_iters": 6, "power": 2.0}),
     ("MultiplicativeLR", {"lr_lambda": lambda n: 1 - n / 20}),
     ("CyclicLR", {"base_lr": 0.1, "max_lr": 0.5, "step_size_up": 3, "cycle_momentum": False}),
     ("CyclicLR", {"base_lr": [0.1, 0.0], "max_lr": [0.5, 0.2], "step_size_up": 2, "step_size_down": 1,
                   "mode": "triangular2", "cycle_momentum": False}),
     ("CyclicLR", {"base_lr": 0.1, "max_lr": 0.5, "step_size_up": 2, "mode": "exp_range", "gamma": 0.9,
                   "cycle_momentum": False}),
     ("CyclicLR", {"base_lr": 0.1, "max_lr": 0.5, "step_size_up": 2, "scale_fn": lambda n: 1 / (n + 1),
                   "scale_mode": "iterations", "cycle_momentum": False}),
     ("CosineAnnealingWarmRestarts", {"T_0": 3}),
     ("CosineAnnealingWarmRestarts", {"T_0": 2, "T_mult": 2, "eta_min": 0.01}),
     ("OneCycleLR", {"max_lr": 0.5, "total_steps": 11, "cycle_momentum": False}),
     ("OneCycleLR", {"max_lr": [0.5, 0.2], "epochs": 3, "steps_per_epoch": 5, "three_phase": True,
                     "cycle_momentum": False, "anneal_strategy": "linear"})],
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


@pytest.mark.parametrize(("name", "settings_"), [("SGD", {"momentum": 0.9}), ("Adam", {})])
def test_cycles_of_momentum(name, settings_):
    p, t = Parameter([1.0, 2.0]), torch.ones(2, requires_grad=True)
    ours, theirs = getattr(optim, name)([p], 0.1, **settings_), getattr(torch.optim, name)([t], 0.1, **settings_)
    options = {"base_lr": 0.1, "max_lr": 0.5, "step_size_up": 2, "step_size_down": 3, "base_momentum": 0.7}
    mine, other = optim.CyclicLR(ours, **options), torch.optim.lr_scheduler.CyclicLR(theirs, **options)
    key = "betas" if name == "Adam" else "momentum"
    for _ in range(12):
        assert mine.get_last_lr() == pytest.approx(other.get_last_lr(), rel=1e-12)
        assert ours.param_groups[0][key] == pytest.approx(theirs.param_groups[0][key], rel=1e-12)
        theirs.step(), mine.step(), other.step()
    again = optim.CyclicLR(ours, **options)
    again.load_state_dict(mine.state_dict())
    mine.step()
    rates = mine.get_last_lr()
    again.load_state_dict(mine.state_dict())
    assert again.get_last_lr() == rates
    with pytest.raises(ValueError, match=r"CyclicLR: mode must be one of triangular, triangular2, exp_range, .* 'saw'"):
        optim.CyclicLR(ours, 0.1, 0.5, mode="saw")
    with pytest.raises(ValueError, match="CyclicLR: step_size_up must be an integer of at least 1, got 0"):
        optim.CyclicLR(ours, 0.1, 0.5, 0)


@pytest.mark.parametrize(("name", "settings_"), [("SGD", {"momentum": 0.9}), ("Adam", {})])
@pytest.mark.parametrize("three_phase", [False, True])
def test_one_cycle_of_momentum(name, settings_, three_phase):
    p, t = Parameter([1.0, 2.0]), torch.ones(2, requires_grad=True)
    ours, theirs = getattr(optim, name)([p], 0.1, **settings_), getattr(torch.optim, name)([t], 0.1, **settings_)
    options = {"max_lr": 0.5, "total_steps": 9, "pct_start": 0.4, "three_phase": three_phase}
    mine, other = optim.OneCycleLR(ours, **options), torch.optim.lr_scheduler.OneCycleLR(theirs, **options)
    key = "betas" if name == "Adam" else "momentum"
    for _ in range(9):
        assert mine.get_last_lr() == pytest.approx(other.get_last_lr(), rel=1e-12)
        assert ours.param_groups[0][key] == pytest.approx(theirs.param_groups[0][key], rel=1e-12)
        theirs.step(), mine.step(), other.step()
    with pytest.raises(ValueError, match="step 10 of a schedule of total_steps 9"):
        mine.step()


@pytest.mark.parametrize("second", ["CosineAnnealingLR", "ExponentialLR", "StepLR", "CosineAnnealingWarmRestarts"])
def test_warm_up_and_then_another_schedule(second):
    p, q = Parameter([1.0, 2.0]), Parameter(3.0)
    t, u = torch.ones(2, requires_grad=True), torch.ones((), requires_grad=True)
    ours = optim.SGD([{"params": p, "lr": 0.1}, {"params": q, "lr": 0.3}])
    theirs = torch.optim.SGD([{"params": t, "lr": 0.1}, {"params": u, "lr": 0.3}])
    arguments = {"CosineAnnealingLR": (6,), "ExponentialLR": (0.8,), "StepLR": (2,)}.get(second, (2, 2))

    def make(lib, optimizer):
        parts = [lib.LinearLR(optimizer, 0.1, total_iters=3), getattr(lib, second)(optimizer, *arguments),
                 lib.ConstantLR(optimizer, 0.2, 100)]  # fmt: skip
        return lib.SequentialLR(optimizer, parts, [3, 8])

    mine, other = make(optim, ours), make(torch.optim.lr_scheduler, theirs)
    for _ in range(12):
        assert mine.get_last_lr() == pytest.approx(other.get_last_lr(), rel=1e-12)
        theirs.step(), mine.step(), other.step()


@pytest.mark.parametrize("options", [
    {}, {"mode": "max"}, {"patience": 1, "factor": 0.5}, {"patience": 0, "cooldown": 2, "threshold_mode": "abs"},
    {"patience": 0, "min_lr": [0.05, 0.01]}, {"mode": "max", "patience": 0, "threshold_mode": "abs", "eps": 1e-3},
])  # fmt: skip
def test_reduce_on_plateau(options):
    rng = np.random.default_rng(0)
    p, q = Parameter([1.0, 2.0]), Parameter(3.0)
    t, u = torch.ones(2, requires_grad=True), torch.ones((), requires_grad=True)
    ours = optim.SGD([{"params": p, "lr": 0.1}, {"params": q, "lr": 0.3}])
    theirs = torch.optim.SGD([{"params": t, "lr": 0.1}, {"params": u, "lr": 0.3}])
    mine = optim.ReduceLROnPlateau(ours, **options)
    other = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **options)
    for step in range(40):
        metric = rng.choice([1.0, 0.5, -0.5]) + rng.choice([0, 1e-5, 0.1])
        mine.step(metric), other.step(metric)
        assert [g["lr"] for g in ours.param_groups] == pytest.approx([g["lr"] for g in theirs.param_groups], rel=1e-12)
        if step == 20:  # its state is all of it
            state = mine.state_dict()
            mine = optim.ReduceLROnPlateau(ours, **options)
            mine.load_state_dict(state)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_lion_by_its_paper(seed):
    rng = np.random.default_rng(seed)
    p, m = rng.standard_normal(3), np.zeros(3)
    mine = Parameter(p)
    optimizer = optim.Lion([mine], lr=0.1, betas=(0.8, 0.9), weight_decay=0.5)
    for _ in range(5):
        g = rng.standard_normal(3)
        mine.grad = tinygen.tensor(g)
        optimizer.step()
        p = p - 0.1 * (np.sign(0.8 * m + 0.2 * g) + 0.5 * p)  # program 1: update + weight decay
        m = 0.9 * m + 0.1 * g
        np.testing.assert_allclose(mine.numpy(), p, 1e-12)


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
    st.builds(lambda g: ("ExponentialLR", {"gamma": g}), factors),
    st.builds(lambda g: ("MultiplicativeLR", {"lr_lambda": lambda n: g}), factors),
    st.builds(lambda n, g: ("MultiStepLR", {"milestones": [n, n + 1], "gamma": g}), counts, factors),
    st.builds(lambda n, p: ("PolynomialLR", {"total_iters": n, "power": p}), counts, st.sampled_from([0.5, 1.0, 2.0])),
)  # fmt: skip


@settings(max_examples=100)
@given(
    st.lists(KINDS, min_size=1, max_size=3), st.lists(st.sampled_from([None, None, None, 0.07]), max_size=10),
    st.sampled_from([0.1, 0.1, 0.01, 0.0]),
)  # fmt: skip
def test_several_schedules_of_one_optimizer(kinds, by_hand, lr):
    """Each stepped after each epoch; now and then the rate is set by hand in between."""
    ours, theirs = optim.SGD([Parameter(1.0)], lr=lr), torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=lr)
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


CYCLIC = "CyclicLR", {"base_lr": 0.05, "max_lr": [0.3, 0.6], "step_size_up": 2}
ONE = "OneCycleLR", {"max_lr": 0.5, "total_steps": 20}
EXPONENTIAL = "ExponentialLR", {"gamma": 0.9}


@pytest.mark.parametrize("kinds", [(EXPONENTIAL, CYCLIC), (CYCLIC, EXPONENTIAL), (ONE, EXPONENTIAL), (CYCLIC, CYCLIC)])
def test_one_schedule_after_the_other_with_its_own_rates_and_momentum(kinds):
    ours = optim.SGD([{"params": [Parameter(1.0)]}, {"params": [Parameter(1.0)], "lr": 0.2}], lr=0.1, momentum=0.9)
    params = ({"params": [torch.ones(1, requires_grad=True)], "lr": lr} for lr in (0.1, 0.2))
    theirs = torch.optim.SGD(params, lr=0.1, momentum=0.9)
    schedules = []
    for optimizer, module in ((ours, optim), (theirs, torch.optim.lr_scheduler)):
        parts = [getattr(module, name)(optimizer, **options) for name, options in kinds]
        schedules.append(module.SequentialLR(optimizer, parts, [3]))
    for _ in range(8):
        for mine, other in zip(ours.param_groups, theirs.param_groups, strict=True):
            assert mine["lr"] == pytest.approx(other["lr"], rel=1e-12)
            assert mine["momentum"] == pytest.approx(other["momentum"], rel=1e-12)
        theirs.step()
        for schedule in schedules:
            schedule.step()
