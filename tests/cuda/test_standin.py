"""The stand-in is no wider than CuPy: what works on it has a chance on a GPU."""

import importlib.metadata
import operator

import numpy as np
import pytest

from tests.cuda import names, standin
from tests.cuda.standin import HAS, cupy


def array(*shape):
    return cupy.asarray(np.arange(np.prod(shape), dtype=np.float32).reshape(shape))


REFUSED = {
    "NumPy arrays": lambda a: a + np.ones(3, np.float32),
    "NumPy arrays on the left": lambda a: np.ones(3, np.float32) + a,
    "NumPy arrays of no axes": lambda a: a * np.asarray(2.0),
    "NumPy arrays, assigned": lambda a: a.__setitem__(slice(None), np.ones(3)),
    "lists": lambda a: cupy.add(a, [1, 2, 3]),
    "lists, assigned": lambda a: a.__setitem__(slice(None), [1, 2, 3]),
    "functions of lists": lambda a: cupy.sum([1, 2]),
    "out of NumPy's": lambda a: cupy.exp(a, out=np.empty(3, np.float32)),
    "to become a NumPy array": np.asarray,
    "to become one in a function": lambda a: np.linalg.qr(a),
    "where=": lambda a: cupy.add(a, a, where=a > 1),
    "initial=": lambda a: a.max(initial=0),
    "min= and max= of clip": lambda a: cupy.clip(a, min=0),
    "to be an index": operator.index,
    "to be a range": lambda a: range(a.sum()),
    "exp.at": lambda a: cupy.exp.at(a, 0),
    "multiply.at": lambda a: cupy.multiply.at(a, 0, 2.0),
    "two values for one element": lambda a: a.__setitem__([0, 0], 1.0),
    "flags that it hasn't": lambda a: a.flags.writeable,
    "ctypes": lambda a: a.ctypes,
    "item of an index": lambda a: a.item(0),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what):
    with pytest.raises((TypeError, AttributeError)):
        REFUSED[what](array(3))


@pytest.mark.parametrize("name", ["errstate", "einsum_path", "nditer", "insert", "block", "float128"])
def test_names_that_cupy_hasnt(name):
    assert hasattr(np, name) != hasattr(cupy, name) or name == "float128"
    assert not hasattr(cupy, name)


def test_differences_that_cupy_doesnt_tell():
    a = array(2, 3)
    assert a.sum().shape == ()
    assert isinstance(a.sum(), cupy.ndarray)
    np.testing.assert_array_equal(a[:, [0, 5]].get(), a.get()[:, [0, 2]])  # wraps around
    np.testing.assert_array_equal(a[..., [-4]].get(), a.get()[..., [2]])
    turned = a.T
    assert turned.flags.f_contiguous
    assert (turned * 1).flags.c_contiguous  # the order isn't kept
    assert np.isnan(cupy.empty(3).get()).all()
    assert a.data.ptr == a[:1].data.ptr != a[1:].data.ptr
    assert a[1:].base is a
    assert a.T[0].base is a
    assert (a + a).base is None


def test_get_copies():
    a = array(3)
    host = a.get()
    host[:] = 7
    assert a.get().tolist() == [0, 1, 2]
    source = np.ones(3)
    b = cupy.asarray(source)
    source[:] = 7
    assert b.get().tolist() == [1, 1, 1]


def test_the_list_is_that_of_the_installed_cupy():
    try:
        installed = importlib.metadata.version("cupy-cuda13x")
    except importlib.metadata.PackageNotFoundError:
        installed = None
    if installed == HAS["version"]:
        assert names.names() == HAS
    assert standin.HAS["version"].split(".")[0] == "14"
