"""tinygen: generative models from scratch, every gradient proved."""

from tinygen._tensor import Tensor, tensor
from tinygen.modes import enable_grad, hook, is_grad_enabled, no_grad, reference
from tinygen.tape import op
from tinygen.autograd import grad
from tinygen import _codegen  # makes the ops faster that are made from here on
from tinygen.ops import (
    abs, add, amax, amin, argmax, argmin, argsort, cat, cholesky, chunk, clamp, cos, cumsum, div, einsum, erf, exp,
    expm1, flatten, flip, gather, index_select, inverse, log, log1p, log_softmax, logsumexp, matmul, max, maximum,
    mean, min, minimum, mul, neg, norm, outer, permute, pow, prod, reshape, roll, rsqrt, sigmoid, sign, sin,
    softmax, sort, split, sqrt, square, squeeze, stack, std, sub, sum, tanh, topk, transpose, tril, triu, unbind,
    unsqueeze, var, where,
)  # fmt: skip
from tinygen import linalg
from tinygen.linalg import slogdet

__all__ = [
    "Tensor", "abs", "add", "amax", "amin", "argmax", "argmin", "argsort", "cat", "cholesky", "chunk", "clamp",
    "cos", "cumsum", "div", "einsum", "enable_grad", "erf", "exp", "expm1", "flatten", "flip", "gather", "grad",
    "hook", "index_select", "inverse", "is_grad_enabled", "linalg", "log", "log1p", "log_softmax", "logsumexp",
    "matmul", "max", "maximum", "mean", "min", "minimum", "mul", "neg", "no_grad", "norm", "op", "outer", "permute",
    "pow", "prod", "reference", "reshape", "roll", "rsqrt", "sigmoid", "sign", "sin", "slogdet", "softmax", "sort",
    "split", "sqrt", "square", "squeeze", "stack", "std", "sub", "sum", "tanh", "tensor", "topk", "transpose",
    "tril", "triu", "unbind", "unsqueeze", "var", "where",
]  # fmt: skip
