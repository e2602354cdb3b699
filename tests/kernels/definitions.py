"""What each kernel computes, written down a second time from csrc/tinygen.h alone: loops over taps and pixels in NumPy.

Nothing here knows how the kernels do it, nor what `tinygen.ops` says. Each function returns what the kernel
writes, in the layout of the header.
"""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np

NONE, A, B = 0, 1, 2  # masks


# --------------------------------------------------------------------------------------------------------- convolution


def keeps(s: SimpleNamespace, i: int, j: int) -> np.ndarray:
    """Which entries of w[i, j], of shape (ci, co), take part."""
    keep = np.ones((s.ci, s.co), bool)
    center = (s.kh // 2, s.kw // 2)
    if s.mask == NONE or (i, j) < center:  # tuples compare in raster order
        return keep
    if (i, j) > center:
        return ~keep
    for c, o in itertools.product(range(s.ci), range(s.co)):
        seen, sees = c // (s.ci // s.groups), o // (s.co // s.groups)
        keep[c, o] = seen < sees if s.mask == A else seen <= sees
    return keep


def all_keeps(s: SimpleNamespace) -> np.ndarray:
    """`keeps` of every tap: (kh, kw, ci, co)."""
    rows = [[keeps(s, i, j) for j in range(s.kw)] for i in range(s.kh)]
    return np.array(rows).reshape(s.kh, s.kw, s.ci, s.co)


def _meetings(s):
    """For each tap the outputs p, q and the inputs y, x that it joins, as grids for indexing [:, rows, columns]."""
    for i, j in itertools.product(range(s.kh), range(s.kw)):
        rows = [(p, y) for p in range(s.oh) if 0 <= (y := p * s.stride_h + i * s.dil_h - s.pad_h) < s.h]
        columns = [(q, x) for q in range(s.ow) if 0 <= (x := q * s.stride_w + j * s.dil_w - s.pad_w) < s.w]
        if rows and columns:
            (p, y), (q, x) = zip(*rows, strict=True), zip(*columns, strict=True)
            yield (i, j), (slice(None), *np.ix_(p, q)), (slice(None), *np.ix_(y, x))


def conv2d(s, x, w, bias):
    y = np.zeros((s.n, s.oh, s.ow, s.co)) + (0 if bias is None else bias)
    for tap, out, image in _meetings(s):
        y[out] += x[image] @ np.where(keeps(s, *tap), w[tap], 0)
    return y


def conv_transpose2d(s, y, w, bias):
    x = np.zeros((s.n, s.h, s.w, s.ci)) + (0 if bias is None else bias)
    for tap, out, image in _meetings(s):
        x[image] += y[out] @ np.where(keeps(s, *tap), w[tap], 0).T
    return x


def conv2d_weight(s, x, gy):
    gw = np.zeros((s.kh, s.kw, s.ci, s.co))
    for tap, out, image in _meetings(s):
        gw[tap] = np.where(keeps(s, *tap), np.einsum("npqc,npqo->co", x[image], gy[out]), 0)
    return gw, gy.sum((0, 1, 2))


# ---------------------------------------------------------------------------------------------------------- recurrence


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _order(s):
    """The pixels (y, x), each after all that it depends on."""
    columns = range(s.w) if s.diagonal >= 0 else reversed(range(s.w))
    return list(itertools.product(range(s.h), columns))


def _sources(s, y, x):
    """The pixel whose h each tap sees."""
    if s.diagonal:
        return [(y - 1, x), (y, x - s.diagonal)]
    return [(y - 1, x + tap - s.taps // 2) for tap in range(s.taps)]


def _before(s, y, x):
    """The pixel whose c goes on here."""
    return (y, x - s.diagonal) if s.diagonal else (y - 1, x)


def _state(s, array, initial, pixel):
    """An array's state at a pixel, the initial one above the first row, None for 0."""
    y, x = pixel
    if 0 <= y < s.h and 0 <= x < s.w:
        return array[:, y, x]
    return initial[x][None] if initial is not None and y == -1 and 0 <= x < s.w else None


def lstm(s, z, u, h0, c0):
    gates, c, h = np.zeros_like(z), *(np.zeros((s.n, s.h, s.w, s.units), z.dtype) for _ in range(2))
    for y, x in _order(s):
        a = z[:, y, x].copy()
        for tap, pixel in enumerate(_sources(s, y, x)):
            if (seen := _state(s, h, h0, pixel)) is not None:
                a += np.tensordot(seen, u[tap], 1)
        i, f, o, g = _sigmoid(a[:, 0]), _sigmoid(a[:, 1]), _sigmoid(a[:, 3]), np.tanh(a[:, 2])
        last = _state(s, c, c0, _before(s, y, x))
        c[:, y, x] = i * g + (0 if last is None else f * last)
        h[:, y, x] = o * np.tanh(c[:, y, x])
        gates[:, y, x] = np.stack([i, f, g, o], 1)
    return gates, c, h


def lstm_backward(s, u, c0, gates, c, gh, gc):
    """gz, gh0, gc0 (None if there is more than one image): every pixel hands its gradient to those that it saw."""
    gz = np.zeros_like(gates)
    gh0, gc0 = (np.zeros((s.w, s.units)) if s.n == 1 else None for _ in range(2))
    gh, gc = (np.zeros_like(c) if g is None else g.copy() for g in (gh, gc))
    for y, x in reversed(_order(s)):
        i, f, g, o = gates[:, y, x].transpose(1, 0, 2)
        last = _state(s, c, c0, _before(s, y, x))
        last = 0 if last is None else last
        t = np.tanh(c[:, y, x])
        dc = gc[:, y, x] + gh[:, y, x] * o * (1 - t * t)
        da = [
            dc * g * i * (1 - i),
            dc * last * f * (1 - f),
            dc * i * (1 - g * g),
            gh[:, y, x] * t * o * (1 - o),
        ]
        gz[:, y, x] = np.stack(da, 1)
        for tap, pixel in enumerate(_sources(s, y, x)):
            if (target := _state(s, gh, gh0, pixel)) is not None:
                target += np.tensordot(gz[:, y, x], u[tap], ((1, 2), (1, 2)))
        if (target := _state(s, gc, gc0, _before(s, y, x))) is not None:
            target += dc * f
    return gz, gh0, gc0


def lstm_weight(s, h, gz):
    gu = np.zeros((s.taps, s.units, 4, s.units))
    for y, x in _order(s):
        for tap, pixel in enumerate(_sources(s, y, x)):
            if (seen := _state(s, h, None, pixel)) is not None:
                gu[tap] += np.tensordot(seen, gz[:, y, x], ((0,), (0,)))
    return gu


# ---------------------------------------------------------------------------------------- elementwise and over rows


def relu(slope, x):
    return np.where(x > 0, x, slope * x)


def relu_backward(slope, gy, y):
    return np.where(y > 0, gy, slope * gy)


def elu(alpha, x):
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def elu_backward(alpha, gy, x):
    return np.where(x > 0, gy, gy * alpha * np.exp(np.minimum(x, 0)))


def logistic_backward(low, gy, y):
    return gy * (1 - y) * (y - low)


def gated(x):
    return np.tanh(x[:, 0]) * _sigmoid(x[:, 1])


def gated_backward(x, gy):
    t, s = np.tanh(x[:, 0]), _sigmoid(x[:, 1])
    return np.stack([gy * s * (1 - t * t), gy * t * s * (1 - s)], 1)


def affine_coupling(x, both, start):
    """x: (n, pixels, channels), both: (n, pixels, 2, k)."""
    k, s = both.shape[3], 2 * np.tanh(both[:, :, 0] / 2)
    y = x.copy()
    y[:, :, start : start + k] = x[:, :, start : start + k] * np.exp(s) + both[:, :, 1]
    return y, s.sum((1, 2))


def affine_coupling_backward(x, both, start, gy, glog_det):
    k, s, slope = both.shape[3], 2 * np.tanh(both[:, :, 0] / 2), 1 / np.cosh(both[:, :, 0] / 2) ** 2
    changed = slice(start, start + k)
    gx, gs = gy.copy(), gy[:, :, changed] * x[:, :, changed] * np.exp(s) + glog_det[:, None, None]
    gx[:, :, changed] *= np.exp(s)
    return gx, np.stack([gs * slope, gy[:, :, changed]], 2)


def channel_affine_backward(x, weight, gy):
    return gy * weight, (gy * x).sum(0), gy.sum(0)


def batch_norm(x, weight, bias, eps):
    mean, var = x.mean(0), x.var(0)
    out = (x - mean) / np.sqrt(var + eps)
    out = out * (1 if weight is None else weight) + (0 if bias is None else bias)
    return out, mean, var


def batch_norm_backward(x, weight, mean, var, eps, gy):
    """By the chain rule through the mean and the variance, one after the other (Ioffe & Szegedy 2015, section 3).

    The variance's gradient to the mean, -2 average(x - mean), is 0 whatever rounding says.
    """
    rows, std, centered = len(x), np.sqrt(var + eps), x - mean
    gout = gy * (1 if weight is None else weight)
    gvar = (gout * centered).sum(0) * -0.5 / std**3
    gmean = -gout.sum(0) / std
    return gout / std + gvar * 2 * centered / rows + gmean / rows, (gy * centered / std).sum(0), gy.sum(0)


def silu(x):
    return x * _sigmoid(x)


def silu_slope(x):
    s = _sigmoid(x)
    return s * (1 + x * (1 - s))


def group_norm(x, shift, weight, bias, groups, eps, after_silu):
    """x: (n, pixels, channels)."""
    x = _shifted(x, shift)
    split = _split(x, groups)
    mean = split.mean((1, 3))
    rstd = 1 / np.sqrt(((split - mean[:, None, :, None]) ** 2).mean((1, 3)) + eps)
    z = _standardized(x, mean, rstd) * (1 if weight is None else weight) + (0 if bias is None else bias)
    return silu(z) if after_silu else z, mean, rstd


def group_norm_backward(x, shift, weight, bias, mean, rstd, gy, after_silu):
    """By the chain rule: through silu, the weight, and a group's standardization."""
    groups, out = mean.shape[1], _standardized(_shifted(x, shift), mean, rstd)
    weight = np.ones(x.shape[2]) if weight is None else weight
    gz = gy * (silu_slope(out * weight + (0 if bias is None else bias)) if after_silu else 1)
    gout, split = (_split(a, groups) for a in (gz * weight, out))
    centered = gout - gout.mean((1, 3), keepdims=True) - split * (gout * split).mean((1, 3), keepdims=True)
    gx = (centered * rstd[:, None, :, None]).reshape(x.shape)
    return gx, gx.sum(1), (gz * out).sum((0, 1)), gz.sum((0, 1))


def _shifted(x, shift):
    return x if shift is None else x + shift[:, None]


def _split(x, groups):
    return x.reshape(*x.shape[:2], groups, x.shape[2] // groups)


def _standardized(x, mean, rstd):
    return ((_split(x, mean.shape[1]) - mean[:, None, :, None]) * rstd[:, None, :, None]).reshape(x.shape)


def attention(q, k, v, scale):
    """p and p v, with p = softmax(scale q k') by rows."""
    s = scale * q @ k.transpose(0, 2, 1)
    e = np.exp(s - s.max(2, keepdims=True))
    p = e / e.sum(2, keepdims=True)
    return p, p @ v


def attention_backward(q, k, v, p, scale, gy):
    """By the chain rule: through the product with v, softmax, and the product of q and k."""
    gp = gy @ v.transpose(0, 2, 1)
    gs = scale * p * (gp - (p * gp).sum(2, keepdims=True))
    return gs @ k, gs.transpose(0, 2, 1) @ q, p.transpose(0, 2, 1) @ gy


def cross_entropy(logits, labels):
    _, total = _exponentials(logits)
    return np.log(total) - (logits[np.arange(len(labels)), labels] - logits.max(1, initial=-np.inf))


def cross_entropy_backward(logits, labels, gloss):
    e, total = _exponentials(logits)
    p = e / total[:, None]
    p[np.arange(len(labels)), labels] -= 1
    return p * gloss[:, None]


def _exponentials(x):
    """exp(x - max x) and its sum, by rows."""
    e = np.exp(x - x.max(1, keepdims=True, initial=-np.inf))
    return e, e.sum(1)


def adam(g, p, m, v, step, lr, beta1, beta2, eps, weight_decay):
    """Kingma & Ba (2015), algorithm 1; the decay is added to the gradient."""
    g = g + weight_decay * p
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
    return p - lr * (m / (1 - beta1**step)) / (np.sqrt(v / (1 - beta2**step)) + eps), m, v


# ------------------------------------------------------------------------------------------------------------ sampling

_ELEMENTWISE = [  # from TG_COPY on
    lambda x, y: x,
    lambda x, y: np.maximum(x, 0),
    lambda x, y: np.where(x > 0, x, np.expm1(x)),
    lambda x, y: np.tanh(x),
    lambda x, y: _sigmoid(x),
    lambda x, y: x + y,
    lambda x, y: x - y,
    lambda x, y: x * y,
    lambda x, y: np.tanh(x) * _sigmoid(y),
]


def sampler_step(state, layers, runs, weights, step):
    """One step for all images."""
    number, out, x, y = step
    kind, n, run, count, _, _, ld, at = layers[number]
    if kind > 1:
        state[:, out : out + n] = _ELEMENTWISE[kind - 2](state[:, x : x + n], state[:, y : y + n])
        return
    seen = [j for a, length in runs[run : run + count] for j in range(x + a, x + a + length)]
    rows = weights[at : at + (1 + len(seen)) * ld].reshape(-1, ld)[:, :n]
    state[:, out : out + n] = (state[:, y : y + n] if kind else rows[0]) + state[:, seen] @ rows[1:]


def sampler_mixture(parameters, before, colors, levels):
    """Logs of the levels' probabilities (n, levels), by the distribution function, given the pixel's colors before.

    parameters (n, K, 1 + 2 colors + colors (colors - 1) / 2); before (n, number of them).
    """
    weight, here, edges = parameters[..., 0], before.shape[1], (2 * np.arange(levels - 1) + 1) / (levels - 1) - 1
    moves = np.tanh(parameters[..., 1 + 2 * colors :])
    for i in range(here + 1):
        own = moves[..., i * (i - 1) // 2 :][..., :i]
        mean = parameters[..., 1 + i] + (own * (before[:, None, :i] * (2 / (levels - 1)) - 1)).sum(2)
        scale = np.exp(parameters[..., 1 + colors + i].clip(-7, 7))
        below = _sigmoid((edges - mean[..., None]) / scale[..., None])
        log_p = np.log(np.diff(below, prepend=0, append=1) + 1e-300)  # (n, K, levels)
        weight = weight + (log_p[np.arange(len(before)), :, before[:, i]] if i < here else 0)
    return np.logaddexp.reduce(weight[..., None] + log_p, 1)


def sampler_cumulative(logits, temperature):
    """The levels' cumulative probabilities (n, levels)."""
    p = np.exp((logits - logits.max(1, keepdims=True, initial=-np.inf)) / temperature)
    return p.cumsum(1) / p.sum(1, keepdims=True)
