"""A user's own model: type checkers accept it, and find what is wrong in the lines that say so. See test_types.py."""

import numpy as np

import tinygen
from tinygen import Tensor, nn, optim, tensor
from tinygen.nn import functional as F


class Classifier(nn.Module):
    def __init__(self, inputs: int, classes: int, rng: np.random.Generator) -> None:
        self.hidden = nn.Linear(inputs, 32, rng=rng)
        self.out = nn.Linear(32, classes, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.hidden(x)))


def train(steps: int) -> float:
    rng = np.random.default_rng(0)
    x, label = tensor(rng.random((8, 64)), dtype=np.float32), np.arange(8)
    model = nn.Sequential(Classifier(64, 10, rng), nn.ReLU())
    optimizer = optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        loss = F.cross_entropy(model(x), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss)


def formulas(x: Tensor) -> Tensor:
    z = (1 - x) * 2.0 + x**2 / np.float32(3) - (-x).exp().log1p()
    with tinygen.no_grad():
        z = tinygen.cat([z, z[:, 1:].tanh()], dim=1) @ x.reshape(-1, 1).expand(2, 3).transpose(0, 1)
    return tinygen.where(z > 0, z.sum(dim=(0, 1), keepdim=True), tinygen.exp(z)).mean()


def mistakes(model: Classifier, loss: Tensor, rng: np.random.Generator) -> None:
    nn.Linear("64", 10, rng=rng)  # error: arg-type
    nn.Linear(64, 10)  # error: call-arg
    model("x")  # error: arg-type
    model(loss, loss)  # error: call-arg
    model.hidden(loss, scale=2)  # error: call-arg
    optim.Adam(model.parameters(), lr="0.1")  # error: arg-type
    F.cross_entropy(loss, [1], reduction=1)  # error: arg-type
    F.relu(loss, loss)  # error: call-arg
    tinygen.sum(loss, dim="rows")  # error: arg-type
    loss.sum(dim="rows")  # error: arg-type
    loss.bakward()  # error: attr-defined
    loss.backward(retain=True)  # error: call-arg
    length: int = loss * 2  # error: assignment
    tinygen.nothing(length)  # error: attr-defined
