"""Three programs written for PyTorch, run on tinygen too: only the imports and the way a generator is passed differ.

Each source is one text, executed twice. `rng` is what layers that draw initial values are given besides: nothing in
PyTorch, a generator here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import tinygen
from tinygen import nn, optim
from tinygen.nn import functional as F

IMPORTS = {
    "torch": {"torch": torch, "nn": torch.nn, "F": torch.nn.functional, "optim": torch.optim,
              "schedules": torch.optim.lr_scheduler, "rng": {}},
    "tinygen": {"torch": tinygen, "nn": nn, "F": F, "optim": optim, "schedules": optim},
}  # fmt: skip

UNET = """
import math

class Block(nn.Module):
    def __init__(self, inputs, outputs, times):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(2, inputs), nn.GroupNorm(2, outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, **rng)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, **rng)
        self.time = nn.Linear(times, outputs, **rng)
        self.skip = nn.Conv2d(inputs, outputs, 1, **rng) if inputs != outputs else nn.Identity()
        self.act = nn.SiLU()

    def forward(self, x, t):
        h = self.conv1(self.act(self.norm1(x)))
        h = h + self.time(self.act(t))[:, :, None, None]
        return self.skip(x) + self.conv2(self.act(self.norm2(h)))

class Attention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, **rng)
        self.out = nn.Conv2d(channels, channels, 1, **rng)

    def forward(self, x):
        n, c, h, w = x.shape
        qkv = self.qkv(self.norm(x)).reshape(n, 3, 2, c // 2, h * w).permute(1, 0, 2, 4, 3)
        y = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        return x + self.out(y.permute(0, 1, 3, 2).reshape(n, c, h, w))

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(8, 16, **rng), nn.SiLU(), nn.Linear(16, 16, **rng))
        self.first = nn.Conv2d(1, width, 3, padding=1, **rng)
        self.down1, self.down2 = Block(width, width, 16), Block(width, 2 * width, 16)
        self.pool = nn.Conv2d(width, width, 3, stride=2, padding=1, **rng)
        self.attention = Attention(2 * width)
        self.middle = Block(2 * width, 2 * width, 16)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.up1 = Block(3 * width, width, 16)
        self.last = nn.Sequential(nn.GroupNorm(2, width), nn.SiLU(), nn.Conv2d(width, 1, 3, padding=1, **rng))
        nn.init.zeros_(self.last[2].bias)

    def forward(self, x, t):
        frequencies = torch.exp(-math.log(100.0) / 4 * numbers)
        angles = t[:, None] * frequencies[None]
        t = self.embed(torch.cat([torch.sin(angles), torch.cos(angles)], dim=1))
        a = self.down1(self.first(x), t)
        b = self.middle(self.attention(self.down2(self.pool(a), t)), t)
        return self.last(self.up1(torch.cat([self.up(b), a], dim=1), t))

net = Net()

def loss_of(x, t, noise):
    return F.mse_loss(net(x + noise, t), noise)
"""

RESNET = """
class Residual(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False, **rng)
        self.bn1, self.bn2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False, **rng)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False, **rng), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1, bias=False, **rng)
        self.bn1 = nn.BatchNorm2d(6)
        self.pool = nn.MaxPool2d(2)
        self.layers = nn.Sequential(Residual(6, 6, 1), Residual(6, 8, 2))
        self.fc = nn.Linear(8, 5, **rng)

    def forward(self, x):
        x = self.pool(F.relu(self.bn1(self.conv1(x))))
        return self.fc(self.layers(x).mean(dim=(2, 3)))

net = Net()
criterion = nn.CrossEntropyLoss(label_smoothing=0.1)

def loss_of(x, labels):
    return criterion(net(x), labels)
"""

LSTM = """
class Net(nn.Module):
    def __init__(self, vocabulary=7):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, 6, **rng)
        self.lstm = nn.LSTM(6, 8, batch_first=True, **rng)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, vocabulary, **rng)

    def forward(self, tokens, state=None):
        h, state = self.lstm(self.embedding(tokens), state)
        return self.head(self.norm(h)), state

net = Net()

def loss_of(tokens, targets):
    logits, state = net(tokens)
    more, _ = net(tokens, state)
    loss = F.cross_entropy(logits.reshape(-1, 7), targets.reshape(-1), ignore_index=0)
    return loss + 0.5 * F.cross_entropy(more.transpose(1, 2), targets)
"""

TRAIN = """
optimizer = optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.01)
warmup = schedules.LinearLR(optimizer, 0.1, total_iters=2)
schedule = schedules.SequentialLR(optimizer, [warmup, schedules.CosineAnnealingLR(optimizer, 4)], [2])
losses = []
for batch in batches:
    optimizer.zero_grad()
    loss = loss_of(*batch)
    loss.backward()
    optimizer.step()
    schedule.step()
    losses.append(loss.item())
"""


def unet_batches(rng: np.random.Generator) -> list[tuple[np.ndarray, ...]]:
    return [(rng.standard_normal((3, 1, 8, 8)), rng.random(3) * 100, rng.standard_normal((3, 1, 8, 8)))
            for _ in range(6)]  # fmt: skip


def resnet_batches(rng: np.random.Generator) -> list[tuple[np.ndarray, ...]]:
    return [(rng.standard_normal((4, 3, 8, 8)), rng.integers(0, 5, 4)) for _ in range(6)]


def lstm_batches(rng: np.random.Generator) -> list[tuple[np.ndarray, ...]]:
    return [(rng.integers(0, 7, (3, 5)), rng.integers(0, 7, (3, 5))) for _ in range(6)]


def state(net: Any) -> dict[str, np.ndarray]:
    """Copies of its state_dict's values, as arrays."""
    return {k: np.array(v.numpy() if isinstance(v, torch.Tensor) else v) for k, v in net.state_dict().items()}


def run(source: str, library: str, batches: list[tuple[np.ndarray, ...]], weights: Any = None) -> dict[str, Any]:
    """The program's names after one backward pass and a short training, in float64; with these weights, if given."""
    make = tinygen.tensor if library == "tinygen" else torch.tensor
    names: dict[str, Any] = dict(IMPORTS[library], numbers=make(np.arange(4.0)))
    names.setdefault("rng", {"rng": np.random.default_rng(0)})
    exec(source, names)
    net = names["net"].double() if library == "torch" else names["net"].to(np.float64)
    if weights is not None:
        net.load_state_dict(weights)
    names["batches"] = [tuple(map(make, batch)) for batch in batches]
    names["start"] = state(net)
    names["loss_of"](*names["batches"][0]).backward()
    names["gradients"] = {name: np.array(p.grad.numpy()) for name, p in net.named_parameters()}
    exec(TRAIN, names)
    return names


@pytest.mark.parametrize(
    ("source", "batches"), [(UNET, unet_batches), (RESNET, resnet_batches), (LSTM, lstm_batches)],
    ids=["U-Net with attention", "residual network", "LSTM"],
)  # fmt: skip
def test_a_program_for_pytorch_runs_on_tinygen_and_computes_the_same(source, batches):
    torch.manual_seed(0)
    data = batches(np.random.default_rng(0))
    theirs = run(source, "torch", data)
    # Batch norm's buffers moved in the backward pass; each program moves its own from the same start.
    ours = run(source, "tinygen", data, theirs["start"])
    assert ours["gradients"].keys() == theirs["gradients"].keys()
    for name, g in theirs["gradients"].items():
        np.testing.assert_allclose(ours["gradients"][name], g, 1e-9, 1e-9 * max(1, abs(g).max()), err_msg=name)
    np.testing.assert_allclose(ours["losses"], theirs["losses"], 1e-9)
    assert abs(theirs["losses"][-1] - theirs["losses"][0]) > 1e-3
    trained = state(ours["net"])
    for name, value in state(theirs["net"]).items():
        np.testing.assert_allclose(trained[name], value, 1e-6, 1e-8, err_msg=name)
