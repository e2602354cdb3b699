"""One number of an op's output, worked out: the products that it is a sum of, the largest by themselves."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tinygen._tensor import Tensor
from tinygen.array import moved
from tinygen.tape import Call

SHOWN = 12  # terms by themselves


class Term(NamedTuple):
    """A product: weight times input."""

    label: str
    weight: float
    input: float

    @property
    def product(self) -> float:
        """What it adds to the sum."""
        return self.weight * self.input


class Terms(NamedTuple):
    """value = start + the terms + rest.

    left_out: how many weights a mask leaves out, which are no terms.
    """

    place: str
    start: list[tuple[str, float]]  # bias and skip connection, where there are any
    terms: list[Term]
    rest: float
    others: int  # terms in the rest
    left_out: int
    value: float  # of the output, as the op gave it


def worked_out(call: Call, out: Any) -> Terms | None:
    """The middle number of the output of a convolution or a linear layer; None of other ops.

    The sum is computed in float64 from the op's definition; the output is the kernel's.
    """
    if call.op.name not in ("conv2d", "linear") or out.size == 0:
        return None
    given = dict(zip(call.op.names, call.inputs, strict=False))
    array = {name: _values(given.get(name)) for name in ("x", "input", "weight", "bias", "add")}
    if call.op.name == "linear":
        return _linear(array["input"], array["weight"], array["bias"], np.asarray(moved(out, np)))
    return _conv(given, array, np.asarray(moved(out, np)))


def _values(value: Any) -> Any:
    array = value._array if isinstance(value, Tensor) else value
    return np.asarray(moved(array, np)) if hasattr(array, "shape") else None


def _linear(x: np.ndarray, weight: np.ndarray, bias: Any, out: np.ndarray) -> Terms:
    """Of the first row the middle output."""
    o, row = len(weight) // 2, x.reshape(-1, x.shape[-1])[0]
    terms = [Term(f"input {i}", float(w), float(v)) for i, (w, v) in enumerate(zip(weight[o], row, strict=True))]
    start = [] if bias is None else [("bias", float(bias[o]))]
    return _sorted(f"output {o} of the first row", start, terms, 0, float(out.reshape(-1, len(weight))[0, o]))


def _conv(given: dict[str, Any], array: dict[str, Any], out: np.ndarray) -> Terms | None:
    """Of the first image, channel 0, the middle pixel."""
    geometry, weight, x = given["geometry"], array["weight"], array["x"]
    if geometry.groups > 1 or out.ndim != 4:
        return None
    row, column = out.shape[2] // 2, out.shape[3] // 2
    (ph, pw), terms, kept = geometry.padding, [], 0
    padded = np.pad(x[0].astype(np.float64), ((0, 0), (ph, ph), (pw, pw)))
    for (i, j), _, keep in geometry.taps(weight.shape, out.shape[2:]):
        inputs = range(weight.shape[1]) if keep is None else np.flatnonzero(keep[0])
        r, c = (
            row * geometry.stride[0] + i * geometry.dilation[0],
            column * geometry.stride[1] + j * geometry.dilation[1],
        )
        kept += len(inputs)
        for k in inputs:
            value = max(padded[k, r, c], 0.0) if given["relu"] else padded[k, r, c]
            terms.append(Term(f"row {r - ph}, column {c - pw}, channel {k}", float(weight[0, k, i, j]), float(value)))
    start = [] if array["bias"] is None else [("bias", float(array["bias"][0]))]
    start += [] if array["add"] is None else [("skip connection", float(array["add"][0, 0, row, column]))]
    place = f"image 0, channel 0, row {row}, column {column}"
    return _sorted(place, start, terms, weight[0].size - kept, float(out[0, 0, row, column]))


def _sorted(place: str, start: list[tuple[str, float]], terms: list[Term], left_out: int, value: float) -> Terms:
    by_size = sorted(terms, key=lambda t: -abs(t.product))
    rest = sum(t.product for t in by_size[SHOWN:])
    return Terms(place, start, by_size[:SHOWN], rest, len(by_size[SHOWN:]), left_out, value)
