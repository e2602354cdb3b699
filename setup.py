"""Builds csrc/ into tinygen._native with cffi. Without a C compiler the install goes on: the NumPy definitions run."""

import re
from pathlib import Path

from cffi import FFI
from setuptools import setup

HERE = Path(__file__).parent
FLAGS = ["-O3", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden", "-pthread"]


def declarations(header: str) -> str:
    """The header as cffi reads it: without preprocessor lines, nor what is there for C++ only."""
    header = re.sub(r"#ifdef __cplusplus.*?#endif", "", header, flags=re.S)
    return re.sub(r"^#.*$", "", header, flags=re.M)


ffi = FFI()
ffi.cdef(declarations((HERE / "csrc" / "tinygen.h").read_text()))
ffi.set_source(
    "tinygen._native",
    '#include "tinygen.h"',
    sources=sorted(str(p.relative_to(HERE)) for p in (HERE / "csrc").glob("*.c")),
    depends=sorted(str(p.relative_to(HERE)) for p in (HERE / "csrc").glob("*.[chi]*")),
    include_dirs=["csrc"],
    extra_compile_args=FLAGS,
    extra_link_args=["-pthread"],
    libraries=["m"],
    optional=True,  # no compiler, no Python headers: a warning instead of an error
)

if __name__ == "__main__":
    setup(ext_modules=[ffi.distutils_extension(str(HERE / "build"))])
