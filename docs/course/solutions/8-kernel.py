"""Chapter 8: down to C. Write the kernel's loop, then run `tinygen gradcheck exercise.py`. It needs gcc and cffi.

    dx[i] = gradient[i] * (1 - y[i] * y[i])        for i from 0 to n - 1

A kernel gets bare memory: where arrays begin, and how long they are. To read beyond them is not an error in C: it gives
some other number.
"""

import functools
import subprocess
import tempfile
from pathlib import Path

import cffi
import numpy as np


def loop():
    """Exercise 8.1: the C between the braces of the function, as a string. Its arguments: dx, gradient, y and n."""
    return """
        for (long i = 0; i < n; i++)
            dx[i] = gradient[i] * (1 - y[i] * y[i]);
    """


@functools.cache
def compiled():
    """The library that gcc makes of it, with optimization, and the interface through which Python calls it."""
    head = "void tanh_gradient(double *dx, const double *gradient, const double *y, long n)"
    folder = Path(tempfile.mkdtemp())
    (folder / "kernel.c").write_text(f"{head} {{ {loop()} }}")
    command = ["gcc", "-O3", "-Wall", "-Wextra", "-shared", "-fPIC", "kernel.c", "-o", "kernel.so"]
    subprocess.run(command, cwd=folder, check=True)
    ffi = cffi.FFI()
    ffi.cdef(f"{head};")
    return ffi, ffi.dlopen(str(folder / "kernel.so"))


def tanh_forward(x):
    y = np.tanh(x)
    return y, y


def tanh_backward(dout, cache):
    """The gradient by x, by the kernel: its arrays lie in one piece of memory, in C's order."""
    ffi, library = compiled()
    gradient, y = (np.ascontiguousarray(a, float) for a in (dout, cache))
    dx = np.zeros_like(y)
    library.tanh_gradient(*(ffi.from_buffer("double[]", a) for a in (dx, gradient, y)), y.size)
    return dx
