"""Peak memory of a contestant, in a process of its own.

    python -m benchmarks.kernels.memory CASE CONTESTANT WHAT THREADS

A process's ru_maxrss can't be reset, and starts from that of the process that forked it; so on Linux the kernel's own
high-water mark is read, reset once everything is set up.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

CALLS = 3


def measure(case: str, contestant: str, what: str, threads: int) -> dict[str, float]:
    """{"peak": MB of the process, "above": MB beyond what the libraries took}."""
    command = [sys.executable, "-m", "benchmarks.kernels.memory", case, contestant, what, str(threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parents[2])
    return json.loads(done.stdout)


def main() -> None:
    case_name, contestant, what, threads = sys.argv[1:]
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from benchmarks.kernels.cases import CASES
    from benchmarks.kernels.contestants import contestants, torch_or_none
    from benchmarks.timing import use_threads

    case = next(c for c in CASES if c.name == case_name)
    with_torch = contestant.startswith("PyTorch")
    use_threads(int(threads), torch_or_none() if with_torch else None)
    setups = contestants(case, with_torch)
    _trim()
    libraries = _reset()
    run = setups[contestant]()[what]
    _reset()
    for _ in range(CALLS):
        run()
    print(json.dumps({"peak": _peak(), "above": _peak() - libraries}))


def _trim() -> None:
    """Give back what importing has freed, where the system can: else it would be used again without being counted."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _reset() -> float:
    """Start the high-water mark anew, where the system can; the MB in use now."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> float:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
