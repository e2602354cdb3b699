"""LSTMs against PyTorch: cell, sequence, Row LSTM and Diagonal BiLSTM; values, first and second derivatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygen
from tinygen import nn
from tinygen._tensor import leaf
from tinygen.nn import functional as F

sizes = st.integers(1, 7)
dtypes = st.sampled_from([np.float32, np.float64])
seeds = st.integers(0, 2**32 - 1)
FEW = settings(max_examples=40)
FEWER = settings(max_examples=15)


def agree(got, want):
    got, want = np.asarray(got), np.asarray(want)
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    bound = 200 * np.finfo(want.dtype).eps * max(1.0, float(np.abs(want).max(initial=0)))
    np.testing.assert_allclose(got, want, rtol=0, atol=bound)


def pair_of(ours, theirs, seed, dtype):
    """PyTorch's layer with random weights, and ours with the same ones."""
    ours, theirs = ours.to(dtype), theirs.to(getattr(torch, np.dtype(dtype).name))
    rng = np.random.default_rng(seed)
    state = {name: rng.standard_normal(p.shape).astype(dtype) for name, p in theirs.named_parameters()}
    theirs.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
    ours.load_state_dict({name: value.detach().numpy() for name, value in theirs.state_dict().items()})
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    return ours, theirs


def compare(run, ours, theirs, arrays, seed):
    """Outputs, and the gradients of all arrays and parameters. run(layer, *tensors) -> a tuple of tensors."""
    mine, other = [leaf(np.array(a), True) for a in arrays], [torch.tensor(a, requires_grad=True) for a in arrays]
    got, want = run(ours, *mine), run(theirs, *other)
    rng = np.random.default_rng(seed)
    upstream = [rng.standard_normal(w.shape).astype(w.detach().numpy().dtype) for w in want]
    for g, w in zip(got, want, strict=True):
        agree(g.numpy(), w.detach().numpy())
    got_grads = tinygen.grad(got, [*mine, *ours.parameters()], upstream)
    inputs = [*other, *theirs.parameters()]
    want_grads = torch.autograd.grad(want, inputs, list(map(torch.tensor, upstream)), materialize_grads=True)
    for g, w in zip(got_grads, want_grads, strict=True):
        agree(g.numpy(), w.numpy())


@given(sizes, sizes, sizes, st.booleans(), dtypes, seeds)
@FEW
def test_lstm_cell(n, inputs, hidden, bias, dtype, seed):
    ours, theirs = pair_of(
        nn.LSTMCell(inputs, hidden, bias, rng=np.random.default_rng(0)),
        torch.nn.LSTMCell(inputs, hidden, bias), seed, dtype)  # fmt: skip
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(s).astype(dtype) for s in ((n, inputs), (n, hidden), (n, hidden))]
    compare(lambda layer, x, h, c: layer(x, (h, c)), ours, theirs, arrays, seed)
    compare(lambda layer, x: _three_steps(layer, x), ours, theirs, arrays[:1], seed)


def _three_steps(layer, x):
    state = None
    for k in range(3):
        state = layer(x * (0.5 * k), state)
    return state


@given(sizes, sizes, sizes, sizes, st.integers(1, 3), st.booleans(), st.booleans(), st.booleans(), st.booleans(),
       dtypes, seeds)  # fmt: skip
@FEW
def test_lstm(steps, n, inputs, hidden, layers, bidirectional, bias, batch_first, states, dtype, seed):
    settings = {"num_layers": layers, "bidirectional": bidirectional, "bias": bias, "batch_first": batch_first}
    ours, theirs = pair_of(
        nn.LSTM(inputs, hidden, **settings, rng=np.random.default_rng(0)),
        torch.nn.LSTM(inputs, hidden, **settings), seed, dtype)  # fmt: skip
    rng = np.random.default_rng(seed)
    shapes = [
        (n, steps, inputs) if batch_first else (steps, n, inputs),
        *[(layers * (1 + bidirectional), n, hidden)] * (2 * states),
    ]

    def run(layer, x, *state):
        output, (h, c) = layer(x, state or None)
        return output, h, c

    compare(run, ours, theirs, [rng.standard_normal(s).astype(dtype) for s in shapes], seed)


def test_dropout_is_between_the_layers_in_training_alone():
    rng = np.random.default_rng
    x = leaf(rng(0).standard_normal((4, 2, 3), np.float32))
    dropped, plain = (nn.LSTM(3, 5, 2, dropout=p, rng=rng(1)) for p in (0.5, 0.0))
    plain.load_state_dict(dropped.state_dict())
    h = plain(x)[0].numpy()
    assert abs(dropped(x)[0].numpy() - h).max() > 1e-3
    np.testing.assert_array_equal(dropped.eval()(x)[0].numpy(), h)
    one, alone = (nn.LSTM(3, 5, dropout=p, rng=rng(1)) for p in (0.5, 0.0))  # no layer after it: nothing is dropped
    np.testing.assert_array_equal(one(x)[0].numpy(), alone(x)[0].numpy())


@pytest.mark.parametrize("name", ["cell", "sequence"])
def test_second_derivatives(name):
    """The gradient of the squared gradient norm: what gradient penalties need."""
    kinds = (nn.LSTMCell, torch.nn.LSTMCell) if name == "cell" else (nn.LSTM, torch.nn.LSTM)
    ours, theirs = pair_of(kinds[0](3, 4, rng=np.random.default_rng(0)), kinds[1](3, 4), 0, np.float64)
    x = np.random.default_rng(1).standard_normal((5, 2, 3))
    results = []
    for layer, t, grad in ((ours, leaf(x, True), tinygen.grad), (theirs, torch.tensor(x, requires_grad=True),
                                                                   torch.autograd.grad)):  # fmt: skip
        if name == "cell":
            h = c = None
            for k in range(5):
                h, c = layer(t[k], None if h is None else (h, c))
            output = h * c
        else:
            output = layer(t)[0]
        (g,) = grad((output * output).sum(), t, create_graph=True)
        results.append([g, *grad((g * g).sum(), [t, *layer.parameters()])])
    for got, want in zip(*results, strict=True):
        agree(got.numpy(), want.detach().numpy())


# -------------------------------------------------------------------------------- PixelRNN's, as the paper writes them


def _cell(a, c):
    """h and c from the sums of the gates, which are on the last axis."""
    i, f, g, o = a.chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def row_lstm(z, weight):
    """Row by row, the state-to-state part by PyTorch's own convolution. z: (N, 4U, H, W)."""
    n, channels, _, width = z.shape
    h = c = z.new_zeros(n, channels // 4, width)
    rows = []
    for y in range(z.shape[2]):
        a = z[:, :, y] + torch.nn.functional.conv1d(h, weight[:, :, 0], padding=weight.shape[3] // 2)
        h, c = (s.transpose(1, 2) for s in _cell(a.transpose(1, 2), c.transpose(1, 2)))
        rows.append(h)
    return torch.stack(rows, 2)


def diagonal_lstm(z, weight):
    """On the skewed image, in which every row is moved one pixel to the right of the one above; then back."""
    n, channels, height, width = z.shape
    skewed = torch.stack([torch.nn.functional.pad(z[:, :, y], (y, height - 1 - y)) for y in range(height)], 2)
    inside = torch.stack([torch.nn.functional.pad(z.new_ones(width), (y, height - 1 - y)) for y in range(height)])
    h = c = z.new_zeros(n, channels // 4, height)
    columns = []
    for d in range(height + width - 1):
        padded = torch.nn.functional.pad(h, (1, 0))  # the pixel above comes first, the one on the left second
        a = skewed[..., d] + torch.nn.functional.conv1d(padded, weight[..., 0])
        h, c = (s.transpose(1, 2) * inside[:, d] for s in _cell(a.transpose(1, 2), c.transpose(1, 2)))
        columns.append(h)
    out = torch.stack(columns, -1)
    return torch.stack([out[:, :, y, y : y + width] for y in range(height)], 2)


def diagonal_bilstm(left, right, weight_left, weight_right):
    """Both halves, the second mirrored, and moved down by one row."""
    second = diagonal_lstm(right.flip(3), weight_right).flip(3)
    return diagonal_lstm(left, weight_left) + torch.nn.functional.pad(second, (0, 0, 1, 0))[:, :, :-1]


sides = st.integers(1, 4)


@given(sides, sides, sides, sides, st.sampled_from([1, 3, 5]), dtypes, seeds)
@FEWER
def test_row_lstm(n, height, width, units, taps, dtype, seed):
    compare_functions(
        F.row_lstm, row_lstm, [(n, 4 * units, height, width), (4 * units, units, 1, taps)], dtype, seed)  # fmt: skip


@given(sides, sides, sides, sides, dtypes, seeds)
@FEWER
def test_diagonal_bilstm(n, height, width, units, dtype, seed):
    image, weight = (n, 4 * units, height, width), (4 * units, units, 2, 1)
    compare_functions(F.diagonal_lstm, diagonal_lstm, [image, weight], dtype, seed)
    compare_functions(F.diagonal_bilstm, diagonal_bilstm, [image, image, weight, weight], dtype, seed)


def compare_functions(ours, theirs, shapes, dtype, seed):
    """Values, gradients, and in float64 the gradients of the gradients."""
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(s).astype(dtype) for s in shapes]
    mine, other = [leaf(a, True) for a in arrays], [torch.tensor(a, requires_grad=True) for a in arrays]
    got, want = ours(*mine), theirs(*other)
    agree(got.numpy(), want.detach().numpy())
    upstream = rng.standard_normal(want.shape).astype(dtype)
    second = dtype is np.float64
    got_grads = tinygen.grad(got, mine, upstream, create_graph=second)
    want_grads = torch.autograd.grad(want, other, torch.tensor(upstream), create_graph=second, materialize_grads=True)
    for g, w in zip(got_grads, want_grads, strict=True):
        agree(g.numpy(), w.detach().numpy())
    if second:
        got_grads = tinygen.grad(sum((g * g).sum() for g in got_grads), mine)
        want_grads = torch.autograd.grad(sum((g * g).sum() for g in want_grads), other, materialize_grads=True)
        for g, w in zip(got_grads, want_grads, strict=True):
            agree(g.numpy(), w.numpy())
