"""The kernels' tests on builds with gcc's sanitizers, a sample; `python -m tests.sanitize --full` runs all of it."""

import pytest

from tests import sanitize


@pytest.mark.fault("K02")
def test_addresses_and_undefined_behavior(capsys):
    assert sanitize.check("address", full=False), capsys.readouterr().out


@pytest.mark.fault("K03")
def test_four_python_threads(capsys):
    assert sanitize.check("thread", full=False), capsys.readouterr().out
