"""The fast convolutions against the plain one of csrc/plain.h, which is compiled for this."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.kernels.cases import Case, In, Out, Struct, case

CSRC = Path(__file__).parents[2] / "csrc"
PROTOTYPE = "void f(const tg_conv_shape *s, const double *x, const double *w, double *y)"
SOURCE = f'#include "plain.h"\n{PROTOTYPE};\n{PROTOTYPE} {{ plain_conv2d(s, x, w, y); }}\n'
FIELDS = "n", "h", "w", "ci", "oh", "ow", "co", "kh", "kw"  # of a tg_conv_shape, in order
FIELDS += "stride_h", "stride_w", "pad_h", "pad_w", "dil_h", "dil_w", "mask", "groups"


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """plain_conv2d of a shape, x and w."""
    library = tmp_path_factory.mktemp("plain") / "plain.so"
    flags = ["-O2", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-fPIC", "-shared", f"-I{CSRC}"]
    command = [os.environ.get("CC", "gcc"), *flags, "-x", "c", "-", "-o", str(library)]
    subprocess.run(command, input=SOURCE, text=True, check=True)
    function = ctypes.CDLL(str(library)).f

    def run(s, x, w):
        sizes = (ctypes.c_int64 * len(vars(s)))(*(vars(s)[name] for name in FIELDS))
        y = np.full((s.n, s.oh, s.ow, s.co), np.nan)
        function(sizes, *(ctypes.c_void_p(a.ctypes.data) for a in (x, w, y)))
        return y

    return run


def test_the_three_faces_of_convolution_are_the_plain_one_and_its_adjoints(plain):
    """y . conv(x, w) is one number, whichever of the three kernels computes it."""
    for seed in range(60):
        one = case("tg_conv2d", 90_000 + seed)
        s, x, w = one.arguments[0].fields, one.arguments[2].array, np.nan_to_num(one.arguments[3].array)
        expected = plain(s, x, w)
        y = np.random.default_rng(seed).standard_normal(expected.shape)
        shape, number = Struct("tg_conv_shape *", s), (y * expected).sum()
        bound = 1e-12 * (1 + abs(y).sum() * (1 + abs(expected).max(initial=0)))
        (forward,) = Case("tg_conv2d", [shape, 0, In(x), In(w), None, None, Out(y.shape)], []).run(np.float64)
        (to_x,) = Case("tg_conv_transpose2d", [shape, In(y), In(w), None, None, Out(x.shape)], []).run(np.float64)
        (to_w,) = Case("tg_conv2d_weight", [shape, 0, In(x), In(y), Out(w.shape), None], []).run(np.float64)
        assert (abs(forward - expected) <= 1e-12 * (1 + abs(expected).max(initial=0))).all(), vars(s)
        assert abs((to_x * x).sum() - number) <= bound, vars(s)
        assert abs((to_w * w).sum() - number) <= bound, vars(s)
