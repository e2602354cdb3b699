"""What all tests share: hypothesis profiles, and whether the comparison with PyTorch runs."""

import importlib.util
import os
import signal

import pytest
from hypothesis import settings

from tinygen import kernels

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

_TORCH = importlib.util.find_spec("torch") is not None
collect_ignore_glob = [] if _TORCH else ["parity/*"]


def pytest_configure(config):
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell starts what it runs in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not _TORCH and os.environ.get("TINYGEN_REQUIRE_PARITY") == "1":
        raise pytest.UsageError("TINYGEN_REQUIRE_PARITY=1, but PyTorch isn't installed (pip install torch)")


def pytest_report_header(config):
    return None if _TORCH else "parity with PyTorch: not run, PyTorch isn't installed (pip install torch)"


@pytest.fixture(autouse=True)
def _threads():
    """A command that a test runs may set the number of threads, which a run's environment.toml tells."""
    before = kernels.get_num_threads()
    yield
    kernels.set_num_threads(before)
