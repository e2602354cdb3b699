"""pix2pix and CycleGAN in PyTorch, with tinygen's weights: what their training steps are measured against."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.kernels.torch_diffusion import UNet
from benchmarks.kernels.torch_versions import _STEPS, Runs


class Dropped(nn.Module):
    """x times what is set: 0 or 1 / (1 - p) of each value."""

    kept: Any = None

    def forward(self, x: Any) -> Any:
        return x if self.kept is None else x * self.kept


class Generator(nn.Module):
    """The U-Net on patches of the image."""

    def __init__(self, generator: Any) -> None:
        super().__init__()
        net, self.patch = generator.unet, generator.patch
        self.unet = UNet(net.input.in_channels, net.output.out_channels, net.input.out_channels)
        self.unet.attention = Dropped()
        load(self.unet, net)

    def forward(self, x: Any) -> Any:
        return F.pixel_shuffle(self.unet(F.pixel_unshuffle(x, self.patch)), self.patch).tanh()


class Discriminator(nn.Module):
    """Three convolutions, the values of patches."""

    def __init__(self, discriminator: Any) -> None:
        super().__init__()
        one, other, last = (conv.in_channels for conv in discriminator.layers)
        self.layers = nn.ModuleList([nn.Conv2d(one, other, 4, 2, 1), nn.Conv2d(other, last, 4, 2, 1),
                                     nn.Conv2d(last, 1, 3, 1, 1)])  # fmt: skip
        load(self, discriminator)

    def forward(self, x: Any) -> Any:
        *hidden, last = self.layers
        for layer in hidden:
            x = F.leaky_relu(layer(x), 0.2)
        return last(x)


def load(net: nn.Module, own: Any) -> None:
    """Take over the weights of tinygen's net, and their dtype."""
    weights = {k: torch.tensor(np.array(v)) for k, v in own.state_dict().items()}
    net.to(next(iter(weights.values())).dtype).load_state_dict(weights)


class Pool:
    """The last 50 images or older ones, as `ImagePool` draws them."""

    def __init__(self) -> None:
        self.images: list[Any] = []

    def exchange(self, fresh: Any, rng: np.random.Generator) -> Any:
        older, places = rng.random(len(fresh)) < 0.5, rng.integers(0, 50, len(fresh))
        given = []
        for image, old, place in zip(fresh, older, places, strict=True):
            if len(self.images) < 50:
                self.images.append(image)
            elif old:
                image, self.images[place] = self.images[place], image
            given.append(image)
        return torch.stack(given)


class Steps:
    """D's step and then G's, with Adam: of pix2pix, or of CycleGAN where the model has two ways."""

    def __init__(
        self, model: Any, lr: float, settings: dict[str, Any], channels_last: bool = False, compiled: bool = False
    ) -> None:
        ways = model.directions()
        self.generators = [Generator(way.generator) for way in ways]
        self.discriminators = [Discriminator(way.discriminator) for way in ways]
        nets = [*self.generators, *self.discriminators]
        if channels_last:
            nets = [net.to(memory_format=torch.channels_last) for net in nets]
        players = self.generators, self.discriminators
        parameters = ([p for net in player for p in net.parameters()] for player in players)
        self.on_g, self.on_d = (torch.optim.Adam(own, lr, (0.5, 0.999), **settings) for own in parameters)
        self.g, self.d = ([torch.compile(net) if compiled else net for net in player] for player in players)
        self.weights, self.p = model.weights, getattr(ways[0].generator.dropout, "p", 0.0)
        self.pools = [Pool() for _ in ways]

    def step(self, x: Any, y: Any, rng: np.random.Generator) -> dict[str, float]:
        return (self.cyclegan if len(self.g) == 2 else self.pix2pix)(x, y, rng)

    def pix2pix(self, x: Any, y: Any, rng: np.random.Generator) -> dict[str, float]:
        if self.p:
            side, channels = 2 * self.generators[0].patch, self.generators[0].unet.norm.num_channels * 2
            shape = len(x), channels, x.shape[2] // side, x.shape[3] // side
            kept = (rng.random(shape, np.float32) >= self.p) / (1 - self.p)
            self.generators[0].unet.attention.kept = torch.tensor(kept, dtype=x.dtype)
        made = self.g[0](x)
        real, fake = self.d[0](torch.cat([x, y], 1)), self.d[0](torch.cat([x, made.detach()], 1))
        d_loss = self.descend(self.on_d, F.softplus(-real).mean() + F.softplus(fake).mean())
        self.frozen(True)
        adversarial = self.weights["adversarial"] * F.softplus(-self.d[0](torch.cat([x, made], 1))).mean()
        l1 = self.weights["l1"] * F.l1_loss(made, y)
        self.descend(self.on_g, adversarial + l1)
        self.frozen(False)
        return {"d_loss": d_loss, "adversarial": adversarial.item(), "l1": l1.item()}

    def cyclegan(self, x: Any, y: Any, rng: np.random.Generator) -> dict[str, float]:
        there, back = self.g
        sides = [(there, back, x, y, there(x)), (back, there, y, x, back(y))]
        shown = [pool.exchange(made.detach(), rng) for pool, (*_, made) in zip(self.pools, sides, strict=True)]
        d_loss = 0.0
        for d, (*_, y_, _), fake in zip(self.d, sides, shown, strict=True):
            d_loss = d_loss + (((d(y_) - 1) ** 2).mean() + (d(fake) ** 2).mean()) / 4
        d_loss = self.descend(self.on_d, d_loss)
        self.frozen(True)
        parts: dict[str, Any] = dict.fromkeys(("adversarial", "cycle", "identity"), 0.0)
        for d, (g, f, x_, y_, made) in zip(self.d, sides, strict=True):
            parts["adversarial"] = parts["adversarial"] + ((d(made) - 1) ** 2).mean() / 2
            parts["cycle"] = parts["cycle"] + F.l1_loss(f(made), x_)
            parts["identity"] = parts["identity"] + F.l1_loss(g(y_), y_)
        parts = {name: self.weights[name] * part for name, part in parts.items()}
        self.descend(self.on_g, sum(parts.values()))
        self.frozen(False)
        return {"d_loss": d_loss} | {name: part.item() for name, part in parts.items()}

    def descend(self, optimizer: Any, loss: Any) -> float:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    def frozen(self, yes: bool) -> None:
        """Whether D's weights get no gradients, as in G's step."""
        for d in self.discriminators:
            d.requires_grad_(not yes)


def translation_steps(make: Callable[[], Any], x: np.ndarray, y: np.ndarray) -> dict[str, Callable[[], Runs]]:
    """Training steps of the model `make()` on images x and y, (N, C, H, W) from -1 to 1, with each setting."""

    def build(channels_last: bool, compiled: bool, settings: dict[str, Any]) -> Runs:
        steps = Steps(make(), 1e-3, settings, channels_last, compiled)
        a, b = (torch.tensor(images, dtype=torch.float32) for images in (x, y))
        if channels_last:
            a, b = (images.to(memory_format=torch.channels_last) for images in (a, b))
        rng = np.random.default_rng(0)
        return {"training step": lambda: np.array([*steps.step(a, b, rng).values()])}

    return {name: functools.partial(build, *arguments) for name, arguments in _STEPS.items()}
