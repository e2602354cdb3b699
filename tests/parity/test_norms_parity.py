"""Normalization, attention, the activations and losses beside PyTorch's: values and gradients, first and second."""

import functools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as TF
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import tinygen
from tests.parity.test_nn_parity import both, compare, normal
from tinygen import gradcheck, nn
from tinygen.nn import functional as F

FEW = settings(max_examples=30)
seeds = st.integers(0, 2**32 - 1)


# ------------------------------------------------------------------------------------------------------ normalization


@FEW
@given(
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
    pixels=st.lists(st.integers(1, 4), max_size=3), affine=st.booleans(), silu=st.booleans(),
    shifts=st.sampled_from(["none", "one", "each"]), eps=st.sampled_from([1e-5, 0.1]), seed=seeds,
    dtype=st.sampled_from([np.float64, np.float32]),
)  # fmt: skip
def test_group_norm(sizes, pixels, affine, silu, shifts, eps, seed, dtype):
    n, groups, width = sizes
    c = groups * width
    assume(width * math.prod(pixels) > 1)
    shift = {"none": (), "one": ((1, c),), "each": ((n, c),)}[shifts]
    arrays = normal(seed, dtype, (n, c, *pixels), *shift, *([(c,)] * 2 if affine else []))

    def ours(x, *p):
        shift, p = (p[0], p[1:]) if shifts != "none" else (None, p)
        return F.group_norm(x, groups, *(p or (None, None)), eps, silu=silu, shift=shift)

    def theirs(x, *p):
        if shifts != "none":
            x, p = x + p[0].reshape(-1, c, *[1] * len(pixels)), p[1:]
        z = TF.group_norm(x, groups, *(p or (None, None)), eps)
        return TF.silu(z) if silu else z

    compare(ours, theirs, arrays, 1e-9 if dtype == np.float64 else 3e-3)


@FEW
@given(
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 3)), pixels=st.lists(st.integers(2, 4), min_size=1, max_size=2),
    affine=st.booleans(), own=st.booleans(), running=st.booleans(), seed=seeds, arrays_run=st.booleans(),
)  # fmt: skip
def test_instance_norm(sizes, pixels, affine, own, running, seed, arrays_run):
    assume(own or running)
    c = sizes[1]
    arrays = normal(seed, np.float64, (*sizes, *pixels), *([(c,)] * 2 if affine else []))
    mean, var = normal(seed + 1, np.float64, (c,), (c,))
    var = var**2 + 0.5
    mine = [a.copy() if arrays_run else tinygen.tensor(a) for a in (mean, var)] if running else [None, None]
    other = [torch.tensor(mean), torch.tensor(var)] if running else [None, None]
    compare(
        lambda x, *p: F.instance_norm(x, *mine, *(p or (None, None)), own, 0.3, 1e-3),
        lambda x, *p: TF.instance_norm(x, *other, *(p or (None, None)), own, 0.3, 1e-3), arrays, 1e-9,
    )  # fmt: skip
    for a, b in zip(mine, other, strict=True):
        if running:
            np.testing.assert_allclose(a if arrays_run else a.numpy(), b.numpy(), 1e-9)


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_on_running_arrays(training):
    mean, var = np.array([0.5, -1.0]), np.array([2.0, 0.5])
    other = torch.tensor(mean), torch.tensor(var)
    arrays = normal(0, np.float64, (3, 2, 4), (2,), (2,))
    compare(lambda x, w, b: F.batch_norm(x, mean, var, w, b, training),
            lambda x, w, b: TF.batch_norm(x, *other, w, b, training), arrays, 1e-9)  # fmt: skip
    for a, b in zip((mean, var), other, strict=True):
        np.testing.assert_allclose(a, b.numpy(), 1e-12)


@FEW
@given(shape=st.lists(st.integers(1, 4), min_size=2, max_size=4), axes=st.integers(1, 2), affine=st.booleans(),
       eps=st.sampled_from([None, 1e-3]), seed=seeds)  # fmt: skip
def test_rms_norm(shape, axes, affine, eps, seed):
    last = tuple(shape[-axes:])
    arrays = normal(seed, np.float64, shape, *([last] if affine else []))
    compare(lambda x, *p: F.rms_norm(x, last, *(p or (None,)), eps),
            lambda x, *p: TF.rms_norm(x, last, *(p or (None,)), eps), arrays, 1e-9)  # fmt: skip


# -------------------------------------------------------------------------------------------------------- activations


@pytest.mark.parametrize(
    ("name", "options"), [("silu", {}), ("mish", {}), ("gelu", {}), ("gelu", {"approximate": "tanh"})]
)
def test_activations(name, options):
    x = np.array([[0.0, -0.0, 1.0, -1.0, 50, -50], [1e-310, 20, -20, 3, -3, 0.5], [700, -700, 1e4, -1e4, 1e-20, -7]])
    compare(*both(name, **options), [x], 1e-9)


# ---------------------------------------------------------------------------------------------------------- attention


@FEW
@given(
    lead=st.lists(st.integers(1, 2), max_size=2), sizes=st.tuples(*[st.integers(1, 4)] * 4),
    mask=st.sampled_from([None, "causal", "bool", "float"]), scale=st.sampled_from([None, 0.3]), seed=seeds,
)  # fmt: skip
def test_scaled_dot_product_attention(lead, sizes, mask, scale, seed):
    length, size, e, v = sizes
    arrays = normal(seed, np.float64, (*lead, length, e), (*lead, size, e), (*lead, size, v))
    rng = np.random.default_rng(seed)
    given_mask = rng.random((length, size)) < 0.6 if mask == "bool" else None
    options = {"is_causal": mask == "causal", "scale": scale}
    if mask == "float":
        arrays += normal(seed + 1, np.float64, (length, size))
    compare(
        lambda *a: F.scaled_dot_product_attention(*a[:3], *(a[3:] or (given_mask,)), **options),
        lambda *a: TF.scaled_dot_product_attention(
            *a[:3], *(a[3:] or (None if given_mask is None else torch.tensor(given_mask),)), **options
        ), arrays, 1e-9,
    )  # fmt: skip


@pytest.mark.parametrize("options", [
    {}, {"batch_first": True}, {"bias": False}, {"kdim": 3, "vdim": 5}, {"kdim": 4, "vdim": 5, "batch_first": True},
])  # fmt: skip
@pytest.mark.parametrize("masks", [(), ("attn",), ("padding",), ("attn", "padding")])
def test_multihead_attention(options, masks):
    torch.manual_seed(0)
    other = torch.nn.MultiheadAttention(4, 2, **options).double()
    mine = nn.MultiheadAttention(4, 2, **options, rng=np.random.default_rng(0)).to(np.float64)
    assert {n: p.shape for n, p in mine.named_parameters()} == {n: tuple(p.shape) for n, p in other.named_parameters()}
    mine.load_state_dict({name: p.numpy() for name, p in other.state_dict().items()})
    kdim, vdim = options.get("kdim", 4), options.get("vdim", 4)
    arrays = normal(0, np.float64, (3, 2, 4), (5, 2, kdim), (5, 2, vdim))
    if options.get("batch_first"):
        arrays = [np.swapaxes(a, 0, 1) for a in arrays]
    settings = {}
    if "attn" in masks:
        settings["attn_mask"] = np.arange(5) > np.arange(3)[:, None] + 1
    if "padding" in masks:
        settings["key_padding_mask"] = np.array([[False] * 5, [False, False, False, True, True]])
    their_settings = {k: torch.tensor(v) for k, v in settings.items()}
    for average in (True, False):
        compare(lambda *a, average=average: mine(*a, average_attn_weights=average, **settings),
                lambda *a, average=average: other(*a, average_attn_weights=average, **their_settings),
                arrays, 1e-9)  # fmt: skip
    one = [a[0] if options.get("batch_first") else a[:, 0] for a in arrays]
    if "padding" not in masks:
        compare(lambda *a: mine(*a, **settings)[0], lambda *a: other(*a, **their_settings)[0], one, 1e-9)
    assert mine(*map(tinygen.tensor, arrays), need_weights=False)[1] is None


# ------------------------------------------------------------------------------------------------------------- losses


REDUCTIONS = st.sampled_from(["mean", "sum", "none"])


@FEW
@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4), reduction=REDUCTIONS, weighted=st.booleans(),
    ignored=st.sampled_from([-100, 0, 1]), smoothing=st.sampled_from([0.0, 0.2]), soft=st.booleans(), seed=seeds,
)  # fmt: skip
def test_cross_entropy(shape, reduction, weighted, ignored, smoothing, soft, seed):
    rng = np.random.default_rng(seed)
    classes = shape[1] if len(shape) > 1 else shape[0]
    (x,) = normal(seed, np.float64, shape)
    rest = (shape[0], *shape[2:]) if len(shape) > 1 else ()
    target = rng.random(shape) if soft else rng.integers(0, classes, rest)
    if not soft and ignored == -100 and np.ndim(target):
        target[rng.random(rest) < 0.2] = -100
    assume(soft or reduction != "mean" or (target != ignored).any())
    weight = rng.random(classes) + 0.1 if weighted else None
    options = {"reduction": reduction} if soft else {"reduction": reduction, "ignore_index": ignored}

    def call(lib, make, name, **more):
        """Of logits; and of the target, if it is probabilities."""
        fixed = None if soft else make(target)
        w = make(weight) if weighted else None
        return lambda x, t=fixed: getattr(lib, name)(x, t, w, **options, **more)

    arrays = [x, target] if soft else [x]
    sides = ((F, np.asarray), (TF, torch.tensor))
    compare(*(call(*side, "cross_entropy", label_smoothing=smoothing) for side in sides), arrays, 1e-9)
    if not soft and len(shape) > 1:
        compare(*(call(*side, "nll_loss") for side in sides), arrays, 1e-9)


@FEW
@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=3), reduction=REDUCTIONS, weighted=st.booleans(),
       positive=st.booleans(), seed=seeds)  # fmt: skip
def test_binary_cross_entropies(shape, reduction, weighted, positive, seed):
    rng = np.random.default_rng(seed)
    (x,), target = normal(seed, np.float64, shape), rng.random(shape)
    settings = {"weight": rng.random(shape) + 0.1} if weighted else {}
    p, theirs = 1 / (1 + np.exp(-x)), {k: torch.tensor(v) for k, v in settings.items()}
    compare(*(functools.partial(lib.binary_cross_entropy, reduction=reduction, **s)
              for lib, s in ((F, settings), (TF, theirs))), [p, target], 1e-9)  # fmt: skip
    p.flat[0] = float(rng.integers(2))  # at an end, where logarithms are cut off
    both = (F, np.asarray(target), settings), (TF, torch.tensor(target), theirs)
    compare(*(lambda x, lib=lib, t=t, s=s: lib.binary_cross_entropy(x, t, reduction=reduction, **s)
              for lib, t, s in both), [p], 1e-9)  # fmt: skip
    if positive:
        settings["pos_weight"] = rng.random(shape[-1:]) + 0.5
        theirs["pos_weight"] = torch.tensor(settings["pos_weight"])
    compare(*(functools.partial(lib.binary_cross_entropy_with_logits, reduction=reduction, **s)
              for lib, s in ((F, settings), (TF, theirs))), [x * 40, target], 1e-9)  # fmt: skip


@FEW
@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=3), reduction=REDUCTIONS, seed=seeds)
def test_regression_losses(shape, reduction, seed):
    rng = np.random.default_rng(seed)
    x, y = np.round(2 * rng.standard_normal((2, *shape))) / 2  # at kinks and ties, too
    for delta in (0.5, 1.0):
        compare(*both("huber_loss", reduction=reduction, delta=delta), [x, y], 1e-9)
        compare(*both("smooth_l1_loss", reduction=reduction, beta=delta), [x, y], 1e-9)
    compare(*both("smooth_l1_loss", reduction=reduction, beta=0.0), [x, y], 1e-9)
    weight = rng.random(shape) + 0.1
    for name in ("mse_loss", "l1_loss", "huber_loss"):
        compare(
            *(lambda *t, lib=lib, name=name: getattr(lib, name)(*t[:2], reduction=reduction, weight=t[2])
              for lib in (F, TF)), [x, y, weight], 1e-9,
        )  # fmt: skip


@FEW
@pytest.mark.filterwarnings("ignore:reduction")
@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=3), reduction=REDUCTIONS, seed=seeds)
def test_kl_div(shape, reduction, seed):
    rng = np.random.default_rng(seed)
    x, target = rng.standard_normal(shape), rng.random(shape)
    for kind in (reduction, "batchmean"):
        compare(*both("kl_div", reduction=kind), [x, target], 1e-9)
        compare(*both("kl_div", reduction=kind, log_target=True), [x, np.log(target)], 1e-9)
    target.flat[0] = 0
    compare(lambda x: F.kl_div(x, target, reduction="none"),
            lambda x: TF.kl_div(x, torch.tensor(target), reduction="none"), [x], 1e-9)  # fmt: skip


@FEW
@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=3), reduction=REDUCTIONS, full=st.booleans(),
       kind=st.sampled_from(["same", "one", "less"]), seed=seeds)  # fmt: skip
def test_gaussian_nll_loss(shape, reduction, full, kind, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((2, *shape))
    of_var = {"same": tuple(shape), "one": (*shape[:-1], 1), "less": tuple(shape[:-1])}[kind]
    var = rng.random(of_var) * (rng.random(of_var) < 0.8)  # some are 0, which counts as eps
    compare(*both("gaussian_nll_loss", reduction=reduction, full=full, eps=0.01), [x, y, np.array(var)], 1e-9)


@pytest.mark.parametrize(("make", "arrays"), [
    (lambda m, t: m.CrossEntropyLoss(t([1.0, 2.0, 0.5])), ["x", "labels"]),
    (lambda m, t: m.CrossEntropyLoss(ignore_index=1, reduction="sum", label_smoothing=0.1), ["x", "labels"]),
    (lambda m, t: m.NLLLoss(reduction="none"), ["x", "labels"]),
    (lambda m, t: m.BCELoss(), ["p", "q"]),
    (lambda m, t: m.BCEWithLogitsLoss(pos_weight=t([1.0, 2.0, 0.5])), ["x", "q"]),
    (lambda m, t: m.MSELoss(reduction="sum"), ["x", "q"]),
    (lambda m, t: m.L1Loss(), ["x", "q"]),
    (lambda m, t: m.HuberLoss("none", 0.5), ["x", "q"]),
    (lambda m, t: m.SmoothL1Loss(beta=0.5), ["x", "q"]),
    (lambda m, t: m.KLDivLoss(reduction="batchmean", log_target=True), ["x", "y"]),
    (lambda m, t: m.GaussianNLLLoss(full=True), ["x", "y", "q"]),
])  # fmt: skip
def test_losses_as_modules(make, arrays):
    rng = np.random.default_rng(0)
    given_arrays = {"x": rng.standard_normal((4, 3)), "y": rng.standard_normal((4, 3)), "p": rng.random((4, 3)),
                    "q": rng.random((4, 3)), "labels": rng.integers(0, 3, 4)}  # fmt: skip
    mine = make(nn, lambda v: tinygen.tensor(np.array(v)))
    other = make(torch.nn, lambda v: torch.tensor(v, dtype=torch.float64))
    assert list(mine.state_dict()) == list(other.state_dict())
    compare(mine, other, [given_arrays[name] for name in arrays], 1e-9)


# ---------------------------------------------------------------------------------------------------- parametrizations


@pytest.mark.parametrize("make", [
    lambda m, g: m.Linear(4, 3, **g), lambda m, g: m.Conv2d(2, 3, 3, **g), lambda m, g: m.ConvTranspose2d(2, 3, 2, **g),
])  # fmt: skip
@pytest.mark.parametrize(("name", "options"), [
    ("spectral_norm", {}), ("spectral_norm", {"n_power_iterations": 3}), ("weight_norm", {}),
    ("weight_norm", {"dim": 1}), ("weight_norm", {"dim": None}),
])  # fmt: skip
def test_parametrizations(make, name, options):
    torch.manual_seed(0)
    rng = {"rng": np.random.default_rng(0)}
    other = getattr(torch.nn.utils.parametrizations, name)(make(torch.nn, {}).double(), **options)
    mine = getattr(nn.utils.parametrizations, name)(
        make(nn, rng).to(np.float64), **options, **(rng if name == "spectral_norm" else {})
    )
    assert {n: v.shape for n, v in mine.state_dict().items()} == {
        n: tuple(v.shape) for n, v in other.state_dict().items()
    }
    mine.load_state_dict({n: v.numpy() for n, v in other.state_dict().items()})
    x = np.random.default_rng(0).standard_normal((2, 4) if "Linear" in type(mine).__name__ else (2, 2, 4, 4))
    for mode in (True, True, False):
        mine.train(mode), other.train(mode)
        compare(mine, other, [x], 1e-9)
    mine(tinygen.tensor(x)).sum().backward()
    other(torch.tensor(x)).sum().backward()
    theirs = dict(other.named_parameters())
    for key, p in mine.named_parameters():
        np.testing.assert_allclose(p.grad.numpy(), theirs[key].grad.numpy(), 1e-9, 1e-9, err_msg=key)
    for key, value in other.state_dict().items():
        np.testing.assert_allclose(mine.state_dict()[key], value.numpy(), 1e-9)


# ------------------------------------------------------------------------------------------------------- second order

COMPOSED = {
    "group_norm": (
        lambda x, w, b, s: F.group_norm(x, 2, w, b, silu=True, shift=s),
        [(2, 4, 3), (4,), (4,), (2, 4)],
    ),
    "instance_norm": (lambda x, w, b: F.instance_norm(x, None, None, w, b), [(2, 3, 3), (3,), (3,)]),
    "rms_norm": (lambda x, w: F.rms_norm(x, 3, w), [(2, 3), (3,)]),
    "gelu": (F.gelu, [(2, 3)]),
    "gelu, tanh": (lambda x: F.gelu(x, "tanh"), [(2, 3)]),
    "silu": (F.silu, [(2, 3)]),
    "mish": (F.mish, [(2, 3)]),
    "attention": (F.scaled_dot_product_attention, [(2, 3, 2), (2, 4, 2), (2, 4, 3)]),
    "causal attention": (lambda *a: F.scaled_dot_product_attention(*a, is_causal=True), [(3, 2), (4, 2), (4, 3)]),
    "bilinear": (F.bilinear, [(2, 3), (2, 2), (4, 3, 2), (4,)]),
    "huber_loss": (F.huber_loss, [(2, 3), (2, 3)]),
    "smooth_l1_loss": (F.smooth_l1_loss, [(2, 3), (2, 3)]),
    "smoothed cross entropy": (lambda x: F.cross_entropy(x, np.array([0, 2]), label_smoothing=0.2), [(2, 3)]),
    "soft cross entropy": (F.cross_entropy, [(2, 3), (2, 3)]),
    "ignored": (lambda x, w: F.cross_entropy(x, np.array([0, -100, 2]), w), [(3, 3), (3,)]),
    "pos_weight": (lambda x, t, w: F.binary_cross_entropy_with_logits(x, t, pos_weight=w), [(2, 3), (2, 3), (3,)]),
    "kl_div": (lambda x, t: F.kl_div(x, t * t + 0.1), [(2, 3), (2, 3)]),
    "gaussian_nll_loss": (lambda x, y, v: F.gaussian_nll_loss(x, y, v * v + 0.1), [(2, 3)] * 3),
}


@pytest.mark.parametrize("name", COMPOSED)
def test_gradients_of_first_and_second_order(name):
    function, shapes = COMPOSED[name]
    gradcheck.check(function, [np.random.default_rng(i).standard_normal(s) for i, s in enumerate(shapes)], order=2)
