"""The autoregressive models once more in PyTorch, with the same weights and batches: the same losses, step by step.

Each is written from its paper's equations in PyTorch's own words: masks multiplied onto weights, the LSTMs pixel by
pixel, NADE's hidden layers and the colors one after the other.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d, conv_transpose2d, cross_entropy, elu, linear, pad, relu

from tests.parity.side_by_side import STEPS, assert_one_gradient, assert_one_training, train
from tinygen.data import Minibatches, load
from tinygen.models.autoregressive.gated import GatedPixelCNN
from tinygen.models.autoregressive.made import MADE
from tinygen.models.autoregressive.multiscale import MultiScalePixelRNN
from tinygen.models.autoregressive.nade import NADE
from tinygen.models.autoregressive.pixelcnn import PixelCNN
from tinygen.models.autoregressive.pixelcnnpp import PixelCNNpp
from tinygen.models.autoregressive.pixelrnn import PixelRNN

BATCH, CLASSES, MIXTURES = 8, 3, 2


@functools.cache
def mask(outputs: int, inputs: int, kernel: int, kind: str, channels: int) -> torch.Tensor:
    """(O, I, K, K) of zeros and ones, from the paper's words: section 3.4 and figure 2."""
    m = torch.zeros(outputs, inputs, kernel, kernel, dtype=torch.float64)
    middle = kernel // 2
    m[:, :, :middle] = 1
    m[:, :, middle, :middle] = 1
    for o in range(outputs):
        for i in range(inputs):
            color, seen = o // (outputs // channels), i // (inputs // channels)
            m[o, i, middle, middle] = seen < color or (kind == "B" and seen == color)
    return m


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

    def has(self, name):
        return any(key.startswith(name) for key in self.parameters)

    def head(self, h, layers=("head.0", "head.1")):
        for layer in layers:
            h = self.conv(relu(h), layer, "B")
        return torch.stack(h.split(self.levels, dim=1), dim=2)  # (N, levels, C, H, W)

    def flat(self, x):
        """(N, D): the values in the order of the chain rule."""
        return x.movedim(1, 3).flatten(1)

    def from_flat(self, logits):
        """(N, levels, C, H, W) from (N, D, levels - 1), the first level's being 0."""
        (channels, height, width), n = self.shape, len(logits)
        logits = torch.cat([torch.zeros_like(logits[..., :1]), logits], 2)
        return logits.view(n, height, width, channels, self.levels).permute(0, 4, 3, 1, 2)

    def parts(self, x, number):
        """The output of a mask, which orders colors, in so many parts: those of each color, then their like."""
        colors = [c.chunk(number, 1) for c in x.chunk(self.shape[0], 1)]
        return [torch.cat(part, 1) for part in zip(*colors, strict=True)]

    def loss(self, images, labels=None):
        dtype = next(iter(self.parameters.values())).dtype
        x = (torch.tensor(images, dtype=torch.float64) * 2 / (self.levels - 1) - 1).to(dtype)
        target = torch.tensor(images, dtype=torch.int64)
        given = () if labels is None else (torch.tensor(labels),)
        return self.nats(self.logits(x, *given), x, target) / len(images)

    def nats(self, logits, x, target):
        return cross_entropy(logits, target, reduction="sum")


class TwinPixelCNN(Twin):
    def logits(self, x):
        h = self.conv(x, "layers.0", "A")
        *blocks, first, last = range(1, 1 + max(int(name.split(".")[1]) for name in self.parameters))
        for block in blocks:
            if self.has(f"layers.{block}.layers"):
                r = h
                for layer in range(3):
                    r = self.conv(relu(r), f"layers.{block}.layers.{layer}", "B")
                h = h + r
            else:
                h = self.conv(relu(h), f"layers.{block}", "B")
        return self.head(h, (f"layers.{first}", f"layers.{last}"))


class TwinMADE(Twin):
    def logits(self, x):
        w, d = self.parameters, len(self.flat(x)[0])
        value = torch.arange(1, d + 1)
        outputs = torch.repeat_interleave(value, self.levels - 1)
        flat = self.flat(x)
        logits = linear(flat, w["direct.weight"] * (outputs[:, None] > value[None]), w["direct.bias"])
        if "first.bias" in w:
            hidden = len(w["first.bias"])
            degree = torch.tensor([1 + k * (d - 1) // hidden for k in range(hidden)])
            h = relu(linear(flat, w["first.weight"] * (degree[:, None] >= value[None]), w["first.bias"]))
            logits = logits + linear(h, w["last.weight"] * (outputs[:, None] > degree[None]))
        return self.from_flat(logits.view(len(x), d, self.levels - 1))


class TwinNADE(Twin):
    def logits(self, x):
        w, flat = self.parameters, self.flat(x)
        out = []
        for d in range(flat.shape[1]):  # each hidden layer by itself, from all values before
            h = torch.sigmoid(w["bias"] + flat[:, :d] @ w["weight"][:d])
            out.append(linear(h, w["output"][d], w["output_bias"][d]))
        return self.from_flat(torch.stack(out, 1))


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

    def row(self, h, name, given):
        height, width = h.shape[2:]
        weight = self.parameters[f"{name}.state.weight"][:, :, 0]
        states = [(weight[..., k], -1, k - 1) for k in (0, 2, 1)]  # the pixel above last
        order = [(y, x) for y in range(height) for x in range(width)]
        return self.lstm(self.parts(self.conv(h, f"{name}.input", "B") + given, 4), states, order)

    def diagonal(self, h, name, given):
        height, width = h.shape[2:]
        order = [(y, x) for y in range(height) for x in range(width)]
        both = []
        for side, dx in (("left", -1), ("right", 1)):
            weight = self.parameters[f"{name}.state_{side}.weight"][..., 0]
            states = [(weight[..., 0], -1, 0), (weight[..., 1], 0, dx)]
            z = self.conv(h, f"{name}.{side}", "B")
            if torch.is_tensor(given):
                z = z + given.chunk(2, 1)[dx > 0]
            turned = order if dx < 0 else [(y, width - 1 - x) for y, x in order]
            both.append(self.lstm(self.parts(z, 4), states, turned))
        left, right = both
        return left + torch.cat([torch.zeros_like(right[:, :, :1]), right[:, :, :-1]], 2)

    def logits(self, x, prefix="", given=(0, 0)):
        diagonal = f"{prefix}layers.0.left.weight" in self.parameters
        width = x.shape[3]
        h = self.conv(pad(x, (0, 1)) if diagonal else x, f"{prefix}input", "A")
        layer = 0
        while self.has(f"{prefix}layers.{layer}."):
            name, more = f"{prefix}layers.{layer}", given[layer]
            if diagonal and torch.is_tensor(more):
                more = pad(more, (0, 1))
            h = h + self.conv((self.diagonal if diagonal else self.row)(h, name, more), f"{name}.output", "B")
            layer += 1
        return self.head(h[..., :width], (f"{prefix}head.0", f"{prefix}head.1"))


class TwinMultiScale(TwinRNN):
    """The small image's pixels by their own network, the others by the one that is told of them."""

    def logits(self, x):
        small = x[:, :, ::2, ::2]
        told = relu(self.conv(small, "enlarge.0", padding=1))
        weight, bias = self.parameters["enlarge.2.weight"], self.parameters["enlarge.2.bias"]
        told = relu(conv_transpose2d(told, weight, bias, stride=2, padding=1))[..., : x.shape[2], : x.shape[3]]
        given = [self.conv(told, "given.0")]
        return super().logits(small, "small."), super().logits(x, "large.", given)

    def nats(self, logits, x, target):
        small, large = logits
        nats = cross_entropy(large, target, reduction="none")
        nats[:, :, ::2, ::2] = cross_entropy(small, target[:, :, ::2, ::2], reduction="none")
        return nats.sum()


class TwinGated(Twin):
    def logits(self, x, labels=None):
        v = h = x
        for k in range(3):
            reach, name = (1 if k else 3), f"layers.{k}"
            a = self.conv(pad(v, (reach, reach, reach, 0)), f"{name}.vertical")[:, :, : x.shape[2]]
            if labels is not None:
                a = a + self.parameters[f"{name}.given_vertical.weight"].T[labels][:, :, None, None]
            b = self.conv(h, f"{name}.horizontal", "B" if k else "A") + self.conv(a, f"{name}.link")
            if labels is not None:
                b = b + self.parameters[f"{name}.given_horizontal.weight"].T[labels][:, :, None, None]
            half = a.shape[1] // 2
            v = torch.tanh(a[:, :half]) * torch.sigmoid(a[:, half:])
            first, second = self.parts(b, 2)
            out = self.conv(torch.tanh(first) * torch.sigmoid(second), f"{name}.output", "B")
            h = h + out if k else out
        return self.head(h)


class TwinPlusPlus(Twin):
    """The authors' code in PyTorch's words, without its weight normalization; two sizes, one block each."""

    def shifted(self, x, name, stride=1):
        kh, kw = self.parameters[f"{name}.weight"].shape[2:]
        return self.conv(pad(x, (kw // 2, (kw - 1) // 2, kh - 1, 0)), name, stride=stride)

    def block(self, x, name, beside=None):
        y = self.shifted(concat_elu(x), f"{name}.first")
        if beside is not None:
            y = y + self.conv(concat_elu(beside), f"{name}.beside")
        y = concat_elu(y)
        return x + self.shifted(y, f"{name}.value") * torch.sigmoid(self.shifted(y, f"{name}.gate"))

    def up(self, x, name):
        weight, bias = self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"]
        y = conv_transpose2d(x, weight, bias, stride=2)
        side = (weight.shape[3] - 1) // 2
        return y[..., side : side + 2 * x.shape[3]]

    def logits(self, x):
        height, width = x.shape[2:]
        x = pad(torch.cat([x, torch.ones_like(x[:, :1])], 1), (0, width % 2, 0, height % 2))
        down, right = pad(x, (0, 0, 1, 0))[:, :, :-1], pad(x, (1, 0))[..., :-1]
        us = [self.shifted(down, "above")]
        uls = [self.shifted(down, "row_above") + self.shifted(right, "left")]
        for layer in range(3):
            name = f"down.{layer}"
            if layer == 1:
                us.append(self.shifted(us[-1], f"{name}.u", 2))
                uls.append(self.shifted(uls[-1], f"{name}.ul", 2))
            else:
                us.append(self.block(us[-1], f"{name}.u"))
                uls.append(self.block(uls[-1], f"{name}.ul", us[-1]))
        u, ul = us.pop(), uls.pop()
        for layer in range(4):
            name = f"up.{layer}"
            if layer == 1:
                u, ul = self.up(u, f"{name}.u"), self.up(ul, f"{name}.ul")
            else:
                u = self.block(u, f"{name}.u", us.pop())
                ul = self.block(ul, f"{name}.ul", torch.cat([u, uls.pop()], 1))
        return self.conv(elu(ul), "head")[:, :, :height, :width]

    def nats(self, logits, x, target):
        """Every level's probability as a difference of logistic functions, of each component by itself."""
        c, m, n = self.shape[0], self.levels, len(x)
        p = logits.view(n, MIXTURES, -1, *x.shape[2:])
        total = torch.log_softmax(p[:, :, 0], 1)
        for i in range(c):
            mean = p[:, :, 1 + i]
            for j in range(i):
                mean = mean + torch.tanh(p[:, :, 1 + 2 * c + i * (i - 1) // 2 + j]) * x[:, None, j]
            scale, own = torch.exp(p[:, :, 1 + c + i]), target[:, None, i]
            above = torch.sigmoid((x[:, None, i] + 1 / (m - 1) - mean) / scale)
            below = torch.sigmoid((x[:, None, i] - 1 / (m - 1) - mean) / scale)
            above, below = torch.where(own == m - 1, 1.0, above), torch.where(own == 0, 0.0, below)
            total = total + torch.log(above - below)
        return -torch.logsumexp(total, 1).sum()


def concat_elu(x):
    return elu(torch.cat([x, -x], 1))


PAIRS = {
    "fvsbn": (MADE, TwinMADE, {"hidden": 0}),
    "made": (MADE, TwinMADE, {"hidden": 30}),
    "nade": (NADE, TwinNADE, {"hidden": 9}),
    "pixelcnn": (PixelCNN, TwinPixelCNN, {"hidden": 6, "blocks": 2}),
    "plain": (PixelCNN, TwinPixelCNN, {"hidden": 6, "blocks": 2, "residual": False}),
    "gated": (GatedPixelCNN, TwinGated, {"hidden": 6, "layers": 3}),
    "gated, classes": (GatedPixelCNN, TwinGated, {"hidden": 6, "layers": 3, "classes": CLASSES}),
    "row": (PixelRNN, TwinRNN, {"rnn": "row", "hidden": 6, "layers": 1}),
    "diagonal": (PixelRNN, TwinRNN, {"rnn": "diagonal", "hidden": 6, "layers": 1}),
    "multiscale": (MultiScalePixelRNN, TwinMultiScale, {"rnn": "row", "hidden": 6, "layers": 1}),
    "multiscale, diagonal": (MultiScalePixelRNN, TwinMultiScale, {"rnn": "diagonal", "hidden": 6, "layers": 1}),
    "pixelcnn++": (PixelCNNpp, TwinPlusPlus, {"hidden": 4, "scales": 2, "mixtures": MIXTURES}),
}


def gray():
    """The middles of digits, in 5 levels."""
    return (load("digits")[0].images[:, :, 2:6, 2:7] // 4).astype(np.uint8)[:100], 5


def color():
    x = np.random.default_rng(0).normal(size=(50, 3, 3, 4)).cumsum(axis=1).cumsum(axis=2)
    return np.clip(np.round(2.5 + x), 0, 5).astype(np.uint8), 6


def pair(name, images, levels, dtype):
    """The model, its twin, and its images with labels, if it has classes."""
    kind, twin, options = PAIRS[name]
    model = kind(images.shape[1:], levels, **options, rng=np.random.default_rng(0)).to(dtype)
    labels = np.arange(len(images)) % CLASSES
    return model, twin(model), (images, labels) if model.condition else (images,)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("data", [gray, color])
def test_trained_side_by_side(data, name):
    model, twin, data = pair(name, *data(), np.float64)
    batches = Minibatches(data, BATCH, np.random.default_rng(1), drop_last=True)
    stream = itertools.islice(itertools.chain.from_iterable(itertools.repeat(batches)), STEPS)
    before = model.nats(*data).mean().item()
    ours, torchs = train(model, twin, 5e-3, ((model.nats(*batch).mean(), twin.loss(*batch)) for batch in stream))
    assert_one_training(model, twin, ours, torchs)
    assert model.nats(*data).mean().item() < 0.99 * before  # and it did learn


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("data", [gray, color])
def test_the_same_loss_and_gradients_in_float32(data, name):
    model, twin, data = pair(name, *data(), np.float32)
    batch = [array[:BATCH] for array in data]
    assert_one_gradient(model, twin, model.nats(*batch).mean(), twin.loss(*batch))
