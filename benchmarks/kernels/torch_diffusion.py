"""Diffusion in PyTorch, layer by layer, with tinygen's weights: its training step, and its sampler."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.kernels.torch_versions import _STEPS, Runs, _steps


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(8, max(channels // 4, 1), channels), channels)


class Block(nn.Module):
    """size: of the vector that it is told; 0: none."""

    def __init__(self, inputs: int, outputs: int, size: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.told, self.norm2 = nn.Linear(size, outputs) if size else None, norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Any, vector: Any = None) -> Any:
        h = self.conv1(F.silu(self.norm1(x)))
        if self.told is not None:
            h = h + self.told(vector)[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


class Attention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.output = norm(channels), nn.Linear(channels, channels)
        self.query, self.value = (nn.Linear(channels, channels) for _ in range(2))
        self.key = nn.Linear(channels, channels, bias=False)

    def forward(self, x: Any) -> Any:
        n, c, h, w = x.shape
        rows = self.norm(x).permute(0, 2, 3, 1).reshape(n, h * w, c)
        out = self.output(F.scaled_dot_product_attention(self.query(rows), self.key(rows), self.value(rows)))
        return x + out.view(n, h, w, c).permute(0, 3, 1, 2)


class UNet(nn.Module):
    """Of two scales, with attention if it is told a vector."""

    def __init__(self, inputs: int, outputs: int, width: int, size: int = 0) -> None:
        super().__init__()
        wide = 2 * width
        self.input, self.output = nn.Conv2d(inputs, width, 3, padding=1), nn.Conv2d(width, outputs, 3, padding=1)
        self.down = nn.ModuleList([Block(width, width, size), Block(wide, wide, size)])
        self.downsample = nn.ModuleList([nn.Conv2d(width, wide, 4, 2, 1)])
        self.upsample = nn.ModuleList([nn.ConvTranspose2d(wide, width, 4, 2, 1)])
        self.attention, self.norm = Attention(wide) if size else nn.Identity(), norm(width)
        self.up = nn.ModuleList([Block(wide, width, size), Block(wide, wide, size)])

    def forward(self, x: Any, vector: Any = None) -> Any:
        across = self.down[0](self.input(x), vector)
        x = self.up[1](self.attention(self.down[1](self.downsample[0](across), vector)), vector)
        x = self.up[0](torch.cat([self.upsample[0](x), across], 1), vector)
        return self.output(F.silu(self.norm(x)))


class Time(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(size, size), nn.Linear(size, size)
        frequencies = 1000 * torch.exp(-math.log(10_000) * torch.arange(size // 2) / (size // 2))
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, times: Any) -> Any:
        angles = times[:, None] * self.frequencies
        return self.second(F.silu(self.first(torch.cat([angles.cos(), angles.sin()], 1))))


class Network(nn.Module):
    """tinygen.models.diffusion.network.Network without classes, with its weights."""

    def __init__(self, network: Any, channels_last: bool) -> None:
        super().__init__()
        size = len(network.time.second.bias)
        self.patch, self.channels_last = network.patch, channels_last
        self.time, self.unet = Time(size), UNet(network.patch**2, network.patch**2, size // 4, size)
        self.load_state_dict({k: torch.tensor(np.array(v)) for k, v in network.state_dict().items()})
        if channels_last:
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Any, times: Any) -> Any:
        x = F.pixel_unshuffle(x, self.patch)
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        return F.pixel_shuffle(self.unet(x, F.silu(self.time(times))), self.patch)

    def nats(self, x: Any, times: Any, target: Any) -> Any:
        """The mean squared error, which stands where other models have nats."""
        return F.mse_loss(self(x, times), target)


def steps(make: Callable[[], Any], lesson: Any) -> dict[str, Callable[[], Runs]]:
    """Training steps of the network of model `make()` on one lesson: forward, loss, backward, Adam."""

    def build(channels_last: bool, compiled: bool, settings: dict[str, Any]) -> Runs:
        batch = [torch.tensor(np.ascontiguousarray(a), dtype=torch.float32) for a in lesson]
        return _steps(Network(make().network.network, channels_last), batch, compiled, settings)

    return {name: functools.partial(build, *arguments) for name, arguments in _STEPS.items()}


def samples(make: Callable[[], Any], n: int) -> dict[str, Callable[[], Runs]]:
    """DDIM's steps without noise, in inference mode."""

    def build(channels_last: bool, compiled: bool) -> Runs:
        model = make().eval()
        net: Any = Network(model.network.average, channels_last)
        schedule = model.noising.subsequence(model.steps)
        a, s = schedule.signal.tolist(), schedule.noise.tolist()
        noise = torch.tensor(np.ascontiguousarray(model.noise(n, np.random.default_rng(0))))
        net = torch.compile(net) if compiled else net

        @torch.inference_mode()
        def sample() -> Any:
            x = noise
            for t in range(len(schedule), 0, -1):
                said = net(x, torch.full((n,), schedule.times[t], dtype=torch.float32))
                image = (a[t] * x - s[t] * said).clamp_(-1, 1)  # from the velocity
                x = a[t - 1] * image + s[t - 1] * (x - a[t] * image) / s[t]
            return ((x + 1) / 2 * (int(model.levels) - 1)).round_().to(torch.uint8)

        sample()  # compiles, if it does
        return {"sampling": sample}

    return {
        "usual": lambda: build(False, False),
        "channels_last": lambda: build(True, False),
        "torch.compile, channels_last": lambda: build(True, True),
    }
