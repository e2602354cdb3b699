"""Cached sampling: at each position only what is new is computed; the rest is remembered from the positions before.

A masked convolution needs its inputs at the pixels above and to the left, and has had them already. So a pixel takes
what one pixel costs, where a plain loop takes a pass of the whole network (lecture slide 33). The network is the
model's own, run on images of one pixel, with layers that keep what they are given in place of masked convolutions.

Source: Ramachandran et al., Fast Generation for Convolutional Autoregressive Models (2017).
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np

from tinygen import Tensor, nn
from tinygen.ops.conv import channel_mask
from tinygen.ops.recurrent import lstm

if TYPE_CHECKING:
    from tinygen.models.autoregressive import Autoregressive


class CachedConv2d(nn.Module):
    """A MaskedConv2d at one position: (N, I, 1, 1) -> (N, O, 1, 1), called at one position after the other."""

    def __init__(self, conv: nn.MaskedConv2d, sampler: Cached) -> None:
        n, _, height, width = sampler.x.shape
        outputs, inputs, *kernel = conv.weight.shape
        self.mask, channels = conv.settings["mask"], conv.settings["channels"]
        self.sampler, self.above, self.side = sampler, kernel[0] // 2, kernel[1] // 2
        seen = self.above * kernel[1] + self.side  # so many taps come before the centre's
        taps = conv.weight.numpy().transpose(2, 3, 1, 0).reshape(-1, inputs, outputs)[: seen + 1].copy()
        taps[seen][~channel_mask(outputs, inputs, self.mask, channels).T] = 0
        self.taps = taps.reshape(-1, outputs)
        self.shift = 0 if conv.bias is None else conv.bias.numpy()
        self.given = np.zeros((n, height + self.above, width + 2 * self.side, inputs), taps.dtype)  # with borders

    def keep(self, input: Tensor) -> None:
        """Remember the input at the sampler's position."""
        row, column = self.sampler.position
        self.given[:, row + self.above, column + self.side] = input.numpy()[:, :, 0, 0]

    def forward(self, input: Tensor) -> Tensor:
        self.keep(input)
        row, column = self.sampler.position
        n, inputs = input.shape[:2]
        rows, width = self.given[:, row : row + self.above + 1], 2 * self.side + 1
        above = rows[:, :-1, column : column + width].reshape(n, self.above * width * inputs)
        left = rows[:, -1, column : column + self.side + 1].reshape(n, (self.side + 1) * inputs)
        out = np.concatenate([above, left], axis=1) @ self.taps + self.shift
        return Tensor(out[:, :, None, None])


class CachedRowLSTM(nn.Module):
    """`nn.functional.row_lstm` at one position: (N, 4U, 1, 1) -> h (N, U, 1, 1)."""

    def __init__(self, weight: Tensor, sampler: Cached) -> None:
        n, _, height, width = sampler.x.shape
        self.sampler, self.side, units = sampler, weight.shape[3] // 2, weight.shape[1]
        taps = weight.numpy()[:, :, 0].transpose(2, 1, 0).copy()  # (K, U, 4U)
        self.centre = taps[self.side].T.copy()
        taps[self.side] = 0
        self.taps = taps.reshape(-1, 4 * units)
        self.h, self.c = np.zeros((2, n, height + 1, width + 2 * self.side, units), taps.dtype)  # with borders

    def forward(self, input: Tensor) -> Tensor:
        row, column = self.sampler.position
        here = column + self.side
        above = self.h[:, row, column : here + self.side + 1].reshape(len(self.h), len(self.taps))
        gates = input.numpy()[:, :, 0, 0] + above @ self.taps
        h, c, _ = lstm(gates, self.centre, self.h[:, row, here], self.c[:, row, here])
        self.h[:, row + 1, here], self.c[:, row + 1, here] = h, c
        return Tensor(h[:, :, None, None])


class Cached:
    """The logits of one value after the other of images x that are being drawn: a model's `conditional`.

    The model's layers must be masked convolutions, those with mask A on the image itself, functions of each pixel, and
    modules with a method `cached(sampler)` that gives their like for one position.
    """

    def __init__(self, model: Autoregressive, x: np.ndarray, known: int) -> None:
        self.model, self.x, self.position = model, x, (0, 0)
        self.network = self._cached(model)
        layers = [m for m in self.network.modules() if isinstance(m, CachedConv2d)]
        self.first = [layer for layer in layers if layer.mask == "A"]
        for position in np.ndindex(known, x.shape[3]):
            self(0, *position)

    def _cached(self, module: nn.Module) -> nn.Module:
        if isinstance(module, nn.MaskedConv2d):
            return CachedConv2d(module, self)
        if hasattr(module, "cached"):
            return module.cached(self)
        twin = copy.copy(module)
        vars(twin)["_roles"] = dict(module._roles)
        for name, child in module.named_children():
            setattr(twin, name, self._cached(child))
        return twin

    def _pixel(self) -> Tensor:
        row, column = self.position
        return self.model.scale(self.x[:, :, row : row + 1, column : column + 1])

    def __call__(self, channel: int, row: int, column: int) -> np.ndarray:
        """The logits (N, levels) of this value. All values before it have been drawn, and asked for in order."""
        if self.position != (row, column):
            for layer in self.first:
                layer.keep(self._pixel())  # by now the pixel's last colour is drawn too
            self.position = (row, column)
        return self.network(self._pixel()).numpy()[:, :, channel, 0, 0]
