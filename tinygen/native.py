"""The one place that calls kernels: arrays in, `tinygen._native` (built from csrc/), arrays out.

Every function takes and returns arrays in PyTorch's shapes, hands their memory to a kernel as it is, and answers
NotImplemented where there is no kernel: for other dtypes, and everywhere if the library wasn't built. The caller has
checked what is particular to it; here all that could make a kernel leave its arrays is checked.

The array's type is the device: NumPy arrays go to the C library, CuPy arrays to the CUDA library (`tinygen.cuda`),
which has the same kernels under the same names.

Layout: an image is (N, C, H, W) in shape and NHWC in memory, a weight (O, I, KH, KW) and HWIO. An array in another
order is copied first, and counted in `conversions`; between tinygen's own layers there is none.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import sys
import threading
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tinygen import cuda

try:
    from tinygen._native import ffi, lib
except ImportError:
    ffi = lib = None

conversions = 0  # arrays that had to be copied into a kernel's layout so far
ISAS = ("baseline", "avx2", "avx512")
_DTYPES = {np.dtype(np.float32): 0, np.dtype(np.float64): 1}
_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_warned = False
_ON_HOST = frozenset([np.ndarray, float, int, bool, list, tuple])


def xp(array: Any) -> Any:
    """The array module of an array: numpy, or cupy."""
    return np if array.__class__ in _ON_HOST or isinstance(array, (np.ndarray, np.generic)) else sys.modules["cupy"]


def moved(values: Any, module: Any) -> Any:
    """The values, an array or lists of numbers, as an array of this module, numpy or cupy; in their order in memory."""
    if xp(values) is module:
        return module.asarray(values)
    values = np.asarray(values) if xp(values) is np else values
    axes = _memory_order(values)
    ordered = values.transpose(axes)  # CuPy copies in C order
    return (ordered.get() if module is np else module.asarray(ordered)).transpose(_inverse(axes))


def beside(model: Any, values: Any) -> Any:
    """The values, an array or lists of numbers, on the device of the model, an array."""
    return moved(values, xp(model))


def available() -> bool:
    """Whether the C library was built."""
    return lib is not None


def set_num_threads(n: int) -> None:
    """Let a kernel use at most n threads. At the start: one for each core that the process may use."""
    global _threads
    if n < 1:
        raise ValueError(f"set_num_threads: n must be at least 1, got {n}")
    _threads = n


def get_num_threads() -> int:
    """The most threads that a kernel uses."""
    return _threads


@contextlib.contextmanager
def instruction_set(name: str) -> Iterator[str]:
    """Within it, kernels use at most this one of `ISAS`, in all threads; gives the one that is really in force."""
    if name not in ISAS:
        raise ValueError(f"instruction_set: name must be one of {', '.join(ISAS)}, got {name!r}")
    before = lib.tg_isa() if lib else 0
    try:
        yield ISAS[lib.tg_set_isa(ISAS.index(name))] if lib else "none"
    finally:
        if lib:
            lib.tg_set_isa(before)


# --------------------------------------------------------------------------------------------------------- convolution


def conv2d(x, weight, bias, size, stride, padding, dilation, mask, channels, relu=False, add=None):
    """See `tinygen.ops.conv2d`; `size` is the output's (height, width)."""
    if not _accepts(x, weight, bias, add):
        return NotImplemented
    n, o, ci, co = len(x), len(weight), x.shape[1], weight.shape[1]
    if ci != co:
        raise ValueError(f"weight is for {co} input channels, x has {ci}")
    shape = _conv_shape(n, x.shape[2:], ci, size, o, weight.shape[2:], stride, padding, dilation, mask, channels)
    y = new((n, *size, o), x)
    if add is not None and add.shape != (n, o, *size):
        raise ValueError(f"add must have the output's shape {(n, o, *size)}, got {add.shape}")
    options = _vector("bias", bias, o), None if add is None else _nhwc(add)
    _call("tg_conv2d", x, shape, int(relu), _nhwc(x), _hwio(weight), *options, y)
    return y.transpose(0, 3, 1, 2)


def conv_transpose2d(y, weight, bias, size, stride, padding, dilation, mask, channels, positive=None):
    """See `tinygen.ops.conv_transpose2d`."""
    if not _accepts(y, weight, bias, positive):
        return NotImplemented
    n, (o, i) = len(y), weight.shape[:2]
    if y.shape[1] != o:
        raise ValueError(f"weight is for {o} channels, y has {y.shape[1]}")
    shape = _conv_shape(n, size, i, y.shape[2:], o, weight.shape[2:], stride, padding, dilation, mask, channels)
    x = new((n, *size, i), y)
    if positive is not None and (positive.shape != (n, i, *size) or bias is not None):
        raise ValueError(f"positive must have the output's shape {(n, i, *size)}, without a bias, got {positive.shape}")
    options = _vector("bias", bias, i), None if positive is None else _nhwc(positive)
    _call("tg_conv_transpose2d", y, shape, _nhwc(y), _hwio(weight), *options, x)
    return x.transpose(0, 3, 1, 2)


def conv2d_weight(x, y, kernel_size, stride, padding, dilation, mask, channels, relu=False):
    """See `tinygen.ops.conv2d_weight`."""
    if not _accepts(x, y):
        return NotImplemented
    n, i, o = len(x), x.shape[1], y.shape[1]
    if len(y) != n:
        raise ValueError(f"x has {n} images, y has {len(y)}")
    shape = _conv_shape(n, x.shape[2:], i, y.shape[2:], o, kernel_size, stride, padding, dilation, mask, channels)
    weight, bias = new((*kernel_size, i, o), x), new((o,), x)
    _call("tg_conv2d_weight", x, shape, int(relu), _nhwc(x), _nhwc(y), weight, bias)
    return weight.transpose(3, 2, 0, 1), bias


def matmul(x, y):
    """x @ y of two matrices: depending on their order in memory, one of the three above, on single pixels."""
    if not _accepts(x, y) or x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[0]:
        return NotImplemented
    if x.size * y.shape[1] < SMALL_PRODUCT:
        return NotImplemented
    if not y.flags.c_contiguous and y.flags.f_contiguous:
        if not x.flags.c_contiguous and x.flags.f_contiguous:
            return matmul(y.T, x.T).T
        return conv_transpose2d(_pixels(x), _pixels(y.T).transpose(1, 0, 2, 3), None, *_SINGLE)[:, :, 0, 0]
    if not x.flags.c_contiguous and x.flags.f_contiguous:
        weight, _ = conv2d_weight(_pixels(x.T), _pixels(y), *_SINGLE)
        return weight[:, :, 0, 0].T
    return conv2d(_pixels(x), _pixels(y).transpose(1, 0, 2, 3), None, *_SINGLE)[:, :, 0, 0]


def linear(input, weight, bias):
    """See `tinygen.ops.linear`: a convolution of single pixels."""
    if weight.ndim != 2 or input.ndim == 0 or input.shape[-1] != weight.shape[1]:
        return NotImplemented  # the definition says what is wrong
    if input.size * len(weight) < SMALL_PRODUCT:
        return NotImplemented
    rows = input.reshape(-1, input.shape[-1])
    y = conv2d(_pixels(rows), _pixels(weight), bias, *_SINGLE)
    return y if y is NotImplemented else y.reshape(*input.shape[:-1], len(weight))


def channel_sums(x):
    """The sum of an image (N, C, H, W) over all but its channels: a product with a row of ones."""
    rows = x.transpose(0, 2, 3, 1)
    if not rows.flags.c_contiguous or x.size < SMALL:
        return NotImplemented
    pixels, channels = x.size // x.shape[1], x.shape[1]
    side_by_side = math.gcd(pixels, max(1 << (64 // channels).bit_length() >> 1, 1))  # or most of a vector idles
    sums = matmul(xp(x).ones((1, pixels // side_by_side), x.dtype), rows.reshape(-1, side_by_side * channels))
    return sums if sums is NotImplemented else sums.reshape(side_by_side, channels).sum(axis=0)


SMALL_PRODUCT = 1 << 15  # multiplications below which NumPy is as fast as the way to a kernel
_SINGLE = (1, 1), (1, 1), (0, 0), (1, 1), None, 1  # size (or kernel_size), stride, padding, dilation, mask, channels


def _pixels(rows):
    """A matrix (N, C) as N images of one pixel."""
    return rows[:, :, None, None]


def _conv_shape(images, image, ci, out, co, kernel, stride, padding, dilation, mask, channels):
    if mask and (channels < 1 or ci % channels or co % channels):
        raise ValueError(f"channels={channels} must divide the channels of both sides, got {ci} and {co}")
    for n, k, o, s, p, d in zip(image, kernel, out, stride, padding, dilation, strict=True):
        if s < 1 or d < 1 or (n + 2 * p - d * (k - 1) - 1) // s + 1 != o:  # a kernel's memory is bounded by these sizes
            raise ValueError(f"{image} doesn't become {out} with kernel {kernel}, stride {stride}, padding {padding}")
    c = ffi.new("tg_conv_shape *")
    c.n, (c.h, c.w), c.ci, (c.oh, c.ow), c.co, (c.kh, c.kw) = images, image, ci, out, co, kernel
    (c.stride_h, c.stride_w), (c.pad_h, c.pad_w), (c.dil_h, c.dil_w) = stride, padding, dilation
    c.mask, c.groups = {None: 0, "A": 1, "B": 2}[mask], channels
    return c


def _nhwc(x):
    return _contiguous(x.transpose(0, 2, 3, 1))


def _hwio(weight):
    return _contiguous(weight.transpose(2, 3, 1, 0))


def _vector(name, a, n):
    """An array (n,) for a kernel; None stays None."""
    if a is not None and a.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), got {a.shape}")
    return None if a is None else _contiguous(a)


# ---------------------------------------------------------------------------- elementwise, in whatever order of memory

SMALL = 1 << 12  # elements below which NumPy is as fast as the way to a kernel


def elementwise(kernel: str, *arrays: Any, numbers: Sequence[float] = ()) -> Any:
    """kernel(n, *numbers, *arrays, out) over arrays of one shape; the result is in memory like the last of them.

    NotImplemented for small arrays, where shapes differ, and where the last one has gaps or repetitions.
    """
    last = arrays[-1]
    if getattr(last, "size", 0) < SMALL or not _accepts(*arrays) or any(a.shape != last.shape for a in arrays):
        return NotImplemented
    axes = _memory_order(last)
    if not last.transpose(axes).flags.c_contiguous or not all(isinstance(number, (int, float)) for number in numbers):
        return NotImplemented
    inputs = [_contiguous(a.transpose(axes)) for a in arrays]
    out = new(inputs[0].shape, last)
    _call(kernel, last, last.size, *numbers, *inputs, out)
    return out.transpose(_inverse(axes))


def reshape(x, shape):
    """See `tinygen.ops.shape.reshape`; an image, NHWC in memory, to rows: (N, C, H, W) -> (N, C * H * W)."""
    if x.ndim != 4 or len(shape) != 2 or x.flags.c_contiguous or not x.transpose(0, 2, 3, 1).flags.c_contiguous:
        return NotImplemented
    return _packed(x).reshape(shape)


def adam(rows, step, lr, beta1, beta2, eps, weight_decay):
    """See `tinygen.optim.Adam`; rows: (grad, p, m, v) of each parameter, of which the last three change in place.

    False, and nothing is changed, if there is no kernel for one of them, or if two arrays of one overlap.
    """
    settings, found = (step, lr, beta1, beta2, eps, weight_decay), []
    for row in rows:
        inputs = _side_by_side(row) if _accepts(*row) and row[0].dtype is rows[0][0].dtype else None
        if inputs is None or not all(map(_writeable, row[1:])):
            return False
        found.append(inputs)
    on_cpu = isinstance(rows[0][0], np.ndarray)
    pointers = [[ffi.from_buffer(a) if on_cpu else ffi.cast("void *", a.data.ptr) for a in row] for row in found]
    columns = [ffi.new("void *[]", column) for column in zip(*pointers, strict=True)]
    sizes = ffi.new("int64_t[]", [inputs[0].size for inputs in found])
    try:
        _call("tg_adam_list", rows[0][0], len(found), sizes, *columns, *settings)
    except ValueError:  # it found arrays that overlap
        return False
    return True


def _side_by_side(arrays: Sequence[Any]) -> Sequence[Any] | None:
    """Arrays of one shape and one order in memory, without gaps, as contiguous ones; None if they aren't."""
    shape, strides = arrays[0].shape, arrays[0].strides
    for a in arrays:
        if a.shape != shape or not _aligned(a):
            return None
        if a.strides != strides and any(s != t and n > 1 for s, t, n in zip(a.strides, strides, shape, strict=True)):
            return None
    if len(shape) > 1 and not arrays[0].flags.c_contiguous:
        axes = _memory_order(arrays[0])
        arrays = [a.transpose(axes) for a in arrays]
    return arrays if arrays[0].flags.c_contiguous else None


def _memory_order(a: np.ndarray) -> tuple[int, ...]:
    """The axes of an array from the slowest to the fastest in memory."""
    return _by_stride(a.strides)


@functools.lru_cache
def _by_stride(strides: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(range(len(strides)), key=lambda i: -strides[i]))


@functools.lru_cache
def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    """The axes by which `a.transpose(axes)` becomes a again."""
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))


# --------------------------------------------------------------------------- channels: images as rows of their channels


def gated_activation(x):
    """See `tinygen.ops.recurrent.gated_activation`. x: (N, 2C, ...)."""
    if not _accepts(x):
        return NotImplemented
    rows = _contiguous(np.moveaxis(x, 1, -1))
    y = new((*rows.shape[:-1], x.shape[1] // 2), x)
    _call("tg_gated", x, y.size // max(y.shape[-1], 1), y.shape[-1], rows, y)
    return np.moveaxis(y, -1, 1)


def gated_activation_backward(g, x):
    """See `tinygen.ops.recurrent.gated_activation_backward`."""
    if not _accepts(g, x):
        return NotImplemented
    if x.ndim < 2 or (x.shape[0], x.shape[1], *x.shape[2:]) != (g.shape[0], 2 * g.shape[1], *g.shape[2:]):
        raise ValueError(f"x must have twice the channels of g, got {x.shape} and {g.shape}")
    rows, grows = _contiguous(np.moveaxis(x, 1, -1)), _contiguous(np.moveaxis(g, 1, -1))
    gx = new(rows.shape, x)
    _call("tg_gated_backward", x, g.size // max(g.shape[1], 1), g.shape[1], rows, grows, gx)
    return np.moveaxis(gx, -1, 1)


def batch_norm(x, weight, bias, eps):
    """See `tinygen.ops.normalize.batch_norm`. x: (N, C, ...)."""
    if not _accepts(x, weight, bias) or not x.size:
        return NotImplemented
    n = x.shape[1]
    rows = _contiguous(np.moveaxis(x, 1, -1))
    y, mean, var = new(rows.shape, x), new((n,), x), new((n,), x)
    vectors = [_vector("weight", weight, n), _vector("bias", bias, n)]
    _call("tg_batch_norm", x, x.size // n, n, rows, *vectors, float(eps), y, mean, var)
    return np.moveaxis(y, -1, 1), mean, var


def batch_norm_backward(gout, x, weight, mean, var, eps):
    """See `tinygen.ops.normalize.batch_norm_backward`: the gradients of x, weight and bias."""
    if not _accepts(gout, x, weight, mean, var) or not x.size:
        return NotImplemented
    if gout.shape != x.shape:
        raise ValueError(f"gout must have x's shape {x.shape}, got {gout.shape}")
    n = x.shape[1]
    rows, grows = _contiguous(np.moveaxis(x, 1, -1)), _contiguous(np.moveaxis(gout, 1, -1))
    vectors = [_vector(name, a, n) for name, a in (("weight", weight), ("mean", mean), ("var", var))]
    gx, gweight, gbias = new(rows.shape, x), new((n,), x), new((n,), x)
    _call("tg_batch_norm_backward", x, x.size // n, n, rows, *vectors, float(eps), grows, gx, gweight, gbias)
    return np.moveaxis(gx, -1, 1), gweight, gbias


# ------------------------------------------------------------------------------------------------ softmax cross entropy


def cross_entropy(input, target):
    """See `tinygen.ops.loss.cross_entropy`."""
    if not _accepts(input):
        return NotImplemented
    logits, labels, back = _rows_of_classes(input, target)
    loss = new(labels.shape, input)
    _call("tg_cross_entropy", input, labels.size, logits.shape[-1], logits, _labels(labels), loss)
    return loss.transpose(back)


def cross_entropy_backward(input, target, gloss):
    """See `tinygen.ops.loss.cross_entropy_backward`; in memory as the input."""
    if not _accepts(input, gloss):
        return NotImplemented
    logits, labels, back = _rows_of_classes(input, target, gloss=gloss)
    rows = _packed(gloss.transpose(_inverse(back)))  # from a sum, it's a broadcast number
    out = new(logits.shape, input)
    _call("tg_cross_entropy_backward", input, labels.size, logits.shape[-1], logits, _labels(labels), rows, out)
    return np.moveaxis(out.transpose(*back, out.ndim - 1), -1, 1)


def _rows_of_classes(input, target, **others):
    """Logits (N, C, ...) with the classes last, the rest in memory's order; the labels in that order; the way back."""
    last = np.moveaxis(input, 1, -1)
    for name, a in {"target": target, **others}.items():
        if a.shape != last.shape[:-1]:
            raise ValueError(f"{name} must have input's shape without axis 1, got {a.shape} for {input.shape}")
    order = _memory_order(last[..., 0])
    logits = _contiguous(last.transpose(*order, last.ndim - 1))
    labels = _packed(beside(input, target).transpose(order).astype(np.int64, copy=False))
    return logits, labels, _inverse(order)


def _labels(labels):
    return ffi.from_buffer("int64_t[]", labels) if isinstance(labels, np.ndarray) else labels


# ---------------------------------------------------------------------------------------------------------- recurrence


def lstm(x, weight, h0, c0, w_ih, bias, keep, shape):
    """See `tinygen.ops.recurrent.lstm`; shape is (N, H, W, units, taps, diagonal). -> h, c, gates."""
    if not _accepts(x, weight, h0, c0, w_ih, bias) or not x.size or not weight.size:
        return NotImplemented
    gates = new((*x.shape[:-1], 4 * shape[3]), x) if keep or w_ih is not None else None
    z = _lstm_input(x, w_ih, bias, gates)
    gates = gates if keep else None
    z, u, h0, c0 = _lstm_arrays(shape, z, weight, h0, c0)
    h, c = (new((*x.shape[:-1], shape[3]), x) for _ in range(2))
    _call("tg_lstm", x, _lstm_shape(*shape), z, u, h0, c0, gates, c, h)
    return h, c, gates if keep else new((0,), x)


def lstm_backward(gh, gc, saved, x, weight, h0, c0, w_ih, bias, needs_x, shape):
    """See `tinygen.ops.recurrent.lstm_backward`. -> the gradients of x, weight, h0, c0, w_ih, bias; or None."""
    h, c, gates = saved
    if not _accepts(gates, x, weight, h0, c0, w_ih, gh, gc, h, c) or not x.size or not weight.size:
        return NotImplemented
    _, height, width, units, taps, _ = shape
    gates, u, h0, c0, gh, gc, h, c = _lstm_arrays(shape, gates, weight, h0, c0, gh, gc, h, c)
    gz, gu = new(gates.shape, gates), new((taps, units, 4 * units), gates)
    before = (None, None) if h0 is None else (new(h0.shape, gates), new(c0.shape, gates))
    s = _lstm_shape(*shape)
    _call("tg_lstm_backward", gates, s, u, c0, gates, c, gh, gc, gz, *before)
    if h0 is None or height > 1:
        _call("tg_lstm_weight", gates, s, h, gz, gu)
    if h0 is not None:
        first = gu if height == 1 else new(gu.shape, gates)
        product = _product_shape(width, units, 4 * units)  # with the first step's part of gz
        _call("tg_conv2d_weight", gates, product, 0, h0, gz, first, None)
        if height > 1:
            gu += first
    gu = gu.reshape(*weight.shape[2:], units, 4 * units)
    gu = gu.T if weight.ndim == 2 else gu.transpose(3, 2, 0, 1)
    return _lstm_input_backward(x, w_ih, bias, gz, needs_x, (gu, *before))


def _lstm_input(x, w_ih, bias, gates):
    """z = x w_ih' + bias, made where the gates will be: the kernel goes from the one to the other in place."""
    if w_ih is None:
        return x
    x, w, outputs = _contiguous(x), _contiguous(w_ih.T), gates.shape[-1]
    if w.shape != (x.shape[-1], outputs):
        raise ValueError(f"w_ih must have shape {(outputs, x.shape[-1])}, got {w_ih.shape}")
    s = _product_shape(x.size // len(w), *w.shape)
    _call("tg_conv2d", x, s, 0, x, w, _vector("bias", bias, outputs), None, gates)
    return gates


def _lstm_input_backward(x, w_ih, bias, gz, needs_x, others):
    """All gradients, of x, (others), w_ih and bias, from those of z and the others."""
    if w_ih is None:
        return gz if needs_x else None, *others, None, None
    x, w = _contiguous(x), _contiguous(w_ih.T)
    if (*x.shape[:-1], *w.shape) != (*gz.shape[:-1], x.shape[-1], gz.shape[-1]):
        raise ValueError(f"w_ih must take x {x.shape} to z {gz.shape}, got {w_ih.shape}")
    gx, gw = new(x.shape, x) if needs_x else None, new(w.shape, x)
    gbias = None if bias is None else new(bias.shape, x)
    s = _product_shape(x.size // len(w), *w.shape)
    if needs_x:
        _call("tg_conv_transpose2d", x, s, gz, w, None, None, gx)
    _call("tg_conv2d_weight", x, s, 0, x, gz, gw, gbias)
    return gx, *others, gw.T, gbias


@functools.lru_cache
def _lstm_shape(n, height, width, units, taps, diagonal):
    return ffi.new("tg_lstm_shape *", (n, height, width, units, taps, diagonal))


@functools.lru_cache
def _product_shape(rows, inputs, outputs):
    """Of the product of a matrix (rows, inputs) with one (inputs, outputs), as a convolution of images of one pixel."""
    return _conv_shape(rows, (1, 1), inputs, (1, 1), outputs, (1, 1), (1, 1), (0, 0), (1, 1), None, 1)


def _lstm_arrays(shape, gates, weight, h0, c0, *states):
    """The arrays as the kernels read them, after a last look at their sizes."""
    n, height, width, units, taps, _ = shape
    pixels = n * height * width
    sizes = [4 * units * pixels, 4 * units * units * taps, *[width * units] * 2, *[pixels * units] * len(states)]
    arrays = [gates, weight.T if weight.ndim == 2 else weight.transpose(2, 3, 1, 0), h0, c0, *states]
    for i, a in enumerate(arrays):
        if a is not None:
            if a.size != sizes[i]:
                raise ValueError(f"an array of {a.size} elements instead of {sizes[i]}")
            arrays[i] = _contiguous(a)
    return arrays


# ------------------------------------------------------------------------------------------------------------ sampling

SAMPLER_LAYERS = ("linear", "linear from", "copy", "relu", "elu", "tanh", "sigmoid", "add", "sub", "mul", "gated")


def sample(program, scaled, uniform, state, x, first, last, known, temperature):
    """See `tinygen.sampling.sampler.Sampler.run`: changes state and x in place; -1, or the value that can't be drawn.

    program: see `tinygen.sampling.program`.
    """
    s, levels = program, len(scaled)
    numbers = s.mixtures * (1 + 2 * s.colours + s.colours * (s.colours - 1) // 2) or levels
    if not _accepts(state, s.weights, scaled) or not isinstance(state, np.ndarray):
        return NotImplemented
    n, values, kernel_arrays = len(state), len(s.places), {}
    for name, a, ctype, dtype, shape in (
        ("layers", s.layers, "tg_layer[]", np.int64, (len(s.layers), 8)),
        ("runs", s.runs, "int64_t[]", np.int64, (len(s.runs), 2)),
        ("weights", s.weights, "char[]", state.dtype, (len(s.weights),)),
        ("steps", s.steps, "tg_step[]", np.int32, (len(s.steps), 4)),
        ("starts", s.starts, "int64_t[]", np.int64, (values + 1,)),
        ("places", s.places, "int32_t[]", np.int32, (values,)),
        ("scaled", scaled, "char[]", state.dtype, (levels,)),
        ("results", s.results, "int32_t[]", np.int32, (values, numbers)),
        ("uniform", uniform, "double[]", np.float64, (values, n)),
        ("state", state, "char[]", state.dtype, (n, s.size)),
        ("x", x, "uint8_t[]", np.uint8, (n, values)),
    ):
        if a.shape != shape or a.dtype != dtype or not (a.flags.c_contiguous and a.flags.aligned):
            raise ValueError(f"sample: {name} must be {np.dtype(dtype)} {shape} in C order, got {a.dtype} {a.shape}")
        kernel_arrays[name] = ffi.from_buffer(ctype, a, require_writable=name in ("state", "x"))
    sizes = (n, values, levels, s.size, len(s.layers), len(s.runs), len(s.steps), len(s.weights), s.mixtures, s.colours)
    struct = ffi.new("tg_sampler *", (*sizes, first, last, known, temperature))
    return -_call("tg_sample", state, struct, *kernel_arrays.values()) - 1


# ---------------------------------------------------------------------------------------------------- calling a kernel


def _accepts(*arrays: Any) -> bool:
    """Whether a kernel can take these arrays (None stands for one that was left out)."""
    if lib is None:
        _warn_once()
        return False
    kind, dtype = arrays[0].__class__, arrays[0].dtype
    if kind is not np.ndarray:
        if xp(arrays[0]) is np:
            kind = np.ndarray
        elif not cuda.has_kernels():
            return False
    alike = dtype in _DTYPES
    for a in arrays:  # all() of a generator takes twice as long
        alike = alike and (a is None or (isinstance(a, kind) and a.dtype == dtype))
    return alike


def _warn_once() -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            "tinygen: the C kernels were not built, so the NumPy definitions run, which are slower; install a C "
            "compiler and Python's headers, then tinygen again",
            RuntimeWarning,
            stacklevel=6,
        )


def _contiguous(a: Any) -> Any:
    """The array in C order and aligned, itself if it is so already."""
    global conversions
    if a.flags.c_contiguous and _aligned(a):
        return a
    conversions += 1
    return _packed(a)


def _packed(a: Any) -> Any:
    """`_contiguous`, not counted."""
    memory = a.transpose(_memory_order(a))
    dense = memory.flags.c_contiguous and _aligned(a) and a.size >= SMALL
    matrices = _matrices(a.shape, a.strides) if dense and _accepts(a) else None
    if matrices is None:
        return np.require(a, requirements=["C", "A"]) if isinstance(a, np.ndarray) else xp(a).ascontiguousarray(a)
    out = new(a.shape, a)
    _call("tg_transpose", a, *matrices, memory, out)
    return out


@functools.lru_cache
def _matrices(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...] | None:
    """(n, rows, columns) if such an array is n matrices in memory, and in C order once they are transposed."""
    axes = [i for i in sorted(range(len(shape)), key=lambda i: -strides[i]) if shape[i] > 1]
    in_order = sorted(axes)
    same = next((i for i, (a, b) in enumerate(zip(axes, in_order, strict=True)) if a != b), len(axes))
    cut = axes.index(in_order[same]) if same < len(axes) else same
    if axes[:same] + axes[cut:] + axes[same:cut] != in_order or cut == same:
        return None
    return tuple(math.prod(shape[i] for i in part) for part in (axes[:same], axes[same:cut], axes[cut:]))


def _aligned(a: Any) -> bool:
    return a.flags.aligned if isinstance(a, np.ndarray) else True


def _writeable(a: Any) -> bool:
    return a.flags.writeable if isinstance(a, np.ndarray) else True


def _call(kernel: str, model: Any, *arguments: Any) -> int:
    """Run a kernel of the model's dtype on the arrays' memory (arrays, None, structs, numbers): its answer."""
    dtype = _DTYPES[model.dtype]
    if not isinstance(model, np.ndarray):
        code = cuda.call(kernel, dtype, arguments)
    else:
        values = [ffi.from_buffer(a) if isinstance(a, np.ndarray) else ffi.NULL if a is None else a for a in arguments]
        code = getattr(lib, kernel)(dtype, *values, _threads)
    if code == lib.TG_NO_MEMORY:
        raise MemoryError(f"{kernel}: no memory for its scratch space")
    if code > 0:
        raise ValueError(f"{kernel}: sizes that no array can have")
    return code


# --------------------------------------------------------------------------------------------------------- buffer pool

_LARGE = 1 << 18  # bytes from which arrays are recycled: fresh memory costs a page fault every 4 kB
_LIMIT = 1 << 30  # bytes kept for reuse at most
_free: dict[int, list[np.ndarray]] = defaultdict(list)
_free_bytes = 0
_lock = threading.RLock()  # a destructor may run at any moment, also inside `empty`


def _new_lock() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):  # another thread may hold the lock in the moment of a fork
    os.register_at_fork(after_in_child=_new_lock)


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An uninitialized array in C order. Large ones reuse the memory of earlier ones whose last view has died."""
    dtype = np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < _LARGE or ffi is None:
        return np.empty(shape, dtype)
    size = 1 << (nbytes - 1).bit_length() - 3
    size *= -(-nbytes // size)  # rounded up by less than a quarter, so that blocks fit again
    global _free_bytes
    with _lock:
        block = _free[size].pop() if _free[size] else None
        if block is not None:
            _free_bytes -= size
    if block is None:
        block = np.empty(size, np.uint8)
    # NumPy keeps `owner` alive as long as any view of the array, and no longer: the block is free exactly then.
    owner = ffi.gc(ffi.cast("char *", ffi.from_buffer(block)), lambda _: _recycle(block))
    return np.frombuffer(ffi.buffer(owner, nbytes), dtype).reshape(shape)


def new(shape: tuple[int, ...], model: Any) -> Any:
    """An uninitialized array in C order, of the dtype and on the device of another; recycled like those of `empty`."""
    return empty(shape, model.dtype) if isinstance(model, np.ndarray) else xp(model).empty(shape, model.dtype)


def empty_like(a: Any) -> Any:
    """An uninitialized array of the shape, dtype and order in memory of another, recycled like those of `empty`."""
    if isinstance(a, np.ndarray) and a.nbytes >= _LARGE:
        axes = _memory_order(a)
        if a.transpose(axes).flags.c_contiguous:
            return empty(a.transpose(axes).shape, a.dtype).transpose(_inverse(axes))
    return xp(a).empty_like(a)


def _recycle(block: np.ndarray) -> None:
    global _free_bytes
    with _lock:
        if _free_bytes + block.size <= _LIMIT:
            _free[block.size].append(block)
            _free_bytes += block.size
