"""The C kernels, called as they are: right on random shapes, wherever their arrays lie, whatever happens around them.

The cases come from tests/kernels/cases.py, their answers from tests/kernels/definitions.py. TINYGEN_CASES is the
number of random cases for each kernel; with TINYGEN_FULL=1 they are more, and more kernels get arrays of more than 2^31
elements.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.kernels import definitions, huge
from tests.kernels.cases import DTYPES, KERNELS, Case, In, InOut, Out, Struct, case, normal
from tests.kernels.memory import PAGE, Arena, anywhere, guarded, shifted, thaw
from tinygen import kernels

ROOT = Path(__file__).parents[2]
FULL = os.environ.get("TINYGEN_FULL") == "1"
CASES = int(os.environ.get("TINYGEN_CASES", "500" if FULL else "200"))
FEW = max(8, CASES // 12)  # of what is already random in another way
ROUNDS = max(1, min(3, CASES // 60))  # in which each kernel meets each other
SETS = [name for level, name in enumerate(kernels.ISAS) if kernels.library.lib.tg_set_isa(level) == level]

ONES = ("h", "w", "oh", "ow", "kh", "kw", "stride_h", "stride_w", "dil_h", "dil_w")

every_kernel = pytest.mark.parametrize("kernel", KERNELS)


def in_python(program: str, timeout: float = 120) -> subprocess.CompletedProcess:
    """A program of its own, since it may crash or hang."""
    start = "import os, sys, threading\nimport numpy as np\nfrom tests.kernels.cases import *\n"
    return subprocess.run(
        [sys.executable, "-c", start + textwrap.dedent(program)],
        cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return [a.tobytes() for a in one] == [a.tobytes() for a in other]


# ------------------------------------------------------------------------------------------------ the right numbers


def test_every_kernel_of_the_header_has_cases():
    header = (ROOT / "csrc" / "tinygen.h").read_text()
    assert set(KERNELS) == set(re.findall(r"^int (tg_\w+)\(int dtype", header, re.M))


@pytest.mark.fault("K01", "K04", "K12")
@every_kernel
def test_definition(kernel):
    """Each case in each instruction set and type, its arrays right before or right behind a forbidden page."""
    for seed in range(CASES):
        one = case(kernel, seed)
        for level, name in enumerate(SETS):
            with kernels.instruction_set(name):
                for dtype in DTYPES:
                    one.check(one.run(dtype, place=guarded(at_end=(seed + level + DTYPES.index(dtype)) % 2 == 0)))


PRODUCTS = (  # images of one pixel, channels: in parts, in two blocks that differ by one term, in groups of panels
    (2100, 130, 131), (9, 257, 300), (70, 31, 193), (300, 1027, 33), (40, 1024, 700),
)  # fmt: skip


@pytest.mark.fault("K01", "K04", "K07", "K12")
@pytest.mark.parametrize(("n", "i", "o"), PRODUCTS)
def test_matrix_products(n, i, o):
    """Larger than the random cases are; the weight's gradient, of so many terms, near to what sums in blocks reach."""
    rng = np.random.default_rng(n)
    x, y, w, b = normal(rng, n, i), normal(rng, n, o), normal(rng, i, o), normal(rng, o)
    positive, relu = normal(rng, n, i), np.maximum(x, 0)
    s = SimpleNamespace(n=n, ci=i, co=o, mask=0, groups=1, pad_h=0, pad_w=0, **dict.fromkeys(ONES, 1))
    shape, sums = Struct("tg_conv_shape *", s), abs(relu).T @ abs(y)
    products = (
        ("tg_conv2d", [shape, 1, In(x), In(w), In(b), None, Out(y.shape)],
         [(relu @ w + b, (abs(relu) @ abs(w) + abs(b)) * (i + 2))]),
        ("tg_conv_transpose2d", [shape, In(y), In(w), None, In(positive), Out(x.shape)],
         [(np.where(positive > 0, y @ w.T, 0), (abs(y) @ abs(w).T) * (o + 2))]),
        ("tg_conv2d_weight", [shape, 1, In(x), In(y), Out(w.shape), Out(b.shape)],
         [(relu.T @ y, sums * 8), (y.sum(0), abs(y).sum(0) * 8)]),
    )  # fmt: skip
    for one in (Case(*product) for product in products):
        for level, name in enumerate(SETS):
            with kernels.instruction_set(name):
                for dtype in DTYPES:
                    found = one.run(dtype, place=guarded(at_end=level % 2 == 0))
                    one.check(found)
                    assert all(same(found, one.run(dtype, threads)) for threads in (2, 5))


def narrow_products(x, y, w, b) -> list[Case]:
    """The products of rows (N, C) with a square matrix, as images of one pixel."""
    (n, c), size = x.shape, x.shape[1] + 2
    s = SimpleNamespace(n=n, ci=c, co=c, mask=0, groups=1, pad_h=0, pad_w=0, **dict.fromkeys(ONES, 1))
    shape, sums = Struct("tg_conv_shape *", s), (abs(x).T @ abs(y), abs(y).sum(0))
    products = (
        ("tg_conv2d", [shape, 0, In(x), In(w), In(b), None, Out(x.shape)],
         [(x @ w + b, (abs(x) @ abs(w) + abs(b)) * size)]),
        ("tg_conv_transpose2d", [shape, In(y), In(w), None, None, Out(x.shape)],
         [(y @ w.T, (abs(y) @ abs(w).T) * size)]),
        ("tg_conv2d_weight", [shape, 0, In(x), In(y), Out(w.shape), Out(b.shape)],
         [(x.T @ y, sums[0] * 8), (y.sum(0), sums[1] * 8)]),
    )  # fmt: skip
    return [Case(*product) for product in products]


@pytest.mark.fault("K01", "K04", "K07", "K12")
@pytest.mark.parametrize("channels", [2, 3, 4, 6, 8, 12])
def test_products_with_a_small_square_matrix(channels):
    """All ends that a vector's pixels can come to, beside a forbidden page; and more rows than an item has."""
    rng = np.random.default_rng(channels)
    w, b = normal(rng, channels, channels), normal(rng, channels)
    for rows in (*range(62, 62 + 18), 2500, 2501):
        x, y = normal(rng, rows, channels), normal(rng, rows, channels)
        for one in narrow_products(x, y, w, b):
            for level, name in enumerate(SETS):
                with kernels.instruction_set(name):
                    for dtype in DTYPES:
                        found = one.run(dtype, place=guarded(at_end=(rows + level) % 2 == 0))
                        one.check(found)
                        assert rows < 2500 or same(found, one.run(dtype, 3))


@pytest.mark.fault("K01")
@np.errstate(invalid="ignore")
@pytest.mark.parametrize("channels", [2, 3, 4, 6, 8, 12])
def test_pixels_that_share_a_vector_keep_their_nan(channels):
    """Also those of a batch's end, and infinity: of a product only its row changes, of a sum only what meets it."""
    rng = np.random.default_rng(channels)
    w, b, rows = normal(rng, channels, channels), normal(rng, channels), 67
    x, y = normal(rng, rows, channels), normal(rng, rows, channels)
    others = np.arange(channels) != 1
    for name in SETS:
        with kernels.instruction_set(name):
            forward, back, sums = (one.run(np.float32) for one in narrow_products(x, y, w, b))
            for row, value in ((0, np.nan), (5, np.inf), (31, -np.inf), (66, np.nan)):
                kept, spoilt_x, spoilt_y = np.arange(rows) != row, x.copy(), y.copy()
                spoilt_x[row, 1] = spoilt_y[row, 1] = value
                for before, at in ((forward, 0), (back, 1)):
                    after = narrow_products(spoilt_x, spoilt_y, w, b)[at].run(np.float32)[0]
                    assert after[kept].tobytes() == before[0][kept].tobytes()
                    assert not np.isfinite(after[row]).any()
                gw, gbias = narrow_products(spoilt_x, y, w, b)[2].run(np.float32)
                assert same([gw[others], gbias], [sums[0][others], sums[1]])
                assert not np.isfinite(gw[1]).any()
                gw, gbias = narrow_products(x, spoilt_y, w, b)[2].run(np.float32)
                assert same([gw[:, others], gbias[others]], [sums[0][:, others], sums[1][others]])
                assert not np.isfinite(gw[:, 1]).any()
                assert not np.isfinite(gbias[1])


@pytest.mark.fault("K04")
@every_kernel
def test_inputs_may_be_read_only(kernel):
    """In memory where a write, even of the same bytes, kills the process."""
    for seed in range(FEW):
        one = case(kernel, seed)
        frozen = one.run(np.float32, 2, guarded(at_end=True, frozen=True))
        thaw()
        assert same(frozen, one.run(np.float32))


@pytest.mark.fault("K07")
@every_kernel
def test_every_number_of_threads_gives_the_same_bytes(kernel):
    for seed in range(FEW):
        one = case(kernel, 10_000 + seed)
        for dtype in DTYPES:
            alone = one.run(dtype, 1)
            assert all(same(alone, one.run(dtype, threads)) for threads in (2, 4, (0, 3, -1, 64, 1000)[seed % 5]))


LARGER = {
    "tg_conv2d": {"n": 6, "h": 12, "w": 12, "ci": 16, "co": 20, "oh": 10, "ow": 10, "kh": 3, "kw": 3},
    "tg_conv_transpose2d": {"n": 6, "h": 12, "w": 12, "ci": 16, "co": 20, "oh": 6, "ow": 6, "kh": 3, "kw": 3},
    "tg_conv2d_weight": {"n": 8, "h": 12, "w": 12, "ci": 16, "co": 20, "oh": 9, "ow": 9, "kh": 3, "kw": 3},
    "tg_lstm": {"n": 4, "h": 8, "w": 16, "units": 20, "taps": 3, "diagonal": 0},
    "tg_lstm_backward": {"n": 4, "h": 8, "w": 16, "units": 20, "taps": 2, "diagonal": 1},
    "tg_lstm_weight": {"n": 9, "h": 12, "w": 12, "units": 20, "taps": 2, "diagonal": -1},
    "tg_gated": {"rows": 3000, "channels": 21},
    "tg_gated_backward": {"rows": 3000, "channels": 21},
    "tg_cat": {"rows": 3000, "columns": (21, 32)},
    "tg_cat_backward": {"rows": 3000, "columns": (21, 32)},
    "tg_affine_coupling": {"n": 9, "pixels": 300, "channels": 6, "k": 3},
    "tg_affine_coupling_backward": {"n": 9, "pixels": 300, "channels": 6, "k": 3},
    "tg_channel_affine": {"rows": 3000, "channels": 21},
    "tg_channel_affine_backward": {"rows": 3000, "channels": 21},
    "tg_batch_norm": {"rows": 2000, "channels": 21},
    "tg_batch_norm_backward": {"rows": 2000, "channels": 21},
    "tg_attention": {"n": 9, "queries": 49, "keys": 50, "size": 24, "width": 33},
    "tg_attention_backward": {"n": 9, "queries": 49, "keys": 50, "size": 24, "width": 33},
    "tg_group_norm": {"n": 9, "pixels": 300, "channels": 24},
    "tg_group_norm_backward": {"n": 9, "pixels": 300, "channels": 24},
    "tg_cross_entropy": {"rows": 300, "classes": 101},
    "tg_cross_entropy_backward": {"rows": 300, "classes": 101},
    "tg_sample": {"n": 70, "values": 9},
}


def larger(kernel: str) -> Case:
    """A case with work for several threads."""
    wanted = dict(LARGER.get(kernel, {"n": 40_001}))
    if kernel.startswith("tg_conv"):
        wanted |= {"mask": 0, "groups": 1}
    return case(kernel, 1, **wanted)


@pytest.mark.fault("K08")
@every_kernel
def test_200_runs_give_the_same_bytes(kernel):
    one = larger(kernel)
    first = one.run(np.float32, 4)
    one.check(first)
    assert all(same(first, one.run(np.float32, 4)) for _ in range(200))


@pytest.mark.fault("K13")
@every_kernel
def test_arrays_need_no_alignment_but_their_elements(kernel):
    for seed in range(FEW):
        one = case(kernel, 20_000 + seed)
        for dtype in DTYPES:
            assert same(one.run(dtype, place=shifted(0)), one.run(dtype, place=shifted(1 + seed % 15)))


@pytest.mark.fault("K12")
def test_a_forced_instruction_set_is_really_another_one():
    """Multiply-adds round once with AVX2, twice in the baseline: the last bits of a long sum differ."""
    assert SETS[0] == "baseline"
    found = {}
    for name in kernels.ISAS:
        with kernels.instruction_set(name) as in_force:
            assert in_force == SETS[min(kernels.ISAS.index(name), len(SETS) - 1)]
            found[in_force] = larger("tg_conv2d").run(np.float32)[0].tobytes()
    assert "avx2" not in SETS or found["avx2"] != found["baseline"]


def test_an_instruction_set_that_is_not_one():
    with pytest.raises(ValueError, match="instruction_set: name must be one of baseline, avx2, avx512, got 'sse9'"):
        kernels.instruction_set("sse9").__enter__()


# --------------------------------------------------------------------------------- the same numbers by another path

# Kernels choose among ways to compute the same (a source in place or padded, weights packed or not, a scatter for few
# channels, private sums or blocks, items cut by threads): two calls with one mathematical answer that take different
# ways have to agree.


def call(kernel: str, *arguments) -> list[np.ndarray]:
    """A kernel on float64 arrays."""
    return Case(kernel, [In(a) if isinstance(a, np.ndarray) else a for a in arguments], []).run(np.float64)


def close(one, other) -> bool:
    return all(
        a.shape == b.shape and bool((abs(a - b) <= 1e-12 * (1 + abs(b).max(initial=0))).all())
        for a, b in zip(one, other, strict=True)
    )


def conv(kernel, s, one, two, bias=None, **changed):
    """One of the three faces of convolution, for s with some fields changed."""
    s = SimpleNamespace(**(vars(s) | changed))
    image, out, weight = (s.n, s.h, s.w, s.ci), (s.n, s.oh, s.ow, s.co), (s.kh, s.kw, s.ci, s.co)
    if kernel == "tg_conv2d_weight":
        return call(kernel, Struct("tg_conv_shape *", s), 0, one, two, Out(weight), Out((s.co,)))
    if kernel == "tg_conv2d":
        return call(kernel, Struct("tg_conv_shape *", s), 0, one, two, bias, None, Out(out))
    return call(kernel, Struct("tg_conv_shape *", s), one, two, bias, None, Out(image))


def conv_arrays(seed, **wanted):
    one = case("tg_conv2d", 30_000 + seed, **wanted)
    s, x, w = one.arguments[0].fields, one.arguments[2].array, one.arguments[3].array
    y = np.random.default_rng(seed).standard_normal((s.n, s.oh, s.ow, s.co))
    return s, x, w, y


@pytest.mark.fault("K14")
def test_padding_is_zeros_around_the_image():
    for seed in range(FEW):
        s, x, w, y = conv_arrays(seed, mask=0)
        ph, pw = max(0, s.pad_h), max(0, s.pad_w)
        wide = np.pad(x, ((0, 0), (ph, ph), (pw, pw), (0, 0)))
        other = {"h": s.h + 2 * ph, "w": s.w + 2 * pw, "pad_h": s.pad_h - ph, "pad_w": s.pad_w - pw}
        assert close(conv("tg_conv2d", s, x, w), conv("tg_conv2d", s, wide, w, **other))
        assert close(conv("tg_conv2d_weight", s, x, y), conv("tg_conv2d_weight", s, wide, y, **other))
        (large,) = conv("tg_conv_transpose2d", s, y, w, **other)
        assert close(conv("tg_conv_transpose2d", s, y, w), [large[:, ph : ph + s.h, pw : pw + s.w]])


@pytest.mark.fault("K14")
def test_a_mask_is_a_weight_with_zeros():
    for seed in range(4 * FEW):
        s, x, w, y = conv_arrays(seed)
        if not s.mask:
            continue
        keep = definitions.all_keeps(s)
        zeroed, plain = np.where(keep, w, 0), {"mask": 0, "groups": 1}
        assert close(conv("tg_conv2d", s, x, w), conv("tg_conv2d", s, x, zeroed, **plain))
        assert close(conv("tg_conv_transpose2d", s, y, w), conv("tg_conv_transpose2d", s, y, zeroed, **plain))
        gw, gb = conv("tg_conv2d_weight", s, x, y, **plain)
        assert close(conv("tg_conv2d_weight", s, x, y), [np.where(keep, gw, 0), gb])


@pytest.mark.fault("K14")
def test_a_batch_is_its_images():
    for seed in range(FEW):
        s, x, w, y = conv_arrays(seed, n=5)
        forward, back, gw, gb = [], [], 0.0, 0.0
        for i in range(5):
            forward += conv("tg_conv2d", s, x[i : i + 1], w, n=1)
            back += conv("tg_conv_transpose2d", s, y[i : i + 1], w, n=1)
            more, more_bias = conv("tg_conv2d_weight", s, x[i : i + 1], y[i : i + 1], n=1)
            gw, gb = gw + more, gb + more_bias
        assert close(conv("tg_conv2d", s, x, w), [np.concatenate(forward)])
        assert close(conv("tg_conv_transpose2d", s, y, w), [np.concatenate(back)])
        assert close(conv("tg_conv2d_weight", s, x, y), [gw, gb])


@pytest.mark.fault("K14")
def test_channels_are_independent():
    """Few channels take other ways than many: calls for one channel each against one for all."""
    for seed in range(FEW):
        steps = {"n": 2, "stride_h": 1, "stride_w": 1, "h": 30, "w": 20, "dil_h": 1, "dil_w": 2, "kh": 3, "kw": 2}
        larger = steps | {"oh": 30, "ow": 20, "pad_h": 1, "pad_w": 1} if seed % 4 == 0 else {}
        s, x, w, y = conv_arrays(seed, mask=0, groups=1, ci=6, co=9, **larger)
        y_parts = [conv("tg_conv2d", s, x, w[..., o : o + 1], co=1)[0] for o in range(9)]
        x_parts = [conv("tg_conv_transpose2d", s, y, w[:, :, c : c + 1], ci=1)[0] for c in range(6)]
        w_parts = [conv("tg_conv2d_weight", s, x[..., c : c + 1], y, ci=1)[0] for c in range(6)]
        o_parts = [conv("tg_conv2d_weight", s, x, y[..., o : o + 1], co=1)[0] for o in range(9)]
        assert close(conv("tg_conv2d", s, x, w), [np.concatenate(y_parts, 3)])
        assert close(conv("tg_conv_transpose2d", s, y, w), [np.concatenate(x_parts, 3)])
        weight = conv("tg_conv2d_weight", s, x, y)[:1]
        assert close(weight, [np.concatenate(w_parts, 2)])
        assert close(weight, [np.concatenate(o_parts, 3)])


def lstm(s, z, u, h0=None, c0=None, **changed):
    """gates, c, h for s with some fields changed."""
    s = SimpleNamespace(**(vars(s) | changed))
    states = [Out((s.n, s.h, s.w, s.units))] * 2
    return call("tg_lstm", Struct("tg_lstm_shape *", s), z, u, h0, c0, Out(z.shape), *states)


def lstm_arrays(seed, **wanted):
    one = case("tg_lstm", 40_000 + seed, **wanted)
    return one.arguments[0].fields, one.arguments[1].array, one.arguments[2].array


@pytest.mark.fault("K14")
def test_a_sequence_is_its_halves():
    for seed in range(FEW):
        s, z, u = lstm_arrays(seed, n=1, h=6, w=1 + 7 * seed % 71, taps=1, diagonal=0)
        first = lstm(s, z[:, :2], u, h=2)
        second = lstm(s, z[:, 2:], u, first[2][0, -1], first[1][0, -1], h=4)
        assert close(lstm(s, z, u), [np.concatenate(pair, 1) for pair in zip(first, second, strict=True)])


@pytest.mark.fault("K14")
def test_an_image_of_the_recurrence_is_alone():
    for seed in range(FEW):
        s, z, u = lstm_arrays(seed, n=7, h=4, w=5)
        parts = [lstm(s, z[i : i + 1], u, n=1) for i in range(7)]
        assert close(lstm(s, z, u), [np.concatenate(outputs) for outputs in zip(*parts, strict=True)])


@pytest.mark.fault("K14")
def test_the_diagonal_from_the_right_is_the_mirror_image():
    for seed in range(FEW):
        s, z, u = lstm_arrays(seed, diagonal=1, taps=2)
        mirrored = lstm(s, z[:, :, ::-1], u, diagonal=-1)
        assert close(lstm(s, z, u), [a[:, :, ::-1] for a in mirrored])


@pytest.mark.fault("K14")
def test_a_row_lstm_with_one_live_tap_is_a_sequence():
    for seed in range(FEW):
        s, z, u = lstm_arrays(seed, diagonal=0, taps=3, n=1)
        u[[0, 2]] = 0
        assert close(lstm(s, z, u), lstm(s, z, u[1:2], taps=1))


def test_gates_may_be_z_itself():
    for seed in range(FEW):
        one = case("tg_lstm", seed, keep=True)
        s, z, *rest = one.arguments
        slots = {}

        def place(slot, array, writable, slots=slots):
            """The gates, argument 5, in the place of z, argument 1; both are the kernel's to write."""
            slots[slot] = slots[1] if slot == 5 else anywhere(slot, array, writable)
            return slots[slot]

        alias = Case("tg_lstm", [s, InOut(z.array), *rest], [])
        assert same(alias.run(np.float64, 2, place)[1:], one.run(np.float64, 2))


@pytest.mark.parametrize("name", SETS)
def test_the_peak_counts_the_operations_of_all_threads(name):
    with kernels.instruction_set(name):
        assert 0 < 3 * kernels.library.lib.tg_peak(1) == kernels.library.lib.tg_peak(3)


# ----------------------------------------------------------------------------------------- numbers that aren't ordinary

_POSITIVE = [0.0, 1e-42, 1e-30, 9.0, 20.0, 88.5, 1e4, 3e38, np.inf]
SPECIAL = [np.nan, *_POSITIVE, *(-x for x in _POSITIVE)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SETS)
def test_silu_of_special_values(name, dtype):
    """As PyTorch's: NaN at -infinity. Its slope is 0 and 1 far out."""
    x = np.array(SPECIAL, dtype)
    with np.errstate(all="ignore"), kernels.instruction_set(name):
        (y,) = Case("tg_silu", [len(x), In(x), Out(x.shape)], []).run(dtype)
        (slope,) = Case("tg_silu_backward", [len(x), In(np.ones_like(x)), In(x), Out(x.shape)], []).run(dtype)
        wide = x.astype(np.longdouble)
        answer = wide / (1 + np.exp(-wide))
    finite, eps, tiny = np.isfinite(x), np.finfo(dtype).eps, np.finfo(dtype).tiny
    assert (abs(y[finite] - answer[finite]) <= 8 * eps * abs(answer[finite]) + 1e2 * tiny).all()
    assert y[x == np.inf] == np.inf
    assert np.isnan(y[~(x > -np.inf)]).all()
    assert (slope[finite & (x > 1e3)] == 1).all()
    assert (slope[finite & (x < -1e3)] == 0).all()
    assert (slope[abs(x) < 1e-20] == 0.5).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SETS)
def test_exp_log_and_sqrt_of_special_values(name, dtype):
    """Results below the normal numbers too, and the last finite ones of exp."""
    info = np.finfo(dtype)
    edges = [
        np.log(info.max),
        np.log(info.max) + 1,
        np.log(info.tiny),
        np.log(info.tiny) - 3,
        info.tiny / 8,
        1 - info.eps,
    ]
    x = np.array([*SPECIAL, *edges, 0.7, 0.71, 1.41, 1.42], dtype)
    wide = x.astype(np.longdouble)
    for kernel, function in (("tg_exp", np.exp), ("tg_log", np.log), ("tg_sqrt", np.sqrt)):
        with np.errstate(all="ignore"), kernels.instruction_set(name):
            (y,) = Case(kernel, [len(x), In(x), Out(x.shape)], []).run(dtype)
            answer = function(wide)
            rounded = answer.astype(dtype)
            assert (np.isnan(y) == np.isnan(rounded)).all(), kernel
            assert (np.isinf(y) == np.isinf(rounded)).all(), kernel
            assert (y[np.isinf(y)] == rounded[np.isinf(y)]).all(), kernel
        finite = np.isfinite(rounded)
        smallest = info.smallest_subnormal
        assert (abs(y[finite] - answer[finite]) <= 3 * info.eps * abs(answer[finite]) + smallest).all(), kernel


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SETS)
def test_special_values(name, dtype):
    x = np.tile(np.array(SPECIAL, dtype), 5)[: 5 * len(SPECIAL) - 2]  # some in whole vectors, some in the rest
    wide = x.astype(np.longdouble)
    with np.errstate(over="ignore"):
        answers = {
            "tg_tanh": np.tanh(wide),
            "tg_sigmoid": 1 / (1 + np.exp(-wide)),
            "tg_relu": np.maximum(wide, 0),
            "tg_elu": np.where(wide > 0, wide, np.expm1(wide)),
        }
        slope = np.where(wide > 0, 1, np.exp(wide))
    with kernels.instruction_set(name):
        for kernel, answer in answers.items():
            number = {"tg_relu": [0.0], "tg_elu": [1.0]}.get(kernel, [])
            (got,) = Case(kernel, [len(x), *number, In(x), Out(x.shape)], []).run(dtype)
            eps, tiny = np.finfo(dtype).eps, np.finfo(dtype).tiny
            assert (np.isnan(got) == np.isnan(x)).all()
            finite = np.isfinite(answer)
            assert (abs(got[finite] - answer[finite]) <= 8 * eps * abs(answer[finite]) + tiny).all(), kernel
            assert (got[np.isinf(answer)] == np.inf).all(), kernel
        (y,) = Case("tg_tanh", [len(x), In(x), Out(x.shape)], []).run(dtype)
        assert (np.signbit(y) == np.signbit(x))[~np.isnan(x)].all()
        gy = np.ones_like(x)
        (gx,) = Case("tg_elu_backward", [len(x), 1.0, In(gy), In(x), Out(x.shape)], []).run(dtype)
        np.testing.assert_allclose(gx, slope.astype(dtype), 4 * eps, tiny)
        for slope in (0.0, 0.25):
            (gx,) = Case("tg_relu_backward", [len(x), slope, In(gy), In(x), Out(x.shape)], []).run(dtype)
            assert (gx == np.where(x > 0, 1, slope)).all()
        for low, ends in ((-1.0, [-1, 1, np.nan]), (0.0, [0, 1, np.nan])):
            y = np.array(ends, dtype)
            (gx,) = Case("tg_logistic_backward", [3, low, In(np.ones_like(y)), In(y), Out(y.shape)], []).run(dtype)
            assert (gx[:2] == 0).all()
            assert np.isnan(gx[2])
        (gx,) = Case("tg_relu_backward", [len(x), 0.0, In(x), In(-gy), Out(x.shape)], []).run(dtype)
        assert (gx == 0).all()  # of infinities and NaN, too


@pytest.mark.parametrize("classes", [4, 37])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SETS)
def test_cross_entropy_of_extreme_logits(name, dtype, classes):
    """Also with classes that are ruled out; a NaN anywhere in a row comes through, whatever the class it stands at."""
    rows = np.zeros((40, classes), dtype)
    np.fill_diagonal(rows, ([1e4, -1e4, -np.inf, np.nan] * 9 + [np.nan])[:classes])
    rows[37], rows[38], rows[39, 5:] = 1e4, -1e4, -np.inf
    labels = np.full(40, 3)
    answer = definitions.cross_entropy(rows.astype(np.float64), labels)
    with kernels.instruction_set(name):
        (loss,) = Case("tg_cross_entropy", [40, classes, In(rows), In(labels), Out((40,))], []).run(dtype)
        gloss = np.ones(40)
        backward = [40, classes, In(rows), In(labels), In(gloss), Out(rows.shape)]
        (glogits,) = Case("tg_cross_entropy_backward", backward, []).run(dtype)
    eps = np.finfo(dtype).eps
    assert (np.isnan(loss) == np.isnan(answer)).all()
    assert (np.isnan(glogits).any(1) == np.isnan(answer)).all()
    good = ~np.isnan(answer)
    assert (abs(loss - answer)[good] <= 100 * eps * (1 + abs(answer[good]))).all()
    expected = definitions.cross_entropy_backward(rows[good].astype(np.float64), labels[good], gloss[good])
    assert (abs(glogits[good] - expected) <= 100 * eps).all()


def test_a_nan_reaches_the_outputs_that_see_it_and_no_other():
    for seed in range(4 * FEW):
        s, x, w, _ = conv_arrays(seed)
        if not x.size or s.groups > 1:
            continue
        spot = np.unravel_index(np.random.default_rng(seed).integers(x.size), x.shape)
        seen = np.zeros_like(x)
        seen[spot], x[spot] = 1, np.nan
        (y,) = conv("tg_conv2d", s, x, np.where(definitions.all_keeps(s), w, 0))
        sees = definitions.conv2d(s, seen, np.ones_like(w), None) > 0
        assert (np.isnan(y) == sees).all(), vars(s)


# ----------------------------------------------------------------------------------------------------- refusals

SIZES = {
    "tg_conv_shape *": ("n", "h", "w", "ci", "oh", "ow", "co", "kh", "kw"),
    "tg_lstm_shape *": ("n", "h", "w", "units", "taps"),
    "tg_sampler *": ("n", "values", "levels", "size", "layers", "runs", "steps", "weights", "first", "last", "known"),
}
ABSURD = (-1, -(2**31), -(2**63), 2**31, 2**40, 2**62, 2**63 - 1)


@every_kernel
def test_absurd_sizes_are_refused(kernel):
    """Each size in turn made negative, or larger than any array; and types, masks and groups that there are not."""
    one = larger(kernel)
    if isinstance(one.arguments[0], Struct):
        struct_type, fields = one.arguments[0]
        wrong = [{name: value} for name in SIZES[struct_type] for value in ABSURD]
        if "mask" in vars(fields):
            wrong += [
                {"mask": 3},
                {"mask": -1},
                {"groups": 0},
                {"groups": -1},
                {"groups": 2**62},
                {"groups": 7},
            ]
            wrong += [{name: value} for name in ("stride_h", "stride_w", "dil_h", "dil_w") for value in (0, *ABSURD)]
            wrong += [{name: value} for name in ("pad_h", "pad_w") for value in ABSURD[2:]]
        elif "taps" in vars(fields):
            wrong += [{"diagonal": 2}, {"diagonal": -2}, {"taps": 0}, {"taps": 4}]
        else:
            wrong += [{"levels": 0}, {"levels": 257}, {"temperature": -1.0}, {"temperature": np.nan}]
            wrong += [{"mixtures": n} for n in ABSURD] + [{"mixtures": 1, "levels": 1}]
            wrong += [{"mixtures": 1, "colors": n} for n in (0, *ABSURD)]
        changed = [[Struct(struct_type, SimpleNamespace(**(vars(fields) | w))), *one.arguments[1:]] for w in wrong]
    else:
        sizes = [i for i, a in enumerate(one.arguments) if isinstance(a, int) and i < 2]
        changed = [[-1 if i == size else a for i, a in enumerate(one.arguments)] for size in sizes]
    for arguments in changed:
        code, outputs = Case(kernel, arguments, []).call(np.float32)
        assert code == kernels.library.lib.TG_BAD_ARGUMENT, arguments[0]
        assert all(np.isnan(a).all() for a, o in zip(outputs, one.arguments, strict=False) if isinstance(o, Out))


@every_kernel
def test_an_absurd_type_is_refused(kernel, monkeypatch):
    for number in (-1, 2, 1000):
        monkeypatch.setattr("tests.kernels.cases.DTYPES", [None] * number + [np.float32] if number > 0 else FakeTypes())
        assert larger(kernel).call(np.float32)[0] == kernels.library.lib.TG_BAD_ARGUMENT


class FakeTypes:
    def index(self, _):
        return -1


def test_a_label_out_of_range_is_refused_before_anything_is_written():
    for kernel in ("tg_cross_entropy", "tg_cross_entropy_backward"):
        for label in (-1, 101, 2**62, -(2**63)):
            one = larger(kernel)
            one.arguments[3].array[299] = label
            code, (output,) = one.call(np.float64, 2)
            assert code == kernels.library.lib.TG_BAD_ARGUMENT
            assert np.isnan(output).all()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_sampler_answers_which_value_can_not_be_drawn_first(wrong):
    """Whichever of 64 images it is in; a value that is known isn't drawn, and one infinitely unlikely level is fine."""
    for seed in range(FEW):
        one = case("tg_sample", 80_000 + seed, n=64, values=8)
        sizes, logits, state = one.arguments[0].fields, one.arguments[8].array, one.arguments[10].array
        sizes.first, sizes.last, sizes.known, sizes.steps = 0, 8, seed % 3, 0
        one.arguments[5].array[:] = 0  # no steps: logits are what the state holds
        one.arguments[6].array[:] = sizes.size - 1  # where the values go
        logits[:] = np.arange(logits.shape[1]) % (sizes.size // 2)
        image, value = seed % 64, 2 + seed % 5
        logits[value] += sizes.size // 2
        logits[value] %= sizes.size - 1
        state[image, logits[value]] = wrong
        bad = [v for v in range(sizes.known, 8) if not np.isfinite(state[:, logits[v]].max(1)).all()]
        for dtype in DTYPES:
            for threads in (1, 3):
                assert one.call(dtype, threads)[0] == (-1 - bad[0] if bad else kernels.library.lib.TG_OK)


def test_fuzz_the_tables_of_a_sampler():
    """Any number in them changed: a refusal before anything is written, or a sampler that stays within its arrays."""
    rng, refused, runs = np.random.default_rng(0), 0, 40 * FEW
    for seed in range(runs):
        one = case("tg_sample", 70_000 + seed % 50, n=2, values=5)
        number = int(rng.choice([1, 2, 4, 5, 6, 8, 11]))  # layers, runs, steps, starts, places, logits, x
        table = one.arguments[number].array
        if table.size:
            most = np.iinfo(table.dtype).max
            extremes = (most, -most - 1, most // 2, -1, 0, 1, int(rng.integers(0, min(most, 400))))
            table.reshape(-1)[rng.integers(table.size)] = rng.choice(extremes)
        code, (state, x) = one.call(np.float32, place=guarded(at_end=bool(seed % 2)))
        assert code in (kernels.library.lib.TG_OK, kernels.library.lib.TG_BAD_ARGUMENT)
        if code:
            refused += 1
            assert state.tobytes() == one.arguments[10].array.astype(np.float32).tobytes()
            assert x.tobytes() == one.arguments[11].array.tobytes()
    assert runs / 5 < refused < runs * 4 / 5


def test_fuzz_geometry():
    """Any stride, padding and dilation, however large: the right answer or a refusal."""
    rng, refused = np.random.default_rng(0), 0
    for seed in range(4 * FEW):
        one = case("tg_conv2d", 50_000 + seed, n=1, h=3, w=4, ci=2, co=3, oh=2, ow=3, mask=0, groups=1)
        s = one.arguments[0].fields
        for name in rng.choice(["stride_h", "stride_w", "pad_h", "pad_w", "dil_h", "dil_w"], 2):
            setattr(s, name, int(rng.choice([2**k + d for k in (1, 5, 10) for d in (-1, 0, 1)])))
        code, outputs = one.call(np.float64)
        refused += code != 0
        if code == 0:
            _, relu, x, w, bias, add, _ = one.arguments
            seen = np.maximum(x.array, 0) if relu else x.array
            answer = definitions.conv2d(s, seen, w.array, None if bias is None else bias.array)
            answer += 0 if add is None else add.array
            assert close(outputs, [answer]), vars(s)
    assert refused < 4 * FEW


# ---------------------------------------------------------------------------------------------- what happens around


def test_threads_at_once():
    """Four Python threads in kernels at the same time, on the one pool, get what each gets alone."""
    ones = [(larger(kernel), dtype) for kernel in KERNELS for dtype in DTYPES]
    alone = [one.run(dtype) for one, dtype in ones]
    wrong = []

    def work(first):
        for i in range(ROUNDS * len(ones)):
            one, dtype = ones[(first + 7 * i) % len(ones)]
            if not same(alone[(first + 7 * i) % len(ones)], one.run(dtype, 1 + i % 4)):
                wrong.append(str(one))

    threads = [threading.Thread(target=work, args=(9 * i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


@pytest.mark.fault("K06")
def test_a_forked_child_computes():
    """Thirty forks while another thread is in kernels: the child has threads of its own again, and doesn't hang."""
    done = in_python("""
        ones = [case("tg_conv2d", 1, n=6, h=12, w=12, ci=16, co=20, oh=10, ow=10, kh=3, kw=3,
                     mask=0, groups=1),
                case("tg_lstm", 1, n=4, h=8, w=16, units=20), case("tg_tanh", 1, n=40_001)]
        alone = [[a.tobytes() for a in one.run(np.float32, 4)] for one in ones]
        right = lambda: [[a.tobytes() for a in one.run(np.float32, 4)] for one in ones] == alone
        stop = False
        def work():
            while not stop:
                right()
        other = threading.Thread(target=work)
        other.start()
        codes = []
        for _ in range(30):
            child = os.fork()
            if not child:
                os._exit(0 if right() and right() and len(os.listdir("/proc/self/task")) > 1 else 1)
            codes.append(os.waitpid(child, 0)[1])
        stop = True
        other.join()
        assert codes == [0] * 30, codes
        assert right()
    """)
    assert done.returncode == 0, done.stderr


@pytest.mark.fault("K09")
def test_ctrl_c_in_a_kernel():
    """SIGINT amid kernels on several threads: KeyboardInterrupt in the main thread, and all is as before."""
    done = in_python("""
        import signal, time
        one = case("tg_tanh", 1, n=5_000_000)
        before = [a.tobytes() for a in one.run(np.float32, 4)]
        for _ in range(3):
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
            try:
                while True:
                    one.run(np.float32, 4)
            except KeyboardInterrupt:
                print("interrupted")
            assert [a.tobytes() for a in one.run(np.float32, 4)] == before
    """)
    assert (done.returncode, done.stdout) == (0, "interrupted\n" * 3), done.stderr


@pytest.mark.fault("K10")
@every_kernel
def test_allocation_fails(kernel):
    """The n-th allocation fails: an error or, if there are fewer, the right answer; then the next call is right."""
    most = 0
    for seed in range(FEW):
        one, code, n = case(kernel, 60_000 + seed), kernels.library.lib.TG_NO_MEMORY, 0
        while code == kernels.library.lib.TG_NO_MEMORY:
            n += 1
            kernels.library.lib.tg_fail_allocation(n)
            try:
                code, outputs = one.call(np.float64, 2)
            finally:
                kernels.library.lib.tg_fail_allocation(0)
            one.check(outputs if code == kernels.library.lib.TG_OK else one.run(np.float64, 2))
        assert code == kernels.library.lib.TG_OK
        most = max(most, n - 1)
    assert (1 <= most <= 4) if re.search("conv|lstm|norm|adam|attention|channel", kernel) else most == 0


@pytest.mark.fault("K10")
def test_allocation_fails_for_want_of_memory():
    """The system gives no more address space: MemoryError; with it back, the same call works."""
    done = in_python("""
        import resource
        from tinygen import kernels
        from tinygen.geometry import Geometry
        x, w = np.ones((1, 4000, 2, 3), np.float32), np.ones((4000, 4000, 1, 1), np.float32)
        call = lambda: kernels.conv.conv2d(x, w, None, Geometry(mask="B", channels=2))
        small = lambda: kernels.conv.conv2d(x[:, :4], w[:4, :4], None, Geometry())
        kernels.set_num_threads(1)
        small()
        w = np.ones((1, 1, 4000, 4000), np.float32).transpose(3, 2, 0, 1)
        x = np.ones((1, 2, 3, 4000), np.float32).transpose(0, 3, 1, 2)
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        no_limit = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + (30 << 20), no_limit[1]))
        try:
            call()
        except MemoryError as error:
            print(error)
        assert small()[0, 0, 0, 0] == 4
        resource.setrlimit(resource.RLIMIT_AS, no_limit)
        assert call()[0, 3999, 0, 0] == 4000
    """)
    assert (done.returncode, done.stdout) == (0, "tg_conv2d: no memory for its scratch space\n"), done.stderr


@pytest.mark.fault("K05")
@pytest.mark.parametrize("name", huge.ALL if FULL else huge.CHEAP)
def test_more_than_2_31_elements(name):
    huge.ALL[name]()


# ----------------------------------------------------------------------------------- that these tests can fail at all


@pytest.mark.fault("K04")
def test_the_pages_are_forbidden():
    """One element before, one behind, a write to an input: each kills the process."""
    arena = Arena(1)
    assert arena.room == PAGE
    for at_end, statement in ((True, "x[3]"), (False, "x[-1]"), (True, "x[2] = 1"), (False, "x[0] = 1")):
        done = in_python(f"""
            import ctypes
            from tests.kernels.memory import guarded
            a = guarded({at_end}, frozen=True)(0, np.zeros(3, np.float32), False)
            x = ctypes.cast(a.ctypes.data, ctypes.POINTER(ctypes.c_float))
            x[0], x[2]
            print("alive", flush=True)
            {statement}
        """)
        assert (done.returncode, done.stdout) == (-signal.SIGSEGV, "alive\n"), done.stderr


def directional(f, inputs, directions):
    """d f / d directions by a complex step: exact to rounding, for any f made of analytic functions."""
    outputs = f(*(a + 1e-40j * d for a, d in zip(inputs, directions, strict=True)))
    return [o.imag / 1e-40 for o in (outputs if isinstance(outputs, tuple) else (outputs,))]


def inner(one, other):
    return sum(float((a * b).sum()) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("seed", range(30))
def test_the_definitions_of_gradients_are_gradients(seed):
    """<gout, df(d)> = <gradient, d> for random directions d."""
    rng = np.random.default_rng(seed)
    one = case("tg_lstm", seed)
    s, z, u, h0, c0 = [getattr(a, "array", a) for a in one.arguments[:5]]
    s = s.fields
    inputs = [a for a in (z, u, h0, c0) if a is not None]
    d = [rng.standard_normal(a.shape) for a in inputs]
    gc, gh = (rng.standard_normal(a.shape) for a, _ in one.answers[-2:])  # the gates may not be asked for
    gates, c, h = definitions.lstm(s, z, u, h0, c0)
    _, dc, dh = directional(lambda *a: definitions.lstm(s, *a, *[None] * (4 - len(a))), inputs, d)
    gz, *gstates = definitions.lstm_backward(s, u, c0, gates, c, gh, gc)
    gu = definitions.lstm_weight(s, h, gz)
    if h0 is not None:
        gu = gu + (np.tensordot(h0, gz[0, 0], ((0,), (0,)))[None] if s.taps == 1 else _h0_part(s, h0, gz))
    gradients = [gz, gu, *gstates][: len(inputs)]
    assert np.isclose(inner([gc, gh], [dc, dh]), inner(gradients, d), rtol=1e-10, atol=1e-10)

    x, gy = rng.standard_normal((6, 2, 5)), rng.standard_normal((6, 5))
    d = rng.standard_normal(x.shape)
    backward = [definitions.gated_backward(x, gy)]
    assert np.isclose(inner([gy], directional(definitions.gated, [x], [d])), inner(backward, [d]))

    x, weight, bias = (rng.standard_normal(shape) for shape in ((6, 5), 5, 5))
    d = [rng.standard_normal(a.shape) for a in (x, weight, bias)]

    def norm(x, weight, bias):
        mean = x.mean(0)
        return (x - mean) / np.sqrt(((x - mean) ** 2).mean(0) + 0.1) * weight + bias

    backward = definitions.batch_norm_backward(x, weight, x.mean(0), x.var(0), 0.1, gy)
    assert np.allclose(norm(x, weight, bias), definitions.batch_norm(x, weight, bias, 0.1)[0])
    assert np.isclose(inner([gy], directional(norm, [x, weight, bias], d)), inner(backward, d))

    labels, d = rng.integers(0, 5, 6), rng.standard_normal((6, 5))
    loss = lambda x: np.log(np.exp(x).sum(1)) - x[np.arange(6), labels]  # noqa: E731
    assert np.allclose(loss(x), definitions.cross_entropy(x, labels))
    backward = definitions.cross_entropy_backward(x, labels, gy[:, 0])
    assert np.isclose(inner([gy[:, 0]], directional(loss, [x], [d])), inner([backward], [d]))


def test_the_definitions_of_affine_maps_gradients_are_their_gradients():
    rng = np.random.default_rng(0)
    inputs, gy, glog_det = [rng.standard_normal((2, 3, s)) for s in (5, 4)], *map(rng.standard_normal, ((2, 3, 5), 2))
    inputs[1] = inputs[1].reshape(2, 3, 2, 2)
    d = [rng.standard_normal(a.shape) for a in inputs]
    moved = [directional(lambda *a, i=i: definitions.affine_coupling(*a, 1)[i], inputs, d) for i in range(2)]
    backward = definitions.affine_coupling_backward(*inputs, 1, gy, glog_det)
    assert np.isclose(inner([gy], moved[0]) + inner([glog_det], moved[1]), inner(backward, d))


@pytest.mark.parametrize("silu", [0, 1])
def test_the_definition_of_group_norms_gradient_is_its_gradient(silu):
    rng = np.random.default_rng(silu)
    shapes = (2, 3, 6), (2, 6), 6, 6
    inputs, gout = [rng.standard_normal(shape) for shape in shapes], rng.standard_normal((2, 3, 6))
    d = [rng.standard_normal(a.shape) for a in inputs]
    moments = definitions.group_norm(*inputs, 2, 0.1, silu)[1:]
    backward = definitions.group_norm_backward(*inputs, *moments, gout, silu)
    moved = directional(lambda *a: definitions.group_norm(*a, 2, 0.1, silu)[0], inputs, d)
    assert np.isclose(inner([gout], moved), inner(backward, d), rtol=1e-10)


def _h0_part(s, h0, gz):
    """What h0 adds to the gradient of u: the same sum over the first row, one row up."""
    above = SimpleNamespace(**(vars(s) | {"h": 2}))
    h = np.zeros((1, 2, s.w, s.units))
    h[0, 0] = h0
    g = np.zeros((1, 2, s.w, 4, s.units))
    g[0, 1] = gz[0, 0] if s.h else 0
    return definitions.lstm_weight(above, h, g)


@pytest.mark.parametrize("seed", range(30))
def test_the_definitions_of_convolution_are_one_form(seed):
    """<conv2d(x, w), y> = <x, conv_transpose2d(y, w)> = <w, conv2d_weight(x, y)>."""
    s, x, w, y = conv_arrays(seed)
    w = np.where(definitions.all_keeps(s), w, 0)
    form = inner([definitions.conv2d(s, x, w, None)], [y])
    assert np.isclose(form, inner([x], [definitions.conv_transpose2d(s, y, w, None)]))
    assert np.isclose(form, inner([w], definitions.conv2d_weight(s, x, y)[:1]))


def test_the_definition_of_convolution_on_paper():
    """Six nested loops, as the header writes the sum."""
    s, x, w, _ = conv_arrays(2, n=2, ci=2, co=3, h=5, w=6, oh=3, ow=2, kh=3, kw=2, mask=0, groups=1)
    y = np.zeros((s.n, s.oh, s.ow, s.co))
    for n, p, q, o, i, j in np.ndindex(s.n, s.oh, s.ow, s.co, s.kh, s.kw):
        row, column = p * s.stride_h + i * s.dil_h - s.pad_h, q * s.stride_w + j * s.dil_w - s.pad_w
        if 0 <= row < s.h and 0 <= column < s.w:
            y[n, p, q, o] += x[n, row, column] @ w[i, j, :, o]
    assert np.allclose(definitions.conv2d(s, x, w, None), y)
