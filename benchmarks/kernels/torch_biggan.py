"""BigGAN in PyTorch, with tinygen's names and weights: what its training step is measured against, and held to."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from benchmarks.kernels.torch_versions import _STEPS, Runs

BETA = 1e-4


class Modulated(nn.Module):
    """Batch norm whose scale and shift are linear in a vector."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.affine = nn.Linear(size, 2 * channels)

    def forward(self, x: Any, vector: Any) -> Any:
        scale, shift = self.affine(vector)[:, :, None, None].chunk(2, 1)
        return self.norm(x) * (1 + scale) + shift


class Block(nn.Module):
    """The convolutions of a residual block."""

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.conv1 = spectral_norm(nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias))
        self.conv2 = spectral_norm(nn.Conv2d(outputs, outputs, 3, padding=1, bias=bias))
        self.shortcut = spectral_norm(nn.Conv2d(inputs, outputs, 1, bias=bias))


class UpBlock(Block):
    """G's: twice the sides."""

    def __init__(self, inputs: int, outputs: int, size: int) -> None:
        super().__init__(inputs, outputs, False)
        self.norm1, self.norm2 = Modulated(inputs, size), Modulated(outputs, size)

    def forward(self, x: Any, v: Any) -> Any:
        h = self.conv1(F.interpolate(torch.relu(self.norm1(x, v)), scale_factor=2))
        h = self.conv2(torch.relu(self.norm2(h, v)))
        return h + F.interpolate(self.shortcut(x), scale_factor=2)


class DownBlock(Block):
    """D's: half the sides, but for the last one."""

    def __init__(self, inputs: int, outputs: int, first: bool, last: bool) -> None:
        super().__init__(inputs, outputs, True)
        self.first, self.last = first, last

    def forward(self, x: Any) -> Any:
        h = self.conv2(torch.relu(self.conv1(x if self.first else torch.relu(x))))
        return h + self.shortcut(x) if self.last else F.avg_pool2d(h, 2) + self.shortcut(F.avg_pool2d(x, 2))


class Generator(nn.Module):
    """G of tinygen's network `own`."""

    def __init__(self, own: Any) -> None:
        super().__init__()
        channels = [block.norm1.channels for block in own.blocks] + [own.norm.num_features]
        (embedding, classes), (units, latent) = own.embedding.weight.shape, own.start.weight.shape
        self.map = channels[0], *own.map.size[:2]
        self.embedding = nn.Linear(classes, embedding, bias=False)
        self.start = spectral_norm(nn.Linear(latent, units))
        self.blocks = nn.ModuleList(UpBlock(i, o, embedding + latent) for i, o in itertools.pairwise(channels))
        self.norm = nn.BatchNorm2d(channels[-1])
        self.image = spectral_norm(nn.Conv2d(channels[-1], own.image.out_channels, 3, padding=1))
        self.load_state_dict({k: torch.tensor(np.array(v)) for k, v in own.state_dict().items()})

    def forward(self, z: Any, y: Any) -> Any:
        v, (c, h, w) = torch.cat([self.embedding(y), z], 1), self.map
        x = self.start(z).reshape(len(z), h, w, c).permute(0, 3, 1, 2)
        for block in self.blocks:
            x = block(x, v)
        return torch.tanh(self.image(torch.relu(self.norm(x))))


class Discriminator(nn.Module):
    """D of tinygen's network `own`."""

    def __init__(self, own: Any) -> None:
        super().__init__()
        sizes = [(block.conv1.in_channels, block.conv1.out_channels) for block in own.blocks]
        last = len(sizes) - 1
        self.blocks = nn.ModuleList(DownBlock(i, o, k == 0, k == last) for k, (i, o) in enumerate(sizes))
        features, classes = own.v.weight.shape
        self.psi = spectral_norm(nn.Linear(features, 1))
        self.v = spectral_norm(nn.Linear(classes, features, bias=False))
        self.load_state_dict({k: torch.tensor(np.array(v)) for k, v in own.state_dict().items()})

    def forward(self, x: Any, y: Any) -> Any:
        for block in self.blocks:
            x = block(x)
        phi = torch.relu(x).sum((2, 3))
        return self.psi(phi)[:, 0] + (self.v(y) * phi).sum(1)


def orthogonality(generator: Any) -> Any:
    """Of G's weights, as tinygen has it."""
    total = 0.0
    for name, p in generator.named_parameters():
        if name.endswith("weight.original"):
            w = p.flatten(1)
            w = w if w.shape[0] <= w.shape[1] else w.T
            total = total + ((w @ w.T) ** 2 * (1 - torch.eye(len(w), dtype=w.dtype))).sum()
    return BETA * total


def game(g: Any, d: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """What both minimize: D's loss of (x, fake, y); G's of (fake, y)."""

    def d_loss(x: Any, fake: Any, y: Any) -> Any:
        return torch.relu(1 - d(x, y)).mean() + torch.relu(1 + d(fake, y)).mean()

    def g_loss(fake: Any, y: Any) -> Any:
        return -d(fake, y).mean() + orthogonality(g)

    return d_loss, g_loss


def biggan_steps(
    make: Callable[[], Any], images: np.ndarray, labels: np.ndarray, noise: np.ndarray
) -> dict[str, Callable[[], Runs]]:
    """Training steps of the BigGAN `make()`: two of D, one of G, with Adam. noise: (N, latent)."""

    def build(channels_last: bool, compiled: bool, settings: dict[str, Any]) -> Runs:
        pair = make().pair
        g, d = Generator(pair.generator.network), Discriminator(pair.discriminator)
        if channels_last:
            g, d = (net.to(memory_format=torch.channels_last) for net in (g, d))  # type: ignore[call-overload]
        on_g, on_d = (torch.optim.Adam(net.parameters(), 1e-3, pair.objective.betas, **settings) for net in (g, d))
        z, x = torch.tensor(noise), torch.tensor(images).float() * (2 / 255) - 1
        y = torch.tensor(pair.condition.one_hot(labels)).float()
        made, (of_d, of_g) = g, game(g, d)
        if compiled:
            made, of_d, of_g = (torch.compile(f) for f in (made, of_d, of_g))
            (of_d(x, made(z, y).detach(), y) + of_g(made(z, y), y)).backward()  # what doesn't work here fails here

        def step() -> Any:
            for i in range(pair.steps):
                with torch.set_grad_enabled(i == pair.steps - 1):
                    fake = made(z, y)
                on_d.zero_grad()
                lost = of_d(x, fake.detach(), y)
                lost.backward()
                on_d.step()
            on_g.zero_grad()
            d.requires_grad_(False)
            deceived = of_g(fake, y)
            deceived.backward()
            on_g.step()
            d.requires_grad_(True)
            return torch.stack([lost.detach(), deceived.detach()])

        return {"training step": step}

    return {name: functools.partial(build, *arguments) for name, arguments in _STEPS.items()}
