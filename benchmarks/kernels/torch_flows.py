"""The flows in PyTorch, layer by layer, with tinygen's weights: what their training steps are measured against."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.kernels.torch_versions import _STEPS, Runs, _converted, _steps


class ActNorm(nn.Module):
    """y = s x + b of each channel."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.log_s, self.b = (nn.Parameter(torch.tensor(p.numpy().copy())) for p in (layer.log_s, layer.b))

    def forward(self, x: Any) -> Any:
        y = x * self.log_s.exp().view(1, -1, 1, 1) + self.b.view(1, -1, 1, 1)
        return y, self.log_s.sum() * (x.shape[2] * x.shape[3])


class Mix(nn.Module):
    """An invertible 1x1 convolution, by its triangular factors."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        for name in ("p", "sign_s"):
            self.register_buffer(name, torch.tensor(getattr(layer, name).numpy().copy()))
        for name in ("log_s", "lower", "upper"):
            setattr(self, name, nn.Parameter(torch.tensor(getattr(layer, name).numpy().copy())))

    def forward(self, x: Any) -> Any:
        one = torch.eye(x.shape[1])
        weight = self.p @ ((self.lower.tril(-1) + one) @ (self.upper.triu(1) + one * (self.sign_s * self.log_s.exp())))
        return F.conv2d(x, weight[:, :, None, None]), self.log_s.sum() * (x.shape[2] * x.shape[3])


class Coupling(nn.Module):
    """An affine coupling, by halves of the channels or by a checkerboard."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.network = _converted(layer.network)
        weights = {k: torch.tensor(np.array(v)) for k, v in layer.network.state_dict().items()}
        self.network.load_state_dict(weights)
        mask = getattr(layer.partition, "b", None)
        self.mask = None if mask is None else torch.tensor(mask.astype(np.float32))
        self.exchanged = getattr(layer.partition, "exchanged", False)

    def forward(self, x: Any) -> Any:
        if self.mask is not None:
            s, t = self.network(self.mask * x).chunk(2, 1)
            s, free = 2 * torch.tanh(s / 2), 1 - self.mask
            return self.mask * x + free * (x * s.exp() + t), (free * s).sum((1, 2, 3))
        x1, x2 = x.chunk(2, 1)
        if self.exchanged:
            x1, x2 = x2, x1
        s, t = self.network(x1).chunk(2, 1)
        s = 2 * torch.tanh(s / 2)
        y2 = x2 * s.exp() + t
        return torch.cat([y2, x1] if self.exchanged else [x1, y2], 1), s.sum((1, 2, 3))


class Order(nn.Module):
    """The channels in another order."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.register_buffer("order", torch.tensor(layer.order))

    def forward(self, x: Any) -> Any:
        return x[:, self.order], 0.0


class Chain(nn.Module):
    """Layers one after the other; what is done leaves on the way, as the order of z doesn't matter to its density."""

    def __init__(self, layers: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for layer in layers:
            name = type(layer).__name__
            if name == "Split":
                self.layers.append(Chain(layer.rest))
            elif name == "Squeeze":
                self.layers.append(nn.PixelUnshuffle(2))
            elif name == "Permute":
                self.layers.append(Order(layer))
            elif name != "Flatten":
                self.layers.append({"ActNorm": ActNorm, "Invertible1x1": Mix, "AffineCoupling": Coupling}[name](layer))

    def forward(self, x: Any) -> Any:
        """log p of each row, but for constants."""
        total = 0
        for layer in self.layers:
            if isinstance(layer, nn.PixelUnshuffle):
                n, c, h, w = x.shape
                x = layer(x).view(n, c, 4, h // 2, w // 2).transpose(1, 2).reshape(n, 4 * c, h // 2, w // 2)
            elif isinstance(layer, Chain):
                done, x = x.chunk(2, 1)
                return total - 0.5 * (done * done).sum((1, 2, 3)) + layer(x)
            else:
                x, log_det = layer(x)
                total = total + log_det
        return total - 0.5 * (x * x).sum((1, 2, 3))


class Flow(nn.Module):
    """tinygen's RealNVP or Glow."""

    def __init__(self, model: Any, channels_last: bool) -> None:
        super().__init__()
        self.layers, self.model, self.channels_last = Chain(model.density.layers), [model], channels_last
        if channels_last:
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def nats(self, x: Any) -> Any:
        """-log p of dequantized images, float64, the mean over images."""
        levels = int(self.model[0].levels)
        p = 0.05 + 0.9 / levels * x
        y, width = (p.log() - (-p).log1p()).float(), math.log(0.9 / levels)
        log_scale = (width - p.log() - (-p).log1p()).sum((1, 2, 3)).float()
        if self.channels_last:
            y = y.to(memory_format=torch.channels_last)
        constant = 0.5 * math.log(2 * math.pi) * y[0].numel()
        return (constant - self.layers(y) - log_scale).mean()


def flow_steps(make: Callable[[], Any], x: np.ndarray) -> dict[str, Callable[[], Runs]]:
    """Training steps of the flow `make()` on dequantized images: forward, -log p, backward, Adam."""

    def build(channels_last: bool, compiled: bool, settings: dict[str, Any]) -> Runs:
        return _steps(Flow(make(), channels_last), (torch.tensor(x),), compiled, settings)

    return {name: functools.partial(build, *arguments) for name, arguments in _STEPS.items()}
