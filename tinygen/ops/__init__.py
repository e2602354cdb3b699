"""The mathematics: everything that can be differentiated. Network functions are in `tinygen.nn.functional`.

Importing this package gives Tensor its operators and methods: they are these ops.
"""

from typing import Any

from tinygen._tensor import Tensor as _Tensor
from tinygen.ops.conv import conv2d, conv2d_weight, conv_transpose2d
from tinygen.ops.coupling import affine_coupling, channel_affine
from tinygen.ops.device import device, new_tensor, to
from tinygen.ops.activations import elu, leaky_relu, relu, sigmoid, silu, softplus, tanh
from tinygen.ops.einsum import einsum
from tinygen.ops.elementwise import (
    abs, add, clamp, cos, div, eq, exp, expm1, ge, gt, le, log, log1p, lt, maximum, minimum, mul, ne, neg, pow, rsqrt,
    sign, sin, sqrt, square, sub, where,
)  # fmt: skip
from tinygen.ops.join import cat, stack
from tinygen.ops.linalg import linear, matmul, outer
from tinygen.ops.matrices import cholesky, inverse
from tinygen.ops.nade import nade
from tinygen.ops.norms import norm
from tinygen.ops.ranks import all_reduce, batch_logsumexp, batch_mean
from tinygen.ops.order import argsort, max, min, sort, topk
from tinygen.ops.reduce import (
    amax, amin, argmax, argmin, cumsum, log_softmax, logsumexp, mean, softmax, sum,
)  # fmt: skip
from tinygen.ops.shape import (
    broadcast_to, expand, flip, gather, getitem, index_add, index_select, pad, permute, reshape, roll,
    scatter_add, sum_to, transpose, tril, triu,
)  # fmt: skip
from tinygen.ops.special import erf
from tinygen.ops.statistics import prod, std, var
from tinygen.ops.views import chunk, flatten, repeat, split, squeeze, unbind, unsqueeze


def _attach() -> None:
    operators: dict[str, Any] = {"add": add, "sub": sub, "mul": mul, "truediv": div, "matmul": matmul, "pow": pow}
    for name, op in operators.items():
        setattr(_Tensor, f"__{name}__", op)
        setattr(_Tensor, f"__r{name}__", lambda a, b, op=op: op(b, a))
    for op in (gt, ge, lt, le, eq, ne, getitem, neg):
        setattr(_Tensor, f"__{op.__name__}__", op)
    for op in (
        abs, amax, amin, argmax, argmin, argsort, cholesky, chunk, clamp, cos, cumsum, erf, exp, expand, expm1,
        flatten, flip, gather, index_select, inverse, log, log1p, log_softmax, logsumexp, max, mean, min,
        new_tensor, norm, outer, pow, prod, relu, repeat, roll, rsqrt, sigmoid, sign, sin, softmax, sort, split,
        sqrt, square, squeeze, std, sum, tanh, to, topk, transpose, tril, triu, unbind, unsqueeze, var,
    ):  # fmt: skip
        setattr(_Tensor, op.__name__, op)
    # PyTorch takes these either as one tuple or as several numbers.
    shapes: dict[str, Any] = {"reshape": reshape, "view": reshape, "permute": permute}
    for name, op in shapes.items():
        setattr(_Tensor, name, lambda a, *n, op=op: op(a, n[0] if len(n) == 1 and isinstance(n[0], tuple) else n))
    _Tensor.device = property(device)  # type: ignore[assignment, method-assign]


_attach()
