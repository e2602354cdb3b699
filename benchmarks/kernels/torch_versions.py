"""PyTorch's side: for each case the versions of it that a PyTorch user could write, the usual one first.

No straw men: where PyTorch can do better than the usual code, that version is here too. The table's "best" is whichever
was fastest, for each row anew. The memory format channels_last is what tinygen's arrays have.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

Runs = dict[str, Callable[[], Any]]
Version = tuple[Callable[..., Any], bool]  # a function of tensors, and whether images are channels_last


def runs(version: Version, inputs: Callable[[], Sequence[np.ndarray]], constants: Sequence[int]) -> Runs:
    """A version on the arrays that inputs() gives, forward, and with backward to all floats but the constants."""
    f, channels_last = version
    tensors = [_tensor(a, channels_last) for a in inputs()]
    leaves = [t for i, t in enumerate(tensors) if t.is_floating_point() and i not in constants]
    for leaf in leaves:
        leaf.requires_grad_()
    shape = f(*tensors).shape
    gradient = _tensor(np.random.default_rng(1).standard_normal(shape, np.float32), channels_last)

    def forward() -> Any:
        with torch.no_grad():
            return f(*tensors)

    def both() -> Any:
        for leaf in leaves:
            leaf.grad = None
        f(*tensors).backward(gradient)
        return [leaf.grad for leaf in leaves]

    return {"forward": forward, "forward + backward": both}


def _tensor(array: np.ndarray, channels_last: bool = False) -> Any:
    tensor = torch.tensor(np.ascontiguousarray(array))
    return tensor.to(memory_format=torch.channels_last) if channels_last and tensor.ndim == 4 else tensor


def both_formats(f: Callable[..., Any]) -> dict[str, Version]:
    """A function on contiguous (NCHW) memory, which is usual, and on channels_last."""
    return {"usual": (f, False), "channels_last": (f, True)}


# ------------------------------------------------------------------------------------------------- masked convolution


def mask(weight_shape: Sequence[int], kind: str, channels: int) -> Any:
    """PixelCNN's mask: 1 for what comes before in raster order; at the center, what `kind` and color groups say."""
    o, i, kh, kw = weight_shape
    m = torch.zeros(o, i, kh, kw)
    m[:, :, : kh // 2] = 1
    m[:, :, kh // 2, : kw // 2] = 1
    outputs, inputs = torch.arange(o)[:, None] * channels // o, torch.arange(i) * channels // i
    m[:, :, kh // 2, kw // 2] = (inputs < outputs) if kind == "A" else (inputs <= outputs)
    return m


def masked_conv2d(weight_shape: Sequence[int], kind: str, channels: int) -> dict[str, Version]:
    """As usually written, conv2d(x, weight * mask); without the rows below the center, which are all masked."""
    m, k = mask(weight_shape, kind, channels), weight_shape[2]

    def usual(x: Any, w: Any, b: Any) -> Any:
        return F.conv2d(x, w * m, b, padding=k // 2)

    def cropped(x: Any, w: Any, b: Any) -> Any:
        return F.conv2d(x, (w * m)[:, :, : k // 2 + 1], b, padding=k // 2)[:, :, : x.shape[2]]

    def padded(x: Any, w: Any, b: Any) -> Any:
        p = k // 2
        return F.conv2d(F.pad(x, (0, 0, p, 0)), (w * m)[:, :, : p + 1], b, padding=(0, p))

    versions = both_formats(usual)
    if k > 1:
        versions |= {"cropped": (cropped, False), "cropped, channels_last": (cropped, True)}
        versions |= {"cropped, padded above, channels_last": (padded, True)}
    return versions | (pointwise() if k == 1 and channels == 1 else {})


def pointwise() -> dict[str, Version]:
    """A 1x1 convolution as the matrix product that it is."""

    def f(x: Any, w: Any, b: Any) -> Any:
        return F.linear(x.permute(0, 2, 3, 1), w[:, :, 0, 0], b).permute(0, 3, 1, 2)

    return {"linear, channels_last": (f, True)}


def cross_entropy() -> dict[str, Version]:
    """Classes on axis 1; and with the classes' logits, contiguous in channels_last, as rows."""

    def rows(x: Any, y: Any) -> Any:
        return F.cross_entropy(x.movedim(1, -1).reshape(-1, x.shape[1]), y.reshape(-1), reduction="none").view(y.shape)

    return both_formats(lambda x, y: F.cross_entropy(x, y, reduction="none")) | {"rows, channels_last": (rows, True)}


# --------------------------------------------------------------------------------------------------------- recurrence


def lstm_cell_loop(x: Any, *weights: Any) -> Any:
    """LSTMCell in a loop over the steps. x: (T, N, I)."""
    h = c = x.new_zeros(x.shape[1], weights[1].shape[1])
    outputs = []
    for step in x:
        h, c = torch.lstm_cell(step, (h, c), *weights)
        outputs.append(h)
    return torch.stack(outputs)


def lstm(x: Any, *weights: Any) -> Any:
    """What nn.LSTM calls."""
    zeros = x.new_zeros(1, x.shape[1], weights[1].shape[1])
    return torch.lstm(x, (zeros, zeros), weights, True, 1, 0.0, torch.is_grad_enabled(), False, False)[0]


def row_lstm() -> dict[str, Version]:
    """A loop over rows; the step from row to row as a convolution, or as one matrix product on channels_last memory."""

    def convolution(z: Any, w: Any) -> Any:
        units, pad = w.shape[1], w.shape[3] // 2
        h = c = None
        rows = []
        for row in z.unbind(2):
            a = row if h is None else row + F.conv1d(h, w[:, :, 0], padding=pad)
            h, c = _gates(a, c, units, 1)
            rows.append(h)
        return torch.stack(rows, 2)

    def product(z: Any, w: Any) -> Any:
        units, k = w.shape[1], w.shape[3]
        matrix = w[:, :, 0].transpose(1, 2).reshape(4 * units, -1)  # (4U, K U)
        h = c = None
        rows = []
        for row in z.permute(2, 0, 3, 1).unbind(0):  # (N, W, 4U)
            if h is None:
                a = row
            else:
                wide = F.pad(h, (0, 0, k // 2, k // 2))
                a = row + F.linear(torch.cat([wide[:, t : t + row.shape[1]] for t in range(k)], 2), matrix)
            h, c = _gates(a, c, units, -1)
            rows.append(h)
        return torch.stack(rows, 1).permute(0, 3, 1, 2)

    return {"usual": (convolution, False), "one product a row, channels_last": (product, True)}


def diagonal_bilstm() -> dict[str, Version]:
    """A loop over the diagonals of the skewed image: each direction by itself; or both in one batched product, on the
    rows that the diagonal really has."""

    def direction(z: Any, w: Any) -> Any:
        units, height = w.shape[1], z.shape[2]
        h = c = None
        steps = []
        for column in _skew(z).unbind(3):  # (N, 4U, H)
            a = column if h is None else column + F.conv1d(F.pad(h, (1, 0)), w[..., 0])
            h, c = _gates(a, c, units, 1)
            steps.append(h)
        return _unskew(torch.stack(steps, 3), height)

    def separate(left: Any, right: Any, w_left: Any, w_right: Any) -> Any:
        return direction(left, w_left) + F.pad(direction(right.flip(3), w_right).flip(3), (0, 0, 1, 0))[:, :, :-1]

    def together(left: Any, right: Any, w_left: Any, w_right: Any) -> Any:
        n, _, height, width = left.shape
        units = w_left.shape[1]
        z = _skew(torch.stack([left, right.flip(3)])).permute(4, 0, 3, 1, 2).contiguous()  # (steps, 2, H, N, 4U)
        matrix = torch.stack([w_left, w_right])[..., 0].permute(0, 3, 2, 1).reshape(2, 2 * units, 4 * units)
        h = c = z.new_zeros(2, height + 1, n, units)  # row y at y + 1
        steps = []
        for d, column in enumerate(z.unbind(0)):
            start, stop = max(0, d - width + 1), min(height, d + 1)
            seen = torch.cat([h[:, start:stop], h[:, start + 1 : stop + 1]], 3).view(2, -1, 2 * units)
            a = column[:, start:stop] + torch.bmm(seen, matrix).view(2, stop - start, n, 4 * units)
            new_h, new_c = _gates(a, c[:, start + 1 : stop + 1], units, -1)
            h, c = (F.pad(x, (0, 0, 0, 0, start + 1, height - stop)) for x in (new_h, new_c))
            steps.append(h[:, 1:])
        out = _unskew(torch.stack(steps, 0).permute(1, 3, 4, 2, 0), height)  # (2, N, U, H, W)
        return out[0] + F.pad(out[1].flip(3), (0, 0, 1, 0))[:, :, :-1]

    return {"usual": (separate, False), "both directions in one product": (together, False)}


def _gates(a: Any, c: Any, units: int, dim: int) -> tuple[Any, Any]:
    """The next h and c from gates i, f, g, o along an axis; c None: zeros."""
    if_, g, o = a.split([2 * units, units, units], dim)
    i, f = torch.sigmoid(if_).chunk(2, dim)
    c = i * torch.tanh(g) if c is None else torch.addcmul(f * c, i, torch.tanh(g))
    return torch.sigmoid(o) * torch.tanh(c), c


def _skew(z: Any) -> Any:
    """Row y moved right by y: (..., H, W) -> (..., H, H + W - 1)."""
    height, width = z.shape[-2:]
    return F.pad(z, (0, height)).flatten(-2)[..., :-height].unflatten(-1, (height, height + width - 1))


def _unskew(z: Any, height: int) -> Any:
    steps = z.shape[-1]
    return F.pad(z.flatten(-2), (0, height)).unflatten(-1, (height, steps + 1))[..., : steps + 1 - height]


# ------------------------------------------------------------------------------------------------------- whole models


class MaskedConv2d(nn.Conv2d):
    """A convolution with mask in one of `masked_conv2d`'s versions."""

    def __init__(self, inputs: int, outputs: int, k: int, kind: str, channels: int, version: str) -> None:
        super().__init__(inputs, outputs, k, padding=k // 2)
        shape, dense = (outputs, inputs, k, k), k == 1 and channels == 1 and version != "usual"
        self.function = F.conv2d if dense else masked_conv2d(shape, kind, channels)[version if k > 1 else "usual"][0]

    def forward(self, x: Any) -> Any:
        return self.function(x, self.weight, self.bias)


class ResidualBlock(nn.Module):
    def __init__(self, conv: Callable[..., nn.Module], h: int) -> None:
        super().__init__()
        relu = nn.ReLU
        self.layers = nn.Sequential(
            relu(), conv(2 * h, h, 1, "B"), relu(), conv(h, h, 3, "B"), relu(), conv(h, 2 * h, 1, "B")
        )

    def forward(self, x: Any) -> Any:
        return x + self.layers(x)


class PixelCNN(nn.Module):
    """tinygen.models.autoregressive.pixelcnn.PixelCNN layer by layer, with its weights."""

    def __init__(self, model: Any, hidden: int, blocks: int, version: str, channels_last: bool) -> None:
        super().__init__()
        (c, _, _), h = model.image_shape, hidden

        def conv(inputs: int, outputs: int, k: int, kind: str) -> nn.Module:
            return MaskedConv2d(inputs, outputs, k, kind, c, version)

        self.layers = nn.Sequential(
            conv(c, 2 * h, 7, "A"), *(ResidualBlock(conv, h) for _ in range(blocks)),
            nn.ReLU(), conv(2 * h, 2 * h, 1, "B"), nn.ReLU(), conv(2 * h, c * model.levels, 1, "B"),
        )  # fmt: skip
        weights = map(torch.tensor, map(np.array, model.state_dict().values()))
        self.load_state_dict(dict(zip(self.state_dict(), weights, strict=True)))  # in the same order
        if channels_last:
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.levels, self.channels_last = model.levels, channels_last

    def forward(self, images: Any) -> Any:
        """Images (N, C, H, W) uint8 -> logits (N, C, levels, H, W)."""
        x = images.float() * (2 / (self.levels - 1)) - 1
        if self.channels_last:
            x = x.to(memory_format=torch.channels_last)
        return self.layers(x).unflatten(1, (-1, self.levels))

    def nats(self, images: Any) -> Any:
        """-log p, the sum over pixels, the mean over images."""
        logits, target = self(images), images.long()
        if self.channels_last:  # one row a value, without a copy
            logits, target = logits.movedim(2, -1).reshape(-1, self.levels), target.reshape(-1)
        else:
            logits = logits.transpose(1, 2)
        return F.cross_entropy(logits, target, reduction="sum") / len(images)


_NETWORKS = {  # version of the masked convolutions, channels_last, compiled, settings of Adam
    "usual": ("usual", False, False, {}),
    "channels_last, fused Adam": ("usual", True, False, {"fused": True}),
    "cropped, fused Adam": ("cropped", False, False, {"fused": True}),
    "cropped, channels_last, fused Adam": ("cropped", True, False, {"fused": True}),
    "torch.compile, channels_last, fused Adam": ("usual", True, True, {"fused": True}),
}


def pixelcnn_steps(
    make: Callable[[], Any], hidden: int, blocks: int, images: np.ndarray
) -> dict[str, Callable[[], Runs]]:
    """Training steps of the network in tinygen model `make()`: forward, loss, backward, Adam."""

    def build(version: str, channels_last: bool, compiled: bool, settings: dict[str, Any]) -> Runs:
        net = PixelCNN(make(), hidden, blocks, version, channels_last)
        return _steps(net, (torch.tensor(images),), compiled, settings)

    return {name: functools.partial(build, *arguments) for name, arguments in _NETWORKS.items()}


def _steps(net: Any, batch: Sequence[Any], compiled: bool, settings: dict[str, Any]) -> Runs:
    """Forward, `net.nats(*batch)`, backward, Adam."""
    optimizer = torch.optim.Adam(net.parameters(), **settings)
    nats = torch.compile(net.nats) if compiled else net.nats
    if compiled:
        nats(*batch).backward()  # compiles both passes now: what doesn't work here fails here

    def step() -> Any:
        loss = nats(*batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return {"training step": step}


class VAE(nn.Module):
    """tinygen.models.vae.vae.VAE with convolutions and a Bernoulli likelihood, layer by layer, with its weights."""

    def __init__(self, model: Any, channels_last: bool) -> None:
        super().__init__()
        self.encoder, self.decoder = (_converted(m) for m in (model.encoder, model.decoder))
        self.load_state_dict({k: torch.tensor(np.array(v)) for k, v in model.state_dict().items()})
        if channels_last:
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.channels_last = channels_last

    def nats(self, images: Any, noise: Any) -> Any:
        """-ELBO, the mean over images."""
        target = images.float()
        x = target * 2 - 1
        if self.channels_last:
            x = x.to(memory_format=torch.channels_last)
        mean, log_var = self.encoder(x).flatten(1).chunk(2, 1)
        z = mean + noise * torch.exp(log_var / 2)
        logits = self.decoder(z[:, :, None, None])
        kl = 0.5 * (log_var.exp() + mean * mean - 1 - log_var).sum()
        return (F.binary_cross_entropy_with_logits(logits, target, reduction="sum") + kl) / len(images)


def _converted(layers: Any) -> nn.Sequential:
    """tinygen's layers as PyTorch's; what brings images into rows and back has no counterpart."""
    found: list[nn.Module] = []
    for layer in layers:
        name = type(layer).__name__
        if name in ("Conv2d", "ConvTranspose2d"):
            settings = {k: layer.settings[k] for k in ("stride", "padding")}
            settings["bias"] = layer.bias is not None
            found.append(getattr(nn, name)(layer.in_channels, layer.out_channels, layer.kernel_size, **settings))
        elif name == "BatchNorm2d":
            found.append(nn.BatchNorm2d(layer.num_features))
        elif name == "LeakyReLU":
            found.append(nn.LeakyReLU(**layer.settings))
        else:
            found.append(getattr(nn, name)() if name in ("ReLU", "Tanh") else nn.Identity())
    return nn.Sequential(*found)


_STEPS = {  # channels_last, compiled, settings of Adam
    "usual": (False, False, {}),
    "fused Adam": (False, False, {"fused": True}),
    "channels_last, fused Adam": (True, False, {"fused": True}),
    "torch.compile, fused Adam": (False, True, {"fused": True}),
    "torch.compile, channels_last, fused Adam": (True, True, {"fused": True}),
}


def vae_steps(make: Callable[[], Any], images: np.ndarray, noise: np.ndarray) -> dict[str, Callable[[], Runs]]:
    """Training steps of the convolutional VAE `make()`: forward, -ELBO, backward, Adam. noise: (N, latent)."""

    def build(channels_last: bool, compiled: bool, settings: dict[str, Any]) -> Runs:
        batch = torch.tensor(images), torch.tensor(noise)
        return _steps(VAE(make(), channels_last), batch, compiled, settings)

    return {name: functools.partial(build, *arguments) for name, arguments in _STEPS.items()}


def gan_steps(
    make: Callable[[], Any], images: np.ndarray, noise: np.ndarray, mix: np.ndarray
) -> dict[str, Callable[[], Runs]]:
    """Training steps of the DCGAN `make()`, both players' with Adam. noise: (N, latent, 1, 1), mix: (N,).

    As PyTorch's tutorial has it, what is generated once serves both players; and the discriminator's weights get no
    gradients in the generator's step. torch.compile has no double backward, so none of its versions has a penalty.
    """
    penalized = bool(make().pair.objective.weight)

    def build(channels_last: bool, compiled: bool, settings: dict[str, Any]) -> Runs:
        pair = make().pair
        g, d = _player(pair.generator, channels_last), _player(pair.discriminator, channels_last)
        on_g, on_d = (torch.optim.Adam(net.parameters(), 2e-4, pair.objective.betas, **settings) for net in (g, d))
        z, pixels, m = torch.tensor(noise), torch.tensor(images), torch.tensor(mix, dtype=torch.float32)

        def d_loss(x: Any, fake: Any) -> Any:
            real, fakes = d(x).flatten(), d(fake).flatten()
            if not penalized:
                return F.softplus(-real).mean() + F.softplus(fakes).mean()
            between = torch.lerp(fake, x, m[:, None, None, None]).requires_grad_()
            (slope,) = torch.autograd.grad(d(between).sum(), between, create_graph=True)
            return fakes.mean() - real.mean() + 10 * ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()

        def g_loss(fake: Any) -> Any:
            scores = d(fake).flatten()
            return -scores.mean() if penalized else F.softplus(-scores).mean()

        made, of_d, of_g = (torch.compile(f) if compiled else f for f in (g, d_loss, g_loss))
        if compiled:  # what doesn't work here fails here
            (of_d(pixels.float(), made(z).detach()) + of_g(made(z))).backward()

        def step() -> Any:
            for _ in range(pair.steps):
                fake = made(z)
                on_d.zero_grad()
                lost = of_d(pixels.float() * (2 / 255) - 1, fake.detach())
                lost.backward()
                on_d.step()
            on_g.zero_grad()
            d.requires_grad_(False)
            deceived = of_g(fake)
            deceived.backward()
            on_g.step()
            d.requires_grad_(True)
            return torch.stack([lost.detach(), deceived.detach()])

        return {"training step": step}

    chosen = {name: arguments for name, arguments in _STEPS.items() if not (penalized and arguments[1])}
    return {name: functools.partial(build, *arguments) for name, arguments in chosen.items()}


def _player(net: Any, channels_last: bool) -> Any:
    """One of tinygen's players in PyTorch, with its weights."""
    player = _converted(net)
    player.load_state_dict({k: torch.tensor(np.array(v)) for k, v in net.state_dict().items()})
    return player.to(memory_format=torch.channels_last) if channels_last else player


def pixelcnn_samples(make: Callable[[], Any], hidden: int, blocks: int, n: int) -> dict[str, Callable[[], Runs]]:
    """Sampling as usually written, the whole network once for each position; and with what is known remembered."""

    def build(version: str, channels_last: bool) -> Runs:
        model = make()
        net = PixelCNN(model, hidden, blocks, version, channels_last)
        channels, height, width = model.image_shape

        def sample() -> Any:
            rng = np.random.default_rng(0)
            x = torch.zeros((n, channels, height, width), dtype=torch.uint8)
            with torch.no_grad():
                for row in range(height):
                    for column in range(width):
                        for channel in range(channels):
                            p = net(x)[:, channel, :, row, column].double().softmax(1).cumsum(1)
                            u = torch.from_numpy(rng.random(n))[:, None]
                            x[:, channel, row, column] = (p <= u * p[:, -1:]).sum(1)
            return x

        return {"sampling": sample}

    return {
        "usual": lambda: build("usual", False),
        "channels_last": lambda: build("usual", True),
        "cropped": lambda: build("cropped", False),
        "cached loop": lambda: {"sampling": cached_sampler(make(), hidden, blocks, n)},
    }


def cached_sampler(model: Any, hidden: int, blocks: int, n: int) -> Callable[[], Any]:
    """PixelCNN on gray images, pixel by pixel: each convolution is a product with the pixels that it saw before."""
    net = PixelCNN(model, hidden, blocks, "usual", False)
    (_, height, width), levels = model.image_shape, model.levels
    caches: list[Any] = []

    def layer(conv: Any) -> Callable[[Any, int, int], Any]:
        o, i, k, _ = conv.weight.shape
        side, bias = k // 2, conv.bias.detach()
        taps = k * side + side + (i > 1)  # those before the center; mask B: the center too
        weight = conv.weight.detach().permute(0, 2, 3, 1).reshape(o, -1)[:, : taps * i].contiguous()
        if k == 1:
            return lambda x, row, column: F.linear(x, weight, bias)
        cache = torch.zeros(n, height + side, width + 2 * side, i)
        caches.append(cache)

        def forward(x: Any, row: int, column: int) -> Any:
            here = cache[:, row + side]
            if i > 1:
                here[:, column + side] = x
            above = cache[:, row : row + side, column : column + k].reshape(n, -1)
            left = here[:, column : column + side + (i > 1)].reshape(n, -1)
            return F.linear(torch.cat([above, left], 1), weight, bias)

        return forward

    first, *rest = net.layers
    into, image = layer(first), caches[0]
    body = [[layer(m) for m in b.layers if isinstance(m, nn.Conv2d)] for b in rest if isinstance(b, ResidualBlock)]
    head = [layer(m) for m in rest if isinstance(m, nn.Conv2d)]

    @torch.inference_mode()
    def sample() -> Any:
        rng = np.random.default_rng(0)
        x = torch.zeros((n, 1, height, width), dtype=torch.uint8)
        for cache in caches:
            cache.zero_()
        for row in range(height):
            for column in range(width):
                y = into(None, row, column)
                for block in body:
                    z = y
                    for convolution in block:
                        z = convolution(torch.relu(z), row, column)
                    y = y + z
                for convolution in head:
                    y = convolution(torch.relu(y), row, column)
                p = y.double().softmax(1).cumsum(1)
                u = torch.from_numpy(rng.random(n))[:, None]
                x[:, 0, row, column] = level = (p <= u * p[:, -1:]).sum(1)
                image[:, row + 3, column + 3, 0] = level * (2 / (levels - 1)) - 1
        return x

    return sample


def adam(shapes: Sequence[Sequence[int]]) -> dict[str, Callable[[], Runs]]:
    """One update of parameters of these shapes: the default, and the fused one."""

    def build(**settings: Any) -> Runs:
        rng = np.random.default_rng(0)
        parameters = [nn.Parameter(_tensor(rng.standard_normal(s, np.float32))) for s in shapes]
        for p in parameters:
            p.grad = _tensor(rng.standard_normal(p.shape, np.float32))
        optimizer = torch.optim.Adam(parameters, **settings)

        def update() -> Any:
            optimizer.step()
            return parameters

        return {"update": update}

    return {"usual": lambda: build(), "foreach": lambda: build(foreach=True), "fused": lambda: build(fused=True)}
