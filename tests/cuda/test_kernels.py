"""The CUDA kernels on the emulator: right on random shapes, in every order of threads, wherever their arrays lie."""

from __future__ import annotations

import ctypes
import os
import re
from types import SimpleNamespace

import numpy as np
import pytest

from tests.cuda.build import ROOT, emulator
from tests.kernels.cases import DTYPES, HOST_ONLY, KERNELS, case
from tests.kernels.memory import guarded
from tinygen._cuda_abi import ffi

CASES = int(os.environ.get("TINYGEN_CUDA_CASES", "12"))
ORDERS = (0, -1, 1, 2)  # forwards, backwards, at random

every_kernel = pytest.mark.parametrize("kernel", [k for k in KERNELS if k not in HOST_ONLY])


@pytest.fixture(scope="module")
def device():
    """The emulated library, forwards."""
    path = os.environ.get("TINYGEN_EMULATOR") or str(emulator())
    order = ctypes.CDLL(path).tg_emulator_order
    order.argtypes = [ctypes.c_int64]
    yield SimpleNamespace(ffi=ffi, lib=ffi.dlopen(path), order=order)
    order(0)


def test_every_kernel_of_the_header_is_there(device):
    header = (ROOT / "csrc" / "tinygen.h").read_text()
    for name in set(re.findall(r"^int (tg_\w+)\(int dtype", header, re.M)) - HOST_ONLY:
        assert getattr(device.lib, name)


@every_kernel
def test_definition(kernel, device):
    """Each case in each type, its arrays right before or right behind a forbidden page, in some order of threads."""
    for seed in range(CASES):
        one = case(kernel, seed)
        for dtype in DTYPES:
            device.order(ORDERS[seed % 4])
            one.check(one.run(dtype, place=guarded(at_end=(seed + DTYPES.index(dtype)) % 2 == 0), on=device))


@every_kernel
def test_every_order_of_threads_gives_the_same_bytes(kernel, device):
    for seed in range(100, 100 + CASES // 3):
        one, found = case(kernel, seed), set()
        for order in ORDERS:
            device.order(order)
            found.add(b"".join(a.tobytes() for a in one.run(np.float32, on=device)))
        assert len(found) == 1
