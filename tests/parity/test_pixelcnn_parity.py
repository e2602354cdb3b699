"""The same PixelCNN in PyTorch, with the same weights and batches: the same losses, step by step."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d, cross_entropy, relu

from tinygen import optim
from tinygen.data import Minibatches, load
from tinygen.models.pixelcnn import PixelCNN

STEPS = {np.float64: 100, np.float32: 30}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@functools.cache
def mask(outputs: int, inputs: int, kernel: int, kind: str, channels: int) -> torch.Tensor:
    """(O, I, K, K) of zeros and ones, from the paper's words: section 3.4 and figure 2."""
    m = torch.zeros(outputs, inputs, kernel, kernel, dtype=torch.float64)
    middle = kernel // 2
    m[:, :, :middle] = 1
    m[:, :, middle, :middle] = 1
    for o in range(outputs):
        for i in range(inputs):
            colour, seen = o // (outputs // channels), i // (inputs // channels)
            m[o, i, middle, middle] = seen < colour or (kind == "B" and seen == colour)
    return m


class Twin:
    """PixelCNN's definition, figure 5 left and table 1, in PyTorch."""

    def __init__(self, model: PixelCNN, blocks: int) -> None:
        self.parameters = {n: torch.from_numpy(v).requires_grad_() for n, v in model.state_dict().items()}
        self.shape, self.levels, self.blocks = model.image_shape, model.levels, blocks

    def convolve(self, x: torch.Tensor, name: str, kind: str) -> torch.Tensor:
        weight, bias = self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"]
        m = mask(*weight.shape[:3], kind, self.shape[0]).to(weight.dtype)
        return conv2d(x, weight * m, bias, padding=weight.shape[2] // 2)

    def loss(self, images: np.ndarray) -> torch.Tensor:
        dtype = self.parameters["layers.0.weight"].dtype
        x = (torch.tensor(images, dtype=torch.float64) * 2 / (self.levels - 1) - 1).to(dtype)
        h = self.convolve(x, "layers.0", "A")
        for block in range(1, self.blocks + 1):
            r = h
            for layer in (0, 1, 2):
                r = self.convolve(relu(r), f"layers.{block}.layers.{layer}", "B")
            h = h + r
        for layer in (1, 2):
            h = self.convolve(relu(h), f"layers.{self.blocks + layer}", "B")
        logits = torch.stack(h.split(self.levels, dim=1), dim=2)  # (N, levels, C, H, W)
        target = torch.tensor(images, dtype=torch.int64)
        return cross_entropy(logits, target, reduction="sum") / len(images)


def digits() -> tuple[np.ndarray, int, dict[str, int], int]:
    return load("digits")[0].images, 17, {"hidden": 16, "blocks": 3}, 16


def colour() -> tuple[np.ndarray, int, dict[str, int], int]:
    x = np.random.default_rng(0).normal(size=(50, 3, 5, 4)).cumsum(axis=1).cumsum(axis=2)
    return np.clip(np.round(2.5 + x), 0, 5).astype(np.uint8), 6, {"hidden": 12, "blocks": 2}, 8


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("data", [digits, colour])
def test_trained_side_by_side(data, dtype):
    images, levels, options, batch_size = data()
    generator = np.random.default_rng(0)
    model = PixelCNN(images.shape[1:], levels, **options, generator=generator).to(dtype)
    twin = Twin(model, options["blocks"])
    mine = optim.Adam(model.parameters(), lr=1e-3)
    theirs = torch.optim.Adam(twin.parameters.values(), lr=1e-3)
    stream = (batch for _ in range(STEPS[dtype]) for batch in Minibatches(images, batch_size, generator))
    losses = []
    for _, batch in zip(range(STEPS[dtype]), stream, strict=False):
        loss, expected = model.nats(batch).mean(), twin.loss(batch)
        losses.append((loss.item(), expected.item()))
        for optimizer, value in ((mine, loss), (theirs, expected)):
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    ours, torchs = np.array(losses).T
    if dtype == np.float64:
        np.testing.assert_allclose(ours, torchs, rtol=1e-9)
        for name, p in model.named_parameters():
            np.testing.assert_allclose(p.numpy(), twin.parameters[name].detach(), rtol=1e-6, atol=1e-9, err_msg=name)
    else:
        np.testing.assert_allclose(ours[0], torchs[0], rtol=1e-5)
        images = images[:300]
        assert abs(-model.log_prob(images).mean() - twin.loss(images).item()) < 1  # nats: roundings grow in training
    assert len(ours) == STEPS[dtype]
    assert ours[-10:].mean() < 0.99 * ours[0]  # and it did learn
