"""What is measured: one record a case. Adding one to CASES is all that a new kernel takes.

A case names its useful FLOPs (a multiply-add counts twice; masked taps don't count; backward is another forward for
each operand that needs a gradient), how tinygen does it, and PyTorch's versions of the same (from `torch_versions`,
imported only when they're asked for). Every contestant gives, for each thing measured ("forward", "forward + backward",
"training step", ...), a function without arguments that does it once; all results have to agree before anything is
timed.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

import tinygen as tg
from tinygen import nn, optim
from tinygen.array import moved
from tinygen.autograd import REGISTRY
from tinygen.cuda import array_module
from tinygen.data import tasks
from tinygen.geometry import UNIT, Geometry
from tinygen.models.autoregressive.pixelcnn import PixelCNN
from tinygen.models.family import Batch
from tinygen.models.flow.pixels import dequantize
from tinygen.models.gan.biggan import BigGAN
from tinygen.models.gan.dcgan import DCGAN
from tinygen.models.gan.toy import PlainStep
from tinygen.models.registry import model_class
from tinygen.models.vae.vae import VAE
from tinygen.nn import functional as F

Runs = dict[str, Callable[[], Any]]  # what is measured -> a call of it
TRANSLATED = {"pix2pix": ("d_loss", "adversarial", "l1"), "cyclegan": ("d_loss", "adversarial", "cycle", "identity")}
DEVICE = "cpu"  # where tinygen's side is set up


@dataclass(frozen=True)
class Case:
    """One case, with all that measuring it takes."""

    name: str
    section: str
    flops: dict[str, float]  # useful ones of each thing measured, 0 where they aren't the point
    ours: Callable[[], Runs]
    theirs: Callable[[], dict[str, Callable[[], Runs]]]  # PyTorch's versions by name
    bound: float = 1e-4  # on the largest difference between two contestants' results, over the largest value
    per: int = 1  # how many ops a call consists of, to give the time of one
    quick: bool = False  # whether --quick measures it
    memory: bool = False  # whether its peak memory is measured
    reference: bool = True  # whether the NumPy definition takes part
    threads: bool = True  # whether it is measured with several threads too
    seconds: float = 1.0  # of measuring, relative to other cases
    extra: dict[str, Callable[[], Runs]] = field(default_factory=dict)  # contestants beside the two libraries
    arrays: Callable[[], list[np.ndarray]] | None = None  # the inputs, of a case that is a function of them


def _torch() -> Any:
    from benchmarks.kernels import torch_versions

    return torch_versions


# ----------------------------------------------------------------------------------------------- functions of tensors


def function(
    name: str, section: str, flops: float, inputs: Sequence[Any], ours: Callable[..., Any],
    theirs: Callable[[Any], dict[str, Any]], constants: Sequence[int] = (), backward: float = 2, **options: Any,
) -> Case:  # fmt: skip
    """A case that is one function of tensors, measured forward and with backward.

    Args:
        flops: of forward.
        inputs: shapes, of normal numbers (in tinygen's order in memory); or functions from an rng to an array.
        theirs: from the module `torch_versions` to PyTorch's versions.
        constants: the inputs that need no gradient.
        backward: its FLOPs, in those of forward: a product has two operands, each with a gradient of its own.
    """

    def arrays() -> list[np.ndarray]:
        rng = np.random.default_rng(0)
        return [i(rng) if callable(i) else normal(rng, i) for i in inputs]

    def their_runs() -> dict[str, Callable[[], Runs]]:
        versions, torch_versions = theirs(_torch()), _torch()
        return {n: functools.partial(torch_versions.runs, v, arrays, constants) for n, v in versions.items()}

    amounts = {"forward": flops, "forward + backward": flops * (1 + backward)}
    return Case(name, section, amounts, lambda: _runs(ours, arrays(), constants), their_runs, arrays=arrays, **options)


def normal(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    """Normal numbers, float32, images NHWC in memory."""
    if len(shape) != 4:
        return rng.standard_normal(shape, np.float32)
    n, c, h, w = shape
    return rng.standard_normal((n, h, w, c), np.float32).transpose(0, 3, 1, 2)


def weight(o: int, i: int, kernel: tuple[int, int]) -> Callable[[np.random.Generator], np.ndarray]:
    """A convolution's weight, HWIO in memory, of a size that keeps the output's variance."""

    def draw(rng: np.random.Generator) -> np.ndarray:
        scale = np.float32(1 / math.sqrt(i * math.prod(kernel)))
        return (rng.standard_normal((*kernel, i, o), np.float32) * scale).transpose(3, 2, 0, 1)

    return draw


def matrix(o: int, i: int) -> Callable[[np.random.Generator], np.ndarray]:
    """The weight of a linear layer or an LSTM, (in, out) in memory, uniform as such layers begin."""
    return lambda rng: rng.uniform(-(i**-0.5), i**-0.5, (i, o)).astype(np.float32).T


def _runs(f: Callable[..., Any], inputs: Sequence[np.ndarray], constants: Sequence[int]) -> Runs:
    floats = [a.dtype.kind == "f" for a in inputs]
    tensors = [
        tg.tensor(placed(a), requires_grad=i not in constants) if is_float else a
        for i, (a, is_float) in enumerate(zip(inputs, floats, strict=True))
    ]
    leaves = [t for t in tensors if isinstance(t, tg.Tensor) and t.requires_grad]
    with tg.no_grad():
        gradient = np.random.default_rng(1).standard_normal(f(*tensors).shape, np.float32)
    if gradient.ndim == 4:
        gradient = np.ascontiguousarray(gradient.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    upstream = tg.tensor(placed(gradient))

    def forward() -> Any:
        with tg.no_grad():
            return f(*tensors)

    def both() -> Any:
        for leaf in leaves:
            leaf.grad = None
        f(*tensors).backward(upstream)
        return [leaf.grad for leaf in leaves]

    return {"forward": forward, "forward + backward": both}


def placed(array: np.ndarray) -> Any:
    """The array on DEVICE."""
    return moved(array, array_module(DEVICE))


def flops(op: str, **shapes: Any) -> float:
    """The operations of a call, as its op declares them."""
    return float(REGISTRY[op].count_flops(**shapes))


def masked(
    i: int, o: int, k: int, kind: str, size: int, n: int, channels: int = 1, first: bool = False, **options: Any
) -> Case:
    """A masked convolution. first: as a network's first layer, whose input needs no gradient."""
    geometry = Geometry.masked("masked", (o, i, k, k), kind, channels)
    name = f"{k}x{k} mask {kind}, {i} -> {o}, {size}x{size}, N {n}"
    return function(
        name + (", RGB" if channels > 1 else "") + (", first layer" if first else ""), "Convolution",
        flops("conv2d", out_shape=(n, o, size, size), weight_shape=(o, i, k, k), geometry=geometry),
        [(n, i, size, size), weight(o, i, (k, k)), (o,)],
        lambda x, w, b: F.masked_conv2d(x, w, b, kind, channels),
        lambda t: t.masked_conv2d((o, i, k, k), kind, channels), (0,) if first else (), 1 if first else 2, **options,
    )  # fmt: skip


def conv(i: int, o: int, k: int, stride: int, padding: int, size: int, n: int, **options: Any) -> Case:
    """An ordinary convolution."""
    out = (size + 2 * padding - k) // stride + 1
    kind = "dense" if stride == 1 else f"stride {stride}"
    return function(
        f"{k}x{k} {kind}, {i} -> {o}, {size}x{size}, N {n}", "Convolution",
        flops("conv2d", out_shape=(n, o, out, out), weight_shape=(o, i, k, k), geometry=UNIT),
        [(n, i, size, size), weight(o, i, (k, k)), (o,)],
        lambda x, w, b: F.conv2d(x, w, b, stride, padding),
        lambda t: t.both_formats(lambda x, w, b: t.F.conv2d(x, w, b, stride, padding)), **options,
    )  # fmt: skip


def transposed(i: int, o: int, k: int, stride: int, padding: int, size: int, n: int, **options: Any) -> Case:
    """A transposed convolution; its useful FLOPs are those of the convolution it is the adjoint of."""
    return function(
        f"{k}x{k} transposed, stride {stride}, {i} -> {o}, {size}x{size}, N {n}", "Convolution",
        flops("conv_transpose2d", y_shape=(n, i, size, size), weight_shape=(i, o, k, k), geometry=UNIT),
        [(n, i, size, size), weight(i, o, (k, k)), (o,)],
        lambda x, w, b: F.conv_transpose2d(x, w, b, stride, padding),
        lambda t: t.both_formats(lambda x, w, b: t.F.conv_transpose2d(x, w, b, stride, padding)), **options,
    )  # fmt: skip


def linear(i: int, o: int, n: int, **options: Any) -> Case:
    return function(
        f"linear, {i} -> {o}, N {n}", "Linear",
        flops("linear", out_shape=(n, o), input_shape=(n, i)), [(n, i), matrix(o, i), (o,)],
        F.linear, lambda t: {"usual": (t.F.linear, False)}, **options,
    )  # fmt: skip


# --------------------------------------------------------------------------------- recurrence, elementwise ops, losses


def lstm(i: int, h: int, steps: int, n: int, **options: Any) -> Case:
    """nn.LSTM over a sequence."""

    @functools.cache
    def layer() -> Any:
        return nn.LSTM(i, h, rng=np.random.default_rng(0))

    def ours(x: Any, *weights: Any) -> Any:
        layer().weight_ih_l0, layer().weight_hh_l0, layer().bias_ih_l0, layer().bias_hh_l0 = weights
        return layer()(x)[0]

    return _recurrence("nn.LSTM", i, h, steps, n, ours, lambda t: {"usual": (t.lstm, False)}, **options)


def lstm_cells(i: int, h: int, steps: int, n: int, **options: Any) -> Case:
    """LSTMCell in a loop."""

    def ours(x: Any, *weights: Any) -> Any:
        h_c = (tg.tensor(placed(np.zeros((n, h), np.float32))),) * 2
        outputs = []
        for t in range(steps):
            h_c = F.lstm_cell(x[t], h_c, *weights)
            outputs.append(h_c[0])
        return tg.stack(outputs, dim=0)

    versions = lambda t: {"usual": (t.lstm_cell_loop, False)}  # noqa: E731
    return _recurrence("LSTMCell loop", i, h, steps, n, ours, versions, **options)


def _recurrence(
    kind: str, i: int, h: int, steps: int, n: int, ours: Callable[..., Any], theirs: Callable[..., Any], **options: Any
) -> Case:
    return function(
        f"{kind}, {i} -> {h}, {steps} steps, N {n}", "Recurrence",
        flops("lstm", h_shape=(steps, n, h), weight_shape=(4 * h, h), w_ih_shape=(4 * h, i)),
        [(steps, n, i), matrix(4 * h, i), matrix(4 * h, h), (4 * h,), (4 * h,)], ours, theirs, **options,
    )  # fmt: skip


def row_lstm(units: int, size: int, n: int, **options: Any) -> Case:
    return function(
        f"Row LSTM, {units} units, {size}x{size}, N {n}", "Recurrence",
        flops("lstm", h_shape=(n, size, size, units), weight_shape=(4 * units, units, 1, 3), w_ih_shape=None),
        [(n, 4 * units, size, size), weight(4 * units, units, (1, 3))], F.row_lstm, lambda t: t.row_lstm(), **options,
    )  # fmt: skip


def diagonal_bilstm(units: int, size: int, n: int, **options: Any) -> Case:
    image, kernel = (n, 4 * units, size, size), weight(4 * units, units, (2, 1))
    return function(
        f"Diagonal BiLSTM, {units} units, {size}x{size}, N {n}", "Recurrence",
        2 * flops("lstm", h_shape=(n, size, size, units), weight_shape=(4 * units, units, 2, 1), w_ih_shape=None),
        [image, image, kernel, kernel], F.diagonal_bilstm,
        lambda t: t.diagonal_bilstm(), **options,
    )  # fmt: skip


def elementwise(name: str, ours: Callable[..., Any], theirs: Callable[[Any], Any], **options: Any) -> Case:
    """A function of one image, 1.6 million numbers, in channels_last memory on both sides."""
    shape = (32, 64, 28, 28)
    versions = lambda t: t.both_formats(theirs(t))  # noqa: E731
    return function(f"{name}, 64 channels, 28x28, N 32", "Elementwise", 0.0, [shape], ours, versions, **options)


def joined(c: int, size: int, n: int, **options: Any) -> Case:
    """Two images of c channels each beside each other, as a U-Net's ways across are."""
    return function(
        f"cat, {c} + {c} channels, {size}x{size}, N {n}", "Elementwise", 0.0, [(n, c, size, size)] * 2,
        lambda x, y: tg.cat(x, y, dim=1), lambda t: t.both_formats(lambda x, y: t.torch.cat([x, y], 1)), **options,
    )  # fmt: skip


def gated(t: Any) -> Callable[[Any], Any]:
    def f(x: Any) -> Any:
        a, b = x.chunk(2, 1)
        return t.torch.tanh(a) * t.torch.sigmoid(b)

    return f


def batch_norm(c: int, size: int, n: int, **options: Any) -> Case:
    return function(
        f"batch norm, {c} channels, {size}x{size}, N {n}", "Normalization and loss", 0.0,
        [(n, c, size, size), (c,), (c,)], lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
        lambda t: t.both_formats(lambda x, w, b: t.F.batch_norm(x, None, None, w, b, training=True)), **options,
    )  # fmt: skip


def affine_coupling(c: int, size: int, n: int, **options: Any) -> Case:
    """Of the second half of the channels; the sum of s is left out."""

    def theirs(t: Any) -> Any:
        def coupling(x: Any, both: Any) -> Any:
            (x1, x2), (s, u) = x.chunk(2, 1), both.chunk(2, 1)
            return t.torch.cat([x1, x2 * (2 * t.torch.tanh(s / 2)).exp() + u], 1)

        return t.both_formats(coupling)

    return function(
        f"affine coupling, {c} channels, {size}x{size}, N {n}", "Elementwise", 0.0,
        [(n, c, size, size), (n, c, size, size)], lambda x, both: tg.ops.affine_coupling(x, both, c // 2)[0], theirs,
        **options,
    )  # fmt: skip


def channel_affine(c: int, size: int, n: int, **options: Any) -> Case:
    def theirs(t: Any) -> Any:
        return t.both_formats(lambda x, w, b: x * w[:, None, None] + b[:, None, None])

    return function(
        f"scale and shift of each channel, {c} channels, {size}x{size}, N {n}", "Elementwise", 0.0,
        [(n, c, size, size), (c,), (c,)], tg.ops.channel_affine, theirs, **options,
    )  # fmt: skip


def group_norm(c: int, size: int, n: int, **options: Any) -> Case:
    """With silu after it, as in a U-Net; a group is 4 channels."""
    groups = min(32, c // 4)

    def theirs(t: Any) -> Any:
        return t.both_formats(lambda x, w, b: t.F.silu(t.F.group_norm(x, groups, w, b)))

    return function(
        f"group norm and silu, {c} channels, {size}x{size}, N {n}", "Normalization and loss", 0.0,
        [(n, c, size, size), (c,), (c,)], lambda x, w, b: F.group_norm(x, groups, w, b, silu=True), theirs, **options,
    )  # fmt: skip


def attention(pixels: int, c: int, n: int, **options: Any) -> Case:
    """Of an image's pixels, as in a U-Net; backward has five products where forward has two."""
    return function(
        f"attention, {pixels} pixels of {c} channels, N {n}", "Normalization and loss", 4.0 * n * pixels * pixels * c,
        [(n, pixels, c)] * 3, F.scaled_dot_product_attention,
        lambda t: {"usual": (t.F.scaled_dot_product_attention, False)}, backward=2.5, **options,
    )  # fmt: skip


def cross_entropy(levels: int, size: int, n: int, **options: Any) -> Case:
    def labels(rng: np.random.Generator) -> np.ndarray:
        return rng.integers(0, levels, (n, size, size))

    return function(
        f"cross entropy, {levels} classes, {size}x{size}, N {n}", "Normalization and loss", 0.0,
        [(n, levels, size, size), labels], lambda x, y: F.cross_entropy(x, y, reduction="none"),
        lambda t: t.cross_entropy(), **options,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------ whole programs


def pixelcnn(hidden: int, blocks: int = 7, levels: int = 256, size: int = 28) -> Callable[[], Any]:
    return lambda: PixelCNN((1, size, size), levels, hidden=hidden, blocks=blocks, rng=np.random.default_rng(0))


def pixelcnn_flops(hidden: int, blocks: int, levels: int, size: int) -> float:
    """Of forward, an image, on unmasked taps."""
    h = hidden
    return 2.0 * size * size * (24 * 2 * h + blocks * (2 * 2 * h * h + 5 * h * h) + 2 * h * (2 * h + levels))


def training_step(hidden: int, n: int, blocks: int = 7, levels: int = 256, size: int = 28, **options: Any) -> Case:
    """PixelCNN: forward, loss, backward, Adam, on the same weights and images."""
    images = np.random.default_rng(1).integers(0, levels, (n, 1, size, size)).astype(np.uint8)
    make = pixelcnn(hidden, blocks, levels, size)

    def ours() -> Runs:
        model = make().to(DEVICE)
        optimizer = optim.Adam(model.parameters(), lr=1e-3)

        def step() -> Any:
            loss = model.nats(images).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        return {"training step": step}

    return Case(
        f"PixelCNN, {hidden} channels, {blocks} blocks, {levels}-way, {size}x{size}, N {n}", "Training steps",
        {"training step": 3 * n * pixelcnn_flops(hidden, blocks, levels, size)}, ours,
        lambda: _torch().pixelcnn_steps(make, hidden, blocks, images), bound=1e-3, **options,
    )  # fmt: skip


def vae_step(hidden: int, n: int, latent: int = 20, **options: Any) -> Case:
    """A convolutional VAE of thresholded images, 28x28: forward, -ELBO, backward, Adam, with the same noise."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 2, (n, 1, 28, 28)).astype(np.uint8)
    noise = rng.standard_normal((n, latent)).astype(np.float32)
    always: Any = SimpleNamespace(standard_normal=lambda shape: noise)  # in place of an rng

    def make() -> Any:
        return VAE((1, 28, 28), 2, network="conv", likelihood="bernoulli", latent=latent, hidden=hidden,
                   rng=np.random.default_rng(0))  # fmt: skip

    def ours() -> Runs:
        model = make().to(DEVICE)
        optimizer = optim.Adam(model.parameters(), lr=1e-3)

        def step() -> Any:
            parts = model.loss(Batch(images), always)
            loss = parts["reconstruction"] + parts["kl"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        return {"training step": step}

    h, codes = hidden, 3 * latent  # means and log variances; codes
    convolutions = 14 * 14 * 16 * h + 7 * 7 * 16 * 2 * h * h + 4 * 4 * 9 * 8 * h * h
    return Case(
        f"VAE, convolutional, {hidden} channels, {latent} latent variables, 28x28, N {n}", "Training steps",
        {"training step": 3 * n * 2.0 * (2 * convolutions + 4 * 4 * 4 * h * codes)}, ours,
        lambda: _torch().vae_steps(make, images, noise), bound=1e-3, **options,
    )  # fmt: skip


def pair_steps(make: Callable[[], Any], batch: Batch, noise: np.ndarray, mix: np.ndarray, lr: float) -> Runs:
    """Training steps of the players of the GAN `make()`, on the same images and noise."""
    model = make().to(DEVICE)
    pair, optimizers = model.pair, model.optimizers(lr)
    others = {"discriminator": pair.generator, "generator": pair.discriminator}
    fixed: Any = SimpleNamespace(standard_normal=lambda shape: noise, random=lambda n: mix)

    def minimize(closure: Callable[[], dict[str, Any]], name: str) -> dict[str, float]:
        others[name].requires_grad_(False)
        optimizers[name].zero_grad()
        parts = closure()
        functools.reduce(operator.add, parts.values()).backward()
        optimizers[name].step()
        others[name].requires_grad_(True)
        return {key: part.item() for key, part in parts.items()}

    training: Any = SimpleNamespace(batch=lambda: batch, minimize=minimize, rng=fixed)

    def step() -> Any:
        parts = pair.training_step(training, model.scale)
        return np.array([sum(parts.get(name, 0.0) for name in names) for names in PLAYED])

    return {"training step": step}


PLAYED = ("d_loss", "penalty"), ("g_loss", "orthogonality")  # the losses of D, of G


def gan_step(objective: Any, n: int, **options: Any) -> Case:
    """DCGAN, 28x28: the discriminator's steps and the generator's, with Adam, on the same images and noise."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (n, 1, 28, 28)).astype(np.uint8)
    noise, mix = rng.standard_normal((n, 64, 1, 1)).astype(np.float32), rng.random(n)

    def make() -> Any:
        return DCGAN((1, 28, 28), 256, objective=objective, rng=np.random.default_rng(0))

    d = 2.0 * (14 * 14 * 16 * 64 + 7 * 7 * 16 * 64 * 128 + 7 * 7 * 128)  # forward, an image
    g = 2.0 * (7 * 7 * 64 * 128 + 7 * 7 * 16 * 128 * 64 + 14 * 14 * 16 * 64)
    steps, passes = make().pair.steps, 6 + 6 * (objective == "wgan-gp")  # a penalty: forward and back, and both again
    return Case(
        f"DCGAN, {objective}, 28x28, N {n}", "Training steps",
        {"training step": n * (steps * (g + passes * d) + 2 * g + 2 * d)},
        functools.partial(pair_steps, make, Batch(images), noise, mix, 2e-4),
        lambda: _torch().gan_steps(make, images, noise, mix), bound=1e-3, **options,
    )  # fmt: skip


def biggan_step(n: int, **options: Any) -> Case:
    """BigGAN, 28x28: two steps of the discriminator and the generator's, with Adam, on the same images and noise."""
    rng = np.random.default_rng(1)
    images, labels = rng.integers(0, 256, (n, 1, 28, 28)).astype(np.uint8), rng.integers(0, 10, n)
    noise = rng.standard_normal((n, 64)).astype(np.float32)

    def make() -> Any:
        return BigGAN((1, 28, 28), 256, rng=np.random.default_rng(0))

    def theirs() -> dict[str, Callable[[], Runs]]:
        from benchmarks.kernels.torch_biggan import biggan_steps

        return biggan_steps(make, images, labels, noise)

    flops = 127e6  # an image of the two batches of a step, as `tinygen train biggan --dry-run` says
    return Case(
        f"BigGAN, 28x28, N {n}", "Training steps", {"training step": 2 * n * flops},
        functools.partial(pair_steps, make, Batch(images, labels), noise, np.zeros(n), 1e-3), theirs, bound=1e-3,
        **options,
    )  # fmt: skip


def flow_step(name: str, n: int, **options: Any) -> Case:
    """A flow of 28x28 images at its defaults: forward, -log p, backward, Adam, with the same noise."""
    rng = np.random.default_rng(1)
    x = dequantize(rng.integers(0, 256, (n, 1, 28, 28)), rng)

    def make() -> Any:
        model = model_class(name)((1, 28, 28), 256, rng=np.random.default_rng(0))
        model(model.scaled(x)[0], rng)  # the first batch starts actnorm
        return model

    def ours() -> Runs:
        model = make().to(DEVICE)
        optimizer = optim.Adam(model.parameters(), lr=1e-3)

        def step() -> Any:
            y, log_scale = model.scaled(x)
            loss = -(model(y, rng)[1] + log_scale).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        return {"training step": step}

    def theirs() -> dict[str, Callable[[], Runs]]:
        from benchmarks.kernels.torch_flows import flow_steps

        return flow_steps(make, x)

    flops = {"glow": 97.2e6, "realnvp": 85.7e6}[name]  # as `tinygen train NAME --dry-run` says
    return Case(f"{name}, 28x28, N {n}", "Training steps", {"training step": n * flops}, ours, theirs, bound=1e-3,
                **options)  # fmt: skip


def translation_step(name: str, n: int, **options: Any) -> Case:
    """pix2pix or CycleGAN, 28x28 edges to images: D's step and G's, with Adam, on n images of each domain."""
    batches = np.random.default_rng(1).integers(0, 256, (2, n, 1, 28, 28)).astype(np.uint8)

    def make() -> Any:
        own = {"dropout": 0.0} if name == "pix2pix" else {}  # PyTorch would drop other values
        rng = np.random.default_rng(0)
        model = model_class(name)((1, 28, 28), 256, **own, rng=rng)
        for p in model.parameters():
            if not p.numpy().any():  # the U-Net gives 0 at first
                p.write()[...] = 0.02 * rng.standard_normal(p.shape)
        return model

    def ours() -> Runs:
        model = make().to(DEVICE)
        draw = itertools.cycle([Batch(images) for images in batches[: 2 - model.paired]]).__next__
        training = PlainStep(model.optimizers(1e-3), draw, np.random.default_rng(0))

        def step() -> Any:
            parts = model.training_step(training)
            return np.array([parts[key] for key in TRANSLATED[name]])

        return {"training step": step}

    def theirs() -> dict[str, Callable[[], Runs]]:
        from benchmarks.kernels.torch_translation import translation_steps

        x, y = tasks.outlines(batches[0], 256), batches[1 - make().paired]
        return translation_steps(make, *(images * (2 / 255) - 1 for images in (x, y)))

    flops = {"pix2pix": 155e6, "cyclegan": 2 * 397e6}[name]  # as `tinygen train NAME --dry-run` says
    return Case(f"{name}, 28x28, N {n}", "Training steps", {"training step": n * flops}, ours, theirs, bound=1e-3,
                **options)  # fmt: skip


def diffusion(**options: Any) -> Callable[[], Any]:
    """A diffusion model of 28x28 images, whose weights aren't those that give 0."""

    def make() -> Any:
        rng = np.random.default_rng(0)
        model = model_class("diffusion")((1, 28, 28), 256, eta=0.0, **options, rng=rng)
        for p in model.network.network.parameters():
            if not p.numpy().any():
                p.write()[...] = 0.02 * rng.standard_normal(p.shape)
        model.network.average.load_state_dict(model.network.network.state_dict())
        return model

    return make


def diffusion_step(n: int, **options: Any) -> Case:
    """Diffusion's U-Net of 28x28 images: forward, squared error, backward, Adam, with the same noise and times."""
    make, rng = diffusion(), np.random.default_rng(1)
    x, times, target = make().lesson(rng.uniform(-1, 1, (n, 1, 28, 28)).astype(np.float32), rng)

    def ours() -> Runs:
        model = make().to(DEVICE)
        network, optimizer = model.network.network, optim.Adam(model.parameters(), lr=1e-3)

        def step() -> Any:
            loss = F.mse_loss(network(model.tensor(x), network.time(times)), model.tensor(target))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        return {"training step": step}

    def theirs() -> dict[str, Callable[[], Runs]]:
        from benchmarks.kernels import torch_diffusion

        return torch_diffusion.steps(make, (x, times, target))

    flops = n * 129e6  # as `tinygen train diffusion --dry-run` says
    return Case(f"diffusion, 28x28, N {n}", "Training steps", {"training step": flops}, ours, theirs, bound=1e-3,
                **options)  # fmt: skip


def diffusion_samples(n: int, steps: int, **options: Any) -> Case:
    """Images drawn by diffusion in so many steps without noise on the way."""
    make = diffusion(steps=steps)

    def ours() -> Runs:
        model = make().eval()
        return {"sampling": lambda: model.sample(n, np.random.default_rng(0))}

    def theirs() -> dict[str, Callable[[], Runs]]:
        from benchmarks.kernels import torch_diffusion

        return torch_diffusion.samples(make, n)

    return Case(f"sampling diffusion, {steps} steps, 28x28, N {n}", "Sampling", {"sampling": 0.0}, ours, theirs,
                bound=0.02, **{"reference": False} | options)  # fmt: skip


def sampling(hidden: int, blocks: int, size: int, n: int, levels: int = 256, **options: Any) -> Case:
    """Images drawn from an untrained PixelCNN: what tinygen's sampler costs against the usual loop, ours too."""
    make = pixelcnn(hidden, blocks, levels, size)

    def ours() -> Runs:
        model = make()
        return {"sampling": lambda: model.sample(n, np.random.default_rng(0))}

    def loop() -> Runs:
        model, images = make(), np.zeros((n, 1, size, size), np.uint8)

        def sample() -> Any:
            uniform = np.random.default_rng(0).random((size * size, n))
            with tg.no_grad():
                return model.complete_naively(images, np.zeros(size * size, bool), uniform, 1.0)

        return {"sampling": sample}

    return Case(
        f"sampling PixelCNN, {hidden} channels, {blocks} blocks, {levels}-way, {size}x{size}, N {n}", "Sampling",
        {"sampling": 0.0}, ours, lambda: _torch().pixelcnn_samples(make, hidden, blocks, n),
        bound=0.02, extra={"tinygen, plain loop": loop}, **{"reference": False} | options,
    )  # fmt: skip


def adam(hidden: int, **options: Any) -> Case:
    """One update of a PixelCNN's parameters."""
    shapes = [p.shape for p in pixelcnn(hidden)().parameters()]

    def ours() -> Runs:
        rng = np.random.default_rng(0)
        parameters = [nn.Parameter(placed(rng.standard_normal(s, np.float32))) for s in shapes]
        for p in parameters:
            p.grad = tg.tensor(placed(rng.standard_normal(p.shape, np.float32)))
        optimizer = optim.Adam(parameters)

        def update() -> Any:
            optimizer.step()
            return parameters

        return {"update": update}

    return Case(
        f"Adam, PixelCNN of {hidden} channels", "Optimizer", {"update": 0.0}, ours, lambda: _torch().adam(shapes),
        **{"reference": False} | options,
    )  # fmt: skip


CHAIN = 600  # ops a chain


def chain(name: str, step: Callable[[Any, Any], Any], ops: int = 1, **options: Any) -> Case:
    """Ops in a row on 8x8 arrays, where nearly all time is the library's own: recording, and walking back."""

    def runs(library: Any) -> Runs:
        rng = np.random.default_rng(0)
        a = rng.standard_normal((8, 8), np.float32) * np.float32(0.1)
        b = 1 + a / 100  # so that no product of 600 overflows

        def run() -> Any:
            x, y = (library.tensor(v, requires_grad=True) for v in (a, b))
            z = x
            for _ in range(CHAIN // ops):
                z = step(z, y)
            z.sum().backward()
            return [z, x.grad]

        return {"forward + backward": run}

    return Case(
        f"chain of {CHAIN} on 8x8: {name}", "Overhead of an op", {"forward + backward": 0.0}, lambda: runs(tg),
        lambda: {"usual": lambda: runs(_torch().torch)}, per=CHAIN, threads=False, **options,
    )  # fmt: skip


def importing() -> Case:
    """A Python process that only imports the library."""

    def runs(line: str) -> Runs:
        return {"start + import": lambda: subprocess.run([sys.executable, "-c", line], check=True)}

    return Case(
        "import", "Import", {"start + import": 0.0}, lambda: runs("import tinygen"),
        lambda: {"usual": lambda: runs("import torch")}, threads=False, quick=True, reference=False,
        extra={"Python alone": lambda: runs("pass"), "NumPy": lambda: runs("import numpy")},
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ the table

CASES: list[Case] = [
    masked(32, 32, 3, "B", 28, 64, quick=True),
    masked(64, 64, 3, "B", 28, 64, quick=True, memory=True),
    masked(64, 64, 3, "B", 32, 128),
    masked(128, 128, 3, "B", 28, 16),
    masked(96, 96, 3, "B", 32, 32, channels=3),
    masked(1, 32, 7, "A", 28, 64),
    masked(1, 64, 7, "A", 28, 64, quick=True),
    masked(1, 64, 7, "A", 28, 64, first=True),
    masked(1, 128, 7, "A", 28, 64),
    masked(3, 128, 7, "A", 32, 64),
    masked(3, 96, 7, "A", 32, 64, channels=3, first=True),
    masked(64, 32, 1, "B", 28, 64),
    masked(64, 64, 1, "B", 28, 64, quick=True),
    masked(128, 64, 1, "B", 28, 64),
    masked(64, 128, 1, "B", 28, 64),
    masked(64, 256, 1, "B", 28, 64),
    conv(64, 64, 3, 1, 1, 28, 64, quick=True, memory=True),
    conv(3, 64, 4, 2, 1, 32, 64),
    conv(64, 128, 4, 2, 1, 16, 64, quick=True),
    conv(128, 256, 4, 2, 1, 8, 64),
    conv(256, 512, 4, 2, 1, 8, 64),
    conv(64, 4, 3, 1, 1, 14, 64),
    conv(64, 1, 3, 1, 1, 28, 64),
    transposed(512, 256, 4, 2, 1, 4, 64),
    transposed(256, 128, 4, 2, 1, 8, 64, quick=True, memory=True),
    transposed(128, 64, 4, 2, 1, 16, 64),
    transposed(64, 3, 4, 2, 1, 16, 64, quick=True),
    transposed(64, 1, 4, 2, 1, 14, 64),
    transposed(100, 512, 4, 1, 0, 1, 64),
    linear(784, 512, 128, quick=True),
    linear(512, 784, 128),
    linear(1024, 1024, 256),
    lstm_cells(64, 64, 28, 64, quick=True),
    lstm_cells(128, 128, 28, 64),
    lstm(64, 64, 28, 64),
    lstm(128, 128, 28, 64),
    lstm(256, 256, 28, 64),
    row_lstm(16, 28, 64, quick=True),
    row_lstm(64, 28, 16),
    diagonal_bilstm(16, 28, 64, quick=True, memory=True),
    diagonal_bilstm(64, 28, 16),
    elementwise("tanh", tg.tanh, lambda t: t.torch.tanh, quick=True),
    elementwise("sigmoid", tg.sigmoid, lambda t: t.torch.sigmoid),
    elementwise("exp", tg.exp, lambda t: t.torch.exp),
    elementwise("relu", F.relu, lambda t: t.F.relu, quick=True),
    elementwise("leaky relu", lambda x: F.leaky_relu(x, 0.2), lambda t: lambda x: t.F.leaky_relu(x, 0.2)),
    elementwise("elu", F.elu, lambda t: t.F.elu),
    elementwise("silu", F.silu, lambda t: t.F.silu),
    elementwise("gated activation", F.gated_activation, gated, quick=True),
    elementwise("x + x", lambda x: x + x, lambda t: lambda x: x + x),
    joined(32, 14, 64),
    batch_norm(64, 28, 32),
    batch_norm(256, 8, 64),
    affine_coupling(4, 14, 64, quick=True),
    affine_coupling(8, 7, 64),
    channel_affine(4, 14, 64, quick=True),
    channel_affine(8, 7, 64),
    group_norm(32, 28, 64),
    group_norm(64, 28, 64, quick=True),
    group_norm(64, 14, 64),
    group_norm(128, 14, 64),
    group_norm(128, 7, 64),
    attention(49, 64, 64),
    cross_entropy(256, 28, 32, quick=True),
    cross_entropy(2, 28, 64),
    cross_entropy(10, 1, 1024),
    adam(16),
    adam(64, quick=True),
    training_step(32, 16, quick=True, memory=True, seconds=4),
    training_step(64, 16, quick=True, memory=True, seconds=4),
    training_step(32, 64, seconds=4),
    training_step(64, 64, memory=True, seconds=4),
    training_step(16, 64, levels=2, seconds=4),
    vae_step(32, 64, quick=True, seconds=4),
    gan_step("non-saturating", 64, quick=True, seconds=4),
    gan_step("wgan-gp", 64, seconds=4),
    biggan_step(64, seconds=4),
    flow_step("realnvp", 64, seconds=4),
    flow_step("glow", 64, seconds=4),
    diffusion_step(64, quick=True, seconds=4),
    translation_step("pix2pix", 32, seconds=4),
    translation_step("cyclegan", 32, seconds=4),
    sampling(16, 2, 8, 16, levels=17, quick=True),
    diffusion_samples(64, 10, quick=True, seconds=4),
    sampling(16, 7, 28, 1, levels=2, seconds=4),
    sampling(16, 7, 28, 16, levels=2, seconds=4),
    chain("tanh", lambda z, y: z.tanh()),
    chain("z * 0.99", lambda z, y: z * 0.99),
    chain("z * y", lambda z, y: z * y),
    chain("z + y", lambda z, y: z + y),
    chain("sigmoid", lambda z, y: z.sigmoid()),
    chain("relu", lambda z, y: z.relu()),
    chain("tanh(z * y) + y", lambda z, y: (z * y).tanh() + y, 3, quick=True),
    importing(),
]


@dataclass(frozen=True)
class Growth:
    """How the time of one thing grows with x: a panel of the plot."""

    name: str
    x: str
    values: Sequence[int]
    case: Callable[[int], Case]


GROWTH = [
    Growth("3x3 mask B, 32 -> 32, N 16", "pixels of an image", (64, 256, 1024, 4096),
           lambda x: masked(32, 32, 3, "B", math.isqrt(x), 16, reference=False)),
    Growth("3x3 mask B, 28x28, N 16", "channels", (8, 16, 32, 64, 128),
           lambda x: masked(x, x, 3, "B", 28, 16, reference=False)),
    Growth("3x3 mask B, 32 -> 32, 28x28", "images of a batch", (1, 4, 16, 64),
           lambda x: masked(32, 32, 3, "B", 28, x, reference=False)),
    Growth("training step, PixelCNN, 16 channels, 2 blocks, 17-way", "pixels of an image", (64, 256, 784),
           lambda x: training_step(16, 16, 2, 17, math.isqrt(x), reference=False)),
    Growth("sampling, PixelCNN, 16 channels, 2 blocks, 17-way, N 4", "pixels of an image", (64, 144, 256, 784),
           lambda x: sampling(16, 2, math.isqrt(x), 4, 17)),
]  # fmt: skip
