"""A model and its twin in PyTorch, whose `parameters` have the model's names, trained on the same losses."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch

from tinygen import optim

STEPS = 100 if os.environ.get("TINYGEN_FULL") == "1" else 20  # of a training side by side


def train(model: Any, twin: Any, lr: float, losses: Iterable[tuple[Any, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """A step of Adam on each loss of the model and of the twin, worked out one after the other: their values."""
    optimizers = optim.Adam(model.parameters(), lr=lr), torch.optim.Adam(twin.parameters.values(), lr=lr)
    found = []
    for pair in losses:
        found.append([loss.item() for loss in pair])
        for optimizer, loss in zip(optimizers, pair, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return tuple(np.array(found).T)


def assert_one_training(model: Any, twin: Any, ours: np.ndarray, torchs: np.ndarray) -> None:
    """After `train` in float64: the same losses all the way, and the same parameters in the end."""
    np.testing.assert_allclose(ours, torchs, rtol=1e-9)
    for name, p in model.named_parameters():
        np.testing.assert_allclose(p.numpy(), twin.parameters[name].detach(), rtol=1e-6, atol=1e-9, err_msg=name)


def assert_one_gradient(model: Any, twin: Any, loss: Any, expected: Any) -> None:
    """The loss and the gradients of all parameters, in float32."""
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    expected.backward()
    for name, p in model.named_parameters():
        theirs = twin.parameters[name].grad.numpy()
        np.testing.assert_allclose(p.grad.numpy(), theirs, rtol=0, atol=1e-4 * np.abs(theirs).max(), err_msg=name)
