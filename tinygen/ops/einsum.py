"""Sums of products by Einstein's convention, as matrix products: these have kernels, and gradients of any order."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygen.ops.elementwise import mul
from tinygen.ops.linalg import matmul
from tinygen.ops.reduce import sum
from tinygen.ops.shape import broadcast_to, getitem, permute, reshape


def einsum(equation: Any, *operands: Any):
    """Products of arrays, summed over the axes that the result doesn't name: einsum("nij,njk->nik", x, y).

    equation: a letter for each axis of each operand; after "->" those of the result, without it all that stand there
    once, in alphabetical order. A letter twice in one operand is its diagonal; "..." stands for any further axes, which
    broadcast. Also einsum(x, [0, 1], y, [1, 2], [0, 2]), with numbers in place of letters. Operands are
    multiplied from left to right.
    """
    if not isinstance(equation, str):
        equation, operands = _spelled(equation, *operands)
    elif len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    terms, result = _parse(equation, [len(x.shape) for x in operands])
    x, letters = _diagonal(operands[0], terms[0])
    for i, (operand, term) in enumerate(zip(operands[1:], terms[1:], strict=True), 2):
        y, others = _diagonal(operand, term)
        x, letters = _pair(x, letters, y, others, {*result, *(c for t in terms[i:] for c in t)})
    x, letters = _summed(x, letters, set(result))
    if sorted(letters) != sorted(result):
        raise ValueError(f"einsum: the result names an axis that no operand has, or one twice, in {equation!r}")
    return permute(x, tuple(letters.index(c) for c in result))


def _spelled(*arguments: Any) -> tuple[str, tuple[Any, ...]]:
    """(equation, operands) of numbered axes."""
    numbered = [*arguments[1::2], *([arguments[-1]] if len(arguments) % 2 else [])]
    words = ["".join("..." if n is Ellipsis else chr(65 + n if n < 26 else 71 + n) for n in axes) for axes in numbered]
    count = len(arguments) // 2
    return ",".join(words[:count]) + "".join(f"->{word}" for word in words[count:]), arguments[: 2 * count : 2]


def _parse(equation: str, axes: list[int]) -> tuple[list[str], str]:
    """The letters of each operand and of the result; for "..." characters of their own, aligned at the end."""
    left, arrow, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(axes):
        raise ValueError(f"einsum: {equation!r} is for {len(terms)} operands, got {len(axes)}")
    named = [term.replace("...", "", 1) for term in terms]
    spare = [n - len(letters) for n, letters in zip(axes, named, strict=True)]
    for term, letters, n, extra in zip(terms, named, axes, spare, strict=True):
        if extra < 0 or (extra and term == letters) or not (letters.isalpha() or not letters):
            raise ValueError(f"einsum: {term!r} in {equation!r} doesn't fit an operand of {n} axes")
    most = max(n if term != letters else 0 for n, term, letters in zip(spare, terms, named, strict=True))
    dots = "".join(chr(0x2460 + i) for i in range(most))
    once = sorted(c for c in set(left) - set(",.") if left.count(c) == 1)
    result = result.replace("...", dots) if arrow else dots + "".join(once)
    return [t.replace("...", dots[most - n :]) for t, n in zip(terms, spare, strict=True)], result


def _diagonal(x: Any, letters: str) -> tuple[Any, list[str]]:
    """An operand with each of its letters once."""
    axes = list(letters)
    for c in sorted(set(letters)):
        while axes.count(c) > 1:
            i, j = [i for i, other in enumerate(axes) if other == c][:2]
            rest = [k for k in range(len(axes)) if k not in (i, j)]
            n = x.shape[i]
            if x.shape[j] != n:
                raise ValueError(f"einsum: the axes {c!r} of an operand have lengths {n} and {x.shape[j]}")
            x = getitem(permute(x, (*rest, i, j)), (..., np.arange(n), np.arange(n)))
            axes = [*(axes[k] for k in rest), c]
    return x, axes


def _summed(x: Any, letters: list[str], needed: set[str]) -> tuple[Any, list[str]]:
    """x summed over the axes that nobody needs."""
    over = tuple(i for i, c in enumerate(letters) if c not in needed)
    return (sum(x, over) if over else x), [c for c in letters if c in needed]


def _pair(x: Any, a: list[str], y: Any, b: list[str], needed: set[str]) -> tuple[Any, list[str]]:
    """The product of two operands, summed over the axes that nobody needs after it."""
    x, a = _summed(x, a, needed | set(b))
    y, b = _summed(y, b, needed | set(a))
    shared = [c for c in a if c in b]
    batch, inner = [c for c in shared if c in needed], [c for c in shared if c not in needed]
    left, right = [c for c in a if c not in b], [c for c in b if c not in a]
    size = dict(zip(b, y.shape, strict=True))
    for c, n in zip(a, x.shape, strict=True):
        if size.setdefault(c, n) != n and 1 not in (n, size[c]):
            raise ValueError(f"einsum: the axis {c!r} has lengths {n} and {size[c]}")
        size[c] = n if size[c] == 1 else size[c]

    def stacked(z: Any, letters: list[str], *groups: list[str]) -> Any:
        """z as a stack of matrices, one for each element of the batch."""
        z = permute(z, tuple(letters.index(c) for c in (*batch, *groups[0], *groups[1])))
        lead = z.shape[: len(batch)]
        z = broadcast_to(z, (*lead, *(size[c] for c in (*groups[0], *groups[1]))))
        return reshape(z, (*lead, *(math.prod(size[c] for c in group) for group in groups)))

    product = (matmul if inner else mul)(stacked(x, a, left, inner), stacked(y, b, inner, right))
    letters = [*batch, *left, *right]
    return reshape(product, tuple(size[c] for c in letters)), letters
