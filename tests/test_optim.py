"""Optimizers, schedules, clipping and averages, without PyTorch: formulas, state, errors, memory."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygen
from tinygen import nn, optim
from tinygen.nn import Parameter
from tinygen.training import checkpoint

OPTIMIZERS = [
    lambda params: optim.SGD(params, lr=0.1),
    lambda params: optim.SGD(params, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    lambda params: optim.Adam(params, lr=0.1, weight_decay=0.1),
    lambda params: optim.AdamW(params, lr=0.1),
    lambda params: optim.RMSprop(params, momentum=0.5, centered=True, lr=0.01),
    lambda params: optim.RMSprop(params),
    lambda params: optim.Adagrad(params, lr=0.5, lr_decay=0.01),
    lambda params: optim.Adadelta(params, lr=20.0),
    lambda params: optim.Adamax(params, lr=0.1),
    lambda params: optim.NAdam(params, lr=0.1, weight_decay=0.1),
    lambda params: optim.RAdam(params, lr=0.1),
    lambda params: optim.Lion(params, lr=0.05, weight_decay=0.1),
]


def parameters(dtype=np.float64):
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((2, 2, 3, 4)).transpose(3, 2, 0, 1)
    return [Parameter(a.astype(dtype)) for a in (kernel, rng.standard_normal(3), np.array(1.5))]


def give_gradients(params, rng):
    for p in params:
        p.grad = tinygen.tensor(rng.standard_normal(p.shape).astype(p.dtype))


def values(params):
    return [p.numpy().copy() for p in params]


def assert_equal(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_a_bowl_is_descended(make):
    p = Parameter(np.array([3.0, -2.0]))
    optimizer = make([p])
    for _ in range(300):
        optimizer.zero_grad()
        ((p - tinygen.tensor(np.array([1.0, 0.5]))) ** 2).sum().backward()
        optimizer.step()
    assert np.abs(p.numpy() - [1, 0.5]).max() < 0.15  # weight decay pulls a little


def test_the_first_step_of_adam_has_length_lr():
    p = Parameter(np.array([1.0, 1.0, 1.0]))
    p.grad = tinygen.tensor(np.array([1e3, -1e-3, 0.0]))
    optim.Adam([p], lr=0.25).step()
    np.testing.assert_allclose(p.numpy(), [0.75, 1.25, 1.0], rtol=1e-4)


@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_steps_are_in_place_and_leave_gradients_alone(make, dtype):
    params = parameters(dtype)
    optimizer, rng = make(params), np.random.default_rng(1)
    arrays, before = [p._array for p in params], values(params)
    for _ in range(3):
        give_gradients(params, rng)
        gradients = [p.grad.numpy().copy() for p in params]
        optimizer.step()
        assert_equal([p.grad.numpy() for p in params], gradients)
    for p, array, old in zip(params, arrays, before, strict=True):
        assert p._array is array
        assert p.dtype == dtype
        assert p.is_leaf
        assert not np.array_equal(p.numpy(), old)
    for p, state in zip(params, optimizer.state, strict=True):
        for value in state.values():
            assert isinstance(value, (int, float)) or (value.dtype, value.strides) == (p.dtype, p._array.strides)


def test_a_parameter_without_gradient_stays():
    p, q = Parameter(1.0), Parameter(2.0)
    optimizer = optim.AdamW([p, q])
    p.grad = tinygen.tensor(np.float32(1))
    optimizer.step()
    assert q.item() == 2.0
    assert optimizer.state[1] == {}
    optimizer.zero_grad()
    assert p.grad is None


@pytest.mark.fault("T01")
@given(
    st.lists(st.tuples(st.sampled_from([(), (0,), (3,), (4, 5), (20000,), (3, 2, 3, 3)]), st.booleans(), st.booleans()),
             min_size=1, max_size=8),
    st.sampled_from([optim.Adam, optim.AdamW]), st.sampled_from([0, 0.1]), st.integers(0, 2**32),
)  # fmt: skip
def test_all_parameters_in_one_call_are_as_each_by_the_definition(shapes, make, decay, seed):
    """Of either type, in any order in memory, some without a gradient at some steps, so that their counts differ."""
    found = []
    for mode in (tinygen.enable_grad, tinygen.reference):
        rng = np.random.default_rng(seed)
        params = []
        for shape, wide, turned in shapes:
            array = rng.standard_normal(shape).astype(np.float64 if wide else np.float32)
            params.append(Parameter(array.T if turned else array))
        optimizer = make(params, lr=0.01, weight_decay=decay)
        with mode():
            for _ in range(3):
                give_gradients(params, rng)
                for p in params:
                    if rng.random() < 0.3:
                        p.grad = None
                optimizer.step()
        found.append(values(params) + [s[k] for s in optimizer.state for k in sorted(s)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_a_step_between_forward_and_backward_is_noticed():
    p = Parameter(np.array([1.0, 2.0]))
    loss = (p * p).sum()
    p.grad = tinygen.tensor(np.array([1.0, 1.0]))
    optim.SGD([p], lr=0.1).step()
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


@pytest.mark.fault("R07")
@pytest.mark.parametrize("make", OPTIMIZERS)
@given(steps=st.integers(0, 3))
def test_a_resumed_optimizer_goes_on_bit_for_bit(make, tmp_path_factory, steps):
    params = parameters()
    optimizer, rng = make(params), np.random.default_rng(1)
    for _ in range(steps):
        give_gradients(params, rng)
        optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.05
    state = optimizer.state_dict()
    assert all(isinstance(v, (np.ndarray, int, float)) for v in state.values())
    again = [Parameter(p.numpy()) for p in params]
    resumed = make(again)
    path = tmp_path_factory.mktemp("run") / "state.safetensors"
    arrays = {k: v for k, v in state.items() if isinstance(v, np.ndarray)}
    checkpoint.save(path, arrays, {k: v for k, v in state.items() if k not in arrays})
    arrays, numbers = checkpoint.load(path)
    resumed.load_state_dict(arrays | numbers)
    assert resumed.param_groups[0].keys() == optimizer.param_groups[0].keys()
    for _ in range(2):
        give_gradients(params, rng)
        for p, q in zip(params, again, strict=True):
            q.grad = tinygen.tensor(p.grad)
        optimizer.step(), resumed.step()
        assert_equal(values(params), values(again))
    for p, q in zip(optimizer.state, resumed.state, strict=True):
        assert [np.shape(v) for v in p.values()] == [np.shape(v) for v in q.values()]
        assert [getattr(v, "strides", 0) for v in p.values()] == [getattr(v, "strides", 0) for v in q.values()]


def test_a_state_dict_is_a_copy():
    params = parameters()
    optimizer = optim.Adam(params)
    give_gradients(params, np.random.default_rng(0))
    optimizer.step()
    state = optimizer.state_dict()
    before = {k: np.array(v) for k, v in state.items()}
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 7
    for name, value in before.items():
        np.testing.assert_array_equal(state[name], value)
    loaded = optim.Adam(parameters())
    loaded.load_state_dict(state)
    give_gradients(loaded.param_groups[0]["params"], np.random.default_rng(0))
    loaded.step()
    for name, value in before.items():
        np.testing.assert_array_equal(state[name], value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("state.1.step"), "state.1.step is missing"),
        (lambda s: s.pop("group.0.lr"), "group.0.lr is missing"),
        (lambda s: s.update({"state.0.speed": 1}), "state.0.speed is unexpected"),
        (lambda s: s.update({"state.3.step": 1}), "state.3.step is unexpected"),
        (lambda s: s.update({"group.1.lr": 1.0}), "group.1.lr is unexpected"),
        (lambda s: s.update({"state.1.exp_avg": np.zeros(4)}), r"state.1.exp_avg has shape \(4,\) instead of \(3,\)"),
        (lambda s: s.update({"group.0.lr": -1.0}), "lr must not be negative, got -1.0"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_nothing_changed(change, message):
    params = parameters()
    optimizer = optim.Adam(params, lr=0.5)
    give_gradients(params, np.random.default_rng(0))
    optimizer.step()
    state = optimizer.state_dict()
    target = optim.Adam(parameters(), lr=0.1)
    change(state)
    with pytest.raises(ValueError, match=message):
        target.load_state_dict(state)
    assert target.state == [{}, {}, {}]
    assert target.param_groups[0]["lr"] == 0.1


P = Parameter([1.0, 2.0])


@pytest.mark.fault("G12")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: optim.SGD([]), ValueError, "SGD: there are no parameters"),
        (lambda: optim.Adam([P, P]), ValueError, r"Adam: a parameter is given twice, one of float32, shape \(2,\)"),
        (lambda: optim.Adam([{"params": P}, {"params": [P]}]), ValueError, "given twice"),
        (lambda: optim.Adam([P * 2]), TypeError, r"must be a leaf tensor of floats, got one of float32, shape \(2,\)"),
        (lambda: optim.Adam([np.zeros(2)]), TypeError, "must be a leaf tensor of floats, got ndarray"),
        (lambda: optim.Adam([tinygen.tensor([1, 2])]), TypeError, "got one of int64"),
        (lambda: optim.Adam([{"params": P, "momentum": 1}]), ValueError, "unknown setting momentum; known are lr"),
        (lambda: optim.Adam([P], lr=-1), ValueError, "Adam: lr must not be negative, got -1"),
        (lambda: optim.Adam([P], lr=math.nan), ValueError, "lr must not be negative, got nan"),
        (lambda: optim.AdamW([P], weight_decay=-1), ValueError, "AdamW: weight_decay must not be negative"),
        (lambda: optim.Adam([P], eps=-1), ValueError, "eps must not be negative"),
        (lambda: optim.Adam([P], betas=(0.9, 1.0)), ValueError, r"betas must be two numbers in \[0, 1\)"),
        (lambda: optim.Adam([P], betas=(0.9,)), ValueError, "betas must be two numbers"),
        (lambda: optim.SGD([P], momentum=-0.1), ValueError, "momentum must not be negative"),
        (lambda: optim.SGD([P], nesterov=True), ValueError, "nesterov needs momentum, and no dampening"),
        (lambda: optim.SGD([P], momentum=0.9, dampening=0.1, nesterov=True), ValueError, "nesterov needs momentum"),
        (lambda: optim.Adam([P], amsgrad=True), TypeError, "unexpected keyword argument 'amsgrad'"),
        (lambda: optim.StepLR(optim.SGD([P]), 0), ValueError, "step_size must be at least 1, got 0"),
        (lambda: optim.LinearLR(optim.SGD([P]), total_iters=0), ValueError, "total_iters must be at least 1, got 0"),
        (lambda: optim.CosineAnnealingLR(optim.SGD([P]), 0), ValueError, "T_max must be at least 1, got 0"),
        (lambda: optim.clip_grad_norm_([P], -1), ValueError, "max_norm must be >= 0 and norm_type > 0, got -1"),
        (lambda: optim.clip_grad_norm_([P], 1, 0), ValueError, "norm_type > 0, got 1 and 0"),
        (lambda: optim.ExponentialMovingAverage([P], 1.0), ValueError, r"decay must be in \[0, 1\), got 1.0"),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_an_optimizer_must_say_what_it_does():
    optimizer = optim.Optimizer([P], {})
    P.grad = tinygen.tensor([0.0, 0.0])
    with pytest.raises(NotImplementedError):
        optimizer.step()
    with pytest.raises(NotImplementedError):
        optim.LRScheduler(optim.SGD([P]))


def test_parameters_may_come_as_a_generator_or_alone():
    params = parameters()
    assert optim.SGD(p for p in params).param_groups[0]["params"] == params
    assert optim.SGD(P).param_groups[0]["params"] == [P]
    assert optim.SGD({"params": params, "lr": 3}).param_groups[0]["lr"] == 3


def test_warm_up_then_cosine_by_a_function():
    optimizer = optim.SGD([P], lr=2.0)
    schedule = optim.LambdaLR(optimizer, lambda n: n / 4 if n < 4 else (1 + math.cos(math.pi * (n - 4) / 4)) / 2)
    rates = []
    for _ in range(9):
        rates += schedule.get_last_lr()
        schedule.step()
    assert rates == pytest.approx([0, 0.5, 1, 1.5, 2, 1.7071068, 1, 0.2928932, 0], abs=1e-7)


@pytest.mark.parametrize(
    ("make", "rates"),
    [
        (lambda o: optim.StepLR(o, 1, 0.5), [1, 0.5, 0.25]),
        (lambda o: optim.LinearLR(o, 0.5, total_iters=1), [0.5, 1, 1]),
        (lambda o: optim.CosineAnnealingLR(o, 1, 0.25), [1, 0.25, 1]),
    ],
)
def test_the_shortest_schedules(make, rates):
    schedule = make(optim.SGD([P], lr=1.0))
    for rate in rates:
        assert schedule.get_last_lr() == pytest.approx([rate])
        schedule.step()


def test_a_resumed_schedule_goes_on_from_where_it_was():
    optimizer = optim.SGD([P], lr=1.0)
    schedule = optim.StepLR(optimizer, 2, 0.5)
    for _ in range(5):
        schedule.step()
    again = optim.SGD([P], lr=99.0)
    resumed = optim.StepLR(again, 2, 0.5)
    resumed.load_state_dict(schedule.state_dict())
    assert again.param_groups[0]["lr"] == 0.25
    resumed.step()
    assert again.param_groups[0]["lr"] == 0.125
    with pytest.raises(ValueError, match="StepLR: expected last_epoch and base_lrs, got last_epoch"):
        resumed.load_state_dict({"last_epoch": 1})
    with pytest.raises(ValueError, match="base_lrs must hold 1 rates"):
        resumed.load_state_dict({"last_epoch": 1, "base_lrs": [1.0, 2.0]})


def warm_up_and_steps():
    optimizer = optim.SGD([P], lr=0.1)
    return optimizer, [optim.LinearLR(optimizer, 0.1, 1, 4), optim.StepLR(optimizer, 3, 0.5)]


def test_two_schedules_of_one_optimizer_change_its_rate_one_after_the_other():
    optimizer, schedules = warm_up_and_steps()
    rates = []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        for schedule in schedules:
            schedule.step()
    assert rates == pytest.approx([0.01, 0.0325, 0.055, 0.03875, 0.05], rel=1e-12)  # PyTorch's


@pytest.mark.parametrize("stop", range(6))
def test_two_schedules_that_are_resumed_go_on_from_where_they_were(stop):
    (whole, both), (again, resumed) = warm_up_and_steps(), warm_up_and_steps()
    for epoch in range(8):
        if epoch == stop:
            for old, new in zip(both, resumed, strict=True):
                new.load_state_dict(old.state_dict())
        for schedule in (*both, *(resumed if epoch >= stop else [])):
            schedule.step()
    assert again.param_groups[0]["lr"] == whole.param_groups[0]["lr"]


def test_schedules_leave_an_optimizers_state_as_it_is_without_them():
    optimizer = optim.SGD([P], lr=0.1)
    names = set(optimizer.state_dict())
    optim.StepLR(optimizer, 2)
    assert set(optimizer.state_dict()) == names


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW"])
@pytest.mark.parametrize("number", [np.float32(1e-3), np.float64(1e-3), np.array(1e-3), np.array(1e-3, np.float32)])
def test_a_setting_may_be_numpys_number_also_in_a_state(kind, number):
    p = Parameter(np.ones((3, 3), np.float32))
    p.grad = tinygen.tensor(np.ones((3, 3), np.float32))
    optimizer, again = (getattr(optim, kind)([p], lr=number, weight_decay=0) for _ in range(2))
    optimizer.step()
    state = optimizer.state_dict()
    again.load_state_dict(state | {"group.0.lr": number})
    again.step()
    optimizer.param_groups[0]["lr"] = number
    again.load_state_dict(optimizer.state_dict())
    again.step()
    assert type(state["group.0.lr"]) is float
    assert type(again.param_groups[0]["lr"]) is float
    assert p.numpy() == pytest.approx(np.full((3, 3), 0.997), abs=2e-5)


@given(st.floats(0.1, 10), st.integers(0, 2**32 - 1))
def test_clipping_scales_all_gradients_by_one_factor(max_norm, seed):
    params = parameters()
    give_gradients(params, np.random.default_rng(seed))
    before = np.concatenate([p.grad.numpy().ravel() for p in params])
    total = optim.clip_grad_norm_(iter(params), max_norm)
    after = np.concatenate([p.grad.numpy().ravel() for p in params])
    assert total == pytest.approx(np.linalg.norm(before))
    np.testing.assert_allclose(after, before * min(1, max_norm / total), rtol=1e-5)


def test_clipping_without_gradients_and_with_infinite_ones():
    assert optim.clip_grad_norm_([Parameter(1.0)], 1.0) == 0
    p = Parameter(np.ones(2))
    p.grad = tinygen.tensor(np.array([np.inf, 1.0]))
    with np.errstate(invalid="ignore"):
        assert optim.clip_grad_norm_(p, 1.0) == np.inf
    p.grad = tinygen.tensor(np.array([1e200, 1e200], np.float64))
    with np.errstate(over="ignore"):
        assert optim.clip_grad_norm_(p, 1.0, math.inf) == 1e200
    p.grad = tinygen.tensor(np.array([np.nan, 1.0]))
    assert math.isnan(optim.clip_grad_norm_(p, 1.0))


def test_large_float32_gradients_have_a_finite_norm():
    p = Parameter(np.zeros(4, np.float32))
    p.grad = tinygen.tensor(np.full(4, 1e30, np.float32))
    assert optim.clip_grad_norm_(p, 1.0) == pytest.approx(2e30)
    np.testing.assert_allclose(p.grad.numpy(), 0.5, rtol=1e-5)


def test_the_moving_average_is_swapped_in_and_out_whatever_happens():
    params = parameters()
    start = values(params)
    average = optim.ExponentialMovingAverage(params, decay=0.75)
    for p in params:
        p.write()[...] += 4.0
    average.update()
    moved = values(params)
    with average.average_parameters():
        for p, a in zip(params, start, strict=True):
            np.testing.assert_allclose(p.numpy(), a + 1)
    assert_equal(values(params), moved)
    with pytest.raises(ZeroDivisionError), average.average_parameters():
        _ = 1 / 0
    assert_equal(values(params), moved)
    state = average.state_dict()
    fresh = optim.ExponentialMovingAverage(params, decay=0.75)
    fresh.load_state_dict(state)
    average.update(), fresh.update()
    assert_equal(fresh.averages, average.averages)
    assert [a.strides for a in fresh.averages] == [p._array.strides for p in params]
    assert not np.array_equal(state["average.1"], average.averages[1])
    for bad in ({k: v for k, v in state.items() if k != "average.2"}, state | {"average.1": np.zeros(2)}):
        before = [a.copy() for a in fresh.averages]
        with pytest.raises(ValueError, match=r"average.(2 has shape None|1 has shape \(2,\)) instead of \((3,)?\)"):
            fresh.load_state_dict(bad)
        assert_equal(fresh.averages, before)


def test_swapping_in_the_average_is_a_change_that_backward_notices():
    p = Parameter(np.array([1.0, 2.0]))
    average = optim.ExponentialMovingAverage([p])
    loss = (p * p).sum()
    with average.average_parameters():
        pass
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


@pytest.mark.parametrize(
    ("settings_", "error", "words"),
    [
        ({"lr": "0.1"}, TypeError, "lr must be a number, got '0.1'"),
        ({"eps": None}, TypeError, "eps must be a number, got None"),
        ({"lr": [0.1]}, TypeError, "lr must be a number"),
        ({"betas": 0.9}, ValueError, "betas must be two numbers"),
        ({"betas": ("a", "b")}, ValueError, "betas must be two numbers"),
    ],
)
def test_settings_that_are_no_numbers(settings_, error, words):
    with pytest.raises(error, match=f"^Adam: {words}"):
        optim.Adam([Parameter([1.0])], **settings_)


def test_parameters_that_are_none():
    p = Parameter([1.0])
    with pytest.raises(TypeError, match="SGD: params must be tensors or dicts, got NoneType"):
        optim.SGD(None)
    with pytest.raises(TypeError, match="SGD: a group must be a dict with params, as the first is"):
        optim.SGD([{"params": [p]}, p])


def test_a_state_dict_of_another_kind():
    p = Parameter([1.0, 2.0])
    optimizer = optim.Adam([p])
    p.grad = tinygen.tensor([1.0, 1.0])
    optimizer.step()
    state = optimizer.state_dict()
    for bad, error, words in (
        (None, TypeError, "must be a dict of arrays by name, got NoneType"),
        (optimizer, TypeError, "got Adam; give its"),
        (state | {"state.0.step": -1}, ValueError, "state.0.step is no count"),
        (state | {"state.0.step": 1.5}, ValueError, "state.0.step is no count"),
        (state | {"state.0.exp_avg": np.ones(2, complex)}, ValueError, "state.0.exp_avg is no array of real numbers"),
        (state | {"state.0.exp_avg": None}, TypeError, "state.0.exp_avg is None"),
        (state | {"group.0.lr": "a"}, TypeError, "lr must be a number, got 'a'"),
    ):
        with pytest.raises(error, match=words):
            optimizer.load_state_dict(bad)
    optimizer.load_state_dict(state | {"state.0.exp_avg": tinygen.tensor([3.0, 4.0])})
    np.testing.assert_array_equal(optimizer.state[0]["exp_avg"], [3, 4])
    layer = nn.BatchNorm1d(2)
    with pytest.raises(TypeError, match="got BatchNorm1d; give its"):
        layer.load_state_dict(nn.BatchNorm1d(2))
    with pytest.raises(TypeError, match="load_state_dict: bias is None, not an array"):
        layer.load_state_dict(layer.state_dict() | {"bias": None})
