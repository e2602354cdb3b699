"""tinygen: generative models from scratch, every gradient proved."""

from tinygen._tensor import Tensor, tensor
from tinygen.modes import enable_grad, hook, is_grad_enabled, no_grad, reference
from tinygen.tape import op
from tinygen.autograd import grad
from tinygen import _codegen  # makes the ops faster that are made from here on
from tinygen.ops import (
    abs, add, amax, argmax, cat, clamp, cos, cumsum, div, exp, expm1, flip, gather, log, log1p, logsumexp, matmul,
    maximum, mean, minimum, mul, neg, permute, pow, reshape, sigmoid, sign, sin, sqrt, stack, sub, sum, tanh, transpose,
    where,
)  # fmt: skip

__all__ = [
    "Tensor", "abs", "add", "amax", "argmax", "cat", "clamp", "cos", "cumsum", "div", "enable_grad", "exp", "expm1",
    "flip", "gather", "grad", "hook", "is_grad_enabled", "log", "log1p", "logsumexp", "matmul", "maximum", "mean",
    "minimum", "mul", "neg", "no_grad", "op", "permute", "pow", "reference", "reshape", "sigmoid", "sign", "sin",
    "sqrt", "stack", "sub", "sum", "tanh", "tensor", "transpose", "where",
]  # fmt: skip
