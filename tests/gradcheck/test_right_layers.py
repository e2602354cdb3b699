"""Layers and losses whose arguments must be guessed: a right one is never called wrong, a wrong one always."""

import os

import pytest

from tests.gradcheck.right_layers import right_layer, spoiled, verdict

FULL = os.environ.get("TINYGEN_FULL") == "1"
BLOCKS = 20 if FULL else 1
COUNT = 100 if FULL else 40


@pytest.mark.parametrize("block", range(BLOCKS))
def test_no_right_layer_is_called_wrong(block: int) -> None:
    """Parameters broadcast in every way, labels of every kind: 2,000 of them with TINYGEN_FULL=1."""
    for seed in range(COUNT * block, COUNT * (block + 1)):
        text = right_layer(seed)
        report = verdict(text)
        assert report.verdict == "right", f"seed {seed}\n{text}\n{report}"
        assert sum(n for n, _ in report.compared.values()) > 0


@pytest.mark.parametrize("seed", range(200 if FULL else 10))
def test_a_gradient_half_as_large_again_is_called_wrong(seed: int) -> None:
    """Trying other arguments doesn't find some for which a wrong gradient is right."""
    text = right_layer(seed)
    assert spoiled(text) != text
    assert verdict(spoiled(text)).verdict == "wrong", spoiled(text)
