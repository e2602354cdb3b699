"""Self-supervision once more in PyTorch, with the same weights and views: the same losses, step by step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy, linear, relu

from tests.parity.side_by_side import STEPS, assert_one_gradient, assert_one_training, train
from tests.parity.test_vae_parity import Twin
from tinygen.data import load, tasks
from tinygen.data.augment import view
from tinygen.models.family import Batch
from tinygen.models.selfsupervised.colorization import Colorization
from tinygen.models.selfsupervised.inpainting import ContextEncoder
from tinygen.models.selfsupervised.rotation import Rotation
from tinygen.models.selfsupervised.simclr import SimCLR

N, LR = 16, 5e-3


class TwinSimCLR(Twin):
    """All pairs by cosine_similarity, from which those with itself are taken out."""

    def loss(self, images, rng, temperature):
        x = self.scaled(np.concatenate([view(images, rng), view(images, rng)]))
        h = linear(relu(self.encode(x)), *self.of("projection.1"))
        z = linear(relu(h), *self.of("projection.3"))
        sim, n = cosine_similarity(z[:, None], z[None], dim=2) / temperature, len(images)
        others = torch.stack([torch.cat([sim[i, :i], sim[i, i + 1 :]]) for i in range(2 * n)])
        partner = torch.tensor([i + n - 1 if i < n else i - n for i in range(2 * n)])
        return cross_entropy(others, partner)


class TwinRotation(Twin):
    def loss(self, images, rng):
        x = self.scaled(images)
        turned = torch.cat([torch.rot90(x, k, (2, 3)) for k in range(4)])
        logits = linear(relu(self.encode(turned)), *self.of("head.1"))
        return cross_entropy(logits, torch.arange(4).repeat_interleave(len(images)))


class TwinInpainting(Twin):
    def loss(self, images, rng):
        rows = torch.arange(8) >= 4
        holes = torch.zeros(4, 1, 8, 8, dtype=bool)
        holes[0, :, rows], holes[1, :, ~rows], holes[2, :, :, rows], holes[3, :, :, ~rows] = True, True, True, True
        hole, x = holes[rng.integers(0, 4, len(images))], self.scaled(images)
        made = self.decode(self.encode(torch.where(hole, self.scaled(8), x)), 8)
        return (((made - x) / 2)[hole] ** 2).mean()


class TwinColorization(Twin):
    """The hue of an image is that of its brightest pixel."""

    def loss(self, images, labels, rng):
        gray, colored = tasks.color(images, labels, 17, rng)
        ratios = colored / np.maximum(gray, 1)
        far = [((ratios - np.reshape(tint, (3, 1, 1))) ** 2).sum(1) for tint in [*tasks.TINTS, [1, 1, 1]]]
        color = torch.tensor(np.argmin(far, axis=0))
        logits = self.decode(self.encode(self.scaled(gray)), 8)
        lit = torch.tensor(gray[:, 0] >= 2)
        return cross_entropy(logits.permute(0, 2, 3, 1)[lit], color[lit])


CASES = {
    "simclr": (SimCLR, TwinSimCLR, "contrast", {"temperature": 0.3}),
    "rotation": (Rotation, TwinRotation, "turn", {}),
    "inpainting": (ContextEncoder, TwinInpainting, "squared_error", {}),
    "colorization": (Colorization, TwinColorization, "color", {}),
}


def losses(name, dtype):
    """(the model, its twin, their losses on the same images)."""
    kind, twin, part, options = CASES[name]
    model = kind((1, 8, 8), 17, latent=6, hidden=4, **options, rng=np.random.default_rng(0)).to(dtype)
    for p in model.parameters():  # at first all embeddings are nearly alike
        p.write()[...] *= 3
    other, data = twin(model, True), load("digits")[0]
    order, mine, theirs = (np.random.default_rng(seed) for seed in (1, 2, 2))

    def both():
        index = order.integers(0, len(data), N)
        batch = Batch(data.images[index], data.labels[index])
        told = (batch.labels,) if name == "colorization" else ()
        return model.loss(batch, mine)[part], other.loss(batch.images, *told, theirs, *options.values())

    return model, other, both


@pytest.mark.parametrize("name", CASES)
def test_trained_side_by_side(name):
    model, twin, both = losses(name, np.float64)
    ours, torchs = train(model, twin, LR, (both() for _ in range(STEPS)))
    assert_one_training(model, twin, ours, torchs)
    assert np.abs(ours - ours[0]).max() > 0.05


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_in_single_precision(name):
    model, twin, both = losses(name, np.float32)
    assert_one_gradient(model, twin, *both())
