"""The same translations in PyTorch, with the same weights, batches and noise: the same losses, step by step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.kernels.torch_translation import Generator, Steps
from tests.models.small import new
from tinygen.data import load, tasks
from tinygen.models.family import Batch
from tinygen.models.gan.toy import PlainStep

STEPS, LR = 20, 1e-3


def randomized(model):
    """The U-Net's last convolutions start at zero, which hides mistakes behind them."""
    rng = np.random.default_rng(5)
    for name, p in model.named_parameters():
        if "conv2" in name or "unet.output" in name:
            p.write()[...] = rng.normal(0, 0.1, p.shape)
    return model


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", ["pix2pix", "cyclegan"])
def test_trained_side_by_side(name, dtype):
    """On 16x16 images, which the generators see as patches; with dropout, and a pool that is full after seven steps."""
    digits = load("digits")[0].images.repeat(2, axis=2).repeat(2, axis=3)
    model = randomized(new(name, (1, 16, 16), 17, width=4)).to(dtype)
    twin = Steps(model, LR, {})
    order, mine, theirs = (np.random.default_rng(seed) for seed in (1, 2, 2))
    step = PlainStep(model.optimizers(LR), None, mine)
    losses = []
    for _ in range(STEPS if dtype == np.float64 else 1):
        batches = [digits[order.integers(0, len(digits), 8)] for _ in range(2 - model.paired)]
        step.batch = map(Batch, batches).__next__
        parts = model.training_step(step)
        x, y = (torch.tensor(images / 8.0 - 1, dtype=torch.float64 if dtype == np.float64 else torch.float32)
                for images in (tasks.outlines(batches[0], 17), batches[-1]))  # fmt: skip
        expected = twin.step(x, y, theirs)
        losses.append(([parts[k] for k in expected], [*expected.values()]))
    ours, torchs = np.array(losses).transpose(1, 0, 2)
    np.testing.assert_allclose(ours, torchs, rtol=1e-9 if dtype == np.float64 else 1e-5)
    if dtype == np.float64:
        for way, g, d in zip(model.directions(), twin.generators, twin.discriminators, strict=True):
            for own, other in ((way.generator.unet, g.unet), (way.discriminator, d)):
                for key, value in other.state_dict().items():
                    np.testing.assert_allclose(own.state_dict()[key], value, rtol=1e-7, atol=1e-10, err_msg=key)
        assert np.abs(ours[-1] - ours[0]).max() > 1e-3  # and they did move


def test_a_translation_is_pytorchs():
    model = randomized(new("cyclegan", (1, 16, 16), 17, width=4)).eval()
    images = load("digits")[1].images[:20].repeat(2, axis=2).repeat(2, axis=3)
    with torch.no_grad():
        out = Generator(model.there.generator)(torch.tensor(images / 8.0 - 1, dtype=torch.float32)).numpy()
    expected = np.round((out + 1) * 8)
    made = model.translate(images, np.random.default_rng(0))
    assert (made == expected).mean() > 0.999  # but for values halfway between two levels
