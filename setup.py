"""Builds csrc/ into tinygen._native with cffi: one library for every Python from 3.11 (the limited API).

Without a C compiler the install goes on: the NumPy definitions run. The CUDA kernels are compiled later, where a GPU is
(tinygen/nvcc.py); their sources come with the package.
"""

import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cffi import FFI
from setuptools import setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).parent
FLAGS = ["-O3", "-g0", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden", "-pthread"]


def declarations(*names: str) -> str:
    """Headers as cffi reads them: without preprocessor lines, nor what is there for C++ only."""
    text = "".join((HERE / "csrc" / name).read_text() for name in names)
    text = re.sub(r"#ifdef __cplusplus.*?#endif", "", text, flags=re.S)
    return re.sub(r"^#.*$", "", text, flags=re.M)


def files(*patterns: str) -> list[str]:
    """The files of csrc/ like these, but for those of the CUDA kernels' emulator."""
    found = {p.relative_to(HERE) for pattern in patterns for p in (HERE / "csrc").rglob(pattern)}
    return sorted(str(p) for p in found if "emulator" not in p.parts)


class build_all(build_ext):
    """cffi's C module, its files at the same time; and what CUDA needs later: declarations and sources."""

    def run(self):
        package = HERE / "tinygen" if self.inplace else Path(self.build_lib) / "tinygen"
        package.mkdir(parents=True, exist_ok=True)
        cuda_ffi.emit_python_code(str(package / "_cuda_abi.py"))
        if self.inplace:
            for old in package.glob("_native*.so"):  # of other sources, or for one Python, which would come first
                if not (self.is_new(old) and old.name.endswith(".abi3.so")):
                    old.unlink()
        else:
            for name in files("*.cu", "*.cuh", "*.h"):
                (package / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(HERE / name, package / name)
        super().run()

    def is_new(self, built: Path) -> bool:
        newest = max(HERE.joinpath(name).stat().st_mtime for name in [*files("*.c", "*.h", "*.inc"), "setup.py"])
        return built.exists() and built.stat().st_mtime > newest and not self.force

    def build_extension(self, ext):
        out = Path(self.get_ext_fullpath(ext.name)).absolute()
        before = HERE / "tinygen" / out.name
        if self.is_new(before):
            print(f"tinygen: {before.relative_to(HERE)} is up to date", flush=True)
            out.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(before, out)
            return
        print(f"tinygen: compiling the C kernels ({len(ext.sources)} files), under half a minute", flush=True)
        compile_some = self.compiler.compile

        def compile_all(sources, **options):
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                return list(pool.map(lambda source: compile_some([source], **options)[0], sources))

        self.compiler.compile = compile_all
        super().build_extension(ext)


ffi = FFI()
ffi.cdef(declarations("tinygen.h"))
ffi.set_source(
    "tinygen._native",
    '#include "tinygen.h"',
    sources=sorted(files("*.c"), key=lambda name: not name.endswith("tile.c")),  # it takes the longest
    depends=files("*.c", "*.h", "*.inc"),
    include_dirs=["csrc"],
    extra_compile_args=FLAGS,
    extra_link_args=["-pthread"],
    libraries=["m"],
    optional=True,  # no compiler, no Python headers: a warning instead of an error
    py_limited_api=True,  # as cffi writes it
)

cuda_ffi = FFI()  # of its own: one object never serves two libraries that have functions of the same names
cuda_ffi.cdef(declarations("tinygen.h", "tinygen_cuda.h"))
cuda_ffi.set_source("tinygen._cuda_abi", None)

if __name__ == "__main__":
    setup(
        ext_modules=[ffi.distutils_extension(str(HERE / "build"))],
        cmdclass={"build_ext": build_all},
        options={"bdist_wheel": {"py_limited_api": "cp311"}},
    )
