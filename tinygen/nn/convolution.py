"""Convolutions of lines and images, transposed ones, PyTorch's ways to say their padding, and PixelCNN's masked one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tinygen import ops
from tinygen._tensor import Tensor
from tinygen.geometry import Geometry, pair
from tinygen.nn.windows import pad


def conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1, *, add: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Convolution. input: (N, I, H, W), weight: (O, I / groups, KH, KW), bias: (O,) -> (N, O, OH, OW).

    OH = (H + 2 padding - dilation (KH - 1) - 1) // stride + 1, and so OW. stride, padding and dilation are
    integers or pairs; padding may be "valid" (none) or "same" (the output is as big as the input; of an odd number of
    zeros the last is at the end). groups: into how many the channels of both sides fall, each seeing its own only.
    add: what is added to the result, of its shape, without a pass over memory of its own: PyTorch doesn't have it.
    An input (I, H, W) without a batch gives (O, OH, OW).
    """
    if len(input.shape) == 3 and len(weight.shape) == 4:
        rest = None if add is None else _batch(add)
        return conv2d(_batch(input), weight, bias, stride, padding, dilation, groups, add=rest)[0]
    named = isinstance(padding, str) and padding in ("same", "valid")
    geometry = Geometry.of("conv2d", stride, 0 if named else padding, dilation, groups)
    _check_conv("conv2d", input, weight)
    _check_channels("conv2d", input, weight, bias, groups)
    if padding == "same":
        input, geometry = _same(input, geometry, weight.shape[2:])
    return ops.conv2d(input, weight, bias, geometry, False, add)


def conv_transpose2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    """Transposed convolution, the adjoint of `conv2d`: (N, I, H, W) -> (N, O, OH, OW), or without a batch.

    weight: (I, O / groups, KH, KW), bias: (O,). OH = (H - 1) stride - 2 padding + dilation (KH - 1) + output_padding
    + 1, and so OW. Of several sizes that conv2d takes to the same one, output_padding (below the stride, or the
    dilation) picks one.
    """
    name = "conv_transpose2d"
    if len(input.shape) == 3 and len(weight.shape) == 4:
        return conv_transpose2d(_batch(input), weight, bias, stride, padding, output_padding, groups, dilation)[0]
    geometry = Geometry.of(name, stride, padding, dilation, groups)
    _check_conv(name, input, weight)
    _check_transposed(name, input, weight, bias, groups)
    extra = pair(f"{name}: output_padding", output_padding, 0)
    if any(e >= max(s, d) for e, s, d in zip(extra, geometry.stride, geometry.dilation, strict=True)):
        raise ValueError(f"{name}: output_padding {extra} must be smaller than stride {geometry.stride} or dilation")
    full = tuple(
        (n - 1) * s + d * (k - 1) + 1
        for n, s, d, k in zip(input.shape[2:], geometry.stride, geometry.dilation, weight.shape[2:], strict=True)
    )
    size = (full[0] - 2 * geometry.padding[0] + extra[0], full[1] - 2 * geometry.padding[1] + extra[1])
    if min(size) < 1:
        raise ValueError(f"{name}: {geometry} leaves an output of {size} from input {input.shape}")
    if extra[0] < geometry.stride[0] and extra[1] < geometry.stride[1]:
        return ops.conv_transpose2d(input, weight, bias, size, geometry)
    # Wider than any image that conv2d takes to the input: cut out of the whole.
    x = ops.conv_transpose2d(input, weight, None, full, replace(geometry, padding=(0, 0)))
    rest = [n - (f - p) for n, f, p in zip(size, full, geometry.padding, strict=True)]
    x = pad(x, (-geometry.padding[1], rest[1], -geometry.padding[0], rest[0]))
    return x if bias is None else x + ops.reshape(bias, (-1, 1, 1))


def conv1d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1, *, add: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Convolution of lines: (N, I, L) -> (N, O, OL), or without a batch. weight: (O, I / groups, K), bias: (O,).

    As `conv2d` of images one pixel high, also what is added.
    """
    if len(input.shape) not in (2, 3) or len(weight.shape) != 3:
        raise ValueError(f"conv1d: input must be (N, I, L), weight (O, I, K), got {input.shape} and {weight.shape}")
    options = _along("conv1d", stride=stride, padding=padding, dilation=dilation)
    rest = None if add is None else _image(add)
    return _line(conv2d(_image(input), _image(weight), bias, **options, groups=groups, add=rest))


def conv_transpose1d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    """Transposed convolution of lines: (N, I, L) -> (N, O, OL), or without a batch. weight: (I, O / groups, K).

    As `conv_transpose2d` of images one pixel high.
    """
    name = "conv_transpose1d"
    if len(input.shape) not in (2, 3) or len(weight.shape) != 3:
        raise ValueError(f"{name}: input must be (N, I, L), weight (I, O, K), got {input.shape} and {weight.shape}")
    options = _along(name, stride=stride, padding=padding, output_padding=output_padding, dilation=dilation)
    return _line(conv_transpose2d(_image(input), _image(weight), bias, **options, groups=groups))


def masked_conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, mask: str = "A", channels: int = 1,
    relu: bool = False, add: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """PixelCNN's convolution: (N, I, H, W) -> (N, O, H, W), where an output depends on earlier pixels only.

    Rows above count as earlier, and pixels to the left in the same row. The pixel itself is seen as far as
    the mask lets it: channels, of input and output alike, fall into `channels` groups of equal size (1 for
    gray images, 3 for RGB); mask "A" shows a group only the groups before it, mask "B" itself too. Weights of
    hidden taps aren't used, and get gradient 0. weight: (O, I, KH, KW), KH and KW odd; bias: (O,).

    relu: of relu(input) instead, and add, (N, O, H, W), to the result: the two other parts of a residual block, which
    as ops of their own would each read and write whole images.

    Source: van den Oord, Kalchbrenner, Kavukcuoglu, Pixel Recurrent Neural Networks (2016), section 3.4.
    """
    _check_conv("masked_conv2d", input, weight)
    _check_channels("masked_conv2d", input, weight, bias, 1)
    return ops.conv2d(input, weight, bias, Geometry.masked("masked_conv2d", weight.shape, mask, channels), relu, add)


def _batch(x: Any) -> Any:
    """(C, H, W) as a batch of one."""
    return ops.reshape(x, (1, *x.shape))


def _image(x: Any) -> Any:
    """Lines (..., L) as images (..., 1, L)."""
    return ops.reshape(x, (*x.shape[:-1], 1, x.shape[-1]))


def _line(x: Any) -> Any:
    return ops.reshape(x, (*x.shape[:-2], x.shape[-1]))


def _along(name: str, **options: Any) -> dict[str, Any]:
    """Options of lines as those of images one pixel high, along which nothing happens."""
    found = {}
    for option, value in options.items():
        least = 0 if "padding" in option else 1
        if isinstance(value, (tuple, list)) and len(value) == 1:
            value = value[0]
        if isinstance(value, (tuple, list)):
            raise ValueError(f"{name}: {option} must be an integer, got {value!r}")
        found[option] = value if isinstance(value, str) else (least, pair(f"{name}: {option}", value, least)[1])
    return found


def _same(input: Any, geometry: Geometry, kernel: Any) -> tuple[Any, Geometry]:
    """The input and the geometry by which the output is as big as the input."""
    if geometry.stride != (1, 1):
        raise ValueError(f"conv2d: padding='same' needs stride 1, got stride {geometry.stride}")
    spans = [d * (k - 1) for d, k in zip(geometry.dilation, kernel, strict=True)]
    if any(span % 2 for span in spans):
        input = pad(input, (0, spans[1] % 2, 0, spans[0] % 2))
    return input, replace(geometry, padding=(spans[0] // 2, spans[1] // 2))


def _check_conv(name: str, input: Any, weight: Any) -> None:
    if len(input.shape) != 4 or len(weight.shape) != 4:
        raise ValueError(f"{name}: input and weight must have 4 axes, got shapes {input.shape} and {weight.shape}")


def _check_channels(name: str, input: Any, weight: Any, bias: Any, groups: int) -> None:
    """ValueError unless the channels fit, those of a weight (O, I / groups, KH, KW)."""
    outputs, inputs = weight.shape[0], weight.shape[1] * groups
    if input.shape[1] != inputs:
        which = f" in {groups} groups" if groups > 1 else ""
        raise ValueError(
            f"{name}: input must have {inputs} channels for weight {weight.shape}{which}, got {input.shape}"
        )
    if outputs % groups:
        raise ValueError(f"{name}: groups must divide the {outputs} output channels, got {groups}")
    _check_bias(name, bias, outputs)


def _check_transposed(name: str, input: Any, weight: Any, bias: Any, groups: int) -> None:
    """ValueError unless the channels fit, those of a weight (I, O / groups, KH, KW)."""
    if input.shape[1] != weight.shape[0]:
        need = f"{name}: input must have {weight.shape[0]} channels for weight {weight.shape}"
        raise ValueError(f"{need}, got {input.shape}")
    if weight.shape[0] % groups:
        raise ValueError(f"{name}: groups must divide the {weight.shape[0]} input channels, got {groups}")
    _check_bias(name, bias, weight.shape[1] * groups)


def _check_bias(name: str, bias: Any, outputs: int) -> None:
    if bias is not None and bias.shape != (outputs,):
        raise ValueError(f"{name}: bias must have shape ({outputs},), got {bias.shape}")
