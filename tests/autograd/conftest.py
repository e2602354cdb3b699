"""Ops that a test of the engine defines are gone after it."""

from __future__ import annotations

import pytest

from tinygen.tape import REGISTRY


@pytest.fixture(autouse=True)
def own_ops():
    """Ops that a test defines are gone after it."""
    before = dict(REGISTRY)
    yield
    REGISTRY.clear()
    REGISTRY.update(before)
