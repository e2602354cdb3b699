"""The CUDA kernels on the emulator: right on random shapes, in every order of threads, wherever their arrays lie.

TINYGEN_CUDA_CASES is the number of random cases of each kernel, TINYGEN_EMULATOR the library if it isn't to be built.
"""

from __future__ import annotations

import ctypes
import os
import re
from types import SimpleNamespace

import numpy as np
import pytest

from tests.cuda.build import ROOT, emulator
from tests.kernels import definitions
from tests.kernels.cases import DTYPES, KERNELS, Case, In, Out, case
from tests.kernels.memory import anywhere, guarded, shifted
from tinygen._cuda_abi import ffi

CASES = int(os.environ.get("TINYGEN_CUDA_CASES", "24"))
ORDERS = (0, -1, 1, 2)  # forwards, backwards, at random
OK, NO_MEMORY, BAD_ARGUMENT, CUDA = 0, 1, 2, 1000

every_kernel = pytest.mark.parametrize("kernel", KERNELS)


@pytest.fixture(scope="module")
def emulated():
    """The emulated library as `lib`, with its `ffi` and `order`, at first forwards."""
    path = os.environ.get("TINYGEN_EMULATOR") or str(emulator())
    order = ctypes.CDLL(path).tg_emulator_order
    order.argtypes = [ctypes.c_int64]
    yield SimpleNamespace(ffi=ffi, lib=ffi.dlopen(path), order=order)
    order(0)


def test_every_kernel_of_the_header_is_there(emulated):
    header = (ROOT / "csrc" / "tinygen.h").read_text()
    for name in re.findall(r"^int (tg_\w+)\(int dtype", header, re.M):
        assert getattr(emulated.lib, name)


@pytest.mark.fault("K15")
@every_kernel
def test_definition(kernel, emulated):
    """Each case in each type, its arrays right before or right behind a forbidden page, in some order of threads."""
    for seed in range(CASES):
        one = case(kernel, seed)
        for dtype in DTYPES:
            emulated.order(ORDERS[seed % 4])
            one.check(one.run(dtype, place=guarded(at_end=(seed + DTYPES.index(dtype)) % 2 == 0), on=emulated))


@pytest.mark.fault("K15")
@every_kernel
def test_every_order_of_threads_gives_the_same_bytes(kernel, emulated):
    for seed in range(100, 100 + CASES // 4):
        one, found = case(kernel, seed), set()
        for order in ORDERS:
            emulated.order(order)
            found.add(b"".join(a.tobytes() for a in one.run(np.float32, on=emulated)))
        assert len(found) == 1


POINTWISE = {"stride_h": 1, "stride_w": 1, "pad_h": 0, "pad_w": 0, "dil_h": 1, "dil_w": 1, "mask": 0, "groups": 1}
WIDE = {  # sizes that allow packs of 16 bytes, and large tiles where there are any
    "tg_conv2d": {"n": 2, "h": 64, "w": 64, "oh": 64, "ow": 64, "kh": 1, "kw": 1, "ci": 4, "co": 64},
    "tg_conv_transpose2d": {"n": 1, "h": 63, "w": 63, "oh": 63, "ow": 63, "kh": 1, "kw": 1, "ci": 128, "co": 4},
    "tg_conv2d_weight": {"n": 1, "h": 2, "w": 2, "oh": 2, "ow": 2, "kh": 1, "kw": 1, "ci": 1020, "co": 512},
    "tg_lstm": {"n": 2, "h": 3, "w": 4, "units": 20, "taps": 3, "diagonal": 0},
    "tg_lstm_backward": {"n": 2, "h": 3, "w": 4, "units": 12, "taps": 2, "diagonal": 1},
    "tg_lstm_weight": {"n": 2, "h": 3, "w": 4, "units": 36, "taps": 2, "diagonal": -1},
    "tg_gated": {"rows": 50, "channels": 24},
    "tg_gated_backward": {"rows": 50, "channels": 24},
    "tg_cat": {"rows": 700, "columns": (40, 8)},
    "tg_cat_backward": {"rows": 700, "columns": (8, 3)},  # rows of 11: packs of one array, not of the other
    "tg_affine_coupling": {"n": 3, "pixels": 90, "channels": 8, "k": 4},
    "tg_affine_coupling_backward": {"n": 3, "pixels": 90, "channels": 8, "k": 4},
    "tg_channel_affine": {"rows": 700, "channels": 40},
    "tg_channel_affine_backward": {"rows": 700, "channels": 40},
    "tg_batch_norm": {"rows": 700, "channels": 40},
    "tg_batch_norm_backward": {"rows": 700, "channels": 40},
    "tg_group_norm": {"n": 2, "pixels": 300, "channels": 40},
    "tg_group_norm_backward": {"n": 2, "pixels": 300, "channels": 40},
    "tg_cross_entropy": {"rows": 11, "classes": 256},
    "tg_cross_entropy_backward": {"rows": 11, "classes": 256},
}


@pytest.mark.parametrize("kernel", WIDE)
def test_aligned_arrays(kernel, emulated):
    """They are read 16 bytes at a time, and give what arrays off every alignment give, nearly."""
    wanted = dict(WIDE[kernel])
    if kernel.startswith("tg_conv"):
        wanted |= POINTWISE
    one = case(kernel, 1, **wanted)
    emulated.order(3)
    for dtype in DTYPES:
        one.check(one.run(dtype, place=shifted(0), on=emulated))
        one.check(one.run(dtype, place=shifted(1), on=emulated))


def simple(kernel: str, *arguments) -> Case:
    return Case(kernel, [In(a) if isinstance(a, np.ndarray) else a for a in arguments], [])


@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values(dtype, emulated):
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-42, 88.5, -88.5, 3e38, -1e4])
    answers = {
        "tg_tanh": ([], np.tanh(x)),
        "tg_sigmoid": ([], np.where(x > -700, 1 / (1 + np.exp(-np.maximum(x, -700))), np.where(x != x, np.nan, 0))),
        "tg_elu": ([1.0], np.where(x > 0, x, np.expm1(np.minimum(x, 0)))),
        "tg_relu": ([0.0], np.where(x != x, x, np.maximum(x, 0))),
    }
    for kernel, (numbers, answer) in answers.items():
        (got,) = simple(kernel, len(x), *numbers, x, Out(x.shape)).run(dtype, on=emulated)
        assert np.allclose(got, answer.astype(dtype), rtol=1e-6, equal_nan=True), kernel


@pytest.mark.parametrize("classes", [5, 37])
@pytest.mark.parametrize("dtype", DTYPES)
def test_cross_entropy_of_extreme_logits(dtype, classes, emulated):
    """Huge ones, classes that are ruled out, a NaN anywhere; a label that is no class makes NaN, and reads nothing."""
    rows = np.zeros((classes + 4, classes))
    rows[np.arange(classes), np.arange(classes)] = ([1e4, -1e4, -np.inf, np.nan] * classes)[:classes]
    rows[classes], rows[classes + 1] = 1e4, np.r_[0, np.full(classes - 1, -np.inf)]
    labels = np.where(np.arange(len(rows)) == classes + 1, 0, 3)
    labels[-2:] = -1, classes
    gloss = np.ones(len(rows))
    place = guarded(at_end=True)
    (loss,) = simple("tg_cross_entropy", *rows.shape, rows, labels, Out((len(rows),))).run(
        dtype, place=place, on=emulated
    )
    (gradient,) = simple(
        "tg_cross_entropy_backward", *rows.shape, rows, labels, gloss, Out(rows.shape)
    ).run(dtype, place=place, on=emulated)  # fmt: skip
    right = labels.clip(0, classes - 1)
    known = (labels == right)[:, None]
    answer = np.where(known[:, 0], definitions.cross_entropy(rows, right), np.nan)
    assert np.allclose(loss, answer, rtol=1e-5, equal_nan=True)
    answer = np.where(known, definitions.cross_entropy_backward(rows, right, gloss), np.nan)
    assert np.allclose(gradient, answer, rtol=1e-5, atol=1e-6, equal_nan=True)


@every_kernel
def test_what_is_refused(kernel, emulated):
    """An unknown dtype, a negative size and sizes that overflow: nothing is read or written."""
    one = case(kernel, 3)
    call = getattr(emulated.lib, kernel)
    shape = one.arguments[0]
    arrays = (In, Out, list, type(None))
    nothing = [ffi.NULL if isinstance(a, arrays) or hasattr(a, "array") else a for a in one.arguments]
    if hasattr(shape, "fields"):
        for field, bad in (("n", -1), ("n", 1 << 62)):
            struct = ffi.new(shape.type, vars(shape.fields) | {field: bad})
            assert call(0, struct, *nothing[1:], 1) == BAD_ARGUMENT
        assert call(7, ffi.new(shape.type, vars(shape.fields)), *nothing[1:], 1) == BAD_ARGUMENT
    else:
        for bad in (-1, 1 << 62):
            assert call(0, bad, *nothing[1:], 1) == BAD_ARGUMENT
        assert call(7, *nothing, 1) == BAD_ARGUMENT


def test_no_memory(emulated):
    """The codes of kernels that need some; and nothing stays behind: the next call is right."""
    norms = ("tg_batch_norm", "tg_batch_norm_backward", "tg_group_norm", "tg_group_norm_backward")
    for kernel in (*norms, "tg_lstm_backward", "tg_conv2d_weight"):
        wanted = {"n": 2} if kernel.startswith("tg_lstm") else {}
        if kernel == "tg_conv2d_weight":  # enough pixels to be split
            wanted = {"n": 2, "h": 16, "w": 16, "oh": 16, "ow": 16, "kh": 1, "kw": 1, "ci": 2, "co": 3} | POINTWISE
        one = case(kernel, 2, **wanted)
        emulated.lib.tg_fail_allocation(1)
        assert one.call(np.float32, 1, anywhere, emulated)[0] == NO_MEMORY, kernel
        one.check(one.run(np.float32, on=emulated))


def test_what_the_runtime_says(emulated):
    count = ffi.new("int *")
    assert emulated.lib.tg_cuda_devices(count) == OK
    assert count[0] == 1
    assert emulated.lib.tg_cuda_stream(ffi.NULL) == OK
    assert ffi.string(emulated.lib.tg_cuda_error(CUDA + 9)) == b"invalid configuration argument"
