"""The mathematics: everything that can be differentiated. Network functions are in `tinygen.nn.functional`.

Importing this package gives Tensor its operators and methods: they are these ops.
"""

from typing import Any

from tinygen._tensor import Tensor as _Tensor
from tinygen.ops.conv import conv2d, conv2d_weight, conv_transpose2d
from tinygen.ops.device import device, new_tensor, to
from tinygen.ops.activations import elu, erf, leaky_relu, relu, sigmoid, silu, softplus, tanh
from tinygen.ops.elementwise import (
    abs, add, clamp, cos, div, eq, exp, expm1, ge, gt, le, log, log1p, lt, maximum, minimum, mul, ne, neg, pow, sign,
    sin, sqrt, sub, where,
)  # fmt: skip
from tinygen.ops.linalg import linear, matmul
from tinygen.ops.nade import nade
from tinygen.ops.reduce import amax, argmax, cumsum, log_softmax, logsumexp, mean, softmax, sum
from tinygen.ops.shape import (
    broadcast_to, cat, flip, gather, getitem, index_add, pad, permute, reshape, scatter_add, stack, sum_to,
    transpose,
)  # fmt: skip


def _attach() -> None:
    operators: dict[str, Any] = {"add": add, "sub": sub, "mul": mul, "truediv": div, "matmul": matmul}
    for name, op in operators.items():
        setattr(_Tensor, f"__{name}__", op)
        setattr(_Tensor, f"__r{name}__", lambda a, b, op=op: op(b, a))
    for op in (gt, ge, lt, le, eq, ne, getitem, pow, neg):
        setattr(_Tensor, f"__{op.__name__}__", op)
    for op in (
        abs, amax, argmax, clamp, cos, cumsum, erf, exp, expm1, flip, gather, log, log1p, log_softmax, logsumexp, mean,
        new_tensor, relu, sigmoid, sign, sin, softmax, sqrt, sum, tanh, to, transpose,
    ):  # fmt: skip
        setattr(_Tensor, op.__name__, op)
    # PyTorch takes these either as one tuple or as several numbers.
    shapes: dict[str, Any] = {"reshape": reshape, "permute": permute, "expand": broadcast_to}
    for name, op in shapes.items():
        setattr(_Tensor, name, lambda a, *n, op=op: op(a, n[0] if len(n) == 1 and isinstance(n[0], tuple) else n))
    _Tensor.device = property(device)  # type: ignore[assignment, method-assign]


_attach()
