"""MADE, PixelRNN and Gated PixelCNN once more in PyTorch, with the same weights and batches: the same losses.

Each is written from its paper's equations in PyTorch's own words: masks multiplied onto weights, the LSTMs pixel by
pixel, the colours one after the other.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d, cross_entropy, linear, pad, relu

from tests.parity.test_pixelcnn_parity import colour, digits, mask
from tinygen import optim
from tinygen.data import Minibatches
from tinygen.models.gated import GatedPixelCNN
from tinygen.models.made import MADE
from tinygen.models.pixelrnn import PixelRNN

STEPS = 8


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Twin:
    """What the models share: parameters by name, masked convolutions, the softmax over levels, the loss."""

    def __init__(self, model):
        self.parameters = {n: torch.from_numpy(v).requires_grad_() for n, v in model.state_dict().items()}
        self.shape, self.levels = model.image_shape, model.levels

    def conv(self, x, name, kind=None, **options):
        """Named parameters' convolution. With a mask its kernel is one of a square's middle row or a square."""
        weight, bias = self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"]
        o, i, kh, kw = weight.shape
        if kind is None:
            return conv2d(x, weight, bias, **options)
        m = mask(o, i, max(kh, kw), kind, self.shape[0]).to(weight.dtype)
        m = m[:, :, (kw - kh) // 2 : (kw + kh) // 2]
        return conv2d(x, weight * m, bias, padding=(kh // 2, kw // 2))

    def head(self, h):
        for layer in (1, 3):
            h = self.conv(relu(h), f"head.{layer}", "B")
        return torch.stack(h.split(self.levels, dim=1), dim=2)  # (N, levels, C, H, W)

    def parts(self, x, number):
        """The output of a mask, which orders colours, in so many parts: those of each colour, then their like."""
        colours = [c.chunk(number, 1) for c in x.chunk(self.shape[0], 1)]
        return [torch.cat(part, 1) for part in zip(*colours, strict=True)]

    def loss(self, images):
        dtype = next(iter(self.parameters.values())).dtype
        x = (torch.tensor(images, dtype=torch.float64) * 2 / (self.levels - 1) - 1).to(dtype)
        target = torch.tensor(images, dtype=torch.int64)
        return cross_entropy(self.logits(x), target, reduction="sum") / len(images)


class TwinMADE(Twin):
    def logits(self, x):
        w, (channels, height, width) = self.parameters, self.shape
        d, hidden, free = channels * height * width, len(w["first.bias"]), self.levels - 1
        value = torch.arange(1, d + 1)
        degree = torch.tensor([1 + k * (d - 1) // hidden for k in range(hidden)])
        outputs = torch.repeat_interleave(value, free)
        flat = x.movedim(1, 3).flatten(1)
        h = relu(linear(flat, w["first.weight"] * (degree[:, None] >= value[None]), w["first.bias"]))
        logits = linear(flat, w["direct.weight"] * (outputs[:, None] > value[None]), w["direct.bias"])
        logits = logits + linear(h, w["last.weight"] * (outputs[:, None] > degree[None]))
        logits = torch.cat([logits.new_zeros(len(x), d, 1), logits.view(-1, d, free)], 2)
        return logits.view(-1, height, width, channels, self.levels).permute(0, 4, 3, 1, 2)


class TwinRNN(Twin):
    def lstm(self, z, states, order):
        """Pixel by pixel. states: (weight, dy, dx) of the pixels that are remembered, the last one with its c."""
        n, _, height, width = z[0].shape
        zeros = z[0].new_zeros(n, z[0].shape[1])
        h, c = {}, {}
        for y, x in order:
            a = torch.cat([gate[:, :, y, x] for gate in z], 1)
            for weight, dy, dx in states:
                a = a + h.get((y + dy, x + dx), zeros) @ weight.T
            i, f, g, o = a.chunk(4, 1)
            before = c.get((y + states[-1][1], x + states[-1][2]), zeros)
            c[y, x] = torch.sigmoid(f) * before + torch.sigmoid(i) * torch.tanh(g)
            h[y, x] = torch.sigmoid(o) * torch.tanh(c[y, x])
        return torch.stack([torch.stack([h[y, x] for x in range(width)], 2) for y in range(height)], 2)

    def row(self, h, name):
        height, width = h.shape[2:]
        weight = self.parameters[f"{name}.state.weight"][:, :, 0]
        states = [(weight[..., k], -1, k - 1) for k in (0, 2, 1)]  # the pixel above last
        order = [(y, x) for y in range(height) for x in range(width)]
        return self.lstm(self.parts(self.conv(h, f"{name}.input", "B"), 4), states, order)

    def diagonal(self, h, name):
        height, width = h.shape[2:]
        order = [(y, x) for y in range(height) for x in range(width)]
        both = []
        for side, dx in (("left", -1), ("right", 1)):
            weight = self.parameters[f"{name}.state_{side}.weight"][..., 0]
            states = [(weight[..., 0], -1, 0), (weight[..., 1], 0, dx)]
            z = self.parts(self.conv(h, f"{name}.{side}", "B"), 4)
            both.append(self.lstm(z, states, order if dx < 0 else [(y, width - 1 - x) for y, x in order]))
        left, right = both
        return left + torch.cat([torch.zeros_like(right[:, :, :1]), right[:, :, :-1]], 2)

    def logits(self, x):
        diagonal = "layers.0.left.weight" in self.parameters
        h = self.conv(pad(x, (0, 1)) if diagonal else x, "input", "A")
        for name in ("layers.0", "layers.1"):
            h = h + self.conv((self.diagonal if diagonal else self.row)(h, name), f"{name}.output", "B")
        return self.head(h[..., : self.shape[2]])


class TwinGated(Twin):
    def logits(self, x):
        v = h = x
        for k in range(3):
            reach, name = (1 if k else 3), f"layers.{k}"
            a = self.conv(pad(v, (reach, reach, reach, 0)), f"{name}.vertical")[:, :, : x.shape[2]]
            b = self.conv(h, f"{name}.horizontal", "B" if k else "A") + self.conv(a, f"{name}.link")
            half = a.shape[1] // 2
            v = torch.tanh(a[:, :half]) * torch.sigmoid(a[:, half:])
            first, second = self.parts(b, 2)
            out = self.conv(torch.tanh(first) * torch.sigmoid(second), f"{name}.output", "B")
            h = h + out if k else out
        return self.head(h)


PAIRS = {
    "made": (MADE, TwinMADE, {"hidden": 30}),
    "row": (PixelRNN, TwinRNN, {"rnn": "row", "hidden": 6}),
    "diagonal": (PixelRNN, TwinRNN, {"rnn": "diagonal", "hidden": 6}),
    "gated": (GatedPixelCNN, TwinGated, {"hidden": 6, "layers": 3}),
}


def pair(name, images, levels, dtype):
    kind, twin, options = PAIRS[name]
    model = kind(images.shape[1:], levels, **options, generator=np.random.default_rng(0)).to(dtype)
    return model, twin(model)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("data", [digits, colour])
def test_trained_side_by_side(data, name):
    images, levels, _, batch_size = data()
    model, twin = pair(name, images, levels, np.float64)
    mine = optim.Adam(model.parameters(), lr=1e-3)
    theirs = torch.optim.Adam(twin.parameters.values(), lr=1e-3)
    generator = np.random.default_rng(1)
    batches = list(Minibatches(images, batch_size, generator))
    batches, losses = (STEPS * batches)[: STEPS - 1] + batches[:1], []
    for batch in batches:
        loss, expected = model.nats(batch).mean(), twin.loss(batch)
        losses.append((loss.item(), expected.item()))
        for optimizer, value in ((mine, loss), (theirs, expected)):
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    ours, torchs = np.array(losses).T
    np.testing.assert_allclose(ours, torchs, rtol=1e-9)
    for parameter, p in model.named_parameters():
        expected = twin.parameters[parameter].detach()
        np.testing.assert_allclose(p.numpy(), expected, rtol=1e-6, atol=1e-9, err_msg=parameter)
    assert len(ours) == STEPS
    assert ours[-1] < ours[0]  # the first batch once more: it did learn


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("data", [digits, colour])
def test_the_same_loss_and_gradients_in_float32(data, name):
    images, levels, _, batch_size = data()
    model, twin = pair(name, images, levels, np.float32)
    loss, expected = model.nats(images[:batch_size]).mean(), twin.loss(images[:batch_size])
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    expected.backward()
    for parameter, p in model.named_parameters():
        theirs = twin.parameters[parameter].grad.numpy()
        atol = 1e-4 * np.abs(theirs).max()
        np.testing.assert_allclose(p.grad.numpy(), theirs, rtol=0, atol=atol, err_msg=parameter)
