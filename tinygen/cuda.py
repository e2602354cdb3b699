"""CUDA: whether it can be used here, and if not, why; and calling the CUDA library's kernels on CuPy arrays.

CuPy holds the arrays and computes what has no kernel of tinygen's own. The kernels are those of csrc/tinygen.h, built
from csrc/*.cu at their first use (`tinygen.nvcc`). Nothing is imported or loaded before it is asked for.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

LIBRARY: Path | None = None  # a library to be used in place of the one that is compiled for the GPU
_ERRORS = 1000  # TG_CUDA: from here on a result is this plus CUDA's own error code
_NO_MEMORY = 1


class CudaError(RuntimeError):
    """CUDA can't be used, or failed; the message says why, and what to do."""


# -------------------------------------------------------------------------------------------- whether, and why not


def resolve(device: str) -> str:
    """For "auto" "cuda" where that can be used, else "cpu". Raises CudaError for "cuda" where it can't."""
    if device == "cuda":
        require()
    return device if device != "auto" else "cpu" if problem() else "cuda"


def problem() -> str | None:
    """The reason why "cuda" can't be used here, and what to do about it, in one sentence; None if nothing."""
    if "cupy" not in sys.modules and importlib.util.find_spec("cupy") is None:
        return "CuPy isn't installed: pip install 'tinygen[gpu]'"
    try:
        cupy = importlib.import_module("cupy")
    except Exception as e:  # CuPy imports CUDA's libraries, and raises whatever they do
        return f"CuPy can't be imported ({e}): pip install --force-reinstall 'tinygen[gpu]'"
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except RuntimeError as e:
        return sentence(getattr(e, "status", 0), str(e))
    return None if count else sentence(100)


def require() -> Any:
    """The module cupy. Raises CudaError where CUDA can't be used."""
    if reason := problem():
        raise CudaError(f"device 'cuda' can't be used: {reason}")
    return sys.modules["cupy"]


def array_module(device: str) -> Any:
    """numpy for "cpu", cupy for "cuda": the module of its arrays. Raises CudaError where CUDA can't be used."""
    return np if device == "cpu" else require()


def sentence(code: int, otherwise: str = "") -> str:
    """The meaning of CUDA's error code for the user, and what to do."""
    if code in (35, 222):
        version = _driver()
        found = f"the NVIDIA driver, {version}, is too old" if version else "there is no NVIDIA driver"
        return f"{found}: CUDA 13 needs driver 580 or newer (nvidia-smi tells what is installed)"
    known = {
        2: "the GPU's memory is used up: take a smaller --batch-size, or a smaller model",
        100: "there is no NVIDIA GPU that the driver can see (look at nvidia-smi, and CUDA_VISIBLE_DEVICES)",
        209: "the CUDA kernels were built for GPUs of compute capability 7.5 and newer, this one is older: use the CPU",
    }
    return known.get(code) or otherwise or f"CUDA's error {code}"


def _driver() -> str:
    """The version of the NVIDIA driver that the kernel has loaded; empty without one."""
    try:
        words = Path("/proc/driver/nvidia/version").read_text().split("Module", 1)[-1].split()
    except OSError:
        return ""
    return next((w for w in words if w[0].isdigit()), "of unknown version")


# ----------------------------------------------------------------------------------------------------- the kernels


@functools.cache
def library() -> tuple[Any, Any, str]:
    """(ffi, lib, "") of the CUDA library, which is compiled if it has to be; (None, None, why not) if it can't."""
    from tinygen import nvcc  # here, so that it can run as a program

    try:
        from tinygen._cuda_abi import ffi

        path = LIBRARY or nvcc.library(int(sys.modules["cupy"].cuda.Device().compute_capability))
        return ffi, ffi.dlopen(str(path)), ""
    except (ImportError, OSError, nvcc.NvccError) as e:
        return None, None, str(e)


@functools.cache
def has_kernels() -> bool:
    """Whether there is a CUDA library; if not, that is said, once."""
    _, lib, why = library()
    if lib is None:
        warnings.warn(
            f"tinygen: the CUDA kernels were not built, so the definitions run on CuPy, which are slower: {why}",
            RuntimeWarning,
            stacklevel=7,
        )
    return lib is not None


def call(kernel: str, dtype: int, arguments: Any) -> int:
    """Run a kernel on CuPy's current stream: its result, 0 or an error of tinygen.h.

    Arguments: see `kernels.library.call`.

    Raises CudaError, in words, for an error of CUDA's.
    """
    ffi, lib, _ = library()
    cupy = sys.modules["cupy"]
    lib.tg_cuda_stream(ffi.cast("void *", cupy.cuda.get_current_stream().ptr))
    values = [_passed(ffi, a) for a in arguments]
    code = getattr(lib, kernel)(dtype, *values, 1)
    if code == _NO_MEMORY:  # CuPy keeps freed memory for itself
        cupy.get_default_memory_pool().free_all_blocks()
        code = getattr(lib, kernel)(dtype, *values, 1)
    if code >= _ERRORS:
        raise CudaError(f"{kernel}: {sentence(code - _ERRORS, ffi.string(lib.tg_cuda_error(code)).decode())}")
    return code


def _passed(ffi: Any, a: Any) -> Any:
    if a is None:
        return ffi.NULL
    if isinstance(a, (int, float)):
        return a
    return ffi.cast("void *", a.data.ptr if hasattr(a, "data") else a)  # an array, or a struct of the C library's
