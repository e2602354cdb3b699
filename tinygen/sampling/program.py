"""From a trace to a program: the network as a list of small steps, in the order in which images are drawn.

`program` sorts the steps of a trace's notes by time and gives every number a place in memory, which numbers share
where one is done with before the next comes. That the logits of each value are there in time proves that the model is
autoregressive. `tinygen.sampling.sampler` runs the steps.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from tinygen.kernels.sample import SAMPLER_LAYERS
from tinygen.sampling.trace import WIDE, Elementwise, Product, Trace


class Program(NamedTuple):
    """A network as csrc/tinygen.h wants it (`tg_sample`); lengths and places count numbers.

    layers (L, 8): kind, n, run, runs, low, high, ld, weights. runs (R, 2). weights: of the network's type. steps
    (S, 4): layer, out, x, y. starts (T + 1,): for T values. places (T,): where the image's values stand. results
    (T, K): where what the network gives for each stands. size: of an image's numbers. constants: the places of the
    trace's constants. mixtures: of how many logistics results are the parameters, for this many colors; 0: logits.
    """

    layers: np.ndarray
    runs: np.ndarray
    weights: np.ndarray
    steps: np.ndarray
    starts: np.ndarray
    places: np.ndarray
    results: np.ndarray
    size: int
    constants: list[slice]
    mixtures: int
    colors: int


def program(trace: Trace) -> Program:
    """The steps of a trace in order. Raises ValueError if a value's logits depend on itself or a later one."""
    values, colors = trace.image.numbers.size, trace.image.shape[2]
    # (1, levels, C, H, W), or of a mixture (1, K, H, W), for all colors of a pixel
    by_color = trace.result[0][:, None].repeat(colors, 1) if trace.mixtures else trace.result[0]
    results = by_color.transpose(2, 3, 1, 0).reshape(values, -1)[trace.order]
    late = trace.time[results].max(1) > np.arange(values)
    if late.any():
        raise ValueError(f"the model isn't autoregressive: value {late.argmax()} would depend on itself or a later one")
    _share_places(trace, results)
    widest = max(b.shape[2] for b in trace.buffers)
    size = _rounded(widest)  # zeros first: for number 0, as many as are ever read in a row
    for buffer in trace.buffers:
        buffer.place, size = size, size + _rounded(buffer.size)
    place = np.zeros(len(trace.time), np.int64)
    for buffer in trace.buffers:
        row, column = np.indices(buffer.shape[:2])
        place[buffer.numbers] = buffer.at(row, column)[..., None] + np.arange(buffer.shape[2])
    steps = _Steps(trace, place, values)
    order, starts = steps.order()
    places = place[trace.image.numbers.ravel()[trace.order]]
    constants = [slice(b.place, b.place + b.values.size) for b in trace.buffers if b.values is not None]
    return Program(
        np.array(steps.layers, np.int64).reshape(-1, 8), np.array(steps.runs, np.int64).reshape(-1, 2),
        np.concatenate([np.zeros(0, trace.dtype), *steps.weights]), order.astype(np.int32, "C"), starts,
        places.astype(np.int32), place[results].astype(np.int32, "C"), size, constants, trace.mixtures, colors,
    )  # fmt: skip


def _rounded(n: int) -> int:
    return -(-n // WIDE) * WIDE


def _share_places(trace: Trace, results: np.ndarray) -> None:
    """Let a buffer's pixels share one place if each has been read for the last time before the next is computed."""
    values, last = len(results), np.zeros(len(trace.time), np.int32)
    last[results] = np.arange(values)[:, None]

    def read(numbers: np.ndarray, time: np.ndarray) -> None:
        now = time < values
        np.maximum.at(last, numbers[now], time[now])

    for note in trace.notes:
        if isinstance(note, Elementwise):
            for operand in (note.x, note.y):
                read(operand, note.time)
            continue
        if not note.source.whole:
            numbers = note.source.numbers[note.row, note.column]
            read(numbers, np.broadcast_to(note.time[:, None], numbers.shape))
        if note.y is not None:
            numbers = note.y[:, None] + np.arange(len(note.bias))
            read(numbers, np.broadcast_to(note.time[:, None], numbers.shape))
    for buffer in trace.buffers:
        first, end = trace.time[buffer.numbers].min(-1).ravel(), last[buffer.numbers].max(-1).ravel()
        order = np.argsort(first, kind="stable")
        order = order[first[order] < values]
        buffer.whole |= buffer.values is not None or bool((end[order][:-1] >= first[order][1:]).any())


class _Steps:
    """The notes of a trace as steps, in places."""

    def __init__(self, trace: Trace, place: np.ndarray, values: int) -> None:
        self.place, self.values = place, values
        self.layers: list[tuple[int, ...]] = []
        self.runs: list[tuple[int, int]] = []
        self.weights: list[np.ndarray] = []
        self._weights = 0
        self._elementwise: dict[tuple[str, int], int] = {}
        self._parts: list[tuple[np.ndarray, ...]] = []  # time, rank, layer, out, x, y
        for note in trace.notes:
            if isinstance(note, Elementwise):
                self.elementwise(note)
            else:
                self.product(note)

    def order(self) -> tuple[np.ndarray, np.ndarray]:
        """Steps (S, 4), and where those of each time begin."""
        table = np.concatenate([np.stack(np.broadcast_arrays(*part), 1) for part in self._parts])
        table = table[table[:, 0] < self.values]
        table = table[np.lexsort((table[:, 1], table[:, 0]))]
        return table[:, 2:], np.searchsorted(table[:, 0], np.arange(self.values + 1))

    def elementwise(self, note: Elementwise) -> None:
        """A step for each stretch of numbers that are known together and lie together in memory."""
        pixels, channels = note.out.shape
        beyond = np.arange(channels)
        places = [np.where(v == 0, beyond, self.place[v]) for v in (note.out, note.x, note.y)]
        begins = np.ones((pixels, channels), bool)
        begins[:, 1:] = np.any([np.diff(p, axis=1) != 1 for p in places] + [np.diff(note.time, axis=1) != 0], axis=0)
        at = np.flatnonzero(begins)
        lengths = np.diff(at, append=begins.size)
        layer = np.zeros_like(at)
        for n in np.unique(lengths).tolist():
            layer[lengths == n] = self._elementwise.setdefault((note.kind, n), len(self.layers))
            if self._elementwise[note.kind, n] == len(self.layers):
                self.layers.append((SAMPLER_LAYERS.index(note.kind), n, 0, 0, 0, n, 0, 0))
        rank = note.rank.repeat(channels)[at]
        self._parts.append((note.time.ravel()[at], rank, layer, *(p.ravel()[at] for p in places)))

    def product(self, note: Product) -> None:
        """A layer, and a step for each pixel. Taps that follow each other in memory are one run."""
        n, run = len(note.bias), len(self.runs)
        for tap in note.taps:
            begin, length = note.source.at(tap.row, tap.column) - note.source.at(0, 0) + tap.channel, len(tap.weight)
            if len(self.runs) > run and sum(self.runs[-1]) == begin:
                begin, length = self.runs[-1][0], self.runs.pop()[1] + length
            self.runs.append((int(begin), length))
        ends = [0, *itertools.chain.from_iterable((a, a + length) for a, length in self.runs[run:])]
        rows = np.concatenate([note.bias[None], *(tap.weight for tap in note.taps)])
        padded = np.zeros((len(rows), _rounded(n)), rows.dtype)
        padded[:, :n] = rows
        kind = SAMPLER_LAYERS.index("linear" if note.y is None else "linear from")
        numbers = kind, n, run, len(self.runs) - run, min(ends), max(ends), padded.shape[1], self._weights
        self.layers.append(numbers)
        self.weights.append(padded.ravel())
        self._weights += padded.size
        out = self.place[note.out]
        y = out if note.y is None else self.place[note.y]
        x = note.source.at(note.row, note.column)
        self._parts.append((note.time, note.rank, np.full(len(out), len(self.layers) - 1), out, x, y))
