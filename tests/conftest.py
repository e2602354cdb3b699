"""What all tests share: hypothesis profiles, and whether the tests run that need PyTorch or a browser."""

import importlib.util
import os
import signal

import pytest
from hypothesis import settings

from tests.browser import Browser, axe, found
from tinygen import kernels

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

_TORCH = importlib.util.find_spec("torch") is not None
_CHROMIUM = found() is not None
_AXE = axe() is not None
collect_ignore_glob = [
    *([] if _TORCH else ["parity/*"]), *([] if _CHROMIUM else ["*_browser.py"]), *([] if _AXE else ["*_axe_browser.py"])
]  # fmt: skip
GET_AXE = "pip install --no-deps axe-playwright-python"


def pytest_configure(config):
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell starts what it runs in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))  # each has its share of the cores
    kernels.set_num_threads(max(1, kernels.get_num_threads() // workers))
    if not _TORCH and os.environ.get("TINYGEN_REQUIRE_PARITY") == "1":
        raise pytest.UsageError("TINYGEN_REQUIRE_PARITY=1, but PyTorch isn't installed (pip install torch)")
    if not _CHROMIUM and os.environ.get("TINYGEN_REQUIRE_BROWSER") == "1":
        raise pytest.UsageError("TINYGEN_REQUIRE_BROWSER=1, but there is no chromium (apt-get install chromium)")
    if not _AXE and os.environ.get("TINYGEN_REQUIRE_BROWSER") == "1":
        raise pytest.UsageError(f"TINYGEN_REQUIRE_BROWSER=1, but axe-core isn't installed ({GET_AXE})")


def pytest_report_header(config):
    missing = []
    if not _TORCH:
        missing.append("parity with PyTorch: not run, PyTorch isn't installed (pip install torch)")
    if not _CHROMIUM:
        missing.append("pages in a browser: not run, there is no chromium (apt-get install chromium)")
    elif not _AXE:
        missing.append(f"whether everybody can use the pages: not run, axe-core isn't installed ({GET_AXE})")
    return missing


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A Chromium for the tests of one page, in files named *_browser.py."""
    with Browser(tmp_path_factory.mktemp("profile")) as chromium:
        yield chromium


@pytest.fixture(autouse=True)
def _threads():
    """A command that a test runs may set the number of threads, which a run's environment.toml tells."""
    before = kernels.get_num_threads()
    yield
    kernels.set_num_threads(before)
