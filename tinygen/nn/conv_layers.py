"""Layers that go over images and lines: convolutions, pooling, borders, sizes. Names and state dicts are PyTorch's.

What draws initial values takes the `rng`, as in layers.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygen._tensor import Tensor
from tinygen.geometry import Geometry, pair
from tinygen.nn import functional as F
from tinygen.nn.layers import _Function, _weights
from tinygen.nn.module import Module


class _Conv(Module):
    """Convolutions. Weights are (out, in / groups, *kernel), transposed ones (in, out / groups, *kernel)."""

    axes = 2  # of the kernel

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, bias: bool, rng: np.random.Generator,
        transposed: bool = False, padding_mode: str = "zeros", **settings: Any,
    ) -> None:  # fmt: skip
        name, groups = type(self).__name__, settings.get("groups", 1)
        if padding_mode not in ("zeros", "reflect", "replicate", "circular"):
            modes = "'zeros', 'reflect', 'replicate' or 'circular'"
            raise ValueError(f"{name}: padding_mode must be {modes}, got {padding_mode!r}")
        if not isinstance(groups, int) or groups < 1 or in_channels % groups or out_channels % groups:
            both = f"the {in_channels} input and {out_channels} output channels"
            raise ValueError(f"{name}: groups must divide {both}, got {groups}")
        self.in_channels, self.out_channels, self.padding_mode = in_channels, out_channels, padding_mode
        self.kernel_size = pair(f"{name}: kernel_size", kernel_size, 1)[: self.axes]
        self.settings = settings  # the other arguments of the function
        channels = (in_channels, out_channels // groups) if transposed else (out_channels, in_channels // groups)
        self.weight, self.bias = _weights((*channels, *self.kernel_size), out_channels if bias else None, rng)

    def _bordered(self, input: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """The input and the settings for it, whose padding is part of the input unless it is zeros."""
        if self.padding_mode == "zeros":
            return input, self.settings
        padding, widths = self.settings["padding"], []
        if padding == "same":
            dilation = pair("dilation", self.settings["dilation"], 1)
            spans = [d * (k - 1) for d, k in zip(dilation, self.kernel_size, strict=False)]
            widths = [(span // 2, span - span // 2) for span in spans]
        elif padding != "valid":
            widths = [(p, p) for p in pair(f"{type(self).__name__}: padding", padding, 0)[: self.axes]]
        flat = [width for both in widths[::-1] for width in both]
        return F.pad(input, flat, self.padding_mode), self.settings | {"padding": 0}

    def extra_repr(self) -> str:
        shown = {name: value for name, value in self.settings.items() if (name, value) != ("groups", 1)}
        settings = "".join(f", {name}={value!r}" for name, value in shown.items())
        settings += "" if self.padding_mode == "zeros" else f", padding_mode={self.padding_mode!r}"
        bias = "" if self.bias is not None else ", bias=False"
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}{settings}{bias}"


class Conv2d(_Conv):
    """Convolution: (N, in_channels, H, W) -> (N, out_channels, OH, OW). See `functional.conv2d`.

    padding_mode: "zeros", or what stands around the image instead: "reflect", "replicate" or "circular".
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros", *,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        super().__init__(in_channels, out_channels, kernel_size, bias, rng, padding_mode=padding_mode, **settings)

    def forward(self, input: Tensor) -> Tensor:
        input, settings = self._bordered(input)
        return F.conv2d(input, self.weight, self.bias, **settings)


class Conv1d(Conv2d):
    """Convolution of lines: (N, in_channels, L) -> (N, out_channels, OL). See `functional.conv1d` and `Conv2d`."""

    axes = 1

    def forward(self, input: Tensor) -> Tensor:
        input, settings = self._bordered(input)
        return F.conv1d(input, self.weight, self.bias, **settings)


class MaskedConv2d(_Conv):
    """PixelCNN's convolution with mask "A" or "B": (N, in_channels, H, W) -> (N, out_channels, H, W).

    channels: the color groups that the mask orders. relu: of relu(input). See `functional.masked_conv2d`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, mask: str, channels: int = 1,
        bias: bool = True, relu: bool = False, *, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        settings: dict[str, Any] = {"mask": mask, "channels": channels, "relu": relu}
        super().__init__(in_channels, out_channels, kernel_size, bias, rng, **settings)
        Geometry.masked("MaskedConv2d", self.weight.shape, mask, channels)  # raises early

    def forward(self, input: Tensor, add: Tensor | None = None) -> Tensor:
        """add: what is added to the result, of its shape."""
        return F.masked_conv2d(input, self.weight, self.bias, **self.settings, add=add)


class ConvTranspose2d(_Conv):
    """Transposed convolution: (N, in_channels, H, W) -> (N, out_channels, OH, OW).

    See `functional.conv_transpose2d`. Its weight is (in_channels, out_channels / groups, KH, KW).
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
        output_padding: Any = 0, groups: int = 1, bias: bool = True, dilation: Any = 1,
        *, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        settings = {
            "stride": stride,
            "padding": padding,
            "output_padding": output_padding,
            "groups": groups,
            "dilation": dilation,
        }
        super().__init__(in_channels, out_channels, kernel_size, bias, rng, True, **settings)

    def forward(self, input: Tensor) -> Tensor:
        return F.conv_transpose2d(input, self.weight, self.bias, **self.settings)


class ConvTranspose1d(ConvTranspose2d):
    """Transposed convolution of lines: (N, in_channels, L) -> (N, out_channels, OL). See `ConvTranspose2d`."""

    axes = 1

    def forward(self, input: Tensor) -> Tensor:
        return F.conv_transpose1d(input, self.weight, self.bias, **self.settings)


# ----------------------------------------------------------------------------------------- layers without parameters


class MaxPool2d(_Function):
    """The largest pixel of each window; with return_indices also where it stood. See `functional.max_pool2d`."""

    function = F.max_pool2d

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
        return_indices: bool = False, ceil_mode: bool = False,
    ) -> None:  # fmt: skip
        options = {"dilation": dilation, "return_indices": return_indices, "ceil_mode": ceil_mode}
        super().__init__(kernel_size=kernel_size, stride=stride, padding=padding, **options)


class AvgPool2d(_Function):
    """The mean of each window. See `functional.avg_pool2d`."""

    function = F.avg_pool2d

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> None:  # fmt: skip
        options: dict[str, Any] = {"ceil_mode": ceil_mode, "count_include_pad": count_include_pad}
        options["divisor_override"] = divisor_override
        super().__init__(kernel_size=kernel_size, stride=stride, padding=padding, **options)


class Unfold(_Function):
    """The pixels of each window as a column. See `functional.unfold`."""

    function = F.unfold

    def __init__(self, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> None:
        super().__init__(kernel_size=kernel_size, dilation=dilation, padding=padding, stride=stride)


class Upsample(_Function):
    """Images or lines of another size. See `functional.interpolate`."""

    function = F.interpolate

    def __init__(
        self, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None
    ) -> None:
        align = {} if align_corners is None else {"align_corners": align_corners}
        super().__init__(size=size, scale_factor=scale_factor, mode=mode, **align)


class PixelShuffle(_Function):
    """Channels become pixels. See `functional.pixel_shuffle`."""

    function = F.pixel_shuffle

    def __init__(self, upscale_factor: int) -> None:
        super().__init__(upscale_factor=upscale_factor)


class PixelUnshuffle(_Function):
    """Pixels become channels. See `functional.pixel_unshuffle`."""

    function = F.pixel_unshuffle

    def __init__(self, downscale_factor: int) -> None:
        super().__init__(downscale_factor=downscale_factor)


class _Border(_Function):
    """A border around images (N, C, H, W) or (C, H, W). padding: its width, or (left, right, top, bottom)."""

    function = F.pad
    mode = "constant"

    def __init__(self, padding: Any) -> None:
        super().__init__(pad=(padding,) * 4 if isinstance(padding, int) else tuple(padding), mode=self.mode)


class ZeroPad2d(_Border):
    """A border of zeros. padding: its width, or (left, right, top, bottom)."""


class ConstantPad2d(_Border):
    """A border of one value. padding: its width, or (left, right, top, bottom)."""

    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(padding)
        self.settings["value"] = value


class ReflectionPad2d(_Border):
    """A border mirrored at the outermost pixel. padding: its width, or (left, right, top, bottom)."""

    mode = "reflect"


class ReplicationPad2d(_Border):
    """A border of copies of the outermost pixel. padding: its width, or (left, right, top, bottom)."""

    mode = "replicate"


class CircularPad2d(_Border):
    """A border from the other end. padding: its width, or (left, right, top, bottom)."""

    mode = "circular"
