"""Builds csrc/ into tinygen._native with cffi, and its CUDA kernels into tinygen/_cuda.so with nvcc.

Without a C compiler the install goes on: the NumPy definitions run. Without nvcc it goes on, too, and says that there
are no CUDA kernels.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

from cffi import FFI
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).parent
FLAGS = ["-O3", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden", "-pthread"]
ARCHITECTURES = (75, 80, 86, 89, 90)  # and the last one as PTX, for what comes after it
CUDA_FLAGS = ["-std=c++17", "-O3", "-cudart", "static", "-Xcompiler", "-fPIC,-fvisibility=hidden"]
CUDA_FLAGS += [
    "-Xfatbin",
    "-compress-all",
    "-Werror",
    "all-warnings",
    "-Xptxas",
    "-warn-spills,-warn-lmem-usage,-Werror",
]


def declarations(header: str) -> str:
    """The header as cffi reads it: without preprocessor lines, nor what is there for C++ only."""
    header = re.sub(r"#ifdef __cplusplus.*?#endif", "", header, flags=re.S)
    return re.sub(r"^#.*$", "", header, flags=re.M)


def nvcc_path() -> str | None:
    """NVCC of the environment (empty: none), one on the path, or that of CUDA's usual place."""
    if "NVCC" in os.environ:
        return os.environ["NVCC"] or None
    return shutil.which("nvcc") or shutil.which("nvcc", path=os.environ.get("CUDA_HOME", "/usr/local/cuda") + "/bin")


def nvcc_command(nvcc: str, out: str, architectures: tuple[int, ...] = ARCHITECTURES) -> list[str]:
    """The command, run here, that compiles the .cu files of csrc/ into a library that needs no CUDA to be loaded."""
    last = architectures[-1]
    codes = [f"arch=compute_{a},code=sm_{a}" for a in architectures] + [f"arch=compute_{last},code=compute_{last}"]
    sources = sorted(str(p.relative_to(HERE)) for p in (HERE / "csrc").rglob("*.cu"))
    targets = [flag for code in codes for flag in ("-gencode", code)]
    return [nvcc, "-shared", *CUDA_FLAGS, "-t0", *targets, "-Icsrc", *sources, "-o", out]


class build_all(build_ext):
    """cffi's C module as always, _cuda.so by nvcc, and _cuda_abi.py, its declarations, which need no compiler."""

    def run(self):
        package = HERE / "tinygen" if self.inplace else Path(self.build_lib) / "tinygen"
        package.mkdir(parents=True, exist_ok=True)
        cuda_ffi.emit_python_code(str(package / "_cuda_abi.py"))
        super().run()

    def get_ext_filename(self, name):
        return name.replace(".", "/") + ".so" if name.endswith("_cuda") else super().get_ext_filename(name)

    def build_extension(self, ext):
        if ext.name != "tinygen._cuda":
            return super().build_extension(ext)
        nvcc, out = nvcc_path(), Path(self.get_ext_fullpath(ext.name)).resolve()
        before = HERE / "tinygen" / "_cuda.so"
        newest = max(p.stat().st_mtime for p in [*map(HERE.joinpath, ext.depends), HERE / "setup.py"])
        out.parent.mkdir(parents=True, exist_ok=True)
        if before.exists() and before.stat().st_mtime > newest:
            shutil.copy2(before, out)
            return None
        before.unlink(missing_ok=True)  # of other declarations
        if nvcc is None:
            print("tinygen: no nvcc found: built without the CUDA kernels, everything runs on the CPU")
        elif subprocess.run(nvcc_command(nvcc, str(out)), cwd=HERE, check=False).returncode:
            print(f"tinygen: {nvcc} failed: built without the CUDA kernels, everything runs on the CPU")
        return None


ffi = FFI()
ffi.cdef(declarations((HERE / "csrc" / "tinygen.h").read_text()))
ffi.set_source(
    "tinygen._native",
    '#include "tinygen.h"',
    sources=sorted(str(p.relative_to(HERE)) for p in (HERE / "csrc").rglob("*.c")),
    depends=sorted(str(p.relative_to(HERE)) for p in (HERE / "csrc").rglob("*.[chi]*")),
    include_dirs=["csrc"],
    extra_compile_args=FLAGS,
    extra_link_args=["-pthread"],
    libraries=["m"],
    optional=True,  # no compiler, no Python headers: a warning instead of an error
)

cuda_ffi = FFI()  # of its own: one object never serves two libraries that have functions of the same names
for name in ("tinygen.h", "tinygen_cuda.h"):
    cuda_ffi.cdef(declarations((HERE / "csrc" / name).read_text()))
cuda_ffi.set_source("tinygen._cuda_abi", None)
cuda = Extension(
    "tinygen._cuda",
    sources=[],
    depends=sorted(str(p.relative_to(HERE)) for pattern in ("*.cu*", "*.h") for p in (HERE / "csrc").rglob(pattern)),
    optional=True,
)

if __name__ == "__main__":
    modules = [ffi.distutils_extension(str(HERE / "build")), cuda]
    setup(ext_modules=modules, cmdclass={"build_ext": build_all})
