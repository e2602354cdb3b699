"""The device that these tests run on: the real one under TINYGEN_GPU=1, else the stand-in and the emulated kernels.

TINYGEN_EMULATOR: the path of the emulated kernels, built with whatever flags; by default they are built here.
"""

import os

import pytest

from tests.cuda import standin
from tests.cuda.build import emulator
from tinygen import cuda
from tinygen.kernels import library
from tinygen.tape import REGISTRY

REAL = os.environ.get("TINYGEN_GPU") == "1"


@pytest.fixture
def device(monkeypatch):
    """The module cupy, its kernels taken for arrays of any size."""
    monkeypatch.setattr(library, "SMALL", 0)
    monkeypatch.setattr(library, "SMALL_PRODUCT", 0)
    for op in REGISTRY.values():
        monkeypatch.setattr(op, "least", 0)
    if REAL:
        yield cuda.require()
        return
    forget()
    monkeypatch.setattr(cuda, "LIBRARY", os.environ.get("TINYGEN_EMULATOR") or emulator())
    yield standin.install(monkeypatch)
    forget()


def forget():
    """What is known of the machine is found out anew."""
    cuda.library.cache_clear()
    cuda.has_kernels.cache_clear()
