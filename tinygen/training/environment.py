"""Where a run takes place: versions and machine."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from tinygen import kernels


def environment() -> dict[str, Any]:
    """Versions, processor, threads, and the commit if tinygen runs from a clone of its repository."""
    return {
        "tinygen": metadata.version("tinygen"), "commit": _commit(), "python": platform.python_version(),
        "numpy": np.__version__, "system": platform.platform(), "processor": _processor(), "cores": os.cpu_count(),
        "threads": kernels.get_num_threads(),
        "kernels": kernels.isa(),
    }  # fmt: skip


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        ask = ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"]
        return subprocess.run(ask, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    return None
